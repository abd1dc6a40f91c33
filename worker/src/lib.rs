//! The process that does what requests leave behind: webhook events, captures, sweeps.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use apalis::prelude::*;
use apalis_core::backend::ext::BackendExt;
use apalis_core::backend::ext::poll_strategy::Strategy;
use apalis_postgres::{Config as QueueConfig, PostgresStorage};
use futures_util::FutureExt;
use shared::clock::wall_now;
use shared::jobs::{self, Job, MAX_ATTEMPTS, QUEUE};
use shared::{App, Error, payments, webhooks};
use sqlx::PgPool;
use uuid::Uuid;

/// A killed worker's jobs are taken over after this times [`MISSED_HEARTBEATS`].
const HEARTBEAT: Duration = Duration::from_secs(5);
/// See [`HEARTBEAT`]: 15 s in all.
const MISSED_HEARTBEATS: usize = 3;
/// Jobs at once; each holds one connection for a moment.
const CONCURRENCY: usize = 16;
/// Between two looks for what was missed.
const TICK: Duration = Duration::from_secs(5);
/// How long running jobs may go on after the order to stop.
const DRAIN: Duration = Duration::from_secs(25);

/// Runs one job. `Err` means try again; what no retry can mend is recorded on its row and is `Ok`.
pub async fn run(app: &App, job: Job) -> Result<(), Error> {
    match job {
        Job::ProcessWebhookEvent { event_id, .. } => webhooks::process(app, event_id).await,
        Job::CapturePayment { customer_id, payment_id, .. } => {
            match payments::capture(app, customer_id, payment_id).await {
                Ok(_) => Ok(()),
                Err(error) => only_temporary(error),
            }
        }
        Job::Sweep { .. } => {
            webhooks::ring_lost(app).await?;
            Ok(jobs::forget_old(&app.db).await?)
        }
    }
}

/// A capture that can never succeed is not tried again; it was logged where it was found.
fn only_temporary(error: Error) -> Result<(), Error> {
    match error {
        Error::Database(_) => Err(error),
        Error::Gateway(ref gateway) if gateway.is_temporary() => Err(error),
        Error::Gateway(_)
        | Error::NotFound(_)
        | Error::PlanUnavailable
        | Error::NoSubscription
        | Error::SubscriptionInactive
        | Error::AlreadySubscribed
        | Error::Invalid { .. }
        | Error::InvalidCoupon
        | Error::Conflict(_)
        | Error::IdempotencyMismatch
        | Error::InsufficientTokens(_) => {
            tracing::error!(%error, "capture given up");
            Ok(())
        }
    }
}

/// Records on the row that a job's attempts are used up.
async fn give_up(app: &App, job: &Job, why: &str) -> Result<(), Error> {
    match job {
        Job::ProcessWebhookEvent { event_id, .. } => webhooks::give_up(app, *event_id, why).await,
        Job::CapturePayment { payment_id, .. } => {
            tracing::error!(payment.id = %payment_id, why, "capture given up; the sweep rings again");
            Ok(())
        }
        Job::Sweep { .. } => Ok(()),
    }
}

/// Runs a job within the queue's rules: attempts are counted before anything is done, a panic is
/// an error, and an error lets the job rest in its row.
async fn handle(job: Job, attempt: Attempt, id: TaskId, app: Data<App>) -> Result<(), BoxDynError> {
    let tries = attempt.current().max(1);
    if tries > MAX_ATTEMPTS {
        // A job that kills its worker comes back without ever having failed.
        give_up(&app, &job, "its worker died with it, again and again").await?;
        return Ok(());
    }
    let done = AssertUnwindSafe(run(&app, job.clone())).catch_unwind().await;
    let why = match done {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the job panicked".to_owned(),
    };
    if tries >= MAX_ATTEMPTS {
        give_up(&app, &job, &why).await?;
        return Ok(());
    }
    tracing::warn!(job = job.key(), tries, why, "job failed; it is tried again");
    jobs::postpone(&app.db, &id.to_string(), tries).await?;
    Err(why.into())
}

/// Works until `stop` completes, then lets running jobs end.
pub async fn serve(
    app: App,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let ticker = tokio::spawn(tick(app.clone()));
    let name = format!("{}-{}", std::process::id(), Uuid::now_v7());
    let worker = move |restart: usize| {
        let config = QueueConfig::default()
            .queue(QUEUE)
            .batch_size(CONCURRENCY)
            .heartbeat_interval(HEARTBEAT)
            .missed_heartbeats(MISSED_HEARTBEATS);
        let backend = PostgresStorage::<Job>::new(&app.db)
            .with_config(config)
            .with_pubsub()
            .poll_with_strategy(Strategy::new().interval(Duration::from_secs(1)));
        WorkerBuilder::new(format!("{name}-{restart}"))
            .backend(backend)
            .concurrency(CONCURRENCY)
            .data(app.clone())
            .build(handle)
    };
    let done = Monitor::new()
        .register(worker)
        .should_restart(|_, _| true)
        .shutdown_timeout(DRAIN)
        .run_with_signal(async move {
            stop.await;
            Ok(())
        })
        .await;
    ticker.abort();
    done.map_err(std::io::Error::other)
}

/// Queues the sweep of every five seconds; all workers do, its key lets one through.
async fn tick(app: App) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        interval.tick().await;
        let seconds = i64::try_from(TICK.as_secs()).expect("a few seconds");
        let job = Job::Sweep { tick: wall_now().timestamp() / seconds * seconds };
        if let Err(error) = queue(&app.db, job).await {
            tracing::warn!(%error, "the sweep was not queued");
        }
    }
}

async fn queue(db: &PgPool, job: Job) -> sqlx::Result<()> {
    let mut connection = db.acquire().await?;
    jobs::enqueue(&mut connection, &[job]).await
}
