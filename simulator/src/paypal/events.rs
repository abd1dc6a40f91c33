//! PayPal's events: made, listed, sent again, verified.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::error::PayPalError;
use super::signing::Transmission;
use super::time;
use crate::calls::Inbound;
use crate::world::{News, Turn};
use crate::{Gateway, SimEvent, ids};

/// The host in links of events: they are never followed, and look as PayPal's do.
pub(super) const EVENT_BASE: &str = "https://api.sandbox.paypal.com";

/// What a kind of event is about.
fn resource_type(kind: &str) -> (&'static str, Option<&'static str>) {
    match kind {
        "PAYMENT.CAPTURE.REFUNDED" | "PAYMENT.CAPTURE.REVERSED" => ("refund", Some("2.0")),
        _ if kind.starts_with("PAYMENT.REFUND.") => ("refund", Some("2.0")),
        _ if kind.starts_with("PAYMENT.CAPTURE.") => ("capture", Some("2.0")),
        _ if kind.starts_with("VAULT.") => ("payment_token", Some("3.0")),
        "CHECKOUT.PAYMENT-APPROVAL.REVERSED" => ("payment", None),
        _ if kind.starts_with("CUSTOMER.DISPUTE.") => ("dispute", None),
        _ => ("checkout-order", Some("2.0")),
    }
}

impl Turn<'_> {
    /// Tells of an object of PayPal's.
    pub(crate) fn tell_paypal(&mut self, news: News<'_>, summary: &str) {
        let id = ids::paypal_event();
        let link = format!("{EVENT_BASE}/v1/notifications/webhooks-events/{id}");
        let (resource_type, resource_version) = resource_type(news.kind);
        let mut body = json!({
            "id": id,
            "event_version": "1.0",
            "create_time": time(self.now),
            "resource_type": resource_type,
            "event_type": news.kind,
            "summary": summary,
            "resource": news.object,
            "links": [
                { "href": link, "rel": "self", "method": "GET" },
                { "href": format!("{link}/resend"), "rel": "resend", "method": "POST" },
            ],
        });
        if let Some(version) = resource_version {
            body["resource_version"] = json!(version);
        }
        self.post(SimEvent {
            gateway: Gateway::PayPal,
            id,
            created_at: self.now,
            kind: news.kind.to_owned(),
            object_id: news.object_id.to_owned(),
            payment_id: news.payment_id,
            body: body.to_string().into_bytes(),
        });
    }
}

fn parsed(event: &SimEvent) -> Value {
    serde_json::from_slice(&event.body).expect("events are JSON")
}

fn find<'a>(turn: &'a Turn<'_>, id: &str) -> Result<&'a SimEvent, PayPalError> {
    let mut events = turn.world.outbox.events.iter();
    events
        .find(|event| event.gateway == Gateway::PayPal && event.id == id)
        .ok_or_else(PayPalError::missing)
}

/// `GET /v1/notifications/webhooks-events/{id}`
pub(super) fn fetch(turn: &Turn<'_>, id: &str) -> Result<Value, PayPalError> {
    find(turn, id).map(parsed)
}

/// `POST /v1/notifications/webhooks-events/{id}/resend`
pub(super) fn resend(turn: &mut Turn<'_>, id: &str) -> Result<Value, PayPalError> {
    let body = fetch(turn, id)?;
    turn.world.outbox.redeliver(id);
    Ok(body)
}

/// `GET /v1/notifications/webhooks-events`: newest first, by kind, transaction and time.
///
/// A page ends with a link to the next; that link names the last event's place in the books.
pub(super) fn list(turn: &Turn<'_>, inbound: &Inbound) -> Result<Value, PayPalError> {
    let (mut size, mut kind, mut transaction) = (10, None, None);
    let (mut from, mut to, mut before) = (None, None, usize::MAX);
    for (name, value) in form_urlencoded::parse(inbound.query.as_bytes()) {
        match &*name {
            "page_size" => size = super::number(&name, &value, 1..=300)?,
            "event_type" => kind = Some(value.into_owned()),
            "transaction_id" => transaction = Some(value.into_owned()),
            "start_time" => from = Some(super::instant(&name, &value)?),
            "end_time" => to = Some(super::instant(&name, &value)?),
            "index_id" => before = super::number(&name, &value, 0..=usize::MAX)?,
            _ => {}
        }
    }
    let events = turn.world.outbox.events.iter().enumerate().rev();
    let mut events = events.filter(|(place, event)| {
        event.gateway == Gateway::PayPal
            && *place < before
            && kind.as_ref().is_none_or(|kind| *kind == event.kind)
            && transaction.as_ref().is_none_or(|id| *id == event.object_id)
            && from.is_none_or(|from| event.created_at >= from)
            && to.is_none_or(|to| event.created_at <= to)
    });
    let page: Vec<_> = events.by_ref().take(size).collect();
    let query = super::query_without(&inbound.query, &["move_to", "index_time", "index_id"]);
    let own = format!("{}/v1/notifications/webhooks-events?{query}", turn.core.paypal_url);
    let mut links = vec![json!({ "href": own, "rel": "self", "method": "GET" })];
    if let (Some((place, last)), Some(_)) = (page.last(), events.next()) {
        let moved = format!("move_to=next&index_time={}&index_id={place}", time(last.created_at));
        let separator = if query.is_empty() { "" } else { "&" };
        let next = format!("{own}{separator}{moved}");
        links.push(json!({ "href": next, "rel": "next", "method": "GET" }));
    }
    let page: Vec<_> = page.into_iter().map(|(_, event)| parsed(event)).collect();
    Ok(json!({ "count": page.len(), "events": page, "links": links }))
}

/// What one asks to be verified; the event is kept as it was written.
#[derive(Deserialize)]
struct Question<'a> {
    auth_algo: String,
    cert_url: String,
    transmission_id: String,
    transmission_sig: String,
    transmission_time: String,
    webhook_id: String,
    #[serde(borrow)]
    webhook_event: &'a RawValue,
}

/// `POST /v1/notifications/verify-webhook-signature`
pub(super) fn verify(turn: &Turn<'_>, inbound: &Inbound) -> Result<Value, PayPalError> {
    let question: Question<'_> = serde_json::from_slice(&inbound.body).map_err(|error| {
        PayPalError::invalid("MISSING_REQUIRED_PARAMETER", "/", &error.to_string())
    })?;
    let transmission = Transmission {
        id: &question.transmission_id,
        time: &question.transmission_time,
        webhook_id: &question.webhook_id,
    };
    let keyring = &turn.core.keyring;
    let is_genuine = question.auth_algo == "SHA256withRSA"
        && question.cert_url == keyring.certificate_url()
        && question.webhook_id == turn.core.settings.paypal_webhook_id
        && keyring.verify(
            &transmission,
            question.webhook_event.get().as_bytes(),
            &question.transmission_sig,
        );
    Ok(json!({ "verification_status": if is_genuine { "SUCCESS" } else { "FAILURE" } }))
}
