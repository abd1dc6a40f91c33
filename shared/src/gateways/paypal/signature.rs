//! Proof, without asking anybody, that PayPal sent a webhook
//! (developer.paypal.com/api/rest/webhooks/rest, "self verification").

use axum::http::HeaderMap;
use base64::prelude::{BASE64_STANDARD, Engine};
use chrono::{DateTime, Duration, Utc};
use rustls_pki_types::TrustAnchor;
use secrecy::{ExposeSecret, SecretString};
use serde::de::IgnoredAny;

use super::certificates::{Cache, Chain, FetchCertificate, trust_anchors};

/// Retries carry the first attempt's time for up to three days.
const MAX_AGE: Duration = Duration::days(4);
/// Clocks may differ by so much.
const MAX_FUTURE: Duration = Duration::minutes(5);

/// The one algorithm that PayPal signs with.
const ALGORITHM: &str = "SHA256withRSA";

/// Which PayPal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// Play money.
    Sandbox,
    /// Real money.
    Live,
}

impl Environment {
    /// Hosts that certificates may be fetched from.
    pub const fn hosts(self) -> [&'static str; 2] {
        match self {
            Self::Sandbox => ["api.sandbox.paypal.com", "api-m.sandbox.paypal.com"],
            Self::Live => ["api.paypal.com", "api-m.paypal.com"],
        }
    }

    /// The name that a signer's certificate must carry: the chain alone would let anybody sign
    /// who has a certificate of a public authority.
    pub const fn signer_name(self) -> &'static str {
        match self {
            Self::Sandbox => "messageverificationcerts.sandbox.paypal.com",
            Self::Live => "messageverificationcerts.paypal.com",
        }
    }
}

/// Why a webhook is not believed. All are answered alike; the difference is for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// One of the five headers is absent or empty.
    MissingHeader,
    /// One of the five headers is there twice or not of its form.
    MalformedHeader,
    /// Not SHA256withRSA.
    UnsupportedAlgo,
    /// The certificate's address is not PayPal's.
    CertUrlRejected,
    /// More than four days old.
    TimestampTooOld,
    /// More than five minutes ahead.
    TimestampInFuture,
    /// The certificate could not be fetched now.
    CertFetchFailed,
    /// What was fetched is no certificate.
    CertParseFailed,
    /// Its key is not RSA of 2048 bits or more.
    CertBadKey,
    /// It is no longer valid.
    CertExpired,
    /// It is not valid yet.
    CertNotYetValid,
    /// It does not lead to a trusted root.
    CertUntrusted,
    /// It is somebody else's.
    CertWrongSubject,
    /// The signature is not of this body, id, time and webhook.
    SignatureMismatch,
    /// The body is no JSON object, which PayPal cannot be asked about.
    BodyNotJson,
}

impl Rejection {
    /// Whether the same webhook may be believed later: the gateway should send it again.
    pub fn is_temporary(self) -> bool {
        self == Self::CertFetchFailed
    }
}

/// Checks webhooks for one of our webhook ids.
pub struct Verifier {
    environment: Environment,
    webhook_id: SecretString,
    roots: Vec<TrustAnchor<'static>>,
    certificates: Cache,
}

impl Verifier {
    /// Trusts `roots_pem`, or the public authorities where it is `None`.
    pub fn new(
        environment: Environment,
        webhook_id: SecretString,
        roots_pem: Option<&str>,
        fetcher: Box<dyn FetchCertificate>,
    ) -> Result<Self, String> {
        let roots = trust_anchors(roots_pem)?;
        Ok(Self { environment, webhook_id, roots, certificates: Cache::new(fetcher) })
    }

    /// Checks the five headers, the certificate and the signature over id, time, webhook id and
    /// CRC-32 of the raw body.
    ///
    /// CRC-32 is no protection against somebody who saw one signed webhook: whatever the body says
    /// must be read again by API, and a transmission id may bring in one body only.
    pub async fn verify(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now: DateTime<Utc>,
    ) -> Result<(), Rejection> {
        let parts = self.well_formed(headers, now)?;
        let check = |chain: &Chain| chain.check(&self.roots, self.environment.signer_name(), now);
        let chain = self.certificates.get(parts.cert_url, now, check).await?;
        let webhook_id = self.webhook_id.expose_secret();
        let crc = crc32fast::hash(body);
        let message = format!("{}|{}|{webhook_id}|{crc}", parts.id, parts.time);
        chain.verify_signature(message.as_bytes(), &parts.signature)
    }

    /// What PayPal is asked about a webhook, with its body as it came: writing it anew would
    /// change what was signed. Refused without asking: what [`Verifier::verify`] would refuse by
    /// the headers alone.
    pub(super) fn question(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now: DateTime<Utc>,
    ) -> Result<String, Rejection> {
        let parts = self.well_formed(headers, now)?;
        let event = std::str::from_utf8(body).map_err(|_| Rejection::BodyNotJson)?;
        // One whole value, or it could end the member that it is put into and add its own.
        serde_json::from_str::<IgnoredAny>(event).map_err(|_| Rejection::BodyNotJson)?;
        if !event.trim_start().starts_with('{') {
            return Err(Rejection::BodyNotJson);
        }
        let about = serde_json::json!({
            "auth_algo": ALGORITHM,
            "cert_url": parts.cert_url,
            "transmission_id": parts.id,
            "transmission_sig": BASE64_STANDARD.encode(&parts.signature),
            "transmission_time": parts.time,
            "webhook_id": self.webhook_id.expose_secret(),
        })
        .to_string();
        let open = about.strip_suffix('}').expect("an object ends with a brace");
        Ok(format!(r#"{open},"webhook_event":{event}}}"#))
    }

    /// Reads the headers and refuses what needs neither certificate nor network to be refused.
    fn well_formed<'a>(
        &self,
        headers: &'a HeaderMap,
        now: DateTime<Utc>,
    ) -> Result<Parts<'a>, Rejection> {
        let parts = Parts::read(headers)?;
        if !is_allowed(self.environment, parts.cert_url) {
            return Err(Rejection::CertUrlRejected);
        }
        let age = now - parts.sent_at;
        if age > MAX_AGE {
            return Err(Rejection::TimestampTooOld);
        }
        if age < -MAX_FUTURE {
            return Err(Rejection::TimestampInFuture);
        }
        Ok(parts)
    }
}

/// The five headers, each of its form.
struct Parts<'a> {
    id: &'a str,
    time: &'a str,
    sent_at: DateTime<Utc>,
    signature: Vec<u8>,
    cert_url: &'a str,
}

impl<'a> Parts<'a> {
    fn read(headers: &'a HeaderMap) -> Result<Self, Rejection> {
        let id = single(headers, "paypal-transmission-id")?;
        let time = single(headers, "paypal-transmission-time")?;
        let signature = single(headers, "paypal-transmission-sig")?;
        let cert_url = single(headers, "paypal-cert-url")?;
        let algorithm = single(headers, "paypal-auth-algo")?;
        if algorithm != ALGORITHM {
            return Err(Rejection::UnsupportedAlgo);
        }
        let is_id_byte = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if id.len() > 64 || !id.bytes().all(is_id_byte) || signature.len() > 1024 {
            return Err(Rejection::MalformedHeader);
        }
        let sent_at = DateTime::parse_from_rfc3339(time)
            .map_err(|_| Rejection::MalformedHeader)?
            .with_timezone(&Utc);
        let signature =
            BASE64_STANDARD.decode(signature).map_err(|_| Rejection::MalformedHeader)?;
        Ok(Self { id, time, sent_at, signature, cert_url })
    }
}

fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, Rejection> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|value| !value.is_empty()).ok_or(Rejection::MissingHeader)?;
    if values.next().is_some() {
        return Err(Rejection::MalformedHeader);
    }
    value.to_str().map_err(|_| Rejection::MalformedHeader)
}

/// Whether a certificate may be fetched from there: compared as text, before anything parses it,
/// because parsers repair what we want to refuse.
fn is_allowed(environment: Environment, url: &str) -> bool {
    let Some((host, path)) = url.strip_prefix("https://").and_then(|rest| rest.split_once('/'))
    else {
        return false;
    };
    let Some(name) = path.strip_prefix("v1/notifications/certs/") else { return false };
    environment.hosts().contains(&host)
        && (1..=128).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use axum::http::{HeaderName, HeaderValue};
    use serde_json::Value;

    use super::*;
    use crate::gateways::paypal::certificates::FetchFailed;

    const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors");

    /// Serves the vector's file the way the vector says, and counts.
    struct Served {
        case: Value,
        calls: Arc<AtomicUsize>,
    }

    #[async_trait]
    impl FetchCertificate for Served {
        async fn fetch(&self, _url: &str) -> Result<Vec<u8>, FetchFailed> {
            self.calls.fetch_add(1, Ordering::SeqCst);
            let how = &self.case["cert_fetch"];
            let is_broken = how["timeout"].as_bool() == Some(true)
                || how["status"].as_u64().is_some_and(|status| status != 200)
                || how["body_size"].as_u64().is_some_and(|size| size > 64 * 1024);
            match self.case["cert_file"].as_str().filter(|_| !is_broken) {
                Some(file) => Ok(std::fs::read(format!("{VECTORS}/{file}")).unwrap()),
                None => Err(FetchFailed),
            }
        }
    }

    fn cases() -> Vec<Value> {
        let file = std::fs::read(format!("{VECTORS}/paypal_signatures.json")).unwrap();
        let file: Value = serde_json::from_slice(&file).unwrap();
        file["cases"].as_array().unwrap().clone()
    }

    fn body(case: &Value) -> Vec<u8> {
        match case["body"].as_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => BASE64_STANDARD.decode(case["body_b64"].as_str().unwrap()).unwrap(),
        }
    }

    fn headers(case: &Value) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        let pairs = case["headers"].as_object().unwrap();
        for (name, value) in pairs {
            let values = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
            for value in values.iter().filter_map(Value::as_str) {
                let name: HeaderName = name.to_ascii_lowercase().parse().unwrap();
                headers.append(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
            }
        }
        Some(headers)
    }

    fn word(verdict: Result<(), Rejection>) -> &'static str {
        match verdict {
            Ok(()) => "ok",
            Err(Rejection::MissingHeader) => "missing_header",
            Err(Rejection::MalformedHeader) => "malformed_header",
            Err(Rejection::UnsupportedAlgo) => "unsupported_algo",
            Err(Rejection::CertUrlRejected) => "cert_url_rejected",
            Err(Rejection::TimestampTooOld) => "timestamp_too_old",
            Err(Rejection::TimestampInFuture) => "timestamp_in_future",
            Err(Rejection::CertFetchFailed) => "cert_fetch_failed",
            Err(Rejection::CertParseFailed) => "cert_parse_failed",
            Err(Rejection::CertBadKey) => "cert_bad_key",
            Err(Rejection::CertExpired) => "cert_expired",
            Err(Rejection::CertNotYetValid) => "cert_not_yet_valid",
            Err(Rejection::CertUntrusted) => "cert_untrusted",
            Err(Rejection::CertWrongSubject) => "cert_wrong_subject",
            Err(Rejection::SignatureMismatch) => "signature_mismatch",
            Err(Rejection::BodyNotJson) => "body_not_json",
        }
    }

    async fn verdict(case: &Value, body: &[u8]) -> (&'static str, usize) {
        let calls = Arc::new(AtomicUsize::new(0));
        let Some(headers) = headers(case) else {
            return ("malformed_header", 0); // hyper refuses such a request before us
        };
        let is_live = case["environment"] == "live";
        let environment = if is_live { Environment::Live } else { Environment::Sandbox };
        let root = case["trust_root"].as_str().unwrap();
        let root = std::fs::read_to_string(format!("{VECTORS}/{root}")).unwrap();
        let fetcher = Served { case: case.clone(), calls: Arc::clone(&calls) };
        let webhook_id = case["webhook_id"].as_str().unwrap().into();
        let verifier =
            Verifier::new(environment, webhook_id, Some(&root), Box::new(fetcher)).unwrap();
        let now = DateTime::from_timestamp(case["now"].as_i64().unwrap(), 0);
        let verdict = verifier.verify(&headers, body, now.unwrap()).await;
        (word(verdict), calls.load(Ordering::SeqCst))
    }

    #[tokio::test]
    async fn every_shared_paypal_vector_gets_its_verdict() {
        let cases = cases();
        assert!(cases.len() >= 62);
        for case in &cases {
            let (verdict, calls) = verdict(case, &body(case)).await;
            let also = case["also_acceptable"].as_array().cloned().unwrap_or_default();
            let is_fine = case["expected"] == verdict || also.iter().any(|word| word == verdict);
            assert!(is_fine, "{}: {verdict}, expected {}", case["name"], case["expected"]);
            if case["must_not_fetch"] == true {
                assert_eq!(calls, 0, "{}: a request left the process", case["name"]);
            }
        }
    }

    fn asked(case: &Value, body: &[u8]) -> Result<String, Rejection> {
        let is_live = case["environment"] == "live";
        let environment = if is_live { Environment::Live } else { Environment::Sandbox };
        let fetcher = Served { case: case.clone(), calls: Arc::default() };
        let webhook_id = case["webhook_id"].as_str().unwrap().into();
        let verifier = Verifier::new(environment, webhook_id, None, Box::new(fetcher)).unwrap();
        let now = DateTime::from_timestamp(case["now"].as_i64().unwrap(), 0).unwrap();
        verifier.question(&headers(case).unwrap(), body, now)
    }

    #[test]
    fn paypal_is_asked_about_the_very_bytes_that_came() {
        let cases = cases();
        let case = cases.iter().find(|case| case["expected"] == "ok").unwrap();
        let body = br#"{"a" : 1.0,"a":2,  "b":"\u00e9"}"#;

        let question = asked(case, body).unwrap();

        assert!(question.contains(std::str::from_utf8(body).unwrap()), "{question}");
        let read: Value = serde_json::from_str(&question).unwrap();
        assert_eq!(read["webhook_id"], case["webhook_id"]);
    }

    #[test]
    fn a_body_cannot_add_members_to_the_question() {
        let cases = cases();
        let case = cases.iter().find(|case| case["expected"] == "ok").unwrap();
        for body in [&br#"{},"webhook_id":"mine""#[..], b"{}}", b"[]", b"null", b"", b"\xff{}"] {
            assert_eq!(asked(case, body), Err(Rejection::BodyNotJson));
        }
    }

    #[test]
    fn what_the_headers_forbid_is_never_asked() {
        let by_headers = ["missing_header", "malformed_header", "unsupported_algo"];
        let by_url_or_time = ["cert_url_rejected", "timestamp_too_old", "timestamp_in_future"];
        let is_refused = |case: &&Value| {
            let expected = case["expected"].as_str().unwrap();
            by_headers.contains(&expected) || by_url_or_time.contains(&expected)
        };
        let cases = cases();
        let refused: Vec<_> = cases.iter().filter(is_refused).collect();
        assert!(refused.len() >= 20);
        for case in refused.into_iter().filter(|case| headers(case).is_some()) {
            assert!(asked(case, b"{}").is_err(), "{}", case["name"]);
        }
    }

    #[tokio::test]
    async fn one_changed_byte_fails_each_good_vector() {
        for case in cases().iter().filter(|case| case["expected"] == "ok") {
            let good = body(case);
            if verdict(case, &good).await.0 != "ok" {
                continue; // a vector that we may refuse, and do
            }
            for index in (0..good.len()).step_by(97) {
                let mut changed = good.clone();
                changed[index] ^= 1;
                let (verdict, _) = verdict(case, &changed).await;
                assert_eq!(verdict, "signature_mismatch", "{} at {index}", case["name"]);
            }
        }
    }
}
