//! Orders: made, approved by the payer, read.

use axum::http::StatusCode;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::PayPalError;
use super::events::EVENT_BASE;
use super::fields::{self, Amount};
use super::vault::{self, Wish};
use super::{Books, Done, captures, shown, time};
use crate::calls::Inbound;
use crate::ids;
use crate::table::Row;
use crate::world::{News, Turn};

/// Where an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Status {
    Created,
    PayerActionRequired,
    Approved,
    Voided,
    Completed,
}

impl Status {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Status::Created => "CREATED",
            Status::PayerActionRequired => "PAYER_ACTION_REQUIRED",
            Status::Approved => "APPROVED",
            Status::Voided => "VOIDED",
            Status::Completed => "COMPLETED",
        }
    }
}

/// What the payer pays with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Funding {
    /// Money that is there.
    Instant,
    /// An instrument that is refused when captured.
    Declines,
    /// A bank transfer that takes days: the capture pends until it is settled.
    Pending,
}

/// An order with its one purchase unit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) id: String,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
    pub(crate) status: Status,
    pub(crate) amount: Amount,
    pub(crate) reference_id: String,
    pub(crate) custom_id: Option<String>,
    pub(crate) invoice_id: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) return_url: Option<String>,
    pub(crate) cancel_url: Option<String>,
    /// Whether the payer was named a payment source: then links and statuses differ.
    pub(crate) has_source: bool,
    pub(crate) funding: Funding,
    pub(crate) captures: Vec<String>,
    /// When the payer last said yes.
    #[serde(default)]
    approved_at: Option<DateTime<Utc>>,
    /// How the way to pay shall be saved, if so.
    #[serde(default)]
    pub(super) vault_wish: Option<Wish>,
    /// The way to pay that was saved.
    #[serde(default)]
    pub(super) vaulted: Option<String>,
    /// Whether only the event tells its id.
    #[serde(default)]
    pub(super) is_vaulted_late: bool,
    /// The saved way to pay that it is charged to, without the payer.
    #[serde(default)]
    paid_with: Option<Stored>,
}

/// A saved way to pay, as a charge names it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Stored {
    vault_id: String,
    credential: Option<Value>,
}

impl Row for Order {
    fn id(&self) -> &str {
        &self.id
    }
}

/// How long an approved order may wait for its capture: PayPal's default.
const CAPTURE_WITHIN: TimeDelta = TimeDelta::hours(3);

/// The payer's id; the simulator has one buyer.
pub(crate) const PAYER_ID: &str = "QYR5Z8XDVJNXQ";

impl Order {
    /// Returns whether the payer has said yes.
    fn is_approved(&self) -> bool {
        matches!(self.status, Status::Approved | Status::Completed)
    }

    /// Returns the page on which the payer approves.
    pub(crate) fn page(&self, base: &str) -> String {
        format!("{base}/checkoutnow?token={}", self.id)
    }

    fn links(&self, base: &str) -> Vec<Value> {
        let own = format!("{base}/v2/checkout/orders/{}", self.id);
        let mut links = vec![json!({ "href": own, "rel": "self", "method": "GET" })];
        if matches!(self.status, Status::Created | Status::PayerActionRequired) {
            let rel = if self.has_source { "payer-action" } else { "approve" };
            links.push(json!({ "href": self.page(base), "rel": rel, "method": "GET" }));
        }
        if self.captures.is_empty() && self.status != Status::Voided {
            links.push(json!({ "href": own, "rel": "update", "method": "PATCH" }));
            let capture = format!("{own}/capture");
            links.push(json!({ "href": capture, "rel": "capture", "method": "POST" }));
        }
        links
    }
}

/// Returns an order with everything that happened to it.
pub(super) fn json(turn: &Turn<'_>, order: &Order, base: &str) -> Value {
    let books = &turn.world.paypal;
    let mut unit = json!({
        "reference_id": order.reference_id,
        "amount": order.amount.json(),
        "payee": payee(turn),
    });
    let texts = [
        ("custom_id", &order.custom_id),
        ("invoice_id", &order.invoice_id),
        ("description", &order.description),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            unit[name] = json!(text);
        }
    }
    if !order.captures.is_empty() {
        let captures = order.captures.iter().filter_map(|id| books.captures.find(id));
        let captures: Vec<_> = captures.map(|it| it.json_within_order(turn, base)).collect();
        unit["payments"] = json!({ "captures": captures });
        let refunds = order.captures.iter().filter_map(|id| books.captures.find(id));
        let refunds = refunds.flat_map(|capture| &capture.refunds);
        let refunds = refunds.filter_map(|id| books.refunds.find(id));
        let refunds: Vec<_> = refunds.map(|refund| refund.json(turn, base)).collect();
        if !refunds.is_empty() {
            unit["payments"]["refunds"] = json!(refunds);
        }
    }
    let mut body = json!({
        "id": order.id,
        "intent": "CAPTURE",
        "status": order.status.as_str(),
        "purchase_units": [unit],
        "create_time": time(order.created_at),
        "update_time": time(order.updated_at),
        "links": order.links(base),
    });
    if order.has_source {
        body["payment_source"] = json!({ "paypal": {} });
    }
    if order.is_approved() {
        let name = json!({ "given_name": "Jenny", "surname": "Rosen" });
        let address = json!({ "country_code": "US" });
        body["payer"] = json!({
            "name": name,
            "email_address": "buyer@example.com",
            "payer_id": PAYER_ID,
            "address": address,
        });
        body["payment_source"] = json!({ "paypal": {
            "email_address": "buyer@example.com",
            "account_id": PAYER_ID,
            "account_status": "VERIFIED",
            "name": name,
            "address": address,
        }});
        describe_vault(turn, order, base, &mut body["payment_source"]["paypal"]);
    }
    body
}

/// Adds what was saved of an order's way to pay, and what it was charged to.
fn describe_vault(turn: &Turn<'_>, order: &Order, base: &str, source: &mut Value) {
    if let Some(token) = &order.vaulted
        && let Some(token) = turn.world.paypal.payment_tokens.find(token)
    {
        source["attributes"] = if order.is_vaulted_late {
            json!({ "vault": { "status": "APPROVED" } })
        } else {
            token.attributes(base, &order.id)
        };
    }
    if let Some(credential) = order.paid_with.as_ref().and_then(|it| it.credential.as_ref()) {
        source["stored_credential"] = credential.clone();
    }
}

/// Returns whom orders pay.
pub(super) fn payee(turn: &Turn<'_>) -> Value {
    json!({
        "email_address": "merchant@example.com",
        "merchant_id": turn.core.settings.paypal_merchant_id,
    })
}

/// Finds an order named in the path.
pub(super) fn find<'a>(turn: &'a Turn<'_>, id: &str) -> Result<&'a Order, PayPalError> {
    turn.world.paypal.orders.find(id).ok_or_else(PayPalError::missing)
}

/// Tells of an order.
pub(super) fn tell(turn: &mut Turn<'_>, kind: &str, id: &str, summary: &str) {
    let order = turn.world.paypal.orders.find(id).expect("it was found before");
    let payment_id = order.custom_id.clone();
    let object = json(turn, order, EVENT_BASE);
    turn.tell_paypal(News { kind, object, object_id: id, payment_id }, summary);
}

/// Refuses an invoice that was paid before.
pub(super) fn check_invoice(turn: &Turn<'_>, invoice_id: Option<&str>) -> Result<(), PayPalError> {
    if invoice_id.is_some_and(|id| turn.world.paypal.invoices.contains(id)) {
        let text = "Duplicate Invoice ID detected. To avoid a potential duplicate transaction your \
                    account setting requires that Invoice Id be unique for each transaction.";
        return Err(PayPalError::unprocessable("DUPLICATE_INVOICE_ID", text));
    }
    Ok(())
}

/// `POST /v2/checkout/orders`
pub(super) fn create(
    turn: &mut Turn<'_>,
    inbound: &Inbound,
    body: &Value,
) -> Result<Done, PayPalError> {
    let order = read(turn, body)?;
    check_invoice(turn, order.invoice_id.as_deref())?;
    let id = order.id.clone();
    let outcome = match &order.paid_with {
        None => None,
        Some(stored) => {
            vault::require_request_id(inbound)?;
            let funding = vault::chargeable(turn, &stored.vault_id)?.funding;
            Some(captures::fund(turn, funding, None)?)
        }
    };
    turn.effects.push(id.clone());
    turn.world.paypal.orders.insert(order);
    if let Some(outcome) = outcome {
        captures::take(turn, &id, outcome);
    }
    let body = shown(inbound, json(turn, find(turn, &id)?, &turn.core.paypal_url));
    Ok(Done { status: StatusCode::CREATED, body, made: Some(id) })
}

/// Reads the saved way to pay that an order is charged to, if it names one.
fn stored(body: &Value) -> Result<Option<Stored>, PayPalError> {
    let at = "/payment_source/paypal";
    let Some(vault_id) = fields::text(body, &format!("{at}/vault_id"), 255)? else {
        return Ok(None);
    };
    let credential = format!("{at}/stored_credential");
    if let Some(credential_body) = body.pointer(&credential) {
        let choices: [(&str, &[&str]); 2] = [
            ("payment_initiator", &["CUSTOMER", "MERCHANT"]),
            ("usage", &["FIRST", "SUBSEQUENT", "DERIVED"]),
        ];
        for (name, choices) in choices {
            let field = format!("{credential}/{name}");
            let chosen = fields::text(body, &field, 255)?;
            if chosen.as_deref().is_some_and(|chosen| !choices.contains(&chosen)) {
                let text = "The value of a field is invalid.";
                return Err(PayPalError::invalid("INVALID_PARAMETER_VALUE", &field, text));
            }
        }
        return Ok(Some(Stored { vault_id, credential: Some(credential_body.clone()) }));
    }
    Ok(Some(Stored { vault_id, credential: None }))
}

/// Reads an order out of a request.
fn read(turn: &Turn<'_>, body: &Value) -> Result<Order, PayPalError> {
    let intent = fields::required(body, "/intent", 64)?;
    if intent != "CAPTURE" {
        let text = "The simulated merchant captures; authorizations are not simulated.";
        return Err(PayPalError::unprocessable_field("PERMISSION_DENIED", "/intent", text));
    }
    let units = body.get("purchase_units").and_then(Value::as_array).map_or(0, Vec::len);
    if units != 1 {
        let text = "Exactly one purchase unit is simulated.";
        let issue =
            if units == 0 { "MISSING_REQUIRED_PARAMETER" } else { "INVALID_ARRAY_MAX_ITEMS" };
        return Err(PayPalError::invalid(issue, "/purchase_units", text));
    }
    let unit = "/purchase_units/0";
    let source = body.pointer("/payment_source/paypal");
    let paid_with = stored(body)?;
    // The older place of the addresses is still taken.
    let context = match source {
        Some(_) => "/payment_source/paypal/experience_context",
        None => "/application_context",
    };
    let custom_id = fields::text(body, &format!("{unit}/custom_id"), 255)?;
    Ok(Order {
        id: ids::paypal(),
        created_at: turn.now,
        updated_at: turn.now,
        status: match (&paid_with, source) {
            (Some(_), _) => Status::Approved,
            (None, Some(_)) => Status::PayerActionRequired,
            (None, None) => Status::Created,
        },
        amount: fields::amount(body, &format!("{unit}/amount"))?,
        reference_id: fields::text(body, &format!("{unit}/reference_id"), 256)?
            .unwrap_or_else(|| "default".into()),
        custom_id,
        invoice_id: fields::text(body, &format!("{unit}/invoice_id"), 127)?,
        description: fields::text(body, &format!("{unit}/description"), 127)?,
        return_url: fields::text(body, &format!("{context}/return_url"), 2000)?,
        cancel_url: fields::text(body, &format!("{context}/cancel_url"), 2000)?,
        has_source: source.is_some(),
        funding: Funding::Instant,
        captures: Vec::new(),
        approved_at: None,
        vault_wish: vault::wish(body)?,
        vaulted: None,
        is_vaulted_late: false,
        paid_with,
    })
}

/// `GET /v2/checkout/orders/{id}`
pub(super) fn fetch(turn: &Turn<'_>, id: &str) -> Result<Done, PayPalError> {
    let order = find(turn, id)?;
    Ok(Done::read(json(turn, order, &turn.core.paypal_url)))
}

/// The payer says yes. May be said again, with other money, until the order is captured.
pub(crate) fn approve(turn: &mut Turn<'_>, id: &str, funding: Funding) -> Result<(), PayPalError> {
    let now = turn.now;
    let order = turn.world.paypal.orders.find_mut(id).ok_or_else(PayPalError::missing)?;
    match order.status {
        Status::Created | Status::PayerActionRequired | Status::Approved => {}
        Status::Voided | Status::Completed => {
            let text = "The order can no longer be approved.";
            return Err(PayPalError::unprocessable("ORDER_ALREADY_COMPLETED", text));
        }
    }
    order.status = Status::Approved;
    order.approved_at = Some(now);
    order.updated_at = now;
    order.funding = funding;
    turn.world.paypal.approvals.push_back((now, id.to_owned()));
    tell(turn, "CHECKOUT.ORDER.APPROVED", id, "An order has been approved by buyer");
    Ok(())
}

/// Takes back an approval that was not captured: the order ends.
pub(crate) fn reverse_approval(turn: &mut Turn<'_>, id: &str) -> Result<(), PayPalError> {
    let now = turn.now;
    let order = turn.world.paypal.orders.find_mut(id).ok_or_else(PayPalError::missing)?;
    if order.status != Status::Approved {
        let text = "The order is not approved, or no longer waits for its capture.";
        return Err(PayPalError::unprocessable("INVALID_RESOURCE_STATE", text));
    }
    order.status = Status::Voided;
    order.updated_at = now;
    let mut unit = json!({ "reference_id": order.reference_id });
    for (name, text) in [("custom_id", &order.custom_id), ("invoice_id", &order.invoice_id)] {
        if let Some(text) = text {
            unit[name] = json!(text);
        }
    }
    let object = json!({
        "order_id": id,
        "purchase_units": [unit],
        "payment_source": { "paypal": { "email_address": "buyer@example.com" } },
    });
    let payment_id = order.custom_id.clone();
    let kind = "CHECKOUT.PAYMENT-APPROVAL.REVERSED";
    let summary = "A payment has been reversed after approval.";
    turn.tell_paypal(News { kind, object, object_id: id, payment_id }, summary);
    Ok(())
}

/// Returns whether an approval waits for its capture for too long.
pub(crate) fn has_late_approvals(books: &Books, now: DateTime<Utc>) -> bool {
    books.approvals.front().is_some_and(|(at, _)| now - *at >= CAPTURE_WITHIN)
}

/// Takes back the approvals that waited too long.
pub(crate) fn reverse_late_approvals(turn: &mut Turn<'_>) {
    while has_late_approvals(&turn.world.paypal, turn.now) {
        let books = &mut turn.world.paypal;
        let Some((at, id)) = books.approvals.pop_front() else { return };
        if books.capturing.contains(&id) {
            // A capture under way decides; if it fails, the approval is late still.
            books.approvals.push_front((at, id));
            return;
        }
        let order = books.orders.find(&id);
        if order.is_some_and(|it| it.status == Status::Approved && it.approved_at == Some(at)) {
            // It is approved, as was just seen.
            let _ = reverse_approval(turn, &id);
        }
    }
}
