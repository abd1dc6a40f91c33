//! Browsers that PayPal sends back: they have no token, and prove nothing.

use chrono::Duration;

use super::redirect::{Redirect, redirect_of};
use super::{PaymentStatus, cancel, capture, object, store};
use crate::App;
use crate::clock::wall_now;
use crate::error::Error;

/// A payment's gateway is asked for such browsers once in this time.
const QUIET: Duration = Duration::seconds(5);

/// Captures the order that a browser brought back from approving. Who comes too soon after another
/// is told how the payment stands.
pub async fn capture_order(app: &App, order_id: &str) -> Result<PaymentStatus, Error> {
    let redirect = redirect_of(app, order_id).await?;
    if take_turn(app, &redirect).await? {
        capture(app, redirect.customer_id, redirect.payment_id).await
    } else {
        standing(app, &redirect).await
    }
}

/// Cancels the payment of an order whose payer went back without approving it. PayPal is asked
/// first: an order that was approved meanwhile is left to its capture.
pub async fn cancel_order(app: &App, order_id: &str) -> Result<PaymentStatus, Error> {
    let redirect = redirect_of(app, order_id).await?;
    if !take_turn(app, &redirect).await? {
        return standing(app, &redirect).await;
    }
    let mut db = app.db.acquire().await?;
    let payment = store::find(&mut db, redirect.customer_id, redirect.payment_id).await?;
    let payment = payment.ok_or(Error::NotFound("payment"))?;
    drop(db);
    let gateway = app.gateways.get(payment.method.gateway())?;
    let order = object::read(gateway, &payment, order_id).await?;
    if order.facts.is_approved || order.facts.captured.is_some() || order.facts.is_processing {
        return Ok(object::heard(app, &payment, &order).await?.status);
    }
    cancel(app, redirect.customer_id, redirect.payment_id).await
}

async fn take_turn(app: &App, redirect: &Redirect) -> Result<bool, Error> {
    let now = wall_now();
    let mut db = app.db.acquire().await?;
    let of = (redirect.customer_id, redirect.payment_id);
    Ok(store::visit(&mut db, of.0, of.1, now, now - QUIET).await?)
}

async fn standing(app: &App, redirect: &Redirect) -> Result<PaymentStatus, Error> {
    let mut db = app.db.acquire().await?;
    let payment = store::find(&mut db, redirect.customer_id, redirect.payment_id).await?;
    Ok(payment.ok_or(Error::NotFound("payment"))?.status)
}
