//! What every operation needs: configuration, database, clock, gateways.

use std::sync::Arc;

use sqlx::PgPool;

use crate::clock::Clock;
use crate::config::{Config, Errors};
use crate::gateways::Gateways;
use crate::jobs::Doorbell;
use crate::tokens::{self, Writers};
use crate::webhooks::Intake;

/// Handle to the application; clones share everything.
#[derive(Clone)]
pub struct App {
    /// Settings, as read at start.
    pub config: Arc<Config>,
    /// The database.
    pub db: PgPool,
    /// Billing time.
    pub clock: Clock,
    /// The companies that move money.
    pub gateways: Gateways,
    /// Rings for jobs after their rows were committed.
    pub doorbell: Doorbell,
    /// Commits spends together.
    pub(crate) writers: Writers,
    /// Stores webhook events, many in one transaction.
    pub(crate) intake: Intake,
}

impl App {
    /// Puts the application together; starts the tasks that ring and write.
    pub fn new(config: Config, db: PgPool, clock: Clock) -> Result<Self, Errors> {
        tokens::use_key(&config.ledger_key).map_err(|error| Errors(vec![error.to_string()]))?;
        let gateways = Gateways::from_config(&config)?;
        let doorbell = Doorbell::start(db.clone());
        let writers = Writers::start(&db, &clock);
        let intake = Intake::start(&db);
        let config = Arc::new(config);
        Ok(Self { config, db, clock, gateways, doorbell, writers, intake })
    }
}

/// Writes logs to standard error, one JSON object a line; `LOG` filters them (default `info`).
pub fn init_logs() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,sqlx::postgres::notice=warn"));
    let logs =
        tracing_subscriber::fmt().json().with_writer(std::io::stderr).with_env_filter(filter);
    // Fails only where a test has set up its own logs, which is as good.
    let _set_before = logs.try_init();
}

/// Writes only what someone should act on, in plain lines: for a terminal.
pub fn init_logs_quietly() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let logs = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    // Fails only where a test has set up its own logs, which is as good.
    let _set_before = logs.try_init();
}

/// Completes at SIGTERM (a platform stops us) or SIGINT (Ctrl-C).
pub async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be listened to");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
