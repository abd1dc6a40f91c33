//! What was asked of the gateways: every call, without its secrets.

use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::Gateway;
use crate::faults::Trouble;

/// Older calls are forgotten: an hour of load must not fill the memory.
const KEPT: usize = 100_000;

/// One API call. Holds no header but the idempotency key: keys and tokens never get here.
#[derive(Debug, Clone, Serialize)]
pub struct Call {
    /// Counts from 1 since the start or the last reset.
    pub number: u64,
    /// When it arrived, by the simulator's clock.
    pub at: DateTime<Utc>,
    /// Whose API.
    pub gateway: Gateway,
    /// HTTP method.
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// `Idempotency-Key` or `PayPal-Request-Id`.
    pub idempotency_key: Option<String>,
    /// The gateway's name for this call.
    pub request_id: String,
    /// Answer's status; none while it is under way or if the connection was reset.
    pub status: Option<u16>,
    /// Whether an earlier answer was given again.
    pub replayed: bool,
    /// What was made to go wrong.
    pub trouble: Option<Trouble>,
    /// Ids of the objects it made, money moved or not.
    pub effects: Vec<String>,
}

/// The calls, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    calls: VecDeque<Call>,
    count: u64,
}

impl Journal {
    /// Writes down a call that has just arrived and returns its number.
    pub(crate) fn open(&mut self, call: Call) -> u64 {
        self.count += 1;
        if self.calls.len() == KEPT {
            self.calls.pop_front();
        }
        self.calls.push_back(Call { number: self.count, ..call });
        self.count
    }

    /// Adds to a call what came of it.
    pub(crate) fn close(&mut self, number: u64, change: impl FnOnce(&mut Call)) {
        if let Ok(place) = self.calls.binary_search_by_key(&number, |call| call.number) {
            change(&mut self.calls[place]);
        }
    }

    /// Returns the calls, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Call> {
        self.calls.iter()
    }
}
