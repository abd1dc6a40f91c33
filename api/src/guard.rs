//! What forged webhooks may cost: one count in memory, one log line a minute, and after 60 from
//! one address not even a verdict.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use shared::gateways::GatewayName;

/// Webhooks of one address that may fail in a minute (rules.md, "Callers, keys, limits").
const FAILURES_A_MINUTE: NonZeroU32 = NonZeroU32::new(60).expect("60 is not 0");

/// Addresses that are remembered before quiet ones are forgotten out of turn.
const MAX_ADDRESSES: usize = 10_000;

/// One reason is logged once, then as a count, this often.
const LOG_EVERY: Duration = Duration::from_mins(1);

/// Counts webhooks that were not proven, and says when an address sent too many.
///
/// Only failures are ever counted: a proven event passes whatever else its address sends.
pub(crate) struct Guard {
    clock: DefaultClock,
    addresses: Option<DefaultKeyedRateLimiter<IpAddr>>,
    reasons: Mutex<BTreeMap<(&'static str, String), Count>>,
}

struct Count {
    total: u64,
    unsaid: u64,
    said_at: Instant,
}

/// The address sent too many; it may try again after so many seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany(pub(crate) u32);

impl Guard {
    /// Without `is_limiting` it only counts: for benchmarks from one address.
    pub(crate) fn new(is_limiting: bool) -> Self {
        let quota = Quota::per_minute(FAILURES_A_MINUTE);
        Self {
            clock: DefaultClock::default(),
            addresses: is_limiting.then(|| RateLimiter::keyed(quota)),
            reasons: Mutex::default(),
        }
    }

    /// Counts a webhook that was not proven.
    pub(crate) fn failed(
        &self,
        gateway: GatewayName,
        reason: &str,
        peer: IpAddr,
    ) -> Result<(), TooMany> {
        self.count(gateway, reason, Instant::now());
        let Some(addresses) = &self.addresses else { return Ok(()) };
        if addresses.len() > MAX_ADDRESSES {
            addresses.retain_recent();
        }
        addresses.check_key(&network(peer)).map_err(|refused| {
            let wait = refused.wait_time_from(self.clock.now());
            TooMany(u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1))
        })
    }

    /// How many were not proven since the start, by gateway and reason.
    pub(crate) fn totals(&self) -> BTreeMap<(&'static str, String), u64> {
        let reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        reasons.iter().map(|(key, count)| (key.clone(), count.total)).collect()
    }

    /// Forgets quiet addresses and logs the counts that are due. To be called once a minute.
    pub(crate) fn tend(&self) {
        if let Some(addresses) = &self.addresses {
            addresses.retain_recent();
            addresses.shrink_to_fit();
        }
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        for ((gateway, reason), count) in reasons.iter_mut() {
            count.say_if_due(gateway, reason, now);
        }
    }

    /// Reasons are words of the verifiers, a few dozen at most.
    fn count(&self, gateway: GatewayName, reason: &str, now: Instant) {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (gateway.as_str(), reason.to_owned());
        let count = reasons.entry(key).or_insert_with(|| Count {
            total: 0,
            unsaid: 0,
            said_at: now.checked_sub(LOG_EVERY).unwrap_or(now),
        });
        count.total += 1;
        count.unsaid += 1;
        if count.total == 1 {
            count.say(gateway.as_str(), reason, now);
        } else {
            count.say_if_due(gateway.as_str(), reason, now);
        }
    }
}

impl Count {
    fn say_if_due(&mut self, gateway: &str, reason: &str, now: Instant) {
        if self.unsaid > 0 && now.duration_since(self.said_at) >= LOG_EVERY {
            self.say(gateway, reason, now);
        }
    }

    fn say(&mut self, gateway: &str, reason: &str, now: Instant) {
        tracing::info!(gateway, reason, count = self.unsaid, "webhooks refused");
        self.unsaid = 0;
        self.said_at = now;
    }
}

/// Who owns one IPv6 address owns its whole /64.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(mapped) => IpAddr::V4(mapped),
            None => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::*;

    /// Keeps what is logged.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_flood_is_one_line_and_then_a_count_a_minute() {
        let lines = Lines::default();
        let kept = lines.clone();
        let logs = tracing_subscriber::fmt().with_ansi(false).with_writer(move || kept.clone());
        let guard = Guard::new(true);
        let start = Instant::now();

        tracing::subscriber::with_default(logs.finish(), || {
            for second in 0..=60 {
                for _ in 0..100 {
                    guard.count(STRIPE, "reason", start + Duration::from_secs(second));
                }
            }
            guard.count(GatewayName::Paypal, "reason", start);
        });

        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let counts: Vec<&str> =
            text.lines().filter_map(|line| line.split("count=").nth(1)).collect();
        assert_eq!(counts, ["1", "6000", "1"], "{text}");
    }

    const STRIPE: GatewayName = GatewayName::Stripe;

    fn fail(guard: &Guard, times: usize, peer: &str) -> Vec<Result<(), TooMany>> {
        (0..times).map(|_| guard.failed(STRIPE, "reason", peer.parse().unwrap())).collect()
    }

    #[test]
    fn sixty_failures_pass_and_the_next_is_told_when_to_come_back() {
        let guard = Guard::new(true);
        assert!(fail(&guard, 60, "192.0.2.1").iter().all(Result::is_ok));
        let refused = fail(&guard, 1, "192.0.2.1")[0];
        assert!(refused.is_err_and(|TooMany(seconds)| (1..=60).contains(&seconds)), "{refused:?}");
        assert!(fail(&guard, 1, "192.0.2.2")[0].is_ok(), "another address");
        assert_eq!(guard.totals()[&("stripe", "reason".to_owned())], 62);
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let guard = Guard::new(true);
        fail(&guard, 60, "2001:db8::1");
        assert!(fail(&guard, 1, "2001:db8::2")[0].is_err());
        assert!(fail(&guard, 1, "2001:db8:0:1::2")[0].is_ok());
        fail(&guard, 60, "::ffff:192.0.2.1");
        assert!(fail(&guard, 1, "192.0.2.1")[0].is_err());
    }

    #[test]
    fn without_limits_it_only_counts() {
        let guard = Guard::new(false);
        assert!(fail(&guard, 500, "192.0.2.1").iter().all(Result::is_ok));
        assert_eq!(guard.totals()[&("stripe", "reason".to_owned())], 500);
    }
}
