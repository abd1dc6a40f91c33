//! Stripe's payment page: a card number, Pay and Decline; or the bank's question.

use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use super::{not_found, page, redirect, with_query};
use crate::money;
use crate::stripe::{self, Attempt, CARDS, Status};
use crate::world::{Cause, Core};

/// The card that the button "Decline" pays with.
const DECLINED_CARD: &str = "4000000000000002";

#[derive(Debug, Default, Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    client_secret: String,
    #[serde(default)]
    return_url: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Submitted {
    client_secret: String,
    #[serde(default)]
    return_url: String,
    #[serde(default)]
    card: String,
    action: String,
}

struct CardRow {
    number: &'static str,
    effect: &'static str,
}

#[derive(Template)]
#[template(path = "pay.html")]
struct Pay {
    id: String,
    title: &'static str,
    amount: String,
    description: Option<String>,
    message: Option<String>,
    client_secret: String,
    return_url: String,
    return_link: String,
    ask_card: bool,
    ask_proof: bool,
    cards: Vec<CardRow>,
}

/// `GET /pay/{payment_intent_id}`
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

/// `POST /pay/{payment_intent_id}`: pays, then goes back to the shop; a refusal shows the page again.
pub(super) async fn submit(
    State(core): State<Arc<Core>>,
    Path(id): Path<String>,
    Form(submitted): Form<Submitted>,
) -> Response {
    let Submitted { client_secret, return_url, card, action } = submitted;
    let asked = Asked { client_secret, return_url };
    if draw(&core, &id, &asked, None).is_none() {
        return not_found();
    }
    let result = core.turn(Cause::default(), |turn| match action.as_str() {
        "authenticate" => stripe::authenticate(turn, &id, true),
        "fail" => stripe::authenticate(turn, &id, false),
        action => {
            let card = if action == "decline" { DECLINED_CARD.into() } else { card };
            let return_url = Some(asked.return_url.clone()).filter(|url| !url.is_empty());
            let attempt = Attempt { payment_method: Some(card), off_session: false, return_url };
            stripe::confirm(turn, &id, &attempt)
        }
    });
    let message = result.err().map(|error| error.message().to_owned());
    let Some(pay) = draw(&core, &id, &asked, message) else { return not_found() };
    // The payer goes back when there is nothing more to do here.
    if !pay.ask_card && !pay.ask_proof && !pay.return_link.is_empty() {
        return redirect(&pay.return_link);
    }
    page(StatusCode::OK, &pay)
}

/// Returns the page as things stand, or `None` if the secret is not the intent's.
fn draw(core: &Core, id: &str, asked: &Asked, message: Option<String>) -> Option<Pay> {
    let world = core.world();
    let intent = world.stripe.intents.find(id)?;
    if intent.client_secret != asked.client_secret {
        return None;
    }
    let (title, redirect_status) = match intent.status {
        Status::RequiresPaymentMethod | Status::RequiresConfirmation => ("Pay", "failed"),
        Status::RequiresAction => ("Authentication needed", "pending"),
        Status::Processing => ("Payment under way", "pending"),
        Status::RequiresCapture => ("Payment authorized", "succeeded"),
        Status::Succeeded => ("Paid", "succeeded"),
        Status::Canceled => ("Cancelled", "failed"),
    };
    let decimals = money::stripe_decimals(&intent.currency).unwrap_or(2);
    let currency = intent.currency.to_uppercase();
    let parameters = [
        ("payment_intent", id),
        ("payment_intent_client_secret", asked.client_secret.as_str()),
        ("redirect_status", redirect_status),
    ];
    Some(Pay {
        id: id.to_owned(),
        title,
        amount: format!("{} {currency}", money::to_decimal(intent.amount, decimals)),
        description: intent.description.clone(),
        message,
        client_secret: asked.client_secret.clone(),
        return_url: asked.return_url.clone(),
        return_link: with_query(&asked.return_url, &parameters).unwrap_or_default(),
        ask_card: matches!(
            intent.status,
            Status::RequiresPaymentMethod | Status::RequiresConfirmation
        ),
        ask_proof: intent.status == Status::RequiresAction,
        cards: CARDS
            .iter()
            .map(|card| CardRow { number: card.number, effect: card.methods[0] })
            .collect(),
    })
}
