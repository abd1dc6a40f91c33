//! What gateways tell us: twice, at once, late, wrong.

use harness::{TestApp, text};
use serde_json::{Value, json};

use crate::purchase::futures;

/// A paid purchase and its `payment_intent.succeeded`, not yet delivered.
async fn paid(app: &TestApp) -> (Value, Vec<u8>) {
    let purchase = app.purchase("42", 1, "stripe").await;
    app.simulator.pay_stripe(text(&purchase, "transaction_id"), "pm_card_visa").unwrap();
    let event = app.stripe_event(&purchase, "payment_intent.succeeded");
    (purchase, event)
}

/// A purchase that nobody paid, and the `payment_intent.succeeded` of somebody else's.
async fn unpaid_but_told(app: &TestApp) -> (Value, Vec<u8>) {
    let other = app.purchase("7", 1, "stripe").await;
    app.simulator.pay_stripe(text(&other, "transaction_id"), "pm_card_visa").unwrap();
    let event = app.stripe_event(&other, "payment_intent.succeeded");
    let forget = "with a as (delete from gateway_objects), b as (delete from payment_objects)
                  delete from payments";
    sqlx::query(forget).execute(&app.app.db).await.unwrap();
    (app.purchase("42", 1, "stripe").await, event)
}

/// The event with a member of its intent replaced, under another event id.
fn altered(event: &[u8], member: &str, value: &Value) -> Vec<u8> {
    let mut event: Value = serde_json::from_slice(event).unwrap();
    event["id"] = json!("evt_altered");
    event["data"]["object"][member] = value.clone();
    event.to_string().into_bytes()
}

async fn status_of(app: &TestApp) -> String {
    let status = "select string_agg(distinct status::text, ',') from webhook_events";
    sqlx::query_scalar(status).fetch_one(&app.app.db).await.unwrap()
}

#[tokio::test]
async fn an_event_sent_twenty_times_at_once_grants_once() {
    let app = TestApp::start().await;
    let (_, event) = paid(&app).await;

    let answers = futures((0..20).map(|_| app.deliver_stripe(&event))).await;
    app.run_jobs().await;

    assert!(answers.iter().all(|answer| answer.status() == 200));
    assert_eq!(app.scalar("select count(*) from webhook_events").await, 1);
    assert_eq!(app.scalar("select count(*) from grants").await, 1);
    assert_eq!(app.get("42", "subscription/").await["tokens_remaining"], 1_000);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn two_workers_on_one_event_grant_once() {
    let app = TestApp::start().await;
    let (_, event) = paid(&app).await;
    app.deliver_stripe(&event).await;
    let soon = app.clock.now() + chrono::Duration::minutes(1);
    let jobs = shared::webhooks::due(&app.app, soon).await.unwrap();
    assert_eq!(jobs.len(), 1);

    let done = futures((0..8).map(|_| worker::run(&app.app, jobs[0].clone()))).await;

    assert!(done.iter().all(Result::is_ok), "{done:?}");
    assert_eq!(app.scalar("select count(*) from grants").await, 1);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn two_events_of_one_capture_grant_once() {
    let app = TestApp::start().await;
    let (_, event) = paid(&app).await;
    app.deliver_stripe(&event).await;
    app.deliver_stripe(&altered(&event, "description", &json!("again"))).await;

    app.run_jobs().await;

    assert_eq!(app.scalar("select count(*) from webhook_events").await, 2);
    assert_eq!(status_of(&app).await, "processed");
    assert_eq!(app.scalar("select count(*) from grants").await, 1);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_late_decline_never_undoes_a_capture() {
    let app = TestApp::start().await;
    let purchase = app.purchase("42", 1, "stripe").await;
    let intent = text(&purchase, "transaction_id");
    app.simulator.pay_stripe(intent, "pm_card_chargeDeclined").unwrap_err();
    let declined = app.stripe_event(&purchase, "payment_intent.payment_failed");
    app.simulator.pay_stripe(intent, "pm_card_visa").unwrap();
    let succeeded = app.stripe_event(&purchase, "payment_intent.succeeded");

    app.deliver_stripe(&succeeded).await;
    app.run_jobs().await;
    app.deliver_stripe(&declined).await;
    app.run_jobs().await;

    assert_eq!(app.get("42", "payments/").await[0]["status"], "completed");
    assert_eq!(app.get("42", "subscription/").await["tokens_remaining"], 1_000);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_decline_is_not_the_end() {
    let app = TestApp::start().await;
    let purchase = app.purchase("42", 1, "stripe").await;
    let intent = text(&purchase, "transaction_id");
    app.simulator.pay_stripe(intent, "pm_card_chargeDeclined").unwrap_err();
    app.deliver_stripe(&app.stripe_event(&purchase, "payment_intent.payment_failed")).await;
    app.run_jobs().await;
    assert_eq!(app.get("42", "payments/").await[0]["status"], "failed");
    assert_eq!(app.scalar("select count(*) from grants").await, 0);

    app.simulator.pay_stripe(intent, "pm_card_visa").unwrap();
    app.deliver_stripe(&app.stripe_event(&purchase, "payment_intent.succeeded")).await;
    app.run_jobs().await;

    assert_eq!(app.get("42", "payments/").await[0]["status"], "completed");
    assert_eq!(app.scalar("select count(*) from grants").await, 1);
}

#[tokio::test]
async fn a_contradiction_is_quarantined_and_changes_nothing() {
    let wrong = [
        ("amount", json!(100)),
        ("amount_received", json!(100)),
        ("currency", json!("eur")),
        ("metadata", json!({ "payment_id": "0191f000-0000-7000-8000-000000000000" })),
        ("amount_received", json!("1500")),
        ("amount", json!(-1_500)),
        ("amount", json!(18_446_744_073_709_551_615_u64)),
    ];
    let app = TestApp::start().await;
    let (_, event) = paid(&app).await;
    for (index, (member, value)) in wrong.iter().enumerate() {
        let mut event: Value = serde_json::from_slice(&altered(&event, member, value)).unwrap();
        event["id"] = json!(format!("evt_wrong_{index}"));
        let answer = app.deliver_stripe(event.to_string().as_bytes()).await;
        assert_eq!(answer.status(), 200, "{member}");
    }

    app.run_jobs().await;

    assert_eq!(status_of(&app).await, "quarantined");
    assert_eq!(app.get("42", "payments/").await[0]["status"], "pending");
    assert_eq!(app.scalar("select count(*) from grants").await, 0);
}

#[tokio::test]
async fn an_intent_that_only_names_our_payment_proves_nothing() {
    let app = TestApp::start().await;
    let (purchase, event) = unpaid_but_told(&app).await;
    let mut event: Value =
        serde_json::from_slice(&altered(&event, "id", &json!("pi_of_somebody"))).unwrap();
    event["data"]["object"]["metadata"]["payment_id"] = purchase["payment_id"].clone();
    app.deliver_stripe(event.to_string().as_bytes()).await;
    app.run_jobs().await;
    assert_eq!(status_of(&app).await, "waiting");

    app.clock.advance(chrono::Duration::minutes(16));
    app.run_jobs().await;

    assert_eq!(status_of(&app).await, "quarantined");
    assert_eq!(app.scalar("select count(*) from grants").await, 0);
}

#[tokio::test]
async fn an_intent_whose_creation_we_never_saw_answered_is_learned() {
    let app = TestApp::start().await;
    let (_, event) = paid(&app).await;
    // As after a crash between the gateway's answer and our commit.
    let forget = "with a as (delete from gateway_objects), b as (delete from payment_objects)
                  update payments set gateway_reference = null";
    sqlx::query(forget).execute(&app.app.db).await.unwrap();

    app.deliver_stripe(&event).await;
    app.run_jobs().await;
    app.clock.advance(chrono::Duration::seconds(10));
    app.run_jobs().await;

    assert_eq!(status_of(&app).await, "processed");
    assert_eq!(app.scalar("select count(*) from grants").await, 1);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn what_is_not_proven_is_refused_and_not_stored() {
    let app = TestApp::start().await;
    let (_, event) = paid(&app).await;
    let url = app.url("webhooks/stripe/");
    let good = app.simulator.signed_stripe(&event);
    let signature =
        &good.iter().find(|(name, _)| name.eq_ignore_ascii_case("stripe-signature")).unwrap().1;
    let mut changed = event.clone();
    changed[100] ^= 1;

    let unsigned = app.http.post(&url).body(event.clone()).send().await.unwrap();
    let forged = app.http.post(&url).body(changed).header("stripe-signature", signature);
    let forged = forged.send().await.unwrap();
    let gzip = app.http.post(&url).body(event.clone()).header("content-encoding", "gzip");
    let gzip = gzip.header("stripe-signature", signature).send().await.unwrap();
    let elsewhere = app.http.post(app.url("webhooks/paypal/")).body(event.clone());
    let elsewhere = elsewhere.header("stripe-signature", signature).send().await.unwrap();
    let large = app.http.post(&url).body(vec![b' '; 1_100_000]).send().await.unwrap();
    let unreadable = app.deliver_stripe(b"null").await;
    let deep = app.deliver_stripe("[".repeat(3_000).as_bytes()).await;
    let get = app.http.get(&url).send().await.unwrap();

    assert_eq!(unsigned.status(), 400);
    assert_eq!(forged.status(), 400);
    assert_eq!(gzip.status(), 415);
    assert_eq!(elsewhere.status(), 400);
    assert_eq!(large.status(), 413);
    assert_eq!(unreadable.status(), 400);
    assert_eq!(deep.status(), 400);
    assert_eq!(get.status(), 405);
    assert_eq!(app.scalar("select count(*) from webhook_events").await, 0);
}

#[tokio::test]
async fn what_is_of_no_use_is_stored_as_ignored() {
    let app = TestApp::start().await;
    let (_, event) = paid(&app).await;
    let mut event: Value = serde_json::from_slice(&event).unwrap();
    for (index, (member, value)) in [
        ("livemode", json!(true)),
        ("account", json!("acct_other")),
        ("type", json!("plan.created")),
    ]
    .iter()
    .enumerate()
    {
        let mut other = event.clone();
        other["id"] = json!(format!("evt_other_{index}"));
        other[*member] = value.clone();
        assert_eq!(app.deliver_stripe(other.to_string().as_bytes()).await.status(), 200);
    }
    app.run_jobs().await;
    assert_eq!(status_of(&app).await, "ignored");
    assert_eq!(app.scalar("select count(*) from grants").await, 0);

    event["id"] = json!("evt_thin");
    event["object"] = json!("v2.core.event");
    assert_eq!(app.deliver_stripe(event.to_string().as_bytes()).await.status(), 200);
    app.run_jobs().await;
    assert_eq!(status_of(&app).await, "ignored");
}

/// The event under another id.
fn named(event: &[u8], id: &str) -> Vec<u8> {
    let mut event: Value = serde_json::from_slice(event).unwrap();
    event["id"] = json!(id);
    event.to_string().into_bytes()
}

#[tokio::test]
async fn events_at_once_are_stored_together_and_each_once() {
    let app = TestApp::start().await;
    let (_, event) = paid(&app).await;
    let distinct: Vec<Vec<u8>> =
        (0..200).map(|index| named(&event, &format!("evt_{index}"))).collect();

    let twice = distinct.iter().chain(&distinct);
    let answers = futures(twice.map(|event| app.deliver_stripe(event))).await;
    let again = app.deliver_stripe(&distinct[0]).await;

    assert!(answers.iter().all(|answer| answer.status() == 200));
    assert_eq!(again.status(), 200);
    assert_eq!(app.scalar("select count(*) from webhook_events").await, 200);
    let bodies = "select count(distinct payload) from webhook_events";
    assert_eq!(app.scalar(bodies).await, 200);
    let transactions = "select count(distinct xmin::text) from webhook_events";
    assert!(app.scalar(transactions).await < 200, "every event had a transaction of its own");
    app.run_jobs().await;
    assert_eq!(app.scalar("select count(*) from grants").await, 1);
}

#[tokio::test]
async fn an_event_that_cannot_be_stored_fails_alone() {
    let app = TestApp::start().await;
    let (_, event) = paid(&app).await;
    let refuse = "create function refuse() returns trigger language plpgsql as
                  $$ begin raise exception 'refused'; end $$";
    sqlx::query(refuse).execute(&app.app.db).await.unwrap();
    let trigger = "create trigger refuse before insert on webhook_events for each row
                   when (new.gateway_event_id = 'evt_bad') execute function refuse()";
    sqlx::query(trigger).execute(&app.app.db).await.unwrap();
    let mut events: Vec<Vec<u8>> =
        (0..50).map(|index| named(&event, &format!("evt_{index}"))).collect();
    events.insert(25, named(&event, "evt_bad"));

    let answers = futures(events.iter().map(|event| app.deliver_stripe(event))).await;

    let failed: Vec<usize> = (0..51).filter(|index| answers[*index].status() != 200).collect();
    assert_eq!(failed, [25]);
    assert_eq!(answers[25].status(), 503);
    assert_eq!(answers[25].headers()["retry-after"], "1");
    assert_eq!(app.scalar("select count(*) from webhook_events").await, 50);
}

#[tokio::test]
async fn events_are_stored_while_spending_has_every_connection() {
    let app = TestApp::start().await;
    let (_, event) = paid(&app).await;
    let mut taken = Vec::new();
    for _ in 0..app.app.db.options().get_max_connections() {
        taken.push(app.app.db.acquire().await.unwrap());
    }

    let first = app.deliver_stripe(&event).await;
    let repeat = app.deliver_stripe(&event).await;

    assert_eq!(first.status(), 200);
    assert_eq!(repeat.status(), 200);
    drop(taken);
    assert_eq!(app.scalar("select count(*) from webhook_events").await, 1);
}
