//! All routes on one screen.

use std::time::Duration;

use axum::Router;
use axum::http::{HeaderName, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, post};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::timeout::TimeoutLayer;

use crate::ApiState;
use crate::body::{Bounds, read_whole};
use crate::problem;
use crate::routes::{
    admin, holds, methods, operations, payments, plans, subscription, tokens, top_up, webhooks,
};

/// Largest body of a customer's request.
const BODY_LIMIT: usize = 64 * 1024;
/// Largest batch of spends.
const BATCH_LIMIT: usize = 1024 * 1024;
/// Largest webhook.
const WEBHOOK_LIMIT: usize = 1024 * 1024;
/// A request that takes longer has lost its caller; gateways' own limit is 10 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// The whole HTTP surface. Every path is served with and without its trailing slash.
pub fn router(state: ApiState) -> Router {
    let request_id = HeaderName::from_static("x-request-id");
    Router::new()
        .nest("/api/v1/billing", billing(state.limits.body))
        .merge(both("/livez", || get(operations::livez)))
        .merge(both("/readyz", || get(operations::readyz)))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, REQUEST_TIMEOUT))
        .layer(axum::middleware::from_fn(problem::name_instance))
        .layer(PropagateRequestIdLayer::new(request_id.clone()))
        .layer(SetRequestIdLayer::new(request_id, MakeRequestUuid))
        .with_state(state)
}

fn billing(time: Duration) -> Router<ApiState> {
    Router::new()
        .merge(both("/plans", || get(plans::all)))
        .merge(both("/plans/token", || get(plans::token)))
        .merge(both("/plans/full", || get(plans::full)))
        .merge(both("/purchase", || post(payments::purchase)))
        .merge(both("/payments", || get(payments::list)))
        .merge(both("/payments/{id}", || get(payments::detail)))
        .merge(both("/payments/{id}/capture", || post(payments::capture)))
        .merge(both("/payments/{id}/cancel", || post(payments::cancel)))
        .merge(both("/payment-methods", || get(methods::list).post(methods::begin)))
        .merge(both("/payment-methods/{id}", || delete(methods::detach)))
        .merge(both("/subscription", || get(subscription::current)))
        .merge(both("/tokens/consume", || post(tokens::consume)))
        .merge(both("/tokens/holds", || post(holds::open)))
        .merge(both("/tokens/holds/{id}/settle", || post(holds::settle)))
        .merge(both("/tokens/holds/{id}/extend", || post(holds::extend)))
        .merge(both("/tokens/holds/{id}/release", || post(holds::release)))
        .merge(both("/tokens/balance", || get(tokens::balance)))
        .merge(both("/tokens/usage", || get(tokens::usage)))
        .merge(both("/tokens/auto-top-up", || {
            get(top_up::show).put(top_up::set).delete(top_up::switch_off)
        }))
        .merge(both("/tokens/auto-top-up/confirm", || post(top_up::confirm)))
        .merge(both("/paypal/return", || get(payments::paypal_return)))
        .merge(both("/paypal/cancel", || get(payments::paypal_cancel)))
        .merge(both("/paypal/setup", || get(methods::paypal_setup)))
        .merge(both("/stripe/checkout-session", || post(methods::checkout_session)))
        .merge(both("/stripe/customer-portal", || post(methods::customer_portal)))
        .merge(both("/stripe/return", || get(methods::page_return)))
        .merge(both("/stripe/cancel", || get(methods::page_cancel)))
        .nest("/admin", admin_routes())
        .layer(from_fn_with_state(Bounds { bytes: BODY_LIMIT, time }, read_whole))
        .merge(batch_routes(time))
        .merge(webhook_routes(time))
}

/// Up to 500 spends need more room than other requests.
fn batch_routes(time: Duration) -> Router<ApiState> {
    both("/tokens/consume/batch", || post(tokens::consume_batch))
        .layer(from_fn_with_state(Bounds { bytes: BATCH_LIMIT, time }, read_whole))
}

fn admin_routes() -> Router<ApiState> {
    Router::new()
        .merge(both("/payments/{id}/refund", || post(admin::refund)))
        .merge(both("/payments/{id}/refund/quote", || get(admin::quote)))
        .merge(both("/payments/{id}/refunds", || get(admin::refunds)))
        .merge(both("/payments/{id}/confirm", || post(admin::confirm)))
        .merge(both("/payments/{id}/reconcile", || post(admin::reconcile)))
        .merge(both("/webhook-events", || get(admin::events)))
        .merge(both("/webhook-events/{id}/reprocess", || post(admin::reprocess)))
}

fn webhook_routes(time: Duration) -> Router<ApiState> {
    Router::new()
        .merge(both("/webhooks/stripe", || post(webhooks::stripe)))
        .merge(both("/stripe/webhook", || post(webhooks::stripe)))
        .merge(both("/webhooks/paypal", || post(webhooks::paypal)))
        .merge(both("/paypal/webhook", || post(webhooks::paypal)))
        .layer(from_fn_with_state(Bounds { bytes: WEBHOOK_LIMIT, time }, read_whole))
}

/// One route under both forms of its path.
fn both(
    path: &str,
    method: impl Fn() -> axum::routing::MethodRouter<ApiState>,
) -> Router<ApiState> {
    Router::new().route(path, method()).route(&format!("{path}/"), method())
}
