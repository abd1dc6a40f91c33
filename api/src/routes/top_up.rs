//! Buying a pack by itself when few tokens are left.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use rust_decimal::Decimal;
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::customers::Identity;
use shared::gateways::Next;
use shared::money::Money;
use shared::top_ups::{self, TopUpWish};

use crate::ApiState;
use crate::extract::{self, Customer};
use crate::problem::Problem;

/// What the customer wants; members that are not ours are ignored.
#[derive(Deserialize)]
pub(crate) struct Body {
    threshold: u64,
    plan_id: i32,
    max_per_period: Option<u32>,
    max_amount_per_period: Option<Decimal>,
}

/// The customer's setting and what was bought by it.
pub(crate) async fn show(
    State(state): State<ApiState>,
    Customer(customer): Customer,
) -> Result<Json<Value>, Problem> {
    answer(&state, &customer).await
}

/// Switches it on, or changes it; below the line a pack is bought at once.
pub(crate) async fn set(
    State(state): State<ApiState>,
    Customer(customer): Customer,
    extract::Json(body): extract::Json<Body>,
) -> Result<Json<Value>, Problem> {
    let wish = TopUpWish {
        customer: customer.clone(),
        threshold: body.threshold,
        plan_id: body.plan_id,
        max_per_period: body.max_per_period,
        max_amount_per_period: body.max_amount_per_period,
    };
    top_ups::set(&state.app, &wish).await?;
    answer(&state, &customer).await
}

/// Switches it off.
pub(crate) async fn switch_off(
    State(state): State<ApiState>,
    Customer(customer): Customer,
) -> Result<StatusCode, Problem> {
    top_ups::switch_off(&state.app, customer.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How the customer finishes the payment that failed because he was away.
pub(crate) async fn confirm(
    State(state): State<ApiState>,
    Customer(customer): Customer,
) -> Result<Json<Value>, Problem> {
    let confirmation = top_ups::confirm(&state.app, customer.id).await?;
    let mut answer = json!({
        "payment_id": confirmation.payment_id,
        "status": confirmation.status.as_str(),
    });
    match &confirmation.next {
        Next::ClientSecret(secret) => {
            answer["client_secret"] = json!(secret.expose_secret());
            answer["publishable_key"] = json!(state.app.gateways.stripe_publishable_key());
        }
        Next::Approve(url) => answer["approval_url"] = json!(url),
        Next::Nothing => {}
    }
    Ok(Json(answer))
}

async fn answer(state: &ApiState, customer: &Identity) -> Result<Json<Value>, Problem> {
    let Some(view) = top_ups::view(&state.app, customer.id).await? else {
        return Ok(Json(json!({ "enabled": false })));
    };
    let currency = view.price.currency;
    let decimal = |minor: i64| Money::new(minor, currency).to_decimal().to_string();
    Ok(Json(json!({
        "enabled": view.off.is_none(),
        "threshold": view.threshold,
        "plan_id": view.plan_id,
        "price": decimal(view.price.minor),
        "currency": currency,
        "max_per_period": view.max_per_period,
        "max_amount_per_period": decimal(view.max_amount_per_period.minor),
        "period_started_at": view.period_starts_at,
        "bought_this_period": {
            "count": view.bought.count,
            "amount": decimal(view.bought.minor),
        },
        "pending_payment_id": view.pending,
        "unconfirmed_payment_id": view.unconfirmed,
        "failures": view.failures,
        "disabled_at": view.off.map(|(_, at)| at),
        "disabled_reason": view.off.map(|(why, _)| why.as_str()),
        "created_at": view.created_at,
        "updated_at": view.updated_at,
    })))
}
