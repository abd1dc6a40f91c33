//! The payer's bank contests a capture.

use chrono::Duration;
use harness::{TestApp, text};
use serde_json::{Value, json};
use simulator::{DisputeOutcome, PayPalDisputeOutcome};

async fn available(app: &TestApp, user: &str, tokens: u64) -> u16 {
    let body = json!({ "tokens": tokens });
    app.post(user, "tokens/consume/", &body).await.status().as_u16()
}

async fn subscription(app: &TestApp, user: &str) -> Value {
    app.get(user, "subscription/").await
}

fn intent(purchase: &Value) -> &str {
    text(purchase, "transaction_id")
}

#[tokio::test]
async fn an_open_dispute_freezes_the_tokens_and_a_won_one_thaws_them_for_the_time_lost() {
    let app = TestApp::start().await;
    let purchase = app.bought("42", 1).await;
    let dispute = app.simulator.open_stripe_dispute(intent(&purchase), false, None).unwrap();
    app.tell().await;
    assert_eq!(available(&app, "42", 1).await, 400);
    assert_eq!(app.payment("42", &purchase).await["status"], "completed");
    app.assert_books_balance().await;

    // Longer than the period: a frozen lot does not expire.
    app.clock.advance(Duration::days(40));
    app.simulator.settle_stripe_dispute(&dispute, DisputeOutcome::Won).unwrap();
    app.tell().await;

    let after = subscription(&app, "42").await;
    assert_eq!((&after["is_active"], &after["tokens_remaining"]), (&json!(true), &json!(1_000)));
    assert_eq!(after["end_date"], "2027-02-02T12:00:00Z");
    assert_eq!(available(&app, "42", 1_000).await, 200);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_lost_dispute_takes_the_tokens_ends_the_period_and_drops_the_method() {
    let app = TestApp::start().await;
    let purchase = app.bought("42", 1).await;
    app.tell().await;
    assert_eq!(app.get("42", "payment-methods/").await.as_array().unwrap().len(), 1);
    assert_eq!(available(&app, "42", 300).await, 200);
    let dispute = app.simulator.open_stripe_dispute(intent(&purchase), false, None).unwrap();
    app.tell().await;
    app.simulator.settle_stripe_dispute(&dispute, DisputeOutcome::Lost).unwrap();
    app.tell().await;

    let after = subscription(&app, "42").await;
    assert_eq!((&after["is_active"], &after["tokens_remaining"]), (&json!(false), &json!(0)));
    assert_eq!(app.payment("42", &purchase).await["status"], "completed");
    assert_eq!(app.scalar("select debt from token_accounts").await, 300);
    assert_eq!(app.get("42", "payment-methods/").await, json!([]));
    let body = json!({ "reason": "too late" });
    let path = format!("payments/{}/refund/", text(&purchase, "payment_id"));
    assert_eq!(app.operate(&path, &body).await.0, 409);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_mere_inquiry_freezes_nothing() {
    let app = TestApp::start().await;
    let purchase = app.bought("42", 1).await;
    let inquiry = app.simulator.open_stripe_dispute(intent(&purchase), true, None).unwrap();
    app.tell().await;
    assert_eq!(available(&app, "42", 1).await, 200);

    app.simulator.settle_stripe_dispute(&inquiry, DisputeOutcome::WarningClosed).unwrap();
    app.tell().await;

    assert_eq!(app.payment("42", &purchase).await["status"], "completed");
    assert_eq!(available(&app, "42", 999).await, 200);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_dispute_told_as_created_after_it_was_closed_stays_closed() {
    let app = TestApp::start().await;
    let purchase = app.bought("42", 1).await;
    app.lose_events();
    let dispute = app.simulator.open_stripe_dispute(intent(&purchase), false, None).unwrap();
    app.simulator.settle_stripe_dispute(&dispute, DisputeOutcome::Won).unwrap();
    let events = app.simulator.events();
    for event in events.iter().rev().filter(|event| event.kind.starts_with("charge.dispute")) {
        app.deliver_stripe(&event.body).await;
        app.run_jobs().await;
    }

    assert_eq!(available(&app, "42", 1_000).await, 200);
    assert_eq!(app.scalar("select count(*) from disputes where stage = 'won'").await, 1);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_refund_is_refused_while_a_dispute_is_open() {
    let app = TestApp::start().await;
    let purchase = app.bought("42", 1).await;
    app.simulator.open_stripe_dispute(intent(&purchase), false, None).unwrap();
    app.tell().await;

    let body = json!({ "reason": "asked for" });
    let path = format!("payments/{}/refund/", text(&purchase, "payment_id"));
    let (status, problem) = app.operate(&path, &body).await;

    assert_eq!((status, &problem["code"]), (409, &json!("conflict")));
    assert_eq!(app.scalar("select count(*) from refunds").await, 0);
}

#[tokio::test]
async fn a_dispute_on_a_partly_refunded_payment_loses_only_the_rest() {
    let app = TestApp::start().await;
    let purchase = app.bought("42", 1).await;
    let path = format!("payments/{}/refund/", text(&purchase, "payment_id"));
    let body = json!({ "amount": "4.00", "reason": "asked for" });
    assert_eq!(app.operate(&path, &body).await.0, 200);
    app.tell().await;
    let dispute = app.simulator.open_stripe_dispute(intent(&purchase), false, None).unwrap();
    app.tell().await;
    app.simulator.settle_stripe_dispute(&dispute, DisputeOutcome::Lost).unwrap();
    app.tell().await;

    let payment = app.payment("42", &purchase).await;
    assert_eq!(
        (&payment["status"], &payment["refunded_amount"]),
        (&json!("completed"), &json!("4.00"))
    );
    assert_eq!(subscription(&app, "42").await["tokens_remaining"], 0);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn paypals_dispute_and_reversal_of_one_capture_lose_its_money_once() {
    let app = TestApp::start().await;
    let purchase = app.bought_with_paypal("43", 1).await;
    let capture = app.simulator.truth()[0].capture_ids[0].clone();
    let dispute = app.simulator.open_paypal_dispute(&capture, false).unwrap();
    app.tell().await;
    assert_eq!(available(&app, "43", 1).await, 400);
    app.simulator
        .settle_paypal_dispute(&dispute, PayPalDisputeOutcome::ResolvedBuyerFavour)
        .unwrap();
    app.tell().await;

    assert_eq!(app.payment("43", &purchase).await["status"], "completed");
    let after = subscription(&app, "43").await;
    assert_eq!((&after["is_active"], &after["tokens_remaining"]), (&json!(false), &json!(0)));
    assert_eq!(app.scalar("select debt from token_accounts").await, 0);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn paypals_reversal_alone_takes_the_tokens_back() {
    let app = TestApp::start().await;
    let purchase = app.bought_with_paypal("43", 1).await;
    let capture = app.simulator.truth()[0].capture_ids[0].clone();
    app.simulator.reverse_paypal(&capture).unwrap();
    app.tell().await;
    app.tell().await;

    assert_eq!(app.payment("43", &purchase).await["status"], "completed");
    assert_eq!(subscription(&app, "43").await["tokens_remaining"], 0);
    assert_eq!(app.scalar("select count(*) from disputes where kind = 'reversal'").await, 1);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn paypals_dispute_won_by_us_gives_the_tokens_back() {
    let app = TestApp::start().await;
    app.bought_with_paypal("43", 1).await;
    let capture = app.simulator.truth()[0].capture_ids[0].clone();
    let dispute = app.simulator.open_paypal_dispute(&capture, false).unwrap();
    app.tell().await;
    assert_eq!(available(&app, "43", 1).await, 400);

    app.simulator
        .settle_paypal_dispute(&dispute, PayPalDisputeOutcome::ResolvedSellerFavour)
        .unwrap();
    app.tell().await;

    assert_eq!(available(&app, "43", 1_000).await, 200);
    app.assert_books_balance().await;
}
