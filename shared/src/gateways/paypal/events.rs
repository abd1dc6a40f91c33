//! PayPal's events: which object to read.

use serde::Deserialize;
use serde_json::Value;

use super::links::{self, Link, is_id};
use super::orders::CAPTURES;
use crate::gateways::{GatewayEvent, MalformedEvent, VerifiedEvent, is_storable};

#[derive(Deserialize)]
struct Event {
    id: String,
    #[serde(rename = "event_type")]
    kind: String,
    resource: Option<Value>,
}

#[derive(Deserialize)]
struct Resource {
    id: Option<String>,
    order_id: Option<String>,
    dispute_id: Option<String>,
    metadata: Option<Metadata>,
    #[serde(default)]
    links: Vec<Link>,
}

#[derive(Deserialize)]
struct Metadata {
    order_id: Option<String>,
}

/// What must be known of an event to store it; `None` if the body is no event.
pub(super) fn envelope(body: &[u8], delivery_id: Option<String>) -> Option<VerifiedEvent> {
    let event: Event = serde_json::from_slice(body).ok()?;
    let is_usable = is_storable(&event.id) && is_storable(&event.kind);
    is_usable.then_some(VerifiedEvent { id: event.id, kind: event.kind, delivery_id })
}

/// What the resource of an event is.
enum About {
    Approved,
    Order,
    Approval,
    Capture,
    Refund,
    Reversal,
    Dispute,
    SavedMethod,
    GoneMethod,
    Nothing(&'static str),
}

fn about(kind: &str) -> About {
    match kind {
        "CHECKOUT.ORDER.APPROVED" => About::Approved,
        "CHECKOUT.ORDER.COMPLETED" | "CHECKOUT.ORDER.DECLINED" | "CHECKOUT.ORDER.VOIDED" => {
            About::Order
        }
        "CHECKOUT.PAYMENT-APPROVAL.REVERSED" => About::Approval,
        // DECLINED is the newer word for DENIED.
        "PAYMENT.CAPTURE.COMPLETED"
        | "PAYMENT.CAPTURE.PENDING"
        | "PAYMENT.CAPTURE.DENIED"
        | "PAYMENT.CAPTURE.DECLINED" => About::Capture,
        "PAYMENT.CAPTURE.REFUNDED" => About::Refund,
        "PAYMENT.CAPTURE.REVERSED" => About::Reversal,
        "VAULT.PAYMENT-TOKEN.CREATED" => About::SavedMethod,
        "VAULT.PAYMENT-TOKEN.DELETED" | "VAULT.PAYMENT-TOKEN.DELETION-INITIATED" => {
            About::GoneMethod
        }
        _ if kind.starts_with("PAYMENT.REFUND.") => About::Refund,
        _ if kind.starts_with("CUSTOMER.DISPUTE.") => About::Dispute,
        _ if kind.starts_with("PAYMENT.SALE.") => About::Nothing("v1"),
        _ => About::Nothing("of a kind that is not used"),
    }
}

/// Translates a stored event into what to read: the body itself is never believed, for its
/// signature covers only a CRC.
pub(super) fn parse(payload: &[u8]) -> Result<GatewayEvent, MalformedEvent> {
    let event: Event = serde_json::from_slice(payload)
        .map_err(|error| MalformedEvent(format!("column {}", error.column())))?;
    let about = about(&event.kind);
    if let About::Nothing(why) = about {
        return Ok(GatewayEvent::Ignored(why));
    }
    let resource = event.resource.ok_or_else(|| MalformedEvent("no resource".to_owned()))?;
    let resource: Resource =
        serde_json::from_value(resource).map_err(|_| MalformedEvent("the resource".to_owned()))?;
    Ok(match about {
        About::Nothing(why) => GatewayEvent::Ignored(why),
        About::Approved => GatewayEvent::Approved(id(resource.id)?),
        About::Order => GatewayEvent::ReadObject(id(resource.id)?),
        About::Approval => GatewayEvent::ReadObject(id(resource.order_id.or(resource.id))?),
        About::Capture => GatewayEvent::ReadCapture(id(resource.id)?),
        About::Refund => GatewayEvent::ReadRefund(id(resource.id)?),
        About::Dispute => GatewayEvent::ReadDispute(id(resource.dispute_id)?),
        About::GoneMethod => GatewayEvent::MethodGone(id(resource.id)?),
        About::SavedMethod => GatewayEvent::ReadMethod {
            id: id(resource.id)?,
            object_id: resource.metadata.and_then(|it| it.order_id).filter(|id| is_id(id)),
        },
        About::Reversal => GatewayEvent::ReadReversal {
            capture_id: links::id_upwards(&resource.links, CAPTURES)
                .ok_or_else(|| MalformedEvent("no link to the capture".to_owned()))?,
            id: id(resource.id)?,
        },
    })
}

fn id(id: Option<String>) -> Result<String, MalformedEvent> {
    id.filter(|id| is_id(id)).ok_or_else(|| MalformedEvent("the resource's id".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    macro_rules! vector {
        ($name:literal) => {
            include_str!(concat!("../../../../tests/vectors/paypal_events/", $name, ".json"))
        };
    }

    /// What is to be done about it, in one line.
    fn told(payload: &str) -> String {
        let event = parse(payload.as_bytes()).unwrap();
        format!("{event:?}")
    }

    #[test]
    fn every_shared_event_says_what_to_read() {
        let capture = r#"ReadCapture("2GG279541U471931P")"#;
        let dispute = r#"ReadDispute("PP-D-27803")"#;
        for (payload, expected) in [
            (vector!("checkout.order.approved"), r#"Approved("5O190127TN364715T")"#),
            (vector!("payment.capture.completed"), capture),
            (vector!("payment.capture.pending"), capture),
            (vector!("payment.capture.denied"), capture),
            (vector!("payment.capture.refunded"), r#"ReadRefund("1JU08902781691411")"#),
            (
                vector!("payment.capture.reversed"),
                r#"ReadReversal { id: "5YV77211JH9906131", capture_id: "2GG279541U471931P" }"#,
            ),
            (vector!("customer.dispute.created"), dispute),
            (vector!("customer.dispute.resolved.seller"), dispute),
            (
                vector!("vault.payment-token.created"),
                r#"ReadMethod { id: "8kk8451t", object_id: Some("5O190127TN364715T") }"#,
            ),
            (vector!("payment.sale.completed.legacy"), r#"Ignored("v1")"#),
        ] {
            assert_eq!(told(payload), expected);
        }
    }

    fn event(kind: &str, resource: &Value) -> String {
        json!({ "id": "WH-1", "event_type": kind, "resource": resource }).to_string()
    }

    #[test]
    fn the_other_kinds_are_read_too() {
        let reversed = event("CHECKOUT.PAYMENT-APPROVAL.REVERSED", &json!({ "order_id": "5O1" }));
        assert_eq!(told(&reversed), r#"ReadObject("5O1")"#);
        let failed = event("PAYMENT.REFUND.FAILED", &json!({ "id": "1JU" }));
        assert_eq!(told(&failed), r#"ReadRefund("1JU")"#);
        for kind in ["VAULT.PAYMENT-TOKEN.DELETED", "VAULT.PAYMENT-TOKEN.DELETION-INITIATED"] {
            assert_eq!(told(&event(kind, &json!({ "id": "8kk" }))), r#"MethodGone("8kk")"#);
        }
        let unused = event("BILLING.PLAN.CREATED", &json!({ "id": "P-1" }));
        assert_eq!(told(&unused), r#"Ignored("of a kind that is not used")"#);
    }

    #[test]
    fn an_id_that_is_no_id_is_malformed() {
        for bad in [json!("../x"), json!("a/b"), json!(""), json!("a b"), json!(null)] {
            let event = event("CHECKOUT.ORDER.APPROVED", &json!({ "id": bad }));
            assert!(parse(event.as_bytes()).is_err(), "{bad}");
        }
        let elsewhere = json!({ "id": "5YV", "links": [
            { "rel": "up", "href": "https://evil.example/v2/payments/captures/A/../../B" },
        ]});
        let event = event("PAYMENT.CAPTURE.REVERSED", &elsewhere);
        assert!(parse(event.as_bytes()).is_err());
    }
}
