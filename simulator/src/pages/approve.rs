//! PayPal's approval pages: to pay an order, and to let a way to pay be saved.

use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use super::{not_found, page, redirect, with_query};
use crate::paypal::{self, Funding, PAYER_ID, SetupStatus, Status};
use crate::world::{Cause, Core};

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    token: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Submitted {
    token: String,
    action: String,
    funding: Option<Funding>,
}

#[derive(Template)]
#[template(path = "approve.html")]
struct Approve {
    id: String,
    title: &'static str,
    amount: String,
    description: Option<String>,
    open: bool,
    /// Where "Back to the shop" leads: the order's return address once it is approved.
    return_link: String,
    cancel_link: String,
}

/// `GET /checkoutnow?token={order}`
pub(super) async fn show(State(core): State<Arc<Core>>, Query(asked): Query<Asked>) -> Response {
    match draw(&core, &asked.token) {
        Some(approve) => page(StatusCode::OK, &approve),
        None => not_found(),
    }
}

/// `POST /checkoutnow`: approves or not, then goes back to the shop.
pub(super) async fn submit(
    State(core): State<Arc<Core>>,
    Form(submitted): Form<Submitted>,
) -> Response {
    let id = &submitted.token;
    if submitted.action != "cancel" {
        let funding = submitted.funding.unwrap_or(Funding::Instant);
        let approved = core.turn(Cause::default(), |turn| paypal::approve(turn, id, funding));
        if let Err(error) = approved {
            tracing::debug!(order.id = id, issue = error.issue(), "approval refused");
        }
    }
    let Some(approve) = draw(&core, id) else { return not_found() };
    let link =
        if submitted.action == "cancel" { &approve.cancel_link } else { &approve.return_link };
    if link.is_empty() { page(StatusCode::OK, &approve) } else { redirect(link) }
}

fn draw(core: &Core, id: &str) -> Option<Approve> {
    let world = core.world();
    let order = world.paypal.orders.find(id)?;
    let (title, open) = match order.status {
        Status::Created | Status::PayerActionRequired => ("Pay with PayPal", true),
        Status::Approved => ("Approved", true),
        Status::Completed => ("Paid", false),
        Status::Voided => ("Expired", false),
    };
    let is_approved = matches!(order.status, Status::Approved | Status::Completed);
    let back = order.return_url.as_deref().filter(|_| is_approved);
    let back = back.and_then(|url| with_query(url, &[("token", id), ("PayerID", PAYER_ID)]));
    let cancel = order.cancel_url.as_deref().and_then(|url| with_query(url, &[("token", id)]));
    Some(Approve {
        id: id.to_owned(),
        title,
        amount: format!("{} {}", order.amount.value(), order.amount.currency),
        description: order.description.clone(),
        open,
        return_link: back.unwrap_or_default(),
        cancel_link: cancel.unwrap_or_default(),
    })
}

#[derive(Debug, Deserialize)]
pub(super) struct AskedSetup {
    approval_session_id: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct SubmittedSetup {
    approval_session_id: String,
    action: String,
}

#[derive(Template)]
#[template(path = "save.html")]
struct Save {
    id: String,
    title: &'static str,
    open: bool,
    return_link: String,
    cancel_link: String,
}

/// `GET /agreements/approve?approval_session_id={setup token}`
pub(super) async fn show_setup(
    State(core): State<Arc<Core>>,
    Query(asked): Query<AskedSetup>,
) -> Response {
    match draw_setup(&core, &asked.approval_session_id) {
        Some(save) => page(StatusCode::OK, &save),
        None => not_found(),
    }
}

/// `POST /agreements/approve`: lets it be saved or not, then goes back to the shop.
pub(super) async fn submit_setup(
    State(core): State<Arc<Core>>,
    Form(submitted): Form<SubmittedSetup>,
) -> Response {
    let id = &submitted.approval_session_id;
    let is_cancelled = submitted.action == "cancel";
    if !is_cancelled && let Err(error) = core.at_paypal(|turn| paypal::approve_setup(turn, id)) {
        tracing::debug!(token.id = id, code = error.code, "approval refused");
    }
    let Some(save) = draw_setup(&core, id) else { return not_found() };
    let link = if is_cancelled { &save.cancel_link } else { &save.return_link };
    if link.is_empty() { page(StatusCode::OK, &save) } else { redirect(link) }
}

fn draw_setup(core: &Core, id: &str) -> Option<Save> {
    let world = core.world();
    let token = world.paypal.setup_tokens.find(id)?;
    let (title, open) = match token.status {
        SetupStatus::PayerActionRequired => ("Save PayPal for later", true),
        SetupStatus::Approved => ("Approved", true),
        SetupStatus::Vaulted => ("Saved", false),
    };
    let parameters = [("approval_token_id", id), ("approval_session_id", id)];
    let back = token.return_url.as_deref().filter(|_| title != "Save PayPal for later");
    let back = back.and_then(|url| with_query(url, &parameters));
    let cancel = token.cancel_url.as_deref().and_then(|url| with_query(url, &parameters));
    Some(Save {
        id: id.to_owned(),
        title,
        open,
        return_link: back.unwrap_or_default(),
        cancel_link: cancel.unwrap_or_default(),
    })
}
