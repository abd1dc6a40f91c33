//! Customers.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Books;
use super::error::StripeError;
use super::form::{self, Metadata, Params};
use super::lists::{Page, Span};
use super::methods;
use crate::ids;
use crate::table::Row;
use crate::world::{News, Turn};

/// A customer; a deleted one stays as an empty shell.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Customer {
    id: String,
    created: i64,
    email: Option<String>,
    name: Option<String>,
    phone: Option<String>,
    description: Option<String>,
    metadata: Metadata,
    default_method: Option<String>,
    invoice_prefix: String,
    pub(super) is_deleted: bool,
}

impl Row for Customer {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Customer {
    pub(super) fn json(&self) -> Value {
        json!({
            "id": self.id,
            "object": "customer",
            "address": null,
            "balance": 0,
            "created": self.created,
            "currency": null,
            "customer_account": null,
            "default_source": null,
            "delinquent": false,
            "description": self.description,
            "discount": null,
            "email": self.email,
            "invoice_prefix": self.invoice_prefix,
            "invoice_settings": {
                "custom_fields": null,
                "default_payment_method": self.default_method,
                "footer": null,
                "rendering_options": null,
            },
            "livemode": false,
            "metadata": self.metadata,
            "name": self.name,
            "next_invoice_sequence": 1,
            "phone": self.phone,
            "preferred_locales": [],
            "shipping": null,
            "tax_exempt": "none",
            "test_clock": null,
        })
    }
}

/// What one may say of a customer.
#[derive(Default)]
struct Wishes {
    email: Option<String>,
    name: Option<String>,
    phone: Option<String>,
    description: Option<String>,
    metadata: Option<Metadata>,
    default_method: Option<String>,
}

/// Parameters that are accepted and change nothing here.
const WITHOUT_EFFECT: &[&str] =
    &["address", "preferred_locales", "shipping", "tax", "tax_exempt", "invoice_prefix"];

fn wishes(params: &mut Params) -> Result<Wishes, StripeError> {
    params.ignore(WITHOUT_EFFECT);
    let default_method = match params.map("invoice_settings")? {
        None => None,
        Some(mut settings) => {
            let method = settings.text("default_payment_method")?;
            settings.finish()?;
            method
        }
    };
    let email = params.text("email")?;
    if email.as_ref().is_some_and(|email| !email.contains('@')) {
        let text = format!("Invalid email address: {}", email.unwrap_or_default());
        return Err(StripeError::invalid(text).code("email_invalid").param("email"));
    }
    Ok(Wishes {
        email,
        name: params.text("name")?,
        phone: params.text("phone")?,
        description: params.text("description")?,
        metadata: params.metadata()?,
        default_method,
    })
}

fn find<'a>(turn: &'a Turn<'_>, id: &str) -> Result<&'a Customer, StripeError> {
    let customer = turn.world.stripe.customers.find(id);
    customer.ok_or_else(|| StripeError::missing("customer", id, "id"))
}

/// `POST /v1/customers`
pub(super) fn create(turn: &mut Turn<'_>, mut params: Params) -> Result<Value, StripeError> {
    let wishes = wishes(&mut params)?;
    let method = params.text("payment_method")?;
    params.finish()?;
    let mut metadata = Metadata::new();
    form::merge_some(&mut metadata, wishes.metadata);
    let method = method.map(|method| methods::resolve(turn, &method, None)).transpose()?;
    let id = insert(turn, Wishes { metadata: Some(metadata), ..wishes });
    if let Some(method) = method {
        methods::keep(turn, &method, &id);
    }
    Ok(find(turn, &id)?.json())
}

fn insert(turn: &mut Turn<'_>, wishes: Wishes) -> String {
    let customer = Customer {
        id: ids::stripe_short("cus"),
        created: turn.now.timestamp(),
        email: wishes.email,
        name: wishes.name,
        phone: wishes.phone,
        description: wishes.description,
        metadata: wishes.metadata.unwrap_or_default(),
        default_method: wishes.default_method,
        invoice_prefix: ids::hex(8).to_uppercase(),
        is_deleted: false,
    };
    let (id, object) = (customer.id.clone(), customer.json());
    turn.effects.push(id.clone());
    turn.world.stripe.customers.insert(customer);
    turn.tell_stripe(News { kind: "customer.created", object, object_id: &id, payment_id: None });
    id
}

/// Makes the customer of a payer whom a checkout session met; gives their id.
pub(super) fn meet(turn: &mut Turn<'_>, email: String) -> String {
    insert(turn, Wishes { email: Some(email), ..Wishes::default() })
}

/// Returns a customer's address.
pub(super) fn email(books: &Books, id: &str) -> Option<String> {
    books.customers.find(id)?.email.clone()
}

/// `GET /v1/customers`
pub(super) fn list(turn: &Turn<'_>, mut params: Params) -> Result<Value, StripeError> {
    let page = Page::take(&mut params)?;
    let email = params.text("email")?;
    let span = Span::take(&mut params, "created")?;
    params.finish()?;
    let found = turn.world.stripe.customers.iter().rev().filter(|customer| {
        !customer.is_deleted
            && (email.is_none() || customer.email == email)
            && span.contains(customer.created)
    });
    let found = found.map(|customer| (customer.id.as_str(), customer)).collect();
    page.cut("/v1/customers", found, Customer::json)
}

/// `GET /v1/customers/{id}`
pub(super) fn fetch(turn: &Turn<'_>, id: &str, params: Params) -> Result<Value, StripeError> {
    params.finish()?;
    let customer = find(turn, id)?;
    Ok(if customer.is_deleted { tombstone(id) } else { customer.json() })
}

/// `POST /v1/customers/{id}`
pub(super) fn update(
    turn: &mut Turn<'_>,
    id: &str,
    mut params: Params,
) -> Result<Value, StripeError> {
    let wishes = wishes(&mut params)?;
    params.finish()?;
    let customer = turn.world.stripe.customers.find_mut(id);
    let customer = customer
        .filter(|customer| !customer.is_deleted)
        .ok_or_else(|| StripeError::missing("customer", id, "id"))?;
    let before = customer.json();
    let fields = [
        (&mut customer.email, wishes.email),
        (&mut customer.name, wishes.name),
        (&mut customer.phone, wishes.phone),
        (&mut customer.description, wishes.description),
        (&mut customer.default_method, wishes.default_method),
    ];
    for (field, wish) in fields {
        if wish.is_some() {
            *field = wish;
        }
    }
    form::merge_some(&mut customer.metadata, wishes.metadata);
    let object = customer.json();
    let news =
        News { kind: "customer.updated", object: object.clone(), object_id: id, payment_id: None };
    turn.tell_stripe_change(news, &before);
    Ok(object)
}

/// `DELETE /v1/customers/{id}`: the customer's cards go too.
pub(super) fn delete(turn: &mut Turn<'_>, id: &str, params: Params) -> Result<Value, StripeError> {
    params.finish()?;
    let customer = turn.world.stripe.customers.find_mut(id);
    let customer = customer
        .filter(|customer| !customer.is_deleted)
        .ok_or_else(|| StripeError::missing("customer", id, "id"))?;
    customer.is_deleted = true;
    let object = customer.json();
    let methods = turn.world.stripe.methods.iter_mut();
    for method in methods.filter(|method| method.customer.as_deref() == Some(id)) {
        method.customer = None;
        method.is_spent = true;
    }
    let news = News { kind: "customer.deleted", object, object_id: id, payment_id: None };
    turn.tell_stripe(news);
    Ok(tombstone(id))
}

/// Takes a method that is gone from where new invoices would be charged.
pub(super) fn forget_method(turn: &mut Turn<'_>, id: &str, method: &str) {
    let Some(customer) = turn.world.stripe.customers.find_mut(id) else { return };
    if customer.default_method.as_deref() != Some(method) {
        return;
    }
    let before = customer.json();
    customer.default_method = None;
    let object = customer.json();
    let news = News { kind: "customer.updated", object, object_id: id, payment_id: None };
    turn.tell_stripe_change(news, &before);
}

/// Refuses a customer who is not there any more.
pub(super) fn check(books: &Books, id: &str) -> Result<(), StripeError> {
    match books.customers.find(id) {
        Some(customer) if !customer.is_deleted => Ok(()),
        Some(_) | None => Err(StripeError::missing("customer", id, "customer")),
    }
}

fn tombstone(id: &str) -> Value {
    json!({ "id": id, "object": "customer", "deleted": true })
}
