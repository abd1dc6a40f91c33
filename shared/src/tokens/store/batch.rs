//! SQL over many accounts at once: what is committed together costs a handful of statements.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::entries::{self, EntryColumns};
use super::holds::{self, HoldRow};
use super::lots::LotRow;
use crate::error::Error;
use crate::events::{self, Event};
use crate::ids::{CustomerId, GrantId, SubscriptionId};
use crate::tokens::Tokens;
use crate::tokens::ledger::Account;
use crate::tokens::lot::{GrantSource, Lot, RolloverRule};

/// Locks accounts until the transaction ends, in ascending order as everybody does, and loads them
/// with their lots and open holds. An account that is not there is left out.
pub(in crate::tokens) async fn lock(
    db: &mut PgConnection,
    ids: &[CustomerId],
) -> sqlx::Result<HashMap<CustomerId, Account>> {
    let uuids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
    sqlx::query!(
        r#"
        select customer_id
        from token_accounts
        where customer_id = any($1)
        order by customer_id
        for no key update
        "#,
        &uuids,
    )
    .fetch_all(&mut *db)
    .await?;
    // Another statement: this one sees what was committed while the locks were waited for.
    load(db, ids).await
}

/// Loads accounts with their lots and open holds, all of one moment. One that is not there is left
/// out.
#[expect(clippy::too_many_lines, reason = "a column a line, twice")]
pub(in crate::tokens) async fn load(
    db: &mut PgConnection,
    ids: &[CustomerId],
) -> sqlx::Result<HashMap<CustomerId, Account>> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
    let rows = sqlx::query!(
        r#"
        select a.customer_id as "customer_id!: CustomerId", a.xmin::text::bigint as "version!",
               a.balance as "balance!", a.debt as "debt!", a.held as "held!", a.used as "used!",
               a.last_seq as "last_seq!", a.last_digest as "last_digest!",
               a.subscription_id as "subscription_id: SubscriptionId",
               a.is_active as "is_active!", a.spendable_until, a.paused_until,
               a.overdraft_tokens as "overdraft_tokens!", a.low_at, a.top_up_at, a.top_up_since,
               case when a.open_holds > 0 then (
                   select json_agg(h order by h.id)
                   from holds h
                   where h.customer_id = a.customer_id
                     and h.status = 'open')
               end as "holds: Json<Vec<HoldRow>>",
               g.id as "id?: GrantId", g.source_kind as "source_kind?: GrantSource",
               g.source_id as "source_id?", g.part as "part?", g.priority as "priority?",
               g.tokens as "tokens?", g.remaining as "remaining?", g.held as "lot_held?",
               g.overdue as "overdue?", g.adjusted as "adjusted?",
               g.expired_tokens as "expired_tokens?", g.taken as "taken?",
               g.taken_free as "taken_free?", g.taken_debt as "taken_debt?", g.taken_at,
               g.frozen_at, g.opens_at as "opens_at?", g.is_opened as "is_opened?", g.expires_at,
               g.rollover as "rollover?: RolloverRule", g.rollover_cap,
               g.created_at as "created_at?"
        from token_accounts a
        left join grants g on g.customer_id = a.customer_id and not g.is_used_up
        where a.customer_id = any($1)
        "#,
        &ids,
    )
    .fetch_all(db)
    .await?;
    let mut accounts: HashMap<CustomerId, Account> = HashMap::with_capacity(ids.len());
    for row in rows {
        let account = accounts.entry(row.customer_id).or_insert_with(|| Account {
            version: row.version,
            balance: Tokens::from_db(row.balance),
            debt: Tokens::from_db(row.debt),
            held: Tokens::from_db(row.held),
            used: Tokens::from_db(row.used),
            last_seq: row.last_seq,
            last_digest: row.last_digest,
            subscription_id: row.subscription_id,
            is_active: row.is_active,
            spendable_until: row.spendable_until,
            paused_until: row.paused_until,
            overdraft: Tokens::from_db(row.overdraft_tokens),
            low_at: row.low_at.map(Tokens::from_db),
            top_up_at: row.top_up_at.map(Tokens::from_db),
            top_up_since: row.top_up_since,
            holds: row.holds.map_or_else(Vec::new, |holds| {
                holds.0.into_iter().map(HoldRow::into_hold).collect()
            }),
            ..Account::new(row.customer_id)
        });
        // No lot with anything left: the columns of the outer join are null.
        let Some(id) = row.id else { continue };
        let there = "the schema allows no null here";
        account.lots.push(
            LotRow {
                id,
                source_kind: row.source_kind.expect(there),
                source_id: row.source_id.expect(there),
                part: row.part.expect(there),
                priority: row.priority.expect(there),
                tokens: row.tokens.expect(there),
                remaining: row.remaining.expect(there),
                held: row.lot_held.expect(there),
                overdue: row.overdue.expect(there),
                adjusted: row.adjusted.expect(there),
                expired_tokens: row.expired_tokens.expect(there),
                taken: row.taken.expect(there),
                taken_free: row.taken_free.expect(there),
                taken_debt: row.taken_debt.expect(there),
                taken_at: row.taken_at,
                frozen_at: row.frozen_at,
                opens_at: row.opens_at.expect(there),
                is_opened: row.is_opened.expect(there),
                expires_at: row.expires_at,
                rollover: row.rollover.expect(there),
                rollover_cap: row.rollover_cap,
                created_at: row.created_at.expect(there),
            }
            .into_lot(),
        );
    }
    Ok(accounts)
}

/// Saves what was booked on locked accounts: entries, lots, holds, accounts, and what happened.
pub(in crate::tokens) async fn save(
    db: &mut PgConnection,
    accounts: &[&Account],
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let written = write(db, accounts, now).await?;
    assert_eq!(written.len(), accounts.len(), "a locked account is as it was loaded");
    write_rest(db, accounts, now).await
}

/// Writes entries, lots and accounts of those accounts that are still as they were loaded and that
/// no other transaction has locked; of the others nothing. Returns which were written.
///
/// One statement, so that it needs no transaction around it where there is no rest to write.
pub(in crate::tokens) async fn write(
    db: &mut PgConnection,
    accounts: &[&Account],
    now: DateTime<Utc>,
) -> Result<HashSet<CustomerId>, Error> {
    let (entry, heads) = entries::sealed(accounts);
    let lot = LotColumns::of(accounts);
    let account = AccountColumns::of(accounts, heads, now);
    let written = write_columns(db, (&account, &entry, &lot), now).await?;
    let (ids, drawn): (HashSet<CustomerId>, Vec<usize>) = written.into_iter().unzip();
    let is_written = |id: &&Uuid| ids.contains(&CustomerId::from(**id));
    let expected = lot.customer_ids.iter().filter(is_written).count();
    assert!(drawn.into_iter().all(|lots| lots == expected), "a loaded lot is there");
    Ok(ids)
}

/// Whether there is more to write than [`write`] does.
pub(in crate::tokens) fn has_rest(account: &Account) -> bool {
    !account.events.is_empty() || account.holds.iter().any(|hold| hold.is_changed)
}

/// Writes holds and what happened, of accounts that [`write`] wrote in this transaction.
pub(in crate::tokens) async fn write_rest(
    db: &mut PgConnection,
    accounts: &[&Account],
    now: DateTime<Utc>,
) -> Result<(), Error> {
    holds::save(db, accounts, now).await?;
    let events: Vec<Event> =
        accounts.iter().flat_map(|account| account.events.iter().cloned()).collect();
    events::record(db, &events).await
}

async fn write_columns(
    db: &mut PgConnection,
    (account, entry, lot): (&AccountColumns, &EntryColumns, &LotColumns),
    now: DateTime<Utc>,
) -> sqlx::Result<Vec<(CustomerId, usize)>> {
    let rows = sqlx::query_file!(
        "src/tokens/store/write.sql",
        &account.ids,
        &account.versions,
        &account.balances,
        &account.debts,
        &account.held,
        &account.used,
        &account.open_holds,
        &account.seqs,
        &account.heads,
        &account.due as &[Option<DateTime<Utc>>],
        &account.asked as &[Option<DateTime<Utc>>],
        now,
        &entry.customer_ids,
        &entry.seqs,
        &entry.ids,
        &entry.kinds,
        &entry.tokens,
        &entry.debts,
        &entry.used,
        &entry.balances,
        &entry.available,
        &entry.principals,
        &entry.keys,
        &entry.digests,
        &entry.subscriptions as &[Option<Uuid>],
        &entry.descriptions,
        &entry.metadata,
        &entry.lot_ids,
        &entry.lot_tokens,
        &entry.created_at,
        &entry.lots_from,
        &entry.lots_to,
        &entry.held,
        &entry.used_after,
        &entry.holds as &[Option<Uuid>],
        &entry.holds_after as &[Option<Value>],
        &entry.content_digests,
        &entry.chain,
        &lot.customer_ids,
        &lot.ids,
        &lot.remaining,
        &lot.held,
        &lot.overdue,
        &lot.adjusted,
        &lot.expired,
        &lot.is_opened,
        &lot.expires_at as &[Option<DateTime<Utc>>],
    )
    .fetch_all(db)
    .await?;
    let count = |lots: i64| usize::try_from(lots).expect("a count is not negative");
    Ok(rows.into_iter().map(|row| (row.customer_id, count(row.lots))).collect())
}

/// What may change of accounts, column by column.
struct AccountColumns {
    ids: Vec<Uuid>,
    versions: Vec<i64>,
    balances: Vec<i64>,
    debts: Vec<i64>,
    held: Vec<i64>,
    used: Vec<i64>,
    open_holds: Vec<i32>,
    seqs: Vec<i64>,
    heads: Vec<Vec<u8>>,
    due: Vec<Option<DateTime<Utc>>>,
    asked: Vec<Option<DateTime<Utc>>>,
}

impl AccountColumns {
    /// `heads`: the digests with which the accounts' chains now end.
    fn of(accounts: &[&Account], heads: Vec<Vec<u8>>, now: DateTime<Utc>) -> Self {
        let number = |of: fn(&Account) -> Tokens| -> Vec<i64> {
            accounts.iter().map(|account| of(account).to_db()).collect()
        };
        Self {
            ids: accounts.iter().map(|account| account.customer_id.uuid()).collect(),
            versions: accounts.iter().map(|account| account.version).collect(),
            balances: number(|account| account.balance),
            debts: number(|account| account.debt),
            held: number(|account| account.held),
            used: number(|account| account.used),
            open_holds: accounts.iter().map(|account| account.open_holds()).collect(),
            seqs: accounts.iter().map(|account| account.last_seq).collect(),
            heads,
            due: accounts.iter().map(|account| account.next_due_at()).collect(),
            asked: accounts.iter().map(|account| account.asks_since(now)).collect(),
        }
    }
}

/// What may change of lots, column by column.
#[derive(Default)]
struct LotColumns {
    customer_ids: Vec<Uuid>,
    ids: Vec<Uuid>,
    remaining: Vec<i64>,
    held: Vec<i64>,
    overdue: Vec<i64>,
    adjusted: Vec<i64>,
    expired: Vec<i64>,
    is_opened: Vec<bool>,
    expires_at: Vec<Option<DateTime<Utc>>>,
}

impl LotColumns {
    fn of(accounts: &[&Account]) -> Self {
        let mut columns = Self::default();
        for account in accounts {
            let is_changed = |lot: &&Lot| account.changed_lots.contains(&lot.id);
            for lot in account.lots.iter().filter(is_changed) {
                columns.push(account.customer_id, lot);
            }
        }
        columns
    }

    fn push(&mut self, customer_id: CustomerId, lot: &Lot) {
        self.customer_ids.push(customer_id.uuid());
        self.ids.push(lot.id.uuid());
        self.remaining.push(lot.remaining.to_db());
        self.held.push(lot.held.to_db());
        self.overdue.push(lot.overdue.to_db());
        self.adjusted.push(lot.adjusted);
        self.expired.push(lot.expired.to_db());
        self.is_opened.push(lot.is_opened);
        self.expires_at.push(lot.expires_at);
    }
}
