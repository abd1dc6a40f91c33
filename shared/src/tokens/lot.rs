//! Lots of tokens: where they come from, what is left of them, in which order they are drawn. Pure.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Tokens;
use crate::ids::{GrantId, PaymentId};

/// What kind of thing a lot comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "grant_source", rename_all = "snake_case")]
pub enum GrantSource {
    /// A payment that bought it.
    Payment,
    /// A lot whose debt was undone after a later grant had repaid it.
    Returned,
    /// A subscription's trial.
    Trial,
    /// An operator's gift or correction.
    Admin,
    /// A balance taken over from another system.
    Import,
}

impl GrantSource {
    /// The word in the database and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Payment => "payment",
            Self::Returned => "returned",
            Self::Trial => "trial",
            Self::Admin => "admin",
            Self::Import => "import",
        }
    }
}

/// Where a lot comes from: one source's part is booked once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// What kind of thing.
    pub kind: GrantSource,
    /// The thing.
    pub id: Uuid,
    /// Which lot of that thing.
    pub part: i32,
}

impl Source {
    /// A lot that a payment bought.
    pub fn payment(id: PaymentId, part: i32) -> Self {
        Self { kind: GrantSource::Payment, id: id.uuid(), part }
    }

    /// Whether it is this payment.
    pub(super) fn is_payment(&self, id: PaymentId) -> bool {
        self.kind == GrantSource::Payment && self.id == id.uuid()
    }

    /// The operation key under which the lot's opening is booked.
    pub(super) fn operation_key(&self) -> String {
        format!("{}:{}:{}", self.kind.as_str(), self.id, self.part)
    }
}

/// What refunds and disputes of its payment did to a lot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// How many of its tokens the payment's facts take by now, in all.
    pub target: Tokens,
    /// Of those: taken out of what was left.
    pub free: Tokens,
    /// Of those: spent before, so now debt.
    pub debt: Tokens,
    /// Since when tokens are away; giving them back moves the expiry by the time from here.
    pub since: Option<DateTime<Utc>>,
}

/// What becomes of a lot's rest where a next lot opens at its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rollover {
    /// It burns.
    #[default]
    None,
    /// At most so many tokens of all that end together live on to the next lot's end.
    Capped(Tokens),
    /// All of it lives on to the next lot's end.
    All,
}

/// The word for it in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "plan_rollover", rename_all = "snake_case")]
pub enum RolloverRule {
    /// It burns.
    None,
    /// At most a cap lives on.
    Capped,
    /// All lives on.
    All,
}

impl Rollover {
    /// Reads rule and cap, which the schema keeps together.
    pub(crate) fn from_db(rule: RolloverRule, cap: Option<i64>) -> Self {
        match rule {
            RolloverRule::None => Self::None,
            RolloverRule::Capped => {
                Self::Capped(Tokens::from_db(cap.expect("the schema wants a cap")))
            }
            RolloverRule::All => Self::All,
        }
    }

    /// Rule and cap for the database.
    pub(crate) fn to_db(self) -> (RolloverRule, Option<i64>) {
        match self {
            Self::None => (RolloverRule::None, None),
            Self::Capped(cap) => (RolloverRule::Capped, Some(cap.to_db())),
            Self::All => (RolloverRule::All, None),
        }
    }
}

/// Tokens given from one source, and what is left of them.
///
/// Each token is counted once: `tokens` + `adjusted` = `remaining` + `taken.free` + `expired` +
/// spent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lot {
    /// The lot.
    pub id: GrantId,
    /// Where it comes from.
    pub source: Source,
    /// Lower is drawn first.
    pub priority: i16,
    /// How many were given.
    pub tokens: Tokens,
    /// What is left, held or frozen or not.
    pub remaining: Tokens,
    /// Of what is left: reserved by open holds.
    pub held: Tokens,
    /// Of what is held: over by the rules of expiry, burned when it is released.
    pub overdue: Tokens,
    /// By operators and changes of plan: added, or below 0 taken away.
    pub adjusted: i64,
    /// What was left at its end and burned.
    pub expired: Tokens,
    /// What refunds and disputes took.
    pub taken: Taken,
    /// Since when an open dispute freezes it.
    pub frozen_at: Option<DateTime<Utc>>,
    /// From when it counts.
    pub opens_at: DateTime<Utc>,
    /// Whether its opening is booked; before, it stands outside the balance.
    pub is_opened: bool,
    /// Until when it counts; `None`: for ever.
    pub expires_at: Option<DateTime<Utc>>,
    /// What becomes of the rest at its end.
    pub rollover: Rollover,
    /// Age decides last.
    pub created_at: DateTime<Utc>,
}

impl Lot {
    /// A lot of which nothing has happened yet, not opened either. It is the newest, never expires,
    /// opens at once and does not roll over.
    pub(super) fn new(source: Source, priority: i16, tokens: Tokens, now: DateTime<Utc>) -> Self {
        Self {
            id: GrantId::new(now),
            source,
            priority,
            tokens,
            remaining: tokens,
            held: Tokens::ZERO,
            overdue: Tokens::ZERO,
            adjusted: 0,
            expired: Tokens::ZERO,
            taken: Taken::default(),
            frozen_at: None,
            opens_at: now,
            is_opened: false,
            expires_at: None,
            rollover: Rollover::None,
            created_at: now,
        }
    }

    /// Lots are drawn by priority, soonest expiry, age.
    pub(super) fn draw_order(&self) -> impl Ord + use<> {
        (self.priority, self.expires_at.is_none(), self.expires_at, self.created_at, self.id)
    }

    /// What no hold reserves of what is left.
    pub(super) fn unheld(&self) -> Tokens {
        self.remaining.minus(self.held)
    }

    /// Whether the lot may be drawn at `now`.
    pub(super) fn is_open(&self, now: DateTime<Utc>) -> bool {
        self.is_opened && self.frozen_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }

    /// What the customer spent of it, on debt too.
    pub(super) fn spent(&self) -> Tokens {
        let given = Tokens::from_db(self.tokens.to_db() + self.adjusted);
        given.minus(self.remaining).minus(self.taken.free).minus(self.expired)
    }

    /// Reserves some of it.
    pub(super) fn reserve(&mut self, tokens: Tokens) {
        self.held = self.held.plus(tokens);
        assert!(self.held <= self.remaining, "no more is held than is left");
    }

    /// Undoes a reservation, in part or whole. Returns how many of the tokens are overdue: they
    /// burn unless they are spent now.
    pub(super) fn unreserve(&mut self, tokens: Tokens) -> Tokens {
        let over = self.overdue.min(tokens);
        self.held = self.held.minus(tokens);
        self.overdue = self.overdue.minus(over);
        over
    }
}

/// What an entry drew from one lot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocation {
    /// The lot.
    pub lot: GrantId,
    /// How many of its tokens.
    pub tokens: Tokens,
}

/// Fewer tokens are free than were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{requested} tokens were requested, {available} are available")]
pub struct InsufficientTokens {
    /// What was asked for.
    pub requested: Tokens,
    /// What is free.
    pub available: Tokens,
    /// What holds reserve.
    pub held: Tokens,
    /// How much debt a running hold may still make.
    pub overdraft_left: Tokens,
}

/// Draws `requested` from the lots by priority, soonest expiry, age; exactly or not at all.
pub(super) fn allocate<'a>(
    lots: impl IntoIterator<Item = &'a Lot>,
    requested: Tokens,
) -> Result<Vec<Allocation>, InsufficientTokens> {
    let mut lots: Vec<&Lot> = lots.into_iter().collect();
    lots.sort_by_key(|lot| lot.draw_order());
    let available: Tokens = lots.iter().map(|lot| lot.unheld()).sum();
    if available < requested {
        let none = Tokens::ZERO;
        return Err(InsufficientTokens { requested, available, held: none, overdraft_left: none });
    }
    let mut left = requested;
    let mut taken = Vec::new();
    for lot in lots {
        let tokens = lot.unheld().min(left);
        if tokens > Tokens::ZERO {
            taken.push(Allocation { lot: lot.id, tokens });
            left = left.minus(tokens);
        }
    }
    assert_eq!(left, Tokens::ZERO, "an allocation is exact");
    Ok(taken)
}
