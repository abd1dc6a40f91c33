//! Intents and payment methods: what is kept of each, and the whole JSON a strict client expects.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::cards::Card;
use super::form::Metadata;
use crate::table::Row;

/// Where an intent stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    RequiresPaymentMethod,
    RequiresConfirmation,
    RequiresAction,
    Processing,
    RequiresCapture,
    Succeeded,
    Canceled,
}

impl Status {
    /// Returns whether the payer may still enter a card.
    pub(crate) fn wants_card(self) -> bool {
        matches!(self, Status::RequiresPaymentMethod | Status::RequiresConfirmation)
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Status::RequiresPaymentMethod => "requires_payment_method",
            Status::RequiresConfirmation => "requires_confirmation",
            Status::RequiresAction => "requires_action",
            Status::Processing => "processing",
            Status::RequiresCapture => "requires_capture",
            Status::Succeeded => "succeeded",
            Status::Canceled => "canceled",
        }
    }
}

/// A payment intent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Intent {
    pub(crate) id: String,
    pub(crate) client_secret: String,
    pub(crate) created: i64,
    pub(crate) amount: i64,
    pub(crate) amount_received: i64,
    pub(crate) amount_capturable: i64,
    pub(crate) currency: String,
    pub(crate) customer: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) metadata: Metadata,
    pub(crate) capture_method: String,
    pub(crate) setup_future_usage: Option<String>,
    pub(crate) receipt_email: Option<String>,
    pub(crate) statement_descriptor: Option<String>,
    pub(crate) statement_descriptor_suffix: Option<String>,
    /// `allow_redirects` of automatic payment methods; none: they were not asked for.
    pub(crate) automatic: Option<String>,
    pub(crate) types: Vec<String>,
    pub(crate) status: Status,
    pub(crate) payment_method: Option<String>,
    pub(crate) latest_charge: Option<String>,
    pub(crate) last_error: Option<Value>,
    pub(crate) next_action: Option<Value>,
    pub(crate) canceled_at: Option<i64>,
    pub(crate) cancellation_reason: Option<String>,
    /// The checkout session it was made for.
    #[serde(default)]
    pub(crate) session: Option<String>,
}

impl Row for Intent {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Intent {
    /// Returns our payment's id out of the metadata.
    pub(crate) fn payment_id(&self) -> Option<String> {
        self.metadata.get("payment_id").cloned()
    }

    pub(crate) fn json(&self) -> Value {
        let automatic = self
            .automatic
            .as_ref()
            .map(|redirects| json!({ "enabled": true, "allow_redirects": redirects }));
        json!({
            "id": self.id,
            "object": "payment_intent",
            "allowed_payment_method_types": null,
            "amount": self.amount,
            "amount_capturable": self.amount_capturable,
            "amount_details": { "tip": {} },
            "amount_received": self.amount_received,
            "application": null,
            "application_fee_amount": null,
            "automatic_payment_methods": automatic,
            "canceled_at": self.canceled_at,
            "cancellation_reason": self.cancellation_reason,
            "capture_method": self.capture_method,
            "client_secret": self.client_secret,
            "confirmation_method": "automatic",
            "created": self.created,
            "currency": self.currency,
            "customer": self.customer,
            "customer_account": null,
            "description": self.description,
            "excluded_payment_method_types": null,
            "last_payment_error": self.last_error,
            "latest_charge": self.latest_charge,
            "livemode": false,
            "managed_payments": null,
            "metadata": self.metadata,
            "next_action": self.next_action,
            "on_behalf_of": null,
            "payment_method": self.payment_method,
            "payment_method_configuration_details": null,
            "payment_method_options": {
                "card": {
                    "installments": null,
                    "mandate_options": null,
                    "network": null,
                    "request_three_d_secure": "automatic",
                },
            },
            "payment_method_types": self.types,
            "payment_record": null,
            "processing": null,
            "receipt_email": self.receipt_email,
            "review": null,
            "setup_future_usage": self.setup_future_usage,
            "shipping": null,
            "source": null,
            "statement_descriptor": self.statement_descriptor,
            "statement_descriptor_suffix": self.statement_descriptor_suffix,
            "status": self.status.as_str(),
            "transfer_data": null,
            "transfer_group": null,
        })
    }
}

/// A card kept for one payment or, with a customer, for later ones.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PaymentMethod {
    pub(crate) id: String,
    pub(crate) created: i64,
    pub(crate) number: String,
    pub(crate) customer: Option<String>,
    pub(crate) metadata: Metadata,
    /// Whether the payer has proven who they are for charges without them.
    pub(crate) is_authenticated: bool,
    /// Whether it paid once without being a customer's: then it cannot pay again.
    pub(crate) is_spent: bool,
}

impl Row for PaymentMethod {
    fn id(&self) -> &str {
        &self.id
    }
}

impl PaymentMethod {
    pub(crate) fn card(&self) -> &'static Card {
        Card::find(&self.number).expect("a method is made of a known card")
    }

    pub(crate) fn json(&self) -> Value {
        let card = self.card();
        json!({
            "id": self.id,
            "object": "payment_method",
            "allow_redisplay": "unspecified",
            "billing_details": billing_details(),
            "card": {
                "brand": card.brand,
                "checks": checks(),
                "country": "US",
                "display_brand": card.brand,
                "exp_month": 8,
                "exp_year": 2030,
                "fingerprint": format!("sim{}", card.number),
                "funding": "credit",
                "generated_from": null,
                "last4": card.last4(),
                "networks": { "available": [card.brand], "preferred": null },
                "regulated_status": "unregulated",
                "three_d_secure_usage": { "supported": true },
                "wallet": null,
            },
            "created": self.created,
            "customer": self.customer,
            "customer_account": null,
            "livemode": false,
            "metadata": self.metadata,
            "type": "card",
        })
    }
}

pub(super) fn billing_details() -> Value {
    json!({
        "address": address(),
        "email": null,
        "name": null,
        "phone": null,
        "tax_id": null,
    })
}

/// Returns an address of which nothing is known.
pub(super) fn address() -> Value {
    json!({
        "city": null, "country": null, "line1": null, "line2": null,
        "postal_code": null, "state": null,
    })
}

pub(super) fn checks() -> Value {
    json!({
        "address_line1_check": null,
        "address_postal_code_check": null,
        "cvc_check": "pass",
    })
}
