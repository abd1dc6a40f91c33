//! A page that shows what a simulated gateway knows.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::page;
use crate::Gateway;
use crate::money;
use crate::paypal;
use crate::stripe;
use crate::world::{Core, World};

/// Newest rows shown of each list.
const SHOWN: usize = 50;

struct PaymentRow {
    id: String,
    link: String,
    amount: String,
    status: &'static str,
}

struct AttemptRow {
    id: String,
    kind: String,
    number: u32,
    answer: String,
}

#[derive(Template)]
#[template(path = "state.html")]
struct StatePage {
    gateway: &'static str,
    endpoint: String,
    pending: usize,
    paused: bool,
    payments: Vec<PaymentRow>,
    attempts: Vec<AttemptRow>,
}

/// `GET /` at Stripe's address.
pub(super) async fn stripe(State(core): State<Arc<Core>>) -> Response {
    let world = core.world();
    let intents = world.stripe.intents.iter().rev().take(SHOWN);
    let payments = intents.map(|intent| {
        let decimals = money::stripe_decimals(&intent.currency).unwrap_or(2);
        let amount = money::to_decimal(intent.amount, decimals);
        let is_open =
            !matches!(intent.status, stripe::Status::Succeeded | stripe::Status::Canceled);
        let link = format!("/pay/{}?client_secret={}", intent.id, intent.client_secret);
        PaymentRow {
            id: intent.id.clone(),
            link: if is_open { link } else { String::new() },
            amount: format!("{amount} {}", intent.currency.to_uppercase()),
            status: intent.status.as_str(),
        }
    });
    let sessions = world.stripe.sessions.iter().rev().take(SHOWN).map(|session| {
        let is_open = session.status == stripe::sessions::SessionStatus::Open;
        PaymentRow {
            id: session.id.clone(),
            link: if is_open { format!("/c/pay/{}", session.id) } else { String::new() },
            amount: String::new(),
            status: session.status.as_str(),
        }
    });
    let disputes = world.stripe.disputes.iter().rev().take(SHOWN).map(|dispute| {
        let decimals = money::stripe_decimals(&dispute.currency).unwrap_or(2);
        let amount = money::to_decimal(dispute.amount, decimals);
        PaymentRow {
            id: dispute.id.clone(),
            link: String::new(),
            amount: format!("{amount} {}", dispute.currency.to_uppercase()),
            status: dispute.status.as_str(),
        }
    });
    let payments = payments.chain(sessions).chain(disputes).collect();
    page(StatusCode::OK, &draw(&world, Gateway::Stripe, payments))
}

/// `GET /` at PayPal's address.
pub(super) async fn paypal(State(core): State<Arc<Core>>) -> Response {
    let world = core.world();
    let orders = world.paypal.orders.iter().rev().take(SHOWN);
    let payments = orders.map(|order| {
        let is_open = !matches!(order.status, paypal::Status::Completed | paypal::Status::Voided);
        PaymentRow {
            id: order.id.clone(),
            link: if is_open { order.page("") } else { String::new() },
            amount: format!("{} {}", order.amount.value(), order.amount.currency),
            status: order.status.as_str(),
        }
    });
    let payments = payments.collect();
    page(StatusCode::OK, &draw(&world, Gateway::PayPal, payments))
}

fn draw(world: &World, gateway: Gateway, payments: Vec<PaymentRow>) -> StatePage {
    let outbox = &world.outbox;
    let attempts = outbox.attempts.iter().rev().filter(|attempt| attempt.gateway == gateway);
    let attempts = attempts.take(SHOWN).map(|attempt| AttemptRow {
        id: attempt.event_id.clone(),
        kind: attempt.kind.clone(),
        number: attempt.number,
        answer: attempt.status.map_or_else(|| "none".into(), |status| status.to_string()),
    });
    StatePage {
        gateway: match gateway {
            Gateway::Stripe => "Stripe",
            Gateway::PayPal => "PayPal",
        },
        endpoint: match outbox.url(gateway) {
            Some(url) => format!("Events go to {url}."),
            None => "Events are kept, there is no endpoint.".into(),
        },
        pending: outbox.pending(),
        paused: outbox.paused,
        payments,
        attempts: attempts.collect(),
    }
}
