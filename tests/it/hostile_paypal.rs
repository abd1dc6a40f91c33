//! Hostile webhooks at PayPal's endpoint (docs/hostile-cases.md, 31 to 42), with a certificate
//! server that counts who asks it.

use chrono::TimeDelta;
use harness::certificates::{
    Answer, Authority, CertificateServer, authority, authority_below, leaf, valid,
};
use harness::{Options, TestApp, logs, text};
use rcgen::KeyPair;
use serde_json::json;

use crate::purchase::futures;

const SIGNER: &str = "messageverificationcerts.sandbox.paypal.com";

type Headers = Vec<(String, String)>;

/// An application whose certificates come from a server of the test's.
async fn start(settings: &[(&'static str, &str)]) -> (TestApp, CertificateServer) {
    let server = CertificateServer::start().await;
    let mut settings: Vec<_> =
        settings.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    settings.push(("PAYPAL_CERT_RESOLVE", server.address.to_string()));
    let more_roots = server.authority.pem();
    let app = TestApp::start_with(Options { settings, more_roots, ..Options::default() }).await;
    (app, server)
}

/// The chain that the simulator signs with.
async fn genuine_pem(app: &TestApp) -> String {
    let headers = app.simulator.signed_paypal(b"");
    let (_, path) = header(&headers, "paypal-cert-url").split_once(".com/").unwrap();
    let url = format!("{}/{path}", app.simulator.paypal_url());
    app.http.get(url).send().await.unwrap().text().await.unwrap()
}

fn header<'a>(headers: &'a Headers, name: &str) -> &'a str {
    &headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name)).unwrap().1
}

fn with(headers: &Headers, name: &str, value: &str) -> Headers {
    let mut changed = headers.clone();
    changed.retain(|(header, _)| !header.eq_ignore_ascii_case(name));
    changed.push((name.to_owned(), value.to_owned()));
    changed
}

fn event(id: &str) -> Vec<u8> {
    json!({ "id": id, "event_type": "BILLING.PLAN.CREATED", "resource": {} })
        .to_string()
        .into_bytes()
}

async fn post(app: &TestApp, headers: Headers, body: &[u8]) -> u16 {
    app.deliver("webhooks/paypal/", headers, body).await.status().as_u16()
}

async fn stored(app: &TestApp) -> i64 {
    app.scalar("select count(*) from webhook_events").await
}

#[tokio::test]
async fn case_31_a_webhook_without_one_of_the_five_headers_is_refused_without_a_fetch() {
    let (app, server) = start(&[]).await;
    let body = event("WH-1");
    let good = app.simulator.signed_paypal(&body);
    for name in [
        "paypal-transmission-id",
        "paypal-transmission-time",
        "paypal-transmission-sig",
        "paypal-cert-url",
        "paypal-auth-algo",
    ] {
        let empty = with(&good, name, "");
        let mut missing = empty.clone();
        missing.pop();
        let mut twice = good.clone();
        twice.push((name.to_owned(), header(&good, name).to_owned()));
        for headers in [missing, empty, twice] {
            assert_eq!(post(&app, headers, &body).await, 400, "{name}");
        }
    }
    for (name, value) in [
        ("paypal-auth-algo", "SHA1withRSA"),
        ("paypal-auth-algo", "none"),
        ("paypal-auth-algo", "sha256withrsa"),
        ("paypal-transmission-id", "a|b"),
        ("paypal-transmission-id", &"a".repeat(65)),
        ("paypal-transmission-time", "yesterday"),
        ("paypal-transmission-sig", "%%%"),
        ("paypal-transmission-sig", &"A".repeat(1_028)),
    ] {
        assert_eq!(post(&app, with(&good, name, value), &body).await, 400, "{name}: {value}");
    }
    assert_eq!(server.connections(), 0);
    assert_eq!(stored(&app).await, 0);
}

#[tokio::test]
async fn case_32_a_certificate_address_that_is_not_paypals_is_refused_without_a_fetch() {
    let (app, server) = start(&[]).await;
    let body = event("WH-1");
    let good = app.simulator.signed_paypal(&body);
    let path = "v1/notifications/certs/CERT-1";
    let port = server.address.port();
    for url in [
        format!("http://api.sandbox.paypal.com/{path}"),
        format!("https://evil.example/{path}"),
        format!("https://api.sandbox.paypal.com.evil.example/{path}"),
        format!("https://evil-api.sandbox.paypal.com/{path}"),
        format!("https://www.sandbox.paypal.com/{path}"),
        format!("https://api.paypal.com/{path}"),
        format!("https://api.sandbox.paypal.com@evil.example/{path}"),
        format!("https://evil.example@api.sandbox.paypal.com/{path}"),
        format!("https://api.sandbox.paypal.com:443/{path}"),
        format!("https://api.sandbox.paypal.com:{port}/{path}"),
        format!("https://api.sandbox.paypal.com./{path}"),
        format!("https://api.sandbox.paypal.com/{path}?x=y"),
        format!("https://api.sandbox.paypal.com/{path}#x"),
        format!("https://api.sandbox.paypal.com/{path}/../../../../x"),
        "https://api.sandbox.paypal.com/v1/notifications/certs/../x".to_owned(),
        "https://api.sandbox.paypal.com/v1/notifications/certs/%2e%2e".to_owned(),
        "https://api.sandbox.paypal.com/v1/notifications/certs/".to_owned(),
        format!("https://api.sandbox.paypal.com/v1/notifications/certs/{}", "a".repeat(129)),
        "https://api.sandbox.paypal.com/v1/payments/CERT-1".to_owned(),
        format!("https:\\\\api.sandbox.paypal.com\\{path}"),
        format!("https://api.sandbox.paypal.com\\@evil.example/{path}"),
        format!("https://\u{430}pi.sandbox.paypal.com/{path}"),
        format!("https://xn--pi-7kc.sandbox.paypal.com/{path}"),
        format!("https://127.0.0.1:{port}/{path}"),
        format!("https://[::1]/{path}"),
        format!("https://169.254.169.254/{path}"),
        format!("HTTPS://API.SANDBOX.PAYPAL.COM/{path}"),
        format!(" https://api.sandbox.paypal.com/{path} x"),
        format!("https://api.sandbox.paypal.com/\t{path}"),
        "file:///etc/passwd".to_owned(),
        "data:text/plain,x".to_owned(),
        format!("//api.sandbox.paypal.com/{path}"),
        path.to_owned(),
    ] {
        let headers = with(&good, "paypal-cert-url", &url);
        assert_eq!(post(&app, headers, &body).await, 400, "{url}");
    }
    assert_eq!(server.connections(), 0);
    assert_eq!(stored(&app).await, 0);
}

/// Headers of a genuine webhook whose certificate is found under another id: a fresh address.
fn at_fresh_address(good: &Headers, index: usize) -> Headers {
    let url = format!("https://api.sandbox.paypal.com/v1/notifications/certs/CERT-{index}");
    with(good, "paypal-cert-url", &url)
}

#[tokio::test]
async fn case_33_a_certificate_that_cannot_be_had_is_a_503_and_never_a_200() {
    let (app, server) = start(&[]).await;
    let body = event("WH-1");
    let good = app.simulator.signed_paypal(&body);
    let pem = genuine_pem(&app).await;
    let elsewhere = "302 Found\r\nlocation: https://evil.example/\r\n";
    let answers = [
        Answer::Head("404 Not Found\r\n"),
        Answer::Head("500 Internal Server Error\r\n"),
        Answer::Head(elsewhere),
        Answer::Flood,
        Answer::Text(format!("{pem}{}", " ".repeat(70_000))),
        Answer::Silence,
    ];
    for (index, answer) in answers.into_iter().enumerate() {
        let name = format!("{answer:?}");
        server.answer(answer);
        let status = post(&app, at_fresh_address(&good, index), &body).await;
        assert_eq!(status, 503, "{}", &name[..name.len().min(40)]);
    }
    assert_eq!(stored(&app).await, 0);

    server.answer(Answer::Text(pem));
    assert_eq!(post(&app, at_fresh_address(&good, 0), &body).await, 503, "left alone for 30 s");
    assert_eq!(post(&app, good, &body).await, 200);
    assert_eq!(stored(&app).await, 1);
}

#[tokio::test]
async fn case_34_and_35_a_chain_that_is_not_paypals_proves_nothing() {
    let (app, server) = start(&[("RATE_LIMITS", "off")]).await;
    let genuine = genuine_pem(&app).await;
    let trusted = &server.authority;
    let key = KeyPair::generate().unwrap();
    let issued = |name: &str, by: &Authority| leaf(name, 30).signed_by(&key, by).unwrap().pem();
    let stranger = authority("Tests' Root CA");
    let middle = authority_below("Tests' Intermediate CA", trusted);
    let own = rcgen::CertificateParams::new(vec![SIGNER.to_owned()]).unwrap();
    let own = own.self_signed(&key).unwrap().pem();
    let expired = valid(leaf(SIGNER, 30), -40, -10).signed_by(&key, trusted).unwrap().pem();
    let early = valid(leaf(SIGNER, 30), 10, 40).signed_by(&key, trusted).unwrap().pem();
    let suffixed = format!("{SIGNER}.evil.example");
    let chains = [
        ("self-signed of the right name", own.clone()),
        ("a stranger's authority of a known name", issued(SIGNER, &stranger)),
        ("with its own root", format!("{}{}", issued(SIGNER, &stranger), stranger.pem())),
        ("another name", issued("api.sandbox.paypal.com", trusted)),
        ("a longer name", issued(&suffixed, trusted)),
        ("expired", expired),
        ("not yet valid", early),
        ("without its intermediate", issued(SIGNER, &middle)),
        ("an elliptic key", issued(SIGNER, trusted)),
        ("an elliptic key behind an intermediate", issued(SIGNER, &middle) + &middle.pem()),
        ("an attacker's before the genuine", format!("{own}{genuine}")),
        (
            "the genuine intermediate alone",
            genuine.split_inclusive("-----END CERTIFICATE-----").nth(1).unwrap().to_owned(),
        ),
        ("nothing", String::new()),
        ("a page", "<html><body>Sign in</body></html>".to_owned()),
        ("a key", key.serialize_pem()),
        ("garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned()),
    ];
    let body = event("WH-1");
    // Ten fetches a minute: a fresh application for the rest.
    for part in chains.chunks(8) {
        let (app, server) = start_with_roots(&server, &app).await;
        let good = app.simulator.signed_paypal(&body);
        for (index, (name, pem)) in part.iter().enumerate() {
            server.answer(Answer::Text(pem.clone()));
            let headers = at_fresh_address(&good, index);
            assert_eq!(post(&app, headers, &body).await, 400, "{name}");
        }
        assert_eq!(server.connections(), part.len(), "each chain was fetched");
        assert_eq!(stored(&app).await, 0);
    }
}

/// A second application that trusts the first one's roots as well.
async fn start_with_roots(
    first: &CertificateServer,
    app: &TestApp,
) -> (TestApp, CertificateServer) {
    let server = CertificateServer::start().await;
    let settings = vec![
        ("PAYPAL_CERT_RESOLVE", server.address.to_string()),
        ("RATE_LIMITS", "off".to_owned()),
    ];
    let first = first.authority.pem();
    let more_roots =
        format!("{}{first}{}", server.authority.pem(), app.simulator.paypal_root_pem());
    let app = TestApp::start_with(Options { settings, more_roots, ..Options::default() }).await;
    (app, server)
}

#[tokio::test]
async fn case_36_and_37_a_signature_that_is_not_over_this_webhook_is_refused() {
    let (app, server) = start(&[("PAYPAL_WEBHOOK_ID", "WEBHOOK-OF-ANOTHER")]).await;
    server.answer(Answer::Text(genuine_pem(&app).await));
    assert_eq!(app.deliver_paypal(&event("WH-1")).await.status(), 400, "another webhook's id");

    let (app, server) = start(&[]).await;
    server.answer(Answer::Text(genuine_pem(&app).await));
    let body = event("WH-1");
    let good = app.simulator.signed_paypal(&body);
    let other = app.simulator.signed_paypal(&event("WH-2"));
    let changed = [body.clone(), b"\n".to_vec()].concat();
    assert_eq!(post(&app, good.clone(), &changed).await, 400, "another body");
    for name in ["paypal-transmission-id", "paypal-transmission-time", "paypal-transmission-sig"] {
        let value = match name {
            "paypal-transmission-time" => "2026-11-24T12:00:00Z",
            _ => header(&other, name),
        };
        let status = post(&app, with(&good, name, value), &body).await;
        assert_eq!(status, 400, "{name}");
    }
    assert_eq!(stored(&app).await, 0);
    assert_eq!(post(&app, good, &body).await, 200);
}

#[tokio::test]
async fn case_38_a_body_of_the_same_crc_passes_the_signature_and_changes_nothing() {
    let app = TestApp::start().await;
    let purchase = app.purchase("43", 1, "paypal").await;
    app.simulator.approve_paypal(text(&purchase, "transaction_id")).unwrap();
    app.deliver_all_of_paypal().await;
    app.run_jobs().await;
    let events = app.simulator.events();
    let seen = events.iter().find(|event| event.kind == "PAYMENT.CAPTURE.COMPLETED").unwrap();
    let headers = app.simulator.signed_paypal(&seen.body);
    let victim = app.purchase("44", 2, "paypal").await;

    // Under a signature that was seen: a capture that pays for the other order.
    let order = text(&victim, "transaction_id");
    let forged = json!({
        "id": "WH-FORGED-38",
        "event_type": "CHECKOUT.ORDER.APPROVED",
        "resource": { "id": order, "status": "COMPLETED" },
    });
    let forged = colliding(&forged.to_string(), crc32fast::hash(&seen.body));
    assert_eq!(crc32fast::hash(&forged), crc32fast::hash(&seen.body));
    assert_eq!(post(&app, headers.clone(), &forged).await, 200, "its signature is right");
    app.run_jobs().await;

    assert_eq!(app.get("44", "payments/").await[0]["status"], "pending");
    assert_eq!(app.scalar("select count(*) from grants").await, 1);
    // One signature brings in one body: the genuine one is an alert, and known by its own id.
    assert_eq!(post(&app, headers, &seen.body).await, 200);
    let another = json!({ "id": "WH-FORGED-38-B", "event_type": "X", "resource": {} });
    let headers = app.simulator.signed_paypal(&event("WH-SEEN"));
    assert_eq!(post(&app, headers.clone(), &event("WH-SEEN")).await, 200);
    let forged = colliding(&another.to_string(), crc32fast::hash(&event("WH-SEEN")));
    assert_eq!(post(&app, headers, &forged).await, 200);
    let kept = "select count(*) from webhook_events where gateway_event_id = 'WH-FORGED-38-B'";
    assert_eq!(app.scalar(kept).await, 0);
    assert!(logs::alerts().iter().any(|line| line.contains("WH-FORGED-38-B")));
    app.assert_books_balance().await;
}

/// The object with a member added that gives it this CRC-32: of 64 letters each may be one of two,
/// and CRC is linear over the choice.
fn colliding(object: &str, wanted: u32) -> Vec<u8> {
    let head = format!("{},\"x\":\"", object.strip_suffix('}').unwrap());
    let body = |choice: u64| {
        let letters = (0..64).map(|bit| if choice >> bit & 1 == 1 { 'c' } else { 'a' });
        format!("{head}{}\"}}", letters.collect::<String>()).into_bytes()
    };
    let base = crc32fast::hash(&body(0));
    let mut rows: Vec<(u32, u64)> = Vec::new();
    let reduce = |rows: &[(u32, u64)], mut value: (u32, u64)| {
        for (crc, choice) in rows {
            if value.0 ^ crc < value.0 {
                value = (value.0 ^ crc, value.1 ^ choice);
            }
        }
        value
    };
    for bit in 0..64 {
        let row = reduce(&rows, (crc32fast::hash(&body(1 << bit)) ^ base, 1 << bit));
        if row.0 != 0 {
            rows.push(row);
            rows.sort_unstable_by_key(|(crc, _)| std::cmp::Reverse(*crc));
        }
    }
    let (rest, choice) = reduce(&rows, (base ^ wanted, 0));
    assert_eq!(rest, 0, "64 letters span all CRCs");
    body(choice)
}

#[tokio::test]
async fn case_39_a_retry_of_two_days_is_taken_and_a_replay_of_five_is_not() {
    let app = TestApp::start().await;
    for (days, minutes, status) in [(-2, 0, 200), (-5, 0, 400), (0, 4, 200), (0, 6, 400)] {
        let body = event(&format!("WH{days}-{minutes}"));
        let by = TimeDelta::days(days) + TimeDelta::minutes(minutes);
        app.simulator.advance_clock(by);
        let headers = app.simulator.signed_paypal(&body);
        app.simulator.advance_clock(-by);
        assert_eq!(post(&app, headers, &body).await, status, "{days} d {minutes} min");
    }
    assert_eq!(stored(&app).await, 2);
}

#[tokio::test]
async fn case_40_a_thousand_certificate_ids_cause_ten_fetches_and_hinder_nobody() {
    let (app, server) = start(&[("RATE_LIMITS", "off")]).await;
    server.answer(Answer::Text(genuine_pem(&app).await));
    let bodies: Vec<Vec<u8>> = (0..40).map(|index| event(&format!("WH-{index}"))).collect();
    let cold = futures(bodies.iter().take(20).map(|body| app.deliver_paypal(body))).await;
    assert!(cold.iter().all(|answer| answer.status() == 200));
    assert_eq!(server.connections(), 1, "twenty at once share one fetch");

    let good = app.simulator.signed_paypal(&bodies[0]);
    let forged = event("WH-FORGED");
    let mut genuine = bodies.iter().skip(20);
    for round in 0..20 {
        let addresses = (0..50).map(|index| at_fresh_address(&good, 50 * round + index));
        let forgeries = addresses.map(|headers| post(&app, headers, &forged));
        let event = genuine.next().unwrap();
        let (forgeries, genuine) = tokio::join!(futures(forgeries), app.deliver_paypal(event));
        assert!(forgeries.iter().all(|status| matches!(status, 400 | 503)), "{forgeries:?}");
        assert_eq!(genuine.status(), 200, "a known certificate is never waited for");
    }

    assert_eq!(server.connections(), 10);
    assert_eq!(stored(&app).await, 40);
}

#[tokio::test]
async fn case_42_an_event_of_the_sandbox_is_refused_by_a_live_deployment() {
    let (app, server) = start(&[("PAYPAL_ENVIRONMENT", "live")]).await;
    server.answer(Answer::Text(genuine_pem(&app).await));
    let body = event("WH-1");
    let good = app.simulator.signed_paypal(&body);

    assert_eq!(post(&app, good.clone(), &body).await, 400);
    assert_eq!(server.connections(), 0, "not even fetched");
    // Under a live address, it is the certificate that has the wrong name.
    let live = "https://api.paypal.com/v1/notifications/certs/CERT-1";
    let status = post(&app, with(&good, "paypal-cert-url", live), &body).await;
    assert_eq!(status, 400);
    assert_eq!(server.connections(), 1);
    assert_eq!(stored(&app).await, 0);
}

#[tokio::test]
async fn case_42_a_live_event_is_refused_by_a_sandbox() {
    let (app, server) = start(&[]).await;
    let body = event("WH-1");
    let good = app.simulator.signed_paypal(&body);
    let live = "https://api-m.paypal.com/v1/notifications/certs/CERT-1";
    assert_eq!(post(&app, with(&good, "paypal-cert-url", live), &body).await, 400);
    assert_eq!(server.connections(), 0);
}
