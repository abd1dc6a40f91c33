//! Stripe's page for a setup intent: a card number to keep, without paying now.

use std::sync::Arc;

use axum::Form;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::pay::{Asked, Pay, Submitted, answer, cards};
use super::{not_found, page, with_query};
use crate::stripe::{Attempt, Status, setups};
use crate::world::{Cause, Core};

/// `GET /setup/{setup_intent_id}`
pub(super) async fn show(
    State(core): State<Arc<Core>>,
    Path(id): Path<String>,
    Query(asked): Query<Asked>,
) -> Response {
    match draw(&core, &id, &asked, None) {
        Some(pay) => page(StatusCode::OK, &pay),
        None => not_found(),
    }
}

/// `POST /setup/{setup_intent_id}`: keeps the card, then goes back to the shop.
pub(super) async fn submit(
    State(core): State<Arc<Core>>,
    Path(id): Path<String>,
    Form(submitted): Form<Submitted>,
) -> Response {
    let asked = submitted.asked();
    if draw(&core, &id, &asked, None).is_none() {
        return not_found();
    }
    let result = core.turn(Cause::default(), |turn| match submitted.action.as_str() {
        "authenticate" => setups::authenticate(turn, &id, true),
        "fail" => setups::authenticate(turn, &id, false),
        _ => {
            let payment_method = Some(submitted.card());
            let return_url = asked.way_back();
            setups::confirm(turn, &id, &Attempt { payment_method, off_session: false, return_url })
        }
    });
    let message = result.err().map(|error| error.message().to_owned());
    answer(draw(&core, &id, &asked, message))
}

/// Returns the page as things stand, or `None` if the secret is not the intent's.
fn draw(core: &Core, id: &str, asked: &Asked, message: Option<String>) -> Option<Pay> {
    let world = core.world();
    let setup = world.stripe.setups.find(id)?;
    if setup.client_secret != asked.client_secret {
        return None;
    }
    let (title, redirect_status) = match setup.status {
        Status::RequiresPaymentMethod | Status::RequiresConfirmation => ("Keep a card", "failed"),
        Status::RequiresAction => ("Authentication needed", "pending"),
        Status::Processing | Status::RequiresCapture => ("Under way", "pending"),
        Status::Succeeded => ("Card kept", "succeeded"),
        Status::Canceled => ("Cancelled", "failed"),
    };
    let parameters = [
        ("setup_intent", id),
        ("setup_intent_client_secret", asked.client_secret.as_str()),
        ("redirect_status", redirect_status),
    ];
    Some(Pay {
        path: format!("/setup/{id}"),
        title,
        amount: String::new(),
        description: setup.description.clone(),
        message,
        client_secret: asked.client_secret.clone(),
        return_url: asked.return_url.clone(),
        return_link: with_query(&asked.return_url, &parameters).unwrap_or_default(),
        verb: "Keep this card",
        ask_card: setup.status.wants_card(),
        ask_proof: setup.status == Status::RequiresAction,
        ask_later: false,
        cards: cards(),
    })
}
