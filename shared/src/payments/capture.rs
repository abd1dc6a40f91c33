//! Taking the money of an order that the buyer approved.

use super::object::heard;
use super::settle::Owner;
use super::{Payment, PaymentStatus, store};
use crate::App;
use crate::error::Error;
use crate::gateways::{GatewayName, ObjectFacts};
use crate::ids::{CustomerId, PaymentId};

/// Captures what the payer approved, as he says, and books it. May be repeated, also at the same
/// time: PayPal captures once, and the books take each fact once.
pub async fn capture(
    app: &App,
    customer_id: CustomerId,
    payment_id: PaymentId,
) -> Result<PaymentStatus, Error> {
    capture_those(app, (customer_id, payment_id), |_| true).await
}

/// The same for those objects only that are known as approved and not declined since: what a job
/// does, which may be late.
pub async fn capture_approved(
    app: &App,
    customer_id: CustomerId,
    payment_id: PaymentId,
) -> Result<PaymentStatus, Error> {
    capture_those(app, (customer_id, payment_id), |facts| facts.is_approved).await
}

async fn capture_those(
    app: &App,
    (customer_id, payment_id): Owner,
    is_wanted: impl Fn(&ObjectFacts) -> bool,
) -> Result<PaymentStatus, Error> {
    let mut db = app.db.acquire().await?;
    let mut payment =
        store::find(&mut db, customer_id, payment_id).await?.ok_or(Error::NotFound("payment"))?;
    let objects = store::objects(&mut db, &payment).await?;
    drop(db);
    if payment.method.gateway() == GatewayName::Manual {
        return Err(Error::Conflict("an operator books this payment by hand".to_owned()));
    }
    if payment.gateway_reference.is_none() {
        return Err(Error::Conflict("the payment was never opened at its gateway".to_owned()));
    }
    for object in objects {
        let is_done = payment.completed_at.is_some();
        let is_open = !object.facts.is_voided && object.facts.captured.is_none();
        if is_done || !is_open || !is_wanted(&object.facts) {
            continue;
        }
        payment = capture_object(app, &payment, &object.id).await?;
    }
    Ok(payment.status)
}

/// One object's capture. What is definitely declined gets a new key the next time.
async fn capture_object(app: &App, payment: &Payment, object_id: &str) -> Result<Payment, Error> {
    let mut db = app.db.acquire().await?;
    let attempt = store::capture_attempt(&mut db, payment, object_id).await?;
    drop(db);
    let gateway = app.gateways.get(payment.method.gateway())?;
    let object = gateway.capture(object_id, payment.id, attempt).await?;
    if object.facts.is_declined && object.facts.captured.is_none() {
        let mut db = app.db.acquire().await?;
        store::count_declined_capture(&mut db, payment, object_id, attempt).await?;
    }
    heard(app, payment, &object).await
}
