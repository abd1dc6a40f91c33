//! What is kept of a dispute, and the whole JSON a strict client expects.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::stripe::form::Metadata;
use crate::table::Row;

/// What Stripe takes for a dispute, in minor units: 15 dollars, or as many of another currency.
const FEE: i64 = 1500;

/// How long the merchant may answer: the longest that card networks give.
const ANSWER_WITHIN_SECONDS: i64 = 21 * 86_400;

/// The texts and files one may hand in as evidence.
pub(super) const EVIDENCE: &[&str] = &[
    "access_activity_log",
    "billing_address",
    "cancellation_policy",
    "cancellation_policy_disclosure",
    "cancellation_rebuttal",
    "customer_communication",
    "customer_email_address",
    "customer_name",
    "customer_purchase_ip",
    "customer_signature",
    "duplicate_charge_documentation",
    "duplicate_charge_explanation",
    "duplicate_charge_id",
    "product_description",
    "receipt",
    "refund_policy",
    "refund_policy_disclosure",
    "refund_refusal_explanation",
    "service_date",
    "service_documentation",
    "shipping_address",
    "shipping_carrier",
    "shipping_date",
    "shipping_documentation",
    "shipping_tracking_number",
    "uncategorized_file",
    "uncategorized_text",
];

/// Where a dispute stands; the warnings are an inquiry, for which no money moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DisputeStatus {
    WarningNeedsResponse,
    WarningUnderReview,
    WarningClosed,
    NeedsResponse,
    UnderReview,
    Won,
    Lost,
}

impl DisputeStatus {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            DisputeStatus::WarningNeedsResponse => "warning_needs_response",
            DisputeStatus::WarningUnderReview => "warning_under_review",
            DisputeStatus::WarningClosed => "warning_closed",
            DisputeStatus::NeedsResponse => "needs_response",
            DisputeStatus::UnderReview => "under_review",
            DisputeStatus::Won => "won",
            DisputeStatus::Lost => "lost",
        }
    }

    /// Returns whether the bank only asks, and has not decided yet.
    pub(crate) fn is_open_inquiry(self) -> bool {
        matches!(self, DisputeStatus::WarningNeedsResponse | DisputeStatus::WarningUnderReview)
    }

    /// Returns whether the money is withdrawn and the bank has not decided yet.
    pub(crate) fn is_open_chargeback(self) -> bool {
        matches!(self, DisputeStatus::NeedsResponse | DisputeStatus::UnderReview)
    }

    /// Returns whether the disputed money is not ours, for now or for good.
    pub(crate) fn holds_money(self) -> bool {
        self.is_open_chargeback() || self == DisputeStatus::Lost
    }
}

/// Money taken from the merchant's balance (negative) or put back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Movement {
    pub(super) id: String,
    pub(super) created: i64,
    pub(super) amount: i64,
}

/// A payer's bank contests a charge.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Dispute {
    pub(crate) id: String,
    pub(crate) created: i64,
    pub(crate) amount: i64,
    pub(crate) currency: String,
    pub(crate) charge: String,
    pub(crate) payment_intent: String,
    pub(super) brand: String,
    pub(crate) status: DisputeStatus,
    pub(super) is_inquiry: bool,
    pub(super) metadata: Metadata,
    pub(super) evidence: BTreeMap<String, String>,
    pub(super) submissions: u32,
    pub(super) movements: Vec<Movement>,
}

impl Row for Dispute {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Dispute {
    pub(crate) fn json(&self) -> Value {
        let movements: Vec<_> =
            self.movements.iter().map(|movement| self.movement_json(movement)).collect();
        json!({
            "id": self.id,
            "object": "dispute",
            "amount": self.amount,
            "balance_transactions": movements,
            "charge": self.charge,
            "created": self.created,
            "currency": self.currency,
            "enhanced_eligibility_types": [],
            "evidence": self.evidence_json(),
            "evidence_details": {
                "due_by": self.created + ANSWER_WITHIN_SECONDS,
                "enhanced_eligibility": {},
                "has_evidence": !self.evidence.is_empty(),
                "past_due": false,
                "submission_count": self.submissions,
                "submission_method": if self.submissions > 0 { "manual" } else { "not_submitted" },
            },
            "intended_submission_method": null,
            "is_charge_refundable": self.status.is_open_inquiry(),
            "livemode": false,
            "metadata": self.metadata,
            "network_reason_code": "10.4",
            "payment_intent": self.payment_intent,
            "payment_method_details": {
                "card": {
                    "brand": self.brand,
                    "case_type": if self.is_inquiry { "inquiry" } else { "chargeback" },
                    "network": self.brand,
                    "network_reason_code": "10.4",
                },
                "type": "card",
            },
            "reason": "fraudulent",
            "status": self.status.as_str(),
        })
    }

    fn evidence_json(&self) -> Value {
        let fields = EVIDENCE.iter().map(|&name| {
            let text = self.evidence.get(name);
            (name.to_owned(), json!(text))
        });
        let mut fields: Map<_, _> = fields.collect();
        fields.insert("enhanced_evidence".into(), json!({}));
        Value::Object(fields)
    }

    fn movement_json(&self, movement: &Movement) -> Value {
        let is_withdrawal = movement.amount < 0;
        let fee = if is_withdrawal { FEE } else { -FEE };
        let (what, category) = if is_withdrawal {
            ("Chargeback withdrawal", "dispute")
        } else {
            ("Chargeback reversal", "dispute_reversal")
        };
        json!({
            "id": movement.id,
            "object": "balance_transaction",
            "amount": movement.amount,
            "available_on": movement.created,
            "balance_type": "payments",
            "created": movement.created,
            "currency": self.currency,
            "description": format!("{what} for {}", self.charge),
            "exchange_rate": null,
            "fee": fee,
            "fee_details": [{
                "amount": fee,
                "application": null,
                "currency": self.currency,
                "description": if is_withdrawal { "Dispute fee" } else { "Dispute fee refund" },
                "type": "stripe_fee",
            }],
            "net": movement.amount - fee,
            "reporting_category": category,
            "source": self.id,
            "status": "available",
            "type": "adjustment",
        })
    }
}
