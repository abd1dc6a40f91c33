//! Money that goes back at PayPal: refunds of all outcomes, and reversals.

use serde_json::{Value, json};
use simulator::PayPalRefundOutcome;

use crate::kit::{self, Kit};

fn part(value: &str) -> Value {
    json!({ "amount": { "currency_code": "USD", "value": value } })
}

fn last_event(kit: &Kit, kind: &str) -> Value {
    let events = kit.simulator.events();
    let event = events.iter().rev().find(|event| event.kind == kind).expect(kind);
    serde_json::from_slice(&event.body).unwrap()
}

async fn read(kit: &Kit, token: &str, path: &str) -> Value {
    let answer = kit.paypal(token, "GET", path, &Value::Null, "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

#[tokio::test]
async fn a_refund_carries_what_the_merchant_wrote_on_it() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let (order, capture) = kit.captured_order(&token).await;
    let path = format!("/v2/payments/captures/{capture}/refund");
    let mut body = part("4.00");
    body["custom_id"] = json!("refund-7");
    body["invoice_id"] = json!("invoice-7");
    body["note_to_payer"] = json!("Sorry!");

    let refund = kit.paypal(&token, "POST", &path, &body, "refund-1").await;

    let resource = &last_event(&kit, "PAYMENT.CAPTURE.REFUNDED")["resource"];
    let order = read(&kit, &token, &format!("/v2/checkout/orders/{order}")).await;
    let listed = &order["purchase_units"][0]["payments"]["refunds"][0];
    for refund in [&refund.body, resource, listed] {
        assert_eq!(refund["custom_id"], "refund-7");
        assert_eq!(refund["invoice_id"], "invoice-7");
        assert_eq!(refund["note_to_payer"], "Sorry!");
        assert_eq!(refund["payer"]["merchant_id"], "RD465XN5VS364");
    }
    let capture = &order["purchase_units"][0]["payments"]["captures"][0];
    assert_eq!(capture["status"], "PARTIALLY_REFUNDED");
}

#[tokio::test]
async fn a_pending_refund_counts_against_the_rest_until_it_fails() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let (_, capture) = kit.captured_order(&token).await;
    let path = format!("/v2/payments/captures/{capture}/refund");
    kit.simulator.begin_next_paypal_refund(PayPalRefundOutcome::Pending);

    let pending = kit.paypal(&token, "POST", &path, &part("10.00"), "refund-1").await;
    let refunded_meanwhile = kit.simulator.truth()[0].refunded_minor;
    let over = kit.paypal(&token, "POST", &path, &part("1.00"), "refund-2").await;
    kit.simulator.settle_paypal_refund(&pending.id(), false).unwrap();
    let rest = kit.paypal(&token, "POST", &path, &json!({}), "refund-3").await;

    assert_eq!(pending.body["status"], "PENDING");
    assert_eq!(pending.body["status_details"]["reason"], "ECHECK");
    assert_eq!(refunded_meanwhile, 0);
    assert_eq!(over.issue(), "REFUND_AMOUNT_EXCEEDED");
    assert_eq!(last_event(&kit, "PAYMENT.REFUND.FAILED")["resource"]["id"], pending.id());
    assert_eq!(rest.body["amount"]["value"], "10.99");
    assert_eq!(kit.simulator.truth()[0].refunded_minor, 1099, "a failed refund is not counted");
    let replay = kit.paypal(&token, "POST", &path, &part("10.00"), "refund-1").await;
    assert_eq!((replay.status, replay.body["status"].as_str()), (200, Some("FAILED")));
}

#[tokio::test]
async fn a_pending_refund_that_arrives_tells_so() {
    let kit = Kit::start().await;
    let (_, capture) = kit.captured_order(&kit.token().await).await;
    kit.simulator.begin_next_paypal_refund(PayPalRefundOutcome::Pending);

    let refund = kit.simulator.refund_paypal(&capture, None).unwrap();
    kit.simulator.settle_paypal_refund(&refund, true).unwrap();

    let kinds = kit.kinds();
    assert_eq!(kinds[3..], ["PAYMENT.REFUND.PENDING", "PAYMENT.CAPTURE.REFUNDED"]);
    assert_eq!(kit.simulator.truth()[0].refunded_minor, 1099);
    let again = kit.simulator.settle_paypal_refund(&refund, true).unwrap_err();
    assert_eq!(again.code, "INVALID_RESOURCE_STATE");
}

#[tokio::test]
async fn a_refund_at_the_dashboard_is_known_by_its_event_alone() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let (_, capture) = kit.captured_order(&token).await;

    let refund = kit.simulator.refund_paypal(&capture, Some(400)).unwrap();
    let too_much = kit.simulator.refund_paypal(&capture, Some(700)).unwrap_err();
    let nothing = kit.simulator.refund_paypal(&capture, Some(0)).unwrap_err();

    let event = last_event(&kit, "PAYMENT.CAPTURE.REFUNDED");
    assert_eq!(event["resource"]["id"], refund.as_str());
    assert_eq!(event["resource"]["amount"]["value"], "4.00");
    assert_eq!(read(&kit, &token, &format!("/v2/payments/refunds/{refund}")).await["id"], *refund);
    assert_eq!(too_much.code, "REFUND_AMOUNT_EXCEEDED");
    assert_eq!(nothing.code, "INVALID_REFUND_AMOUNT");
}

#[tokio::test]
async fn a_capture_that_pends_cannot_be_refunded() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let order = kit.order(&token).await.id();
    kit.simulator.approve_paypal_with(&order, simulator::Funding::Pending).unwrap();
    let path = format!("/v2/checkout/orders/{order}/capture");
    let captured = kit.paypal(&token, "POST", &path, &Value::Null, "").await;
    let capture = kit::capture_id(&captured.body);

    let refused = kit.simulator.refund_paypal(&capture, None).unwrap_err();

    assert_eq!(refused.code, "PENDING_CAPTURE");
}

#[tokio::test]
async fn a_reversal_takes_what_is_left_and_looks_like_a_refund() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let (_, capture) = kit.captured_order(&token).await;
    kit.simulator.refund_paypal(&capture, Some(400)).unwrap();

    let reversal = kit.simulator.reverse_paypal(&capture).unwrap();

    let event = last_event(&kit, "PAYMENT.CAPTURE.REVERSED");
    assert_eq!(event["resource_type"], "refund");
    assert_eq!(event["resource"]["id"], reversal.as_str());
    assert_eq!(event["resource"]["amount"]["value"], "6.99");
    let total = &event["resource"]["seller_payable_breakdown"]["total_refunded_amount"]["value"];
    assert_eq!(total, "10.99");
    let up = format!("https://api.sandbox.paypal.com/v2/payments/captures/{capture}");
    assert_eq!(event["resource"]["links"][1]["href"], up.as_str());
    let captured = read(&kit, &token, &format!("/v2/payments/captures/{capture}")).await;
    assert_eq!(captured["status"], "REFUNDED");
    assert_eq!(captured["status_details"]["reason"], "CHARGEBACK");
    let refund = read(&kit, &token, &format!("/v2/payments/refunds/{reversal}")).await;
    assert_eq!(refund["amount"]["value"], "6.99");
    let path = format!("/v2/payments/captures/{capture}/refund");
    let refused = kit.paypal(&token, "POST", &path, &json!({}), "").await;
    assert_eq!(refused.issue(), "REFUND_NOT_PERMITTED_DUE_TO_CHARGEBACK");
    let truth = &kit.simulator.truth()[0];
    assert_eq!((truth.refunded_minor, truth.lost_minor), (400, 699));
    assert!(kit.simulator.reverse_paypal(&capture).is_err(), "nothing is left");
}
