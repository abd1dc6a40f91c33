//! Billing time. Tests hold it still and move it; nothing else in the business asks what time it is.
//!
//! Security and transport time (tokens, signatures, certificates, retry backoff) is [`wall_now`].

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, Duration, Utc};

/// Where billing time comes from.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// Microseconds since 1970; absent: the machine's clock.
    fixed: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands still until it is moved. Clones move together.
    pub fn fixed(at: DateTime<Utc>) -> Self {
        Self { fixed: Some(Arc::new(AtomicI64::new(at.timestamp_micros()))) }
    }

    /// The time, in whole microseconds as Postgres stores it.
    pub fn now(&self) -> DateTime<Utc> {
        let micros = match &self.fixed {
            Some(fixed) => fixed.load(Ordering::SeqCst),
            None => wall_now().timestamp_micros(),
        };
        DateTime::from_timestamp_micros(micros).expect("the clock is within chrono's range")
    }

    /// Moves a fixed clock forward; the machine's clock cannot be moved.
    pub fn advance(&self, by: Duration) {
        let fixed = self.fixed.as_ref().expect("only a fixed clock can be moved");
        fixed.fetch_add(
            by.num_microseconds().expect("a span of centuries at most"),
            Ordering::SeqCst,
        );
    }
}

/// The machine's clock, for security and transport only.
#[expect(clippy::disallowed_methods, reason = "the one place that asks the machine")]
pub fn wall_now() -> DateTime<Utc> {
    Utc::now()
}
