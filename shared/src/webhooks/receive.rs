//! Storing an event before the gateway gets its answer.

use axum::http::HeaderMap;

use super::intake::Stored;
use super::store::NewEvent;
use crate::App;
use crate::clock::wall_now;
use crate::gateways::{GatewayName, WebhookRejected};
use crate::ids::WebhookEventId;
use crate::jobs::Job;

/// Why an event was not taken.
#[derive(Debug)]
pub enum Refusal {
    /// Not proven to come from the gateway: 400. The reason is a verifier's word, for the log.
    Forged(String),
    /// Proven, but no event: 400.
    Unreadable,
    /// Its certificate could not be had now: 503, the gateway tries again. So may a forger.
    Unchecked(String),
    /// It could not be stored now: 503, the gateway tries again.
    Unavailable(String),
}

/// Proves, stores and commits an event; then rings for its processing.
///
/// `Ok` means that it is in the database, now or before: a repeat changes nothing.
pub async fn receive(
    app: &App,
    name: GatewayName,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(), Refusal> {
    let gateway = app.gateways.get(name).map_err(|error| Refusal::Unchecked(error.to_string()))?;
    let event = match gateway.verify_webhook(headers, body, wall_now()).await {
        Ok(event) => event,
        // Not logged here: whoever can send one forgery can send a million.
        Err(WebhookRejected::Invalid(reason)) => return Err(Refusal::Forged(reason)),
        Err(WebhookRejected::Unparsable) => return Err(unreadable(name, body)),
        Err(WebhookRejected::Unavailable(reason)) => return Err(Refusal::Unchecked(reason)),
    };
    if is_too_deep(body) {
        return Err(unreadable(name, body));
    }
    let id = WebhookEventId::new(wall_now());
    let new = NewEvent::of(id, name, event, body, app.clock.now());
    let stored = app.intake.store(new).await;
    match stored.map_err(|error| Refusal::Unavailable(error.to_string()))? {
        Stored::New => app.doorbell.ring(Job::ProcessWebhookEvent { event_id: id, attempt: 0 }),
        // The first body of an event wins; the intake has warned of another one.
        Stored::Known => {}
    }
    Ok(())
}

/// Whoever signed it should hear of it: the gateway tries again, and a better reader heals it.
fn unreadable(gateway: GatewayName, body: &[u8]) -> Refusal {
    let size_bytes = body.len();
    tracing::error!(gateway = gateway.as_str(), size_bytes, "a signed webhook cannot be read");
    Refusal::Unreadable
}

/// Deeper than our reader of JSON goes: what it skips today could not be read tomorrow.
fn is_too_deep(body: &[u8]) -> bool {
    const MAX_DEPTH: u32 = 127;
    let (mut depth, mut is_text, mut is_escaped) = (0_u32, false, false);
    for byte in body {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            b'[' | b'{' if !is_text => depth += 1,
            b']' | b'}' if !is_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_counted_outside_of_text() {
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(!is_too_deep(nested(127).as_bytes()));
        assert!(is_too_deep(nested(128).as_bytes()));
        assert!(is_too_deep(&[b'{'; 3_000]));
        assert!(!is_too_deep(&b"[]".repeat(3_000)));
        assert!(!is_too_deep(format!("\"{}\"", "[".repeat(3_000)).as_bytes()));
        assert!(!is_too_deep(format!("\"\\\"{}\"", "[".repeat(3_000)).as_bytes()));
        assert!(is_too_deep(format!("\"\\\\\"{}", "[".repeat(3_000)).as_bytes()));
    }

    #[test]
    fn whatever_our_reader_takes_is_not_too_deep() {
        for depth in 1..200 {
            let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            let is_read = serde_json::from_str::<serde_json::Value>(&nested).is_ok();
            assert_eq!(is_read, !is_too_deep(nested.as_bytes()), "{depth}");
        }
    }
}
