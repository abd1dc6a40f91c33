//! What gateways tell us: stored first, then acted on.

mod process;
mod receive;
mod store;
mod sweep;

pub use process::{give_up, process};
pub use receive::{Refusal, receive};
pub use sweep::{due, ring_lost};

/// Where an event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "webhook_event_status", rename_all = "snake_case")]
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
