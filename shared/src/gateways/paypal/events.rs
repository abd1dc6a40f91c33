//! PayPal's events: which object to read.

use serde::Deserialize;

use super::orders::is_id;
use crate::gateways::{GatewayEvent, MalformedEvent, VerifiedEvent, is_storable};

#[derive(Deserialize)]
struct Event {
    id: String,
    #[serde(rename = "event_type")]
    kind: String,
    resource: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Resource {
    id: Option<String>,
}

/// What must be known of an event to store it; `None` if the body is no event.
pub(super) fn envelope(body: &[u8], delivery_id: Option<String>) -> Option<VerifiedEvent> {
    let event: Event = serde_json::from_slice(body).ok()?;
    let is_usable = is_storable(&event.id) && is_storable(&event.kind);
    is_usable.then_some(VerifiedEvent { id: event.id, kind: event.kind, delivery_id })
}

/// Translates a stored event into what to read: the body itself is never believed, for its
/// signature covers only a CRC.
pub(super) fn parse(payload: &[u8]) -> Result<GatewayEvent, MalformedEvent> {
    let event: Event = serde_json::from_slice(payload)
        .map_err(|error| MalformedEvent(format!("column {}", error.column())))?;
    let is_order = match event.kind.as_str() {
        "CHECKOUT.ORDER.APPROVED" | "CHECKOUT.ORDER.COMPLETED" => true,
        "PAYMENT.CAPTURE.COMPLETED"
        | "PAYMENT.CAPTURE.PENDING"
        | "PAYMENT.CAPTURE.DENIED"
        | "PAYMENT.CAPTURE.DECLINED" => false,
        _ => return Ok(GatewayEvent::Ignored("of a kind that is not used")),
    };
    let resource = event.resource.ok_or_else(|| MalformedEvent("no resource".to_owned()))?;
    let resource: Resource =
        serde_json::from_value(resource).map_err(|_| MalformedEvent("the resource".to_owned()))?;
    let id = resource
        .id
        .filter(|id| is_id(id))
        .ok_or_else(|| MalformedEvent("the resource's id".to_owned()))?;
    Ok(if is_order { GatewayEvent::ReadObject(id) } else { GatewayEvent::ReadCapture(id) })
}
