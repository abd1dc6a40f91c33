//! Customers and the payment methods that Stripe keeps for us.

use serde::{Deserialize, Serialize};
use stripe_client_core::{RequestBuilder, StripeMethod, StripeRequest};
use stripe_core::customer::CreateCustomer;
use stripe_core::setup_intent::{
    CreateSetupIntent, CreateSetupIntentAutomaticPaymentMethods, CreateSetupIntentUsage,
    RetrieveSetupIntent,
};

use super::Stripe;
use super::errors::{Failure, Unreadable};
use super::objects::{self, Link, Named};
use crate::gateways::{CustomerRequest, GatewayError, Next, SavedMethod, Setup, SetupRequest};

/// A saved method.
#[derive(Deserialize)]
struct Method {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    customer: Option<Link>,
    card: Option<Card>,
}

#[derive(Deserialize)]
struct Card {
    brand: Option<String>,
    last4: Option<String>,
    exp_month: Option<u32>,
    exp_year: Option<i32>,
}

impl Method {
    /// Our words for it; `None` once it is detached: nobody can be charged with it again.
    fn saved(self) -> Result<Option<SavedMethod>, Unreadable> {
        let Some(customer) = self.customer.and_then(Link::into_id) else { return Ok(None) };
        let (brand, last_four, expires) = match self.card {
            Some(card) => {
                let month = card.exp_month.filter(|month| (1..=12).contains(month));
                (objects::word(card.brand), objects::word(card.last4), month.zip(card.exp_year))
            }
            None => (None, None, None),
        };
        Ok(Some(SavedMethod {
            payer: None,
            id: objects::storable(self.id)?,
            gateway_customer: Some(customer),
            kind: objects::storable(self.kind)?,
            brand,
            last_four,
            expires,
        }))
    }
}

/// A setup intent as it is made.
#[derive(Deserialize)]
struct Begun {
    id: String,
    client_secret: Option<String>,
}

/// A setup intent as it is read.
#[derive(Deserialize)]
struct Read {
    status: String,
    payment_method: Option<Link<Method>>,
}

#[derive(Serialize)]
struct OpenPortal<'a> {
    customer: &'a str,
    return_url: &'a str,
}

#[derive(Deserialize)]
struct Portal {
    url: String,
}

impl Stripe {
    /// Makes Stripe's record of a customer. One too many is harmless: nothing hangs on it.
    pub(super) async fn make_customer(
        &self,
        request: &CustomerRequest,
    ) -> Result<String, GatewayError> {
        let mut create =
            CreateCustomer::new().metadata([("user_id".to_owned(), request.external_id.clone())]);
        if let Some(email) = &request.email {
            create = create.email(email);
        }
        if let Some(name) = &request.name {
            create = create.name(name);
        }
        let key = format!("customer:{}:{}", request.customer_id, request.attempt);
        let customer: Named = self.open(&key, &create.build()).await?;
        Ok(objects::storable(customer.id)?)
    }

    /// Makes a setup intent, which the front end confirms.
    pub(super) async fn open_setup(&self, request: &SetupRequest) -> Result<Setup, GatewayError> {
        let Some(customer) = &request.gateway_customer else {
            return Err(GatewayError::Bug { code: "no_customer".to_owned() });
        };
        let create = CreateSetupIntent::new()
            .customer(customer)
            .usage(CreateSetupIntentUsage::OffSession)
            .automatic_payment_methods(CreateSetupIntentAutomaticPaymentMethods::new(true))
            .metadata([("customer_id".to_owned(), request.customer_id.to_string())]);
        let begun: Begun = self.open(&request.key, &create.build()).await?;
        let next =
            begun.client_secret.map_or(Next::Nothing, |secret| Next::ClientSecret(secret.into()));
        Ok(Setup { id: objects::storable(begun.id)?, next })
    }

    /// The method of a setup that succeeded.
    pub(super) async fn read_setup(&self, id: &str) -> Result<Option<SavedMethod>, GatewayError> {
        let read = RetrieveSetupIntent::new(id).expand(["payment_method".to_owned()]);
        let setup: Read = self.transport.without_key().ask(&read).await?;
        match (setup.status.as_str(), setup.payment_method) {
            ("succeeded", Some(Link::Expanded(method))) => {
                // Detached since: gone.
                method.saved()?.map(Some).ok_or(GatewayError::NotFound)
            }
            ("succeeded", _) => Err(Unreadable("the setup's method".to_owned()).into()),
            ("canceled", _) => Err(GatewayError::Refused { code: "canceled".to_owned() }),
            _ => Ok(None),
        }
    }

    /// A saved method.
    pub(super) async fn read_method(&self, id: &str) -> Result<SavedMethod, GatewayError> {
        let call = RequestBuilder::new(StripeMethod::Get, format!("/payment_methods/{id}"));
        let method: Method = self.transport.without_key().send(&call).await?;
        method.saved()?.ok_or(GatewayError::NotFound)
    }

    /// Detaches a method. Stripe refuses that where it is done already: then it is read.
    pub(super) async fn forget_method(&self, id: &str) -> Result<(), GatewayError> {
        let path = format!("/payment_methods/{id}/detach");
        let call = RequestBuilder::new(StripeMethod::Post, path);
        let key = format!("detach:{id}");
        let answer: Result<Named, Failure> = self.transport.with_key(&key).send(&call).await;
        let Err(failure) = answer else { return Ok(()) };
        if !failure.refusal().is_some_and(|refusal| (400..500).contains(&refusal.status)) {
            return Err(failure.into());
        }
        match self.read_method(id).await {
            Err(GatewayError::NotFound) => Ok(()),
            Ok(_) => Err(failure.into()),
            Err(error) => Err(error),
        }
    }

    /// Opens Stripe's own page for a customer's methods. Each call makes a page that ends by
    /// itself, so no key is needed.
    pub(super) async fn open_portal(
        &self,
        customer: &str,
        return_url: &str,
    ) -> Result<String, GatewayError> {
        let call = RequestBuilder::new(StripeMethod::Post, "/billing_portal/sessions")
            .form(&OpenPortal { customer, return_url });
        let portal: Portal = self.transport.without_key().send(&call).await?;
        Ok(portal.url)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn saved(more: &Value) -> Option<SavedMethod> {
        let mut method = json!({ "id": "pm_1", "type": "card", "customer": "cus_1" });
        for (name, value) in more.as_object().unwrap() {
            method[name] = value.clone();
        }
        serde_json::from_value::<Method>(method).unwrap().saved().unwrap()
    }

    #[test]
    fn a_card_is_told_by_brand_last_digits_and_end() {
        let card = json!({ "brand": "visa", "last4": "4242", "exp_month": 8, "exp_year": 2030 });
        let method = saved(&json!({ "card": card })).unwrap();
        assert_eq!((method.brand.as_deref(), method.expires), (Some("visa"), Some((8, 2030))));
        assert_eq!(method.last_four.as_deref(), Some("4242"));
    }

    #[test]
    fn a_method_of_nobody_is_gone() {
        assert_eq!(saved(&json!({ "customer": null })), None);
        assert!(saved(&json!({ "type": "sepa_debit" })).unwrap().brand.is_none());
    }
}
