//! PayPal's orders and captures in our words (Orders v2, Payments v2).

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::json;

use crate::clock::wall_now;
use crate::gateways::{
    Captured, GatewayError, IntentRequest, Next, Object, ObjectFacts, is_storable,
};
use crate::money::{Currency, Money};

#[derive(Deserialize)]
pub(super) struct Order {
    id: String,
    status: String,
    #[serde(default)]
    purchase_units: Vec<Unit>,
    #[serde(default)]
    links: Vec<Link>,
}

#[derive(Deserialize)]
struct Unit {
    amount: Amount,
    custom_id: Option<String>,
    payee: Option<Payee>,
    payments: Option<Payments>,
}

#[derive(Deserialize)]
struct Amount {
    currency_code: String,
    value: Decimal,
}

#[derive(Deserialize)]
struct Payee {
    merchant_id: Option<String>,
}

#[derive(Deserialize)]
struct Payments {
    #[serde(default)]
    captures: Vec<Capture>,
}

#[derive(Deserialize)]
pub(super) struct Capture {
    id: String,
    status: String,
    amount: Amount,
    create_time: Option<DateTime<Utc>>,
    supplementary_data: Option<Supplementary>,
    #[serde(default)]
    links: Vec<Link>,
}

#[derive(Deserialize)]
struct Supplementary {
    related_ids: Option<RelatedIds>,
}

#[derive(Deserialize)]
struct RelatedIds {
    order_id: Option<String>,
}

#[derive(Deserialize)]
struct Link {
    href: String,
    rel: String,
}

/// What opens an order: our payment id is custom id and invoice id, so PayPal itself refuses a
/// second payment of it.
pub(super) fn create_body(request: &IntentRequest) -> serde_json::Value {
    json!({
        "intent": "CAPTURE",
        "purchase_units": [{
            "amount": {
                "currency_code": request.amount.currency.as_str(),
                "value": request.amount.to_decimal().to_string(),
            },
            "custom_id": request.payment_id.to_string(),
            "invoice_id": request.payment_id.to_string(),
            "description": request.description.chars().take(127).collect::<String>(),
        }],
        "payment_source": { "paypal": { "experience_context": {
            "return_url": request.return_url,
            "cancel_url": request.cancel_url,
            "user_action": "PAY_NOW",
            "shipping_preference": "NO_SHIPPING",
        }}},
    })
}

impl Amount {
    fn money(&self) -> Result<Money, GatewayError> {
        let currency = Currency::parse(&self.currency_code)
            .map_err(|error| GatewayError::Malformed(error.to_string()))?;
        Money::from_decimal(self.value, currency)
            .map_err(|error| GatewayError::Malformed(error.to_string()))
    }
}

impl Capture {
    /// The order it belongs to, from its related ids or its link upwards. Links are never fetched.
    pub(super) fn order_id(&self) -> Option<String> {
        let related = self.supplementary_data.as_ref().and_then(|data| data.related_ids.as_ref());
        let named = related.and_then(|ids| ids.order_id.clone());
        named
            .or_else(|| {
                let up = self.links.iter().find(|link| link.rel == "up")?;
                up.href.split_once("/v2/checkout/orders/").map(|(_, id)| id.to_owned())
            })
            .filter(|id| is_id(id))
    }
}

/// Whether text may be put into a path: PayPal's ids are letters, digits and dashes.
pub(super) fn is_id(text: &str) -> bool {
    is_storable(text) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

impl Order {
    /// Our words for the order, as PayPal answered over an authenticated connection.
    pub(super) fn into_object(self, merchant_id: Option<&str>) -> Result<Object, GatewayError> {
        let [unit] = self.purchase_units.as_slice() else {
            return Err(GatewayError::Malformed("an order of ours has one unit".to_owned()));
        };
        let payee = unit.payee.as_ref().and_then(|payee| payee.merchant_id.as_deref());
        let approve =
            self.links.iter().find(|link| link.rel == "approve" || link.rel == "payer-action");
        let next = approve.map_or(Next::Nothing, |link| Next::Approve(link.href.clone()));
        Ok(Object {
            amount: unit.amount.money()?,
            names_payment: unit.custom_id.clone(),
            is_ours: merchant_id.is_none() || payee.is_none() || payee == merchant_id,
            facts: facts(&self.status, unit)?,
            id: self.id,
            next,
            gateway_customer: None,
            saved_method: None,
            intent: None,
        })
    }
}

fn facts(status: &str, unit: &Unit) -> Result<ObjectFacts, GatewayError> {
    let captures = unit.payments.as_ref().map_or(&[][..], |payments| &payments.captures);
    let mut facts = ObjectFacts {
        is_voided: status == "VOIDED",
        is_approved: status == "APPROVED",
        ..ObjectFacts::default()
    };
    for capture in captures {
        match capture.status.as_str() {
            // A capture that was refunded since was captured all the same.
            "COMPLETED" | "PARTIALLY_REFUNDED" | "REFUNDED" => {
                facts.captured = Some(Captured {
                    amount: capture.amount.money()?,
                    capture_id: Some(capture.id.clone()).filter(|id| is_id(id)),
                    at: capture.create_time.unwrap_or_else(wall_now),
                });
            }
            "PENDING" => facts.is_processing = true,
            "DECLINED" | "FAILED" => {
                facts.is_declined = true;
                facts.failure = Some(format!("PayPal: {}", capture.status));
            }
            other => return Err(GatewayError::Malformed(format!("capture status {other}"))),
        }
    }
    Ok(facts)
}
