//! PayPal: approve, capture, book.

use harness::{TestApp, text};
use serde_json::Value;

use crate::purchase::futures;

async fn approved(app: &TestApp) -> Value {
    let purchase = app.purchase("43", 1, "paypal").await;
    assert!(text(&purchase, "approval_url").contains(text(&purchase, "transaction_id")));
    app.simulator.approve_paypal(text(&purchase, "transaction_id")).unwrap();
    purchase
}

#[tokio::test]
async fn a_customer_buys_with_paypal_and_gets_the_tokens() {
    let app = TestApp::start().await;
    let purchase = approved(&app).await;

    app.deliver_all_of_paypal().await;
    app.run_jobs().await;
    app.deliver_all_of_paypal().await;
    app.run_jobs().await;

    assert_eq!(app.get("43", "subscription/").await["tokens_remaining"], 1_000);
    let payment = app.get("43", &format!("payments/{}/", text(&purchase, "payment_id"))).await;
    assert_eq!(payment["status"], "completed");
    assert_eq!(app.scalar("select count(*) from grants").await, 1);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn webhook_and_browser_at_once_capture_once() {
    let app = TestApp::start().await;
    let purchase = approved(&app).await;
    let order = text(&purchase, "transaction_id");
    let back = app.url(&format!("paypal/return/?token={order}"));
    app.deliver_all_of_paypal().await;

    let browser = async {
        let answers = futures((0..4).map(|_| app.http.get(&back).send())).await;
        answers.into_iter().all(|answer| answer.is_ok_and(|answer| answer.status() == 200))
    };
    let (is_answered, ()) = tokio::join!(browser, app.run_jobs());
    app.deliver_all_of_paypal().await;
    app.run_jobs().await;

    assert!(is_answered);
    assert_eq!(app.get("43", "subscription/").await["tokens_remaining"], 1_000);
    assert_eq!(app.scalar("select count(*) from grants").await, 1);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_lost_doorbell_of_an_approval_is_rung_by_the_sweep() {
    let app = TestApp::start().await;
    approved(&app).await;
    app.deliver_all_of_paypal().await;
    app.clock.advance(chrono::Duration::seconds(10));

    worker::run(&app.app, shared::jobs::Job::Sweep { tick: 0 }).await.unwrap();

    let queued =
        "select count(*) from apalis.jobs where convert_from(job, 'UTF8') like '%webhook%'";
    assert_eq!(app.scalar(queued).await, 1);
    app.run_jobs().await;
    assert_eq!(app.get("43", "subscription/").await["tokens_remaining"], 1_000);
}
