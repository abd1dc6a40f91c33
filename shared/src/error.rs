//! Every way an operation can fail.

use crate::gateways::GatewayError;
use crate::tokens::{HoldState, InsufficientTokens, SettledShort};

/// What went wrong, never how HTTP should put it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The thing named does not exist, or not for this caller.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// The plan does not exist or is no longer sold.
    #[error("this plan is not available")]
    PlanUnavailable,
    /// The customer never had a subscription.
    #[error("No active subscription found")]
    NoSubscription,
    /// The customer's subscription does not allow spending now.
    #[error("the subscription is not active")]
    SubscriptionInactive,
    /// A free plan that the customer had already.
    #[error("already subscribed to this plan")]
    AlreadySubscribed,
    /// A member of the request that cannot be taken as it is.
    #[error("{detail}")]
    Invalid {
        /// JSON pointer (RFC 6901) without the leading slash: the member's name.
        field: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// The coupon does not exist or cannot be used here.
    #[error("this coupon cannot be used")]
    InvalidCoupon,
    /// The state of the thing does not allow it.
    #[error("{0}")]
    Conflict(String),
    /// The key was used before with another request.
    #[error("idempotency key was used before with a different request")]
    IdempotencyMismatch,
    /// Fewer tokens are free than were asked for.
    #[error(transparent)]
    InsufficientTokens(#[from] InsufficientTokens),
    /// The hold was ended before.
    #[error("the hold is not open: it is {}", .0.status.as_str())]
    HoldNotOpen(HoldState),
    /// A settle that booked all there was, which was too little.
    #[error("{} of {} tokens could be settled", .0.short.available, .0.short.requested)]
    SettledShort(Box<SettledShort>),
    /// More is waiting than can be done in time; nothing was done, or the key tells.
    #[error("overloaded")]
    Overloaded,
    /// A bug of ours, caught where it could do no harm.
    #[error("bug: {0}")]
    Bug(&'static str),
    /// The payment gateway refused, failed or did not answer.
    #[error("payment gateway: {0}")]
    Gateway(#[from] GatewayError),
    /// The database failed.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
}

impl Error {
    /// A member of the request that cannot be taken as it is.
    pub fn invalid(field: &'static str, detail: impl Into<String>) -> Self {
        Self::Invalid { field, detail: detail.into() }
    }
}
