//! Stripe's lists, newest first, a page at a time by the last id of the page before; and the two
//! that are read to find what a lost webhook would have told.

use chrono::DateTime;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use stripe_client_core::RequestBuilder;
use stripe_core::event::ListEvent;
use stripe_core::payment_intent::ListPaymentIntent;
use stripe_types::{RangeBoundsTs, RangeQueryTs};

use super::errors::{Failure, Unreadable};
use super::objects::Intent;
use super::{Stripe, events};
use crate::gateways::{FetchedEvent, GatewayCapture, GatewayError, Page, Span};

/// Rows of a page: Stripe's most.
pub(super) const PAGE: i64 = 100;

/// More pages of one capture's refunds or disputes than this is a list that does not end.
const MAX_PAGES: usize = 50;

/// One page as Stripe answers it.
#[derive(Deserialize)]
pub(super) struct List<T> {
    pub(super) data: Vec<T>,
    #[serde(default)]
    has_more: bool,
}

impl<T> List<T> {
    /// The cursor of the next page, if there is one.
    fn next(&self, id: impl Fn(&T) -> &str) -> Option<String> {
        self.data.last().filter(|_| self.has_more).map(|last| id(last).to_owned())
    }
}

/// Events that are read again when their webhook may be lost; Stripe takes 20 kinds at most.
///
/// Left out are those that tell nothing which another one here does not.
const KINDS: [&str; 20] = [
    "charge.dispute.closed",
    "charge.dispute.created",
    "charge.dispute.funds_reinstated",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.updated",
    "checkout.session.async_payment_failed",
    "checkout.session.async_payment_succeeded",
    "checkout.session.completed",
    "checkout.session.expired",
    "customer.deleted",
    "payment_intent.canceled",
    "payment_intent.payment_failed",
    "payment_intent.processing",
    "payment_intent.succeeded",
    "payment_method.automatically_updated",
    "payment_method.detached",
    "refund.created",
    "refund.failed",
    "refund.updated",
    "setup_intent.succeeded",
];

impl Stripe {
    /// Reads a whole list; `page` asks for what comes after an id.
    pub(super) async fn all<T: DeserializeOwned>(
        &self,
        page: impl Fn(Option<&str>) -> RequestBuilder + Send + Sync,
        id: impl Fn(&T) -> &str + Send + Sync,
    ) -> Result<Vec<T>, Failure> {
        let mut rows = Vec::new();
        let mut after: Option<String> = None;
        for _page in 0..MAX_PAGES {
            let request = page(after.as_deref());
            let list: List<T> = self.transport.without_key().send(&request).await?;
            after = list.next(&id);
            rows.extend(list.data);
            if after.is_none() {
                return Ok(rows);
            }
        }
        Err(Unreadable("a list without end".to_owned()).into())
    }

    /// Events whose delivery failed or is still to come.
    pub(super) async fn undelivered(
        &self,
        span: &Span,
        cursor: Option<&str>,
    ) -> Result<Page<FetchedEvent>, GatewayError> {
        let mut request = ListEvent::new()
            .created(range(span))
            .delivery_success(false)
            .types(KINDS.map(str::to_owned))
            .limit(PAGE);
        if let Some(cursor) = cursor {
            request = request.starting_after(cursor);
        }
        // Bodies are kept as they are written: they are parsed as a webhook's would be.
        let list: List<Box<RawValue>> = self.transport.without_key().ask(&request).await?;
        let has_more = list.has_more;
        let items = list.data.into_iter().map(fetched).collect::<Result<Vec<_>, _>>()?;
        let next = items.last().filter(|_| has_more).map(|last| last.event.id.clone());
        Ok(Page { items, next })
    }

    /// Intents opened in that time which brought money since.
    pub(super) async fn paid_intents(
        &self,
        span: &Span,
        cursor: Option<&str>,
    ) -> Result<Page<GatewayCapture>, GatewayError> {
        let mut request = ListPaymentIntent::new().created(range(span)).limit(PAGE);
        if let Some(cursor) = cursor {
            request = request.starting_after(cursor);
        }
        let list: List<Intent> = self.transport.without_key().ask(&request).await?;
        let next = list.next(|intent| &intent.id);
        let mut items = Vec::new();
        for intent in list.data {
            items.extend(capture(intent)?);
        }
        Ok(Page { items, next })
    }
}

fn fetched(body: Box<RawValue>) -> Result<FetchedEvent, Unreadable> {
    let payload = Box::<str>::from(body).into_string().into_bytes();
    let event = events::envelope(&payload);
    let event = event.ok_or_else(|| Unreadable("an event of the list".to_owned()))?;
    Ok(FetchedEvent { event, payload })
}

fn capture(intent: Intent) -> Result<Option<GatewayCapture>, Unreadable> {
    let id = intent.id.clone();
    let names_payment = intent.metadata.get("payment_id").cloned();
    let at = DateTime::from_timestamp(intent.created, 0)
        .ok_or_else(|| Unreadable("created out of range".to_owned()))?;
    let received = intent.received()?;
    Ok(received.map(|(amount, capture_id)| GatewayCapture {
        object_id: Some(id),
        capture_id,
        amount,
        names_payment,
        at,
    }))
}

/// Stripe counts whole seconds; a span is widened to them, so that nothing falls between two.
fn range(span: &Span) -> RangeQueryTs {
    let until = span.until.timestamp() + i64::from(span.until.timestamp_subsec_nanos() > 0);
    RangeQueryTs::Bounds(RangeBoundsTs {
        gt: None,
        gte: Some(span.from.timestamp()),
        lt: Some(until),
        lte: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_between_seconds_is_widened_to_them() {
        let at = |text: &str| text.parse().unwrap();
        let span = Span { from: at("2026-11-24T12:00:00.9Z"), until: at("2026-11-24T12:00:01.1Z") };
        let RangeQueryTs::Bounds(bounds) = range(&span) else { panic!("it has two ends") };
        assert_eq!(bounds.lt.unwrap() - bounds.gte.unwrap(), 2);
    }

    #[test]
    fn every_kind_that_is_read_again_is_one_that_is_used() {
        for kind in KINDS {
            let body = serde_json::json!({
                "object": "event", "id": "evt_1", "type": kind, "livemode": false,
                "data": { "object": { "id": "x_1" } },
            });
            let parsed = events::parse(&serde_json::to_vec(&body).unwrap(), false, None);
            let is_ignored = matches!(parsed, Ok(crate::gateways::GatewayEvent::Ignored(_)));
            assert!(!is_ignored, "{kind}");
        }
    }
}
