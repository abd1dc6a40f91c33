//! SQL of accounts and entries; lots, holds, and whole batches have files of their own.

pub(super) mod anchors;
pub(super) mod batch;
pub(super) mod entries;
pub(super) mod holds;
pub(super) mod lots;
pub(super) mod seal;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

use super::Tokens;
use super::grant::Access;
use super::ledger::Account;
use super::usage::Usage;
use crate::error::Error;
use crate::ids::{CustomerId, EntryId, SubscriptionId};

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
    Ok(batch::lock(db, &[customer_id]).await?.remove(&customer_id))
}

/// Saves what was booked: entries, lots, account. The account must be locked.
pub(super) async fn save(
    db: &mut PgConnection,
    account: &Account,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    batch::save(db, &[account], now).await
}

/// Accounts on which something is due, the longest overdue first.
pub(super) async fn due(
    db: &mut PgConnection,
    now: DateTime<Utc>,
    limit: i64,
) -> sqlx::Result<Vec<CustomerId>> {
    sqlx::query_scalar!(
        r#"
        select customer_id as "customer_id: CustomerId"
        from token_accounts
        where next_due_at <= $1
        order by next_due_at
        limit $2
        "#,
        now,
        limit,
    )
    .fetch_all(db)
    .await
}

/// What was consumed in all before `at`.
pub(super) async fn used_before(
    db: &mut PgConnection,
    customer_id: CustomerId,
    at: DateTime<Utc>,
) -> sqlx::Result<Tokens> {
    let used = sqlx::query_scalar!(
        r#"
        select used_after
        from ledger_entries
        where customer_id = $1
          and kind = 'consumed'
          and created_at < $2
        order by created_at desc, seq desc
        limit 1
        "#,
        customer_id as _,
        at,
    )
    .fetch_optional(db)
    .await?;
    Ok(used.map_or(Tokens::ZERO, Tokens::from_db))
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
        set subscription_id = $2, is_active = $3, spendable_until = $4, paused_until = $5,
            overdraft_tokens = $6, low_at = $7, updated_at = $8
        where customer_id = $1
        "#,
        customer_id as _,
        access.subscription_id as _,
        access.is_active,
        access.spendable_until,
        access.paused_until,
        access.overdraft.to_db(),
        access.low_at.map(Tokens::to_db),
        now,
    )
    .execute(db)
    .await?;
    assert_eq!(updated.rows_affected(), 1, "the account was just ensured");
    Ok(())
}

/// Writes whose terms hold, and until when.
pub(super) async fn set_end(
    db: &mut PgConnection,
    customer_id: CustomerId,
    end: (SubscriptionId, Option<DateTime<Utc>>),
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let updated = sqlx::query!(
        r#"
        update token_accounts
        set subscription_id = $2, is_active = true, spendable_until = $3, updated_at = $4
        where customer_id = $1
        "#,
        customer_id as _,
        end.0 as _,
        end.1,
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
