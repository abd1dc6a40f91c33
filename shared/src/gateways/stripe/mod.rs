//! Stripe: async-stripe's requests on a transport of our own, and answers read by what we use.

mod disputes;
mod errors;
mod events;
mod intents;
mod lists;
mod methods;
pub mod money;
mod objects;
mod refunds;
mod sessions;
pub mod signature;
mod transport;

pub use errors::advice;
pub use money::minimum_minor;
pub(crate) use transport::{client as http_client, no_answer};

use std::time::Duration;

use async_trait::async_trait;
use axum::http::HeaderMap;
use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use stripe_client_core::RequestBuilder;

use super::{
    CaptureRef, CustomerRequest, DisputeState, FetchedEvent, Form, Gateway, GatewayCapture,
    GatewayError, GatewayEvent, IntentRequest, MalformedEvent, Object, Page, RefundRequest,
    RefundState, SavedCharge, SavedMethod, Setup, SetupRequest, Span, VerifiedEvent,
    WebhookRejected,
};
use crate::clock::wall_now;
use crate::config;
use crate::ids::PaymentId;
use crate::money::Money;
use errors::Failure;
use objects::Reading;
use transport::Transport;

/// Stripe's API and webhooks.
pub struct Stripe {
    transport: Transport,
    webhook_secrets: Vec<SecretString>,
    publishable_key: Option<String>,
    livemode: bool,
    account: Option<String>,
}

impl Stripe {
    /// A client with these settings; opens no connection yet.
    pub fn new(settings: &config::Stripe) -> Self {
        Self {
            transport: Transport::new(&settings.api_base, settings.secret_key.clone()),
            webhook_secrets: settings.webhook_secrets.clone(),
            publishable_key: settings.publishable_key.clone(),
            livemode: settings.livemode,
            account: settings.account.clone(),
        }
    }

    /// The same client, with this much time for a call.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.transport.timeout = timeout;
        self
    }

    /// What Stripe's browser library is started with.
    pub fn publishable_key(&self) -> Option<&str> {
        self.publishable_key.as_deref()
    }

    /// An answer is read as of now: it came over a connection on which we know each other.
    fn reading(&self) -> Reading {
        Reading { livemode: self.livemode, at: wall_now() }
    }

    /// Opens what collects nothing until its payer acts.
    ///
    /// Stripe keeps a fault of its own as the answer to a key for a day. A second key is safe
    /// here: should the first object exist after all, nobody ever learns how to pay it.
    async fn open<T: DeserializeOwned>(
        &self,
        key: &str,
        request: &RequestBuilder,
    ) -> Result<T, Failure> {
        match self.transport.with_key(key).send(request).await {
            Err(Failure::Refused(refusal)) if refusal.is_saved_fault() => {
                self.transport.with_key(&format!("{key}:again")).send(request).await
            }
            answer => answer,
        }
    }
}

/// An amount as Stripe is told it.
fn told(amount: Money) -> Result<i64, GatewayError> {
    money::to_stripe(amount)
        .map_err(|_| GatewayError::Refused { code: "amount_not_expressible".to_owned() })
}

/// A currency as Stripe is told it.
fn currency(amount: Money) -> stripe_types::Currency {
    let code = amount.currency.as_str().to_ascii_lowercase();
    code.parse().expect("any code is taken")
}

/// The key of a payment's object; the first has no number.
fn numbered(action: &str, payment_id: PaymentId, attempt: u32) -> String {
    match attempt {
        0 => format!("{action}:{payment_id}"),
        _ => format!("{action}:{payment_id}:{attempt}"),
    }
}

#[async_trait]
impl Gateway for Stripe {
    async fn create_intent(&self, request: &IntentRequest) -> Result<Object, GatewayError> {
        match request.form {
            Form::Intent => self.open_intent(request).await,
            Form::HostedPage => self.open_session(request).await,
        }
    }

    async fn fetch_intent(&self, id: &str) -> Result<Object, GatewayError> {
        if id.starts_with(sessions::PREFIX) {
            self.read_session(id).await
        } else {
            self.read_intent(id).await
        }
    }

    async fn object_of_capture(&self, capture_id: &str) -> Result<String, GatewayError> {
        self.intent_of_charge(capture_id).await
    }

    async fn cancel_intent(&self, id: &str, payment_id: PaymentId) -> Result<Object, GatewayError> {
        if id.starts_with(sessions::PREFIX) {
            self.expire_session(id, payment_id).await
        } else {
            self.cancel(id, payment_id).await
        }
    }

    /// Store the answer's id before anything else depends on it; while an attempt is open, read
    /// that id instead of asking again. A repeat of the same attempt finds its intent even after
    /// Stripe forgot the key. Only a definite decline allows the next attempt number.
    ///
    /// [`GatewayError::NotFound`]: the method or its customer is gone; never again with it.
    async fn charge_saved(&self, request: &SavedCharge) -> Result<Object, GatewayError> {
        self.charge_away(request).await
    }

    async fn refund(&self, request: &RefundRequest) -> Result<RefundState, GatewayError> {
        self.ask_refund(request).await
    }

    async fn fetch_refund(&self, id: &str) -> Result<RefundState, GatewayError> {
        self.read_refund(id).await
    }

    async fn refunds_of(&self, capture: &CaptureRef) -> Result<Vec<RefundState>, GatewayError> {
        self.read_refunds(capture).await
    }

    async fn fetch_dispute(&self, id: &str) -> Result<DisputeState, GatewayError> {
        self.read_dispute(id).await
    }

    async fn disputes_of(&self, capture: &CaptureRef) -> Result<Vec<DisputeState>, GatewayError> {
        self.read_disputes(capture).await
    }

    async fn create_customer(&self, request: &CustomerRequest) -> Result<String, GatewayError> {
        self.make_customer(request).await
    }

    async fn begin_setup(&self, request: &SetupRequest) -> Result<Setup, GatewayError> {
        self.open_setup(request).await
    }

    async fn finish_setup(&self, setup_id: &str) -> Result<Option<SavedMethod>, GatewayError> {
        self.read_setup(setup_id).await
    }

    async fn fetch_method(&self, id: &str) -> Result<SavedMethod, GatewayError> {
        self.read_method(id).await
    }

    async fn detach_method(&self, id: &str) -> Result<(), GatewayError> {
        self.forget_method(id).await
    }

    async fn portal(
        &self,
        gateway_customer: &str,
        return_url: &str,
    ) -> Result<String, GatewayError> {
        self.open_portal(gateway_customer, return_url).await
    }

    async fn events_since(
        &self,
        span: &Span,
        cursor: Option<&str>,
    ) -> Result<Page<FetchedEvent>, GatewayError> {
        self.undelivered(span, cursor).await
    }

    async fn captures_since(
        &self,
        span: &Span,
        cursor: Option<&str>,
    ) -> Result<Page<GatewayCapture>, GatewayError> {
        self.paid_intents(span, cursor).await
    }

    async fn verify_webhook(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now: DateTime<Utc>,
    ) -> Result<VerifiedEvent, WebhookRejected> {
        signature::verify(headers, body, &self.webhook_secrets, now)
            .map_err(|rejection| WebhookRejected::Invalid(format!("{rejection:?}")))?;
        events::envelope(body).ok_or(WebhookRejected::Unparsable)
    }

    fn parse_event(&self, payload: &[u8]) -> Result<GatewayEvent, MalformedEvent> {
        events::parse(payload, self.livemode, self.account.as_deref())
    }
}
