//! The HTTP process: customers' requests and gateways' webhooks.

mod extract;
mod problem;
mod router;
mod routes;

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

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

/// How long running requests may go on after the order to stop; platforms kill after 30 s.
const DRAIN: Duration = Duration::from_secs(25);

/// Serves until `stop` completes, then lets running requests end, for 25 s at most.
pub async fn serve(
    state: ApiState,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let (stopping, mut is_stopping) = tokio::sync::watch::channel(false);
    let graceful = async move {
        stop.await;
        stopping.send_replace(true);
    };
    let served = axum::serve(listener, router(state)).with_graceful_shutdown(graceful);
    tokio::select! {
        ended = served.into_future() => ended,
        () = async {
            // An error means that serving has ended, which the other branch tells.
            drop(is_stopping.wait_for(|is_stopping| *is_stopping).await);
            tokio::time::sleep(DRAIN).await;
        } => {
            tracing::warn!("requests were still running when the time to stop was over");
            Ok(())
        }
    }
}
