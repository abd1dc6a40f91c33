//! Buying a plan: a pending payment, and the gateway's object to pay it.

use chrono::{DateTime, Duration, Utc};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use super::object::ready;
use super::reckon::book_capture;
use super::redirect::checked;
use super::{Payment, PaymentMethod, PaymentStatus, reconcile, store};
use crate::App;
use crate::customers::{self, Identity};
use crate::error::Error;
use crate::gateways::{Form, Next};
use crate::ids::PaymentId;
use crate::plans::{self, Plan};
use crate::subscriptions;

/// A wish to buy.
#[derive(Debug, Clone)]
pub struct Purchase {
    /// Who buys.
    pub customer: Identity,
    /// The plan.
    pub plan_id: i32,
    /// How he pays.
    pub method: PaymentMethod,
    /// Where he finishes it.
    pub form: Form,
    /// How many; more than one for packs only.
    pub quantity: u32,
    /// Where his browser goes after paying; an allow-listed origin.
    pub success_url: Option<String>,
    /// Where it goes after cancelling; an allow-listed origin.
    pub cancel_url: Option<String>,
    /// A coupon's code.
    pub coupon: Option<String>,
    /// The caller's key: it stands for one payment, however often it comes.
    pub key: Option<String>,
}

/// A payment that waits for its payer, or that was free.
#[derive(Debug, Clone)]
pub struct Purchased {
    /// The payment.
    pub payment: Payment,
    /// How the payer goes on.
    pub next: Next,
    /// Whether the wish's key had been answered before.
    pub is_replay: bool,
}

/// A second wish of the same kind within this time is answered with the same payment.
const SAME_PURCHASE: Duration = Duration::hours(1);

/// Opens a payment, or finds the pending one of the same kind, and the gateway's object for it.
///
/// The row is committed before the gateway hears of it. May be repeated after any error, with or
/// without a key: the payment's id is the key at the gateway, so nobody is charged twice.
pub async fn purchase(app: &App, wish: &Purchase) -> Result<Purchased, Error> {
    let mut db = app.db.acquire().await?;
    let known = keyed(&mut db, wish).await?;
    drop(db);
    if let Some(payment) = known {
        return go_on(app, payment, wish).await;
    }
    let plan = plans::sold(app, wish.plan_id).await?;
    check(app, wish, &plan)?;
    match open(app, wish, &plan).await? {
        Opened::New(payment) => finish(app, payment, &plan, wish.form).await,
        Opened::Known(payment) => go_on(app, payment, wish).await,
    }
}

/// Goes on with the payment that the wish's key stands for, on the terms it was opened with.
async fn go_on(app: &App, payment: Payment, wish: &Purchase) -> Result<Purchased, Error> {
    let was_answered = payment.gateway_reference.is_some() || payment.amount.minor == 0;
    let mut db = app.db.acquire().await?;
    let plan = plans::version(&mut db, payment.plan_id, payment.plan_version).await?;
    drop(db);
    let purchased = finish(app, payment, &plan, wish.form).await?;
    Ok(Purchased { is_replay: was_answered, ..purchased })
}

/// Makes the payment ready for its payer, where it still needs one.
async fn finish(app: &App, payment: Payment, plan: &Plan, form: Form) -> Result<Purchased, Error> {
    match payment.status {
        PaymentStatus::Completed | PaymentStatus::Refunded | PaymentStatus::Cancelled => {
            Ok(Purchased { payment, next: Next::Nothing, is_replay: false })
        }
        PaymentStatus::Pending | PaymentStatus::Failed => {
            let ready = ready(app, payment, plan, form).await?;
            Ok(Purchased { payment: ready.payment, next: ready.next, is_replay: false })
        }
    }
}

/// Who calls; keys of other callers are other keys.
const PRINCIPAL: &str = "customer";

/// A key as it is stored: one of another route is another key.
fn stored(key: &str) -> String {
    format!("purchase:{key}")
}

/// The payment that the wish's key stands for, if any; a key that came with another request is
/// refused.
async fn keyed(db: &mut PgConnection, wish: &Purchase) -> Result<Option<Payment>, Error> {
    let Some(key) = &wish.key else { return Ok(None) };
    let named = (wish.customer.id, PRINCIPAL, stored(key));
    let Some((payment_id, request)) = store::keyed(db, &named).await? else { return Ok(None) };
    if request != digest(wish) {
        return Err(Error::IdempotencyMismatch);
    }
    Ok(store::find(db, wish.customer.id, payment_id).await?)
}

/// What makes two requests the same one.
fn digest(wish: &Purchase) -> Vec<u8> {
    let Purchase {
        customer: _,
        plan_id,
        method,
        form,
        quantity,
        success_url,
        cancel_url,
        coupon,
        key: _,
    } = wish;
    // Every member's debug form is quoted or a number: no two wishes are written alike.
    let text = format!(
        "{plan_id} {method:?} {form:?} {quantity} {success_url:?} {cancel_url:?} {coupon:?}"
    );
    Sha256::digest(text).to_vec()
}

/// A wish's payment.
enum Opened {
    New(Payment),
    /// The wish's key stands for it already.
    Known(Payment),
}

fn check(app: &App, wish: &Purchase, plan: &Plan) -> Result<(), Error> {
    if wish.coupon.is_some() {
        // No coupon exists yet, so none can be used.
        return Err(Error::InvalidCoupon);
    }
    if !(1..=100).contains(&wish.quantity) {
        return Err(Error::invalid("quantity", "must be 1 to 100"));
    }
    if wish.quantity > 1 && plan.duration_days.is_some() {
        return Err(Error::invalid("quantity", "more than one is for packs only"));
    }
    checked(&app.config, "success_url", wish.success_url.as_deref())?;
    checked(&app.config, "cancel_url", wish.cancel_url.as_deref())
}

/// The pending payment of this wish, made or found under the customer's lock.
async fn open(app: &App, wish: &Purchase, plan: &Plan) -> Result<Opened, Error> {
    let now = app.clock.now();
    let payment = drafted(app, wish, plan, now)?;
    let mut tx = app.db.begin().await?;
    customers::ensure_locked(&mut tx, &wish.customer, now).await?;
    if let Some(known) = keyed(&mut tx, wish).await? {
        return Ok(Opened::Known(known));
    }
    if let Some(pending) = store::find_same(&mut tx, &payment, now - SAME_PURCHASE).await? {
        remember_key(&mut tx, wish, &pending, now).await?;
        tx.commit().await?;
        return Ok(Opened::New(pending));
    }
    refuse_unplaceable(&mut tx, &payment, plan, now).await?;
    let is_free = payment.amount.minor == 0;
    let next_check = (!is_free).then(|| now + reconcile::FIRST_CHECK);
    store::insert(&mut tx, &payment, next_check).await?;
    remember_key(&mut tx, wish, &payment, now).await?;
    if is_free {
        let subscription_id = book_capture(&mut tx, &payment, now).await?;
        store::set_captured(&mut tx, &payment, Some(subscription_id), now).await?;
        store::set_given(&mut tx, &payment, now).await?;
    }
    tx.commit().await?;
    let status = if is_free { PaymentStatus::Completed } else { PaymentStatus::Pending };
    Ok(Opened::New(Payment { status, ..payment }))
}

async fn remember_key(
    db: &mut PgConnection,
    wish: &Purchase,
    payment: &Payment,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let Some(key) = &wish.key else { return Ok(()) };
    let named = (wish.customer.id, PRINCIPAL, stored(key));
    Ok(store::insert_key(db, &named, payment.id, &digest(wish), now).await?)
}

/// The payment that is wished for.
fn drafted(app: &App, wish: &Purchase, plan: &Plan, now: DateTime<Utc>) -> Result<Payment, Error> {
    let price = plan.price.times(wish.quantity);
    let amount = price.ok_or_else(|| Error::invalid("quantity", "the amount is too large"))?;
    Ok(Payment {
        customer_id: wish.customer.id,
        id: PaymentId::new(now),
        plan_id: plan.id,
        plan_version: plan.version,
        quantity: wish.quantity,
        amount,
        method: wish.method,
        status: PaymentStatus::Pending,
        gateway_reference: None,
        form: wish.form,
        object_attempt: 0,
        gateway_customer: None,
        charged_method: None,
        success_url: wish.success_url.clone(),
        cancel_url: wish.cancel_url.clone(),
        subscription_id: None,
        completed_at: None,
        cancelled_at: None,
        refunds_late: app.config.refunds_late,
        checks: 0,
        created_at: now,
    })
}

/// Refuses before any money moves what could not be booked as its buyer expects.
async fn refuse_unplaceable(
    db: &mut PgConnection,
    payment: &Payment,
    plan: &Plan,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    if payment.amount.minor == 0 && store::was_given(db, payment).await? {
        return Err(Error::AlreadySubscribed);
    }
    let view = match subscriptions::view_in(db, payment.customer_id, now).await {
        Ok(view) => view,
        Err(Error::NoSubscription) => return Ok(()),
        Err(error) => return Err(error),
    };
    let is_period_behind = view.is_active && view.ends_at.is_some() && plan.duration_days.is_some();
    if payment.amount.minor == 0 && is_period_behind {
        return Err(Error::AlreadySubscribed);
    }
    let is_other_period = view.is_active
        && view.ends_at.is_some()
        && plan.duration_days.is_some()
        && view.plan.id != plan.id;
    if is_other_period && is_dearer(plan, &view.plan) {
        return Err(Error::Conflict(format!(
            "{} runs: an upgrade needs proration, which is not offered yet",
            view.plan.name
        )));
    }
    Ok(())
}

/// Whether a day of `plan` costs more than a day of `than`.
fn is_dearer(plan: &Plan, than: &Plan) -> bool {
    let days = |plan: &Plan| i128::from(plan.duration_days.unwrap_or(1));
    let ours = i128::from(plan.price.minor) * days(than);
    ours > i128::from(than.price.minor) * days(plan)
}
