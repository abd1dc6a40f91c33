//! What PayPal lists: events whose webhook may have been lost, and money it collected for us.

use chrono::{DateTime, Duration, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::links::{Link, is_id, next_query};
use super::money::Amount;
use super::{PayPal, events};
use crate::gateways::{FetchedEvent, GatewayCapture, GatewayError, Page, Span};

const EVENTS: &str = "/v1/notifications/webhooks-events";
const TRANSACTIONS: &str = "/v1/reporting/transactions";

/// PayPal gives up to 300; a hundred bodies are about 300 KiB.
const EVENTS_A_PAGE: u32 = 100;

/// PayPal's most.
const TRANSACTIONS_A_PAGE: u32 = 500;

/// The longest span that PayPal's reporting answers for.
const WINDOW: Duration = Duration::days(31);

/// PayPal's reporting ends at ten thousand rows.
const MAX_PAGES: u32 = 20;

#[derive(Deserialize)]
struct EventList<'a> {
    #[serde(default, borrow)]
    events: Vec<&'a RawValue>,
    #[serde(default)]
    links: Vec<Link>,
}

#[derive(Deserialize)]
struct TransactionList {
    #[serde(default)]
    transaction_details: Vec<TransactionDetails>,
    #[serde(default)]
    total_pages: u32,
}

#[derive(Deserialize)]
struct TransactionDetails {
    transaction_info: Line,
}

#[derive(Deserialize)]
struct Line {
    transaction_id: Option<String>,
    paypal_reference_id: Option<String>,
    paypal_reference_id_type: Option<String>,
    transaction_event_code: Option<String>,
    transaction_status: Option<String>,
    transaction_amount: Option<Amount>,
    #[serde(default, deserialize_with = "instant")]
    transaction_initiation_date: Option<DateTime<Utc>>,
    invoice_id: Option<String>,
    custom_field: Option<String>,
}

/// Reads an instant with or without a colon in its offset: reporting writes `+0000`.
fn instant<'de, D: Deserializer<'de>>(from: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    let read = |text: &str| {
        DateTime::parse_from_rfc3339(text)
            .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z"))
    };
    let parsed = text.as_deref().map(read).transpose();
    Ok(parsed.map_err(serde::de::Error::custom)?.map(|at| at.with_timezone(&Utc)))
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

impl Line {
    /// Money that a buyer paid us: a payment (T00…) that succeeded or is under way, and no payment
    /// that we made ourselves. `None`: something else.
    fn into_capture(self) -> Result<Option<GatewayCapture>, GatewayError> {
        let is_payment = self.transaction_event_code.is_some_and(|code| code.starts_with("T00"));
        let is_good = matches!(self.transaction_status.as_deref(), Some("S" | "P"));
        let Some(amount) = self.transaction_amount.filter(|_| is_payment && is_good) else {
            return Ok(None);
        };
        if amount.value.starts_with('-') {
            return Ok(None);
        }
        let malformed = || GatewayError::Malformed("a transaction without id or time".to_owned());
        let capture_id = self.transaction_id.filter(|id| is_id(id)).ok_or_else(malformed)?;
        let is_order = self.paypal_reference_id_type.as_deref() == Some("ODR");
        let object_id = self.paypal_reference_id.filter(|id| is_order && is_id(id));
        Ok(Some(GatewayCapture {
            object_id,
            capture_id: Some(capture_id),
            amount: amount.money()?,
            names_payment: self.custom_field.or(self.invoice_id),
            at: self.transaction_initiation_date.ok_or_else(malformed)?,
        }))
    }
}

/// A place in a list of transactions: the window's beginning and the page in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    from: DateTime<Utc>,
    page: u32,
}

impl Place {
    fn parse(cursor: Option<&str>, span: &Span) -> Result<Self, GatewayError> {
        let Some(cursor) = cursor else { return Ok(Self { from: span.from, page: 1 }) };
        let parsed = cursor.split_once(':').and_then(|(from, page)| {
            let from = DateTime::from_timestamp(from.parse().ok()?, 0)?;
            Some(Self { from, page: page.parse().ok()? })
        });
        parsed.ok_or_else(|| GatewayError::Bug { code: "CURSOR".to_owned() })
    }

    /// The place after a page, until the span ends.
    fn next(self, total_pages: u32, span: &Span) -> Option<String> {
        if self.page < total_pages {
            return Some(format!("{}:{}", self.from.timestamp(), self.page + 1));
        }
        let from = self.from + WINDOW;
        (from < span.until).then(|| format!("{}:1", from.timestamp()))
    }
}

impl PayPal {
    /// One page of events, each with its body as PayPal wrote it. Only the query of PayPal's link
    /// to the next page is used: where it leads to is our own API base in any case.
    pub(super) async fn list_events(
        &self,
        span: &Span,
        cursor: Option<&str>,
    ) -> Result<Page<FetchedEvent>, GatewayError> {
        let query = match cursor {
            Some(query) => query.to_owned(),
            None => format!(
                "start_time={}&end_time={}&page_size={EVENTS_A_PAGE}",
                time(span.from),
                time(span.until)
            ),
        };
        if !query.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err(GatewayError::Bug { code: "CURSOR".to_owned() });
        }
        let answer: Box<RawValue> = self.api.get(&format!("{EVENTS}?{query}")).await?;
        let list: EventList<'_> = serde_json::from_str(answer.get())
            .map_err(|error| GatewayError::Malformed(format!("column {}", error.column())))?;
        // A page without rows ends the list, whatever link it carries.
        let next = next_query(&list.links).filter(|next| !list.events.is_empty() && *next != query);
        let items = list.events.iter().filter_map(|event| {
            let payload = event.get().as_bytes().to_vec();
            Some(FetchedEvent { event: events::envelope(&payload, None)?, payload })
        });
        Ok(Page { items: items.collect(), next })
    }

    /// One page of the money that PayPal says it collected. Reporting is some hours behind.
    pub(super) async fn list_captures(
        &self,
        span: &Span,
        cursor: Option<&str>,
    ) -> Result<Page<GatewayCapture>, GatewayError> {
        let place = Place::parse(cursor, span)?;
        let until = span.until.min(place.from + WINDOW);
        let path = transactions_path(place, until);
        let list = self.transactions(&path).await?;
        let mut items = Vec::new();
        for details in list.transaction_details {
            items.extend(details.transaction_info.into_capture()?);
        }
        Ok(Page { items, next: place.next(list.total_pages, span) })
    }

    /// The capture that paid an invoice within PayPal's longest span. Unavailable while reporting
    /// does not show it: it is some hours behind.
    pub(super) async fn find_paid(
        &self,
        invoice: &str,
        now: DateTime<Utc>,
    ) -> Result<String, GatewayError> {
        // Instants are written in whole seconds: the second that runs is part of the span.
        let until = now + Duration::seconds(1);
        let mut place = Place { from: until - WINDOW, page: 1 };
        loop {
            let list = self.transactions(&transactions_path(place, until)).await?;
            let infos = list.transaction_details.into_iter().map(|it| it.transaction_info);
            for info in infos.filter(|info| info.invoice_id.as_deref() == Some(invoice)) {
                let capture = info.into_capture()?;
                if let Some(id) = capture.and_then(|capture| capture.capture_id) {
                    return Ok(id);
                }
            }
            if place.page >= list.total_pages.min(MAX_PAGES) {
                let what = "the invoice was paid before, by a capture not yet listed";
                return Err(GatewayError::Unavailable(what.to_owned()));
            }
            place.page += 1;
        }
    }

    async fn transactions(&self, path: &str) -> Result<TransactionList, GatewayError> {
        match self.api.get(path).await {
            // PayPal's way to say that it has nothing for so recent a time.
            Err(GatewayError::Bug { code }) if code.contains("not available") => {
                Ok(TransactionList { transaction_details: Vec::new(), total_pages: 0 })
            }
            answer => answer,
        }
    }
}

/// Asks for what moved no money too, or payments under way would be left out.
fn transactions_path(place: Place, until: DateTime<Utc>) -> String {
    format!(
        "{TRANSACTIONS}?start_date={}&end_date={}&fields=transaction_info\
         &balance_affecting_records_only=N&page_size={TRANSACTIONS_A_PAGE}&page={}",
        time(place.from),
        time(until),
        place.page
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn transaction() -> Value {
        json!({
            "transaction_id": "2GG279541U471931P",
            "paypal_reference_id": "5O190127TN364715T",
            "paypal_reference_id_type": "ODR",
            "transaction_event_code": "T0006",
            "transaction_initiation_date": "2026-11-22T22:13:14+0000",
            "transaction_amount": { "currency_code": "USD", "value": "10.99" },
            "transaction_status": "S",
            "invoice_id": "payment-2",
            "custom_field": "payment",
        })
    }

    fn capture(transaction: Value) -> Option<GatewayCapture> {
        serde_json::from_value::<Line>(transaction).unwrap().into_capture().unwrap()
    }

    #[test]
    fn a_payment_to_us_is_a_capture() {
        let capture = capture(transaction()).unwrap();
        assert_eq!(capture.capture_id.as_deref(), Some("2GG279541U471931P"));
        assert_eq!(capture.object_id.as_deref(), Some("5O190127TN364715T"));
        assert_eq!(capture.names_payment.as_deref(), Some("payment"));
        assert_eq!(capture.amount.minor, 1_099);
        assert_eq!(capture.at.to_rfc3339(), "2026-11-22T22:13:14+00:00");
    }

    #[test]
    fn what_we_paid_and_what_failed_is_no_capture() {
        for (member, value) in [
            ("transaction_event_code", json!("T1107")),
            ("transaction_status", json!("D")),
            ("transaction_amount", json!({ "currency_code": "USD", "value": "-10.99" })),
        ] {
            let mut transaction = transaction();
            transaction[member] = value;
            assert_eq!(capture(transaction), None, "{member}");
        }
    }

    #[test]
    fn a_long_span_is_asked_for_in_windows_of_31_days() {
        let from: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
        let span = Span { from, until: from + Duration::days(40) };
        let mut cursor = None;
        let mut places = Vec::new();
        loop {
            let place = Place::parse(cursor.as_deref(), &span).unwrap();
            places.push(((place.from - from).num_days(), place.page));
            cursor = place.next(2, &span);
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(places, [(0, 1), (0, 2), (31, 1), (31, 2)]);
        assert!(Place::parse(Some("evil"), &span).is_err());
    }
}
