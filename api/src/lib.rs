//! The HTTP process: customers' requests and gateways' webhooks.

mod extract;
mod problem;
mod router;
mod routes;

use std::sync::Arc;

use shared::App;
use shared::access::Keys;
use shared::config::Errors;
use tokio::net::TcpListener;

pub use router::router;

/// What every handler can reach.
#[derive(Clone)]
pub struct ApiState {
    /// The business.
    pub app: App,
    /// Keys of customers' tokens.
    pub keys: Arc<Keys>,
}

impl ApiState {
    /// Reads the keys; everything else stands in `app`.
    pub fn new(app: App) -> Result<Self, Errors> {
        let keys = Arc::new(Keys::new(&app.config.jwt)?);
        Ok(Self { app, keys })
    }
}

/// Serves until `stop` completes, then lets running requests end.
pub async fn serve(
    state: ApiState,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(state)).with_graceful_shutdown(stop).await
}
