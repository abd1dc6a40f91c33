//! Giving tokens, and saying from when and until when they may be spent.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::lot::{Lot, Rollover, Source};
use super::{Tokens, store};
use crate::error::Error;
use crate::ids::{CustomerId, SubscriptionId};

/// A lot that a payment entitles to.
#[derive(Debug, Clone)]
pub struct NewLot {
    /// Where it comes from; each source's part is given once.
    pub source: Source,
    /// How many tokens.
    pub tokens: Tokens,
    /// Lower is drawn first: periods 10, packs 20.
    pub priority: i16,
    /// From when it counts.
    pub opens_at: DateTime<Utc>,
    /// Until when it counts; `None`: for ever.
    pub expires_at: Option<DateTime<Utc>>,
    /// What becomes of the rest where a next lot opens at its end.
    pub rollover: Rollover,
}

/// Gives the customer a lot, once per source and part however often it is called.
///
/// Joins the caller's transaction and locks the account.
pub async fn grant(
    db: &mut PgConnection,
    customer_id: CustomerId,
    new: &NewLot,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    store::ensure(db, customer_id, now).await?;
    let mut account =
        store::lock(db, customer_id).await?.ok_or(Error::NotFound("token account"))?;
    account.book_due(now);
    let lot = lot(new, now);
    if store::lots::insert_lot(db, customer_id, &lot).await? {
        account.add_lot(lot, now);
    }
    store::save(db, &account, now).await
}

fn lot(new: &NewLot, now: DateTime<Utc>) -> Lot {
    Lot {
        opens_at: new.opens_at,
        expires_at: new.expires_at,
        rollover: new.rollover,
        ..Lot::new(new.source, new.priority, new.tokens, now)
    }
}

/// Whether, and until when, the customer may spend lots that expire.
#[derive(Debug, Clone, Copy)]
pub struct Access {
    /// The subscription whose terms hold.
    pub subscription_id: SubscriptionId,
    /// Whether it allows spending.
    pub is_active: bool,
    /// Its end; `None`: no limit.
    pub spendable_until: Option<DateTime<Utc>>,
    /// Nothing may be spent before; `None`: not paused.
    pub paused_until: Option<DateTime<Utc>>,
    /// Most debt that a running hold may run into.
    pub overdraft: Tokens,
    /// A spend that leaves at most so many is told of; `None`: none is.
    pub low_at: Option<Tokens>,
}

/// Writes on the account whose terms hold and until when, and that spending is allowed; the plan's
/// own limits stay.
pub async fn set_end(
    db: &mut PgConnection,
    customer_id: CustomerId,
    subscription_id: SubscriptionId,
    spendable_until: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    book_due(db, customer_id, now).await?;
    store::set_end(db, customer_id, (subscription_id, spendable_until), now).await
}

/// Writes on the account what the subscription allows, so that spending reads nothing else.
pub async fn set_access(
    db: &mut PgConnection,
    customer_id: CustomerId,
    access: &Access,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    book_due(db, customer_id, now).await?;
    store::set_access(db, customer_id, access, now).await
}

/// Makes the account if there is none, and books what is due under the terms that held until now.
async fn book_due(
    db: &mut PgConnection,
    customer_id: CustomerId,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    store::ensure(db, customer_id, now).await?;
    let account = store::lock(db, customer_id).await?;
    let mut account = account.ok_or(Error::NotFound("token account"))?;
    account.book_due(now);
    if account.is_changed() {
        store::save(db, &account, now).await?;
    }
    Ok(())
}
