//! What auto top-up must know of an account, and writes on it.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{Tokens, store};
use crate::error::Error;
use crate::ids::CustomerId;

/// An account as auto top-up sees it.
#[derive(Debug, Clone, Copy)]
pub struct TopUpNeed {
    /// What is free to spend.
    pub available: Tokens,
    /// Since when a top-up is asked for; `None`: the account was above its line.
    pub since: Option<DateTime<Utc>>,
    /// Whether a pack bought now could be spent: the subscription allows it, or there is none yet.
    pub is_spendable: bool,
    /// Whether debt is open.
    pub has_debt: bool,
}

/// Locks the account and tells what it needs; makes one where there is none.
pub async fn top_up_need(
    db: &mut PgConnection,
    customer_id: CustomerId,
    now: DateTime<Utc>,
) -> Result<TopUpNeed, Error> {
    store::ensure(db, customer_id, now).await?;
    let mut account =
        store::lock(db, customer_id).await?.ok_or(Error::NotFound("token account"))?;
    account.book_due(now);
    if account.is_changed() {
        store::save(db, &account, now).await?;
        account.top_up_since = account.asks_since(now);
    }
    let refusal = account.spendable(now).err();
    Ok(TopUpNeed {
        available: account.available(now),
        since: account.top_up_since,
        is_spendable: refusal.is_none_or(|refusal| matches!(refusal, Error::NoSubscription)),
        has_debt: account.debt > Tokens::ZERO,
    })
}

/// Writes on the account from which balance down a top-up is asked for, and since when one is.
pub async fn set_top_up(
    db: &mut PgConnection,
    customer_id: CustomerId,
    line: Option<Tokens>,
    since: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    store::ensure(db, customer_id, now).await?;
    Ok(store::set_top_up(db, customer_id, (line, since), now).await?)
}
