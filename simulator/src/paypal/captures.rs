//! Captures: the money that was taken.

use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::PayPalError;
use super::events::EVENT_BASE;
use super::fields::Amount;
use super::orders::{self, Funding, Status};
use super::{Done, shown, time, vault};
use crate::calls::Inbound;
use crate::ids;
use crate::table::Row;
use crate::world::{News, Turn};

/// How a capture ended, refunds apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Completed,
    Pending,
    Declined,
}

/// Money taken for an order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    pub(crate) id: String,
    pub(crate) order: String,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
    pub(crate) amount: Amount,
    pub(crate) custom_id: Option<String>,
    pub(crate) invoice_id: Option<String>,
    pub(crate) outcome: Outcome,
    pub(super) refunds: Vec<String>,
}

impl Row for Capture {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Capture {
    /// PayPal's word for where it stands, given what went back of it.
    pub(crate) fn status(&self, given_back_minor: i64) -> &'static str {
        match self.outcome {
            Outcome::Pending => "PENDING",
            Outcome::Declined => "DECLINED",
            Outcome::Completed if given_back_minor == 0 => "COMPLETED",
            Outcome::Completed if given_back_minor < self.amount.minor => "PARTIALLY_REFUNDED",
            Outcome::Completed => "REFUNDED",
        }
    }

    /// PayPal's usual price: 3.49 % and 49 minor units, never more than the amount.
    pub(super) fn fee(&self) -> i64 {
        (self.amount.minor / 10_000 * 349 + self.amount.minor % 10_000 * 349 / 10_000 + 49)
            .min(self.amount.minor)
    }

    pub(super) fn json(&self, turn: &Turn<'_>, base: &str) -> Value {
        let own = format!("{base}/v2/payments/captures/{}", self.id);
        let books = &turn.world.paypal;
        let reversed = books.reversed_minor(&self.id);
        let mut body = json!({
            "id": self.id,
            "status": self.status(books.refunded_minor(&self.id) + reversed),
            "amount": self.amount.json(),
            "final_capture": true,
            "disbursement_mode": "INSTANT",
            "seller_protection": {
                "status": "ELIGIBLE",
                "dispute_categories": ["ITEM_NOT_RECEIVED", "UNAUTHORIZED_TRANSACTION"],
            },
            "supplementary_data": { "related_ids": { "order_id": self.order } },
            "payee": orders::payee(turn),
            "create_time": time(self.created_at),
            "update_time": time(self.updated_at),
            "links": [
                { "href": own, "rel": "self", "method": "GET" },
                { "href": format!("{own}/refund"), "rel": "refund", "method": "POST" },
                {
                    "href": format!("{base}/v2/checkout/orders/{}", self.order),
                    "rel": "up",
                    "method": "GET",
                },
            ],
        });
        for (name, text) in [("custom_id", &self.custom_id), ("invoice_id", &self.invoice_id)] {
            if let Some(text) = text {
                body[name] = json!(text);
            }
        }
        match self.outcome {
            Outcome::Completed => {
                let fee = self.fee();
                body["seller_receivable_breakdown"] = json!({
                    "gross_amount": self.amount.json(),
                    "paypal_fee": self.amount.of(fee).json(),
                    "net_amount": self.amount.of(self.amount.minor - fee).json(),
                });
            }
            Outcome::Pending => body["status_details"] = json!({ "reason": "PENDING_REVIEW" }),
            Outcome::Declined => body["status_details"] = json!({ "reason": "OTHER" }),
        }
        if reversed > 0 {
            body["status_details"] = json!({ "reason": "CHARGEBACK" });
        }
        body
    }

    /// What an order shows of its capture: less, for the order says the rest.
    pub(super) fn json_within_order(&self, turn: &Turn<'_>, base: &str) -> Value {
        let mut body = self.json(turn, base);
        if let Some(fields) = body.as_object_mut() {
            fields.retain(|name, _| !matches!(name.as_str(), "payee" | "supplementary_data"));
        }
        body
    }
}

/// Finds a capture named in the path.
pub(super) fn find<'a>(turn: &'a Turn<'_>, id: &str) -> Result<&'a Capture, PayPalError> {
    turn.world.paypal.captures.find(id).ok_or_else(PayPalError::missing)
}

/// Tells of a capture in the words for where it stands.
fn tell(turn: &mut Turn<'_>, id: &str) {
    let capture = turn.world.paypal.captures.find(id).expect("it was found before");
    let money = format!("{} {}", capture.amount.value(), capture.amount.currency);
    let (kind, summary) = match capture.outcome {
        Outcome::Completed => {
            ("PAYMENT.CAPTURE.COMPLETED", format!("Payment completed for {money}"))
        }
        Outcome::Pending => ("PAYMENT.CAPTURE.PENDING", format!("Payment pending for {money}")),
        Outcome::Declined => ("PAYMENT.CAPTURE.DENIED", "A payment capture was denied".into()),
    };
    let payment_id = capture.custom_id.clone();
    let object = capture.json(turn, EVENT_BASE);
    turn.tell_paypal(News { kind, object, object_id: id, payment_id }, &summary);
}

/// `POST /v2/checkout/orders/{id}/capture`
pub(super) fn capture(
    turn: &mut Turn<'_>,
    inbound: &Inbound,
    id: &str,
) -> Result<Done, PayPalError> {
    let order = orders::find(turn, id)?;
    let page = order.page(&turn.core.paypal_url);
    match order.status {
        Status::Approved => {}
        Status::Created | Status::PayerActionRequired => {
            let text = "Payer has not yet approved the Order for payment. Please redirect the \
                        payer to the 'rel':'approve' url returned as part of the HATEOAS links \
                        within the Create Order call or provide a valid payment_source in the \
                        request.";
            return Err(
                PayPalError::unprocessable("ORDER_NOT_APPROVED", text).link("payer-action", &page)
            );
        }
        Status::Completed => {
            let text = "Order already captured. If 'intent=CAPTURE' only one capture per order is \
                        allowed.";
            return Err(PayPalError::unprocessable("ORDER_ALREADY_CAPTURED", text));
        }
        Status::Voided => {
            let text = "The order was voided and can no longer be captured.";
            return Err(PayPalError::unprocessable("ORDER_VOIDED", text));
        }
    }
    orders::check_invoice(turn, order.invoice_id.clone().as_deref())?;
    let funding = order.funding;
    let outcome = fund(turn, funding, Some(&page))?;
    take(turn, id, outcome);
    let order = orders::find(turn, id)?;
    let body = shown(inbound, orders::json(turn, order, &turn.core.paypal_url));
    Ok(Done { status: StatusCode::CREATED, body, made: Some(id.to_owned()) })
}

/// Says what becomes of a capture with such money; a payer who may choose other money has a page.
pub(super) fn fund(
    turn: &mut Turn<'_>,
    funding: Funding,
    page: Option<&str>,
) -> Result<Outcome, PayPalError> {
    match turn.world.paypal.next_funding.take().unwrap_or(funding) {
        Funding::Instant => Ok(Outcome::Completed),
        Funding::Pending => Ok(Outcome::Pending),
        Funding::Declines => {
            let text = "The instrument presented  was either declined by the processor or bank, or \
                        it can't be used for this payment.";
            let error = PayPalError::unprocessable("INSTRUMENT_DECLINED", text);
            Err(match page {
                Some(page) => error.link("redirect", page),
                None => error,
            })
        }
    }
}

/// Books a capture of an approved order.
pub(super) fn take(turn: &mut Turn<'_>, order_id: &str, outcome: Outcome) {
    let now = turn.now;
    let order = turn.world.paypal.orders.find_mut(order_id).expect("it was found before");
    let capture = Capture {
        id: ids::paypal(),
        order: order_id.to_owned(),
        created_at: now,
        updated_at: now,
        amount: order.amount.clone(),
        custom_id: order.custom_id.clone(),
        invoice_id: order.invoice_id.clone(),
        outcome,
        refunds: Vec::new(),
    };
    let id = capture.id.clone();
    order.status = Status::Completed;
    order.updated_at = now;
    order.captures.push(id.clone());
    turn.world.paypal.invoices.extend(capture.invoice_id.clone());
    turn.world.paypal.captures.insert(capture);
    turn.effects.push(id.clone());
    tell(turn, &id);
    if outcome == Outcome::Completed {
        vault::store(turn, order_id);
    }
    orders::tell(turn, "CHECKOUT.ORDER.COMPLETED", order_id, "Checkout Order Completed");
}

/// Ends a capture that pends: the money has come, or was denied.
pub(crate) fn settle(turn: &mut Turn<'_>, id: &str, is_paid: bool) -> Result<(), PayPalError> {
    let now = turn.now;
    let capture = turn.world.paypal.captures.find_mut(id).ok_or_else(PayPalError::missing)?;
    if capture.outcome != Outcome::Pending {
        let text = "The capture does not pend.";
        return Err(PayPalError::unprocessable("INVALID_RESOURCE_STATE", text));
    }
    capture.outcome = if is_paid { Outcome::Completed } else { Outcome::Declined };
    capture.updated_at = now;
    let invoice_id = capture.invoice_id.clone();
    let order = capture.order.clone();
    if let Some(invoice_id) = invoice_id.filter(|_| !is_paid) {
        turn.world.paypal.invoices.remove(&invoice_id);
    }
    tell(turn, id);
    if is_paid {
        vault::store(turn, &order);
    }
    Ok(())
}

/// `GET /v2/payments/captures/{id}`
pub(super) fn fetch(turn: &Turn<'_>, id: &str) -> Result<Done, PayPalError> {
    let capture = find(turn, id)?;
    Ok(Done::read(capture.json(turn, &turn.core.paypal_url)))
}
