//! What becomes of a period when its money goes, comes back or was held.

use chrono::{DateTime, Duration, Utc};
use sqlx::PgConnection;

use super::Live;
use super::periods::{Paid, behind, without};
use super::store::{self, Period};
use crate::error::Error;
use crate::ids::{CustomerId, PaymentId, SubscriptionId};
use crate::tokens;

/// A payment and whose it is.
type Of = (CustomerId, PaymentId);

/// Ends what a refunded or lost payment had opened: its period now, or its place in the queue.
/// What is paid behind it moves up, packs stay. May be repeated.
///
/// Joins the caller's transaction, which holds the customer's lock; so do the others here.
pub async fn end_paid(db: &mut PgConnection, of: Of, now: DateTime<Utc>) -> Result<(), Error> {
    let Some(period) = store::period_of(db, of.0, of.1).await? else {
        return end_pack(db, of, now).await;
    };
    if period.voided_at.is_some() {
        return Ok(());
    }
    store::lock(db, of.0, period.subscription_id).await?;
    store::void_period(db, of.0, of.1, now).await?;
    let others = store::periods(db, of.0, period.subscription_id).await?;
    place_all(db, of.0, without(&others, period.paid, now), now).await?;
    set_end(db, of.0, period.subscription_id, now).await
}

/// A pack is no period; the subscription that packs alone opened ends when the last of them is
/// taken back.
async fn end_pack(db: &mut PgConnection, of: Of, now: DateTime<Utc>) -> Result<(), Error> {
    let Some(live) = store::lock_live(db, of.0).await? else { return Ok(()) };
    if live.ends_at.is_some() || !store::is_all_of(db, of.0, (live.id, of.1)).await? {
        return Ok(());
    }
    store::end(db, of.0, live.id, now).await?;
    allow(db, of.0, live.id, Some(now), now).await
}

/// Gives back the period of a payment whose money came back: as much as was left of it, behind
/// what is paid in the same subscription, else from now. Where another subscription is live by
/// now, only the tokens come back. May be repeated.
pub async fn restore_paid(db: &mut PgConnection, of: Of, now: DateTime<Utc>) -> Result<(), Error> {
    let Some(period) = store::period_of(db, of.0, of.1).await? else {
        return restore_pack(db, of, now).await;
    };
    let Some(voided_at) = period.voided_at else { return Ok(()) };
    let left = period.paid.ends_at - period.paid.starts_at.max(voided_at);
    let live = live(db, of.0, now).await?;
    let is_of_another = live.is_some_and(|live| live.id != period.subscription_id);
    if left <= Duration::zero() || is_of_another {
        return Ok(());
    }
    store::lock(db, of.0, period.subscription_id).await?;
    append(db, of.0, &period, left, now).await
}

/// Places what is left of a period behind what is paid in its subscription, or from now.
async fn append(
    db: &mut PgConnection,
    customer_id: CustomerId,
    period: &Period,
    left: Duration,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    if left <= Duration::zero() {
        return Ok(());
    }
    let others = store::periods(db, customer_id, period.subscription_id).await?;
    let is_other = |other: &&Paid| other.payment_id != period.paid.payment_id;
    let last = others.iter().filter(is_other).map(|other| other.ends_at).max();
    let starts_at = last.map_or(now, |end| end.max(now));
    let placed = Paid { starts_at, ends_at: starts_at + left, ..period.paid };
    store::restore_period(db, customer_id, &placed).await?;
    place_all(db, customer_id, vec![placed], now).await?;
    set_end(db, customer_id, period.subscription_id, now).await
}

async fn restore_pack(db: &mut PgConnection, of: Of, now: DateTime<Utc>) -> Result<(), Error> {
    let Some(ended) = store::ended_pack(db, of.0, of.1).await? else { return Ok(()) };
    let is_needless = !tokens::has_lasting(db, of.0, now).await?;
    if is_needless || live(db, of.0, now).await?.is_some() {
        return Ok(());
    }
    store::reopen(db, of.0, ended, None, now).await?;
    allow(db, of.0, ended, None, now).await
}

/// Lengthens a payment's period by the time its tokens were frozen; what is paid behind it moves
/// back. A subscription that ended meanwhile lives again, unless another one does.
pub async fn prolong(
    db: &mut PgConnection,
    of: Of,
    by: Duration,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let Some(period) = store::period_of(db, of.0, of.1).await? else { return Ok(()) };
    let is_of_another =
        live(db, of.0, now).await?.is_some_and(|live| live.id != period.subscription_id);
    if period.voided_at.is_some() || is_of_another || by.is_zero() {
        return Ok(());
    }
    store::lock(db, of.0, period.subscription_id).await?;
    if period.paid.ends_at <= now {
        return append(db, of.0, &period, period.paid.ends_at + by - now, now).await;
    }
    let others = store::periods(db, of.0, period.subscription_id).await?;
    let longer = Paid { ends_at: period.paid.ends_at + by, ..period.paid };
    let mut moved = behind(&others, period.paid, by);
    moved.reverse();
    place_all(db, of.0, moved, now).await?;
    store::set_period(db, of.0, &longer).await?;
    set_end(db, of.0, period.subscription_id, now).await
}

/// Writes moved periods and moves their lots with them.
async fn place_all(
    db: &mut PgConnection,
    customer_id: CustomerId,
    periods: Vec<Paid>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    for period in periods {
        store::set_period(db, customer_id, &period).await?;
        let span = (period.starts_at, period.ends_at);
        tokens::reschedule(db, customer_id, period.payment_id, span, now).await?;
    }
    Ok(())
}

/// The subscription ends with the last of its periods; without any it has ended.
async fn set_end(
    db: &mut PgConnection,
    customer_id: CustomerId,
    id: SubscriptionId,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let periods = store::periods(db, customer_id, id).await?;
    let last = periods.iter().map(|period| period.ends_at).max();
    if let Some(end) = last.filter(|end| *end > now) {
        store::reopen(db, customer_id, id, Some(end), now).await?;
        return allow(db, customer_id, id, Some(end), now).await;
    }
    store::end(db, customer_id, id, now).await?;
    allow(db, customer_id, id, Some(last.map_or(now, |end| end.min(now))), now).await
}

/// Says on the account until when lots that expire may be spent; an old subscription says nothing.
async fn allow(
    db: &mut PgConnection,
    customer_id: CustomerId,
    subscription_id: SubscriptionId,
    spendable_until: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let is_over = spendable_until.is_some_and(|end| end <= now);
    if is_over && store::newest_id(db, customer_id).await? != Some(subscription_id) {
        return Ok(());
    }
    tokens::set_end(db, customer_id, subscription_id, spendable_until, now).await
}

/// The subscription that lives at `now`; one whose time is over is closed, to make room.
async fn live(
    db: &mut PgConnection,
    customer_id: CustomerId,
    now: DateTime<Utc>,
) -> Result<Option<Live>, Error> {
    let Some(live) = store::lock_live(db, customer_id).await? else { return Ok(None) };
    if live.ends_at.is_none_or(|end| now < end) {
        return Ok(Some(live));
    }
    store::expire(db, customer_id, live.id, now).await?;
    Ok(None)
}

/// What is left of a payment's period as (seconds left, seconds in all); `None` for a pack.
pub async fn unused_time(
    db: &mut PgConnection,
    of: Of,
    now: DateTime<Utc>,
) -> Result<Option<(i64, i64)>, Error> {
    let period: Option<Period> = store::period_of(db, of.0, of.1).await?;
    Ok(period.map(|period| {
        let whole = (period.paid.ends_at - period.paid.starts_at).num_seconds();
        let left = (period.paid.ends_at - period.paid.starts_at.max(now)).num_seconds().max(0);
        (if period.voided_at.is_some() { 0 } else { left }, whole)
    }))
}
