//! Opening or extending a subscription for a captured payment.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::periods::{Placement, place};
use super::{Live, store};
use crate::error::Error;
use crate::ids::{CustomerId, PaymentId, SubscriptionId};
use crate::plans::Plan;
use crate::tokens::{self, Access, NewLot, Source, Tokens};

/// What a payment bought.
#[derive(Debug, Clone)]
pub struct Bought {
    /// The payment.
    pub payment_id: PaymentId,
    /// The terms.
    pub plan: Plan,
    /// How many; more than one for packs only.
    pub quantity: u32,
}

/// Lots of a period are drawn before those that never expire.
const PERIOD_PRIORITY: i16 = 10;
/// Packs last.
const PACK_PRIORITY: i16 = 20;

/// Gives the customer what the payment entitles to: period and lot. Returns the subscription.
///
/// Joins the caller's transaction, which holds the customer's lock. The unique keys of periods and
/// lots refuse a second booking of one payment.
pub async fn book(
    db: &mut PgConnection,
    customer_id: CustomerId,
    bought: &Bought,
    now: DateTime<Utc>,
) -> Result<SubscriptionId, Error> {
    let live = store::lock_live(db, customer_id).await?;
    let placement = place(live, bought.plan.duration(), now);
    let (id, ends_at) = match (placement, live) {
        (Placement::Beside, Some(live)) => (live.id, live.ends_at),
        (Placement::Extend { starts_at, ends_at }, Some(live)) => {
            store::extend(db, customer_id, live.id, ends_at, now).await?;
            store::insert_period(db, customer_id, live.id, bought, (starts_at, ends_at), now)
                .await?;
            if live.ends_at.is_none() {
                store::set_plan(db, customer_id, live.id, &bought.plan, now).await?;
            }
            (live.id, Some(ends_at))
        }
        (Placement::OpenEndless | Placement::Open { .. }, live) => {
            if let Some(ended) = live {
                store::expire(db, customer_id, ended.id, now).await?;
            }
            open(db, customer_id, bought, placement, now).await?
        }
        (Placement::Beside | Placement::Extend { .. }, None) => {
            unreachable!("only a live subscription is extended")
        }
    };
    let access = access_by(&bought.plan, id, ends_at);
    tokens::set_access(db, customer_id, &access, now).await?;
    tokens::grant(db, customer_id, &lot(bought, placement, now), now).await?;
    Ok(id)
}

/// Notes that a charge for the customer's next period was declined: his active subscription is
/// past due. What he paid for he keeps until its end; paying again makes it active
/// ([`book`]). A subscription that never ends has no next period.
///
/// Joins the caller's transaction, which holds the customer's lock. May be repeated.
pub async fn mark_past_due(
    db: &mut PgConnection,
    customer_id: CustomerId,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    match store::lock_live(db, customer_id).await? {
        Some(Live { id, ends_at: Some(_) }) => {
            Ok(store::set_past_due(db, customer_id, id, now).await?)
        }
        Some(Live { ends_at: None, .. }) | None => Ok(()),
    }
}

/// What a plan allows until an instant: its overdraft, and a warning when a tenth of its tokens is
/// left, so that there is time to buy more.
pub(super) fn access_by(
    plan: &Plan,
    subscription_id: SubscriptionId,
    spendable_until: Option<DateTime<Utc>>,
) -> Access {
    Access {
        subscription_id,
        is_active: true,
        spendable_until,
        paused_until: None,
        overdraft: plan.overdraft_tokens,
        low_at: Some(Tokens((plan.tokens_included.0 / 10).max(1))),
    }
}

async fn open(
    db: &mut PgConnection,
    customer_id: CustomerId,
    bought: &Bought,
    placement: Placement,
    now: DateTime<Utc>,
) -> Result<(SubscriptionId, Option<DateTime<Utc>>), Error> {
    let id = SubscriptionId::new(now);
    let ends_at = match placement {
        Placement::Open { ends_at, .. } => Some(ends_at),
        Placement::OpenEndless | Placement::Beside | Placement::Extend { .. } => None,
    };
    store::insert(db, customer_id, id, &bought.plan, (now, ends_at)).await?;
    if let Some(end) = ends_at {
        store::insert_period(db, customer_id, id, bought, (now, end), now).await?;
    }
    Ok((id, ends_at))
}

fn lot(bought: &Bought, placement: Placement, now: DateTime<Utc>) -> NewLot {
    let (opens_at, expires_at, priority) = match placement {
        Placement::Beside | Placement::OpenEndless => (now, None, PACK_PRIORITY),
        Placement::Open { starts_at, ends_at } | Placement::Extend { starts_at, ends_at } => {
            (starts_at, Some(ends_at), PERIOD_PRIORITY)
        }
    };
    NewLot {
        source: Source::payment(bought.payment_id, 0),
        tokens: Tokens(bought.plan.tokens_included.0 * u64::from(bought.quantity)),
        priority,
        opens_at,
        expires_at,
        rollover: bought.plan.rollover,
    }
}
