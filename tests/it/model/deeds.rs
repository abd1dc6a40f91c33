//! What can happen to an account, and how often it does.

use chrono::Duration;
use shared::tokens::{Rollover, Tokens};
use uuid::Uuid;

use super::plain::Time;
use crate::chaos::dice::Dice;

/// A lot that is given.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) source: Uuid,
    pub(super) is_payment: bool,
    pub(super) part: i32,
    pub(super) tokens: u64,
    pub(super) priority: i16,
    pub(super) opens_at: Time,
    pub(super) ends_at: Option<Time>,
    pub(super) rollover: Rollover,
}

/// What is known of a payment's money.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) payment: Uuid,
    pub(super) captured: u64,
    pub(super) gone: u64,
    pub(super) gone_unused_only: u64,
    pub(super) is_frozen: bool,
}

/// What the subscription allows.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) is_active: bool,
    pub(super) until: Option<Time>,
    pub(super) paused_until: Option<Time>,
    pub(super) overdraft: u64,
}

/// Some tokens of one lot.
#[derive(Debug, Clone)]
pub(super) struct Share {
    pub(super) source: Uuid,
    pub(super) part: i32,
    pub(super) tokens: u64,
}

/// How a hold goes on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Extend { tokens: u64, seconds: Option<i64>, reported: Option<u64> },
    Settle { total: u64, is_final: bool },
    Release,
}

/// One thing that is done, or looked at.
#[derive(Debug, Clone)]
pub(super) enum Deed {
    Consume { tokens: u64 },
    Open { id: Uuid, tokens: u64, seconds: i64, settles_reported: bool },
    Step { hold: Uuid, step: Step },
    Look,
    Grant(Given),
    Adapt(Facts),
    Terms(Terms),
    Remove { tokens: u64 },
    Forgive { tokens: u64 },
    Reset { source: Uuid, part: i32, tokens: u64 },
    Reserve { id: Uuid, shares: Vec<Share>, ends_at: Time },
    Take { id: Uuid, shares: Vec<Share> },
    Let { id: Uuid },
}

/// How long a period lasts: shorter than the longest hold, so that holds outlive lots.
const PERIOD: i64 = 6;

/// What each payment captured.
const CAPTURED: u64 = 70;

/// What clients know of an account: whatever its answers told them.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) lots: Vec<Given>,
    pub(super) holds: Vec<Uuid>,
    pub(super) changes: Vec<(Uuid, Vec<Share>)>,
    /// Where the last period paid for ends.
    pub(super) paid_until: Option<Time>,
}

/// The terms of a plan as they usually are.
pub(super) fn usual_terms(dice: &mut Dice) -> Terms {
    let overdraft = if dice.percent(60) { dice.below(40) } else { 0 };
    Terms { is_active: true, until: None, paused_until: None, overdraft }
}

fn one<'a, T>(dice: &mut Dice, of: &'a [T]) -> Option<&'a T> {
    let count = u64::try_from(of.len()).unwrap();
    (count > 0).then(|| &of[usize::try_from(dice.below(count)).unwrap()])
}

fn seconds(dice: &mut Dice) -> i64 {
    let hours = i64::try_from(dice.below(24)).unwrap();
    match dice.below(4) {
        0 => 1 + i64::try_from(dice.below(90)).unwrap(),
        1 => 3_600 * (hours + 1),
        2 => 1_800 * (hours + 1),
        _ => 86_400,
    }
}

/// A period that follows those paid for, or one that runs from about now.
pub(super) fn period(dice: &mut Dice, known: &mut Known, now: Time) -> Vec<Given> {
    let from = known.paid_until.filter(|end| *end > now).unwrap_or(now);
    let source = Uuid::now_v7();
    let rollover = match dice.below(4) {
        0 => Rollover::None,
        1 => Rollover::Capped(Tokens(1 + dice.below(60))),
        2 | 3 => Rollover::All,
        _ => unreachable!("below four"),
    };
    let parts = if dice.percent(25) { 3 } else { 1 };
    let tokens = 1 + dice.below(200);
    let part = |part: i32| Given {
        source,
        is_payment: true,
        part,
        tokens,
        priority: 10,
        opens_at: from + Duration::hours(PERIOD * i64::from(part)),
        ends_at: Some(from + Duration::hours(PERIOD * i64::from(part + 1))),
        rollover,
    };
    let given: Vec<Given> = (0..parts).map(part).collect();
    known.paid_until = given.last().and_then(|last| last.ends_at);
    given
}

/// A pack, a gift or a trial.
pub(super) fn extra(dice: &mut Dice, now: Time) -> Given {
    let (is_payment, lasts) = match dice.below(3) {
        0 => (true, None),
        1 => (false, None),
        _ => (false, Some(Duration::seconds(seconds(dice)))),
    };
    let ahead = if dice.percent(20) { Duration::minutes(90) } else { Duration::zero() };
    Given {
        source: Uuid::now_v7(),
        is_payment,
        part: 0,
        tokens: 1 + dice.below(150),
        priority: if dice.percent(80) { 20 } else { 10 },
        opens_at: now + ahead,
        ends_at: lasts.map(|lasts| now + ahead + lasts),
        rollover: Rollover::None,
    }
}

/// What a client does next to an account of which it knows this.
pub(super) fn next(dice: &mut Dice, known: &mut Known, now: Time) -> Vec<Deed> {
    let what = dice.pick(&[
        (22, 'c'),
        (5, 'b'),
        (14, 'o'),
        (8, 'e'),
        (16, 's'),
        (5, 'r'),
        (8, 'l'),
        (5, 'p'),
        (3, 'x'),
        (9, 'a'),
        (4, 't'),
        (3, 'm'),
        (3, 'f'),
        (3, 'z'),
        (3, 'h'),
        (5, 'k'),
        (2, 'y'),
        (1, 'g'),
    ]);
    let single = |deed: Option<Deed>| deed.into_iter().collect();
    match what {
        'c' => vec![Deed::Consume { tokens: 1 + dice.below(30) }],
        'b' => (0..=dice.below(5)).map(|_| Deed::Consume { tokens: 1 + dice.below(20) }).collect(),
        'o' => vec![open(dice)],
        'e' | 's' | 'r' => single(step(dice, known, what)),
        'p' => period(dice, known, now).into_iter().map(Deed::Grant).collect(),
        'x' => vec![Deed::Grant(extra(dice, now))],
        'g' => single(one(dice, &known.lots).cloned().map(Deed::Grant)),
        'a' => single(facts(dice, known)),
        't' => vec![Deed::Terms(terms(dice, now))],
        'm' => vec![Deed::Remove { tokens: 1 + dice.below(30) }],
        'f' => vec![Deed::Forgive { tokens: 1 + dice.below(30) }],
        'z' => single(paid(dice, known).map(|(source, part)| Deed::Reset {
            source,
            part,
            tokens: dice.below(100),
        })),
        'h' => single(reserve(dice, known, now)),
        'k' => {
            single(one(dice, &known.changes).cloned().map(|(id, shares)| Deed::Take { id, shares }))
        }
        'y' => single(one(dice, &known.changes).cloned().map(|(id, _)| Deed::Let { id })),
        _ => vec![Deed::Look],
    }
}

fn open(dice: &mut Dice) -> Deed {
    Deed::Open {
        id: Uuid::nil(),
        tokens: 1 + dice.below(60),
        seconds: seconds(dice),
        settles_reported: dice.percent(50),
    }
}

fn step(dice: &mut Dice, known: &Known, what: char) -> Option<Deed> {
    let recent = known.holds.len().saturating_sub(4);
    let hold = *one(dice, &known.holds[recent..])?;
    let step = match what {
        'e' => Step::Extend {
            tokens: if dice.percent(50) { 1 + dice.below(20) } else { 0 },
            seconds: dice.percent(50).then(|| seconds(dice)),
            reported: dice.percent(70).then(|| dice.below(90)),
        },
        's' => Step::Settle { total: dice.below(80), is_final: dice.percent(30) },
        _ => Step::Release,
    };
    Some(Deed::Step { hold, step })
}

/// One of the lots that were paid for.
fn paid(dice: &mut Dice, known: &Known) -> Option<(Uuid, i32)> {
    let paid: Vec<&Given> = known.lots.iter().filter(|lot| lot.is_payment).collect();
    one(dice, &paid).map(|lot| (lot.source, lot.part))
}

fn facts(dice: &mut Dice, known: &Known) -> Option<Deed> {
    let (payment, _) = paid(dice, known)?;
    let money = |dice: &mut Dice| match dice.below(4) {
        0 | 1 => 0,
        2 => dice.below(CAPTURED),
        _ => CAPTURED,
    };
    Some(Deed::Adapt(Facts {
        payment,
        captured: CAPTURED,
        gone: money(dice),
        gone_unused_only: if dice.percent(25) { dice.below(CAPTURED) } else { 0 },
        is_frozen: dice.percent(30),
    }))
}

fn terms(dice: &mut Dice, now: Time) -> Terms {
    let usual = usual_terms(dice);
    let soon = now + Duration::seconds(seconds(dice) / 4);
    match dice.below(5) {
        0 => Terms { is_active: false, ..usual },
        1 => Terms { until: Some(soon), ..usual },
        2 => Terms { paused_until: Some(soon), ..usual },
        _ => usual,
    }
}

fn reserve(dice: &mut Dice, known: &mut Known, now: Time) -> Option<Deed> {
    let mut shares: Vec<Share> = Vec::new();
    for _ in 0..2 {
        let (source, part) = paid(dice, known)?;
        if !shares.iter().any(|share| share.source == source && share.part == part) {
            shares.push(Share { source, part, tokens: 1 + dice.below(50) });
        }
    }
    let id = Uuid::now_v7();
    known.changes.push((id, shares.clone()));
    let ends_at = now + Duration::minutes(30);
    Some(Deed::Reserve { id, shares, ends_at })
}
