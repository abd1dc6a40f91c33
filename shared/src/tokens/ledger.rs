//! How lots are drawn, opened and closed. Pure: no clock, no database.

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::Tokens;
use crate::error::Error;
use crate::ids::{CustomerId, EntryId, GrantId, PaymentId, SubscriptionId};

/// What kind of thing a lot comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "grant_source", rename_all = "snake_case")]
pub enum GrantSource {
    /// A payment that bought it.
    Payment,
    /// A lot whose debt was undone after a later grant had repaid it.
    Returned,
}

/// Where a lot comes from: one source's part is booked once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// What kind of thing.
    pub kind: GrantSource,
    /// The thing.
    pub id: Uuid,
    /// Which lot of that thing.
    pub part: i32,
}

impl Source {
    /// Whether it is this payment.
    pub(super) fn is_payment(&self, id: PaymentId) -> bool {
        self.kind == GrantSource::Payment && self.id == id.uuid()
    }

    /// The operation key under which the lot's opening is booked.
    fn operation_key(&self) -> String {
        let kind = match self.kind {
            GrantSource::Payment => "payment",
            GrantSource::Returned => "returned",
        };
        format!("{kind}:{}:{}", self.id, self.part)
    }
}

/// What refunds and disputes of its payment did to a lot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// How many of its tokens the payment's facts take by now, in all.
    pub target: Tokens,
    /// Of those: taken out of what was left.
    pub free: Tokens,
    /// Of those: spent before, so now debt.
    pub debt: Tokens,
    /// Since when tokens are away; giving them back moves the expiry by the time from here.
    pub since: Option<DateTime<Utc>>,
}

/// Tokens given from one source, and what is left of them.
///
/// Each token is counted once: `tokens` = `remaining` + `taken.free` + `expired` + spent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lot {
    /// The lot.
    pub id: GrantId,
    /// Where it comes from.
    pub source: Source,
    /// Lower is drawn first.
    pub priority: i16,
    /// How many were given.
    pub tokens: Tokens,
    /// What is left, frozen or not.
    pub remaining: Tokens,
    /// What was left at its end and burned.
    pub expired: Tokens,
    /// What refunds and disputes took.
    pub taken: Taken,
    /// Since when an open dispute freezes it.
    pub frozen_at: Option<DateTime<Utc>>,
    /// From when it counts.
    pub opens_at: DateTime<Utc>,
    /// Whether its opening is booked; before, it stands outside the balance.
    pub is_opened: bool,
    /// Until when it counts; `None`: for ever.
    pub expires_at: Option<DateTime<Utc>>,
    /// Age decides last.
    pub created_at: DateTime<Utc>,
}

impl Lot {
    /// Whether the lot may be drawn at `now`.
    fn is_open(&self, now: DateTime<Utc>) -> bool {
        self.is_opened && self.frozen_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }

    /// What the customer spent of it, on debt too.
    pub(super) fn spent(&self) -> Tokens {
        self.tokens.minus(self.remaining).minus(self.taken.free).minus(self.expired)
    }

    /// The next instant at which something is to be booked for this lot.
    fn due_at(&self) -> Option<DateTime<Utc>> {
        if self.remaining == Tokens::ZERO {
            return None;
        }
        match (self.is_opened, self.frozen_at) {
            (false, _) => Some(self.opens_at),
            (true, None) => self.expires_at,
            (true, Some(_)) => None,
        }
    }
}

/// What an entry drew from one lot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocation {
    /// The lot.
    pub lot: GrantId,
    /// How many of its tokens.
    pub tokens: Tokens,
}

/// Fewer tokens are free than were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{requested} tokens were requested, {available} are available")]
pub struct InsufficientTokens {
    /// What was asked for.
    pub requested: Tokens,
    /// What is free.
    pub available: Tokens,
}

/// Draws `requested` from the lots by priority, soonest expiry, age; exactly or not at all.
pub(super) fn allocate<'a>(
    lots: impl IntoIterator<Item = &'a Lot>,
    requested: Tokens,
) -> Result<Vec<Allocation>, InsufficientTokens> {
    let mut lots: Vec<&Lot> = lots.into_iter().collect();
    lots.sort_by_key(|lot| {
        (lot.priority, lot.expires_at.is_none(), lot.expires_at, lot.created_at, lot.id)
    });
    let available: Tokens = lots.iter().map(|lot| lot.remaining).sum();
    if available < requested {
        return Err(InsufficientTokens { requested, available });
    }
    let mut left = requested;
    let mut taken = Vec::new();
    for lot in lots {
        let tokens = lot.remaining.min(left);
        if tokens > Tokens::ZERO {
            taken.push(Allocation { lot: lot.id, tokens });
            left = left.minus(tokens);
        }
    }
    assert_eq!(left, Tokens::ZERO, "an allocation is exact");
    Ok(taken)
}

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
    /// Tokens consumed, for statistics.
    pub used: Tokens,
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
    /// The lots it touched.
    pub lots: Vec<Allocation>,
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
    /// Sum of what is left of all opened lots.
    pub balance: Tokens,
    /// What is owed after refunds and lost disputes of what was spent.
    pub debt: Tokens,
    /// The newest entry.
    pub last_seq: i64,
    /// The subscription whose terms hold.
    pub subscription_id: Option<SubscriptionId>,
    /// Whether the subscription allows spending.
    pub is_active: bool,
    /// End of access to lots that expire.
    pub spendable_until: Option<DateTime<Utc>>,
    /// Lots with something left, opened or not; to adapt a payment also its lots without.
    pub lots: Vec<Lot>,
    /// Lots among them that are still to be inserted.
    pub new_lots: Vec<GrantId>,
    /// Entries made since it was loaded, in order.
    pub entries: Vec<Entry>,
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
    /// Books, in order of their times, the lots that opened or ended by `now`.
    ///
    /// Whoever locks an account calls this first, so no sweep must have run for anybody to spend
    /// what is his, and nobody can spend what has expired.
    pub(super) fn book_due(&mut self, now: DateTime<Utc>) {
        while let Some(index) = self.next_due(now) {
            if self.lots[index].is_opened {
                self.expire(index);
            } else {
                let at = self.lots[index].opens_at;
                self.open(index, at);
            }
        }
    }

    fn expire(&mut self, index: usize) {
        let lot = &mut self.lots[index];
        let at = lot.expires_at.expect("a lot that is due to end has an end");
        let lots = vec![Allocation { lot: lot.id, tokens: lot.remaining }];
        // A lot may end again after tokens were given back to it, so its id alone is no key.
        let key = format!("expiry:{}:{}", lot.id, self.last_seq + 1);
        let tokens = std::mem::take(&mut lot.remaining);
        lot.expired = lot.expired.plus(tokens);
        self.balance = self.balance.minus(tokens);
        let change = Change { kind: EntryKind::Expired, tokens: -tokens.to_db(), debt: 0, lots };
        self.post(change, system_request("system:expiry", key), at);
    }

    /// Brings a lot into the balance; it repays debt first.
    pub(super) fn open(&mut self, index: usize, at: DateTime<Utc>) {
        let lot = &mut self.lots[index];
        let tokens = lot.remaining;
        let lots = vec![Allocation { lot: lot.id, tokens }];
        let request = system_request("system:grant", lot.source.operation_key());
        lot.is_opened = true;
        self.balance = self.balance.plus(tokens);
        let change = Change { kind: EntryKind::Granted, tokens: tokens.to_db(), debt: 0, lots };
        self.post(change, request, at);
        self.repay(index, self.debt, at);
    }

    /// Repays at most `owed` of the debt from a lot. What is frozen repays nothing.
    pub(super) fn repay(&mut self, index: usize, owed: Tokens, at: DateTime<Utc>) {
        let lot = &mut self.lots[index];
        let tokens = lot.remaining.min(owed).min(self.debt);
        if tokens == Tokens::ZERO || lot.frozen_at.is_some() {
            return;
        }
        lot.remaining = lot.remaining.minus(tokens);
        let lots = vec![Allocation { lot: lot.id, tokens }];
        let key = format!("debt_repaid:{}:{}", lot.id, self.last_seq + 1);
        self.balance = self.balance.minus(tokens);
        self.debt = self.debt.minus(tokens);
        let less = -tokens.to_db();
        let change = Change { kind: EntryKind::DebtRepaid, tokens: less, debt: less, lots };
        self.post(change, system_request(TAKE_BACK, key), at);
    }

    /// The lot to book next; at one instant what ends comes before what opens.
    fn next_due(&self, now: DateTime<Utc>) -> Option<usize> {
        let due = self.lots.iter().enumerate().filter_map(|(index, lot)| {
            let at = lot.due_at()?;
            (at <= now).then_some((at, !lot.is_opened, lot.created_at, index))
        });
        due.min().map(|(.., index)| index)
    }

    /// When something is to be booked next.
    pub(super) fn next_due_at(&self) -> Option<DateTime<Utc>> {
        self.lots.iter().filter_map(Lot::due_at).min()
    }

    /// What may be spent at `now`, or why nothing may.
    ///
    /// Past the end of access only lots without expiry count (a pack outlives the plan).
    fn spendable(&self, now: DateTime<Utc>) -> Result<impl Iterator<Item = &Lot>, Error> {
        if self.subscription_id.is_none() {
            return Err(Error::NoSubscription);
        }
        let has_access = self.spendable_until.is_none_or(|end| now < end);
        let is_lasting = |lot: &Lot| lot.is_open(now) && lot.expires_at.is_none();
        let has_lasting =
            self.lots.iter().any(|lot| is_lasting(lot) && lot.remaining > Tokens::ZERO);
        if !self.is_active || !(has_access || has_lasting) {
            return Err(Error::SubscriptionInactive);
        }
        let is_counted =
            move |lot: &&Lot| lot.is_open(now) && (has_access || lot.expires_at.is_none());
        Ok(self.lots.iter().filter(is_counted))
    }

    /// What is free to spend at `now`; nothing where spending is not allowed.
    pub(super) fn available(&self, now: DateTime<Utc>) -> Tokens {
        self.spendable(now).map_or(Tokens::ZERO, |lots| lots.map(|lot| lot.remaining).sum())
    }

    /// What an open dispute keeps from being spent; it is part of the balance.
    pub(super) fn frozen(&self) -> Tokens {
        let is_frozen = |lot: &&Lot| lot.is_opened && lot.frozen_at.is_some();
        self.lots.iter().filter(is_frozen).map(|lot| lot.remaining).sum()
    }

    /// Spends `tokens`, exactly or not at all. What is due must have been booked.
    pub(super) fn spend(
        &mut self,
        tokens: Tokens,
        id: EntryId,
        request: Request,
        now: DateTime<Utc>,
    ) -> Result<&Entry, Error> {
        let taken = allocate(self.spendable(now)?, tokens)?;
        for part in &taken {
            let lot = self.lots.iter_mut().find(|lot| lot.id == part.lot);
            let lot = lot.expect("an allocation names lots of this account");
            lot.remaining = lot.remaining.minus(part.tokens);
        }
        self.balance = self.balance.minus(tokens);
        let kind = EntryKind::Consumed;
        let change = Change { kind, tokens: -tokens.to_db(), debt: 0, lots: taken };
        let entry = self.post_as(id, change, request, now);
        entry.used = tokens;
        Ok(entry)
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

    fn post_as(
        &mut self,
        id: EntryId,
        change: Change,
        request: Request,
        at: DateTime<Utc>,
    ) -> &mut Entry {
        self.last_seq += 1;
        let available = self.available(at);
        self.entries.push(Entry {
            seq: self.last_seq,
            id,
            kind: change.kind,
            tokens: change.tokens,
            debt: change.debt,
            used: Tokens::ZERO,
            balance_after: self.balance,
            available_after: available,
            principal: request.principal,
            operation_key: request.operation_key,
            request_digest: request.digest,
            lots: change.lots,
            subscription_id: self.subscription_id,
            description: request.description,
            metadata: request.metadata,
            created_at: at,
        });
        self.entries.last_mut().expect("an entry was just made")
    }
}

/// What an entry changes.
pub(super) struct Change {
    /// Why.
    pub kind: EntryKind,
    /// Change of the balance.
    pub tokens: i64,
    /// Change of the debt.
    pub debt: i64,
    /// The lots it touches, with what it moves of each.
    pub lots: Vec<Allocation>,
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

    use super::*;

    fn at(hours: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap() + Duration::hours(hours)
    }

    fn lot(remaining: u64, opens: i64, expires: Option<i64>) -> Lot {
        Lot {
            id: GrantId::new(at(0)),
            source: Source { kind: GrantSource::Payment, id: Uuid::nil(), part: 0 },
            priority: 0,
            tokens: Tokens(remaining),
            remaining: Tokens(remaining),
            expired: Tokens::ZERO,
            taken: Taken::default(),
            frozen_at: None,
            opens_at: at(opens),
            is_opened: opens <= 0,
            expires_at: expires.map(at),
            created_at: at(0),
        }
    }

    fn account(lots: Vec<Lot>) -> Account {
        Account {
            customer_id: CustomerId::of("1"),
            balance: lots.iter().filter(|lot| lot.is_opened).map(|lot| lot.remaining).sum(),
            debt: Tokens::ZERO,
            last_seq: 0,
            subscription_id: Some(SubscriptionId::new(at(0))),
            is_active: true,
            spendable_until: None,
            lots,
            new_lots: Vec::new(),
            entries: Vec::new(),
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
                    prop_assert_eq!(refusal, InsufficientTokens { requested, available });
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
