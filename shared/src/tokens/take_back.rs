//! What refunds and disputes do to a payment's lots. Pure: no clock, no database.

use chrono::{DateTime, Duration, Utc};

use super::Tokens;
use super::ledger::{Account, Change, EntryKind, Request, TAKE_BACK, system_request};
use super::lot::{Allocation, GrantSource, Lot, Source, Taken};
use crate::ids::PaymentId;

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
            self.changed_lots.insert(self.lots[index].id);
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
        self.book_from(now, now);
        adapted
    }

    /// Where the payment's lots stand, by part.
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

    /// Takes what holds reserve, then what is free, and owes what was spent.
    fn take(&mut self, index: usize, free: Tokens, debt: Tokens, cause: Cause<'_>) {
        if free.plus(debt) == Tokens::ZERO {
            return;
        }
        let held = free.min(self.lots[index].held);
        self.shrink_holds(self.lots[index].id, held);
        let lot = &mut self.lots[index];
        lot.remaining = lot.remaining.minus(free);
        lot.taken.free = lot.taken.free.plus(free);
        lot.taken.debt = lot.taken.debt.plus(debt);
        lot.taken.since.get_or_insert(cause.now);
        self.debt = self.debt.plus(debt);
        let moved = Moved { tokens: -free.to_db(), debt, held };
        self.book(EntryKind::TakenBack, index, moved, cause);
        self.repay_with_returned(debt, cause.now);
    }

    /// Repays new debt with what was granted anew for debt repaid earlier, so that a debt made and
    /// undone ends alike in either order, and a refund that fails and is made again is as one.
    fn repay_with_returned(&mut self, debt: Tokens, now: DateTime<Utc>) {
        let is_returned = |&index: &usize| self.lots[index].source.kind == GrantSource::Returned;
        let mut returned: Vec<usize> = (0..self.lots.len()).filter(is_returned).collect();
        returned.sort_by_key(|&index| {
            let lot = &self.lots[index];
            (lot.expires_at.is_none(), lot.expires_at, lot.id)
        });
        let mut owed = debt;
        for index in returned {
            let before = self.debt;
            self.repay(index, owed, now);
            owed = owed.minus(before.minus(self.debt));
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
            let debt = -open.to_db();
            let change = Change { debt, lots: vec![cancelled], ..Change::of(EntryKind::GivenBack) };
            let request = self.request(index, cause);
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
        let none = Tokens::ZERO;
        let moved = Moved { tokens: tokens.to_db(), debt: none, held: none };
        self.book(EntryKind::GivenBack, index, moved, cause);
        if !self.lots[index].is_opened && self.lots[index].opens_at <= cause.now {
            self.open(index, cause.now);
        }
    }

    /// Writes the entry; that of a lot paid ahead moves nothing, as the lot is outside the balance.
    fn book(&mut self, kind: EntryKind, index: usize, moved: Moved, cause: Cause<'_>) {
        let mut request = self.request(index, cause);
        let lot = &self.lots[index];
        let is_inside = lot.is_opened;
        let tokens = if is_inside { moved.tokens } else { 0 };
        if !is_inside {
            request.metadata = serde_json::json!({ "outside_balance": moved.tokens });
        }
        let named = Allocation { lot: lot.id, tokens: Tokens(tokens.unsigned_abs()) };
        let balance = self.balance.to_db() + tokens;
        self.balance = Tokens::from_db(balance);
        let change = Change {
            tokens,
            debt: moved.debt.to_db(),
            held: -moved.held.to_db(),
            lots: vec![named],
            ..Change::of(kind)
        };
        self.post(change, request, cause.now);
    }

    /// The target of a lot is what makes a repeat harmless; the sequence only makes keys differ.
    fn request(&self, index: usize, cause: Cause<'_>) -> Request {
        let key = format!("adapt:{}:{}", self.lots[index].id, self.last_seq + 1);
        let mut request = system_request(TAKE_BACK, key);
        cause.why.clone_into(&mut request.description);
        request
    }
}

/// What goes out of a lot (below 0) or into it, and what becomes debt.
#[derive(Clone, Copy)]
struct Moved {
    tokens: i64,
    debt: Tokens,
    /// Of the tokens that go out: what holds reserved.
    held: Tokens,
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
        let source = Source { kind: GrantSource::Returned, id: self.id.uuid(), part };
        Lot { expires_at, ..Lot::new(source, self.priority, tokens, now) }
    }
}

/// From one instant to another; nothing where the clock went back.
fn length(from: DateTime<Utc>, to: DateTime<Utc>) -> Duration {
    (to - from).max(Duration::zero())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::super::ledger::Entry;
    use super::*;
    use crate::error::Error;
    use crate::ids::{CustomerId, EntryId, GrantId, SubscriptionId};

    const CAPTURED: i64 = 70;

    fn at(hours: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap() + Duration::hours(hours)
    }

    fn payment(number: u128) -> PaymentId {
        PaymentId::from(uuid::Uuid::from_u128(number))
    }

    fn lot(payment_id: PaymentId, part: i32, tokens: u64, opens: i64, ends: Option<i64>) -> Lot {
        Lot {
            id: GrantId::new(at(opens)),
            opens_at: at(opens),
            expires_at: ends.map(at),
            ..Lot::new(Source::payment(payment_id, part), 10, Tokens(tokens), at(0))
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

    /// Payment 1's lot of 100 tokens, of which so many were spent.
    fn spent(tokens: u64) -> Account {
        let mut account = account(vec![lot(payment(1), 0, 100, 0, Some(100))]);
        if tokens > 0 {
            spend(&mut account, tokens, 0).unwrap();
        }
        account
    }

    fn spend(account: &mut Account, tokens: u64, hours: i64) -> Result<(), Error> {
        account.book_due(at(hours));
        let request = system_request("customer", format!("consume:{}", account.last_seq));
        let id = EntryId::new(at(hours));
        account.spend(Tokens(tokens), id, request, at(hours)).map(drop)
    }

    fn facts(number: u128, gone: i64, unused_only: i64, is_frozen: bool) -> Entitlement {
        Entitlement {
            payment_id: payment(number),
            captured_minor: CAPTURED,
            gone_minor: gone,
            gone_unused_only_minor: unused_only,
            is_frozen,
        }
    }

    fn gone(account: &mut Account, money: i64, hours: i64) -> Adapted {
        account.adapt(&facts(1, money, 0, false), "", at(hours))
    }

    fn frozen(account: &mut Account, is_frozen: bool, hours: i64) -> Adapted {
        account.adapt(&facts(1, 0, 0, is_frozen), "", at(hours))
    }

    fn state(account: &Account, hours: i64) -> (u64, u64, u64) {
        (account.balance.0, account.debt.0, account.available(at(hours)).0)
    }

    #[test]
    fn a_part_refund_takes_its_share_rounded_up() {
        let mut account = spent(0);

        let adapted = gone(&mut account, 1, 1);

        assert_eq!(adapted.taken, Tokens(2), "100 / 70, rounded up");
        assert_eq!(state(&account, 1), (98, 0, 98));
        assert_eq!(
            gone(&mut account, CAPTURED * 3, 1).taken,
            Tokens(98),
            "never more than the lot"
        );
    }

    #[test]
    fn what_was_spent_becomes_debt_and_the_next_lot_repays_it() {
        let mut account = spent(60);

        let adapted = gone(&mut account, CAPTURED, 1);
        assert_eq!((adapted.taken, adapted.became_debt), (Tokens(40), Tokens(60)));
        assert_eq!(state(&account, 1), (0, 60, 0));
        account.add_lot(lot(payment(2), 0, 50, 2, None), at(2));
        assert_eq!(state(&account, 2), (0, 10, 0));
        account.add_lot(lot(payment(3), 0, 50, 3, None), at(3));

        assert_eq!(state(&account, 3), (40, 0, 40));
        let last: Vec<_> = account.entries.iter().rev().take(4).map(|entry| entry.kind).collect();
        let each = [EntryKind::DebtRepaid, EntryKind::Granted];
        assert_eq!(last, [each, each].concat());
    }

    #[test]
    fn debt_does_not_stop_spending_of_other_lots() {
        let mut account = spent(100);
        account.add_lot(lot(payment(2), 0, 50, 0, None), at(0));

        gone(&mut account, CAPTURED, 1);

        assert_eq!(state(&account, 1), (50, 100, 50));
        spend(&mut account, 50, 1).unwrap();
    }

    #[test]
    fn a_refund_of_unused_only_never_makes_debt() {
        let mut account = spent(60);
        let adapted = account.adapt(&facts(1, 0, CAPTURED, false), "", at(1));
        assert_eq!((adapted.taken, adapted.became_debt), (Tokens(40), Tokens::ZERO));

        let mut both = spent(60);
        both.adapt(&facts(1, CAPTURED / 2, CAPTURED / 2, false), "", at(1));
        assert_eq!(state(&both, 1), (0, 10, 0), "the proportional half: 40 free, 10 owed");
    }

    #[test]
    fn what_expired_is_neither_taken_nor_owed() {
        let mut account = spent(30);

        let adapted = gone(&mut account, CAPTURED, 100);

        assert_eq!((adapted.taken, adapted.became_debt), (Tokens::ZERO, Tokens(30)));
        assert_eq!(account.lots[0].expired, Tokens(70));
        assert_eq!(
            account.lots[0].taken.target,
            Tokens(100),
            "what the facts say, honoured or not"
        );
    }

    #[test]
    fn tokens_given_back_after_their_expiry_are_spendable_for_the_time_that_was_left() {
        let mut account = spent(0);
        gone(&mut account, CAPTURED / 2, 90);
        account.book_due(at(110));
        assert_eq!(state(&account, 110), (0, 0, 0), "what had not been taken is over");

        let adapted = gone(&mut account, 0, 150);

        assert_eq!(adapted.returned, Tokens(50));
        assert_eq!(account.lots[0].expires_at, Some(at(160)));
        assert_eq!(state(&account, 159), (50, 0, 50));
        account.book_due(at(160));
        assert_eq!(state(&account, 160), (0, 0, 0));
        let mut keys: Vec<_> = account.entries.iter().map(|entry| &entry.operation_key).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), account.entries.len(), "it ended twice, under two keys");
    }

    #[test]
    fn debt_that_later_lots_repaid_is_granted_anew() {
        let mut account = spent(100);
        gone(&mut account, CAPTURED, 10);
        account.add_lot(lot(payment(2), 0, 80, 20, None), at(20));
        assert_eq!(state(&account, 20), (0, 20, 0));

        let adapted = gone(&mut account, 0, 30);

        assert_eq!(adapted.returned, Tokens(80));
        assert_eq!(state(&account, 30), (80, 0, 80));
        let anew = account.lots.last().unwrap();
        assert_eq!(account.new_lots, [anew.id]);
        assert_eq!(anew.source.kind, GrantSource::Returned);
        assert_eq!(anew.source.id, account.lots[0].id.uuid());
        assert_eq!(anew.expires_at, Some(at(120)), "the lot's end, moved by 20 hours");
        assert_eq!(anew.priority, account.lots[0].priority);
        gone(&mut account, CAPTURED, 40);
        assert_eq!(state(&account, 40), (0, 20, 0), "as if the refund had never failed between");
    }

    #[test]
    fn tokens_granted_anew_are_never_over_at_once() {
        let mut account = spent(100);
        gone(&mut account, CAPTURED, 200);
        account.add_lot(lot(payment(2), 0, 100, 210, None), at(210));

        gone(&mut account, 0, 220);

        assert_eq!(
            account.lots.last().unwrap().expires_at,
            Some(at(320)),
            "as long as the lot was"
        );
        assert_eq!(state(&account, 220), (100, 0, 100));
    }

    #[test]
    fn a_frozen_lot_is_not_spendable_and_does_not_expire() {
        let mut account = spent(10);
        frozen(&mut account, true, 90);
        assert_eq!(state(&account, 90), (90, 0, 0));
        assert_eq!(account.frozen(), Tokens(90));
        assert!(spend(&mut account, 1, 150).is_err());
        assert_eq!(state(&account, 150), (90, 0, 0), "past its end it is still there");

        let adapted = frozen(&mut account, false, 200);

        assert_eq!(adapted.thawed_after, Some(Duration::hours(110)));
        assert_eq!(account.lots[0].expires_at, Some(at(210)));
        assert_eq!(state(&account, 209), (90, 0, 90));
        assert_eq!(frozen(&mut account, false, 201).thawed_after, None);
    }

    #[test]
    fn a_lost_dispute_takes_what_was_frozen() {
        let mut account = spent(10);
        account.adapt(&facts(1, CAPTURED / 2, 0, true), "", at(50));
        assert_eq!(state(&account, 50), (40, 0, 0), "a freeze survives a take");
        assert_eq!(account.lots[0].frozen_at, Some(at(50)));

        let lost = gone(&mut account, CAPTURED, 150);

        assert_eq!((lost.taken, lost.became_debt), (Tokens(40), Tokens(10)), "50 before, 50 now");
        assert_eq!(lost.thawed_after, Some(Duration::hours(100)));
        assert_eq!(state(&account, 150), (0, 10, 0));
    }

    #[test]
    fn a_lot_paid_ahead_shrinks_and_grows_outside_the_balance() {
        let mut account = account(vec![lot(payment(1), 0, 100, 50, Some(100))]);

        gone(&mut account, CAPTURED / 2, 10);
        assert_eq!(account.lots[0].remaining, Tokens(50));
        let trace = account.entries.last().unwrap();
        assert_eq!((trace.tokens, trace.debt), (0, 0));
        assert_eq!(trace.metadata, serde_json::json!({ "outside_balance": -50 }));
        gone(&mut account, CAPTURED, 20);
        account.book_due(at(60));
        assert_eq!(state(&account, 60), (0, 0, 0));
        gone(&mut account, 0, 70);

        assert_eq!(state(&account, 70), (100, 0, 100), "it was to open meanwhile, and opens now");
        assert_eq!(account.lots[0].expires_at, Some(at(120)), "it missed 20 hours of its 50");
    }

    #[test]
    fn a_lot_paid_ahead_opens_frozen_and_repays_debt_once_thawed() {
        let mut account =
            account(vec![lot(payment(1), 0, 100, 50, Some(100)), lot(payment(2), 0, 30, 0, None)]);
        spend(&mut account, 30, 0).unwrap();
        frozen(&mut account, true, 10);
        account.adapt(&facts(2, CAPTURED, 0, false), "", at(20));

        account.book_due(at(60));
        assert_eq!(state(&account, 60), (100, 30, 0), "in the balance, and nothing of it moves");
        frozen(&mut account, false, 70);

        assert_eq!(state(&account, 70), (70, 0, 70));
    }

    #[test]
    fn every_part_of_a_payment_is_adapted() {
        let parts = (0..3).map(|part| lot(payment(1), part, 10, 0, None)).collect();
        let mut account = account(parts);

        let adapted = gone(&mut account, CAPTURED / 2, 1);

        assert_eq!(adapted.taken, Tokens(15));
        assert!(account.lots.iter().all(|lot| lot.taken.free == Tokens(5)));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Wait(i64),
        Spend(u64),
        Grant { number: u128, tokens: u64, opens_in: i64, lasts: Option<i64> },
        Adapt(Entitlement),
    }

    fn some_facts() -> impl Strategy<Value = Entitlement> {
        (1..4_u128, 0..=CAPTURED + 9, 0..=CAPTURED, prop::bool::weighted(0.3)).prop_flat_map(
            |(number, money, unused_only, is_frozen)| {
                prop_oneof![
                    Just(facts(number, money, unused_only, is_frozen)),
                    Just(facts(number, money, 0, is_frozen)),
                    Just(facts(number, 0, 0, is_frozen)),
                    Just(facts(number, CAPTURED, 0, false)),
                ]
            },
        )
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let grant = (1..4_u128, 1..100_u64, 0..6_i64, prop::option::of(1..12_i64));
        let step = prop_oneof![
            (0..6_i64).prop_map(Step::Wait),
            (1..90_u64).prop_map(Step::Spend),
            grant.prop_map(|(number, tokens, opens_in, lasts)| {
                Step::Grant { number, tokens, opens_in, lasts }
            }),
            some_facts().prop_map(Step::Adapt),
            some_facts().prop_map(Step::Adapt),
        ];
        prop::collection::vec(step, 1..40)
    }

    /// An account after these steps, with the hour that it is and the last facts of each payment.
    fn walked(steps: &[Step], check: impl Fn(&Account, i64)) -> (Account, i64, Vec<Entitlement>) {
        let (mut account, mut hours, mut parts) = (account(Vec::new()), 0, 0);
        let mut last: Vec<Entitlement> = Vec::new();
        for step in steps {
            match step.clone() {
                Step::Wait(wait) => hours += wait,
                Step::Spend(tokens) => {
                    let _refused_or_not = spend(&mut account, tokens, hours);
                }
                Step::Grant { number, tokens, opens_in, lasts } => {
                    parts += 1;
                    let opens = hours + opens_in;
                    let ends = lasts.map(|lasts| opens + lasts);
                    account.add_lot(lot(payment(number), parts, tokens, opens, ends), at(hours));
                    // Facts known before a lot hold for it too.
                    if let Some(known) = last.iter().find(|one| one.payment_id == payment(number)) {
                        account.adapt(known, "", at(hours));
                    }
                }
                Step::Adapt(facts) => {
                    last.retain(|one| one.payment_id != facts.payment_id);
                    last.push(facts);
                    account.adapt(&facts, "", at(hours));
                }
            }
            account.book_due(at(hours));
            check(&account, hours);
        }
        (account, hours, last)
    }

    /// What entries of these kinds moved of a lot.
    fn moved(account: &Account, id: GrantId, kinds: &[EntryKind]) -> u64 {
        let of_kind = |entry: &&Entry| kinds.contains(&entry.kind);
        let parts = account.entries.iter().filter(of_kind).flat_map(|entry| &entry.lots);
        parts.filter(|part| part.lot == id).map(|part| part.tokens.0).sum()
    }

    fn total(tokens: impl Iterator<Item = Tokens>) -> i64 {
        tokens.sum::<Tokens>().to_db()
    }

    fn assert_nothing_made_or_lost(account: &Account, _hours: i64) {
        for lot in &account.lots {
            let used = moved(account, lot.id, &[EntryKind::Consumed, EntryKind::DebtRepaid]);
            let expired = moved(account, lot.id, &[EntryKind::Expired]);
            assert_eq!(lot.tokens.0, lot.remaining.0 + used + expired + lot.taken.free.0);
            assert_eq!(lot.expired.0, expired);
            assert!(lot.taken.debt.0 <= used, "only what was spent is owed");
            assert!(lot.taken.free.plus(lot.taken.debt) <= lot.taken.target);
            assert!(lot.taken.target <= lot.tokens);
        }
        let opened = account.lots.iter().filter(|lot| lot.is_opened).map(|lot| lot.remaining);
        let changes = |change: fn(&Entry) -> i64| account.entries.iter().map(change).sum::<i64>();
        assert_eq!(account.balance.to_db(), total(opened));
        assert_eq!(account.balance.to_db(), changes(|entry| entry.tokens));
        assert_eq!(account.debt.to_db(), changes(|entry| entry.debt));
        let is_anew = |lot: &&Lot| lot.source.kind == GrantSource::Returned;
        let anew = total(account.lots.iter().filter(is_anew).map(|lot| lot.tokens));
        let owed = total(account.lots.iter().map(|lot| lot.taken.debt));
        let repaid = account.lots.iter();
        let repaid: u64 = repaid.map(|lot| moved(account, lot.id, &[EntryKind::DebtRepaid])).sum();
        assert_eq!(account.debt.to_db(), owed + anew - i64::try_from(repaid).unwrap());
    }

    /// Walks token by token through a lot and says what is away and what is owed.
    fn by_the_token(account: &Account, lot: &Lot, facts: &Entitlement) -> (u64, u64) {
        let used = moved(account, lot.id, &[EntryKind::Consumed, EntryKind::DebtRepaid]);
        let free = lot.tokens.0 - used - moved(account, lot.id, &[EntryKind::Expired]);
        let reaches = |token: u64, gone: i64| {
            // The token is gone once money beyond its own share of what was captured is.
            token * u64::try_from(CAPTURED).unwrap()
                < lot.tokens.0 * u64::try_from(gone.min(CAPTURED)).unwrap()
        };
        let (mut away, mut owed) = (0, 0);
        for token in 0..free + used {
            if token < free {
                away += u64::from(reaches(token, facts.gone_minor + facts.gone_unused_only_minor));
            } else {
                owed += u64::from(reaches(token, facts.gone_minor));
            }
        }
        (away, owed)
    }

    fn bought(account: &Account) -> Vec<&Lot> {
        account.lots.iter().filter(|lot| lot.source.kind == GrantSource::Payment).collect()
    }

    fn sums(account: &Account) -> Vec<(GrantId, Tokens, Tokens, Tokens, Tokens)> {
        let lots = bought(account).into_iter();
        lots.map(|lot| (lot.id, lot.remaining, lot.expired, lot.taken.free, lot.taken.debt))
            .collect()
    }

    fn net(account: &Account) -> i64 {
        account.balance.to_db() - account.debt.to_db()
    }

    /// Whether lots bought repaid debt since: that is a spend of them.
    fn has_repaid(account: &Account, since: usize) -> bool {
        let mut entries = account.entries[since..].iter();
        entries.any(|entry| {
            let is_bought =
                |lot: &Lot| lot.id == entry.lots[0].lot && lot.source.kind == GrantSource::Payment;
            entry.kind == EntryKind::DebtRepaid && account.lots.iter().any(is_bought)
        })
    }

    proptest! {
        #[test]
        fn tokens_are_neither_made_nor_lost(steps in steps()) {
            walked(&steps, assert_nothing_made_or_lost);
        }

        #[test]
        fn a_lot_is_what_its_facts_say_and_a_replay_changes_nothing(steps in steps()) {
            let (account, hours, last) = walked(&steps, |_, _| ());
            for facts in &last {
                for lot in account.lots.iter().filter(|lot| lot.source.is_payment(facts.payment_id)) {
                    let taken = (lot.taken.free.0, lot.taken.debt.0);
                    prop_assert_eq!(taken, by_the_token(&account, lot, facts));
                    prop_assert_eq!(lot.frozen_at.is_some(), facts.is_frozen);
                }
                let mut again = account.clone();
                let adapted = again.adapt(facts, "", at(hours));
                prop_assert_eq!(adapted, Adapted::default());
                prop_assert_eq!(&again.lots, &account.lots);
                prop_assert_eq!(again.entries.len(), account.entries.len());
            }
        }

        /// Where debt was repaid in between, what is owed and what is held differ by the same.
        #[test]
        fn any_way_to_the_same_facts_ends_in_the_same_books(
            steps in steps(),
            way in prop::collection::vec(some_facts(), 0..6),
            goals in prop::array::uniform3(some_facts()),
        ) {
            let (before, hours, _) = walked(&steps, |_, _| ());
            let goals = [1, 2, 3].map(|number| {
                let goal = goals[usize::try_from(number).unwrap() - 1];
                Entitlement { payment_id: payment(number), ..goal }
            });
            let (mut straight, mut detour) = (before.clone(), before.clone());
            for facts in way.iter().chain(goals.iter().rev()) {
                detour.adapt(facts, "", at(hours));
            }
            for facts in &goals {
                straight.adapt(facts, "", at(hours));
            }
            assert_nothing_made_or_lost(&detour, hours);
            let since = before.entries.len();
            if goals.iter().all(|goal| goal.gone_unused_only_minor == 0) {
                prop_assert_eq!(net(&straight), net(&detour));
            }
            if !has_repaid(&straight, since) && !has_repaid(&detour, since) {
                prop_assert_eq!(straight.balance, detour.balance);
                prop_assert_eq!(sums(&straight), sums(&detour));
                prop_assert_eq!(straight.debt, detour.debt);
                prop_assert_eq!(straight.available(at(hours)), detour.available(at(hours)));
            }
        }

        #[test]
        fn what_is_taken_and_given_back_is_as_before(steps in steps(), taken in some_facts()) {
            let (mut account, hours, _) = walked(&steps, |_, _| ());
            let nothing = Entitlement { gone_minor: 0, gone_unused_only_minor: 0, ..taken };
            account.adapt(&nothing, "", at(hours));
            let before = account.clone();

            account.adapt(&taken, "", at(hours));
            account.adapt(&nothing, "", at(hours));

            prop_assert_eq!(net(&account), net(&before));
            if !has_repaid(&account, before.entries.len()) {
                prop_assert_eq!(bought(&account), bought(&before));
                prop_assert_eq!(account.available(at(hours)), before.available(at(hours)));
                prop_assert_eq!((account.balance, account.debt), (before.balance, before.debt));
            }
        }

        /// However takes, returns and freezes overlap, the time left runs only while all is there.
        #[test]
        fn no_time_is_lost_or_won(
            turns in prop::collection::vec((0..40_i64, 0..=CAPTURED, any::<bool>()), 1..12),
            is_quiet in any::<Index>(),
        ) {
            let mut account = account(vec![lot(payment(1), 0, 100, 0, Some(1_000))]);
            let (mut hours, mut left) = (0, 1_000);
            let quiet = is_quiet.index(turns.len());
            for (number, (wait, money, is_frozen)) in turns.into_iter().enumerate() {
                let (money, is_frozen) = if number == quiet { (0, false) } else { (money, is_frozen) };
                account.adapt(&facts(1, money, 0, is_frozen), "", at(hours));
                let is_whole = money == 0 && !is_frozen;
                left -= if is_whole { wait } else { 0 };
                hours += wait;
            }
            account.adapt(&facts(1, 0, 0, false), "", at(hours));
            prop_assert_eq!(account.lots[0].expires_at, Some(at(hours + left)));
            prop_assert_eq!(account.available(at(hours)), Tokens(100));
        }
    }
}
