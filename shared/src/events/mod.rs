//! What happened, in the words of the business: one append-only table.
//!
//! An event is recorded in the transaction of what it tells, so neither is there without the other.

mod store;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::Error;
use crate::ids::{CustomerId, EventId};
use crate::money::Money;

/// What may happen. The text is stored, and stands on the wire where it is public.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// Few tokens are left: the account's line was crossed downwards.
    TokensLow,
    /// The last free token was spent.
    TokensExhausted,
    /// Tokens were left at the end of a lot and burned.
    TokensExpired,
    /// A lot was brought into the balance.
    TokensGranted,
    /// A hold was not settled in time.
    HoldExpired,
    /// A pack was bought by itself.
    TopUpCompleted,
    /// The payment of a pack that was to be bought by itself failed.
    TopUpFailed,
    /// Auto top-up was switched off, though not by its customer.
    TopUpDisabled,
}

impl EventKind {
    /// All kinds, for lists and filters.
    pub const ALL: [Self; 8] = [
        Self::TokensLow,
        Self::TokensExhausted,
        Self::TokensExpired,
        Self::TokensGranted,
        Self::HoldExpired,
        Self::TopUpCompleted,
        Self::TopUpFailed,
        Self::TopUpDisabled,
    ];

    /// The word in the database and on the wire; it never changes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TokensLow => "tokens.low",
            Self::TokensExhausted => "tokens.exhausted",
            Self::TokensExpired => "tokens.expired",
            Self::TokensGranted => "tokens.granted",
            Self::HoldExpired => "hold.expired",
            Self::TopUpCompleted => "top_up.completed",
            Self::TopUpFailed => "top_up.failed",
            Self::TopUpDisabled => "top_up.disabled",
        }
    }

    /// Whether the application's endpoints are told; the rest is for operators and notices.
    pub const fn is_public(self) -> bool {
        match self {
            Self::TokensLow
            | Self::TokensExhausted
            | Self::TokensExpired
            | Self::TokensGranted
            | Self::HoldExpired
            | Self::TopUpCompleted
            | Self::TopUpFailed
            | Self::TopUpDisabled => true,
        }
    }
}

/// Why monthly recurring revenue changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Movement {
    /// A customer's first.
    New,
    /// More than before.
    Expansion,
    /// Less than before.
    Contraction,
    /// None any more.
    Churn,
    /// Again, after churn.
    Reactivation,
}

impl Movement {
    /// The word in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Expansion => "expansion",
            Self::Contraction => "contraction",
            Self::Churn => "churn",
            Self::Reactivation => "reactivation",
        }
    }
}

/// Something that happened to a customer.
#[derive(Debug, Clone)]
pub struct Event {
    /// To whom.
    pub customer_id: CustomerId,
    /// What.
    pub kind: EventKind,
    /// Who did it: `customer`, `key:<id>`, `system`, `gateway:<name>`.
    pub actor: String,
    /// The payment, subscription, lot or hold.
    pub subject_id: Option<Uuid>,
    /// What it was before, as far as it changed.
    pub before: Value,
    /// What it is now.
    pub after: Value,
    /// Change of monthly recurring revenue, never 0.
    pub mrr: Option<(Movement, Money)>,
    /// When, by the clock of billing.
    pub at: DateTime<Utc>,
}

impl Event {
    /// Something that the system did or found.
    pub fn of_system(customer_id: CustomerId, kind: EventKind, at: DateTime<Utc>) -> Self {
        let none = || Value::Object(serde_json::Map::new());
        Self {
            customer_id,
            kind,
            actor: "system".to_owned(),
            subject_id: None,
            before: none(),
            after: none(),
            mrr: None,
            at,
        }
    }
}

/// Records what happened, in order. Joins the caller's transaction.
pub async fn record(db: &mut PgConnection, events: &[Event]) -> Result<(), Error> {
    if events.is_empty() {
        return Ok(());
    }
    let ids: Vec<EventId> = events.iter().map(|event| EventId::new(event.at)).collect();
    Ok(store::insert(db, &ids, events).await?)
}
