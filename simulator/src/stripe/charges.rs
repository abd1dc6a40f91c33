//! Charges and refunds: what is kept of each, and the whole JSON a strict client expects.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::cards::{Aftermath, Card};
use super::form::Metadata;
use super::objects::{billing_details, checks};
use crate::table::Row;

/// How a charge ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ending {
    Succeeded,
    Pending,
    Failed { code: String, decline_code: String, message: String },
}

/// One try at taking money.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Charge {
    pub(crate) id: String,
    pub(crate) created: i64,
    pub(crate) amount: i64,
    pub(crate) amount_captured: i64,
    pub(crate) amount_refunded: i64,
    pub(crate) currency: String,
    pub(crate) customer: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) metadata: Metadata,
    pub(crate) is_captured: bool,
    pub(crate) is_disputed: bool,
    pub(crate) ending: Ending,
    pub(crate) payment_intent: String,
    pub(crate) payment_method: String,
    pub(crate) number: String,
    pub(crate) aftermath: Aftermath,
}

impl Row for Charge {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Charge {
    /// Returns what could still be paid back.
    pub(crate) fn refundable(&self) -> i64 {
        self.amount_captured - self.amount_refunded
    }

    fn is_paid(&self) -> bool {
        self.ending == Ending::Succeeded
    }

    pub(crate) fn json(&self) -> Value {
        let (failure_code, failure_message) = match &self.ending {
            Ending::Succeeded | Ending::Pending => (None, None),
            Ending::Failed { code, message, .. } => (Some(code), Some(message)),
        };
        let status = match &self.ending {
            Ending::Succeeded => "succeeded",
            Ending::Pending => "pending",
            Ending::Failed { .. } => "failed",
        };
        let settled = self.is_paid() && self.is_captured;
        json!({
            "id": self.id,
            "object": "charge",
            "amount": self.amount,
            "amount_captured": self.amount_captured,
            "amount_refunded": self.amount_refunded,
            "application": null,
            "application_fee": null,
            "application_fee_amount": null,
            "balance_transaction": settled.then(|| self.id.replacen("ch_", "txn_", 1)),
            "billing_details": billing_details(),
            "calculated_statement_descriptor": null,
            "captured": settled,
            "created": self.created,
            "currency": self.currency,
            "customer": self.customer,
            "description": self.description,
            "disputed": self.is_disputed,
            "failure_balance_transaction": null,
            "failure_code": failure_code,
            "failure_message": failure_message,
            "fraud_details": {},
            "livemode": false,
            "metadata": self.metadata,
            "on_behalf_of": null,
            "outcome": self.outcome(),
            "paid": self.is_paid(),
            "payment_intent": self.payment_intent,
            "payment_method": self.payment_method,
            "payment_method_details": { "card": self.card_details(), "type": "card" },
            "receipt_email": null,
            "receipt_number": null,
            "receipt_url": format!("https://pay.stripe.com/receipts/{}", self.id),
            "refunded": self.amount_captured > 0 && self.refundable() == 0,
            "review": null,
            "shipping": null,
            "source": null,
            "source_transfer": null,
            "statement_descriptor": null,
            "statement_descriptor_suffix": null,
            "status": status,
            "transfer_data": null,
            "transfer_group": null,
        })
    }

    fn outcome(&self) -> Value {
        let (network, reason, message, kind) = match &self.ending {
            Ending::Succeeded => ("approved_by_network", None, "Payment complete.", "authorized"),
            Ending::Pending => ("approved_by_network", None, "Payment pending.", "authorized"),
            Ending::Failed { decline_code, message, .. } => {
                ("declined_by_network", Some(decline_code), message.as_str(), "issuer_declined")
            }
        };
        json!({
            "advice_code": null,
            "network_advice_code": null,
            "network_decline_code": null,
            "network_status": network,
            "reason": reason,
            "risk_level": "normal",
            "risk_score": 20,
            "seller_message": message,
            "type": kind,
        })
    }

    fn card_details(&self) -> Value {
        let card = Card::find(&self.number).expect("a charge is of a known card");
        json!({
            "amount_authorized": self.amount,
            "authorization_code": null,
            "brand": card.brand,
            "checks": checks(),
            "country": "US",
            "electronic_commerce_indicator": null,
            "exp_month": 8,
            "exp_year": 2030,
            "extended_authorization": { "status": "disabled" },
            "fingerprint": format!("sim{}", card.number),
            "funding": "credit",
            "incremental_authorization": { "status": "unavailable" },
            "installments": null,
            "last4": card.last4(),
            "mandate": null,
            "multicapture": { "status": "unavailable" },
            "network": card.brand,
            "network_token": { "used": false },
            "network_transaction_id": null,
            "overcapture": {
                "maximum_amount_capturable": self.amount,
                "status": "unavailable",
            },
            "regulated_status": "unregulated",
            "three_d_secure": null,
            "transaction_link_id": null,
            "wallet": null,
        })
    }
}

/// Money sent back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Refund {
    pub(crate) id: String,
    pub(crate) created: i64,
    pub(crate) amount: i64,
    pub(crate) currency: String,
    pub(crate) charge: String,
    pub(crate) payment_intent: String,
    pub(crate) metadata: Metadata,
    pub(crate) reason: Option<String>,
    pub(crate) status: String,
    pub(crate) failure_reason: Option<String>,
    /// Whether the bank's reference is known by now.
    pub(crate) has_reference: bool,
}

impl Row for Refund {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Refund {
    pub(crate) fn json(&self) -> Value {
        let mut card = json!({
            "reference_status": if self.has_reference { "available" } else { "pending" },
            "reference_type": "acquirer_reference_number",
            "type": "refund",
        });
        if self.has_reference {
            card["reference"] = json!("5920800000000001");
        }
        let mut refund = json!({
            "id": self.id,
            "object": "refund",
            "amount": self.amount,
            "balance_transaction": self.id.replacen("re_", "txn_", 1),
            "charge": self.charge,
            "created": self.created,
            "currency": self.currency,
            "customer": null,
            "customer_account": null,
            "destination_details": { "card": card, "type": "card" },
            "metadata": self.metadata,
            "payment_intent": self.payment_intent,
            "payment_method": null,
            "reason": self.reason,
            "receipt_number": null,
            "source_transfer_reversal": null,
            "status": self.status,
            "transfer_reversal": null,
        });
        if let Some(reason) = &self.failure_reason {
            refund["failure_reason"] = json!(reason);
            refund["failure_balance_transaction"] = json!(self.id.replacen("re_", "txn_f", 1));
        }
        refund
    }
}
