//! Sends events to the webhook endpoints until they are accepted, without ever blocking an API answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::faults::{Journey, Trouble};
use crate::world::Core;
use crate::{Gateway, SimEvent, courier};

/// What became of one attempt at delivering an event.
#[derive(Debug, Clone, Serialize)]
pub struct Attempt {
    /// The event.
    pub event_id: String,
    /// Whose event.
    pub gateway: Gateway,
    /// The event's kind, such as `charge.refunded`.
    pub kind: String,
    /// Counts from 1 for each delivery.
    pub number: u32,
    /// When it ended, by the simulator's clock.
    pub at: DateTime<Utc>,
    /// The endpoint's answer; none: it did not answer.
    pub status: Option<u16>,
    /// What was made to go wrong.
    pub trouble: Option<Trouble>,
}

/// How far the deliveries of one event have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryStatus {
    /// There was no endpoint, or the event was made to be lost.
    NotSent,
    /// At least one delivery is still to be accepted.
    Pending,
    /// The endpoint answered 2xx to each delivery.
    Delivered,
}

/// One event on its way to an endpoint.
#[derive(Debug)]
struct Delivery {
    event: usize,
    attempts: u32,
    due: Instant,
    flying: bool,
}

/// An attempt about to be made.
pub(crate) struct Flight {
    /// The delivery it belongs to.
    delivery: u64,
    pub(crate) number: u32,
    pub(crate) event: SimEvent,
    pub(crate) url: String,
    pub(crate) trouble: Option<Trouble>,
}

/// All events, and what is still to be delivered.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) events: Vec<SimEvent>,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) stripe_url: Option<String>,
    pub(crate) paypal_url: Option<String>,
    pub(crate) paused: bool,
    /// Keyed by a running number; a delivery leaves when it was accepted.
    open: BTreeMap<u64, Delivery>,
    count: u64,
    statuses: BTreeMap<usize, (u32, u32)>,
}

impl Outbox {
    pub(crate) fn url(&self, gateway: Gateway) -> Option<&String> {
        match gateway {
            Gateway::Stripe => self.stripe_url.as_ref(),
            Gateway::PayPal => self.paypal_url.as_ref(),
        }
    }

    /// Keeps a new event and, if there is an endpoint, sends it on its journey.
    pub(crate) fn post(&mut self, event: SimEvent, journey: Journey) {
        let copies = if self.url(event.gateway).is_some() { journey.copies } else { 0 };
        self.events.push(event);
        let place = self.events.len() - 1;
        for _ in 0..copies {
            self.deliver(place, Duration::from_millis(journey.wait_ms));
        }
    }

    /// Sends an event once more; returns whether there is such an event.
    pub(crate) fn redeliver(&mut self, event_id: &str) -> bool {
        let place = self.events.iter().position(|event| event.id == event_id);
        if let Some(place) = place {
            self.deliver(place, Duration::ZERO);
        }
        place.is_some()
    }

    fn deliver(&mut self, event: usize, wait: Duration) {
        self.count += 1;
        let due = Instant::now() + wait;
        self.open.insert(self.count, Delivery { event, attempts: 0, due, flying: false });
        self.statuses.entry(event).or_default().0 += 1;
    }

    /// Returns how many deliveries are not yet accepted.
    pub(crate) fn pending(&self) -> usize {
        self.open.len()
    }

    /// Returns how far an event has come.
    pub(crate) fn status(&self, place: usize) -> DeliveryStatus {
        match self.statuses.get(&place) {
            None => DeliveryStatus::NotSent,
            Some((sent, accepted)) if sent == accepted => DeliveryStatus::Delivered,
            Some(_) => DeliveryStatus::Pending,
        }
    }

    /// Returns whether each event from `place` on was attempted, as far as it is delivered at all.
    pub(crate) fn attempted_since(&self, place: usize) -> bool {
        self.open.values().all(|delivery| delivery.event < place || delivery.attempts > 0)
    }

    /// Forgets everything but the endpoints.
    pub(crate) fn clear(&mut self) {
        let stripe_url = self.stripe_url.take();
        let paypal_url = self.paypal_url.take();
        // Numbers go on, so that an attempt under way finds nothing to end.
        let count = self.count;
        *self = Outbox { stripe_url, paypal_url, count, ..Outbox::default() };
    }

    /// Takes up to `room` deliveries that are due, and says when the next one will be.
    fn take_due(&mut self, now: Instant, room: usize) -> (Vec<(u64, usize, u32)>, Option<Instant>) {
        // With no room, the next landing asks again.
        if self.paused || room == 0 {
            return (Vec::new(), None);
        }
        let mut due = Vec::new();
        let mut next: Option<Instant> = None;
        for (&number, delivery) in &mut self.open {
            if delivery.flying {
                continue;
            }
            if delivery.due <= now && due.len() < room {
                delivery.flying = true;
                due.push((number, delivery.event, delivery.attempts + 1));
            } else if delivery.due > now {
                next = Some(next.map_or(delivery.due, |next| next.min(delivery.due)));
            }
        }
        (due, next)
    }

    /// Notes how an attempt ended; what was not accepted becomes due again after `pause`.
    fn land(&mut self, delivery: u64, attempt: Attempt, pause: Duration) {
        let accepted = attempt.status.is_some_and(|status| (200..300).contains(&status));
        let Some(open) = self.open.get_mut(&delivery) else { return };
        open.attempts = attempt.number;
        open.flying = false;
        open.due = Instant::now() + pause;
        self.attempts.push(attempt);
        if accepted {
            let event = open.event;
            self.open.remove(&delivery);
            self.statuses.entry(event).or_default().1 += 1;
        }
    }
}

/// Delivers for as long as the simulator lives.
pub(crate) async fn run(core: Arc<Core>) {
    let mut flights = JoinSet::new();
    loop {
        let room = core.settings.deliveries_at_once.saturating_sub(flights.len());
        let (ready, next) = depart(&core, room);
        for flight in ready {
            flights.spawn(fly(Arc::clone(&core), flight));
        }
        let next_due = async {
            match next {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = core.mail.notified() => {}
            () = next_due => {}
            Some(_) = flights.join_next() => {}
        }
    }
}

/// Picks the attempts to make now, and asks what goes wrong with each.
fn depart(core: &Core, room: usize) -> (Vec<Flight>, Option<Instant>) {
    let world = &mut *core.world();
    let (due, next) = world.outbox.take_due(Instant::now(), room);
    let mut flights = Vec::new();
    for (delivery, place, number) in due {
        let event = world.outbox.events[place].clone();
        // An endpoint taken away in the meantime is like one that is down.
        let url = world.outbox.url(event.gateway).cloned().unwrap_or_default();
        let trouble = world.faults.on_attempt(event.gateway, &event.kind);
        flights.push(Flight { delivery, number, event, url, trouble });
    }
    (flights, next)
}

async fn fly(core: Arc<Core>, flight: Flight) {
    let sending = courier::send(&core, &flight);
    let status = tokio::time::timeout(core.settings.attempt_timeout, sending).await.ok().flatten();
    let Flight { delivery, number, event, trouble, .. } = flight;
    tracing::debug!(event.id = event.id, event.kind = event.kind, number, status, "event sent");
    let pause = backoff(&core, number);
    let attempt = Attempt {
        event_id: event.id,
        gateway: event.gateway,
        kind: event.kind,
        number,
        at: core.clock.now(),
        status,
        trouble,
    };
    core.world().outbox.land(delivery, attempt, pause);
    core.landed.notify_waiters();
}

fn backoff(core: &Core, attempts: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(attempts.saturating_sub(1));
    let pause = core.settings.first_retry_after.saturating_mul(doubled);
    pause.min(core.settings.longest_retry_after)
}
