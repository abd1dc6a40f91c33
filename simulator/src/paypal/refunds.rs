//! Money that goes back: refunds the merchant makes, and reversals PayPal makes.

use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::captures::{self, Capture, Outcome};
use super::error::PayPalError;
use super::events::EVENT_BASE;
use super::fields::{self, Amount};
use super::{Done, disputes, orders, shown, time};
use crate::calls::Inbound;
use crate::ids;
use crate::table::Row;
use crate::world::{News, Turn};

/// Where a refund stands; and, set for the next one, where it shall begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PayPalRefundOutcome {
    /// The payer has the money.
    Completed,
    /// It is on its way, as with an eCheck; it counts against what may still be refunded.
    Pending,
    /// It came back to the merchant, and may be refunded again.
    Failed,
    /// It was taken back before it left.
    Cancelled,
}

impl PayPalRefundOutcome {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            PayPalRefundOutcome::Completed => "COMPLETED",
            PayPalRefundOutcome::Pending => "PENDING",
            PayPalRefundOutcome::Failed => "FAILED",
            PayPalRefundOutcome::Cancelled => "CANCELLED",
        }
    }
}

/// Money sent back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Refund {
    pub(crate) id: String,
    pub(crate) capture: String,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
    pub(crate) amount: Amount,
    /// What had gone back of the capture, this refund included.
    pub(crate) total_minor: i64,
    pub(crate) custom_id: Option<String>,
    pub(crate) invoice_id: Option<String>,
    pub(crate) note: Option<String>,
    pub(crate) status: PayPalRefundOutcome,
    /// Whether PayPal took it back: then it is no refund of the merchant's.
    pub(crate) is_reversal: bool,
}

impl Row for Refund {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Refund {
    pub(super) fn json(&self, turn: &Turn<'_>, base: &str) -> Value {
        let mut body = json!({
            "id": self.id,
            "status": self.status.as_str(),
            "amount": self.amount.json(),
            "seller_payable_breakdown": {
                "gross_amount": self.amount.json(),
                "paypal_fee": self.amount.of(0).json(),
                "net_amount": self.amount.json(),
                "total_refunded_amount": self.amount.of(self.total_minor).json(),
            },
            "payer": orders::payee(turn),
            "create_time": time(self.created_at),
            "update_time": time(self.updated_at),
            "links": [
                {
                    "href": format!("{base}/v2/payments/refunds/{}", self.id),
                    "rel": "self",
                    "method": "GET",
                },
                {
                    "href": format!("{base}/v2/payments/captures/{}", self.capture),
                    "rel": "up",
                    "method": "GET",
                },
            ],
        });
        if self.status == PayPalRefundOutcome::Pending {
            body["status_details"] = json!({ "reason": "ECHECK" });
        }
        let texts = [
            ("custom_id", &self.custom_id),
            ("invoice_id", &self.invoice_id),
            ("note_to_payer", &self.note),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                body[name] = json!(text);
            }
        }
        body
    }
}

/// What a merchant may write on a refund.
#[derive(Debug, Default)]
struct Remarks {
    custom_id: Option<String>,
    invoice_id: Option<String>,
    note: Option<String>,
}

/// `GET /v2/payments/refunds/{id}`
pub(super) fn fetch(turn: &Turn<'_>, id: &str) -> Result<Done, PayPalError> {
    let refund = turn.world.paypal.refunds.find(id).ok_or_else(PayPalError::missing)?;
    Ok(Done::read(refund.json(turn, &turn.core.paypal_url)))
}

/// `POST /v2/payments/captures/{id}/refund`
pub(super) fn create(
    turn: &mut Turn<'_>,
    inbound: &Inbound,
    id: &str,
    body: &Value,
) -> Result<Done, PayPalError> {
    let asked = match body.get("amount") {
        None | Some(Value::Null) => None,
        Some(_) => Some(fields::amount(body, "/amount")?),
    };
    let remarks = Remarks {
        custom_id: fields::text(body, "/custom_id", 127)?,
        invoice_id: fields::text(body, "/invoice_id", 127)?,
        note: fields::text(body, "/note_to_payer", 255)?,
    };
    let amount = refundable(turn, captures::find(turn, id)?, asked)?;
    let outcome = turn.world.paypal.next_refund.take().unwrap_or(PayPalRefundOutcome::Completed);
    let made = send_back(turn, id, amount, remarks, outcome);
    let refund = turn.world.paypal.refunds.find(&made).expect("it was just made");
    let body = shown(inbound, refund.json(turn, &turn.core.paypal_url));
    Ok(Done { status: StatusCode::CREATED, body, made: Some(made) })
}

/// Refunds at the dashboard, all that is left or a part; gives the refund's id.
pub(crate) fn refund(
    turn: &mut Turn<'_>,
    id: &str,
    minor: Option<i64>,
) -> Result<String, PayPalError> {
    let capture = captures::find(turn, id)?;
    if minor.is_some_and(|minor| minor <= 0) {
        let text = "The refund amount is invalid.";
        return Err(PayPalError::unprocessable("INVALID_REFUND_AMOUNT", text));
    }
    let asked = minor.map(|minor| capture.amount.of(minor));
    let amount = refundable(turn, capture, asked)?;
    let outcome = turn.world.paypal.next_refund.take().unwrap_or(PayPalRefundOutcome::Completed);
    Ok(send_back(turn, id, amount, Remarks::default(), outcome))
}

/// Refuses to give back more than is there, or what is being fought over.
fn refundable(
    turn: &Turn<'_>,
    capture: &Capture,
    asked: Option<Amount>,
) -> Result<Amount, PayPalError> {
    match capture.outcome {
        Outcome::Completed => {}
        Outcome::Pending => {
            let text = "Cannot initiate a refund as the capture is pending. Capture is typically \
                        pending when the payer has funded the transaction by using an e-check or \
                        bank account.";
            return Err(PayPalError::unprocessable("PENDING_CAPTURE", text));
        }
        Outcome::Declined => {
            let text = "The requested action could not be completed: no money was captured.";
            return Err(PayPalError::unprocessable("REFUND_NOT_ALLOWED", text));
        }
    }
    if turn.world.paypal.reversed_minor(&capture.id) > 0 {
        let text = "Refunds not allowed on this capture due to a chargeback on the card or bank. \
                    Please contact the payee to resolve the chargeback.";
        return Err(PayPalError::unprocessable("REFUND_NOT_PERMITTED_DUE_TO_CHARGEBACK", text));
    }
    let rest = capture.amount.minor - turn.world.paypal.given_back_minor(&capture.id);
    if rest <= 0 {
        let text = "The capture has already been fully refunded.";
        return Err(PayPalError::unprocessable("CAPTURE_FULLY_REFUNDED", text));
    }
    let asked = asked.unwrap_or_else(|| capture.amount.of(rest));
    if asked.currency != capture.amount.currency {
        let text = "Refund must be in the same currency as the capture.";
        return Err(PayPalError::unprocessable("REFUND_CAPTURE_CURRENCY_MISMATCH", text));
    }
    if asked.minor > rest {
        let text = "The refund amount must be less than or equal to the capture amount that has \
                    not yet been refunded.";
        return Err(PayPalError::unprocessable("REFUND_AMOUNT_EXCEEDED", text));
    }
    if asked.minor < rest && disputes::is_disputed(turn, &capture.id) {
        let text = "Refund for an amount less than the remaining transaction amount cannot be \
                    processed at this time because of an open dispute on the capture. Please visit \
                    the PayPal Resolution Center to view the details.";
        return Err(PayPalError::unprocessable(
            "CAPTURE_DISPUTED_PARTIAL_REFUND_NOT_ALLOWED",
            text,
        ));
    }
    Ok(asked)
}

/// Books a refund and tells of it.
fn send_back(
    turn: &mut Turn<'_>,
    capture_id: &str,
    amount: Amount,
    remarks: Remarks,
    outcome: PayPalRefundOutcome,
) -> String {
    let before = turn.world.paypal.given_back_minor(capture_id);
    let capture = turn.world.paypal.captures.find(capture_id).expect("it was found before");
    let refund = Refund {
        id: ids::paypal(),
        capture: capture_id.to_owned(),
        created_at: turn.now,
        updated_at: turn.now,
        total_minor: before + amount.minor,
        amount,
        custom_id: remarks.custom_id.or_else(|| capture.custom_id.clone()),
        invoice_id: remarks.invoice_id.or_else(|| capture.invoice_id.clone()),
        note: remarks.note,
        status: outcome,
        is_reversal: false,
    };
    book(turn, refund)
}

/// Takes the money of a capture back from the merchant, as after a chargeback; gives the reversal's id.
pub(crate) fn reverse(turn: &mut Turn<'_>, capture_id: &str) -> Result<String, PayPalError> {
    let capture = captures::find(turn, capture_id)?;
    let before = turn.world.paypal.given_back_minor(capture_id);
    let rest = capture.amount.minor - before;
    if capture.outcome != Outcome::Completed || rest <= 0 {
        let text = "There is no money left to take back.";
        return Err(PayPalError::unprocessable("INVALID_RESOURCE_STATE", text));
    }
    let reversal = Refund {
        id: ids::paypal(),
        capture: capture_id.to_owned(),
        created_at: turn.now,
        updated_at: turn.now,
        total_minor: capture.amount.minor,
        amount: capture.amount.of(rest),
        custom_id: capture.custom_id.clone(),
        invoice_id: capture.invoice_id.clone(),
        note: None,
        status: PayPalRefundOutcome::Completed,
        is_reversal: true,
    };
    Ok(book(turn, reversal))
}

fn book(turn: &mut Turn<'_>, refund: Refund) -> String {
    let now = turn.now;
    let id = refund.id.clone();
    let books = &mut turn.world.paypal;
    let capture = books.captures.find_mut(&refund.capture).expect("it was found before");
    capture.refunds.push(id.clone());
    capture.updated_at = now;
    books.refunds.insert(refund);
    turn.effects.push(id.clone());
    tell(turn, &id);
    id
}

/// Ends a refund that pends, or fails one that had succeeded.
pub(crate) fn settle(
    turn: &mut Turn<'_>,
    id: &str,
    outcome: PayPalRefundOutcome,
) -> Result<(), PayPalError> {
    use PayPalRefundOutcome::*;
    let now = turn.now;
    let refund = turn.world.paypal.refunds.find_mut(id).ok_or_else(PayPalError::missing)?;
    let may = match (refund.status, outcome) {
        (Pending, Completed | Failed | Cancelled) | (Completed, Failed) => !refund.is_reversal,
        (Pending, Pending)
        | (Completed, Completed | Pending | Cancelled)
        | (Failed | Cancelled, _) => false,
    };
    if !may {
        let text = "The refund has ended.";
        return Err(PayPalError::unprocessable("INVALID_RESOURCE_STATE", text));
    }
    refund.status = outcome;
    refund.updated_at = now;
    let capture = refund.capture.clone();
    let total = turn.world.paypal.given_back_minor(&capture);
    let refund = turn.world.paypal.refunds.find_mut(id).expect("it was found before");
    if outcome == Completed {
        refund.total_minor = total;
    }
    turn.world.paypal.captures.find_mut(&capture).expect("refunds have captures").updated_at = now;
    tell(turn, id);
    Ok(())
}

/// Tells of a refund in the words for where it stands. PayPal has no event for a cancelled one.
fn tell(turn: &mut Turn<'_>, id: &str) {
    let refund = turn.world.paypal.refunds.find(id).expect("it was found before");
    let money = format!("{} {}", refund.amount.value(), refund.amount.currency);
    let (kind, summary) = match refund.status {
        PayPalRefundOutcome::Completed if refund.is_reversal => {
            ("PAYMENT.CAPTURE.REVERSED", format!("A {money} capture payment was reversed"))
        }
        PayPalRefundOutcome::Completed => {
            ("PAYMENT.CAPTURE.REFUNDED", format!("A {money} capture payment was refunded"))
        }
        PayPalRefundOutcome::Pending => {
            ("PAYMENT.REFUND.PENDING", format!("A {money} refund is pending"))
        }
        PayPalRefundOutcome::Failed => {
            ("PAYMENT.REFUND.FAILED", format!("A {money} refund failed"))
        }
        PayPalRefundOutcome::Cancelled => return,
    };
    let capture = turn.world.paypal.captures.find(&refund.capture);
    let payment_id = capture.and_then(|capture| capture.custom_id.clone());
    let object = refund.json(turn, EVENT_BASE);
    turn.tell_paypal(News { kind, object, object_id: id, payment_id }, &summary);
}
