//! SQL of customers.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::Identity;
use crate::ids::CustomerId;

/// Inserts the customer, or fills in what is newly known of him.
pub(super) async fn upsert(
    db: &mut PgConnection,
    identity: &Identity,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        insert into customers (customer_id, external_id, email, name, created_at, updated_at)
        values ($1, $2, $3, $4, $5, $5)
        on conflict (customer_id) do update
        set email = coalesce(excluded.email, customers.email),
            name = coalesce(excluded.name, customers.name),
            updated_at = excluded.updated_at
        where customers.email is distinct from coalesce(excluded.email, customers.email)
           or customers.name is distinct from coalesce(excluded.name, customers.name)
        "#,
        identity.id as _,
        identity.external_id,
        identity.email,
        identity.name,
        now,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Locks the customer's row; foreign keys to it may still be checked.
pub(super) async fn lock(db: &mut PgConnection, id: CustomerId) -> sqlx::Result<Option<()>> {
    let row = sqlx::query_scalar!(
        "select 1 as one from customers where customer_id = $1 for no key update",
        id as _
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(drop))
}

/// The customer, as committed.
pub(super) async fn find(db: &mut PgConnection, id: CustomerId) -> sqlx::Result<Option<Identity>> {
    sqlx::query_as!(
        Identity,
        r#"
        select customer_id as "id: CustomerId", external_id, email, name
        from customers
        where customer_id = $1
        "#,
        id as _,
    )
    .fetch_optional(db)
    .await
}
