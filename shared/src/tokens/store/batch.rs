//! SQL over many accounts at once: what is committed together costs a handful of statements.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::lots::LotRow;
use super::{entries, holds};
use crate::error::Error;
use crate::events::{self, Event};
use crate::ids::{CustomerId, GrantId, SubscriptionId};
use crate::tokens::Tokens;
use crate::tokens::ledger::{Account, GrantSource, Lot, RolloverRule};

/// Selects accounts; the rest of the statement is the caller's.
macro_rules! select_accounts {
    ($rest:literal, $argument:expr) => {
        sqlx::query_as!(
            AccountRow,
            r#"
            select customer_id as "customer_id: CustomerId", balance, debt, held, used, open_holds,
                   last_seq, last_digest, subscription_id as "subscription_id: SubscriptionId",
                   is_active, spendable_until, paused_until, overdraft_tokens, low_at, top_up_at,
                   top_up_since
            from token_accounts
            "# + $rest,
            $argument
        )
    };
}

/// Locks accounts until the transaction ends, in ascending order as everybody does, and loads them
/// with their lots and open holds. An account that is not there is left out.
pub(in crate::tokens) async fn lock(
    db: &mut PgConnection,
    ids: &[CustomerId],
) -> sqlx::Result<HashMap<CustomerId, Account>> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
    let rows = select_accounts!(
        r#"
        where customer_id = any($1)
        order by customer_id
        for no key update
        "#,
        &ids
    );
    let rows = rows.fetch_all(&mut *db).await?;
    load(db, rows).await
}

/// The same, but what another transaction has locked is left out as well instead of waited for.
pub(in crate::tokens) async fn lock_free(
    db: &mut PgConnection,
    ids: &[CustomerId],
) -> sqlx::Result<HashMap<CustomerId, Account>> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
    let rows = select_accounts!(
        r#"
        where customer_id = any($1)
        order by customer_id
        for no key update skip locked
        "#,
        &ids
    );
    let rows = rows.fetch_all(&mut *db).await?;
    load(db, rows).await
}

/// Loads an account with its lots and open holds, as committed. The caller's transaction must
/// show one state of the database (repeatable read), or hold the account's lock.
pub(in crate::tokens) async fn read(
    db: &mut PgConnection,
    id: CustomerId,
) -> sqlx::Result<Option<Account>> {
    let row = select_accounts!("where customer_id = $1", id as _).fetch_optional(&mut *db).await?;
    Ok(load(db, row.into_iter().collect()).await?.remove(&id))
}

/// An account as it is stored.
struct AccountRow {
    customer_id: CustomerId,
    balance: i64,
    debt: i64,
    held: i64,
    used: i64,
    open_holds: i32,
    last_seq: i64,
    last_digest: Vec<u8>,
    subscription_id: Option<SubscriptionId>,
    is_active: bool,
    spendable_until: Option<DateTime<Utc>>,
    paused_until: Option<DateTime<Utc>>,
    overdraft_tokens: i64,
    low_at: Option<i64>,
    top_up_at: Option<i64>,
    top_up_since: Option<DateTime<Utc>>,
}

impl AccountRow {
    fn into_account(self) -> Account {
        Account {
            balance: Tokens::from_db(self.balance),
            debt: Tokens::from_db(self.debt),
            held: Tokens::from_db(self.held),
            used: Tokens::from_db(self.used),
            last_seq: self.last_seq,
            last_digest: self.last_digest,
            subscription_id: self.subscription_id,
            is_active: self.is_active,
            spendable_until: self.spendable_until,
            paused_until: self.paused_until,
            overdraft: Tokens::from_db(self.overdraft_tokens),
            low_at: self.low_at.map(Tokens::from_db),
            top_up_at: self.top_up_at.map(Tokens::from_db),
            top_up_since: self.top_up_since,
            ..Account::new(self.customer_id)
        }
    }
}

/// Adds lots and open holds. Holds are looked for only where an account has some.
async fn load(
    db: &mut PgConnection,
    rows: Vec<AccountRow>,
) -> sqlx::Result<HashMap<CustomerId, Account>> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.customer_id.uuid()).collect();
    let holders: Vec<Uuid> =
        rows.iter().filter(|row| row.open_holds > 0).map(|row| row.customer_id.uuid()).collect();
    let mut accounts: HashMap<CustomerId, Account> =
        rows.into_iter().map(|row| (row.customer_id, row.into_account())).collect();
    for (customer_id, lot) in lots(db, &ids).await? {
        if let Some(account) = accounts.get_mut(&customer_id) {
            account.lots.push(lot);
        }
    }
    if !holders.is_empty() {
        for (customer_id, hold) in holds::open(db, &holders).await? {
            if let Some(account) = accounts.get_mut(&customer_id) {
                account.holds.push(hold);
            }
        }
    }
    Ok(accounts)
}

/// What has something left, opened or not.
async fn lots(db: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<Vec<(CustomerId, Lot)>> {
    let rows = sqlx::query_as!(
        LotRow,
        r#"
        select customer_id as "customer_id: CustomerId", id as "id: GrantId",
               source_kind as "source_kind: GrantSource", source_id, part, priority, tokens,
               remaining, held, overdue, adjusted, expired_tokens, taken, taken_free, taken_debt,
               taken_at, frozen_at, opens_at, is_opened, expires_at,
               rollover as "rollover: RolloverRule", rollover_cap, created_at
        from grants
        where customer_id = any($1)
          and not is_used_up
        "#,
        ids,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.customer_id, row.into_lot())).collect())
}

/// Saves what was booked on locked accounts: entries, lots, holds, accounts, and what happened.
pub(in crate::tokens) async fn save(
    db: &mut PgConnection,
    accounts: &[&Account],
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let heads = entries::insert(db, accounts).await?;
    update_lots(db, accounts).await?;
    holds::save(db, accounts, now).await?;
    update_accounts(db, accounts, &heads, now).await?;
    let events: Vec<Event> =
        accounts.iter().flat_map(|account| account.events.iter().cloned()).collect();
    events::record(db, &events).await
}

async fn update_lots(db: &mut PgConnection, accounts: &[&Account]) -> sqlx::Result<()> {
    let mut column = LotColumns::default();
    for account in accounts {
        let is_changed = |lot: &&Lot| account.changed_lots.contains(&lot.id);
        for lot in account.lots.iter().filter(is_changed) {
            column.push(account.customer_id, lot);
        }
    }
    if column.ids.is_empty() {
        return Ok(());
    }
    let updated = sqlx::query!(
        r#"
        update grants g
        set remaining = t.remaining, is_used_up = t.remaining = 0, held = t.held,
            overdue = t.overdue, adjusted = t.adjusted, expired_tokens = t.expired,
            is_opened = t.is_opened, expires_at = t.expires_at
        from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
                    $7::bigint[], $8::boolean[], $9::timestamptz[])
            as t (customer_id, id, remaining, held, overdue, adjusted, expired, is_opened,
                  expires_at)
        where g.customer_id = t.customer_id
          and g.id = t.id
        "#,
        &column.customer_ids,
        &column.ids,
        &column.remaining,
        &column.held,
        &column.overdue,
        &column.adjusted,
        &column.expired,
        &column.is_opened,
        &column.expires_at as &[Option<DateTime<Utc>>],
    )
    .execute(db)
    .await?;
    assert_eq!(updated.rows_affected(), column.ids.len() as u64, "a loaded lot is there");
    Ok(())
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

async fn update_accounts(
    db: &mut PgConnection,
    accounts: &[&Account],
    heads: &[Vec<u8>],
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let number = |of: fn(&Account) -> Tokens| -> Vec<i64> {
        accounts.iter().map(|account| of(account).to_db()).collect()
    };
    let ids: Vec<Uuid> = accounts.iter().map(|account| account.customer_id.uuid()).collect();
    let seqs: Vec<i64> = accounts.iter().map(|account| account.last_seq).collect();
    let due: Vec<Option<DateTime<Utc>>> =
        accounts.iter().map(|account| account.next_due_at()).collect();
    let asked: Vec<Option<DateTime<Utc>>> =
        accounts.iter().map(|account| account.top_up_since).collect();
    let open: Vec<i32> = accounts.iter().map(|account| account.open_holds()).collect();
    let updated = sqlx::query!(
        r#"
        update token_accounts a
        set balance = t.balance, debt = t.debt, held = t.held, used = t.used,
            open_holds = t.open_holds, last_seq = t.last_seq, last_digest = t.last_digest,
            next_due_at = t.next_due_at, top_up_since = t.top_up_since, updated_at = $11
        from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[],
                    $6::integer[], $7::bigint[], $8::bytea[], $9::timestamptz[],
                    $10::timestamptz[])
            as t (customer_id, balance, debt, held, used, open_holds, last_seq, last_digest,
                  next_due_at, top_up_since)
        where a.customer_id = t.customer_id
        "#,
        &ids,
        &number(|account| account.balance),
        &number(|account| account.debt),
        &number(|account| account.held),
        &number(|account| account.used),
        &open,
        &seqs,
        heads,
        &due as &[Option<DateTime<Utc>>],
        &asked as &[Option<DateTime<Utc>>],
        now,
    )
    .execute(db)
    .await?;
    assert_eq!(updated.rows_affected(), ids.len() as u64, "a locked account is there");
    Ok(())
}
