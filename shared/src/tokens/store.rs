//! SQL of accounts, lots and entries.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::Tokens;
use super::grant::{Access, NewLot};
use super::ledger::{Account, Allocation, Entry, EntryKind, Lot, Request};
use super::usage::Usage;
use crate::error::Error;
use crate::ids::{CustomerId, EntryId, GrantId, SubscriptionId};

/// The operation key of a grant: it names the source, so that one source is booked once.
pub(super) fn grant_key(source_id: Uuid, part: i32) -> String {
    format!("payment:{source_id}:{part}")
}

/// Makes the customer's account if there is none.
pub(super) async fn ensure(
    db: &mut PgConnection,
    customer_id: CustomerId,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        insert into token_accounts (customer_id, created_at, updated_at)
        values ($1, $2, $2)
        on conflict (customer_id) do nothing
        "#,
        customer_id as _,
        now,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Locks the account until the transaction ends, and loads it with its lots.
pub(super) async fn lock(
    db: &mut PgConnection,
    customer_id: CustomerId,
) -> sqlx::Result<Option<Account>> {
    let locked = sqlx::query_scalar!(
        "select 1 as one from token_accounts where customer_id = $1 for no key update",
        customer_id as _
    )
    .fetch_optional(&mut *db)
    .await?;
    if locked.is_none() {
        return Ok(None);
    }
    read(db, customer_id).await
}

/// Loads the account with its lots, as committed.
pub(super) async fn read(
    db: &mut PgConnection,
    customer_id: CustomerId,
) -> sqlx::Result<Option<Account>> {
    let rows = sqlx::query!(
        r#"
        select a.balance, a.last_seq, a.subscription_id as "subscription_id: SubscriptionId",
               a.is_active, a.spendable_until, g.id as "id?: GrantId",
               g.source_id as "source_id?", g.part as "part?", g.priority as "priority?",
               g.remaining as "remaining?", g.opens_at as "opens_at?",
               g.is_opened as "is_opened?", g.expires_at as "expires_at?",
               g.created_at as "created_at?"
        from token_accounts a
        left join grants g on g.customer_id = a.customer_id and g.remaining > 0
        where a.customer_id = $1
        "#,
        customer_id as _
    )
    .fetch_all(db)
    .await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let mut account = Account {
        customer_id,
        balance: Tokens::from_db(first.balance),
        last_seq: first.last_seq,
        subscription_id: first.subscription_id,
        is_active: first.is_active,
        spendable_until: first.spendable_until,
        lots: Vec::with_capacity(rows.len()),
        entries: Vec::new(),
    };
    for row in rows {
        let Some(id) = row.id else { continue };
        account.lots.push(Lot {
            id,
            priority: row.priority.expect("a lot has a priority"),
            remaining: Tokens::from_db(row.remaining.expect("a lot has a rest")),
            opens_at: row.opens_at.expect("a lot has a start"),
            is_opened: row.is_opened.expect("a lot is opened or not"),
            expires_at: row.expires_at,
            created_at: row.created_at.expect("a lot has an age"),
            operation_key: grant_key(
                row.source_id.expect("a lot has a source"),
                row.part.expect("a lot has a part"),
            ),
        });
    }
    Ok(Some(account))
}

/// The entry that was made under this principal and key, if any.
pub(super) async fn find(
    db: &mut PgConnection,
    customer_id: CustomerId,
    request: &Request,
) -> sqlx::Result<Option<Entry>> {
    let row = sqlx::query!(
        r#"
        select seq, id as "id: EntryId", kind as "kind: EntryKind", tokens, used, balance_after,
               available_after, request_digest,
               subscription_id as "subscription_id: SubscriptionId", description, metadata,
               created_at
        from ledger_entries
        where customer_id = $1
          and principal = $2
          and operation_key = $3
        "#,
        customer_id as _,
        request.principal,
        request.operation_key,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Entry {
        seq: row.seq,
        id: row.id,
        kind: row.kind,
        tokens: row.tokens,
        used: Tokens::from_db(row.used),
        balance_after: Tokens::from_db(row.balance_after),
        available_after: Tokens::from_db(row.available_after),
        principal: request.principal.clone(),
        operation_key: request.operation_key.clone(),
        request_digest: row.request_digest,
        lots: Vec::new(),
        subscription_id: row.subscription_id,
        description: row.description,
        metadata: row.metadata,
        created_at: row.created_at,
    }))
}

/// Saves what was booked: entries, lots, account. The account must be locked.
pub(super) async fn save(
    db: &mut PgConnection,
    account: &Account,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    for entry in &account.entries {
        insert_entry(db, account.customer_id, entry).await?;
    }
    update_lots(db, account).await?;
    let updated = sqlx::query!(
        r#"
        update token_accounts
        set balance = $2, last_seq = $3, next_due_at = $4, updated_at = $5
        where customer_id = $1
        "#,
        account.customer_id as _,
        account.balance.to_db(),
        account.last_seq,
        account.next_due_at(),
        now,
    )
    .execute(db)
    .await?;
    assert_eq!(updated.rows_affected(), 1, "a locked account is there");
    Ok(())
}

async fn insert_entry(
    db: &mut PgConnection,
    customer_id: CustomerId,
    entry: &Entry,
) -> sqlx::Result<()> {
    let lot_ids: Vec<Uuid> = entry.lots.iter().map(|part: &Allocation| part.lot.uuid()).collect();
    let lot_tokens: Vec<i64> = entry.lots.iter().map(|part| part.tokens.to_db()).collect();
    sqlx::query!(
        r#"
        insert into ledger_entries
            (customer_id, seq, id, kind, tokens, used, balance_after, available_after, principal,
             operation_key, request_digest, lot_ids, lot_tokens, subscription_id, description,
             metadata, created_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
        "#,
        customer_id as _,
        entry.seq,
        entry.id as _,
        entry.kind as _,
        entry.tokens,
        entry.used.to_db(),
        entry.balance_after.to_db(),
        entry.available_after.to_db(),
        entry.principal,
        entry.operation_key,
        entry.request_digest,
        &lot_ids,
        &lot_tokens,
        entry.subscription_id as _,
        entry.description,
        entry.metadata,
        entry.created_at,
    )
    .execute(db)
    .await
    .map(drop)
}

async fn update_lots(db: &mut PgConnection, account: &Account) -> sqlx::Result<()> {
    if account.entries.is_empty() {
        return Ok(());
    }
    let touched = |lot: &&Lot| {
        account.entries.iter().flat_map(|entry| &entry.lots).any(|part| part.lot == lot.id)
    };
    let lots: Vec<&Lot> = account.lots.iter().filter(touched).collect();
    let ids: Vec<Uuid> = lots.iter().map(|lot| lot.id.uuid()).collect();
    let remaining: Vec<i64> = lots.iter().map(|lot| lot.remaining.to_db()).collect();
    let opened: Vec<bool> = lots.iter().map(|lot| lot.is_opened).collect();
    let updated = sqlx::query!(
        r#"
        update grants g
        set remaining = t.remaining, is_opened = t.is_opened
        from unnest($2::uuid[], $3::bigint[], $4::boolean[]) as t (id, remaining, is_opened)
        where g.customer_id = $1
          and g.id = t.id
        "#,
        account.customer_id as _,
        &ids,
        &remaining,
        &opened,
    )
    .execute(db)
    .await?;
    assert_eq!(updated.rows_affected(), lots.len() as u64, "every lot drawn from is there");
    Ok(())
}

/// Inserts a lot, not yet opened; false if this source's part was granted before.
pub(super) async fn insert_grant(
    db: &mut PgConnection,
    customer_id: CustomerId,
    id: GrantId,
    new: &NewLot,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    let inserted = sqlx::query!(
        r#"
        insert into grants
            (customer_id, id, source_kind, source_id, part, priority, tokens, remaining, opens_at,
             is_opened, expires_at, created_at)
        values ($1, $2, 'payment', $3, $4, $5, $6, $6, $7, false, $8, $9)
        on conflict (customer_id, source_kind, source_id, part) do nothing
        "#,
        customer_id as _,
        id as _,
        new.payment_id as _,
        new.part,
        new.priority,
        new.tokens.to_db(),
        new.opens_at,
        new.expires_at,
        now,
    )
    .execute(db)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Writes what the subscription allows.
pub(super) async fn set_access(
    db: &mut PgConnection,
    customer_id: CustomerId,
    access: &Access,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let updated = sqlx::query!(
        r#"
        update token_accounts
        set subscription_id = $2, is_active = $3, spendable_until = $4, updated_at = $5
        where customer_id = $1
        "#,
        customer_id as _,
        access.subscription_id as _,
        access.is_active,
        access.spendable_until,
        now,
    )
    .execute(db)
    .await?;
    assert_eq!(updated.rows_affected(), 1, "the account was just ensured");
    Ok(())
}

/// The newest spends of a customer.
pub(super) async fn usage(
    db: &PgPool,
    customer_id: CustomerId,
    limit: i64,
) -> sqlx::Result<Vec<Usage>> {
    let rows = sqlx::query!(
        r#"
        select e.id as "id: EntryId", e.subscription_id as "subscription_id: SubscriptionId",
               c.email, p.name as "plan_name?", e.used, e.description, e.metadata, e.created_at
        from ledger_entries e
        join customers c on c.customer_id = e.customer_id
        left join subscriptions s on s.customer_id = e.customer_id and s.id = e.subscription_id
        left join plans p on p.id = s.plan_id
        where e.customer_id = $1
          and e.kind = 'consumed'
        order by e.created_at desc, e.seq desc
        limit $2
        "#,
        customer_id as _,
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Usage {
            id: row.id,
            subscription_id: row.subscription_id,
            email: row.email,
            plan_name: row.plan_name,
            tokens: Tokens::from_db(row.used),
            description: row.description,
            metadata: row.metadata,
            created_at: row.created_at,
        })
        .collect())
}
