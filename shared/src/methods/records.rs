//! The gateways' own records of our customers, on which their saved methods hang.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::store;
use crate::App;
use crate::customers::{self, Identity};
use crate::error::Error;
use crate::gateways::{CustomerRequest, GatewayError, GatewayName};
use crate::ids::CustomerId;

/// The gateway's record of a customer, made if there is none. May be repeated: its number is in
/// the idempotency key.
pub async fn gateway_customer(
    app: &App,
    identity: &Identity,
    gateway: GatewayName,
) -> Result<String, Error> {
    let attempt = match open(app, identity, gateway).await? {
        Record::Known(id) => return Ok(id),
        Record::Unanswered(attempt) => attempt,
    };
    let request = CustomerRequest {
        customer_id: identity.id,
        attempt,
        external_id: identity.external_id.clone(),
        email: identity.email.clone(),
        name: identity.name.clone(),
    };
    let id = match app.gateways.get(gateway)?.create_customer(&request).await {
        Err(GatewayError::Bug { code }) => {
            // His name changed since a creation that was never answered: a new key for it.
            let mut db = app.db.acquire().await?;
            store::give_up_record(&mut db, identity.id, (gateway, attempt)).await?;
            return Err(GatewayError::Unavailable(code).into());
        }
        created => created?,
    };
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    if !store::own(&mut tx, gateway, &id, identity.id, now).await? {
        tracing::error!(gateway = gateway.as_str(), "a gateway's customer is somebody else's");
        return Err(Error::Conflict("the gateway's record is of another customer".to_owned()));
    }
    store::set_record(&mut tx, identity.id, (gateway, attempt), &id).await?;
    tx.commit().await?;
    Ok(id)
}

enum Record {
    Known(String),
    /// Its creation was not answered (yet).
    Unanswered(u32),
}

async fn open(app: &App, identity: &Identity, gateway: GatewayName) -> Result<Record, Error> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    customers::ensure_locked(&mut tx, identity, now).await?;
    let newest = store::newest_record(&mut tx, identity.id, gateway).await?;
    let attempt = match newest {
        Some(record) if record.is_gone => record.attempt + 1,
        Some(record) => {
            tx.commit().await?;
            return Ok(record.gateway_customer_id.map_or(
                Record::Unanswered(u32::try_from(record.attempt).expect("the schema checks it")),
                Record::Known,
            ));
        }
        None => 0,
    };
    store::insert_record(&mut tx, identity.id, (gateway, attempt), now).await?;
    tx.commit().await?;
    Ok(Record::Unanswered(u32::try_from(attempt).expect("the schema checks it")))
}

/// The gateway deleted its record of a customer, and his methods with it: nothing can be renewed
/// until he saves one again. One we do not know is no news.
pub async fn customer_gone(
    db: &mut PgConnection,
    gateway: GatewayName,
    gateway_customer_id: &str,
    now: DateTime<Utc>,
) -> Result<Option<CustomerId>, Error> {
    let owner = store::owner(db, gateway, gateway_customer_id).await?;
    if let Some(customer_id) = owner {
        store::set_record_gone(db, customer_id, gateway, gateway_customer_id).await?;
        store::detach_of_record(db, customer_id, (gateway, gateway_customer_id), now).await?;
    }
    Ok(owner)
}
