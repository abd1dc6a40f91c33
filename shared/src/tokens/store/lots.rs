//! SQL of lots.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::ids::{CustomerId, GrantId, PaymentId};
use crate::tokens::Tokens;
use crate::tokens::ledger::Account;
use crate::tokens::lot::{GrantSource, Lot, Rollover, RolloverRule, Source, Taken};

/// The lots of a source of which nothing is left, which `lock` does not load.
pub(in crate::tokens) async fn used_up_lots(
    db: &mut PgConnection,
    customer_id: CustomerId,
    (kind, source_id): (GrantSource, Uuid),
) -> sqlx::Result<Vec<Lot>> {
    let rows = sqlx::query_as!(
        LotRow,
        r#"
        select id as "id: GrantId", source_kind as "source_kind: GrantSource", source_id, part,
               priority, tokens, remaining, held, overdue, adjusted, expired_tokens, taken,
               taken_free, taken_debt, taken_at, frozen_at, opens_at, is_opened, expires_at,
               rollover as "rollover: RolloverRule", rollover_cap, created_at
        from grants
        where customer_id = $1
          and source_kind = $2
          and source_id = $3
          and is_used_up
        "#,
        customer_id as _,
        kind as _,
        source_id,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(LotRow::into_lot).collect())
}

/// A lot as it is stored.
pub(super) struct LotRow {
    pub(super) id: GrantId,
    pub(super) source_kind: GrantSource,
    pub(super) source_id: Uuid,
    pub(super) part: i32,
    pub(super) priority: i16,
    pub(super) tokens: i64,
    pub(super) remaining: i64,
    pub(super) held: i64,
    pub(super) overdue: i64,
    pub(super) adjusted: i64,
    pub(super) expired_tokens: i64,
    pub(super) taken: i64,
    pub(super) taken_free: i64,
    pub(super) taken_debt: i64,
    pub(super) taken_at: Option<DateTime<Utc>>,
    pub(super) frozen_at: Option<DateTime<Utc>>,
    pub(super) opens_at: DateTime<Utc>,
    pub(super) is_opened: bool,
    pub(super) expires_at: Option<DateTime<Utc>>,
    pub(super) rollover: RolloverRule,
    pub(super) rollover_cap: Option<i64>,
    pub(super) created_at: DateTime<Utc>,
}

impl LotRow {
    pub(super) fn into_lot(self) -> Lot {
        Lot {
            id: self.id,
            source: Source { kind: self.source_kind, id: self.source_id, part: self.part },
            priority: self.priority,
            tokens: Tokens::from_db(self.tokens),
            remaining: Tokens::from_db(self.remaining),
            held: Tokens::from_db(self.held),
            overdue: Tokens::from_db(self.overdue),
            adjusted: self.adjusted,
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
            rollover: Rollover::from_db(self.rollover, self.rollover_cap),
            created_at: self.created_at,
        }
    }
}

/// Saves what adapting did to a payment's lots beside what entries say: what was taken, ends,
/// freezes, and the lots granted anew. Goes before `save`.
pub(in crate::tokens) async fn save_adapted(
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
        set remaining = $3, is_used_up = $3::bigint = 0, held = $11, overdue = $12, expired_tokens = $4,
            taken = $5, taken_free = $6, taken_debt = $7, taken_at = $8, frozen_at = $9,
            expires_at = $10
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
        lot.held.to_db(),
        lot.overdue.to_db(),
    )
    .execute(db)
    .await?;
    assert_eq!(updated.rows_affected(), 1, "a lot that was loaded is there");
    Ok(())
}

/// Inserts a lot as it was given, not yet opened; false if this source's part was granted before.
pub(in crate::tokens) async fn insert_lot(
    db: &mut PgConnection,
    customer_id: CustomerId,
    lot: &Lot,
) -> sqlx::Result<bool> {
    let (rollover, cap) = lot.rollover.to_db();
    let inserted = sqlx::query!(
        r#"
        insert into grants
            (customer_id, id, source_kind, source_id, part, priority, tokens, remaining, opens_at,
             is_opened, expires_at, created_at, rollover, rollover_cap)
        values ($1, $2, $3, $4, $5, $6, $7, $7, $8, false, $9, $10, $11, $12)
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
        rollover as _,
        cap,
    )
    .execute(db)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Moves all lots of a payment to that span.
pub(in crate::tokens) async fn move_lots(
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
pub(in crate::tokens) async fn unused_of(
    db: &mut PgConnection,
    customer_id: CustomerId,
    payment_id: PaymentId,
    now: DateTime<Utc>,
) -> sqlx::Result<(u64, u64)> {
    let row = sqlx::query!(
        r#"
        select coalesce(sum(remaining - held) filter (
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

/// Whether the customer has tokens that never expire, opened or about to be.
pub(in crate::tokens) async fn has_lasting(
    db: &mut PgConnection,
    customer_id: CustomerId,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"
        select exists (
            select from grants
            where customer_id = $1
              and not is_used_up
              and expires_at is null
              and (is_opened or opens_at <= $2)
        ) as "exists!"
        "#,
        customer_id as _,
        now,
    )
    .fetch_one(db)
    .await
}
