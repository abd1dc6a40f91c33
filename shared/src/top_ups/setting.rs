//! What the customer wants, and what he sees of it.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use super::fill::Period;
use super::rules::{Bought, DEFAULT_PER_PERIOD, Limits, OffReason, later};
use super::{Setting, store};
use crate::App;
use crate::config::Config;
use crate::customers::{self, Identity};
use crate::error::Error;
use crate::gateways::Next;
use crate::ids::{CustomerId, PaymentId};
use crate::jobs::Job;
use crate::methods;
use crate::money::Money;
use crate::payments::{self, Charge, PaymentStatus};
use crate::plans::{self, Plan};
use crate::tokens::{self, MAX_TOKENS, Tokens};

/// The gateways' word for a charge that only the customer himself can finish.
pub(super) const NEEDS_CUSTOMER: &str = "authentication_required";

/// Most top-ups a period that a customer may wish for.
const MOST_PER_PERIOD: u32 = 100;

/// Where a customer finishes a payment that wants him: an address of the API, for the application's
/// own page to call with his token.
pub(super) fn link(config: &Config) -> String {
    let base = config.public_url.trim_end_matches('/');
    format!("{base}/api/v1/billing/tokens/auto-top-up/confirm/")
}

/// A wish to have packs bought.
#[derive(Debug, Clone)]
pub struct TopUpWish {
    /// Whose.
    pub customer: Identity,
    /// From how many available tokens down.
    pub threshold: u64,
    /// The pack.
    pub plan_id: i32,
    /// How often in a period; `None`: three times.
    pub max_per_period: Option<u32>,
    /// For how much in a period, in the pack's currency; `None`: its price that many times.
    pub max_amount_per_period: Option<Decimal>,
}

/// Switches auto top-up on, or changes it. What failed before is forgotten. Where the balance is
/// below the line already, a pack is asked for at once.
pub async fn set(app: &App, wish: &TopUpWish) -> Result<(), Error> {
    let plan = plans::sold(app, wish.plan_id).await?;
    let now = app.clock.now();
    let setting = checked(wish, &plan, now)?;
    let customer_id = wish.customer.id;
    if !methods::is_on_file(app, customer_id).await? {
        return Err(Error::Conflict("no payment method is saved".to_owned()));
    }
    let mut tx = app.db.begin().await?;
    customers::ensure_locked(&mut tx, &wish.customer, now).await?;
    let last = store::last_order(&mut tx, customer_id).await?;
    store::save(&mut tx, customer_id, &setting, now).await?;
    store::set_look(&mut tx, customer_id, None, None).await?;
    let looks = store::find(&mut tx, customer_id).await?.map_or(0, |saved| saved.looks);
    let need = tokens::top_up_need(&mut tx, customer_id, now).await?;
    // A new wish is a new gap: one that was answered before, or failed, does not stop it.
    let since = last.map_or(now, |last| later(last.asked_at, now));
    let since = (need.available <= setting.threshold).then_some(since);
    tokens::set_top_up(&mut tx, customer_id, Some(setting.threshold), since, now).await?;
    tx.commit().await?;
    if since.is_some() {
        app.doorbell.ring(Job::TopUp { customer_id, since: 0, look: looks });
    }
    Ok(())
}

fn checked(wish: &TopUpWish, plan: &Plan, now: DateTime<Utc>) -> Result<Setting, Error> {
    if plan.duration_days.is_some() || plan.price.minor == 0 {
        return Err(Error::invalid("plan_id", "must be a pack with a price"));
    }
    if !(1..=MAX_TOKENS).contains(&wish.threshold) {
        return Err(Error::invalid("threshold", format!("must be 1 to {MAX_TOKENS}")));
    }
    let count = wish.max_per_period.unwrap_or(DEFAULT_PER_PERIOD);
    if !(1..=MOST_PER_PERIOD).contains(&count) {
        let detail = format!("must be 1 to {MOST_PER_PERIOD}");
        return Err(Error::invalid("max_per_period", detail));
    }
    let wrong = |detail: String| Error::invalid("max_amount_per_period", detail);
    let most = match wish.max_amount_per_period {
        Some(amount) => Money::from_decimal(amount, plan.price.currency)
            .map_err(|error| wrong(error.to_string()))?,
        None => plan.price.times(count).ok_or_else(|| wrong("must be named".to_owned()))?,
    };
    if most.minor < plan.price.minor {
        return Err(wrong(format!("must be at least the pack's price, {}", plan.price)));
    }
    Ok(Setting {
        off: None,
        threshold: Tokens(wish.threshold),
        plan_id: plan.id,
        price: plan.price,
        limits: Limits { count, minor: most.minor },
        failures: 0,
        looks: 0,
        created_at: now,
        updated_at: now,
    })
}

/// Switches auto top-up off. A payment that is on its way goes on. May be repeated.
pub async fn switch_off(app: &App, customer_id: CustomerId) -> Result<(), Error> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    match customers::lock(&mut tx, customer_id).await {
        Err(Error::NotFound(_)) => return Ok(()),
        locked => locked?,
    }
    if store::find(&mut tx, customer_id).await?.is_some() {
        store::switch_off(&mut tx, customer_id, OffReason::Customer, now).await?;
        tokens::set_top_up(&mut tx, customer_id, None, None, now).await?;
    }
    Ok(tx.commit().await?)
}

/// Auto top-up as its customer sees it.
#[derive(Debug, Clone)]
pub struct View {
    /// Why it was switched off, and when; `None`: it is on.
    pub off: Option<(OffReason, DateTime<Utc>)>,
    /// From how many available tokens down.
    pub threshold: Tokens,
    /// The pack.
    pub plan_id: i32,
    /// What it cost when the customer agreed.
    pub price: Money,
    /// How often in a period.
    pub max_per_period: u32,
    /// For how much in a period.
    pub max_amount_per_period: Money,
    /// Since when the limits count.
    pub period_starts_at: DateTime<Utc>,
    /// What was bought since, pending payments included.
    pub bought: Bought,
    /// The payment that is on its way.
    pub pending: Option<PaymentId>,
    /// The failed payment that the customer can still finish himself.
    pub unconfirmed: Option<PaymentId>,
    /// Failed payments in a row.
    pub failures: u32,
    /// When it was first set.
    pub created_at: DateTime<Utc>,
    /// When it was changed.
    pub updated_at: DateTime<Utc>,
}

/// The customer's setting and what was bought by it; `None` where he never set one.
pub async fn view(app: &App, customer_id: CustomerId) -> Result<Option<View>, Error> {
    let mut db = app.db.acquire().await?;
    let Some(setting) = store::find(&mut db, customer_id).await? else { return Ok(None) };
    let period = Period::read(&mut db, customer_id, &setting, app.clock.now()).await?;
    let last = store::last_order(&mut db, customer_id).await?;
    let pending = last.as_ref().filter(|order| order.concluded_at.is_none());
    let mut unconfirmed = None;
    if let Some(order) = &last
        && let Some(glance) = payments::glance(&mut db, customer_id, order.payment_id).await?
        && glance.status == PaymentStatus::Failed
        && glance.has_object
        && glance.failure_code.as_deref() == Some(NEEDS_CUSTOMER)
    {
        unconfirmed = Some(order.payment_id);
    }
    Ok(Some(View {
        off: setting.off,
        threshold: setting.threshold,
        plan_id: setting.plan_id,
        price: setting.price,
        max_per_period: setting.limits.count,
        max_amount_per_period: Money::new(setting.limits.minor, setting.price.currency),
        period_starts_at: period.starts_at,
        bought: period.bought,
        pending: pending.map(|order| order.payment_id),
        unconfirmed,
        failures: setting.failures,
        created_at: setting.created_at,
        updated_at: setting.updated_at,
    }))
}

/// How a customer finishes a payment that wants him.
#[derive(Debug)]
pub struct Confirmation {
    /// The payment.
    pub payment_id: PaymentId,
    /// Where it stands.
    pub status: PaymentStatus,
    /// How he goes on.
    pub next: Next,
}

/// Reads from the gateway how the customer finishes the payment that failed because he was away.
pub async fn confirm(app: &App, customer_id: CustomerId) -> Result<Confirmation, Error> {
    let unconfirmed = view(app, customer_id).await?.and_then(|view| view.unconfirmed);
    let payment_id = unconfirmed.ok_or(Error::NotFound("payment that waits for its customer"))?;
    let mut db = app.db.acquire().await?;
    let order = store::last_order(&mut db, customer_id).await?;
    drop(db);
    let order = order.filter(|order| order.payment_id == payment_id);
    let order = order.ok_or(Error::NotFound("payment that waits for its customer"))?;
    let charge = Charge {
        customer_id,
        payment_id,
        plan_id: order.plan_id,
        plan_version: order.plan_version,
        method_id: order.method_id,
    };
    // Its object is known, so this reads and does not charge.
    let (status, next) = payments::charge_saved(app, &charge).await?;
    Ok(Confirmation { payment_id, status, next })
}
