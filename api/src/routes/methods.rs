//! Saved payment methods, and pages that gateways host.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::gateways::{Form, GatewayName, Next};
use shared::ids::{PaymentId, PaymentMethodId};
use shared::methods::{self, Method, SetupWish};
use shared::payments::{self, PaymentMethod, PaymentStatus, Purchase};

use super::payments::go_on;
use crate::ApiState;
use crate::extract::{self, Customer, Path, Query};
use crate::problem::Problem;

/// The customer's saved methods.
pub(crate) async fn list(
    State(state): State<ApiState>,
    Customer(customer): Customer,
) -> Result<Json<Vec<Value>>, Problem> {
    let methods = methods::list(&state.app, customer.id).await?;
    Ok(Json(methods.iter().map(body).collect()))
}

fn body(method: &Method) -> Value {
    json!({
        "id": method.id,
        "gateway": method.gateway.as_str(),
        "kind": method.kind,
        "brand": method.brand,
        "last_four": method.last_four,
        "expires_month": method.expires_month,
        "expires_year": method.expires_year,
        "created_at": method.created_at,
    })
}

/// A wish to save a method.
#[derive(Deserialize)]
pub(crate) struct SetupBody {
    payment_method: PaymentMethod,
    return_url: Option<String>,
}

/// Begins to save a method for renewals; 201 with how the customer goes on.
pub(crate) async fn begin(
    State(state): State<ApiState>,
    Customer(customer): Customer,
    extract::Json(wish): extract::Json<SetupBody>,
) -> Result<Response, Problem> {
    let gateway = wish.payment_method.gateway();
    let back = payments::setup_urls(&state.app, gateway, wish.return_url.as_deref())?;
    let wish = SetupWish { customer, gateway, return_url: back.0, cancel_url: back.1 };
    let setup = methods::begin(&state.app, &wish).await?;
    let mut answer = json!({ "setup_id": setup.id, "gateway": gateway.as_str() });
    match &setup.next {
        Next::ClientSecret(secret) => {
            answer["client_secret"] = json!(secret.expose_secret());
            answer["publishable_key"] = json!(state.app.gateways.stripe_publishable_key());
        }
        Next::Approve(url) => answer["approval_url"] = json!(url),
        Next::Nothing => {}
    }
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// Makes the gateway forget a method.
pub(crate) async fn detach(
    State(state): State<ApiState>,
    Customer(customer): Customer,
    Path(id): Path<PaymentMethodId>,
) -> Result<StatusCode, Problem> {
    methods::detach(&state.app, customer.id, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What PayPal's redirect after an approved setup carries.
#[derive(Deserialize)]
pub(crate) struct SetupReturn {
    approval_token_id: Option<String>,
    token: Option<String>,
    to: Option<String>,
}

/// The customer's browser after approving a setup at PayPal: the method is read and kept.
pub(crate) async fn paypal_setup(
    State(state): State<ApiState>,
    Query(back): Query<SetupReturn>,
) -> Result<Response, Problem> {
    let target = payments::allowed(&state.app.config, back.to);
    if let Some(id) = back.approval_token_id.or(back.token) {
        // The browser proves nothing; where this fails, the event or another return does it.
        if let Err(error) = methods::finish(&state.app, GatewayName::Paypal, &id).await {
            tracing::warn!(%error, "a setup was not read on return");
        }
    }
    Ok(match target {
        Some(url) => axum::response::Redirect::to(&url).into_response(),
        None => Json(json!({ "message": "Payment method saved" })).into_response(),
    })
}

/// A plan to buy on Stripe's own page.
#[derive(Deserialize)]
pub(crate) struct SessionBody {
    #[serde(alias = "token_plan_id", alias = "full_plan_id")]
    plan_id: i32,
    success_url: Option<String>,
    cancel_url: Option<String>,
    quantity: Option<u32>,
    coupon: Option<String>,
}

/// Opens a page of Stripe's on which the customer pays for a plan.
pub(crate) async fn checkout_session(
    State(state): State<ApiState>,
    Customer(customer): Customer,
    extract::Json(body): extract::Json<SessionBody>,
) -> Result<Response, Problem> {
    let wish = Purchase {
        customer,
        plan_id: body.plan_id,
        method: PaymentMethod::Stripe,
        form: Form::HostedPage,
        quantity: body.quantity.unwrap_or(1),
        success_url: body.success_url,
        cancel_url: body.cancel_url,
        coupon: body.coupon,
        key: None,
    };
    let purchased = payments::purchase(&state.app, &wish).await?;
    let url = match purchased.next {
        Next::Approve(url) => Some(url),
        Next::ClientSecret(_) | Next::Nothing => None,
    };
    let answer = json!({
        "session_id": purchased.payment.gateway_reference,
        "url": url,
        "message": "Checkout session created",
        "payment_id": purchased.payment.id,
        "status": purchased.payment.status.as_str(),
    });
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// Where to come back to.
#[derive(Deserialize, Default)]
pub(crate) struct PortalBody {
    return_url: Option<String>,
}

/// Opens Stripe's page on which the customer manages his methods.
pub(crate) async fn customer_portal(
    State(state): State<ApiState>,
    Customer(customer): Customer,
    extract::Json(body): extract::Json<PortalBody>,
) -> Result<Json<Value>, Problem> {
    let return_url = payments::portal_return(&state.app, body.return_url.as_deref())?;
    let app = &state.app;
    let record = methods::gateway_customer(app, &customer, GatewayName::Stripe).await?;
    let gateway = app.gateways.get(GatewayName::Stripe).map_err(shared::Error::from)?;
    let url = gateway.portal(&record, &return_url).await.map_err(shared::Error::from)?;
    Ok(Json(json!({ "url": url })))
}

/// Which payment a hosted page's browser comes back from.
#[derive(Deserialize)]
pub(crate) struct PageReturn {
    payment: PaymentId,
}

/// The payer's browser after paying on Stripe's page. It proves nothing: the webhook does.
pub(crate) async fn page_return(
    State(state): State<ApiState>,
    Query(back): Query<PageReturn>,
) -> Result<Response, Problem> {
    let redirect = payments::redirect_of_payment(&state.app, back.payment).await?;
    let status = PaymentStatus::Pending.as_str();
    Ok(go_on(redirect.success_url, redirect.payment_id, status))
}

/// The payer's browser after leaving Stripe's page. The page stays payable until it ends.
pub(crate) async fn page_cancel(
    State(state): State<ApiState>,
    Query(back): Query<PageReturn>,
) -> Result<Response, Problem> {
    let redirect = payments::redirect_of_payment(&state.app, back.payment).await?;
    let status = PaymentStatus::Pending.as_str();
    Ok(go_on(redirect.cancel_url, redirect.payment_id, status))
}
