//! Orders, captures and refunds at PayPal.

use std::time::Duration;

use chrono::TimeDelta;
use serde_json::{Value, json};
use simulator::{Fault, Funding, Settings, Trouble};

use crate::kit::{self, Kit, capture_id};

const ORDERS: &str = "/v2/checkout/orders";

#[tokio::test]
async fn a_token_is_given_only_for_our_credentials_and_ends_in_time() {
    let lifetime = Duration::from_mins(10);
    let settings = Settings { paypal_token_lifetime: lifetime, ..Settings::default() };
    let kit = Kit::start_with(settings).await;
    let url = format!("{}/v1/oauth2/token", kit.simulator.paypal_url());
    let wrong = kit.client.post(url).basic_auth("me", Some("x"));
    let wrong = kit.send(wrong.form(&[("grant_type", "client_credentials")])).await.unwrap();
    let token = kit.token().await;

    let none = kit.paypal("A21AAx", "GET", "/v2/checkout/orders/X", &Value::Null, "").await;
    let good = kit.order(&token).await;
    kit.simulator.advance_clock(TimeDelta::seconds(600));
    let late = kit.order(&token).await;

    assert_eq!((wrong.status, wrong.body["error"].as_str()), (401, Some("invalid_client")));
    assert_eq!((none.status, none.body["error"].as_str()), (401, Some("invalid_token")));
    assert_eq!(good.status, 201);
    assert_eq!((late.status, late.body["error"].as_str()), (401, Some("invalid_token")));
    let calls = kit.simulator.calls();
    assert_eq!(calls.iter().filter(|call| call.path == "/v1/oauth2/token").count(), 2);
}

#[tokio::test]
async fn an_order_is_made_approved_and_captured() {
    let kit = Kit::start().await;
    let token = kit.token().await;

    let order = kit.order(&token).await;
    kit.simulator.approve_paypal(&order.id()).unwrap();
    let path = format!("{ORDERS}/{}", order.id());
    let approved = kit.paypal(&token, "GET", &path, &Value::Null, "").await;
    let path = format!("{ORDERS}/{}/capture", order.id());
    let captured = kit.paypal(&token, "POST", &path, &Value::Null, "capture-1").await;

    assert_eq!(order.status, 201);
    assert_eq!(order.body["status"], "PAYER_ACTION_REQUIRED");
    let links = order.body["links"].as_array().unwrap();
    let action = links.iter().find(|link| link["rel"] == "payer-action").unwrap();
    let page = format!("{}/checkoutnow?token={}", kit.simulator.paypal_url(), order.id());
    assert_eq!(action["href"], page.as_str());
    assert_eq!(approved.body["status"], "APPROVED");
    assert_eq!(captured.status, 201);
    assert_eq!(captured.body["status"], "COMPLETED");
    let unit = &captured.body["purchase_units"][0];
    assert_eq!(unit["payee"]["merchant_id"], "RD465XN5VS364");
    let capture = &unit["payments"]["captures"][0];
    assert_eq!(capture["status"], "COMPLETED");
    assert_eq!(capture["amount"], json!({ "currency_code": "USD", "value": "10.99" }));
    assert_eq!(capture["custom_id"], "payment-1");
    let path = format!("/v2/payments/captures/{}", capture_id(&captured.body));
    let read = kit.paypal(&token, "GET", &path, &Value::Null, "").await;
    assert!(capture.as_object().unwrap().iter().all(|(name, value)| read.body[name] == *value));
    assert_eq!(
        kit.kinds(),
        ["CHECKOUT.ORDER.APPROVED", "PAYMENT.CAPTURE.COMPLETED", "CHECKOUT.ORDER.COMPLETED"]
    );
    let truth = &kit.simulator.truth()[0];
    assert_eq!((truth.captured_minor, truth.captures), (1099, 1));
    assert_eq!(truth.payment_id.as_deref(), Some("payment-1"));
}

#[tokio::test]
async fn an_order_without_a_payment_source_is_approved_by_the_older_link() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let mut body = kit::order("payment-1");
    body.as_object_mut().unwrap().remove("payment_source");

    let order = kit.paypal(&token, "POST", ORDERS, &body, "").await;

    assert_eq!(order.body["status"], "CREATED");
    assert!(order.body["links"].as_array().unwrap().iter().any(|link| link["rel"] == "approve"));
}

#[tokio::test]
async fn an_answer_is_minimal_unless_all_of_it_is_preferred() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let request = kit
        .paypal_request(&token, "POST", ORDERS)
        .header("prefer", "return=minimal")
        .body(kit::order("payment-1").to_string());

    let mut request = request.build().unwrap();
    request.headers_mut().insert("prefer", "return=minimal".parse().unwrap());
    let body: Value = kit.client.execute(request).await.unwrap().json().await.unwrap();

    assert!(body["id"].is_string() && body["links"].is_array());
    assert_eq!(body["purchase_units"], Value::Null);
}

#[tokio::test]
async fn the_same_request_id_gives_the_same_order_as_it_is_now() {
    let kit = Kit::start().await;
    let token = kit.token().await;

    let first = kit.order(&token).await;
    kit.simulator.approve_paypal(&first.id()).unwrap();
    let second = kit.order(&token).await;
    let other = kit.paypal(&token, "POST", ORDERS, &kit::order("payment-2"), "order-1").await;

    assert_eq!((first.status, second.status), (201, 200));
    assert_eq!(first.id(), second.id());
    assert_eq!(second.body["status"], "APPROVED");
    assert_eq!((other.status, other.issue()), (422, "DUPLICATE_REQUEST_ID"));
    assert_eq!(kit.simulator.truth().len(), 1);
}

#[tokio::test]
async fn a_request_id_makes_a_new_order_after_six_hours() {
    let kit = Kit::start().await;
    let first = kit.order(&kit.token().await).await.id();

    kit.simulator.advance_clock(TimeDelta::hours(7));

    assert_ne!(kit.order(&kit.token().await).await.id(), first);
}

#[tokio::test]
async fn an_order_that_was_not_approved_cannot_be_captured() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let order = kit.order(&token).await.id();

    let path = format!("{ORDERS}/{order}/capture");
    let refused = kit.paypal(&token, "POST", &path, &Value::Null, "").await;

    assert_eq!((refused.status, refused.issue()), (422, "ORDER_NOT_APPROVED"));
    assert_eq!(refused.body["name"], "UNPROCESSABLE_ENTITY");
    assert!(!refused.header("paypal-debug-id").is_empty());
}

#[tokio::test]
async fn an_order_is_captured_once_and_the_same_request_id_is_told_so_again() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let (order, capture) = kit.captured_order(&token).await;
    let path = format!("{ORDERS}/{order}/capture");

    let replay = kit.paypal(&token, "POST", &path, &Value::Null, "capture-1").await;
    let again = kit.paypal(&token, "POST", &path, &Value::Null, "capture-2").await;

    assert_eq!((replay.status, capture_id(&replay.body)), (200, capture));
    assert_eq!((again.status, again.issue()), (422, "ORDER_ALREADY_CAPTURED"));
    assert_eq!(kit.simulator.truth()[0].captures, 1);
}

#[tokio::test]
async fn an_invoice_is_paid_only_once() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let early = kit.paypal(&token, "POST", ORDERS, &kit::order("payment-1"), "early").await.id();
    kit.simulator.approve_paypal(&early).unwrap();
    kit.captured_order(&token).await;

    let path = format!("{ORDERS}/{early}/capture");
    let capture = kit.paypal(&token, "POST", &path, &Value::Null, "").await;
    let create = kit.paypal(&token, "POST", ORDERS, &kit::order("payment-1"), "late").await;

    assert_eq!((capture.status, capture.issue()), (422, "DUPLICATE_INVOICE_ID"));
    assert_eq!((create.status, create.issue()), (422, "DUPLICATE_INVOICE_ID"));
}

#[tokio::test]
async fn a_declined_instrument_leaves_the_order_to_be_approved_with_another() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let order = kit.order(&token).await.id();
    let path = format!("{ORDERS}/{order}/capture");

    kit.simulator.approve_paypal_with(&order, Funding::Declines).unwrap();
    let declined = kit.paypal(&token, "POST", &path, &Value::Null, "capture-1").await;
    kit.simulator.approve_paypal(&order).unwrap();
    let captured = kit.paypal(&token, "POST", &path, &Value::Null, "capture-1").await;

    assert_eq!((declined.status, declined.issue()), (422, "INSTRUMENT_DECLINED"));
    assert_eq!(declined.body["links"][0]["rel"], "redirect");
    assert_eq!(captured.status, 201, "a refusal is not remembered");
}

#[tokio::test]
async fn a_pending_capture_ends_completed_or_denied() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let mut captures = Vec::new();
    for payment in ["payment-1", "payment-2"] {
        let order = kit.paypal(&token, "POST", ORDERS, &kit::order(payment), payment).await.id();
        kit.simulator.approve_paypal_with(&order, Funding::Pending).unwrap();
        let path = format!("{ORDERS}/{order}/capture");
        let answer = kit.paypal(&token, "POST", &path, &Value::Null, "").await;
        let capture = &answer.body["purchase_units"][0]["payments"]["captures"][0];
        assert_eq!((answer.status, capture["status"].as_str()), (201, Some("PENDING")));
        captures.push(capture_id(&answer.body));
    }

    kit.simulator.settle_paypal(&captures[0], true).unwrap();
    kit.simulator.settle_paypal(&captures[1], false).unwrap();

    let truth = kit.simulator.truth();
    assert_eq!((truth[0].captured_minor, truth[1].captured_minor), (1099, 0));
    let kinds = kit.kinds();
    for kind in ["PENDING", "COMPLETED", "DENIED"] {
        assert!(kinds.contains(&format!("PAYMENT.CAPTURE.{kind}")), "{kind}");
    }
    let twice = kit.simulator.settle_paypal(&captures[0], true);
    assert_eq!(twice.unwrap_err().code, "INVALID_RESOURCE_STATE");
}

#[tokio::test]
async fn an_amount_that_the_currency_does_not_have_is_refused() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let cases = [
        ("JPY", "1500.50", 422, "DECIMAL_PRECISION"),
        ("USD", "10.999", 422, "DECIMAL_PRECISION"),
        ("USD", "0", 422, "CANNOT_BE_ZERO_OR_NEGATIVE"),
        ("USD", "abc", 400, "INVALID_PARAMETER_SYNTAX"),
        ("XXX", "1.00", 422, "CURRENCY_NOT_SUPPORTED"),
    ];

    for (currency, value, status, issue) in cases {
        let mut body = kit::order("payment-1");
        body["purchase_units"][0]["amount"] = json!({ "currency_code": currency, "value": value });
        let refused = kit.paypal(&token, "POST", ORDERS, &body, "").await;
        assert_eq!((refused.status, refused.issue()), (status, issue), "{currency} {value}");
    }
    let mut body = kit::order("payment-1");
    body["purchase_units"][0]["amount"] = json!({ "currency_code": "HUF", "value": "1500" });
    let forint = kit.paypal(&token, "POST", ORDERS, &body, "").await;
    assert_eq!(forint.body["purchase_units"][0]["amount"]["value"], "1500");
    let nothing = kit.paypal(&token, "POST", ORDERS, &json!({}), "").await;
    assert_eq!(nothing.issue(), "MISSING_REQUIRED_PARAMETER");
}

#[tokio::test]
async fn refunds_add_up_to_what_was_captured_and_no_further() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let (_, capture) = kit.captured_order(&token).await;
    let path = format!("/v2/payments/captures/{capture}/refund");
    let part = |value: &str| json!({ "amount": { "currency_code": "USD", "value": value } });

    let first = kit.paypal(&token, "POST", &path, &part("4.00"), "refund-1").await;
    let replay = kit.paypal(&token, "POST", &path, &part("4.00"), "refund-1").await;
    let clash = kit.paypal(&token, "POST", &path, &part("5.00"), "refund-1").await;
    let over = kit.paypal(&token, "POST", &path, &part("7.00"), "refund-2").await;
    let euros = json!({ "amount": { "currency_code": "EUR", "value": "1.00" } });
    let euros = kit.paypal(&token, "POST", &path, &euros, "refund-3").await;
    let rest = kit.paypal(&token, "POST", &path, &json!({}), "refund-4").await;
    let none = kit.paypal(&token, "POST", &path, &json!({}), "refund-5").await;

    assert_eq!((first.status, first.body["status"].as_str()), (201, Some("COMPLETED")));
    assert_eq!((replay.status, replay.id()), (200, first.id()));
    assert_eq!((clash.status, clash.issue()), (422, "PAYPAL_REQUEST_ID_PREVIOUSLY_USED"));
    assert_eq!((over.status, over.issue()), (422, "REFUND_AMOUNT_EXCEEDED"));
    assert_eq!(euros.issue(), "REFUND_CAPTURE_CURRENCY_MISMATCH");
    assert_eq!(rest.body["amount"]["value"], "6.99");
    let total = &rest.body["seller_payable_breakdown"]["total_refunded_amount"]["value"];
    assert_eq!(total, "10.99");
    assert_eq!((none.status, none.issue()), (422, "CAPTURE_FULLY_REFUNDED"));
    assert_eq!(kit.simulator.truth()[0].refunded_minor, 1099);
    let read = format!("/v2/payments/refunds/{}", first.id());
    let read = kit.paypal(&token, "GET", &read, &Value::Null, "").await;
    assert_eq!(read.body["amount"]["value"], "4.00");
    let read = format!("/v2/payments/captures/{capture}");
    let read = kit.paypal(&token, "GET", &read, &Value::Null, "").await;
    assert_eq!(read.body["status"], "REFUNDED");
}

#[tokio::test]
async fn a_refund_event_carries_the_refund_and_names_its_capture_only_in_a_link() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let (_, capture) = kit.captured_order(&token).await;
    let path = format!("/v2/payments/captures/{capture}/refund");

    let refund = kit.paypal(&token, "POST", &path, &json!({}), "").await.id();

    let events = kit.simulator.events();
    let event = events.iter().find(|event| event.kind == "PAYMENT.CAPTURE.REFUNDED").unwrap();
    assert_eq!(event.object_id, refund);
    assert_eq!(event.payment_id.as_deref(), Some("payment-1"));
    let body: Value = serde_json::from_slice(&event.body).unwrap();
    assert_eq!(body["resource_type"], "refund");
    assert_eq!(body["resource"]["links"][1]["rel"], "up");
    let link = format!("https://api.sandbox.paypal.com/v2/payments/captures/{capture}");
    assert_eq!(body["resource"]["links"][1]["href"], link.as_str());
}

#[tokio::test]
async fn a_failure_after_the_effect_is_mended_by_the_same_request_id() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    kit.simulator.set_fault(Fault::once(Trouble::ErrorAfter).matching("orders"));

    let failed = kit.order(&token).await;
    let again = kit.order(&token).await;

    assert_eq!((failed.status, again.status), (500, 200));
    assert_eq!(kit.simulator.truth().len(), 1);
}

#[tokio::test]
async fn events_are_listed_read_and_sent_again() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let (_, capture) = kit.captured_order(&token).await;
    let events = "/v1/notifications/webhooks-events";

    let all = kit.paypal(&token, "GET", events, &Value::Null, "").await;
    let query = format!("{events}?transaction_id={capture}");
    let one = kit.paypal(&token, "GET", &query, &Value::Null, "").await;
    let id = one.body["events"][0]["id"].as_str().unwrap();
    let read = kit.paypal(&token, "GET", &format!("{events}/{id}"), &Value::Null, "").await;
    let endpoint = kit.endpoint(&[]).await;
    let path = format!("{events}/{id}/resend");
    let resent = kit.paypal(&token, "POST", &path, &json!({}), "").await;

    assert_eq!(all.body["count"], 3);
    assert_eq!(one.body["count"], 1);
    assert_eq!(read.id(), id);
    assert_eq!(resent.status, 202);
    assert_eq!(endpoint.first("PAYMENT.CAPTURE.COMPLETED").await.json()["id"], id);
}
