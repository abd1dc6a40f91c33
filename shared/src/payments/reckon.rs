//! Making the books agree with the facts: what they entitle to less what was booked.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::facts::{self, Known, OwnCapture, Reckoning};
use super::refund::Refund;
use super::status::PaymentStatus;
use super::{Payment, RefundChoice, RefundOrigin, store};
use crate::error::Error;
use crate::gateways::{GatewayName, RefundStatus};
use crate::ids::RefundId;
use crate::jobs::Job;
use crate::plans;
use crate::subscriptions::{self, Bought};
use crate::tokens::{self, Entitlement};

/// What the books say after a reckoning.
#[derive(Debug, Clone)]
pub(super) struct Reckoned {
    /// Where the payment stands.
    pub(super) status: PaymentStatus,
    /// Refunds to send, to ring for after the commit.
    pub(super) jobs: Vec<Job>,
}

/// Everything known of a payment under its lock.
pub(super) async fn known(db: &mut PgConnection, payment: &Payment) -> Result<Known, Error> {
    let objects = store::objects(db, payment).await?;
    let refunds = store::refunds::of_payment(db, payment).await?;
    let disputes = store::disputes::of_payment(db, payment).await?;
    Ok(Known { objects, refunds: refunds.iter().map(Refund::known).collect(), disputes })
}

/// Books the difference between what the payment's facts entitle to and what was booked.
///
/// Joins the caller's transaction, which holds the customer's and the payment's lock. Doing it
/// again changes nothing.
pub(super) async fn reckon(
    db: &mut PgConnection,
    payment: &Payment,
    now: DateTime<Utc>,
) -> Result<Reckoned, Error> {
    let mut jobs = refuse_late(db, payment, now).await?;
    let known = known(db, payment).await?;
    let reckoned = facts::reckon(&known);
    jobs.extend(refund_surplus(db, payment, &known, &reckoned, now).await?);
    if let Some(own) = &reckoned.capture {
        book(db, payment, own, &reckoned, now).await?;
    }
    let was_open = payment.status == PaymentStatus::Pending;
    if was_open && reckoned.status == PaymentStatus::Failed {
        renewal_declined(db, payment, now).await?;
    }
    let failed = known.objects.iter().rev().map(|object| &object.facts);
    let failed = failed.into_iter().find(|facts| facts.failure.is_some());
    let failure = failed.filter(|_| reckoned.capture.is_none());
    let failure = (
        failure.and_then(|facts| facts.failure.as_deref()),
        failure.and_then(|facts| facts.failure_code.as_deref()),
    );
    store::save_reckoning(db, payment, &reckoned, failure, now).await?;
    Ok(Reckoned { status: reckoned.status, jobs })
}

/// A charge while the customer is away was declined: his subscription is past due.
///
/// To be called when the payment fails, not when that is told again: he may have paid otherwise
/// meanwhile. A pack is no renewal.
pub(super) async fn renewal_declined(
    db: &mut PgConnection,
    payment: &Payment,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let plan = plans::version(db, payment.plan_id, payment.plan_version).await?;
    if payment.charged_method.is_none() || plan.duration_days.is_none() {
        return Ok(());
    }
    subscriptions::mark_past_due(db, payment.customer_id, now).await
}

/// Gives what was captured, and takes back what is gone.
async fn book(
    db: &mut PgConnection,
    payment: &Payment,
    own: &OwnCapture,
    reckoned: &Reckoning,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let mut subscription_id = payment.subscription_id;
    if subscription_id.is_none() && !reckoned.is_forfeited() {
        subscription_id = Some(book_capture(db, payment, now).await?);
    }
    store::set_captured(db, payment, subscription_id, now).await?;
    if subscription_id.is_none() {
        return Ok(());
    }
    let entitlement = Entitlement {
        payment_id: payment.id,
        captured_minor: own.captured.amount.minor,
        gone_minor: reckoned.gone_minor,
        gone_unused_only_minor: reckoned.gone_unused_only_minor,
        is_frozen: reckoned.is_disputed,
    };
    let why = format!("payment {}", payment.id);
    let adapted = tokens::adapt(db, payment.customer_id, &entitlement, &why, now).await?;
    let of = (payment.customer_id, payment.id);
    if let Some(frozen) = adapted.thawed_after.filter(|_| !reckoned.is_forfeited()) {
        subscriptions::prolong(db, of, frozen, now).await?;
    }
    if reckoned.is_forfeited() {
        subscriptions::end_paid(db, of, now).await
    } else {
        subscriptions::restore_paid(db, of, now).await
    }
}

/// Gives the customer what a captured payment bought: period and tokens, once.
pub(super) async fn book_capture(
    db: &mut PgConnection,
    payment: &Payment,
    now: DateTime<Utc>,
) -> Result<crate::ids::SubscriptionId, Error> {
    let plan = plans::version(db, payment.plan_id, payment.plan_version).await?;
    let bought = Bought { payment_id: payment.id, plan, quantity: payment.quantity };
    subscriptions::book(db, payment.customer_id, &bought, now).await
}

/// Sends back each capture too many, once: the payer's bank was charged twice for one payment.
async fn refund_surplus(
    db: &mut PgConnection,
    payment: &Payment,
    known: &Known,
    reckoned: &Reckoning,
    now: DateTime<Utc>,
) -> Result<Vec<Job>, Error> {
    let mut jobs = Vec::new();
    for own in &reckoned.surplus {
        // One whose refund failed is an operator's to send back.
        let mut of = known.refunds.iter().filter(|refund| refund.object_id == own.object_id);
        if of.any(|refund| refund.origin == RefundOrigin::Automatic) {
            continue;
        }
        let rest = facts::rest_minor(known, &own.object_id, own.captured.amount.minor);
        if rest <= 0 {
            continue;
        }
        tracing::error!(payment.id = %payment.id, object = own.object_id, "captured twice; refunded");
        let why = "captured twice for one payment";
        jobs.push(refund_whole(db, payment, (&own.object_id, rest), why, now).await?);
    }
    Ok(jobs)
}

/// Sends back the money of a cancelled payment that was captured after all, where the customer
/// has bought the same again meanwhile, or where the operator wants it always.
async fn refuse_late(
    db: &mut PgConnection,
    payment: &Payment,
    now: DateTime<Utc>,
) -> Result<Vec<Job>, Error> {
    let is_by_hand = payment.method.gateway() == GatewayName::Manual;
    let is_first = payment.completed_at.is_none() && !is_by_hand;
    let Some(cancelled_at) = payment.cancelled_at.filter(|_| is_first) else {
        return Ok(Vec::new());
    };
    let known = known(db, payment).await?;
    let reckoned = facts::reckon(&known);
    let Some(own) = reckoned.capture.as_ref().filter(|_| known.refunds.is_empty()) else {
        return Ok(Vec::new());
    };
    let is_unwanted =
        payment.refunds_late || store::was_bought_again(db, payment, cancelled_at).await?;
    if !is_unwanted {
        tracing::error!(payment.id = %payment.id, "a cancelled payment was captured; granted");
        return Ok(Vec::new());
    }
    tracing::error!(payment.id = %payment.id, "a cancelled payment was captured; refunded");
    let whole = (own.object_id.as_str(), own.captured.amount.minor);
    let why = "captured after it was cancelled";
    Ok(vec![refund_whole(db, payment, whole, why, now).await?])
}

/// Inserts a refund of our own making; sending it is a job's work.
async fn refund_whole(
    db: &mut PgConnection,
    payment: &Payment,
    (object_id, amount_minor): (&str, i64),
    why: &str,
    now: DateTime<Utc>,
) -> Result<Job, Error> {
    let refund = Refund {
        customer_id: payment.customer_id,
        id: RefundId::new(now),
        payment_id: payment.id,
        gateway: payment.method.gateway(),
        object_id: object_id.to_owned(),
        gateway_refund_id: None,
        amount_minor,
        choice: RefundChoice::Proportional,
        origin: RefundOrigin::Automatic,
        status: RefundStatus::Pending,
        failure_code: None,
        reason: why.to_owned(),
        requested_by: "system".to_owned(),
        attempts: 0,
        created_at: now,
    };
    assert_ne!(refund.gateway, GatewayName::Manual, "a manual payment has one object only");
    store::refunds::insert(db, &refund, Some(now)).await?;
    Ok(Job::SendRefund { customer_id: refund.customer_id, refund_id: refund.id, attempt: 0 })
}
