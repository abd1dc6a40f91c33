//! What refunds and disputes do to a payment's lots. Pure: no clock, no database.

use chrono::{DateTime, Duration, Utc};

use super::Tokens;
use super::ledger::{
    Account, Allocation, Change, EntryKind, GrantSource, Lot, Request, Source, TAKE_BACK, Taken,
    system_request,
};
use crate::ids::{GrantId, PaymentId};

/// What a payment's facts entitle to now, in absolute terms: telling it twice changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entitlement {
    /// The payment.
    pub payment_id: PaymentId,
    /// What was captured, more than 0.
    pub captured_minor: i64,
    /// Refunds in proportion and lost disputes: takes what is free, the rest may become debt.
    pub gone_minor: i64,
    /// Refunds of what is unused only: takes what is free, never makes debt.
    pub gone_unused_only_minor: i64,
    /// Whether a dispute is open.
    pub is_frozen: bool,
}

impl Entitlement {
    /// The part of a lot whose money is gone, rounded up.
    fn share(&self, lot: Tokens, gone_minor: i128) -> Tokens {
        let captured = u128::try_from(self.captured_minor).expect("captured money is positive");
        assert!(captured > 0, "a payment of nothing entitles to nothing");
        let gone = u128::try_from(gone_minor).expect("money gone is not negative").min(captured);
        let share = (u128::from(lot.0) * gone).div_ceil(captured);
        Tokens(u64::try_from(share).expect("a share is at most the lot"))
    }

    /// What is to be taken of a lot as it stands: first what is free, then what was spent.
    ///
    /// What expired is neither; and it never reaches further by a refund that is of unused only.
    fn goal(&self, lot: &Lot) -> Goal {
        let gone = i128::from(self.gone_minor);
        let all = self.share(lot.tokens, gone + i128::from(self.gone_unused_only_minor));
        let free = all.min(lot.remaining.plus(lot.taken.free));
        let debt = self.share(lot.tokens, gone).beyond(free).min(lot.spent());
        Goal { target: all, free, debt }
    }
}

/// What a lot's `taken` is to become.
struct Goal {
    target: Tokens,
    free: Tokens,
    debt: Tokens,
}

/// What changed, for the caller's own books.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Adapted {
    /// Taken out of what was left of the payment's lots, opened or not.
    pub taken: Tokens,
    /// Spent before, owed now.
    pub became_debt: Tokens,
    /// Returned to the payment's lots, or granted anew; cancelled debt is not counted.
    pub returned: Tokens,
    /// How long the lots were frozen, by which their ends moved, if a freeze ended.
    pub thawed_after: Option<Duration>,
}

/// Why and when something is booked.
#[derive(Clone, Copy)]
struct Cause<'a> {
    why: &'a str,
    now: DateTime<Utc>,
}

impl Account {
    /// Makes a payment's lots agree with its facts; with the same facts again nothing changes.
    ///
    /// The payment's lots must all be loaded, also those of which nothing is left.
    pub(super) fn adapt(
        &mut self,
        entitlement: &Entitlement,
        why: &str,
        now: DateTime<Utc>,
    ) -> Adapted {
        self.book_due(now);
        let mut adapted = Adapted::default();
        for index in self.lots_of(entitlement.payment_id) {
            let frozen_at = self.lots[index].frozen_at.filter(|_| !entitlement.is_frozen);
            if let Some(since) = frozen_at {
                let frozen_for = self.lots[index].thaw(since, now);
                adapted.thawed_after = adapted.thawed_after.max(Some(frozen_for));
            }
            self.fit(index, entitlement, Cause { why, now }, &mut adapted);
            if entitlement.is_frozen {
                self.lots[index].frozen_at.get_or_insert(now);
            }
            let lot = &self.lots[index];
            if lot.is_opened && frozen_at.is_some_and(|since| since <= lot.opens_at) {
                self.repay(index, self.debt, now);
            }
        }
        adapted
    }

    /// Whether a lot belongs to a payment, and where it stands.
    fn lots_of(&self, payment_id: PaymentId) -> Vec<usize> {
        let mut found: Vec<usize> = (0..self.lots.len())
            .filter(|&index| self.lots[index].source.is_payment(payment_id))
            .collect();
        found.sort_by_key(|&index| self.lots[index].source.part);
        found
    }

    fn fit(
        &mut self,
        index: usize,
        entitlement: &Entitlement,
        cause: Cause<'_>,
        adapted: &mut Adapted,
    ) {
        let goal = entitlement.goal(&self.lots[index]);
        let Taken { free, debt, .. } = self.lots[index].taken;
        self.lots[index].taken.target = goal.target;
        let anew = self.undo_debt(index, debt.beyond(goal.debt), cause);
        self.give_back(index, free.beyond(goal.free), cause);
        self.take(index, goal.free.beyond(free), goal.debt.beyond(debt), cause);
        let taken = &mut self.lots[index].taken;
        assert_eq!((taken.free, taken.debt), (goal.free, goal.debt), "a lot fits its facts");
        if taken.free.plus(taken.debt) == Tokens::ZERO {
            taken.since = None;
        }
        adapted.taken = adapted.taken.plus(goal.free.beyond(free));
        adapted.became_debt = adapted.became_debt.plus(goal.debt.beyond(debt));
        adapted.returned = adapted.returned.plus(free.beyond(goal.free)).plus(anew);
    }

    /// Takes what is free (a hold's tokens would come before them) and owes what was spent.
    fn take(&mut self, index: usize, free: Tokens, debt: Tokens, cause: Cause<'_>) {
        if free.plus(debt) == Tokens::ZERO {
            return;
        }
        let lot = &mut self.lots[index];
        let id = lot.id;
        lot.remaining = lot.remaining.minus(free);
        lot.taken.free = lot.taken.free.plus(free);
        lot.taken.debt = lot.taken.debt.plus(debt);
        lot.taken.since.get_or_insert(cause.now);
        self.debt = self.debt.plus(debt);
        self.book(EntryKind::TakenBack, index, Moved { tokens: -free.to_db(), debt }, cause);
        self.repay_with_returned(id, debt, cause.now);
    }

    /// Where debt of a lot was undone after its repayment and now stands again, what was granted
    /// anew for it repays it: a refund that fails and is made again leaves what one would.
    fn repay_with_returned(&mut self, id: GrantId, debt: Tokens, now: DateTime<Utc>) {
        let mut owed = debt;
        for index in 0..self.lots.len() {
            let lot = &self.lots[index];
            if lot.source.kind == GrantSource::Returned && lot.source.id == id.uuid() {
                let before = self.debt;
                self.repay(index, owed, now);
                owed = owed.minus(before.minus(self.debt));
            }
        }
    }

    /// Cancels debt as far as it is open, and grants anew what later lots repaid of it.
    ///
    /// Returns how many tokens were granted anew.
    fn undo_debt(&mut self, index: usize, tokens: Tokens, cause: Cause<'_>) -> Tokens {
        let lot = &mut self.lots[index];
        lot.taken.debt = lot.taken.debt.minus(tokens);
        let open = tokens.min(self.debt);
        if open > Tokens::ZERO {
            self.debt = self.debt.minus(open);
            let cancelled = Allocation { lot: self.lots[index].id, tokens: Tokens::ZERO };
            let kind = EntryKind::GivenBack;
            let change = Change { kind, tokens: 0, debt: -open.to_db(), lots: vec![cancelled] };
            let request = self.request(index, kind, cause);
            self.post(change, request, cause.now);
        }
        let repaid = tokens.minus(open);
        if repaid > Tokens::ZERO {
            let anew = self.lots[index].anew(repaid, self.last_seq + 1, cause.now);
            self.new_lots.push(anew.id);
            self.add_lot(anew, cause.now);
        }
        repaid
    }

    /// Returns tokens to their lot, whose end moves by the time they were away.
    fn give_back(&mut self, index: usize, tokens: Tokens, cause: Cause<'_>) {
        if tokens == Tokens::ZERO {
            return;
        }
        let lot = &mut self.lots[index];
        lot.remaining = lot.remaining.plus(tokens);
        lot.taken.free = lot.taken.free.minus(tokens);
        lot.expires_at = lot.expires_at.map(|end| end + lot.away(cause.now));
        lot.taken.since = Some(cause.now);
        let moved = Moved { tokens: tokens.to_db(), debt: Tokens::ZERO };
        self.book(EntryKind::GivenBack, index, moved, cause);
        if !self.lots[index].is_opened && self.lots[index].opens_at <= cause.now {
            self.open(index, cause.now);
        }
    }

    /// Writes the entry; that of a lot paid ahead moves nothing, as the lot is outside the balance.
    fn book(&mut self, kind: EntryKind, index: usize, moved: Moved, cause: Cause<'_>) {
        let mut request = self.request(index, kind, cause);
        let lot = &self.lots[index];
        let is_inside = lot.is_opened;
        let tokens = if is_inside { moved.tokens } else { 0 };
        if !is_inside {
            request.metadata = serde_json::json!({ "outside_balance": moved.tokens });
        }
        let named = Allocation { lot: lot.id, tokens: Tokens(tokens.unsigned_abs()) };
        let balance = self.balance.to_db() + tokens;
        self.balance = Tokens::from_db(balance);
        let change = Change { kind, tokens, debt: moved.debt.to_db(), lots: vec![named] };
        self.post(change, request, cause.now);
    }

    /// The target of a lot is what makes a repeat harmless; the sequence only makes keys differ.
    fn request(&self, index: usize, kind: EntryKind, cause: Cause<'_>) -> Request {
        let name = match kind {
            EntryKind::GivenBack => "given_back",
            EntryKind::Granted
            | EntryKind::Consumed
            | EntryKind::Expired
            | EntryKind::TakenBack
            | EntryKind::DebtRepaid => "taken_back",
        };
        let key = format!("{name}:{}:{}", self.lots[index].id, self.last_seq + 1);
        let mut request = system_request(TAKE_BACK, key);
        cause.why.clone_into(&mut request.description);
        request
    }
}

/// What goes out of a lot (below 0) or into it, and what becomes debt.
struct Moved {
    tokens: i64,
    debt: Tokens,
}

impl Lot {
    /// Ends a freeze; the lot's end moves by its length, which is returned.
    ///
    /// Time in which tokens were both frozen and away moves the end once, now.
    fn thaw(&mut self, since: DateTime<Utc>, now: DateTime<Utc>) -> Duration {
        let frozen_for = length(since, now);
        self.frozen_at = None;
        self.expires_at = self.expires_at.map(|end| end + frozen_for);
        self.taken.since = self.taken.since.map(|away| away + length(away.max(since), now));
        frozen_for
    }

    /// How long the tokens taken could have been used meanwhile and could not. A freeze that
    /// still lasts is counted when it ends.
    fn away(&self, now: DateTime<Utc>) -> Duration {
        let from = self.taken.since.map_or(now, |since| since.max(self.opens_at));
        length(from, self.frozen_at.map_or(now, |frozen| frozen.min(now)))
    }

    /// A lot for tokens of other lots that repaid debt of this one.
    ///
    /// It ends when this one would after their return, or lasts as long as this one did where
    /// that is past: tokens given back are never over at once.
    fn anew(&self, tokens: Tokens, seq: i64, now: DateTime<Utc>) -> Lot {
        let expires_at = self.expires_at.map(|end| {
            let moved = end + self.away(now);
            if moved > now { moved } else { now + (end - self.opens_at) }
        });
        let part = i32::try_from(seq).expect("an account has fewer entries than i32 counts");
        Lot {
            id: GrantId::new(now),
            source: Source { kind: GrantSource::Returned, id: self.id.uuid(), part },
            priority: self.priority,
            tokens,
            remaining: tokens,
            expired: Tokens::ZERO,
            taken: Taken::default(),
            frozen_at: None,
            opens_at: now,
            is_opened: false,
            expires_at,
            created_at: now,
        }
    }
}

/// From one instant to another; nothing where the clock went back.
fn length(from: DateTime<Utc>, to: DateTime<Utc>) -> Duration {
    (to - from).max(Duration::zero())
}
