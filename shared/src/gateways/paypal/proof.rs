//! Proof by asking PayPal whether it sent a webhook, where settings choose it over certificates.

use std::time::Duration;

use axum::http::HeaderMap;
use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::PayPal;
use super::signature::Rejection;
use crate::gateways::WebhookRejected;

const VERIFY: &str = "/v1/notifications/verify-webhook-signature";

/// Questions in flight at once: a quarter of all calls.
pub(super) const AT_ONCE: usize = 8;

/// A webhook waits that long for its question's turn; PayPal sends it again.
const TURN_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
struct Answer {
    verification_status: String,
}

/// What a rejection means for the sender.
pub(super) fn rejected(rejection: Rejection) -> WebhookRejected {
    let reason = format!("{rejection:?}");
    if rejection.is_temporary() {
        WebhookRejected::Unavailable(reason)
    } else {
        WebhookRejected::Invalid(reason)
    }
}

impl PayPal {
    /// Asks PayPal whether it sent this body. Only the exact word SUCCESS passes; whatever keeps
    /// PayPal from answering is temporary.
    pub(super) async fn ask_whether_genuine(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now: DateTime<Utc>,
    ) -> Result<(), WebhookRejected> {
        let question = self.verifier.question(headers, body, now).map_err(rejected)?;
        let turn = tokio::time::timeout(TURN_TIMEOUT, self.proofs.acquire()).await;
        let _permit = turn
            .map_err(|_| WebhookRejected::Unavailable("too many webhooks at once".to_owned()))?
            .expect("never closed");
        match self.api.ask::<Answer>(VERIFY, question).await {
            Ok(answer) if answer.verification_status == "SUCCESS" => Ok(()),
            Ok(_) => Err(WebhookRejected::Invalid("PayPal did not send it".to_owned())),
            Err(error) => Err(WebhookRejected::Unavailable(error.to_string())),
        }
    }
}
