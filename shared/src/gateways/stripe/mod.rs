//! Stripe: payment intents through async-stripe's types, on a transport of our own.

mod events;
pub mod money;
pub mod signature;
mod transport;

pub(crate) use transport::{client as http_client, no_answer};

use async_trait::async_trait;
use axum::http::HeaderMap;
use chrono::{DateTime, Utc};
use secrecy::SecretString;
use stripe_core::payment_intent::{
    CreatePaymentIntent, CreatePaymentIntentAutomaticPaymentMethods, RetrievePaymentIntent,
};
use stripe_core::{PaymentIntent, PaymentIntentStatus};

use super::{
    Captured, Gateway, GatewayError, GatewayEvent, IntentRequest, MalformedEvent, Next, Object,
    ObjectFacts, RefundRequest, RefundState, VerifiedEvent, WebhookRejected,
};
use crate::clock::wall_now;
use crate::config;
use crate::money::{Currency, Money};
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

    /// What Stripe's browser library is started with.
    pub fn publishable_key(&self) -> Option<&str> {
        self.publishable_key.as_deref()
    }

    /// Our words for Stripe's object, as it answered over an authenticated connection.
    fn object(&self, intent: PaymentIntent) -> Result<Object, GatewayError> {
        let currency = Currency::parse(&intent.currency.to_string())
            .map_err(|_| GatewayError::Malformed("currency".to_owned()))?;
        let capture_id = intent.latest_charge.as_ref().map(|charge| charge.id().to_string());
        let is_paid = intent.status == PaymentIntentStatus::Succeeded;
        let captured = is_paid.then(|| Captured {
            amount: Money::new(intent.amount_received, currency),
            capture_id,
            at: wall_now(),
        });
        let facts = ObjectFacts {
            captured,
            is_declined: intent.last_payment_error.is_some() && !is_paid,
            is_voided: intent.status == PaymentIntentStatus::Canceled,
            is_processing: intent.status == PaymentIntentStatus::Processing,
            is_approved: false,
            failure_code: None,
            failure: intent.last_payment_error.and_then(|error| error.message),
        };
        Ok(Object {
            id: intent.id.to_string(),
            amount: Money::new(intent.amount, currency),
            names_payment: intent.metadata.get("payment_id").cloned(),
            is_ours: intent.livemode == self.livemode,
            facts,
            next: intent
                .client_secret
                .map_or(Next::Nothing, |secret| Next::ClientSecret(secret.into())),
            gateway_customer: None,
            saved_method: None,
            intent: None,
        })
    }
}

#[async_trait]
impl Gateway for Stripe {
    async fn create_intent(&self, request: &IntentRequest) -> Result<Object, GatewayError> {
        let id = request.payment_id.to_string();
        let currency = request.amount.currency.as_str().to_ascii_lowercase();
        let currency: stripe_types::Currency = currency.parse().expect("any code is taken");
        let create = CreatePaymentIntent::new(request.amount.minor, currency)
            .automatic_payment_methods(CreatePaymentIntentAutomaticPaymentMethods::new(true))
            .description(request.description.clone())
            .metadata([("payment_id".to_owned(), id.clone())]);
        let key = format!("pi-create:{id}");
        let intent = create.send(&self.transport.with_key(&key)).await?;
        self.object(intent)
    }

    async fn fetch_intent(&self, id: &str) -> Result<Object, GatewayError> {
        let intent = RetrievePaymentIntent::new(id).send(&self.transport.without_key()).await?;
        self.object(intent)
    }

    async fn refund(&self, _request: &RefundRequest) -> Result<RefundState, GatewayError> {
        Err(super::NOT_OFFERED)
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
