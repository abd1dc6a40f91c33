//! What is kept of a setup intent, and the whole JSON a strict client expects.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::stripe::form::Metadata;
use crate::stripe::objects::Status;
use crate::table::Row;

/// A card about to be kept for later payments, without paying now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) id: String,
    pub(crate) client_secret: String,
    pub(crate) created: i64,
    pub(crate) customer: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) metadata: Metadata,
    pub(crate) usage: String,
    /// `allow_redirects` of automatic payment methods; none: they were not asked for.
    pub(crate) automatic: Option<String>,
    pub(crate) types: Vec<String>,
    /// Never `processing` or `requires_capture`.
    pub(crate) status: Status,
    pub(crate) payment_method: Option<String>,
    pub(crate) latest_attempt: Option<String>,
    pub(crate) last_error: Option<Value>,
    pub(crate) next_action: Option<Value>,
    pub(crate) cancellation_reason: Option<String>,
    /// The checkout session it was made for.
    pub(crate) session: Option<String>,
}

impl Row for Setup {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Setup {
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
            "object": "setup_intent",
            "allowed_payment_method_types": null,
            "application": null,
            "automatic_payment_methods": automatic,
            "cancellation_reason": self.cancellation_reason,
            "client_secret": self.client_secret,
            "created": self.created,
            "customer": self.customer,
            "customer_account": null,
            "description": self.description,
            "excluded_payment_method_types": null,
            "flow_directions": null,
            "last_setup_error": self.last_error,
            "latest_attempt": self.latest_attempt,
            "livemode": false,
            "mandate": null,
            "metadata": self.metadata,
            "next_action": self.next_action,
            "on_behalf_of": null,
            "payment_method": self.payment_method,
            "payment_method_configuration_details": null,
            "payment_method_options": {
                "card": {
                    "mandate_options": null,
                    "network": null,
                    "request_three_d_secure": "automatic",
                },
            },
            "payment_method_types": self.types,
            "single_use_mandate": null,
            "status": self.status.as_str(),
            "usage": self.usage,
        })
    }
}
