//! SQL of accounts, lots and entries.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::Tokens;
use super::grant::Access;
use super::ledger::{
    Account, Allocation, Entry, EntryKind, GrantSource, Lot, Request, Source, Taken,
};
use super::usage::Usage;
use crate::error::Error;
use crate::ids::{CustomerId, EntryId, GrantId, PaymentId, SubscriptionId};

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
        select a.balance, a.debt, a.last_seq,
               a.subscription_id as "subscription_id: SubscriptionId", a.is_active,
               a.spendable_until, g.id as "id?: GrantId",
               g.source_kind as "source_kind?: GrantSource", g.source_id as "source_id?",
               g.part as "part?", g.priority as "priority?", g.tokens as "tokens?",
               g.remaining as "remaining?", g.expired_tokens as "expired_tokens?",
               g.taken as "taken?", g.taken_free as "taken_free?", g.taken_debt as "taken_debt?",
               g.taken_at, g.frozen_at, g.opens_at as "opens_at?", g.is_opened as "is_opened?",
               g.expires_at, g.created_at as "created_at?"
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
        debt: Tokens::from_db(first.debt),
        last_seq: first.last_seq,
        subscription_id: first.subscription_id,
        is_active: first.is_active,
        spendable_until: first.spendable_until,
        lots: Vec::with_capacity(rows.len()),
        new_lots: Vec::new(),
        entries: Vec::new(),
    };
    for row in rows {
        let (Some(id), Some(source_kind), Some(source_id), Some(part), Some(priority)) =
            (row.id, row.source_kind, row.source_id, row.part, row.priority)
        else {
            continue;
        };
        let lot = LotRow {
            id,
            source_kind,
            source_id,
            part,
            priority,
            tokens: row.tokens.expect("a lot has tokens"),
            remaining: row.remaining.expect("a lot has a rest"),
            expired_tokens: row.expired_tokens.expect("a lot has expired tokens or 0"),
            taken: row.taken.expect("a lot has a target or 0"),
            taken_free: row.taken_free.expect("a lot has tokens taken or 0"),
            taken_debt: row.taken_debt.expect("a lot has debt or 0"),
            taken_at: row.taken_at,
            frozen_at: row.frozen_at,
            opens_at: row.opens_at.expect("a lot has a start"),
            is_opened: row.is_opened.expect("a lot is opened or not"),
            expires_at: row.expires_at,
            created_at: row.created_at.expect("a lot has an age"),
        };
        account.lots.push(lot.into_lot());
    }
    Ok(Some(account))
}

/// The lots of a payment of which nothing is left, which `lock` does not load.
pub(super) async fn used_up_lots(
    db: &mut PgConnection,
    customer_id: CustomerId,
    payment_id: PaymentId,
) -> sqlx::Result<Vec<Lot>> {
    let rows = sqlx::query_as!(
        LotRow,
        r#"
        select id as "id: GrantId", source_kind as "source_kind: GrantSource", source_id, part,
               priority, tokens, remaining, expired_tokens, taken, taken_free, taken_debt,
               taken_at, frozen_at, opens_at, is_opened, expires_at, created_at
        from grants
        where customer_id = $1
          and source_kind = 'payment'
          and source_id = $2
          and remaining = 0
        "#,
        customer_id as _,
        payment_id as _,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(LotRow::into_lot).collect())
}

/// A lot as it is stored.
struct LotRow {
    id: GrantId,
    source_kind: GrantSource,
    source_id: Uuid,
    part: i32,
    priority: i16,
    tokens: i64,
    remaining: i64,
    expired_tokens: i64,
    taken: i64,
    taken_free: i64,
    taken_debt: i64,
    taken_at: Option<DateTime<Utc>>,
    frozen_at: Option<DateTime<Utc>>,
    opens_at: DateTime<Utc>,
    is_opened: bool,
    expires_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
}

impl LotRow {
    fn into_lot(self) -> Lot {
        Lot {
            id: self.id,
            source: Source { kind: self.source_kind, id: self.source_id, part: self.part },
            priority: self.priority,
            tokens: Tokens::from_db(self.tokens),
            remaining: Tokens::from_db(self.remaining),
            expired: Tokens::from_db(self.expired_tokens),
            taken: Taken {
                target: Tokens::from_db(self.taken),
                free: Tokens::from_db(self.taken_free),
                debt: Tokens::from_db(self.taken_debt),
                since: self.taken_at,
            },
            frozen_at: self.frozen_at,
            opens_at: self.opens_at,
            is_opened: self.is_opened,
            expires_at: self.expires_at,
            created_at: self.created_at,
        }
    }
}

/// The entry that was made under this principal and key, if any.
pub(super) async fn find(
    db: &mut PgConnection,
    customer_id: CustomerId,
    request: &Request,
) -> sqlx::Result<Option<Entry>> {
    let row = sqlx::query!(
        r#"
        select seq, id as "id: EntryId", kind as "kind: EntryKind", tokens, debt, used,
               balance_after, available_after, request_digest,
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
        debt: row.debt,
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
        set balance = $2, debt = $3, last_seq = $4, next_due_at = $5, updated_at = $6
        where customer_id = $1
        "#,
        account.customer_id as _,
        account.balance.to_db(),
        account.debt.to_db(),
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
            (customer_id, seq, id, kind, tokens, debt, used, balance_after, available_after,
             principal, operation_key, request_digest, lot_ids, lot_tokens, subscription_id,
             description, metadata, created_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
        "#,
        customer_id as _,
        entry.seq,
        entry.id as _,
        entry.kind as _,
        entry.tokens,
        entry.debt,
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
    let expired: Vec<i64> = lots.iter().map(|lot| lot.expired.to_db()).collect();
    let opened: Vec<bool> = lots.iter().map(|lot| lot.is_opened).collect();
    let updated = sqlx::query!(
        r#"
        update grants g
        set remaining = t.remaining, expired_tokens = t.expired, is_opened = t.is_opened
        from unnest($2::uuid[], $3::bigint[], $4::bigint[], $5::boolean[])
            as t (id, remaining, expired, is_opened)
        where g.customer_id = $1
          and g.id = t.id
        "#,
        account.customer_id as _,
        &ids,
        &remaining,
        &expired,
        &opened,
    )
    .execute(db)
    .await?;
    assert_eq!(updated.rows_affected(), lots.len() as u64, "every lot drawn from is there");
    Ok(())
}

/// Saves what adapting did to a payment's lots beside what entries say: what was taken, ends,
/// freezes, and the lots granted anew. Goes before `save`.
pub(super) async fn save_adapted(
    db: &mut PgConnection,
    account: &Account,
    payment_id: PaymentId,
) -> sqlx::Result<()> {
    for lot in account.lots.iter().filter(|lot| account.new_lots.contains(&lot.id)) {
        let is_new = insert_lot(db, account.customer_id, lot).await?;
        assert!(is_new, "the sequence numbers lots granted anew");
    }
    for lot in account.lots.iter().filter(|lot| lot.source.is_payment(payment_id)) {
        update_taken(db, account.customer_id, lot).await?;
    }
    Ok(())
}

async fn update_taken(
    db: &mut PgConnection,
    customer_id: CustomerId,
    lot: &Lot,
) -> sqlx::Result<()> {
    let updated = sqlx::query!(
        r#"
        update grants
        set remaining = $3, expired_tokens = $4, taken = $5, taken_free = $6, taken_debt = $7,
            taken_at = $8, frozen_at = $9, expires_at = $10
        where customer_id = $1
          and id = $2
        "#,
        customer_id as _,
        lot.id as _,
        lot.remaining.to_db(),
        lot.expired.to_db(),
        lot.taken.target.to_db(),
        lot.taken.free.to_db(),
        lot.taken.debt.to_db(),
        lot.taken.since,
        lot.frozen_at,
        lot.expires_at,
    )
    .execute(db)
    .await?;
    assert_eq!(updated.rows_affected(), 1, "a lot that was loaded is there");
    Ok(())
}

/// Inserts a lot as it was given, not yet opened; false if this source's part was granted before.
pub(super) async fn insert_lot(
    db: &mut PgConnection,
    customer_id: CustomerId,
    lot: &Lot,
) -> sqlx::Result<bool> {
    let inserted = sqlx::query!(
        r#"
        insert into grants
            (customer_id, id, source_kind, source_id, part, priority, tokens, remaining, opens_at,
             is_opened, expires_at, created_at)
        values ($1, $2, $3, $4, $5, $6, $7, $7, $8, false, $9, $10)
        on conflict (customer_id, source_kind, source_id, part) do nothing
        "#,
        customer_id as _,
        lot.id as _,
        lot.source.kind as _,
        lot.source.id,
        lot.source.part,
        lot.priority,
        lot.tokens.to_db(),
        lot.opens_at,
        lot.expires_at,
        lot.created_at,
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

/// Moves all lots of a payment to that span.
pub(super) async fn move_lots(
    db: &mut PgConnection,
    customer_id: CustomerId,
    payment_id: PaymentId,
    span: (DateTime<Utc>, DateTime<Utc>),
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        update grants
        set opens_at = case when is_opened then least(opens_at, $3) else $3 end, expires_at = $4
        where customer_id = $1
          and source_kind = 'payment'
          and source_id = $2
          and expires_at is not null
        "#,
        customer_id as _,
        payment_id as _,
        span.0,
        span.1,
    )
    .execute(db)
    .await
    .map(drop)
}

/// What is free, and what was given, of a payment's lots.
pub(super) async fn unused_of(
    db: &mut PgConnection,
    customer_id: CustomerId,
    payment_id: PaymentId,
    now: DateTime<Utc>,
) -> sqlx::Result<(u64, u64)> {
    let row = sqlx::query!(
        r#"
        select coalesce(sum(remaining) filter (
                   where frozen_at is null and (expires_at is null or expires_at > $3)
               ), 0)::bigint as "free!",
               coalesce(sum(tokens), 0)::bigint as "given!"
        from grants
        where customer_id = $1
          and source_kind = 'payment'
          and source_id = $2
        "#,
        customer_id as _,
        payment_id as _,
        now,
    )
    .fetch_one(db)
    .await?;
    Ok((Tokens::from_db(row.free).0, Tokens::from_db(row.given).0))
}
