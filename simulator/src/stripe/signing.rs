//! Stripe's signature: one `v1` for each secret of the endpoint.

use std::fmt::Write;

use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::world::Core;

/// Returns the headers of an event's POST, signed as of `at`; a forged one uses another secret.
pub(crate) fn headers(
    core: &Core,
    body: &[u8],
    at: DateTime<Utc>,
    is_forged: bool,
) -> Vec<(String, String)> {
    let timestamp = at.timestamp();
    let mut signature = format!("t={timestamp}");
    for secret in &core.settings.stripe_webhook_secrets {
        let secret = if is_forged { "whsec_of_somebody_else" } else { secret };
        let _ = write!(signature, ",v1={}", sign(secret, timestamp, body));
    }
    vec![
        ("Stripe-Signature".into(), signature),
        ("Content-Type".into(), "application/json; charset=utf-8".into()),
        ("User-Agent".into(), "Stripe/1.0 (+https://stripe.com/docs/webhooks)".into()),
    ]
}

/// Returns the lower-case hexadecimal HMAC-SHA256 of `t.body` under the whole secret.
fn sign(secret: &str, timestamp: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length is a key");
    mac.update(timestamp.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    mac.finalize().into_bytes().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_a_known_example() {
        // Computed with `openssl dgst -sha256 -hmac whsec_test`.
        assert_eq!(
            sign("whsec_test", 1_700_000_000, b"{}"),
            "35495024f4ef3f94e5a93e22221544c4b75e9a42300cd965ab81cb85cd994e91"
        );
    }
}
