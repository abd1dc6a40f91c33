//! Stripe's payment intents in our words: one reading, whether an intent comes as an answer, in an
//! error, in a hosted page or in a signed event. Read tolerantly: only what is used must be there.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::errors::{Decline, Unreadable};
use super::money;
use crate::gateways::{Captured, Next, Object, ObjectFacts, is_storable};
use crate::money::{Currency, Money};

/// What an object is read against.
#[derive(Clone, Copy)]
pub(super) struct Reading {
    /// The mode that is configured.
    pub(super) livemode: bool,
    /// When what the object says is known to hold.
    pub(super) at: DateTime<Utc>,
}

/// An object of which only the id is used.
#[derive(Deserialize)]
pub(super) struct Named {
    pub(super) id: String,
}

/// A reference: the id, or the object itself where it was expanded.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Link<T = Named> {
    Id(String),
    Expanded(Box<T>),
}

impl Link {
    /// The id, if it may be stored.
    pub(super) fn into_id(self) -> Option<String> {
        let id = match self {
            Self::Id(id) => id,
            Self::Expanded(object) => object.id,
        };
        is_storable(&id).then_some(id)
    }
}

/// Keys and values that we wrote.
pub(super) type Metadata = BTreeMap<String, String>;

/// A payment intent.
#[derive(Deserialize)]
pub(super) struct Intent {
    pub(super) id: String,
    amount: i64,
    #[serde(default)]
    amount_received: i64,
    currency: String,
    status: Status,
    livemode: bool,
    #[serde(default)]
    pub(super) created: i64,
    client_secret: Option<String>,
    latest_charge: Option<Link>,
    last_payment_error: Option<Decline>,
    #[serde(default)]
    pub(super) metadata: Metadata,
    customer: Option<Link>,
    payment_method: Option<Link>,
    setup_future_usage: Option<String>,
}

/// Where an intent stands.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    RequiresPaymentMethod,
    RequiresConfirmation,
    RequiresAction,
    RequiresCapture,
    Processing,
    Succeeded,
    Canceled,
    /// A word that Stripe added since: nothing is booked by it.
    #[serde(other)]
    Unknown,
}

impl Intent {
    /// Whether somebody tried to pay it.
    pub(super) fn was_tried(&self) -> bool {
        match self.status {
            Status::RequiresConfirmation => false,
            Status::RequiresPaymentMethod => self.last_payment_error.is_some(),
            Status::RequiresAction
            | Status::RequiresCapture
            | Status::Processing
            | Status::Succeeded
            | Status::Canceled
            | Status::Unknown => true,
        }
    }

    /// The money it brought, and the charge that did.
    pub(super) fn received(self) -> Result<Option<(Money, Option<String>)>, Unreadable> {
        if self.amount_received == 0 {
            return Ok(None);
        }
        let amount = amount(self.amount_received, &self.currency)?;
        Ok(Some((amount, self.latest_charge.and_then(Link::into_id))))
    }

    /// Our words for it.
    pub(super) fn object(self, reading: Reading) -> Result<Object, Unreadable> {
        let id = storable(self.id)?;
        if self.status == Status::Unknown {
            return Err(Unreadable("the intent's status".to_owned()));
        }
        let next = next(self.status, self.client_secret);
        let is_paid = self.status == Status::Succeeded;
        let customer = self.customer.and_then(Link::into_id);
        let is_saved = is_paid && self.setup_future_usage.as_deref() == Some("off_session");
        let method = self.payment_method.and_then(Link::into_id);
        let received = amount(self.amount_received, &self.currency)?;
        let captured = is_paid.then(|| Captured {
            amount: received,
            capture_id: self.latest_charge.and_then(Link::into_id),
            at: reading.at,
        });
        let failure = self.last_payment_error;
        let facts = ObjectFacts {
            captured,
            is_declined: failure.is_some() && !is_paid && self.status != Status::Processing,
            is_voided: self.status == Status::Canceled,
            is_processing: self.status == Status::Processing,
            is_approved: false,
            failure_code: word(failure.as_ref().and_then(Decline::failure_code)),
            failure: failure.as_ref().and_then(Decline::message),
        };
        Ok(Object {
            id,
            amount: amount(self.amount, &self.currency)?,
            names_payment: self.metadata.get("payment_id").cloned(),
            is_ours: self.livemode == reading.livemode,
            facts,
            next,
            payer: None,
            saved_method: method.filter(|_| is_saved && customer.is_some()),
            gateway_customer: customer,
            intent: None,
        })
    }
}

/// The payer goes on while the intent waits for him.
fn next(status: Status, client_secret: Option<String>) -> Next {
    let is_open = match status {
        Status::RequiresPaymentMethod | Status::RequiresConfirmation | Status::RequiresAction => {
            true
        }
        Status::RequiresCapture
        | Status::Processing
        | Status::Succeeded
        | Status::Canceled
        | Status::Unknown => false,
    };
    match client_secret.filter(|_| is_open) {
        Some(secret) => Next::ClientSecret(secret.into()),
        None => Next::Nothing,
    }
}

/// An amount as Stripe writes it.
pub(super) fn amount(units: i64, currency: &str) -> Result<Money, Unreadable> {
    let currency = Currency::parse(currency).map_err(|error| Unreadable(error.to_string()))?;
    money::from_stripe(units, currency).map_err(|error| Unreadable(error.to_string()))
}

/// An id that may be stored.
pub(super) fn storable(id: String) -> Result<String, Unreadable> {
    if is_storable(&id) { Ok(id) } else { Err(Unreadable("the object's id".to_owned())) }
}

/// A code of Stripe's, if it may be stored.
pub(super) fn word(code: Option<String>) -> Option<String> {
    code.filter(|code| is_storable(code))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;
    use serde_json::{Value, json};

    use super::*;

    fn intent(status: &str, more: &Value) -> Value {
        let mut intent = json!({
            "id": "pi_1", "amount": 1099, "currency": "usd", "status": status, "livemode": false,
            "client_secret": "pi_1_secret_x", "metadata": { "payment_id": "p" },
        });
        for (name, value) in more.as_object().unwrap() {
            intent[name] = value.clone();
        }
        intent
    }

    fn read(status: &str, more: &Value) -> Object {
        let reading = Reading { livemode: false, at: DateTime::UNIX_EPOCH };
        let intent: Intent = serde_json::from_value(intent(status, more)).unwrap();
        intent.object(reading).unwrap()
    }

    #[test]
    fn a_decline_leaves_the_intent_open_for_another_card() {
        let error =
            json!({ "code": "card_declined", "decline_code": "lost_card", "message": "No" });
        let object = read("requires_payment_method", &json!({ "last_payment_error": error }));

        assert!(object.facts.is_declined && !object.facts.is_voided);
        assert_eq!(object.facts.failure_code.as_deref(), Some("lost_card"));
        assert_eq!(object.facts.failure.as_deref(), Some("No"));
        let Next::ClientSecret(secret) = object.next else { panic!("it is open") };
        assert_eq!(secret.expose_secret(), "pi_1_secret_x");
    }

    #[test]
    fn a_paid_intent_tells_its_charge_and_hands_out_no_secret() {
        let paid = json!({ "amount_received": 1099, "latest_charge": { "id": "ch_1", "x": 1 } });
        let object = read("succeeded", &paid);

        let captured = object.facts.captured.unwrap();
        assert_eq!(captured.amount, Money::new(1_099, Currency::USD));
        assert_eq!(captured.capture_id.as_deref(), Some("ch_1"));
        assert!(matches!(object.next, Next::Nothing));
    }

    #[test]
    fn a_method_is_saved_only_with_a_customer_and_once_paid() {
        let mut saving = json!({
            "payment_method": "pm_1", "setup_future_usage": "off_session", "customer": "cus_1",
        });
        assert_eq!(read("succeeded", &saving).saved_method.as_deref(), Some("pm_1"));
        assert_eq!(read("processing", &saving).saved_method, None);
        saving["customer"] = Value::Null;
        assert_eq!(read("succeeded", &saving).saved_method, None);
    }

    #[test]
    fn an_unknown_status_or_a_strange_amount_is_not_read() {
        let reading = Reading { livemode: false, at: DateTime::UNIX_EPOCH };
        let unknown: Intent = serde_json::from_value(intent("half_paid", &json!({}))).unwrap();
        assert!(unknown.object(reading).is_err());
        for amount in [json!("1099"), json!(10.99)] {
            let strange = intent("succeeded", &json!({ "amount": amount }));
            assert!(serde_json::from_value::<Intent>(strange).is_err(), "{amount}");
        }
    }

    #[test]
    fn what_cannot_be_stored_is_left_out() {
        let error = json!({ "code": "a\u{0}b", "message": "a\u{0}b" });
        let facts = read("requires_payment_method", &json!({ "last_payment_error": error })).facts;
        assert!(facts.is_declined && facts.failure_code.is_none());
        assert_eq!(facts.failure.as_deref(), Some("a b"));
    }
}
