//! Stripe and PayPal as the product meets them: their APIs, payment pages and signed webhooks, and
//! everything that goes wrong with them. For development and tests only; nothing here moves money.
//!
//! The product's own gateway code talks to a [`Simulator`] over HTTP as it would to the gateways.
//! Tests hold the same simulator in their hands and play the buyer, the bank and the bad network.

// The gateways' objects have more fields than `json!` may nest by default.
#![recursion_limit = "256"]

mod acts;
mod calls;
mod clock;
mod control;
mod courier;
mod delivery;
mod faults;
mod ids;
mod journal;
mod keep;
mod money;
mod pages;
mod paypal;
mod paypal_acts;
mod server;
mod settings;
mod stripe;
mod table;
mod truth;
mod world;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::routing::any;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::paypal::signing::Keyring;
use crate::world::{Core, Fittings};

pub use crate::acts::Refusal;
pub use crate::delivery::{Attempt, DeliveryStatus};
pub use crate::faults::{Fault, Trouble, When};
pub use crate::journal::Call;
pub use crate::paypal::{Funding, PayPalDisputeOutcome, PayPalRefundOutcome};
pub use crate::settings::Settings;
pub use crate::stripe::DisputeOutcome;
pub use crate::truth::Truth;

/// One of the two companies that are simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gateway {
    /// Stripe.
    Stripe,
    /// PayPal.
    PayPal,
}

/// A webhook event, exactly as it is or would be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SimEvent {
    /// Whose event.
    pub gateway: Gateway,
    /// `evt_…` or `WH-…`.
    pub id: String,
    /// When it happened, by the simulator's clock.
    pub created_at: DateTime<Utc>,
    /// Such as `payment_intent.succeeded` or `PAYMENT.CAPTURE.COMPLETED`.
    pub kind: String,
    /// Id of the object the event carries.
    pub object_id: String,
    /// Our payment's id, if the payment named one.
    pub payment_id: Option<String>,
    /// The bytes of the POST.
    #[serde(with = "keep::text")]
    pub body: Vec<u8>,
}

/// Both gateways, running. Cheap to clone; they stop when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct Simulator {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    core: Arc<Core>,
    paypal_tls_addr: SocketAddr,
    tasks: Mutex<JoinSet<()>>,
}

impl Inner {
    fn stop(&self) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        keep::save(&self.core);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Simulator {
    /// Binds three ports of the loopback interface and starts to serve and to deliver.
    ///
    /// Fails if a port is taken.
    pub async fn start(settings: Settings) -> io::Result<Simulator> {
        let (stripe_listener, stripe_addr) = server::bind(settings.stripe_port).await?;
        let (paypal_listener, paypal_addr) = server::bind(settings.paypal_port).await?;
        let (tls_listener, paypal_tls_addr) = server::bind(settings.paypal_tls_port).await?;
        // A key takes a fraction of a second to find: not on a thread that serves others.
        let now = clock::Clock::default().now();
        let keyring = tokio::task::spawn_blocking(move || Keyring::new(now))
            .await
            .map_err(io::Error::other)??;
        let tls = TlsAcceptor::from(Arc::clone(&keyring.tls));
        let core = Arc::new(Core::new(
            settings,
            Fittings {
                keyring,
                stripe_url: format!("http://{stripe_addr}"),
                paypal_url: format!("http://{paypal_addr}"),
                client: courier::client()?,
            },
        ));
        let stripe = stripe_routes(&core);
        let paypal = paypal_routes(&core);
        keep::load(&core);
        let mut tasks = JoinSet::new();
        if core.settings.state_file.is_some() {
            tasks.spawn(keep::run(Arc::clone(&core)));
        }
        tasks.spawn(server::serve(stripe_listener, None, stripe));
        tasks.spawn(server::serve(paypal_listener, None, paypal.clone()));
        tasks.spawn(server::serve(tls_listener, Some(tls), paypal));
        tasks.spawn(delivery::run(Arc::clone(&core)));
        tasks.spawn(stripe::watch(Arc::clone(&core)));
        tasks.spawn(paypal_acts::run(Arc::clone(&core)));
        let inner = Inner { core, paypal_tls_addr, tasks: Mutex::new(tasks) };
        Ok(Simulator { inner: Arc::new(inner) })
    }

    /// Stops serving and delivering at once; other handles find nobody there. Writes the state file.
    pub fn shutdown(&self) {
        self.inner.stop();
    }

    /// Returns Stripe's base address, such as `http://127.0.0.1:12111`.
    pub fn stripe_url(&self) -> &str {
        &self.inner.core.stripe_url
    }

    /// Returns PayPal's base address.
    pub fn paypal_url(&self) -> &str {
        &self.inner.core.paypal_url
    }

    /// Returns where PayPal's API is served over TLS, to be resolved as `api.sandbox.paypal.com`.
    pub fn paypal_tls_addr(&self) -> SocketAddr {
        self.inner.paypal_tls_addr
    }

    /// Returns the root certificate behind PayPal's signatures and TLS; anew with each start.
    pub fn paypal_root_pem(&self) -> &str {
        &self.inner.core.keyring.root_pem
    }

    /// Returns what the simulator was started with.
    pub fn settings(&self) -> &Settings {
        &self.inner.core.settings
    }

    /// Sets where events go from now on, those still to be delivered included.
    pub fn set_webhook_urls(&self, stripe: Option<String>, paypal: Option<String>) {
        self.inner.core.set_webhook_urls(stripe, paypal);
    }

    /// Holds deliveries back; events go on to be made.
    pub fn pause_deliveries(&self) {
        self.inner.core.pause(true);
    }

    /// Lets held deliveries go.
    pub fn resume_deliveries(&self) {
        self.inner.core.pause(false);
    }

    /// Returns how many deliveries are not yet accepted.
    pub fn pending_deliveries(&self) -> usize {
        self.inner.core.world().outbox.pending()
    }

    /// Returns every attempt at delivering an event, oldest first.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.inner.core.world().outbox.attempts.clone()
    }

    /// Sends an event once more; returns whether there is such an event.
    pub fn redeliver(&self, event_id: &str) -> bool {
        self.inner.core.redeliver(event_id)
    }

    /// Returns the events, oldest first, whether delivered or not.
    pub fn events(&self) -> Vec<SimEvent> {
        self.inner.core.world().outbox.events.clone()
    }

    /// Returns headers, signed now, with which a test can post a body as Stripe.
    pub fn signed_stripe(&self, body: &[u8]) -> Vec<(String, String)> {
        self.inner.core.signed(Gateway::Stripe, body)
    }

    /// Returns headers, signed now, with which a test can post a body as PayPal.
    pub fn signed_paypal(&self, body: &[u8]) -> Vec<(String, String)> {
        self.inner.core.signed(Gateway::PayPal, body)
    }

    /// Returns headers, signed now, for an event of either gateway.
    pub fn signed(&self, event: &SimEvent) -> Vec<(String, String)> {
        self.inner.core.signed(event.gateway, &event.body)
    }

    /// Pays an intent as the buyer does on the page, by test method or card number; gives its status.
    pub fn pay_stripe(&self, intent_id: &str, payment_method: &str) -> Result<String, Refusal> {
        self.inner.core.pay_stripe(intent_id, payment_method)
    }

    /// Answers the bank's question to the buyer; gives the intent's status.
    pub fn authenticate_stripe(&self, intent_id: &str, success: bool) -> Result<String, Refusal> {
        self.inner.core.authenticate_stripe(intent_id, success)
    }

    /// Ends an intent that is `processing`.
    pub fn settle_stripe(&self, intent_id: &str, success: bool) -> Result<(), Refusal> {
        self.inner.core.settle_stripe(intent_id, success)
    }

    /// Ends a refund that is `pending`, or fails one that had succeeded.
    pub fn settle_stripe_refund(&self, refund_id: &str, success: bool) -> Result<(), Refusal> {
        self.inner.core.settle_stripe_refund(refund_id, success)
    }

    /// Approves an order as the buyer does on the page.
    pub fn approve_paypal(&self, order_id: &str) -> Result<(), Refusal> {
        self.inner.core.approve_paypal(order_id, Funding::Instant)
    }

    /// Approves an order with money that may be refused, or may take days.
    pub fn approve_paypal_with(&self, order_id: &str, funding: Funding) -> Result<(), Refusal> {
        self.inner.core.approve_paypal(order_id, funding)
    }

    /// Says what the next capture meets, whatever the buyer chose.
    pub fn fund_next_paypal_capture(&self, funding: Funding) {
        self.inner.core.fund_next_paypal(funding);
    }

    /// Ends a capture that is `PENDING`.
    pub fn settle_paypal(&self, capture_id: &str, success: bool) -> Result<(), Refusal> {
        self.inner.core.settle_paypal(capture_id, success)
    }

    /// Ends every PayPal access token at once.
    pub fn expire_paypal_tokens(&self) {
        self.inner.core.world().paypal.tokens.expire_all();
    }

    /// Returns what really happened to the money.
    pub fn truth(&self) -> Vec<Truth> {
        truth::all(&self.inner.core.world())
    }

    /// Returns the API calls, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        self.inner.core.world().journal.iter().cloned().collect()
    }

    /// Makes something go wrong, after the faults set before it.
    pub fn set_fault(&self, fault: Fault) {
        self.inner.core.world().faults.add(fault);
    }

    /// Lets everything go right again.
    pub fn clear_faults(&self) {
        self.inner.core.world().faults.clear();
    }

    /// Starts the dice of chance faults anew.
    pub fn seed(&self, seed: u64) {
        self.inner.core.world().faults.seed(seed);
    }

    /// Moves the simulator's clock.
    pub fn advance_clock(&self, by: TimeDelta) {
        self.inner.core.advance(by);
    }

    /// Returns the simulator's time.
    pub fn now(&self) -> DateTime<Utc> {
        self.inner.core.clock.now()
    }

    /// Forgets all objects, events, calls, faults and the clock's offset; keeps addresses and keys.
    pub fn reset(&self) {
        self.inner.core.reset();
    }
}

fn stripe_routes(core: &Arc<Core>) -> Router {
    Router::new()
        .route("/v1/{*path}", any(calls::serve::<stripe::Stripe>))
        .merge(pages::stripe())
        .merge(control::routes())
        .merge(paypal_acts::routes())
        .with_state(Arc::clone(core))
}

fn paypal_routes(core: &Arc<Core>) -> Router {
    Router::new()
        .route("/v1/{*path}", any(calls::serve::<paypal::PayPal>))
        .route("/v2/{*path}", any(calls::serve::<paypal::PayPal>))
        .route("/v3/{*path}", any(calls::serve::<paypal::PayPal>))
        .merge(pages::paypal())
        .with_state(Arc::clone(core))
}
