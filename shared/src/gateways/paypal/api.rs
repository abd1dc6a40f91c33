//! PayPal's REST API: token, keys, errors.

use std::time::{Duration, Instant};

use reqwest::{Client, Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, Semaphore};

use crate::config;
use crate::gateways::GatewayError;
use crate::gateways::stripe::{http_client, no_answer};

/// Calls in flight at once.
const MAX_IN_FLIGHT: usize = 32;

/// A token is fetched anew that long before it ends.
const TOKEN_MARGIN: Duration = Duration::from_mins(5);

/// PayPal's API by HTTP, with a cached access token.
pub(super) struct Api {
    http: Client,
    base: String,
    client_id: String,
    client_secret: SecretString,
    /// Held while a token is fetched: callers wait for one fetch instead of making their own.
    token: Mutex<Option<Token>>,
    in_flight: Semaphore,
}

struct Token {
    text: SecretString,
    good_until: Instant,
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
}

#[derive(Deserialize)]
struct ErrorDetail {
    issue: Option<String>,
}

impl Api {
    pub(super) fn new(settings: &config::PayPal) -> Self {
        Self {
            http: http_client(),
            base: settings.api_base.as_str().trim_end_matches('/').to_owned(),
            client_id: settings.client_id.clone(),
            client_secret: settings.client_secret.clone(),
            token: Mutex::new(None),
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
        }
    }

    /// Reads an object.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, GatewayError> {
        self.call(Method::GET, path, None).await
    }

    /// Changes something; PayPal answers a repeat of `request_id` as it stands by then.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        request_id: &str,
        body: &serde_json::Value,
    ) -> Result<T, GatewayError> {
        self.call(Method::POST, path, Some((request_id, body))).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        change: Option<(&str, &serde_json::Value)>,
    ) -> Result<T, GatewayError> {
        let _permit = self.in_flight.acquire().await.expect("never closed");
        for is_last in [false, true] {
            let token = self.token().await?;
            let mut request = self
                .http
                .request(method.clone(), format!("{}{path}", self.base))
                .bearer_auth(token.expose_secret())
                .header("prefer", "return=representation");
            if let Some((request_id, body)) = change {
                request = request.header("paypal-request-id", request_id).json(body);
            }
            let response = request.send().await.map_err(|error| no_answer(&error))?;
            let status = response.status();
            let body = response.bytes().await.map_err(|error| no_answer(&error))?;
            if status == StatusCode::UNAUTHORIZED && !is_last {
                self.forget(&token).await;
                continue;
            }
            if !status.is_success() {
                return Err(refusal(status, &body));
            }
            return serde_json::from_slice(&body)
                .map_err(|error| GatewayError::Malformed(format!("column {}", error.column())));
        }
        Err(GatewayError::Misconfigured("PayPal refused our token"))
    }

    async fn token(&self) -> Result<SecretString, GatewayError> {
        let mut cached = self.token.lock().await;
        if let Some(token) = cached.as_ref().filter(|token| Instant::now() < token.good_until) {
            return Ok(token.text.clone());
        }
        let response = self
            .http
            .post(format!("{}/v1/oauth2/token", self.base))
            .basic_auth(&self.client_id, Some(self.client_secret.expose_secret()))
            .form(&[("grant_type", "client_credentials")])
            .send()
            .await
            .map_err(|error| no_answer(&error))?;
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED {
            return Err(GatewayError::Misconfigured("PayPal refused our client secret"));
        }
        if !status.is_success() {
            return Err(GatewayError::Unavailable(format!("token: {status}")));
        }
        let body: TokenBody = response.json().await.map_err(|error| no_answer(&error))?;
        let lifetime = Duration::from_secs(body.expires_in).saturating_sub(TOKEN_MARGIN);
        let text = SecretString::from(body.access_token);
        *cached = Some(Token { text: text.clone(), good_until: Instant::now() + lifetime });
        Ok(text)
    }

    /// Drops a token that was refused, unless another caller replaced it already.
    async fn forget(&self, refused: &SecretString) {
        let mut cached = self.token.lock().await;
        let is_same = |token: &Token| token.text.expose_secret() == refused.expose_secret();
        if cached.as_ref().is_some_and(is_same) {
            *cached = None;
        }
    }
}

/// Sorts PayPal's errors into retry and refuse.
fn refusal(status: StatusCode, body: &[u8]) -> GatewayError {
    let error = serde_json::from_slice::<ErrorBody>(body).ok();
    let debug_id = error.as_ref().and_then(|error| error.debug_id.clone()).unwrap_or_default();
    let code = error
        .and_then(|error| error.details.into_iter().find_map(|detail| detail.issue).or(error.name))
        .unwrap_or_else(|| "unknown".to_owned());
    tracing::info!(%status, code, debug_id, "PayPal refused a call");
    match status.as_u16() {
        401 | 403 => GatewayError::Misconfigured("PayPal refused our credentials"),
        408 | 409 | 429 | 500.. => GatewayError::Unavailable(format!("{status} {code}")),
        _ => GatewayError::Refused { code },
    }
}
