//! Disputes at Stripe.

use serde_json::{Value, json};
use simulator::DisputeOutcome;

use crate::kit::Kit;

/// Returns the bodies of all dispute events, oldest first.
fn told(kit: &Kit) -> Vec<Value> {
    let events = kit.simulator.events();
    let disputes = events.iter().filter(|event| event.kind.starts_with("charge.dispute."));
    disputes.map(|event| serde_json::from_slice(&event.body).unwrap()).collect()
}

fn kinds(kit: &Kit) -> Vec<String> {
    let kinds = kit.kinds().into_iter();
    kinds.filter_map(|kind| kind.strip_prefix("charge.dispute.").map(str::to_owned)).collect()
}

#[tokio::test]
async fn a_dispute_takes_the_money_and_a_won_one_brings_it_back() {
    let kit = Kit::start().await;
    let intent = kit.paid_intent().await;

    let id = kit.simulator.open_stripe_dispute(&intent, false, None).unwrap();
    let open = kit.simulator.truth().remove(0);
    kit.simulator.settle_stripe_dispute(&id, DisputeOutcome::Won).unwrap();
    let won = kit.simulator.truth().remove(0);

    assert_eq!((open.captured_minor, open.disputed_minor, open.lost_minor), (1099, 1099, 0));
    assert_eq!((won.captured_minor, won.disputed_minor, won.lost_minor), (1099, 0, 0));
    assert_eq!(kinds(&kit), ["created", "funds_withdrawn", "closed", "funds_reinstated"]);
    let told = told(&kit);
    assert_eq!(told[0]["data"]["object"]["status"], "needs_response");
    assert_eq!(told[0]["data"]["object"]["metadata"], json!({}), "only ids lead to the payment");
    assert_eq!(told[0]["data"]["object"]["payment_intent"], intent.as_str());
    assert_eq!(told[0]["data"]["previous_attributes"], Value::Null);
    assert_eq!(told[1]["data"]["previous_attributes"], json!({ "balance_transactions": [] }));
    assert_eq!(told[1]["data"]["object"]["balance_transactions"][0]["amount"], -1099);
    assert_eq!(told[2]["data"]["previous_attributes"], json!({ "status": "needs_response" }));
    assert_eq!(told[3]["data"]["object"]["balance_transactions"][1]["amount"], 1099);
    let charge = told[0]["data"]["object"]["charge"].as_str().unwrap();
    let charge = kit.get(&format!("/v1/charges/{charge}")).await;
    assert_eq!(charge.body["disputed"], true);
}

#[tokio::test]
async fn a_lost_dispute_is_final() {
    let kit = Kit::start().await;
    let intent = kit.paid_intent().await;
    let id = kit.simulator.open_stripe_dispute(&intent, false, Some(400)).unwrap();

    kit.simulator.settle_stripe_dispute(&id, DisputeOutcome::Lost).unwrap();
    let again = kit.simulator.settle_stripe_dispute(&id, DisputeOutcome::Won);
    let second = kit.simulator.open_stripe_dispute(&intent, false, None);
    let refund = kit.post("/v1/refunds", &[("payment_intent", intent.as_str())]).await;

    assert!(again.is_err());
    assert!(second.is_err());
    assert_eq!(refund.code(), "charge_disputed");
    let truth = kit.simulator.truth().remove(0);
    assert_eq!((truth.disputed_minor, truth.lost_minor), (0, 400));
}

#[tokio::test]
async fn an_inquiry_moves_no_money_until_it_becomes_a_dispute() {
    let kit = Kit::start().await;
    let intent = kit.paid_intent().await;
    let id = kit.simulator.open_stripe_dispute(&intent, true, None).unwrap();
    let asked = kit.get(&format!("/v1/disputes/{id}")).await;
    assert_eq!(kit.simulator.truth()[0].disputed_minor, 0);
    assert!(kit.simulator.settle_stripe_dispute(&id, DisputeOutcome::Lost).is_err());

    kit.simulator.escalate_stripe_dispute(&id).unwrap();

    assert_eq!(asked.body["status"], "warning_needs_response");
    assert_eq!(asked.body["is_charge_refundable"], true);
    assert_eq!(kit.simulator.truth()[0].disputed_minor, 1099);
    assert_eq!(kinds(&kit), ["created", "updated", "funds_withdrawn"]);
    let previous = &told(&kit)[1]["data"]["previous_attributes"];
    assert_eq!(previous["status"], "warning_needs_response");
    assert!(kit.simulator.settle_stripe_dispute(&id, DisputeOutcome::WarningClosed).is_err());
}

#[tokio::test]
async fn an_inquiry_ends_by_the_bank_or_by_a_full_refund() {
    let kit = Kit::start().await;
    let first = kit.paid_intent().await;
    let second = kit.paid_intent().await;
    let closed = kit.simulator.open_stripe_dispute(&first, true, None).unwrap();
    let refunded = kit.simulator.open_stripe_dispute(&second, true, None).unwrap();

    kit.simulator.settle_stripe_dispute(&closed, DisputeOutcome::WarningClosed).unwrap();
    let refund = kit.post("/v1/refunds", &[("payment_intent", second.as_str())]).await;

    assert_eq!(refund.status, 200, "{refund:?}");
    for id in [closed, refunded] {
        let dispute = kit.get(&format!("/v1/disputes/{id}")).await;
        assert_eq!(dispute.body["status"], "warning_closed");
        assert_eq!(dispute.body["balance_transactions"], json!([]));
    }
}

#[tokio::test]
async fn some_cards_are_contested_as_soon_as_they_have_paid() {
    let kit = Kit::start().await;
    let disputed = kit.intent().await.id();
    let inquired = kit.intent().await.id();

    kit.simulator.pay_stripe(&disputed, "pm_card_createDispute").unwrap();
    kit.simulator.pay_stripe(&inquired, "4000000000001976").unwrap();

    let of = async |intent: &str| {
        kit.get(&format!("/v1/disputes?payment_intent={intent}")).await.body["data"][0].clone()
    };
    assert_eq!(of(&disputed).await["status"], "needs_response");
    assert_eq!(of(&inquired).await["status"], "warning_needs_response");
    let events = kit.kinds();
    let paid = events.iter().position(|kind| kind == "payment_intent.succeeded");
    let contested = events.iter().position(|kind| kind == "charge.dispute.created");
    assert!(paid < contested, "{events:?}");
}

#[tokio::test]
async fn the_merchant_answers_with_evidence_or_gives_in() {
    let kit = Kit::start().await;
    let intent = kit.paid_intent().await;
    let other = kit.paid_intent().await;
    let id = kit.simulator.open_stripe_dispute(&intent, false, None).unwrap();
    let given_up = kit.simulator.open_stripe_dispute(&other, false, None).unwrap();
    let path = format!("/v1/disputes/{id}");

    let draft = [("evidence[customer_name]", "Jenny"), ("submit", "false")];
    let draft = kit.post(&path, &draft).await;
    let unknown = kit.post(&path, &[("evidence[weather]", "fine")]).await;
    let sent = kit.post(&path, &[("evidence[receipt]", "file_1")]).await;
    let won = kit.post(&path, &[("evidence[uncategorized_text]", "winning_evidence")]).await;
    let late = kit.post(&format!("{path}/close"), &[]).await;
    let closed = kit.post(&format!("/v1/disputes/{given_up}/close"), &[]).await;

    assert_eq!(draft.body["status"], "needs_response");
    assert_eq!(unknown.code(), "parameter_unknown");
    assert_eq!(sent.body["status"], "under_review");
    assert_eq!(sent.body["evidence"]["customer_name"], "Jenny");
    assert_eq!(won.body["status"], "won");
    assert_eq!(late.status, 400);
    assert_eq!(closed.body["status"], "lost");
}

#[tokio::test]
async fn disputes_are_found_by_what_they_contest() {
    let kit = Kit::start().await;
    let intent = kit.paid_intent().await;
    let other = kit.paid_intent().await;
    let id = kit.simulator.open_stripe_dispute(&intent, false, None).unwrap();
    let charge = kit.simulator.truth()[1].capture_ids[0].clone();
    let second = kit.simulator.open_stripe_dispute(&charge, true, Some(1)).unwrap();

    let by_intent = kit.get(&format!("/v1/disputes?payment_intent={intent}")).await;
    let by_charge = kit.get(&format!("/v1/disputes?charge={charge}&expand[]=data.charge")).await;
    let later = kit.get("/v1/disputes?created[gt]=99999999999").await;
    let unknown = kit.get("/v1/disputes?status=won").await;
    let nothing = kit.get("/v1/disputes/du_x").await;

    assert_eq!(by_intent.body["data"][0]["id"], id.as_str());
    assert_eq!(by_intent.body["data"].as_array().unwrap().len(), 1);
    assert_eq!(by_charge.body["data"][0]["id"], second.as_str());
    assert_eq!(by_charge.body["data"][0]["charge"]["payment_intent"], other.as_str());
    assert_eq!(later.body["data"], json!([]));
    assert_eq!(unknown.code(), "parameter_unknown");
    assert_eq!(nothing.status, 404);
}

#[tokio::test]
async fn what_was_not_paid_cannot_be_contested() {
    let kit = Kit::start().await;
    let open = kit.intent().await.id();
    let paid = kit.paid_intent().await;

    assert!(kit.simulator.open_stripe_dispute(&open, false, None).is_err());
    assert!(kit.simulator.open_stripe_dispute("pi_x", false, None).is_err());
    assert!(kit.simulator.open_stripe_dispute(&paid, false, Some(1100)).is_err());
    assert!(kit.simulator.open_stripe_dispute(&paid, false, Some(0)).is_err());
    assert!(told(&kit).is_empty());
}

#[tokio::test]
async fn disputes_are_opened_and_decided_over_http_too() {
    let kit = Kit::start().await;
    let intent = kit.paid_intent().await;
    let base = format!("{}/_sim/stripe/disputes", kit.simulator.stripe_url());
    let post =
        async |url: &str, body: Value| kit.send(kit.client.post(url).json(&body)).await.unwrap();

    let opened = post(&base, json!({ "object": intent, "inquiry": true })).await;
    let dispute = format!("{base}/{}", opened.id());
    let escalated = post(&format!("{dispute}/escalate"), json!({})).await;
    let lost = post(&format!("{dispute}/settle"), json!({ "outcome": "lost" })).await;
    let again = post(&format!("{dispute}/settle"), json!({ "outcome": "won" })).await;

    assert_eq!((escalated.status, lost.status, again.status), (204, 204, 422));
    assert_eq!(kit.simulator.truth()[0].lost_minor, 1099);
}
