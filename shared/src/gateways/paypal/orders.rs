//! PayPal's orders and captures in our words (Orders v2, Payments v2).

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use super::codes;
use super::links::{self, Link, is_id};
use super::money::Amount;
use super::refunds::Refund;
use crate::clock::wall_now;
use crate::gateways::{
    Captured, GatewayError, IntentRequest, Next, Object, ObjectFacts, SavedCharge,
};
use crate::ids::PaymentId;

/// Where an order's path begins.
pub(super) const ORDERS: &str = "/v2/checkout/orders/";
/// Where a capture's path begins.
pub(super) const CAPTURES: &str = "/v2/payments/captures/";

#[derive(Deserialize)]
pub(super) struct Order {
    id: String,
    status: String,
    #[serde(default)]
    purchase_units: Vec<Unit>,
    payment_source: Option<Source>,
    payer: Option<Payer>,
    #[serde(default)]
    links: Vec<Link>,
}

#[derive(Deserialize)]
pub(super) struct Unit {
    amount: Amount,
    pub(super) custom_id: Option<String>,
    payee: Option<Payee>,
    payments: Option<Payments>,
}

#[derive(Deserialize)]
pub(super) struct Payee {
    pub(super) merchant_id: Option<String>,
}

#[derive(Deserialize, Default)]
struct Payments {
    #[serde(default)]
    captures: Vec<Capture>,
    #[serde(default)]
    refunds: Vec<Refund>,
}

#[derive(Deserialize)]
pub(super) struct Capture {
    pub(super) id: String,
    pub(super) status: String,
    status_details: Option<Details>,
    pub(super) amount: Amount,
    pub(super) custom_id: Option<String>,
    payee: Option<Payee>,
    create_time: Option<DateTime<Utc>>,
    supplementary_data: Option<Supplementary>,
    #[serde(default)]
    links: Vec<Link>,
}

#[derive(Deserialize)]
pub(super) struct Details {
    pub(super) reason: Option<String>,
}

#[derive(Deserialize)]
struct Payer {
    payer_id: Option<String>,
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
struct Source {
    paypal: Option<Wallet>,
}

#[derive(Deserialize)]
struct Wallet {
    attributes: Option<Attributes>,
}

#[derive(Deserialize)]
struct Attributes {
    vault: Option<Vaulted>,
}

#[derive(Deserialize)]
struct Vaulted {
    id: Option<String>,
    status: Option<String>,
    customer: Option<Customer>,
}

#[derive(Deserialize)]
struct Customer {
    id: Option<String>,
}

/// Names one attempt at a payment. PayPal pays an invoice once, so each attempt has its own.
pub(super) fn invoice_id(payment_id: PaymentId, attempt: u32) -> String {
    match attempt {
        0 => payment_id.to_string(),
        _ => format!("{payment_id}-{attempt}"),
    }
}

fn unit(amount: &Amount, payment_id: PaymentId, attempt: u32, description: &str) -> Value {
    let mut unit = json!({
        "amount": amount,
        "custom_id": payment_id.to_string(),
        "invoice_id": invoice_id(payment_id, attempt),
    });
    // PayPal's longest; an empty one is a fault to it.
    let description: String = description.chars().take(127).collect();
    if !description.is_empty() {
        unit["description"] = json!(description);
    }
    unit
}

/// What opens an order that the buyer approves on PayPal's page.
pub(super) fn create_body(request: &IntentRequest) -> Result<Value, GatewayError> {
    let amount = Amount::of(request.amount)?;
    let mut wallet = json!({ "experience_context": {
        "return_url": request.return_url,
        "cancel_url": request.cancel_url,
        "user_action": "PAY_NOW",
        "shipping_preference": "NO_SHIPPING",
    }});
    if request.saves_method {
        wallet["attributes"] = json!({ "vault": {
            "store_in_vault": "ON_SUCCESS",
            "usage_type": "MERCHANT",
            "usage_pattern": "RECURRING_PREPAID",
        }});
        if let Some(customer) = &request.gateway_customer {
            wallet["attributes"]["customer"] = json!({ "id": customer });
        }
    }
    let unit = unit(&amount, request.payment_id, request.attempt, &request.description);
    Ok(json!({
        "intent": "CAPTURE",
        "purchase_units": [unit],
        "payment_source": { "paypal": wallet },
    }))
}

/// What opens and captures an order at once, with a saved method.
pub(super) fn saved_body(request: &SavedCharge) -> Result<Value, GatewayError> {
    let amount = Amount::of(request.amount)?;
    let unit = unit(&amount, request.payment_id, request.attempt, &request.description);
    Ok(json!({
        "intent": "CAPTURE",
        "purchase_units": [unit],
        "payment_source": { "paypal": {
            "vault_id": request.method,
            "stored_credential": {
                "payment_initiator": "MERCHANT",
                "usage": "SUBSEQUENT",
                "usage_pattern": "RECURRING_PREPAID",
            },
        }},
    }))
}

/// Whether a payee or payer is us, as far as both are known.
pub(super) fn is_us(named: Option<&Payee>, merchant_id: Option<&str>) -> bool {
    let named = named.and_then(|payee| payee.merchant_id.as_deref());
    merchant_id.is_none() || named.is_none() || named == merchant_id
}

impl Capture {
    /// The order it belongs to, from its related ids or its link upwards.
    pub(super) fn order_id(&self) -> Option<String> {
        let related = self.supplementary_data.as_ref().and_then(|data| data.related_ids.as_ref());
        let named = related.and_then(|ids| ids.order_id.clone()).filter(|id| is_id(id));
        named.or_else(|| links::id_upwards(&self.links, ORDERS))
    }

    pub(super) fn is_ours(&self, merchant_id: Option<&str>) -> bool {
        is_us(self.payee.as_ref(), merchant_id)
    }

    /// Whether its money arrived, whatever became of it since.
    pub(super) fn has_arrived(&self) -> bool {
        matches!(self.status.as_str(), "COMPLETED" | "PARTIALLY_REFUNDED" | "REFUNDED" | "REVERSED")
    }
}

impl Order {
    /// Whether nothing happens to it before its payer acts.
    pub(super) fn waits_for_payer(&self) -> bool {
        self.status == "PAYER_ACTION_REQUIRED"
    }

    fn unit(&self) -> Result<&Unit, GatewayError> {
        let [unit] = self.purchase_units.as_slice() else {
            return Err(GatewayError::Malformed("an order of ours has one unit".to_owned()));
        };
        Ok(unit)
    }

    fn captures(&self) -> impl Iterator<Item = &Capture> {
        let payments = self.purchase_units.iter().filter_map(|unit| unit.payments.as_ref());
        payments.flat_map(|payments| &payments.captures)
    }

    /// The capture whose money arrived.
    pub(super) fn capture_id(&self) -> Option<String> {
        let mut captures = self.captures().filter(|capture| capture.has_arrived());
        captures.next().map(|capture| capture.id.clone()).filter(|id| is_id(id))
    }

    /// What its unit names and all refunds of its captures.
    pub(super) fn into_refunds(self) -> (String, Option<String>, Vec<Refund>) {
        let custom_id = self.purchase_units.iter().find_map(|unit| unit.custom_id.clone());
        let payments = self.purchase_units.into_iter().filter_map(|unit| unit.payments);
        (self.id, custom_id, payments.flat_map(|payments| payments.refunds).collect())
    }

    /// Our words for the order, as PayPal answered over an authenticated connection.
    pub(super) fn into_object(self, merchant_id: Option<&str>) -> Result<Object, GatewayError> {
        let unit = self.unit()?;
        if !is_id(&self.id) {
            return Err(GatewayError::Malformed("the order's id".to_owned()));
        }
        let vaulted = self.payment_source.as_ref().and_then(|source| source.paypal.as_ref());
        let vaulted = vaulted.and_then(|wallet| wallet.attributes.as_ref());
        let vaulted = vaulted.and_then(|attributes| attributes.vault.as_ref());
        // While it is APPROVED only, the id comes with VAULT.PAYMENT-TOKEN.CREATED.
        let saved = vaulted.filter(|vault| vault.status.as_deref() == Some("VAULTED"));
        let customer = vaulted.and_then(|vault| vault.customer.as_ref()?.id.clone());
        Ok(Object {
            amount: unit.amount.money()?,
            names_payment: unit.custom_id.clone(),
            is_ours: is_us(unit.payee.as_ref(), merchant_id),
            facts: self.facts()?,
            next: links::page(&self.links).map_or(Next::Nothing, Next::Approve),
            gateway_customer: customer.filter(|id| is_id(id)),
            payer: self.payer.as_ref().and_then(|payer| payer.payer_id.clone()),
            saved_method: saved.and_then(|vault| vault.id.clone()).filter(|id| is_id(id)),
            id: self.id,
            intent: None,
        })
    }

    fn facts(&self) -> Result<ObjectFacts, GatewayError> {
        let mut facts =
            ObjectFacts { is_voided: self.status == "VOIDED", ..ObjectFacts::default() };
        for capture in self.captures() {
            match capture.status.as_str() {
                _ if capture.has_arrived() => {
                    facts.captured.get_or_insert(Captured {
                        amount: capture.amount.money()?,
                        capture_id: Some(capture.id.clone()).filter(|id| is_id(id)),
                        at: capture.create_time.unwrap_or_else(wall_now),
                    });
                }
                "PENDING" => facts.is_processing = true,
                status @ ("DECLINED" | "FAILED") => {
                    let reason = capture.status_details.as_ref();
                    let reason = reason.and_then(|details| details.reason.as_deref());
                    decline(&mut facts, reason.unwrap_or(status));
                }
                other => return Err(GatewayError::Malformed(format!("capture status {other}"))),
            }
        }
        if facts.captured.is_some() {
            facts.is_processing = false;
        }
        let is_taken = facts.captured.is_some() || facts.is_processing;
        facts.is_approved = self.status == "APPROVED" && !is_taken;
        Ok(facts)
    }
}

/// Adds a decline to what is known.
pub(super) fn decline(facts: &mut ObjectFacts, code: &str) {
    facts.is_declined = true;
    facts.is_approved = false;
    facts.failure = Some(codes::words(code).to_owned());
    facts.failure_code = Some(code.to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::{Currency, Money};

    fn order(status: &str, captures: &Value, source: &Value) -> Object {
        let order = serde_json::from_value::<Order>(body(status, captures, source)).unwrap();
        order.into_object(Some("M")).unwrap()
    }

    fn body(status: &str, captures: &Value, source: &Value) -> Value {
        json!({
            "id": "5O190127TN364715T",
            "status": status,
            "purchase_units": [{
                "amount": { "currency_code": "USD", "value": "10.99" },
                "custom_id": "p",
                "payee": { "merchant_id": "M" },
                "payments": { "captures": captures },
            }],
            "payment_source": source,
            "links": [{ "rel": "payer-action", "href": "https://www.paypal.com/checkoutnow" }],
        })
    }

    fn capture(status: &str) -> Value {
        json!([{
            "id": "2GG279541U471931P",
            "status": status,
            "status_details": { "reason": "OTHER" },
            "amount": { "currency_code": "USD", "value": "10.99" },
        }])
    }

    #[test]
    fn facts_follow_the_captures() {
        let usd = Money::new(1_099, Currency::USD);
        for status in ["COMPLETED", "PARTIALLY_REFUNDED", "REFUNDED"] {
            let facts = order("COMPLETED", &capture(status), &json!({})).facts;
            assert_eq!(facts.captured.map(|captured| captured.amount), Some(usd), "{status}");
        }
        let pending = order("COMPLETED", &capture("PENDING"), &json!({})).facts;
        assert!(pending.is_processing && pending.captured.is_none() && !pending.is_declined);
        for status in ["DECLINED", "FAILED"] {
            let facts = order("COMPLETED", &capture(status), &json!({})).facts;
            assert!(facts.is_declined && !facts.is_processing && facts.captured.is_none());
            assert_eq!(facts.failure_code.as_deref(), Some("OTHER"));
        }
        assert!(order("APPROVED", &json!([]), &json!({})).facts.is_approved);
        assert!(order("VOIDED", &json!([]), &json!({})).facts.is_voided);
        let waiting = order("PAYER_ACTION_REQUIRED", &json!([]), &json!({})).facts;
        assert_eq!(waiting, ObjectFacts::default());
    }

    #[test]
    fn an_order_that_pays_somebody_else_is_not_ours() {
        let is_ours = |merchant_id: Option<&str>| {
            let body = body("COMPLETED", &capture("COMPLETED"), &json!({}));
            let order = serde_json::from_value::<Order>(body).unwrap();
            order.into_object(merchant_id).unwrap().is_ours
        };
        assert!(is_ours(Some("M")));
        assert!(is_ours(None), "nothing is configured to compare with");
        assert!(!is_ours(Some("ANOTHER")));
    }

    #[test]
    fn a_method_is_saved_only_once_it_is_vaulted() {
        let source = |status: &str| {
            json!({ "paypal": { "attributes": { "vault": {
                "id": "8kk8451t", "status": status, "customer": { "id": "customer_4029352050" },
            }}}})
        };
        let vaulted = order("COMPLETED", &capture("COMPLETED"), &source("VAULTED"));
        assert_eq!(vaulted.saved_method.as_deref(), Some("8kk8451t"));
        assert_eq!(vaulted.gateway_customer.as_deref(), Some("customer_4029352050"));
        let approved = order("COMPLETED", &capture("COMPLETED"), &source("APPROVED"));
        assert_eq!(approved.saved_method, None);
    }

    #[test]
    fn each_attempt_has_an_invoice_of_its_own() {
        let id: PaymentId = "019ab3c2-0000-7000-8000-000000000001".parse().unwrap();
        assert_eq!(invoice_id(id, 0), id.to_string());
        assert_eq!(invoice_id(id, 2), format!("{id}-2"));
    }
}
