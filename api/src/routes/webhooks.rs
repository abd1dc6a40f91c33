//! Webhooks the gateways send us.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};
use shared::gateways::GatewayName;
use shared::webhooks::{self, Refusal};

use crate::ApiState;
use crate::problem::Problem;

type Answer = Result<Json<Value>, Problem>;

/// Takes Stripe's events.
pub(crate) async fn stripe(
    State(state): State<ApiState>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    receive(&state, GatewayName::Stripe, &headers, body).await
}

/// Takes PayPal's events.
pub(crate) async fn paypal(
    State(state): State<ApiState>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    receive(&state, GatewayName::Paypal, &headers, body).await
}

/// Stores the event and answers at once; the worker does the rest.
///
/// Gateways retry anything but a 2xx, so an event we already hold is a 200 too.
async fn receive(
    state: &ApiState,
    gateway: GatewayName,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    if headers.contains_key(header::CONTENT_ENCODING) {
        // A signature covers the bytes as sent: nothing is ever decompressed here.
        let detail = "The body must not be encoded.";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Problem::new(status, "unsupported_media_type", detail));
    }
    let body = body.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let detail = "The body is too large.";
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", detail)
        } else {
            Problem::invalid_signature()
        }
    })?;
    match webhooks::receive(&state.app, gateway, headers, &body).await {
        Ok(()) => Ok(Json(json!({ "received": true }))),
        Err(Refusal::Rejected) => Err(Problem::invalid_signature()),
        Err(Refusal::Unavailable(why)) => {
            tracing::error!(
                gateway = gateway.as_str(),
                why,
                "webhook not stored; it will be sent again"
            );
            Err(Problem::unavailable())
        }
    }
}
