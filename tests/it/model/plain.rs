//! One account's tokens, kept as plainly as can be: each token is a thing with a state. Written
//! from the rules alone; it knows nothing of how the ledger does it.

use std::collections::HashMap;

use chrono::{DateTime, Duration, Utc};
use serde_json::{Value, json};
use shared::tokens::Rollover;
use uuid::Uuid;

use super::deeds::{Deed, Facts, Given, Share, Step, Terms};

pub(super) type Time = DateTime<Utc>;

/// What became of one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Free,
    Held(Uuid),
    Spent,
    /// Spent, and its money went back.
    Owed,
    Burned,
    TakenBack,
    /// By an operator or a change of plan.
    Removed,
}

/// Tokens from one source.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each says one plain thing")]
pub(super) struct Lot {
    pub(super) id: Uuid,
    source: Uuid,
    is_payment: bool,
    is_returned: bool,
    part: i32,
    priority: i16,
    given: u64,
    tokens: Vec<Token>,
    opens_at: Time,
    ends_at: Option<Time>,
    rollover: Rollover,
    /// Lives on in the time of a later lot.
    is_rolled: bool,
    born: Time,
    is_open: bool,
    frozen_at: Option<Time>,
    away_since: Option<Time>,
    /// How many of the held tokens burn unless they are spent.
    late: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Open,
    Settled,
    Released,
    Expired,
}

impl Status {
    const fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Settled => "settled",
            Self::Released => "released",
            Self::Expired => "expired",
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Hold {
    pub(super) id: Uuid,
    pub(super) status: Status,
    /// Lots it reserves from, in the order in which it draws them.
    order: Vec<Uuid>,
    settles_reported: bool,
    is_of_change: bool,
    pub(super) settled: u64,
    reported: u64,
    born: Time,
    pub(super) ends_at: Time,
    /// How many it set aside when it was made.
    first: u64,
}

/// What the books must say of one change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) kind: &'static str,
    pub(super) tokens: i64,
    pub(super) debt: i64,
    pub(super) held: i64,
    pub(super) used: i64,
    pub(super) balance_after: i64,
    pub(super) available_after: i64,
    /// Sorted; without lots of which nothing was moved.
    pub(super) lots: Vec<(Uuid, i64)>,
    pub(super) at: Time,
}

/// Ids that the server gave to lots, by source and part.
pub(super) type LotIds = HashMap<(Uuid, i32), Uuid>;

#[derive(Debug, Clone, Default)]
pub(super) struct Plain {
    pub(super) lots: Vec<Lot>,
    pub(super) holds: Vec<Hold>,
    pub(super) debt: u64,
    pub(super) lines: Vec<Line>,
    terms: Option<Terms>,
    /// Changes of plan whose tokens were taken.
    changed: Vec<Uuid>,
    /// The time up to which what is due was booked without anything done in between: what a hold
    /// that ended then let go of cannot be over before.
    booked_to: Option<Time>,
}

/// An answer, and whether it is of a change that stays in the books under its key.
pub(super) struct Answer {
    pub(super) body: Value,
    pub(super) is_booked: bool,
}

impl Answer {
    fn booked(body: Value) -> Self {
        Self { body, is_booked: true }
    }

    fn only_said(body: Value) -> Self {
        Self { body, is_booked: false }
    }
}

enum Due {
    Hold(Uuid),
    End(Uuid),
    Open(Uuid),
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap()
}

impl Lot {
    fn count(&self, is_it: impl Fn(&Token) -> bool) -> u64 {
        self.tokens.iter().filter(|token| is_it(token)).count() as u64
    }

    pub(super) fn free(&self) -> u64 {
        self.count(|token| *token == Token::Free)
    }

    pub(super) fn held(&self) -> u64 {
        self.count(|token| matches!(token, Token::Held(_)))
    }

    pub(super) fn rest(&self) -> u64 {
        self.free() + self.held()
    }

    fn turn(&mut self, mut count: u64, from: Token, to: Token) {
        for token in self.tokens.iter_mut().filter(|token| **token == from) {
            if count == 0 {
                return;
            }
            *token = to;
            count -= 1;
        }
        assert_eq!(count, 0, "the model turned tokens that it does not have: {from:?} to {to:?}");
    }

    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.frozen_at.is_some()
    }

    fn is_running(&self, now: Time) -> bool {
        self.is_open && self.frozen_at.is_none() && self.ends_at.is_none_or(|end| now < end)
    }

    fn draw_order(&self) -> impl Ord + use<> {
        (self.priority, self.ends_at.is_none(), self.ends_at, self.born, self.id)
    }
}

// Counting.
impl Plain {
    pub(super) fn balance(&self) -> u64 {
        self.lots.iter().filter(|lot| lot.is_open).map(Lot::rest).sum()
    }

    pub(super) fn held(&self) -> u64 {
        self.lots.iter().map(Lot::held).sum()
    }

    pub(super) fn frozen(&self) -> u64 {
        self.lots.iter().filter(|lot| lot.is_open && lot.frozen_at.is_some()).map(Lot::free).sum()
    }

    fn held_by(&self, hold: Uuid) -> u64 {
        self.lots.iter().map(|lot| lot.count(|token| *token == Token::Held(hold))).sum()
    }

    /// The lots that may be spent from, in their order, or the word for why none may.
    fn spendable(&self, now: Time) -> Result<Vec<Uuid>, &'static str> {
        let terms = self.terms.as_ref().ok_or("no_subscription")?;
        let has_access = terms.until.is_none_or(|end| now < end);
        let mut lots: Vec<&Lot> = self.lots.iter().filter(|lot| lot.is_running(now)).collect();
        let has_lasting = lots.iter().any(|lot| lot.ends_at.is_none() && lot.rest() > 0);
        let is_paused = terms.paused_until.is_some_and(|end| now < end);
        if !terms.is_active || is_paused || !(has_access || has_lasting) {
            return Err("subscription_inactive");
        }
        lots.retain(|lot| has_access || lot.ends_at.is_none());
        lots.sort_by_key(|lot| lot.draw_order());
        Ok(lots.iter().map(|lot| lot.id).collect())
    }

    pub(super) fn available(&self, now: Time) -> u64 {
        let lots = self.spendable(now).unwrap_or_default();
        lots.iter().map(|id| self.lot(*id).free()).sum()
    }

    fn room(&self) -> u64 {
        self.terms.as_ref().map_or(0, |terms| terms.overdraft.saturating_sub(self.debt))
    }

    fn lot(&self, id: Uuid) -> &Lot {
        self.lots.iter().find(|lot| lot.id == id).unwrap()
    }

    fn lot_mut(&mut self, id: Uuid) -> &mut Lot {
        self.lots.iter_mut().find(|lot| lot.id == id).unwrap()
    }

    fn hold_mut(&mut self, id: Uuid) -> &mut Hold {
        self.holds.iter_mut().find(|hold| hold.id == id).unwrap()
    }

    pub(super) fn open_holds(&self) -> impl Iterator<Item = &Hold> {
        self.holds.iter().filter(|hold| hold.status == Status::Open)
    }

    fn write(&mut self, kind: &'static str, change: Change, at: Time) {
        let mut lots = change.lots;
        lots.retain(|(_, tokens)| *tokens != 0);
        lots.sort_unstable();
        self.lines.push(Line {
            kind,
            tokens: change.tokens,
            debt: change.debt,
            held: change.held,
            used: change.used,
            balance_after: number(self.balance()),
            available_after: number(self.available(at)),
            lots,
            at,
        });
    }
}

#[derive(Default)]
struct Change {
    tokens: i64,
    debt: i64,
    held: i64,
    used: i64,
    lots: Vec<(Uuid, i64)>,
}

// Time.
impl Plain {
    pub(super) fn book_due(&mut self, now: Time) {
        while self.next_due().is_some_and(|(at, _)| at <= now) {
            self.book_next();
        }
        self.booked_to = None;
    }

    /// What a deed set free may be over already: that is booked at the deed's time.
    fn book_after(&mut self, now: Time) {
        self.booked_to = Some(now);
        self.book_due(now);
    }

    /// Books what is due next.
    pub(super) fn book_next(&mut self) {
        let (at, due) = self.next_due().expect("the books show something due, the model nothing");
        let at = self.booked_to.map_or(at, |time| time.max(at));
        self.booked_to = Some(at);
        match due {
            Due::Hold(id) => self.end_hold(id, at),
            Due::End(id) => self.end_lot(id, at),
            Due::Open(id) => self.open_lot(id, at),
        }
    }

    /// Holds end before lots, and lots end before others open.
    fn next_due(&self) -> Option<(Time, Due)> {
        let holds = self
            .open_holds()
            .map(|hold| ((hold.ends_at, 0, hold.born, hold.id), Due::Hold(hold.id)));
        let lots = self.lots.iter().filter_map(|lot| {
            if !lot.is_open {
                let is_left = lot.rest() > 0;
                return is_left.then_some(((lot.opens_at, 2, lot.born, lot.id), Due::Open(lot.id)));
            }
            let end = lot.ends_at.filter(|_| lot.frozen_at.is_none())?;
            let goes_on = lot.held() > 0 && self.next_of(lot).is_some();
            let is_due = lot.free() > 0 || goes_on;
            is_due.then_some(((end, 1, lot.born, lot.id), Due::End(lot.id)))
        });
        holds.chain(lots).min_by_key(|(key, _)| *key).map(|((at, ..), due)| (at, due))
    }

    /// The lot in whose time this one may live on: it opens when this one ends.
    fn next_of(&self, lot: &Lot) -> Option<&Lot> {
        let end = lot.ends_at.filter(|_| lot.rollover != Rollover::None)?;
        let follows = |next: &&Lot| {
            !next.is_open && next.opens_at == end && next.ends_at.is_some() && next.rest() > 0
        };
        self.lots.iter().filter(follows).min_by_key(|next| next.draw_order())
    }

    fn end_lot(&mut self, id: Uuid, at: Time) {
        let lot = self.lot(id).clone();
        let until = self.next_of(&lot).and_then(|next| next.ends_at);
        let Some(until) = until else { return self.burn(id, lot.free(), at) };
        let lives = match lot.rollover {
            Rollover::None => 0,
            Rollover::All => lot.rest(),
            Rollover::Capped(cap) => {
                let came = |other: &&Lot| {
                    other.id != id
                        && other.is_open
                        && other.is_rolled
                        && other.ends_at == Some(until)
                };
                let rolled: u64 = self.lots.iter().filter(came).map(Lot::rest).sum();
                lot.rest().min(cap.0.saturating_sub(rolled))
            }
        };
        let late = lot.held().saturating_sub(lives);
        let free_lives = lives.saturating_sub(lot.held());
        let this = self.lot_mut(id);
        this.ends_at = Some(until);
        this.is_rolled = true;
        this.late = this.late.max(late);
        self.burn(id, lot.free() - free_lives, at);
    }

    fn burn(&mut self, id: Uuid, count: u64, at: Time) {
        if count == 0 {
            return;
        }
        self.lot_mut(id).turn(count, Token::Free, Token::Burned);
        let less = number(count);
        self.write(
            "expired",
            Change { tokens: -less, lots: vec![(id, less)], ..Change::default() },
            at,
        );
    }

    fn open_lot(&mut self, id: Uuid, at: Time) {
        let lot = self.lot_mut(id);
        lot.is_open = true;
        let tokens = number(lot.rest());
        self.write("granted", Change { tokens, lots: vec![(id, tokens)], ..Change::default() }, at);
        self.repay(id, self.debt, at);
    }

    fn repay(&mut self, id: Uuid, at_most: u64, at: Time) -> u64 {
        let lot = self.lot(id);
        let count = lot.free().min(at_most).min(self.debt);
        if count == 0 || lot.frozen_at.is_some() {
            return 0;
        }
        self.lot_mut(id).turn(count, Token::Free, Token::Spent);
        self.debt -= count;
        let less = number(count);
        let change =
            Change { tokens: -less, debt: -less, lots: vec![(id, less)], ..Change::default() };
        self.write("debt_repaid", change, at);
        count
    }
}

// Spending and holding.
impl Plain {
    /// The lots from which so many are drawn, or the refusal.
    fn pick(&self, count: u64, now: Time) -> Result<Vec<(Uuid, u64)>, Value> {
        let lots = self
            .spendable(now)
            .map_err(|code| json!({ "status": if code == "no_subscription" { 404 } else { 400 }, "code": code }))?;
        let there: u64 = lots.iter().map(|id| self.lot(*id).free()).sum();
        if there < count {
            return Err(json!({
                "status": 400, "code": "insufficient_tokens", "requested": count,
                "available": there, "held": self.held(), "overdraft_left": self.room(),
            }));
        }
        Ok(self.some_of(&lots, count))
    }

    fn some_of(&self, lots: &[Uuid], count: u64) -> Vec<(Uuid, u64)> {
        let mut left = count;
        let mut picked = Vec::new();
        for id in lots {
            let some = self.lot(*id).free().min(left);
            left -= some;
            if some > 0 {
                picked.push((*id, some));
            }
        }
        picked
    }

    fn spend(&mut self, count: u64, now: Time) -> Answer {
        let picked = match self.pick(count, now) {
            Ok(picked) => picked,
            Err(refusal) => return Answer::only_said(refusal),
        };
        for (id, some) in &picked {
            self.lot_mut(*id).turn(*some, Token::Free, Token::Spent);
        }
        let lots = picked.iter().map(|(id, some)| (*id, number(*some))).collect();
        let (tokens, used) = (-number(count), number(count));
        self.write("consumed", Change { tokens, used, lots, ..Change::default() }, now);
        Answer::booked(json!({
            "status": 200, "tokens_consumed": count, "tokens_remaining": self.balance(),
            "tokens_available": self.available(now),
        }))
    }

    fn reserve(&mut self, hold: Uuid, picked: &[(Uuid, u64)]) {
        for (id, some) in picked {
            self.lot_mut(*id).turn(*some, Token::Free, Token::Held(hold));
            let order = &mut self.hold_mut(hold).order;
            if !order.contains(id) {
                order.push(*id);
            }
        }
    }

    /// Sets free so many of what a hold reserves, from its first or its last lot on. Returns what
    /// of which lot, and how many of those are late.
    fn unreserve(&mut self, hold: Uuid, count: u64, from_last: bool) -> Vec<(Uuid, u64, u64)> {
        let mut order = self.hold_mut(hold).order.clone();
        if from_last {
            order.reverse();
        }
        let mut left = count;
        let mut undone = Vec::new();
        for id in order {
            let lot = self.lot_mut(id);
            let there = lot.count(|token| *token == Token::Held(hold));
            let some = there.min(left);
            left -= some;
            lot.turn(some, Token::Held(hold), Token::Free);
            let late = lot.late.min(some);
            lot.late -= late;
            if some > 0 {
                undone.push((id, some, late));
            }
            if there == some {
                self.hold_mut(hold).order.retain(|other| *other != id);
            }
        }
        undone
    }

    fn open_hold(&mut self, hold: Hold, count: u64, now: Time) -> Answer {
        let picked = match self.pick(count, now) {
            Ok(picked) => picked,
            Err(refusal) => return Answer::only_said(refusal),
        };
        let id = hold.id;
        self.add_hold(hold);
        self.reserve(id, &picked);
        self.write("held", Change { held: number(count), ..Change::default() }, now);
        Answer::booked(self.said_of(id, 201, now))
    }

    fn add_hold(&mut self, hold: Hold) {
        self.holds.push(hold);
        self.holds.sort_by_key(|hold| hold.id);
    }

    fn said_of(&self, id: Uuid, status: u16, now: Time) -> Value {
        let hold = self.holds.iter().find(|hold| hold.id == id).unwrap();
        json!({
            "status": status, "hold_id": id, "tokens_held": self.held_by(id),
            "tokens_settled": hold.settled, "tokens_available": self.available(now),
            "expires_at": hold.ends_at, "hold_status": hold.status.word(),
        })
    }

    fn step(&mut self, id: Uuid, step: Step, is_keyed: bool, now: Time) -> Answer {
        let Some(hold) = self.holds.iter().find(|hold| hold.id == id && !hold.is_of_change) else {
            return Answer::only_said(json!({ "status": 404, "code": "not_found" }));
        };
        if hold.status != Status::Open {
            let is_repeat = match step {
                Step::Release => hold.status == Status::Released,
                Step::Settle { total, .. } => {
                    hold.status == Status::Settled && total <= hold.settled
                }
                Step::Extend { .. } => false,
            };
            let said = self.said_of(id, 200, now);
            return Answer::only_said(if is_repeat {
                said
            } else {
                json!({
                    "status": 409, "code": "hold_not_open", "hold_id": id, "tokens_held": 0,
                    "tokens_settled": said["tokens_settled"], "hold_status": said["hold_status"],
                })
            });
        }
        let short = match step {
            Step::Extend { tokens, seconds, reported } => {
                if tokens > 0 {
                    match self.pick(tokens, now) {
                        Ok(picked) => self.reserve(id, &picked),
                        Err(refusal) => return Answer::only_said(refusal),
                    }
                }
                let hold = self.hold_mut(id);
                if let Some(seconds) = seconds {
                    let latest = hold.born + Duration::hours(24);
                    hold.ends_at = latest.min(now + Duration::seconds(seconds));
                }
                hold.reported = hold.reported.max(reported.unwrap_or(0));
                self.write("held", Change { held: number(tokens), ..Change::default() }, now);
                None
            }
            Step::Settle { total, is_final } => self.settle(id, total, is_final, is_keyed, now),
            Step::Release => {
                self.close(id, Status::Released, now);
                None
            }
        };
        self.book_after(now);
        Answer::booked(match short {
            None => self.said_of(id, 200, now),
            Some(mut short) => {
                let said = self.said_of(id, 200, now);
                for member in ["hold_id", "tokens_held", "tokens_settled", "hold_status"] {
                    short[member] = said[member].clone();
                }
                short
            }
        })
    }

    /// Spends up to a total; answers by how much it fell short, if it did.
    fn settle(
        &mut self,
        id: Uuid,
        total: u64,
        is_final: bool,
        is_keyed: bool,
        now: Time,
    ) -> Option<Value> {
        let wanted = total.saturating_sub(self.hold_mut(id).settled);
        if is_final && wanted == 0 {
            self.close(id, Status::Settled, now);
            return None;
        }
        let reserved = self.held_by(id);
        if is_final && reserved > wanted {
            let undone = self.unreserve(id, reserved - wanted, true);
            self.burn_late(&undone, now);
            self.write(
                "released",
                Change { held: -number(reserved - wanted), ..Change::default() },
                now,
            );
        }
        let mut drawn: HashMap<Uuid, i64> = HashMap::new();
        let mut within = 0;
        for (lot, some, _late_but_spent) in self.unreserve(id, wanted, false) {
            self.lot_mut(lot).turn(some, Token::Free, Token::Spent);
            *drawn.entry(lot).or_default() += number(some);
            within += some;
        }
        let mut beyond = 0;
        let mut debt = 0;
        if wanted > within
            && let Ok(lots) = self.spendable(now)
        {
            for (lot, some) in self.some_of(&lots, wanted - within) {
                self.lot_mut(lot).turn(some, Token::Free, Token::Spent);
                *drawn.entry(lot).or_default() += number(some);
                beyond += some;
            }
            debt = (wanted - within - beyond).min(self.room());
            self.debt += debt;
        }
        let booked = within + beyond + debt;
        let hold = self.hold_mut(id);
        hold.settled += booked;
        if is_final {
            hold.status = Status::Settled;
        }
        if booked > 0 || is_final || is_keyed {
            let change = Change {
                tokens: -number(within + beyond),
                debt: number(debt),
                held: -number(within),
                used: number(booked),
                lots: drawn.into_iter().collect(),
            };
            self.write("consumed", change, now);
        }
        (booked < wanted).then(|| {
            json!({
                "status": 400, "code": "insufficient_tokens", "requested": wanted,
                "available": booked, "held": self.held(), "overdraft_left": self.room(),
            })
        })
    }

    fn burn_late(&mut self, undone: &[(Uuid, u64, u64)], at: Time) {
        for (lot, _, late) in undone {
            self.burn(*lot, *late, at);
        }
    }

    fn close(&mut self, id: Uuid, status: Status, at: Time) {
        let rest = self.held_by(id);
        let undone = self.unreserve(id, rest, true);
        self.hold_mut(id).status = status;
        self.burn_late(&undone, at);
        self.write("released", Change { held: -number(rest), ..Change::default() }, at);
    }

    /// Nobody ended it in time.
    fn end_hold(&mut self, id: Uuid, at: Time) {
        let hold = self.hold_mut(id).clone();
        if hold.settles_reported && hold.reported > hold.settled {
            let _short_or_not = self.settle(id, hold.reported, false, false, at);
        }
        self.close(id, Status::Expired, at);
    }
}

// Giving, taking, correcting.
impl Plain {
    fn grant(&mut self, given: &Given, ids: &LotIds, now: Time) {
        if self
            .lots
            .iter()
            .any(|lot| lot.source == given.source && lot.part == given.part && !lot.is_returned)
        {
            return;
        }
        self.lots.push(Lot {
            id: ids[&(given.source, given.part)],
            source: given.source,
            is_payment: given.is_payment,
            is_returned: false,
            part: given.part,
            priority: given.priority,
            given: given.tokens,
            tokens: vec![Token::Free; usize::try_from(given.tokens).unwrap()],
            opens_at: given.opens_at,
            ends_at: given.ends_at,
            rollover: given.rollover,
            is_rolled: false,
            born: now,
            is_open: false,
            frozen_at: None,
            away_since: None,
            late: 0,
        });
        self.book_due(now);
    }

    /// Makes a payment's lots agree with what is known of its money.
    fn adapt(&mut self, facts: &Facts, ids: &LotIds, now: Time) -> Answer {
        let mut lots: Vec<(i32, Uuid)> = self
            .lots
            .iter()
            .filter(|lot| lot.is_payment && lot.source == facts.payment)
            .map(|lot| (lot.part, lot.id))
            .collect();
        lots.sort_unstable();
        let (mut taken, mut owed, mut returned) = (0, 0, 0);
        for (_, id) in lots {
            let was_frozen = self.lot(id).frozen_at.filter(|_| !facts.is_frozen);
            if let Some(since) = was_frozen {
                let lot = self.lot_mut(id);
                lot.frozen_at = None;
                lot.ends_at = lot.ends_at.map(|end| end + (now - since));
                // Time both frozen and away counts once.
                lot.away_since = lot.away_since.map(|away| away + (now - away.max(since)));
            }
            let (more_taken, more_owed, back) = self.fit(id, facts, ids, now);
            (taken, owed) = (taken + more_taken, owed + more_owed);
            returned += back;
            let lot = self.lot_mut(id);
            if facts.is_frozen {
                lot.frozen_at.get_or_insert(now);
            }
            if lot.is_open && was_frozen.is_some_and(|since| since <= lot.opens_at) {
                self.repay(id, self.debt, now);
            }
        }
        self.book_after(now);
        Answer::booked(json!({ "taken": taken, "became_debt": owed, "returned": returned }))
    }

    fn fit(&mut self, id: Uuid, facts: &Facts, ids: &LotIds, now: Time) -> (u64, u64, u64) {
        let lot = self.lot(id);
        let share = |money: u64| (lot.given * money.min(facts.captured)).div_ceil(facts.captured);
        let is_taken = lot.count(|token| *token == Token::TakenBack);
        let is_owed = lot.count(|token| *token == Token::Owed);
        let spent = lot.count(|token| matches!(token, Token::Spent | Token::Owed));
        let all = share(facts.gone + facts.gone_unused_only);
        let to_take = all.min(lot.rest() + is_taken);
        let to_owe = share(facts.gone).saturating_sub(to_take).min(spent);

        let undone = is_owed.saturating_sub(to_owe);
        let anew = self.cancel_debt(id, undone, ids, now);
        let back = is_taken.saturating_sub(to_take);
        self.give_back(id, back, now);
        let (more, more_owed) = (to_take.saturating_sub(is_taken), to_owe.saturating_sub(is_owed));
        self.take(id, more, more_owed, now);
        if to_take + to_owe == 0 {
            self.lot_mut(id).away_since = None;
        }
        (more, more_owed, back + anew)
    }

    fn cancel_debt(&mut self, id: Uuid, count: u64, ids: &LotIds, now: Time) -> u64 {
        self.lot_mut(id).turn(count, Token::Owed, Token::Spent);
        let open = count.min(self.debt);
        if open > 0 {
            self.debt -= open;
            self.write("given_back", Change { debt: -number(open), ..Change::default() }, now);
        }
        let repaid = count - open;
        if repaid > 0 {
            let lot = self.lot(id);
            let ends_at = lot.ends_at.map(|end| {
                let moved = end + self.away(id, now);
                if moved > now { moved } else { now + (end - lot.opens_at) }
            });
            let part = i32::try_from(self.lines.len()).unwrap() + 1;
            let anew = Lot {
                id: *ids
                    .get(&(id, part))
                    .unwrap_or_else(|| panic!("no lot was granted anew for {id} part {part}")),
                source: id,
                is_payment: false,
                is_returned: true,
                part,
                given: repaid,
                tokens: vec![Token::Free; usize::try_from(repaid).unwrap()],
                opens_at: now,
                ends_at,
                rollover: Rollover::None,
                is_rolled: false,
                born: now,
                is_open: false,
                frozen_at: None,
                away_since: None,
                late: 0,
                ..lot.clone()
            };
            self.lots.push(anew);
            self.book_due(now);
        }
        repaid
    }

    /// How long tokens were away and could have been spent; a freeze that lasts counts later.
    fn away(&self, id: Uuid, now: Time) -> Duration {
        let lot = self.lot(id);
        let until = lot.frozen_at.map_or(now, |frozen| frozen.min(now));
        let since = lot.away_since.map_or(now, |since| since.max(lot.opens_at));
        (until - since).max(Duration::zero())
    }

    fn give_back(&mut self, id: Uuid, count: u64, now: Time) {
        if count == 0 {
            return;
        }
        let away = self.away(id, now);
        let lot = self.lot_mut(id);
        lot.turn(count, Token::TakenBack, Token::Free);
        lot.ends_at = lot.ends_at.map(|end| end + away);
        lot.away_since = Some(now);
        let (is_open, is_late) = (lot.is_open, lot.opens_at <= now);
        let more = if is_open { number(count) } else { 0 };
        let change = Change { tokens: more, lots: vec![(id, more)], ..Change::default() };
        self.write("given_back", change, now);
        if !is_open && is_late {
            self.open_lot(id, now);
        }
    }

    fn take(&mut self, id: Uuid, count: u64, owed: u64, now: Time) {
        if count + owed == 0 {
            return;
        }
        let held = count.min(self.lot(id).held());
        let mut left = held;
        let holds: Vec<Uuid> = self.holds.iter().rev().map(|hold| hold.id).collect();
        for hold in holds {
            let lot = self.lot_mut(id);
            let there = lot.count(|token| *token == Token::Held(hold));
            let some = there.min(left);
            left -= some;
            lot.turn(some, Token::Held(hold), Token::TakenBack);
            lot.late -= lot.late.min(some);
            if some == there {
                self.hold_mut(hold).order.retain(|other| *other != id);
            }
        }
        let lot = self.lot_mut(id);
        lot.turn(count - held, Token::Free, Token::TakenBack);
        lot.turn(owed, Token::Spent, Token::Owed);
        lot.away_since.get_or_insert(now);
        let less = if lot.is_open { number(count) } else { 0 };
        self.debt += owed;
        let change = Change {
            tokens: -less,
            debt: number(owed),
            held: -number(held),
            lots: vec![(id, less)],
            ..Change::default()
        };
        self.write("taken_back", change, now);
        self.repay_with_returned(owed, now);
    }

    /// What was granted anew for debt repays debt of that kind first.
    fn repay_with_returned(&mut self, owed: u64, now: Time) {
        let mut lots: Vec<&Lot> =
            self.lots.iter().filter(|lot| lot.is_returned && lot.is_open).collect();
        lots.sort_by_key(|lot| (lot.ends_at.is_none(), lot.ends_at, lot.id));
        let ids: Vec<Uuid> = lots.iter().map(|lot| lot.id).collect();
        let mut left = owed;
        for id in ids {
            left -= self.repay(id, left, now);
        }
    }

    fn remove(&mut self, count: u64, now: Time) -> Answer {
        let mut lots: Vec<&Lot> =
            self.lots.iter().filter(|lot| lot.is_open && lot.frozen_at.is_none()).collect();
        lots.sort_by_key(|lot| lot.draw_order());
        let ids: Vec<Uuid> = lots.iter().map(|lot| lot.id).collect();
        let there: u64 = lots.iter().map(|lot| lot.free()).sum();
        if there < count {
            return Answer::only_said(json!({ "status": 409, "available": there }));
        }
        let picked = self.some_of(&ids, count);
        for (id, some) in &picked {
            self.lot_mut(*id).turn(*some, Token::Free, Token::Removed);
        }
        let lots = picked.iter().map(|(id, some)| (*id, number(*some))).collect();
        self.write("adjusted", Change { tokens: -number(count), lots, ..Change::default() }, now);
        Answer::booked(self.corrected(now))
    }

    fn corrected(&self, now: Time) -> Value {
        json!({ "remaining": self.balance(), "available": self.available(now), "debt": self.debt })
    }

    fn forgive(&mut self, count: u64, now: Time) -> Answer {
        let less = count.min(self.debt);
        self.debt -= less;
        self.write("debt_forgiven", Change { debt: -number(less), ..Change::default() }, now);
        Answer::booked(self.corrected(now))
    }

    fn reset(&mut self, source: Uuid, part: i32, count: u64, now: Time) {
        let is_it = |lot: &&mut Lot| lot.source == source && lot.part == part && !lot.is_returned;
        let Some(lot) = self.lots.iter_mut().find(is_it) else { return };
        if !lot.is_open || lot.ends_at.is_some_and(|end| end <= now) && lot.frozen_at.is_none() {
            return;
        }
        let (before, after) = (lot.rest(), count.max(lot.held()));
        if after > before {
            lot.tokens.extend((before..after).map(|_| Token::Free));
        } else {
            lot.turn(before - after, Token::Free, Token::Removed);
        }
        let (id, tokens) = (lot.id, number(after) - number(before));
        if tokens != 0 {
            let lots = vec![(id, tokens.abs())];
            self.write("adjusted", Change { tokens, lots, ..Change::default() }, now);
        }
    }

    fn reserve_for_change(
        &mut self,
        id: Uuid,
        shares: &[Share],
        ends_at: Time,
        now: Time,
    ) -> Answer {
        if let Some(hold) = self.holds.iter().find(|hold| hold.id == id) {
            return Answer::only_said(json!({ "reserved": hold.first }));
        }
        let picked: Vec<(Uuid, u64)> = shares
            .iter()
            .filter_map(|share| {
                let lot = self.lot_of(share)?;
                let is_there = lot.is_open && lot.frozen_at.is_none();
                is_there.then_some((lot.id, lot.free().min(share.tokens)))
            })
            .filter(|(_, tokens)| *tokens > 0)
            .collect();
        let count: u64 = picked.iter().map(|(_, tokens)| tokens).sum();
        self.add_hold(Hold {
            id,
            status: Status::Open,
            order: Vec::new(),
            settles_reported: false,
            is_of_change: true,
            settled: 0,
            reported: 0,
            born: now,
            ends_at,
            first: count,
        });
        self.reserve(id, &picked);
        self.write("held", Change { held: number(count), ..Change::default() }, now);
        Answer::booked(json!({ "reserved": count }))
    }

    fn lot_of(&self, share: &Share) -> Option<&Lot> {
        self.lots
            .iter()
            .find(|lot| lot.source == share.source && lot.part == share.part && !lot.is_returned)
    }

    fn take_for_change(&mut self, id: Uuid, shares: &[Share], now: Time) {
        if self.changed.contains(&id) {
            return;
        }
        self.changed.push(id);
        let mut held = 0;
        if self.open_holds().any(|hold| hold.id == id) {
            held = self.held_by(id);
            self.unreserve(id, held, false);
            self.hold_mut(id).status = Status::Settled;
        }
        let (mut drawn, mut debt) = (Vec::new(), 0);
        for share in shares {
            let lot = self.lot_of(share).filter(|lot| lot.is_open);
            let there = lot.map_or(0, Lot::free).min(share.tokens);
            debt += share.tokens - there;
            if let Some(lot) = lot.map(|lot| lot.id) {
                self.lot_mut(lot).turn(there, Token::Free, Token::Removed);
                drawn.push((lot, number(there)));
            }
        }
        self.debt += debt;
        let tokens: i64 = drawn.iter().map(|(_, tokens)| tokens).sum();
        let change = Change {
            tokens: -tokens,
            debt: number(debt),
            held: -number(held),
            lots: drawn,
            ..Change::default()
        };
        self.write("plan_change", change, now);
        self.book_after(now);
    }

    fn release_for_change(&mut self, id: Uuid, now: Time) {
        if self.open_holds().any(|hold| hold.id == id) {
            self.close(id, Status::Released, now);
            self.book_after(now);
        }
    }

    /// Does one thing, as if it were alone; what is due is booked first.
    pub(super) fn apply(&mut self, deed: &Deed, is_keyed: bool, ids: &LotIds, now: Time) -> Answer {
        let is_known = |id: &Uuid| self.holds.iter().any(|hold| hold.id == *id);
        let is_repeated = matches!(deed, Deed::Reserve { id, .. } if is_known(id))
            || matches!(deed, Deed::Take { id, .. } if self.changed.contains(id));
        if !is_repeated {
            self.book_due(now);
        }
        let nothing = || Answer::only_said(Value::Null);
        match deed {
            Deed::Consume { tokens } => self.spend(*tokens, now),
            Deed::Open { id, tokens, seconds, settles_reported } => {
                let hold = Hold {
                    id: *id,
                    status: Status::Open,
                    order: Vec::new(),
                    settles_reported: *settles_reported,
                    is_of_change: false,
                    settled: 0,
                    reported: 0,
                    born: now,
                    ends_at: now + Duration::seconds(*seconds),
                    first: *tokens,
                };
                self.open_hold(hold, *tokens, now)
            }
            Deed::Step { hold, step } => self.step(*hold, *step, is_keyed, now),
            Deed::Look => Answer::only_said(self.look(now)),
            Deed::Grant(given) => {
                self.grant(given, ids, now);
                nothing()
            }
            Deed::Adapt(facts) => self.adapt(facts, ids, now),
            Deed::Terms(terms) => {
                self.terms = Some(terms.clone());
                nothing()
            }
            Deed::Remove { tokens } => self.remove(*tokens, now),
            Deed::Forgive { tokens } => self.forgive(*tokens, now),
            Deed::Reset { source, part, tokens } => {
                self.reset(*source, *part, *tokens, now);
                nothing()
            }
            Deed::Reserve { id, shares, ends_at } => {
                self.reserve_for_change(*id, shares, *ends_at, now)
            }
            Deed::Take { id, shares } => {
                self.take_for_change(*id, shares, now);
                nothing()
            }
            Deed::Let { id } => {
                self.release_for_change(*id, now);
                nothing()
            }
        }
    }

    /// What a customer sees of it.
    pub(super) fn look(&self, now: Time) -> Value {
        let mut lots: Vec<&Lot> = self.lots.iter().filter(|lot| lot.rest() > 0).collect();
        lots.sort_by_key(|lot| (!lot.is_open, lot.draw_order()));
        let grants: Vec<Value> = lots
            .iter()
            .map(|lot| {
                json!({
                    "id": lot.id, "tokens": lot.given, "remaining": lot.rest(),
                    "held": lot.held(), "is_frozen": lot.is_frozen(), "is_open": lot.is_open(),
                    "expires_at": lot.ends_at,
                })
            })
            .collect();
        let holds: Vec<Value> = self
            .open_holds()
            .map(|hold| {
                json!({
                    "hold_id": (!hold.is_of_change).then_some(hold.id),
                    "tokens_held": self.held_by(hold.id), "tokens_settled": hold.settled,
                    "expires_at": hold.ends_at,
                })
            })
            .collect();
        json!({
            "status": 200, "tokens_remaining": self.balance(), "tokens_held": self.held(),
            "tokens_frozen": self.frozen(), "tokens_available": self.available(now),
            "debt": self.debt, "grants": grants, "holds": holds,
        })
    }
}
