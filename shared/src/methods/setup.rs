//! Saving a method without a purchase.

use super::{gateway_customer, keep, store};
use crate::App;
use crate::customers::Identity;
use crate::error::Error;
use crate::gateways::{GatewayName, Setup, SetupRequest};
use crate::ids::PaymentMethodId;

/// A wish to save a method.
#[derive(Debug, Clone)]
pub struct SetupWish {
    /// Whose.
    pub customer: Identity,
    /// Who is to keep it.
    pub gateway: GatewayName,
    /// Where his browser comes back to.
    pub return_url: String,
    /// Where it comes back to after cancelling.
    pub cancel_url: String,
}

/// Begins to save a method; the customer finishes it at the gateway.
pub async fn begin(app: &App, wish: &SetupWish) -> Result<Setup, Error> {
    let now = app.clock.now();
    let gateway_customer = match wish.gateway {
        GatewayName::Stripe => Some(gateway_customer(app, &wish.customer, wish.gateway).await?),
        GatewayName::Paypal => {
            let mut tx = app.db.begin().await?;
            crate::customers::ensure_locked(&mut tx, &wish.customer, now).await?;
            tx.commit().await?;
            None
        }
        GatewayName::Manual => {
            return Err(Error::invalid("gateway", "keeps no payment methods"));
        }
    };
    let request = SetupRequest {
        customer_id: wish.customer.id,
        key: format!("setup-{}", PaymentMethodId::new(now)),
        gateway_customer,
        return_url: wish.return_url.clone(),
        cancel_url: wish.cancel_url.clone(),
    };
    let setup = app.gateways.get(wish.gateway)?.begin_setup(&request).await?;
    let mut db = app.db.acquire().await?;
    store::own(&mut db, wish.gateway, &setup.id, wish.customer.id, now).await?;
    Ok(setup)
}

/// Reads a finished setup and keeps its method; false where no setup of ours has that id.
pub async fn finish(app: &App, gateway: GatewayName, setup_id: &str) -> Result<bool, Error> {
    let mut db = app.db.acquire().await?;
    let Some(customer_id) = store::owner(&mut db, gateway, setup_id).await? else {
        return Ok(false);
    };
    drop(db);
    if let Some(saved) = app.gateways.get(gateway)?.finish_setup(setup_id).await? {
        keep(app, customer_id, gateway, &saved).await?;
    }
    Ok(true)
}
