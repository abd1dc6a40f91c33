//! How lots are drawn, opened and closed. Pure: no clock, no database.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::Tokens;
use crate::error::Error;
use crate::ids::{CustomerId, EntryId, GrantId, SubscriptionId};

/// Tokens given from one source, and what is left of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lot {
    /// The lot.
    pub id: GrantId,
    /// Lower is drawn first.
    pub priority: i16,
    /// What is left.
    pub remaining: Tokens,
    /// From when it counts.
    pub opens_at: DateTime<Utc>,
    /// Whether its opening is booked; before, it stands outside the balance.
    pub is_opened: bool,
    /// Until when it counts; `None`: for ever.
    pub expires_at: Option<DateTime<Utc>>,
    /// Age decides last.
    pub created_at: DateTime<Utc>,
    /// The grant's operation key, under which its opening is booked.
    pub operation_key: String,
}

impl Lot {
    /// Whether the lot may be drawn at `now`.
    fn is_open(&self, now: DateTime<Utc>) -> bool {
        self.is_opened && self.expires_at.is_none_or(|end| now < end)
    }

    /// The next instant at which something is to be booked for this lot.
    fn due_at(&self) -> Option<DateTime<Utc>> {
        if self.remaining == Tokens::ZERO {
            return None;
        }
        if self.is_opened { self.expires_at } else { Some(self.opens_at) }
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
    /// The newest entry.
    pub last_seq: i64,
    /// The subscription whose terms hold.
    pub subscription_id: Option<SubscriptionId>,
    /// Whether the subscription allows spending.
    pub is_active: bool,
    /// End of access to lots that expire.
    pub spendable_until: Option<DateTime<Utc>>,
    /// Lots with something left, opened or not.
    pub lots: Vec<Lot>,
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
            let lot = self.lots[index].clone();
            if lot.is_opened {
                let request = system_request("system:expiry", format!("expiry:{}", lot.id));
                self.lots[index].remaining = Tokens::ZERO;
                self.balance = self.balance.minus(lot.remaining);
                let at = lot.expires_at.expect("a lot that is due to end has an end");
                self.post(EntryKind::Expired, lot.id, lot.remaining, request, at);
            } else {
                let request = system_request("system:grant", lot.operation_key);
                self.lots[index].is_opened = true;
                self.balance = self.balance.plus(lot.remaining);
                self.post(EntryKind::Granted, lot.id, lot.remaining, request, lot.opens_at);
            }
        }
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
        let available = self.available(now);
        self.push(Change { kind: EntryKind::Consumed, id, tokens, lots: taken }, request, now);
        let entry = self.entries.last_mut().expect("an entry was just made");
        entry.used = tokens;
        entry.available_after = available;
        Ok(entry)
    }

    /// Adds a lot; booked at once if it opens now, else when it is due.
    pub(super) fn add_lot(&mut self, lot: Lot, now: DateTime<Utc>) {
        assert!(!lot.is_opened, "a new lot is opened by booking it");
        self.lots.push(lot);
        self.book_due(now);
    }

    fn post(
        &mut self,
        kind: EntryKind,
        lot: GrantId,
        tokens: Tokens,
        request: Request,
        at: DateTime<Utc>,
    ) {
        let lots = vec![Allocation { lot, tokens }];
        self.push(Change { kind, id: EntryId::new(at), tokens, lots }, request, at);
        let available = self.available(at);
        self.entries.last_mut().expect("an entry was just made").available_after = available;
    }

    fn push(&mut self, change: Change, request: Request, at: DateTime<Utc>) {
        self.last_seq += 1;
        let tokens = match change.kind {
            EntryKind::Granted => change.tokens.to_db(),
            EntryKind::Consumed | EntryKind::Expired => -change.tokens.to_db(),
        };
        self.entries.push(Entry {
            seq: self.last_seq,
            id: change.id,
            kind: change.kind,
            tokens,
            used: Tokens::ZERO,
            balance_after: self.balance,
            available_after: Tokens::ZERO,
            principal: request.principal,
            operation_key: request.operation_key,
            request_digest: request.digest,
            lots: change.lots,
            subscription_id: self.subscription_id,
            description: request.description,
            metadata: request.metadata,
            created_at: at,
        });
    }
}

/// What an entry changes.
struct Change {
    kind: EntryKind,
    id: EntryId,
    tokens: Tokens,
    lots: Vec<Allocation>,
}

/// A request of our own: its key alone says what it is.
fn system_request(principal: &str, operation_key: String) -> Request {
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
            priority: 0,
            remaining: Tokens(remaining),
            opens_at: at(opens),
            is_opened: opens <= 0,
            expires_at: expires.map(at),
            created_at: at(0),
            operation_key: "payment:x:0".to_owned(),
        }
    }

    fn account(lots: Vec<Lot>) -> Account {
        Account {
            customer_id: CustomerId::of("1"),
            balance: lots.iter().filter(|lot| lot.is_opened).map(|lot| lot.remaining).sum(),
            last_seq: 0,
            subscription_id: Some(SubscriptionId::new(at(0))),
            is_active: true,
            spendable_until: None,
            lots,
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
