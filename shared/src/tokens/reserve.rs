//! How holds reserve lots, settle bit by bit, and end. Pure: no clock, no database.

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Tokens;
use super::ledger::{Account, Change, EntryKind, Request, system_request};
use super::lot::{Allocation, InsufficientTokens, allocate};
use crate::error::Error;
use crate::events::EventKind;
use crate::ids::{EntryId, GrantId, HoldId};

/// Longest that a hold may run, from its making (rules.md).
pub const MAX_HOLD: Duration = Duration::hours(24);

/// Where a hold stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "hold_status", rename_all = "snake_case")]
pub enum HoldStatus {
    /// It reserves tokens.
    Open,
    /// Settled for good.
    Settled,
    /// Let go by who made it.
    Released,
    /// Ended by its rule, for nobody ended it in time.
    Expired,
}

impl HoldStatus {
    /// The word in the database and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Settled => "settled",
            Self::Released => "released",
            Self::Expired => "expired",
        }
    }
}

/// What becomes of a hold that nobody ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "hold_rule", rename_all = "snake_case")]
pub enum HoldRule {
    /// All that was not settled is free again.
    #[default]
    Release,
    /// What was reported is spent, the rest is free again.
    SettleReported,
}

impl HoldRule {
    /// The word in the database and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::SettleReported => "settle_reported",
        }
    }
}

/// Tokens set aside for work that runs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Hold {
    /// The hold.
    pub id: HoldId,
    /// Who made it.
    pub principal: String,
    /// Where it stands.
    pub status: HoldStatus,
    /// What becomes of it if nobody ends it.
    pub on_expiry: HoldRule,
    /// What is still reserved, in the order in which it is drawn.
    pub parts: Vec<Allocation>,
    /// Spent through it so far, debt included.
    pub settled: Tokens,
    /// The largest total that was reported.
    pub reported: Tokens,
    /// The caller's words, at most 255 characters.
    pub description: String,
    /// The caller's own members.
    pub metadata: Value,
    /// When it ends by its rule.
    pub expires_at: DateTime<Utc>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Whether it changed since it was loaded.
    pub is_changed: bool,
}

/// A hold as an entry left it: what its caller was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldState {
    /// The hold.
    pub id: HoldId,
    /// What it still reserves.
    pub held: Tokens,
    /// Spent through it so far.
    pub settled: Tokens,
    /// When it ends by its rule.
    pub expires_at: DateTime<Utc>,
    /// Where it stands.
    pub status: HoldStatus,
    /// By how much the settle that left it so fell short, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short: Option<Box<InsufficientTokens>>,
}

impl Hold {
    /// What it still reserves.
    pub(super) fn held(&self) -> Tokens {
        self.parts.iter().map(|part| part.tokens).sum()
    }

    /// What its caller is told of it.
    pub(super) fn state(&self) -> HoldState {
        HoldState {
            id: self.id,
            held: self.held(),
            settled: self.settled,
            expires_at: self.expires_at,
            status: self.status,
            short: None,
        }
    }
}

/// A hold to make.
#[derive(Debug, Clone)]
pub(super) struct NewHold {
    /// Its id.
    pub id: HoldId,
    /// How many tokens it reserves.
    pub tokens: Tokens,
    /// What becomes of it if nobody ends it.
    pub on_expiry: HoldRule,
    /// How long it runs, at most [`MAX_HOLD`].
    pub lasts: Duration,
}

/// What is to be done with a hold that runs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// Reserves more, runs longer, reports; charges nothing.
    Extend {
        /// How many more tokens are reserved.
        tokens: Tokens,
        /// From now; at most [`MAX_HOLD`] from its making.
        lasts: Option<Duration>,
        /// Used so far in all, by the caller's reckoning.
        reported: Option<Tokens>,
    },
    /// Spends up to a total; a total that was reached before changes nothing.
    Settle {
        /// Spent through it in all.
        total: Tokens,
        /// Whether what is left is let go.
        is_final: bool,
    },
    /// Lets go of all that was not settled.
    Release,
}

/// Who asks, under which entry.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// The entry's id, if one is made.
    pub id: EntryId,
    /// Who asks for what.
    pub request: Request,
    /// Whether the caller named it, and may ask again.
    pub is_keyed: bool,
}

impl Account {
    /// Sets tokens aside as a spend would draw them, exactly or not at all.
    pub(super) fn open_hold(
        &mut self,
        new: &NewHold,
        asked: Asked,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        let parts = self.allocate(new.tokens, now)?;
        let before = self.available(now);
        self.holds.push(Hold {
            id: new.id,
            principal: asked.request.principal.clone(),
            status: HoldStatus::Open,
            on_expiry: new.on_expiry,
            parts: Vec::new(),
            settled: Tokens::ZERO,
            reported: Tokens::ZERO,
            description: asked.request.description.clone(),
            metadata: asked.request.metadata.clone(),
            expires_at: now + new.lasts.min(MAX_HOLD),
            created_at: now,
            is_changed: true,
        });
        let index = self.holds.len() - 1;
        self.reserve(index, parts);
        let change = Change { held: new.tokens.to_db(), ..Change::of(EntryKind::Held) };
        self.post_hold(index, change, asked, now);
        self.note_crossings(before, now);
        Ok(())
    }

    /// How many holds are open.
    pub(super) fn open_holds(&self) -> i32 {
        let is_open = |hold: &&Hold| hold.status == HoldStatus::Open;
        let open = self.holds.iter().filter(is_open).count();
        i32::try_from(open).expect("an account has few holds")
    }

    /// The open hold of that id that `principal` made.
    pub(super) fn open_hold_of(&self, id: HoldId, principal: &str) -> Option<usize> {
        self.holds.iter().position(|hold| {
            hold.id == id && hold.principal == principal && hold.status == HoldStatus::Open
        })
    }

    /// Goes on with an open hold. What is due must have been booked.
    ///
    /// Beyond what is reserved a settle takes what is free and then runs into bounded debt; it
    /// books all there is, and says by how much it fell short.
    pub(super) fn step(
        &mut self,
        index: usize,
        step: Step,
        mut asked: Asked,
        now: DateTime<Utc>,
    ) -> Result<Option<InsufficientTokens>, Error> {
        let before = self.available(now);
        // What is spent through a hold is for what the hold was made for.
        let hold = &self.holds[index];
        asked.request.description.clone_from(&hold.description);
        asked.request.metadata.clone_from(&hold.metadata);
        let short = match step {
            Step::Extend { tokens, lasts, reported } => {
                self.extend(index, (tokens, lasts, reported), asked, now)?;
                None
            }
            Step::Settle { total, is_final } => self.settle(index, (total, is_final), asked, now),
            Step::Release => {
                self.close(index, HoldStatus::Released, asked, now);
                None
            }
        };
        self.book_from(now, now);
        self.note_crossings(before, now);
        Ok(short)
    }

    fn extend(
        &mut self,
        index: usize,
        (tokens, lasts, reported): (Tokens, Option<Duration>, Option<Tokens>),
        asked: Asked,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        let parts = if tokens == Tokens::ZERO { Vec::new() } else { self.allocate(tokens, now)? };
        self.reserve(index, parts);
        let hold = &mut self.holds[index];
        if let Some(lasts) = lasts {
            hold.expires_at = (now + lasts).min(hold.created_at + MAX_HOLD);
        }
        hold.reported = hold.reported.max(reported.unwrap_or_default());
        hold.is_changed = true;
        let change = Change { held: tokens.to_db(), ..Change::of(EntryKind::Held) };
        self.post_hold(index, change, asked, now);
        Ok(())
    }

    /// Adds to what a hold reserves; a lot that it reserves from already stays one part.
    pub(super) fn reserve(&mut self, index: usize, parts: Vec<Allocation>) {
        for part in parts {
            self.lot_mut(part.lot).reserve(part.tokens);
            self.held = self.held.plus(part.tokens);
            let hold = &mut self.holds[index];
            match hold.parts.iter_mut().find(|it| it.lot == part.lot) {
                Some(same) => same.tokens = same.tokens.plus(part.tokens),
                None => hold.parts.push(part),
            }
        }
    }

    /// The entry under the caller's key is the last one, so that it shows the hold as answered.
    fn settle(
        &mut self,
        index: usize,
        (total, is_final): (Tokens, bool),
        asked: Asked,
        now: DateTime<Utc>,
    ) -> Option<InsufficientTokens> {
        let wanted = total.beyond(self.holds[index].settled);
        if is_final {
            let rest = self.holds[index].held().beyond(wanted);
            if wanted == Tokens::ZERO {
                self.close(index, HoldStatus::Settled, asked, now);
                return None;
            }
            self.let_go(index, rest, &asked.request, now);
        }
        let within = self.unreserve(index, wanted, Side::First).taken;
        self.draw(&within);
        let reserved: Tokens = within.iter().map(|part| part.tokens).sum();
        let beyond = self.draw_beyond(wanted.minus(reserved), now);
        let drawn: Tokens = beyond.free.iter().map(|part| part.tokens).sum();
        let booked = reserved.plus(drawn).plus(beyond.debt);
        let hold = &mut self.holds[index];
        hold.settled = hold.settled.plus(booked);
        hold.is_changed = true;
        if is_final {
            hold.status = HoldStatus::Settled;
        }
        let change = Change {
            tokens: -reserved.plus(drawn).to_db(),
            debt: beyond.debt.to_db(),
            held: -reserved.to_db(),
            used: booked,
            lots: merged(within, beyond.free),
            ..Change::of(EntryKind::Consumed)
        };
        let short = (booked < wanted).then(|| InsufficientTokens {
            requested: wanted,
            available: booked,
            held: self.held,
            overdraft_left: self.overdraft.beyond(self.debt),
        });
        // With a key even a settle that changes nothing leaves its entry, to be found by.
        if booked > Tokens::ZERO || is_final || asked.is_keyed {
            let hold = Some(HoldState { short: short.map(Box::new), ..self.holds[index].state() });
            self.post_as(asked.id, Change { hold, ..change }, asked.request, now);
        }
        short
    }

    /// Frees what a final settle does not need, from the last part on.
    fn let_go(&mut self, index: usize, tokens: Tokens, why: &Request, now: DateTime<Utc>) {
        if tokens == Tokens::ZERO {
            return;
        }
        let undone = self.unreserve(index, tokens, Side::Last);
        let request = Request {
            description: why.description.clone(),
            metadata: why.metadata.clone(),
            ..system_request("system:hold", format!("close:{}", self.holds[index].id))
        };
        let asked = Asked { id: EntryId::new(now), request, is_keyed: false };
        self.burn_overdue(undone.overdue, now);
        let change = Change { held: -tokens.to_db(), ..Change::of(EntryKind::Released) };
        self.post_hold(index, change, asked, now);
    }

    /// Takes what is free, and the rest as debt within the plan's overdraft; nothing while
    /// spending is not allowed.
    fn draw_beyond(&mut self, wanted: Tokens, now: DateTime<Utc>) -> Beyond {
        if wanted == Tokens::ZERO {
            return Beyond::default();
        }
        let Ok(lots) = self.spendable(now) else { return Beyond::default() };
        let lots: Vec<_> = lots.collect();
        let there: Tokens = lots.iter().map(|lot| lot.unheld()).sum();
        let free = allocate(lots, wanted.min(there)).expect("no more than there is");
        self.draw(&free);
        let room = self.overdraft.beyond(self.debt);
        let debt = wanted.beyond(there).min(room);
        self.debt = self.debt.plus(debt);
        Beyond { free, debt }
    }

    /// Undoes up to `tokens` of what a hold reserves, from one side of its parts.
    fn unreserve(&mut self, index: usize, tokens: Tokens, side: Side) -> Undone {
        let mut left = tokens;
        let mut taken = Vec::new();
        let mut take = |part: &mut Allocation| {
            let some = part.tokens.min(left);
            part.tokens = part.tokens.minus(some);
            left = left.minus(some);
            if some > Tokens::ZERO {
                taken.push(Allocation { lot: part.lot, tokens: some });
            }
        };
        let parts = &mut self.holds[index].parts;
        match side {
            Side::First => parts.iter_mut().for_each(&mut take),
            Side::Last => parts.iter_mut().rev().for_each(&mut take),
        }
        parts.retain(|part| part.tokens > Tokens::ZERO);
        let mut overdue = Vec::new();
        for part in &taken {
            let over = self.lot_mut(part.lot).unreserve(part.tokens);
            overdue.push(Allocation { lot: part.lot, tokens: over });
            self.held = self.held.minus(part.tokens);
        }
        Undone { taken, overdue }
    }

    /// Undoes all that a hold reserves, which is taken at once.
    pub(super) fn unreserve_all(&mut self, index: usize) {
        let rest = self.holds[index].held();
        let _spent_at_once = self.unreserve(index, rest, Side::First);
        self.holds[index].is_changed = true;
    }

    /// Ends a hold; what it still reserved is free again, or burns where its time is over.
    pub(super) fn close(
        &mut self,
        index: usize,
        status: HoldStatus,
        asked: Asked,
        at: DateTime<Utc>,
    ) {
        let rest = self.holds[index].held();
        let undone = self.unreserve(index, rest, Side::Last);
        let hold = &mut self.holds[index];
        hold.status = status;
        hold.is_changed = true;
        // First, so that the entry says what is free when all is done, as its caller is answered.
        self.burn_overdue(undone.overdue, at);
        let change = Change { held: -rest.to_db(), ..Change::of(EntryKind::Released) };
        self.post_hold(index, change, asked, at);
    }

    fn burn_overdue(&mut self, overdue: Vec<Allocation>, at: DateTime<Utc>) {
        for part in overdue {
            let place = self.lots.iter().position(|lot| lot.id == part.lot);
            let place = place.expect("a hold reserves lots of its account");
            self.burn(place, part.tokens, at);
        }
    }

    /// Ends a hold that nobody ended in time, by its own rule.
    pub(super) fn expire_hold(&mut self, index: usize, at: DateTime<Utc>) {
        let hold = &self.holds[index];
        let id = hold.id;
        let asked = |what: &str| Asked {
            id: EntryId::new(at),
            request: Request {
                description: hold.description.clone(),
                metadata: hold.metadata.clone(),
                ..system_request(HOLD_EXPIRY, format!("{what}:{id}"))
            },
            is_keyed: false,
        };
        let unreported = match hold.on_expiry {
            HoldRule::Release => Tokens::ZERO,
            HoldRule::SettleReported => hold.reported.beyond(hold.settled),
        };
        let total = hold.settled.plus(unreported);
        let (spent, closed) = (asked("reported"), asked("expiry"));
        if unreported > Tokens::ZERO {
            self.settle(index, (total, false), spent, at);
        }
        self.close(index, HoldStatus::Expired, closed, at);
        let settled = self.holds[index].settled;
        self.note(EventKind::HoldExpired, id.uuid(), json!({ "tokens_settled": settled }), at);
    }

    /// Makes a hold reserve less of a lot whose tokens are taken back; the newest holds first.
    ///
    /// What it settles later goes beyond its reservation.
    pub(super) fn shrink_holds(&mut self, lot: GrantId, tokens: Tokens) {
        let mut left = tokens;
        for hold in self.holds.iter_mut().rev() {
            for part in hold.parts.iter_mut().filter(|part| part.lot == lot) {
                let some = part.tokens.min(left);
                part.tokens = part.tokens.minus(some);
                left = left.minus(some);
                hold.is_changed |= some > Tokens::ZERO;
            }
            hold.parts.retain(|part| part.tokens > Tokens::ZERO);
        }
        assert_eq!(left, Tokens::ZERO, "what is held of a lot is held by holds");
        let _overdue_is_gone_with_it = self.lot_mut(lot).unreserve(tokens);
        self.held = self.held.minus(tokens);
    }

    pub(super) fn post_hold(
        &mut self,
        index: usize,
        change: Change,
        asked: Asked,
        at: DateTime<Utc>,
    ) {
        let hold = Some(self.holds[index].state());
        self.post_as(asked.id, Change { hold, ..change }, asked.request, at);
    }
}

/// What a settle took beyond its reservation.
#[derive(Default)]
struct Beyond {
    free: Vec<Allocation>,
    debt: Tokens,
}

/// Who ends holds that nobody ended.
const HOLD_EXPIRY: &str = "system:hold_expiry";

/// What was reserved and is no more.
struct Undone {
    taken: Vec<Allocation>,
    /// Of those: past their time, to burn unless they are spent now.
    overdue: Vec<Allocation>,
}

/// From which of a hold's parts on.
#[derive(Clone, Copy)]
enum Side {
    /// In the order in which they are drawn.
    First,
    /// Against it.
    Last,
}

/// Two lists of parts as one, a lot named once.
fn merged(mut parts: Vec<Allocation>, more: Vec<Allocation>) -> Vec<Allocation> {
    for part in more {
        match parts.iter_mut().find(|it| it.lot == part.lot) {
            Some(same) => same.tokens = same.tokens.plus(part.tokens),
            None => parts.push(part),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::lot::{Lot, Rollover, Source};
    use super::super::take_back::Entitlement;
    use super::*;
    use crate::ids::{CustomerId, PaymentId, SubscriptionId};

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap() + Duration::minutes(minutes)
    }

    fn lot(tokens: u64, opens: i64, ends: Option<i64>, rollover: Rollover) -> Lot {
        let source = Source::payment(PaymentId::new(at(opens)), 0);
        Lot {
            id: GrantId::new(at(opens)),
            opens_at: at(opens),
            expires_at: ends.map(at),
            rollover,
            ..Lot::new(source, 10, Tokens(tokens), at(0))
        }
    }

    fn account(lots: Vec<Lot>) -> Account {
        let mut account = Account {
            subscription_id: Some(SubscriptionId::new(at(0))),
            is_active: true,
            lots,
            ..Account::new(CustomerId::of("1"))
        };
        account.book_due(at(0));
        account
    }

    fn plain(tokens: u64) -> Account {
        account(vec![lot(tokens, 0, None, Rollover::None)])
    }

    fn asked() -> Asked {
        let request = system_request("customer", EntryId::new(at(0)).to_string());
        Asked { id: EntryId::new(at(0)), request, is_keyed: false }
    }

    fn open(account: &mut Account, tokens: u64, minutes: i64, rule: HoldRule, now: i64) -> HoldId {
        account.book_due(at(now));
        let id = HoldId::new(at(now));
        let lasts = Duration::minutes(minutes);
        let new = NewHold { id, tokens: Tokens(tokens), on_expiry: rule, lasts };
        account.open_hold(&new, asked(), at(now)).unwrap();
        id
    }

    fn step(account: &mut Account, id: HoldId, step: Step, now: i64) -> Option<InsufficientTokens> {
        account.book_due(at(now));
        let index = account.open_hold_of(id, "customer").unwrap();
        account.step(index, step, asked(), at(now)).unwrap()
    }

    fn settle(total: u64, is_final: bool) -> Step {
        Step::Settle { total: Tokens(total), is_final }
    }

    fn spend(account: &mut Account, tokens: u64, now: i64) -> Result<(), Error> {
        account.book_due(at(now));
        let Asked { id, request, .. } = asked();
        account.spend(Tokens(tokens), id, request, at(now)).map(drop)
    }

    /// Balance, held, free, owed.
    fn state(account: &Account, now: i64) -> (u64, u64, u64, u64) {
        (account.balance.0, account.held.0, account.available(at(now)).0, account.debt.0)
    }

    #[test]
    fn what_is_held_cannot_be_spent_and_what_is_let_go_can() {
        let mut account = plain(100);
        let id = open(&mut account, 60, 10, HoldRule::Release, 0);
        assert_eq!(state(&account, 0), (100, 60, 40, 0));
        assert!(spend(&mut account, 41, 1).is_err());

        step(&mut account, id, Step::Release, 2);

        assert_eq!(state(&account, 2), (100, 0, 100, 0));
        assert!(spend(&mut account, 100, 3).is_ok());
    }

    #[test]
    fn settling_is_cumulative_and_a_smaller_total_changes_nothing() {
        let mut account = plain(100);
        let id = open(&mut account, 60, 10, HoldRule::Release, 0);

        step(&mut account, id, settle(20, false), 1);
        step(&mut account, id, settle(20, false), 2);
        step(&mut account, id, settle(5, false), 3);
        assert_eq!(state(&account, 3), (80, 40, 40, 0));
        step(&mut account, id, settle(30, true), 4);

        assert_eq!(state(&account, 4), (70, 0, 70, 0));
        assert_eq!(account.holds[0].status, HoldStatus::Settled);
        let last = account.entries.last().unwrap();
        let hold = last.hold.as_ref().unwrap();
        assert_eq!(
            (hold.status, hold.settled, hold.held),
            (HoldStatus::Settled, Tokens(30), Tokens(0))
        );
    }

    #[test]
    fn a_hold_that_nobody_ends_is_released_at_its_second() {
        let mut account = plain(100);
        let id = open(&mut account, 60, 10, HoldRule::Release, 0);
        step(&mut account, id, settle(20, false), 1);

        account.book_due(at(10) - Duration::microseconds(1));
        assert_eq!(account.holds[0].status, HoldStatus::Open);
        account.book_due(at(10));

        assert_eq!(state(&account, 10), (80, 0, 80, 0));
        assert_eq!(account.holds[0].status, HoldStatus::Expired);
        assert!(account.events.iter().any(|event| event.kind == EventKind::HoldExpired));
    }

    #[test]
    fn what_was_reported_is_settled_where_the_rule_says_so() {
        let mut account = plain(100);
        let id = open(&mut account, 60, 10, HoldRule::SettleReported, 0);
        step(&mut account, id, settle(20, false), 1);
        let reported = Step::Extend { tokens: Tokens(0), lasts: None, reported: Some(Tokens(50)) };
        step(&mut account, id, reported, 2);
        assert_eq!(state(&account, 2), (80, 40, 40, 0), "reporting charges nothing");

        account.book_due(at(10));

        assert_eq!(state(&account, 10), (50, 0, 50, 0));
        assert_eq!(account.used, Tokens(50));
    }

    #[test]
    fn beyond_its_reservation_a_hold_takes_what_is_free_then_the_overdraft_then_is_short() {
        let mut account = plain(100);
        account.overdraft = Tokens(30);
        let id = open(&mut account, 60, 10, HoldRule::Release, 0);
        spend(&mut account, 20, 0).unwrap();

        assert_eq!(step(&mut account, id, settle(70, false), 1), None);
        assert_eq!(state(&account, 1), (10, 0, 10, 0));
        assert_eq!(step(&mut account, id, settle(100, false), 2), None);
        assert_eq!(state(&account, 2), (0, 0, 0, 20), "finish the answer");
        let short = step(&mut account, id, settle(200, true), 3).unwrap();

        assert_eq!((short.requested, short.available), (Tokens(100), Tokens(10)));
        assert_eq!(state(&account, 3), (0, 0, 0, 30), "all there was is booked");
        assert_eq!(account.holds[0].settled, Tokens(110));
        account.add_lot(lot(50, 4, None, Rollover::None), at(4));
        assert_eq!(state(&account, 4), (20, 0, 20, 0), "the next grant repays it first");
    }

    #[test]
    fn only_a_running_hold_may_use_the_overdraft() {
        let mut account = plain(100);
        account.overdraft = Tokens(30);
        assert!(spend(&mut account, 101, 0).is_err());
        let new = NewHold {
            id: HoldId::new(at(0)),
            tokens: Tokens(101),
            on_expiry: HoldRule::Release,
            lasts: Duration::minutes(1),
        };
        assert!(account.open_hold(&new, asked(), at(0)).is_err());
    }

    #[test]
    fn while_spending_is_not_allowed_only_what_is_reserved_is_settled() {
        let mut account = plain(100);
        account.overdraft = Tokens(30);
        let id = open(&mut account, 60, 10, HoldRule::Release, 0);
        account.is_active = false;

        let short = step(&mut account, id, settle(70, false), 1).unwrap();

        assert_eq!(short.available, Tokens(60));
        assert_eq!(state(&account, 1), (40, 0, 0, 0));
    }

    #[test]
    fn a_lot_does_not_end_while_it_is_held_and_then_at_once() {
        let mut account = account(vec![lot(100, 0, Some(5), Rollover::None)]);
        let id = open(&mut account, 60, 10, HoldRule::Release, 0);

        account.book_due(at(6));
        assert_eq!(state(&account, 6), (60, 60, 0, 0), "what was free burned at the lot's end");
        step(&mut account, id, settle(25, false), 7);
        assert_eq!(state(&account, 7), (35, 35, 0, 0));
        step(&mut account, id, Step::Release, 8);

        assert_eq!(state(&account, 8), (0, 0, 0, 0));
        let last = account.entries.last().unwrap();
        assert_eq!((last.kind, last.tokens, last.created_at), (EntryKind::Expired, -35, at(8)));
    }

    #[test]
    fn what_is_taken_back_leaves_the_hold_first() {
        let mut account = plain(100);
        open(&mut account, 60, 10, HoldRule::Release, 0);
        let lot = account.lots[0].id;

        account.shrink_holds(lot, Tokens(45));

        assert_eq!(state(&account, 1), (100, 15, 85, 0));
        assert_eq!(account.holds[0].held(), Tokens(15));
    }

    #[test]
    fn a_rest_rolls_over_to_the_end_of_the_lot_that_opens_at_its_end() {
        let lots = |rule| vec![lot(100, 0, Some(10), rule), lot(50, 10, Some(20), rule)];
        let mut none = account(lots(Rollover::None));
        let mut capped = account(lots(Rollover::Capped(Tokens(30))));
        let mut all = account(lots(Rollover::All));
        for (account, left) in [(&mut none, 50), (&mut capped, 80), (&mut all, 140)] {
            spend(account, 10, 1).unwrap();
            account.book_due(at(10));
            assert_eq!(account.available(at(10)), Tokens(left));
            account.book_due(at(20));
            assert_eq!(account.balance, Tokens::ZERO, "no lot follows the second");
        }
    }

    #[test]
    fn a_cap_is_for_all_that_rolls_over_together() {
        let rule = Rollover::Capped(Tokens(30));
        let spans = [(100, 0, 10), (50, 10, 20), (50, 20, 30)];
        let lots = spans.map(|(tokens, from, to)| lot(tokens, from, Some(to), rule));
        let mut account = account(lots.to_vec());
        account.book_due(at(10));
        assert_eq!(account.balance, Tokens(80));

        account.book_due(at(20));

        assert_eq!(account.balance, Tokens(80), "30 of the 80 that ended, and the new 50");
    }

    #[test]
    fn holding_a_lot_over_its_end_does_not_evade_the_cap() {
        let rule = Rollover::Capped(Tokens(30));
        let lots = vec![lot(100, 0, Some(10), rule), lot(50, 10, Some(20), rule)];
        let mut account = account(lots);
        let id = open(&mut account, 100, 15, HoldRule::Release, 0);
        account.book_due(at(10));
        assert_eq!(state(&account, 10), (150, 100, 50, 0));

        step(&mut account, id, settle(10, false), 11);
        step(&mut account, id, Step::Release, 12);

        assert_eq!(state(&account, 12), (80, 0, 80, 0));
        let last = account.entries.last().unwrap();
        assert_eq!(last.kind, EntryKind::Released);
        assert_eq!(last.available_after, Tokens(80), "a repeat is answered by the entry");
    }

    #[test]
    fn what_comes_back_over_its_time_is_over_at_once_and_not_before() {
        let mut account = account(vec![lot(100, 0, Some(5), Rollover::None)]);
        let id = open(&mut account, 60, 30, HoldRule::Release, 0);
        let facts = |gone_minor| Entitlement {
            payment_id: account.lots[0].source.id.into(),
            captured_minor: 10,
            gone_minor,
            gone_unused_only_minor: 0,
            is_frozen: false,
        };
        let (all, nothing) = (facts(10), facts(0));
        account.adapt(&all, "", at(10));
        step(&mut account, id, Step::Release, 11);

        account.adapt(&nothing, "", at(12));

        assert_eq!(state(&account, 12), (0, 0, 0, 0));
        let last = account.entries.last().unwrap();
        assert_eq!((last.kind, last.tokens, last.created_at), (EntryKind::Expired, -60, at(12)));
    }

    #[test]
    fn a_lot_that_is_over_is_not_reset() {
        let mut account = account(vec![lot(100, 0, Some(5), Rollover::None)]);
        open(&mut account, 60, 30, HoldRule::Release, 0);
        let source = account.lots[0].source;

        account.book_due(at(6));
        account.reset(source, Tokens(100), asked().request, at(6));
        assert_eq!(state(&account, 6), (60, 60, 0, 0));
        account.lots[0].expires_at = Some(at(7));
        account.reset(source, Tokens(100), asked().request, at(6));

        assert_eq!(state(&account, 6), (100, 60, 40, 0));
    }

    #[derive(Debug, Clone)]
    enum Deed {
        Spend(u64),
        Open(u64, i64, HoldRule),
        Settle(usize, u64, bool),
        Extend(usize, u64, Option<i64>, Option<u64>),
        Release(usize),
        TakeBack(usize, u64),
    }

    fn deed() -> impl Strategy<Value = Deed> {
        let rule = prop_oneof![Just(HoldRule::Release), Just(HoldRule::SettleReported)];
        prop_oneof![
            (1..60_u64).prop_map(Deed::Spend),
            (1..60_u64, 1..30_i64, rule).prop_map(|(n, m, rule)| Deed::Open(n, m, rule)),
            (0..4_usize, 0..90_u64, any::<bool>()).prop_map(|(i, n, f)| Deed::Settle(i, n, f)),
            (0..4_usize, 0..20_u64, prop::option::of(1..30_i64), prop::option::of(0..90_u64))
                .prop_map(|(i, n, m, r)| Deed::Extend(i, n, m, r)),
            (0..4_usize).prop_map(Deed::Release),
            (0..4_usize, 1..50_u64).prop_map(|(i, n)| Deed::TakeBack(i, n)),
        ]
    }

    fn apply(account: &mut Account, deed: &Deed, now: DateTime<Utc>) {
        account.book_due(now);
        let free = account.available(now);
        let open: Vec<HoldId> = account
            .holds
            .iter()
            .filter(|hold| hold.status == HoldStatus::Open)
            .map(|hold| hold.id)
            .collect();
        let step = |account: &mut Account, index: usize, step: Step| {
            if let Some(id) = open.get(index) {
                let index = account.open_hold_of(*id, "customer").unwrap();
                let _verdict = account.step(index, step, asked(), now);
            }
        };
        match deed {
            Deed::Spend(tokens) => {
                let Asked { id, request, .. } = asked();
                let is_spent = account.spend(Tokens(*tokens), id, request, now).is_ok();
                assert_eq!(is_spent, free.0 >= *tokens, "a spend sees exactly what is free");
            }
            Deed::Open(tokens, minutes, rule) => {
                let lasts = Duration::minutes(*minutes);
                let id = HoldId::new(now);
                let new = NewHold { id, tokens: Tokens(*tokens), on_expiry: *rule, lasts };
                let is_held = account.open_hold(&new, asked(), now).is_ok();
                assert_eq!(is_held, free.0 >= *tokens, "a hold sees exactly what is free");
            }
            Deed::Settle(index, total, is_final) => {
                step(account, *index, settle(*total, *is_final));
            }
            Deed::Extend(index, tokens, minutes, reported) => {
                let lasts = minutes.map(Duration::minutes);
                let reported = reported.map(Tokens);
                step(account, *index, Step::Extend { tokens: Tokens(*tokens), lasts, reported });
            }
            Deed::Release(index) => step(account, *index, Step::Release),
            Deed::TakeBack(index, tokens) => {
                if let Some(lot) = account.lots.get(*index) {
                    let (id, held) = (lot.id, lot.held.min(Tokens(*tokens)));
                    account.shrink_holds(id, held);
                }
            }
        }
    }

    fn assert_counted_once(account: &Account, now: DateTime<Utc>) {
        let opened = || account.lots.iter().filter(|lot| lot.is_opened);
        let rest: Tokens = opened().map(|lot| lot.remaining).sum();
        assert_eq!(account.balance, rest, "the balance is what is left of opened lots");
        let held: Tokens = opened().map(|lot| lot.held).sum();
        let reserved: Tokens = account.holds.iter().map(Hold::held).sum();
        assert_eq!((account.held, account.held), (held, reserved), "held once, by lots and holds");
        let free: Tokens = opened()
            .filter(|lot| lot.expires_at.is_none_or(|end| now < end))
            .map(Lot::unheld)
            .sum();
        assert_eq!(account.available(now), free);
        let sum = |of: fn(&super::super::ledger::Entry) -> i64| -> i64 {
            account.entries.iter().map(of).sum()
        };
        assert_eq!(sum(|entry| entry.tokens), account.balance.to_db());
        assert_eq!(sum(|entry| entry.debt), account.debt.to_db());
        assert!(account.debt <= account.overdraft);
        for lot in &account.lots {
            assert!(lot.overdue <= lot.held && lot.held <= lot.remaining);
        }
        for hold in &account.holds {
            assert!(hold.status == HoldStatus::Open || hold.parts.is_empty());
            assert!(hold.status != HoldStatus::Open || now < hold.expires_at);
        }
    }

    proptest! {
        /// At each moment each token is counted once, a spend sees exactly what is free, and no
        /// hold outlives its end.
        #[test]
        fn every_token_is_counted_once_whatever_holds_do(
            lots in prop::collection::vec((1..80_u64, 0..40_i64, 1..40_i64, 0..3_u8), 1..5),
            overdraft in 0..30_u64,
            deeds in prop::collection::vec((deed(), 0..6_i64), 1..40),
        ) {
            let mut account = plain(50);
            account.overdraft = Tokens(overdraft);
            for (tokens, opens, lasts, rule) in lots {
                let rule = match rule {
                    0 => Rollover::None,
                    1 => Rollover::Capped(Tokens(20)),
                    _ => Rollover::All,
                };
                account.add_lot(lot(tokens, opens, Some(opens + lasts), rule), at(0));
            }
            let mut now = at(0);
            for (deed, wait) in deeds {
                now += Duration::minutes(wait);
                apply(&mut account, &deed, now);
                account.book_due(now);
                assert_counted_once(&account, now);
            }
            account.book_due(now + MAX_HOLD);
            prop_assert_eq!(account.held, Tokens::ZERO, "nothing stays reserved for ever");
        }
    }
}
