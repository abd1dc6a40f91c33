//! What operators and changes of plan take out of lots or put into them. Pure.

use chrono::{DateTime, Utc};

use super::Tokens;
use super::ledger::{Account, Change, EntryKind, Request};
use super::lot::{Allocation, InsufficientTokens, Lot, Source, allocate};
use super::reserve::{Asked, Hold, HoldRule, HoldStatus};
use crate::ids::{EntryId, HoldId};

/// Some tokens of one source's lot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The lot.
    pub source: Source,
    /// How many of its tokens.
    pub tokens: Tokens,
}

impl Account {
    /// Takes free tokens away as a spend would draw them, but whether or not the customer may
    /// spend now; exactly or not at all. What is held or frozen stays.
    pub(super) fn remove(
        &mut self,
        tokens: Tokens,
        id: EntryId,
        request: Request,
        now: DateTime<Utc>,
    ) -> Result<(), InsufficientTokens> {
        let is_there = |lot: &&Lot| lot.is_opened && lot.frozen_at.is_none();
        let taken = allocate(self.lots.iter().filter(is_there), tokens)?;
        let before = self.available(now);
        self.draw(&taken);
        for part in &taken {
            self.lot_mut(part.lot).adjusted -= part.tokens.to_db();
        }
        let less = -tokens.to_db();
        let change = Change { tokens: less, lots: taken, ..Change::of(EntryKind::Adjusted) };
        self.post_as(id, change, request, now);
        self.note_crossings(before, now);
        Ok(())
    }

    /// Makes what is left of a lot that still runs be `tokens`, but never less than is held of it.
    pub(super) fn reset(
        &mut self,
        source: Source,
        tokens: Tokens,
        request: Request,
        now: DateTime<Utc>,
    ) {
        let runs = |lot: &&Lot| {
            let is_over = lot.frozen_at.is_none() && lot.expires_at.is_some_and(|end| end <= now);
            lot.source == source && lot.is_opened && !is_over
        };
        let Some(lot) = self.lots.iter().find(runs) else { return };
        let (id, before) = (lot.id, lot.remaining);
        let after = tokens.max(lot.held);
        let change = after.to_db() - before.to_db();
        if change == 0 {
            return;
        }
        let lot = self.lot_mut(id);
        lot.remaining = after;
        lot.adjusted += change;
        self.balance = Tokens::from_db(self.balance.to_db() + change);
        let lots = vec![Allocation { lot: id, tokens: Tokens(change.unsigned_abs()) }];
        let change = Change { tokens: change, lots, ..Change::of(EntryKind::Adjusted) };
        self.post(change, request, now);
    }

    /// Lets a debt go, as far as there is one.
    pub(super) fn forgive(
        &mut self,
        tokens: Tokens,
        id: EntryId,
        request: Request,
        now: DateTime<Utc>,
    ) {
        let less = tokens.min(self.debt);
        self.debt = self.debt.minus(less);
        let change = Change { debt: -less.to_db(), ..Change::of(EntryKind::DebtForgiven) };
        self.post_as(id, change, request, now);
    }

    /// Sets tokens of certain lots aside, as many of each as are free; whether or not the customer
    /// may spend now. Returns how many that are.
    pub(super) fn reserve_parts(
        &mut self,
        id: HoldId,
        parts: &[Part],
        expires_at: DateTime<Utc>,
        asked: Asked,
        now: DateTime<Utc>,
    ) -> Tokens {
        let before = self.available(now);
        let reserved: Vec<Allocation> = parts
            .iter()
            .filter_map(|part| {
                let lot = self.lots.iter().find(|lot| lot.source == part.source)?;
                let is_there = lot.is_opened && lot.frozen_at.is_none();
                let tokens = lot.unheld().min(part.tokens);
                (is_there && tokens > Tokens::ZERO).then_some(Allocation { lot: lot.id, tokens })
            })
            .collect();
        let tokens: Tokens = reserved.iter().map(|part| part.tokens).sum();
        self.holds.push(Hold {
            id,
            principal: asked.request.principal.clone(),
            status: HoldStatus::Open,
            on_expiry: HoldRule::Release,
            parts: Vec::new(),
            settled: Tokens::ZERO,
            reported: Tokens::ZERO,
            description: asked.request.description.clone(),
            metadata: asked.request.metadata.clone(),
            expires_at,
            created_at: now,
            is_changed: true,
        });
        let index = self.holds.len() - 1;
        self.reserve(index, reserved);
        let change = Change { held: tokens.to_db(), ..Change::of(EntryKind::Held) };
        self.post_hold(index, change, asked, now);
        self.note_crossings(before, now);
        tokens
    }

    /// Takes tokens of certain lots for good: what their hold still reserves, then what is free of
    /// them; what is gone by then is owed. The hold, where it is open, ends.
    pub(super) fn take_parts(
        &mut self,
        hold: Option<usize>,
        parts: &[Part],
        asked: Asked,
        now: DateTime<Utc>,
    ) {
        let mut reserved = Tokens::ZERO;
        if let Some(index) = hold {
            reserved = self.holds[index].held();
            self.unreserve_all(index);
            self.holds[index].status = HoldStatus::Settled;
        }
        let (mut taken, mut debt) = (Vec::new(), Tokens::ZERO);
        for part in parts {
            let lot = self.lots.iter().find(|lot| lot.source == part.source && lot.is_opened);
            let there = lot.map_or(Tokens::ZERO, Lot::unheld).min(part.tokens);
            debt = debt.plus(part.tokens.minus(there));
            if let Some(lot) = lot.filter(|_| there > Tokens::ZERO) {
                taken.push(Allocation { lot: lot.id, tokens: there });
            }
        }
        self.draw(&taken);
        for part in &taken {
            self.lot_mut(part.lot).adjusted -= part.tokens.to_db();
        }
        self.debt = self.debt.plus(debt);
        let tokens: Tokens = taken.iter().map(|part| part.tokens).sum();
        let change = Change {
            tokens: -tokens.to_db(),
            debt: debt.to_db(),
            held: -reserved.to_db(),
            lots: taken,
            ..Change::of(EntryKind::PlanChange)
        };
        match hold {
            Some(index) => self.post_hold(index, change, asked, now),
            None => self.post_as(asked.id, change, asked.request, now),
        }
        self.book_from(now, now);
    }
}
