//! Hostile bytes at both endpoints (docs/hostile-cases.md, 20 to 25): sent over bare connections,
//! for no well-behaved client sends them.

use std::time::Duration;

use api::Limits;
use harness::{Options, TestApp};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::purchase::futures;

/// No answer may take longer; far above every limit.
const DEADLINE: Duration = Duration::from_secs(30);

const PATHS: [&str; 2] = ["/api/v1/billing/webhooks/stripe/", "/api/v1/billing/webhooks/paypal/"];

/// An application that waits for nobody longer than a second.
async fn impatient() -> TestApp {
    let second = Duration::from_secs(1);
    let limits = Limits { headers: second, body: second, ..Limits::default() };
    TestApp::start_with(Options { limits, ..Options::default() }).await
}

async fn connect(app: &TestApp) -> TcpStream {
    TcpStream::connect(app.base.trim_start_matches("http://")).await.unwrap()
}

/// All that is answered until the server closes the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset is a close, too.
    let _reset = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("never closed");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends these bytes and returns all that is answered until the server closes the connection.
async fn talk(app: &TestApp, bytes: &[u8]) -> String {
    let mut stream = connect(app).await;
    let _reset = stream.write_all(bytes).await;
    rest(&mut stream).await
}

fn statuses(answers: &str) -> Vec<&str> {
    answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect()
}

async fn assert_alive(app: &TestApp) {
    let answer = app.http.get(format!("{}/livez", app.base)).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(app.scalar("select count(*) from webhook_events").await, 0);
}

#[tokio::test]
async fn case_20_a_body_beyond_the_limit_is_a_413_and_read_no_further() {
    let app = TestApp::start().await;
    for path in PATHS {
        let announced =
            format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n");
        assert_eq!(statuses(&talk(&app, announced.as_bytes()).await), ["413"]);

        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
        let mut stream = connect(&app).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        let part = [b"10000\r\n".to_vec(), vec![b' '; 0x1_0000], b"\r\n".to_vec()].concat();
        let mut sent = 0;
        while stream.write_all(&part).await.is_ok() {
            sent += part.len();
            assert!(sent < 64 * 1024 * 1024, "it reads on and on");
        }
        let small = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 1048577\r\n\r\n");
        let large = [small.into_bytes(), vec![b' '; 1_048_577]].concat();
        let mut stream = connect(&app).await;
        stream.write_all(&large).await.unwrap();
        assert_eq!(statuses(&rest(&mut stream).await), ["413"]);
    }
    let wish = vec![b' '; 70_000];
    let answer = app.http.post(app.url("purchase/")).bearer_auth(harness::token("42")).body(wish);
    assert_eq!(answer.send().await.unwrap().status(), 413, "customers' limit is 64 KiB");
    assert_alive(&app).await;
}

#[tokio::test]
async fn case_21_an_encoded_body_is_a_415_and_never_decompressed() {
    let app = TestApp::start().await;
    for path in PATHS {
        for encoding in ["gzip", "br", "deflate", "zstd", "identity", "gzip, gzip"] {
            let post = app.http.post(format!("{}{path}", app.base));
            let post = post.header("content-encoding", encoding).body(bomb());
            assert_eq!(post.send().await.unwrap().status(), 415, "{encoding}");
        }
        // Unnamed, it is what it is: bytes that nobody signed.
        let unnamed = app.http.post(format!("{}{path}", app.base)).body(bomb());
        assert_eq!(unnamed.send().await.unwrap().status(), 400);
    }
    assert_alive(&app).await;
}

/// A gzip file whose one block of fixed codes repeats a zero byte 258 at a time.
fn bomb() -> Vec<u8> {
    let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 0x63, 0x60, 0x18, 0x05, 0xa3, 0x60];
    [head.to_vec(), vec![0x14; 1_000]].concat()
}

#[tokio::test]
async fn case_22_a_stalled_peer_is_dropped_and_others_do_not_wait_for_it() {
    let app = impatient().await;
    let mut stalled = Vec::new();
    for path in PATHS {
        for start in [
            String::new(),
            format!("POST {path} HT"),
            format!("POST {path} HTTP/1.1\r\nhost: x\r\nx-slow: "),
            format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n"),
            format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{{"),
            format!("POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"),
            format!("POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n4\r\n{{"),
        ] {
            let mut stream = connect(&app).await;
            stream.write_all(start.as_bytes()).await.unwrap();
            stalled.push((start.contains("\r\n\r\n"), stream));
        }
    }
    let body = json!({ "id": "evt_1", "object": "event", "type": "plan.created" }).to_string();

    assert_eq!(app.deliver_stripe(body.as_bytes()).await.status(), 200);
    for (has_headers, mut stream) in stalled {
        let answer = rest(&mut stream).await;
        let expected: &[&str] = if has_headers { &["408"] } else { &[] };
        assert_eq!(statuses(&answer), expected);
    }
}

#[tokio::test]
async fn case_22_a_body_that_trickles_is_dropped_however_steady_it_is() {
    let app = impatient().await;
    let head = format!("POST {} HTTP/1.1\r\nhost: x\r\ncontent-length: 9999\r\n\r\n", PATHS[0]);
    let mut stream = connect(&app).await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let trickle = tokio::spawn(async move {
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        while writer.write_all(b" ").await.is_ok() {
            pace.tick().await;
        }
    });

    let mut answer = Vec::new();
    let _reset = timeout(DEADLINE, reader.read_to_end(&mut answer)).await.expect("never closed");
    trickle.abort();

    assert_eq!(statuses(&String::from_utf8_lossy(&answer)), ["408"]);
}

#[tokio::test]
async fn case_23_nothing_is_smuggled_behind_a_body_of_doubtful_length() {
    let app = impatient().await;
    // Were it served, its answer would hold this.
    let smuggled = "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
    let chunked = "transfer-encoding: chunked\r\n";
    let lengths = [
        format!("content-length: 5\r\n{chunked}"),
        format!("{chunked}content-length: 5\r\n"),
        format!("content-length: {}\r\n{chunked}", smuggled.len() + 5),
        format!("{chunked}{chunked}"),
        chunked.to_owned(),
        "transfer-encoding: chunked, identity\r\n".to_owned(),
        "transfer-encoding: identity\r\ncontent-length: 5\r\n".to_owned(),
        "transfer-encoding: xchunked\r\ncontent-length: 5\r\n".to_owned(),
        "transfer-encoding : chunked\r\ncontent-length: 5\r\n".to_owned(),
        "transfer-encoding:\u{b}chunked\r\ncontent-length: 5\r\n".to_owned(),
        " transfer-encoding: chunked\r\ncontent-length: 5\r\n".to_owned(),
        "content-length: 5\r\ncontent-length: 0\r\n".to_owned(),
        "content-length: 5, 0\r\n".to_owned(),
        "content-length: +5\r\n".to_owned(),
        "content-length: -5\r\n".to_owned(),
        "content-length: 0x5\r\n".to_owned(),
        "content-length: 5 5\r\n".to_owned(),
        "content-length: 99999999999999999999999\r\n".to_owned(),
        "content-length\r\n".to_owned(),
    ];
    let broken = ["5\r\n{}\r\n0\r\n\r\n", "zz\r\n", "-1\r\n", "ffffffffffffffffff\r\n{", "2\n{}"];
    let whole = lengths.iter().map(|length| (length.as_str(), "0\r\n\r\n"));
    let broken = broken.iter().map(|chunks| (chunked, *chunks));
    let attempts: Vec<_> = whole.chain(broken).collect();
    for path in PATHS {
        let talks = attempts.iter().map(async |(length, body)| {
            let bytes = format!("POST {path} HTTP/1.1\r\nhost: x\r\n{length}\r\n{body}{smuggled}");
            (length, body, talk(&app, bytes.as_bytes()).await)
        });
        for (length, body, answers) in futures(talks).await {
            assert!(!answers.contains("\"ok\""), "{length:?} {body:?} smuggled: {answers}");
            let statuses = statuses(&answers);
            let is_refused = matches!(statuses[..], [] | ["400" | "408" | "413"]);
            assert!(is_refused, "{length:?} {body:?}: {statuses:?}");
        }
    }
    assert_alive(&app).await;
}

#[tokio::test]
async fn case_23_a_body_shorter_or_longer_than_announced_is_refused() {
    let app = impatient().await;
    for path in PATHS {
        let short = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{{}}");
        assert_eq!(statuses(&talk(&app, short.as_bytes()).await), ["408"]);

        let mut stream = connect(&app).await;
        stream.write_all(short.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let answers = rest(&mut stream).await;
        assert!(matches!(statuses(&answers)[..], [] | ["400"]), "{answers}");

        // What is too much is the next request, and none that can be read.
        let long =
            format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{{}}{{}}{{}}");
        let answers = talk(&app, format!("{long}\r\n\r\n").as_bytes()).await;
        assert_eq!(statuses(&answers), ["400", "400"]);
    }
    assert_alive(&app).await;
}

#[tokio::test]
async fn case_24_other_methods_are_a_405_without_cors_and_the_content_type_decides_nothing() {
    let app = TestApp::start().await;
    for path in PATHS {
        let url = format!("{}{path}", app.base);
        for method in ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PURGE"] {
            let asked = app.http.request(method.parse().unwrap(), &url);
            let asked = asked.header("origin", "https://evil.example");
            let asked = asked.header("access-control-request-method", "POST");
            let answer = asked.send().await.unwrap();
            assert_eq!(answer.status(), 405, "{method}");
            let is_cors = |name: &str| name.starts_with("access-control-");
            assert!(!answer.headers().keys().any(|name| is_cors(name.as_str())), "{method}");
        }
    }
    for (index, kind) in
        ["text/plain", "application/x-www-form-urlencoded", "", "\u{e9}"].into_iter().enumerate()
    {
        let event = json!({ "id": format!("evt_{index}"), "object": "event", "type": "x" });
        let body = event.to_string().into_bytes();
        let mut headers = app.simulator.signed_stripe(&body);
        headers.retain(|(name, _)| !name.eq_ignore_ascii_case("content-type"));
        headers.push(("content-type".to_owned(), kind.to_owned()));
        assert_eq!(app.deliver("webhooks/stripe/", headers, &body).await.status(), 200, "{kind:?}");
    }
}

#[tokio::test]
async fn case_25_control_characters_in_headers_are_refused() {
    let app = impatient().await;
    let headers = [
        "stripe-signature: t=1,\r\n v1=folded\r\n",
        "stripe-signature: t=1,\r\n\tv1=folded\r\n",
        "stripe-signature: a\0b\r\n",
        "stripe-signature: a\rb\r\n",
        "stripe-signature: a\u{7f}b\r\n",
        "stripe-signature: a\u{1b}[31mred\r\n",
        "paypal-cert-url: https://api.paypal.com/\0\r\n",
        "pay\0pal: x\r\n",
        "x y: z\r\n",
        ": nameless\r\n",
        "no colon\r\n",
    ];
    let lines = ["\0\0\0\0", "\u{16}\u{3}\u{1}", "POST", "GET  HTTP/9.9\r\n\r\n", "\r\n\r\n\r\n"];
    for path in PATHS {
        let post = format!("POST {path} HTTP/1.1\r\nhost: x\r\n");
        let mut attempts: Vec<String> = headers
            .iter()
            .map(|header| format!("{post}{header}content-length: 2\r\n\r\n{{}}"))
            .collect();
        attempts.extend(lines.map(str::to_owned));
        attempts.push(format!("{post}{}\r\n", "x: y\r\n".repeat(5_000)));
        attempts.push(format!("{post}x: {}\r\n\r\n", "y".repeat(200_000)));
        let talks = attempts.iter().map(async |bytes| (bytes, talk(&app, bytes.as_bytes()).await));
        for (bytes, answers) in futures(talks).await {
            let is_refused = matches!(statuses(&answers)[..], [] | ["400" | "431"]);
            assert!(is_refused, "{:?}: {answers}", bytes.chars().take(90).collect::<String>());
        }
    }
    assert_alive(&app).await;
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let second = Duration::from_secs(1);
    let limits = Limits { headers: second, connections: 2, ..Limits::default() };
    let app = TestApp::start_with(Options { limits, ..Options::default() }).await;
    let _holders = (connect(&app).await, connect(&app).await);

    // Waits until the first two were dropped for their silence.
    let answers = talk(&app, b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;

    assert_eq!(statuses(&answers), ["200"]);
}
