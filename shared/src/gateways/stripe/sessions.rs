//! Pages that Stripe hosts (Checkout Sessions), in its form encoding: async-stripe's crate for
//! them is heavier than the three requests (docs/decisions/0002-stripe-transport.md).

use serde::{Deserialize, Serialize};
use stripe_client_core::{RequestBuilder, StripeMethod};

use super::errors::{Failure, Unreadable};
use super::intents::is_settled;
use super::objects::{self, Intent, Link, Metadata, Reading};
use super::{Stripe, currency, numbered, told};
use crate::gateways::{GatewayError, IntentRequest, Next, Object, ObjectFacts};
use crate::ids::PaymentId;

/// How the ids of sessions begin; all others are intents.
pub(super) const PREFIX: &str = "cs_";

/// A session. Its money is its intent's.
#[derive(Deserialize)]
struct Session {
    id: String,
    status: Option<Status>,
    url: Option<String>,
    amount_total: Option<i64>,
    currency: Option<String>,
    livemode: bool,
    client_reference_id: Option<String>,
    metadata: Option<Metadata>,
    customer: Option<Link>,
    payment_intent: Option<Link<Intent>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Open,
    Complete,
    Expired,
}

impl Session {
    fn object(self, reading: Reading) -> Result<Object, Unreadable> {
        let (Some(units), Some(currency)) = (self.amount_total, self.currency) else {
            return Err(Unreadable("the session's amount".to_owned()));
        };
        let named = self.metadata.and_then(|mut metadata| metadata.remove("payment_id"));
        let intent = match self.payment_intent {
            Some(Link::Expanded(intent)) => Some(Box::new(intent.object(reading)?)),
            Some(Link::Id(_)) | None => None,
        };
        let is_open = self.status == Some(Status::Open);
        Ok(Object {
            id: objects::storable(self.id)?,
            amount: objects::amount(units, &currency)?,
            names_payment: named.or(self.client_reference_id),
            is_ours: self.livemode == reading.livemode,
            facts: ObjectFacts {
                is_voided: self.status == Some(Status::Expired),
                ..ObjectFacts::default()
            },
            next: self.url.filter(|_| is_open).map_or(Next::Nothing, Next::Approve),
            gateway_customer: self.customer.and_then(Link::into_id),
            saved_method: None,
            payer: None,
            intent,
        })
    }
}

/// What is sent to open a session.
#[derive(Serialize)]
struct Create<'a> {
    mode: &'static str,
    client_reference_id: String,
    success_url: &'a str,
    cancel_url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    customer: Option<&'a str>,
    line_items: [LineItem<'a>; 1],
    metadata: Names,
    payment_intent_data: IntentParams<'a>,
    expand: [&'static str; 1],
}

#[derive(Serialize)]
struct Names {
    payment_id: String,
}

#[derive(Serialize)]
struct LineItem<'a> {
    quantity: u32,
    price_data: Price<'a>,
}

#[derive(Serialize)]
struct Price<'a> {
    currency: String,
    unit_amount: i64,
    product_data: Product<'a>,
}

#[derive(Serialize)]
struct Product<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct IntentParams<'a> {
    description: &'a str,
    metadata: Names,
    #[serde(skip_serializing_if = "Option::is_none")]
    setup_future_usage: Option<&'static str>,
}

#[derive(Serialize)]
struct Expand {
    expand: [&'static str; 1],
}

/// Shows the session's intent with it, so that the intent is learned by our own read.
const WITH_INTENT: [&str; 1] = ["payment_intent"];

impl Stripe {
    /// Opens a page on which the payer pays.
    pub(super) async fn open_session(
        &self,
        request: &IntentRequest,
    ) -> Result<Object, GatewayError> {
        let create = create(request)?;
        let call = RequestBuilder::new(StripeMethod::Post, "/checkout/sessions").form(&create);
        let key = numbered("cs-create", request.payment_id, request.attempt);
        let session: Session = self.open(&key, &call).await?;
        Ok(session.object(self.reading())?)
    }

    /// Where a session and its intent stand.
    pub(super) async fn read_session(&self, id: &str) -> Result<Object, GatewayError> {
        let call = RequestBuilder::new(StripeMethod::Get, format!("/checkout/sessions/{id}"))
            .query(&Expand { expand: WITH_INTENT });
        let session: Session = self.transport.without_key().send(&call).await?;
        Ok(session.object(self.reading())?)
    }

    /// Closes a session and then its intent, which may still collect; where the payer was quicker,
    /// says how they stand.
    pub(super) async fn expire_session(
        &self,
        id: &str,
        payment_id: PaymentId,
    ) -> Result<Object, GatewayError> {
        let path = format!("/checkout/sessions/{id}/expire");
        let call = RequestBuilder::new(StripeMethod::Post, path);
        let key = format!("cancel:{payment_id}:{id}");
        let expired: Result<serde::de::IgnoredAny, Failure> =
            self.transport.with_key(&key).send(&call).await;
        let mut session = match expired {
            Ok(_) | Err(Failure::Refused(_)) => self.read_session(id).await?,
            Err(failure) => return Err(failure.into()),
        };
        if let (Err(failure), Next::Approve(_)) = (expired, &session.next) {
            return Err(failure.into());
        }
        if let Some(intent) = session.intent.take() {
            let is_open = !is_settled(&intent);
            let intent = if is_open { self.cancel(&intent.id, payment_id).await? } else { *intent };
            session.intent = Some(Box::new(intent));
        }
        Ok(session)
    }
}

fn create(request: &IntentRequest) -> Result<Create<'_>, GatewayError> {
    let names = || Names { payment_id: request.payment_id.to_string() };
    let is_saved = request.saves_method && request.gateway_customer.is_some();
    Ok(Create {
        mode: "payment",
        client_reference_id: request.payment_id.to_string(),
        success_url: &request.return_url,
        cancel_url: &request.cancel_url,
        customer: request.gateway_customer.as_deref(),
        line_items: [LineItem {
            quantity: 1,
            price_data: Price {
                currency: currency(request.amount).to_string(),
                unit_amount: told(request.amount)?,
                product_data: Product { name: &request.description },
            },
        }],
        metadata: names(),
        payment_intent_data: IntentParams {
            description: &request.description,
            metadata: names(),
            setup_future_usage: is_saved.then_some("off_session"),
        },
        expand: WITH_INTENT,
    })
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::{Value, json};

    use super::*;
    use crate::gateways::Form;
    use crate::money::{Currency, Money};

    fn read(status: &str, intent: &Value) -> Object {
        let session = json!({
            "id": "cs_test_1", "status": status, "url": "https://checkout.stripe.com/c/pay/cs_1",
            "amount_total": 1099, "currency": "usd", "livemode": false, "customer": null,
            "client_reference_id": "p", "metadata": {}, "payment_intent": intent,
        });
        let reading = Reading { livemode: false, at: DateTime::UNIX_EPOCH };
        serde_json::from_value::<Session>(session).unwrap().object(reading).unwrap()
    }

    #[test]
    fn a_session_never_captures_itself_but_shows_its_intent() {
        let intent = json!({
            "id": "pi_1", "amount": 1099, "amount_received": 1099, "currency": "usd",
            "status": "succeeded", "livemode": false, "latest_charge": "ch_1",
        });
        let paid = read("complete", &intent);
        assert_eq!(paid.facts, ObjectFacts::default());
        assert!(matches!(paid.next, Next::Nothing));
        assert!(paid.intent.unwrap().facts.captured.is_some());

        let open = read("open", &Value::Null);
        assert!(matches!(open.next, Next::Approve(_)) && open.intent.is_none());
        assert_eq!(open.names_payment.as_deref(), Some("p"));

        assert!(read("expired", &json!("pi_1")).facts.is_voided);
    }

    #[test]
    fn a_session_is_asked_for_with_one_line_that_names_the_payment_three_times() {
        let payment_id = PaymentId::new(DateTime::UNIX_EPOCH);
        let request = IntentRequest {
            payment_id,
            attempt: 0,
            form: Form::HostedPage,
            amount: Money::new(1_500, Currency::USD),
            description: "Basic & more".to_owned(),
            return_url: "https://app.example.com/done?a=1&b={CHECKOUT_SESSION_ID}".to_owned(),
            cancel_url: "https://app.example.com/".to_owned(),
            gateway_customer: Some("cus_1".to_owned()),
            saves_method: true,
        };
        let call = RequestBuilder::new(StripeMethod::Post, "/").form(&create(&request).unwrap());
        let body = call.body.unwrap();
        let sent: Vec<(String, String)> =
            form_urlencoded::parse(body.as_bytes()).into_owned().collect();
        let value = |name: &str| {
            let pair = sent.iter().find(|(other, _)| other == name);
            pair.map(|(_, value)| value.as_str()).unwrap_or_default()
        };
        assert_eq!(sent.iter().filter(|(_, value)| *value == payment_id.to_string()).count(), 3);
        assert_eq!(value("line_items[0][price_data][unit_amount]"), "1500");
        assert_eq!(value("line_items[0][price_data][product_data][name]"), "Basic & more");
        assert_eq!(value("payment_intent_data[setup_future_usage]"), "off_session");
        assert_eq!(value("success_url"), request.return_url);
    }
}
