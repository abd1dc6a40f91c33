//! Captures that the payer's bank contests, as Stripe tells of them.

use serde::Deserialize;
use stripe_client_core::StripeRequest;
use stripe_core::dispute::{ListDispute, RetrieveDispute};

use super::Stripe;
use super::errors::Unreadable;
use super::lists::PAGE;
use super::objects::{self, Link};
use super::refunds::{Capture, named};
use crate::gateways::{CaptureRef, DisputeKind, DisputeStage, DisputeState, GatewayError};

/// A dispute. Its metadata is empty: it is found by what it contests.
#[derive(Deserialize)]
pub(super) struct Dispute {
    id: String,
    amount: i64,
    currency: String,
    status: String,
    livemode: bool,
    charge: Option<Link>,
    payment_intent: Option<Link>,
    reason: Option<String>,
}

impl Dispute {
    /// Our words for it.
    pub(super) fn state(self, livemode: bool) -> Result<DisputeState, Unreadable> {
        let stage = match self.status.as_str() {
            "warning_needs_response" | "warning_under_review" => DisputeStage::Inquiry,
            "warning_closed" | "prevented" => DisputeStage::InquiryClosed,
            "needs_response" | "under_review" | "appeal_needs_response" | "appeal_under_review" => {
                DisputeStage::Open
            }
            "won" => DisputeStage::Won,
            "lost" => DisputeStage::Lost,
            _ => return Err(Unreadable("the dispute's status".to_owned())),
        };
        Ok(DisputeState {
            id: objects::storable(self.id)?,
            kind: DisputeKind::Dispute,
            capture: CaptureRef {
                object_id: self.payment_intent.and_then(Link::into_id),
                capture_id: self.charge.and_then(Link::into_id),
            },
            amount: objects::amount(self.amount, &self.currency)?,
            stage,
            is_ours: self.livemode == livemode,
            reason: objects::word(self.reason),
        })
    }
}

impl Stripe {
    /// One dispute.
    pub(super) async fn read_dispute(&self, id: &str) -> Result<DisputeState, GatewayError> {
        let dispute: Dispute = self.transport.without_key().ask(&RetrieveDispute::new(id)).await?;
        Ok(dispute.state(self.livemode)?)
    }

    /// Every dispute of a capture.
    pub(super) async fn read_disputes(
        &self,
        capture: &CaptureRef,
    ) -> Result<Vec<DisputeState>, GatewayError> {
        let list = ListDispute::new().limit(PAGE);
        let list = match named(capture)? {
            Capture::Intent(id) => list.payment_intent(id),
            Capture::Charge(id) => list.charge(id),
        };
        let page = |after: Option<&str>| match after {
            Some(after) => list.clone().starting_after(after).build(),
            None => list.build(),
        };
        let disputes = self.all(page, |dispute: &Dispute| &dispute.id).await?;
        let states = disputes.into_iter().map(|dispute| dispute.state(self.livemode));
        Ok(states.collect::<Result<_, _>>()?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stage(status: &str) -> Option<DisputeStage> {
        let dispute = json!({
            "id": "du_1", "amount": 1099, "currency": "usd", "status": status, "livemode": false,
            "charge": "ch_1", "payment_intent": "pi_1", "reason": "fraudulent",
        });
        let dispute: Dispute = serde_json::from_value(dispute).unwrap();
        dispute.state(false).ok().map(|state| state.stage)
    }

    #[test]
    fn every_status_of_a_dispute_has_its_stage() {
        for (stage_of_ours, theirs) in [
            (DisputeStage::Inquiry, &["warning_needs_response", "warning_under_review"][..]),
            (DisputeStage::InquiryClosed, &["warning_closed", "prevented"]),
            (
                DisputeStage::Open,
                &["needs_response", "under_review", "appeal_needs_response", "appeal_under_review"],
            ),
            (DisputeStage::Won, &["won"]),
            (DisputeStage::Lost, &["lost"]),
        ] {
            for status in theirs {
                assert_eq!(stage(status), Some(stage_of_ours), "{status}");
            }
        }
        assert_eq!(stage("half_won"), None);
    }
}
