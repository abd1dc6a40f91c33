//! Companies that move money for us: one trait, three of them.

pub mod manual;
pub mod paypal;
pub mod stripe;

use std::sync::Arc;

use async_trait::async_trait;
use axum::http::HeaderMap;
use chrono::{DateTime, Utc};
use secrecy::SecretString;

use crate::config::{Config, Errors};
use crate::ids::PaymentId;
use crate::money::Money;

/// A gateway, as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, sqlx::Type)]
#[sqlx(type_name = "gateway_name", rename_all = "snake_case")]
pub enum GatewayName {
    /// Stripe.
    Stripe,
    /// PayPal.
    Paypal,
    /// Money that an admin confirms by hand.
    Manual,
}

impl GatewayName {
    /// The name in logs and paths.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stripe => "stripe",
            Self::Paypal => "paypal",
            Self::Manual => "manual",
        }
    }
}

/// What to collect.
#[derive(Debug, Clone)]
pub struct IntentRequest {
    /// Our id: the idempotency key, and the gateway object's metadata.
    pub payment_id: PaymentId,
    /// How much.
    pub amount: Money,
    /// What the payer reads.
    pub description: String,
    /// Where the payer's browser comes back to after approving.
    pub return_url: String,
    /// Where it comes back to after cancelling.
    pub cancel_url: String,
}

/// Money that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// How much.
    pub amount: Money,
    /// Stripe's charge or PayPal's capture.
    pub capture_id: Option<String>,
    /// When the gateway says so, or when we learned of it.
    pub at: DateTime<Utc>,
}

/// What a gateway says of one of its objects, in absolute terms: telling it twice changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "facts are independent of each other")]
pub struct ObjectFacts {
    /// Money that arrived through it.
    pub captured: Option<Captured>,
    /// A charge was declined. Not the end: the payer may try another card.
    pub is_declined: bool,
    /// It can collect nothing any more.
    pub is_voided: bool,
    /// Money is under way.
    pub is_processing: bool,
    /// PayPal: the buyer approved, the capture is ours to make.
    pub is_approved: bool,
    /// Why it was declined, for the customer.
    pub failure: Option<String>,
}

/// How the payer goes on.
#[derive(Debug, Clone)]
pub enum Next {
    /// The front end confirms with this secret. Never stored, never logged.
    ClientSecret(SecretString),
    /// The payer's browser goes there.
    Approve(String),
    /// He follows instructions, or there is nothing left to do.
    Nothing,
}

/// A gateway's object (intent, order) that may pay one payment.
#[derive(Debug, Clone)]
pub struct Object {
    /// The gateway's id.
    pub id: String,
    /// How much it asks.
    pub amount: Money,
    /// The payment that it names: a hint, never proof.
    pub names_payment: Option<String>,
    /// Whether it is paid to us, in the mode that is configured.
    pub is_ours: bool,
    /// What happened to it.
    pub facts: ObjectFacts,
    /// How the payer goes on.
    pub next: Next,
}

/// Why a gateway call did not give an answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GatewayError {
    /// Outcome unknown: try again with the same key.
    #[error("no answer: {0}")]
    Unavailable(String),
    /// A definite refusal; trying again changes nothing.
    #[error("refused: {code}")]
    Refused {
        /// The gateway's own code.
        code: String,
    },
    /// Our keys are wrong or not set.
    #[error("not configured: {0}")]
    Misconfigured(&'static str),
    /// The answer was not what was asked for.
    #[error("unusable answer: {0}")]
    Malformed(String),
}

impl GatewayError {
    /// Whether the same call may succeed later.
    pub const fn is_temporary(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Malformed(_) | Self::Misconfigured(_) => true,
            Self::Refused { .. } => false,
        }
    }
}

/// A webhook body that the gateway proved to have sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedEvent {
    /// The gateway's id of the event.
    pub id: String,
    /// The gateway's word for what happened.
    pub kind: String,
    /// PayPal's transmission id: one signature may bring in one body only.
    pub delivery_id: Option<String>,
}

/// Why a webhook was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebhookRejected {
    /// 400: not proven to come from the gateway. The reason is for the log.
    Invalid(String),
    /// 400 with an alert: proven, but not an event we can read.
    Unparsable,
    /// 503: could not be checked now; the gateway tries again.
    Unavailable(String),
}

/// What a stored event says, in our words.
#[derive(Debug, Clone)]
pub enum GatewayEvent {
    /// A signed snapshot of an object, believed once it equals ours.
    Snapshot(Box<Object>),
    /// Something happened to this object: read it.
    ReadObject(String),
    /// Something happened to this capture: read it to learn its object.
    ReadCapture(String),
    /// Of no use to us.
    Ignored(&'static str),
}

/// A stored event that cannot be read: it needs a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the event cannot be read: {0}")]
pub struct MalformedEvent(pub String);

/// A company that moves money for us.
///
/// Calls carry our own id as the idempotency key, so every method may be repeated after any error:
/// the gateway answers as it did the first time. `Err` means "unknown", save for
/// [`GatewayError::Refused`].
#[async_trait]
pub trait Gateway: Send + Sync {
    /// Opens an object to collect `request.amount`; the payer finishes it at the gateway.
    async fn create_intent(&self, request: &IntentRequest) -> Result<Object, GatewayError>;

    /// Where an object stands now.
    async fn fetch_intent(&self, id: &str) -> Result<Object, GatewayError>;

    /// The object that a capture belongs to, where the gateway's events name only the capture.
    async fn object_of_capture(&self, capture_id: &str) -> Result<String, GatewayError>;

    /// Takes the money of an approved object. A gateway that captures by itself only reads it.
    async fn capture(&self, id: &str, payment_id: PaymentId) -> Result<Object, GatewayError>;

    /// Proves that the gateway sent this body, before anything is stored.
    async fn verify_webhook(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now: DateTime<Utc>,
    ) -> Result<VerifiedEvent, WebhookRejected>;

    /// Translates a stored event into our words.
    fn parse_event(&self, payload: &[u8]) -> Result<GatewayEvent, MalformedEvent>;
}

/// The gateways that are configured.
#[derive(Clone)]
pub struct Gateways {
    stripe: Option<Arc<stripe::Stripe>>,
    paypal: Option<Arc<paypal::PayPal>>,
}

impl Gateways {
    /// Makes the clients of all gateways that have settings.
    pub fn from_config(config: &Config) -> Result<Self, Errors> {
        // Fails only if a provider was installed before, which is as good.
        let _installed_before = rustls::crypto::ring::default_provider().install_default();
        let paypal = config.paypal.as_ref().map(paypal::PayPal::new).transpose();
        Ok(Self {
            stripe: config.stripe.as_ref().map(|stripe| Arc::new(stripe::Stripe::new(stripe))),
            paypal: paypal.map_err(|error| Errors(vec![error]))?.map(Arc::new),
        })
    }

    /// The gateway of that name; an error where it has no settings.
    pub fn get(&self, name: GatewayName) -> Result<&dyn Gateway, GatewayError> {
        match name {
            GatewayName::Stripe => self
                .stripe
                .as_deref()
                .map(|stripe| stripe as &dyn Gateway)
                .ok_or(GatewayError::Misconfigured("Stripe has no settings")),
            GatewayName::Paypal => self
                .paypal
                .as_deref()
                .map(|paypal| paypal as &dyn Gateway)
                .ok_or(GatewayError::Misconfigured("PayPal has no settings")),
            GatewayName::Manual => Ok(&manual::Manual),
        }
    }

    /// What Stripe's browser library is started with, where configured.
    pub fn stripe_publishable_key(&self) -> Option<&str> {
        self.stripe.as_deref().and_then(stripe::Stripe::publishable_key)
    }
}

/// Whether text from outside may be an id or a kind of ours to store: 1 … 255 printable ASCII.
pub(crate) fn is_storable(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}
