//! What the run with everything going wrong brought to light, each in its smallest form.

use harness::{TestApp, text};
use serde_json::json;
use shared::payments;
use simulator::{Fault, Funding, Gateway, Trouble};

#[tokio::test]
async fn a_refund_of_more_than_was_captured_is_not_booked() {
    let app = TestApp::start().await;
    app.bought_with_paypal("43", 1).await;
    let capture = app.simulator.truth()[0].capture_ids[0].clone();
    app.simulator.refund_paypal(&capture, Some(600)).unwrap();
    app.simulator.set_fault(
        Fault::once(Trouble::WrongAmount).at(Gateway::PayPal).matching("GET /v2/payments/refunds/"),
    );

    app.tell().await;

    let quarantined = "select count(*) from webhook_events where status = 'quarantined'";
    assert_eq!(app.scalar(quarantined).await, 1);
    assert_eq!(app.scalar("select count(*) from refunds").await, 0, "16.00 of 15.00");
    app.assert_books_balance().await;
    payments::compare_one(&app.app, only_payment(&app).await).await.unwrap();
    assert_eq!(app.scalar("select refunded_minor from payments").await, 600);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_refund_made_at_the_gateway_that_was_misread_is_corrected_by_reconciliation() {
    let app = TestApp::start().await;
    app.bought_with_paypal("43", 1).await;
    let capture = app.simulator.truth()[0].capture_ids[0].clone();
    app.simulator.refund_paypal(&capture, Some(400)).unwrap();
    app.simulator.set_fault(
        Fault::once(Trouble::WrongAmount).at(Gateway::PayPal).matching("GET /v2/payments/refunds/"),
    );
    app.tell().await;
    assert_eq!(app.scalar("select refunded_minor from payments").await, 1_400);

    let found = payments::compare_one(&app.app, only_payment(&app).await).await.unwrap();

    assert!(found.iter().all(|difference| difference.is_healed), "{found:?}");
    assert_eq!(app.scalar("select refunded_minor from payments").await, 400);
    assert_eq!(app.scalar("select taken from grants").await, 267);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_dispute_whose_amount_was_misread_is_corrected_by_reconciliation() {
    let app = TestApp::start().await;
    let purchase = app.bought("42", 1).await;
    let intent = text(&purchase, "transaction_id");
    app.simulator.open_stripe_dispute(intent, false, Some(700)).unwrap();
    app.simulator.set_fault(Fault::once(Trouble::WrongAmount).matching("GET /v1/disputes/"));
    app.tell().await;

    payments::compare_one(&app.app, only_payment(&app).await).await.unwrap();

    assert_eq!(app.scalar("select amount_minor from disputes").await, 700);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_reversal_that_was_first_listed_as_a_refund_is_lost_money_once() {
    let app = TestApp::start().await;
    app.bought_with_paypal("43", 1).await;
    let capture = app.simulator.truth()[0].capture_ids[0].clone();
    app.simulator.reverse_paypal(&capture).unwrap();
    payments::compare_one(&app.app, only_payment(&app).await).await.unwrap();

    app.tell().await;

    let lost = "select amount_minor from disputes where kind = 'reversal' and stage = 'lost'";
    assert_eq!(app.scalar(lost).await, 1_500);
    assert_eq!(app.scalar("select refunded_minor from payments").await, 0);
    assert_eq!(app.scalar("select taken from grants").await, 1_000);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn money_under_way_is_no_difference() {
    let app = TestApp::start().await;
    let purchase = app.purchase("43", 1, "paypal").await;
    let order = text(&purchase, "transaction_id");
    app.simulator.approve_paypal_with(order, Funding::Pending).unwrap();
    app.tell().await;

    let since = app.clock.now() - chrono::Duration::days(2);
    let found = payments::compare(&app.app, since).await.unwrap();

    assert_eq!(found, []);
    assert_eq!(app.payment("43", &purchase).await["status"], json!("pending"));
}

#[tokio::test]
async fn a_payment_that_goes_on_in_another_form_is_pending_and_asked_about() {
    let app = TestApp::start_with(harness::Options {
        settings: vec![("LATE_CAPTURE", "refund".to_owned())],
        ..harness::Options::default()
    })
    .await;
    let purchase = app.purchase("42", 1, "stripe").await;
    let body = json!({ "plan_id": 1 });
    let page = app.post("42", "stripe/checkout-session/", &body).await;
    let page: serde_json::Value = page.json().await.unwrap();
    assert_eq!(
        (&page["payment_id"], &page["status"]),
        (&purchase["payment_id"], &json!("pending"))
    );
    assert_eq!(app.payment("42", &purchase).await["status"], "pending");

    app.simulator.pay_stripe_session(text(&page, "session_id"), "pm_card_visa").unwrap();
    app.lose_events();
    app.clock.advance(chrono::Duration::minutes(10));
    app.run_jobs().await;

    assert_eq!(app.payment("42", &purchase).await["status"], "completed");
    assert_eq!(app.scalar("select count(*) from refunds").await, 0);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn an_order_captured_while_it_was_cancelled_is_found_by_asking() {
    let app = TestApp::start().await;
    let purchase = app.purchase("43", 1, "paypal").await;
    let order = text(&purchase, "transaction_id");
    app.simulator.approve_paypal(order).unwrap();
    app.simulator.set_fault(Fault::once(Trouble::AnswerLost).matching("/capture"));
    let path = format!("payments/{}/", text(&purchase, "payment_id"));
    // The capture's answer is lost; a cancellation that had read the order before it marks it void.
    assert_eq!(app.post("43", &format!("{path}capture/"), &json!({})).await.status(), 502);
    let voided = "update payment_objects set is_voided = true, approved_at = null";
    sqlx::query(voided).execute(&app.app.db).await.unwrap();
    sqlx::query("update payments set status = 'cancelled', cancelled_at = created_at")
        .execute(&app.app.db)
        .await
        .unwrap();
    app.lose_events();

    app.clock.advance(chrono::Duration::minutes(10));
    app.run_jobs().await;

    assert_eq!(app.payment("43", &purchase).await["status"], "completed");
    app.assert_books_balance().await;
}

async fn only_payment(app: &TestApp) -> shared::ids::PaymentId {
    let id: uuid::Uuid =
        sqlx::query_scalar("select id from payments").fetch_one(&app.app.db).await.unwrap();
    id.into()
}
