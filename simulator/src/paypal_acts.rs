//! What payers, PayPal and tests do at PayPal: handles in Rust, and the same over HTTP.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use crate::Simulator;
use crate::acts::Refusal;
use crate::paypal::{self, DisputeOutcome, PayPalError, RefundOutcome};
use crate::world::{Cause, Core, Turn};

impl Core {
    /// Does something at PayPal that no API call asked for.
    pub(crate) fn at_paypal<T>(
        &self,
        act: impl FnOnce(&mut Turn<'_>) -> Result<T, PayPalError>,
    ) -> Result<T, Refusal> {
        self.turn(Cause::default(), |turn| Ok(act(turn)?))
    }
}

impl Simulator {
    /// Refunds a capture at PayPal's dashboard, all that is left or a part; gives the refund's id.
    pub fn refund_paypal(&self, capture_id: &str, minor: Option<i64>) -> Result<String, Refusal> {
        self.inner.core.at_paypal(|turn| paypal::refund(turn, capture_id, minor))
    }

    /// Ends a refund that is `PENDING`, or fails one that was `COMPLETED`.
    pub fn settle_paypal_refund(&self, refund_id: &str, success: bool) -> Result<(), Refusal> {
        let outcome = if success { RefundOutcome::Completed } else { RefundOutcome::Failed };
        self.end_paypal_refund(refund_id, outcome)
    }

    /// Ends a refund in one of PayPal's ways, `CANCELLED` among them.
    pub fn end_paypal_refund(
        &self,
        refund_id: &str,
        outcome: RefundOutcome,
    ) -> Result<(), Refusal> {
        self.inner.core.at_paypal(|turn| paypal::settle_refund(turn, refund_id, outcome))
    }

    /// Says how the next refund begins, by whomever it is made.
    pub fn begin_next_paypal_refund(&self, outcome: RefundOutcome) {
        self.inner.core.world().paypal.next_refund = Some(outcome);
    }

    /// Takes what is left of a capture back from the merchant; gives the reversal's id.
    pub fn reverse_paypal(&self, capture_id: &str) -> Result<String, Refusal> {
        self.inner.core.at_paypal(|turn| paypal::reverse(turn, capture_id))
    }

    /// Contests a capture as its payer; an inquiry holds no money yet. Gives the dispute's id.
    pub fn open_paypal_dispute(&self, capture_id: &str, inquiry: bool) -> Result<String, Refusal> {
        self.inner.core.at_paypal(|turn| paypal::open_dispute(turn, capture_id, inquiry))
    }

    /// Moves an open dispute on: an inquiry becomes a claim, a claim goes to PayPal's review.
    pub fn escalate_paypal_dispute(&self, dispute_id: &str) -> Result<(), Refusal> {
        self.inner.core.at_paypal(|turn| paypal::escalate_dispute(turn, dispute_id))
    }

    /// Ends a dispute.
    pub fn settle_paypal_dispute(
        &self,
        dispute_id: &str,
        outcome: DisputeOutcome,
    ) -> Result<(), Refusal> {
        self.inner.core.at_paypal(|turn| paypal::settle_dispute(turn, dispute_id, outcome))
    }
}

type Shared = State<Arc<Core>>;

/// PayPal's part of the control API, beside what [`crate::control`] has.
pub(crate) fn routes() -> Router<Arc<Core>> {
    Router::new()
        .route("/_sim/paypal/next-refund", post(next_refund))
        .route("/_sim/paypal/captures/{id}/refund", post(refund))
        .route("/_sim/paypal/captures/{id}/reverse", post(reverse))
        .route("/_sim/paypal/captures/{id}/dispute", post(open_dispute))
        .route("/_sim/paypal/refunds/{id}/settle", post(settle_refund))
        .route("/_sim/paypal/disputes/{id}/escalate", post(escalate_dispute))
        .route("/_sim/paypal/disputes/{id}/settle", post(settle_dispute))
}

fn made(result: Result<String, Refusal>) -> Response {
    match result {
        Ok(id) => (StatusCode::CREATED, Json(json!({ "id": id }))).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

fn done(result: Result<(), Refusal>) -> Response {
    match result {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

#[derive(Debug, Deserialize)]
struct Beginning {
    outcome: RefundOutcome,
}

/// `POST /_sim/paypal/next-refund {"outcome": "PENDING"|"FAILED"|"COMPLETED"|"CANCELLED"}`
async fn next_refund(State(core): Shared, Json(begin): Json<Beginning>) -> StatusCode {
    core.world().paypal.next_refund = Some(begin.outcome);
    StatusCode::NO_CONTENT
}

#[derive(Debug, Deserialize)]
struct Part {
    amount_minor: Option<i64>,
}

/// `POST /_sim/paypal/captures/{id}/refund {"amount_minor": 400}`; null: all that is left
async fn refund(State(core): Shared, Path(id): Path<String>, Json(part): Json<Part>) -> Response {
    made(core.at_paypal(|turn| paypal::refund(turn, &id, part.amount_minor)))
}

/// `POST /_sim/paypal/captures/{id}/reverse`
async fn reverse(State(core): Shared, Path(id): Path<String>) -> Response {
    made(core.at_paypal(|turn| paypal::reverse(turn, &id)))
}

#[derive(Debug, Deserialize)]
struct Opening {
    #[serde(default)]
    inquiry: bool,
}

/// `POST /_sim/paypal/captures/{id}/dispute {"inquiry": false}`
async fn open_dispute(
    State(core): Shared,
    Path(id): Path<String>,
    Json(opening): Json<Opening>,
) -> Response {
    made(core.at_paypal(|turn| paypal::open_dispute(turn, &id, opening.inquiry)))
}

#[derive(Debug, Deserialize)]
struct RefundEnd {
    success: Option<bool>,
    outcome: Option<RefundOutcome>,
}

/// `POST /_sim/paypal/refunds/{id}/settle {"success": true}` or `{"outcome": "CANCELLED"}`
async fn settle_refund(
    State(core): Shared,
    Path(id): Path<String>,
    Json(end): Json<RefundEnd>,
) -> Response {
    let outcome = match (end.outcome, end.success) {
        (Some(outcome), _) => outcome,
        (None, Some(true) | None) => RefundOutcome::Completed,
        (None, Some(false)) => RefundOutcome::Failed,
    };
    done(core.at_paypal(|turn| paypal::settle_refund(turn, &id, outcome)))
}

/// `POST /_sim/paypal/disputes/{id}/escalate`
async fn escalate_dispute(State(core): Shared, Path(id): Path<String>) -> Response {
    done(core.at_paypal(|turn| paypal::escalate_dispute(turn, &id)))
}

#[derive(Debug, Deserialize)]
struct DisputeEnd {
    outcome: DisputeOutcome,
}

/// `POST /_sim/paypal/disputes/{id}/settle {"outcome": "RESOLVED_BUYER_FAVOUR"}`
async fn settle_dispute(
    State(core): Shared,
    Path(id): Path<String>,
    Json(end): Json<DisputeEnd>,
) -> Response {
    done(core.at_paypal(|turn| paypal::settle_dispute(turn, &id, end.outcome)))
}
