//! Stripe's events: made, told, listed.

use serde_json::{Map, Value, json};

use super::error::StripeError;
use super::form::Params;
use super::lists::{Page, Span};
use crate::delivery::DeliveryStatus;
use crate::world::{News, Turn};
use crate::{Gateway, SimEvent, ids};

impl Turn<'_> {
    /// Tells that something is new.
    pub(crate) fn tell_stripe(&mut self, news: News<'_>) {
        self.announce(news, None);
    }

    /// Tells that something changed, with what it was before.
    pub(crate) fn tell_stripe_change(&mut self, news: News<'_>, before: &Value) {
        let previous = difference(before, &news.object);
        self.announce(news, Some(previous));
    }

    fn announce(&mut self, news: News<'_>, previous: Option<Value>) {
        let id = ids::stripe("evt");
        let mut data = json!({ "object": news.object });
        if let Some(previous) = previous {
            data["previous_attributes"] = previous;
        }
        let body = json!({
            "id": id,
            "object": "event",
            "api_version": self.core.settings.stripe_api_version,
            "created": self.unix(),
            "data": data,
            "livemode": false,
            "pending_webhooks": self.endpoints(Gateway::Stripe),
            "request": {
                "id": self.cause.request_id,
                "idempotency_key": self.cause.idempotency_key,
            },
            "type": news.kind,
        });
        self.post(SimEvent {
            gateway: Gateway::Stripe,
            id,
            created_at: self.now,
            kind: news.kind.to_owned(),
            object_id: news.object_id.to_owned(),
            payment_id: news.payment_id,
            body: serde_json::to_vec_pretty(&body).expect("JSON values are writable"),
        });
    }
}

/// Returns the fields of `before` that are not the same in `after`.
fn difference(before: &Value, after: &Value) -> Value {
    let (Value::Object(before), Value::Object(after)) = (before, after) else {
        return before.clone();
    };
    let mut changed = Map::new();
    for (name, old) in before {
        let new = after.get(name).unwrap_or(&Value::Null);
        if old != new {
            changed.insert(name.clone(), difference(old, new));
        }
    }
    for name in after.keys().filter(|name| !before.contains_key(*name)) {
        changed.insert(name.clone(), Value::Null);
    }
    Value::Object(changed)
}

/// `GET /v1/events/{id}`
pub(crate) fn fetch(turn: &Turn<'_>, id: &str, params: Params) -> Result<Value, StripeError> {
    params.finish()?;
    let mut events = turn.world.outbox.events.iter().enumerate();
    let (place, event) = events
        .find(|(_, event)| event.gateway == Gateway::Stripe && event.id == id)
        .ok_or_else(|| StripeError::missing("event", id, "id"))?;
    Ok(current(turn, place, event))
}

/// `GET /v1/events`
pub(crate) fn list(turn: &Turn<'_>, mut params: Params) -> Result<Value, StripeError> {
    let page = Page::take(&mut params)?;
    let kinds = params.list("types")?;
    let kind = params.text("type")?;
    let success = params.boolean("delivery_success")?;
    let span = Span::take(&mut params, "created")?;
    params.finish()?;
    // Nothing older than 30 days is kept by Stripe.
    let oldest = turn.unix() - 30 * 86_400;
    let wanted = |event: &SimEvent| {
        (kinds.is_empty() || kinds.iter().any(|known| matches(known, &event.kind)))
            && kind.as_ref().is_none_or(|kind| matches(kind, &event.kind))
    };
    let mut found = Vec::new();
    for (place, event) in turn.world.outbox.events.iter().enumerate().rev() {
        if event.gateway != Gateway::Stripe || !wanted(event) {
            continue;
        }
        let is_delivered = turn.world.outbox.status(place) == DeliveryStatus::Delivered;
        if success.is_some_and(|success| success != is_delivered) {
            continue;
        }
        let created = event.created_at.timestamp();
        if created >= oldest && span.contains(created) {
            found.push((event.id.as_str(), (place, event)));
        }
    }
    page.cut("/v1/events", found, |(place, event)| current(turn, place, event))
}

/// Returns whether a kind is the wanted one; `charge.*` wants a family.
fn matches(wanted: &str, kind: &str) -> bool {
    match wanted.strip_suffix('*') {
        Some(family) => kind.starts_with(family),
        None => wanted == kind,
    }
}

/// Returns an event as it is now: only the number of deliveries to come changes.
fn current(turn: &Turn<'_>, place: usize, event: &SimEvent) -> Value {
    let mut body: Value = serde_json::from_slice(&event.body).expect("events are JSON");
    let is_pending = turn.world.outbox.status(place) == DeliveryStatus::Pending;
    body["pending_webhooks"] = json!(usize::from(is_pending));
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn previous_attributes_hold_only_what_changed() {
        let before = json!({ "a": 1, "b": { "c": 1, "d": 2 }, "e": null });
        let after = json!({ "a": 1, "b": { "c": 3, "d": 2 }, "e": "x", "f": 1 });

        let previous = difference(&before, &after);

        assert_eq!(previous, json!({ "b": { "c": 1 }, "e": null, "f": null }));
    }

    #[test]
    fn a_star_stands_for_a_family_of_events() {
        assert!(matches("charge.dispute.*", "charge.dispute.created"));
        assert!(!matches("charge.dispute", "charge.dispute.created"));
    }
}
