//! The ledger of tokens: accounts, lots, entries.

mod adapt;
mod anchor;
mod chain;
mod consume;
mod correct;
mod corrections;
mod grant;
mod hold;
mod ledger;
mod lot;
mod reschedule;
mod reserve;
mod seal;
mod store;
mod sweep;
mod take_back;
mod top_up;
mod usage;
mod verify;
mod writer;

use serde::{Deserialize, Serialize};

pub use adapt::adapt;
pub use anchor::anchor;
pub use chain::{OtherKey, link, use_key};
pub use consume::{Consume, Consumed, consume, consume_all};
pub use correct::{
    Corrected, Correction, forgive_debt, release_for_change, remove, reserve_for_change, reset,
    take_for_change,
};
pub use corrections::Part;
pub use grant::{Access, NewLot, grant, set_access, set_end};
pub use hold::{Held, HoldWish, OpenHold, SettledShort, extend, open_hold, release, settle};
pub use ledger::{Entry, EntryKind};
pub use lot::{
    Allocation, GrantSource, InsufficientTokens, Lot, Rollover, RolloverRule, Source, Taken,
};
pub use reschedule::{has_lasting, reschedule, unused_of};
pub use reserve::{HoldRule, HoldState, HoldStatus, MAX_HOLD};
pub use seal::seal_old;
pub use sweep::book_due;
pub use take_back::{Adapted, Entitlement};
pub use top_up::{TopUpNeed, set_top_up, top_up_need};
pub use usage::{Balance, OpenHoldOf, Usage, balance, list_usage};
pub use verify::{Broken, Depth, verify};
pub use writer::Writers;

/// A whole number of tokens, 0 … 10¹⁴.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Tokens(pub u64);

/// Most tokens that one request may name (rules.md).
pub const MAX_TOKENS: u64 = 1_000_000_000_000;

impl Tokens {
    /// None.
    pub const ZERO: Self = Self(0);

    /// A column that the schema keeps from being negative.
    pub(crate) fn from_db(tokens: i64) -> Self {
        Self(u64::try_from(tokens).expect("the schema keeps tokens from being negative"))
    }

    /// The number as Postgres stores it.
    pub(crate) fn to_db(self) -> i64 {
        i64::try_from(self.0).expect("tokens are far below the range of bigint")
    }

    /// The sum; it cannot overflow within the ranges that the schema keeps.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.checked_add(other.0).expect("tokens are far below the range of u64"))
    }

    /// The difference, which must not be negative.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0.checked_sub(other.0).expect("a balance below zero is a bug"))
    }

    /// By how much it is more than `other`; none where it is not.
    #[must_use]
    pub fn beyond(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl std::iter::Sum for Tokens {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Self::plus)
    }
}

impl std::fmt::Display for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
