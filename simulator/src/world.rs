//! Everything the simulator knows, behind one lock that is never held across an await.

use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::delivery::Outbox;
use crate::faults::Faults;
use crate::journal::Journal;
use crate::paypal::signing::Keyring;
use crate::settings::Settings;
use crate::{Gateway, SimEvent, paypal, stripe};

/// What all parts of a simulator share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) settings: Settings,
    pub(crate) clock: Clock,
    pub(crate) keyring: Keyring,
    pub(crate) stripe_url: String,
    pub(crate) paypal_url: String,
    pub(crate) client: reqwest::Client,
    /// Rung when there may be something to deliver.
    pub(crate) mail: Notify,
    /// Rung when an attempt has ended.
    pub(crate) landed: Notify,
    /// Held while the books are written to their file, so that two writers never mix.
    pub(crate) pen: Mutex<()>,
    world: Mutex<World>,
}

/// What changes.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) stripe: stripe::Books,
    pub(crate) paypal: paypal::Books,
    pub(crate) outbox: Outbox,
    pub(crate) faults: Faults,
    pub(crate) journal: Journal,
    /// How many turns were taken: books that had none since need not be written again.
    pub(crate) turns: u64,
}

/// Addresses and keys a [`Core`] is made with.
pub(crate) struct Fittings {
    pub(crate) keyring: Keyring,
    pub(crate) stripe_url: String,
    pub(crate) paypal_url: String,
    pub(crate) client: reqwest::Client,
}

impl Core {
    pub(crate) fn new(settings: Settings, fittings: Fittings) -> Self {
        let mut outbox = Outbox::default();
        outbox.stripe_url.clone_from(&settings.stripe_webhook_url);
        outbox.paypal_url.clone_from(&settings.paypal_webhook_url);
        let world = World {
            stripe: stripe::Books::default(),
            paypal: paypal::Books::default(),
            outbox,
            faults: Faults::new(settings.seed),
            journal: Journal::default(),
            turns: 0,
        };
        Core {
            settings,
            clock: Clock::default(),
            keyring: fittings.keyring,
            stripe_url: fittings.stripe_url,
            paypal_url: fittings.paypal_url,
            client: fittings.client,
            mail: Notify::new(),
            landed: Notify::new(),
            pen: Mutex::new(()),
            world: Mutex::new(world),
        }
    }

    /// Locks the world. A panic elsewhere does not make it useless: each turn leaves it whole.
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a turn: `act` sees and changes the world at one instant, its events are posted after.
    pub(crate) fn turn<T>(&self, cause: Cause, act: impl FnOnce(&mut Turn<'_>) -> T) -> T {
        let mut world = self.world();
        world.turns += 1;
        let now = self.clock.now();
        let mut turn = Turn { core: self, world: &mut world, now, cause, effects: Vec::new() };
        let result = act(&mut turn);
        drop(world);
        self.mail.notify_one();
        result
    }
}

/// Why a turn is taken: a call of the API, or (both empty) a buyer or the gateway itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cause {
    pub(crate) request_id: Option<String>,
    pub(crate) idempotency_key: Option<String>,
}

/// One look at the world with the right to change it.
pub(crate) struct Turn<'a> {
    pub(crate) core: &'a Core,
    pub(crate) world: &'a mut World,
    pub(crate) now: DateTime<Utc>,
    pub(crate) cause: Cause,
    /// Ids of the objects made in this turn.
    pub(crate) effects: Vec<String>,
}

/// An event about to be told.
pub(crate) struct News<'a> {
    pub(crate) kind: &'a str,
    pub(crate) object: Value,
    pub(crate) object_id: &'a str,
    pub(crate) payment_id: Option<String>,
}

impl Turn<'_> {
    /// Returns now in whole seconds, as Stripe writes it.
    pub(crate) fn unix(&self) -> i64 {
        self.now.timestamp()
    }

    /// Keeps an event and sends it on its way.
    pub(crate) fn post(&mut self, event: SimEvent) {
        let journey = self.world.faults.on_event(event.gateway, &event.kind);
        self.world.outbox.post(event, journey);
    }

    /// Returns how many endpoints will hear of an event.
    pub(crate) fn endpoints(&self, gateway: Gateway) -> usize {
        usize::from(self.world.outbox.url(gateway).is_some())
    }
}
