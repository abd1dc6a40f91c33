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
    pub(super) client_secret: String,
    #[serde(default)]
    pub(super) return_url: String,
}

impl Asked {
    /// Returns where the payer comes back to, if that was said.
    pub(super) fn way_back(&self) -> Option<String> {
        Some(self.return_url.clone()).filter(|url| !url.is_empty())
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Submitted {
    #[serde(default)]
    client_secret: String,
    #[serde(default)]
    return_url: String,
    #[serde(default)]
    card: String,
    pub(super) action: String,
}

impl Submitted {
    /// Returns the card typed in, or the one that the button "Decline" stands for.
    pub(super) fn card(&self) -> String {
        if self.action == "decline" { DECLINED_CARD.into() } else { self.card.clone() }
    }

    /// Returns what the page was opened with.
    pub(super) fn asked(&self) -> Asked {
        Asked { client_secret: self.client_secret.clone(), return_url: self.return_url.clone() }
    }
}

pub(super) struct CardRow {
    number: &'static str,
    effect: &'static str,
}

#[derive(Template)]
#[template(path = "pay.html")]
pub(super) struct Pay {
    pub(super) path: String,
    pub(super) title: &'static str,
    pub(super) amount: String,
    pub(super) description: Option<String>,
    pub(super) message: Option<String>,
    pub(super) client_secret: String,
    pub(super) return_url: String,
    pub(super) return_link: String,
    pub(super) verb: &'static str,
    pub(super) ask_card: bool,
    pub(super) ask_proof: bool,
    pub(super) ask_later: bool,
    pub(super) cards: Vec<CardRow>,
}

/// Returns the cards to choose from.
pub(super) fn cards() -> Vec<CardRow> {
    let cards = CARDS.iter();
    cards.map(|card| CardRow { number: card.number, effect: card.methods[0] }).collect()
}

/// Shows the page again, or sends the payer back when there is nothing more to do on it.
pub(super) fn answer(pay: Option<Pay>) -> Response {
    let Some(pay) = pay else { return not_found() };
    if !pay.ask_card && !pay.ask_proof && !pay.return_link.is_empty() {
        return redirect(&pay.return_link);
    }
    page(StatusCode::OK, &pay)
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
    let asked = submitted.asked();
    if draw(&core, &id, &asked, None).is_none() {
        return not_found();
    }
    let result = core.turn(Cause::default(), |turn| match submitted.action.as_str() {
        "authenticate" => stripe::authenticate(turn, &id, true),
        "fail" => stripe::authenticate(turn, &id, false),
        _ => {
            let payment_method = Some(submitted.card());
            let return_url = asked.way_back();
            stripe::confirm(turn, &id, &Attempt { payment_method, off_session: false, return_url })
        }
    });
    let message = result.err().map(|error| error.message().to_owned());
    answer(draw(&core, &id, &asked, message))
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
        path: format!("/pay/{id}"),
        title,
        amount: format!("{} {currency}", money::to_decimal(intent.amount, decimals)),
        description: intent.description.clone(),
        message,
        client_secret: asked.client_secret.clone(),
        return_url: asked.return_url.clone(),
        return_link: with_query(&asked.return_url, &parameters).unwrap_or_default(),
        verb: "Pay",
        ask_card: intent.status.wants_card(),
        ask_proof: intent.status == Status::RequiresAction,
        ask_later: false,
        cards: cards(),
    })
}
