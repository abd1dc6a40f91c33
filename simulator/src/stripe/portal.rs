//! The customer portal: a page on which customers see and remove the cards kept of them.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::StripeError;
use super::form::Params;
use super::{customers, methods};
use crate::ids;
use crate::table::Row;
use crate::world::Turn;

/// A way into the portal for one customer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Portal {
    id: String,
    created: i64,
    pub(crate) customer: String,
    pub(crate) return_url: Option<String>,
    configuration: String,
    locale: Option<String>,
    page: String,
}

impl Row for Portal {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Portal {
    fn json(&self) -> Value {
        json!({
            "id": self.id,
            "object": "billing_portal.session",
            "configuration": self.configuration,
            "created": self.created,
            "customer": self.customer,
            "customer_account": null,
            "flow": null,
            "livemode": false,
            "locale": self.locale,
            "on_behalf_of": null,
            "return_url": self.return_url,
            "url": self.page,
        })
    }
}

/// `POST /v1/billing_portal/sessions`
pub(super) fn create(turn: &mut Turn<'_>, mut params: Params) -> Result<Value, StripeError> {
    let customer = params.required("customer")?;
    let return_url = params.text("return_url")?;
    let configuration = params.text("configuration")?;
    let locale = params.text("locale")?;
    params.finish()?;
    customers::check(&turn.world.stripe, &customer)?;
    if return_url.as_ref().is_some_and(|url| url::Url::parse(url).is_err()) {
        let error = StripeError::invalid("Not a valid URL").code("url_invalid");
        return Err(error.param("return_url"));
    }
    let id = ids::stripe("bps");
    let portal = Portal {
        created: turn.unix(),
        customer,
        return_url,
        configuration: configuration.unwrap_or_else(|| "bpc_1Simulator".into()),
        locale,
        page: format!("{}/p/session/{id}", turn.core.stripe_url),
        id,
    };
    turn.effects.push(portal.id.clone());
    let json = portal.json();
    turn.world.stripe.portals.insert(portal);
    Ok(json)
}

/// Removes a card as its owner does on the page.
pub(crate) fn remove(turn: &mut Turn<'_>, portal: &str, method: &str) -> Result<(), StripeError> {
    let books = &turn.world.stripe;
    let missing = || StripeError::missing("PaymentMethod", method, "id");
    let customer = books.portals.find(portal).map(|portal| portal.customer.as_str());
    let owner = books.methods.find(method).and_then(|method| method.customer.as_deref());
    if owner.is_none() || owner != customer {
        return Err(missing());
    }
    methods::remove(turn, method).map(|_| ())
}

/// Returns the address of a customer, for their page.
pub(crate) fn email(turn: &Turn<'_>, customer: &str) -> Option<String> {
    customers::email(&turn.world.stripe, customer)
}
