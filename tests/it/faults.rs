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

async fn only_payment(app: &TestApp) -> shared::ids::PaymentId {
    let id: uuid::Uuid =
        sqlx::query_scalar("select id from payments").fetch_one(&app.app.db).await.unwrap();
    id.into()
}
