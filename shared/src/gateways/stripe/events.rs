//! Stripe's events in our words. Read tolerantly: only what is used must be there.
//!
//! A signed body is believed where it tells of an end; what is still on its way is read from the
//! API, for a body may be old.

use chrono::DateTime;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::disputes::Dispute;
use super::errors::Unreadable;
use super::objects::{Intent, Link, Named, Reading, storable};
use super::refunds::Refund;
use crate::gateways::{
    CaptureRef, DisputeStage, GatewayEvent, MalformedEvent, Next, RefundStatus, VerifiedEvent,
    is_storable,
};

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
    object: Value,
}

/// Translates a stored event.
pub(super) fn parse(
    payload: &[u8],
    livemode: bool,
    account: Option<&str>,
) -> Result<GatewayEvent, MalformedEvent> {
    let event: Event = serde_json::from_slice(payload).map_err(|error| Unreadable::of(&error))?;
    if event.object != "event" {
        return Ok(GatewayEvent::Ignored("not a snapshot event"));
    }
    if event.livemode != livemode {
        return Ok(GatewayEvent::Misdirected("of the other mode (live or test)"));
    }
    if event.account.is_some() && event.account.as_deref() != account {
        return Ok(GatewayEvent::Misdirected("of another account"));
    }
    let read = match sort(&event.kind) {
        Ok(read) => read,
        Err(why) => return Ok(GatewayEvent::Ignored(why)),
    };
    let data = event.data.ok_or_else(|| MalformedEvent("no data".to_owned()))?;
    let at = DateTime::from_timestamp(event.created, 0)
        .ok_or_else(|| MalformedEvent("created out of range".to_owned()))?;
    Ok(told(read, data.object, Reading { livemode, at })?)
}

/// What a kind of event is about.
#[derive(Clone, Copy)]
enum About {
    /// An intent that ended, for now at least.
    IntentEnd,
    /// An intent or a session on its way.
    Object,
    Charge,
    Refund,
    Dispute,
    Setup,
    MethodChange,
    MethodGone,
    CustomerGone,
}

/// What a kind is about, or why it is of no use.
fn sort(kind: &str) -> Result<About, &'static str> {
    Ok(match kind {
        "payment_intent.succeeded"
        | "payment_intent.payment_failed"
        | "payment_intent.canceled" => About::IntentEnd,
        "payment_intent.processing"
        | "payment_intent.requires_action"
        | "checkout.session.completed"
        | "checkout.session.async_payment_succeeded"
        | "checkout.session.async_payment_failed"
        | "checkout.session.expired" => About::Object,
        "charge.refunded" => About::Charge,
        "refund.created" | "refund.updated" | "refund.failed" => About::Refund,
        "setup_intent.succeeded" => About::Setup,
        "payment_method.automatically_updated" | "payment_method.updated" => About::MethodChange,
        "payment_method.detached" => About::MethodGone,
        "customer.deleted" => About::CustomerGone,
        "charge.refund.updated" => return Err("refund.updated tells the same"),
        "setup_intent.setup_failed" => return Err("the customer may try another method"),
        _ if kind.starts_with("charge.dispute.") => About::Dispute,
        _ if kind.starts_with("charge.") => return Err("its intent's event tells the same"),
        _ if kind.starts_with("invoice.") || kind.starts_with("customer.subscription.") => {
            return Err("of Stripe Billing, which is not used");
        }
        _ => return Err("of a kind that is not used"),
    })
}

fn told(about: About, object: Value, reading: Reading) -> Result<GatewayEvent, Unreadable> {
    Ok(match about {
        About::IntentEnd => {
            let mut object = read::<Intent>(object)?.object(reading)?;
            // An event is stored and looked at by people: it needs no secret.
            object.next = Next::Nothing;
            GatewayEvent::Snapshot(Box::new(object))
        }
        About::Object => GatewayEvent::ReadObject(id(object)?),
        About::Charge => charge(object)?,
        About::Refund => refund(object)?,
        About::Dispute => dispute(object, reading.livemode)?,
        About::Setup => GatewayEvent::ReadSetup(id(object)?),
        About::MethodChange => GatewayEvent::ReadMethod { id: id(object)?, object_id: None },
        About::MethodGone => GatewayEvent::MethodGone(id(object)?),
        About::CustomerGone => GatewayEvent::CustomerGone(id(object)?),
    })
}

fn read<T: DeserializeOwned>(object: Value) -> Result<T, Unreadable> {
    // A value has no lines; which member is wrong stays in the stored body.
    serde_json::from_value(object).map_err(|_| Unreadable("the event's object".to_owned()))
}

fn id(object: Value) -> Result<String, Unreadable> {
    storable(read::<Named>(object)?.id)
}

/// Its `amount_refunded` is a total without the refunds it adds up: they are read.
fn charge(object: Value) -> Result<GatewayEvent, Unreadable> {
    #[derive(Deserialize)]
    struct Charge {
        id: String,
        payment_intent: Option<Link>,
    }
    let charge: Charge = read(object)?;
    Ok(GatewayEvent::ReadRefundsOf(CaptureRef {
        object_id: charge.payment_intent.and_then(Link::into_id),
        capture_id: Some(storable(charge.id)?),
    }))
}

fn refund(object: Value) -> Result<GatewayEvent, Unreadable> {
    let id = id(object.clone())?;
    // A status that is not known here may be known to who reads it later.
    let Ok(state) = read::<Refund>(object)?.state() else {
        return Ok(GatewayEvent::ReadRefund(id));
    };
    Ok(match state.status {
        RefundStatus::Pending => GatewayEvent::ReadRefund(id),
        RefundStatus::Succeeded | RefundStatus::Failed => GatewayEvent::Refund(Box::new(state)),
    })
}

fn dispute(object: Value, livemode: bool) -> Result<GatewayEvent, Unreadable> {
    let id = id(object.clone())?;
    let Ok(state) = read::<Dispute>(object)?.state(livemode) else {
        return Ok(GatewayEvent::ReadDispute(id));
    };
    Ok(match state.stage {
        DisputeStage::Inquiry | DisputeStage::Open => GatewayEvent::ReadDispute(id),
        DisputeStage::InquiryClosed | DisputeStage::Won | DisputeStage::Lost => {
            GatewayEvent::Dispute(Box::new(state))
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::gateways::{DisputeKind, Object};
    use crate::money::{Currency, Money};

    macro_rules! vector {
        ($name:literal) => {
            include_str!(concat!("../../../../tests/vectors/stripe_events/", $name, ".json"))
        };
    }

    const PAYMENT_ID: &str = "019a0000-0000-7000-8000-000000000001";

    fn parsed(vector: &str) -> GatewayEvent {
        let body = vector
            .replace("{{PAYMENT_ID}}", PAYMENT_ID)
            .replace("{{REFUND_ID}}", "019a0000-0000-7000-8000-000000000002");
        parse(body.as_bytes(), false, None).unwrap()
    }

    fn snapshot(vector: &str) -> Object {
        let GatewayEvent::Snapshot(object) = parsed(vector) else { panic!("no snapshot") };
        assert_eq!(object.names_payment.as_deref(), Some(PAYMENT_ID));
        assert!(object.is_ours && matches!(object.next, Next::Nothing));
        assert_eq!(object.amount, Money::new(1_099, Currency::USD));
        *object
    }

    #[test]
    fn an_intent_that_ended_is_told_by_its_signed_body() {
        for vector in [
            vector!("payment_intent.succeeded"),
            vector!("payment_intent.succeeded.renewal_off_session"),
        ] {
            let paid = snapshot(vector);
            let captured = paid.facts.captured.unwrap();
            assert_eq!(captured.amount, paid.amount);
            assert!(captured.capture_id.unwrap().starts_with("ch_3Vec"));
            assert!(captured.at.timestamp() > 1_795_390_000);
            assert_eq!(paid.gateway_customer.as_deref(), Some("cus_Vec00000000001"));
        }

        let failed = snapshot(vector!("payment_intent.payment_failed"));
        assert!(failed.facts.is_declined && failed.facts.captured.is_none());
        assert!(failed.facts.failure_code.is_some() && failed.facts.failure.is_some());

        let asked = snapshot(vector!("payment_intent.payment_failed.authentication_required"));
        assert_eq!(asked.facts.failure_code.as_deref(), Some("authentication_required"));

        assert!(snapshot(vector!("payment_intent.canceled")).facts.is_voided);
    }

    #[test]
    fn what_is_on_its_way_is_read() {
        for vector in
            [vector!("payment_intent.processing"), vector!("payment_intent.requires_action")]
        {
            assert!(
                matches!(parsed(vector), GatewayEvent::ReadObject(id) if id.starts_with("pi_"))
            );
        }
        for vector in [vector!("checkout.session.completed"), vector!("checkout.session.expired")] {
            assert!(
                matches!(parsed(vector), GatewayEvent::ReadObject(id) if id.starts_with("cs_"))
            );
        }
    }

    #[test]
    fn a_refund_is_believed_once_it_is_final() {
        let is_read = |event| matches!(event, GatewayEvent::ReadRefund(id) if id == "re_1");
        assert!(
            matches!(parsed(vector!("refund.created")), GatewayEvent::ReadRefund(id) if id.starts_with("re_"))
        );
        for (vector, status) in [
            (vector!("refund.updated"), RefundStatus::Succeeded),
            (vector!("refund.failed"), RefundStatus::Failed),
        ] {
            let GatewayEvent::Refund(state) = parsed(vector) else { panic!("it is final") };
            assert_eq!(state.status, status);
            assert_eq!(state.amount, Money::new(400, Currency::USD));
            assert!(state.names_refund.is_some() && state.is_ours);
            assert_eq!(state.capture.object_id.as_deref(), Some("pi_3Vec0000000000000001"));
        }
        let strange = json!({ "id": "re_1", "amount": 1, "currency": "usd", "status": "paused" });
        assert!(is_read(event("refund.updated", &strange).unwrap()));
    }

    #[test]
    fn a_refunded_charge_has_its_refunds_read() {
        let GatewayEvent::ReadRefundsOf(capture) = parsed(vector!("charge.refunded.partial"))
        else {
            panic!("its total says nothing of its refunds")
        };
        assert_eq!(capture.object_id.as_deref(), Some("pi_3Vec0000000000000001"));
        assert_eq!(capture.capture_id.as_deref(), Some("ch_3Vec0000000000000001"));
    }

    #[test]
    fn a_dispute_is_believed_once_it_is_decided() {
        assert!(
            matches!(parsed(vector!("charge.dispute.created")), GatewayEvent::ReadDispute(id) if id.starts_with("du_"))
        );
        let GatewayEvent::Dispute(won) = parsed(vector!("charge.dispute.closed.won")) else {
            panic!("it is decided")
        };
        assert_eq!((won.kind, won.stage), (DisputeKind::Dispute, DisputeStage::Won));
        assert_eq!(won.capture.capture_id.as_deref(), Some("ch_3Vec0000000000000001"));
        assert!(won.is_ours);
    }

    #[test]
    fn methods_and_customers_are_told_of() {
        assert!(
            matches!(parsed(vector!("setup_intent.succeeded")), GatewayEvent::ReadSetup(id) if id.starts_with("seti_"))
        );
        assert!(
            matches!(parsed(vector!("customer.deleted")), GatewayEvent::CustomerGone(id) if id.starts_with("cus_"))
        );
        let method = json!({ "id": "pm_1", "customer": null });
        let gone = event("payment_method.detached", &method).unwrap();
        assert!(matches!(gone, GatewayEvent::MethodGone(id) if id == "pm_1"));
        let changed = event("payment_method.automatically_updated", &method).unwrap();
        assert!(
            matches!(changed, GatewayEvent::ReadMethod { id, object_id: None } if id == "pm_1")
        );
    }

    fn event(kind: &str, object: &Value) -> Result<GatewayEvent, MalformedEvent> {
        let body = json!({
            "object": "event", "id": "evt_1", "type": kind, "created": 1, "livemode": false,
            "data": { "object": object },
        });
        parse(&serde_json::to_vec(&body).unwrap(), false, None)
    }

    #[test]
    fn what_is_not_used_is_ignored_even_if_it_cannot_be_read() {
        for kind in [
            "charge.refund.updated",
            "charge.succeeded",
            "customer.subscription.updated",
            "invoice.paid",
            "payment_intent.created",
            "setup_intent.setup_failed",
            "something.new",
        ] {
            assert!(matches!(event(kind, &json!(7)), Ok(GatewayEvent::Ignored(_))), "{kind}");
        }
        let created = parsed(vector!("payment_intent.created"));
        assert!(matches!(created, GatewayEvent::Ignored(_)));
    }

    #[test]
    fn the_other_mode_and_other_accounts_are_ignored() {
        let body = vector!("payment_intent.succeeded").as_bytes();
        assert!(matches!(parse(body, true, None), Ok(GatewayEvent::Misdirected(_))));

        let of_another =
            vector!("payment_intent.succeeded").replacen('{', r#"{"account": "acct_other","#, 1);
        let ignored = parse(of_another.as_bytes(), false, Some("acct_ours"));
        assert!(matches!(ignored, Ok(GatewayEvent::Misdirected(_))));
        let ours = of_another.replace("acct_other", "acct_ours");
        let ours = parse(ours.as_bytes(), false, Some("acct_ours"));
        assert!(matches!(ours, Ok(GatewayEvent::Snapshot(_))));
    }

    #[test]
    fn a_body_that_lacks_what_is_used_needs_a_person() {
        let intent = |amount: Value, status: &str| {
            json!({
                "id": "pi_1", "amount": amount, "amount_received": 1099, "currency": "usd",
                "status": status, "livemode": false,
            })
        };
        for amount in [json!("1099"), json!(10.99), json!(-1), json!(9_007_199_254_740_993_i64)] {
            let told = event("payment_intent.succeeded", &intent(amount.clone(), "succeeded"));
            assert!(told.is_err(), "{amount}");
        }
        assert!(event("payment_intent.succeeded", &intent(json!(1099), "half_paid")).is_err());
        assert!(event("checkout.session.completed", &json!({ "id": "" })).is_err());
        assert!(event("customer.deleted", &json!({})).is_err());
    }
}
