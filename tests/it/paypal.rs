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

#[tokio::test]
async fn who_goes_back_without_approving_cancels_and_who_approved_does_not() {
    let app = TestApp::start().await;
    let body = serde_json::json!({
        "plan_id": 1, "payment_method": "paypal", "cancel_url": "https://app.example.com/no",
    });
    let left: Value = app.post("42", "purchase/", &body).await.json().await.unwrap();
    let approved = approved(&app).await;
    let leave = |purchase: &Value| {
        app.http.get(app.url(&format!("paypal/cancel/?token={}", text(purchase, "transaction_id"))))
    };

    let back = leave(&left).send().await.unwrap();
    assert_eq!(back.headers()["location"], "https://app.example.com/no");
    assert_eq!(leave(&approved).send().await.unwrap().status(), 200);
    app.run_jobs().await;

    assert_eq!(app.payment("42", &left).await["status"], "cancelled");
    assert_eq!(app.payment("43", &approved).await["status"], "completed");
}

#[tokio::test]
async fn browsers_without_a_token_make_us_ask_paypal_once_in_five_seconds() {
    let app = TestApp::start().await;
    let purchase = app.purchase("43", 1, "paypal").await;
    let order = text(&purchase, "transaction_id");
    let before = app.simulator.calls().len();
    let url = app.url(&format!("paypal/return/?token={order}"));

    for _ in 0..20 {
        assert_eq!(app.http.get(&url).send().await.unwrap().status(), 200);
    }

    // As many more as the test takes time.
    assert!(app.simulator.calls().len() - before < 10);
    let nobody = app.url("paypal/return/?token=../../v1/evil");
    assert_eq!(app.http.get(nobody).send().await.unwrap().status(), 404);
}
