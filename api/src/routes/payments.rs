//! Buying, and what was paid.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::customers::Identity;
use shared::gateways::{Form, GatewayName, Next};
use shared::ids::PaymentId;
use shared::methods;
use shared::payments::{self, PaymentMethod, PaymentStatus, PaymentView, Purchase, Purchased};
use shared::subscriptions;

use super::{BARE_LIST, idempotency_key, replayed, subscription, user};
use crate::ApiState;
use crate::extract::{self, Customer, Path, Query};
use crate::problem::Problem;

/// A purchase; members that are not ours are ignored, as old front ends send some.
#[derive(Deserialize)]
pub(crate) struct Body {
    #[serde(alias = "token_plan_id", alias = "full_plan_id")]
    plan_id: i32,
    payment_method: PaymentMethod,
    success_url: Option<String>,
    cancel_url: Option<String>,
    coupon: Option<String>,
    quantity: Option<u32>,
}

/// Opens a payment; 201 with how the payer goes on. With a key it may be repeated: what is open
/// goes on, and no secret is kept with the key, so it is read from the gateway again.
pub(crate) async fn purchase(
    State(state): State<ApiState>,
    Customer(customer): Customer,
    headers: HeaderMap,
    extract::Json(body): extract::Json<Body>,
) -> Result<Response, Problem> {
    let wish = Purchase {
        customer: customer.clone(),
        plan_id: body.plan_id,
        method: body.payment_method,
        form: Form::Intent,
        quantity: body.quantity.unwrap_or(1),
        success_url: body.success_url,
        cancel_url: body.cancel_url,
        coupon: body.coupon,
        key: idempotency_key(&headers, None)?,
    };
    let purchased = payments::purchase(&state.app, &wish).await?;
    let mut answer = purchase_answer(&state, &purchased, wish.method);
    if purchased.payment.status == PaymentStatus::Completed {
        answer["message"] = json!("Subscription activated");
        answer["subscription"] = subscription_of(&state, &customer).await?;
    }
    let answer = (StatusCode::CREATED, Json(answer)).into_response();
    Ok(if purchased.is_replay { replayed(answer) } else { answer })
}

async fn subscription_of(state: &ApiState, customer: &Identity) -> Result<Value, Problem> {
    let view = subscriptions::current(&state.app, customer.id).await?;
    let is_on_file = methods::is_on_file(&state.app, customer.id).await?;
    Ok(subscription::body(&view, is_on_file, state.app.clock.now()))
}

fn purchase_answer(state: &ApiState, purchased: &Purchased, method: PaymentMethod) -> Value {
    let payment = &purchased.payment;
    let mut answer = json!({
        "message": "Payment created",
        "payment_id": payment.id,
        "status": payment.status.as_str(),
        "payment_method": method.as_str(),
        "amount": payment.amount.to_decimal().to_string(),
        "currency": payment.amount.currency,
        "transaction_id": payment.gateway_reference,
    });
    match &purchased.next {
        Next::ClientSecret(secret) => {
            answer["client_secret"] = json!(secret.expose_secret());
            answer["publishable_key"] = json!(state.app.gateways.stripe_publishable_key());
        }
        Next::Approve(url) => answer["approval_url"] = json!(url),
        Next::Nothing if method.gateway() == GatewayName::Manual => {
            answer["instructions"] = json!(state.app.config.manual_instructions);
        }
        Next::Nothing => {}
    }
    answer
}

/// The newest hundred payments.
pub(crate) async fn list(
    State(state): State<ApiState>,
    Customer(customer): Customer,
) -> Result<Json<Vec<Value>>, Problem> {
    let payments = payments::list(&state.app, customer.id, BARE_LIST).await?;
    Ok(Json(payments.iter().map(body).collect()))
}

/// One payment; another customer's is not found.
pub(crate) async fn detail(
    State(state): State<ApiState>,
    Customer(customer): Customer,
    Path(id): Path<PaymentId>,
) -> Result<Json<Value>, Problem> {
    Ok(Json(body(&payments::find(&state.app, customer.id, id).await?)))
}

/// Captures an approved PayPal order now, without waiting for its webhook.
pub(crate) async fn capture(
    State(state): State<ApiState>,
    Customer(customer): Customer,
    Path(id): Path<PaymentId>,
) -> Result<Json<Value>, Problem> {
    payments::capture(&state.app, customer.id, id).await?;
    Ok(Json(body(&payments::find(&state.app, customer.id, id).await?)))
}

/// Cancels a payment that nobody has paid: at the gateway first, then here.
pub(crate) async fn cancel(
    State(state): State<ApiState>,
    Customer(customer): Customer,
    Path(id): Path<PaymentId>,
) -> Result<Json<Value>, Problem> {
    payments::cancel(&state.app, customer.id, id).await?;
    Ok(Json(body(&payments::find(&state.app, customer.id, id).await?)))
}

/// A payment on the wire.
fn body(payment: &PaymentView) -> Value {
    json!({
        "id": payment.id,
        "user": user(&payment.external_id),
        "user_email": payment.email,
        "subscription_id": payment.subscription_id,
        "plan_id": payment.plan_id,
        "plan_name": payment.plan_name,
        "amount": payment.amount.to_decimal().to_string(),
        "currency": payment.amount.currency,
        "refunded_amount": payment.refunded.to_decimal().to_string(),
        "payment_date": payment.completed_at,
        "payment_method": payment.method.as_str(),
        "status": payment.status.as_str(),
        "transaction_id": payment.gateway_reference,
        "failure": payment.failure,
        "receipt_url": null,
        "ref_id": payment.gateway_reference,
        "authority": payment.gateway_reference,
        "created_at": payment.created_at,
        "updated_at": payment.updated_at,
    })
}

/// What PayPal's redirect carries.
#[derive(Deserialize)]
pub(crate) struct Token {
    token: String,
}

/// The payer's browser after approving: captures (as the webhook does), then goes on.
pub(crate) async fn paypal_return(
    State(state): State<ApiState>,
    Query(Token { token }): Query<Token>,
) -> Result<Response, Problem> {
    let redirect = payments::redirect_of(&state.app, &token).await?;
    // The browser proves nothing; a capture that fails here is made by webhook or sweep.
    let status = match payments::capture_order(&state.app, &token).await {
        Ok(status) => status,
        Err(error) => {
            tracing::warn!(%error, "capture on return failed; the worker goes on");
            PaymentStatus::Pending
        }
    };
    Ok(go_on(redirect.success_url, redirect.payment_id, status.as_str()))
}

/// The payer's browser after cancelling: PayPal is asked before anything is cancelled.
pub(crate) async fn paypal_cancel(
    State(state): State<ApiState>,
    Query(Token { token }): Query<Token>,
) -> Result<Response, Problem> {
    let redirect = payments::redirect_of(&state.app, &token).await?;
    let status = match payments::cancel_order(&state.app, &token).await {
        Ok(status) => status,
        Err(error) => {
            tracing::warn!(%error, "not cancelled on return; it ends by itself");
            PaymentStatus::Pending
        }
    };
    Ok(go_on(redirect.cancel_url, redirect.payment_id, status.as_str()))
}

/// To the application's page where it gave one, else a plain answer.
pub(super) fn go_on(target: Option<String>, payment_id: PaymentId, status: &str) -> Response {
    match target {
        Some(url) => Redirect::to(&url).into_response(),
        None => Json(json!({ "payment_id": payment_id, "status": status })).into_response(),
    }
}
