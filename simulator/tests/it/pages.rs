//! What a buyer sees and does.

use serde_json::{Value, json};
use simulator::Fault;

use crate::kit::{Kit, until};

async fn read(kit: &Kit, url: &str) -> (u16, String) {
    let response = kit.client.get(url).send().await.expect("a page");
    (response.status().as_u16(), response.text().await.expect("text"))
}

async fn submit(kit: &Kit, url: &str, form: &[(&str, &str)]) -> (u16, String, String) {
    let response = kit.client.post(url).form(form).send().await.expect("a page");
    let location = response.headers().get("location").map(|value| value.to_str().expect("text"));
    let location = location.unwrap_or_default().to_owned();
    (response.status().as_u16(), location, response.text().await.expect("text"))
}

#[tokio::test]
async fn a_buyer_pays_on_stripes_page_and_comes_back_to_the_shop() {
    let kit = Kit::start().await;
    let form = [("amount", "1099"), ("currency", "usd"), ("description", "<b>1 & 2</b>")];
    let made = kit.post("/v1/payment_intents", &form).await;
    let secret = made.body["client_secret"].as_str().unwrap();
    let page = format!("{}/pay/{}", kit.simulator.stripe_url(), made.id());

    let back = "http://shop.test/done";
    let (status, html) =
        read(&kit, &format!("{page}?client_secret={secret}&return_url={back}")).await;
    let (wrong, _) = read(&kit, &format!("{page}?client_secret=x")).await;
    let form = [
        ("client_secret", secret),
        ("return_url", back),
        ("card", "4242 4242 4242 4242"),
        ("action", "pay"),
    ];
    let (paid, location, _) = submit(&kit, &page, &form).await;

    assert_eq!((status, wrong), (200, 404));
    assert!(html.contains("10.99 USD") && html.contains("4242 4242 4242 4242"), "{html}");
    assert!(!html.contains("<b>1"), "{html}");
    assert_eq!(paid, 303);
    assert!(location.starts_with("http://shop.test/done?payment_intent=pi_"), "{location}");
    assert!(location.ends_with("redirect_status=succeeded"), "{location}");
    assert_eq!(kit.simulator.truth()[0].captured_minor, 1099);
    let events = kit.simulator.events();
    let body: Value = serde_json::from_slice(&events.last().unwrap().body).unwrap();
    assert_eq!(body["type"], "payment_intent.succeeded");
    assert_eq!(body["request"], json!({ "id": null, "idempotency_key": null }));
}

#[tokio::test]
async fn a_buyer_whose_card_is_declined_tries_another() {
    let kit = Kit::start().await;
    let made = kit.intent().await;
    let secret = made.body["client_secret"].as_str().unwrap();
    let page = format!("{}/pay/{}", kit.simulator.stripe_url(), made.id());
    let form = |card: &'static str, action: &'static str| {
        [("client_secret", secret), ("card", card), ("action", action)]
    };

    let (_, _, declined) = submit(&kit, &page, &form("", "decline")).await;
    let (_, _, poor) = submit(&kit, &page, &form("4000000000009995", "pay")).await;
    let (_, _, wrong) = submit(&kit, &page, &form("1234", "pay")).await;
    let (_, _, asked) = submit(&kit, &page, &form("4000002500003155", "pay")).await;
    let (status, _, paid) = submit(&kit, &page, &form("", "authenticate")).await;

    assert!(declined.contains("Your card was declined."), "{declined}");
    assert!(poor.contains("Your card has insufficient funds."), "{poor}");
    assert!(wrong.contains("Your card number is incorrect."), "{wrong}");
    assert!(asked.contains("Complete authentication"), "{asked}");
    assert_eq!(status, 200);
    assert!(paid.contains("<h1>Paid</h1>"), "{paid}");
}

#[tokio::test]
async fn a_buyer_approves_an_order_and_comes_back_with_its_token() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let endpoint = kit.endpoint(&[]).await;
    let order = kit.order(&token).await;
    let links = order.body["links"].as_array().unwrap();
    let link = links.iter().find(|link| link["rel"] == "payer-action").unwrap();

    let (_, html) = read(&kit, link["href"].as_str().unwrap()).await;
    let page = format!("{}/checkoutnow", kit.simulator.paypal_url());
    let id = order.id();
    let (status, location, _) = submit(&kit, &page, &[("token", &id), ("action", "pay")]).await;

    assert!(html.contains("10.99 USD") && html.contains("Pay now"), "{html}");
    assert_eq!(status, 303);
    assert_eq!(location, format!("http://shop.test/return?token={id}&PayerID=QYR5Z8XDVJNXQ"));
    let event = endpoint.first("CHECKOUT.ORDER.APPROVED").await;
    assert_eq!(event.json()["resource"]["status"], "APPROVED");
}

#[tokio::test]
async fn a_buyer_who_cancels_goes_back_and_nothing_is_approved() {
    let kit = Kit::start().await;
    let id = kit.order(&kit.token().await).await.id();
    let page = format!("{}/checkoutnow", kit.simulator.paypal_url());

    let (status, location, _) = submit(&kit, &page, &[("token", &id), ("action", "cancel")]).await;

    assert_eq!((status, location), (303, format!("http://shop.test/cancel?token={id}")));
    assert!(kit.simulator.events().is_empty());
}

#[tokio::test]
async fn the_first_page_of_each_gateway_shows_its_state() {
    let kit = Kit::start().await;
    let endpoint = kit.endpoint(&[]).await;
    let intent = kit.paid_intent().await;
    endpoint.first("payment_intent.succeeded").await;
    let dispute = kit.simulator.open_stripe_dispute(&intent, true, None).unwrap();
    let order = kit.order(&kit.token().await).await.id();

    let (_, stripe) = read(&kit, kit.simulator.stripe_url()).await;
    let (_, paypal) = read(&kit, kit.simulator.paypal_url()).await;

    assert!(stripe.contains(&dispute) && stripe.contains("warning_needs_response"), "{stripe}");
    assert!(stripe.contains(&intent) && stripe.contains("payment_intent.succeeded"), "{stripe}");
    assert!(paypal.contains(&order) && paypal.contains("PAYER_ACTION_REQUIRED"), "{paypal}");
}

#[tokio::test]
async fn other_languages_control_the_simulator_over_http() {
    let kit = Kit::start().await;
    let endpoint = kit.endpoint(&[]).await;
    let base = kit.simulator.stripe_url().to_owned();
    let post = async |path: &str, body: Value| {
        let request = kit.client.post(format!("{base}/_sim/{path}")).json(&body);
        kit.send(request).await.unwrap()
    };
    let get = async |path: &str| {
        kit.send(kit.client.get(format!("{base}/_sim/{path}"))).await.unwrap().body
    };

    let fault = json!({
        "gateway": "stripe",
        "matching": "POST /v1/payment_intents",
        "trouble": { "kind": "rate_limited", "retry_after_s": 2 },
        "when": { "next": 1 },
    });
    assert_eq!(post("faults", fault.clone()).await.status, 204);
    let read: Vec<Fault> = serde_json::from_value(get("faults").await["faults"].clone()).unwrap();
    assert_eq!(json!(read), json!([fault]));
    assert_eq!(kit.intent().await.status, 429);
    post("deliveries/pause", json!({})).await;
    let id = kit.intent().await.id();
    let pay = format!("stripe/intents/{id}/pay");
    let declined = post(&pay, json!({ "payment_method": "pm_card_chargeDeclined" })).await;
    assert_eq!((declined.status, declined.body["code"].as_str()), (422, Some("generic_decline")));
    let paid = post(&pay, json!({ "payment_method": "pm_card_visa" })).await;
    assert_eq!(paid.body["status"], "succeeded");
    let events = get("events?payment_id=payment-1&kind=payment_intent.succeeded").await;
    let event = &events["events"][0];
    assert_eq!(event["delivery"], "pending");
    let full = get(&format!("events/{}", event["id"].as_str().unwrap())).await;
    assert!(full["headers"]["Stripe-Signature"].is_string());
    assert!(full["body"].as_str().unwrap().contains("payment_intent.succeeded"));
    post("deliveries/resume", json!({})).await;
    endpoint.first("payment_intent.succeeded").await;
    until("delivered", || (kit.simulator.pending_deliveries() == 0).then_some(())).await;
    assert_eq!(get("deliveries").await["attempts"].as_array().unwrap().len(), 5);
    assert_eq!(get("truth").await["objects"][0]["captured_minor"], 1099);
    let calls = get("calls").await;
    assert!(!calls.to_string().contains("sk_test"), "no secret is written down");
    post("clock", json!({ "advance_ms": 1000 })).await;
    assert_eq!(get("clock").await["offset_ms"], 1000);
    post("reset", json!({})).await;
    assert_eq!(get("truth").await["objects"], json!([]));
    assert_eq!(get("clock").await["offset_ms"], 0);
}

/// Sends a form of the state page; gives the status and where it leads.
async fn desk(kit: &Kit, base: &str, form: &[(&str, &str)]) -> (u16, String) {
    let (status, location, _) = submit(kit, &format!("{base}/desk"), form).await;
    (status, location)
}

#[tokio::test]
async fn a_person_takes_a_hand_in_it_on_the_state_page() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let (_, capture) = kit.captured_order(&token).await;
    let intent = kit.paid_intent().await;
    let (stripe, paypal) = (kit.simulator.stripe_url(), kit.simulator.paypal_url());
    let home = (303, "/".to_owned());

    let part = [("action", "refund"), ("target", capture.as_str()), ("amount", "400")];
    assert_eq!(desk(&kit, paypal, &part).await, home);
    assert_eq!(desk(&kit, paypal, &[("action", "dispute"), ("target", &capture)]).await, home);
    assert_eq!(desk(&kit, stripe, &[("action", "inquire"), ("target", &intent)]).await, home);
    let (_, page) = read(&kit, paypal).await;
    let events = kit.simulator.events();
    let dispute = events.iter().find(|it| it.kind == "CUSTOMER.DISPUTE.CREATED").unwrap();
    let dispute = dispute.object_id.clone();
    assert!(page.contains(&dispute) && page.contains("WAITING_FOR_SELLER_RESPONSE"), "{page}");
    assert!(page.contains("4.00 USD") && page.contains("PARTIALLY_REFUNDED"), "{page}");
    let settle = [("action", "RESOLVED_BUYER_FAVOUR"), ("target", dispute.as_str())];
    assert_eq!(desk(&kit, paypal, &settle).await, home);
    let (status, again) = desk(&kit, paypal, &settle).await;

    assert_eq!(status, 303);
    assert!(again.starts_with("/?note=INVALID_RESOURCE_STATE"), "{again}");
    let (_, page) = read(&kit, &format!("{paypal}{again}")).await;
    assert!(page.contains("The dispute is resolved."), "{page}");
    let truth = kit.simulator.truth();
    let truth = truth.iter().find(|it| it.capture_ids.contains(&capture)).unwrap();
    assert_eq!((truth.refunded_minor, truth.lost_minor), (400, 699));
    let (_, page) = read(&kit, stripe).await;
    assert!(page.contains("warning_needs_response") && page.contains("Escalate"), "{page}");
}

#[tokio::test]
async fn faults_deliveries_and_the_clock_are_in_a_persons_hand_too() {
    let kit = Kit::start().await;
    let endpoint = kit.endpoint(&[]).await;
    let base = kit.simulator.stripe_url();
    let fault = [
        ("action", "fault"),
        ("kind", "rate_limited"),
        ("number", "7"),
        ("gateway", "stripe"),
        ("matching", "POST /v1/payment_intents"),
        ("how", "next"),
        ("count", "1"),
    ];

    desk(&kit, base, &fault).await;
    let (_, page) = read(&kit, base).await;
    let limited = kit.intent().await;
    desk(&kit, base, &fault).await;
    desk(&kit, base, &[("action", "clear-faults")]).await;
    desk(&kit, base, &[("action", "pause")]).await;
    kit.paid_intent().await;
    let held = kit.simulator.pending_deliveries();
    desk(&kit, base, &[("action", "resume")]).await;
    let event = endpoint.first("payment_intent.succeeded").await.json()["id"].clone();
    let again = [("action", "redeliver"), ("target", event.as_str().unwrap())];
    desk(&kit, base, &again).await;
    let count = || endpoint.received().iter().filter(|it| it.json()["id"] == event).count();
    until("the second copy", || (count() == 2).then_some(())).await;
    let before = kit.simulator.now();
    desk(&kit, base, &[("action", "advance"), ("hours", "48")]).await;
    let (_, wrong) = desk(&kit, base, &[("action", "advance"), ("hours", "soon")]).await;

    assert!(page.contains("rate_limited retry_after_s 7") && page.contains("next 1"), "{page}");
    assert_eq!((limited.status, limited.header("retry-after")), (429, "7"));
    assert!(held > 0);
    assert!(kit.simulator.now() - before >= chrono::TimeDelta::hours(48));
    assert!(wrong.starts_with("/?note=invalid_number"), "{wrong}");
}

#[tokio::test]
async fn a_form_of_another_page_changes_nothing() {
    let kit = Kit::start().await;
    let url = format!("{}/desk", kit.simulator.stripe_url());
    let send = async |origin: &str| {
        let form = [("action", "advance"), ("hours", "1")];
        let request = kit.client.post(&url).form(&form).header("origin", origin);
        request.send().await.unwrap().status().as_u16()
    };

    let foreign = send("http://evil.test").await;
    let opaque = send("null").await;
    let own = send(kit.simulator.stripe_url()).await;

    assert_eq!((foreign, opaque, own), (403, 403, 303));
    let hour = chrono::TimeDelta::hours(1);
    assert!(kit.simulator.now() - chrono::DateTime::from(std::time::SystemTime::now()) <= hour);
}
