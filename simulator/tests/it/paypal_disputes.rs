//! Disputes at PayPal.

use serde_json::{Value, json};
use simulator::PayPalDisputeOutcome;

use crate::kit::{self, Kit};

async fn get(kit: &Kit, token: &str, path: &str) -> kit::Answer {
    kit.paypal(token, "GET", path, &Value::Null, "").await
}

fn last_event(kit: &Kit) -> Value {
    serde_json::from_slice(&kit.simulator.events().last().unwrap().body).unwrap()
}

#[tokio::test]
async fn a_dispute_names_the_capture_and_the_merchant_it_is_about() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let (_, capture) = kit.captured_order(&token).await;

    let id = kit.simulator.open_paypal_dispute(&capture, false).unwrap();

    let event = last_event(&kit);
    assert_eq!(event["event_type"], "CUSTOMER.DISPUTE.CREATED");
    assert_eq!(event["resource_type"], "dispute");
    let read = get(&kit, &token, &format!("/v1/customer/disputes/{id}")).await.body;
    for dispute in [&event["resource"], &read] {
        assert_eq!(dispute["dispute_id"], id.as_str());
        assert_eq!(dispute["status"], "WAITING_FOR_SELLER_RESPONSE");
        assert_eq!(dispute["dispute_life_cycle_stage"], "CHARGEBACK");
        assert_eq!(dispute["dispute_amount"], json!({ "currency_code": "USD", "value": "10.99" }));
        let transaction = &dispute["disputed_transactions"][0];
        assert_eq!(transaction["seller_transaction_id"], capture.as_str());
        assert_eq!(transaction["custom"], "payment-1");
        assert_eq!(transaction["seller"]["merchant_id"], "RD465XN5VS364");
        assert_eq!(dispute["dispute_outcome"], Value::Null);
    }
    let event = kit.simulator.events().pop().unwrap();
    assert_eq!((event.object_id, event.payment_id.as_deref()), (id, Some("payment-1")));
    let truth = &kit.simulator.truth()[0];
    assert_eq!((truth.disputed_minor, truth.lost_minor), (1099, 0));
}

#[tokio::test]
async fn only_a_buyers_favour_and_an_acceptance_cost_the_merchant() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let (_, capture) = kit.captured_order(&token).await;
    let outcomes = [
        (PayPalDisputeOutcome::ResolvedSellerFavour, "RESOLVED_SELLER_FAVOUR", 0),
        (PayPalDisputeOutcome::ResolvedWithPayout, "RESOLVED_WITH_PAYOUT", 0),
        (PayPalDisputeOutcome::CanceledByBuyer, "CANCELED_BY_BUYER", 0),
        (PayPalDisputeOutcome::Denied, "DENIED", 0),
        (PayPalDisputeOutcome::None, "NONE", 0),
        (PayPalDisputeOutcome::Accepted, "ACCEPTED", 1099),
        (PayPalDisputeOutcome::ResolvedBuyerFavour, "RESOLVED_BUYER_FAVOUR", 1099),
    ];

    for (outcome, code, lost) in outcomes {
        let id = kit.simulator.open_paypal_dispute(&capture, false).unwrap();
        kit.simulator.settle_paypal_dispute(&id, outcome).unwrap();

        let event = last_event(&kit);
        assert_eq!(event["event_type"], "CUSTOMER.DISPUTE.RESOLVED");
        let read = get(&kit, &token, &format!("/v1/customer/disputes/{id}")).await.body;
        assert_eq!(read, {
            let mut resource = event["resource"].clone();
            resource["links"] = read["links"].clone();
            resource
        });
        assert_eq!(
            (&read["status"], &read["dispute_outcome"]["outcome_code"]),
            (&json!("RESOLVED"), &json!(code))
        );
        let truth = &kit.simulator.truth()[0];
        assert_eq!((truth.disputed_minor, truth.lost_minor), (0, lost), "{code}");
        let again = kit.simulator.settle_paypal_dispute(&id, outcome).unwrap_err();
        assert_eq!(again.code, "INVALID_RESOURCE_STATE");
    }
}

#[tokio::test]
async fn an_inquiry_holds_no_money_until_it_becomes_a_claim() {
    let kit = Kit::start().await;
    let (_, capture) = kit.captured_order(&kit.token().await).await;

    let id = kit.simulator.open_paypal_dispute(&capture, true).unwrap();
    let inquiry = last_event(&kit)["resource"].clone();
    let held = kit.simulator.truth()[0].disputed_minor;
    kit.simulator.escalate_paypal_dispute(&id).unwrap();
    let claim = last_event(&kit);
    kit.simulator.escalate_paypal_dispute(&id).unwrap();
    let review = last_event(&kit);

    assert_eq!(inquiry["dispute_life_cycle_stage"], "INQUIRY");
    assert_eq!((inquiry["status"].as_str(), held), (Some("OPEN"), 0));
    assert_eq!(claim["event_type"], "CUSTOMER.DISPUTE.UPDATED");
    assert_eq!(claim["resource"]["dispute_life_cycle_stage"], "CHARGEBACK");
    assert_eq!(review["resource"]["status"], "UNDER_REVIEW");
    assert_eq!(kit.simulator.truth()[0].disputed_minor, 1099);
}

#[tokio::test]
async fn a_dispute_and_a_reversal_of_one_capture_are_one_loss() {
    let kit = Kit::start().await;
    let (_, capture) = kit.captured_order(&kit.token().await).await;

    let id = kit.simulator.open_paypal_dispute(&capture, false).unwrap();
    kit.simulator.reverse_paypal(&capture).unwrap();
    kit.simulator.settle_paypal_dispute(&id, PayPalDisputeOutcome::ResolvedBuyerFavour).unwrap();

    assert_eq!(kit.simulator.truth()[0].lost_minor, 1099);
}

#[tokio::test]
async fn only_all_that_is_left_may_be_refunded_while_a_dispute_is_open() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let (_, capture) = kit.captured_order(&token).await;
    kit.simulator.open_paypal_dispute(&capture, true).unwrap();

    let part = kit.simulator.refund_paypal(&capture, Some(400)).unwrap_err();
    let whole = kit.simulator.refund_paypal(&capture, None);

    assert_eq!(part.code, "CAPTURE_DISPUTED_PARTIAL_REFUND_NOT_ALLOWED");
    assert!(whole.is_ok());
    assert!(kit.simulator.open_paypal_dispute(&capture, true).is_err(), "nothing is left");
}

#[tokio::test]
async fn disputes_are_listed_by_capture_and_page_by_page() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let (_, capture) = kit.captured_order(&token).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let id = kit.simulator.open_paypal_dispute(&capture, false).unwrap();
        kit.simulator.settle_paypal_dispute(&id, PayPalDisputeOutcome::Denied).unwrap();
        ids.insert(0, id);
    }

    let path = format!("/v1/customer/disputes?disputed_transaction_id={capture}&page_size=2");
    let first = get(&kit, &token, &path).await;
    let next = first.body["links"].as_array().unwrap().iter().find(|it| it["rel"] == "next");
    let next = next.unwrap()["href"].as_str().unwrap().to_owned();
    let next = next.strip_prefix(kit.simulator.paypal_url()).unwrap();
    let second = get(&kit, &token, next).await;
    let other = get(&kit, &token, "/v1/customer/disputes?disputed_transaction_id=X").await;
    let both = format!("{path}&start_time=2026-01-01T00:00:00Z");
    let both = get(&kit, &token, &both).await;
    let late = get(&kit, &token, "/v1/customer/disputes?start_time=2999-01-01T00:00:00Z").await;

    let listed = |answer: &kit::Answer| {
        let items = answer.body["items"].as_array().unwrap().clone();
        items.iter().map(|it| it["dispute_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!([listed(&first), listed(&second)].concat(), ids);
    assert!(listed(&other).is_empty() && listed(&late).is_empty());
    assert_eq!(both.status, 400);
}

#[tokio::test]
async fn money_is_taken_back_over_http_too() {
    let kit = Kit::start().await;
    let (_, capture) = kit.captured_order(&kit.token().await).await;
    let base = kit.simulator.stripe_url().to_owned();
    let post = async |path: String, body: Value| {
        let request = kit.client.post(format!("{base}/_sim/paypal/{path}")).json(&body);
        kit.send(request).await.unwrap()
    };

    let begun = post("next-refund".into(), json!({ "outcome": "PENDING" })).await;
    let refund = post(format!("captures/{capture}/refund"), json!({ "amount": 99 })).await;
    let failed = post(format!("refunds/{}/settle", refund.id()), json!({ "success": false })).await;
    let dispute = post(format!("captures/{capture}/dispute"), json!({ "inquiry": true })).await;
    let moved = post(format!("disputes/{}/escalate", dispute.id()), json!({})).await;
    let outcome = json!({ "outcome": "ACCEPTED" });
    let ended = post(format!("disputes/{}/settle", dispute.id()), outcome).await;
    let reversed = post(format!("captures/{capture}/reverse"), json!({})).await;
    let refused = post(format!("captures/{capture}/reverse"), json!({})).await;

    assert_eq!([begun.status, failed.status, moved.status, ended.status], [204; 4]);
    assert_eq!((reversed.status, refused.status), (200, 422));
    assert_eq!(kit.simulator.truth()[0].lost_minor, 1099);
}
