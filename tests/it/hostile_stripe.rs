//! Hostile webhooks at Stripe's endpoint (docs/hostile-cases.md, 1 to 9).

use std::fmt::Write;

use chrono::TimeDelta;
use harness::{Options, STRIPE_WEBHOOK_SECRET, TestApp};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;

/// A small event of no use to us.
fn event(id: &str) -> Vec<u8> {
    json!({ "id": id, "object": "event", "type": "plan.created", "livemode": false })
        .to_string()
        .into_bytes()
}

fn now() -> i64 {
    shared::clock::wall_now().timestamp()
}

/// Lower-case hex of the HMAC that Stripe makes.
fn mac(secret: &str, time: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(time.as_bytes());
    mac.update(b".");
    mac.update(body);
    mac.finalize().into_bytes().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The header of a body signed now.
fn signed(secret: &str, body: &[u8]) -> String {
    let time = now().to_string();
    format!("t={time},v1={}", mac(secret, &time, body))
}

/// POSTs a body with these values of `Stripe-Signature`; the answer's status.
async fn post(app: &TestApp, signatures: &[&str], body: &[u8]) -> u16 {
    let headers = signatures.iter().map(|value| ("stripe-signature".into(), (*value).into()));
    app.deliver("webhooks/stripe/", headers.collect(), body).await.status().as_u16()
}

async fn stored(app: &TestApp) -> i64 {
    app.scalar("select count(*) from webhook_events").await
}

#[tokio::test]
async fn case_1_and_8_a_forged_or_changed_stripe_body_is_refused() {
    let app = TestApp::start().await;
    let body = event("evt_1");
    let good = signed(STRIPE_WEBHOOK_SECRET, &body);
    let prefixed = [b"\xef\xbb\xbf".to_vec(), body.clone()].concat();
    let changed = [
        [body.clone(), b"\n".to_vec()].concat(),
        [b"\r\n".to_vec(), body.clone()].concat(),
        prefixed,
        String::from_utf8(body.clone()).unwrap().replace(':', ": ").into_bytes(),
        body.iter().map(|byte| if *byte == b'1' { b'2' } else { *byte }).collect(),
        Vec::new(),
    ];

    for secret in ["whsec_of_somebody_else", "", &STRIPE_WEBHOOK_SECRET["whsec_".len()..]] {
        assert_eq!(post(&app, &[&signed(secret, &body)], &body).await, 400, "{secret:?}");
    }
    for body in &changed {
        assert_eq!(post(&app, &[&good], body).await, 400);
    }

    assert_eq!(stored(&app).await, 0);
    let counted: u64 = app.api.refused_webhooks().values().sum();
    assert_eq!(counted, 9, "{:?}", app.api.refused_webhooks());
    assert_eq!(post(&app, &[&good], &body).await, 200);
}

#[tokio::test]
async fn case_2_no_empty_or_two_stripe_signatures_are_refused_in_the_same_words() {
    let app = TestApp::start().await;
    let body = event("evt_1");
    let good = signed(STRIPE_WEBHOOK_SECRET, &body);

    let mut answers = Vec::new();
    for signatures in [vec![], vec![""], vec![good.as_str(), good.as_str()], vec!["t=1,v1=00"]] {
        let headers = signatures.iter().map(|value| ("stripe-signature".into(), (*value).into()));
        let answer = app.deliver("webhooks/stripe/", headers.collect(), &body).await;
        assert_eq!(answer.status(), 400, "{signatures:?}");
        let mut problem: serde_json::Value = answer.json().await.unwrap();
        problem["instance"] = json!(null);
        answers.push(problem);
    }

    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(stored(&app).await, 0);
}

#[tokio::test]
async fn case_3_and_4_a_stripe_signature_of_another_time_is_refused() {
    let app = TestApp::start().await;
    for (seconds, status) in [(-400, 400), (400, 400), (-200, 200), (400_000_000, 400)] {
        let body = event(&format!("evt_{}", seconds + 1_000));
        app.simulator.advance_clock(TimeDelta::seconds(seconds));
        let answer = app.deliver_stripe(&body).await;
        app.simulator.advance_clock(TimeDelta::seconds(-seconds));
        assert_eq!(answer.status(), status, "{seconds} s");
    }
    assert_eq!(stored(&app).await, 1);
}

#[tokio::test]
async fn case_5_only_v1_counts() {
    let app = TestApp::start().await;
    let body = event("evt_1");
    let time = now().to_string();
    let good = mac(STRIPE_WEBHOOK_SECRET, &time, &body);
    let bad = "0".repeat(64);

    assert_eq!(post(&app, &[&format!("t={time},v0={good}")], &body).await, 400);
    assert_eq!(post(&app, &[&format!("t={time},v0={good},v1={bad}")], &body).await, 400);
    assert_eq!(post(&app, &[&format!("t={time},V1={good}")], &body).await, 400);
    assert_eq!(stored(&app).await, 0);
    assert_eq!(post(&app, &[&format!("t={time},v0={bad},v1={good}")], &body).await, 200);
}

#[tokio::test]
async fn case_6_a_rolled_secret_is_good_until_it_is_removed() {
    let secrets = |value: &str| Options {
        settings: vec![("STRIPE_WEBHOOK_SECRETS", value.to_owned())],
        ..Options::default()
    };
    let during = TestApp::start_with(secrets("whsec_canary_new, whsec_canary_old")).await;
    let after = TestApp::start_with(secrets("whsec_canary_new")).await;
    let of = |secret: &str, id: &str| {
        let body = event(id);
        (signed(secret, &body), body)
    };

    for (index, secret) in ["whsec_canary_old", "whsec_canary_new"].iter().enumerate() {
        let (signature, body) = of(secret, &format!("evt_{index}"));
        assert_eq!(post(&during, &[&signature], &body).await, 200, "{secret}");
    }
    let body = event("evt_both");
    let both = format!(
        "{},v1={}",
        signed("whsec_canary_old", &body),
        mac("whsec_canary_new", &now().to_string(), &body)
    );
    assert_eq!(post(&during, &[&both], &body).await, 200);
    let (signature, body) = of("whsec_canary_old", "evt_late");
    assert_eq!(post(&after, &[&signature], &body).await, 400);
    let (signature, body) = of("whsec_canary_new", "evt_late");
    assert_eq!(post(&after, &[&signature], &body).await, 200);
}

#[tokio::test]
async fn case_9_abuse_of_the_signature_header_is_refused() {
    let app = TestApp::start().await;
    let body = event("evt_1");
    let time = now().to_string();
    let good = mac(STRIPE_WEBHOOK_SECRET, &time, &body);
    let abuse = [
        format!("t=1,t={time},v1={good}"),
        format!("t={time},t={time},v1={good}"),
        format!("t=+{time},v1={good}"),
        format!("t=0{time},v1={good}"),
        format!("t= {time},v1={good}"),
        format!("t={time}.5,v1={good}"),
        format!("t={},v1={good}", "9".repeat(400)),
        format!("t=-{time},v1={good}"),
        format!("t={time};v1={good}"),
        format!("t={time},v1={good}=junk"),
        format!("t={time},v1={}", &good[..8]),
        format!("t={time},v1={}", good.to_uppercase()),
        format!("t={time},v1=\u{e9}"),
        format!("t={time},v1={good},{}", "x=y,".repeat(2_000)),
        "=".repeat(500),
        ",".repeat(500),
        "t".to_owned(),
        "t=,v1=".to_owned(),
    ];

    for header in &abuse {
        assert_eq!(
            post(&app, &[header], &body).await,
            400,
            "{}",
            header.chars().take(60).collect::<String>()
        );
    }
    assert_eq!(stored(&app).await, 0);
    assert_eq!(post(&app, &[&format!("t={time},v1={good}")], &body).await, 200);
}
