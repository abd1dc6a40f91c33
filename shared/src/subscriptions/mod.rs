//! Rights to successive periods.

mod book;
mod paid;
mod periods;
mod store;
mod view;

use chrono::{DateTime, Utc};

pub use book::{Bought, book, mark_past_due};
pub use paid::{end_paid, prolong, restore_paid, unused_time};
pub use view::{View, current, is_live, running_period, view_in};

use crate::ids::SubscriptionId;

/// Where a subscription stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "subscription_status", rename_all = "snake_case")]
pub enum Status {
    /// Before the first payment.
    Incomplete,
    /// Being tried without payment.
    Trialing,
    /// Paid.
    Active,
    /// A renewal failed; grace runs.
    PastDue,
    /// Stopped by the customer for a while.
    Paused,
    /// Ended on request.
    Canceled,
    /// Ended by time.
    Expired,
}

impl Status {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Incomplete => "incomplete",
            Self::Trialing => "trialing",
            Self::Active => "active",
            Self::PastDue => "past_due",
            Self::Paused => "paused",
            Self::Canceled => "canceled",
            Self::Expired => "expired",
        }
    }
}

/// A customer's live subscription, as locked for a decision.
#[derive(Debug, Clone, Copy)]
pub struct Live {
    /// The subscription.
    pub id: SubscriptionId,
    /// End of the last period paid for; `None`: never ends (a pack).
    pub ends_at: Option<DateTime<Utc>>,
}
