//! Whether to buy a pack now. Pure: no clock, no database.

use chrono::{DateTime, Duration, Utc};

use crate::money::Money;
use crate::tokens::Tokens;

/// Top-ups a period where the customer names no number (rules.md).
pub const DEFAULT_PER_PERIOD: u32 = 3;

/// A period where there is none (rules.md).
pub(super) const ROLLING_PERIOD: Duration = Duration::days(30);

/// Failed payments in a row that switch it off.
pub(super) const MOST_FAILURES: u32 = 2;

/// After a failed payment the same gap is asked for again: banks lift most limits by the next day.
const RETRY: Duration = Duration::hours(24);

/// Debt and disputes end without a word to us; nobody waits longer than this for what follows.
const BLOCKED_LOOK: Duration = Duration::minutes(10);

/// A pause or the end of access lasts for days.
const NO_ACCESS_LOOK: Duration = Duration::hours(1);

/// A payment that is on its way is reconciled from the third minute on.
pub(super) const PENDING_LOOK: Duration = Duration::minutes(2);

/// Why auto top-up was switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "top_up_off", rename_all = "snake_case")]
pub enum OffReason {
    /// The customer wanted it.
    Customer,
    /// Two payments in a row failed.
    Declined,
    /// No saved method is left to charge.
    NoPaymentMethod,
    /// The pack is no longer sold.
    PlanUnavailable,
    /// The pack costs more than the customer agreed to.
    PriceChanged,
}

impl OffReason {
    /// The word in the database and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Declined => "declined",
            Self::NoPaymentMethod => "no_payment_method",
            Self::PlanUnavailable => "plan_unavailable",
            Self::PriceChanged => "price_changed",
        }
    }
}

/// The most that may be bought in a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// How often.
    pub(super) count: u32,
    /// For how much in all, in the currency of the agreed price.
    pub(super) minor: i64,
}

/// What was bought in the running period, pending payments included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bought {
    /// How often.
    pub count: u32,
    /// For how much in all, in minor units.
    pub minor: i64,
}

/// The newest order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Last {
    /// The gap it answered.
    pub(super) asked_at: DateTime<Utc>,
    /// When its payment ended; `None`: it is pending.
    pub(super) concluded_at: Option<DateTime<Utc>>,
    /// Whether it was paid.
    pub(super) is_paid: bool,
}

/// Everything that the decision rests on, under the customer's and the account's lock.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    /// The customer's line.
    pub(super) line: Tokens,
    /// What is free to spend.
    pub(super) available: Tokens,
    /// Since when a top-up is asked for.
    pub(super) since: Option<DateTime<Utc>>,
    /// Whether what is bought could be spent.
    pub(super) is_spendable: bool,
    /// Whether debt or a dispute is open.
    pub(super) is_blocked: bool,
    /// Whether a method is saved.
    pub(super) has_method: bool,
    /// What the pack costs today; `None`: it is not sold.
    pub(super) price: Option<Money>,
    /// What it cost when the customer agreed.
    pub(super) agreed: Money,
    /// The customer's limits.
    pub(super) limits: Limits,
    /// What was bought in the period.
    pub(super) bought: Bought,
    /// When the period's limits end, or the oldest purchase leaves them.
    pub(super) period_ends_at: DateTime<Utc>,
    /// The newest order.
    pub(super) last: Option<Last>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Nothing is asked for.
    Rest,
    /// Not now; look again then.
    Wait(DateTime<Utc>),
    /// Nothing can be bought until the customer acts.
    SwitchOff(OffReason),
    /// Buy one pack, in answer to the gap of this time.
    Buy(DateTime<Utc>),
}

/// Decides what to do at `now`.
pub(super) fn decide(standing: &Standing, now: DateTime<Utc>) -> Decision {
    let Some(since) = standing.since.filter(|_| standing.available <= standing.line) else {
        return Decision::Rest;
    };
    if standing.last.is_some_and(|last| last.concluded_at.is_none()) {
        return Decision::Wait(now + PENDING_LOOK);
    }
    if !standing.is_spendable {
        return Decision::Wait(now + NO_ACCESS_LOOK);
    }
    if standing.is_blocked {
        return Decision::Wait(now + BLOCKED_LOOK);
    }
    let Some(price) = standing.price.filter(|price| price.minor > 0) else {
        return Decision::SwitchOff(OffReason::PlanUnavailable);
    };
    if price.currency != standing.agreed.currency || price.minor > standing.agreed.minor {
        return Decision::SwitchOff(OffReason::PriceChanged);
    }
    if !standing.has_method {
        return Decision::SwitchOff(OffReason::NoPaymentMethod);
    }
    // A gap is answered once; where it was, and stands open still, it is asked for anew.
    let answered = standing.last.filter(|last| last.asked_at >= since);
    let failed = answered.filter(|last| !last.is_paid).and_then(|last| last.concluded_at);
    if let Some(retry_at) = failed.map(|at| at + RETRY).filter(|at| now < *at) {
        return Decision::Wait(retry_at);
    }
    let is_often_enough = standing.bought.count >= standing.limits.count;
    if is_often_enough || standing.bought.minor + price.minor > standing.limits.minor {
        return Decision::Wait(standing.period_ends_at.max(now + BLOCKED_LOOK));
    }
    Decision::Buy(answered.map_or(since, |last| later(last.asked_at, now)))
}

/// `now`, or the next instant that the database tells from `than`.
pub(super) fn later(than: DateTime<Utc>, now: DateTime<Utc>) -> DateTime<Utc> {
    now.max(than + Duration::microseconds(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Currency;
    use proptest::prelude::*;

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + minutes * 60, 0).unwrap()
    }

    fn usd(minor: i64) -> Money {
        Money::new(minor, Currency::USD)
    }

    /// 50 of 100 tokens, asked for at minute 0, nothing bought.
    fn standing() -> Standing {
        Standing {
            line: Tokens(100),
            available: Tokens(50),
            since: Some(at(0)),
            is_spendable: true,
            is_blocked: false,
            has_method: true,
            price: Some(usd(1_000)),
            agreed: usd(1_000),
            limits: Limits { count: 3, minor: 3_000 },
            bought: Bought::default(),
            period_ends_at: at(60 * 24 * 10),
            last: None,
        }
    }

    fn paid(asked_at: DateTime<Utc>) -> Last {
        Last { asked_at, concluded_at: Some(asked_at), is_paid: true }
    }

    fn failed(asked_at: DateTime<Utc>) -> Last {
        Last { is_paid: false, ..paid(asked_at) }
    }

    #[test]
    fn a_gap_is_answered_under_its_own_time() {
        assert_eq!(decide(&standing(), at(5)), Decision::Buy(at(0)));
        let on_the_line = Standing { available: Tokens(100), ..standing() };
        assert_eq!(decide(&on_the_line, at(5)), Decision::Buy(at(0)));
    }

    #[test]
    fn above_the_line_nothing_is_bought() {
        let above = Standing { available: Tokens(101), ..standing() };
        assert_eq!(decide(&above, at(5)), Decision::Rest);
        assert_eq!(decide(&Standing { since: None, ..standing() }, at(5)), Decision::Rest);
    }

    #[test]
    fn one_is_pending_at_most() {
        let last = Last { asked_at: at(0), concluded_at: None, is_paid: false };
        let pending = Standing { last: Some(last), ..standing() };
        assert_eq!(decide(&pending, at(5)), Decision::Wait(at(7)));
    }

    #[test]
    fn debt_or_a_dispute_and_a_pause_stop_it_for_a_while() {
        let wait = Decision::Wait(at(15));
        assert_eq!(decide(&Standing { is_blocked: true, ..standing() }, at(5)), wait);
        let paused = Standing { is_spendable: false, ..standing() };
        assert_eq!(decide(&paused, at(5)), Decision::Wait(at(65)));
    }

    #[test]
    fn what_cannot_be_bought_as_agreed_switches_it_off() {
        let off = |standing: Standing| decide(&standing, at(5));
        let gone = Standing { price: None, ..standing() };
        assert_eq!(off(gone), Decision::SwitchOff(OffReason::PlanUnavailable));
        let dearer = Standing { price: Some(usd(1_001)), ..standing() };
        assert_eq!(off(dearer), Decision::SwitchOff(OffReason::PriceChanged));
        let euro = Some(Money::new(1_000, Currency::parse("EUR").unwrap()));
        let other = Standing { price: euro, ..standing() };
        assert_eq!(off(other), Decision::SwitchOff(OffReason::PriceChanged));
        let removed = Standing { has_method: false, ..standing() };
        assert_eq!(off(removed), Decision::SwitchOff(OffReason::NoPaymentMethod));
        let cheaper = Standing { price: Some(usd(900)), ..standing() };
        assert_eq!(off(cheaper), Decision::Buy(at(0)));
    }

    #[test]
    fn limits_of_number_and_of_money_wait_for_the_period_to_end() {
        let end = Decision::Wait(at(60 * 24 * 10));
        let often = Standing { bought: Bought { count: 3, minor: 300 }, ..standing() };
        assert_eq!(decide(&often, at(5)), end);
        let much = Standing { bought: Bought { count: 1, minor: 2_001 }, ..standing() };
        assert_eq!(decide(&much, at(5)), end);
        let just = Standing { bought: Bought { count: 2, minor: 2_000 }, ..standing() };
        assert_eq!(decide(&just, at(5)), Decision::Buy(at(0)));
    }

    #[test]
    fn where_one_pack_was_too_small_the_next_is_bought_under_a_new_time() {
        let still_low = Standing { last: Some(paid(at(0))), ..standing() };
        assert_eq!(decide(&still_low, at(5)), Decision::Buy(at(5)));
        let micro = Decision::Buy(at(0) + Duration::microseconds(1));
        assert_eq!(decide(&still_low, at(0)), micro, "also within the same instant");
        let earlier = Standing { last: Some(paid(at(-5))), ..standing() };
        assert_eq!(decide(&earlier, at(5)), Decision::Buy(at(0)));
    }

    #[test]
    fn a_failed_one_is_tried_again_a_day_later_and_at_once_for_a_new_gap() {
        let again = Standing { last: Some(failed(at(0))), ..standing() };
        assert_eq!(decide(&again, at(5)), Decision::Wait(at(24 * 60)));
        assert_eq!(decide(&again, at(24 * 60)), Decision::Buy(at(24 * 60)));
        let new_gap = Standing { last: Some(failed(at(-5))), ..standing() };
        assert_eq!(decide(&new_gap, at(5)), Decision::Buy(at(0)));
    }

    fn any_standing() -> impl Strategy<Value = Standing> {
        let amounts = (0..200_u64, prop::option::of(-50..50_i64), 0..5_u32, 0..4_000_i64);
        let flags = (any::<bool>(), any::<bool>(), any::<bool>());
        let last = prop::option::of((-50..50_i64, prop::option::of(0..50_i64), any::<bool>()));
        let price = prop::option::of(0..1_200_i64);
        (amounts, flags, last, price).prop_map(|(amounts, flags, last, price)| Standing {
            available: Tokens(amounts.0),
            since: amounts.1.map(at),
            bought: Bought { count: amounts.2, minor: amounts.3 },
            is_spendable: flags.0,
            is_blocked: flags.1,
            has_method: flags.2,
            price: price.map(usd),
            last: last.map(|(asked, concluded, is_paid)| Last {
                asked_at: at(asked),
                concluded_at: concluded.map(|after| at(asked + after)),
                is_paid: is_paid && concluded.is_some(),
            }),
            ..standing()
        })
    }

    proptest! {
        /// Whatever stands, nothing is bought outside the customer's wish, and no gap twice.
        #[test]
        fn nothing_is_bought_beyond_what_was_agreed(standing in any_standing(), now in 0..3_000_i64) {
            match decide(&standing, at(now)) {
                Decision::Buy(asked_at) => {
                    prop_assert!(standing.available <= standing.line);
                    prop_assert!(standing.is_spendable && standing.has_method);
                    prop_assert!(!standing.is_blocked);
                    let price = standing.price.unwrap();
                    prop_assert!(0 < price.minor && price.minor <= standing.agreed.minor);
                    prop_assert!(standing.bought.count < standing.limits.count);
                    prop_assert!(standing.bought.minor + price.minor <= standing.limits.minor);
                    prop_assert!(standing.last.is_none_or(|last| last.concluded_at.is_some()));
                    prop_assert!(standing.last.is_none_or(|last| last.asked_at < asked_at));
                }
                Decision::Wait(until) => prop_assert!(until > at(now)),
                Decision::Rest | Decision::SwitchOff(_) => {}
            }
        }

        /// However low the balance stays and however long, no window holds more than the limits.
        #[test]
        fn a_balance_that_never_recovers_costs_the_limit_and_no_more(
            looks in prop::collection::vec((1..30_000_i64, any::<bool>()), 1..60),
        ) {
            let (mut now, mut orders): (i64, Vec<(DateTime<Utc>, bool)>) = (0, Vec::new());
            for (wait, is_paid) in looks {
                now += wait;
                let from = at(now) - ROLLING_PERIOD;
                let counted: Vec<_> =
                    orders.iter().filter(|(time, paid)| *paid && *time > from).collect();
                let count = u32::try_from(counted.len()).unwrap();
                let bought = Bought { count, minor: i64::from(count) * 1_000 };
                prop_assert!(bought.count <= 3);
                let last = orders.last().map(|(asked_at, is_paid)| Last {
                    asked_at: *asked_at, concluded_at: Some(*asked_at), is_paid: *is_paid,
                });
                let standing = Standing { bought, last, ..standing() };
                if let Decision::Buy(asked_at) = decide(&standing, at(now)) {
                    prop_assert!(orders.iter().all(|(before, _)| *before < asked_at));
                    orders.push((asked_at, is_paid));
                }
            }
        }
    }
}
