//! Every object has the fields that the gateways' own documents call required.
//!
//! The lists are data: `tests/clients/required`, which says where they are from.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use simulator::{DisputeOutcome, Funding, PayPalDisputeOutcome};

use crate::kit::{self, Answer, Kit};

const STRIPE: &str = include_str!("../../../tests/clients/required/stripe.json");
const PAYPAL: &str = include_str!("../../../tests/clients/required/paypal.json");

/// A field's path, and the JSON types it may have, divided by bars.
type Fields = BTreeMap<String, String>;

/// What a gateway requires, which kinds were seen, and what they lacked.
struct Lists {
    kinds: BTreeMap<String, Fields>,
    seen: BTreeSet<String>,
    breaches: BTreeSet<String>,
}

impl Lists {
    fn read(text: &str) -> Self {
        let document: Value = serde_json::from_str(text).unwrap();
        let read = |name: &str| -> BTreeMap<String, Fields> {
            let part = document.get(name).cloned().unwrap_or_else(|| json!({}));
            serde_json::from_value(part).unwrap()
        };
        let mut kinds = read("kinds");
        for (kind, fields) in read("optional") {
            kinds.entry(kind).or_default().extend(fields);
        }
        Lists { kinds, seen: BTreeSet::new(), breaches: BTreeSet::new() }
    }

    fn see(&mut self, kind: &str, object: &Value) {
        self.seen.insert(kind.to_owned());
        for (path, types) in &self.kinds[kind] {
            if !has(object, path, types) {
                self.breaches.insert(format!("{kind}: {path} is not {types}"));
            }
        }
    }

    /// Looks at every object within, each by the name it gives itself.
    fn see_stripe(&mut self, body: &Value) {
        if body["error"].is_object() {
            self.see("error", body);
        }
        let name = match body["object"].as_str() {
            Some("item") => "line_item",
            Some(name) => name,
            None => "",
        };
        if self.kinds.contains_key(name) && body["deleted"] != true {
            self.see(name, body);
        }
        for inner in body.as_array().into_iter().flatten() {
            self.see_stripe(inner);
        }
        for inner in body.as_object().into_iter().flat_map(serde_json::Map::values) {
            self.see_stripe(inner);
        }
    }

    fn assert_kept(&self) {
        assert!(self.breaches.is_empty(), "{:#?}", self.breaches);
        let unseen: Vec<_> = self.kinds.keys().filter(|kind| !self.seen.contains(*kind)).collect();
        assert!(unseen.is_empty(), "the test made none of {unseen:?}");
    }
}

/// Whether a field is there with one of its types; fields of what is absent are not asked for.
fn has(object: &Value, path: &str, types: &str) -> bool {
    let Some((step, rest)) = path.split_once('.') else {
        let found = object.get(path);
        return found.is_some_and(|found| types.split('|').any(|it| it == type_of(found)));
    };
    if let Some(list) = step.strip_suffix("[]") {
        let mut items = object[list].as_array().into_iter().flatten();
        return items.all(|item| !item.is_object() || has(item, rest, types));
    }
    let held = &object[step];
    !held.is_object() || has(held, rest, types)
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[test]
fn a_missing_or_mistyped_field_is_found() {
    let object = json!({ "a": { "b": null }, "list": [{ "c": 1 }, "id"], "absent": null });

    assert!(has(&object, "a.b", "null|string") && has(&object, "list[].c", "number"));
    assert!(has(&object, "absent.b", "string") && has(&object, "other[].b", "string"));
    assert!(!has(&object, "a.b", "string") && !has(&object, "a.c", "null"));
    assert!(!has(&object, "list[].d", "number") && !has(&object, "other", "null"));
}

/// Pays intents in every way that leaves a different object behind.
async fn make_intents(kit: &Kit, lists: &mut Lists, customer: &str) {
    let methods = [
        "pm_card_visa",
        "pm_card_chargeDeclined",
        "pm_card_authenticationRequired",
        "pm_usBankAccount_processing",
    ];
    for method in methods {
        let form = [
            ("amount", "1099"),
            ("currency", "usd"),
            ("customer", customer),
            ("automatic_payment_methods[enabled]", "true"),
            ("setup_future_usage", "off_session"),
            ("expand[]", "customer"),
        ];
        let made = kit.post("/v1/payment_intents", &form).await;
        lists.see_stripe(&made.body);
        let path = format!("/v1/payment_intents/{}/confirm", made.id());
        let form = [("payment_method", method), ("return_url", "http://shop.test/")];
        lists.see_stripe(&kit.post(&path, &form).await.body);
    }
    let cancelled = kit.intent().await.id();
    let path = format!("/v1/payment_intents/{cancelled}/cancel");
    lists.see_stripe(&kit.post(&path, &[]).await.body);
    let read = "/v1/payment_intents?expand[]=data.latest_charge&expand[]=data.payment_method";
    lists.see_stripe(&kit.get(read).await.body);
}

async fn make_setups(kit: &Kit, lists: &mut Lists, customer: &str) {
    for method in ["pm_card_visa", "pm_card_chargeDeclined", "pm_card_authenticationRequired"] {
        let form = [
            ("customer", customer),
            ("payment_method", method),
            ("usage", "off_session"),
            ("confirm", "true"),
            ("return_url", "http://shop.test/"),
            ("automatic_payment_methods[enabled]", "true"),
        ];
        lists.see_stripe(&kit.post("/v1/setup_intents", &form).await.body);
    }
    lists.see_stripe(&kit.get("/v1/setup_intents").await.body);
}

async fn make_sessions(kit: &Kit, lists: &mut Lists, customer: &str) {
    let form = [
        ("mode", "payment"),
        ("line_items[0][price_data][currency]", "usd"),
        ("line_items[0][price_data][unit_amount]", "500"),
        ("line_items[0][price_data][product_data][name]", "Starter"),
        ("line_items[0][quantity]", "2"),
        ("success_url", "http://shop.test/done"),
        ("expand[]", "line_items"),
    ];
    let made = kit.post("/v1/checkout/sessions", &form).await;
    lists.see_stripe(&made.body);
    let id = made.id();
    kit.simulator.pay_stripe_session(&id, "pm_card_visa").unwrap();
    let path = format!("/v1/checkout/sessions/{id}?expand[]=payment_intent");
    lists.see_stripe(&kit.get(&path).await.body);
    lists.see_stripe(&kit.get(&format!("/v1/checkout/sessions/{id}/line_items")).await.body);
    let form = [("customer", customer), ("return_url", "http://shop.test/account")];
    lists.see_stripe(&kit.post("/v1/billing_portal/sessions", &form).await.body);
}

async fn make_refunds_and_disputes(kit: &Kit, lists: &mut Lists) {
    let intent = kit.paid_intent().await;
    let form = [("payment_intent", intent.as_str()), ("amount", "400"), ("expand[]", "charge")];
    lists.see_stripe(&kit.post("/v1/refunds", &form).await.body);
    for is_inquiry in [false, true] {
        let intent = kit.paid_intent().await;
        let id = kit.simulator.open_stripe_dispute(&intent, is_inquiry, None).unwrap();
        lists.see_stripe(&kit.get(&format!("/v1/disputes/{id}")).await.body);
        if !is_inquiry {
            kit.simulator.settle_stripe_dispute(&id, DisputeOutcome::Won).unwrap();
        }
    }
    for path in ["/v1/refunds", "/v1/disputes", "/v1/charges", "/v1/events?limit=100"] {
        lists.see_stripe(&kit.get(path).await.body);
    }
}

#[tokio::test]
async fn every_object_of_stripes_has_its_required_fields() {
    let mut lists = Lists::read(STRIPE);
    let kit = Kit::start().await;
    let customer = kit.post("/v1/customers", &[("email", "jenny@example.com")]).await;
    lists.see_stripe(&customer.body);
    let customer = customer.id();

    make_intents(&kit, &mut lists, &customer).await;
    make_setups(&kit, &mut lists, &customer).await;
    make_sessions(&kit, &mut lists, &customer).await;
    make_refunds_and_disputes(&kit, &mut lists).await;
    let path = format!("/v1/payment_methods?customer={customer}&type=card");
    lists.see_stripe(&kit.get(&path).await.body);
    lists.see_stripe(&kit.get("/v1/customers").await.body);
    lists.see_stripe(&kit.get("/v1/customers/cus_x").await.body);
    lists.see_stripe(&kit.post("/v1/refunds", &[("colour", "red")]).await.body);
    for event in kit.simulator.events() {
        lists.see_stripe(&serde_json::from_slice(&event.body).unwrap());
    }

    lists.assert_kept();
}

/// A caller of PayPal's API who has every answer looked at.
struct Caller<'a> {
    kit: &'a Kit,
    token: String,
    lists: Lists,
}

impl Caller<'_> {
    async fn call(&mut self, kind: &str, method: &str, path: &str, body: Value) -> Answer {
        let calls = self.kit.simulator.calls().len();
        let key = if method == "POST" { format!("call-{calls}") } else { String::new() };
        let answer = self.kit.paypal(&self.token, method, path, &body, &key).await;
        let kind = if answer.status < 400 { kind } else { "error" };
        self.lists.see(kind, &answer.body);
        answer
    }

    async fn read(&mut self, kind: &str, path: &str) -> Answer {
        self.call(kind, "GET", path, Value::Null).await
    }

    /// Makes, approves and tries to capture an order that pays with such money.
    async fn order(&mut self, payment: &str, funding: Funding) -> Value {
        let order = self.call("order", "POST", ORDERS, kit::order(payment)).await.id();
        self.kit.simulator.approve_paypal_with(&order, funding).unwrap();
        let path = format!("{ORDERS}/{order}/capture");
        self.call("order", "POST", &path, Value::Null).await;
        self.read("order", &format!("{ORDERS}/{order}")).await.body
    }

    async fn refunds_and_disputes(&mut self, capture: &str) {
        let path = format!("/v2/payments/captures/{capture}");
        self.read("capture", &path).await;
        let part = json!({ "amount": { "currency_code": "USD", "value": "4.00" } });
        let refund = self.call("refund", "POST", &format!("{path}/refund"), part).await.id();
        self.read("refund", &format!("/v2/payments/refunds/{refund}")).await;
        let dispute = self.kit.simulator.open_paypal_dispute(capture, false).unwrap();
        let disputes = "/v1/customer/disputes";
        self.read("dispute", &format!("{disputes}/{dispute}")).await;
        let lost = PayPalDisputeOutcome::ResolvedBuyerFavour;
        self.kit.simulator.settle_paypal_dispute(&dispute, lost).unwrap();
        self.read("dispute", &format!("{disputes}/{dispute}")).await;
        let listed = self.read("disputes", disputes).await;
        self.lists.see("dispute", &listed.body["items"][0]);
        self.read("capture", &path).await;
    }

    async fn vault(&mut self) {
        let source = json!({ "payment_source": { "paypal": {
            "usage_type": "MERCHANT",
            "experience_context": {
                "return_url": "http://shop.test/done", "cancel_url": "http://shop.test/cart",
            },
        }}});
        let setup = self.call("setup_token", "POST", SETUPS, source).await.id();
        self.kit.simulator.approve_paypal_setup(&setup).unwrap();
        self.read("setup_token", &format!("{SETUPS}/{setup}")).await;
        let source =
            json!({ "payment_source": { "token": { "id": setup, "type": "SETUP_TOKEN" } } });
        let made = self.call("payment_token", "POST", TOKENS, source).await;
        self.read("payment_token", &format!("{TOKENS}/{}", made.id())).await;
        let customer = made.body["customer"]["id"].as_str().unwrap();
        let listed = self.read("payment_tokens", &format!("{TOKENS}?customer_id={customer}")).await;
        self.lists.see("payment_token", &listed.body["payment_tokens"][0]);
        let mut order = kit::order("payment-9");
        order["payment_source"] = json!({ "paypal": { "vault_id": made.id() } });
        self.call("order", "POST", ORDERS, order).await;
    }

    async fn history(&mut self) {
        let day = |days: i64| {
            let at = self.kit.simulator.now() + chrono::TimeDelta::days(days);
            at.format("%Y-%m-%dT%H:%M:%SZ").to_string()
        };
        let path = format!("/v1/reporting/transactions?start_date={}&end_date={}", day(-1), day(1));
        let found = self.read("transactions", &path).await;
        let amount =
            &found.body["transaction_details"][0]["transaction_info"]["transaction_amount"];
        self.lists.see("money", amount);
        self.read("events", "/v1/notifications/webhooks-events").await;
        let path = "/v1/notifications/verify-webhook-signature";
        let question = json!({
            "auth_algo": "SHA256withRSA", "cert_url": "https://api.sandbox.paypal.com/x",
            "transmission_id": "x", "transmission_sig": "x", "transmission_time": "x",
            "webhook_id": "x", "webhook_event": {},
        });
        self.call("verification", "POST", path, question).await;
    }

    async fn access(&mut self) {
        let url = format!("{}/v1/oauth2/token", self.kit.simulator.paypal_url());
        let settings = self.kit.simulator.settings();
        let secrets =
            [("access_token", settings.paypal_client_secret.as_str()), ("access_error", "x")];
        for (kind, secret) in secrets {
            let request = self.kit.client.post(&url);
            let request = request.basic_auth(&settings.paypal_client_id, Some(secret));
            let request = request.form(&[("grant_type", "client_credentials")]);
            let answer = self.kit.send(request).await.unwrap();
            self.lists.see(kind, &answer.body);
        }
    }

    fn events(&mut self) {
        for event in self.kit.simulator.events() {
            let body: Value = serde_json::from_slice(&event.body).unwrap();
            self.lists.see("event", &body);
            match body["resource_type"].as_str().unwrap() {
                "checkout-order" => self.lists.see("order", &body["resource"]),
                "payment" => {}
                kind => self.lists.see(kind, &body["resource"]),
            }
        }
    }
}

const ORDERS: &str = "/v2/checkout/orders";
const TOKENS: &str = "/v3/vault/payment-tokens";
const SETUPS: &str = "/v3/vault/setup-tokens";

#[tokio::test]
async fn every_object_of_paypals_has_its_required_fields() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let mut caller = Caller { kit: &kit, token, lists: Lists::read(PAYPAL) };

    caller.access().await;
    let paid = caller.order("payment-1", Funding::Instant).await;
    caller.refunds_and_disputes(&kit::capture_id(&paid)).await;
    let pending = caller.order("payment-2", Funding::Pending).await;
    caller.read("capture", &format!("/v2/payments/captures/{}", kit::capture_id(&pending))).await;
    caller.order("payment-3", Funding::Declines).await;
    caller.vault().await;
    caller.history().await;
    caller.read("order", &format!("{ORDERS}/none")).await;
    caller.call("order", "POST", ORDERS, json!({})).await;
    caller.events();

    caller.lists.assert_kept();
}

#[tokio::test]
async fn an_order_shows_less_of_its_capture_than_the_capture_itself() {
    let kit = Kit::start().await;
    let token = kit.token().await;

    let (order, capture) = kit.captured_order(&token).await;
    let read = async |path: &str| kit.paypal(&token, "GET", path, &Value::Null, "").await.body;
    let within = read(&format!("{ORDERS}/{order}")).await;
    let within = &within["purchase_units"][0]["payments"]["captures"][0];
    let alone = read(&format!("/v2/payments/captures/{capture}")).await;

    for field in ["payee", "supplementary_data"] {
        assert!(within.get(field).is_none(), "{field}");
        assert!(alone.get(field).is_some(), "{field}");
    }
    assert_eq!(within["amount"], alone["amount"]);
}
