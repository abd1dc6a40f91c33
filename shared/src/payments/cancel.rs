//! Cancelling a payment: at the gateway first, here after.

use super::learn::learn;
use super::object::{heard, manual_object};
use super::{Payment, PaymentStatus, store};
use crate::App;
use crate::error::Error;
use crate::gateways::{GatewayName, ObjectFacts};
use crate::ids::{CustomerId, PaymentId};

/// Cancels a payment that nobody has paid.
///
/// Refused with a conflict while money is under way, and where the payer was quicker: then the
/// payment is completed. May be repeated.
pub async fn cancel(
    app: &App,
    customer_id: CustomerId,
    payment_id: PaymentId,
) -> Result<PaymentStatus, Error> {
    let mut db = app.db.acquire().await?;
    let mut payment =
        store::find(&mut db, customer_id, payment_id).await?.ok_or(Error::NotFound("payment"))?;
    let mut objects = store::objects(&mut db, &payment).await?;
    drop(db);
    if payment.status == PaymentStatus::Cancelled {
        return Ok(payment.status);
    }
    refuse_paid(&payment)?;
    if objects.iter().any(|object| object.facts.is_processing) {
        return Err(under_way());
    }
    if objects.is_empty() {
        // Its creation was never answered: what may stand at the gateway must be known first.
        learn(app, &payment).await?;
        let mut db = app.db.acquire().await?;
        objects = store::objects(&mut db, &payment).await?;
    }
    for object in objects.iter().filter(|object| !object.facts.is_voided) {
        payment = cancel_object(app, &payment, &object.id).await?;
        refuse_paid(&payment)?;
    }
    match payment.status {
        PaymentStatus::Cancelled => Ok(payment.status),
        PaymentStatus::Pending
        | PaymentStatus::Failed
        | PaymentStatus::Completed
        | PaymentStatus::Refunded => Err(under_way()),
    }
}

async fn cancel_object(app: &App, payment: &Payment, object_id: &str) -> Result<Payment, Error> {
    let name = payment.method.gateway();
    let object = if name == GatewayName::Manual {
        manual_object(payment, ObjectFacts { is_voided: true, ..ObjectFacts::default() })
    } else {
        app.gateways.get(name)?.cancel_intent(object_id, payment.id).await?
    };
    heard(app, payment, &object).await
}

fn under_way() -> Error {
    Error::Conflict("the payment is under way and cannot be cancelled now".to_owned())
}

fn refuse_paid(payment: &Payment) -> Result<(), Error> {
    match payment.status {
        PaymentStatus::Pending | PaymentStatus::Failed | PaymentStatus::Cancelled => Ok(()),
        PaymentStatus::Completed | PaymentStatus::Refunded => {
            Err(Error::Conflict("the payment was paid: it can only be refunded".to_owned()))
        }
    }
}
