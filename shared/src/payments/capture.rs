//! Taking the money of an order that the buyer approved.

use super::settle::{Settled, settle};
use super::{PaymentStatus, store};
use crate::App;
use crate::error::Error;
use crate::ids::{CustomerId, PaymentId};

/// Captures the payment's approved order and books it. May be repeated, also at the same time:
/// PayPal captures once, and the books take each fact once.
pub async fn capture(
    app: &App,
    customer_id: CustomerId,
    payment_id: PaymentId,
) -> Result<PaymentStatus, Error> {
    let mut db = app.db.acquire().await?;
    let payment =
        store::find(&mut db, customer_id, payment_id).await?.ok_or(Error::NotFound("payment"))?;
    drop(db);
    let Some(reference) = payment.gateway_reference.as_deref() else {
        return Err(Error::Conflict("the payment was never opened at its gateway".to_owned()));
    };
    if payment.status == PaymentStatus::Completed {
        return Ok(payment.status);
    }
    let gateway = app.gateways.get(payment.method.gateway())?;
    let object = gateway.capture(reference, payment_id, 0).await?;
    let mut tx = app.db.begin().await?;
    let settled = settle(&mut tx, (customer_id, payment_id), &object, app.clock.now()).await?;
    tx.commit().await?;
    match settled {
        Settled::Booked(status) => Ok(status),
        Settled::ToCapture => Ok(PaymentStatus::Pending),
        Settled::Mismatch(reason) => {
            tracing::error!(payment.id = %payment_id, reason, "capture does not fit its payment");
            Err(Error::Conflict("the gateway's answer does not fit this payment".to_owned()))
        }
    }
}

/// Captures the order that a browser brought back from PayPal.
pub async fn capture_order(app: &App, order_id: &str) -> Result<PaymentStatus, Error> {
    let redirect = super::redirect_of(app, order_id).await?;
    capture(app, redirect.customer_id, redirect.payment_id).await
}
