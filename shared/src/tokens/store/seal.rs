//! SQL of putting old entries under the chain.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

use super::entries::{self, Stored};
use crate::ids::CustomerId;

/// Whether this database's old entries are chained.
pub(in crate::tokens) async fn is_done(db: &PgPool) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from installation where ledger_sealed_at is not null) as "is!""#
    )
    .fetch_one(db)
    .await
}

/// Accounts with entries and without a chain, locked.
pub(in crate::tokens) async fn unsealed(
    db: &mut PgConnection,
    limit: i64,
) -> sqlx::Result<Vec<CustomerId>> {
    sqlx::query_scalar!(
        r#"
        select customer_id as "customer_id: CustomerId"
        from token_accounts
        where last_seq > 0
          and last_digest = ''
        order by customer_id
        limit $1
        for no key update
        "#,
        limit,
    )
    .fetch_all(db)
    .await
}

/// An account's entries, in order.
pub(in crate::tokens) async fn entries_of(
    db: &mut PgConnection,
    customer_id: CustomerId,
) -> sqlx::Result<Vec<Stored>> {
    entries::of_account(db, customer_id).await
}

/// Writes an entry's digests.
pub(in crate::tokens) async fn set(
    db: &mut PgConnection,
    entry: (CustomerId, i64),
    content: &[u8],
    digest: &[u8],
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        update ledger_entries
        set content_digest = $3, digest = $4
        where customer_id = $1
          and seq = $2
        "#,
        entry.0 as _,
        entry.1,
        content,
        digest,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Writes where an account's chain ends.
pub(in crate::tokens) async fn set_head(
    db: &mut PgConnection,
    customer_id: CustomerId,
    digest: &[u8],
) -> sqlx::Result<()> {
    sqlx::query!(
        "update token_accounts set last_digest = $2 where customer_id = $1",
        customer_id as _,
        digest,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Notes that all is chained, for ever.
pub(in crate::tokens) async fn done(db: &PgPool, now: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query!(
        "update installation set ledger_sealed_at = $1 where ledger_sealed_at is null",
        now
    )
    .execute(db)
    .await
    .map(drop)
}
