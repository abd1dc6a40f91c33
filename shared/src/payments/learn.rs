//! Learning which gateway objects are a payment's, by our own asking only.

use super::object::{intent_request, on_record};
use super::reckon::reckon;
use super::settle::lock;
use super::{Payment, PaymentStatus, charge, store};
use crate::App;
use crate::error::Error;
use crate::gateways::{GatewayName, Object};
use crate::ids::PaymentId;
use crate::plans;

/// Stores which object of the gateway may pay this payment; false if it is not the newest: another
/// caller has made room for another one meanwhile.
pub(super) async fn remember_object(
    app: &App,
    payment: &Payment,
    object: &Object,
) -> Result<bool, Error> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    let locked = lock(&mut tx, (payment.customer_id, payment.id)).await?;
    let gateway = payment.method.gateway();
    for object in std::iter::once(object).chain(object.intent.as_deref()) {
        if gateway != GatewayName::Manual {
            store::own(&mut tx, gateway, &object.id, payment, now).await?;
        }
        store::save_object(&mut tx, payment, gateway, &object.id, now).await?;
    }
    let is_newest = locked.object_attempt == payment.object_attempt;
    if is_newest {
        store::set_reference(&mut tx, payment, &object.id, now).await?;
    }
    // Where the last object was cancelled to make room for this one, the payment is open again.
    let reckoned = reckon(&mut tx, &locked, now).await?;
    tx.commit().await?;
    reckoned.jobs.into_iter().for_each(|job| app.doorbell.ring(job));
    Ok(is_newest)
}

/// Learns the objects of the payment that an event names: those of a creation that we never saw
/// answered, by asking again with the same key, and the intent of a hosted page of ours, by
/// reading the page. Only an id so learned is stored; what an event names proves nothing.
pub async fn learn_objects(
    app: &App,
    gateway: GatewayName,
    named_payment: &str,
) -> Result<(), Error> {
    let Ok(id) = named_payment.parse::<PaymentId>() else { return Ok(()) };
    let mut db = app.db.acquire().await?;
    let Some(payment) = store::find_by_id(&mut db, id).await? else { return Ok(()) };
    drop(db);
    if payment.method.gateway() != gateway {
        return Ok(());
    }
    learn(app, &payment).await.map(drop)
}

/// The object of a payment, read anew or opened with the same key as before.
pub(super) async fn learn(app: &App, payment: &Payment) -> Result<Option<Object>, Error> {
    let gateway = app.gateways.get(payment.method.gateway())?;
    let is_open = matches!(payment.status, PaymentStatus::Pending | PaymentStatus::Failed);
    let object = match payment.gateway_reference.as_deref() {
        Some(id) => gateway.fetch_intent(id).await?,
        None if !is_open => return Ok(None),
        None if payment.charged_method.is_some() => {
            charge::ask(app, payment).await?;
            return Ok(None);
        }
        None => {
            let mut db = app.db.acquire().await?;
            let plan = plans::version(&mut db, payment.plan_id, payment.plan_version).await?;
            drop(db);
            let payment = on_record(app, payment.clone(), &plan).await?;
            gateway.create_intent(&intent_request(app, &payment, &plan)).await?
        }
    };
    remember_object(app, payment, &object).await?;
    Ok(Some(object))
}
