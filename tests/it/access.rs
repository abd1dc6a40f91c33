//! Who may call.

use harness::{JWT_SECRET, TestApp, signed, text, token};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

#[tokio::test]
async fn a_token_that_proves_nothing_is_a_401_problem() {
    let app = TestApp::start().await;
    let soon = shared::clock::wall_now().timestamp() + 600;
    let hs512 = {
        let key = EncodingKey::from_secret(JWT_SECRET.as_bytes());
        let claims = json!({ "user_id": 1, "exp": soon });
        encode(&Header::new(Algorithm::HS512), &claims, &key).unwrap()
    };
    let good = token("42");
    let body = good.rsplit_once('.').unwrap().0;
    let hostile = [
        String::new(),
        "x".to_owned(),
        "a.b.c".to_owned(),
        format!("{body}."),
        format!("{body}.AAAA"),
        "eyJhbGciOiJub25lIn0.eyJ1c2VyX2lkIjoxLCJleHAiOjQxMDI0NDQ4MDB9.".to_owned(),
        hs512,
        signed(&json!({ "user_id": 1 })),
        signed(&json!({ "user_id": 1, "exp": soon - 700 })),
        signed(&json!({ "user_id": 1, "exp": soon.to_string() })),
        signed(&json!({ "user_id": 1, "exp": 4_102_444_800.5 })),
        signed(&json!({ "user_id": 1, "exp": 1e300 })),
        signed(&json!({ "user_id": 1, "exp": null })),
        signed(&json!({ "user_id": 1, "exp": soon, "nbf": soon })),
        signed(&json!({ "user_id": 1, "exp": soon, "token_type": "refresh" })),
        signed(&json!({ "user_id": 1, "exp": soon, "token_type": null })),
        signed(&json!({ "user_id": "", "exp": soon })),
        signed(&json!({ "user_id": null, "exp": soon })),
        signed(&json!({ "user_id": [1], "exp": soon })),
        signed(&json!({ "user_id": 1.5, "exp": soon })),
        signed(&json!({ "user_id": true, "exp": soon })),
        signed(&json!({ "user_id": "a\u{0}b", "exp": soon })),
        signed(&json!({ "user_id": "x".repeat(300), "exp": soon })),
        signed(&json!({ "exp": soon })),
        signed(&json!([])),
        "x".repeat(20_000),
    ];
    for token in hostile {
        let answer = app.http.get(app.url("payments/")).bearer_auth(&token).send().await.unwrap();
        assert_eq!(answer.status(), 401, "{token}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["code"], "unauthenticated");
        assert_eq!(problem["detail"], "A valid token is needed.");
    }
    let none = app.http.get(app.url("payments/")).send().await.unwrap();
    assert_eq!(none.status(), 401);
    assert_eq!(app.http.get(app.url("plans/")).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn another_customers_payment_is_not_found() {
    let app = TestApp::start().await;
    let purchase = app.purchase("42", 1, "stripe").await;
    let path = format!("payments/{}/", text(&purchase, "payment_id"));

    let theirs = app.http.get(app.url(&path)).bearer_auth(token("43")).send().await.unwrap();
    let capture = app.post("43", &format!("{path}capture/"), &json!({})).await;

    assert_eq!(theirs.status(), 404);
    assert_eq!(capture.status(), 404);
    assert_eq!(app.get("43", "payments/").await, json!([]));
    assert_eq!(app.get("42", &path).await["status"], "pending");
}

#[tokio::test]
async fn every_path_is_served_with_and_without_its_slash_and_errors_are_problems() {
    let app = TestApp::start().await;
    for path in ["plans", "plans/", "plans/token", "plans/token/", "plans/full/"] {
        assert_eq!(app.http.get(app.url(path)).send().await.unwrap().status(), 200, "{path}");
    }
    let missing =
        app.http.get(app.url("nothing/")).header("x-request-id", "abc").send().await.unwrap();
    assert_eq!(missing.status(), 404);
    let problem: Value = missing.json().await.unwrap();
    assert_eq!(problem["code"], "not_found");
    assert_eq!(problem["instance"], "abc");
    let wrong = app.http.delete(app.url("plans/")).send().await.unwrap();
    assert_eq!(wrong.status(), 405);
    for path in ["livez", "readyz"] {
        let answer = app.http.get(format!("{}/{path}", app.base)).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
}

/// Status of an operator's read with this key.
async fn operate_with(app: &TestApp, key: &str) -> u16 {
    let events = app.http.get(app.url("admin/webhook-events/")).bearer_auth(key);
    events.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_key_of_another_secret_is_a_401() {
    let app = TestApp::start().await;
    let key = app.operator().await;
    // Its public part is right, and so is its checksum.
    let (body, _) = key.split_at(key.len() - 8);
    let (kept, last) = body.split_at(body.len() - 1);
    let body = format!("{kept}{}", if last == "a" { "b" } else { "a" });
    let forged = format!("{body}{:08x}", crc32fast::hash(body.as_bytes()));

    assert_eq!(forged.len(), key.len());
    assert_eq!(operate_with(&app, &forged).await, 401);
    assert_eq!(operate_with(&app, &key).await, 200);
}

#[tokio::test]
async fn a_key_without_the_scope_is_a_403() {
    let app = TestApp::start().await;
    let key = shared::access::create_key(&app.app, "no scope", &[], None).await.unwrap();

    assert_eq!(operate_with(&app, key.expose_secret()).await, 403);
}
