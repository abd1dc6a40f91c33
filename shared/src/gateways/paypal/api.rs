//! PayPal's REST API: token, keys, errors.

use std::time::{Duration, Instant};

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, Semaphore};

use super::codes;
use super::links::{self, Link};
use crate::config::{self, GATEWAY_TIMEOUT};
use crate::gateways::GatewayError;
use crate::gateways::stripe::{http_client, no_answer};

/// Calls in flight at once; a slow PayPal must not take every task of the process.
const MAX_IN_FLIGHT: usize = 32;

/// A token is fetched anew that long before it ends.
const TOKEN_MARGIN: Duration = Duration::from_mins(5);

/// Callers that waited for a fetch which failed do not each repeat it within this time.
const TOKEN_RETRY: Duration = Duration::from_secs(1);

/// A page of 500 transactions has less than 1 MiB.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// PayPal's API by HTTP, with a cached access token.
pub(super) struct Api {
    http: Client,
    base: String,
    client_id: String,
    client_secret: SecretString,
    /// Held while a token is fetched: callers wait for one fetch instead of making their own.
    token: Mutex<Cached>,
    in_flight: Semaphore,
    pub(super) timeout: Duration,
}

#[derive(Default)]
enum Cached {
    #[default]
    Nothing,
    Token {
        text: SecretString,
        good_until: Instant,
    },
    Failed {
        error: GatewayError,
        at: Instant,
    },
}

#[derive(Deserialize)]
struct TokenBody {
    access_token: String,
    expires_in: u64,
}

#[derive(Deserialize)]
struct ErrorBody {
    name: Option<String>,
    debug_id: Option<String>,
    #[serde(default)]
    details: Vec<ErrorDetail>,
    #[serde(default)]
    links: Vec<Link>,
}

#[derive(Deserialize)]
struct ErrorDetail {
    issue: Option<String>,
}

/// Why a call did not do what was asked, and where PayPal sends the buyer about it.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: GatewayError,
    pub(super) page: Option<String>,
}

impl From<GatewayError> for Failure {
    fn from(error: GatewayError) -> Self {
        Self { error, page: None }
    }
}

impl From<Failure> for GatewayError {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

/// What a call sends.
pub(super) enum Body<'a> {
    Nothing,
    Json(&'a serde_json::Value),
    /// JSON as it was written by somebody else.
    Text(String),
}

impl Api {
    pub(super) fn new(settings: &config::PayPal) -> Self {
        Self {
            http: http_client(),
            base: settings.api_base.as_str().trim_end_matches('/').to_owned(),
            client_id: settings.client_id.clone(),
            client_secret: settings.client_secret.clone(),
            token: Mutex::default(),
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
            timeout: GATEWAY_TIMEOUT,
        }
    }

    /// Reads an object.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, GatewayError> {
        parsed(&self.call(Method::GET, path, None, &Body::Nothing).await?)
    }

    /// Changes something; PayPal answers a repeat of `request_id` as it stands by then.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        request_id: &str,
        body: &serde_json::Value,
    ) -> Result<T, Failure> {
        let answer = self.call(Method::POST, path, Some(request_id), &Body::Json(body)).await?;
        Ok(parsed(&answer)?)
    }

    /// Asks something by a POST that changes nothing, of text that is sent as it is.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        text: String,
    ) -> Result<T, GatewayError> {
        parsed(&self.call(Method::POST, path, None, &Body::Text(text)).await?)
    }

    /// Removes an object.
    pub(super) async fn delete(&self, path: &str) -> Result<(), GatewayError> {
        self.call(Method::DELETE, path, None, &Body::Nothing).await?;
        Ok(())
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        request_id: Option<&str>,
        body: &Body<'_>,
    ) -> Result<Vec<u8>, Failure> {
        // Half of what the call may then take itself.
        let turn = tokio::time::timeout(self.timeout / 2, self.in_flight.acquire()).await;
        let _permit = turn
            .map_err(|_| GatewayError::Unavailable("too many calls at once".to_owned()))?
            .expect("never closed");
        let mut is_repeat = false;
        loop {
            let token = self.token().await?;
            let request = self.request(&method, path, &token);
            let request = with_content(request, request_id, body);
            let response = request.send().await.map_err(|error| no_answer(&error))?;
            let status = response.status();
            let answer = read(response).await?;
            if status == StatusCode::UNAUTHORIZED && !is_repeat {
                is_repeat = true;
                self.forget(&token).await;
                continue;
            }
            if status.is_success() {
                return Ok(answer);
            }
            let is_strangers = matches!(body, Body::Text(_));
            return Err(refusal(status, &answer, is_strangers));
        }
    }

    fn request(&self, method: &Method, path: &str, token: &SecretString) -> RequestBuilder {
        self.http
            .request(method.clone(), format!("{}{path}", self.base))
            .bearer_auth(token.expose_secret())
            .timeout(self.timeout)
            .header("prefer", "return=representation")
    }

    async fn token(&self) -> Result<SecretString, GatewayError> {
        let mut cached = self.token.lock().await;
        match &*cached {
            Cached::Token { text, good_until } if Instant::now() < *good_until => {
                return Ok(text.clone());
            }
            Cached::Failed { error, at } if at.elapsed() < TOKEN_RETRY => {
                return Err(error.clone());
            }
            Cached::Nothing | Cached::Token { .. } | Cached::Failed { .. } => {}
        }
        match self.fetch_token().await {
            Ok(body) => {
                let lifetime = Duration::from_secs(body.expires_in).saturating_sub(TOKEN_MARGIN);
                let text = SecretString::from(body.access_token);
                let good_until = Instant::now() + lifetime.min(Duration::from_hours(24));
                *cached = Cached::Token { text: text.clone(), good_until };
                Ok(text)
            }
            Err(error) => {
                *cached = Cached::Failed { error: error.clone(), at: Instant::now() };
                Err(error)
            }
        }
    }

    async fn fetch_token(&self) -> Result<TokenBody, GatewayError> {
        let response = self
            .http
            .post(format!("{}/v1/oauth2/token", self.base))
            .basic_auth(&self.client_id, Some(self.client_secret.expose_secret()))
            .form(&[("grant_type", "client_credentials")])
            .timeout(self.timeout)
            .send()
            .await
            .map_err(|error| no_answer(&error))?;
        let status = response.status();
        if matches!(status.as_u16(), 400 | 401 | 403) {
            tracing::error!(%status, "PayPal refused our client id and secret");
            return Err(GatewayError::Misconfigured("PayPal refused our client secret"));
        }
        if !status.is_success() {
            return Err(GatewayError::Unavailable(format!("token: {status}")));
        }
        serde_json::from_slice(&read(response).await?)
            .map_err(|_| GatewayError::Unavailable("token: an answer that is none".to_owned()))
    }

    /// Drops a token that was refused, unless another caller replaced it already.
    async fn forget(&self, refused: &SecretString) {
        let mut cached = self.token.lock().await;
        if let Cached::Token { text, .. } = &*cached
            && text.expose_secret() == refused.expose_secret()
        {
            *cached = Cached::Nothing;
        }
    }
}

fn with_content(
    mut request: RequestBuilder,
    request_id: Option<&str>,
    body: &Body<'_>,
) -> RequestBuilder {
    if let Some(request_id) = request_id {
        request = request.header("paypal-request-id", request_id);
    }
    match body {
        Body::Nothing => request,
        Body::Json(value) => request.json(value),
        Body::Text(text) => request.header("content-type", "application/json").body(text.clone()),
    }
}

async fn read(mut response: Response) -> Result<Vec<u8>, GatewayError> {
    let mut answer = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| no_answer(&error))? {
        if answer.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(GatewayError::Malformed("an answer of many megabytes".to_owned()));
        }
        answer.extend_from_slice(&chunk);
    }
    Ok(answer)
}

fn parsed<T: DeserializeOwned>(answer: &[u8]) -> Result<T, GatewayError> {
    serde_json::from_slice(answer)
        .map_err(|error| GatewayError::Malformed(format!("column {}", error.column())))
}

/// Sorts PayPal's errors into retry, decline, refuse and alert
/// (developer.paypal.com/api/rest/responses). A fault in what a stranger sent is no alert.
fn refusal(status: StatusCode, body: &[u8], is_strangers: bool) -> Failure {
    let error = serde_json::from_slice::<ErrorBody>(body).ok();
    let debug_id = error.as_ref().and_then(|error| error.debug_id.clone()).unwrap_or_default();
    let page = error.as_ref().and_then(|error| links::page(&error.links));
    let code = error
        .and_then(|error| error.details.into_iter().find_map(|detail| detail.issue).or(error.name))
        .unwrap_or_else(|| "unknown".to_owned());
    // PayPal's issues are short words; nothing longer goes into our log and our rows.
    let code: String = code.chars().filter(|char| !char.is_control()).take(100).collect();
    let error = match status.as_u16() {
        401 => {
            tracing::error!(debug_id, "PayPal refused a token that it had just given");
            GatewayError::Misconfigured("PayPal refused our token")
        }
        403 => {
            tracing::error!(code, debug_id, "PayPal does not permit our account this call");
            GatewayError::Misconfigured("PayPal does not permit our account this call")
        }
        404 => GatewayError::NotFound,
        408 | 409 | 425 | 429 | 500.. => GatewayError::Unavailable(format!("{status} {code}")),
        422 if codes::is_decline(&code) => GatewayError::Declined { code: code.clone() },
        422 if !codes::is_bug(&code) => GatewayError::Refused { code: code.clone() },
        400..500 if is_strangers => GatewayError::Bug { code: code.clone() },
        400..500 => {
            tracing::error!(%status, code, debug_id, "PayPal found a fault in our request");
            GatewayError::Bug { code: code.clone() }
        }
        _ => GatewayError::Malformed(format!("status {status}")),
    };
    tracing::info!(%status, code, debug_id, "PayPal refused a call");
    Failure { error, page }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(status: u16, body: &str) -> GatewayError {
        refusal(StatusCode::from_u16(status).unwrap(), body.as_bytes(), false).error
    }

    fn issue(status: u16, issue: &str) -> GatewayError {
        let body = format!(r#"{{"name":"X","debug_id":"d","details":[{{"issue":"{issue}"}}]}}"#);
        sorted(status, &body)
    }

    #[test]
    fn every_class_of_error_has_its_place() {
        use GatewayError::*;
        for status in [408, 409, 429, 500, 502, 503] {
            assert!(matches!(sorted(status, "<html>"), Unavailable(_)), "{status}");
        }
        assert!(matches!(sorted(401, "{}"), Misconfigured(_)));
        assert!(matches!(issue(403, "PERMISSION_DENIED"), Misconfigured(_)));
        assert!(matches!(issue(404, "INVALID_RESOURCE_ID"), NotFound));
        assert!(matches!(issue(400, "MISSING_REQUIRED_PARAMETER"), Bug { .. }));
        assert!(matches!(issue(415, "X"), Bug { .. }));
        assert!(matches!(sorted(302, ""), Malformed(_)));
        assert!(matches!(issue(422, "INSTRUMENT_DECLINED"), Declined { .. }));
        assert!(matches!(issue(422, "PAYER_CANNOT_PAY"), Declined { .. }));
        assert!(matches!(issue(422, "ORDER_ALREADY_CAPTURED"), Refused { .. }));
        assert!(matches!(issue(422, "REFUND_AMOUNT_EXCEEDED"), Refused { .. }));
        assert!(matches!(issue(422, "SOMETHING_NEW"), Refused { .. }));
        assert!(matches!(issue(422, "DUPLICATE_REQUEST_ID"), Bug { .. }));
        assert!(matches!(issue(422, "PAYPAL_REQUEST_ID_PREVIOUSLY_USED"), Bug { .. }));
    }

    #[test]
    fn a_refusal_may_name_the_page_where_the_buyer_goes_on() {
        let body = r#"{"details":[{"issue":"INSTRUMENT_DECLINED"}],"links":[
            {"rel":"redirect","href":"https://www.paypal.com/checkoutnow?token=A"}]}"#;
        let failure = refusal(StatusCode::UNPROCESSABLE_ENTITY, body.as_bytes(), false);
        assert_eq!(failure.page.as_deref(), Some("https://www.paypal.com/checkoutnow?token=A"));
    }

    #[test]
    fn the_token_is_marked_so_that_no_log_prints_it() {
        let _installed_before = rustls::crypto::ring::default_provider().install_default();
        let settings = config::PayPal {
            client_id: "client".to_owned(),
            client_secret: "secret".into(),
            webhook_id: "webhook".into(),
            merchant_id: None,
            is_live: false,
            vault: true,
            api_base: "http://127.0.0.1:9/".parse().unwrap(),
            cert_roots: None,
            cert_resolve: None,
            proof: config::PayPalProof::Certificate,
        };
        let api = Api::new(&settings);
        let request = api.request(&Method::GET, "/v2/x", &"canary".into()).build().unwrap();
        assert!(request.headers()["authorization"].is_sensitive());
        assert!(!format!("{request:?}").contains("canary"));
    }
}
