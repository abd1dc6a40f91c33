//! Reading balances and what was spent.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::consume::is_spendable;
use super::{Tokens, store};
use crate::App;
use crate::error::Error;
use crate::ids::{CustomerId, EntryId, SubscriptionId};

/// What a customer has, as it would be after booking what is due.
#[derive(Debug, Clone)]
pub struct Balance {
    /// All tokens that have not expired.
    pub remaining: Tokens,
    /// What is free to spend.
    pub available: Tokens,
    /// Of what remains: frozen by an open dispute.
    pub frozen: Tokens,
    /// What is owed after refunds and lost disputes of what was spent.
    pub debt: Tokens,
    /// Whether a spend of one token would be let through.
    pub is_spendable: bool,
    /// Whether lots without end are left, which outlive the plan.
    pub has_lasting: bool,
}

/// The customer's balance at `now`; nothing for one who never had tokens.
pub async fn balance(app: &App, customer_id: CustomerId) -> Result<Balance, Error> {
    let now = app.clock.now();
    let mut db = app.db.acquire().await?;
    let Some(mut account) = store::read(&mut db, customer_id).await? else {
        return Ok(Balance {
            remaining: Tokens::ZERO,
            available: Tokens::ZERO,
            frozen: Tokens::ZERO,
            debt: Tokens::ZERO,
            is_spendable: false,
            has_lasting: false,
        });
    };
    account.book_due(now);
    let available = account.available(now);
    let has_lasting =
        account.lots.iter().any(|lot| lot.expires_at.is_none() && lot.remaining > Tokens::ZERO);
    let until = if has_lasting { None } else { account.spendable_until };
    Ok(Balance {
        remaining: account.balance,
        available,
        frozen: account.frozen(),
        debt: account.debt,
        is_spendable: is_spendable(available, until, now),
        has_lasting,
    })
}

/// One spend, for lists.
#[derive(Debug, Clone)]
pub struct Usage {
    /// The entry.
    pub id: EntryId,
    /// The subscription at that time.
    pub subscription_id: Option<SubscriptionId>,
    /// The customer's address, where known.
    pub email: Option<String>,
    /// The plan's name at that time's subscription.
    pub plan_name: Option<String>,
    /// How many tokens.
    pub tokens: Tokens,
    /// The caller's words.
    pub description: String,
    /// The caller's own members.
    pub metadata: Value,
    /// When.
    pub created_at: DateTime<Utc>,
}

/// The customer's newest spends, at most `limit`.
pub async fn list_usage(
    app: &App,
    customer_id: CustomerId,
    limit: i64,
) -> Result<Vec<Usage>, Error> {
    Ok(store::usage(&app.db, customer_id, limit).await?)
}
