//! Refusals in PayPal's words.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::calls::Answer;
use crate::ids;

/// An error answer of PayPal's API.
#[derive(Debug, Clone)]
pub(crate) struct PayPalError {
    pub(crate) status: StatusCode,
    name: &'static str,
    message: &'static str,
    details: Vec<Value>,
    links: Vec<Value>,
}

impl PayPalError {
    fn new(status: StatusCode, name: &'static str, message: &'static str) -> Self {
        PayPalError { status, name, message, details: Vec::new(), links: Vec::new() }
    }

    /// 400: the body is not what the schema says.
    pub(crate) fn invalid(issue: &str, field: &str, description: &str) -> Self {
        let message = "Request is not well-formed, syntactically incorrect, or violates schema.";
        let mut error = Self::new(StatusCode::BAD_REQUEST, "INVALID_REQUEST", message);
        error.details.push(json!({
            "field": field, "location": "body", "issue": issue, "description": description,
        }));
        error
    }

    /// 400: a parameter of the query is not what it should be.
    pub(crate) fn bad_query(issue: &str, name: &str, description: &str) -> Self {
        let mut error = Self::invalid(issue, name, description);
        error.details[0]["location"] = json!("query");
        error
    }

    /// 400: a header is missing or wrong.
    pub(crate) fn bad_header(issue: &str, name: &str, description: &str) -> Self {
        let mut error = Self::invalid(issue, name, description);
        error.details[0]["location"] = json!("header");
        error
    }

    /// 422: well-formed, yet it cannot be done.
    pub(crate) fn unprocessable(issue: &str, description: &str) -> Self {
        let message = "The requested action could not be performed, semantically incorrect, or \
                       failed business validation.";
        let mut error =
            Self::new(StatusCode::UNPROCESSABLE_ENTITY, "UNPROCESSABLE_ENTITY", message);
        error.details.push(json!({ "issue": issue, "description": description }));
        error
    }

    /// 422 that points at one field.
    pub(crate) fn unprocessable_field(issue: &str, field: &str, description: &str) -> Self {
        let mut error = Self::unprocessable(issue, description);
        error.details[0]["field"] = json!(field);
        error.details[0]["location"] = json!("body");
        error
    }

    /// 404: nothing has that id.
    pub(crate) fn missing() -> Self {
        let message = "The specified resource does not exist.";
        let mut error = Self::new(StatusCode::NOT_FOUND, "RESOURCE_NOT_FOUND", message);
        error.details.push(json!({
            "issue": "INVALID_RESOURCE_ID",
            "description": "Specified resource ID does not exist. Please check the resource ID and \
                            try again.",
        }));
        error
    }

    /// 409: the same request id is being worked on.
    pub(crate) fn in_progress() -> Self {
        let message = "The server has detected a conflict while processing this request.";
        let mut error = Self::new(StatusCode::CONFLICT, "RESOURCE_CONFLICT", message);
        error.details.push(json!({
            "issue": "PREVIOUS_REQUEST_IN_PROGRESS",
            "description": "A previous request on this resource is currently in progress.",
        }));
        error
    }

    /// 415: not JSON.
    pub(crate) fn unsupported_media() -> Self {
        let message = "The server does not support the request payload's media type.";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", message)
    }

    /// 5xx or 429.
    pub(crate) fn failure(status: StatusCode) -> Self {
        if status == StatusCode::TOO_MANY_REQUESTS {
            let message = "Too many requests. Blocked due to rate limiting.";
            return Self::new(status, "RATE_LIMIT_REACHED", message);
        }
        Self::new(status, "INTERNAL_SERVER_ERROR", "An internal server error has occurred.")
    }

    /// Adds a link that says where the payer goes next.
    #[must_use]
    pub(crate) fn link(mut self, rel: &str, href: &str) -> Self {
        self.links.push(json!({ "href": href, "rel": rel, "method": "GET" }));
        self
    }

    /// Returns the first issue, or the name where there is none.
    pub(crate) fn issue(&self) -> &str {
        self.details.first().and_then(|detail| detail["issue"].as_str()).unwrap_or(self.name)
    }

    /// Returns the words for people.
    pub(crate) fn description(&self) -> &str {
        let detail = self.details.first().and_then(|detail| detail["description"].as_str());
        detail.unwrap_or(self.message)
    }

    /// Returns the whole answer.
    pub(crate) fn answer(&self) -> Answer {
        let debug_id = ids::hex(13);
        let mut links = self.links.clone();
        links.push(json!({
            "href": format!("https://developer.paypal.com/api/rest/responses/#{}", self.name),
            "rel": "information_link",
            "method": "GET",
        }));
        let body = json!({
            "name": self.name,
            "message": self.message,
            "debug_id": debug_id,
            "details": self.details,
            "links": links,
        });
        Answer::json(self.status, body).with("paypal-debug-id", debug_id)
    }
}
