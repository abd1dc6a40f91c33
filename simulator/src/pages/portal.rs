//! Stripe's customer portal: the cards kept of a customer, each with a button that removes it.

use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use super::{not_found, page, redirect, web};
use crate::stripe::portal;
use crate::world::{Cause, Core};

struct CardRow {
    id: String,
    brand: &'static str,
    last4: &'static str,
}

#[derive(Template)]
#[template(path = "portal.html")]
struct PortalPage {
    path: String,
    email: Option<String>,
    cards: Vec<CardRow>,
    return_link: String,
}

/// `GET /p/session/{portal_session_id}`
pub(super) async fn show(State(core): State<Arc<Core>>, Path(id): Path<String>) -> Response {
    match core.turn(Cause::default(), |turn| {
        let portal = turn.world.stripe.portals.find(&id)?;
        let methods = turn.world.stripe.methods.iter().rev();
        let cards = methods.filter(|method| method.customer.as_deref() == Some(&portal.customer));
        let cards = cards.map(|method| CardRow {
            id: method.id.clone(),
            brand: method.card().brand,
            last4: method.card().last4(),
        });
        Some(PortalPage {
            path: format!("/p/session/{id}"),
            email: portal::email(turn, &portal.customer),
            cards: cards.collect(),
            return_link: portal.return_url.as_deref().and_then(web).unwrap_or_default(),
        })
    }) {
        Some(drawn) => page(StatusCode::OK, &drawn),
        None => not_found(),
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Removed {
    remove: String,
}

/// `POST /p/session/{portal_session_id}`: removes a card and shows the rest.
pub(super) async fn submit(
    State(core): State<Arc<Core>>,
    Path(id): Path<String>,
    Form(Removed { remove }): Form<Removed>,
) -> Response {
    match core.turn(Cause::default(), |turn| portal::remove(turn, &id, &remove)) {
        Ok(()) => redirect(&format!("/p/session/{id}")),
        Err(_) => not_found(),
    }
}
