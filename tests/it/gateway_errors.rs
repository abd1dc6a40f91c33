//! Error answers of the gateways, as they come over HTTP, and what the adapters make of them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use secrecy::SecretString;
use serde_json::{Value, json};
use shared::clock::wall_now;
use shared::config;
use shared::gateways::paypal::PayPal;
use shared::gateways::stripe::{Stripe, advice};
use shared::gateways::{
    Advice, CaptureRef, Form, Gateway, GatewayError, IntentRequest, Object, RefundRequest,
    SavedCharge,
};
use shared::ids::{PaymentId, RefundId};
use shared::money::{Currency, Money};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::vectors::{folder, read};

/// What a server answers.
#[derive(Clone)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Answer {
    fn json(status: u16, body: &Value) -> Self {
        Self { status, headers: Vec::new(), body: body.to_string() }
    }
}

type Says = Arc<dyn Fn(&str) -> Answer + Send + Sync>;

/// A server on a port of its own that is told method and path of each request.
async fn server(says: Says) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, Arc::clone(&says)));
        }
    });
    base
}

async fn answer(mut stream: TcpStream, says: Says) {
    let mut asked = Vec::new();
    let mut chunk = [0; 4_096];
    while !is_whole(&asked) {
        match stream.read(&mut chunk).await {
            Ok(read) if read > 0 => asked.extend_from_slice(&chunk[..read]),
            Ok(_) | Err(_) => return,
        }
    }
    let text = String::from_utf8_lossy(&asked);
    let line = text.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
    let Answer { status, headers, body } = says(&line);
    let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head = format!("{head}{name}: {value}\r\n");
    }
    let whole = format!("{head}content-type: application/json\r\nconnection: close\r\n\r\n{body}");
    let _gone = stream.write_all(whole.as_bytes()).await;
}

fn is_whole(asked: &[u8]) -> bool {
    let text = String::from_utf8_lossy(asked).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}

fn usd(minor: i64) -> Money {
    Money::new(minor, Currency::USD)
}

fn intent() -> IntentRequest {
    IntentRequest {
        payment_id: PaymentId::new(wall_now()),
        attempt: 0,
        form: Form::Intent,
        amount: usd(1_099),
        description: "Vector".to_owned(),
        return_url: "https://app.example.com/done".to_owned(),
        cancel_url: "https://app.example.com/back".to_owned(),
        gateway_customer: None,
        saves_method: false,
    }
}

fn refund() -> RefundRequest {
    RefundRequest {
        refund_id: RefundId::new(wall_now()),
        payment_id: PaymentId::new(wall_now()),
        capture: CaptureRef {
            object_id: Some("pi_3Vec0000000000000001".to_owned()),
            capture_id: None,
        },
        amount: usd(400),
        first_asked_at: wall_now(),
    }
}

fn charge() -> SavedCharge {
    SavedCharge {
        payment_id: PaymentId::new(wall_now()),
        attempt: 0,
        amount: usd(1_099),
        description: "Vector".to_owned(),
        gateway_customer: "cus_Vec00000000001".to_owned(),
        method: "pm_1Vec0000000000000001".to_owned(),
    }
}

fn stripe_at(base: &str) -> Stripe {
    let _installed_before = rustls::crypto::ring::default_provider().install_default();
    Stripe::new(&config::Stripe {
        secret_key: SecretString::from("sk_test_of_nobody"),
        publishable_key: None,
        webhook_secrets: Vec::new(),
        api_base: base.parse().unwrap(),
        livemode: false,
        account: None,
    })
}

/// An answer of the folder: what is sent, and what is expected.
fn canned(file: &str) -> (Answer, String) {
    let vector: Value = serde_json::from_str(&read(&format!("stripe_api_errors/{file}"))).unwrap();
    let headers = vector["headers"].as_object().unwrap().iter();
    let headers = headers.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()));
    let status = u16::try_from(vector["http_status"].as_u64().unwrap()).unwrap();
    let answer = Answer { status, headers: headers.collect(), body: vector["body"].to_string() };
    (answer, vector["expected"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn every_error_answer_of_stripe_is_sorted_as_expected_and_none_is_left_out() {
    let mut files: Vec<String> = std::fs::read_dir(folder().join("stripe_api_errors"))
        .unwrap()
        .map(|file| file.unwrap().file_name().to_str().unwrap().to_owned())
        .collect();
    files.sort();
    assert_eq!(files.len(), 5);
    for file in files {
        let (canned, expected) = canned(&file);
        let count = Arc::new(AtomicUsize::new(0));
        let asked = Arc::clone(&count);
        let base = server(Arc::new(move |_| {
            asked.fetch_add(1, Ordering::SeqCst);
            canned.clone()
        }))
        .await;
        let stripe = stripe_at(&base);

        let created = stripe.create_intent(&intent()).await.unwrap_err();
        let refunded = stripe.refund(&refund()).await.unwrap_err();
        // One request for each: what is to be repeated is repeated later, by a job.
        assert_eq!(count.load(Ordering::SeqCst), 2, "{file}");
        let charged = stripe.charge_saved(&charge()).await;

        for error in [created, refunded] {
            assert_sorted(&file, &expected, &error);
        }
        match charged {
            // A declined renewal is an answer, with the intent that the body shows.
            Ok(object) => assert_declined(&expected, &object),
            Err(error) => assert_sorted(&file, &expected, &error),
        }
    }
}

/// Whether an error is of the class that the vector's words name.
fn assert_sorted(file: &str, expected: &str, error: &GatewayError) {
    let is_so = match expected {
        "permanent: a bug on our side; alert, never retry" => {
            matches!(error, GatewayError::Bug { .. }) && !error.is_temporary()
        }
        "final for this attempt; bring the customer on-session; never blind-retry" => {
            matches!(error, GatewayError::Declined { code } if advice(code) == Advice::Authenticate)
        }
        "dunning schedule with a NEW idempotency key; no immediate retry" => {
            matches!(error, GatewayError::Declined { code } if advice(code) == Advice::Later)
        }
        "retry later with the same key" | "retry with backoff + jitter, same idempotency key" => {
            matches!(error, GatewayError::Unavailable(_)) && error.is_temporary()
        }
        other => panic!("{file}: no class for {other:?}"),
    };
    assert!(is_so, "{file} expects {expected:?}: {error:?}");
}

fn assert_declined(expected: &str, object: &Object) {
    assert!(object.facts.is_declined && object.facts.captured.is_none(), "{object:?}");
    let what = advice(object.facts.failure_code.as_deref().unwrap());
    let wanted = if expected.starts_with("dunning") { Advice::Later } else { Advice::Authenticate };
    assert_eq!(what, wanted);
}

/// PayPal's order of the vectors: as approved, and as captured.
fn orders() -> (Value, Value) {
    let of = |file: &str| -> Value {
        let event: Value = serde_json::from_str(&read(&format!("paypal_events/{file}"))).unwrap();
        event["resource"].clone()
    };
    let approved = of("checkout.order.approved.json");
    let mut captured = approved.clone();
    captured["status"] = json!("COMPLETED");
    captured["purchase_units"][0]["payments"] =
        json!({ "captures": [of("payment.capture.completed.json")] });
    (approved, captured)
}

fn paypal_at(base: &str) -> PayPal {
    let _installed_before = rustls::crypto::ring::default_provider().install_default();
    PayPal::new(&config::PayPal {
        client_id: "client".to_owned(),
        client_secret: SecretString::from("secret"),
        webhook_id: SecretString::from("webhook"),
        merchant_id: Some("RD465XN5VS364".to_owned()),
        is_live: false,
        api_base: base.parse().unwrap(),
        vault: true,
        cert_roots: None,
        cert_resolve: None,
        proof: config::PayPalProof::Certificate,
    })
    .unwrap()
}

/// Captures the vectors' approved order at a PayPal that answers the capture like this; the
/// answer, and the lines of all requests.
async fn capture(refusal: Answer, is_taken: bool) -> (Result<Object, GatewayError>, Vec<String>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&lines);
    let (approved, captured) = orders();
    let base = server(Arc::new(move |line| {
        let mut lines = heard.lock().unwrap();
        let was_asked = lines.iter().any(|line: &String| line.ends_with("/capture"));
        lines.push(line.to_owned());
        if line.starts_with("POST /v1/oauth2/token") {
            Answer::json(200, &json!({ "access_token": "token", "expires_in": 3_600 }))
        } else if line.ends_with("/capture") {
            refusal.clone()
        } else if was_asked && is_taken {
            Answer::json(200, &captured)
        } else {
            Answer::json(200, &approved)
        }
    }))
    .await;
    let order = "5O190127TN364715T";
    let done = paypal_at(&base).capture(order, PaymentId::new(wall_now()), 0).await;
    let lines = lines.lock().unwrap().clone();
    (done, lines)
}

fn issue(issue: &str) -> Answer {
    let details = json!([{ "issue": issue, "description": "words" }]);
    let body = json!({ "name": "UNPROCESSABLE_ENTITY", "debug_id": "d", "details": details });
    Answer::json(422, &body)
}

#[tokio::test]
async fn every_issue_of_a_refused_capture_has_its_consequence() {
    /// What is to be done (gateways.md §2.1).
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Then {
        TreatAsDone,
        RetryLater,
        Wait,
        BuyersTurn,
        TheEndOfThisOrder,
    }
    for (name, then) in [
        ("ORDER_ALREADY_CAPTURED", Then::TreatAsDone),
        ("ORDER_COMPLETION_IN_PROGRESS", Then::RetryLater),
        ("ORDER_NOT_APPROVED", Then::Wait),
        ("INSTRUMENT_DECLINED", Then::BuyersTurn),
        ("PAYER_ACTION_REQUIRED", Then::BuyersTurn),
        ("REDIRECT_PAYER_FOR_ALTERNATE_FUNDING", Then::BuyersTurn),
        ("TRANSACTION_REFUSED", Then::TheEndOfThisOrder),
        ("PAYER_CANNOT_PAY", Then::TheEndOfThisOrder),
        ("COMPLIANCE_VIOLATION", Then::TheEndOfThisOrder),
        ("PAYEE_BLOCKED_TRANSACTION", Then::TheEndOfThisOrder),
        ("DUPLICATE_INVOICE_ID", Then::TheEndOfThisOrder),
        ("MAX_NUMBER_OF_PAYMENT_ATTEMPTS_EXCEEDED", Then::TheEndOfThisOrder),
    ] {
        let (done, lines) = capture(issue(name), then == Then::TreatAsDone).await;
        let captures = lines.iter().filter(|line| line.ends_with("/capture")).count();
        assert_eq!(captures, 1, "{name}: no blind retry");
        if then == Then::RetryLater {
            assert!(done.as_ref().is_err_and(GatewayError::is_temporary), "{name}: {done:?}");
            continue;
        }
        let facts = done.unwrap_or_else(|error| panic!("{name}: {error}")).facts;
        let found = (facts.captured.is_some(), facts.is_declined, facts.is_voided);
        let wanted = match then {
            Then::TreatAsDone => (true, false, false),
            Then::RetryLater | Then::Wait => (false, false, false),
            Then::BuyersTurn => (false, true, false),
            Then::TheEndOfThisOrder => (false, true, true),
        };
        assert_eq!(found, wanted, "{name}");
        let code = (facts.is_declined).then_some(name);
        assert_eq!(facts.failure_code.as_deref(), code, "{name}");
    }
}

#[tokio::test]
async fn paypals_statuses_are_sorted_and_a_refused_token_is_fetched_anew_once() {
    for status in [408, 409, 429, 500, 502, 503] {
        let (done, lines) = capture(Answer::json(status, &json!({ "name": "X" })), false).await;
        assert!(matches!(done, Err(GatewayError::Unavailable(_))), "{status}: {done:?}");
        assert_eq!(lines.iter().filter(|line| line.ends_with("/capture")).count(), 1, "{status}");
    }
    let (done, lines) =
        capture(Answer::json(401, &json!({ "error": "invalid_token" })), false).await;
    assert!(matches!(done, Err(GatewayError::Misconfigured(_))), "{done:?}");
    assert_eq!(lines.iter().filter(|line| line.ends_with("/capture")).count(), 2);
    assert_eq!(lines.iter().filter(|line| line.ends_with("/token")).count(), 2);
    for (status, name) in [(400, "INVALID_REQUEST"), (422, "DUPLICATE_REQUEST_ID")] {
        let answer = Answer { status, ..issue(name) };
        let (done, _) = capture(answer, false).await;
        assert!(matches!(done, Err(GatewayError::Bug { .. })), "{name}: {done:?}");
    }
    // PayPal paid out or not: what it says after counts more than any refusal.
    let (done, _) = capture(issue("TRANSACTION_REFUSED"), true).await;
    assert!(done.unwrap().facts.captured.is_some());
}
