//! What becomes of an approved order: captured once, refused, too late, or two at a time.

use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use simulator::{Fault, Funding, Trouble};

use crate::kit::{self, Kit, capture_id, until};

const ORDERS: &str = "/v2/checkout/orders";

#[tokio::test]
async fn an_approval_that_is_not_captured_within_three_hours_is_taken_back() {
    let kit = Kit::start().await;
    let order = kit.order(&kit.token().await).await.id();
    kit.simulator.approve_paypal(&order).unwrap();

    kit.simulator.advance_clock(TimeDelta::minutes(179));
    let before = kit.kinds();
    kit.simulator.advance_clock(TimeDelta::minutes(1));

    assert_eq!(before, ["CHECKOUT.ORDER.APPROVED"]);
    let event = kit.simulator.events().pop().unwrap();
    assert_eq!(event.kind, "CHECKOUT.PAYMENT-APPROVAL.REVERSED");
    assert_eq!(event.payment_id.as_deref(), Some("payment-1"));
    let body: Value = serde_json::from_slice(&event.body).unwrap();
    assert_eq!(body["resource"]["order_id"], order.as_str());
    assert_eq!(body["resource"]["purchase_units"][0]["custom_id"], "payment-1");
    let token = kit.token().await;
    let read = kit.paypal(&token, "GET", &format!("{ORDERS}/{order}"), &Value::Null, "").await;
    assert_eq!(read.body["status"], "VOIDED");
    let path = format!("{ORDERS}/{order}/capture");
    assert_eq!(kit.paypal(&token, "POST", &path, &Value::Null, "").await.status, 422);
    assert!(kit.simulator.approve_paypal(&order).is_err());
}

#[tokio::test]
async fn an_approval_is_taken_back_by_hand_unless_it_was_captured() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let (captured, _) = kit.captured_order(&token).await;
    let body = kit::order("payment-2");
    let open = kit.paypal(&token, "POST", ORDERS, &body, "order-2").await.id();
    kit.simulator.approve_paypal(&open).unwrap();

    let base = kit.simulator.stripe_url();
    let path = format!("{base}/_sim/paypal/orders/{open}/reverse-approval");
    let reversed = kit.send(kit.client.post(path)).await.unwrap();
    let refused = kit.simulator.reverse_paypal_approval(&captured);
    kit.simulator.advance_clock(TimeDelta::days(1));

    assert_eq!(reversed.status, 204);
    assert_eq!(refused.unwrap_err().code, "INVALID_RESOURCE_STATE");
    let kinds = kit.kinds();
    let told = kinds.iter().filter(|kind| *kind == "CHECKOUT.PAYMENT-APPROVAL.REVERSED");
    assert_eq!(told.count(), 1);
}

#[tokio::test]
async fn two_captures_that_meet_take_the_money_once() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let order = kit.order(&token).await.id();
    kit.simulator.approve_paypal(&order).unwrap();
    kit.simulator.set_fault(Fault::once(Trouble::Slow { ms: 400 }).matching("/capture"));
    let path = format!("{ORDERS}/{order}/capture");

    let slow = kit.paypal(&token, "POST", &path, &Value::Null, "capture-1");
    let fast = async {
        let is_under_way = || kit.simulator.calls().iter().any(|call| call.path == path);
        until("the slow capture", || is_under_way().then_some(())).await;
        let same = kit.paypal(&token, "POST", &path, &Value::Null, "capture-1").await;
        (same, kit.paypal(&token, "POST", &path, &Value::Null, "capture-2").await)
    };
    let (slow, (same, other)) = tokio::join!(slow, fast);

    assert_eq!(slow.status, 201);
    assert_eq!(same.issue(), "PREVIOUS_REQUEST_IN_PROGRESS");
    assert_eq!((other.status, other.issue()), (422, "ORDER_COMPLETION_IN_PROGRESS"));
    let later = kit.paypal(&token, "POST", &path, &Value::Null, "capture-2").await;
    assert_eq!(later.issue(), "ORDER_ALREADY_CAPTURED");
    assert_eq!(kit.simulator.truth()[0].captures, 1);
}

#[tokio::test]
async fn a_refused_order_is_approved_anew_and_captured_under_a_new_request_id() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let order = kit.order(&token).await.id();
    let path = format!("{ORDERS}/{order}/capture");
    kit.simulator.approve_paypal_with(&order, Funding::Declines).unwrap();

    let declined = kit.paypal(&token, "POST", &path, &Value::Null, "capture-1").await;
    kit.simulator.approve_paypal(&order).unwrap();
    let captured = kit.paypal(&token, "POST", &path, &Value::Null, "capture-2").await;

    let page = format!("{}/checkoutnow?token={order}", kit.simulator.paypal_url());
    assert_eq!(declined.body["links"][0]["href"], page.as_str());
    assert_eq!(captured.status, 201);
}

#[tokio::test]
async fn a_request_id_of_a_refund_is_kept_for_forty_five_days() {
    let kit = Kit::start().await;
    let (_, capture) = kit.captured_order(&kit.token().await).await;
    let path = format!("/v2/payments/captures/{capture}/refund");
    let body = json!({ "amount": { "currency_code": "USD", "value": "1.00" } });
    let refund = async || kit.paypal(&kit.token().await, "POST", &path, &body, "refund-1").await;

    let first = refund().await.id();
    kit.simulator.advance_clock(TimeDelta::days(45) - TimeDelta::minutes(1));
    let within = refund().await.id();
    kit.simulator.advance_clock(TimeDelta::minutes(2));
    let after = refund().await.id();

    assert_eq!(first, within);
    assert_ne!(first, after);
    assert_eq!(kit.simulator.truth()[0].refunded_minor, 200);
}

fn span(kit: &Kit, days: i64) -> String {
    let written = |at: chrono::DateTime<Utc>| at.format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let end = kit.simulator.now() + TimeDelta::minutes(1);
    format!("start_date={}&end_date={}", written(end - TimeDelta::days(days)), written(end))
}

#[tokio::test]
async fn the_accounts_history_shows_every_movement_of_money() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let (_, capture) = kit.captured_order(&token).await;
    let refund = kit.simulator.refund_paypal(&capture, Some(400)).unwrap();
    let reversal = kit.simulator.reverse_paypal(&capture).unwrap();
    let reporting = "/v1/reporting/transactions";
    let ask = async |query: String| {
        kit.paypal(&token, "GET", &format!("{reporting}?{query}"), &Value::Null, "").await
    };

    let all = ask(format!("{}&fields=all&page_size=100&page=1", span(&kit, 31))).await;
    let second = ask(format!("{}&page_size=2&page=2", span(&kit, 1))).await;
    let long = ask(span(&kit, 32)).await;
    let endless = ask(String::new()).await;

    assert_eq!(all.status, 200, "{all:?}");
    assert_eq!((&all.body["total_items"], &all.body["total_pages"]), (&json!(3), &json!(1)));
    let lines: Vec<_> = all.body["transaction_details"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| {
            let line = &line["transaction_info"];
            json!([
                line["transaction_id"],
                line["transaction_event_code"],
                line["transaction_amount"]["value"],
                line["transaction_status"],
                line["paypal_reference_id"],
                line["custom_field"],
                line["invoice_id"],
            ])
        })
        .collect();
    assert_eq!(
        lines,
        [
            json!([capture, "T0006", "10.99", "S", null, "payment-1", "payment-1"]),
            json!([refund, "T1107", "-4.00", "S", capture, "payment-1", "payment-1"]),
            json!([reversal, "T1106", "-6.99", "S", capture, "payment-1", "payment-1"]),
        ]
    );
    assert_eq!(all.body["transaction_details"][0]["payer_info"]["account_id"], "QYR5Z8XDVJNXQ");
    let details = second.body["transaction_details"].as_array().unwrap();
    assert_eq!((details.len(), details[0]["payer_info"].is_null()), (1, true));
    assert_eq!((long.status, endless.status), (400, 400));
}

#[tokio::test]
async fn money_that_has_not_moved_is_shown_only_when_asked_for() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let order = kit.order(&token).await.id();
    kit.simulator.approve_paypal_with(&order, Funding::Pending).unwrap();
    let path = format!("{ORDERS}/{order}/capture");
    let capture = capture_id(&kit.paypal(&token, "POST", &path, &Value::Null, "").await.body);
    let ask = async |rest: &str| {
        let path = format!("/v1/reporting/transactions?{}{rest}", span(&kit, 1));
        kit.paypal(&token, "GET", &path, &Value::Null, "").await.body
    };

    assert_eq!(ask("").await["total_items"], 0);
    let pending = ask("&balance_affecting_records_only=N").await;
    assert_eq!(pending["transaction_details"][0]["transaction_info"]["transaction_status"], "P");
    kit.simulator.settle_paypal(&capture, false).unwrap();
    assert_eq!(ask("&transaction_status=D").await["total_items"], 1);
}

#[tokio::test]
async fn events_are_read_page_by_page_from_link_to_link() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let (_, capture) = kit.captured_order(&token).await;
    kit.simulator.refund_paypal(&capture, None).unwrap();
    let now = kit.simulator.now();
    let written = |at: chrono::DateTime<Utc>| at.format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let (from, to) = (written(now - TimeDelta::hours(1)), written(now + TimeDelta::hours(1)));
    let path =
        format!("/v1/notifications/webhooks-events?start_time={from}&end_time={to}&page_size=3");

    let mut found = Vec::new();
    let mut next = Some(path.clone());
    while let Some(path) = next {
        let page = kit.paypal(&token, "GET", &path, &Value::Null, "").await;
        assert_eq!(page.status, 200, "{page:?}");
        let events = page.body["events"].as_array().unwrap();
        assert_eq!(page.body["count"], events.len());
        found.extend(events.iter().map(|it| it["event_type"].as_str().unwrap().to_owned()));
        let links = page.body["links"].as_array().unwrap();
        let link = links.iter().find(|link| link["rel"] == "next");
        let base = kit.simulator.paypal_url();
        next = link.map(|link| link["href"].as_str().unwrap().replace(base, ""));
    }
    let kind = format!("{path}&event_type=PAYMENT.CAPTURE.REFUNDED");
    let kind = kit.paypal(&token, "GET", &kind, &Value::Null, "").await;
    let early = format!("/v1/notifications/webhooks-events?end_time={from}");
    let early = kit.paypal(&token, "GET", &early, &Value::Null, "").await;

    found.reverse();
    assert_eq!(found, kit.kinds());
    assert_eq!((&kind.body["count"], &early.body["count"]), (&json!(1), &json!(0)));
}
