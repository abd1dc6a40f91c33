//! Proof that Stripe sent a webhook (docs.stripe.com/webhooks/signature).

use axum::http::HeaderMap;
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};

/// How far the signature's time may be from ours, either way. Each retry is signed anew.
const TOLERANCE_SECONDS: i64 = 300;

/// A longer header is not looked at: with several secrets Stripe's own has a few hundred bytes.
const MAX_HEADER_BYTES: usize = 4096;

/// Why a webhook is not believed. All are answered alike; the difference is for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// No `Stripe-Signature`.
    MissingHeader,
    /// Two headers, too long, or not `t=…,v1=…`.
    MalformedHeader,
    /// No `v1` element; `v0` is never accepted.
    NoV1Signature,
    /// Every configured secret is blank.
    NoSecret,
    /// No secret and signature fit.
    SignatureMismatch,
    /// More than 300 s old.
    TimestampTooOld,
    /// More than 300 s ahead.
    TimestampInFuture,
}

/// Checks `Stripe-Signature` over the raw body with every secret and every `v1`.
///
/// Stricter than the official SDKs: the time is bounded both ways and written one way only.
pub fn verify(
    headers: &HeaderMap,
    body: &[u8],
    secrets: &[SecretString],
    now: DateTime<Utc>,
) -> Result<(), Rejection> {
    let mut values = headers.get_all("stripe-signature").iter();
    let value = values.next().ok_or(Rejection::MissingHeader)?;
    if values.next().is_some() || value.len() > MAX_HEADER_BYTES {
        return Err(Rejection::MalformedHeader);
    }
    let is_usable = |secret: &&SecretString| !secret.expose_secret().trim().is_empty();
    let secrets: Vec<&SecretString> = secrets.iter().filter(is_usable).collect();
    if secrets.is_empty() {
        return Err(Rejection::NoSecret);
    }
    let header = Header::parse(value.as_bytes())?;
    if header.signatures.is_empty() {
        return Err(Rejection::NoV1Signature);
    }
    if !header.matches(body, &secrets) {
        return Err(Rejection::SignatureMismatch);
    }
    let age = now.timestamp() - header.seconds;
    if age > TOLERANCE_SECONDS {
        Err(Rejection::TimestampTooOld)
    } else if age < -TOLERANCE_SECONDS {
        Err(Rejection::TimestampInFuture)
    } else {
        Ok(())
    }
}

/// The elements of the header that we use; unknown schemes are ignored.
struct Header<'a> {
    time: &'a [u8],
    seconds: i64,
    signatures: Vec<&'a [u8]>,
}

impl<'a> Header<'a> {
    fn parse(value: &'a [u8]) -> Result<Self, Rejection> {
        let mut time = None;
        let mut signatures = Vec::new();
        for element in value.split(|byte| *byte == b',') {
            let Some(equals) = element.iter().position(|byte| *byte == b'=') else { continue };
            match (&element[..equals], &element[equals + 1..]) {
                (b"t", value) if time.is_none() => time = Some(value),
                (b"t", _) => return Err(Rejection::MalformedHeader),
                (b"v1", value) => signatures.push(value),
                _ => {}
            }
        }
        let time = time.ok_or(Rejection::MalformedHeader)?;
        let seconds = seconds(time).ok_or(Rejection::MalformedHeader)?;
        Ok(Self { time, seconds, signatures })
    }

    /// Compares every secret with every signature, without an early exit.
    fn matches(&self, body: &[u8], secrets: &[&SecretString]) -> bool {
        let mut found = Choice::from(0);
        for secret in secrets {
            let ours = hex(&mac(secret, self.time, body));
            for theirs in &self.signatures {
                found |= ours.as_slice().ct_eq(theirs);
            }
        }
        found.into()
    }
}

/// `^[1-9][0-9]{0,11}$`: one way to write a time.
fn seconds(text: &[u8]) -> Option<i64> {
    let is_canonical = (1..=12).contains(&text.len())
        && text.iter().all(u8::is_ascii_digit)
        && text.first() != Some(&b'0');
    if !is_canonical {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// HMAC-SHA256 of `t.body`, keyed by the whole secret as it is written.
fn mac(secret: &SecretString, time: &[u8], body: &[u8]) -> [u8; 32] {
    let key = secret.expose_secret().as_bytes();
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(time);
    mac.update(b".");
    mac.update(body);
    mac.finalize().into_bytes().into()
}

/// 64 lower-case hex digits, the one form in which a signature matches.
fn hex(bytes: &[u8; 32]) -> [u8; 64] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 64];
    for (index, byte) in bytes.iter().enumerate() {
        text[2 * index] = DIGITS[usize::from(byte >> 4)];
        text[2 * index + 1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use base64::prelude::{BASE64_STANDARD, Engine};
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const VECTORS: &str =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/stripe_signatures.json");

    fn cases() -> Vec<Value> {
        let file: Value = serde_json::from_slice(&std::fs::read(VECTORS).unwrap()).unwrap();
        file["cases"].as_array().unwrap().clone()
    }

    fn body(case: &Value) -> Vec<u8> {
        match case["payload"].as_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => BASE64_STANDARD.decode(case["payload_b64"].as_str().unwrap()).unwrap(),
        }
    }

    fn verdict(case: &Value, body: &[u8]) -> &'static str {
        let mut headers = HeaderMap::new();
        if let Some(header) = case["header"].as_str() {
            let Ok(value) = HeaderValue::from_bytes(header.as_bytes()) else {
                return "malformed_header"; // hyper refuses such a request before us
            };
            headers.append("stripe-signature", value);
        }
        let secrets: Vec<SecretString> = case["secrets"]
            .as_array()
            .unwrap()
            .iter()
            .map(|secret| secret.as_str().unwrap_or_default().into())
            .collect();
        let now = DateTime::from_timestamp(case["now"].as_i64().unwrap(), 0).unwrap();
        match verify(&headers, body, &secrets, now) {
            Ok(()) => "ok",
            Err(Rejection::MissingHeader) => "missing_header",
            Err(Rejection::MalformedHeader) => "malformed_header",
            Err(Rejection::NoV1Signature) => "no_v1_signature",
            Err(Rejection::NoSecret) => "no_secret",
            Err(Rejection::SignatureMismatch) => "signature_mismatch",
            Err(Rejection::TimestampTooOld) => "timestamp_too_old",
            Err(Rejection::TimestampInFuture) => "timestamp_in_future",
        }
    }

    #[test]
    fn every_shared_stripe_vector_gets_its_verdict() {
        let cases = cases();
        assert!(cases.len() >= 59);
        for case in &cases {
            let verdict = verdict(case, &body(case));
            let also = case["also_acceptable"].as_array().cloned().unwrap_or_default();
            let is_fine = case["expected"] == verdict || also.iter().any(|word| word == verdict);
            assert!(is_fine, "{}: {verdict}, expected {}", case["name"], case["expected"]);
        }
    }

    #[test]
    fn one_changed_byte_fails_each_good_vector() {
        for case in cases().iter().filter(|case| case["expected"] == "ok") {
            let good = body(case);
            for index in 0..good.len() {
                let mut changed = good.clone();
                changed[index] ^= 1;
                assert_eq!(verdict(case, &changed), "signature_mismatch", "{}", case["name"]);
            }
        }
    }

    #[test]
    fn two_headers_are_refused() {
        let mut headers = HeaderMap::new();
        headers.append("stripe-signature", HeaderValue::from_static("t=1,v1=a"));
        headers.append("stripe-signature", HeaderValue::from_static("t=1,v1=a"));
        let now = DateTime::from_timestamp(1, 0).unwrap();
        let refused = verify(&headers, b"", &["whsec_x".into()], now);
        assert_eq!(refused, Err(Rejection::MalformedHeader));
    }

    proptest! {
        /// No header whatever makes the verifier panic or pass.
        #[test]
        fn random_headers_are_refused(header in prop::collection::vec(32..=255_u8, 0..300)) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&header) {
                headers.insert("stripe-signature", value);
            }
            let now = DateTime::from_timestamp(1, 0).unwrap();
            prop_assert!(verify(&headers, b"x", &["whsec_x".into()], now).is_err());
        }
    }
}
