//! What is kept of a checkout session, and the whole JSON a strict client expects.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::stripe::form::Metadata;
use crate::stripe::objects::address;
use crate::table::Row;

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    Payment,
    Setup,
}

/// Whether a session can still be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SessionStatus {
    Open,
    Complete,
    Expired,
}

impl SessionStatus {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            SessionStatus::Open => "open",
            SessionStatus::Complete => "complete",
            SessionStatus::Expired => "expired",
        }
    }
}

/// What is bought.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Item {
    pub(super) id: String,
    pub(super) price: String,
    pub(super) product: String,
    pub(crate) name: String,
    pub(super) currency: String,
    pub(super) unit_amount: i64,
    pub(super) quantity: i64,
}

impl Item {
    /// Returns what the item costs; none if that is too large a number.
    pub(super) fn total(&self) -> Option<i64> {
        self.unit_amount.checked_mul(self.quantity)
    }

    fn json(&self, created: i64) -> Value {
        let total = self.total();
        json!({
            "id": self.id,
            "object": "item",
            "adjustable_quantity": null,
            "amount_discount": 0,
            "amount_subtotal": total,
            "amount_tax": 0,
            "amount_total": total,
            "currency": self.currency,
            "description": self.name,
            "metadata": {},
            "price": {
                "id": self.price,
                "object": "price",
                "active": false,
                "billing_scheme": "per_unit",
                "created": created,
                "currency": self.currency,
                "custom_unit_amount": null,
                "livemode": false,
                "lookup_key": null,
                "metadata": {},
                "nickname": null,
                "product": self.product,
                "recurring": null,
                "tax_behavior": "unspecified",
                "tiers_mode": null,
                "transform_quantity": null,
                "type": "one_time",
                "unit_amount": self.unit_amount,
                "unit_amount_decimal": self.unit_amount.to_string(),
            },
            "quantity": self.quantity,
        })
    }
}

/// What the session's intent is to be made with.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct IntentPlan {
    pub(super) metadata: Metadata,
    pub(super) description: Option<String>,
    pub(super) setup_future_usage: Option<String>,
    pub(super) capture_method: Option<String>,
    pub(super) receipt_email: Option<String>,
    pub(super) statement_descriptor: Option<String>,
    pub(super) statement_descriptor_suffix: Option<String>,
}

/// A hosted page that takes one payment, or keeps one card.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) created: i64,
    pub(crate) expires_at: i64,
    pub(crate) mode: Mode,
    pub(crate) status: SessionStatus,
    /// `paid`, `unpaid` or `no_payment_required`.
    pub(crate) payment_status: String,
    pub(crate) currency: Option<String>,
    /// None in setup mode.
    pub(crate) amount: Option<i64>,
    pub(crate) items: Vec<Item>,
    pub(crate) success_url: String,
    pub(crate) cancel_url: Option<String>,
    pub(super) client_reference_id: Option<String>,
    pub(crate) customer: Option<String>,
    pub(super) customer_creation: Option<String>,
    pub(super) customer_email: Option<String>,
    /// What the payer typed in, once they have finished.
    pub(super) payer_email: Option<String>,
    pub(super) locale: Option<String>,
    pub(crate) metadata: Metadata,
    pub(super) types: Vec<String>,
    pub(super) plan: IntentPlan,
    pub(crate) payment_intent: Option<String>,
    pub(crate) setup_intent: Option<String>,
    pub(super) page: String,
}

impl Row for Session {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Session {
    /// Returns our payment's id out of the session's metadata, or the intent's.
    pub(crate) fn payment_id(&self) -> Option<String> {
        self.metadata.get("payment_id").or(self.plan.metadata.get("payment_id")).cloned()
    }

    pub(crate) fn json(&self) -> Value {
        let is_payment = self.mode == Mode::Payment;
        let said = json!({
            "id": self.id,
            "object": "checkout.session",
            "amount_subtotal": self.amount,
            "amount_total": self.amount,
            "automatic_tax": {
                "enabled": false,
                "liability": null,
                "provider": null,
                "status": null,
            },
            "cancel_url": self.cancel_url,
            "client_reference_id": self.client_reference_id,
            "created": self.created,
            "currency": self.currency,
            "customer": self.customer,
            "customer_creation": self.customer_creation,
            "customer_details": self.details(),
            "customer_email": self.customer_email,
            "expires_at": self.expires_at,
            "invoice_creation": is_payment.then(|| json!({
                "enabled": false,
                "invoice_data": {
                    "account_tax_ids": null,
                    "custom_fields": null,
                    "description": null,
                    "footer": null,
                    "issuer": null,
                    "metadata": {},
                    "rendering_options": null,
                },
            })),
            "locale": self.locale,
            "metadata": self.metadata,
            "mode": if is_payment { "payment" } else { "setup" },
            "payment_intent": self.payment_intent,
            "payment_method_collection": if is_payment { "if_required" } else { "always" },
            "payment_method_options": { "card": { "request_three_d_secure": "automatic" } },
            "payment_method_types": self.types,
            "payment_status": self.payment_status,
            "setup_intent": self.setup_intent,
            "status": self.status.as_str(),
            "success_url": self.success_url,
            "total_details": is_payment.then(|| json!({
                "amount_discount": 0,
                "amount_shipping": 0,
                "amount_tax": 0,
            })),
            "ui_mode": "hosted_page",
            "url": (self.status == SessionStatus::Open).then_some(&self.page),
        });
        merged(said, unused())
    }

    fn details(&self) -> Value {
        let email = self.payer_email.as_ref().or(self.customer_email.as_ref());
        if email.is_none() {
            return Value::Null;
        }
        json!({
            "address": self.payer_email.as_ref().map(|_| address()),
            "business_name": null,
            "email": email,
            "individual_name": null,
            "name": null,
            "phone": null,
            "tax_exempt": "none",
            "tax_ids": self.payer_email.as_ref().map(|_| json!([])),
        })
    }

    /// Returns the items as a list; it is part of a session only where it is expanded.
    pub(crate) fn line_items(&self) -> Value {
        let items: Vec<_> = self.items.iter().map(|item| item.json(self.created)).collect();
        let url = format!("/v1/checkout/sessions/{}/line_items", self.id);
        json!({ "object": "list", "data": items, "has_more": false, "url": url })
    }

    /// Returns the items by id.
    pub(super) fn items(&self) -> Vec<(&str, Value)> {
        self.items.iter().map(|item| (item.id.as_str(), item.json(self.created))).collect()
    }
}

/// What our sessions never have.
fn unused() -> Value {
    json!({
        "adaptive_pricing": { "enabled": false },
        "after_expiration": null,
        "allow_promotion_codes": null,
        "billing_address_collection": null,
        "branding_settings": {
            "background_color": "#ffffff",
            "border_style": "rounded",
            "button_color": "#1d4ed8",
            "display_name": "Simulator",
            "font_family": "default",
            "icon": null,
            "logo": null,
        },
        "allowed_payment_method_types": null,
        "client_secret": null,
        "collected_information": null,
        "consent": null,
        "consent_collection": null,
        "currency_conversion": null,
        "custom_fields": [],
        "custom_text": {
            "after_submit": null,
            "shipping_address": null,
            "submit": null,
            "terms_of_service_acceptance": null,
        },
        "customer_account": null,
        "discounts": [],
        "excluded_payment_method_types": null,
        "integration_identifier": null,
        "invoice": null,
        "livemode": false,
        "managed_payments": null,
        "origin_context": null,
        "payment_link": null,
        "payment_method_configuration_details": null,
        "permissions": null,
        "phone_number_collection": { "enabled": false },
        "recovered_from": null,
        "saved_payment_method_options": null,
        "shipping_address_collection": null,
        "shipping_cost": null,
        "shipping_options": [],
        "submit_type": null,
        "subscription": null,
        "wallet_options": null,
    })
}

fn merged(said: Value, more: Value) -> Value {
    let mut fields = Map::new();
    for part in [said, more] {
        if let Value::Object(part) = part {
            fields.extend(part);
        }
    }
    Value::Object(fields)
}
