//! Saved ways to pay at PayPal, and charges of them.

use chrono::TimeDelta;
use serde_json::{Value, json};
use simulator::{Funding, Settings};

use crate::kit::{self, Answer, Kit, capture_id};

const ORDERS: &str = "/v2/checkout/orders";
const TOKENS: &str = "/v3/vault/payment-tokens";
const SETUPS: &str = "/v3/vault/setup-tokens";

fn saving_order() -> Value {
    let mut order = kit::order("payment-1");
    order["payment_source"]["paypal"]["attributes"] = json!({
        "vault": {
            "store_in_vault": "ON_SUCCESS",
            "usage_type": "MERCHANT",
            "usage_pattern": "RECURRING_PREPAID",
        },
    });
    order
}

/// Captures an order that asks for its way to pay to be saved.
async fn capture(kit: &Kit, token: &str) -> Answer {
    let order = kit.paypal(token, "POST", ORDERS, &saving_order(), "order-1").await.id();
    kit.simulator.approve_paypal(&order).unwrap();
    let path = format!("{ORDERS}/{order}/capture");
    kit.paypal(token, "POST", &path, &Value::Null, "capture-1").await
}

fn vault(order: &Value) -> &Value {
    &order["payment_source"]["paypal"]["attributes"]["vault"]
}

async fn saved(kit: &Kit, token: &str) -> String {
    let captured = capture(kit, token).await;
    vault(&captured.body)["id"].as_str().expect("it was saved").to_owned()
}

fn renewal(vault_id: &str, payment: &str) -> Value {
    let mut order = kit::order(payment);
    order["payment_source"] = json!({ "paypal": {
        "vault_id": vault_id,
        "stored_credential": { "payment_initiator": "MERCHANT", "usage": "SUBSEQUENT" },
    }});
    order
}

fn last_event(kit: &Kit, kind: &str) -> Value {
    let events = kit.simulator.events();
    let event = events.iter().rev().find(|event| event.kind == kind).expect(kind);
    serde_json::from_slice(&event.body).unwrap()
}

#[tokio::test]
async fn a_way_to_pay_is_saved_with_the_order_and_charged_without_the_payer() {
    let kit = Kit::start().await;
    let token = kit.token().await;

    let captured = capture(&kit, &token).await;
    let vaulted = vault(&captured.body);
    let id = vaulted["id"].as_str().unwrap();
    let event = last_event(&kit, "VAULT.PAYMENT-TOKEN.CREATED");
    let charged = kit.paypal(&token, "POST", ORDERS, &renewal(id, "payment-2"), "renew-1").await;
    let replay = kit.paypal(&token, "POST", ORDERS, &renewal(id, "payment-2"), "renew-1").await;

    assert_eq!(vaulted["status"], "VAULTED");
    assert_eq!(event["resource_type"], "payment_token");
    assert_eq!(event["resource"]["id"], id);
    assert_eq!(event["resource"]["customer"], vaulted["customer"]);
    assert_eq!(event["resource"]["metadata"]["order_id"], captured.body["id"]);
    assert_eq!((charged.status, charged.body["status"].as_str()), (201, Some("COMPLETED")));
    let capture = &charged.body["purchase_units"][0]["payments"]["captures"][0];
    assert_eq!(capture["status"], "COMPLETED");
    let credential = &charged.body["payment_source"]["paypal"]["stored_credential"];
    assert_eq!(credential["payment_initiator"], "MERCHANT");
    assert_eq!((replay.status, capture_id(&replay.body)), (200, capture_id(&charged.body)));
    assert_eq!(kit.simulator.truth().iter().map(|it| it.captures).sum::<usize>(), 2);
    assert!(!kit.kinds()[5..].contains(&"CHECKOUT.ORDER.APPROVED".into()));
}

#[tokio::test]
async fn the_answer_may_say_only_that_it_will_be_saved() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    kit.simulator.vault_paypal_late(true);

    let captured = capture(&kit, &token).await;

    assert_eq!(*vault(&captured.body), json!({ "status": "APPROVED" }));
    let event = last_event(&kit, "VAULT.PAYMENT-TOKEN.CREATED");
    let id = event["resource"]["id"].as_str().unwrap();
    assert_eq!(event["resource"]["metadata"]["order_id"], captured.body["id"]);
    let read = kit.paypal(&token, "GET", &format!("{TOKENS}/{id}"), &Value::Null, "").await;
    assert_eq!(read.id(), id);
}

#[tokio::test]
async fn money_that_pends_saves_nothing_until_it_has_come() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    kit.simulator.fund_next_paypal_capture(Funding::Pending);

    let captured = capture(&kit, &token).await;
    let before = kit.kinds();
    kit.simulator.settle_paypal(&capture_id(&captured.body), true).unwrap();

    assert_eq!(*vault(&captured.body), Value::Null);
    assert!(!before.contains(&"VAULT.PAYMENT-TOKEN.CREATED".into()));
    last_event(&kit, "VAULT.PAYMENT-TOKEN.CREATED");
}

#[tokio::test]
async fn a_way_to_pay_is_saved_on_its_own_once_its_owner_agrees() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let body = json!({
        "payment_source": { "paypal": {
            "usage_type": "MERCHANT",
            "experience_context": {
                "return_url": "http://shop.test/saved",
                "cancel_url": "http://shop.test/cancelled",
            },
        }},
    });
    let unnamed = kit.paypal(&token, "POST", SETUPS, &body, "").await;
    let setup = kit.paypal(&token, "POST", SETUPS, &body, "setup-1").await;
    let again = kit.paypal(&token, "POST", SETUPS, &body, "setup-1").await;
    let confirm =
        json!({ "payment_source": { "token": { "id": setup.id(), "type": "SETUP_TOKEN" } } });
    let early = kit.paypal(&token, "POST", TOKENS, &confirm, "token-1").await;
    let links = setup.body["links"].as_array().unwrap();
    let page = links.iter().find(|link| link["rel"] == "approve").unwrap()["href"].as_str();
    let page = page.unwrap().to_owned();

    let html = kit.client.get(&page).send().await.unwrap().text().await.unwrap();
    let form = [("approval_session_id", setup.id()), ("action", "save".into())];
    let address = page.split('?').next().unwrap();
    let back = kit.client.post(address).form(&form).send().await.unwrap();
    let read =
        kit.paypal(&token, "GET", &format!("{SETUPS}/{}", setup.id()), &Value::Null, "").await;
    let made = kit.paypal(&token, "POST", TOKENS, &confirm, "token-2").await;
    let used = kit.paypal(&token, "POST", TOKENS, &confirm, "token-3").await;

    assert_eq!((unnamed.status, unnamed.issue()), (400, "PAYPAL_REQUEST_ID_REQUIRED"));
    assert_eq!((setup.status, setup.body["status"].as_str()), (201, Some("PAYER_ACTION_REQUIRED")));
    assert_eq!((again.status, again.id()), (200, setup.id()));
    assert_eq!(early.status, 422);
    assert!(html.contains("Agree and continue"), "{html}");
    let location = back.headers()["location"].to_str().unwrap().to_owned();
    let expected = format!("http://shop.test/saved?approval_token_id={}", setup.id());
    assert!(location.starts_with(&expected), "{location}");
    assert_eq!(read.body["status"], "APPROVED");
    assert_eq!(made.status, 201);
    assert_eq!(made.body["customer"], setup.body["customer"]);
    assert_eq!(used.status, 422);
    last_event(&kit, "VAULT.PAYMENT-TOKEN.CREATED");
    let charge = renewal(&made.id(), "payment-1");
    assert_eq!(kit.paypal(&token, "POST", ORDERS, &charge, "renew-1").await.status, 201);
}

#[tokio::test]
async fn a_saved_way_to_pay_is_listed_by_its_customer_until_it_is_deleted() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let captured = capture(&kit, &token).await;
    let id = vault(&captured.body)["id"].as_str().unwrap();
    let customer = vault(&captured.body)["customer"]["id"].as_str().unwrap();
    let list = format!("{TOKENS}?customer_id={customer}&total_required=true");
    let own = format!("{TOKENS}/{id}");

    let before = kit.paypal(&token, "GET", &list, &Value::Null, "").await;
    let deleted = kit.paypal(&token, "DELETE", &own, &Value::Null, "").await;
    let twice = kit.paypal(&token, "DELETE", &own, &Value::Null, "").await;
    let after = kit.paypal(&token, "GET", &list, &Value::Null, "").await;
    let read = kit.paypal(&token, "GET", &own, &Value::Null, "").await;
    let charge = kit.paypal(&token, "POST", ORDERS, &renewal(id, "payment-2"), "renew-1").await;

    assert_eq!(
        (before.body["total_items"].as_u64(), after.body["total_items"].as_u64()),
        (Some(1), Some(0))
    );
    assert_eq!(before.body["payment_tokens"][0]["id"], id);
    assert_eq!((deleted.status, twice.status, read.status), (204, 204, 404));
    let kinds = kit.kinds();
    let told = kinds.iter().filter(|kind| *kind == "VAULT.PAYMENT-TOKEN.DELETED").count();
    assert_eq!(told, 1);
    assert_eq!((charge.status, charge.issue()), (422, "TOKEN_ID_NOT_FOUND"));
}

#[tokio::test]
async fn a_saved_way_to_pay_may_be_refused_or_pend() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let id = saved(&kit, &token).await;

    let unnamed = kit.paypal(&token, "POST", ORDERS, &renewal(&id, "payment-2"), "").await;
    kit.simulator.fund_paypal_token(&id, Funding::Declines).unwrap();
    let declined = kit.paypal(&token, "POST", ORDERS, &renewal(&id, "payment-2"), "renew-1").await;
    kit.simulator.fund_paypal_token(&id, Funding::Pending).unwrap();
    let pending = kit.paypal(&token, "POST", ORDERS, &renewal(&id, "payment-2"), "renew-2").await;

    assert_eq!((unnamed.status, unnamed.issue()), (400, "PAYPAL_REQUEST_ID_REQUIRED"));
    assert_eq!((declined.status, declined.issue()), (422, "INSTRUMENT_DECLINED"));
    let capture = &pending.body["purchase_units"][0]["payments"]["captures"][0];
    assert_eq!((pending.status, capture["status"].as_str()), (201, Some("PENDING")));
    assert_eq!(kit.simulator.truth().len(), 2, "a refused charge leaves no order");
}

#[tokio::test]
async fn the_vault_forgets_a_request_id_after_three_hours() {
    let kit = Kit::start().await;
    let body = json!({ "payment_source": { "paypal": { "usage_type": "MERCHANT" } } });

    let first = kit.paypal(&kit.token().await, "POST", SETUPS, &body, "setup-1").await;
    kit.simulator.advance_clock(TimeDelta::minutes(179));
    let within = kit.paypal(&kit.token().await, "POST", SETUPS, &body, "setup-1").await;
    kit.simulator.advance_clock(TimeDelta::minutes(2));
    let after = kit.paypal(&kit.token().await, "POST", SETUPS, &body, "setup-1").await;

    assert_eq!((within.status, within.id()), (200, first.id()));
    assert_eq!(after.status, 201);
    assert_ne!(after.id(), first.id());
}

#[tokio::test]
async fn a_wish_to_save_must_be_one_that_paypal_knows() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let mut early = saving_order();
    early["payment_source"]["paypal"]["attributes"]["vault"]["store_in_vault"] = json!("ALWAYS");
    let mut unused = saving_order();
    let vault = &mut unused["payment_source"]["paypal"]["attributes"]["vault"];
    vault.as_object_mut().unwrap().remove("usage_type");

    let early = kit.paypal(&token, "POST", ORDERS, &early, "a").await;
    let unused = kit.paypal(&token, "POST", ORDERS, &unused, "b").await;

    assert_eq!((early.status, early.issue()), (400, "INVALID_PARAMETER_VALUE"));
    assert_eq!((unused.status, unused.issue()), (400, "MISSING_REQUIRED_PARAMETER"));
}

#[tokio::test]
async fn the_vault_is_controlled_over_http_too() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let base = kit.simulator.stripe_url().to_owned();
    let post = async |path: &str, body: Value| {
        let request = kit.client.post(format!("{base}/_sim/paypal/{path}")).json(&body);
        kit.send(request).await.unwrap().status
    };
    let body = json!({ "payment_source": { "paypal": { "usage_type": "MERCHANT" } } });
    let setup = kit.paypal(&token, "POST", SETUPS, &body, "setup-1").await.id();

    assert_eq!(post("vault-late", json!({ "late": true })).await, 204);
    assert_eq!(post(&format!("setup-tokens/{setup}/approve"), json!({})).await, 204);
    capture(&kit, &token).await;
    let event = last_event(&kit, "VAULT.PAYMENT-TOKEN.CREATED");
    let id = event["resource"]["id"].as_str().unwrap();
    let fund = format!("payment-tokens/{id}/fund");
    assert_eq!(post(&fund, json!({ "funding": "declines" })).await, 204);
    let request = kit.client.delete(format!("{base}/_sim/paypal/payment-tokens/{id}"));
    assert_eq!(kit.send(request).await.unwrap().status, 204);
    last_event(&kit, "VAULT.PAYMENT-TOKEN.DELETED");
}

#[tokio::test]
async fn what_was_saved_and_disputed_is_known_after_a_restart() {
    let folder = std::env::temp_dir().join(format!("simulator-vault-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let settings =
        || Settings { state_file: Some(folder.join("state.json")), ..Settings::default() };
    let first = Kit::start_with(settings()).await;
    let captured = capture(&first, &first.token().await).await.body;
    let vaulted = vault(&captured)["id"].as_str().unwrap();
    let capture = capture_id(&captured);
    let refund = first.simulator.refund_paypal(&capture, Some(100)).unwrap();
    let dispute = first.simulator.open_paypal_dispute(&capture, false).unwrap();
    let truth = first.simulator.truth();
    drop(first);

    let second = Kit::start_with(settings()).await;

    let token = second.token().await;
    let paths = [
        format!("{TOKENS}/{vaulted}"),
        format!("/v2/payments/refunds/{refund}"),
        format!("/v1/customer/disputes/{dispute}"),
    ];
    for path in paths {
        assert_eq!(second.paypal(&token, "GET", &path, &Value::Null, "").await.status, 200);
    }
    assert_eq!(second.simulator.truth(), truth);
    assert_eq!((truth[0].refunded_minor, truth[0].disputed_minor), (100, 999));
    drop(second);
    std::fs::remove_dir_all(folder).unwrap();
}
