//! Tokens set aside for work that runs, and many spends in one request.

use chrono::{DateTime, Duration, Utc};
use harness::{TestApp, assert_tokens_balance, text};
use reqwest::Response;
use serde_json::{Value, json};
use shared::ids::{CustomerId, SubscriptionId};
use shared::tokens::{self, Access, HoldRule, OpenHold, Tokens};

use crate::purchase::futures;

/// Status and body.
type Answer = (u16, Value);

async fn read(answer: Response) -> Answer {
    let status = answer.status().as_u16();
    let is_replay = answer.headers().contains_key("idempotent-replayed");
    let mut body: Value = answer.json().await.unwrap();
    body["replayed"] = is_replay.into();
    (status, body)
}

async fn post(app: &TestApp, user: &str, path: &str, body: Value) -> Answer {
    read(app.post(user, &format!("tokens/{path}"), &body).await).await
}

async fn open(app: &TestApp, tokens: u64, seconds: i64, rule: &str) -> Value {
    let body = json!({ "tokens": tokens, "expires_in_seconds": seconds, "on_expiry": rule });
    let (status, hold) = post(app, "42", "holds/", body).await;
    assert_eq!(status, 201, "{hold}");
    hold
}

async fn step(app: &TestApp, hold: &Value, what: &str, body: Value) -> Answer {
    post(app, "42", &format!("holds/{}/{what}/", text(hold, "hold_id")), body).await
}

async fn settle(app: &TestApp, hold: &Value, total: u64, is_final: bool) -> Answer {
    step(app, hold, "settle", json!({ "tokens_total": total, "final": is_final })).await
}

async fn consume(app: &TestApp, tokens: u64) -> u16 {
    post(app, "42", "consume/", json!({ "tokens": tokens })).await.0
}

async fn balance(app: &TestApp) -> Value {
    app.get("42", "tokens/balance/").await
}

/// Remaining, held, available.
async fn state(app: &TestApp) -> (u64, u64, u64) {
    let balance = balance(app).await;
    let number = |member: &str| balance[member].as_u64().unwrap();
    (number("tokens_remaining"), number("tokens_held"), number("tokens_available"))
}

async fn set_overdraft(app: &TestApp, overdraft: u64, is_active: bool) {
    let access = Access {
        subscription_id: SubscriptionId::new(app.clock.now()),
        is_active,
        spendable_until: None,
        paused_until: None,
        overdraft: Tokens(overdraft),
        low_at: None,
    };
    let mut tx = app.app.db.begin().await.unwrap();
    let now = app.clock.now();
    tokens::set_access(&mut tx, CustomerId::of("42"), &access, now).await.unwrap();
    tx.commit().await.unwrap();
}

/// Spends, all at once, of sizes that add up to all that is free and one token more: whichever
/// comes first, exactly what is there is spent.
async fn assert_exactly_free(app: &TestApp, free: u64) {
    assert_eq!(state(app).await.2, free);
    let each = free / 8;
    let spends = futures((0..9).map(|_| consume(app, each))).await;
    let spent = spends.iter().filter(|status| **status == 200).count() as u64 * each;
    assert_eq!(spent, each * 8, "eight fit, the ninth does not");
    let rest = free - spent;
    assert_eq!(consume(app, rest + 1).await, 400);
    if rest > 0 {
        assert_eq!(consume(app, rest).await, 200);
    }
    assert_eq!(state(app).await.2, 0);
}

/// A hold of 1,000, of which 700 are settled in three parts and 850 were reported; its client goes
/// away. Pro gives 5,000.
async fn left_alone(rule: &str) -> TestApp {
    let app = TestApp::start().await;
    app.bought("42", 2).await;
    let hold = open(&app, 1_000, 60, rule).await;
    assert_eq!(state(&app).await, (5_000, 1_000, 4_000));
    assert_exactly_free(&app, 4_000).await;
    for (total, left) in [(200, 800), (450, 550), (700, 300)] {
        app.clock.advance(Duration::seconds(10));
        let (status, settled) = settle(&app, &hold, total, false).await;
        assert_eq!((status, &settled["tokens_settled"]), (200, &json!(total)));
        assert_eq!(state(&app).await, (left, left, 0), "what is reserved cannot be spent");
        assert_eq!(consume(&app, 1).await, 400);
    }
    step(&app, &hold, "extend", json!({ "reported_total": 850 })).await;
    assert_eq!(state(&app).await, (300, 300, 0), "reporting charges nothing");
    app.clock.advance(Duration::seconds(30) - Duration::microseconds(1));
    assert_eq!(consume(&app, 1).await, 400);
    app.clock.advance(Duration::microseconds(1));
    app
}

#[tokio::test]
async fn a_hold_left_alone_is_released_at_the_second_of_its_expiry() {
    let app = left_alone("release").await;

    assert_eq!(state(&app).await, (300, 0, 300), "before anything was booked");
    assert_exactly_free(&app, 300).await;

    assert_eq!(app.scalar("select used from token_accounts").await, 5_000);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_hold_left_alone_settles_what_was_reported_at_the_second_of_its_expiry() {
    let app = left_alone("settle_reported").await;

    assert_eq!(state(&app).await, (150, 0, 150), "before anything was booked");
    assert_exactly_free(&app, 150).await;

    assert_eq!(app.scalar("select used from token_accounts").await, 5_000);
    assert_eq!(app.scalar("select settled from holds").await, 850);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn only_who_made_a_hold_may_go_on_with_it() {
    let app = TestApp::start().await;
    app.bought("42", 1).await;
    app.bought("43", 1).await;
    let hold = open(&app, 100, 60, "release").await;
    let id = text(&hold, "hold_id");

    for (what, body) in [
        ("settle", json!({ "tokens_total": 1 })),
        ("extend", json!({ "tokens": 1 })),
        ("release", json!({})),
    ] {
        let (status, problem) = post(&app, "43", &format!("holds/{id}/{what}/"), body).await;
        assert_eq!((status, &problem["code"]), (404, &json!("not_found")), "{what}");
    }

    assert_eq!(state(&app).await, (1_000, 100, 900));
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_service_s_hold_is_seen_without_its_id_and_is_not_the_customer_s_to_end() {
    let app = TestApp::start().await;
    app.bought("42", 1).await;
    let wish = OpenHold {
        customer_id: CustomerId::of("42"),
        principal: "key:7".to_owned(),
        tokens: Tokens(100),
        lasts: Duration::minutes(1),
        on_expiry: HoldRule::Release,
        description: String::new(),
        metadata: json!({}),
        key: None,
    };
    let held = tokens::open_hold(&app.app, &wish).await.unwrap();
    let own = open(&app, 50, 60, "release").await;

    let holds = balance(&app).await["holds"].clone();
    let ids: Vec<&Value> = holds.as_array().unwrap().iter().map(|hold| &hold["hold_id"]).collect();
    assert!(ids.contains(&&Value::Null) && ids.contains(&&own["hold_id"]), "{holds}");
    let path = format!("holds/{}/release/", held.hold.id);
    assert_eq!(post(&app, "42", &path, json!({})).await.0, 404);
    assert_eq!(state(&app).await, (1_000, 150, 850));
}

#[tokio::test]
async fn each_step_of_a_hold_may_be_repeated_by_its_key() {
    let app = TestApp::start().await;
    app.bought("42", 1).await;
    let opening = json!({ "tokens": 100, "idempotency_key": "a" });
    let first = post(&app, "42", "holds/", opening.clone()).await;
    let again = post(&app, "42", "holds/", opening).await;
    let other = post(&app, "42", "holds/", json!({ "tokens": 101, "idempotency_key": "a" })).await;
    assert_eq!((again.0, &again.1["hold_id"]), (201, &first.1["hold_id"]));
    assert_eq!((again.1["replayed"] == true, other.0), (true, 422));
    let hold = first.1;

    let steps = [
        ("extend", json!({ "tokens": 20, "idempotency_key": "a" }), 100),
        ("extend", json!({ "tokens": 20, "idempotency_key": "b" }), 120),
        ("settle", json!({ "tokens_total": 70, "idempotency_key": "c" }), 70),
    ];
    for (what, body, _) in &steps {
        let first = step(&app, &hold, what, body.clone()).await;
        // Another step comes in between.
        settle(&app, &hold, 10, false).await;
        let mut again = step(&app, &hold, what, body.clone()).await;
        assert_eq!(again.1["replayed"], true);
        again.1["replayed"] = false.into();
        assert_eq!(again, first);
    }
    let misused = json!({ "tokens_total": 71, "idempotency_key": "c" });
    assert_eq!(step(&app, &hold, "settle", misused).await.0, 422);

    assert_eq!(state(&app).await, (930, 70, 860));
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_settle_beyond_all_there_is_books_that_and_says_by_how_much_it_is_short() {
    let app = TestApp::start().await;
    app.bought("42", 1).await;
    set_overdraft(&app, 30, true).await;
    let hold = open(&app, 600, 60, "release").await;
    let other = open(&app, 100, 60, "release").await;
    let body = json!({ "tokens_total": 1_000, "final": true, "idempotency_key": "a" });

    let (status, short) = step(&app, &hold, "settle", body.clone()).await;

    assert_eq!((status, &short["code"]), (400, &json!("insufficient_tokens")));
    let expected = [
        ("requested", 1_000),
        ("available", 930),
        ("held", 100),
        ("overdraft_left", 0),
        ("tokens_settled", 930),
        ("tokens_held", 0),
    ];
    for (member, number) in expected {
        assert_eq!(short[member], number, "{member} in {short}");
    }
    assert_eq!(short["hold_status"], "settled");
    assert_eq!(balance(&app).await["debt"], 30);
    let (status, again) = step(&app, &hold, "settle", body).await;
    assert_eq!((status, &again["replayed"]), (400, &json!(true)));
    for (member, number) in expected {
        assert_eq!(again[member], number, "the same again: {member} in {again}");
    }
    assert_eq!(settle(&app, &other, 100, true).await.0, 200, "within what is reserved always");
    assert_tokens_balance(&app.app.db, app.clock.now()).await;
}

#[tokio::test]
async fn an_ended_hold_is_not_open_and_a_repeat_of_its_end_is_answered() {
    let app = TestApp::start().await;
    app.bought("42", 1).await;
    let released = open(&app, 100, 60, "release").await;
    let settled = open(&app, 100, 60, "release").await;
    let expired = open(&app, 100, 60, "release").await;
    assert_eq!(step(&app, &released, "release", json!({})).await.0, 200);
    assert_eq!(settle(&app, &settled, 40, true).await.0, 200);
    app.clock.advance(Duration::minutes(1));

    for (hold, status) in [(&released, "released"), (&settled, "settled"), (&expired, "expired")] {
        let (code, problem) = settle(&app, hold, 41, false).await;
        assert_eq!((code, &problem["code"]), (409, &json!("hold_not_open")));
        assert_eq!(problem["hold_status"], status);
        assert_eq!(step(&app, hold, "extend", json!({ "tokens": 1 })).await.0, 409);
    }
    assert_eq!(step(&app, &released, "release", json!({})).await.0, 200);
    assert_eq!(settle(&app, &settled, 40, true).await.0, 200);
    assert_eq!(settle(&app, &settled, 20, true).await.0, 200, "a smaller total changes nothing");
    assert_eq!(step(&app, &expired, "release", json!({})).await.0, 409);
    assert_eq!(state(&app).await, (960, 0, 960));
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_hold_runs_for_at_most_24_hours_in_all() {
    let app = TestApp::start().await;
    app.bought("42", 1).await;
    for seconds in [0, -1, 86_401] {
        let body = json!({ "tokens": 1, "expires_in_seconds": seconds });
        assert_eq!(post(&app, "42", "holds/", body).await.0, 400, "{seconds}");
    }
    let made = app.clock.now();
    let hold = open(&app, 100, 86_400, "release").await;
    let end = |answer: &Value| -> DateTime<Utc> { text(answer, "expires_at").parse().unwrap() };
    assert_eq!(end(&hold), made + Duration::hours(24));

    app.clock.advance(Duration::hours(20));
    let longer = json!({ "expires_in_seconds": 86_400 });
    let (status, extended) = step(&app, &hold, "extend", longer).await;
    assert_eq!((status, end(&extended)), (200, made + Duration::hours(24)));
    let shorter = json!({ "expires_in_seconds": 60 });
    let (_, extended) = step(&app, &hold, "extend", shorter).await;
    assert_eq!(end(&extended), made + Duration::hours(20) + Duration::minutes(1));
    let too_many = json!({ "tokens": 901 });
    assert_eq!(step(&app, &hold, "extend", too_many).await.0, 400);

    assert_eq!(state(&app).await, (1_000, 100, 900), "a refused extension changes nothing");
    app.clock.advance(Duration::minutes(1));
    assert_eq!(state(&app).await, (1_000, 0, 1_000));
}

#[tokio::test]
async fn a_hold_that_ended_is_settled_under_the_terms_of_its_time() {
    let app = TestApp::start().await;
    app.bought("42", 1).await;
    let hold = open(&app, 100, 60, "settle_reported").await;
    step(&app, &hold, "extend", json!({ "reported_total": 150 })).await;
    app.clock.advance(Duration::minutes(2));

    set_overdraft(&app, 0, false).await;

    assert_eq!(
        app.scalar("select settled from holds").await,
        150,
        "it ended while one might spend"
    );
    assert_eq!(state(&app).await.0, 850);
}

#[tokio::test]
async fn a_balance_shows_lots_holds_debt_and_when_it_runs_out() {
    let app = TestApp::start().await;
    app.bought("42", 1).await;
    app.bought("42", 3).await;
    let period_ends = app.clock.now() + Duration::days(30);
    assert_eq!(balance(&app).await["runs_out_at"], Value::Null, "nothing was spent");
    assert_eq!(consume(&app, 100).await, 200);
    let hold = open(&app, 200, 60, "release").await;
    settle(&app, &hold, 50, false).await;

    let seen = balance(&app).await;

    assert_eq!(seen["tokens_remaining"], 1_350);
    assert_eq!((&seen["tokens_held"], &seen["tokens_frozen"]), (&json!(150), &json!(0)));
    assert_eq!((&seen["tokens_available"], &seen["debt"]), (&json!(1_200), &json!(0)));
    let grants = seen["grants"].as_array().unwrap();
    let lot = |index: usize, member: &str| grants[index][member].clone();
    assert_eq!(grants.len(), 2);
    assert_eq!((lot(0, "remaining"), lot(0, "held")), (json!(850), json!(150)));
    assert_eq!(lot(0, "expires_at"), json!(period_ends));
    assert_eq!((lot(1, "remaining"), lot(1, "held")), (json!(500), json!(0)));
    assert_eq!(lot(1, "expires_at"), Value::Null, "the pack is drawn last and lasts");
    let shown = &seen["holds"][0];
    assert_eq!(shown["hold_id"], hold["hold_id"]);
    assert_eq!((&shown["tokens_held"], &shown["tokens_settled"]), (&json!(150), &json!(50)));
    let ends: DateTime<Utc> = text(&seen, "runs_out_at").parse().unwrap();
    assert_eq!(ends - app.clock.now(), Duration::days(7 * 1_200 / 150), "at 150 a week");
}

#[tokio::test]
async fn each_item_of_a_batch_has_a_verdict_of_its_own() {
    let app = TestApp::start().await;
    app.bought("42", 1).await;
    let mut items: Vec<Value> = (0..500).map(|_| json!({ "tokens": 1 })).collect();
    items[7] = json!({ "tokens": "many" });
    items[8] = json!({ "tokens": 0 });
    items[9] = json!({ "tokens": 5_000 });
    items[10] = json!({ "tokens": 3, "idempotency_key": "own" });
    items[11] = json!({ "tokens": 3, "idempotency_key": "own" });
    items[12] = json!({ "tokens": 4, "idempotency_key": "own" });
    let body = json!({ "items": items, "idempotency_key": "batch" });

    let (status, answer) = post(&app, "42", "consume/batch/", body.clone()).await;

    assert_eq!(status, 200);
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.len(), 500);
    let verdict = |index: usize| (&results[index]["status"], &results[index]["problem"]["code"]);
    for malformed in [7, 8] {
        assert_eq!(verdict(malformed), (&json!(400), &json!("invalid_request")));
    }
    assert_eq!(verdict(9), (&json!(400), &json!("insufficient_tokens")));
    assert_eq!(results[10]["usage_id"], results[11]["usage_id"]);
    assert_eq!((&results[10]["replayed"], &results[11]["replayed"]), (&json!(false), &json!(true)));
    assert_eq!(results[12]["status"], 422);
    let spent = results.iter().filter(|result| result["status"] == 200).count();
    assert_eq!(spent, 496);
    assert_eq!(state(&app).await.0, 1_000 - 494 - 3);

    let (_, again) = post(&app, "42", "consume/batch/", body).await;
    let again = again["results"].as_array().unwrap();
    for (first, again) in results.iter().zip(again) {
        assert_eq!(first["status"], again["status"]);
        assert_eq!(first["usage_id"], again["usage_id"]);
        assert!(again["status"] != 200 || again["replayed"] == true, "{again}");
    }
    assert_eq!(state(&app).await.0, 1_000 - 494 - 3, "a repeat spends nothing");
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_batch_has_one_to_five_hundred_items() {
    let app = TestApp::start().await;
    app.bought("42", 1).await;

    for count in [0, 501] {
        let items = vec![json!({ "tokens": 1 }); count];
        let answer = post(&app, "42", "consume/batch/", json!({ "items": items })).await;
        assert_eq!((answer.0, &answer.1["code"]), (400, &json!("invalid_request")), "{count}");
    }
    assert_eq!(state(&app).await.0, 1_000);
}

#[tokio::test]
async fn what_is_spent_through_a_hold_says_what_the_hold_was_for() {
    let app = TestApp::start().await;
    app.bought("42", 1).await;
    let wish = json!({ "tokens": 100, "description": "chat", "metadata": { "model": "large" } });
    let (_, hold) = post(&app, "42", "holds/", wish).await;

    settle(&app, &hold, 30, true).await;

    let usage = app.get("42", "tokens/usage/").await;
    assert_eq!(usage[0]["used_tokens"], 30);
    assert_eq!(usage[0]["description"], "chat");
    assert_eq!(usage[0]["metadata"], json!({ "model": "large" }));
}
