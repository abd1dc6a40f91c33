//! Companies that move money for us: one trait, three of them.

pub mod manual;
pub mod paypal;
pub mod stripe;
mod words;

use std::sync::Arc;

use async_trait::async_trait;
use axum::http::HeaderMap;
use chrono::{DateTime, Utc};

use crate::config::{Config, Errors};
use crate::ids::PaymentId;

pub use words::*;

/// A gateway, as stored.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, sqlx::Type, serde::Serialize, serde::Deserialize,
)]
#[sqlx(type_name = "gateway_name", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
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

/// A company that moves money for us.
///
/// Calls that change something carry an id of ours as the gateway's idempotency key, so every
/// method may be repeated after any error: the gateway answers as it did the first time, or as the
/// thing stands by now. [`GatewayError`] says which errors leave the outcome unknown.
///
/// What a gateway does not offer is [`GatewayError::Misconfigured`].
#[async_trait]
pub trait Gateway: Send + Sync {
    /// Opens an object to collect `request.amount`; the payer finishes it at the gateway.
    async fn create_intent(&self, request: &IntentRequest) -> Result<Object, GatewayError>;

    /// Where an object stands now.
    async fn fetch_intent(&self, id: &str) -> Result<Object, GatewayError>;

    /// The object that a capture belongs to, where the gateway's events name only the capture.
    async fn object_of_capture(&self, _capture_id: &str) -> Result<String, GatewayError> {
        Err(NOT_OFFERED)
    }

    /// Takes the money of an approved object. A gateway that captures by itself only reads it.
    ///
    /// `attempt` counts the captures of this object that were definitely declined before.
    async fn capture(
        &self,
        id: &str,
        _payment_id: PaymentId,
        _attempt: u32,
    ) -> Result<Object, GatewayError> {
        self.fetch_intent(id).await
    }

    /// Makes sure that the object collects nothing any more, and says how it stands after: voided,
    /// or captured or under way if the payer was quicker.
    async fn cancel_intent(
        &self,
        id: &str,
        _payment_id: PaymentId,
    ) -> Result<Object, GatewayError> {
        self.fetch_intent(id).await
    }

    /// Charges a saved method while the customer is away. A decline is an answer: the object then
    /// is declined, with its code.
    async fn charge_saved(&self, _request: &SavedCharge) -> Result<Object, GatewayError> {
        Err(NOT_OFFERED)
    }

    /// Sends money back. `Ok` may be pending.
    async fn refund(&self, request: &RefundRequest) -> Result<RefundState, GatewayError>;

    /// Where a refund stands now.
    async fn fetch_refund(&self, _id: &str) -> Result<RefundState, GatewayError> {
        Err(NOT_OFFERED)
    }

    /// All refunds of a capture, whoever made them.
    async fn refunds_of(&self, _capture: &CaptureRef) -> Result<Vec<RefundState>, GatewayError> {
        Ok(Vec::new())
    }

    /// Where a dispute stands now.
    async fn fetch_dispute(&self, _id: &str) -> Result<DisputeState, GatewayError> {
        Err(NOT_OFFERED)
    }

    /// All disputes and reversals of a capture.
    async fn disputes_of(&self, _capture: &CaptureRef) -> Result<Vec<DisputeState>, GatewayError> {
        Ok(Vec::new())
    }

    /// Money that the payer's bank or the gateway took back without a refund of ours
    /// (PayPal's reversal), by the id its event names.
    async fn fetch_reversal(
        &self,
        _id: &str,
        _capture_id: &str,
    ) -> Result<DisputeState, GatewayError> {
        Err(NOT_OFFERED)
    }

    /// Makes the gateway's own record of a customer, whom saved methods hang on; returns its id.
    async fn create_customer(&self, _request: &CustomerRequest) -> Result<String, GatewayError> {
        Err(NOT_OFFERED)
    }

    /// Begins to save a payment method without a purchase; the customer finishes it there.
    async fn begin_setup(&self, _request: &SetupRequest) -> Result<Setup, GatewayError> {
        Err(NOT_OFFERED)
    }

    /// The method that a finished setup saved; `None` while the customer has not finished it.
    async fn finish_setup(&self, _setup_id: &str) -> Result<Option<SavedMethod>, GatewayError> {
        Err(NOT_OFFERED)
    }

    /// A saved method as the gateway has it; [`GatewayError::NotFound`] once it is gone.
    async fn fetch_method(&self, _id: &str) -> Result<SavedMethod, GatewayError> {
        Err(NOT_OFFERED)
    }

    /// Makes the gateway forget a saved method. One that is gone already is fine.
    async fn detach_method(&self, _id: &str) -> Result<(), GatewayError> {
        Err(NOT_OFFERED)
    }

    /// Opens the gateway's own page on which a customer manages his methods; returns its address.
    async fn portal(
        &self,
        _gateway_customer: &str,
        _return_url: &str,
    ) -> Result<String, GatewayError> {
        Err(NOT_OFFERED)
    }

    /// Events of the last days, oldest or newest first, a page at a time: those whose webhook may
    /// have been lost. `cursor` is what the page before answered.
    async fn events_since(
        &self,
        _span: &Span,
        _cursor: Option<&str>,
    ) -> Result<Page<FetchedEvent>, GatewayError> {
        Ok(Page::default())
    }

    /// Money the gateway says it collected for us in that time, whether we know of it or not.
    async fn captures_since(
        &self,
        _span: &Span,
        _cursor: Option<&str>,
    ) -> Result<Page<GatewayCapture>, GatewayError> {
        Ok(Page::default())
    }

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

/// What is asked of a gateway that does not offer it.
const NOT_OFFERED: GatewayError = GatewayError::Misconfigured("this gateway does not offer it");

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
        let timeout = config.gateway_timeout;
        let stripe = config.stripe.as_ref().map(stripe::Stripe::new);
        let paypal = config.paypal.as_ref().map(paypal::PayPal::new).transpose();
        let paypal = paypal.map_err(|error| Errors(vec![error]))?;
        Ok(Self {
            stripe: stripe.map(|stripe| Arc::new(stripe.with_timeout(timeout))),
            paypal: paypal.map(|paypal| Arc::new(paypal.with_timeout(timeout))),
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
