//! Saved ways to pay: made with an order or on their own, charged without the payer, deleted.

use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::PayPalError;
use super::events::EVENT_BASE;
use super::orders::{Funding, PAYER_ID};
use super::{Done, fields};
use crate::calls::Inbound;
use crate::ids;
use crate::table::Row;
use crate::world::{News, Turn};

/// What a merchant asks when it wants a way to pay saved.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Wish {
    usage_type: String,
    usage_pattern: Option<String>,
    description: Option<String>,
    customer: Option<String>,
}

/// A saved way to pay.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PaymentToken {
    pub(crate) id: String,
    pub(crate) customer: String,
    pub(crate) created_at: DateTime<Utc>,
    /// The order that was paid when it was saved.
    order: Option<String>,
    wish: Wish,
    /// What a charge of it meets.
    pub(crate) funding: Funding,
    pub(crate) is_deleted: bool,
}

impl Row for PaymentToken {
    fn id(&self) -> &str {
        &self.id
    }
}

/// Where a setup token stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SetupStatus {
    PayerActionRequired,
    Approved,
    Vaulted,
}

/// A way to pay about to be saved, once its owner says yes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SetupToken {
    pub(crate) id: String,
    pub(crate) status: SetupStatus,
    pub(crate) return_url: Option<String>,
    pub(crate) cancel_url: Option<String>,
    customer: String,
    wish: Wish,
}

impl Row for SetupToken {
    fn id(&self) -> &str {
        &self.id
    }
}

/// The account behind every saved way to pay; the simulator has one buyer.
fn account(wish: &Wish) -> Value {
    let mut account = json!({
        "email_address": "buyer@example.com",
        "payer_id": PAYER_ID,
        "account_id": PAYER_ID,
        "name": { "given_name": "Jenny", "surname": "Rosen" },
        "usage_type": wish.usage_type,
        "permit_multiple_payment_tokens": false,
    });
    let texts = [("usage_pattern", &wish.usage_pattern), ("description", &wish.description)];
    for (name, text) in texts {
        if let Some(text) = text {
            account[name] = json!(text);
        }
    }
    account
}

fn token_links(base: &str, id: &str) -> Vec<Value> {
    let own = format!("{base}/v3/vault/payment-tokens/{id}");
    vec![
        json!({ "href": own, "rel": "self", "method": "GET" }),
        json!({ "href": own, "rel": "delete", "method": "DELETE" }),
    ]
}

impl PaymentToken {
    pub(super) fn json(&self, base: &str) -> Value {
        let mut body = json!({
            "id": self.id,
            "customer": { "id": self.customer },
            "payment_source": { "paypal": account(&self.wish) },
            "links": token_links(base, &self.id),
        });
        if let Some(order) = &self.order {
            body["metadata"] = json!({ "order_id": order });
        }
        body
    }

    /// What a paid order says of the way to pay that was saved with it.
    pub(super) fn attributes(&self, base: &str, order: &str) -> Value {
        let mut links = token_links(base, &self.id);
        let up = format!("{base}/v2/checkout/orders/{order}");
        links.push(json!({ "href": up, "rel": "up", "method": "GET" }));
        json!({ "vault": {
            "id": self.id,
            "status": "VAULTED",
            "customer": { "id": self.customer },
            "links": links,
        }})
    }
}

impl SetupToken {
    /// Returns the page on which the payer approves.
    pub(crate) fn page(&self, base: &str) -> String {
        format!("{base}/agreements/approve?approval_session_id={}", self.id)
    }

    pub(super) fn json(&self, base: &str) -> Value {
        let own = format!("{base}/v3/vault/setup-tokens/{}", self.id);
        let confirm = format!("{base}/v3/vault/payment-tokens");
        let mut links = vec![json!({ "href": own, "rel": "self", "method": "GET" })];
        let (status, source) = match self.status {
            SetupStatus::PayerActionRequired => {
                let page = self.page(base);
                links.push(json!({ "href": page, "rel": "approve", "method": "GET" }));
                let mut source = account(&self.wish);
                for name in ["email_address", "payer_id", "account_id", "name"] {
                    source.as_object_mut().expect("it is an object").remove(name);
                }
                ("PAYER_ACTION_REQUIRED", source)
            }
            SetupStatus::Approved => {
                links.push(json!({ "href": confirm, "rel": "confirm", "method": "POST" }));
                ("APPROVED", account(&self.wish))
            }
            SetupStatus::Vaulted => ("VAULTED", account(&self.wish)),
        };
        json!({
            "id": self.id,
            "customer": { "id": self.customer },
            "status": status,
            "payment_source": { "paypal": source },
            "links": links,
        })
    }
}

/// Reads the wish to save the way an order is paid, if there is one.
pub(super) fn wish(body: &Value) -> Result<Option<Wish>, PayPalError> {
    let at = "/payment_source/paypal/attributes/vault";
    if body.pointer(at).is_none() {
        return Ok(None);
    }
    let when = format!("{at}/store_in_vault");
    if fields::required(body, &when, 255)? != "ON_SUCCESS" {
        let text = "The value of a field is invalid.";
        return Err(PayPalError::invalid("INVALID_PARAMETER_VALUE", &when, text));
    }
    let customer = "/payment_source/paypal/attributes/customer/id";
    read_wish(body, at, customer).map(Some)
}

fn read_wish(body: &Value, at: &str, customer: &str) -> Result<Wish, PayPalError> {
    let usage = format!("{at}/usage_type");
    let usage_type = fields::required(body, &usage, 255)?;
    if !matches!(usage_type.as_str(), "MERCHANT" | "PLATFORM") {
        let text = "The value of a field is invalid.";
        return Err(PayPalError::invalid("INVALID_PARAMETER_VALUE", &usage, text));
    }
    Ok(Wish {
        usage_type,
        usage_pattern: fields::text(body, &format!("{at}/usage_pattern"), 30)?,
        description: fields::text(body, &format!("{at}/description"), 128)?,
        customer: fields::text(body, customer, 22)?,
    })
}

/// Saves the way an order was paid, if that was asked and not yet done.
pub(super) fn store(turn: &mut Turn<'_>, order_id: &str) {
    let order = turn.world.paypal.orders.find(order_id).expect("it was found before");
    let Some(wish) = order.vault_wish.clone().filter(|_| order.vaulted.is_none()) else { return };
    let funding = order.funding;
    let id = save(turn, wish, Some(order_id.to_owned()), funding);
    let is_told_late = turn.world.paypal.vaults_late;
    let order = turn.world.paypal.orders.find_mut(order_id).expect("it was found before");
    order.vaulted = Some(id.clone());
    order.is_vaulted_late = is_told_late;
    tell(turn, &id, "VAULT.PAYMENT-TOKEN.CREATED", "A payment token has been created.");
}

fn save(turn: &mut Turn<'_>, wish: Wish, order: Option<String>, funding: Funding) -> String {
    let token = PaymentToken {
        id: ids::token(8).to_lowercase(),
        customer: wish.customer.clone().unwrap_or_else(|| ids::token(10)),
        created_at: turn.now,
        order,
        wish,
        funding,
        is_deleted: false,
    };
    let id = token.id.clone();
    turn.effects.push(id.clone());
    turn.world.paypal.payment_tokens.insert(token);
    id
}

fn tell(turn: &mut Turn<'_>, id: &str, kind: &str, summary: &str) {
    let books = &turn.world.paypal;
    let token = books.payment_tokens.find(id).expect("it was found before");
    let order = token.order.as_ref().and_then(|order| books.orders.find(order));
    let payment_id = order.and_then(|order| order.custom_id.clone());
    let object = token.json(EVENT_BASE);
    turn.tell_paypal(News { kind, object, object_id: id, payment_id }, summary);
}

/// Finds a saved way to pay that is still good for a charge.
pub(super) fn chargeable<'a>(
    turn: &'a Turn<'_>,
    id: &str,
) -> Result<&'a PaymentToken, PayPalError> {
    let token = turn.world.paypal.payment_tokens.find(id).filter(|token| !token.is_deleted);
    token.ok_or_else(|| {
        let text = "Specified token was not found. Verify the token and try the request again.";
        let field = "/payment_source/paypal/vault_id";
        PayPalError::unprocessable_field("TOKEN_ID_NOT_FOUND", field, text)
    })
}

/// Refuses a call that must name a request id and does not.
pub(super) fn require_request_id(inbound: &Inbound) -> Result<(), PayPalError> {
    if inbound.key.as_ref().is_none_or(String::is_empty) {
        let text = "A PayPal-Request-Id is required if you are trying to process payment for an \
                    Order. Please specify a PayPal-Request-Id or Create the Order without a \
                    'payment_source' specified.";
        return Err(PayPalError::bad_header(
            "PAYPAL_REQUEST_ID_REQUIRED",
            "PayPal-Request-Id",
            text,
        ));
    }
    Ok(())
}

/// `POST /v3/vault/setup-tokens`
pub(super) fn create_setup(
    turn: &mut Turn<'_>,
    inbound: &Inbound,
    body: &Value,
) -> Result<Done, PayPalError> {
    require_request_id(inbound)?;
    let at = "/payment_source/paypal";
    if body.pointer(at).is_none() {
        let text = "Only PayPal accounts are saved here.";
        return Err(PayPalError::invalid("MISSING_REQUIRED_PARAMETER", at, text));
    }
    let wish = read_wish(body, at, "/customer/id")?;
    let token = SetupToken {
        id: ids::paypal(),
        status: SetupStatus::PayerActionRequired,
        return_url: fields::text(body, &format!("{at}/experience_context/return_url"), 2000)?,
        cancel_url: fields::text(body, &format!("{at}/experience_context/cancel_url"), 2000)?,
        customer: wish.customer.clone().unwrap_or_else(|| ids::token(10)),
        wish,
    };
    let id = token.id.clone();
    turn.effects.push(id.clone());
    let body = token.json(&turn.core.paypal_url);
    turn.world.paypal.setup_tokens.insert(token);
    Ok(Done { status: StatusCode::CREATED, body, made: Some(id) })
}

/// `GET /v3/vault/setup-tokens/{id}`
pub(super) fn fetch_setup(turn: &Turn<'_>, id: &str) -> Result<Done, PayPalError> {
    let token = turn.world.paypal.setup_tokens.find(id).ok_or_else(PayPalError::missing)?;
    Ok(Done::read(token.json(&turn.core.paypal_url)))
}

/// The payer lets a way to pay be saved.
pub(crate) fn approve_setup(turn: &mut Turn<'_>, id: &str) -> Result<(), PayPalError> {
    let token = turn.world.paypal.setup_tokens.find_mut(id).ok_or_else(PayPalError::missing)?;
    match token.status {
        SetupStatus::PayerActionRequired | SetupStatus::Approved => {
            token.status = SetupStatus::Approved;
            Ok(())
        }
        SetupStatus::Vaulted => {
            let text = "The setup token was used.";
            Err(PayPalError::unprocessable("INVALID_RESOURCE_STATE", text))
        }
    }
}

/// `POST /v3/vault/payment-tokens`
pub(super) fn create_payment_token(
    turn: &mut Turn<'_>,
    inbound: &Inbound,
    body: &Value,
) -> Result<Done, PayPalError> {
    require_request_id(inbound)?;
    let field = "/payment_source/token/id";
    let id = fields::required(body, field, 36)?;
    let kind = fields::required(body, "/payment_source/token/type", 255)?;
    if kind != "SETUP_TOKEN" {
        let text = "The value of a field is invalid.";
        let field = "/payment_source/token/type";
        return Err(PayPalError::invalid("INVALID_PARAMETER_VALUE", field, text));
    }
    let Some(setup) = turn.world.paypal.setup_tokens.find_mut(&id) else {
        let text = "Specified token was not found. Verify the token and try the request again.";
        return Err(PayPalError::unprocessable_field("TOKEN_NOT_FOUND", field, text));
    };
    match setup.status {
        SetupStatus::Approved => setup.status = SetupStatus::Vaulted,
        SetupStatus::PayerActionRequired | SetupStatus::Vaulted => {
            let text = "The setup token is not approved by its payer, or was used.";
            return Err(PayPalError::unprocessable_field("INVALID_RESOURCE_STATE", field, text));
        }
    }
    let wish = Wish { customer: Some(setup.customer.clone()), ..setup.wish.clone() };
    let id = save(turn, wish, None, Funding::Instant);
    tell(turn, &id, "VAULT.PAYMENT-TOKEN.CREATED", "A payment token has been created.");
    let token = turn.world.paypal.payment_tokens.find(&id).expect("it was just made");
    let body = token.json(&turn.core.paypal_url);
    Ok(Done { status: StatusCode::CREATED, body, made: Some(id) })
}

/// `GET /v3/vault/payment-tokens/{id}`
pub(super) fn fetch(turn: &Turn<'_>, id: &str) -> Result<Done, PayPalError> {
    let token = turn.world.paypal.payment_tokens.find(id).filter(|token| !token.is_deleted);
    Ok(Done::read(token.ok_or_else(PayPalError::missing)?.json(&turn.core.paypal_url)))
}

/// `GET /v3/vault/payment-tokens?customer_id=`
pub(super) fn list(turn: &Turn<'_>, inbound: &Inbound) -> Result<Done, PayPalError> {
    let (mut size, mut page, mut customer, mut wants_total) = (5, 1, None, false);
    for (name, value) in form_urlencoded::parse(inbound.query.as_bytes()) {
        match &*name {
            "page_size" => size = super::number(&name, &value, 1..=20)?,
            "page" => page = super::number(&name, &value, 1..=10)?,
            "customer_id" => customer = Some(value.into_owned()),
            "total_required" => wants_total = value == "true",
            _ => {}
        }
    }
    let Some(customer) = customer else {
        let text = "A required field is missing.";
        return Err(PayPalError::bad_query("MISSING_REQUIRED_PARAMETER", "customer_id", text));
    };
    let base = &turn.core.paypal_url;
    let tokens = turn.world.paypal.payment_tokens.iter();
    let tokens: Vec<_> = tokens.filter(|it| it.customer == customer && !it.is_deleted).collect();
    let shown = tokens.iter().skip((page - 1) * size).take(size);
    let shown: Vec<_> = shown.map(|token| token.json(base)).collect();
    let own = format!("{base}/v3/vault/payment-tokens?{}", inbound.query);
    let mut body = json!({
        "customer": { "id": customer },
        "payment_tokens": shown,
        "links": [{ "href": own, "rel": "self", "method": "GET" }],
    });
    if wants_total {
        body["total_items"] = json!(tokens.len());
        body["total_pages"] = json!(tokens.len().div_ceil(size));
    }
    Ok(Done::read(body))
}

/// Deletes a saved way to pay, by the merchant or its owner; returns whether it was there.
pub(crate) fn delete(turn: &mut Turn<'_>, id: &str) -> bool {
    let token = turn.world.paypal.payment_tokens.find_mut(id);
    let Some(token) = token.filter(|token| !token.is_deleted) else { return false };
    token.is_deleted = true;
    tell(turn, id, "VAULT.PAYMENT-TOKEN.DELETED", "A payment token has been deleted.");
    true
}
