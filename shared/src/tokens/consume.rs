//! Spending tokens: the call that happens most.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::ledger::{Entry, Request};
use super::{Tokens, store};
use crate::App;
use crate::error::Error;
use crate::ids::{CustomerId, EntryId};

/// A wish to spend.
#[derive(Debug, Clone)]
pub struct Consume {
    /// Whose tokens.
    pub customer_id: CustomerId,
    /// Who asks: `customer`, or `key:<api key id>`.
    pub principal: String,
    /// How many, 1 … 10¹².
    pub tokens: Tokens,
    /// At most 255 characters.
    pub description: String,
    /// A JSON object of the caller's own.
    pub metadata: Value,
    /// The caller's name for this intention; `None`: it cannot be repeated.
    pub key: Option<String>,
}

/// What was spent.
#[derive(Debug, Clone)]
pub struct Consumed {
    /// The entry.
    pub usage_id: EntryId,
    /// How many.
    pub tokens: Tokens,
    /// The balance after it.
    pub remaining: Tokens,
    /// What was free to spend after it.
    pub available: Tokens,
    /// Whether this is the answer of an earlier request with the same key.
    pub is_replay: bool,
}

/// Spends tokens, exactly or not at all. With a key it may be repeated: one effect.
pub async fn consume(app: &App, wish: &Consume) -> Result<Consumed, Error> {
    let now = app.clock.now();
    let id = EntryId::new(now);
    let request = request(wish, id);
    let mut tx = app.db.begin().await?;
    let mut account = store::lock(&mut tx, wish.customer_id).await?.ok_or(Error::NoSubscription)?;
    let earlier = store::find(&mut tx, wish.customer_id, &request).await?;
    if let Some(entry) = earlier {
        return replay(&entry, &request);
    }
    account.book_due(now);
    let entry = account.spend(wish.tokens, id, request, now)?;
    let consumed = answer(entry, false);
    store::save(&mut tx, &account, now).await?;
    tx.commit().await?;
    Ok(consumed)
}

/// A request without a key is named by its own entry, so that a lost answer can be looked up.
fn request(wish: &Consume, id: EntryId) -> Request {
    let key = wish.key.clone().unwrap_or_else(|| id.to_string());
    Request {
        principal: wish.principal.clone(),
        operation_key: format!("consume:{key}"),
        digest: digest(wish),
        description: wish.description.clone(),
        metadata: wish.metadata.clone(),
    }
}

/// SHA-256 of what is asked; object keys are sorted by `serde_json`.
fn digest(wish: &Consume) -> Vec<u8> {
    let asked = serde_json::json!([wish.tokens, wish.description, wish.metadata]);
    Sha256::digest(asked.to_string()).to_vec()
}

fn replay(entry: &Entry, request: &Request) -> Result<Consumed, Error> {
    if entry.request_digest != request.digest {
        return Err(Error::IdempotencyMismatch);
    }
    Ok(answer(entry, true))
}

fn answer(entry: &Entry, is_replay: bool) -> Consumed {
    Consumed {
        usage_id: entry.id,
        tokens: entry.used,
        remaining: entry.balance_after,
        available: entry.available_after,
        is_replay,
    }
}

/// Whether the customer may spend at `now`: the wire's `subscription_active`.
pub(super) fn is_spendable(
    available: Tokens,
    until: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> bool {
    available > Tokens::ZERO && until.is_none_or(|end| now < end)
}
