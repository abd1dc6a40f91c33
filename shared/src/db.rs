//! The database: connecting, and making the schema.

use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::config::Config;

/// How a process uses the database.
#[derive(Debug, Clone, Copy)]
pub struct PoolSettings {
    /// Most connections of this process.
    pub max_connections: u32,
    /// Longest that one statement may run.
    pub statement_timeout: Duration,
    /// Longest that a caller waits for a connection: overload is answered, not queued.
    pub acquire_timeout: Duration,
}

impl PoolSettings {
    /// For answering requests: a statement of more than 5 s has lost its caller.
    pub const API: Self = Self {
        max_connections: 16,
        statement_timeout: Duration::from_secs(5),
        acquire_timeout: Duration::from_secs(2),
    };
    /// For the worker: sweeps and roll-ups may take a minute.
    pub const WORKER: Self = Self { statement_timeout: Duration::from_mins(1), ..Self::API };
}

/// Why the schema could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// A migration failed.
    #[error(transparent)]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// The queue's own migrations failed.
    #[error("queue: {0}")]
    Queue(#[from] apalis_postgres::Error),
    /// A statement failed.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// The database was made for another environment or claim.
    #[error("this database was made for {0} {1:?}, not {2:?}: it is never changed")]
    OtherInstallation(&'static str, String, String),
}

/// Connects lazily: the first statement opens the first connection.
///
/// Waiting for a connection or a lock ends in bounded time; a transaction left idle for 10 s is ended.
pub fn connect(url: &SecretString, settings: PoolSettings) -> sqlx::Result<PgPool> {
    let options = PgConnectOptions::from_str(url.expose_secret())?.options([
        ("statement_timeout", format!("{}ms", settings.statement_timeout.as_millis())),
        ("lock_timeout", "5s".to_owned()),
        ("idle_in_transaction_session_timeout", "10s".to_owned()),
    ]);
    Ok(PgPoolOptions::new()
        .max_connections(settings.max_connections)
        .acquire_timeout(settings.acquire_timeout)
        .connect_lazy_with(options))
}

/// Brings the schema up to date: ours, then the queue's. May be repeated.
pub async fn migrate(db: &PgPool, config: &Config, now: DateTime<Utc>) -> Result<(), MigrateError> {
    sqlx::migrate!("../migrations").run(db).await?;
    apalis_postgres::PostgresStorage::<()>::setup(db).await?;
    let environment = config.environment.as_str();
    let row = sqlx::query!(
        r#"
        with first as (
            insert into installation (id, environment, jwt_id_claim, created_at)
            values (1, $1, $2, $3)
            on conflict (id) do nothing
            returning environment, jwt_id_claim
        )
        select environment as "environment!", jwt_id_claim as "jwt_id_claim!" from first
        union all
        select environment, jwt_id_claim from installation
        limit 1
        "#,
        environment,
        config.jwt.id_claim_setting(),
        now,
    )
    .fetch_one(db)
    .await?;
    same("environment", row.environment, environment)?;
    same("JWT_ID_CLAIM", row.jwt_id_claim, config.jwt.id_claim_setting())
}

fn same(what: &'static str, stored: String, ours: &str) -> Result<(), MigrateError> {
    if stored == ours {
        return Ok(());
    }
    Err(MigrateError::OtherInstallation(what, stored, ours.to_owned()))
}

/// Whether the database answers and its schema is ours.
pub async fn is_ready(db: &PgPool) -> bool {
    sqlx::query_scalar!("select count(*) from installation").fetch_one(db).await.is_ok()
}
