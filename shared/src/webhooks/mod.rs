//! What gateways tell us: stored first, then acted on.

mod fetch;
mod intake;
mod list;
mod process;
mod receive;
mod store;
mod sweep;

pub use fetch::{fetch_jobs, fetch_missed};
pub(crate) use intake::Intake;
pub use list::{EventView, list};
pub use process::{give_up, process, put_off};
pub use receive::{Refusal, receive};
pub use sweep::{due, reprocess, ring_lost};

/// Where an event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type, serde::Deserialize)]
#[sqlx(type_name = "webhook_event_status", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum EventStatus {
    /// Stored; nobody acted on it yet.
    Received,
    /// The books agree with it.
    Processed,
    /// Of no use to us.
    Ignored,
    /// No payment of ours fits yet.
    Waiting,
    /// It contradicts our payment: a person must look.
    Quarantined,
    /// Its attempts are used up: a person must look.
    Failed,
}

impl EventStatus {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Processed => "processed",
            Self::Ignored => "ignored",
            Self::Waiting => "waiting",
            Self::Quarantined => "quarantined",
            Self::Failed => "failed",
        }
    }
}
