//! `tollgate simulator`, run as an adopter's test run does.

#![cfg(feature = "dev")]
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// Ends the process, whatever becomes of the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(options: &[&str]) -> (Running, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(["simulator", "--json", "--stripe-port", "0", "--paypal-port", "0"]);
    command.args(["--paypal-tls-port", "0"]).args(options).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    let output = child.stdout.take().unwrap();
    let running = Running(child);
    BufReader::new(output).read_line(&mut line).unwrap();
    (running, serde_json::from_str(&line).unwrap())
}

/// Sends one request; gives status and body.
fn ask(base: &str, head: &str, body: &str) -> (u16, String) {
    let address = base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let length = body.len();
    let request = format!(
        "{head}\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

#[test]
fn the_printed_line_is_all_that_another_programs_tests_need() {
    let root = std::env::temp_dir().join(format!("tollgate-root-{}.pem", std::process::id()));
    let file = root.display().to_string();
    let (_running, told) = start(&[
        "--stripe-secret-key",
        "sk_test_mine",
        "--stripe-webhook-secret",
        "whsec_old",
        "--stripe-webhook-secret",
        "whsec_new",
        "--paypal-webhook-id",
        "MINE",
        "--paypal-root-file",
        &file,
    ]);

    let stripe = told["stripe"].as_str().unwrap();
    let head = "POST /v1/payment_intents HTTP/1.1\r\nAuthorization: Bearer sk_test_mine\r\n\
                Content-Type: application/x-www-form-urlencoded";
    let (made, _) = ask(stripe, head, "amount=1099&currency=usd");
    let (stranger, _) =
        ask(stripe, &head.replace("sk_test_mine", "sk_test_other"), "amount=1099&currency=usd");
    let (control, truth) = ask(stripe, "GET /_sim/truth HTTP/1.1", "");
    let (page, _) = ask(told["paypal"].as_str().unwrap(), "GET / HTTP/1.1", "");

    assert_eq!((made, stranger, control, page), (200, 401, 200, 200));
    assert!(truth.contains("1099"), "{truth}");
    assert_eq!(told["control"], format!("{stripe}/_sim"));
    assert_eq!(told["stripe_webhook_secrets"], json!(["whsec_old", "whsec_new"]));
    assert_eq!(told["paypal_webhook_id"], "MINE");
    let written = std::fs::read_to_string(&root).unwrap();
    assert_eq!(told["paypal_root_pem"], written.as_str());
    std::fs::remove_file(root).unwrap();
}

#[test]
fn a_port_that_is_taken_is_named() {
    let (_running, told) = start(&[]);
    let port = told["stripe"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();

    let mut second = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    second.args(["simulator", "--stripe-port", &port, "--paypal-port", "0"]);
    let ended = second.args(["--paypal-tls-port", "0"]).output().unwrap();

    assert!(!ended.status.success());
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(said.contains(&port), "{said}");
}
