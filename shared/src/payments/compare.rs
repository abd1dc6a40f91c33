//! Comparing every payment with its gateway, both ways: `tollgate reconcile`.

use chrono::{DateTime, Duration, Utc};

use super::learn::learn_objects;
use super::object::{heard, read};
use super::refund::{correct_refund, settle_refund};
use super::settle::{Verdict, owner_of_capture, settle_dispute};
use super::{Payment, PaymentStatus, facts, reckon, store};
use crate::App;
use crate::clock::wall_now;
use crate::error::Error;
use crate::gateways::{CaptureRef, Gateway, GatewayCapture, GatewayError, GatewayName, Span};
use crate::ids::PaymentId;

/// In what we and a gateway disagreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// The gateway has the money, the customer had nothing for it.
    PaidNotGranted,
    /// The customer has what he bought, the gateway shows no money.
    GrantedNotPaid,
    /// Amount or currency differ.
    Amount,
    /// Refunds differ.
    Refunds,
    /// Disputes differ.
    Disputes,
    /// Money at the gateway that is no payment's of ours.
    Unknown,
    /// The gateway does not show the object.
    Unreadable,
}

/// One thing in which we and a gateway disagreed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// In what.
    pub kind: DifferenceKind,
    /// Whose gateway.
    pub gateway: &'static str,
    /// The payment, where it is one of ours.
    pub payment_id: Option<PaymentId>,
    /// The gateway's object.
    pub object_id: String,
    /// For a person to read.
    pub detail: String,
    /// Whether the books agree with the gateway now.
    pub is_healed: bool,
}

/// So many payments in a row without an answer are an outage.
const UNANSWERED: u32 = 5;

/// Payments read at once from the database.
const PAGE: i64 = 200;

/// Compares all payments changed since `since`, and all money the gateways collected since, and
/// books what is safe to book: what the gateway says of objects that are ours.
///
/// The rest is for a person: nothing is ever taken from a customer here that the gateway does not
/// say is gone. May be repeated.
pub async fn compare(app: &App, since: DateTime<Utc>) -> Result<Vec<Difference>, Error> {
    let mut found = Vec::new();
    let mut after = None;
    let mut unanswered = 0;
    loop {
        let mut db = app.db.acquire().await?;
        let page = store::page_since(&mut db, since, after, PAGE).await?;
        drop(db);
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        for payment in &page {
            match compare_payment(app, payment, &mut found).await {
                Ok(()) => unanswered = 0,
                // One strange answer must not hide what stands behind it; an outage ends it.
                Err(Error::Gateway(error)) if unanswered < UNANSWERED => {
                    unanswered += 1;
                    found.push(unreadable(payment, &error));
                }
                Err(error) => return Err(error),
            }
        }
    }
    for name in [GatewayName::Stripe, GatewayName::Paypal] {
        if let Ok(gateway) = app.gateways.get(name) {
            compare_captures(app, name, gateway, since, &mut found).await?;
        }
    }
    Ok(found)
}

/// What a gateway would not or could not show.
fn unreadable(payment: &Payment, error: &GatewayError) -> Difference {
    Difference {
        kind: DifferenceKind::Unreadable,
        gateway: payment.method.gateway().as_str(),
        payment_id: Some(payment.id),
        object_id: payment.gateway_reference.clone().unwrap_or_default(),
        detail: error.to_string(),
        is_healed: false,
    }
}

/// Compares one payment with its gateway, and books what is safe to book.
pub async fn compare_one(app: &App, id: PaymentId) -> Result<Vec<Difference>, Error> {
    let mut db = app.db.acquire().await?;
    let payment = store::find_by_id(&mut db, id).await?.ok_or(Error::NotFound("payment"))?;
    drop(db);
    let mut found = Vec::new();
    if payment.method.gateway() != GatewayName::Manual && payment.amount.minor > 0 {
        compare_payment(app, &payment, &mut found).await?;
    }
    Ok(found)
}

/// One payment against its gateway.
async fn compare_payment(
    app: &App,
    payment: &Payment,
    found: &mut Vec<Difference>,
) -> Result<(), Error> {
    let gateway = app.gateways.get(payment.method.gateway())?;
    if payment.completed_at.is_none() {
        let after = super::reconcile::ask(app, payment).await;
        return note_asked(payment, after, found);
    }
    let mut db = app.db.acquire().await?;
    let objects = store::objects(&mut db, payment).await?;
    drop(db);
    for object in objects {
        let difference = |kind, detail: String, is_healed| Difference {
            kind,
            gateway: payment.method.gateway().as_str(),
            payment_id: Some(payment.id),
            object_id: object.id.clone(),
            detail,
            is_healed,
        };
        let told = match read(gateway, payment, &object.id).await {
            Ok(told) => told,
            Err(error) if error.is_temporary() => return Err(error.into()),
            Err(error) => {
                found.push(difference(DifferenceKind::Unreadable, error.to_string(), false));
                continue;
            }
        };
        let inner = told.intent.as_deref().unwrap_or(&told);
        match (&object.facts.captured, &inner.facts.captured) {
            (Some(ours), None) if told.intent.is_none() => {
                let detail = format!("we booked {}, the gateway shows no capture", ours.amount);
                found.push(difference(DifferenceKind::GrantedNotPaid, detail, false));
                continue;
            }
            (Some(ours), Some(theirs)) if ours.amount != theirs.amount => {
                let detail = format!("we booked {}, the gateway {}", ours.amount, theirs.amount);
                found.push(difference(DifferenceKind::Amount, detail, false));
                continue;
            }
            (Some(_) | None, _) => {}
        }
        let is_new = object.facts.captured.is_none() && inner.facts.captured.is_some();
        match heard(app, payment, &told).await {
            Ok(_) if is_new && told.intent.is_none() => {
                let detail = "captured a second time; refunded".to_owned();
                found.push(difference(DifferenceKind::PaidNotGranted, detail, true));
            }
            Ok(_) => {}
            Err(error) => {
                found.push(difference(DifferenceKind::Amount, error.to_string(), false));
                continue;
            }
        }
        if let Some(captured) = &object.facts.captured {
            let capture = CaptureRef {
                object_id: Some(object.id.clone()),
                capture_id: captured.capture_id.clone(),
            };
            compare_taken(app, payment, gateway, &capture, found).await?;
        }
    }
    Ok(())
}

/// What asking about an open payment brought to light.
fn note_asked(
    payment: &Payment,
    after: Result<PaymentStatus, Error>,
    found: &mut Vec<Difference>,
) -> Result<(), Error> {
    let difference = |kind, detail: String, is_healed| Difference {
        kind,
        gateway: payment.method.gateway().as_str(),
        payment_id: Some(payment.id),
        object_id: payment.gateway_reference.clone().unwrap_or_default(),
        detail,
        is_healed,
    };
    match after {
        Ok(PaymentStatus::Completed | PaymentStatus::Refunded) => {
            let detail = format!("{} was captured; booked", payment.amount);
            found.push(difference(DifferenceKind::PaidNotGranted, detail, true));
            Ok(())
        }
        Ok(PaymentStatus::Pending | PaymentStatus::Failed | PaymentStatus::Cancelled) => Ok(()),
        Err(Error::Gateway(GatewayError::Malformed(reason))) => {
            found.push(difference(DifferenceKind::Amount, reason, false));
            Ok(())
        }
        Err(Error::Gateway(error)) if !error.is_temporary() => {
            found.push(difference(DifferenceKind::Unreadable, error.to_string(), false));
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Refunds and disputes of one capture.
async fn compare_taken(
    app: &App,
    payment: &Payment,
    gateway: &dyn Gateway,
    capture: &CaptureRef,
    found: &mut Vec<Difference>,
) -> Result<(), Error> {
    let owner = (payment.customer_id, payment.id);
    let now = app.clock.now();
    let before = totals(app, payment).await?;
    let mut mismatch = None;
    for told in gateway.refunds_of(capture).await? {
        let mut tx = app.db.begin().await?;
        let mut settled = settle_refund(&mut tx, owner, &told, now).await?;
        if matches!(settled.verdict, Verdict::Mismatch(_)) {
            // One of two readings is wrong. What a third confirms is booked.
            drop(tx);
            let again = gateway.fetch_refund(&told.id).await?;
            tx = app.db.begin().await?;
            if again.amount == told.amount {
                settled = correct_refund(&mut tx, owner, &again, now).await?;
            }
        }
        match settled.verdict {
            Verdict::Booked(_) => tx.commit().await?,
            Verdict::Waits => {}
            Verdict::Mismatch(reason) => mismatch = Some((DifferenceKind::Refunds, reason)),
        }
        settled.jobs.into_iter().for_each(|job| app.doorbell.ring(job));
    }
    for told in gateway.disputes_of(capture).await? {
        let mut tx = app.db.begin().await?;
        let settled = settle_dispute(&mut tx, owner, &told, now).await?;
        match settled.verdict {
            Verdict::Booked(_) | Verdict::Waits => tx.commit().await?,
            Verdict::Mismatch(reason) => mismatch = Some((DifferenceKind::Disputes, reason)),
        }
    }
    let after = totals(app, payment).await?;
    let mut note = |kind, detail, is_healed| {
        found.push(Difference {
            kind,
            gateway: payment.method.gateway().as_str(),
            payment_id: Some(payment.id),
            object_id: capture.object_id.clone().unwrap_or_default(),
            detail,
            is_healed,
        });
    };
    if before.0 != after.0 {
        let detail = format!("refunded {} there, {} here; booked", after.0, before.0);
        note(DifferenceKind::Refunds, detail, true);
    }
    if before.1 != after.1 {
        let detail = "a dispute that we did not know; booked".to_owned();
        note(DifferenceKind::Disputes, detail, true);
    }
    if let Some((kind, reason)) = mismatch {
        note(kind, reason, false);
    }
    Ok(())
}

/// What is refunded, and what disputes come to.
async fn totals(app: &App, payment: &Payment) -> Result<(i64, (i64, bool)), Error> {
    let mut db = app.db.acquire().await?;
    let reckoned = facts::reckon(&reckon::known(&mut db, payment).await?);
    Ok((reckoned.refunded_minor, (reckoned.lost_minor, reckoned.is_disputed)))
}

/// Money at a gateway against our payments.
async fn compare_captures(
    app: &App,
    name: GatewayName,
    gateway: &dyn Gateway,
    since: DateTime<Utc>,
    found: &mut Vec<Difference>,
) -> Result<(), Error> {
    let until = app.clock.now().max(wall_now()) + Duration::hours(1);
    let span = Span { from: since, until };
    let mut cursor = None;
    loop {
        let page = gateway.captures_since(&span, cursor.as_deref()).await?;
        for theirs in &page.items {
            if let Some(difference) = unknown(app, name, gateway, theirs).await? {
                found.push(difference);
            }
        }
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(()),
        }
    }
}

/// Why a capture is nobody's; `None` if a payment owns it, or could be taught to.
async fn unknown(
    app: &App,
    name: GatewayName,
    gateway: &dyn Gateway,
    theirs: &GatewayCapture,
) -> Result<Option<Difference>, Error> {
    let capture =
        CaptureRef { object_id: theirs.object_id.clone(), capture_id: theirs.capture_id.clone() };
    let id = capture.object_id.clone().or_else(|| capture.capture_id.clone()).unwrap_or_default();
    let difference = |kind, payment_id, detail: String, is_healed| {
        Some(Difference {
            kind,
            gateway: name.as_str(),
            payment_id,
            object_id: id.clone(),
            detail,
            is_healed,
        })
    };
    let mut db = app.db.acquire().await?;
    if owner_of_capture(&mut db, name, &capture).await?.is_some() {
        return Ok(None);
    }
    drop(db);
    if let Some(named) = &theirs.names_payment {
        learn_objects(app, name, named).await?;
    }
    let object_id = match (&capture.object_id, &capture.capture_id) {
        (Some(id), _) => id.clone(),
        (None, Some(capture_id)) => gateway.object_of_capture(capture_id).await?,
        (None, None) => return Ok(None),
    };
    let mut db = app.db.acquire().await?;
    let owner = super::owner_of(&mut db, name, &object_id).await?;
    let Some(owner) = owner else {
        let named = theirs.names_payment.as_deref().unwrap_or("nothing");
        let detail = format!("{} collected; it names {}", theirs.amount, printable(named));
        return Ok(difference(DifferenceKind::Unknown, None, detail, false));
    };
    let payment =
        store::find(&mut db, owner.0, owner.1).await?.ok_or(Error::NotFound("payment"))?;
    drop(db);
    let was_booked = payment.completed_at.is_some();
    let told = gateway.fetch_intent(&object_id).await?;
    match heard(app, &payment, &told).await {
        // Under way: lists show such money, but nothing was captured yet.
        Ok(after) if was_booked || after.completed_at.is_none() => Ok(None),
        Ok(_) => {
            let detail = format!("{} was captured; booked", theirs.amount);
            Ok(difference(DifferenceKind::PaidNotGranted, Some(payment.id), detail, true))
        }
        Err(Error::Gateway(error)) => {
            let kind = DifferenceKind::Amount;
            Ok(difference(kind, Some(payment.id), error.to_string(), false))
        }
        Err(error) => Err(error),
    }
}

/// Text of a stranger's, fit for a terminal.
fn printable(text: &str) -> String {
    text.chars().filter(char::is_ascii_graphic).take(80).collect()
}
