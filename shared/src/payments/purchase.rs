//! Buying a plan: a pending payment, and the gateway's object to pay it.

use chrono::{DateTime, Duration, Utc};
use sqlx::PgConnection;

use super::object::{ready, saves_method};
use super::reckon::book_capture;
use super::redirect::checked;
use super::{Payment, PaymentMethod, PaymentStatus, reconcile, store};
use crate::App;
use crate::customers::{self, Identity};
use crate::error::Error;
use crate::gateways::{Form, GatewayName, Next};
use crate::ids::PaymentId;
use crate::methods;
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
}

/// A payment that waits for its payer, or that was free.
#[derive(Debug, Clone)]
pub struct Purchased {
    /// The payment.
    pub payment: Payment,
    /// How the payer goes on.
    pub next: Next,
}

/// A second wish of the same kind within this time is answered with the same payment.
const SAME_PURCHASE: Duration = Duration::hours(1);

/// Opens a payment, or finds the pending one of the same kind, and the gateway's object for it.
///
/// May be repeated after any error: the payment's id is the key at the gateway, so nobody is
/// charged twice.
pub async fn purchase(app: &App, wish: &Purchase) -> Result<Purchased, Error> {
    let plan = plans::sold(app, wish.plan_id).await?;
    check(app, wish, &plan)?;
    let gateway = wish.method.gateway();
    let gateway_customer = match gateway {
        GatewayName::Stripe if saves_method(app, gateway, &plan) && plan.price.minor > 0 => {
            Some(methods::gateway_customer(app, &wish.customer, gateway).await?)
        }
        GatewayName::Stripe | GatewayName::Paypal | GatewayName::Manual => None,
    };
    let payment = open(app, wish, &plan, gateway_customer).await?;
    if payment.status == PaymentStatus::Completed {
        return Ok(Purchased { payment, next: Next::Nothing });
    }
    let ready = ready(app, payment, &plan, wish.form).await?;
    Ok(Purchased { payment: ready.payment, next: ready.next })
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
async fn open(
    app: &App,
    wish: &Purchase,
    plan: &Plan,
    gateway_customer: Option<String>,
) -> Result<Payment, Error> {
    let now = app.clock.now();
    let price = plan.price.times(wish.quantity);
    let amount = price.ok_or_else(|| Error::invalid("quantity", "the amount is too large"))?;
    let payment = Payment {
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
        gateway_customer,
        charged_method: None,
        success_url: wish.success_url.clone(),
        cancel_url: wish.cancel_url.clone(),
        subscription_id: None,
        completed_at: None,
        cancelled_at: None,
        refunds_late: app.config.refunds_late,
        checks: 0,
        created_at: now,
    };
    let mut tx = app.db.begin().await?;
    customers::ensure_locked(&mut tx, &wish.customer, now).await?;
    if let Some(pending) = store::find_same(&mut tx, &payment, now - SAME_PURCHASE).await? {
        return Ok(pending);
    }
    refuse_unplaceable(&mut tx, &payment, plan, now).await?;
    let is_free = amount.minor == 0;
    let next_check = (!is_free).then(|| now + reconcile::FIRST_CHECK);
    store::insert(&mut tx, &payment, next_check).await?;
    if is_free {
        let subscription_id = book_capture(&mut tx, &payment, now).await?;
        store::set_captured(&mut tx, &payment, Some(subscription_id), now).await?;
        store::set_given(&mut tx, &payment, now).await?;
    }
    tx.commit().await?;
    let status = if is_free { PaymentStatus::Completed } else { PaymentStatus::Pending };
    Ok(Payment { status, ..payment })
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
