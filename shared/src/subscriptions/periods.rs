//! Where a purchase's period goes. Pure: no clock, no database.

use chrono::{DateTime, Duration, Utc};

use super::Live;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SubscriptionId;
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
