//! Storing an event before the gateway gets its answer.

use axum::http::HeaderMap;

use super::store;
use crate::App;
use crate::clock::wall_now;
use crate::error::Error;
use crate::gateways::{GatewayError, GatewayName, WebhookRejected};
use crate::ids::WebhookEventId;
use crate::jobs::Job;

/// Why an event was not taken.
#[derive(Debug)]
pub enum Refusal {
    /// Not proven to come from the gateway, or not readable: 400.
    Rejected,
    /// It could not be checked or stored now: 503, the gateway tries again.
    Unavailable(String),
}

impl From<GatewayError> for Refusal {
    fn from(error: GatewayError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// Proves, stores and commits an event; then rings for its processing.
///
/// `Ok` means that it is in the database, now or before: a repeat changes nothing.
pub async fn receive(
    app: &App,
    name: GatewayName,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(), Refusal> {
    let gateway = app.gateways.get(name)?;
    let event = match gateway.verify_webhook(headers, body, wall_now()).await {
        Ok(event) => event,
        Err(WebhookRejected::Invalid(reason)) => {
            tracing::info!(gateway = name.as_str(), reason, "webhook refused");
            return Err(Refusal::Rejected);
        }
        Err(WebhookRejected::Unparsable) => {
            tracing::error!(gateway = name.as_str(), "a signed webhook cannot be read");
            return Err(Refusal::Rejected);
        }
        Err(WebhookRejected::Unavailable(reason)) => return Err(Refusal::Unavailable(reason)),
    };
    let id = WebhookEventId::new(wall_now());
    let stored = store::insert(&app.db, id, name, &event, body, app.clock.now()).await;
    if stored.map_err(|error| Refusal::Unavailable(Error::from(error).to_string()))? {
        app.doorbell.ring(Job::ProcessWebhookEvent { event_id: id, attempt: 0 });
    } else {
        warn_of_conflict(app, name, &event.id, body).await;
    }
    Ok(())
}

/// The first body of an event wins; another one under its id is worth an alert.
async fn warn_of_conflict(app: &App, gateway: GatewayName, event_id: &str, body: &[u8]) {
    match store::has_other_body(&app.db, gateway, event_id, body).await {
        Ok(false) => {}
        Ok(true) => {
            tracing::error!(
                gateway = gateway.as_str(),
                event_id,
                "same event, other body; kept the first"
            );
        }
        Err(error) => tracing::warn!(%error, "a repeated event was not compared"),
    }
}
