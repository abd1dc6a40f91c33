//! Stores events, many in one transaction, beside everything else that uses the database.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgPoolOptions;
use sqlx::{PgConnection, PgPool, Postgres};

use super::store::{self, NewEvent};
use crate::coalesce::{Coalescer, Committer, Settings};
use crate::error::Error;
use crate::gateways::{GatewayName, VerifiedEvent};
use crate::ids::WebhookEventId;

/// While one waits for its commit to reach the disk, the other takes what came meanwhile.
const WRITERS: u32 = 2;

/// 1,024 events of the largest kind are 1 GiB; of the usual kind, 3 MiB. Of a transaction 256:
/// beyond it the round trip is shared enough. Gateways wait 10 s at least, the router 15 s.
const SETTINGS: Settings =
    Settings { capacity: 1_024, largest_batch: 256, patience: Duration::from_secs(5) };

/// Whether an event is in the database since now, or was before. Either way it is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    New,
    Known,
}

/// Handle to the writers; clones share them.
#[derive(Clone)]
pub(crate) struct Intake(Coalescer<Writer>);

impl Intake {
    /// Starts the writers on connections of their own to the database of `db`: what exhausts the
    /// pool of everything else leaves them alone.
    pub(crate) fn start(db: &PgPool) -> Self {
        let own = PgPoolOptions::new()
            .max_connections(WRITERS)
            .acquire_timeout(db.options().get_acquire_timeout())
            .connect_lazy_with(db.connect_options().as_ref().clone());
        let writers = (0..WRITERS).map(|_| Writer { db: own.clone(), connection: None });
        Self(Coalescer::start(writers, SETTINGS))
    }

    /// Stores an event; it is committed when this returns.
    pub(super) async fn store(&self, event: NewEvent) -> Result<Stored, Error> {
        self.0.submit(event).await
    }
}

impl NewEvent {
    /// An event as it came.
    pub(super) fn of(
        id: WebhookEventId,
        gateway: GatewayName,
        event: VerifiedEvent,
        body: &[u8],
        received_at: DateTime<Utc>,
    ) -> Self {
        Self { id, gateway, event, payload: body.to_vec(), received_at }
    }
}

/// Keeps its connection as long as it works: a pool would ask it for a sign of life each time.
struct Writer {
    db: PgPool,
    connection: Option<PoolConnection<Postgres>>,
}

impl Committer for Writer {
    type Item = NewEvent;
    type Verdict = Stored;

    async fn commit(&mut self, events: &[NewEvent]) -> Result<Vec<Stored>, Error> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.db.acquire().await?,
        };
        let verdicts = store_all(&mut connection, events).await?;
        self.connection = Some(connection);
        Ok(verdicts)
    }
}

async fn store_all(
    connection: &mut PgConnection,
    events: &[NewEvent],
) -> Result<Vec<Stored>, Error> {
    // All in one order, so that two writers with the same events do not wait for each other.
    let mut sorted: Vec<&NewEvent> = events.iter().collect();
    sorted.sort_by(|a, b| a.event.id.cmp(&b.event.id));
    let new: HashSet<WebhookEventId> =
        store::insert(connection, &sorted).await?.into_iter().collect();
    sorted.retain(|event| !new.contains(&event.id));
    if !sorted.is_empty() {
        warn_of_conflicts(connection, &sorted).await;
    }
    let verdict = |event: &NewEvent| {
        if new.contains(&event.id) { Stored::New } else { Stored::Known }
    };
    Ok(events.iter().map(verdict).collect())
}

/// The first body of an event wins; another one under its id is worth an alert.
async fn warn_of_conflicts(connection: &mut PgConnection, known: &[&NewEvent]) {
    match store::with_other_body(connection, known).await {
        Ok(others) => {
            for event in known.iter().filter(|event| others.contains(&event.id)) {
                tracing::error!(
                    gateway = event.gateway.as_str(),
                    event_id = event.event.id,
                    "same event, other body; kept the first"
                );
            }
        }
        Err(error) => tracing::warn!(%error, "a repeated event was not compared"),
    }
}
