//! Where a payer's browser goes after the gateway: allow-listed origins only.

use url::Url;

use super::store;
use crate::App;
use crate::config::Config;
use crate::error::Error;
use crate::gateways::GatewayName;
use crate::ids::{CustomerId, PaymentId};

/// Refuses a target whose origin is not allow-listed (an open redirect otherwise).
pub(super) fn checked(
    config: &Config,
    field: &'static str,
    target: Option<&str>,
) -> Result<(), Error> {
    match target {
        Some(target) if !is_allowed(config, target) => {
            Err(Error::invalid(field, "its origin is not in REDIRECT_ORIGINS"))
        }
        Some(_) | None => Ok(()),
    }
}

fn is_allowed(config: &Config, target: &str) -> bool {
    let origin = Url::parse(target).map(|url| url.origin().ascii_serialization());
    target.len() <= 2_000 && origin.is_ok_and(|origin| config.redirect_origins.contains(&origin))
}

/// Our own pages that PayPal sends the browser back to.
pub(super) fn return_urls(config: &Config) -> (String, String) {
    let base = format!("{}/api/v1/billing/paypal", config.public_url);
    (format!("{base}/return/"), format!("{base}/cancel/"))
}

/// A payment's owner, and where its payer's browser goes.
#[derive(Debug, Clone)]
pub struct Redirect {
    /// The payment's customer.
    pub customer_id: CustomerId,
    /// The payment.
    pub payment_id: PaymentId,
    /// After paying, where the application said so.
    pub success_url: Option<String>,
    /// After cancelling, where the application said so.
    pub cancel_url: Option<String>,
}

/// Finds the payment of a PayPal order that a browser brings back. Targets are checked again:
/// the list may have changed since.
pub async fn redirect_of(app: &App, order_id: &str) -> Result<Redirect, Error> {
    let mut db = app.db.acquire().await?;
    let (customer_id, payment_id) = store::owner(&mut db, GatewayName::Paypal, order_id)
        .await?
        .ok_or(Error::NotFound("order"))?;
    let (success_url, cancel_url) = store::redirects(&mut db, customer_id, payment_id).await?;
    let allowed = |url: Option<String>| url.filter(|url| is_allowed(&app.config, url));
    Ok(Redirect {
        customer_id,
        payment_id,
        success_url: allowed(success_url),
        cancel_url: allowed(cancel_url),
    })
}
