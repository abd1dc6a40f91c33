//! Where a payer's browser goes after the gateway: allow-listed origins only.

use url::Url;

use super::{Payment, store};
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

/// Our own pages that the gateway sends the payer's browser back to; they go on to the
/// application's. PayPal names its order there by itself, a hosted page of Stripe's is told what
/// to name.
pub(super) fn return_urls(config: &Config, payment: &Payment) -> (String, String) {
    let base = format!("{}/api/v1/billing", config.public_url);
    match payment.method.gateway() {
        GatewayName::Paypal => (format!("{base}/paypal/return/"), format!("{base}/paypal/cancel/")),
        GatewayName::Stripe | GatewayName::Manual => (
            format!("{base}/stripe/return/?payment={}", payment.id),
            format!("{base}/stripe/cancel/?payment={}", payment.id),
        ),
    }
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

impl Redirect {
    /// Targets are checked again: the list may have changed since the purchase.
    fn of(config: &Config, payment: Payment) -> Self {
        let allowed = |url: Option<String>| url.filter(|url| is_allowed(config, url));
        Self {
            customer_id: payment.customer_id,
            payment_id: payment.id,
            success_url: allowed(payment.success_url),
            cancel_url: allowed(payment.cancel_url),
        }
    }
}

/// Finds the payment of a PayPal order that a browser brings back.
pub async fn redirect_of(app: &App, order_id: &str) -> Result<Redirect, Error> {
    let mut db = app.db.acquire().await?;
    let (customer_id, payment_id) = store::owner(&mut db, GatewayName::Paypal, order_id)
        .await?
        .ok_or(Error::NotFound("order"))?;
    let payment = store::find(&mut db, customer_id, payment_id).await?;
    Ok(Redirect::of(&app.config, payment.ok_or(Error::NotFound("payment"))?))
}

/// Finds the payment that a hosted page's browser brings back. Its id is no secret: nothing is
/// told of it but where the browser goes.
pub async fn redirect_of_payment(app: &App, payment_id: PaymentId) -> Result<Redirect, Error> {
    let mut db = app.db.acquire().await?;
    let payment = store::find_by_id(&mut db, payment_id).await?;
    Ok(Redirect::of(&app.config, payment.ok_or(Error::NotFound("payment"))?))
}

/// The target if its origin is allow-listed.
pub fn allowed(config: &Config, target: Option<String>) -> Option<String> {
    target.filter(|target| is_allowed(config, target))
}

/// Where a customer's browser comes back to from saving a method: (after, after cancelling).
///
/// PayPal's comes back to a page of ours, which keeps the method and goes on from there.
pub fn setup_urls(
    app: &App,
    gateway: GatewayName,
    target: Option<&str>,
) -> Result<(String, String), Error> {
    checked(&app.config, "return_url", target)?;
    let base = format!("{}/api/v1/billing", app.config.public_url);
    let page = match gateway {
        GatewayName::Paypal => format!("{base}/paypal/setup/"),
        GatewayName::Stripe | GatewayName::Manual => format!("{base}/payment-methods/"),
    };
    let mut page = Url::parse(&page).map_err(|_| Error::invalid("return_url", "no address"))?;
    if let Some(target) = target {
        page.query_pairs_mut().append_pair("to", target);
    }
    Ok((page.to_string(), target.map_or_else(|| page.to_string(), str::to_owned)))
}

/// Where a customer's browser comes back to from the gateway's portal.
pub fn portal_return(app: &App, target: Option<&str>) -> Result<String, Error> {
    checked(&app.config, "return_url", target)?;
    Ok(target.map_or_else(|| app.config.public_url.clone(), str::to_owned))
}
