//! What operators do to payments and events. Every deed is recorded before it is done.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::audit::{self, Deed};
use shared::ids::{PaymentId, RefundId, WebhookEventId};
use shared::money::Money;
use shared::payments::{self, Refund, RefundChoice, RefundWish};
use shared::webhooks::{self, EventStatus};

use super::{BARE_LIST, idempotency_key};
use crate::ApiState;
use crate::extract::{self, Admin, Path, Query};
use crate::problem::Problem;

/// What may be refunded, and what the unused share is worth.
pub(crate) async fn quote(
    State(state): State<ApiState>,
    Admin(_): Admin,
    Path(id): Path<PaymentId>,
) -> Result<Json<Value>, Problem> {
    let quote = payments::quote(&state.app, id).await?;
    Ok(Json(json!({
        "payment_id": id,
        "captured": decimal(quote.captured),
        "refundable": decimal(quote.refundable),
        "quoted": decimal(quote.quoted),
        "currency": quote.captured.currency,
    })))
}

fn decimal(money: Money) -> String {
    money.to_decimal().to_string()
}

/// A wish to refund.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefundBody {
    amount: Option<Decimal>,
    reason: String,
    tokens: Option<RefundChoice>,
    surplus_object: Option<String>,
    idempotency_key: Option<String>,
}

/// Refunds a payment, whole or in part; with a key it may be repeated.
pub(crate) async fn refund(
    State(state): State<ApiState>,
    Admin(operator): Admin,
    Path(id): Path<PaymentId>,
    headers: HeaderMap,
    extract::Json(body): extract::Json<RefundBody>,
) -> Result<Json<Value>, Problem> {
    let actor = operator.principal();
    let reason = reason(&body.reason)?;
    let refund_id = match idempotency_key(&headers, body.idempotency_key)? {
        Some(key) => RefundId::of_key(id, &actor, &key),
        None => RefundId::new(state.app.clock.now()),
    };
    let asked = json!({ "amount": body.amount, "refund_id": refund_id });
    record(&state, (&actor, "payment.refund", id.to_string()), reason, asked, &headers).await?;
    let wish = RefundWish {
        id: refund_id,
        payment_id: id,
        amount: body.amount,
        choice: body.tokens.unwrap_or(RefundChoice::Proportional),
        surplus_object: body.surplus_object,
        reason: reason.to_owned(),
        requested_by: actor,
    };
    let refund = payments::refund(&state.app, &wish).await?;
    let quote = payments::quote(&state.app, id).await?;
    Ok(Json(refund_body(&refund, quote.captured)))
}

/// The payment's refunds, oldest first.
pub(crate) async fn refunds(
    State(state): State<ApiState>,
    Admin(_): Admin,
    Path(id): Path<PaymentId>,
) -> Result<Json<Vec<Value>>, Problem> {
    let captured = payments::quote(&state.app, id).await?.captured;
    let refunds = payments::refunds_of(&state.app, id).await?;
    Ok(Json(refunds.iter().map(|refund| refund_body(refund, captured)).collect()))
}

fn refund_body(refund: &Refund, captured: Money) -> Value {
    let amount = Money::new(refund.amount_minor, captured.currency);
    json!({
        "id": refund.id,
        "payment_id": refund.payment_id,
        "amount": decimal(amount),
        "currency": amount.currency,
        "status": refund.status.as_str(),
        "origin": refund.origin.as_str(),
        "tokens": refund.choice.as_str(),
        "gateway_refund_id": refund.gateway_refund_id,
        "failure": refund.failure_code,
        "reason": refund.reason,
        "requested_by": refund.requested_by,
        "created_at": refund.created_at,
    })
}

/// Says that a manual payment's money arrived.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfirmBody {
    reference: Option<String>,
    reason: String,
}

/// Books a manual payment as paid; may be repeated.
pub(crate) async fn confirm(
    State(state): State<ApiState>,
    Admin(operator): Admin,
    Path(id): Path<PaymentId>,
    headers: HeaderMap,
    extract::Json(body): extract::Json<ConfirmBody>,
) -> Result<Json<Value>, Problem> {
    let actor = operator.principal();
    let reference = body.reference.as_deref().map(reference).transpose()?;
    let asked = json!({ "reference": reference });
    let deed = (actor.as_str(), "payment.confirm", id.to_string());
    record(&state, deed, reason(&body.reason)?, asked, &headers).await?;
    let status = payments::confirm(&state.app, id, reference).await?;
    Ok(Json(json!({ "payment_id": id, "status": status.as_str() })))
}

fn reference(text: &str) -> Result<&str, Problem> {
    let is_usable = (1..=100).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    let wrong = "must be 1 to 100 printable ASCII characters without blanks";
    if is_usable { Ok(text) } else { Err(Problem::field("reference", wrong)) }
}

/// Asks the gateway how the payment stands, and books the answer.
pub(crate) async fn reconcile(
    State(state): State<ApiState>,
    Admin(operator): Admin,
    Path(id): Path<PaymentId>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let actor = operator.principal();
    let deed = (actor.as_str(), "payment.reconcile", id.to_string());
    record(&state, deed, "", json!({}), &headers).await?;
    let differences = payments::compare_one(&state.app, id).await?;
    Ok(Json(json!({ "payment_id": id, "differences": differences })))
}

/// Which events to list.
#[derive(Deserialize)]
pub(crate) struct EventFilter {
    status: Option<EventStatus>,
}

/// The newest hundred events, with why they stand where they do.
pub(crate) async fn events(
    State(state): State<ApiState>,
    Admin(_): Admin,
    Query(filter): Query<EventFilter>,
) -> Result<Json<Vec<Value>>, Problem> {
    let events = webhooks::list(&state.app, filter.status, BARE_LIST).await?;
    let body = |event: &webhooks::EventView| {
        json!({
            "id": event.id,
            "gateway": event.gateway.as_str(),
            "gateway_event_id": event.gateway_event_id,
            "kind": event.kind,
            "status": event.status.as_str(),
            "attempts": event.attempts,
            "last_error": event.last_error,
            "received_at": event.received_at,
            "processed_at": event.processed_at,
        })
    };
    Ok(Json(events.iter().map(body).collect()))
}

/// Lets an event be acted on again.
pub(crate) async fn reprocess(
    State(state): State<ApiState>,
    Admin(operator): Admin,
    Path(id): Path<WebhookEventId>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let actor = operator.principal();
    let deed = (actor.as_str(), "webhook_event.reprocess", id.to_string());
    record(&state, deed, "", json!({}), &headers).await?;
    webhooks::reprocess(&state.app, id).await?;
    Ok(Json(json!({ "id": id, "status": "received" })))
}

fn reason(text: &str) -> Result<&str, Problem> {
    let is_usable = (1..=500).contains(&text.chars().count()) && !text.contains('\0');
    if is_usable { Ok(text) } else { Err(Problem::field("reason", "must be 1 to 500 characters")) }
}

async fn record(
    state: &ApiState,
    (actor, action, subject): (&str, &'static str, String),
    reason: &str,
    asked: Value,
    headers: &HeaderMap,
) -> Result<(), Problem> {
    let request_id = headers.get("x-request-id").and_then(|id| id.to_str().ok());
    let deed = Deed { actor, action, subject, reason, asked, request_id };
    Ok(audit::record(&state.app, &deed).await?)
}
