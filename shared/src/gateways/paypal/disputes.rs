//! PayPal's disputes in our words (Customer Disputes v1).

use serde::Deserialize;

use super::PayPal;
use super::links::{Link, is_id, next_query};
use super::money::Amount;
use super::orders::{self, Payee};
use crate::gateways::{CaptureRef, DisputeKind, DisputeStage, DisputeState, GatewayError};
use crate::money::Money;

const DISPUTES: &str = "/v1/customer/disputes";

/// One capture has one dispute, sometimes two: more pages than this are not of one capture.
const MAX_PAGES: usize = 5;

#[derive(Deserialize)]
struct Case {
    dispute_id: String,
    status: String,
    reason: Option<String>,
    dispute_amount: Amount,
    dispute_outcome: Option<Outcome>,
    #[serde(default)]
    disputed_transactions: Vec<Transaction>,
}

#[derive(Deserialize)]
struct Outcome {
    outcome_code: Option<String>,
    amount_refunded: Option<Amount>,
}

#[derive(Deserialize)]
struct Transaction {
    seller_transaction_id: Option<String>,
    seller: Option<Payee>,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    items: Vec<Summary>,
    #[serde(default)]
    links: Vec<Link>,
}

#[derive(Deserialize)]
struct Summary {
    dispute_id: String,
}

/// Where a dispute stands, by what happened to our money.
///
/// Every dispute that is not resolved is [`DisputeStage::Open`], whatever its life cycle stage:
/// PayPal holds the seller's money from the moment a buyer opens a dispute, so its stage INQUIRY
/// is no mere inquiry in the sense of card schemes, where no money moves. It is the same hold in
/// CHARGEBACK, `PRE_ARBITRATION` and ARBITRATION.
///
/// | outcome of a resolved one | our money | stage |
/// | --- | --- | --- |
/// | `RESOLVED_BUYER_FAVOUR` | went to the buyer | lost |
/// | `ACCEPTED` | went to the buyer: the claim was accepted | lost |
/// | `RESOLVED_SELLER_FAVOUR` | is released | won |
/// | `RESOLVED_WITH_PAYOUT` | stays ours: PayPal paid from its own | won |
/// | `CANCELED_BY_BUYER` | is released | won |
/// | `DENIED` | is released: PayPal turned the claim down | won |
/// | `NONE` | is released: closed without decision; what follows is another dispute | won |
///
/// An outcome that is none of these needs a person, for it would be a guess about money.
fn stage(status: &str, outcome: Option<&str>) -> Result<DisputeStage, GatewayError> {
    if status != "RESOLVED" {
        return Ok(DisputeStage::Open);
    }
    match outcome {
        Some("RESOLVED_BUYER_FAVOUR" | "ACCEPTED") => Ok(DisputeStage::Lost),
        Some(
            "RESOLVED_SELLER_FAVOUR"
            | "RESOLVED_WITH_PAYOUT"
            | "CANCELED_BY_BUYER"
            | "DENIED"
            | "NONE",
        ) => Ok(DisputeStage::Won),
        other => Err(GatewayError::Malformed(format!("dispute outcome {other:?}"))),
    }
}

impl Case {
    fn into_state(self, merchant_id: Option<&str>) -> Result<DisputeState, GatewayError> {
        let [transaction] = self.disputed_transactions.as_slice() else {
            let what = "a dispute of ours has one transaction";
            return Err(GatewayError::Malformed(what.to_owned()));
        };
        let capture_id = transaction.seller_transaction_id.clone().filter(|id| is_id(id));
        let capture_id = capture_id.ok_or_else(|| {
            GatewayError::Malformed("the dispute does not name its capture".to_owned())
        })?;
        let outcome = self.dispute_outcome.as_ref();
        let stage =
            stage(&self.status, outcome.and_then(|outcome| outcome.outcome_code.as_deref()))?;
        Ok(DisputeState {
            kind: DisputeKind::Dispute,
            capture: CaptureRef { object_id: None, capture_id: Some(capture_id) },
            amount: self.amount(stage)?,
            stage,
            is_ours: orders::is_us(transaction.seller.as_ref(), merchant_id),
            reason: self.reason,
            id: self.dispute_id,
        })
    }

    /// What is contested; when lost, what the buyer got back, if PayPal says so.
    fn amount(&self, stage: DisputeStage) -> Result<Money, GatewayError> {
        let contested = self.dispute_amount.money()?;
        let refunded = self.dispute_outcome.as_ref().and_then(|it| it.amount_refunded.as_ref());
        match (stage, refunded) {
            (DisputeStage::Lost, Some(refunded)) => {
                let refunded = refunded.money()?;
                let is_part =
                    refunded.currency == contested.currency && refunded.minor <= contested.minor;
                Ok(if is_part { refunded } else { contested })
            }
            (DisputeStage::Lost, None)
            | (
                DisputeStage::Inquiry
                | DisputeStage::InquiryClosed
                | DisputeStage::Open
                | DisputeStage::Won,
                _,
            ) => Ok(contested),
        }
    }
}

impl PayPal {
    /// Where a dispute stands.
    pub(super) async fn read_dispute(&self, id: &str) -> Result<DisputeState, GatewayError> {
        if !is_id(id) {
            return Err(GatewayError::NotFound);
        }
        let dispute: Case = self.api.get(&format!("{DISPUTES}/{id}")).await?;
        dispute.into_state(self.merchant_id.as_deref())
    }

    /// All disputes of a capture. Reversals are in no list of PayPal's: their events tell of them.
    pub(super) async fn list_disputes(
        &self,
        capture: &CaptureRef,
    ) -> Result<Vec<DisputeState>, GatewayError> {
        let capture_id = match (&capture.capture_id, &capture.object_id) {
            (Some(id), _) => id.clone(),
            (None, Some(id)) => {
                let order: orders::Order = self.read_order(id).await?;
                let Some(capture_id) = order.capture_id() else { return Ok(Vec::new()) };
                capture_id
            }
            (None, None) => return Err(GatewayError::NotFound),
        };
        if !is_id(&capture_id) {
            return Err(GatewayError::NotFound);
        }
        let mut disputes = Vec::new();
        let mut query = Some(format!("disputed_transaction_id={capture_id}&page_size=10"));
        for _page in 0..MAX_PAGES {
            let Some(asked) = query.take() else { break };
            let list: List = self.api.get(&format!("{DISPUTES}?{asked}")).await?;
            for summary in list.items {
                // The list leaves out what the dispute itself says of its transactions.
                disputes.push(self.read_dispute(&summary.dispute_id).await?);
            }
            query = next_query(&list.links);
        }
        Ok(disputes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const CREATED: &str =
        include_str!("../../../../tests/vectors/paypal_events/customer.dispute.created.json");
    const RESOLVED: &str = include_str!(
        "../../../../tests/vectors/paypal_events/customer.dispute.resolved.seller.json"
    );

    fn resource(event: &str) -> Value {
        let event: Value = serde_json::from_str(event).unwrap();
        event["resource"].clone()
    }

    fn state(dispute: Value) -> Result<DisputeState, GatewayError> {
        let dispute: Case = serde_json::from_value(dispute).unwrap();
        dispute.into_state(Some("RD465XN5VS364"))
    }

    #[test]
    fn an_opened_dispute_holds_the_money_even_in_paypals_inquiry_stage() {
        let dispute = resource(CREATED);
        assert_eq!(dispute["dispute_life_cycle_stage"], "INQUIRY");

        let state = state(dispute).unwrap();

        assert_eq!(state.stage, DisputeStage::Open);
        assert_eq!(state.id, "PP-D-27803");
        assert_eq!(state.capture.capture_id.as_deref(), Some("2GG279541U471931P"));
        assert_eq!(state.amount.minor, 1_099);
        assert!(state.is_ours);
    }

    #[test]
    fn a_dispute_resolved_for_the_seller_is_won() {
        assert_eq!(state(resource(RESOLVED)).unwrap().stage, DisputeStage::Won);
    }

    #[test]
    fn every_outcome_is_judged_by_what_happened_to_our_money() {
        let with = |outcome: &str| {
            let mut dispute = resource(RESOLVED);
            dispute["dispute_outcome"] = json!({ "outcome_code": outcome });
            state(dispute).map(|state| state.stage)
        };
        for lost in ["RESOLVED_BUYER_FAVOUR", "ACCEPTED"] {
            assert_eq!(with(lost).unwrap(), DisputeStage::Lost, "{lost}");
        }
        for won in [
            "RESOLVED_SELLER_FAVOUR",
            "RESOLVED_WITH_PAYOUT",
            "CANCELED_BY_BUYER",
            "DENIED",
            "NONE",
        ] {
            assert_eq!(with(won).unwrap(), DisputeStage::Won, "{won}");
        }
        assert!(with("SOMETHING_NEW").is_err());
        let mut dispute = resource(RESOLVED);
        dispute["dispute_outcome"] = Value::Null;
        assert!(state(dispute).is_err(), "a resolution without outcome is no win");
    }

    #[test]
    fn a_lost_dispute_costs_what_the_buyer_got_back() {
        let mut dispute = resource(RESOLVED);
        let back = json!({ "currency_code": "USD", "value": "4.00" });
        dispute["dispute_outcome"] =
            json!({ "outcome_code": "RESOLVED_BUYER_FAVOUR", "amount_refunded": back });
        assert_eq!(state(dispute.clone()).unwrap().amount.minor, 400);

        dispute["dispute_outcome"]["amount_refunded"]["value"] = "400.00".into();
        assert_eq!(state(dispute).unwrap().amount.minor, 1_099, "never more than was contested");
    }

    #[test]
    fn a_dispute_of_another_seller_is_not_ours() {
        let mut dispute = resource(CREATED);
        dispute["disputed_transactions"][0]["seller"]["merchant_id"] = "SOMEBODYELSE1".into();
        assert!(!state(dispute).unwrap().is_ours);
    }
}
