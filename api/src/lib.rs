//! The HTTP process: customers' requests and gateways' webhooks.

mod body;
mod extract;
mod guard;
mod problem;
mod router;
mod routes;
mod server;

use std::collections::BTreeMap;
use std::sync::Arc;

use shared::App;
use shared::access::Keys;
use shared::config::Errors;

use guard::Guard;
pub use router::router;
pub use server::{Limits, serve};

/// What every handler can reach.
#[derive(Clone)]
pub struct ApiState {
    /// The business.
    pub app: App,
    /// Keys of customers' tokens.
    pub keys: Arc<Keys>,
    /// What a connection may take.
    pub limits: Limits,
    guard: Arc<Guard>,
}

impl ApiState {
    /// Reads the keys; everything else stands in `app`.
    pub fn new(app: App) -> Result<Self, Errors> {
        let keys = Arc::new(Keys::new(&app.config.jwt)?);
        let guard = Arc::new(Guard::new(app.config.has_rate_limits));
        Ok(Self { app, keys, limits: Limits::default(), guard })
    }

    /// How many webhooks were not proven since the start, by gateway and reason.
    pub fn refused_webhooks(&self) -> BTreeMap<(&'static str, String), u64> {
        self.guard.totals()
    }
}
