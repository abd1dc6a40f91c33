//! What payers, PayPal and tests do at PayPal: handles in Rust, and the same over HTTP.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use crate::Simulator;
use crate::acts::Refusal;
use crate::paypal::{self, Funding, PayPalDisputeOutcome, PayPalError, PayPalRefundOutcome};
use crate::world::{Cause, Core, Turn};

impl Core {
    /// Does something at PayPal that no API call asked for.
    pub(crate) fn at_paypal<T>(
        &self,
        act: impl FnOnce(&mut Turn<'_>) -> Result<T, PayPalError>,
    ) -> Result<T, Refusal> {
        self.turn(Cause::default(), |turn| Ok(act(turn)?))
    }

    fn reverse_late_approvals(&self) {
        let now = self.clock.now();
        if paypal::has_late_approvals(&self.world().paypal, now) {
            self.turn(Cause::default(), paypal::reverse_late_approvals);
        }
    }

    /// Says what charges of a saved way to pay meet from now on.
    fn fund_paypal_token(&self, id: &str, funding: Funding) -> Result<(), Refusal> {
        self.at_paypal(|turn| {
            let token = turn.world.paypal.payment_tokens.find_mut(id);
            token.ok_or_else(PayPalError::missing)?.funding = funding;
            Ok(())
        })
    }
}

/// Does what PayPal does by itself as time goes by.
pub(crate) async fn run(core: Arc<Core>) {
    // A second more or less does not matter after three hours.
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    loop {
        seconds.tick().await;
        core.reverse_late_approvals();
    }
}

impl Simulator {
    /// Refunds a capture at PayPal's dashboard, all that is left or a part; gives the refund's id.
    pub fn refund_paypal(&self, capture_id: &str, minor: Option<i64>) -> Result<String, Refusal> {
        self.inner.core.at_paypal(|turn| paypal::refund(turn, capture_id, minor))
    }

    /// Ends a refund that is `PENDING`, or fails one that was `COMPLETED`.
    pub fn settle_paypal_refund(&self, refund_id: &str, success: bool) -> Result<(), Refusal> {
        let outcome =
            if success { PayPalRefundOutcome::Completed } else { PayPalRefundOutcome::Failed };
        self.end_paypal_refund(refund_id, outcome)
    }

    /// Ends a refund in one of PayPal's ways, `CANCELLED` among them.
    pub fn end_paypal_refund(
        &self,
        refund_id: &str,
        outcome: PayPalRefundOutcome,
    ) -> Result<(), Refusal> {
        self.inner.core.at_paypal(|turn| paypal::settle_refund(turn, refund_id, outcome))
    }

    /// Says how the next refund begins, by whomever it is made.
    pub fn begin_next_paypal_refund(&self, outcome: PayPalRefundOutcome) {
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
        outcome: PayPalDisputeOutcome,
    ) -> Result<(), Refusal> {
        self.inner.core.at_paypal(|turn| paypal::settle_dispute(turn, dispute_id, outcome))
    }

    /// Takes back an approval that was not captured, as PayPal does by itself after three hours.
    pub fn reverse_paypal_approval(&self, order_id: &str) -> Result<(), Refusal> {
        self.inner.core.at_paypal(|turn| paypal::reverse_approval(turn, order_id))
    }

    /// Lets a way to pay be saved, as the buyer does on the setup token's page.
    pub fn approve_paypal_setup(&self, setup_token_id: &str) -> Result<(), Refusal> {
        self.inner.core.at_paypal(|turn| paypal::approve_setup(turn, setup_token_id))
    }

    /// Deletes a saved way to pay, as its owner does in the PayPal account; returns whether it was there.
    pub fn delete_paypal_token(&self, token_id: &str) -> bool {
        self.inner.core.turn(Cause::default(), |turn| paypal::delete_token(turn, token_id))
    }

    /// Says what charges of a saved way to pay meet from now on.
    pub fn fund_paypal_token(&self, token_id: &str, funding: Funding) -> Result<(), Refusal> {
        self.inner.core.fund_paypal_token(token_id, funding)
    }

    /// Makes captures tell only that the way to pay will be saved: its id comes by the event alone.
    pub fn vault_paypal_late(&self, late: bool) {
        self.inner.core.world().paypal.vaults_late = late;
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
        .route("/_sim/paypal/orders/{id}/reverse-approval", post(reverse_approval))
        .route("/_sim/paypal/setup-tokens/{id}/approve", post(approve_setup))
        .route("/_sim/paypal/payment-tokens/{id}", delete(delete_token))
        .route("/_sim/paypal/payment-tokens/{id}/fund", post(fund_token))
        .route("/_sim/paypal/vault-late", post(vault_late))
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

#[derive(Debug, Deserialize)]
struct Beginning {
    outcome: PayPalRefundOutcome,
}

/// `POST /_sim/paypal/next-refund {"outcome": "PENDING"|"FAILED"|"COMPLETED"|"CANCELLED"}`
async fn next_refund(State(core): Shared, Json(begin): Json<Beginning>) -> StatusCode {
    core.world().paypal.next_refund = Some(begin.outcome);
    StatusCode::NO_CONTENT
}

#[derive(Debug, Deserialize)]
struct Part {
    amount: Option<i64>,
}

/// `POST /_sim/paypal/captures/{id}/refund {"amount": 400}`; null: all that is left
async fn refund(State(core): Shared, Path(id): Path<String>, Json(part): Json<Part>) -> Response {
    made(core.at_paypal(|turn| paypal::refund(turn, &id, part.amount)))
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
    outcome: Option<PayPalRefundOutcome>,
}

/// `POST /_sim/paypal/refunds/{id}/settle {"success": true}` or `{"outcome": "CANCELLED"}`
async fn settle_refund(
    State(core): Shared,
    Path(id): Path<String>,
    Json(end): Json<RefundEnd>,
) -> Response {
    let outcome = match (end.outcome, end.success) {
        (Some(outcome), _) => outcome,
        (None, Some(true) | None) => PayPalRefundOutcome::Completed,
        (None, Some(false)) => PayPalRefundOutcome::Failed,
    };
    done(core.at_paypal(|turn| paypal::settle_refund(turn, &id, outcome)))
}

/// `POST /_sim/paypal/disputes/{id}/escalate`
async fn escalate_dispute(State(core): Shared, Path(id): Path<String>) -> Response {
    done(core.at_paypal(|turn| paypal::escalate_dispute(turn, &id)))
}

#[derive(Debug, Deserialize)]
struct DisputeEnd {
    outcome: PayPalDisputeOutcome,
}

/// `POST /_sim/paypal/disputes/{id}/settle {"outcome": "RESOLVED_BUYER_FAVOUR"}`
async fn settle_dispute(
    State(core): Shared,
    Path(id): Path<String>,
    Json(end): Json<DisputeEnd>,
) -> Response {
    done(core.at_paypal(|turn| paypal::settle_dispute(turn, &id, end.outcome)))
}

/// `POST /_sim/paypal/orders/{id}/reverse-approval`
async fn reverse_approval(State(core): Shared, Path(id): Path<String>) -> Response {
    done(core.at_paypal(|turn| paypal::reverse_approval(turn, &id)))
}

/// `POST /_sim/paypal/setup-tokens/{id}/approve`
async fn approve_setup(State(core): Shared, Path(id): Path<String>) -> Response {
    done(core.at_paypal(|turn| paypal::approve_setup(turn, &id)))
}

/// `DELETE /_sim/paypal/payment-tokens/{id}`
async fn delete_token(State(core): Shared, Path(id): Path<String>) -> StatusCode {
    let was_there = core.turn(Cause::default(), |turn| paypal::delete_token(turn, &id));
    if was_there { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}

#[derive(Debug, Deserialize)]
struct Paying {
    funding: Funding,
}

/// `POST /_sim/paypal/payment-tokens/{id}/fund {"funding": "instant"|"declines"|"pending"}`
async fn fund_token(
    State(core): Shared,
    Path(id): Path<String>,
    Json(paying): Json<Paying>,
) -> Response {
    done(core.fund_paypal_token(&id, paying.funding))
}

#[derive(Debug, Deserialize)]
struct Late {
    late: bool,
}

/// `POST /_sim/paypal/vault-late {"late": true}`
async fn vault_late(State(core): Shared, Json(Late { late }): Json<Late>) -> StatusCode {
    core.world().paypal.vaults_late = late;
    StatusCode::NO_CONTENT
}
