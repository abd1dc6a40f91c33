//! Payment intents and customers.

use serde_json::{Value, json};

use crate::kit::Kit;

#[tokio::test]
async fn a_call_without_our_key_is_refused() {
    let kit = Kit::start().await;
    let url = format!("{}/v1/payment_intents", kit.simulator.stripe_url());

    let without = kit.send(kit.client.get(&url)).await.unwrap();
    let wrong = kit.send(kit.client.get(&url).bearer_auth("sk_live_x")).await.unwrap();
    let basic = kit.send(kit.client.get(&url).basic_auth("sk_test_simulator", Some(""))).await;

    assert_eq!(without.status, 401);
    assert_eq!(wrong.status, 401);
    assert_eq!(wrong.body["error"]["type"], "invalid_request_error");
    assert_eq!(basic.unwrap().status, 200);
}

#[tokio::test]
async fn an_intent_carries_what_it_was_made_with() {
    let kit = Kit::start().await;

    let made = kit.intent().await;

    assert_eq!(made.status, 200, "{made:?}");
    assert!(made.header("request-id").starts_with("req_"));
    assert_eq!(made.header("stripe-version"), "2026-09-30.endive");
    assert_eq!(made.body["amount"], 1099);
    assert_eq!(made.body["currency"], "usd");
    assert_eq!(made.body["status"], "requires_payment_method");
    assert_eq!(made.body["metadata"]["payment_id"], "payment-1");
    let secret = made.body["client_secret"].as_str().unwrap();
    assert!(secret.starts_with(&format!("{}_secret_", made.id())));
    let read = kit.get(&format!("/v1/payment_intents/{}", made.id())).await;
    assert_eq!(read.body, made.body);
    let event = &kit.simulator.events()[0];
    assert_eq!(event.kind, "payment_intent.created");
    assert_eq!(event.payment_id.as_deref(), Some("payment-1"));
}

#[tokio::test]
async fn the_version_asked_for_is_the_version_answered() {
    let kit = Kit::start().await;
    let request = kit.stripe_request("GET", "/v1/events").header("stripe-version", "2024-04-10");

    let answer = kit.send(request).await.unwrap();

    assert_eq!(answer.header("stripe-version"), "2024-04-10");
}

#[tokio::test]
async fn an_unknown_parameter_is_refused_by_name() {
    let kit = Kit::start().await;
    let form = [("amount", "1099"), ("currency", "usd"), ("metdata[a]", "1")];

    let refused = kit.post("/v1/payment_intents", &form).await;

    assert_eq!(refused.status, 400);
    assert_eq!(refused.code(), "parameter_unknown");
    assert_eq!(refused.body["error"]["param"], "metdata");
    assert_eq!(refused.body["error"]["type"], "invalid_request_error");
}

#[tokio::test]
async fn an_amount_stripe_would_not_charge_is_refused() {
    let kit = Kit::start().await;
    let cases = [
        ("49", "usd", "amount_too_small"),
        ("100000000", "usd", "amount_too_large"),
        ("-1", "usd", "parameter_invalid_integer"),
        ("10.99", "usd", "parameter_invalid_integer"),
        ("1001", "kwd", "parameter_invalid_integer"),
        ("1050", "isk", "parameter_invalid_integer"),
        ("1099", "zzz", ""),
    ];

    for (amount, currency, code) in cases {
        let form = [("amount", amount), ("currency", currency)];
        let refused = kit.post("/v1/payment_intents", &form).await;
        assert_eq!(refused.status, 400, "{amount} {currency}");
        assert_eq!(refused.code(), code, "{amount} {currency}");
    }
    let yen = kit.post("/v1/payment_intents", &[("amount", "1500"), ("currency", "JPY")]).await;
    assert_eq!(yen.body["currency"], "jpy");
}

#[tokio::test]
async fn a_good_card_pays_an_intent_once() {
    let kit = Kit::start().await;
    let id = kit.intent().await.id();
    let path = format!("/v1/payment_intents/{id}/confirm");
    let form = [("payment_method", "pm_card_visa"), ("return_url", "https://shop.test/")];

    let paid = kit.post(&path, &form).await;
    let again = kit.post(&path, &form).await;

    assert_eq!(paid.body["status"], "succeeded", "{paid:?}");
    assert_eq!(paid.body["amount_received"], 1099);
    assert_eq!(again.status, 400);
    assert_eq!(again.code(), "payment_intent_unexpected_state");
    assert_eq!(again.body["error"]["payment_intent"]["id"], id.as_str());
    let charge = format!("/v1/charges/{}", paid.body["latest_charge"].as_str().unwrap());
    let charge = kit.get(&charge).await;
    assert_eq!(charge.body["metadata"]["payment_id"], "payment-1");
    assert_eq!(
        kit.kinds(),
        ["payment_intent.created", "charge.succeeded", "payment_intent.succeeded"]
    );
    let truth = &kit.simulator.truth()[0];
    assert_eq!((truth.captured_minor, truth.captures), (1099, 1));
}

#[tokio::test]
async fn a_declined_card_leaves_the_intent_open_for_another() {
    let kit = Kit::start().await;
    let id = kit.intent().await.id();
    let path = format!("/v1/payment_intents/{id}/confirm");
    let back = ("return_url", "https://shop.test/");

    let method = ("payment_method", "pm_card_chargeDeclinedInsufficientFunds");
    let declined = kit.post(&path, &[method, back]).await;
    let paid = kit.post(&path, &[("payment_method", "pm_card_visa"), back]).await;

    assert_eq!(declined.status, 402);
    assert_eq!(declined.header("stripe-should-retry"), "false");
    let error = &declined.body["error"];
    assert_eq!(error["type"], "card_error");
    assert_eq!(error["code"], "card_declined");
    assert_eq!(error["decline_code"], "insufficient_funds");
    assert_eq!(error["advice_code"], "try_again_later");
    assert_eq!(error["payment_intent"]["status"], "requires_payment_method");
    assert_eq!(error["payment_intent"]["last_payment_error"]["decline_code"], "insufficient_funds");
    assert_eq!(paid.body["status"], "succeeded");
    assert_eq!(paid.body["last_payment_error"], Value::Null);
    let kinds = kit.kinds();
    assert!(kinds.contains(&"payment_intent.payment_failed".into()));
    assert!(kinds.contains(&"charge.failed".into()));
}

#[tokio::test]
async fn a_confirmation_that_may_redirect_needs_a_way_back() {
    let kit = Kit::start().await;
    let path = format!("/v1/payment_intents/{}/confirm", kit.intent().await.id());

    let refused = kit.post(&path, &[("payment_method", "pm_card_visa")]).await;

    assert_eq!(refused.status, 400);
    assert_eq!(refused.body["error"]["param"], "return_url");
}

#[tokio::test]
async fn a_browser_confirms_with_the_publishable_key_and_the_client_secret() {
    let kit = Kit::start().await;
    let made = kit.intent().await;
    let url = format!("{}/v1/payment_intents/{}/confirm", kit.simulator.stripe_url(), made.id());
    let confirm = |secret: &str| {
        let form = [
            ("payment_method", "pm_card_visa"),
            ("return_url", "https://shop.test/"),
            ("client_secret", secret),
        ];
        kit.send(kit.client.post(&url).bearer_auth("pk_test_simulator").form(&form))
    };

    let wrong = confirm("pi_x_secret_y").await.unwrap();
    let right = confirm(made.body["client_secret"].as_str().unwrap()).await.unwrap();

    assert_eq!(wrong.status, 404);
    assert_eq!(right.body["status"], "succeeded");
    assert_eq!(right.body["metadata"], json!({}), "metadata is the merchant's");
    let list = kit.client.get(format!("{}/v1/payment_intents", kit.simulator.stripe_url()));
    let list = kit.send(list.bearer_auth("pk_test_simulator")).await.unwrap();
    assert_eq!((list.status, list.code()), (403, "secret_key_required"));
}

#[tokio::test]
async fn a_payer_who_is_there_is_asked_to_prove_who_they_are() {
    let kit = Kit::start().await;
    let id = kit.intent().await.id();

    let asked = kit.simulator.pay_stripe(&id, "4000 0025 0000 3155");
    let failed = kit.simulator.authenticate_stripe(&id, false);
    let asked_again = kit.simulator.pay_stripe(&id, "4000 0025 0000 3155");
    let proven = kit.simulator.authenticate_stripe(&id, true);

    assert_eq!(asked.as_deref(), Ok("requires_action"));
    assert_eq!(failed.unwrap_err().code, "payment_intent_authentication_failure");
    assert_eq!(asked_again.as_deref(), Ok("requires_action"));
    assert_eq!(proven.as_deref(), Ok("succeeded"));
    assert!(kit.kinds().contains(&"payment_intent.requires_action".into()));
}

#[tokio::test]
async fn a_payer_who_is_away_cannot_authenticate_so_the_renewal_is_refused() {
    let kit = Kit::start().await;
    let customer = kit.post("/v1/customers", &[("email", "jenny@example.com")]).await.id();
    let path = "/v1/payment_methods/pm_card_authenticationRequired/attach";
    let method = kit.post(path, &[("customer", customer.as_str())]).await.id();

    let form = [
        ("amount", "1099"),
        ("currency", "usd"),
        ("customer", customer.as_str()),
        ("payment_method", method.as_str()),
        ("off_session", "true"),
        ("confirm", "true"),
        ("metadata[payment_id]", "payment-1"),
    ];
    let refused = kit.post("/v1/payment_intents", &form).await;

    assert_eq!(refused.status, 402, "{refused:?}");
    let error = &refused.body["error"];
    assert_eq!(error["code"], "authentication_required");
    assert_eq!(error["decline_code"], "authentication_required");
    assert_eq!(error["payment_method"]["id"], method.as_str());
    let intent = &error["payment_intent"];
    assert_eq!(intent["status"], "requires_payment_method");
    assert!(kit.kinds().contains(&"payment_intent.payment_failed".into()));
    // The payer comes back and pays the same intent.
    let id = intent["id"].as_str().unwrap();
    assert_eq!(kit.simulator.pay_stripe(id, &method).as_deref(), Ok("requires_action"));
    assert_eq!(kit.simulator.authenticate_stripe(id, true).as_deref(), Ok("succeeded"));
}

#[tokio::test]
async fn a_card_saved_with_a_first_payment_pays_renewals() {
    let kit = Kit::start().await;
    let customer = kit.post("/v1/customers", &[("email", "jenny@example.com")]).await.id();
    let first = [
        ("amount", "1099"),
        ("currency", "usd"),
        ("customer", customer.as_str()),
        ("setup_future_usage", "off_session"),
    ];
    let first = kit.post("/v1/payment_intents", &first).await.id();
    kit.simulator.pay_stripe(&first, "4000002500003155").unwrap();
    kit.simulator.authenticate_stripe(&first, true).unwrap();
    let saved = kit.get(&format!("/v1/payment_methods?customer={customer}")).await;
    let method = saved.body["data"][0]["id"].as_str().unwrap().to_owned();

    let renewal = [
        ("amount", "1099"),
        ("currency", "usd"),
        ("customer", customer.as_str()),
        ("payment_method", method.as_str()),
        ("off_session", "true"),
        ("confirm", "true"),
    ];
    let renewal = kit.post("/v1/payment_intents", &renewal).await;

    assert_eq!(renewal.body["status"], "succeeded", "{renewal:?}");
    assert_eq!(renewal.body["payment_method"], method.as_str());
}

#[tokio::test]
async fn a_card_that_was_not_saved_pays_only_once() {
    let kit = Kit::start().await;
    let first = kit.paid_intent().await;
    let first = kit.get(&format!("/v1/payment_intents/{first}")).await;
    let second = kit.intent().await.id();

    let method = first.body["payment_method"].as_str().unwrap();
    let refused = kit.simulator.pay_stripe(&second, method);

    assert!(refused.unwrap_err().message.contains("may not be used again"));
}

#[tokio::test]
async fn an_intent_that_waits_for_the_bank_ends_by_event() {
    let kit = Kit::start().await;
    let paid = kit.intent().await.id();
    let refused = kit.intent().await.id();
    for id in [&paid, &refused] {
        let status = kit.simulator.pay_stripe(id, "pm_usBankAccount_processing");
        assert_eq!(status.as_deref(), Ok("processing"));
    }

    kit.simulator.settle_stripe(&paid, true).unwrap();
    kit.simulator.settle_stripe(&refused, false).unwrap();

    let truth = kit.simulator.truth();
    assert_eq!((truth[0].status.as_str(), truth[0].captured_minor), ("succeeded", 1099));
    assert_eq!(truth[1].status, "requires_payment_method");
    assert_eq!(truth[1].captured_minor, 0);
    assert!(kit.kinds().contains(&"payment_intent.processing".into()));
}

#[tokio::test]
async fn a_cancelled_intent_can_no_longer_be_paid_nor_a_paid_one_cancelled() {
    let kit = Kit::start().await;
    let open = kit.intent().await.id();
    let paid = kit.paid_intent().await;
    let form = [("cancellation_reason", "abandoned")];

    let cancelled = kit.post(&format!("/v1/payment_intents/{open}/cancel"), &form).await;
    let refused = kit.post(&format!("/v1/payment_intents/{paid}/cancel"), &form).await;

    assert_eq!(cancelled.body["status"], "canceled");
    assert_eq!(cancelled.body["cancellation_reason"], "abandoned");
    assert_eq!(refused.code(), "payment_intent_unexpected_state");
    let late = kit.simulator.pay_stripe(&open, "pm_card_visa").unwrap_err();
    assert_eq!(late.code, "payment_intent_unexpected_state");
    assert!(kit.kinds().contains(&"payment_intent.canceled".into()));
}

#[tokio::test]
async fn money_set_aside_is_captured_in_a_second_step() {
    let kit = Kit::start().await;
    let form = [("amount", "1099"), ("currency", "usd"), ("capture_method", "manual")];
    let id = kit.post("/v1/payment_intents", &form).await.id();

    let status = kit.simulator.pay_stripe(&id, "pm_card_visa");
    let before = kit.simulator.truth()[0].captured_minor;
    let captured = kit.post(&format!("/v1/payment_intents/{id}/capture"), &[]).await;

    assert_eq!(status.as_deref(), Ok("requires_capture"));
    assert_eq!(before, 0);
    assert_eq!(captured.body["amount_received"], 1099);
}

#[tokio::test]
async fn an_open_intent_can_be_changed_and_a_paid_one_only_in_its_metadata() {
    let kit = Kit::start().await;
    let open = kit.intent().await.id();
    let paid = kit.paid_intent().await;

    let form = [("amount", "2000"), ("metadata[order]", "7"), ("metadata[payment_id]", "")];
    let changed = kit.post(&format!("/v1/payment_intents/{open}"), &form).await;
    let refused = kit.post(&format!("/v1/payment_intents/{paid}"), &[("amount", "2000")]).await;
    let noted = kit.post(&format!("/v1/payment_intents/{paid}"), &[("metadata[a]", "b")]).await;

    assert_eq!(changed.body["amount"], 2000);
    assert_eq!(changed.body["metadata"], json!({ "order": "7" }));
    assert_eq!(refused.status, 400);
    assert_eq!(noted.body["metadata"]["a"], "b");
}

#[tokio::test]
async fn a_customers_intents_are_listed_newest_first() {
    let kit = Kit::start().await;
    let customer = kit.post("/v1/customers", &[("email", "jenny@example.com")]).await.id();
    let form = [("amount", "1099"), ("currency", "usd"), ("customer", customer.as_str())];
    let first = kit.post("/v1/payment_intents", &form).await.id();
    let second = kit.post("/v1/payment_intents", &form).await.id();
    kit.intent().await;

    let list = kit.get(&format!("/v1/payment_intents?customer={customer}&limit=1")).await;
    let rest = format!("/v1/payment_intents?customer={customer}&starting_after={second}");
    let rest = kit.get(&rest).await;

    assert_eq!(list.body["data"][0]["id"], second.as_str());
    assert_eq!(list.body["has_more"], true);
    assert_eq!(rest.body["data"][0]["id"], first.as_str());
    assert_eq!(rest.body["has_more"], false);
}

#[tokio::test]
async fn a_deleted_customer_can_be_charged_no_more() {
    let kit = Kit::start().await;
    let customer = kit.post("/v1/customers", &[("email", "jenny@example.com")]).await.id();
    let path = format!("/v1/customers/{customer}");
    let changed = kit.post(&path, &[("name", "Jenny Rosen")]).await;
    assert_eq!(changed.body["name"], "Jenny Rosen");

    let deleted = kit.send(kit.stripe_request("DELETE", &path)).await.unwrap();
    let form = [("amount", "1099"), ("currency", "usd"), ("customer", customer.as_str())];
    let refused = kit.post("/v1/payment_intents", &form).await;

    assert_eq!(deleted.body, json!({ "id": customer, "object": "customer", "deleted": true }));
    assert_eq!(refused.code(), "resource_missing");
    assert_eq!(refused.body["error"]["param"], "customer");
    let events = kit.simulator.events();
    let body: Value = serde_json::from_slice(&events[1].body).unwrap();
    assert_eq!(body["data"]["previous_attributes"], json!({ "name": null }));
    let body: Value = serde_json::from_slice(&events[2].body).unwrap();
    assert_eq!(body["type"], "customer.deleted");
    assert_eq!(body["data"]["object"]["deleted"], Value::Null, "the body is the full customer");
}

#[tokio::test]
async fn events_are_listed_by_kind_and_by_how_their_delivery_went() {
    let kit = Kit::start().await;
    kit.paid_intent().await;

    let all = kit.get("/v1/events").await;
    let succeeded = kit.get("/v1/events?types[]=payment_intent.succeeded&types[]=charge.x").await;
    let undelivered = kit.get("/v1/events?delivery_success=false").await;
    let delivered = kit.get("/v1/events?delivery_success=true").await;
    let none = kit.get("/v1/events?created[gt]=99999999999").await;

    let count = |answer: &crate::kit::Answer| answer.body["data"].as_array().unwrap().len();
    assert_eq!(count(&all), 3);
    assert_eq!(all.body["data"][0]["type"], "payment_intent.succeeded");
    assert_eq!(count(&succeeded), 1);
    assert_eq!((count(&undelivered), count(&delivered), count(&none)), (3, 0, 0));
    let id = succeeded.body["data"][0]["id"].as_str().unwrap();
    assert_eq!(kit.get(&format!("/v1/events/{id}")).await.id(), id);
}
