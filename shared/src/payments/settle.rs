//! Adding what a gateway says to what we know, and making the books agree with it.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::purchase::intent_request;
use super::status::{PaymentStatus, merge, status_of};
use super::{Payment, store};
use crate::App;
use crate::customers;
use crate::error::Error;
use crate::gateways::{GatewayName, Object};
use crate::ids::{CustomerId, PaymentId};
use crate::plans;
use crate::subscriptions::{self, Bought};

/// What became of a telling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// The books agree with it.
    Booked(PaymentStatus),
    /// The buyer approved: the capture is ours to make.
    ToCapture,
    /// It contradicts our payment; nothing was changed. For a person to read.
    Mismatch(String),
}

/// Which payment owns an object of a gateway; only ids that we stored or learned are owned.
pub async fn owner_of(
    db: &mut PgConnection,
    gateway: GatewayName,
    object_id: &str,
) -> Result<Option<(CustomerId, PaymentId)>, Error> {
    Ok(store::owner(db, gateway, object_id).await?)
}

/// Books what `object` says of the payment: facts, period and tokens change together.
///
/// Joins the caller's transaction; locks customer, payment, subscription and account in that
/// order. Saying it again changes nothing.
pub async fn settle(
    db: &mut PgConnection,
    owner: (CustomerId, PaymentId),
    object: &Object,
    now: DateTime<Utc>,
) -> Result<Settled, Error> {
    let (customer_id, payment_id) = owner;
    customers::lock(db, customer_id).await?;
    let payment =
        store::lock(db, customer_id, payment_id).await?.ok_or(Error::NotFound("payment"))?;
    if let Some(reason) = mismatch(&payment, object) {
        return Ok(Settled::Mismatch(reason));
    }
    let gateway = payment.method.gateway();
    store::save_object(db, &payment, gateway, &object.id, now).await?;
    let known = store::lock_facts(db, &payment, gateway, &object.id).await?;
    let facts = merge(known, &object.facts);
    store::save_facts(db, &payment, gateway, &object.id, &facts, now).await?;
    if let Some(capture_id) = facts.captured.as_ref().and_then(|it| it.capture_id.as_deref()) {
        store::own(db, gateway, capture_id, &payment, now).await?;
    }
    let all = store::all_facts(db, &payment).await?;
    let status = status_of(&all);
    let failure = facts.failure.as_deref();
    if status == PaymentStatus::Completed && payment.status != PaymentStatus::Completed {
        if payment.status == PaymentStatus::Cancelled {
            tracing::error!(payment.id = %payment.id, "a cancelled payment was captured; granted");
        }
        book_capture(db, &payment, now).await?;
    }
    store::set_status(db, &payment, status, failure, now).await?;
    let is_open = status != PaymentStatus::Completed && !facts.is_processing;
    let is_ours_to_capture = is_open && facts.is_approved && !facts.is_declined;
    Ok(if is_ours_to_capture { Settled::ToCapture } else { Settled::Booked(status) })
}

/// Why an object cannot be this payment's, whatever it names (gateways.md §1.4).
fn mismatch(payment: &Payment, object: &Object) -> Option<String> {
    let ours = payment.amount;
    if !object.is_ours {
        return Some("it is paid to another account or in another mode".to_owned());
    }
    if object.amount.currency != ours.currency {
        return Some(format!("currency is {}, expected {}", object.amount.currency, ours.currency));
    }
    if object.amount != ours {
        return Some(format!("amount is {}, expected {ours}", object.amount));
    }
    if let Some(captured) = object.facts.captured.as_ref().filter(|it| it.amount != ours) {
        return Some(format!("captured is {}, expected {ours}", captured.amount));
    }
    let named = object.names_payment.as_deref();
    if named.is_some_and(|named| named != payment.id.to_string()) {
        return Some("it names another payment".to_owned());
    }
    None
}

/// Gives the customer what a captured payment bought: period and tokens, once.
pub(super) async fn book_capture(
    db: &mut PgConnection,
    payment: &Payment,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let plan = plans::version(db, payment.plan_id, payment.plan_version).await?;
    let bought = Bought { payment_id: payment.id, plan, quantity: payment.quantity };
    let subscription_id = subscriptions::book(db, payment.customer_id, &bought, now).await?;
    store::set_completed(db, payment, subscription_id, now).await
}

/// Stores which object of the gateway may pay this payment.
pub(super) async fn remember_object(
    db: &mut PgConnection,
    payment: &Payment,
    object: &Object,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    customers::lock(db, payment.customer_id).await?;
    let gateway = payment.method.gateway();
    if gateway != GatewayName::Manual {
        store::own(db, gateway, &object.id, payment, now).await?;
    }
    store::save_object(db, payment, gateway, &object.id, now).await?;
    store::set_reference(db, payment, &object.id, now).await
}

/// Learns the gateway's object of a payment whose creation we never saw answered, by asking again
/// with the same key. Only an id so learned is stored; what an event names proves nothing.
pub async fn learn_objects(
    app: &App,
    gateway: GatewayName,
    named_payment: &str,
) -> Result<(), Error> {
    let Ok(id) = named_payment.parse::<PaymentId>() else { return Ok(()) };
    let mut db = app.db.acquire().await?;
    let Some(payment) = store::find_by_id(&mut db, id).await? else { return Ok(()) };
    if payment.gateway_reference.is_some() || payment.method.gateway() != gateway {
        return Ok(());
    }
    let plan = plans::version(&mut db, payment.plan_id, payment.plan_version).await?;
    drop(db);
    let request = intent_request(app, &payment, &plan);
    let object = app.gateways.get(gateway)?.create_intent(&request).await?;
    let mut tx = app.db.begin().await?;
    remember_object(&mut tx, &payment, &object, app.clock.now()).await?;
    tx.commit().await?;
    Ok(())
}
