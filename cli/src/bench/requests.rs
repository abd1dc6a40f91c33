//! What the load sends, made and signed before the clock starts.

use hmac::{Hmac, KeyInit, Mac};
use secrecy::SecretString;
use sha2::Sha256;
use shared::clock::wall_now;
use std::fmt::Write as _;

use super::http::{KEY, Requests};
use super::load::user_id;
use super::world::{JWT_SECRET, WEBHOOK_SECRET};
use crate::token;

type Failed = Box<dyn std::error::Error>;

/// An event as Stripe writes it, some 1.4 KB.
const EVENT: &str = include_str!("../../../bench/event.json");

/// Longer than any run.
const TOKEN_HOURS: u32 = 24;

/// One POST for each of the first `accounts` customers, with a key of its own when it is sent.
pub(super) fn of_customers(accounts: u32, path: &str, body: &str) -> Result<Requests, Failed> {
    let secret = SecretString::from(JWT_SECRET);
    let mut requests = Requests::default();
    for account in 0..accounts {
        let bearer = format!("Bearer {}", token::mint(&secret, &user_id(account), TOKEN_HOURS)?);
        let headers = [("idempotency-key", KEY), ("authorization", &bearer)];
        requests.push(path, &headers, body.as_bytes());
    }
    Ok(requests)
}

/// The question for the first page of what the customer of another request spent.
pub(super) fn usage_page(other: &[u8]) -> Result<Vec<u8>, Failed> {
    let bearer = between(other, "authorization: ", '\r').ok_or("a request has no bearer")?;
    let path = "/api/v1/billing/tokens/usage/";
    let head = format!("GET {path} HTTP/1.1\r\nhost: bench\r\nauthorization: {bearer}\r\n\r\n");
    Ok(head.into_bytes())
}

/// The final settlement of the hold that was just opened.
pub(super) fn settle(opened: &[u8], answer: &[u8], settle: &mut Requests) -> Option<()> {
    let id = between(answer, "\"hold_id\":\"", '"')?;
    let bearer = between(opened, "authorization: ", '\r')?;
    let body = br#"{"tokens_total":7,"final":true}"#;
    settle.push(&format!("tokens/holds/{id}/settle/"), &[("authorization", bearer)], body);
    Some(())
}

fn between<'a>(text: &'a [u8], before: &str, after: char) -> Option<&'a str> {
    let (_, rest) = std::str::from_utf8(text).ok()?.split_once(before)?;
    Some(rest.split_once(after)?.0)
}

/// What an event tells of.
pub(super) struct Told<'a> {
    pub(super) event: &'a str,
    pub(super) intent: &'a str,
    pub(super) payment: &'a str,
    /// Whether the intent was paid, or only made.
    pub(super) is_paid: bool,
}

/// Adds the delivery of an event, signed now.
pub(super) fn push_event(requests: &mut Requests, told: &Told<'_>) -> Result<(), Failed> {
    let now = wall_now().timestamp();
    let (kind, status, received) = if told.is_paid {
        ("payment_intent.succeeded", "succeeded", "1000")
    } else {
        ("payment_intent.created", "requires_payment_method", "0")
    };
    let body = EVENT
        .trim_end()
        .replace("{{event}}", told.event)
        .replace("{{intent}}", told.intent)
        .replace("{{charge}}", &told.intent.replace("pi_", "ch_"))
        .replace("{{payment}}", told.payment)
        .replace("{{kind}}", kind)
        .replace("{{status}}", status)
        .replace("{{received}}", received)
        .replace("{{created}}", &now.to_string());
    let mut mac = Hmac::<Sha256>::new_from_slice(WEBHOOK_SECRET.as_bytes())?;
    mac.update(now.to_string().as_bytes());
    mac.update(b".");
    mac.update(body.as_bytes());
    let mut signature = format!("t={now},v1=");
    for byte in mac.finalize().into_bytes() {
        write!(signature, "{byte:02x}")?;
    }
    requests.push("webhooks/stripe/", &[("stripe-signature", &signature)], body.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_settlement_is_of_the_hold_and_by_who_opened_it() {
        let opened = of_customers(1, "tokens/holds/", "{}").unwrap();
        let mut second = Requests::default();
        settle(opened.get(0), br#"{"hold_id":"0192-x","status":"open"}"#, &mut second).unwrap();
        let text = String::from_utf8(second.get(0).to_vec()).unwrap();
        assert!(text.starts_with("POST /api/v1/billing/tokens/holds/0192-x/settle/ HTTP/1.1\r\n"));
        assert!(text.contains("\r\nauthorization: Bearer ey"));
        assert!(settle(opened.get(0), b"{}", &mut second).is_none());
    }

    #[test]
    fn an_event_is_json_without_a_gap() {
        let mut requests = Requests::default();
        let told = Told { event: "evt_1", intent: "pi_1", payment: "p", is_paid: true };
        push_event(&mut requests, &told).unwrap();
        let text = String::from_utf8(requests.get(0).to_vec()).unwrap();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        let event: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(event["data"]["object"]["latest_charge"], "ch_1");
        assert!(!body.contains("{{"));
    }
}
