//! Acting on a stored event.

use chrono::{DateTime, Duration, Utc};
use sqlx::PgConnection;

use super::EventStatus;
use super::store::{self, Stored};
use crate::App;
use crate::error::Error;
use crate::gateways::{
    CaptureRef, DisputeState, Gateway, GatewayError, GatewayEvent, Object, RefundState,
};
use crate::ids::{CustomerId, WebhookEventId};
use crate::methods;
use crate::payments::{self, Owner, Settled, Verdict};

/// An event that names a payment of ours by an id we cannot learn waits this long.
const LEARNING_TIME: Duration = Duration::minutes(15);

/// An event of no payment waits this long for one.
const WAITING_TIME: Duration = Duration::hours(24);

/// An event that an outage keeps from being read is tried for so long.
const OUTAGE_TIME: Duration = Duration::days(3);

/// What an event turned out to be.
enum Outcome {
    /// Acted on and marked, in one transaction.
    Done,
    Ignored(&'static str),
    /// No payment owns its object; it names this one, if any.
    Unknown(Option<String>),
    /// Refunds of ours must be answered first.
    Waits,
    Quarantined(String),
}

/// What an event tells of a payment.
enum Telling {
    Object(Box<Object>),
    /// The same, told because its buyer approved it (again).
    Approval(Box<Object>),
    Refund(Box<RefundState>),
    Dispute(Box<DisputeState>),
}

/// Acts on an event, once: a repeat finds it done. `Err` means try again.
pub async fn process(app: &App, id: WebhookEventId) -> Result<(), Error> {
    let Some(event) = store::find(&app.db, id).await?.filter(Stored::is_open) else {
        return Ok(());
    };
    let gateway = app.gateways.get(event.gateway)?;
    let outcome = match gateway.parse_event(&event.payload) {
        Ok(told) => match understand(app, &event, gateway, told).await {
            Err(Error::Gateway(error)) => unreadable(error)?,
            outcome => outcome?,
        },
        Err(error) => Outcome::Quarantined(error.to_string()),
    };
    finish(app, &event, outcome).await
}

/// Reads what the event only points at, and acts on it. Reads come before the transaction.
async fn understand(
    app: &App,
    event: &Stored,
    gateway: &dyn Gateway,
    told: GatewayEvent,
) -> Result<Outcome, Error> {
    match told {
        GatewayEvent::Ignored(why) => Ok(Outcome::Ignored(why)),
        GatewayEvent::Snapshot(object) => tell(app, event, Telling::Object(object)).await,
        GatewayEvent::ReadObject(id) => {
            let object = gateway.fetch_intent(&id).await?;
            tell(app, event, Telling::Object(Box::new(object))).await
        }
        GatewayEvent::Approved(id) => {
            let object = gateway.fetch_intent(&id).await?;
            tell(app, event, Telling::Approval(Box::new(object))).await
        }
        GatewayEvent::Misdirected(why) => {
            tracing::error!(event.id = %event.id, why, "a webhook for another installation");
            Ok(Outcome::Ignored(why))
        }
        GatewayEvent::ReadCapture(id) => {
            let object_id = gateway.object_of_capture(&id).await?;
            let object = gateway.fetch_intent(&object_id).await?;
            tell(app, event, Telling::Object(Box::new(object))).await
        }
        GatewayEvent::Refund(refund) => tell(app, event, Telling::Refund(refund)).await,
        GatewayEvent::ReadRefund(id) => {
            let refund = gateway.fetch_refund(&id).await?;
            know_capture(app, event, gateway, &refund.capture).await?;
            tell(app, event, Telling::Refund(Box::new(refund))).await
        }
        GatewayEvent::ReadRefundsOf(capture) => read_refunds(app, event, gateway, &capture).await,
        GatewayEvent::Dispute(dispute) => tell(app, event, Telling::Dispute(dispute)).await,
        GatewayEvent::ReadDispute(id) => {
            let dispute = gateway.fetch_dispute(&id).await?;
            know_capture(app, event, gateway, &dispute.capture).await?;
            tell(app, event, Telling::Dispute(Box::new(dispute))).await
        }
        GatewayEvent::ReadReversal { id, capture_id } => {
            let reversal = gateway.fetch_reversal(&id, &capture_id).await?;
            know_capture(app, event, gateway, &reversal.capture).await?;
            tell(app, event, Telling::Dispute(Box::new(reversal))).await
        }
        GatewayEvent::ReadSetup(id) => {
            let is_ours = methods::finish(app, event.gateway, &id).await?;
            done_if(app, event, is_ours, "a setup that was not begun here").await
        }
        GatewayEvent::ReadMethod { id, object_id } => {
            let payer = payer_of(app, event, gateway, (&id, object_id.as_deref())).await?;
            let is_ours = methods::read_named(app, event.gateway, &id, payer).await?;
            done_if(app, event, is_ours, "a method that was not saved through us").await
        }
        GatewayEvent::MethodGone(id) => {
            if is_kept(gateway, &id).await? {
                return Ok(Outcome::Ignored("the gateway keeps this method all the same"));
            }
            let mut tx = app.db.begin().await?;
            methods::gone(&mut tx, event.gateway, &id, app.clock.now()).await?;
            end(tx, app, event).await
        }
        GatewayEvent::CustomerGone(id) => {
            let mut tx = app.db.begin().await?;
            methods::customer_gone(&mut tx, event.gateway, &id, app.clock.now()).await?;
            end(tx, app, event).await
        }
    }
}

/// Whether a gateway still keeps a method that an event says is gone.
async fn is_kept(gateway: &dyn Gateway, id: &str) -> Result<bool, Error> {
    match gateway.fetch_method(id).await {
        Ok(method) => Ok(method.gateway_customer.is_some()),
        Err(GatewayError::NotFound | GatewayError::Declined { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The customer who paid the order with which a method was saved, as an event says. It is believed
/// only where the order itself shows that method, or the same payer.
async fn payer_of(
    app: &App,
    event: &Stored,
    gateway: &dyn Gateway,
    (method_id, object_id): (&str, Option<&str>),
) -> Result<Option<CustomerId>, Error> {
    let Some(object_id) = object_id else { return Ok(None) };
    let mut db = app.db.acquire().await?;
    let owner = payments::owner_of(&mut db, event.gateway, object_id).await?;
    drop(db);
    let Some((customer_id, _)) = owner else { return Ok(None) };
    let object = gateway.fetch_intent(object_id).await?;
    let method = gateway.fetch_method(method_id).await?;
    let is_shown = object.saved_method.as_deref() == Some(method_id);
    let is_same_payer =
        object.gateway_customer.is_some() && object.gateway_customer == method.gateway_customer;
    Ok((is_shown || is_same_payer).then_some(customer_id))
}

async fn done_if(
    app: &App,
    event: &Stored,
    is_ours: bool,
    otherwise: &'static str,
) -> Result<Outcome, Error> {
    if is_ours {
        end(app.db.begin().await?, app, event).await
    } else {
        Ok(Outcome::Ignored(otherwise))
    }
}

/// Marks the event in the transaction that did its work.
async fn end(
    mut tx: sqlx::Transaction<'_, sqlx::Postgres>,
    app: &App,
    event: &Stored,
) -> Result<Outcome, Error> {
    mark(&mut tx, event, EventStatus::Processed, None, app.clock.now()).await?;
    tx.commit().await?;
    Ok(Outcome::Done)
}

/// Makes sure that we know a capture which an event names by its own id only: PayPal's refund may
/// be told before its capture.
async fn know_capture(
    app: &App,
    event: &Stored,
    gateway: &dyn Gateway,
    capture: &CaptureRef,
) -> Result<(), Error> {
    let mut db = app.db.acquire().await?;
    let owner = payments::owner_of_capture(&mut db, event.gateway, capture).await?;
    drop(db);
    let (None, Some(capture_id)) = (owner, capture.capture_id.as_deref()) else { return Ok(()) };
    let object_id = match &capture.object_id {
        Some(id) => id.clone(),
        None => gateway.object_of_capture(capture_id).await?,
    };
    let object = gateway.fetch_intent(&object_id).await?;
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    let Some(owner) = payments::owner_of(&mut tx, event.gateway, &object_id).await? else {
        return Ok(());
    };
    let settled = payments::settle(&mut tx, owner, &object, now).await?;
    if matches!(settled.verdict, Verdict::Booked(_)) {
        tx.commit().await?;
        settled.jobs.into_iter().for_each(|job| app.doorbell.ring(job));
    }
    Ok(())
}

/// Books all refunds of a capture: the event says only that there is something new.
async fn read_refunds(
    app: &App,
    event: &Stored,
    gateway: &dyn Gateway,
    capture: &CaptureRef,
) -> Result<Outcome, Error> {
    let refunds = gateway.refunds_of(capture).await?;
    let mut unfinished = None;
    for refund in refunds {
        let outcome = act(app, event, Telling::Refund(Box::new(refund)), false).await?;
        unfinished = Some(outcome).filter(|it| !matches!(it, Outcome::Done)).or(unfinished);
    }
    match unfinished {
        None => end(app.db.begin().await?, app, event).await,
        Some(outcome) => Ok(outcome),
    }
}

async fn tell(app: &App, event: &Stored, telling: Telling) -> Result<Outcome, Error> {
    act(app, event, telling, true).await
}

/// Books what was told and marks the event, in one transaction; `is_all` is false where more of
/// the same event follows.
async fn act(app: &App, event: &Stored, telling: Telling, is_all: bool) -> Result<Outcome, Error> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    if !store::lock_open(&mut tx, event.id).await? {
        return Ok(Outcome::Done);
    }
    let Some(owner) = owner(&mut tx, event, &telling).await? else {
        return Ok(Outcome::Unknown(match telling {
            Telling::Object(object) | Telling::Approval(object) => object.names_payment,
            Telling::Refund(_) | Telling::Dispute(_) => None,
        }));
    };
    let settled: Settled = match &telling {
        Telling::Object(object) => payments::settle(&mut tx, owner, object, now).await?,
        Telling::Approval(object) => payments::settle_approval(&mut tx, owner, object, now).await?,
        Telling::Refund(refund) => payments::settle_refund(&mut tx, owner, refund, now).await?,
        Telling::Dispute(dispute) => payments::settle_dispute(&mut tx, owner, dispute, now).await?,
    };
    let outcome = match settled.verdict {
        Verdict::Booked(_) => {
            if is_all {
                mark(&mut tx, event, EventStatus::Processed, None, now).await?;
            }
            tx.commit().await?;
            Outcome::Done
        }
        Verdict::Waits => Outcome::Waits,
        Verdict::Mismatch(reason) => Outcome::Quarantined(reason),
    };
    settled.jobs.into_iter().for_each(|job| app.doorbell.ring(job));
    Ok(outcome)
}

async fn owner(
    db: &mut PgConnection,
    event: &Stored,
    telling: &Telling,
) -> Result<Option<Owner>, Error> {
    match telling {
        Telling::Object(object) | Telling::Approval(object) => {
            payments::owner_of(db, event.gateway, &object.id).await
        }
        Telling::Refund(refund) => {
            payments::owner_of_capture(db, event.gateway, &refund.capture).await
        }
        Telling::Dispute(dispute) => {
            payments::owner_of_capture(db, event.gateway, &dispute.capture).await
        }
    }
}

/// What a gateway refuses to show now it will not show later; anything else is tried again.
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

async fn mark(
    db: &mut PgConnection,
    event: &Stored,
    status: EventStatus,
    error: Option<&str>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    Ok(store::set_status(db, event.id, status, error, now).await?)
}

/// Records what the event turned out to be, where it is not marked already.
async fn finish(app: &App, event: &Stored, outcome: Outcome) -> Result<(), Error> {
    let now = app.clock.now();
    let (status, error) = match outcome {
        Outcome::Done => return Ok(()),
        Outcome::Quarantined(reason) => {
            tracing::error!(event.id = %event.id, reason, "webhook event quarantined");
            (EventStatus::Quarantined, reason)
        }
        Outcome::Ignored(why) => (EventStatus::Ignored, why.to_owned()),
        Outcome::Unknown(named) => return wait(app, event, named.as_deref(), now).await,
        Outcome::Waits => {
            let why = "a refund of ours has no answer yet: this may be its";
            let mut db = app.db.acquire().await?;
            let next = now + backoff(event.attempts);
            return Ok(store::set_waiting(&mut db, event.id, next, why).await?);
        }
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
    let last = backoff((event.attempts - 1).max(0));
    if age >= LEARNING_TIME && age - last < LEARNING_TIME {
        tracing::error!(event.id = %event.id, "an event waits for its payment since 15 minutes");
    }
    let next = now + backoff(event.attempts);
    Ok(store::set_waiting(&mut db, event.id, next, "no payment owns this object yet").await?)
}

/// 1, 2, 4, … s, five minutes at most.
fn backoff(attempts: i32) -> Duration {
    let exponent = u32::try_from(attempts).unwrap_or(0).min(9);
    Duration::seconds(2_i64.pow(exponent).min(300))
}

/// An outage outlasted the attempts on an event: it waits for its end, as long as the gateways
/// themselves would go on sending, then a person must look.
pub async fn put_off(app: &App, id: WebhookEventId, why: &str) -> Result<(), Error> {
    let now = app.clock.now();
    let Some(event) = store::find(&app.db, id).await?.filter(Stored::is_open) else {
        return Ok(());
    };
    if now - event.received_at >= OUTAGE_TIME {
        return give_up(app, id, why).await;
    }
    tracing::error!(event.id = %id, why, "webhook event put off: an outage goes on");
    let mut db = app.db.acquire().await?;
    Ok(store::set_waiting(&mut db, id, now + Duration::minutes(5), why).await?)
}

/// Records that the attempts on an event are used up; a person can have it processed again.
pub async fn give_up(app: &App, id: WebhookEventId, error: &str) -> Result<(), Error> {
    tracing::error!(event.id = %id, error, "webhook event failed for good");
    let mut db = app.db.acquire().await?;
    Ok(store::set_failed(&mut db, id, error, app.clock.now()).await?)
}
