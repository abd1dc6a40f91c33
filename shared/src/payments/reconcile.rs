//! Asking the gateway about payments whose webhooks may have been lost.

use chrono::{DateTime, Duration, Utc};

use super::object::{heard, read};
use super::{Payment, PaymentStatus, cancel, capture_approved, charge, learn, store};
use crate::App;
use crate::error::Error;
use crate::gateways::GatewayName;
use crate::ids::{CustomerId, PaymentId};

/// A payment is first asked about after this time: before, its webhook is on the way.
pub(super) const FIRST_CHECK: Duration = Duration::minutes(3);

/// The longest time between two questions.
const SLOWEST_CHECK: Duration = Duration::hours(1);

/// A payment that nobody paid is cancelled after this time (rules.md).
const PENDING_LIFETIME: Duration = Duration::hours(24);

/// A manual one after this: transfers take days.
const MANUAL_LIFETIME: Duration = Duration::days(30);

/// Asks the gateway how a payment stands and books the answer; cancels what nobody paid in its
/// time. May be repeated.
///
/// A gateway that does not answer is asked again later: the next time stands in the row before it
/// is asked.
pub async fn check(app: &App, customer_id: CustomerId, id: PaymentId) -> Result<(), Error> {
    let now = app.clock.now();
    let mut db = app.db.acquire().await?;
    let Some(payment) = store::find(&mut db, customer_id, id).await? else { return Ok(()) };
    let objects = store::objects(&mut db, &payment).await?;
    let is_under_way = objects.iter().any(|object| object.facts.is_processing);
    let next = next_check(&payment, is_under_way, now);
    store::set_next_check(&mut db, &payment, next).await?;
    drop(db);
    if payment.completed_at.is_some() {
        return Ok(());
    }
    let asked = ask(app, &payment).await;
    let is_over = now - payment.created_at >= lifetime(&payment);
    let is_mine_to_cancel = payment.status == PaymentStatus::Pending && is_over;
    match asked {
        Ok(PaymentStatus::Pending) if is_mine_to_cancel => cancel_unpaid(app, &payment).await,
        Ok(_) => Ok(()),
        Err(Error::Gateway(error)) => {
            tracing::warn!(payment.id = %id, %error, "gateway not answered; asked again later");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Money that is under way is left alone: it neither fails nor expires.
async fn cancel_unpaid(app: &App, payment: &Payment) -> Result<(), Error> {
    match cancel(app, payment.customer_id, payment.id).await {
        Ok(_) | Err(Error::Conflict(_)) => Ok(()),
        Err(Error::Gateway(error)) => {
            tracing::warn!(payment.id = %payment.id, %error, "not cancelled; tried again later");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn lifetime(payment: &Payment) -> Duration {
    match payment.method.gateway() {
        GatewayName::Stripe | GatewayName::Paypal => PENDING_LIFETIME,
        GatewayName::Manual => MANUAL_LIFETIME,
    }
}

/// Twice as long each time, an hour at most; a declined one is left after its lifetime, unless
/// money is under way.
fn next_check(payment: &Payment, is_under_way: bool, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let is_open = match payment.status {
        PaymentStatus::Pending => true,
        PaymentStatus::Failed => is_under_way || now - payment.created_at < lifetime(payment),
        PaymentStatus::Cancelled => {
            is_paypal(payment) && now - payment.created_at < lifetime(payment)
        }
        PaymentStatus::Completed | PaymentStatus::Refunded => false,
    };
    let doublings = u32::try_from(payment.checks).unwrap_or(0).min(5);
    let wait = (FIRST_CHECK * 2_i32.pow(doublings)).min(SLOWEST_CHECK);
    is_open.then(|| now + wait)
}

/// PayPal's orders cannot be voided: one that we marked so may be captured all the same, by a call
/// of ours that was under way.
fn is_paypal(payment: &Payment) -> bool {
    payment.method.gateway() == GatewayName::Paypal
}

/// Reads every object of the payment that may still change, and books what it says.
pub(super) async fn ask(app: &App, payment: &Payment) -> Result<PaymentStatus, Error> {
    if payment.method.gateway() == GatewayName::Manual {
        return Ok(payment.status);
    }
    if payment.charged_method.is_some() && payment.gateway_reference.is_none() {
        return Ok(charge::ask(app, payment).await?.0);
    }
    if payment.gateway_reference.is_none() {
        learn::learn(app, payment).await?;
    }
    let mut db = app.db.acquire().await?;
    let objects = store::objects(&mut db, payment).await?;
    drop(db);
    let gateway = app.gateways.get(payment.method.gateway())?;
    let mut after = payment.clone();
    let may_change = |voided: bool| !voided || is_paypal(payment);
    for object in objects.iter().filter(|object| may_change(object.facts.is_voided)) {
        let read = read(gateway, payment, &object.id).await?;
        after = heard(app, payment, &read).await?;
        if read.facts.is_approved {
            after.status = capture_approved(app, payment.customer_id, payment.id).await?;
        }
    }
    Ok(after.status)
}
