//! The account's history: what a merchant compares its own books with.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::Done;
use super::captures::{Capture, Outcome};
use super::error::PayPalError;
use super::fields::Amount;
use super::orders::PAYER_ID;
use super::refunds::{PayPalRefundOutcome, Refund};
use crate::calls::Inbound;
use crate::world::Turn;

/// The longest span one call may ask for.
const LONGEST: TimeDelta = TimeDelta::days(31);

/// One line of the history.
struct Line<'a> {
    id: &'a str,
    capture: Option<&'a str>,
    /// PayPal's code for what happened.
    code: &'static str,
    status: &'static str,
    initiated_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    amount: Amount,
    fee: Option<Amount>,
    invoice_id: Option<&'a str>,
    custom_id: Option<&'a str>,
}

fn captured(capture: &Capture) -> Line<'_> {
    Line {
        id: &capture.id,
        capture: None,
        code: "T0006",
        status: match capture.outcome {
            Outcome::Completed => "S",
            Outcome::Pending => "P",
            Outcome::Declined => "D",
        },
        initiated_at: capture.created_at,
        updated_at: capture.updated_at,
        amount: capture.amount.clone(),
        fee: Some(capture.amount.of(-capture.fee())),
        invoice_id: capture.invoice_id.as_deref(),
        custom_id: capture.custom_id.as_deref(),
    }
}

fn sent_back(refund: &Refund) -> Line<'_> {
    Line {
        id: &refund.id,
        capture: Some(&refund.capture),
        code: if refund.is_reversal { "T1106" } else { "T1107" },
        status: match refund.status {
            PayPalRefundOutcome::Completed => "S",
            PayPalRefundOutcome::Pending => "P",
            PayPalRefundOutcome::Failed | PayPalRefundOutcome::Cancelled => "D",
        },
        initiated_at: refund.created_at,
        updated_at: refund.updated_at,
        amount: refund.amount.of(-refund.amount.minor),
        fee: None,
        invoice_id: refund.invoice_id.as_deref(),
        custom_id: refund.custom_id.as_deref(),
    }
}

/// Writes an instant as this API does: the offset without a colon.
fn written(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%dT%H:%M:%S%z").to_string()
}

impl Line<'_> {
    fn json(&self, wants_payer: bool) -> Value {
        let mut line = json!({
            "paypal_account_id": PAYER_ID,
            "transaction_id": self.id,
            "transaction_event_code": self.code,
            "transaction_initiation_date": written(self.initiated_at),
            "transaction_updated_date": written(self.updated_at),
            "transaction_amount": self.amount.json(),
            "transaction_status": self.status,
            "protection_eligibility": "01",
        });
        if let Some(capture) = self.capture {
            line["paypal_reference_id"] = json!(capture);
            line["paypal_reference_id_type"] = json!("TXN");
        }
        if let Some(fee) = &self.fee {
            line["fee_amount"] = fee.json();
        }
        for (name, text) in [("invoice_id", self.invoice_id), ("custom_field", self.custom_id)] {
            if let Some(text) = text {
                line[name] = json!(text);
            }
        }
        let mut details = json!({ "transaction_info": line });
        if wants_payer {
            details["payer_info"] = json!({
                "account_id": PAYER_ID,
                "email_address": "buyer@example.com",
                "address_status": "N",
                "payer_status": "Y",
                "payer_name": { "given_name": "Jenny", "surname": "Rosen" },
                "country_code": "US",
            });
        }
        details
    }
}

/// What a call asks for.
#[derive(Default)]
struct Question {
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
    size: usize,
    page: usize,
    id: Option<String>,
    code: Option<String>,
    status: Option<String>,
    currency: Option<String>,
    wants_payer: bool,
    wants_all: bool,
}

fn read(query: &str) -> Result<Question, PayPalError> {
    let mut asked = Question { size: 100, page: 1, ..Question::default() };
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "start_date" => asked.from = Some(super::instant(&name, &value)?),
            "end_date" => asked.to = Some(super::instant(&name, &value)?),
            "page_size" => asked.size = super::number(&name, &value, 1..=500)?,
            "page" => asked.page = super::number(&name, &value, 1..=2_147_483_647)?,
            "transaction_id" => asked.id = Some(value.into_owned()),
            "transaction_type" => asked.code = Some(value.into_owned()),
            "transaction_status" => asked.status = Some(value.into_owned()),
            "transaction_currency" => asked.currency = Some(value.into_owned()),
            "balance_affecting_records_only" => asked.wants_all = value == "N",
            "fields" => {
                asked.wants_payer = value.split(',').any(|it| matches!(it, "all" | "payer_info"));
            }
            _ => {}
        }
    }
    Ok(asked)
}

impl Question {
    fn span(&self) -> Result<(DateTime<Utc>, DateTime<Utc>), PayPalError> {
        let missing = |name| {
            let text = "A required field is missing.";
            PayPalError::bad_query("MISSING_REQUIRED_PARAMETER", name, text)
        };
        let from = self.from.ok_or_else(|| missing("start_date"))?;
        let to = self.to.ok_or_else(|| missing("end_date"))?;
        if to < from {
            let text = "The end must not come before the start.";
            return Err(PayPalError::bad_query("INVALID_PARAMETER_VALUE", "end_date", text));
        }
        if to - from > LONGEST {
            let text = "Date range is greater than 31 days";
            return Err(PayPalError::bad_query("INVALID_PARAMETER_VALUE", "end_date", text));
        }
        Ok((from, to))
    }

    fn wants(&self, line: &Line<'_>) -> bool {
        let is = |wish: &Option<String>, value: &str| wish.as_ref().is_none_or(|it| it == value);
        is(&self.id, line.id)
            && is(&self.code, line.code)
            && is(&self.status, line.status)
            && is(&self.currency, &line.amount.currency)
            // What moved no money is shown only to those who ask for it.
            && (self.wants_all || self.status.is_some() || line.status == "S")
    }
}

/// `GET /v1/reporting/transactions`: oldest first. PayPal's own takes up to three hours to show a line.
pub(super) fn list(turn: &Turn<'_>, inbound: &Inbound) -> Result<Done, PayPalError> {
    let asked = read(&inbound.query)?;
    let (from, to) = asked.span()?;
    let books = &turn.world.paypal;
    let movements = books.captures.iter().map(captured).chain(books.refunds.iter().map(sent_back));
    let mut found: Vec<_> = movements
        .filter(|line| (from..=to).contains(&line.initiated_at) && asked.wants(line))
        .collect();
    found.sort_by_key(|line| line.initiated_at);
    let pages = found.len().div_ceil(asked.size);
    let page = found.iter().skip((asked.page - 1).saturating_mul(asked.size)).take(asked.size);
    let page: Vec<_> = page.map(|line| line.json(asked.wants_payer)).collect();
    let query = super::query_without(&inbound.query, &["page"]);
    let address = format!("{}/v1/reporting/transactions?{query}", turn.core.paypal_url);
    let link = |rel: &str, page: usize| json!({ "href": format!("{address}&page={page}"), "rel": rel, "method": "GET" });
    let mut links = vec![link("self", asked.page)];
    if asked.page > 1 {
        links.push(link("first", 1));
        links.push(link("prev", asked.page - 1));
    }
    if asked.page < pages {
        links.push(link("next", asked.page + 1));
        links.push(link("last", pages));
    }
    Ok(Done::read(json!({
        "transaction_details": page,
        "account_number": turn.core.settings.paypal_merchant_id,
        "start_date": written(from),
        "end_date": written(to),
        "last_refreshed_datetime": written(turn.now),
        "page": asked.page,
        "total_items": found.len(),
        "total_pages": pages,
        "links": links,
    })))
}
