//! Checkout sessions and the customer portal at Stripe.

use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::kit::{Answer, Kit};

const BUY: &[(&str, &str)] = &[
    ("mode", "payment"),
    ("line_items[0][price_data][currency]", "usd"),
    ("line_items[0][price_data][unit_amount]", "500"),
    ("line_items[0][price_data][product_data][name]", "Starter"),
    ("line_items[0][quantity]", "2"),
    ("line_items[1][price_data][currency]", "usd"),
    ("line_items[1][price_data][unit_amount]", "99"),
    ("line_items[1][price_data][product_data][name]", "Fee"),
    ("line_items[1][quantity]", "1"),
    ("success_url", "http://shop.test/done?session={CHECKOUT_SESSION_ID}"),
    ("cancel_url", "http://shop.test/cart"),
    ("client_reference_id", "order-1"),
    ("metadata[from]", "cart"),
    ("payment_intent_data[metadata][payment_id]", "payment-1"),
];

async fn session(kit: &Kit, more: &[(&str, &str)]) -> Answer {
    kit.post("/v1/checkout/sessions", &[BUY, more].concat()).await
}

async fn read(kit: &Kit, id: &str) -> Value {
    kit.get(&format!("/v1/checkout/sessions/{id}?expand[]=payment_intent")).await.body
}

#[tokio::test]
async fn a_session_has_no_intent_until_somebody_tries_to_pay() {
    let kit = Kit::start().await;

    let made = session(&kit, &[]).await;

    assert_eq!(made.status, 200, "{made:?}");
    assert_eq!(made.body["status"], "open");
    assert_eq!(made.body["payment_status"], "unpaid");
    assert_eq!((&made.body["amount_total"], &made.body["currency"]), (&json!(1099), &json!("usd")));
    assert_eq!(made.body["payment_intent"], Value::Null);
    assert_eq!(made.body["client_reference_id"], "order-1");
    assert_eq!(made.body["metadata"], json!({ "from": "cart" }));
    assert!(made.body.get("line_items").is_none(), "they are told only where they are expanded");
    let url = made.body["url"].as_str().unwrap();
    assert!(url.starts_with(kit.simulator.stripe_url()), "{url}");
    assert!(kit.simulator.truth().is_empty());
}

#[tokio::test]
async fn a_paid_session_is_complete_and_its_intent_names_our_payment() {
    let kit = Kit::start().await;
    let id = session(&kit, &[]).await.id();

    let declined = kit.simulator.pay_stripe_session(&id, "pm_card_chargeDeclined").unwrap_err();
    let open = read(&kit, &id).await;
    let paid = kit.simulator.pay_stripe_session(&id, "pm_card_visa");
    let twice = kit.simulator.pay_stripe_session(&id, "pm_card_visa");

    assert_eq!(declined.code, "generic_decline");
    assert_eq!(open["status"], "open");
    assert_eq!(open["payment_intent"]["status"], "requires_payment_method");
    assert_eq!(paid.as_deref(), Ok("succeeded"));
    assert!(twice.is_err());
    let done = read(&kit, &id).await;
    assert_eq!((&done["status"], &done["payment_status"]), (&json!("complete"), &json!("paid")));
    assert_eq!(done["url"], Value::Null);
    assert_eq!(done["payment_intent"]["id"], open["payment_intent"]["id"]);
    assert_eq!(done["payment_intent"]["metadata"], json!({ "payment_id": "payment-1" }));
    assert_eq!(done["customer"], Value::Null);
    let truth = kit.simulator.truth();
    assert_eq!((truth.len(), truth[0].captured_minor, truth[0].captures), (1, 1099, 1));
    assert_eq!(truth[0].payment_id.as_deref(), Some("payment-1"));
    let kinds = kit.kinds();
    assert_eq!(kinds.first().map(String::as_str), Some("payment_intent.created"));
    assert_eq!(
        kinds[kinds.len() - 3..],
        ["charge.succeeded", "payment_intent.succeeded", "checkout.session.completed"]
    );
    let event = kit.simulator.events().pop().unwrap();
    assert_eq!((event.object_id, event.payment_id.as_deref()), (id, Some("payment-1")));
}

#[tokio::test]
async fn money_that_comes_later_completes_the_session_unpaid_first() {
    let kit = Kit::start().await;
    let (good, bad) = (session(&kit, &[]).await.id(), session(&kit, &[]).await.id());
    let mut intents = Vec::new();
    for id in [&good, &bad] {
        let status = kit.simulator.pay_stripe_session(id, "pm_usBankAccount_processing");
        assert_eq!(status.as_deref(), Ok("processing"));
        let waiting = read(&kit, id).await;
        assert_eq!(waiting["status"], "complete");
        assert_eq!(waiting["payment_status"], "unpaid");
        intents.push(waiting["payment_intent"]["id"].as_str().unwrap().to_owned());
    }

    kit.simulator.settle_stripe(&intents[0], true).unwrap();
    kit.simulator.settle_stripe(&intents[1], false).unwrap();

    assert_eq!(read(&kit, &good).await["payment_status"], "paid");
    assert_eq!(read(&kit, &bad).await["payment_status"], "unpaid");
    let events = kit.simulator.events();
    let told = |id: &str| -> Vec<_> {
        let events = events.iter().filter(|event| event.object_id == id);
        events.map(|event| event.kind.strip_prefix("checkout.session.").unwrap()).collect()
    };
    assert_eq!(told(&good), ["completed", "async_payment_succeeded"]);
    assert_eq!(told(&bad), ["completed", "async_payment_failed"]);
}

#[tokio::test]
async fn an_expired_session_cancels_its_intent_and_takes_no_money() {
    let kit = Kit::start().await;
    let id = session(&kit, &[]).await.id();
    kit.simulator.pay_stripe_session(&id, "pm_card_chargeDeclined").unwrap_err();
    let intent = read(&kit, &id).await["payment_intent"]["id"].as_str().unwrap().to_owned();

    let direct = kit.post(&format!("/v1/payment_intents/{intent}/cancel"), &[]).await;
    let path = format!("/v1/checkout/sessions/{id}/expire");
    let expired = kit.post(&path, &[]).await;
    let again = kit.post(&path, &[]).await;
    let late = kit.simulator.pay_stripe_session(&id, "pm_card_visa");
    let around = kit.simulator.pay_stripe(&intent, "pm_card_visa");

    assert_eq!(direct.status, 400, "only the session may cancel it");
    assert_eq!((&expired.body["status"], &expired.body["url"]), (&json!("expired"), &Value::Null));
    assert_eq!(again.status, 400);
    assert!(late.is_err() && around.is_err());
    assert_eq!(read(&kit, &id).await["payment_intent"]["status"], "canceled");
    let kinds = kit.kinds();
    assert_eq!(kinds[kinds.len() - 2..], ["payment_intent.canceled", "checkout.session.expired"]);
}

#[tokio::test]
async fn time_ends_an_open_session_and_no_other() {
    let kit = Kit::start().await;
    let soon = (kit.simulator.now() + TimeDelta::minutes(31)).timestamp().to_string();
    let (open, paid) = (
        session(&kit, &[("expires_at", &soon)]).await.id(),
        session(&kit, &[("expires_at", &soon)]).await.id(),
    );
    let later = session(&kit, &[]).await.id();
    kit.simulator.pay_stripe_session(&paid, "pm_card_visa").unwrap();

    kit.simulator.advance_clock(TimeDelta::minutes(32));

    let kinds = kit.kinds();
    assert_eq!(kinds.iter().filter(|kind| *kind == "checkout.session.expired").count(), 1);
    assert_eq!(read(&kit, &open).await["status"], "expired");
    assert_eq!(read(&kit, &paid).await["status"], "complete");
    assert_eq!(read(&kit, &later).await["status"], "open");
}

#[tokio::test]
async fn a_session_keeps_the_card_for_the_customer_it_meets() {
    let kit = Kit::start().await;
    let usage = ("payment_intent_data[setup_future_usage]", "off_session");
    let email = ("customer_email", "jenny@example.com");
    let id = session(&kit, &[usage, email]).await.id();

    kit.simulator.pay_stripe_session(&id, "pm_card_visa").unwrap();

    let done = read(&kit, &id).await;
    let customer = done["customer"].as_str().unwrap();
    assert_eq!(done["customer_details"]["email"], "jenny@example.com");
    assert_eq!(done["payment_intent"]["customer"], customer);
    let methods = kit.get(&format!("/v1/payment_methods?customer={customer}")).await;
    assert_eq!(methods.body["data"].as_array().unwrap().len(), 1);
    let always = session(&kit, &[("customer_creation", "always")]).await.id();
    kit.simulator.pay_stripe_session(&always, "pm_card_visa").unwrap();
    assert!(read(&kit, &always).await["customer"].is_string());
}

#[tokio::test]
async fn a_setup_session_keeps_a_card_and_asks_for_no_money() {
    let kit = Kit::start().await;
    let customer = kit.post("/v1/customers", &[("email", "jenny@example.com")]).await.id();
    let form = [
        ("mode", "setup"),
        ("customer", customer.as_str()),
        ("currency", "usd"),
        ("success_url", "http://shop.test/done"),
        ("setup_intent_data[metadata][payment_id]", "payment-1"),
    ];
    let made = kit.post("/v1/checkout/sessions", &form).await;
    assert_eq!(made.body["payment_status"], "no_payment_required", "{made:?}");
    assert!(made.body["setup_intent"].as_str().unwrap().starts_with("seti_"));

    let asked = kit.simulator.pay_stripe_session(&made.id(), "4000002500003155");
    let proven = kit.simulator.authenticate_stripe_session(&made.id(), true);

    assert_eq!(asked.as_deref(), Ok("requires_action"));
    assert_eq!(proven.as_deref(), Ok("succeeded"));
    let done = kit.get(&format!("/v1/checkout/sessions/{}", made.id())).await;
    assert_eq!(done.body["status"], "complete");
    let methods = kit.get(&format!("/v1/payment_methods?customer={customer}")).await;
    assert_eq!(methods.body["data"].as_array().unwrap().len(), 1);
    let kinds = kit.kinds();
    assert_eq!(
        kinds[kinds.len() - 3..],
        ["payment_method.attached", "setup_intent.succeeded", "checkout.session.completed"]
    );
    assert!(kit.simulator.truth().is_empty());
}

#[tokio::test]
async fn sessions_are_found_by_their_intent_and_customer() {
    let kit = Kit::start().await;
    let customer = kit.post("/v1/customers", &[("email", "jenny@example.com")]).await.id();
    let mine = session(&kit, &[("customer", &customer)]).await.id();
    let other = session(&kit, &[]).await.id();
    kit.simulator.pay_stripe_session(&mine, "pm_card_visa").unwrap();
    let intent = read(&kit, &mine).await["payment_intent"]["id"].as_str().unwrap().to_owned();
    let list = async |query: String| {
        let body = kit.get(&format!("/v1/checkout/sessions?{query}")).await.body;
        let data = body["data"].as_array().unwrap().iter();
        data.map(|session| session["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };

    assert_eq!(list(format!("payment_intent={intent}")).await, [mine.as_str()]);
    assert_eq!(list(format!("customer={customer}")).await, [mine.as_str()]);
    assert_eq!(list("customer_details[email]=jenny%40example.com".into()).await, [mine.as_str()]);
    assert_eq!(list("status=open".into()).await, [other.as_str()]);
    assert_eq!(list(String::new()).await, [other.as_str(), mine.as_str()]);
    let path = format!("/v1/checkout/sessions/{mine}");
    let items = kit.get(&format!("{path}/line_items?limit=1")).await;
    assert_eq!(items.body["data"][0]["amount_total"], 1000);
    assert_eq!(items.body["has_more"], true);
    let expanded = kit.get(&format!("{path}?expand[]=line_items&expand[]=customer")).await;
    assert_eq!(expanded.body["line_items"]["data"][1]["description"], "Fee");
    assert_eq!(expanded.body["customer"]["email"], "jenny@example.com");
}

#[tokio::test]
async fn what_stripe_would_not_sell_is_refused_by_name() {
    let kit = Kit::start().await;
    let near = (kit.simulator.now() + TimeDelta::minutes(29)).timestamp().to_string();
    let far = (kit.simulator.now() + TimeDelta::hours(25)).timestamp().to_string();
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[("colour", "red")], "colour"),
        (&[("line_items[0][price_data][colour]", "red")], "line_items[0][price_data][colour]"),
        (&[("payment_intent_data[colour]", "red")], "payment_intent_data[colour]"),
        (&[("line_items[1][price_data][currency]", "eur")], "line_items"),
        (&[("line_items[1][price]", "price_x")], "line_items[1][price]"),
        (&[("expires_at", &near)], "expires_at"),
        (&[("expires_at", &far)], "expires_at"),
        (&[("customer", "cus_x")], "customer"),
        (&[("success_url", "nowhere")], "success_url"),
        (&[("success_url", "")], "success_url"),
        (&[("mode", "subscription")], "mode"),
        (&[("line_items[0][quantity]", "")], "line_items[0][quantity]"),
    ];

    for (more, param) in cases {
        let mut form: Vec<_> = BUY.to_vec();
        form.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
        form.extend_from_slice(more);
        let refused = kit.post("/v1/checkout/sessions", &form).await;
        assert_eq!(refused.status, 400, "{more:?}");
        assert_eq!(refused.body["error"]["param"], *param, "{more:?}");
    }
    let small: Vec<_> = BUY.iter().filter(|(name, _)| !name.contains("[0]")).copied().collect();
    let small = [small.as_slice(), &[("line_items[1][quantity]", "0")]].concat();
    assert_eq!(kit.post("/v1/checkout/sessions", &small).await.status, 400);
}

#[tokio::test]
async fn the_same_key_makes_one_session() {
    let kit = Kit::start().await;

    let first = kit.post_with_key("/v1/checkout/sessions", BUY, "session-1").await;
    let again = kit.post_with_key("/v1/checkout/sessions", BUY, "session-1").await;
    let form = [BUY, &[("locale", "de")]].concat();
    let other = kit.post_with_key("/v1/checkout/sessions", &form, "session-1").await;

    assert_eq!(first.id(), again.id());
    assert_eq!(other.body["error"]["type"], "idempotency_error");
}

#[tokio::test]
async fn a_buyer_pays_on_the_sessions_page_and_comes_back_with_its_id() {
    let kit = Kit::start().await;
    let made = session(&kit, &[]).await;
    let page = made.body["url"].as_str().unwrap();
    let submit = async |page: &str, action: &str, card: &str| {
        kit.client.post(page).form(&[("action", action), ("card", card)]).send().await.unwrap()
    };

    let html = kit.client.get(page).send().await.unwrap().text().await.unwrap();
    let declined = submit(page, "decline", "").await.text().await.unwrap();
    let asked = submit(page, "pay", "4000 0027 6000 3184").await.text().await.unwrap();
    let paid = submit(page, "authenticate", "").await;
    let after = kit.client.get(page).send().await.unwrap().text().await.unwrap();
    let later = session(&kit, &[]).await;
    let later = submit(later.body["url"].as_str().unwrap(), "later", "").await;

    assert!(html.contains("10.99 USD") && html.contains("Pay later by bank"), "{html}");
    assert!(html.contains("http://shop.test/cart"), "{html}");
    assert!(declined.contains("Your card was declined."), "{declined}");
    assert!(asked.contains("Complete authentication"), "{asked}");
    assert_eq!((paid.status(), later.status()), (303.try_into().unwrap(), 303.try_into().unwrap()));
    let location = paid.headers()["location"].to_str().unwrap();
    assert_eq!(location, format!("http://shop.test/done?session={}", made.id()));
    assert!(after.contains("All done"), "{after}");
    assert_eq!(kit.simulator.truth()[0].captured_minor, 1099);
    assert_eq!(kit.simulator.truth()[1].status, "processing");
}

#[tokio::test]
async fn sessions_are_paid_and_expired_over_http_too() {
    let kit = Kit::start().await;
    let (first, second) = (session(&kit, &[]).await.id(), session(&kit, &[]).await.id());
    let base = format!("{}/_sim/stripe/sessions", kit.simulator.stripe_url());
    let post = async |path: String, body: Value| {
        kit.send(kit.client.post(format!("{base}/{path}")).json(&body)).await.unwrap()
    };

    let card = json!({ "payment_method": "pm_card_authenticationRequired" });
    let asked = post(format!("{first}/pay"), card).await;
    let paid = post(format!("{first}/authenticate"), json!({ "success": true })).await;
    let expired = post(format!("{second}/expire"), json!({})).await;
    let again = post(format!("{second}/expire"), json!({})).await;

    assert_eq!(asked.body["status"], "requires_action");
    assert_eq!(paid.body["status"], "succeeded");
    assert_eq!((expired.status, again.status), (204, 422));
}

#[tokio::test]
async fn customers_remove_their_own_cards_in_the_portal_and_go_back() {
    let kit = Kit::start().await;
    let (jenny, tom) = (
        kit.post("/v1/customers", &[("email", "jenny@example.com")]).await.id(),
        kit.post("/v1/customers", &[("email", "tom@example.com")]).await.id(),
    );
    let attach = async |customer: &str| {
        let path = "/v1/payment_methods/pm_card_visa/attach";
        kit.post(path, &[("customer", customer)]).await.id()
    };
    let (card, foreign) = (attach(&jenny).await, attach(&tom).await);
    let form = [("customer", jenny.as_str()), ("return_url", "http://shop.test/account")];

    let portal = kit.post("/v1/billing_portal/sessions", &form).await;
    let url = portal.body["url"].as_str().unwrap();
    let html = kit.client.get(url).send().await.unwrap().text().await.unwrap();
    let remove = async |method: &str| {
        kit.client.post(url).form(&[("remove", method)]).send().await.unwrap().status().as_u16()
    };
    let (wrong, right) = (remove(&foreign).await, remove(&card).await);
    let after = kit.client.get(url).send().await.unwrap().text().await.unwrap();
    let unknown = kit.post("/v1/billing_portal/sessions", &[("colour", "red")]).await;
    let nobody = kit.post("/v1/billing_portal/sessions", &[("customer", "cus_x")]).await;

    assert_eq!(portal.body["object"], "billing_portal.session");
    assert!(html.contains(&card) && html.contains("visa ending in 4242"), "{html}");
    assert!(!html.contains(&foreign) && html.contains("http://shop.test/account"), "{html}");
    assert_eq!((wrong, right), (404, 303));
    assert!(after.contains("No card is kept."), "{after}");
    assert_eq!(kit.kinds().last().map(String::as_str), Some("payment_method.detached"));
    assert_eq!((unknown.status, nobody.code()), (400, "resource_missing"));
}
