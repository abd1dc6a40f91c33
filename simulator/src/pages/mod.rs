//! The hosted pages on which a buyer pays, and one that shows the state of each gateway and takes a hand in it.

mod approve;
mod desk;
mod pay;
mod portal;
mod session;
mod setup;
mod state;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use url::Url;

use crate::world::Core;

/// The pages at Stripe's address.
pub(crate) fn stripe() -> Router<Arc<Core>> {
    Router::new()
        .route("/", get(state::stripe))
        .route("/desk", post(desk::stripe))
        .route("/pay/{id}", get(pay::show).post(pay::submit))
        .route("/setup/{id}", get(setup::show).post(setup::submit))
        .route("/c/pay/{id}", get(session::show).post(session::submit))
        .route("/p/session/{id}", get(portal::show).post(portal::submit))
}

/// The pages at PayPal's address.
pub(crate) fn paypal() -> Router<Arc<Core>> {
    Router::new()
        .route("/", get(state::paypal))
        .route("/desk", post(desk::paypal))
        .route("/checkoutnow", get(approve::show).post(approve::submit))
        .route("/agreements/approve", get(approve::show_setup).post(approve::submit_setup))
}

fn page(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => (status, Html(html)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn redirect(to: &str) -> Response {
    (StatusCode::SEE_OTHER, [(header::LOCATION, to.to_owned())]).into_response()
}

fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "There is no such payment.").into_response()
}

/// Adds parameters to a web address; `None` if it is not one, so that a page never links elsewhere.
fn with_query(address: &str, parameters: &[(&str, &str)]) -> Option<String> {
    let mut url = Url::parse(address).ok()?;
    if !matches!(url.scheme(), "http" | "https") {
        return None;
    }
    url.query_pairs_mut().extend_pairs(parameters);
    Some(url.into())
}

/// Returns a web address as it is; `None` if it is not one.
fn web(address: &str) -> Option<String> {
    let url = Url::parse(address).ok()?;
    matches!(url.scheme(), "http" | "https").then(|| url.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_sends_the_buyer_only_to_web_addresses() {
        assert_eq!(
            with_query("http://shop.test/back?a=1", &[("token", "x y")]).unwrap(),
            "http://shop.test/back?a=1&token=x+y"
        );
        assert!(with_query("javascript:alert(1)", &[]).is_none());
        assert!(with_query("/relative", &[]).is_none());
    }
}
