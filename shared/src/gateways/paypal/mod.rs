//! PayPal: Orders v2. Its events are only a bell: what they tell is read again by API.

mod api;
pub mod certificates;
mod events;
mod orders;
pub mod signature;

use async_trait::async_trait;
use axum::http::HeaderMap;
use chrono::{DateTime, Utc};

use super::{
    Gateway, GatewayError, GatewayEvent, IntentRequest, MalformedEvent, Object, RefundRequest,
    RefundState, VerifiedEvent, WebhookRejected,
};
use crate::config;
use crate::ids::PaymentId;
use api::Api;

/// PayPal's API and webhooks.
pub struct PayPal {
    api: Api,
    verifier: signature::Verifier,
    merchant_id: Option<String>,
}

impl PayPal {
    /// A client with these settings; opens no connection yet. Fails on roots that are no PEM.
    pub fn new(settings: &config::PayPal) -> Result<Self, String> {
        let environment = if settings.is_live {
            signature::Environment::Live
        } else {
            signature::Environment::Sandbox
        };
        let fetcher = certificates::HttpsFetcher::new(
            environment,
            settings.cert_roots.as_deref(),
            settings.cert_resolve,
        )
        .map_err(|error| format!("PAYPAL_CERT_ROOTS: {error}"))?;
        let verifier = signature::Verifier::new(
            environment,
            settings.webhook_id.clone(),
            settings.cert_roots.as_deref(),
            Box::new(fetcher),
        )
        .map_err(|error| format!("PAYPAL_CERT_ROOTS: {error}"))?;
        Ok(Self { api: Api::new(settings), verifier, merchant_id: settings.merchant_id.clone() })
    }

    fn object(&self, order: orders::Order) -> Result<Object, GatewayError> {
        order.into_object(self.merchant_id.as_deref())
    }
}

#[async_trait]
impl Gateway for PayPal {
    async fn create_intent(&self, request: &IntentRequest) -> Result<Object, GatewayError> {
        let key = format!("order-{}", request.payment_id);
        let body = orders::create_body(request);
        let order = self.api.post("/v2/checkout/orders", &key, &body).await?;
        self.object(order)
    }

    async fn fetch_intent(&self, id: &str) -> Result<Object, GatewayError> {
        let order = self.api.get(&format!("/v2/checkout/orders/{id}")).await?;
        self.object(order)
    }

    async fn object_of_capture(&self, capture_id: &str) -> Result<String, GatewayError> {
        let capture: orders::Capture =
            self.api.get(&format!("/v2/payments/captures/{capture_id}")).await?;
        capture.order_id().ok_or_else(|| GatewayError::Malformed("capture without order".into()))
    }

    async fn capture(
        &self,
        id: &str,
        payment_id: PaymentId,
        attempt: u32,
    ) -> Result<Object, GatewayError> {
        // PayPal forgets a request id after hours: what was captured meanwhile is read first.
        let before = self.fetch_intent(id).await?;
        if !before.facts.is_approved {
            return Ok(before);
        }
        let path = format!("/v2/checkout/orders/{id}/capture");
        let key = format!("capture-{payment_id}-{}", attempt + 1);
        let captured: Result<orders::Order, GatewayError> =
            self.api.post(&path, &key, &serde_json::json!({})).await;
        match captured {
            Ok(order) => self.object(order),
            Err(GatewayError::Refused { code }) => self.after_refused_capture(id, code).await,
            Err(
                error @ (GatewayError::Unavailable(_)
                | GatewayError::Declined { .. }
                | GatewayError::NotFound
                | GatewayError::Bug { .. }
                | GatewayError::Misconfigured(_)
                | GatewayError::Malformed(_)),
            ) => Err(error),
        }
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
        self.verifier.verify(headers, body, now).await.map_err(|rejection| {
            let reason = format!("{rejection:?}");
            if rejection.is_temporary() {
                WebhookRejected::Unavailable(reason)
            } else {
                WebhookRejected::Invalid(reason)
            }
        })?;
        let delivery_id = headers
            .get("paypal-transmission-id")
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        events::envelope(body, delivery_id).ok_or(WebhookRejected::Unparsable)
    }

    fn parse_event(&self, payload: &[u8]) -> Result<GatewayEvent, MalformedEvent> {
        events::parse(payload)
    }
}

impl PayPal {
    /// Sorts a refused capture: done by somebody else, the buyer's turn, or the end
    /// (gateways.md §2.1).
    async fn after_refused_capture(&self, id: &str, code: String) -> Result<Object, GatewayError> {
        match code.as_str() {
            "ORDER_ALREADY_CAPTURED" | "ORDER_NOT_APPROVED" => self.fetch_intent(id).await,
            "ORDER_COMPLETION_IN_PROGRESS" => Err(GatewayError::Unavailable(code)),
            _ => {
                let mut object = self.fetch_intent(id).await?;
                object.facts.is_declined = object.facts.captured.is_none();
                object.facts.is_approved = false;
                object.facts.failure = Some(code);
                Ok(object)
            }
        }
    }
}
