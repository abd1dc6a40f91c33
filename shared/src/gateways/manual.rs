//! Money that arrives without a gateway and is confirmed by an admin.

use async_trait::async_trait;
use axum::http::HeaderMap;
use chrono::{DateTime, Utc};

use super::{
    Gateway, GatewayError, GatewayEvent, IntentRequest, MalformedEvent, Next, Object, ObjectFacts,
    RefundRequest, RefundState, RefundStatus, VerifiedEvent, WebhookRejected,
};

/// Bank transfer and the like: pending until confirmed; it has no webhooks and nothing to read.
#[derive(Debug, Clone, Copy)]
pub struct Manual;

/// What is asked of a gateway that is not there.
const NOBODY: GatewayError = GatewayError::Misconfigured("a manual payment has no gateway");

#[async_trait]
impl Gateway for Manual {
    async fn create_intent(&self, request: &IntentRequest) -> Result<Object, GatewayError> {
        Ok(Object {
            id: request.payment_id.to_string(),
            amount: request.amount,
            names_payment: Some(request.payment_id.to_string()),
            is_ours: true,
            facts: ObjectFacts::default(),
            next: Next::Nothing,
            gateway_customer: None,
            saved_method: None,
            payer: None,
            intent: None,
        })
    }

    async fn fetch_intent(&self, _id: &str) -> Result<Object, GatewayError> {
        Err(NOBODY)
    }

    /// The operator sends the money back himself before he books it here.
    async fn refund(&self, request: &RefundRequest) -> Result<RefundState, GatewayError> {
        Ok(RefundState {
            id: request.refund_id.to_string(),
            capture: request.capture.clone(),
            amount: request.amount,
            status: RefundStatus::Succeeded,
            names_refund: Some(request.refund_id.to_string()),
            is_ours: true,
            failure_code: None,
        })
    }

    async fn verify_webhook(
        &self,
        _headers: &HeaderMap,
        _body: &[u8],
        _now: DateTime<Utc>,
    ) -> Result<VerifiedEvent, WebhookRejected> {
        Err(WebhookRejected::Invalid("a manual payment has no webhooks".to_owned()))
    }

    fn parse_event(&self, _payload: &[u8]) -> Result<GatewayEvent, MalformedEvent> {
        Err(MalformedEvent("a manual payment has no webhooks".to_owned()))
    }
}
