//! Finding events whose doorbell was lost, or whose wait is over.

use chrono::{DateTime, Duration, Utc};

use super::store;
use crate::App;
use crate::error::Error;
use crate::ids::WebhookEventId;
use crate::jobs::{self, Job};
use crate::methods;
use crate::payments;
use crate::top_ups;

/// An event younger than this has its doorbell on the way.
const QUIET: Duration = Duration::seconds(2);

/// Events per sweep; the rest waits for the next.
const PAGE: i64 = 1_000;

/// Events to ring for.
pub async fn due(app: &App, now: DateTime<Utc>) -> Result<Vec<Job>, Error> {
    let due = store::due(&app.db, now, now - QUIET, PAGE).await?;
    Ok(due
        .into_iter()
        .map(|(event_id, attempt)| Job::ProcessWebhookEvent { event_id, attempt })
        .collect())
}

/// Rings for all work whose doorbell was lost. May be repeated: a job that is queued stays one.
pub async fn ring_lost(app: &App) -> Result<(), Error> {
    let now = app.clock.now();
    let mut lost = due(app, now).await?;
    lost.extend(payments::due(app, now).await?);
    lost.extend(methods::to_read(app, now).await?);
    lost.extend(top_ups::due(app, now).await?);
    if lost.is_empty() {
        return Ok(());
    }
    tracing::debug!(count = lost.len(), "rang for work found by the sweep");
    let mut db = app.db.acquire().await?;
    Ok(jobs::enqueue(&mut db, &lost).await?)
}

/// Lets an event be acted on again, from the beginning: for an operator who mended its cause, or
/// after a new kind of event was learned. Harmless to repeat: facts are booked once.
pub async fn reprocess(app: &App, id: WebhookEventId) -> Result<(), Error> {
    if !store::reopen(&app.db, id, app.clock.now()).await? {
        return Err(Error::NotFound("event that could be processed again"));
    }
    app.doorbell.ring(Job::ProcessWebhookEvent { event_id: id, attempt: -1 });
    Ok(())
}
