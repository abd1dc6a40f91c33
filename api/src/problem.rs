//! Errors on the wire (RFC 9457). The only place that knows status codes.

use std::any::Any;
use std::collections::BTreeMap;

use axum::Json;
use axum::extract::Request;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use shared::Error;
use shared::access::{KeyRefused, Unauthenticated};
use shared::gateways::GatewayError;
use shared::tokens::HoldState;

/// An error as the caller sees it. `code` never changes once published.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    members: BTreeMap<String, Value>,
    retry_after_seconds: Option<u32>,
}

impl Problem {
    /// A problem that says what is wrong.
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let members = BTreeMap::new();
        Self { status, code, detail: detail.into(), members, retry_after_seconds: None }
    }

    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    fn with_hold(self, hold: &HoldState) -> Self {
        self.with("hold_id", hold.id.to_string())
            .with("tokens_held", hold.held.0)
            .with("tokens_settled", hold.settled.0)
            .with("hold_status", hold.status.as_str())
            .with("expires_at", json!(hold.expires_at))
    }

    fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// One member of the request is wrong: named by pointer, and as old front ends read it.
    pub(crate) fn field(field: &str, detail: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", format!("{field}: {detail}"))
            .with("errors", json!([{ "pointer": format!("/{field}"), "detail": detail }]))
            .with(field, json!([detail]))
    }

    /// Overload or an outage of ours: try again.
    pub(crate) fn unavailable() -> Self {
        let detail = "The service cannot take this now; try again.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail).retry_after(1)
    }

    /// The caller is known, and may not do this.
    pub(crate) fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "This caller may not do this.")
    }

    /// Too many requests of this kind from this caller.
    pub(crate) fn rate_limited(seconds: u32) -> Self {
        let detail = "Too many requests; try again later.";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail).retry_after(seconds)
    }

    /// A webhook that is not proven or not readable; the same words for every reason.
    pub(crate) fn invalid_signature() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_signature", "The event was not accepted.")
    }
}

impl Problem {
    /// The status it is answered with.
    pub(crate) const fn status(&self) -> StatusCode {
        self.status
    }

    /// The body it is answered with.
    pub(crate) fn body(&self) -> Value {
        let mut body = json!({
            "type": format!("https://tollgate.dev/problems/{}", self.code),
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code,
            "error": self.detail,
        });
        let object = body.as_object_mut().expect("a literal object");
        object.extend(self.members.clone());
        body
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        let problem = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, problem);
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        use StatusCode as S;
        let detail = error.to_string();
        match error {
            Error::NotFound(_) => Self::new(S::NOT_FOUND, "not_found", detail),
            Error::PlanUnavailable => Self::new(S::NOT_FOUND, "plan_unavailable", detail),
            Error::NoSubscription => {
                Self::new(S::NOT_FOUND, "no_subscription", detail.clone()).with("message", detail)
            }
            Error::SubscriptionInactive => {
                Self::new(S::BAD_REQUEST, "subscription_inactive", detail)
            }
            Error::AlreadySubscribed => Self::new(S::CONFLICT, "already_subscribed", detail),
            Error::Invalid { field, detail } => Self::field(field, &detail),
            Error::InvalidCoupon => Self::new(S::BAD_REQUEST, "invalid_coupon", detail),
            Error::Conflict(_) => Self::new(S::CONFLICT, "conflict", detail),
            Error::IdempotencyMismatch => {
                Self::new(S::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail)
            }
            Error::InsufficientTokens(refusal) => {
                Self::new(S::BAD_REQUEST, "insufficient_tokens", detail)
                    .with("requested", refusal.requested.0)
                    .with("available", refusal.available.0)
                    .with("held", refusal.held.0)
                    .with("overdraft_left", refusal.overdraft_left.0)
            }
            Error::HoldNotOpen(hold) => {
                Self::new(S::CONFLICT, "hold_not_open", detail).with_hold(&hold)
            }
            Error::SettledShort(settled) => {
                let short = settled.short;
                Self::new(S::BAD_REQUEST, "insufficient_tokens", detail)
                    .with("requested", short.requested.0)
                    .with("available", short.available.0)
                    .with("held", short.held.0)
                    .with("overdraft_left", short.overdraft_left.0)
                    .with_hold(&settled.hold)
            }
            Error::Gateway(GatewayError::Refused { code } | GatewayError::Declined { code }) => {
                tracing::info!(code, "the gateway refused");
                let detail = "The payment gateway refused this.";
                Self::new(S::PAYMENT_REQUIRED, "gateway_refused", detail)
            }
            Error::Gateway(error) => {
                tracing::error!(%error, "gateway call failed");
                let detail = "The payment gateway did not answer; try again.";
                Self::new(S::BAD_GATEWAY, "gateway_unavailable", detail).retry_after(5)
            }
            Error::Overloaded => Self::unavailable(),
            Error::Bug(what) => {
                tracing::error!(what, "request failed");
                internal()
            }
            Error::Database(sqlx::Error::PoolTimedOut) => {
                tracing::warn!("no database connection was free in time");
                Self::unavailable()
            }
            Error::Database(error) => {
                tracing::error!(%error, "request failed");
                internal()
            }
        }
    }
}

impl From<Unauthenticated> for Problem {
    fn from(why: Unauthenticated) -> Self {
        tracing::debug!(why = why.0, "unauthenticated");
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", "A valid token is needed.")
    }
}

impl From<KeyRefused> for Problem {
    fn from(refused: KeyRefused) -> Self {
        match refused {
            KeyRefused::Unauthenticated(why) => why.into(),
            KeyRefused::Database(error) => Error::from(error).into(),
        }
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        let (code, detail) = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => ("payload_too_large", "The body is too large."),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                ("unsupported_media_type", "The body must be application/json.")
            }
            _ => {
                return Self::new(
                    StatusCode::BAD_REQUEST,
                    "invalid_request",
                    rejection.body_text(),
                );
            }
        };
        Self::new(rejection.status(), code, detail)
    }
}

impl From<PathRejection> for Problem {
    fn from(_: PathRejection) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "There is nothing at this address.")
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", rejection.body_text())
    }
}

fn internal() -> Problem {
    let detail = "Something went wrong here; it was recorded.";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
}

/// Answers an address that is not there.
pub(crate) async fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", "There is nothing at this address.")
}

/// Answers a method that the address does not have.
pub(crate) async fn method_not_allowed() -> Problem {
    let detail = "This address does not take this method.";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}

/// Answers for a handler that panicked.
pub(crate) fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    tracing::error!("a handler panicked");
    internal().into_response()
}

/// Puts the request id into problems as `instance`, and a body into empty time-outs.
pub(crate) async fn name_instance(request: Request, next: Next) -> Response {
    let id = request.headers().get("x-request-id").and_then(|id| id.to_str().ok());
    let id = id.unwrap_or_default().to_owned();
    let response = next.run(request).await;
    let is_bare_timeout = response.status() == StatusCode::SERVICE_UNAVAILABLE
        && !response.headers().contains_key(header::CONTENT_TYPE);
    let response = if is_bare_timeout { Problem::unavailable().into_response() } else { response };
    let is_problem = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind == "application/problem+json");
    if !is_problem {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, 64 * 1024).await.unwrap_or_default();
    let Ok(mut problem) = serde_json::from_slice::<Value>(&bytes) else {
        return (parts, bytes).into_response();
    };
    problem["instance"] = Value::from(id);
    parts.headers.remove(header::CONTENT_LENGTH);
    (parts, problem.to_string()).into_response()
}
