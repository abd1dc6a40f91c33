//! SQL of payments at a glance.

use sqlx::PgConnection;

use crate::ids::{CustomerId, PaymentId};
use crate::payments::PaymentStatus;
use crate::payments::glance::Glance;

/// How a payment stands.
pub(in crate::payments) async fn of(
    db: &mut PgConnection,
    customer_id: CustomerId,
    id: PaymentId,
) -> sqlx::Result<Option<Glance>> {
    sqlx::query_as!(
        Glance,
        r#"
        select status as "status: PaymentStatus", failure_code,
               gateway_reference is not null as "has_object!"
        from payments
        where customer_id = $1
          and id = $2
        "#,
        customer_id as _,
        id as _,
    )
    .fetch_optional(db)
    .await
}

/// Whether a dispute of the customer's is open.
pub(in crate::payments) async fn has_open_dispute(
    db: &mut PgConnection,
    customer_id: CustomerId,
) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"
        select exists (select from disputes where customer_id = $1 and stage = 'open') as "is!"
        "#,
        customer_id as _,
    )
    .fetch_one(db)
    .await
}
