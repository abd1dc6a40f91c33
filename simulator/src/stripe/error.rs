//! Refusals in Stripe's words.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use crate::calls::Answer;

/// An error answer of Stripe's API.
#[derive(Debug, Clone)]
pub(crate) struct StripeError {
    pub(crate) status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    message: String,
    /// `param`, `decline_code`, `charge`, `payment_intent` and so on.
    more: Map<String, Value>,
    /// Whether the call had begun to execute, so that its key remembers this answer.
    pub(crate) is_saved: bool,
}

impl StripeError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        StripeError {
            status,
            kind,
            code: None,
            message: message.into(),
            more: Map::new(),
            is_saved: false,
        }
    }

    /// 400: the request itself is wrong; nothing was executed.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// 400: right in itself, but not in this state of the object.
    pub(crate) fn state(code: &'static str, message: impl Into<String>) -> Self {
        Self::invalid(message).code(code).saved()
    }

    /// 400: a parameter that this call does not have.
    pub(crate) fn unknown(names: &[String]) -> Self {
        let plural = if names.len() == 1 { "" } else { "s" };
        Self::invalid(format!("Received unknown parameter{plural}: {}", names.join(", ")))
            .code("parameter_unknown")
            .param(names.first().map_or("", String::as_str))
    }

    /// 400: a parameter that this call cannot do without.
    pub(crate) fn missing_param(name: &str) -> Self {
        Self::invalid(format!("Missing required param: {name}."))
            .code("parameter_missing")
            .param(name)
    }

    /// 404, or 400 when `param` of a POST names what is not there.
    pub(crate) fn missing(object: &str, id: &str, param: &str) -> Self {
        let mut error = Self::invalid(format!("No such {object}: '{id}'"))
            .code("resource_missing")
            .param(param);
        if param == "id" || param == "intent" {
            error.status = StatusCode::NOT_FOUND;
        }
        error
    }

    /// 404: no such address.
    pub(crate) fn unrecognized(method: &str, path: &str) -> Self {
        let text = format!(
            "Unrecognized request URL ({method}: {path}). Please see https://stripe.com/docs or \
             we can help at https://support.stripe.com/."
        );
        StripeError { status: StatusCode::NOT_FOUND, ..Self::invalid(text) }
    }

    /// 401: no key, or not ours.
    pub(crate) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", message)
    }

    /// 403: a publishable key where a secret one is needed.
    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        StripeError {
            status: StatusCode::FORBIDDEN,
            ..Self::invalid(message).code("secret_key_required")
        }
    }

    /// 402: the card was refused.
    pub(crate) fn card(code: &'static str, message: &str) -> Self {
        Self::new(StatusCode::PAYMENT_REQUIRED, "card_error", message).code(code).saved()
    }

    /// 400: the idempotency key was used for something else.
    pub(crate) fn idempotency(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "idempotency_error", message)
    }

    /// 409: the same key is being worked on.
    pub(crate) fn in_progress() -> Self {
        let message = "There is currently another in-progress request using this Idempotent Key \
                       (that probably means you submitted twice, and the other request is still \
                       going through). Please try again later.";
        StripeError { status: StatusCode::CONFLICT, ..Self::invalid(message) }
            .code("idempotency_key_in_use")
    }

    /// 5xx or 429.
    pub(crate) fn failure(status: StatusCode) -> Self {
        if status == StatusCode::TOO_MANY_REQUESTS {
            let error = Self::invalid("Request rate limit exceeded.").code("rate_limit");
            return StripeError { status, ..error };
        }
        let message = "An unknown error occurred. Please contact support@stripe.com if you have \
                       any questions.";
        Self::new(status, "api_error", message)
    }

    #[must_use]
    pub(crate) fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    #[must_use]
    pub(crate) fn param(self, name: &str) -> Self {
        self.with("param", json!(name))
    }

    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: Value) -> Self {
        self.more.insert(name.into(), value);
        self
    }

    #[must_use]
    pub(crate) fn saved(mut self) -> Self {
        self.is_saved = true;
        self
    }

    /// Returns the message for people.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Returns the most telling code: the bank's reason, else Stripe's, else the kind.
    pub(crate) fn reason(&self) -> &str {
        let declined = self.more.get("decline_code").and_then(Value::as_str);
        declined.or(self.code).unwrap_or(self.kind)
    }

    /// Returns the fields of `error`, without the links to logs.
    pub(crate) fn fields(&self) -> Map<String, Value> {
        let mut fields = self.more.clone();
        fields.insert("type".into(), json!(self.kind));
        fields.insert("message".into(), json!(self.message));
        if let Some(code) = self.code {
            let page = code.replace('_', "-");
            fields.insert("code".into(), json!(code));
            fields.insert(
                "doc_url".into(),
                json!(format!("https://stripe.com/docs/error-codes/{page}")),
            );
        }
        fields
    }

    /// Returns the whole answer.
    pub(crate) fn answer(&self, request_id: &str) -> Answer {
        let mut fields = self.fields();
        let log = format!("https://dashboard.stripe.com/test/logs/{request_id}");
        fields.insert("request_log_url".into(), json!(log));
        let answer = Answer::json(self.status, json!({ "error": fields }));
        match self.status {
            StatusCode::CONFLICT => answer.with("stripe-should-retry", "true"),
            StatusCode::PAYMENT_REQUIRED => answer.with("stripe-should-retry", "false"),
            _ => answer,
        }
    }
}
