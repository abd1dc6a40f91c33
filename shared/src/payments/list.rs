//! Payments as their customer sees them.

use chrono::{DateTime, Utc};

use super::{PaymentMethod, PaymentStatus, store};
use crate::App;
use crate::error::Error;
use crate::ids::{CustomerId, PaymentId, SubscriptionId};
use crate::money::Money;

/// One payment, for lists.
#[derive(Debug, Clone)]
pub struct PaymentView {
    /// The payment.
    pub id: PaymentId,
    /// The application's id of the user.
    pub external_id: String,
    /// His address, where known.
    pub email: Option<String>,
    /// What the capture opened or extended.
    pub subscription_id: Option<SubscriptionId>,
    /// The plan that was bought.
    pub plan_id: i32,
    /// Its name.
    pub plan_name: String,
    /// What was asked.
    pub amount: Money,
    /// When the money arrived.
    pub completed_at: Option<DateTime<Utc>>,
    /// How the customer pays.
    pub method: PaymentMethod,
    /// Where it stands.
    pub status: PaymentStatus,
    /// The gateway's id.
    pub gateway_reference: Option<String>,
    /// Why it was declined.
    pub failure: Option<String>,
    /// What was sent back.
    pub refunded: Money,
    /// When it was asked.
    pub created_at: DateTime<Utc>,
    /// When it changed.
    pub updated_at: DateTime<Utc>,
}

/// The customer's newest payments, at most `limit`.
pub async fn list(
    app: &App,
    customer_id: CustomerId,
    limit: i64,
) -> Result<Vec<PaymentView>, Error> {
    Ok(store::list(&app.db, customer_id, None, limit).await?)
}

/// One payment of the customer.
pub async fn find(app: &App, customer_id: CustomerId, id: PaymentId) -> Result<PaymentView, Error> {
    let found = store::list(&app.db, customer_id, Some(id), 1).await?;
    found.into_iter().next().ok_or(Error::NotFound("payment"))
}
