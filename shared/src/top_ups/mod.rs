//! Auto top-up: a pack is bought by itself when few tokens are left.
//!
//! A spend that reaches the line writes so on its account, in the ledger's own transaction; a job
//! buys the pack. A lost job is found by the sweep. The ledger knows nothing of all this.

mod fill;
mod rules;
mod setting;
mod store;
mod sweep;

use chrono::{DateTime, Utc};

pub use fill::fill;
pub use rules::{Bought, DEFAULT_PER_PERIOD, OffReason};
pub use setting::{Confirmation, TopUpWish, View, confirm, set, switch_off, view};
pub use sweep::due;

use crate::ids::{PaymentId, PaymentMethodId};
use crate::money::Money;
use crate::tokens::Tokens;
use rules::Limits;

/// What a customer wants bought for him.
#[derive(Debug, Clone)]
struct Setting {
    /// Why it was switched off, and when; `None`: it is on.
    off: Option<(OffReason, DateTime<Utc>)>,
    threshold: Tokens,
    plan_id: i32,
    /// What the pack cost when he agreed.
    price: Money,
    limits: Limits,
    /// Failed payments in a row.
    failures: u32,
    /// How often it was looked at.
    looks: i32,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

/// A pack that is, or was, bought by itself.
#[derive(Debug, Clone)]
struct Order {
    /// The gap that it answers.
    asked_at: DateTime<Utc>,
    /// Its payment, made after it.
    payment_id: PaymentId,
    method_id: PaymentMethodId,
    plan_id: i32,
    plan_version: i32,
    amount: Money,
    /// Whether its payment was captured.
    is_paid: bool,
    created_at: DateTime<Utc>,
    /// When its payment ended; `None`: it is pending.
    concluded_at: Option<DateTime<Utc>>,
}
