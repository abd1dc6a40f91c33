//! SQL of holds.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::Error;
use crate::ids::{CustomerId, GrantId, HoldId};
use crate::tokens::Tokens;
use crate::tokens::ledger::Account;
use crate::tokens::lot::Allocation;
use crate::tokens::reserve::{Hold, HoldRule, HoldStatus};

/// A hold as it is stored.
#[derive(Debug, Deserialize)]
pub(super) struct HoldRow {
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
    pub(super) fn into_hold(self) -> Hold {
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

/// Saves the holds that were made or changed. What each still reserves lies in two long arrays, of
/// which it takes its slice.
pub(super) async fn save(
    db: &mut PgConnection,
    accounts: &[&Account],
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let column = HoldColumns::of(accounts);
    if column.ids.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        r#"
        insert into holds
            (customer_id, id, principal, status, on_expiry, lot_ids, lot_tokens, settled, reported,
             description, metadata, expires_at, created_at, updated_at)
        select t.customer_id, t.id, t.principal, t.status::hold_status, t.on_expiry::hold_rule,
               ($6::uuid[])[t.lots_from:t.lots_to], ($7::bigint[])[t.lots_from:t.lots_to],
               t.settled, t.reported, t.description, t.metadata, t.expires_at, t.created_at, $16
        from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $8::bigint[],
                    $9::bigint[], $10::text[], $11::jsonb[], $12::timestamptz[],
                    $13::timestamptz[], $14::integer[], $15::integer[])
            as t (customer_id, id, principal, status, on_expiry, settled, reported, description,
                  metadata, expires_at, created_at, lots_from, lots_to)
        on conflict (customer_id, id) do update
        set status = excluded.status, lot_ids = excluded.lot_ids,
            lot_tokens = excluded.lot_tokens, settled = excluded.settled,
            reported = excluded.reported, expires_at = excluded.expires_at,
            updated_at = excluded.updated_at
        "#,
        &column.customer_ids,
        &column.ids,
        &column.principals,
        &column.statuses,
        &column.rules,
        &column.lot_ids,
        &column.lot_tokens,
        &column.settled,
        &column.reported,
        &column.descriptions,
        &column.metadata,
        &column.expires_at,
        &column.created_at,
        &column.lots_from,
        &column.lots_to,
        now,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Holds, column by column.
#[derive(Default)]
struct HoldColumns {
    customer_ids: Vec<Uuid>,
    ids: Vec<Uuid>,
    principals: Vec<String>,
    statuses: Vec<String>,
    rules: Vec<String>,
    settled: Vec<i64>,
    reported: Vec<i64>,
    descriptions: Vec<String>,
    metadata: Vec<Value>,
    expires_at: Vec<DateTime<Utc>>,
    created_at: Vec<DateTime<Utc>>,
    lot_ids: Vec<Uuid>,
    lot_tokens: Vec<i64>,
    lots_from: Vec<i32>,
    lots_to: Vec<i32>,
}

impl HoldColumns {
    fn of(accounts: &[&Account]) -> Self {
        let mut columns = Self::default();
        for account in accounts {
            for hold in account.holds.iter().filter(|hold| hold.is_changed) {
                columns.push(account.customer_id, hold);
            }
        }
        columns
    }

    fn push(&mut self, customer_id: CustomerId, hold: &Hold) {
        self.customer_ids.push(customer_id.uuid());
        self.ids.push(hold.id.uuid());
        self.principals.push(hold.principal.clone());
        self.statuses.push(hold.status.as_str().to_owned());
        self.rules.push(hold.on_expiry.as_str().to_owned());
        self.settled.push(hold.settled.to_db());
        self.reported.push(hold.reported.to_db());
        self.descriptions.push(hold.description.clone());
        self.metadata.push(hold.metadata.clone());
        self.expires_at.push(hold.expires_at);
        self.created_at.push(hold.created_at);
        let place = |lots: &[Uuid]| i32::try_from(lots.len()).expect("a batch is small");
        self.lots_from.push(place(&self.lot_ids) + 1);
        self.lot_ids.extend(hold.parts.iter().map(|part| part.lot.uuid()));
        self.lot_tokens.extend(hold.parts.iter().map(|part| part.tokens.to_db()));
        self.lots_to.push(place(&self.lot_ids));
    }
}
