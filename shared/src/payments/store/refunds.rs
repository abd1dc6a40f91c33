//! SQL of refunds.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

use crate::error::Error;
use crate::gateways::{GatewayName, RefundStatus};
use crate::ids::{CustomerId, PaymentId, RefundId};
use crate::payments::facts::KnownRefund;
use crate::payments::refund::Refund;
use crate::payments::{Payment, RefundChoice, RefundOrigin};

/// Selects whole refunds; the rest of the statement follows.
macro_rules! select_refunds {
    ($tail:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            Refund,
            r#"
            select customer_id as "customer_id: CustomerId", id as "id: RefundId",
                   payment_id as "payment_id: PaymentId", gateway as "gateway: GatewayName",
                   object_id, gateway_refund_id, amount_minor, choice as "choice: RefundChoice",
                   origin as "origin: RefundOrigin", status as "status: RefundStatus",
                   failure_code, reason, requested_by, attempts, created_at
            from refunds
            "# + $tail
            $(, $argument)*
        )
    };
}

/// Inserts a refund; the gateway is asked from `next_attempt_at` on.
pub(in crate::payments) async fn insert(
    db: &mut PgConnection,
    refund: &Refund,
    next_attempt_at: Option<DateTime<Utc>>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        insert into refunds
            (customer_id, id, payment_id, gateway, object_id, gateway_refund_id, amount_minor,
             choice, origin, status, failure_code, reason, requested_by, next_attempt_at,
             created_at, updated_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $15)
        "#,
        refund.customer_id as _,
        refund.id as _,
        refund.payment_id as _,
        refund.gateway as _,
        refund.object_id,
        refund.gateway_refund_id,
        refund.amount_minor,
        refund.choice as _,
        refund.origin as _,
        refund.status as _,
        refund.failure_code,
        refund.reason,
        refund.requested_by,
        next_attempt_at,
        refund.created_at,
    )
    .execute(db)
    .await
    .map(drop)
}

/// All refunds of a payment, oldest first.
pub(in crate::payments) async fn of_payment(
    db: &mut PgConnection,
    payment: &Payment,
) -> sqlx::Result<Vec<Refund>> {
    select_refunds!(
        "where customer_id = $1 and payment_id = $2 order by created_at, id",
        payment.customer_id as _,
        payment.id as _,
    )
    .fetch_all(db)
    .await
}

/// A refund, as committed.
pub(in crate::payments) async fn find(
    db: &mut PgConnection,
    customer_id: CustomerId,
    id: RefundId,
) -> sqlx::Result<Option<Refund>> {
    select_refunds!("where customer_id = $1 and id = $2", customer_id as _, id as _)
        .fetch_optional(db)
        .await
}

/// Saves what the gateway said; `next_attempt_at` of `None` ends the asking.
pub(in crate::payments) async fn save_told(
    db: &mut PgConnection,
    refund: &Refund,
    next_attempt_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let updated = sqlx::query!(
        r#"
        update refunds
        set gateway_refund_id = $3, status = $4, failure_code = $5, attempts = $6,
            next_attempt_at = $7, updated_at = $8
        where customer_id = $1
          and id = $2
        "#,
        refund.customer_id as _,
        refund.id as _,
        refund.gateway_refund_id,
        refund.status as _,
        refund.failure_code,
        refund.attempts,
        next_attempt_at,
        now,
    )
    .execute(db)
    .await?;
    assert_eq!(updated.rows_affected(), 1, "a refund under its payment's lock is there");
    Ok(())
}

/// Saves another amount of a refund that was misread.
pub(in crate::payments) async fn set_amount(
    db: &mut PgConnection,
    refund: &Refund,
    amount_minor: i64,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let updated = sqlx::query!(
        r#"
        update refunds
        set amount_minor = $3, updated_at = $4
        where customer_id = $1
          and id = $2
        "#,
        refund.customer_id as _,
        refund.id as _,
        amount_minor,
        now,
    )
    .execute(db)
    .await?;
    assert_eq!(updated.rows_affected(), 1, "a refund under its payment's lock is there");
    Ok(())
}

/// Refunds whose gateway is to be asked (again).
pub(in crate::payments) async fn due(
    db: &PgPool,
    now: DateTime<Utc>,
    limit: i64,
) -> sqlx::Result<Vec<(CustomerId, RefundId, i32)>> {
    let rows = sqlx::query!(
        r#"
        select customer_id as "customer_id: CustomerId", id as "id: RefundId", attempts
        from refunds
        where next_attempt_at <= $1
        order by next_attempt_at
        limit $2
        "#,
        now,
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.customer_id, row.id, row.attempts)).collect())
}

/// Ends a refund made at the gateway that turned out to be none.
pub(in crate::payments) async fn give_up(
    db: &mut PgConnection,
    payment: &Payment,
    gateway_refund_id: &str,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        update refunds
        set status = 'failed', failure_code = 'reversal', next_attempt_at = null, updated_at = $5
        where customer_id = $1
          and payment_id = $2
          and gateway = $3
          and gateway_refund_id = $4
          and origin = 'gateway'
          and status <> 'failed'
        "#,
        payment.customer_id as _,
        payment.id as _,
        payment.method.gateway() as _,
        gateway_refund_id,
        now,
    )
    .execute(db)
    .await
    .map(drop)
}

impl Refund {
    /// What the rules need of it.
    pub(in crate::payments) fn known(&self) -> KnownRefund {
        KnownRefund {
            object_id: self.object_id.clone(),
            amount_minor: self.amount_minor,
            status: self.status,
            choice: self.choice,
            origin: self.origin,
        }
    }
}
