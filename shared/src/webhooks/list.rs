//! The inbox as operators see it.

use chrono::{DateTime, Utc};

use super::{EventStatus, store};
use crate::App;
use crate::error::Error;
use crate::gateways::GatewayName;
use crate::ids::WebhookEventId;

/// One event, for lists.
#[derive(Debug, Clone)]
pub struct EventView {
    /// The event.
    pub id: WebhookEventId,
    /// Who sent it.
    pub gateway: GatewayName,
    /// The gateway's id.
    pub gateway_event_id: String,
    /// The gateway's word for what happened.
    pub kind: String,
    /// Where it stands.
    pub status: EventStatus,
    /// How often it was tried.
    pub attempts: i32,
    /// Why it stands there.
    pub last_error: Option<String>,
    /// When it came.
    pub received_at: DateTime<Utc>,
    /// When it was done with.
    pub processed_at: Option<DateTime<Utc>>,
}

/// The newest events, at most `limit`, of that status or all.
pub async fn list(
    app: &App,
    status: Option<EventStatus>,
    limit: i64,
) -> Result<Vec<EventView>, Error> {
    Ok(store::list(&app.db, status, limit).await?)
}
