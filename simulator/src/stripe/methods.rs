//! Payment methods: test cards turned into objects, attached to customers and detached.

use serde_json::Value;

use super::cards::Card;
use super::customers;
use super::error::StripeError;
use super::form::{self, Metadata, Params};
use super::lists::Page;
use super::objects::PaymentMethod;
use crate::ids;
use crate::world::{News, Turn};

fn missing(id: &str, param: &str) -> StripeError {
    StripeError::missing("PaymentMethod", id, param)
}

/// Turns a test method or card number into a new payment method, or checks a saved one.
pub(super) fn resolve(
    turn: &mut Turn<'_>,
    name: &str,
    customer: Option<&str>,
) -> Result<String, StripeError> {
    if let Some(card) = Card::find(name) {
        return Ok(make(turn, card));
    }
    if name.bytes().all(|byte| byte.is_ascii_digit() || byte == b' ') {
        let text = "Your card number is incorrect.";
        return Err(StripeError::card("incorrect_number", text).param("number"));
    }
    let method = turn.world.stripe.methods.find(name);
    let method = method.ok_or_else(|| missing(name, "payment_method"))?;
    if method.is_spent {
        let text = "The provided PaymentMethod was previously used with a PaymentIntent without \
                    Customer attachment, shared with a connected account without Customer \
                    attachment, or was detached from a Customer. It may not be used again. To use a \
                    PaymentMethod multiple times, you must attach it to a Customer first.";
        return Err(StripeError::invalid(text).param("payment_method"));
    }
    if method.customer.is_some() && method.customer.as_deref() != customer {
        let owner = method.customer.as_deref().unwrap_or_default();
        let text = format!(
            "The PaymentMethod {name} does not belong to the Customer you supplied. Please use \
             this PaymentMethod with the Customer that it belongs to instead ({owner})."
        );
        return Err(StripeError::invalid(text).param("payment_method"));
    }
    Ok(method.id.clone())
}

fn make(turn: &mut Turn<'_>, card: &Card) -> String {
    let id = ids::stripe("pm");
    turn.world.stripe.methods.insert(PaymentMethod {
        id: id.clone(),
        created: turn.now.timestamp(),
        number: card.number.into(),
        customer: None,
        metadata: Metadata::new(),
        is_authenticated: false,
        is_spent: false,
    });
    id
}

/// `GET /v1/payment_methods/{id}`
pub(super) fn fetch(turn: &Turn<'_>, id: &str, params: Params) -> Result<Value, StripeError> {
    params.finish()?;
    let method = turn.world.stripe.methods.find(id).ok_or_else(|| missing(id, "id"))?;
    Ok(method.json())
}

/// `GET /v1/payment_methods?customer=`
pub(super) fn list(turn: &Turn<'_>, mut params: Params) -> Result<Value, StripeError> {
    let page = Page::take(&mut params)?;
    let customer = params.required("customer")?;
    cut(turn, page, &customer, params, "/v1/payment_methods")
}

/// `GET /v1/customers/{id}/payment_methods`
pub(super) fn list_of(
    turn: &Turn<'_>,
    customer: &str,
    mut params: Params,
) -> Result<Value, StripeError> {
    let page = Page::take(&mut params)?;
    let url = format!("/v1/customers/{customer}/payment_methods");
    cut(turn, page, customer, params, &url)
}

fn cut(
    turn: &Turn<'_>,
    page: Page,
    customer: &str,
    mut params: Params,
    url: &str,
) -> Result<Value, StripeError> {
    let kind = params.text("type")?;
    params.ignore(&["allow_redisplay"]);
    params.finish()?;
    if turn.world.stripe.customers.find(customer).is_none() {
        return Err(StripeError::missing("customer", customer, "customer"));
    }
    let is_card = kind.is_none_or(|kind| kind == "card");
    let found = turn.world.stripe.methods.iter().rev();
    let found = found.filter(|method| is_card && method.customer.as_deref() == Some(customer));
    let found = found.map(|method| (method.id.as_str(), method)).collect();
    page.cut(url, found, PaymentMethod::json)
}

/// `GET /v1/customers/{customer}/payment_methods/{id}`
pub(super) fn fetch_of(
    turn: &Turn<'_>,
    customer: &str,
    id: &str,
    params: Params,
) -> Result<Value, StripeError> {
    params.finish()?;
    let method = turn.world.stripe.methods.find(id);
    let method = method.filter(|method| method.customer.as_deref() == Some(customer));
    Ok(method.ok_or_else(|| missing(id, "id"))?.json())
}

/// `POST /v1/payment_methods/{id}`
pub(super) fn update(
    turn: &mut Turn<'_>,
    id: &str,
    mut params: Params,
) -> Result<Value, StripeError> {
    let wish = params.metadata()?;
    params.ignore(&["allow_redisplay", "billing_details", "card"]);
    params.finish()?;
    let method = turn.world.stripe.methods.find_mut(id).ok_or_else(|| missing(id, "id"))?;
    if method.customer.is_none() {
        let text = "You must save this PaymentMethod to a customer before you can update it.";
        return Err(StripeError::invalid(text));
    }
    let before = method.json();
    form::merge_some(&mut method.metadata, wish);
    Ok(tell(turn, "payment_method.updated", id, Some(&before)))
}

/// `POST /v1/payment_methods/{id}/attach`
pub(super) fn attach(
    turn: &mut Turn<'_>,
    id: &str,
    mut params: Params,
) -> Result<Value, StripeError> {
    let customer = params.required("customer")?;
    params.finish()?;
    customers::check(&turn.world.stripe, &customer)?;
    let id = match Card::find(id) {
        Some(card) => make(turn, card),
        None => id.to_owned(),
    };
    let method = turn.world.stripe.methods.find_mut(&id).ok_or_else(|| missing(&id, "id"))?;
    if method.is_spent || method.customer.as_ref().is_some_and(|owner| *owner != customer) {
        let text = "The payment method you provided has already been attached to a customer.";
        return Err(StripeError::invalid(text).param("id"));
    }
    if method.customer.is_some() {
        return Ok(method.json());
    }
    method.customer = Some(customer);
    Ok(tell(turn, "payment_method.attached", &id, None))
}

/// Keeps a method that has just paid or been set up for its customer's later payments.
pub(super) fn keep(turn: &mut Turn<'_>, id: &str, customer: &str) {
    let method = turn.world.stripe.methods.find_mut(id).expect("it was found before");
    if method.customer.is_none() {
        method.customer = Some(customer.to_owned());
        tell(turn, "payment_method.attached", id, None);
    }
}

/// `POST /v1/payment_methods/{id}/detach`
pub(super) fn detach(turn: &mut Turn<'_>, id: &str, params: Params) -> Result<Value, StripeError> {
    params.finish()?;
    remove(turn, id)
}

/// Takes a method from its customer; it can never be used again.
pub(super) fn remove(turn: &mut Turn<'_>, id: &str) -> Result<Value, StripeError> {
    let method = turn.world.stripe.methods.find_mut(id).ok_or_else(|| missing(id, "id"))?;
    let before = method.json();
    let Some(customer) = method.customer.take() else {
        let text = "The payment method you provided is not attached to a customer so detachment \
                    is impossible.";
        return Err(StripeError::invalid(text).param("id"));
    };
    method.is_spent = true;
    let object = tell(turn, "payment_method.detached", id, Some(&before));
    customers::forget_method(turn, &customer, id);
    Ok(object)
}

fn tell(turn: &mut Turn<'_>, kind: &str, id: &str, before: Option<&Value>) -> Value {
    let object = turn.world.stripe.methods.find(id).expect("it was found before").json();
    let news = News { kind, object: object.clone(), object_id: id, payment_id: None };
    match before {
        Some(before) => turn.tell_stripe_change(news, before),
        None => turn.tell_stripe(news),
    }
    object
}
