//! Payment methods that gateways keep for us, and the gateways' own records of customers.

mod records;
mod setup;
mod store;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

pub use records::{customer_gone, gateway_customer};
pub use setup::{SetupWish, begin, finish};

use crate::App;
use crate::error::Error;
use crate::gateways::{GatewayError, GatewayName, SavedMethod};
use crate::ids::{CustomerId, PaymentMethodId};
use crate::jobs::Job;

/// A saved method, without anything that could pay: the gateway keeps that.
#[derive(Debug, Clone)]
pub struct Method {
    /// Our name for it.
    pub id: PaymentMethodId,
    /// Who keeps it.
    pub gateway: GatewayName,
    /// The gateway's id.
    pub gateway_method_id: String,
    /// The gateway's record of the customer.
    pub gateway_customer: Option<String>,
    /// `card`, `paypal`, or the gateway's own word; empty until it was read.
    pub kind: String,
    /// The card's brand.
    pub brand: Option<String>,
    /// The card's last four digits.
    pub last_four: Option<String>,
    /// The card's last month, 1 … 12.
    pub expires_month: Option<i32>,
    /// The card's last year.
    pub expires_year: Option<i32>,
    /// When it was saved.
    pub created_at: DateTime<Utc>,
}

/// The customer's saved methods, newest first.
pub async fn list(app: &App, customer_id: CustomerId) -> Result<Vec<Method>, Error> {
    Ok(store::list(&app.db, customer_id, None).await?)
}

/// One saved method of the customer.
pub async fn find(
    app: &App,
    customer_id: CustomerId,
    id: PaymentMethodId,
) -> Result<Method, Error> {
    let found = store::list(&app.db, customer_id, Some(id)).await?;
    found.into_iter().next().ok_or(Error::NotFound("payment method"))
}

/// Whether the customer has a method that renewals can charge.
pub async fn is_on_file(app: &App, customer_id: CustomerId) -> Result<bool, Error> {
    Ok(!list(app, customer_id).await?.is_empty())
}

/// Remembers a method that a gateway saved; asks for its details in a job. Once per gateway id.
///
/// Joins the caller's transaction.
pub async fn remember(
    db: &mut PgConnection,
    customer_id: CustomerId,
    (gateway, gateway_method_id, gateway_customer): (GatewayName, &str, Option<&str>),
    now: DateTime<Utc>,
) -> Result<Option<Job>, Error> {
    if !store::own(db, gateway, gateway_method_id, customer_id, now).await? {
        tracing::error!(gateway = gateway.as_str(), "a saved method belongs to another customer");
        return Ok(None);
    }
    let id = PaymentMethodId::new(now);
    let saved = (gateway, gateway_method_id, gateway_customer);
    let is_new = store::insert(db, customer_id, id, saved, now).await?;
    Ok(is_new.then(|| Job::read_method(customer_id, id, now)))
}

/// Reads a method's details from its gateway. May be repeated.
pub async fn read(app: &App, customer_id: CustomerId, id: PaymentMethodId) -> Result<(), Error> {
    let method = match find(app, customer_id, id).await {
        Err(Error::NotFound(_)) => return Ok(()),
        found => found?,
    };
    let told = app.gateways.get(method.gateway)?.fetch_method(&method.gateway_method_id).await;
    let mut db = app.db.acquire().await?;
    match told {
        Ok(saved) => {
            let now = app.clock.now();
            Ok(store::save_details(&mut db, customer_id, method.gateway, &saved, now).await?)
        }
        Err(GatewayError::NotFound) => {
            let gone = (method.gateway, method.gateway_method_id.as_str());
            Ok(store::set_detached(&mut db, customer_id, gone, app.clock.now()).await?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Reads a method that an event names, where we know whose it is, by its id or by the customer
/// who paid the order that it names.
pub async fn read_named(
    app: &App,
    gateway: GatewayName,
    gateway_method_id: &str,
    payer: Option<CustomerId>,
) -> Result<bool, Error> {
    let mut db = app.db.acquire().await?;
    let owner = store::owner(&mut db, gateway, gateway_method_id).await?;
    let Some(customer_id) = owner.or(payer) else { return Ok(false) };
    drop(db);
    let saved = match app.gateways.get(gateway)?.fetch_method(gateway_method_id).await {
        Ok(saved) => saved,
        Err(GatewayError::NotFound) => return Ok(true),
        Err(error) => return Err(error.into()),
    };
    keep(app, customer_id, gateway, &saved).await?;
    Ok(true)
}

/// Remembers a method together with its details.
async fn keep(
    app: &App,
    customer_id: CustomerId,
    gateway: GatewayName,
    saved: &SavedMethod,
) -> Result<(), Error> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    let named = (gateway, saved.id.as_str(), saved.gateway_customer.as_deref());
    remember(&mut tx, customer_id, named, now).await?;
    store::save_details(&mut tx, customer_id, gateway, saved, now).await?;
    Ok(tx.commit().await?)
}

/// A gateway says that a method is gone; one we do not know is no news.
pub async fn gone(
    db: &mut PgConnection,
    gateway: GatewayName,
    gateway_method_id: &str,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    if let Some(customer_id) = store::owner(db, gateway, gateway_method_id).await? {
        store::set_detached(db, customer_id, (gateway, gateway_method_id), now).await?;
    }
    Ok(())
}

/// Drops all of a customer's saved methods here: a lost dispute says that they are not to be
/// charged again.
pub async fn drop_all(
    db: &mut PgConnection,
    customer_id: CustomerId,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    Ok(store::detach_all(db, customer_id, now).await?)
}

/// Makes the gateway forget a method, then us. May be repeated.
pub async fn detach(app: &App, customer_id: CustomerId, id: PaymentMethodId) -> Result<(), Error> {
    let method = find(app, customer_id, id).await?;
    app.gateways.get(method.gateway)?.detach_method(&method.gateway_method_id).await?;
    let mut db = app.db.acquire().await?;
    let gone = (method.gateway, method.gateway_method_id.as_str());
    Ok(store::set_detached(&mut db, customer_id, gone, app.clock.now()).await?)
}

/// Methods whose details are still to be read: their doorbell was lost.
pub async fn to_read(app: &App, now: DateTime<Utc>) -> Result<Vec<Job>, Error> {
    let unread = store::unread(&app.db, now - chrono::Duration::seconds(5), 100).await?;
    let job = |(customer_id, method_id)| Job::read_method(customer_id, method_id, now);
    Ok(unread.into_iter().map(job).collect())
}
