//! HTTP under async-stripe's request types: pooled connections, timeouts, our idempotency keys.
//!
//! async-stripe's own transport opens a connection a request and has no default timeout
//! (docs/decisions/0002-stripe-transport.md).

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use stripe_client_core::{
    CustomizedStripeRequest, RequestBuilder, StripeClient, StripeClientErr, StripeMethod, VERSION,
};
use tokio::sync::Semaphore;
use url::Url;

use crate::gateways::GatewayError;

/// Calls in flight at once; a slow Stripe must not take every task of the process.
const MAX_IN_FLIGHT: usize = 32;

/// Stripe's API by HTTP.
pub(super) struct Transport {
    http: Client,
    base: String,
    secret_key: SecretString,
    in_flight: Arc<Semaphore>,
}

impl Transport {
    /// Calls the API at `base` as the owner of `secret_key`.
    pub(super) fn new(base: &Url, secret_key: SecretString) -> Self {
        Self {
            http: client(),
            base: format!("{}/v1", base.as_str().trim_end_matches('/')),
            secret_key,
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
        }
    }

    /// For a call that changes something: Stripe answers a repeat as it did the first time.
    pub(super) fn with_key<'a>(&'a self, key: &'a str) -> Call<'a> {
        Call { transport: self, key: Some(key) }
    }

    /// For a call that only reads.
    pub(super) fn without_key(&self) -> Call<'_> {
        Call { transport: self, key: None }
    }
}

/// An HTTP client for a gateway: 2 s to connect, 10 s in all, no redirects.
pub(crate) fn client() -> Client {
    Client::builder()
        .connect_timeout(Duration::from_secs(2))
        .timeout(Duration::from_secs(10))
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("constant settings make a client")
}

/// One call, with or without an idempotency key.
pub(super) struct Call<'a> {
    transport: &'a Transport,
    key: Option<&'a str>,
}

impl StripeClientErr for GatewayError {
    fn deserialize_err(msg: impl std::fmt::Display) -> Self {
        Self::Malformed(msg.to_string())
    }
}

impl StripeClient for Call<'_> {
    type Err = GatewayError;

    async fn execute(&self, request: CustomizedStripeRequest) -> Result<Body, GatewayError> {
        let (request, _overrides) = request.into_pieces();
        let _permit = self.transport.in_flight.acquire().await.expect("never closed");
        let response = self.request(request).send().await.map_err(|error| no_answer(&error))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| no_answer(&error))?;
        if status.is_success() { Ok(body) } else { Err(refusal(status, &body)) }
    }
}

/// What async-stripe wants answers as.
type Body = bytes::Bytes;

impl Call<'_> {
    fn request(&self, request: RequestBuilder) -> reqwest::RequestBuilder {
        let method = match request.method {
            StripeMethod::Get => Method::GET,
            StripeMethod::Post => Method::POST,
            StripeMethod::Delete => Method::DELETE,
        };
        let mut url = format!("{}{}", self.transport.base, request.path);
        if let Some(query) = request.query.filter(|query| !query.is_empty()) {
            url = format!("{url}?{query}");
        }
        let mut http = self
            .transport
            .http
            .request(method, url)
            .bearer_auth(self.transport.secret_key.expose_secret())
            .header("stripe-version", VERSION.as_str());
        if let Some(key) = self.key {
            http = http.header("idempotency-key", key);
        }
        if let Some(body) = request.body {
            http = http.header("content-type", "application/x-www-form-urlencoded").body(body);
        }
        http
    }
}

/// A connection error says where it failed, never what was sent.
pub(crate) fn no_answer(error: &reqwest::Error) -> GatewayError {
    let what = if error.is_timeout() {
        "timeout"
    } else if error.is_connect() {
        "connection refused or lost"
    } else {
        "connection broken"
    };
    GatewayError::Unavailable(what.to_owned())
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Deserialize)]
struct ErrorDetail {
    #[serde(rename = "type")]
    kind: Option<String>,
    code: Option<String>,
    decline_code: Option<String>,
}

/// Sorts Stripe's errors into retry, refuse and alert (docs.stripe.com/error-handling).
fn refusal(status: StatusCode, body: &[u8]) -> GatewayError {
    let detail = serde_json::from_slice::<ErrorBody>(body).ok().map(|body| body.error);
    let word = |detail: ErrorDetail| detail.decline_code.or(detail.code).or(detail.kind);
    let code = detail.and_then(word).unwrap_or_else(|| "unknown".to_owned());
    match status.as_u16() {
        401 | 403 => GatewayError::Misconfigured("Stripe refused our key"),
        409 | 429 | 500.. => GatewayError::Unavailable(format!("{status} {code}")),
        400 if code == "rate_limit" || code == "lock_timeout" => {
            GatewayError::Unavailable(format!("{status} {code}"))
        }
        _ => GatewayError::Refused { code },
    }
}

#[cfg(test)]
mod tests {
    use stripe_core::customer::{CreateCustomer, RetrieveCustomer, RetrieveCustomerReturned};

    use super::*;

    /// Run by `tests/clients/run`, which starts localstripe.
    #[tokio::test]
    #[ignore = "needs localstripe: tests/clients/run"]
    #[expect(clippy::disallowed_methods, reason = "told by the script that starts localstripe")]
    async fn our_transport_creates_and_reads_a_customer_at_localstripe() {
        let _installed_before = rustls::crypto::ring::default_provider().install_default();
        let base: Url = std::env::var("LOCALSTRIPE_URL").unwrap().parse().unwrap();
        let transport = Transport::new(&base, "sk_test_12345".into());

        let create = CreateCustomer::new().email("jenny@example.com");
        let created = create.send(&transport.with_key("customer-1")).await.unwrap();
        let read = RetrieveCustomer::new(created.id.clone());
        let read = read.send(&transport.without_key()).await.unwrap();

        let RetrieveCustomerReturned::Customer(read) = read else { panic!("it was deleted") };
        assert_eq!(read.id, created.id);
        assert_eq!(read.email.as_deref(), Some("jenny@example.com"));
    }
}
