//! The control API under `/_sim/`: for tests in any language, and for a person with `curl`.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::TimeDelta;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::acts::Refusal;
use crate::delivery::DeliveryStatus;
use crate::faults::Fault;
use crate::paypal::Funding;
use crate::truth;
use crate::world::Core;
use crate::{Gateway, SimEvent};

type Shared = State<Arc<Core>>;

/// All routes of the control API.
pub(crate) fn routes() -> Router<Arc<Core>> {
    Router::new()
        .route("/_sim/events", get(events))
        .route("/_sim/events/{id}", get(event))
        .route("/_sim/events/{id}/redeliver", post(redeliver))
        .route("/_sim/deliveries", get(deliveries))
        .route("/_sim/deliveries/pause", post(pause))
        .route("/_sim/deliveries/resume", post(resume))
        .route("/_sim/webhooks", put(set_webhooks))
        .route("/_sim/faults", get(faults).post(set_fault).delete(clear_faults))
        .route("/_sim/seed", post(seed))
        .route("/_sim/calls", get(calls))
        .route("/_sim/truth", get(truths))
        .route("/_sim/clock", get(clock).post(advance))
        .route("/_sim/reset", post(reset))
        .route("/_sim/stripe/intents/{id}/pay", post(pay_stripe))
        .route("/_sim/stripe/intents/{id}/authenticate", post(authenticate_stripe))
        .route("/_sim/stripe/intents/{id}/settle", post(settle_stripe))
        .route("/_sim/stripe/refunds/{id}/settle", post(settle_stripe_refund))
        .merge(crate::stripe::control::routes())
        .route("/_sim/paypal/orders/{id}/approve", post(approve_paypal))
        .route("/_sim/paypal/captures/{id}/settle", post(settle_paypal))
        .route("/_sim/paypal/next-capture", post(next_capture))
        .route("/_sim/paypal/expire-tokens", post(expire_tokens))
        .route("/_sim/paypal/root.pem", get(root_pem))
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (StatusCode::UNPROCESSABLE_ENTITY, Json(self)).into_response()
    }
}

fn event_json(event: &SimEvent, status: DeliveryStatus) -> Value {
    json!({
        "gateway": event.gateway,
        "id": event.id,
        "kind": event.kind,
        "object_id": event.object_id,
        "payment_id": event.payment_id,
        "created_at": event.created_at,
        "delivery": status,
    })
}

#[derive(Debug, Deserialize)]
struct Narrow {
    gateway: Option<Gateway>,
    payment_id: Option<String>,
    kind: Option<String>,
}

/// `GET /_sim/events?gateway=&payment_id=&kind=`
async fn events(State(core): Shared, Query(narrow): Query<Narrow>) -> Json<Value> {
    let events = core.events();
    let events = events.iter().filter(|(event, _)| {
        narrow.gateway.is_none_or(|gateway| gateway == event.gateway)
            && narrow.kind.as_ref().is_none_or(|kind| *kind == event.kind)
            && (narrow.payment_id.is_none() || narrow.payment_id == event.payment_id)
    });
    let events: Vec<_> = events.map(|(event, status)| event_json(event, *status)).collect();
    Json(json!({ "events": events }))
}

/// `GET /_sim/events/{id}`: exact body and headers signed now, to be posted by the caller.
async fn event(State(core): Shared, Path(id): Path<String>) -> Response {
    let events = core.events();
    let Some((event, status)) = events.iter().find(|(event, _)| event.id == id) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let headers = core.signed(event.gateway, &event.body);
    let headers: serde_json::Map<_, _> =
        headers.into_iter().map(|(name, value)| (name, json!(value))).collect();
    let mut body = event_json(event, *status);
    body["headers"] = json!(headers);
    body["body"] = json!(String::from_utf8_lossy(&event.body));
    body["body_base64"] = json!(BASE64_STANDARD.encode(&event.body));
    Json(body).into_response()
}

/// `POST /_sim/events/{id}/redeliver`
async fn redeliver(State(core): Shared, Path(id): Path<String>) -> StatusCode {
    if core.redeliver(&id) { StatusCode::ACCEPTED } else { StatusCode::NOT_FOUND }
}

/// `GET /_sim/deliveries`: every attempt so far and how many deliveries are to come.
async fn deliveries(State(core): Shared) -> Json<Value> {
    let world = core.world();
    Json(json!({
        "pending": world.outbox.pending(),
        "paused": world.outbox.paused,
        "attempts": world.outbox.attempts,
    }))
}

/// `POST /_sim/deliveries/pause`
async fn pause(State(core): Shared) -> StatusCode {
    core.pause(true);
    StatusCode::NO_CONTENT
}

/// `POST /_sim/deliveries/resume`
async fn resume(State(core): Shared) -> StatusCode {
    core.pause(false);
    StatusCode::NO_CONTENT
}

#[derive(Debug, Deserialize)]
struct Webhooks {
    stripe: Option<String>,
    paypal: Option<String>,
}

/// `PUT /_sim/webhooks {"stripe": url|null, "paypal": url|null}`
async fn set_webhooks(State(core): Shared, Json(urls): Json<Webhooks>) -> StatusCode {
    core.set_webhook_urls(urls.stripe, urls.paypal);
    StatusCode::NO_CONTENT
}

/// `GET /_sim/faults`
async fn faults(State(core): Shared) -> Json<Value> {
    Json(json!({ "faults": core.world().faults.list() }))
}

/// `POST /_sim/faults {"gateway": …, "matching": …, "trouble": {"kind": …}, "when": {"next": 1}}`
async fn set_fault(State(core): Shared, Json(fault): Json<Fault>) -> StatusCode {
    core.world().faults.add(fault);
    StatusCode::NO_CONTENT
}

/// `DELETE /_sim/faults`
async fn clear_faults(State(core): Shared) -> StatusCode {
    core.world().faults.clear();
    StatusCode::NO_CONTENT
}

#[derive(Debug, Deserialize)]
struct Seed {
    seed: u64,
}

/// `POST /_sim/seed {"seed": 7}`
async fn seed(State(core): Shared, Json(Seed { seed }): Json<Seed>) -> StatusCode {
    core.world().faults.seed(seed);
    StatusCode::NO_CONTENT
}

/// `GET /_sim/calls`
async fn calls(State(core): Shared) -> Json<Value> {
    let world = core.world();
    let calls: Vec<_> = world.journal.iter().collect();
    Json(json!({ "calls": calls }))
}

/// `GET /_sim/truth`
async fn truths(State(core): Shared) -> Json<Value> {
    Json(json!({ "objects": truth::all(&core.world()) }))
}

/// `GET /_sim/clock`
async fn clock(State(core): Shared) -> Json<Value> {
    let offset_ms = core.clock.offset().num_milliseconds();
    Json(json!({ "now": core.clock.now(), "offset_ms": offset_ms }))
}

#[derive(Debug, Deserialize)]
struct Advance {
    advance_ms: i64,
}

/// `POST /_sim/clock {"advance_ms": 86400000}`
async fn advance(State(core): Shared, Json(by): Json<Advance>) -> Json<Value> {
    core.advance(TimeDelta::milliseconds(by.advance_ms));
    clock(State(core)).await
}

/// `POST /_sim/reset`
async fn reset(State(core): Shared) -> StatusCode {
    core.reset();
    StatusCode::NO_CONTENT
}

#[derive(Debug, Deserialize)]
struct Method {
    payment_method: String,
}

fn answer(result: Result<String, Refusal>) -> Response {
    match result {
        Ok(status) => Json(json!({ "status": status })).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

fn done(result: Result<(), Refusal>) -> Response {
    match result {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

/// `POST /_sim/stripe/intents/{id}/pay {"payment_method": "pm_card_visa"}`
async fn pay_stripe(
    State(core): Shared,
    Path(id): Path<String>,
    Json(method): Json<Method>,
) -> Response {
    answer(core.pay_stripe(&id, &method.payment_method))
}

#[derive(Debug, Deserialize)]
struct Success {
    success: bool,
}

/// `POST /_sim/stripe/intents/{id}/authenticate {"success": true}`
async fn authenticate_stripe(
    State(core): Shared,
    Path(id): Path<String>,
    Json(Success { success }): Json<Success>,
) -> Response {
    answer(core.authenticate_stripe(&id, success))
}

/// `POST /_sim/stripe/intents/{id}/settle {"success": true}`
async fn settle_stripe(
    State(core): Shared,
    Path(id): Path<String>,
    Json(Success { success }): Json<Success>,
) -> Response {
    done(core.settle_stripe(&id, success))
}

/// `POST /_sim/stripe/refunds/{id}/settle {"success": false}`
async fn settle_stripe_refund(
    State(core): Shared,
    Path(id): Path<String>,
    Json(Success { success }): Json<Success>,
) -> Response {
    done(core.settle_stripe_refund(&id, success))
}

#[derive(Debug, Deserialize)]
struct Paying {
    #[serde(default = "instant")]
    funding: Funding,
}

fn instant() -> Funding {
    Funding::Instant
}

/// `POST /_sim/paypal/orders/{id}/approve {"funding": "instant"|"declines"|"pending"}`
async fn approve_paypal(
    State(core): Shared,
    Path(id): Path<String>,
    Json(paying): Json<Paying>,
) -> Response {
    done(core.approve_paypal(&id, paying.funding))
}

/// `POST /_sim/paypal/captures/{id}/settle {"success": true}`
async fn settle_paypal(
    State(core): Shared,
    Path(id): Path<String>,
    Json(Success { success }): Json<Success>,
) -> Response {
    done(core.settle_paypal(&id, success))
}

/// `POST /_sim/paypal/next-capture {"funding": "declines"}`
async fn next_capture(State(core): Shared, Json(paying): Json<Paying>) -> StatusCode {
    core.fund_next_paypal(paying.funding);
    StatusCode::NO_CONTENT
}

/// `POST /_sim/paypal/expire-tokens`
async fn expire_tokens(State(core): Shared) -> StatusCode {
    core.world().paypal.tokens.expire_all();
    StatusCode::NO_CONTENT
}

/// `GET /_sim/paypal/root.pem`
async fn root_pem(State(core): Shared) -> response::Html<String> {
    response::Html(core.keyring.root_pem.clone())
}
