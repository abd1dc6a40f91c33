//! Stripe's hosted page of a checkout session: pay, pay later by bank, decline, or leave.

use std::sync::Arc;

use axum::Form;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::pay::{Pay, Submitted, answer, cards};
use super::{not_found, page, web};
use crate::money;
use crate::stripe::sessions::{self, Mode, SessionStatus};
use crate::stripe::{BANK_DEBIT, Status};
use crate::world::{Cause, Core};

/// `GET /c/pay/{session_id}`
pub(super) async fn show(State(core): State<Arc<Core>>, Path(id): Path<String>) -> Response {
    core.turn(Cause::default(), sessions::expire_due);
    match draw(&core, &id, None) {
        Some(pay) => page(StatusCode::OK, &pay),
        None => not_found(),
    }
}

/// `POST /c/pay/{session_id}`: pays, then goes to the shop; a refusal shows the page again.
pub(super) async fn submit(
    State(core): State<Arc<Core>>,
    Path(id): Path<String>,
    Form(submitted): Form<Submitted>,
) -> Response {
    let result = core.turn(Cause::default(), |turn| match submitted.action.as_str() {
        "authenticate" => sessions::authenticate(turn, &id, true),
        "fail" => sessions::authenticate(turn, &id, false),
        "later" => sessions::pay(turn, &id, BANK_DEBIT),
        _ => sessions::pay(turn, &id, &submitted.card()),
    });
    let message = result.err().map(|error| error.message().to_owned());
    match draw(&core, &id, message) {
        Some(pay) => answer(Some(pay)),
        None => not_found(),
    }
}

/// Returns the page as things stand.
fn draw(core: &Core, id: &str, message: Option<String>) -> Option<Pay> {
    let world = core.world();
    let session = world.stripe.sessions.find(id)?;
    let is_open = session.status == SessionStatus::Open;
    let intent = sessions::intent_status(&world.stripe, id);
    let ask_proof = is_open && intent == Some(Status::RequiresAction);
    let title = match session.status {
        SessionStatus::Open if ask_proof => "Authentication needed",
        SessionStatus::Open if session.mode == Mode::Setup => "Keep a card",
        SessionStatus::Open => "Pay",
        SessionStatus::Complete => "All done",
        SessionStatus::Expired => "This page has expired",
    };
    let back = match session.status {
        SessionStatus::Complete => {
            Some(session.success_url.replace("{CHECKOUT_SESSION_ID}", &session.id))
        }
        SessionStatus::Open | SessionStatus::Expired => session.cancel_url.clone(),
    };
    let amount = session.amount.zip(session.currency.as_ref()).map(|(amount, currency)| {
        let decimals = money::stripe_decimals(currency).unwrap_or(2);
        format!("{} {}", money::to_decimal(amount, decimals), currency.to_uppercase())
    });
    Some(Pay {
        path: format!("/c/pay/{id}"),
        title,
        amount: amount.unwrap_or_default(),
        description: session.items.first().map(|item| item.name.clone()),
        message,
        client_secret: String::new(),
        return_url: String::new(),
        return_link: back.and_then(|back| web(&back)).unwrap_or_default(),
        verb: if session.mode == Mode::Setup { "Keep this card" } else { "Pay" },
        ask_card: is_open && !ask_proof,
        ask_proof,
        ask_later: session.mode == Mode::Payment,
        cards: cards(),
    })
}
