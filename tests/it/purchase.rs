//! Buying a plan.

use harness::{TestApp, text};
use serde_json::json;

#[tokio::test]
async fn a_customer_buys_with_stripe_gets_the_tokens_and_spends_them() {
    let app = TestApp::start().await;

    let purchase = app.bought("42", 1).await;

    assert_eq!(purchase["amount"], "15.00");
    assert!(text(&purchase, "client_secret").starts_with(text(&purchase, "transaction_id")));
    let subscription = app.get("42", "subscription/").await;
    assert_eq!(subscription["tokens_remaining"], 1_000);
    assert_eq!(subscription["status"], "active");
    assert_eq!(subscription["is_subscription_active"], true);
    assert_eq!(subscription["end_date"], "2026-12-24T12:00:00Z");
    assert_eq!(subscription["days_remaining"], 30);
    let consumed = app.post("42", "tokens/consume/", &json!({ "tokens": 10 })).await;
    let consumed: serde_json::Value = consumed.json().await.unwrap();
    assert_eq!(consumed["tokens_remaining"], 990);
    let payments = app.get("42", "payments/").await;
    assert_eq!(payments[0]["status"], "completed");
    assert_eq!(payments[0]["id"], purchase["payment_id"]);
    assert_eq!(app.get("42", "tokens/usage/").await[0]["used_tokens"], 10);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn the_same_purchase_within_an_hour_is_the_same_payment() {
    let app = TestApp::start().await;

    let first = app.purchase("42", 1, "stripe").await;
    let second = app.purchase("42", 1, "credit_card").await;
    let other = app.purchase("42", 2, "stripe").await;

    assert_eq!(first["payment_id"], second["payment_id"]);
    assert_eq!(first["transaction_id"], second["transaction_id"]);
    assert_eq!(first["client_secret"], second["client_secret"]);
    assert_ne!(first["payment_id"], other["payment_id"]);
}

#[tokio::test]
async fn a_dozen_purchases_at_once_are_one_payment() {
    let app = TestApp::start().await;
    app.purchase("warm-up", 1, "stripe").await;

    let bought = (0..12).map(|_| app.purchase("42", 1, "stripe"));
    let bought = futures(bought).await;

    assert!(bought.iter().all(|one| one["payment_id"] == bought[0]["payment_id"]));
    assert_eq!(app.get("42", "payments/").await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_same_plan_again_follows_the_running_period() {
    let app = TestApp::start().await;
    app.bought("42", 1).await;

    app.bought("42", 1).await;

    let subscription = app.get("42", "subscription/").await;
    assert_eq!(subscription["end_date"], "2027-01-23T12:00:00Z");
    assert_eq!(subscription["tokens_remaining"], 1_000);
    app.clock.advance(chrono::Duration::days(30));
    let subscription = app.get("42", "subscription/").await;
    assert_eq!(subscription["tokens_remaining"], 1_000, "the second lot opened, the first ended");
    app.clock.advance(chrono::Duration::days(30));
    let subscription = app.get("42", "subscription/").await;
    assert_eq!(subscription["tokens_remaining"], 0);
    assert_eq!(subscription["is_active"], false);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_pack_outlives_the_plan() {
    let app = TestApp::start().await;
    app.bought("42", 1).await;
    app.bought("42", 3).await;
    assert_eq!(app.get("42", "subscription/").await["tokens_remaining"], 1_500);

    app.clock.advance(chrono::Duration::days(31));

    let subscription = app.get("42", "subscription/").await;
    assert_eq!(subscription["tokens_remaining"], 500);
    assert_eq!(subscription["is_active"], true);
    assert_eq!(subscription["days_remaining"], serde_json::Value::Null);
    let consumed = app.post("42", "tokens/consume/", &json!({ "tokens": 500 })).await;
    assert_eq!(consumed.status(), 200);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_wrong_purchase_is_a_clear_4xx_and_changes_nothing() {
    let app = TestApp::start().await;
    let wrong = [
        (json!({ "plan_id": 99, "payment_method": "stripe" }), 404, "plan_unavailable"),
        (json!({ "plan_id": 1, "payment_method": "gold" }), 400, "invalid_request"),
        (json!({ "plan_id": 1, "payment_method": "stripe", "coupon": "X" }), 400, "invalid_coupon"),
        (
            json!({ "plan_id": 1, "payment_method": "stripe", "quantity": 2 }),
            400,
            "invalid_request",
        ),
        (
            json!({ "plan_id": 1, "payment_method": "stripe", "success_url": "https://evil.example/" }),
            400,
            "invalid_request",
        ),
    ];
    for (body, status, code) in wrong {
        let response = app.post("42", "purchase/", &body).await;
        assert_eq!(response.status(), status, "{body}");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let problem: serde_json::Value = response.json().await.unwrap();
        assert_eq!(problem["code"], code, "{body}");
    }
    assert_eq!(app.scalar("select count(*) from payments").await, 0);
    let nobody = app.post("42", "tokens/consume/", &json!({ "tokens": 1 })).await;
    assert_eq!(nobody.status(), 404);
}

/// Runs futures at the same time.
pub(crate) async fn futures<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut pinned: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = pinned.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, slot) in pinned.iter_mut().zip(&mut done) {
            if slot.is_none()
                && let std::task::Poll::Ready(output) = future.as_mut().poll(context)
            {
                *slot = Some(output);
            }
        }
        if done.iter().all(Option::is_some) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    done.into_iter().flatten().collect()
}
