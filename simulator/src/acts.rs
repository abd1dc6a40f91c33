//! What buyers, banks and tests do to the simulator, beside the gateways' own APIs.

use std::fmt;

use serde::Serialize;

use crate::delivery::DeliveryStatus;
use crate::paypal::{self, Funding};
use crate::stripe::{self, Attempt};
use crate::world::{Cause, Core, World};
use crate::{Gateway, SimEvent};

/// Why a gateway would not do what a buyer or a test wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The gateway's code or issue, such as `insufficient_funds` or `ORDER_NOT_APPROVED`.
    pub code: String,
    /// The gateway's words for people.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Refusal {}

impl From<stripe::StripeError> for Refusal {
    fn from(error: stripe::StripeError) -> Self {
        Refusal { code: error.reason().to_owned(), message: error.message().to_owned() }
    }
}

impl From<paypal::PayPalError> for Refusal {
    fn from(error: paypal::PayPalError) -> Self {
        Refusal { code: error.issue().to_owned(), message: error.description().to_owned() }
    }
}

impl Core {
    /// Pays an intent as the buyer does on the page; gives its status.
    pub(crate) fn pay_stripe(&self, intent: &str, method: &str) -> Result<String, Refusal> {
        self.turn(Cause::default(), |turn| {
            let attempt = Attempt { payment_method: Some(method.into()), ..Attempt::default() };
            stripe::confirm(turn, intent, &attempt)?;
            Ok(status(turn.world, intent))
        })
    }

    /// Answers the bank's question; gives the intent's status.
    pub(crate) fn authenticate_stripe(
        &self,
        intent: &str,
        is_proven: bool,
    ) -> Result<String, Refusal> {
        self.turn(Cause::default(), |turn| {
            stripe::authenticate(turn, intent, is_proven)?;
            Ok(status(turn.world, intent))
        })
    }

    /// Ends an intent that waits for the bank.
    pub(crate) fn settle_stripe(&self, intent: &str, is_paid: bool) -> Result<(), Refusal> {
        self.turn(Cause::default(), |turn| Ok(stripe::settle(turn, intent, is_paid)?))
    }

    /// Ends a refund that pends, or fails one that had succeeded.
    pub(crate) fn settle_stripe_refund(&self, id: &str, is_paid: bool) -> Result<(), Refusal> {
        self.turn(Cause::default(), |turn| Ok(stripe::settle_refund(turn, id, is_paid)?))
    }

    /// Approves an order as the buyer does on the page.
    pub(crate) fn approve_paypal(&self, order: &str, funding: Funding) -> Result<(), Refusal> {
        self.turn(Cause::default(), |turn| Ok(paypal::approve(turn, order, funding)?))
    }

    /// Ends a capture that pends.
    pub(crate) fn settle_paypal(&self, capture: &str, is_paid: bool) -> Result<(), Refusal> {
        self.turn(Cause::default(), |turn| Ok(paypal::settle(turn, capture, is_paid)?))
    }

    /// Says what the next capture meets, whatever the payer chose.
    pub(crate) fn fund_next_paypal(&self, funding: Funding) {
        self.world().paypal.next_funding = Some(funding);
    }

    /// Returns the headers of an event's POST, signed now.
    pub(crate) fn signed(&self, gateway: Gateway, body: &[u8]) -> Vec<(String, String)> {
        let now = self.clock.now();
        match gateway {
            Gateway::Stripe => stripe::signing::headers(self, body, now, false),
            Gateway::PayPal => paypal::signing::headers(self, body, now, false),
        }
    }

    /// Holds deliveries back, or lets them go.
    pub(crate) fn pause(&self, is_paused: bool) {
        self.world().outbox.paused = is_paused;
        self.mail.notify_one();
    }

    /// Sets where events go from now on, those still to be delivered included.
    pub(crate) fn set_webhook_urls(&self, stripe: Option<String>, paypal: Option<String>) {
        let outbox = &mut self.world().outbox;
        outbox.stripe_url = stripe;
        outbox.paypal_url = paypal;
        self.mail.notify_one();
    }

    /// Sends an event once more; returns whether there is such an event.
    pub(crate) fn redeliver(&self, event_id: &str) -> bool {
        let is_known = self.world().outbox.redeliver(event_id);
        self.mail.notify_one();
        is_known
    }

    /// Returns the events, oldest first, each with how far it has come.
    pub(crate) fn events(&self) -> Vec<(SimEvent, DeliveryStatus)> {
        let world = self.world();
        let events = world.outbox.events.iter().enumerate();
        events.map(|(place, event)| (event.clone(), world.outbox.status(place))).collect()
    }

    /// Forgets all objects, events, calls and faults; keeps addresses, keys and endpoints.
    pub(crate) fn reset(&self) {
        self.clock.reset();
        let world = &mut *self.world();
        world.outbox.clear();
        world.faults.clear();
        world.faults.seed(self.settings.seed);
        world.journal = crate::journal::Journal::default();
        world.stripe = stripe::Books::default();
        // Callers hold tokens; a reset between two tests must not lock them out.
        let tokens = std::mem::take(&mut world.paypal.tokens);
        world.paypal = paypal::Books::default();
        world.paypal.tokens = tokens;
    }
}

fn status(world: &World, intent: &str) -> String {
    let intent = world.stripe.intents.find(intent);
    intent.map_or_else(String::new, |intent| intent.status.as_str().to_owned())
}
