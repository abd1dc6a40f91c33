//! Moving a payment's lots with their period, and what is left of them.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::store;
use crate::error::Error;
use crate::ids::{CustomerId, PaymentId};

/// Moves a payment's lots to the span of its period: what is not opened yet opens at its start, all
/// end with it. Joins the caller's transaction and locks the account.
pub async fn reschedule(
    db: &mut PgConnection,
    customer_id: CustomerId,
    payment_id: PaymentId,
    span: (DateTime<Utc>, DateTime<Utc>),
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let Some(mut account) = store::lock(db, customer_id).await? else { return Ok(()) };
    account.book_due(now);
    store::save(db, &account, now).await?;
    store::lots::move_lots(db, customer_id, payment_id, span).await?;
    let moved = store::lock(db, customer_id).await?;
    let mut account = moved.expect("the account was just locked");
    account.book_due(now);
    store::save(db, &account, now).await
}

/// What is unused of a payment's lots, as (free tokens, tokens given).
pub async fn unused_of(
    db: &mut PgConnection,
    customer_id: CustomerId,
    payment_id: PaymentId,
    now: DateTime<Utc>,
) -> Result<(u64, u64), Error> {
    Ok(store::lots::unused_of(db, customer_id, payment_id, now).await?)
}

/// Whether the customer has tokens left that never expire.
pub async fn has_lasting(
    db: &mut PgConnection,
    customer_id: CustomerId,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    Ok(store::lots::has_lasting(db, customer_id, now).await?)
}
