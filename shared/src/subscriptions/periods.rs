//! Where a purchase's period goes. Pure: no clock, no database.

use chrono::{DateTime, Duration, Utc};

use super::Live;
use crate::ids::PaymentId;

/// What a captured purchase does to the customer's subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placement {
    /// A pack beside a subscription that goes on: only tokens are added.
    Beside,
    /// A pack alone opens a subscription without end.
    OpenEndless,
    /// A new subscription; one that ended is closed first.
    Open {
        /// Start of its first period.
        starts_at: DateTime<Utc>,
        /// End of its first period.
        ends_at: DateTime<Utc>,
    },
    /// A period behind what is paid, or, over a pack, from now.
    Extend {
        /// Start of the new period.
        starts_at: DateTime<Utc>,
        /// End of the new period, which becomes the subscription's.
        ends_at: DateTime<Utc>,
    },
}

/// Places a purchase that lasts `duration` (`None`: a pack) at `now`.
///
/// Periods neither overlap nor leave a gap: what is live is followed, what has ended is not.
pub(super) fn place(
    live: Option<Live>,
    duration: Option<Duration>,
    now: DateTime<Utc>,
) -> Placement {
    let live = live.filter(|live| live.ends_at.is_none_or(|end| now < end));
    match (live, duration) {
        (Some(_), None) => Placement::Beside,
        (None, None) => Placement::OpenEndless,
        (None, Some(duration)) => Placement::Open { starts_at: now, ends_at: now + duration },
        (Some(live), Some(duration)) => {
            let starts_at = live.ends_at.unwrap_or(now);
            Placement::Extend { starts_at, ends_at: starts_at + duration }
        }
    }
}

/// A period that was paid for and not voided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Paid {
    /// What paid for it.
    pub(super) payment_id: PaymentId,
    /// Its first instant.
    pub(super) starts_at: DateTime<Utc>,
    /// The first instant after.
    pub(super) ends_at: DateTime<Utc>,
}

/// The periods behind `gone`, moved up by what was left of it at `now`: what is paid for later
/// starts where the ended one ends.
pub(super) fn without(periods: &[Paid], gone: Paid, now: DateTime<Utc>) -> Vec<Paid> {
    let left = (gone.ends_at - gone.starts_at.max(now)).max(Duration::zero());
    moved(periods, gone, -left)
}

/// The periods behind `longer`, moved back by `by`: it ends that much later.
pub(super) fn behind(periods: &[Paid], longer: Paid, by: Duration) -> Vec<Paid> {
    moved(periods, longer, by)
}

fn moved(periods: &[Paid], around: Paid, by: Duration) -> Vec<Paid> {
    let is_behind = |period: &&Paid| {
        period.payment_id != around.payment_id && period.starts_at >= around.ends_at
    };
    let moved = periods.iter().filter(is_behind).map(|period| Paid {
        starts_at: period.starts_at + by,
        ends_at: period.ends_at + by,
        ..*period
    });
    if by.is_zero() { Vec::new() } else { moved.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SubscriptionId;

    fn paid(start: i64, end: i64) -> Paid {
        Paid { payment_id: PaymentId::new(at(start)), starts_at: at(start), ends_at: at(end) }
    }

    #[test]
    fn what_is_paid_behind_an_ended_period_moves_up_to_now() {
        let (first, second, third) = (paid(0, 30), paid(30, 60), paid(60, 90));
        let moved = without(&[first, second, third], first, at(10));
        let spans: Vec<_> = moved.iter().map(|it| (it.starts_at, it.ends_at)).collect();
        assert_eq!(spans, [(at(10), at(40)), (at(40), at(70))]);
        let moved = without(&[first, second, third], second, at(10));
        assert_eq!(moved.len(), 1);
        assert_eq!((moved[0].starts_at, moved[0].ends_at), (at(30), at(60)));
        assert!(without(&[first, second], first, at(31)).is_empty());
    }

    #[test]
    fn what_is_paid_behind_a_prolonged_period_moves_back() {
        let (first, second) = (paid(0, 30), paid(30, 60));
        let moved = behind(&[first, second], first, Duration::days(5));
        assert_eq!((moved[0].starts_at, moved[0].ends_at), (at(35), at(65)));
        assert!(behind(&[first, second], second, Duration::days(5)).is_empty());
    }
    use proptest::prelude::*;

    fn at(days: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap() + Duration::days(days)
    }

    fn live(ends: Option<i64>) -> Live {
        Live { id: SubscriptionId::new(at(0)), ends_at: ends.map(at) }
    }

    #[test]
    fn the_same_plan_again_starts_where_the_last_period_ends() {
        let placed = place(Some(live(Some(5))), Some(Duration::days(30)), at(1));
        assert_eq!(placed, Placement::Extend { starts_at: at(5), ends_at: at(35) });
    }

    #[test]
    fn what_has_ended_is_not_followed_not_even_in_its_last_instant() {
        let placed = place(Some(live(Some(5))), Some(Duration::days(30)), at(5));
        assert_eq!(placed, Placement::Open { starts_at: at(5), ends_at: at(35) });
    }

    #[test]
    fn a_pack_is_no_period() {
        assert_eq!(place(Some(live(Some(5))), None, at(1)), Placement::Beside);
        assert_eq!(place(Some(live(None)), None, at(1)), Placement::Beside);
        assert_eq!(place(None, None, at(1)), Placement::OpenEndless);
        assert_eq!(place(Some(live(Some(5))), None, at(6)), Placement::OpenEndless);
    }

    #[test]
    fn a_plan_bought_over_a_pack_starts_now() {
        let placed = place(Some(live(None)), Some(Duration::days(30)), at(1));
        assert_eq!(placed, Placement::Extend { starts_at: at(1), ends_at: at(31) });
    }

    proptest! {
        /// No two periods of a life overlap, and there is a gap only after an end.
        #[test]
        fn periods_never_overlap(buys in prop::collection::vec((0..60_i64, 1..40_i64), 1..20)) {
            let mut now = at(0);
            let mut end: Option<DateTime<Utc>> = None;
            for (wait, days) in buys {
                now += Duration::days(wait);
                let current =
                    end.map(|end| Live { id: SubscriptionId::new(at(0)), ends_at: Some(end) });
                let (starts_at, ends_at) = match place(current, Some(Duration::days(days)), now) {
                    Placement::Open { starts_at, ends_at }
                    | Placement::Extend { starts_at, ends_at } => (starts_at, ends_at),
                    Placement::Beside | Placement::OpenEndless => unreachable!("a period plan"),
                };
                prop_assert_eq!(ends_at - starts_at, Duration::days(days));
                prop_assert_eq!(starts_at, end.map_or(now, |end| end.max(now)));
                end = Some(ends_at);
            }
        }
    }
}
