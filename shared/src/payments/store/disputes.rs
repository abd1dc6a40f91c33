//! SQL of disputes.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::gateways::{DisputeKind, DisputeStage, DisputeState, GatewayName};
use crate::ids::DisputeId;
use crate::payments::Payment;
use crate::payments::facts::KnownDispute;

/// Inserts a dispute or moves the one we have to `stage` and `amount_minor`; whoever calls holds
/// the payment's lock and has merged.
pub(in crate::payments) async fn save(
    db: &mut PgConnection,
    payment: &Payment,
    object_id: &str,
    told: &DisputeState,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        insert into disputes
            (customer_id, id, payment_id, gateway, object_id, gateway_dispute_id, kind,
             amount_minor, stage, reason, created_at, updated_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11)
        on conflict (customer_id, gateway, gateway_dispute_id) do update
        set stage = excluded.stage,
            amount_minor = excluded.amount_minor,
            reason = coalesce(excluded.reason, disputes.reason),
            updated_at = excluded.updated_at
        "#,
        payment.customer_id as _,
        DisputeId::new(now) as _,
        payment.id as _,
        payment.method.gateway() as _,
        object_id,
        told.id,
        told.kind as _,
        told.amount.minor,
        told.stage as _,
        told.reason,
        now,
    )
    .execute(db)
    .await
    .map(drop)
}

/// The stage in which a dispute is known, if it is.
pub(in crate::payments) async fn stage_of(
    db: &mut PgConnection,
    payment: &Payment,
    gateway: GatewayName,
    gateway_dispute_id: &str,
) -> sqlx::Result<Option<DisputeStage>> {
    sqlx::query_scalar!(
        r#"
        select stage as "stage: DisputeStage"
        from disputes
        where customer_id = $1
          and gateway = $2
          and gateway_dispute_id = $3
        "#,
        payment.customer_id as _,
        gateway as _,
        gateway_dispute_id,
    )
    .fetch_optional(db)
    .await
}

/// All disputes of a payment.
pub(in crate::payments) async fn of_payment(
    db: &mut PgConnection,
    payment: &Payment,
) -> sqlx::Result<Vec<KnownDispute>> {
    let rows = sqlx::query!(
        r#"
        select object_id, kind as "kind: DisputeKind", amount_minor, stage as "stage: DisputeStage"
        from disputes
        where customer_id = $1
          and payment_id = $2
        order by created_at, id
        "#,
        payment.customer_id as _,
        payment.id as _,
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| KnownDispute {
            object_id: row.object_id,
            kind: row.kind,
            amount_minor: row.amount_minor,
            stage: row.stage,
        })
        .collect())
}
