//! Stripe's events in our words. Read tolerantly: only what is used must be there.

use chrono::DateTime;
use serde::Deserialize;

use crate::gateways::{
    Captured, GatewayEvent, MalformedEvent, Next, Object, ObjectFacts, VerifiedEvent, is_storable,
};
use crate::money::{Currency, MAX_MINOR, Money};

#[derive(Deserialize)]
struct Envelope {
    id: String,
    #[serde(rename = "type")]
    kind: String,
}

/// What must be known of an event to store it; `None` if the body is no event.
pub(super) fn envelope(body: &[u8]) -> Option<VerifiedEvent> {
    let event: Envelope = serde_json::from_slice(body).ok()?;
    let is_usable = is_storable(&event.id) && is_storable(&event.kind);
    is_usable.then_some(VerifiedEvent { id: event.id, kind: event.kind, delivery_id: None })
}

#[derive(Deserialize)]
struct Event {
    object: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    livemode: bool,
    account: Option<String>,
    #[serde(default)]
    created: i64,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    object: serde_json::Value,
}

#[derive(Deserialize)]
struct Intent {
    id: String,
    amount: i64,
    #[serde(default)]
    amount_received: i64,
    currency: String,
    status: String,
    livemode: bool,
    latest_charge: Option<String>,
    last_payment_error: Option<LastError>,
    #[serde(default)]
    metadata: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct LastError {
    message: Option<String>,
}

/// Translates a stored event. Terminal facts are believed from the signed body; anything on the
/// way is read from the API, for the body may be old.
pub(super) fn parse(
    payload: &[u8],
    livemode: bool,
    account: Option<&str>,
) -> Result<GatewayEvent, MalformedEvent> {
    let event: Event = serde_json::from_slice(payload).map_err(|error| malformed(&error))?;
    if event.object != "event" {
        return Ok(GatewayEvent::Ignored("not a snapshot event"));
    }
    if event.livemode != livemode {
        return Ok(GatewayEvent::Ignored("of the other mode (live or test)"));
    }
    if event.account.is_some() && event.account.as_deref() != account {
        return Ok(GatewayEvent::Ignored("of another account"));
    }
    let is_terminal = match event.kind.as_str() {
        "payment_intent.succeeded"
        | "payment_intent.payment_failed"
        | "payment_intent.canceled" => true,
        "payment_intent.processing" | "payment_intent.requires_action" => false,
        _ => return Ok(GatewayEvent::Ignored("of a kind that is not used")),
    };
    let data = event.data.ok_or_else(|| MalformedEvent("no data".to_owned()))?;
    let intent: Intent = serde_json::from_value(data.object).map_err(|error| malformed(&error))?;
    if !is_storable(&intent.id) {
        return Err(MalformedEvent("the intent's id".to_owned()));
    }
    if !is_terminal {
        return Ok(GatewayEvent::ReadObject(intent.id));
    }
    object(intent, livemode, event.created).map(|object| GatewayEvent::Snapshot(Box::new(object)))
}

fn object(intent: Intent, livemode: bool, created: i64) -> Result<Object, MalformedEvent> {
    let currency =
        Currency::parse(&intent.currency).map_err(|error| MalformedEvent(error.to_string()))?;
    let in_range = |minor: i64| (0..=MAX_MINOR).contains(&minor);
    if !in_range(intent.amount) || !in_range(intent.amount_received) {
        return Err(MalformedEvent("amount out of range".to_owned()));
    }
    let at = DateTime::from_timestamp(created, 0)
        .ok_or_else(|| MalformedEvent("created out of range".to_owned()))?;
    let is_paid = intent.status == "succeeded";
    let captured = is_paid.then(|| Captured {
        amount: Money::new(intent.amount_received, currency),
        capture_id: intent.latest_charge.filter(|id| is_storable(id)),
        at,
    });
    let failure = intent.last_payment_error;
    Ok(Object {
        id: intent.id,
        amount: Money::new(intent.amount, currency),
        names_payment: intent.metadata.get("payment_id").cloned(),
        is_ours: intent.livemode == livemode,
        facts: ObjectFacts {
            captured,
            is_declined: failure.is_some() && !is_paid,
            is_voided: intent.status == "canceled",
            is_processing: intent.status == "processing",
            is_approved: false,
            failure_code: None,
            failure: failure
                .and_then(|error| error.message)
                .map(|message| message.replace('\0', " ").chars().take(500).collect()),
        },
        next: Next::Nothing,
        gateway_customer: None,
        saved_method: None,
        intent: None,
    })
}

/// serde's messages may quote values: only the place is kept.
fn malformed(error: &serde_json::Error) -> MalformedEvent {
    MalformedEvent(format!("line {} column {}", error.line(), error.column()))
}
