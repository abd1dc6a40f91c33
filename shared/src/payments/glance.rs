//! What those who had a payment made must know of it.

use sqlx::PgConnection;

use super::{PaymentStatus, store};
use crate::error::Error;
use crate::ids::{CustomerId, PaymentId};

/// A payment at a glance.
#[derive(Debug, Clone)]
pub struct Glance {
    /// Where it stands.
    pub status: PaymentStatus,
    /// The gateway's word for why it failed.
    pub failure_code: Option<String>,
    /// Whether the gateway made something that may still be paid.
    pub has_object: bool,
}

/// How a payment stands; `None` where it was never made. Joins the caller's transaction.
pub async fn glance(
    db: &mut PgConnection,
    customer_id: CustomerId,
    id: PaymentId,
) -> Result<Option<Glance>, Error> {
    Ok(store::glance::of(db, customer_id, id).await?)
}

/// Whether any of the customer's payments is contested now. Joins the caller's transaction.
pub async fn has_open_dispute(
    db: &mut PgConnection,
    customer_id: CustomerId,
) -> Result<bool, Error> {
    Ok(store::glance::has_open_dispute(db, customer_id).await?)
}
