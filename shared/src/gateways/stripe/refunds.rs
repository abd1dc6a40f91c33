//! Money sent back by Stripe: asked for once, however often and late it is asked.

use chrono::{DateTime, Duration, Utc};
use serde::Deserialize;
use stripe_client_core::StripeRequest;
use stripe_core::refund::{CreateRefund, ListRefund, RetrieveRefund};

use super::Stripe;
use super::errors::{Refusal, Unreadable};
use super::lists::PAGE;
use super::objects::{self, Link, Metadata};
use crate::clock::wall_now;
use crate::gateways::{CaptureRef, GatewayError, RefundRequest, RefundState, RefundStatus};

/// Stripe may forget a key after 24 h; a repeat looks first well before.
const KEY_IS_SURE: Duration = Duration::hours(20);

/// A refund. It has no `livemode`: what our key shows, and what a checked event carries, is ours.
#[derive(Deserialize)]
pub(super) struct Refund {
    id: String,
    amount: i64,
    currency: String,
    status: Option<String>,
    charge: Option<Link>,
    payment_intent: Option<Link>,
    #[serde(default)]
    metadata: Option<Metadata>,
    failure_reason: Option<String>,
}

impl Refund {
    fn is_of(&self, request: &RefundRequest) -> bool {
        let metadata = self.metadata.as_ref();
        let named = metadata.and_then(|metadata| metadata.get("refund_id"));
        named.is_some_and(|named| *named == request.refund_id.to_string())
    }

    /// Our words for it.
    pub(super) fn state(self) -> Result<RefundState, Unreadable> {
        let status = match self.status.as_deref() {
            Some("pending" | "requires_action") => RefundStatus::Pending,
            Some("succeeded") => RefundStatus::Succeeded,
            Some("failed" | "canceled") => RefundStatus::Failed,
            _ => return Err(Unreadable("the refund's status".to_owned())),
        };
        Ok(RefundState {
            id: objects::storable(self.id)?,
            capture: CaptureRef {
                object_id: self.payment_intent.and_then(Link::into_id),
                capture_id: self.charge.and_then(Link::into_id),
            },
            amount: objects::amount(self.amount, &self.currency)?,
            status,
            names_refund: self.metadata.and_then(|mut metadata| metadata.remove("refund_id")),
            is_ours: true,
            failure_code: objects::word(self.failure_reason),
        })
    }
}

/// How Stripe is told which capture is meant.
pub(super) enum Capture<'a> {
    Intent(&'a str),
    Charge(&'a str),
}

/// The intent where it is known, else the charge.
pub(super) fn named(capture: &CaptureRef) -> Result<Capture<'_>, GatewayError> {
    let is_intent = |id: &&str| id.starts_with("pi_");
    match (capture.object_id.as_deref().filter(is_intent), capture.capture_id.as_deref()) {
        (Some(intent), _) => Ok(Capture::Intent(intent)),
        (None, Some(charge)) => Ok(Capture::Charge(charge)),
        (None, None) => Err(GatewayError::NotFound),
    }
}

impl Stripe {
    /// Asks for a refund, or finds the one that was made when it was asked for before.
    pub(super) async fn ask_refund(
        &self,
        request: &RefundRequest,
    ) -> Result<RefundState, GatewayError> {
        if is_late(request.first_asked_at, wall_now())
            && let Some(made) = self.made_before(request).await?
        {
            return Ok(made);
        }
        let create = create(request)?;
        let key = format!("refund:{}", request.refund_id);
        let failure = match self.transport.with_key(&key).ask::<Refund>(&create).await {
            Ok(refund) => return Ok(refund.state()?),
            Err(failure) => failure,
        };
        let is = |what: fn(&Refusal) -> bool| failure.refusal().is_some_and(what);
        // More than is left: perhaps of our own refund, or somebody refunds at Stripe as well.
        let is_too_much = is(|refusal| refusal.is_about("amount"));
        let is_worth_a_look =
            is_too_much || is(Refusal::is_of_state) || is(Refusal::is_saved_fault);
        if is_worth_a_look && let Some(made) = self.made_before(request).await? {
            return Ok(made);
        }
        if is_too_much {
            return Err(GatewayError::Refused { code: "amount".to_owned() });
        }
        Err(failure.into())
    }

    /// The refund that names this request, if Stripe has it.
    async fn made_before(
        &self,
        request: &RefundRequest,
    ) -> Result<Option<RefundState>, GatewayError> {
        let refunds = self.list_refunds(&request.capture).await?;
        let ours = refunds.into_iter().find(|refund| refund.is_of(request));
        Ok(ours.map(Refund::state).transpose()?)
    }

    /// One refund.
    pub(super) async fn read_refund(&self, id: &str) -> Result<RefundState, GatewayError> {
        let refund: Refund = self.transport.without_key().ask(&RetrieveRefund::new(id)).await?;
        Ok(refund.state()?)
    }

    /// Every refund of a capture.
    pub(super) async fn read_refunds(
        &self,
        capture: &CaptureRef,
    ) -> Result<Vec<RefundState>, GatewayError> {
        let refunds = self.list_refunds(capture).await?;
        Ok(refunds.into_iter().map(Refund::state).collect::<Result<_, _>>()?)
    }

    async fn list_refunds(&self, capture: &CaptureRef) -> Result<Vec<Refund>, GatewayError> {
        let list = ListRefund::new().limit(PAGE);
        let list = match named(capture)? {
            Capture::Intent(id) => list.payment_intent(id),
            Capture::Charge(id) => list.charge(id),
        };
        let page = |after: Option<&str>| match after {
            Some(after) => list.clone().starting_after(after).build(),
            None => list.build(),
        };
        Ok(self.all(page, |refund: &Refund| &refund.id).await?)
    }
}

fn create(request: &RefundRequest) -> Result<CreateRefund, GatewayError> {
    let units = super::told(request.amount)?;
    let create = CreateRefund::new().amount(units).metadata([
        ("refund_id".to_owned(), request.refund_id.to_string()),
        ("payment_id".to_owned(), request.payment_id.to_string()),
    ]);
    Ok(match named(&request.capture)? {
        Capture::Intent(id) => create.payment_intent(id),
        Capture::Charge(id) => create.charge(id),
    })
}

fn is_late(first_asked_at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    now - first_asked_at > KEY_IS_SURE
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn state(status: &str) -> Result<RefundState, Unreadable> {
        let refund = json!({
            "id": "re_1", "amount": 400, "currency": "usd", "status": status, "charge": "ch_1",
            "payment_intent": null, "metadata": null,
        });
        serde_json::from_value::<Refund>(refund).unwrap().state()
    }

    #[test]
    fn every_status_of_a_refund_has_its_word() {
        for (theirs, ours) in [
            ("pending", RefundStatus::Pending),
            ("requires_action", RefundStatus::Pending),
            ("succeeded", RefundStatus::Succeeded),
            ("failed", RefundStatus::Failed),
            ("canceled", RefundStatus::Failed),
        ] {
            assert_eq!(state(theirs).unwrap().status, ours, "{theirs}");
        }
        assert!(state("paused").is_err());
    }

    #[test]
    fn a_repeat_looks_first_once_the_key_may_be_forgotten() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let asked = at("2026-11-24T00:00:00Z");
        assert!(!is_late(asked, at("2026-11-24T19:59:59Z")));
        assert!(is_late(asked, at("2026-11-24T20:00:01Z")));
    }
}
