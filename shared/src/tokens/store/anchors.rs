//! SQL of anchors and the heads under them.

use chrono::{DateTime, NaiveDate, Utc};
use futures_util::{Stream, TryStreamExt};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::ids::CustomerId;

/// Where an account's chain stood.
#[derive(Debug, Clone)]
pub(in crate::tokens) struct Head {
    pub(in crate::tokens) customer_id: CustomerId,
    pub(in crate::tokens) seq: i64,
    pub(in crate::tokens) digest: Vec<u8>,
}

/// One day's anchor.
#[derive(Debug, Clone)]
pub(in crate::tokens) struct Anchored {
    pub(in crate::tokens) day: NaiveDate,
    pub(in crate::tokens) digest: Vec<u8>,
}

/// Anchors from the first day on; with `newest` only the last so many.
pub(in crate::tokens) async fn days(db: &PgPool, newest: i64) -> sqlx::Result<Vec<Anchored>> {
    let mut days = sqlx::query_as!(
        Anchored,
        "select day, digest from ledger_anchors order by day desc limit $1",
        newest
    )
    .fetch_all(db)
    .await?;
    days.reverse();
    Ok(days)
}

/// The newest anchor before `day`, and whether that day has its own already.
pub(in crate::tokens) async fn before(
    db: &mut PgConnection,
    day: NaiveDate,
) -> sqlx::Result<(Option<Vec<u8>>, bool)> {
    let row = sqlx::query!(
        r#"
        select (select digest from ledger_anchors where day < $1 order by day desc limit 1)
                   as previous,
               exists (select from ledger_anchors where day >= $1) as "is_done!"
        "#,
        day,
    )
    .fetch_one(db)
    .await?;
    Ok((row.previous, row.is_done))
}

/// Writes down where the chains of the next accounts after `after` stand, as far as they moved
/// since they were anchored last. Returns them in order; none: there are no more.
pub(in crate::tokens) async fn add_heads(
    db: &mut PgConnection,
    day: NaiveDate,
    after: Option<CustomerId>,
    limit: i64,
) -> sqlx::Result<Vec<Head>> {
    let after = after.map_or(Uuid::nil(), CustomerId::uuid);
    let mut heads = sqlx::query_as!(
        Head,
        r#"
        insert into ledger_heads (customer_id, day, seq, digest)
        select a.customer_id, $1, a.last_seq, a.last_digest
        from token_accounts a
        left join lateral (
            select seq from ledger_heads h
            where h.customer_id = a.customer_id
            order by day desc
            limit 1) h on true
        where a.customer_id > $2
          and a.last_seq > coalesce(h.seq, 0)
        order by a.customer_id
        limit $3
        returning customer_id as "customer_id: CustomerId", seq, digest
        "#,
        day,
        after,
        limit,
    )
    .fetch_all(db)
    .await?;
    heads.sort_by_key(|head| head.customer_id);
    Ok(heads)
}

/// Writes the anchor over them.
pub(in crate::tokens) async fn insert(
    db: &mut PgConnection,
    day: NaiveDate,
    heads: i64,
    digest: &[u8],
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into ledger_anchors (day, heads, digest, created_at) values ($1, $2, $3, $4)",
        day,
        heads,
        digest,
        now,
    )
    .execute(db)
    .await
    .map(drop)
}

/// The heads under a day's anchor, in the order in which they were put under it.
pub(in crate::tokens) fn of_day(
    db: &PgPool,
    day: NaiveDate,
) -> impl Stream<Item = sqlx::Result<Head>> + '_ {
    sqlx::query_as!(
        Head,
        r#"
        select customer_id as "customer_id: CustomerId", seq, digest
        from ledger_heads
        where day = $1
        order by customer_id
        "#,
        day,
    )
    .fetch(db)
}

/// Anchored heads whose entry is gone or is another one.
pub(in crate::tokens) fn lost(db: &PgPool) -> impl Stream<Item = sqlx::Result<Head>> + '_ {
    sqlx::query_as!(
        Head,
        r#"
        select h.customer_id as "customer_id: CustomerId", h.seq, h.digest
        from ledger_heads h
        left join ledger_entries e on e.customer_id = h.customer_id and e.seq = h.seq
        where e.digest is distinct from h.digest
        order by h.customer_id, h.seq
        "#,
    )
    .fetch(db)
}

/// The newest anchored head of each account that has one.
pub(in crate::tokens) async fn newest(
    db: &PgPool,
    customer_id: CustomerId,
) -> sqlx::Result<Option<Head>> {
    sqlx::query_as!(
        Head,
        r#"
        select customer_id as "customer_id: CustomerId", seq, digest
        from ledger_heads
        where customer_id = $1
        order by day desc
        limit 1
        "#,
        customer_id as _,
    )
    .fetch_optional(db)
    .await
}

/// Accounts whose row does not end where their chain ends.
pub(in crate::tokens) async fn torn(db: &PgPool) -> sqlx::Result<Vec<Head>> {
    sqlx::query_as!(
        Head,
        r#"
        select a.customer_id as "customer_id: CustomerId", a.last_seq as seq,
               a.last_digest as digest
        from token_accounts a
        left join ledger_entries e on e.customer_id = a.customer_id and e.seq = a.last_seq
        where (a.last_seq > 0 and e.digest is distinct from a.last_digest)
           or (a.last_seq = 0 and a.last_digest <> '')
        order by a.customer_id
        limit 1000
        "#,
    )
    .fetch(db)
    .try_collect()
    .await
}
