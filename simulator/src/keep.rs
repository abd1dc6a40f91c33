//! The books kept in a file, so that a second start still knows what the first one sold.

use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use crate::SimEvent;
use crate::delivery::DeliveryStatus;
use crate::world::Core;
use crate::{paypal, stripe};

/// How often changed books are written: what a crash may lose.
const EVERY: Duration = Duration::from_secs(2);

/// What is written.
#[derive(Serialize)]
struct Saved<'a> {
    stripe: &'a stripe::Books,
    paypal: &'a paypal::Books,
    events: &'a [SimEvent],
    /// Ids of the events not yet accepted.
    pending: Vec<&'a str>,
    clock_offset_ms: i64,
}

/// What is read.
#[derive(Deserialize)]
struct Loaded {
    stripe: stripe::Books,
    paypal: paypal::Books,
    events: Vec<SimEvent>,
    pending: Vec<String>,
    clock_offset_ms: i64,
}

/// Fills the books from the file, if there is one; one that cannot be read is as none.
pub(crate) fn load(core: &Core) {
    let Some(path) = &core.settings.state_file else { return };
    let loaded = std::fs::read(path)
        .and_then(|bytes| serde_json::from_slice::<Loaded>(&bytes).map_err(io::Error::other));
    match loaded {
        Ok(loaded) => fill(core, loaded),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(%error, "the simulator's books start empty"),
    }
}

fn fill(core: &Core, mut loaded: Loaded) {
    // A call cut off by the end of the process is no longer in progress.
    loaded.stripe.forget_unfinished();
    loaded.paypal.forget_unfinished();
    core.clock.reset();
    core.clock.advance(TimeDelta::milliseconds(loaded.clock_offset_ms));
    let world = &mut *core.world();
    world.stripe = loaded.stripe;
    world.paypal = loaded.paypal;
    world.outbox.events = loaded.events;
    for id in loaded.pending {
        world.outbox.redeliver(&id);
    }
}

/// Writes the books, whole or not at all.
pub(crate) fn save(core: &Core) {
    let Some(path) = &core.settings.state_file else { return };
    let _pen = core.pen.lock().unwrap_or_else(PoisonError::into_inner);
    let written = write(core);
    if let Err(error) = written.and_then(|bytes| replace(path, &bytes)) {
        tracing::warn!(%error, "the simulator's books could not be written");
    }
}

fn write(core: &Core) -> io::Result<Vec<u8>> {
    let world = core.world();
    let events = &world.outbox.events;
    let pending = events.iter().enumerate();
    let pending =
        pending.filter(|(place, _)| world.outbox.status(*place) == DeliveryStatus::Pending);
    let saved = Saved {
        stripe: &world.stripe,
        paypal: &world.paypal,
        events,
        pending: pending.map(|(_, event)| event.id.as_str()).collect(),
        clock_offset_ms: core.clock.offset().num_milliseconds(),
    };
    serde_json::to_vec(&saved).map_err(io::Error::other)
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, bytes)?;
    std::fs::rename(beside, path)
}

/// Writes changed books every few seconds.
pub(crate) async fn run(core: Arc<Core>) {
    let mut written = core.world().turns;
    loop {
        tokio::time::sleep(EVERY).await;
        let turns = core.world().turns;
        if turns != written {
            written = turns;
            let core = Arc::clone(&core);
            // Writing may block on the disk.
            let _ = tokio::task::spawn_blocking(move || save(&core)).await;
        }
    }
}

/// Bodies of events as text: they are JSON, so nothing is lost.
pub(crate) mod text {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(body: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&String::from_utf8_lossy(body))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        Ok(String::deserialize(deserializer)?.into_bytes())
    }
}
