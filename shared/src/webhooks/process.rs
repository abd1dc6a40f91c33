//! Acting on a stored event.

use chrono::{DateTime, Duration, Utc};
use sqlx::PgConnection;

use super::EventStatus;
use super::store::{self, Stored};
use crate::App;
use crate::error::Error;
use crate::gateways::{Gateway, GatewayError, GatewayEvent, Object};
use crate::ids::WebhookEventId;
use crate::jobs::Job;
use crate::payments::{self, Settled};

/// An event that names a payment of ours by an id we cannot learn waits this long.
const LEARNING_TIME: Duration = Duration::minutes(15);

/// An event of no payment waits this long for one.
const WAITING_TIME: Duration = Duration::hours(24);

/// What an event turned out to be.
enum Outcome {
    Settled(Settled, Option<Job>),
    Ignored(&'static str),
    /// No payment owns its object; it names this one, if any.
    Unknown(Option<String>),
    Quarantined(String),
}

/// Acts on an event, once: a repeat finds it done. `Err` means try again.
pub async fn process(app: &App, id: WebhookEventId) -> Result<(), Error> {
    let Some(event) = store::find(&app.db, id).await?.filter(Stored::is_open) else {
        return Ok(());
    };
    let gateway = app.gateways.get(event.gateway)?;
    let outcome = match gateway.parse_event(&event.payload) {
        Ok(GatewayEvent::Ignored(why)) => Outcome::Ignored(why),
        Ok(GatewayEvent::Snapshot(object)) => act(app, &event, &object).await?,
        Ok(GatewayEvent::ReadObject(object_id)) => read(app, &event, gateway, &object_id).await?,
        Ok(GatewayEvent::ReadCapture(capture_id)) => {
            match gateway.object_of_capture(&capture_id).await {
                Ok(object_id) => read(app, &event, gateway, &object_id).await?,
                Err(error) => unreadable(error)?,
            }
        }
        Ok(
            GatewayEvent::Refund(_)
            | GatewayEvent::ReadRefund(_)
            | GatewayEvent::ReadRefundsOf(_)
            | GatewayEvent::Dispute(_)
            | GatewayEvent::ReadDispute(_)
            | GatewayEvent::ReadReversal { .. }
            | GatewayEvent::ReadSetup(_)
            | GatewayEvent::ReadMethod { .. }
            | GatewayEvent::MethodGone(_)
            | GatewayEvent::CustomerGone(_),
        ) => Outcome::Ignored("of a kind that is not used"),
        Err(error) => Outcome::Quarantined(error.to_string()),
    };
    finish(app, &event, outcome).await
}

async fn read(
    app: &App,
    event: &Stored,
    gateway: &dyn Gateway,
    object_id: &str,
) -> Result<Outcome, Error> {
    match gateway.fetch_intent(object_id).await {
        Ok(object) => act(app, event, &object).await,
        Err(error) => unreadable(error),
    }
}

/// A gateway that has no such object will not have it later; anything else is tried again.
fn unreadable(error: GatewayError) -> Result<Outcome, Error> {
    match error {
        GatewayError::Refused { .. }
        | GatewayError::NotFound
        | GatewayError::Declined { .. }
        | GatewayError::Bug { .. } => {
            Ok(Outcome::Quarantined(format!("the gateway does not show its object: {error}")))
        }
        GatewayError::Unavailable(_)
        | GatewayError::Misconfigured(_)
        | GatewayError::Malformed(_) => Err(error.into()),
    }
}

/// Books what the object says and marks the event, in one transaction.
async fn act(app: &App, event: &Stored, object: &Object) -> Result<Outcome, Error> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    if !store::lock_open(&mut tx, event.id).await? {
        return Ok(Outcome::Settled(Settled::ToCapture, None));
    }
    let owner = payments::owner_of(&mut tx, event.gateway, &object.id).await?;
    let Some(owner) = owner else {
        return Ok(Outcome::Unknown(object.names_payment.clone()));
    };
    let settled = payments::settle(&mut tx, owner, object, now).await?;
    let job = (settled == Settled::ToCapture).then(|| Job::capture(owner.0, owner.1, now));
    if !matches!(settled, Settled::Mismatch(_)) {
        mark(&mut tx, event, EventStatus::Processed, None, now).await?;
        tx.commit().await?;
    }
    Ok(Outcome::Settled(settled, job))
}

async fn mark(
    db: &mut PgConnection,
    event: &Stored,
    status: EventStatus,
    error: Option<&str>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    Ok(store::set_status(db, event.id, status, error, now).await?)
}

/// Records what the event turned out to be, where [`act`] has not done it already.
async fn finish(app: &App, event: &Stored, outcome: Outcome) -> Result<(), Error> {
    let now = app.clock.now();
    let (status, error) = match outcome {
        Outcome::Settled(Settled::Booked(_) | Settled::ToCapture, job) => {
            if let Some(job) = job {
                app.doorbell.ring(job);
            }
            return Ok(());
        }
        Outcome::Settled(Settled::Mismatch(reason), _) | Outcome::Quarantined(reason) => {
            tracing::error!(event.id = %event.id, reason, "webhook event quarantined");
            (EventStatus::Quarantined, reason)
        }
        Outcome::Ignored(why) => (EventStatus::Ignored, why.to_owned()),
        Outcome::Unknown(named) => return wait(app, event, named.as_deref(), now).await,
    };
    let mut db = app.db.acquire().await?;
    mark(&mut db, event, status, Some(&error), now).await
}

/// Lets an event wait for its payment: its creation may still be on the way.
async fn wait(
    app: &App,
    event: &Stored,
    named: Option<&str>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    if let Some(named) = named {
        payments::learn_objects(app, event.gateway, named).await?;
    }
    let age = now - event.received_at;
    let limit = if named.is_some() { LEARNING_TIME } else { WAITING_TIME };
    let mut db = app.db.acquire().await?;
    if age >= limit {
        let reason = "no payment of ours owns this object";
        tracing::error!(event.id = %event.id, "{reason}");
        return mark(&mut db, event, EventStatus::Quarantined, Some(reason), now).await;
    }
    let next = now + backoff(event.attempts);
    Ok(store::set_waiting(&mut db, event.id, next, "no payment owns this object yet").await?)
}

/// 1, 2, 4, … s, five minutes at most.
fn backoff(attempts: i32) -> Duration {
    let exponent = u32::try_from(attempts).unwrap_or(0).min(9);
    Duration::seconds(2_i64.pow(exponent).min(300))
}

/// Records that the attempts on an event are used up; a person can have it processed again.
pub async fn give_up(app: &App, id: WebhookEventId, error: &str) -> Result<(), Error> {
    tracing::error!(event.id = %id, error, "webhook event failed for good");
    let mut db = app.db.acquire().await?;
    Ok(store::set_failed(&mut db, id, error, app.clock.now()).await?)
}
