//! Webhooks the gateways send us.

use std::net::{IpAddr, Ipv4Addr};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::{Extension, Json};
use serde_json::{Value, json};
use shared::gateways::GatewayName;
use shared::webhooks::{self, Refusal};

use crate::ApiState;
use crate::guard::TooMany;
use crate::problem::Problem;
use crate::server::Peer;

type Answer = Result<Json<Value>, Problem>;

/// Takes Stripe's events.
pub(crate) async fn stripe(
    State(state): State<ApiState>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    receive(&state, GatewayName::Stripe, peer, &headers, &body).await
}

/// Takes PayPal's events.
pub(crate) async fn paypal(
    State(state): State<ApiState>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    receive(&state, GatewayName::Paypal, peer, &headers, &body).await
}

/// Stores the event and answers at once; the worker does the rest.
///
/// Gateways retry anything but a 2xx, so an event we already hold is a 200 too. Who sent it is
/// decided by its signature alone; the peer's address only counts failures.
async fn receive(
    state: &ApiState,
    gateway: GatewayName,
    peer: Option<Extension<Peer>>,
    headers: &HeaderMap,
    body: &[u8],
) -> Answer {
    if headers.contains_key(header::CONTENT_ENCODING) {
        // A signature covers the bytes as sent: nothing is ever decompressed here.
        let detail = "The body must not be encoded.";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Problem::new(status, "unsupported_media_type", detail));
    }
    // Without a connection (a test of the router alone) all callers are one.
    let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |Extension(Peer(peer))| peer);
    let failed = |reason: &str, problem: Problem| match state.guard.failed(gateway, reason, peer) {
        Ok(()) => Err(problem),
        Err(TooMany(seconds)) => Err(Problem::rate_limited(seconds)),
    };
    match webhooks::receive(&state.app, gateway, headers, body).await {
        Ok(()) => Ok(Json(json!({ "received": true }))),
        Err(Refusal::Forged(reason)) => failed(&reason, Problem::invalid_signature()),
        Err(Refusal::Unchecked(reason)) => failed(&reason, Problem::unavailable()),
        Err(Refusal::Unreadable) => Err(Problem::invalid_signature()),
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
