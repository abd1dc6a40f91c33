//! An account and its entries: how lots open, end and are spent. Pure: no clock, no database.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Tokens;
use super::lot::{Allocation, InsufficientTokens, Lot, Rollover, allocate};
use super::reserve::{Hold, HoldState, HoldStatus};
use crate::error::Error;
use crate::events::{Event, EventKind};
use crate::ids::{CustomerId, EntryId, GrantId, SubscriptionId};

/// Why a balance changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "entry_kind", rename_all = "snake_case")]
pub enum EntryKind {
    /// A lot was opened.
    Granted,
    /// The customer spent.
    Consumed,
    /// What was left of a lot at its end.
    Expired,
    /// Money went back, so the lot's tokens went, or became debt where they were spent.
    TakenBack,
    /// The money came again, so tokens came back, or debt was cancelled.
    GivenBack,
    /// A lot repaid debt.
    DebtRepaid,
    /// A hold reserved tokens; the balance stays.
    Held,
    /// A hold let tokens go; the balance stays.
    Released,
    /// An operator's correction.
    Adjusted,
    /// Credited to the price of another plan.
    PlanChange,
    /// An operator let a debt go.
    DebtForgiven,
}

impl EntryKind {
    /// The word in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Consumed => "consumed",
            Self::Expired => "expired",
            Self::TakenBack => "taken_back",
            Self::GivenBack => "given_back",
            Self::DebtRepaid => "debt_repaid",
            Self::Held => "held",
            Self::Released => "released",
            Self::Adjusted => "adjusted",
            Self::PlanChange => "plan_change",
            Self::DebtForgiven => "debt_forgiven",
        }
    }
}

/// One signed change of a balance.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Gapless per account; the order.
    pub seq: i64,
    /// The entry; on the wire `usage_id` where tokens were consumed.
    pub id: EntryId,
    /// Why.
    pub kind: EntryKind,
    /// Change of the balance.
    pub tokens: i64,
    /// Change of the debt.
    pub debt: i64,
    /// Change of what is held.
    pub held: i64,
    /// Tokens consumed, for statistics.
    pub used: Tokens,
    /// Tokens consumed in all after it.
    pub used_after: Tokens,
    /// The balance after it.
    pub balance_after: Tokens,
    /// What was free to spend after it.
    pub available_after: Tokens,
    /// Who did it: `customer`, `system:<kind>`.
    pub principal: String,
    /// One effect per account, principal and key.
    pub operation_key: String,
    /// SHA-256 of what was asked.
    pub request_digest: Vec<u8>,
    /// The lots whose tokens it moved.
    pub lots: Vec<Allocation>,
    /// The hold it belongs to, as it was after it.
    pub hold: Option<HoldState>,
    /// The subscription at that time.
    pub subscription_id: Option<SubscriptionId>,
    /// The caller's words, at most 255 characters.
    pub description: String,
    /// The caller's own members (model, feature, request id).
    pub metadata: Value,
    /// When.
    pub created_at: DateTime<Utc>,
}

/// An account as it stands under its lock, and the entries still to be saved.
#[derive(Debug, Clone)]
pub(super) struct Account {
    /// Whose.
    pub customer_id: CustomerId,
    /// Which version of its row was loaded.
    pub version: i64,
    /// Sum of what is left of all opened lots.
    pub balance: Tokens,
    /// What is owed after refunds and lost disputes of what was spent, and by overdraft.
    pub debt: Tokens,
    /// Of the balance: reserved by open holds.
    pub held: Tokens,
    /// Consumed in all.
    pub used: Tokens,
    /// The newest entry.
    pub last_seq: i64,
    /// Its digest, the head of the chain; empty before the first.
    pub last_digest: Vec<u8>,
    /// The subscription whose terms hold.
    pub subscription_id: Option<SubscriptionId>,
    /// Whether the subscription allows spending.
    pub is_active: bool,
    /// End of access to lots that expire.
    pub spendable_until: Option<DateTime<Utc>>,
    /// Nothing may be spent before.
    pub paused_until: Option<DateTime<Utc>>,
    /// Most debt that a running hold may run into.
    pub overdraft: Tokens,
    /// Few tokens are left from here down.
    pub low_at: Option<Tokens>,
    /// A top-up is wanted from here down.
    pub top_up_at: Option<Tokens>,
    /// Since when a top-up is asked for.
    pub top_up_since: Option<DateTime<Utc>>,
    /// Lots with something left, opened or not; to adapt a payment also its lots without.
    pub lots: Vec<Lot>,
    /// Lots among them that are still to be inserted.
    pub new_lots: Vec<GrantId>,
    /// Lots that changed since it was loaded.
    pub changed_lots: BTreeSet<GrantId>,
    /// Open holds, and those that were closed since it was loaded.
    pub holds: Vec<Hold>,
    /// Entries made since it was loaded, in order.
    pub entries: Vec<Entry>,
    /// What else happened since it was loaded.
    pub events: Vec<Event>,
}

/// Who asks for what, for an entry.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// Who.
    pub principal: String,
    /// Route and key.
    pub operation_key: String,
    /// SHA-256 of what is asked.
    pub digest: Vec<u8>,
    /// At most 255 characters.
    pub description: String,
    /// The caller's own members.
    pub metadata: Value,
}

impl Account {
    /// An account on which nothing was ever booked.
    pub(super) fn new(customer_id: CustomerId) -> Self {
        Self {
            customer_id,
            version: 0,
            balance: Tokens::ZERO,
            debt: Tokens::ZERO,
            held: Tokens::ZERO,
            used: Tokens::ZERO,
            last_seq: 0,
            last_digest: Vec::new(),
            subscription_id: None,
            is_active: false,
            spendable_until: None,
            paused_until: None,
            overdraft: Tokens::ZERO,
            low_at: None,
            top_up_at: None,
            top_up_since: None,
            lots: Vec::new(),
            new_lots: Vec::new(),
            changed_lots: BTreeSet::new(),
            holds: Vec::new(),
            entries: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Whether there is anything to save.
    pub(super) fn is_changed(&self) -> bool {
        !self.entries.is_empty() || !self.changed_lots.is_empty()
    }

    /// Books, in order of their times, the holds and lots that ended and the lots that opened by
    /// `now`.
    ///
    /// Whoever locks an account calls this first, so no sweep must have run for anybody to spend
    /// what is his, and nobody can spend what has expired.
    pub(super) fn book_due(&mut self, now: DateTime<Utc>) {
        self.book_from(DateTime::<Utc>::MIN_UTC, now);
    }

    /// Books what is due, at `from` at the earliest: what a hold let go then did not end before.
    pub(super) fn book_from(&mut self, from: DateTime<Utc>, now: DateTime<Utc>) {
        let mut time = from;
        while let Some((at, due)) = self.next_due().filter(|(at, _)| *at <= now) {
            time = time.max(at);
            match due {
                Due::Hold(index) => self.expire_hold(index, time),
                Due::End(index) => self.expire(index, time),
                Due::Open(index) => self.open(index, time),
            }
        }
    }

    /// Ends a lot: what no hold reserves burns, save for what its rollover lets live on.
    fn expire(&mut self, index: usize, at: DateTime<Utc>) {
        let (living, until) = self.rolled_over(index);
        let lot = &mut self.lots[index];
        let burned = lot.unheld().beyond(living.beyond(lot.held));
        if let Some(until) = until {
            lot.expires_at = Some(until);
            lot.overdue = lot.overdue.max(lot.held.beyond(living));
        }
        self.changed_lots.insert(lot.id);
        self.burn(index, burned, at);
    }

    /// Burns some of what no hold reserves.
    pub(super) fn burn(&mut self, index: usize, tokens: Tokens, at: DateTime<Utc>) {
        if tokens == Tokens::ZERO {
            return;
        }
        let lot = &mut self.lots[index];
        let lots = vec![Allocation { lot: lot.id, tokens }];
        // A lot may end again after tokens were given back to it, so its id alone is no key.
        let key = format!("expiry:{}:{}", lot.id, self.last_seq + 1);
        lot.remaining = lot.remaining.minus(tokens);
        lot.expired = lot.expired.plus(tokens);
        self.balance = self.balance.minus(tokens);
        self.note(EventKind::TokensExpired, lots[0].lot.uuid(), json!({ "tokens": tokens }), at);
        let change = Change { tokens: -tokens.to_db(), lots, ..Change::of(EntryKind::Expired) };
        self.post(change, system_request("system:expiry", key), at);
    }

    /// How much of a lot that ends lives on, and until when: until the end of the lot that opens
    /// at that very instant.
    ///
    /// The cap is for all that was rolled to that end together; held tokens count first.
    fn rolled_over(&self, index: usize) -> (Tokens, Option<DateTime<Utc>>) {
        let lot = &self.lots[index];
        let next = self.successor(lot);
        let Some(until) = next.and_then(|next| next.expires_at) else {
            return (Tokens::ZERO, None);
        };
        match lot.rollover {
            Rollover::None => (Tokens::ZERO, None),
            Rollover::All => (lot.remaining, Some(until)),
            Rollover::Capped(cap) => {
                let is_rolled = |other: &&Lot| {
                    other.id != lot.id
                        && other.is_opened
                        && other.expires_at == Some(until)
                        && other.rollover != Rollover::None
                };
                let rolled: Tokens =
                    self.lots.iter().filter(is_rolled).map(|other| other.remaining).sum();
                (lot.remaining.min(cap.beyond(rolled)), Some(until))
            }
        }
    }

    /// The lot that opens when this one ends, where this one may live on in its time.
    fn successor(&self, lot: &Lot) -> Option<&Lot> {
        let end = lot.expires_at.filter(|_| lot.rollover != Rollover::None)?;
        let is_next = |next: &&Lot| {
            !next.is_opened
                && next.opens_at == end
                && next.expires_at.is_some()
                && next.remaining > Tokens::ZERO
        };
        self.lots.iter().filter(is_next).min_by_key(|next| next.draw_order())
    }

    /// Brings a lot into the balance; it repays debt first.
    pub(super) fn open(&mut self, index: usize, at: DateTime<Utc>) {
        let lot = &mut self.lots[index];
        let tokens = lot.remaining;
        let lots = vec![Allocation { lot: lot.id, tokens }];
        let request = system_request("system:grant", lot.source.operation_key());
        lot.is_opened = true;
        self.changed_lots.insert(lot.id);
        self.balance = self.balance.plus(tokens);
        self.note(EventKind::TokensGranted, lots[0].lot.uuid(), json!({ "tokens": tokens }), at);
        let change = Change { tokens: tokens.to_db(), lots, ..Change::of(EntryKind::Granted) };
        self.post(change, request, at);
        self.repay(index, self.debt, at);
    }

    /// Repays at most `owed` of the debt from a lot. What is held or frozen repays nothing.
    pub(super) fn repay(&mut self, index: usize, owed: Tokens, at: DateTime<Utc>) {
        let lot = &mut self.lots[index];
        let tokens = lot.unheld().min(owed).min(self.debt);
        if tokens == Tokens::ZERO || lot.frozen_at.is_some() {
            return;
        }
        lot.remaining = lot.remaining.minus(tokens);
        self.changed_lots.insert(lot.id);
        let lots = vec![Allocation { lot: lot.id, tokens }];
        let key = format!("debt_repaid:{}:{}", lot.id, self.last_seq + 1);
        self.balance = self.balance.minus(tokens);
        self.debt = self.debt.minus(tokens);
        let less = -tokens.to_db();
        let change = Change { tokens: less, debt: less, lots, ..Change::of(EntryKind::DebtRepaid) };
        self.post(change, system_request(TAKE_BACK, key), at);
    }

    /// What is to be booked next, and when; at one instant holds end before lots, and what ends
    /// comes before what opens; then age and id decide, so that it is the same for everybody.
    fn next_due(&self) -> Option<(DateTime<Utc>, Due)> {
        let holds = self.holds.iter().enumerate().filter_map(|(index, hold)| {
            (hold.status == HoldStatus::Open).then_some((
                (hold.expires_at, 0, hold.created_at, hold.id.uuid()),
                Due::Hold(index),
            ))
        });
        let lots = self.lots.iter().enumerate().filter_map(|(index, lot)| {
            let (at, rank, due) = match (lot.is_opened, lot.frozen_at) {
                (false, _) => (lot.opens_at, 2, Due::Open(index)),
                (true, None) => (lot.expires_at?, 1, Due::End(index)),
                (true, Some(_)) => return None,
            };
            // Nothing becomes of a lot of which nothing is left, loaded or not.
            let is_due = lot.remaining > Tokens::ZERO
                && (!lot.is_opened || lot.unheld() > Tokens::ZERO || self.successor(lot).is_some());
            is_due.then_some(((at, rank, lot.created_at, lot.id.uuid()), due))
        });
        holds.chain(lots).min_by_key(|(order, _)| *order).map(|((at, ..), due)| (at, due))
    }

    /// When something is to be booked next.
    pub(super) fn next_due_at(&self) -> Option<DateTime<Utc>> {
        self.next_due().map(|(at, _)| at)
    }

    /// What may be spent at `now`, or why nothing may.
    ///
    /// Past the end of access only lots without expiry count (a pack outlives the plan).
    pub(super) fn spendable(
        &self,
        now: DateTime<Utc>,
    ) -> Result<impl Iterator<Item = &Lot>, Error> {
        if self.subscription_id.is_none() {
            return Err(Error::NoSubscription);
        }
        let is_paused = self.paused_until.is_some_and(|end| now < end);
        let has_access = self.spendable_until.is_none_or(|end| now < end);
        let is_lasting = |lot: &Lot| lot.is_open(now) && lot.expires_at.is_none();
        let has_lasting =
            self.lots.iter().any(|lot| is_lasting(lot) && lot.remaining > Tokens::ZERO);
        if !self.is_active || is_paused || !(has_access || has_lasting) {
            return Err(Error::SubscriptionInactive);
        }
        let is_counted =
            move |lot: &&Lot| lot.is_open(now) && (has_access || lot.expires_at.is_none());
        Ok(self.lots.iter().filter(is_counted))
    }

    /// What is free to spend at `now`; nothing where spending is not allowed.
    pub(super) fn available(&self, now: DateTime<Utc>) -> Tokens {
        self.spendable(now).map_or(Tokens::ZERO, |lots| lots.map(Lot::unheld).sum())
    }

    /// What an open dispute keeps from being spent and no hold reserves; part of the balance.
    pub(super) fn frozen(&self) -> Tokens {
        let is_frozen = |lot: &&Lot| lot.is_opened && lot.frozen_at.is_some();
        self.lots.iter().filter(is_frozen).map(Lot::unheld).sum()
    }

    /// Spends `tokens`, exactly or not at all. What is due must have been booked.
    pub(super) fn spend(
        &mut self,
        tokens: Tokens,
        id: EntryId,
        request: Request,
        now: DateTime<Utc>,
    ) -> Result<&Entry, Error> {
        let taken = self.allocate(tokens, now)?;
        let before = self.available(now);
        self.draw(&taken);
        let less = -tokens.to_db();
        let change =
            Change { tokens: less, used: tokens, lots: taken, ..Change::of(EntryKind::Consumed) };
        self.post_as(id, change, request, now);
        self.note_crossings(before, now);
        Ok(self.entries.last().expect("an entry was just made"))
    }

    /// Draws from what may be spent at `now`, exactly or not at all.
    pub(super) fn allocate(
        &self,
        tokens: Tokens,
        now: DateTime<Utc>,
    ) -> Result<Vec<Allocation>, Error> {
        let refused = |short: InsufficientTokens| InsufficientTokens {
            held: self.held,
            overdraft_left: self.overdraft.beyond(self.debt),
            ..short
        };
        Ok(allocate(self.spendable(now)?, tokens).map_err(refused)?)
    }

    /// Takes what was allocated out of the lots and the balance.
    pub(super) fn draw(&mut self, taken: &[Allocation]) {
        for part in taken {
            let lot = self.lot_mut(part.lot);
            lot.remaining = lot.remaining.minus(part.tokens);
            self.balance = self.balance.minus(part.tokens);
        }
    }

    /// The lot of that id, which is about to change.
    pub(super) fn lot_mut(&mut self, id: GrantId) -> &mut Lot {
        self.changed_lots.insert(id);
        let lot = self.lots.iter_mut().find(|lot| lot.id == id);
        lot.expect("an allocation names lots of this account")
    }

    /// Notes that few or no tokens are left, when a line was crossed.
    pub(super) fn note_crossings(&mut self, before: Tokens, now: DateTime<Utc>) {
        let left = self.available(now);
        let crossed = if before > Tokens::ZERO && left == Tokens::ZERO {
            Some(EventKind::TokensExhausted)
        } else if self.low_at.is_some_and(|line| before > line && left <= line) {
            Some(EventKind::TokensLow)
        } else {
            None
        };
        if let Some(kind) = crossed {
            self.note(kind, self.customer_id.uuid(), json!({ "tokens_available": left }), now);
        }
    }

    /// Since when a top-up is asked for, as the account stands when it is saved.
    ///
    /// However many spends go on below the line, it is asked for once, until the account was above
    /// it again. Where nothing may be spent, no tokens are missed.
    pub(super) fn asks_since(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let line = self.top_up_at?;
        let left: Tokens = self.spendable(now).ok()?.map(Lot::unheld).sum();
        (left <= line).then(|| self.top_up_since.unwrap_or(now))
    }

    /// Notes what happened; it is recorded when the account is saved.
    pub(super) fn note(&mut self, kind: EventKind, subject: Uuid, facts: Value, at: DateTime<Utc>) {
        let mut event = Event::of_system(self.customer_id, kind, at);
        event.subject_id = Some(subject);
        event.after = facts;
        self.events.push(event);
    }

    /// Adds a lot; booked at once if it opens now, else when it is due.
    pub(super) fn add_lot(&mut self, lot: Lot, now: DateTime<Utc>) {
        assert!(!lot.is_opened, "a new lot is opened by booking it");
        self.lots.push(lot);
        self.book_due(now);
    }

    /// Writes the entry of a change that was just made to lots, balance and debt.
    pub(super) fn post(&mut self, change: Change, request: Request, at: DateTime<Utc>) {
        self.post_as(EntryId::new(at), change, request, at);
    }

    /// Writes the entry under an id that the caller knows already.
    pub(super) fn post_as(
        &mut self,
        id: EntryId,
        change: Change,
        request: Request,
        at: DateTime<Utc>,
    ) {
        self.last_seq += 1;
        self.used = self.used.plus(change.used);
        let available = self.available(at);
        self.entries.push(Entry {
            seq: self.last_seq,
            id,
            kind: change.kind,
            tokens: change.tokens,
            debt: change.debt,
            held: change.held,
            used: change.used,
            used_after: self.used,
            balance_after: self.balance,
            available_after: available,
            principal: request.principal,
            operation_key: request.operation_key,
            request_digest: request.digest,
            lots: change.lots,
            hold: change.hold,
            subscription_id: self.subscription_id,
            description: request.description,
            metadata: request.metadata,
            created_at: at,
        });
    }
}

/// What is to be booked when its time has come: the index of a hold or lot.
#[derive(Debug, Clone, Copy)]
enum Due {
    Hold(usize),
    End(usize),
    Open(usize),
}

/// What an entry changes.
pub(super) struct Change {
    /// Why.
    pub kind: EntryKind,
    /// Change of the balance.
    pub tokens: i64,
    /// Change of the debt.
    pub debt: i64,
    /// Change of what is held.
    pub held: i64,
    /// Tokens consumed.
    pub used: Tokens,
    /// The lots whose tokens it moves, with what it moves of each.
    pub lots: Vec<Allocation>,
    /// The hold it belongs to, as it is after it.
    pub hold: Option<HoldState>,
}

impl Change {
    /// One that changes nothing yet.
    pub(super) const fn of(kind: EntryKind) -> Self {
        Self { kind, tokens: 0, debt: 0, held: 0, used: Tokens::ZERO, lots: Vec::new(), hold: None }
    }
}

/// Who books what refunds and disputes take, give and leave as debt.
pub(super) const TAKE_BACK: &str = "system:take_back";

/// A request of our own: its key alone says what it is.
pub(super) fn system_request(principal: &str, operation_key: String) -> Request {
    Request {
        principal: principal.to_owned(),
        operation_key,
        digest: Vec::new(),
        description: String::new(),
        metadata: Value::Object(serde_json::Map::new()),
    }
}

#[cfg(test)]
mod tests {
    use chrono::Duration;
    use proptest::prelude::*;

    use super::super::lot::Source;
    use super::*;
    use crate::ids::PaymentId;

    fn at(hours: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap() + Duration::hours(hours)
    }

    fn lot(remaining: u64, opens: i64, expires: Option<i64>) -> Lot {
        let source = Source::payment(PaymentId::from(Uuid::nil()), 0);
        Lot {
            opens_at: at(opens),
            is_opened: opens <= 0,
            expires_at: expires.map(at),
            ..Lot::new(source, 0, Tokens(remaining), at(0))
        }
    }

    fn account(lots: Vec<Lot>) -> Account {
        Account {
            balance: lots.iter().filter(|lot| lot.is_opened).map(|lot| lot.remaining).sum(),
            subscription_id: Some(SubscriptionId::new(at(0))),
            is_active: true,
            lots,
            ..Account::new(CustomerId::of("1"))
        }
    }

    fn request() -> Request {
        Request { principal: "customer".to_owned(), ..system_request("", "consume:1".to_owned()) }
    }

    fn spend(account: &mut Account, tokens: u64, hours: i64) -> Result<i64, Error> {
        account.book_due(at(hours));
        account
            .spend(Tokens(tokens), EntryId::new(at(hours)), request(), at(hours))
            .map(|entry| entry.tokens)
    }

    #[test]
    fn lots_are_drawn_by_priority_then_soonest_expiry_then_age() {
        let lasting = lot(5, 0, None);
        let soon = lot(5, 0, Some(1));
        let later = lot(5, 0, Some(2));
        let last = Lot { priority: 9, ..lot(5, 0, Some(1)) };
        let taken = allocate([&last, &lasting, &later, &soon], Tokens(18)).unwrap();
        let order: Vec<_> = taken.iter().map(|part| (part.lot, part.tokens.0)).collect();
        assert_eq!(order, [(soon.id, 5), (later.id, 5), (lasting.id, 5), (last.id, 3)]);
    }

    #[test]
    fn an_expired_lot_is_never_spendable_though_no_sweep_ran() {
        let mut account = account(vec![lot(10, 0, Some(1))]);
        assert!(matches!(spend(&mut account, 1, 1), Err(Error::InsufficientTokens(_))));
        assert_eq!(account.balance, Tokens::ZERO);
        assert_eq!(account.entries[0].kind, EntryKind::Expired);
        assert_eq!(account.entries[0].created_at, at(1));
    }

    #[test]
    fn a_lot_paid_ahead_opens_when_the_one_before_ends() {
        let mut account = account(vec![lot(10, 0, Some(5)), lot(20, 5, Some(10))]);
        assert_eq!(account.available(at(1)), Tokens(10));
        assert!(spend(&mut account, 11, 1).is_err());
        assert_eq!(spend(&mut account, 20, 5).unwrap(), -20);
        let kinds: Vec<_> = account.entries.iter().map(|entry| entry.kind).collect();
        assert_eq!(kinds, [EntryKind::Expired, EntryKind::Granted, EntryKind::Consumed]);
    }

    #[test]
    fn nothing_becomes_of_a_used_up_lot_whether_it_is_loaded_or_not() {
        let first = Lot { rollover: Rollover::All, ..lot(10, 0, Some(5)) };
        let mut account = account(vec![first, lot(20, 5, Some(10))]);
        spend(&mut account, 10, 1).unwrap();

        account.book_due(at(5));

        assert_eq!(account.lots[0].expires_at, Some(at(5)), "most often it is not loaded");
        assert_eq!(account.balance, Tokens(20));
    }

    #[test]
    fn at_one_instant_it_does_not_matter_which_lot_was_loaded_first() {
        let capped =
            |tokens| Lot { rollover: Rollover::Capped(Tokens(30)), ..lot(tokens, 0, Some(5)) };
        let lots = vec![capped(25), capped(25), lot(20, 5, Some(10))];
        let mut straight = account(lots.clone());
        let mut reversed = account(lots.into_iter().rev().collect());

        straight.book_due(at(5));
        reversed.book_due(at(5));

        reversed.lots.reverse();
        assert_eq!(straight.lots, reversed.lots);
        assert_eq!(straight.balance, Tokens(50));
    }

    #[test]
    fn past_the_end_of_access_only_lasting_lots_are_spendable() {
        let mut account = account(vec![lot(10, 0, Some(9)), lot(7, 0, None)]);
        account.spendable_until = Some(at(2));
        assert_eq!(account.available(at(1)), Tokens(17));
        assert_eq!(account.available(at(3)), Tokens(7));
        assert!(spend(&mut account, 8, 3).is_err());
        assert_eq!(spend(&mut account, 7, 3).unwrap(), -7);
        assert!(matches!(spend(&mut account, 1, 3), Err(Error::SubscriptionInactive)));
    }

    proptest! {
        /// Tokens are neither made nor lost: an allocation is exact, or it is refused.
        #[test]
        fn an_allocation_is_exact_or_refused(
            remaining in prop::collection::vec(0..50_u64, 0..8),
            requested in 1..400_u64,
        ) {
            let lots: Vec<_> = remaining.iter().map(|&tokens| lot(tokens, 0, None)).collect();
            let available: Tokens = lots.iter().map(|lot| lot.remaining).sum();
            let requested = Tokens(requested);
            match allocate(&lots, requested) {
                Ok(taken) => {
                    prop_assert_eq!(taken.iter().map(|part| part.tokens).sum::<Tokens>(), requested);
                    for part in taken {
                        let lot = lots.iter().find(|lot| lot.id == part.lot).unwrap();
                        prop_assert!(part.tokens <= lot.remaining);
                    }
                }
                Err(refusal) => {
                    prop_assert!(available < requested);
                    prop_assert_eq!((refusal.requested, refusal.available), (requested, available));
                }
            }
        }

        /// The balance is the sum of the entries and of what is left of opened lots, always.
        #[test]
        fn a_balance_equals_its_ledger_and_its_lots(
            lots in prop::collection::vec((1..50_u64, 0..20_i64, 1..20_i64), 0..6),
            spends in prop::collection::vec((1..60_u64, 0..3_i64), 0..12),
        ) {
            let mut account = account(Vec::new());
            for (tokens, opens, lasts) in lots {
                account.add_lot(
                    Lot { is_opened: false, ..lot(tokens, opens, Some(opens + lasts)) },
                    at(0),
                );
            }
            let mut hours = 0;
            for (tokens, wait) in spends {
                hours += wait;
                let _refused_or_not = spend(&mut account, tokens, hours);
                let of_lots: Tokens =
                    account.lots.iter().filter(|lot| lot.is_opened).map(|lot| lot.remaining).sum();
                let of_entries: i64 = account.entries.iter().map(|entry| entry.tokens).sum();
                prop_assert_eq!(account.balance, of_lots);
                prop_assert_eq!(account.balance.to_db(), of_entries);
                for (index, entry) in account.entries.iter().enumerate() {
                    prop_assert_eq!(entry.seq, i64::try_from(index).unwrap() + 1);
                }
            }
        }
    }
}
