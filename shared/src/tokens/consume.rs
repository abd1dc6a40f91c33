//! Spending tokens: the call that happens most.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Tokens;
use super::ledger::{Entry, Request};
use super::reserve::Asked;
use super::writer::{Deed, Done, Wish};
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
    let pending = app.writers.submit(spend(app, wish))?;
    consumed(pending.answer().await)
}

/// Spends each for itself, in order, with a verdict each: one refusal does not stop the others.
pub async fn consume_all(app: &App, wishes: &[Consume]) -> Vec<Result<Consumed, Error>> {
    let pending: Vec<_> = wishes.iter().map(|wish| app.writers.submit(spend(app, wish))).collect();
    let mut verdicts = Vec::with_capacity(wishes.len());
    for submitted in pending {
        verdicts.push(match submitted {
            Ok(pending) => consumed(pending.answer().await),
            Err(error) => Err(error),
        });
    }
    verdicts
}

fn spend(app: &App, wish: &Consume) -> Wish {
    let id = EntryId::new(app.clock.now());
    let asked = Asked { id, request: request(wish, id), is_keyed: wish.key.is_some() };
    Wish { customer_id: wish.customer_id, asked, deed: Deed::Spend(wish.tokens) }
}

fn consumed(done: Result<Done, Error>) -> Result<Consumed, Error> {
    match done? {
        Done::Consumed(consumed) => Ok(consumed),
        Done::Held(_) => Err(Error::Bug("a spend was answered as a hold")),
    }
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

impl Consumed {
    /// What an entry says.
    pub(super) fn of(entry: &Entry, is_replay: bool) -> Self {
        Self {
            usage_id: entry.id,
            tokens: entry.used,
            remaining: entry.balance_after,
            available: entry.available_after,
            is_replay,
        }
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
