//! Stripe's part of the control API: what payers, banks and the dashboard do, over HTTP.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::disputes::{self, DisputeOutcome};
use super::{acts, refunds, sessions};
use crate::acts::Refusal;
use crate::world::Core;

type Shared = State<Arc<Core>>;

/// The routes under `/_sim/stripe/` beside those for intents.
pub(crate) fn routes() -> Router<Arc<Core>> {
    Router::new()
        .route("/_sim/stripe/intents/{id}/refund", post(refund))
        .route("/_sim/stripe/refunds/{id}/cancel", post(cancel_refund))
        .route("/_sim/stripe/setup-intents/{id}/setup", post(set_up))
        .route("/_sim/stripe/setup-intents/{id}/authenticate", post(prove))
        .route("/_sim/stripe/sessions/{id}/pay", post(pay_session))
        .route("/_sim/stripe/sessions/{id}/authenticate", post(prove_session))
        .route("/_sim/stripe/sessions/{id}/expire", post(expire_session))
        .route("/_sim/stripe/disputes", post(open_dispute))
        .route("/_sim/stripe/disputes/{id}/escalate", post(escalate_dispute))
        .route("/_sim/stripe/disputes/{id}/settle", post(settle_dispute))
}

fn made(result: Result<String, Refusal>) -> Response {
    match result {
        Ok(id) => Json(json!({ "id": id })).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

fn done(result: Result<(), Refusal>) -> Response {
    match result {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

fn stands(result: Result<String, Refusal>) -> Response {
    match result {
        Ok(status) => Json(json!({ "status": status })).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

#[derive(Debug, Deserialize)]
struct Method {
    payment_method: String,
}

#[derive(Debug, Deserialize)]
struct Success {
    success: bool,
}

/// `POST /_sim/stripe/setup-intents/{id}/setup {"payment_method": "pm_card_visa"}`
async fn set_up(
    State(core): Shared,
    Path(id): Path<String>,
    Json(method): Json<Method>,
) -> Response {
    stands(core.act(|turn| acts::set_up(turn, &id, &method.payment_method)))
}

/// `POST /_sim/stripe/setup-intents/{id}/authenticate {"success": true}`
async fn prove(
    State(core): Shared,
    Path(id): Path<String>,
    Json(Success { success }): Json<Success>,
) -> Response {
    stands(core.act(|turn| acts::prove(turn, &id, success)))
}

/// `POST /_sim/stripe/sessions/{id}/pay {"payment_method": "pm_card_visa"}`
async fn pay_session(
    State(core): Shared,
    Path(id): Path<String>,
    Json(method): Json<Method>,
) -> Response {
    stands(core.act(|turn| sessions::pay(turn, &id, &method.payment_method)))
}

/// `POST /_sim/stripe/sessions/{id}/authenticate {"success": true}`
async fn prove_session(
    State(core): Shared,
    Path(id): Path<String>,
    Json(Success { success }): Json<Success>,
) -> Response {
    stands(core.act(|turn| sessions::authenticate(turn, &id, success)))
}

/// `POST /_sim/stripe/sessions/{id}/expire`
async fn expire_session(State(core): Shared, Path(id): Path<String>) -> Response {
    done(core.act(|turn| sessions::expire(turn, &id)))
}

#[derive(Debug, Deserialize)]
struct Amount {
    amount: Option<i64>,
}

/// `POST /_sim/stripe/intents/{id}/refund {"amount": null}`: as a person does at the dashboard.
async fn refund(
    State(core): Shared,
    Path(id): Path<String>,
    Json(Amount { amount }): Json<Amount>,
) -> Response {
    made(core.act(|turn| refunds::at_dashboard(turn, &id, amount)))
}

/// `POST /_sim/stripe/refunds/{id}/cancel`
async fn cancel_refund(State(core): Shared, Path(id): Path<String>) -> Response {
    done(core.act(|turn| refunds::call_off(turn, &id)))
}

#[derive(Debug, Deserialize)]
struct Contest {
    /// An intent or a charge.
    object: String,
    #[serde(default)]
    inquiry: bool,
    amount: Option<i64>,
}

/// `POST /_sim/stripe/disputes {"object": "pi_…", "inquiry": false, "amount": null}`
async fn open_dispute(State(core): Shared, Json(contest): Json<Contest>) -> Response {
    let Contest { object, inquiry, amount } = contest;
    made(core.act(|turn| disputes::open(turn, &object, inquiry, amount)))
}

/// `POST /_sim/stripe/disputes/{id}/escalate`
async fn escalate_dispute(State(core): Shared, Path(id): Path<String>) -> Response {
    done(core.act(|turn| disputes::escalate(turn, &id)))
}

#[derive(Debug, Deserialize)]
struct Decision {
    outcome: DisputeOutcome,
}

/// `POST /_sim/stripe/disputes/{id}/settle {"outcome": "won"|"lost"|"warning_closed"}`
async fn settle_dispute(
    State(core): Shared,
    Path(id): Path<String>,
    Json(Decision { outcome }): Json<Decision>,
) -> Response {
    done(core.act(|turn| disputes::settle(turn, &id, outcome)))
}
