//! What operators do to an account's tokens.

use harness::{TestApp, assert_tokens_balance, text};
use serde_json::json;
use shared::ids::CustomerId;
use shared::tokens::{self, Correction, Entitlement, Source, Tokens};

fn correction(key: &str) -> Correction {
    Correction {
        customer_id: CustomerId::of("42"),
        principal: "key:1".to_owned(),
        reason: "support".to_owned(),
        key: Some(key.to_owned()),
    }
}

#[tokio::test]
async fn a_used_up_lot_can_be_reset_and_once_by_its_key() {
    let app = TestApp::start().await;
    let bought = app.bought("42", 1).await;
    let spent = app.post("42", "tokens/consume/", &json!({ "tokens": 1_000 })).await;
    assert_eq!(spent.status(), 200);
    let source = Source::payment(text(&bought, "payment_id").parse().unwrap(), 0);

    for _ in 0..2 {
        let mut tx = app.app.db.begin().await.unwrap();
        let goal = (source, Tokens(1_000));
        tokens::reset(&mut tx, &correction("a"), goal, app.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(app.scalar("select balance from token_accounts").await, 1_000);
    }

    let spent = app.post("42", "tokens/consume/", &json!({ "tokens": 1_000 })).await;
    assert_eq!(spent.status(), 200);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_repeated_correction_is_answered_as_the_first_time() {
    let app = TestApp::start().await;
    let bought = app.bought("42", 1).await;
    app.post("42", "tokens/consume/", &json!({ "tokens": 1_000 })).await;
    let gone = Entitlement {
        payment_id: text(&bought, "payment_id").parse().unwrap(),
        captured_minor: 1_500,
        gone_minor: 1_500,
        gone_unused_only_minor: 0,
        is_frozen: false,
    };
    let mut tx = app.app.db.begin().await.unwrap();
    let (customer_id, now) = (CustomerId::of("42"), app.clock.now());
    tokens::adapt(&mut tx, customer_id, &gone, "refund", now).await.unwrap();
    tx.commit().await.unwrap();

    let forgive = |key: &'static str, count| {
        let app = &app.app;
        async move { tokens::forgive_debt(app, &correction(key), Tokens(count), false).await.unwrap() }
    };
    let first = forgive("a", 300).await;
    assert_eq!(first.debt, Tokens(700));
    forgive("b", 5_000).await;
    let nothing = forgive("c", 1).await;
    let again = forgive("a", 300).await;

    assert_eq!(nothing.debt, Tokens::ZERO);
    assert_eq!((again.debt, again.is_replay), (Tokens(700), true));
    assert_tokens_balance(&app.app.db, app.clock.now()).await;
}
