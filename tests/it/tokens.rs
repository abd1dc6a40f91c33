//! Spending tokens.

use harness::{TestApp, token};
use serde_json::{Value, json};
use shared::tokens::{self, Depth};

use crate::purchase::futures;

async fn with_balance(app: &TestApp, left: i64) {
    app.bought("42", 1).await;
    let spent = app.post("42", "tokens/consume/", &json!({ "tokens": 1_000 - left })).await;
    assert_eq!(spent.status(), 200);
}

#[tokio::test]
async fn sixty_four_spends_on_a_balance_of_fifty_let_fifty_through() {
    let app = TestApp::start().await;
    with_balance(&app, 50).await;

    let body = json!({ "tokens": 1 });
    let answers = futures((0..64).map(|_| app.post("42", "tokens/consume/", &body))).await;

    let mut refused = 0;
    for answer in answers {
        if answer.status() == 400 {
            let problem: Value = answer.json().await.unwrap();
            assert_eq!(problem["code"], "insufficient_tokens");
            refused += 1;
        } else {
            assert_eq!(answer.status(), 200);
        }
    }
    assert_eq!(refused, 14);
    assert_eq!(app.scalar("select balance from token_accounts").await, 0);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_repeated_key_has_one_effect() {
    let app = TestApp::start().await;
    with_balance(&app, 100).await;
    let body = json!({ "tokens": 7, "idempotency_key": "once", "metadata": { "b": 1, "a": 2 } });

    let answers = futures((0..8).map(|_| app.post("42", "tokens/consume/", &body))).await;
    let mut replays = 0;
    let mut usage = std::collections::BTreeSet::new();
    for answer in answers {
        replays += usize::from(answer.headers().contains_key("idempotent-replayed"));
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["tokens_remaining"], 93);
        usage.insert(answer["usage_id"].to_string());
    }
    let other = json!({ "tokens": 8, "idempotency_key": "once" });
    let other = app.post("42", "tokens/consume/", &other).await;
    let differ = app.http.post(app.url("tokens/consume/")).bearer_auth(token("42"));
    let differ = differ.header("idempotency-key", "another").json(&body).send().await.unwrap();

    assert_eq!((replays, usage.len()), (7, 1));
    assert_eq!(other.status(), 422);
    assert_eq!(differ.status(), 400);
    assert_eq!(app.scalar("select balance from token_accounts").await, 93);
}

#[tokio::test]
async fn nothing_is_spendable_past_the_end_of_the_period() {
    let app = TestApp::start().await;
    with_balance(&app, 100).await;

    app.clock.advance(chrono::Duration::days(30));

    let answer = app.post("42", "tokens/consume/", &json!({ "tokens": 1 })).await;
    assert_eq!(answer.status(), 400);
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["code"], "subscription_inactive");
}

#[tokio::test]
async fn a_wrong_spend_is_a_clear_400_and_changes_nothing() {
    let app = TestApp::start().await;
    with_balance(&app, 100).await;
    let wrong = [
        json!({ "tokens": 0 }),
        json!({ "tokens": -1 }),
        json!({ "tokens": 1.5 }),
        json!({ "tokens": 1_000_000_000_001_u64 }),
        json!({ "tokens": "1" }),
        json!({}),
        json!({ "tokens": 1, "description": "x".repeat(256) }),
        json!({ "tokens": 1, "description": "nul \u{0}" }),
        json!({ "tokens": 1, "metadata": { "a": "\u{0}" } }),
        json!({ "tokens": 1, "metadata": [] }),
        json!({ "tokens": 1, "idempotency_key": "" }),
        json!({ "tokens": 1, "idempotency_key": "x".repeat(256) }),
    ];
    for body in wrong {
        let answer = app.post("42", "tokens/consume/", &body).await;
        assert_eq!(answer.status(), 400, "{body}");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["code"], "invalid_request", "{body}");
    }
    assert_eq!(app.scalar("select balance from token_accounts").await, 100);
}

#[tokio::test]
async fn an_account_that_another_transaction_holds_keeps_nobody_else_waiting() {
    let app = TestApp::start().await;
    for user in ["42", "43", "44", "45", "46"] {
        app.bought(user, 1).await;
    }
    let mut tx = app.app.db.begin().await.unwrap();
    sqlx::query("select from token_accounts where customer_id = $1 for update")
        .bind(shared::ids::CustomerId::of("42"))
        .execute(&mut *tx)
        .await
        .unwrap();
    let body = json!({ "tokens": 1, "idempotency_key": "while-locked" });

    let (waits, others) = tokio::join!(app.post("42", "tokens/consume/", &body), async {
        // Enough rounds that the locked account's request is in every writer's way.
        for round in 0..10 {
            for user in ["43", "44", "45", "46"] {
                let body = json!({ "tokens": 1, "idempotency_key": round.to_string() });
                assert_eq!(app.post(user, "tokens/consume/", &body).await.status(), 200);
            }
        }
        tx.rollback().await.unwrap();
    });

    let () = others;
    assert_eq!(waits.status(), 200, "it is served when the lock is gone");
    assert_eq!(app.scalar("select sum(used)::bigint from token_accounts").await, 41);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn entries_of_before_the_chain_are_put_under_it_once() {
    let app = TestApp::start().await;
    with_balance(&app, 100).await;
    let run = |sql: &'static str| sqlx::raw_sql(sql).execute(&app.app.db);
    run("update ledger_entries set digest = '', content_digest = '';
         update token_accounts set last_digest = ''")
    .await
    .unwrap();

    let sealed = tokens::seal_old(&app.app.db, app.clock.now()).await.unwrap();

    assert_eq!(sealed, 2, "the grant and the spend");
    app.assert_books_balance().await;
    run("update ledger_entries set digest = '' where kind = 'consumed';
         update token_accounts set last_digest = ''")
    .await
    .unwrap();
    let again = tokens::seal_old(&app.app.db, app.clock.now()).await.unwrap();
    assert_eq!(again, 0, "what lost its digest later was tampered with");
    let broken = tokens::verify(&app.app.db, Depth::Full).await.unwrap();
    assert_eq!(broken.len(), 1, "the entry; the account ends as it does: {broken:?}");
}
