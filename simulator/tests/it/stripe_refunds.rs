//! Refunds at Stripe.

use serde_json::{Value, json};

use crate::kit::Kit;

#[tokio::test]
async fn refunds_add_up_to_what_was_paid_and_no_further() {
    let kit = Kit::start().await;
    let intent = kit.paid_intent().await;
    let refund = |amount: &'static str| {
        let intent = intent.clone();
        let kit = &kit;
        async move {
            let form = [
                ("payment_intent", intent.as_str()),
                ("amount", amount),
                ("metadata[refund_id]", "refund-1"),
            ];
            kit.post("/v1/refunds", &form).await
        }
    };

    let first = refund("400").await;
    let over = refund("700").await;
    let second = refund("699").await;
    let third = refund("1").await;

    assert_eq!(first.body["status"], "succeeded");
    assert_eq!(first.body["metadata"]["refund_id"], "refund-1");
    assert_eq!(over.status, 400);
    assert_eq!(over.body["error"]["param"], "amount");
    assert_eq!(second.status, 200);
    assert_eq!(third.code(), "charge_already_refunded");
    assert_eq!(kit.simulator.truth()[0].refunded_minor, 1099);
    let list = kit.get(&format!("/v1/refunds?payment_intent={intent}")).await;
    assert_eq!(list.body["data"].as_array().unwrap().len(), 2);
    assert_eq!(list.body["data"][0]["id"], second.id().as_str());
    assert_eq!(kit.get(&format!("/v1/refunds/{}", first.id())).await.body["amount"], 400);
}

#[tokio::test]
async fn a_refund_is_told_as_a_total_with_what_was_before() {
    let kit = Kit::start().await;
    let intent = kit.paid_intent().await;

    let form = [("payment_intent", intent.as_str()), ("amount", "400")];
    kit.post("/v1/refunds", &form).await;
    kit.post("/v1/refunds", &[("payment_intent", intent.as_str())]).await;

    let events = kit.simulator.events();
    let bodies: Vec<Value> = events
        .iter()
        .filter(|event| event.kind == "charge.refunded")
        .map(|event| serde_json::from_slice(&event.body).unwrap())
        .collect();
    assert_eq!(bodies[0]["data"]["object"]["amount_refunded"], 400);
    assert_eq!(bodies[0]["data"]["object"]["refunded"], false);
    assert_eq!(bodies[0]["data"]["previous_attributes"], json!({ "amount_refunded": 0 }));
    assert_eq!(bodies[1]["data"]["object"]["amount_refunded"], 1099);
    assert_eq!(bodies[1]["data"]["object"]["refunded"], true);
    let previous = json!({ "amount_refunded": 400, "refunded": false });
    assert_eq!(bodies[1]["data"]["previous_attributes"], previous);
    let kinds = kit.kinds();
    assert_eq!(kinds[3..6], ["refund.created", "charge.refunded", "refund.updated"]);
    assert!(events.iter().all(|event| event.payment_id.as_deref() == Some("payment-1")));
}

#[tokio::test]
async fn what_was_not_paid_cannot_be_refunded() {
    let kit = Kit::start().await;
    let open = kit.intent().await.id();

    let unpaid = kit.post("/v1/refunds", &[("payment_intent", open.as_str())]).await;
    let nothing = kit.post("/v1/refunds", &[]).await;
    let unknown = kit.post("/v1/refunds", &[("payment_intent", "pi_x")]).await;

    assert_eq!(unpaid.status, 400);
    assert_eq!(nothing.code(), "parameter_missing");
    assert_eq!(unknown.code(), "resource_missing");
}

#[tokio::test]
async fn a_refund_that_fails_gives_the_money_back_to_us() {
    let kit = Kit::start().await;
    let intent = kit.paid_intent().await;
    let refund = kit.post("/v1/refunds", &[("payment_intent", intent.as_str())]).await.id();
    assert_eq!(kit.simulator.truth()[0].refunded_minor, 1099);

    kit.simulator.settle_stripe_refund(&refund, false).unwrap();

    assert_eq!(kit.simulator.truth()[0].refunded_minor, 0);
    let read = kit.get(&format!("/v1/refunds/{refund}")).await;
    assert_eq!(read.body["status"], "failed");
    assert!(kit.kinds().contains(&"refund.failed".into()));
}

#[tokio::test]
async fn a_refund_may_pend_until_the_bank_has_done_it() {
    let kit = Kit::start().await;
    let intent = kit.intent().await.id();
    kit.simulator.pay_stripe(&intent, "pm_card_pendingRefund").unwrap();

    let refund = kit.post("/v1/refunds", &[("payment_intent", intent.as_str())]).await;
    kit.simulator.settle_stripe_refund(&refund.id(), true).unwrap();

    assert_eq!(refund.body["status"], "pending");
    let read = kit.get(&format!("/v1/refunds/{}", refund.id())).await;
    assert_eq!(read.body["status"], "succeeded");
}

#[tokio::test]
async fn a_refund_at_the_dashboard_names_nothing_of_ours() {
    let kit = Kit::start().await;
    let intent = kit.paid_intent().await;

    let part = kit.simulator.refund_stripe(&intent, Some(400)).unwrap();
    let rest = kit.simulator.refund_stripe(&intent, None).unwrap();
    let over = kit.simulator.refund_stripe(&intent, None).unwrap_err();

    let part = kit.get(&format!("/v1/refunds/{part}")).await;
    assert_eq!((&part.body["amount"], &part.body["metadata"]), (&json!(400), &json!({})));
    let rest = kit.get(&format!("/v1/refunds/{rest}")).await;
    assert_eq!(rest.body["amount"], 699);
    assert_eq!(over.code, "charge_already_refunded");
    let events = kit.simulator.events();
    let made = events.iter().find(|event| event.kind == "refund.created").unwrap();
    let body: Value = serde_json::from_slice(&made.body).unwrap();
    assert_eq!(body["request"], json!({ "id": null, "idempotency_key": null }));
}

#[tokio::test]
async fn a_refund_is_asked_of_the_charge_as_well_and_found_by_it() {
    let kit = Kit::start().await;
    kit.paid_intent().await;
    let charge = kit.simulator.truth()[0].capture_ids[0].clone();

    let form = [("charge", charge.as_str()), ("reason", "duplicate"), ("amount", "1")];
    let refund = kit.post("/v1/refunds", &form).await;
    let odd = kit.post("/v1/refunds", &[("charge", charge.as_str()), ("reason", "bored")]).await;
    let list = kit.get(&format!("/v1/refunds?charge={charge}")).await;

    assert_eq!(refund.body["reason"], "duplicate");
    assert_eq!(refund.body["charge"], charge.as_str());
    assert_eq!(odd.body["error"]["param"], "reason");
    assert_eq!(list.body["data"][0]["id"], refund.id().as_str());
    let families = kit.kinds().into_iter().filter(|kind| kind.contains("refund.")).count();
    assert_eq!(families, 2, "refund.created and refund.updated, without their older twins");
}

#[tokio::test]
async fn a_refund_that_pends_can_be_called_off() {
    let kit = Kit::start().await;
    let intent = kit.intent().await.id();
    kit.simulator.pay_stripe(&intent, "pm_card_pendingRefund").unwrap();
    let refund = kit.post("/v1/refunds", &[("payment_intent", intent.as_str())]).await.id();

    let asked = kit.post(&format!("/v1/refunds/{refund}/cancel"), &[]).await;
    kit.simulator.cancel_stripe_refund(&refund).unwrap();
    let again = kit.simulator.cancel_stripe_refund(&refund);
    let late = kit.simulator.settle_stripe_refund(&refund, true);

    assert_eq!(asked.status, 400, "a card's refund never waits for the payer");
    assert!(again.is_err() && late.is_err());
    let read = kit.get(&format!("/v1/refunds/{refund}")).await;
    assert_eq!(read.body["status"], "canceled");
    assert_eq!(kit.simulator.truth()[0].refunded_minor, 0);
}

#[tokio::test]
async fn some_cards_refuse_the_money_after_the_refund_succeeded() {
    let kit = Kit::start().await;
    let intent = kit.intent().await.id();
    kit.simulator.pay_stripe(&intent, "pm_card_refundFail").unwrap();

    let refund = kit.post("/v1/refunds", &[("payment_intent", intent.as_str())]).await;

    assert_eq!(refund.body["status"], "succeeded");
    let read = kit.get(&format!("/v1/refunds/{}", refund.id())).await;
    assert_eq!(read.body["status"], "failed");
    assert_eq!(kit.simulator.truth()[0].refunded_minor, 0);
}
