//! Cards kept without paying, at Stripe.

use serde_json::{Value, json};

use crate::kit::{Answer, Kit};

async fn customer(kit: &Kit) -> String {
    kit.post("/v1/customers", &[("email", "jenny@example.com")]).await.id()
}

async fn setup(kit: &Kit, customer: &str) -> Answer {
    let form = [
        ("customer", customer),
        ("usage", "off_session"),
        ("metadata[payment_id]", "payment-1"),
        ("automatic_payment_methods[enabled]", "true"),
    ];
    kit.post("/v1/setup_intents", &form).await
}

/// Charges a saved method of a customer who is not there.
async fn renew(kit: &Kit, customer: &str, method: &str) -> Answer {
    let form = [
        ("amount", "1099"),
        ("currency", "usd"),
        ("customer", customer),
        ("payment_method", method),
        ("off_session", "true"),
        ("confirm", "true"),
    ];
    kit.post("/v1/payment_intents", &form).await
}

#[tokio::test]
async fn a_kept_card_pays_later_without_its_owner() {
    let kit = Kit::start().await;
    let customer = customer(&kit).await;
    let made = setup(&kit, &customer).await;
    assert_eq!(made.body["status"], "requires_payment_method");
    assert_eq!(made.body["usage"], "off_session");

    let status = kit.simulator.setup_stripe(&made.id(), "pm_card_visa");

    assert_eq!(status.as_deref(), Ok("succeeded"));
    let read = kit.get(&format!("/v1/setup_intents/{}", made.id())).await;
    let method = read.body["payment_method"].as_str().unwrap();
    assert_eq!(renew(&kit, &customer, method).await.body["status"], "succeeded");
    let kinds = kit.kinds();
    assert_eq!(
        kinds[1..4],
        ["setup_intent.created", "payment_method.attached", "setup_intent.succeeded"]
    );
    assert_eq!(kit.simulator.events()[3].payment_id.as_deref(), Some("payment-1"));
}

#[tokio::test]
async fn an_owner_who_proved_who_they_are_at_setup_is_not_asked_again() {
    let kit = Kit::start().await;
    let customer = customer(&kit).await;
    let id = setup(&kit, &customer).await.id();

    let asked = kit.simulator.setup_stripe(&id, "4000002500003155");
    let failed = kit.simulator.authenticate_stripe_setup(&id, false);
    let again = kit.simulator.setup_stripe(&id, "4000002500003155");
    let proven = kit.simulator.authenticate_stripe_setup(&id, true);

    assert_eq!(asked.as_deref(), Ok("requires_action"));
    assert_eq!(failed.unwrap_err().code, "setup_intent_authentication_failure");
    assert_eq!(again.as_deref(), Ok("requires_action"));
    assert_eq!(proven.as_deref(), Ok("succeeded"));
    let read = kit.get(&format!("/v1/setup_intents/{id}?expand[]=payment_method")).await;
    assert_eq!(read.body["payment_method"]["customer"], customer.as_str());
    let method = read.body["payment_method"]["id"].as_str().unwrap();
    assert_eq!(renew(&kit, &customer, method).await.body["status"], "succeeded");
    for kind in ["setup_intent.requires_action", "setup_intent.setup_failed"] {
        assert!(kit.kinds().contains(&kind.into()), "{kind}");
    }
}

#[tokio::test]
async fn a_refused_card_is_not_kept_and_another_may_be_tried() {
    let kit = Kit::start().await;
    let customer = customer(&kit).await;
    let id = setup(&kit, &customer).await.id();
    let path = format!("/v1/setup_intents/{id}/confirm");
    let back = ("return_url", "http://shop.test/");

    let form = [("payment_method", "pm_card_chargeDeclinedInsufficientFunds"), back];
    let refused = kit.post(&path, &form).await;
    let kept = kit.post(&path, &[("payment_method", "pm_card_chargeCustomerFail"), back]).await;
    let twice = kit.post(&path, &[("payment_method", "pm_card_visa"), back]).await;

    let error = &refused.body["error"];
    assert_eq!((refused.status, error["decline_code"].as_str()), (402, Some("insufficient_funds")));
    assert_eq!(error["setup_intent"]["status"], "requires_payment_method");
    assert_eq!(error["setup_intent"]["last_setup_error"]["code"], "card_declined");
    assert_eq!(kept.body["status"], "succeeded", "this one refuses only charges");
    assert_eq!(twice.code(), "setup_intent_unexpected_state");
    let method = kept.body["payment_method"].as_str().unwrap();
    assert_eq!(renew(&kit, &customer, method).await.status, 402);
    let methods = kit.get(&format!("/v1/payment_methods?customer={customer}")).await;
    assert_eq!(methods.body["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_card_can_be_kept_in_the_call_that_makes_the_setup_intent() {
    let kit = Kit::start().await;
    let customer = customer(&kit).await;
    let form = [
        ("customer", customer.as_str()),
        ("payment_method", "pm_card_mastercard"),
        ("payment_method_types[]", "card"),
        ("confirm", "true"),
    ];

    let first = kit.post_with_key("/v1/setup_intents", &form, "setup-1").await;
    let again = kit.post_with_key("/v1/setup_intents", &form, "setup-1").await;
    let list = kit.get(&format!("/v1/setup_intents?customer={customer}")).await;

    assert_eq!(first.body["status"], "succeeded");
    assert_eq!((again.id(), again.header("idempotent-replayed")), (first.id(), "true"));
    assert_eq!(list.body["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_cancelled_setup_intent_keeps_no_card() {
    let kit = Kit::start().await;
    let id = setup(&kit, &customer(&kit).await).await.id();
    let path = format!("/v1/setup_intents/{id}/cancel");

    let cancelled = kit.post(&path, &[("cancellation_reason", "abandoned")]).await;
    let again = kit.post(&path, &[]).await;
    let late = kit.simulator.setup_stripe(&id, "pm_card_visa").unwrap_err();

    assert_eq!(cancelled.body["status"], "canceled");
    assert_eq!(cancelled.body["cancellation_reason"], "abandoned");
    assert_eq!(again.code(), "setup_intent_unexpected_state");
    assert_eq!(late.code, "setup_intent_unexpected_state");
    assert!(kit.kinds().contains(&"setup_intent.canceled".into()));
}

#[tokio::test]
async fn what_stripe_would_not_set_up_is_refused() {
    let kit = Kit::start().await;
    let unknown = kit.post("/v1/setup_intents", &[("amount", "1")]).await;
    let nobody = kit.post("/v1/setup_intents", &[("customer", "cus_x")]).await;
    let form = [("payment_method", "pm_card_visa"), ("confirm", "true")];
    let way_back = kit.post("/v1/setup_intents", &form).await;
    let missing = kit.get("/v1/setup_intents/seti_x").await;

    assert_eq!(unknown.code(), "parameter_unknown");
    assert_eq!(nobody.code(), "resource_missing");
    assert_eq!(way_back.body["error"]["param"], "return_url");
    assert_eq!(missing.status, 404);
    assert!(kit.simulator.events().is_empty());
}

#[tokio::test]
async fn a_browser_confirms_a_setup_intent_with_its_client_secret() {
    let kit = Kit::start().await;
    let made = setup(&kit, &customer(&kit).await).await;
    let url = format!("{}/v1/setup_intents/{}/confirm", kit.simulator.stripe_url(), made.id());
    let confirm = async |secret: &str| {
        let form = [
            ("client_secret", secret),
            ("payment_method", "pm_card_visa"),
            ("return_url", "http://shop.test/"),
        ];
        kit.send(kit.client.post(&url).bearer_auth("pk_test_simulator").form(&form)).await.unwrap()
    };

    let wrong = confirm("seti_x_secret_y").await;
    let right = confirm(made.body["client_secret"].as_str().unwrap()).await;

    assert_eq!(wrong.status, 404);
    assert_eq!(right.body["status"], "succeeded");
    assert_eq!(right.body["metadata"], json!({}));
}

#[tokio::test]
async fn a_payer_keeps_a_card_on_the_page_and_comes_back() {
    let kit = Kit::start().await;
    let made = setup(&kit, &customer(&kit).await).await;
    let secret = made.body["client_secret"].as_str().unwrap();
    let page = format!("{}/setup/{}", kit.simulator.stripe_url(), made.id());
    let submit = async |action: &str, card: &str| {
        let form = [
            ("client_secret", secret),
            ("return_url", "http://shop.test/done"),
            ("action", action),
            ("card", card),
        ];
        kit.client.post(&page).form(&form).send().await.unwrap()
    };

    let html = kit.client.get(format!("{page}?client_secret={secret}")).send().await.unwrap();
    let wrong = kit.client.get(format!("{page}?client_secret=x")).send().await.unwrap();
    let declined = submit("decline", "").await;
    let asked = submit("pay", "4000 0025 0000 3155").await;
    let kept = submit("authenticate", "").await;

    assert!(html.text().await.unwrap().contains("Keep this card"));
    assert_eq!(wrong.status(), 404);
    assert!(declined.text().await.unwrap().contains("Your card was declined."));
    assert!(asked.text().await.unwrap().contains("Complete authentication"));
    assert_eq!(kept.status(), 303);
    let location = kept.headers()["location"].to_str().unwrap();
    assert!(location.starts_with("http://shop.test/done?setup_intent=seti_"), "{location}");
    assert!(location.ends_with("redirect_status=succeeded"), "{location}");
}

#[tokio::test]
async fn a_card_is_kept_over_http_too() {
    let kit = Kit::start().await;
    let id = setup(&kit, &customer(&kit).await).await.id();
    let base = format!("{}/_sim/stripe/setup-intents/{id}", kit.simulator.stripe_url());
    let post = async |path: &str, body: Value| {
        kit.send(kit.client.post(format!("{base}/{path}")).json(&body)).await.unwrap()
    };

    let card = json!({ "payment_method": "pm_card_authenticationRequiredOnSetup" });
    let asked = post("setup", card).await;
    let proven = post("authenticate", json!({ "success": true })).await;

    assert_eq!(asked.body["status"], "requires_action");
    assert_eq!(proven.body["status"], "succeeded");
}
