//! The forms of the state page: what a person makes happen by hand.

use std::sync::Arc;

use axum::Form;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::TimeDelta;
use serde::Deserialize;
use serde_json::json;
use url::form_urlencoded;

use super::redirect;
use super::state::KINDS;
use crate::Gateway;
use crate::acts::Refusal;
use crate::faults::{Fault, When};
use crate::paypal::{self, PayPalDisputeOutcome, PayPalRefundOutcome};
use crate::stripe::{self, DisputeOutcome};
use crate::world::{Cause, Core};

/// One form, with the fields of all of them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Submitted {
    action: String,
    /// The object it is about.
    target: String,
    /// A part of the money, in minor units; empty: all that is left.
    amount: String,
    kind: String,
    gateway: String,
    matching: String,
    /// `next` or `per_mille`.
    how: String,
    count: String,
    number: String,
    hours: String,
}

fn refusal(code: &str, message: &str) -> Refusal {
    Refusal { code: code.to_owned(), message: message.to_owned() }
}

fn number<T: std::str::FromStr>(text: &str, name: &str) -> Result<T, Refusal> {
    let refused = |_| refusal("invalid_number", &format!("{name} must be a whole number"));
    text.trim().parse().map_err(refused)
}

impl Submitted {
    fn part(&self) -> Result<Option<i64>, Refusal> {
        if self.amount.trim().is_empty() {
            Ok(None)
        } else {
            number(&self.amount, "amount").map(Some)
        }
    }

    fn fault(&self) -> Result<Fault, Refusal> {
        let kind = KINDS.iter().find(|kind| kind.name == self.kind);
        let kind = kind.ok_or_else(|| refusal("unknown_kind", "there is no such fault"))?;
        let mut trouble = json!({ "kind": kind.name });
        if let Some(name) = kind.number {
            trouble[name] = json!(number::<u64>(&self.number, "the fault's number")?);
        }
        let trouble = serde_json::from_value(trouble)
            .map_err(|error| refusal("invalid_number", &error.to_string()))?;
        Ok(Fault {
            gateway: match self.gateway.as_str() {
                "stripe" => Some(Gateway::Stripe),
                "paypal" => Some(Gateway::PayPal),
                _ => None,
            },
            matching: self.matching.trim().to_owned(),
            trouble,
            when: if self.how == "per_mille" {
                When::PerMille(number(&self.count, "how often")?)
            } else {
                When::Next(number(&self.count, "how often")?)
            },
        })
    }
}

/// Returns whether a form was sent from a page of the same address.
fn is_own(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(origin) = text(header::ORIGIN) else { return true };
    let host = origin.split_once("://").map(|(_, host)| host);
    host.is_some() && host == text(header::HOST)
}

/// `POST /desk` at Stripe's address.
pub(super) async fn stripe(
    State(core): State<Arc<Core>>,
    headers: HeaderMap,
    Form(form): Form<Submitted>,
) -> Response {
    answer(&headers, || common(&core, &form).unwrap_or_else(|| at_stripe(&core, &form)))
}

/// `POST /desk` at PayPal's address.
pub(super) async fn paypal(
    State(core): State<Arc<Core>>,
    headers: HeaderMap,
    Form(form): Form<Submitted>,
) -> Response {
    answer(&headers, || common(&core, &form).unwrap_or_else(|| at_paypal(&core, &form)))
}

fn answer(headers: &HeaderMap, act: impl FnOnce() -> Result<(), Refusal>) -> Response {
    if !is_own(headers) {
        return (StatusCode::FORBIDDEN, "This form is of another page.").into_response();
    }
    match act() {
        Ok(()) => redirect("/"),
        Err(refusal) => {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("note", &refusal.to_string());
            redirect(&format!("/?{}", query.finish()))
        }
    }
}

/// Does what is the same at both gateways; `None` if the form is another one.
fn common(core: &Core, form: &Submitted) -> Option<Result<(), Refusal>> {
    Some(match form.action.as_str() {
        "fault" => form.fault().map(|fault| core.world().faults.add(fault)),
        "clear-faults" => {
            core.world().faults.clear();
            Ok(())
        }
        "pause" => {
            core.pause(true);
            Ok(())
        }
        "resume" => {
            core.pause(false);
            Ok(())
        }
        "redeliver" if core.redeliver(&form.target) => Ok(()),
        "redeliver" => Err(refusal("unknown_event", "there is no such event")),
        // A century is as far as a date needs to go, and no sum of two overflows.
        "advance" => number::<i32>(&form.hours, "hours")
            .and_then(|hours| match hours {
                -876_600..=876_600 => Ok(TimeDelta::hours(hours.into())),
                _ => Err(refusal("invalid_number", "hours must be within a century")),
            })
            .map(|by| core.advance(by)),
        _ => return None,
    })
}

fn at_stripe(core: &Core, form: &Submitted) -> Result<(), Refusal> {
    let id = form.target.as_str();
    let part = form.part()?;
    core.turn(Cause::default(), |turn| {
        match form.action.as_str() {
            "refund" => stripe::refund_at_dashboard(turn, id, part).map(drop)?,
            "dispute" => stripe::open_dispute(turn, id, false, part).map(drop)?,
            "inquire" => stripe::open_dispute(turn, id, true, part).map(drop)?,
            "escalate" => stripe::escalate_dispute(turn, id)?,
            "won" => stripe::settle_dispute(turn, id, DisputeOutcome::Won)?,
            "lost" => stripe::settle_dispute(turn, id, DisputeOutcome::Lost)?,
            "warning_closed" => stripe::settle_dispute(turn, id, DisputeOutcome::WarningClosed)?,
            "settle" => stripe::settle(turn, id, true)?,
            "fail" => stripe::settle(turn, id, false)?,
            "settle-refund" => stripe::settle_refund(turn, id, true)?,
            "fail-refund" => stripe::settle_refund(turn, id, false)?,
            _ => return Err(refusal("unknown_action", "there is no such action")),
        }
        Ok(())
    })
}

fn at_paypal(core: &Core, form: &Submitted) -> Result<(), Refusal> {
    let id = form.target.as_str();
    let part = form.part()?;
    core.turn(Cause::default(), |turn| {
        match form.action.as_str() {
            "refund" => paypal::refund(turn, id, part).map(drop)?,
            "reverse" => paypal::reverse(turn, id).map(drop)?,
            "reverse-approval" => paypal::reverse_approval(turn, id)?,
            "dispute" => paypal::open_dispute(turn, id, false).map(drop)?,
            "inquire" => paypal::open_dispute(turn, id, true).map(drop)?,
            "escalate" => paypal::escalate_dispute(turn, id)?,
            "settle" => paypal::settle(turn, id, true)?,
            "fail" => paypal::settle(turn, id, false)?,
            "settle-refund" => paypal::settle_refund(turn, id, PayPalRefundOutcome::Completed)?,
            "fail-refund" => paypal::settle_refund(turn, id, PayPalRefundOutcome::Failed)?,
            outcome => {
                let outcome = serde_json::from_value::<PayPalDisputeOutcome>(json!(outcome));
                let unknown = |_| refusal("unknown_action", "there is no such action");
                paypal::settle_dispute(turn, id, outcome.map_err(unknown)?)?;
            }
        }
        Ok(())
    })
}
