//! Saved PayPal accounts: set up, read, forgotten (Payment Method Tokens v3).

use serde::Deserialize;
use serde_json::{Value, json};

use super::PayPal;
use super::links::{self, Link, is_id};
use crate::gateways::{GatewayError, Next, SavedMethod, Setup, SetupRequest};

const SETUPS: &str = "/v3/vault/setup-tokens";
const METHODS: &str = "/v3/vault/payment-tokens";

#[derive(Deserialize)]
struct SetupToken {
    id: String,
    status: Option<String>,
    #[serde(default)]
    links: Vec<Link>,
}

#[derive(Deserialize)]
struct PaymentToken {
    id: String,
    customer: Option<Customer>,
    payment_source: Option<Source>,
}

#[derive(Deserialize)]
struct Customer {
    id: Option<String>,
}

#[derive(Deserialize)]
struct Source {
    card: Option<Card>,
    paypal: Option<Value>,
    venmo: Option<Value>,
}

#[derive(Deserialize)]
struct Card {
    brand: Option<String>,
    last_digits: Option<String>,
    expiry: Option<String>,
}

impl PaymentToken {
    fn into_method(self) -> Result<SavedMethod, GatewayError> {
        if !is_id(&self.id) {
            return Err(GatewayError::Malformed("the saved method's id".to_owned()));
        }
        let source = self.payment_source.as_ref();
        let card = source.and_then(|source| source.card.as_ref());
        let is_venmo = source.is_some_and(|it| it.venmo.is_some() && it.paypal.is_none());
        let kind = match card {
            Some(_) => "card",
            None if is_venmo => "venmo",
            None => "paypal",
        };
        let wallet = source.and_then(|source| source.paypal.as_ref());
        let payer = wallet.and_then(|wallet| wallet["payer_id"].as_str()).map(str::to_owned);
        Ok(SavedMethod {
            payer,
            gateway_customer: self.customer.and_then(|it| it.id).filter(|id| is_id(id)),
            kind: kind.to_owned(),
            brand: card.and_then(|card| card.brand.clone()),
            last_four: card.and_then(|card| card.last_digits.clone()),
            expires: card.and_then(|card| card.expiry.as_deref()).and_then(month),
            id: self.id,
        })
    }
}

/// Reads `2027-02`.
fn month(text: &str) -> Option<(u32, i32)> {
    let (year, month) = text.split_once('-')?;
    let month = month.parse().ok().filter(|month| (1..=12).contains(month))?;
    Some((month, year.parse().ok()?))
}

fn path(folder: &str, id: &str) -> Result<String, GatewayError> {
    if !is_id(id) {
        return Err(GatewayError::NotFound);
    }
    Ok(format!("{folder}/{id}"))
}

impl PayPal {
    /// Opens a setup that the customer approves on PayPal's page.
    pub(super) async fn open_setup(&self, request: &SetupRequest) -> Result<Setup, GatewayError> {
        let mut customer = json!({ "merchant_customer_id": request.customer_id.to_string() });
        if let Some(id) = &request.gateway_customer {
            customer["id"] = json!(id);
        }
        let body = json!({
            "customer": customer,
            "payment_source": { "paypal": {
                "usage_type": "MERCHANT",
                "usage_pattern": "RECURRING_PREPAID",
                "experience_context": {
                    "return_url": request.return_url,
                    "cancel_url": request.cancel_url,
                    "shipping_preference": "NO_SHIPPING",
                },
            }},
        });
        let setup: SetupToken = self.api.post(SETUPS, &request.key, &body).await?;
        if !is_id(&setup.id) {
            return Err(GatewayError::Malformed("the setup's id".to_owned()));
        }
        let next = links::page(&setup.links).map_or(Next::Nothing, Next::Approve);
        Ok(Setup { id: setup.id, next })
    }

    /// Turns an approved setup into a saved method; `None` while it is not approved.
    ///
    /// PayPal keeps the request id for 3 h. After that a repeat is refused, and the method is
    /// learned from VAULT.PAYMENT-TOKEN.CREATED.
    pub(super) async fn close_setup(&self, id: &str) -> Result<Option<SavedMethod>, GatewayError> {
        let setup: SetupToken = self.api.get(&path(SETUPS, id)?).await?;
        match setup.status.as_deref() {
            Some("APPROVED" | "VAULTED" | "TOKENIZED") => {}
            None | Some("CREATED" | "PAYER_ACTION_REQUIRED") => return Ok(None),
            Some(other) => return Err(GatewayError::Malformed(format!("setup status {other}"))),
        }
        let body = json!({ "payment_source": { "token": { "id": id, "type": "SETUP_TOKEN" }}});
        let token: PaymentToken = self.api.post(METHODS, &format!("vault-{id}"), &body).await?;
        token.into_method().map(Some)
    }

    /// A saved method as PayPal has it.
    pub(super) async fn read_method(&self, id: &str) -> Result<SavedMethod, GatewayError> {
        let token: PaymentToken = self.api.get(&path(METHODS, id)?).await?;
        token.into_method()
    }

    /// Makes PayPal forget a saved method.
    pub(super) async fn forget_method(&self, id: &str) -> Result<(), GatewayError> {
        match self.api.delete(&path(METHODS, id)?).await {
            Ok(()) | Err(GatewayError::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATED: &str =
        include_str!("../../../../tests/vectors/paypal_events/vault.payment-token.created.json");

    #[test]
    fn a_token_is_a_method_of_its_customer() {
        let event: Value = serde_json::from_str(CREATED).unwrap();
        let token: PaymentToken = serde_json::from_value(event["resource"].clone()).unwrap();

        let method = token.into_method().unwrap();

        assert_eq!(method.id, "8kk8451t");
        assert_eq!(method.kind, "paypal");
        assert_eq!(method.gateway_customer.as_deref(), Some("customer_4029352050"));
    }

    #[test]
    fn a_card_shows_what_a_customer_knows_it_by() {
        let token = json!({ "id": "8kk", "payment_source": { "card": {
            "brand": "VISA", "last_digits": "1111", "expiry": "2027-02",
        }}});
        let method = serde_json::from_value::<PaymentToken>(token).unwrap().into_method().unwrap();
        assert_eq!(method.kind, "card");
        assert_eq!(method.last_four.as_deref(), Some("1111"));
        assert_eq!(method.expires, Some((2, 2027)));
        assert_eq!(month("2027-13"), None);
    }
}
