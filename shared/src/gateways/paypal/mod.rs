//! PayPal: Orders v2. Its events are only a bell: what they tell is read again by API.

mod api;
pub mod certificates;
mod codes;
mod disputes;
mod events;
mod links;
mod lists;
mod money;
mod orders;
mod proof;
mod refunds;
pub mod signature;
mod vault;

use std::time::Duration;

use async_trait::async_trait;
use axum::http::HeaderMap;
use chrono::{DateTime, Utc};
use serde_json::json;
use tokio::sync::Semaphore;

use super::{
    CaptureRef, DisputeState, FetchedEvent, Gateway, GatewayCapture, GatewayError, GatewayEvent,
    IntentRequest, MalformedEvent, Next, Object, Page, RefundRequest, RefundState, SavedCharge,
    SavedMethod, Setup, SetupRequest, Span, VerifiedEvent, WebhookRejected,
};
use crate::clock::wall_now;
use crate::config::{self, PayPalProof};
use crate::ids::PaymentId;
use api::{Api, Failure};
pub use codes::advice;
use links::is_id;
use orders::{CAPTURES, Capture, ORDERS, Order};

/// Where orders are made.
const NEW_ORDER: &str = "/v2/checkout/orders";

/// PayPal's API and webhooks.
pub struct PayPal {
    api: Api,
    verifier: signature::Verifier,
    proof: PayPalProof,
    /// Proofs asked of PayPal at once: strangers' webhooks must not take the turns of payments.
    proofs: Semaphore,
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
        Ok(Self {
            api: Api::new(settings),
            verifier,
            proof: settings.proof,
            proofs: Semaphore::new(proof::AT_ONCE),
            merchant_id: settings.merchant_id.clone(),
        })
    }

    /// The same client, with this much time for a call.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.api.timeout = timeout;
        self
    }

    fn object(&self, order: Order) -> Result<Object, GatewayError> {
        order.into_object(self.merchant_id.as_deref())
    }

    async fn read_order(&self, id: &str) -> Result<Order, GatewayError> {
        // Ids come from browsers too: what is no id must not become a path.
        if !is_id(id) {
            return Err(GatewayError::NotFound);
        }
        self.api.get(&format!("{ORDERS}{id}")).await
    }

    async fn read_capture(&self, id: &str) -> Result<Capture, GatewayError> {
        if !is_id(id) {
            return Err(GatewayError::NotFound);
        }
        self.api.get(&format!("{CAPTURES}{id}")).await
    }

    async fn order_of(&self, capture_id: &str) -> Result<String, GatewayError> {
        let capture = self.read_capture(capture_id).await?;
        capture.order_id().ok_or_else(|| GatewayError::Malformed("capture without order".into()))
    }

    /// Sorts a refused capture: done by somebody else, the buyer's turn, or the end
    /// (gateways.md §2.1). What was taken all the same counts more than any refusal.
    async fn after_refused_capture(
        &self,
        id: &str,
        code: &str,
        page: Option<String>,
    ) -> Result<Object, GatewayError> {
        if code == "ORDER_COMPLETION_IN_PROGRESS" {
            return Err(GatewayError::Unavailable(code.to_owned()));
        }
        let mut object = self.fetch_intent(id).await?;
        let is_taken = object.facts.captured.is_some() || object.facts.is_processing;
        if is_taken || matches!(code, "ORDER_ALREADY_CAPTURED" | "ORDER_NOT_APPROVED") {
            return Ok(object);
        }
        orders::decline(&mut object.facts, code);
        if codes::is_buyers_turn(code) {
            object.next = page.map_or(object.next, Next::Approve);
        } else if codes::is_final(code) {
            object.facts.is_voided = true;
            object.next = Next::Nothing;
        }
        Ok(object)
    }
}

#[async_trait]
impl Gateway for PayPal {
    /// Opens an order. PayPal hosts the page in either form; the payment's id is its custom id,
    /// and PayPal pays the invoice id of an attempt only once.
    async fn create_intent(&self, request: &IntentRequest) -> Result<Object, GatewayError> {
        let key = format!("order-{}", orders::invoice_id(request.payment_id, request.attempt));
        let body = orders::create_body(request)?;
        let order = self.api.post(NEW_ORDER, &key, &body).await?;
        self.object(order)
    }

    async fn fetch_intent(&self, id: &str) -> Result<Object, GatewayError> {
        let order = self.read_order(id).await?;
        self.object(order)
    }

    async fn object_of_capture(&self, capture_id: &str) -> Result<String, GatewayError> {
        self.order_of(capture_id).await
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
        let path = format!("{ORDERS}{id}/capture");
        // With the order's id, or a payment's second order would be answered with its first.
        let key = format!("capture-{payment_id}-{id}-{}", attempt + 1);
        let Failure { error, page } = match self.api.post(&path, &key, &json!({})).await {
            Ok(order) => return self.object(order),
            Err(failure) => failure,
        };
        match error {
            GatewayError::Declined { code } | GatewayError::Refused { code } => {
                self.after_refused_capture(id, &code, page).await
            }
            GatewayError::Unavailable(_)
            | GatewayError::NotFound
            | GatewayError::Bug { .. }
            | GatewayError::Misconfigured(_)
            | GatewayError::Malformed(_) => Err(error),
        }
    }

    /// Reads the order, for PayPal cannot void one whose money is captured at once. Unless its
    /// money was taken or is under way, it is answered as voided: a mark of ours that it must
    /// never be captured, though PayPal would still let its buyer approve it.
    async fn cancel_intent(
        &self,
        id: &str,
        _payment_id: PaymentId,
    ) -> Result<Object, GatewayError> {
        let mut object = self.fetch_intent(id).await?;
        if object.facts.captured.is_none() && !object.facts.is_processing {
            object.facts.is_voided = true;
            object.facts.is_approved = false;
            object.next = Next::Nothing;
        }
        Ok(object)
    }

    /// Opens and captures an order in one call. PayPal makes no order for a charge that it
    /// declines at once: that is [`GatewayError::Declined`].
    async fn charge_saved(&self, request: &SavedCharge) -> Result<Object, GatewayError> {
        let key = format!("renew-{}-{}", request.payment_id, request.attempt);
        let body = orders::saved_body(request)?;
        let order: Order = match self.api.post(NEW_ORDER, &key, &body).await {
            Ok(order) => order,
            Err(Failure { error: GatewayError::NotFound, .. }) => {
                return Err(GatewayError::Declined { code: codes::METHOD_GONE.to_owned() });
            }
            // Hours later PayPal has forgotten the request id, but not that the invoice was paid.
            Err(Failure { error: GatewayError::Refused { code }, .. })
                if code == "DUPLICATE_INVOICE_ID" =>
            {
                let invoice = orders::invoice_id(request.payment_id, request.attempt);
                let capture_id = self.find_paid(&invoice, wall_now()).await?;
                return self.fetch_intent(&self.order_of(&capture_id).await?).await;
            }
            Err(failure) => return Err(failure.error),
        };
        let waits_for_payer = order.waits_for_payer();
        let mut object = self.object(order)?;
        let facts = &mut object.facts;
        let is_told = facts.captured.is_some()
            || facts.is_processing
            || facts.is_declined
            || facts.is_approved
            || facts.is_voided;
        if waits_for_payer && !is_told {
            orders::decline(facts, "PAYER_ACTION_REQUIRED");
        } else if !is_told {
            return Err(GatewayError::Unavailable("the charge is not finished".to_owned()));
        }
        Ok(object)
    }

    async fn refund(&self, request: &RefundRequest) -> Result<RefundState, GatewayError> {
        self.make_refund(request, wall_now()).await
    }

    async fn fetch_refund(&self, id: &str) -> Result<RefundState, GatewayError> {
        self.read_refund(id).await
    }

    async fn refunds_of(&self, capture: &CaptureRef) -> Result<Vec<RefundState>, GatewayError> {
        self.list_refunds(capture).await
    }

    async fn fetch_dispute(&self, id: &str) -> Result<DisputeState, GatewayError> {
        self.read_dispute(id).await
    }

    async fn disputes_of(&self, capture: &CaptureRef) -> Result<Vec<DisputeState>, GatewayError> {
        self.list_disputes(capture).await
    }

    async fn fetch_reversal(
        &self,
        id: &str,
        capture_id: &str,
    ) -> Result<DisputeState, GatewayError> {
        self.read_reversal(id, capture_id).await
    }

    async fn begin_setup(&self, request: &SetupRequest) -> Result<Setup, GatewayError> {
        self.open_setup(request).await
    }

    async fn finish_setup(&self, setup_id: &str) -> Result<Option<SavedMethod>, GatewayError> {
        self.close_setup(setup_id).await
    }

    async fn fetch_method(&self, id: &str) -> Result<SavedMethod, GatewayError> {
        self.read_method(id).await
    }

    async fn detach_method(&self, id: &str) -> Result<(), GatewayError> {
        self.forget_method(id).await
    }

    async fn events_since(
        &self,
        span: &Span,
        cursor: Option<&str>,
    ) -> Result<Page<FetchedEvent>, GatewayError> {
        self.list_events(span, cursor).await
    }

    async fn captures_since(
        &self,
        span: &Span,
        cursor: Option<&str>,
    ) -> Result<Page<GatewayCapture>, GatewayError> {
        self.list_captures(span, cursor).await
    }

    async fn verify_webhook(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now: DateTime<Utc>,
    ) -> Result<VerifiedEvent, WebhookRejected> {
        match self.proof {
            PayPalProof::Certificate => {
                let verdict = self.verifier.verify(headers, body, now).await;
                verdict.map_err(proof::rejected)?;
            }
            PayPalProof::Api => self.ask_whether_genuine(headers, body, now).await?,
        }
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
