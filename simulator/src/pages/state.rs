//! The page that shows what a simulated gateway knows, and lets a person interfere.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;

use super::page;
use crate::Gateway;
use crate::delivery::DeliveryStatus;
use crate::faults::{Fault, When};
use crate::money;
use crate::paypal::{self, CaptureOutcome, PayPalDisputeOutcome, PayPalRefundOutcome};
use crate::stripe;
use crate::world::{Core, World};

/// Newest rows shown of each list.
const SHOWN: usize = 25;

/// What a person may do with a row: the button's action and its words.
type Button = (&'static str, &'static str);

/// One payment, refund or dispute.
struct Row {
    id: String,
    /// Where its buyer pays; empty if there is nothing to pay.
    link: String,
    /// What it belongs to.
    of: String,
    amount: String,
    status: String,
    /// What the buttons act on.
    target: String,
    buttons: Vec<Button>,
}

impl Row {
    /// Whether a part of its money may be named.
    fn takes_part(&self) -> bool {
        self.buttons.first().is_some_and(|(action, _)| *action == "refund")
    }
}

struct EventRow {
    id: String,
    kind: String,
    object: String,
    at: String,
    delivery: &'static str,
    attempts: usize,
    answer: String,
}

/// A fault that is on.
struct FaultRow {
    what: String,
    gateway: &'static str,
    matching: String,
    when: String,
}

/// A way to go wrong, as the form offers it.
pub(super) struct Kind {
    /// The word on the wire.
    pub(super) name: &'static str,
    /// What happens.
    label: &'static str,
    /// The number it takes, if it takes one.
    pub(super) number: Option<&'static str>,
}

/// Everything that may be made to go wrong: calls first, then deliveries.
pub(super) const KINDS: &[Kind] = &[
    kind("error_before", "call: 500, nothing done", None),
    kind("error_saved", "call: 500 that is remembered, nothing done", None),
    kind("error_after", "call: done, answered 500", None),
    kind("answer_lost", "call: done, this answer is a 502", None),
    kind("reset_before", "call: connection reset, nothing done", None),
    kind("reset_after", "call: done, connection reset", None),
    kind("rate_limited", "call: 429, wait so many seconds", Some("retry_after_s")),
    kind("slow", "call: takes so many milliseconds", Some("ms")),
    kind("malformed_answer", "call: done, JSON cut in the middle", None),
    kind("wrong_amount", "call: done, answer names a wrong amount", None),
    kind("wrong_currency", "call: done, answer names a wrong currency", None),
    kind("answer_after_webhook", "call: answered after its events", None),
    kind("duplicate", "event: so many copies more", Some("times")),
    kind("delay", "event: waits so many milliseconds", Some("ms")),
    kind("shuffle", "event: overtaken within so many milliseconds", Some("within_ms")),
    kind("drop", "event: never sent", None),
    kind("wrong_secret", "attempt: signed with a wrong secret", None),
    kind("stale_time", "attempt: signed so many seconds ago", Some("seconds")),
    kind("future_time", "attempt: signed so many seconds ahead", Some("seconds")),
    kind("flip_byte", "attempt: one byte changed", None),
    kind("slow_body", "attempt: body takes so many milliseconds", Some("ms")),
    kind("truncated_body", "attempt: body cut off", None),
    kind("gzip", "attempt: claims to be gzip", None),
    kind("wrong_content_type", "attempt: text/plain", None),
];

const fn kind(name: &'static str, label: &'static str, number: Option<&'static str>) -> Kind {
    Kind { name, label, number }
}

#[derive(Template)]
#[template(path = "state.html")]
struct StatePage {
    gateway: &'static str,
    endpoint: String,
    now: String,
    ahead: String,
    pending: usize,
    paused: bool,
    note: Option<String>,
    payments: Vec<Row>,
    refunds: Vec<Row>,
    disputes: Vec<Row>,
    events: Vec<EventRow>,
    faults: Vec<FaultRow>,
    kinds: &'static [Kind],
}

/// What the last form came to, if it could not be done.
#[derive(Debug, Deserialize)]
pub(super) struct Noted {
    note: Option<String>,
}

/// `GET /` at Stripe's address.
pub(super) async fn stripe(State(core): State<Arc<Core>>, Query(noted): Query<Noted>) -> Response {
    let world = core.world();
    let rows = [stripe_payments(&world), stripe_refunds(&world), stripe_disputes(&world)];
    page(StatusCode::OK, &draw(&core, &world, Gateway::Stripe, rows, noted))
}

/// `GET /` at PayPal's address.
pub(super) async fn paypal(State(core): State<Arc<Core>>, Query(noted): Query<Noted>) -> Response {
    let world = core.world();
    let rows = [paypal_payments(&world), paypal_refunds(&world), paypal_disputes(&world)];
    page(StatusCode::OK, &draw(&core, &world, Gateway::PayPal, rows, noted))
}

fn stripe_amount(minor: i64, currency: &str) -> String {
    let decimals = money::stripe_decimals(currency).unwrap_or(2);
    format!("{} {}", money::to_decimal(minor, decimals), currency.to_uppercase())
}

fn stripe_payments(world: &World) -> Vec<Row> {
    use stripe::Status::*;
    let intents = world.stripe.intents.iter().rev().take(SHOWN);
    let rows = intents.map(|intent| {
        let (is_open, buttons) = match intent.status {
            Succeeded => {
                (false, vec![("refund", "Refund"), ("dispute", "Dispute"), ("inquire", "Inquire")])
            }
            Processing => (true, vec![("settle", "Succeed"), ("fail", "Fail")]),
            Canceled => (false, Vec::new()),
            RequiresPaymentMethod | RequiresConfirmation | RequiresAction | RequiresCapture => {
                (true, Vec::new())
            }
        };
        let link = format!("/pay/{}?client_secret={}", intent.id, intent.client_secret);
        Row {
            id: intent.id.clone(),
            link: if is_open { link } else { String::new() },
            of: intent.payment_id().unwrap_or_default(),
            amount: stripe_amount(intent.amount, &intent.currency),
            status: intent.status.as_str().to_owned(),
            target: intent.id.clone(),
            buttons,
        }
    });
    rows.chain(stripe_sessions(world)).collect()
}

fn stripe_sessions(world: &World) -> impl Iterator<Item = Row> + '_ {
    let sessions = world.stripe.sessions.iter().rev().take(SHOWN);
    sessions.map(|session| {
        let is_open = session.status == stripe::sessions::SessionStatus::Open;
        Row {
            id: session.id.clone(),
            link: if is_open { format!("/c/pay/{}", session.id) } else { String::new() },
            of: String::new(),
            amount: String::new(),
            status: session.status.as_str().to_owned(),
            target: session.id.clone(),
            buttons: Vec::new(),
        }
    })
}

fn stripe_refunds(world: &World) -> Vec<Row> {
    let refunds = world.stripe.refunds.iter().rev().take(SHOWN);
    let rows = refunds.map(|refund| Row {
        id: refund.id.clone(),
        link: String::new(),
        of: refund.payment_intent.clone(),
        amount: stripe_amount(refund.amount, &refund.currency),
        status: refund.status.clone(),
        target: refund.id.clone(),
        buttons: match refund.status.as_str() {
            "pending" => vec![("settle-refund", "Succeed"), ("fail-refund", "Fail")],
            "succeeded" => vec![("fail-refund", "Fail")],
            _ => Vec::new(),
        },
    });
    rows.collect()
}

fn stripe_disputes(world: &World) -> Vec<Row> {
    let disputes = world.stripe.disputes.iter().rev().take(SHOWN);
    let rows = disputes.map(|dispute| Row {
        id: dispute.id.clone(),
        link: String::new(),
        of: dispute.payment_intent.clone(),
        amount: stripe_amount(dispute.amount, &dispute.currency),
        status: dispute.status.as_str().to_owned(),
        target: dispute.id.clone(),
        buttons: if dispute.status.is_open_chargeback() {
            vec![("won", "Won"), ("lost", "Lost")]
        } else if dispute.status.is_open_inquiry() {
            vec![("escalate", "Escalate"), ("warning_closed", "Close")]
        } else {
            Vec::new()
        },
    });
    rows.collect()
}

fn paypal_payments(world: &World) -> Vec<Row> {
    let books = &world.paypal;
    let orders = books.orders.iter().rev().take(SHOWN);
    let rows = orders.map(|order| {
        let capture = order.captures.last().and_then(|id| books.captures.find(id));
        let is_open = !matches!(order.status, paypal::Status::Completed | paypal::Status::Voided);
        let mut row = Row {
            id: order.id.clone(),
            link: if is_open { order.page("") } else { String::new() },
            of: order.custom_id.clone().unwrap_or_default(),
            amount: format!("{} {}", order.amount.value(), order.amount.currency),
            status: order.status.as_str().to_owned(),
            target: order.id.clone(),
            buttons: Vec::new(),
        };
        match capture {
            None if order.status == paypal::Status::Approved => {
                row.buttons = vec![("reverse-approval", "Take approval back")];
            }
            None => {}
            Some(capture) => {
                row.target.clone_from(&capture.id);
                let back = books.refunded_minor(&capture.id) + books.reversed_minor(&capture.id);
                row.status = format!("capture {}", capture.status(back));
                row.buttons = match capture.outcome {
                    CaptureOutcome::Pending => vec![("settle", "Complete"), ("fail", "Deny")],
                    CaptureOutcome::Declined => Vec::new(),
                    CaptureOutcome::Completed if back >= capture.amount.minor => Vec::new(),
                    CaptureOutcome::Completed => vec![
                        ("refund", "Refund"),
                        ("dispute", "Dispute"),
                        ("inquire", "Inquire"),
                        ("reverse", "Reverse"),
                    ],
                };
            }
        }
        row
    });
    rows.collect()
}

/// Names the payment that a capture is of, as the list of payments does.
fn payment_of(world: &World, capture: &str) -> String {
    let capture = world.paypal.captures.find(capture);
    capture.and_then(|it| it.custom_id.clone().or(Some(it.order.clone()))).unwrap_or_default()
}

fn paypal_refunds(world: &World) -> Vec<Row> {
    let refunds = world.paypal.refunds.iter().rev().take(SHOWN);
    let rows = refunds.map(|refund| Row {
        id: refund.id.clone(),
        link: String::new(),
        of: payment_of(world, &refund.capture),
        amount: format!("{} {}", refund.amount.value(), refund.amount.currency),
        status: if refund.is_reversal {
            "reversal".to_owned()
        } else {
            refund.status.as_str().to_owned()
        },
        target: refund.id.clone(),
        buttons: match refund.status {
            PayPalRefundOutcome::Pending => {
                vec![("settle-refund", "Complete"), ("fail-refund", "Fail")]
            }
            PayPalRefundOutcome::Completed if !refund.is_reversal => vec![("fail-refund", "Fail")],
            PayPalRefundOutcome::Completed
            | PayPalRefundOutcome::Failed
            | PayPalRefundOutcome::Cancelled => Vec::new(),
        },
    });
    rows.collect()
}

fn paypal_disputes(world: &World) -> Vec<Row> {
    let disputes = world.paypal.disputes.iter().rev().take(SHOWN);
    let rows = disputes.map(|dispute| Row {
        id: dispute.id.clone(),
        link: String::new(),
        of: payment_of(world, &dispute.capture),
        amount: format!("{} {}", dispute.amount.value(), dispute.amount.currency),
        status: match dispute.outcome {
            Some(outcome) => format!("{}: {}", dispute.status(), outcome.as_str()),
            None => dispute.status().to_owned(),
        },
        target: dispute.id.clone(),
        buttons: match dispute.outcome {
            Some(_) => Vec::new(),
            None => vec![
                ("escalate", "Escalate"),
                (PayPalDisputeOutcome::ResolvedBuyerFavour.as_str(), "Buyer wins"),
                (PayPalDisputeOutcome::ResolvedSellerFavour.as_str(), "Seller wins"),
                (PayPalDisputeOutcome::CanceledByBuyer.as_str(), "Cancelled"),
            ],
        },
    });
    rows.collect()
}

fn events(world: &World, gateway: Gateway) -> Vec<EventRow> {
    let outbox = &world.outbox;
    let events = outbox.events.iter().enumerate().rev();
    let events = events.filter(|(_, event)| event.gateway == gateway).take(SHOWN);
    let rows = events.map(|(place, event)| {
        let mut attempts = outbox.attempts.iter().rev().filter(|it| it.event_id == event.id);
        let last = attempts.next();
        EventRow {
            id: event.id.clone(),
            kind: event.kind.clone(),
            object: event.object_id.clone(),
            at: clock_time(event.created_at),
            delivery: match outbox.status(place) {
                DeliveryStatus::NotSent => "not sent",
                DeliveryStatus::Pending => "pending",
                DeliveryStatus::Delivered => "delivered",
            },
            attempts: attempts.count() + usize::from(last.is_some()),
            answer: match last.map(|attempt| attempt.status) {
                None => String::new(),
                Some(None) => "no answer".into(),
                Some(Some(status)) => status.to_string(),
            },
        }
    });
    rows.collect()
}

fn fault_row(fault: &Fault) -> FaultRow {
    let trouble = serde_json::to_value(&fault.trouble).unwrap_or_default();
    let name = trouble["kind"].as_str().unwrap_or_default().to_owned();
    let fields = trouble.as_object().into_iter().flatten();
    let numbers = fields.filter(|(field, _)| *field != "kind");
    let numbers: Vec<_> = numbers.map(|(field, number)| format!("{field} {number}")).collect();
    FaultRow {
        what: format!("{name} {}", numbers.join(" ")),
        gateway: match fault.gateway {
            None => "both",
            Some(Gateway::Stripe) => "Stripe",
            Some(Gateway::PayPal) => "PayPal",
        },
        matching: fault.matching.clone(),
        when: match fault.when {
            When::Next(left) => format!("next {left}"),
            When::PerMille(chance) => format!("{chance} of 1000"),
        },
    }
}

fn clock_time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S").to_string()
}

/// Says how far the simulator's clock is from the machine's.
fn offset(by: TimeDelta) -> String {
    let way = if by < TimeDelta::zero() { "behind" } else { "ahead" };
    let by = by.abs();
    match (by.num_days(), by.num_hours() % 24, by.num_minutes() % 60) {
        (0, 0, 0) => String::new(),
        (days, hours, minutes) => format!("{days} d {hours} h {minutes} min {way}"),
    }
}

fn draw(
    core: &Core,
    world: &World,
    gateway: Gateway,
    [payments, refunds, disputes]: [Vec<Row>; 3],
    noted: Noted,
) -> StatePage {
    let outbox = &world.outbox;
    StatePage {
        gateway: match gateway {
            Gateway::Stripe => "Stripe",
            Gateway::PayPal => "PayPal",
        },
        endpoint: match outbox.url(gateway) {
            Some(url) => format!("Events go to {url}."),
            None => "Events are kept, there is no endpoint.".into(),
        },
        now: clock_time(core.clock.now()),
        ahead: offset(core.clock.offset()),
        pending: outbox.pending(),
        paused: outbox.paused,
        note: noted.note,
        payments,
        refunds,
        disputes,
        events: events(world, gateway),
        faults: world.faults.list().iter().map(fault_row).collect(),
        kinds: KINDS,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::faults::Trouble;

    #[test]
    fn the_form_offers_only_faults_that_there_are() {
        for kind in KINDS {
            let mut trouble = json!({ "kind": kind.name });
            if let Some(number) = kind.number {
                trouble[number] = json!(7);
            }
            let read: Trouble = serde_json::from_value(trouble.clone()).unwrap();
            assert_eq!(serde_json::to_value(read).unwrap(), trouble);
        }
    }

    #[test]
    fn a_clock_that_was_moved_is_told_in_days_and_hours() {
        assert_eq!(offset(TimeDelta::zero()), "");
        assert_eq!(offset(TimeDelta::hours(25)), "1 d 1 h 0 min ahead");
        assert_eq!(offset(TimeDelta::minutes(-5)), "0 d 0 h 5 min behind");
    }
}
