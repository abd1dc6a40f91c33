//! The process that does what requests leave behind: webhook events, captures, sweeps.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use apalis::prelude::*;
use apalis_core::backend::ext::BackendExt;
use apalis_core::backend::ext::poll_strategy::Strategy;
use apalis_postgres::{Config as QueueConfig, PostgresStorage};
use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use shared::clock::wall_now;
use shared::jobs::{self, Job, QUEUE};
use shared::{App, Error, methods, payments, tokens, webhooks};
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
/// Between two readings of the gateways' lists of events.
const EVENTS_TICK: Duration = Duration::from_mins(5);
/// Between two looks whether the day's anchor is still to be made.
const ANCHOR_TICK: Duration = Duration::from_hours(1);
/// How long running jobs may go on after the order to stop.
const DRAIN: Duration = Duration::from_secs(25);

/// Runs one job. `Err` means try again; what no retry can mend is recorded on its row and is `Ok`.
pub async fn run(app: &App, job: Job) -> Result<(), Error> {
    match job {
        Job::ProcessWebhookEvent { event_id, .. } => webhooks::process(app, event_id).await,
        Job::CapturePayment { customer_id, payment_id, .. } => {
            match payments::capture_approved(app, customer_id, payment_id).await {
                Ok(_) => Ok(()),
                Err(error) => only_temporary(error),
            }
        }
        Job::SendRefund { customer_id, refund_id, .. } => {
            payments::send_refund(app, customer_id, refund_id).await
        }
        Job::CheckPayment { customer_id, payment_id, .. } => {
            match payments::check(app, customer_id, payment_id).await {
                Ok(()) => Ok(()),
                Err(error) => only_temporary(error),
            }
        }
        Job::ReadMethod { customer_id, method_id, .. } => {
            match methods::read(app, customer_id, method_id).await {
                Ok(()) => Ok(()),
                Err(error) => only_temporary(error),
            }
        }
        Job::FetchEvents { gateway, .. } => webhooks::fetch_missed(app, gateway).await.map(drop),
        Job::AnchorLedger { .. } => tokens::anchor(app).await,
        Job::Sweep { .. } => {
            webhooks::ring_lost(app).await?;
            tokens::book_due(app).await?;
            Ok(jobs::forget_old(&app.db).await?)
        }
    }
}

/// What can never succeed is not tried again; it was logged where it was found.
fn only_temporary(error: Error) -> Result<(), Error> {
    match error {
        Error::Database(_) | Error::Overloaded | Error::Bug(_) => Err(error),
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
        | Error::InsufficientTokens(_)
        | Error::HoldNotOpen(_)
        | Error::SettledShort { .. } => {
            tracing::error!(%error, "job given up");
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
        // Their rows say when they are due: the sweep rings again.
        Job::SendRefund { .. }
        | Job::CheckPayment { .. }
        | Job::ReadMethod { .. }
        | Job::AnchorLedger { .. }
        | Job::FetchEvents { .. } => {
            tracing::error!(job = job.key(), why, "job given up; the sweep rings again");
            Ok(())
        }
        Job::Sweep { .. } => Ok(()),
    }
}

/// Whether nobody is to blame but a gateway or a database that does not answer.
fn is_outage(error: &Error) -> bool {
    matches!(error, Error::Database(_) | Error::Overloaded)
        || matches!(error, Error::Gateway(gateway) if gateway.is_temporary())
}

/// Ends a job whose attempts are used up. A row that cannot be written now is found by its sweep,
/// so this is never an error of the queue's, which would keep the job's name for ever.
async fn end(app: &App, job: &Job, why: &str, is_outage: bool) -> Result<(), BoxDynError> {
    let ended = match job {
        Job::ProcessWebhookEvent { event_id, .. } if is_outage => {
            webhooks::put_off(app, *event_id, why).await
        }
        Job::ProcessWebhookEvent { .. }
        | Job::CapturePayment { .. }
        | Job::SendRefund { .. }
        | Job::CheckPayment { .. }
        | Job::ReadMethod { .. }
        | Job::AnchorLedger { .. }
        | Job::FetchEvents { .. }
        | Job::Sweep { .. } => give_up(app, job, why).await,
    };
    if let Err(error) = ended {
        tracing::error!(%error, job = job.key(), why, "a job's end was not written");
    }
    Ok(())
}

/// Runs a job within the queue's rules: attempts are counted before anything is done, a panic is
/// an error, and an error lets the job rest in its row.
async fn handle(job: Job, attempt: Attempt, id: TaskId, app: Data<App>) -> Result<(), BoxDynError> {
    let tries = attempt.current().max(1);
    let most = job.max_attempts();
    if tries > most {
        // A job that kills its worker comes back without ever having failed.
        return end(&app, &job, "its worker died with it, again and again", false).await;
    }
    let done = AssertUnwindSafe(run(&app, job.clone())).catch_unwind().await;
    let (why, is_outage) = match done {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => (error.to_string(), is_outage(&error)),
        Err(_) => ("the job panicked".to_owned(), false),
    };
    if tries >= most {
        return end(&app, &job, &why, is_outage).await;
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

/// Queues the sweep of every five seconds and the rarer ticks; all workers do, each tick's key
/// lets one through.
async fn tick(app: App) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        interval.tick().await;
        let mut jobs = vec![Job::Sweep { tick: start_of(TICK).timestamp() }];
        jobs.push(Job::AnchorLedger { tick: start_of(ANCHOR_TICK).timestamp() });
        jobs.extend(webhooks::fetch_jobs(&app, start_of(EVENTS_TICK)));
        if let Err(error) = queue(&app.db, &jobs).await {
            tracing::warn!(%error, "the ticks were not queued");
        }
    }
}

/// The start of the running tick, the same for all workers.
fn start_of(tick: Duration) -> DateTime<Utc> {
    let seconds = i64::try_from(tick.as_secs()).expect("minutes at most");
    let start = wall_now().timestamp() / seconds * seconds;
    DateTime::from_timestamp(start, 0).expect("now is within chrono's range")
}

async fn queue(db: &PgPool, jobs: &[Job]) -> sqlx::Result<()> {
    let mut connection = db.acquire().await?;
    jobs::enqueue(&mut connection, jobs).await
}
