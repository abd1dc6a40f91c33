//! SQL of holds.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::Error;
use crate::ids::{CustomerId, GrantId, HoldId};
use crate::tokens::Tokens;
use crate::tokens::ledger::{Account, Allocation};
use crate::tokens::reserve::{Hold, HoldRule, HoldStatus};

/// A hold as it is stored.
struct HoldRow {
    customer_id: CustomerId,
    id: HoldId,
    principal: String,
    status: HoldStatus,
    on_expiry: HoldRule,
    lot_ids: Vec<Uuid>,
    lot_tokens: Vec<i64>,
    settled: i64,
    reported: i64,
    description: String,
    metadata: Value,
    expires_at: DateTime<Utc>,
    created_at: DateTime<Utc>,
}

impl HoldRow {
    fn into_hold(self) -> Hold {
        let parts = self.lot_ids.into_iter().zip(self.lot_tokens);
        Hold {
            id: self.id,
            principal: self.principal,
            status: self.status,
            on_expiry: self.on_expiry,
            parts: parts
                .map(|(lot, tokens)| Allocation {
                    lot: GrantId::from(lot),
                    tokens: Tokens::from_db(tokens),
                })
                .collect(),
            settled: Tokens::from_db(self.settled),
            reported: Tokens::from_db(self.reported),
            description: self.description,
            metadata: self.metadata,
            expires_at: self.expires_at,
            created_at: self.created_at,
            is_changed: false,
        }
    }
}

/// The open holds of these customers, oldest first.
pub(super) async fn open(
    db: &mut PgConnection,
    customers: &[Uuid],
) -> sqlx::Result<Vec<(CustomerId, Hold)>> {
    let rows = sqlx::query_as!(
        HoldRow,
        r#"
        select customer_id as "customer_id: CustomerId", id as "id: HoldId", principal,
               status as "status: HoldStatus", on_expiry as "on_expiry: HoldRule", lot_ids,
               lot_tokens, settled, reported, description, metadata, expires_at, created_at
        from holds
        where customer_id = any($1)
          and status = 'open'
        order by customer_id, id
        "#,
        customers,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.customer_id, row.into_hold())).collect())
}

/// Holds by their ids, open or not.
pub(in crate::tokens) async fn named(
    db: &mut PgConnection,
    names: &[(CustomerId, HoldId)],
) -> sqlx::Result<Vec<(CustomerId, Hold)>> {
    let customers: Vec<Uuid> = names.iter().map(|(customer, _)| customer.uuid()).collect();
    let ids: Vec<Uuid> = names.iter().map(|(_, id)| id.uuid()).collect();
    let rows = sqlx::query_as!(
        HoldRow,
        r#"
        select h.customer_id as "customer_id: CustomerId", h.id as "id: HoldId", h.principal,
               h.status as "status: HoldStatus", h.on_expiry as "on_expiry: HoldRule", h.lot_ids,
               h.lot_tokens, h.settled, h.reported, h.description, h.metadata, h.expires_at,
               h.created_at
        from (select distinct * from unnest($1::uuid[], $2::uuid[])) as n (customer_id, id)
        join holds h on h.customer_id = n.customer_id and h.id = n.id
        "#,
        &customers,
        &ids,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.customer_id, row.into_hold())).collect())
}

/// Saves the holds that were made or changed.
pub(super) async fn save(
    db: &mut PgConnection,
    accounts: &[&Account],
    now: DateTime<Utc>,
) -> Result<(), Error> {
    for account in accounts {
        for hold in account.holds.iter().filter(|hold| hold.is_changed) {
            write(db, account.customer_id, hold, now).await?;
        }
    }
    Ok(())
}

async fn write(
    db: &mut PgConnection,
    customer_id: CustomerId,
    hold: &Hold,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    let lot_ids: Vec<Uuid> = hold.parts.iter().map(|part| part.lot.uuid()).collect();
    let lot_tokens: Vec<i64> = hold.parts.iter().map(|part| part.tokens.to_db()).collect();
    sqlx::query!(
        r#"
        insert into holds
            (customer_id, id, principal, status, on_expiry, lot_ids, lot_tokens, settled, reported,
             description, metadata, expires_at, created_at, updated_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
        on conflict (customer_id, id) do update
        set status = excluded.status, lot_ids = excluded.lot_ids,
            lot_tokens = excluded.lot_tokens, settled = excluded.settled,
            reported = excluded.reported, expires_at = excluded.expires_at,
            updated_at = excluded.updated_at
        "#,
        customer_id as _,
        hold.id as _,
        hold.principal,
        hold.status as _,
        hold.on_expiry as _,
        &lot_ids,
        &lot_tokens,
        hold.settled.to_db(),
        hold.reported.to_db(),
        hold.description,
        hold.metadata,
        hold.expires_at,
        hold.created_at,
        now,
    )
    .execute(db)
    .await
    .map(drop)
}
