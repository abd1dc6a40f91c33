//! Disputes: a payer contests a capture, and PayPal decides.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::captures::{self, Outcome};
use super::error::PayPalError;
use super::events::EVENT_BASE;
use super::fields::Amount;
use super::{Done, orders, time};
use crate::calls::Inbound;
use crate::ids;
use crate::table::Row;
use crate::world::{News, Turn};

/// How a dispute ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PayPalDisputeOutcome {
    /// The payer was right: the merchant's money goes back.
    ResolvedBuyerFavour,
    /// The merchant was right.
    ResolvedSellerFavour,
    /// PayPal paid out of its own pocket: the merchant keeps the money.
    ResolvedWithPayout,
    /// The payer gave up.
    CanceledByBuyer,
    /// The merchant accepted the claim: the money goes back.
    Accepted,
    /// PayPal turned the claim down.
    Denied,
    /// It ended without a word on who was right; the merchant keeps the money.
    None,
}

impl PayPalDisputeOutcome {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            PayPalDisputeOutcome::ResolvedBuyerFavour => "RESOLVED_BUYER_FAVOUR",
            PayPalDisputeOutcome::ResolvedSellerFavour => "RESOLVED_SELLER_FAVOUR",
            PayPalDisputeOutcome::ResolvedWithPayout => "RESOLVED_WITH_PAYOUT",
            PayPalDisputeOutcome::CanceledByBuyer => "CANCELED_BY_BUYER",
            PayPalDisputeOutcome::Accepted => "ACCEPTED",
            PayPalDisputeOutcome::Denied => "DENIED",
            PayPalDisputeOutcome::None => "NONE",
        }
    }

    /// Whether the merchant pays.
    fn is_lost(self) -> bool {
        match self {
            PayPalDisputeOutcome::ResolvedBuyerFavour | PayPalDisputeOutcome::Accepted => true,
            PayPalDisputeOutcome::ResolvedSellerFavour
            | PayPalDisputeOutcome::ResolvedWithPayout
            | PayPalDisputeOutcome::CanceledByBuyer
            | PayPalDisputeOutcome::Denied
            | PayPalDisputeOutcome::None => false,
        }
    }
}

/// How far a dispute has come before it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Stage {
    /// Payer and merchant talk; no money is held.
    Inquiry,
    /// PayPal or the bank decides; the money is held.
    Chargeback,
}

/// A dispute of one capture.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Dispute {
    pub(crate) id: String,
    pub(crate) capture: String,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
    pub(crate) amount: Amount,
    stage: Stage,
    /// Whether it is with PayPal now, after the merchant had its say.
    is_under_review: bool,
    pub(crate) outcome: Option<PayPalDisputeOutcome>,
}

impl Row for Dispute {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Dispute {
    /// What the merchant lost by it.
    pub(crate) fn lost_minor(&self) -> i64 {
        if self.outcome.is_some_and(PayPalDisputeOutcome::is_lost) { self.amount.minor } else { 0 }
    }

    /// What it holds while it is open.
    pub(crate) fn held_minor(&self) -> i64 {
        let is_held = self.outcome.is_none() && self.stage == Stage::Chargeback;
        if is_held { self.amount.minor } else { 0 }
    }

    pub(crate) fn status(&self) -> &'static str {
        match (self.outcome, self.stage) {
            (Some(_), _) => "RESOLVED",
            (None, _) if self.is_under_review => "UNDER_REVIEW",
            (None, Stage::Inquiry) => "OPEN",
            (None, Stage::Chargeback) => "WAITING_FOR_SELLER_RESPONSE",
        }
    }

    fn state(&self) -> &'static str {
        match (self.outcome, self.stage) {
            (Some(_), _) => "RESOLVED",
            (None, _) if self.is_under_review => "UNDER_PAYPAL_REVIEW",
            (None, Stage::Inquiry) => "OPEN_INQUIRIES",
            (None, Stage::Chargeback) => "REQUIRED_ACTION",
        }
    }

    fn reason(&self) -> &'static str {
        match self.stage {
            Stage::Inquiry => "MERCHANDISE_OR_SERVICE_NOT_RECEIVED",
            Stage::Chargeback => "UNAUTHORISED",
        }
    }

    /// What a list shows of a dispute.
    fn summary(&self, base: &str) -> Value {
        let mut body = json!({
            "dispute_id": self.id,
            "create_time": time(self.created_at),
            "update_time": time(self.updated_at),
            "reason": self.reason(),
            "status": self.status(),
            "dispute_state": self.state(),
            "dispute_amount": self.amount.json(),
            "dispute_life_cycle_stage": match self.stage {
                Stage::Inquiry => "INQUIRY",
                Stage::Chargeback => "CHARGEBACK",
            },
            "dispute_channel": match self.stage {
                Stage::Inquiry => "INTERNAL",
                Stage::Chargeback => "EXTERNAL",
            },
            "links": [{
                "href": format!("{base}/v1/customer/disputes/{}", self.id),
                "rel": "self",
                "method": "GET",
            }],
        });
        if self.outcome.is_none() {
            // Ten days: about what a merchant is given.
            body["seller_response_due_date"] = json!(time(self.created_at + TimeDelta::days(10)));
        }
        if let Some(outcome) = self.outcome {
            body["dispute_outcome"] = json!({ "outcome_code": outcome.as_str() });
            if outcome.is_lost() || outcome == PayPalDisputeOutcome::ResolvedWithPayout {
                body["dispute_outcome"]["amount_refunded"] = self.amount.json();
            }
        }
        body
    }

    pub(super) fn json(&self, turn: &Turn<'_>, base: &str) -> Value {
        let mut body = self.summary(base);
        let books = &turn.world.paypal;
        let capture = books.captures.find(&self.capture).expect("disputes have captures");
        let payee = orders::payee(turn);
        let mut transaction = json!({
            "seller_transaction_id": capture.id,
            "create_time": time(capture.created_at),
            "transaction_status": "COMPLETED",
            "gross_amount": capture.amount.json(),
            "buyer": { "name": "Jenny Rosen" },
            "seller": {
                "email": payee["email_address"],
                "merchant_id": payee["merchant_id"],
                "name": "Test Store",
            },
            "seller_protection_eligible": true,
        });
        for (name, text) in
            [("custom", &capture.custom_id), ("invoice_number", &capture.invoice_id)]
        {
            if let Some(text) = text {
                transaction[name] = json!(text);
            }
        }
        body["disputed_transactions"] = json!([transaction]);
        body["messages"] = json!([{
            "posted_by": "BUYER",
            "time_posted": time(self.created_at),
            "content": "This is not what I paid for.",
        }]);
        body
    }
}

/// Returns whether a dispute of this capture is open.
pub(super) fn is_disputed(turn: &Turn<'_>, capture: &str) -> bool {
    let mut disputes = turn.world.paypal.disputes.iter();
    disputes.any(|dispute| dispute.capture == capture && dispute.outcome.is_none())
}

/// The payer contests what is left of a capture; gives the dispute's id.
pub(crate) fn open(
    turn: &mut Turn<'_>,
    capture_id: &str,
    is_inquiry: bool,
) -> Result<String, PayPalError> {
    let capture = captures::find(turn, capture_id)?;
    let rest = capture.amount.minor - turn.world.paypal.refunded_minor(capture_id);
    let is_possible = capture.outcome == Outcome::Completed && rest > 0;
    if !is_possible || is_disputed(turn, capture_id) {
        let text = "The capture cannot be disputed: it is not completed, refunded or disputed.";
        return Err(PayPalError::unprocessable("INVALID_RESOURCE_STATE", text));
    }
    let dispute = Dispute {
        id: ids::paypal_dispute(),
        capture: capture_id.to_owned(),
        created_at: turn.now,
        updated_at: turn.now,
        amount: capture.amount.of(rest),
        stage: if is_inquiry { Stage::Inquiry } else { Stage::Chargeback },
        is_under_review: false,
        outcome: None,
    };
    let id = dispute.id.clone();
    turn.effects.push(id.clone());
    turn.world.paypal.disputes.insert(dispute);
    tell(turn, &id, "CUSTOMER.DISPUTE.CREATED", "A new dispute opened with Case # ");
    Ok(id)
}

fn open_mut<'a>(turn: &'a mut Turn<'_>, id: &str) -> Result<&'a mut Dispute, PayPalError> {
    let dispute = turn.world.paypal.disputes.find_mut(id).ok_or_else(PayPalError::missing)?;
    if dispute.outcome.is_some() {
        let text = "The dispute is resolved.";
        return Err(PayPalError::unprocessable("INVALID_RESOURCE_STATE", text));
    }
    Ok(dispute)
}

/// Moves an open dispute on: an inquiry becomes a claim whose money is held, a claim goes to PayPal.
pub(crate) fn escalate(turn: &mut Turn<'_>, id: &str) -> Result<(), PayPalError> {
    let now = turn.now;
    let dispute = open_mut(turn, id)?;
    match dispute.stage {
        Stage::Inquiry => dispute.stage = Stage::Chargeback,
        Stage::Chargeback => dispute.is_under_review = true,
    }
    dispute.updated_at = now;
    tell(turn, id, "CUSTOMER.DISPUTE.UPDATED", "A dispute was updated with case # ");
    Ok(())
}

/// Ends a dispute. What it takes from the merchant has no refund event of its own.
pub(crate) fn settle(
    turn: &mut Turn<'_>,
    id: &str,
    outcome: PayPalDisputeOutcome,
) -> Result<(), PayPalError> {
    let now = turn.now;
    let dispute = open_mut(turn, id)?;
    dispute.outcome = Some(outcome);
    dispute.updated_at = now;
    tell(turn, id, "CUSTOMER.DISPUTE.RESOLVED", "A dispute was resolved with case # ");
    Ok(())
}

fn tell(turn: &mut Turn<'_>, id: &str, kind: &str, summary: &str) {
    let dispute = turn.world.paypal.disputes.find(id).expect("it was found before");
    let capture = turn.world.paypal.captures.find(&dispute.capture);
    let payment_id = capture.and_then(|capture| capture.custom_id.clone());
    let object = dispute.json(turn, EVENT_BASE);
    turn.tell_paypal(News { kind, object, object_id: id, payment_id }, &format!("{summary}{id}"));
}

/// `GET /v1/customer/disputes/{id}`
pub(super) fn fetch(turn: &Turn<'_>, id: &str) -> Result<Done, PayPalError> {
    let dispute = turn.world.paypal.disputes.find(id).ok_or_else(PayPalError::missing)?;
    Ok(Done::read(dispute.json(turn, &turn.core.paypal_url)))
}

/// `GET /v1/customer/disputes`: newest first, by capture, state or time.
pub(super) fn list(turn: &Turn<'_>, inbound: &Inbound) -> Result<Done, PayPalError> {
    let (mut size, mut after) = (10, None);
    let (mut capture, mut state, mut from) = (None, None, None);
    for (name, value) in form_urlencoded::parse(inbound.query.as_bytes()) {
        match &*name {
            "page_size" => size = super::number(&name, &value, 1..=50)?,
            "next_page_token" => after = Some(value.into_owned()),
            "disputed_transaction_id" => capture = Some(value.into_owned()),
            "dispute_state" => state = Some(value.into_owned()),
            "start_time" => from = Some(super::instant(&name, &value)?),
            _ => {}
        }
    }
    if capture.is_some() && from.is_some() {
        let text = "Specify either start_time or disputed_transaction_id, not both.";
        return Err(PayPalError::bad_query("INVALID_PARAMETER_COMBINATION", "start_time", text));
    }
    let wanted = |dispute: &&Dispute| {
        capture.as_ref().is_none_or(|id| *id == dispute.capture)
            && state.as_ref().is_none_or(|state| state.split(',').any(|it| it == dispute.state()))
            && from.is_none_or(|from| dispute.created_at >= from)
    };
    let base = &turn.core.paypal_url;
    let found: Vec<_> = turn.world.paypal.disputes.iter().rev().filter(wanted).collect();
    let start = after.and_then(|id| found.iter().position(|dispute| dispute.id == id));
    let start = start.map_or(0, |place| place + 1);
    let page: Vec<_> = found.iter().skip(start).take(size).collect();
    let query = super::query_without(&inbound.query, &["next_page_token"]);
    let own = format!("{base}/v1/customer/disputes?{query}");
    let mut links = vec![json!({ "href": own, "rel": "self", "method": "GET" })];
    if let Some(last) = page.last().filter(|_| start + size < found.len()) {
        let next = format!("{own}&next_page_token={}", last.id);
        links.push(json!({ "href": next, "rel": "next", "method": "GET" }));
    }
    let items: Vec<_> = page.iter().map(|dispute| dispute.summary(base)).collect();
    Ok(Done::read(json!({ "items": items, "links": links })))
}
