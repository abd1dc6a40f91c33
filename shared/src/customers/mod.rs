//! The application's users, as billing knows them.

mod store;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::error::Error;
use crate::ids::CustomerId;

/// Who a customer is, as the application says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Our key, derived from `external_id`.
    pub id: CustomerId,
    /// The application's id of the user.
    pub external_id: String,
    /// Address, where the application told us.
    pub email: Option<String>,
    /// Name, where the application told us.
    pub name: Option<String>,
}

/// Makes the customer's row if there is none, then locks it until the transaction ends.
///
/// The row is the mutex of all the customer's payment and subscription operations.
pub async fn ensure_locked(
    db: &mut PgConnection,
    identity: &Identity,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    store::upsert(db, identity, now).await?;
    lock(db, identity.id).await
}

/// Who a customer is, as billing last heard.
pub async fn identity(db: &mut PgConnection, id: CustomerId) -> Result<Identity, Error> {
    store::find(db, id).await?.ok_or(Error::NotFound("customer"))
}

/// Locks the customer's row until the transaction ends.
pub async fn lock(db: &mut PgConnection, id: CustomerId) -> Result<(), Error> {
    store::lock(db, id).await?.ok_or(Error::NotFound("customer"))
}
