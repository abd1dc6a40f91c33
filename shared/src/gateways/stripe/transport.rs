//! HTTP under async-stripe's request types: pooled connections, timeouts, our idempotency keys.
//!
//! async-stripe's own transport opens a connection a request and has no default timeout
//! (docs/decisions/0002-stripe-transport.md).

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderValue;
use reqwest::{Client, Method, Response};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use stripe_client_core::{
    CustomizedStripeRequest, RequestBuilder, StripeClient, StripeMethod, StripeRequest, VERSION,
};
use tokio::sync::{Semaphore, SemaphorePermit};
use url::Url;

use super::errors::{Failure, Refusal, Unreadable};
use crate::config::GATEWAY_TIMEOUT;
use crate::gateways::GatewayError;

/// Calls in flight at once; a slow Stripe must not take every task of the process.
const MAX_IN_FLIGHT: usize = 32;

/// Stripe's API by HTTP.
pub(super) struct Transport {
    http: Client,
    base: String,
    secret_key: SecretString,
    in_flight: Arc<Semaphore>,
    pub(super) timeout: Duration,
}

impl Transport {
    /// Calls the API at `base` as the owner of `secret_key`.
    pub(super) fn new(base: &Url, secret_key: SecretString) -> Self {
        Self {
            http: client(),
            base: format!("{}/v1", base.as_str().trim_end_matches('/')),
            secret_key,
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
            timeout: GATEWAY_TIMEOUT,
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

    /// Waits for a turn half as long as the call itself may then take.
    async fn turn(&self) -> Result<SemaphorePermit<'_>, Failure> {
        let turn = tokio::time::timeout(self.timeout / 2, self.in_flight.acquire()).await;
        let busy = || GatewayError::Unavailable("too many calls in flight".to_owned());
        Ok(turn.map_err(|_elapsed| Failure::NoAnswer(busy()))?.expect("never closed"))
    }
}

/// An HTTP client for a gateway: 2 s to connect, 10 s in all, no redirects.
pub(crate) fn client() -> Client {
    Client::builder()
        .connect_timeout(Duration::from_secs(2))
        .timeout(GATEWAY_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("constant settings make a client")
}

/// One call, with or without an idempotency key.
pub(super) struct Call<'a> {
    transport: &'a Transport,
    key: Option<&'a str>,
}

impl StripeClient for Call<'_> {
    type Err = Failure;

    async fn execute(&self, request: CustomizedStripeRequest) -> Result<Body, Failure> {
        let (request, _overrides) = request.into_pieces();
        self.body(&request).await
    }
}

/// What async-stripe wants answers as.
type Body = bytes::Bytes;

impl Call<'_> {
    /// Sends one of async-stripe's requests and reads of the answer what `T` wants.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        request: &(impl StripeRequest + Sync),
    ) -> Result<T, Failure> {
        self.send(&request.build()).await
    }

    /// As [`Call::ask`], for a request that async-stripe's light crates do not have.
    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        request: &RequestBuilder,
    ) -> Result<T, Failure> {
        let body = self.body(request).await?;
        Ok(serde_json::from_slice(&body).map_err(|error| Unreadable::of(&error))?)
    }

    async fn body(&self, request: &RequestBuilder) -> Result<Body, Failure> {
        if !is_sound(&request.path) {
            return Err(Failure::NoSuchId);
        }
        let _turn = self.transport.turn().await?;
        let (response, body) = match self.exchange(request).await {
            // A pooled connection may have died unseen. Reading twice changes nothing.
            Err(error) if matches!(request.method, StripeMethod::Get) && !error.is_timeout() => {
                self.exchange(request).await
            }
            answer => answer,
        }
        .map_err(|error| Failure::NoAnswer(no_answer(&error)))?;
        if response.is_success() {
            return Ok(body);
        }
        let header = |name: &str| Some(response.headers.get(name)?.to_str().ok()?.to_owned());
        Err(Failure::Refused(Box::new(Refusal::read(response.status, &body, header))))
    }

    async fn exchange(&self, request: &RequestBuilder) -> reqwest::Result<(Head, Body)> {
        let response = self.request(request).send().await?;
        let head = Head::of(&response);
        Ok((head, response.bytes().await?))
    }

    fn request(&self, request: &RequestBuilder) -> reqwest::RequestBuilder {
        let method = match request.method {
            StripeMethod::Get => Method::GET,
            StripeMethod::Post => Method::POST,
            StripeMethod::Delete => Method::DELETE,
        };
        let mut url = format!("{}{}", self.transport.base, request.path);
        if let Some(query) = request.query.as_ref().filter(|query| !query.is_empty()) {
            url = format!("{url}?{query}");
        }
        let mut http = self
            .transport
            .http
            .request(method, url)
            // reqwest marks it as sensitive, so that no log of headers shows it.
            .bearer_auth(self.transport.secret_key.expose_secret())
            .header("stripe-version", HeaderValue::from_static(VERSION.as_str()))
            .timeout(self.transport.timeout);
        if let Some(key) = self.key {
            http = http.header("idempotency-key", key);
        }
        if let Some(body) = &request.body {
            http =
                http.header("content-type", "application/x-www-form-urlencoded").body(body.clone());
        }
        http
    }
}

/// What is told before a body.
struct Head {
    status: u16,
    headers: reqwest::header::HeaderMap,
}

impl Head {
    fn of(response: &Response) -> Self {
        Self { status: response.status().as_u16(), headers: response.headers().clone() }
    }

    fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Whether a path is made of Stripe's words and ids only: an id that somebody else wrote must not
/// lead to another path.
fn is_sound(path: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    path.strip_prefix('/').is_some_and(|path| path.split('/').all(is_word))
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

#[cfg(test)]
mod tests {
    use stripe_core::customer::{CreateCustomer, RetrieveCustomer, RetrieveCustomerReturned};
    use stripe_core::payment_intent::RetrievePaymentIntent;

    use super::*;

    fn transport() -> Transport {
        let _installed_before = rustls::crypto::ring::default_provider().install_default();
        Transport::new(&"http://127.0.0.1:1/".parse().unwrap(), "sk_test_canary".into())
    }

    #[test]
    fn every_call_names_the_version_that_we_were_tested_with() {
        let transport = transport();
        let call = transport.with_key("key-1");
        let request = call.request(&RetrievePaymentIntent::new("pi_1").build()).build().unwrap();

        assert_eq!(request.headers()["stripe-version"], "2026-09-30.endive");
        assert_eq!(request.headers()["idempotency-key"], "key-1");
        assert_eq!(request.url().as_str(), "http://127.0.0.1:1/v1/payment_intents/pi_1");
    }

    #[test]
    fn a_request_that_is_shown_does_not_show_the_key() {
        let transport = transport();
        let call = transport.without_key();
        let request = call.request(&RetrievePaymentIntent::new("pi_1").build()).build().unwrap();

        assert!(request.headers()["authorization"].is_sensitive());
        assert!(!format!("{request:?}").contains("canary"));
    }

    #[test]
    fn an_id_never_leads_to_another_path() {
        assert!(is_sound("/payment_intents/pi_1/cancel"));
        for path in ["/payment_intents/", "/refunds/..", "/refunds/a?b", "/refunds/%2e", "refunds"]
        {
            assert!(!is_sound(path), "{path}");
        }
    }

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
