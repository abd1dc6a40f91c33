//! What the tests share: a running simulator, clients of both APIs, an endpoint that counts.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use reqwest::header::HeaderMap as AnswerHeaders;
use serde_json::{Value, json};
use simulator::{Settings, Simulator};

/// How long a condition may take to become true.
const PATIENCE: Duration = Duration::from_secs(10);

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: AnswerHeaders,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("headers are text"))
    }

    pub(crate) fn id(&self) -> String {
        assert!(self.status < 300, "{self:?}");
        self.body["id"].as_str().expect("objects have ids").to_owned()
    }

    /// The error's code at Stripe.
    pub(crate) fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }

    /// The first issue at PayPal.
    pub(crate) fn issue(&self) -> &str {
        self.body["details"][0]["issue"].as_str().unwrap_or_default()
    }
}

/// A simulator and a client.
pub(crate) struct Kit {
    pub(crate) simulator: Simulator,
    pub(crate) client: reqwest::Client,
}

pub(crate) fn client() -> reqwest::ClientBuilder {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring knows TLS 1.2 and 1.3")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(PATIENCE)
}

impl Kit {
    pub(crate) async fn start() -> Self {
        Self::start_with(Settings::default()).await
    }

    pub(crate) async fn start_with(settings: Settings) -> Self {
        let simulator = Simulator::start(settings).await.expect("free ports are there");
        Kit { simulator, client: client().build().expect("a client") }
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.bytes().await?;
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Ok(Answer { status, headers, body })
    }

    /// A request of Stripe's API with the secret key.
    pub(crate) fn stripe_request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = method.parse().expect("a method");
        let url = format!("{}{path}", self.simulator.stripe_url());
        self.client.request(method, url).bearer_auth("sk_test_simulator")
    }

    pub(crate) async fn post(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        let request = self.stripe_request("POST", path).form(form);
        self.send(request).await.expect("the simulator answers")
    }

    pub(crate) async fn post_with_key(
        &self,
        path: &str,
        form: &[(&str, &str)],
        key: &str,
    ) -> Answer {
        let request = self.stripe_request("POST", path).form(form).header("idempotency-key", key);
        self.send(request).await.expect("the simulator answers")
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        let request = self.stripe_request("GET", path);
        self.send(request).await.expect("the simulator answers")
    }

    /// Makes an intent of 10.99 USD for `payment-1`.
    pub(crate) async fn intent(&self) -> Answer {
        let form = [
            ("amount", "1099"),
            ("currency", "usd"),
            ("metadata[payment_id]", "payment-1"),
            ("automatic_payment_methods[enabled]", "true"),
        ];
        self.post("/v1/payment_intents", &form).await
    }

    /// Makes an intent and pays it.
    pub(crate) async fn paid_intent(&self) -> String {
        let id = self.intent().await.id();
        let status = self.simulator.pay_stripe(&id, "pm_card_visa");
        assert_eq!(status.as_deref(), Ok("succeeded"));
        id
    }

    /// Fetches an access token of PayPal's.
    pub(crate) async fn token(&self) -> String {
        let url = format!("{}/v1/oauth2/token", self.simulator.paypal_url());
        let settings = self.simulator.settings();
        let request = self
            .client
            .post(url)
            .basic_auth(&settings.paypal_client_id, Some(&settings.paypal_client_secret))
            .form(&[("grant_type", "client_credentials")]);
        let answer = self.send(request).await.expect("the simulator answers");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body["access_token"].as_str().expect("a token").to_owned()
    }

    /// A request of PayPal's API.
    pub(crate) fn paypal_request(
        &self,
        token: &str,
        method: &str,
        path: &str,
    ) -> reqwest::RequestBuilder {
        let method = method.parse().expect("a method");
        let url = format!("{}{path}", self.simulator.paypal_url());
        self.client
            .request(method, url)
            .bearer_auth(token)
            .header("content-type", "application/json")
            .header("prefer", "return=representation")
    }

    pub(crate) async fn paypal(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: &Value,
        request_id: &str,
    ) -> Answer {
        let mut request = self.paypal_request(token, method, path);
        if !body.is_null() {
            request = request.body(body.to_string());
        }
        if !request_id.is_empty() {
            request = request.header("paypal-request-id", request_id);
        }
        self.send(request).await.expect("the simulator answers")
    }

    /// Makes an order of 10.99 USD for `payment-1`.
    pub(crate) async fn order(&self, token: &str) -> Answer {
        self.paypal(token, "POST", "/v2/checkout/orders", &order("payment-1"), "order-1").await
    }

    /// Makes, approves and captures an order; gives its id and the capture's.
    pub(crate) async fn captured_order(&self, token: &str) -> (String, String) {
        let order = self.order(token).await.id();
        self.simulator.approve_paypal(&order).expect("the order is open");
        let path = format!("/v2/checkout/orders/{order}/capture");
        let captured = self.paypal(token, "POST", &path, &Value::Null, "capture-1").await;
        assert_eq!(captured.status, 201, "{captured:?}");
        (order, capture_id(&captured.body))
    }

    /// Returns the kinds of all events so far.
    pub(crate) fn kinds(&self) -> Vec<String> {
        self.simulator.events().into_iter().map(|event| event.kind).collect()
    }

    /// Starts an endpoint for both gateways and has all events sent there.
    pub(crate) async fn endpoint(&self, answers: &[u16]) -> Endpoint {
        let endpoint = Endpoint::start(answers).await;
        self.simulator.set_webhook_urls(
            Some(format!("{}/webhooks/stripe", endpoint.url)),
            Some(format!("{}/webhooks/paypal", endpoint.url)),
        );
        endpoint
    }
}

/// A request body for an order of 10.99 USD.
pub(crate) fn order(payment_id: &str) -> Value {
    json!({
        "intent": "CAPTURE",
        "purchase_units": [{
            "amount": { "currency_code": "USD", "value": "10.99" },
            "custom_id": payment_id,
            "invoice_id": payment_id,
        }],
        "payment_source": { "paypal": { "experience_context": {
            "return_url": "http://shop.test/return",
            "cancel_url": "http://shop.test/cancel",
        }}},
    })
}

pub(crate) fn capture_id(order: &Value) -> String {
    let id = &order["purchase_units"][0]["payments"]["captures"][0]["id"];
    id.as_str().expect("the order has a capture").to_owned()
}

/// Waits until something is there.
pub(crate) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never happened: {what}"))
}

/// One POST that an endpoint got.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("headers are text"))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("events are JSON")
    }

    /// The event's kind, in either gateway's field.
    pub(crate) fn kind(&self) -> String {
        let body = self.json();
        let kind = body["type"].as_str().or(body["event_type"].as_str());
        kind.expect("events have a kind").to_owned()
    }
}

#[derive(Debug, Default)]
struct Log {
    received: Vec<Received>,
    answers: Vec<u16>,
}

/// A webhook endpoint that answers what it is told, then 200.
#[derive(Debug)]
pub(crate) struct Endpoint {
    url: String,
    log: Arc<Mutex<Log>>,
    server: tokio::task::JoinHandle<()>,
}

impl Endpoint {
    async fn start(answers: &[u16]) -> Self {
        let answers = answers.iter().rev().copied().collect();
        let log = Arc::new(Mutex::new(Log { received: Vec::new(), answers }));
        let router =
            Router::new().route("/webhooks/{gateway}", post(note)).with_state(Arc::clone(&log));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let server = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("serving does not end");
        });
        Endpoint { url, log, server }
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.log.lock().expect("no test panicked while it held this").received.clone()
    }

    /// Waits for the first event of a kind.
    pub(crate) async fn first(&self, kind: &str) -> Received {
        until(kind, || self.received().into_iter().find(|received| received.kind() == kind)).await
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn note(State(log): State<Arc<Mutex<Log>>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let mut log = log.lock().expect("no test panicked while it held this");
    log.received.push(Received { headers, body });
    let status = log.answers.pop().unwrap_or(200);
    StatusCode::from_u16(status).expect("a status")
}
