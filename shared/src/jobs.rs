//! Work that outlives a request. A job names a row and carries nothing else: the row is the truth.
//!
//! Only this file, `db.rs` and the worker name apalis. Its tables are made by its own migrations,
//! so these statements are proven by tests instead of being checked when compiled.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};
use tokio::sync::mpsc;

use crate::gateways::GatewayName;
use crate::ids::{CustomerId, PaymentId, PaymentMethodId, RefundId, WebhookEventId};

/// The queue's name.
pub const QUEUE: &str = "tollgate";

/// How often a job is tried before its row says that it failed.
pub const MAX_ATTEMPTS: usize = 12;

/// One piece of work.
///
/// Tags are stored in the queue; rename a variant only with `#[serde(alias)]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Job {
    /// Acts on what a gateway told us. `attempt` makes a new doorbell of a waiting event's retry.
    ProcessWebhookEvent {
        /// The event.
        event_id: WebhookEventId,
        /// How often it was tried before.
        attempt: i32,
    },
    /// Captures an order that the buyer approved at PayPal.
    CapturePayment {
        /// The payment's customer.
        customer_id: CustomerId,
        /// The payment.
        payment_id: PaymentId,
        /// Tells one ring from the next: the minute, as seconds since 1970.
        minute: i64,
    },
    /// Asks the gateway for a refund of ours, or how it stands.
    SendRefund {
        /// The refund's customer.
        customer_id: CustomerId,
        /// The refund.
        refund_id: RefundId,
        /// How often the gateway was asked before.
        attempt: i32,
    },
    /// Asks the gateway how a payment stands, whose webhook may be lost.
    CheckPayment {
        /// The payment's customer.
        customer_id: CustomerId,
        /// The payment.
        payment_id: PaymentId,
        /// How often it was asked before.
        check: i32,
    },
    /// Reads the details of a saved method.
    ReadMethod {
        /// The method's customer.
        customer_id: CustomerId,
        /// The method.
        method_id: PaymentMethodId,
        /// Tells one ring from the next: the hour, as seconds since 1970.
        hour: i64,
    },
    /// Reads a gateway's list of events, for those whose webhook was lost.
    FetchEvents {
        /// Whose list.
        gateway: GatewayName,
        /// The tick, as seconds since 1970.
        tick: i64,
    },
    /// Puts the heads of the ledger's chains under one digest.
    AnchorLedger {
        /// The tick, as seconds since 1970.
        tick: i64,
    },
    /// Rings for work whose doorbell was lost or whose time has come.
    Sweep {
        /// The tick, as seconds since 1970.
        tick: i64,
    },
}

impl Job {
    /// The name under which the queue holds one job only.
    pub fn key(&self) -> String {
        match self {
            Self::ProcessWebhookEvent { event_id, attempt } => {
                format!("event:{event_id}:{attempt}")
            }
            Self::CapturePayment { payment_id, minute, .. } => {
                format!("capture:{payment_id}:{minute}")
            }
            Self::SendRefund { refund_id, attempt, .. } => format!("refund:{refund_id}:{attempt}"),
            Self::CheckPayment { payment_id, check, .. } => format!("check:{payment_id}:{check}"),
            Self::ReadMethod { method_id, hour, .. } => format!("method:{method_id}:{hour}"),
            Self::FetchEvents { gateway, tick } => {
                format!("tick:events:{}:{tick}", gateway.as_str())
            }
            Self::AnchorLedger { tick } => format!("tick:anchor:{tick}"),
            Self::Sweep { tick } => format!("tick:sweep:{tick}"),
        }
    }

    /// The reading of a method, rung at most once an hour.
    pub fn read_method(
        customer_id: CustomerId,
        method_id: PaymentMethodId,
        now: DateTime<Utc>,
    ) -> Self {
        Self::ReadMethod { customer_id, method_id, hour: now.timestamp() / 3_600 * 3_600 }
    }

    /// How often the queue tries it before its row is looked at again.
    ///
    /// A capture is rung for every minute while it is due, so each ring is tried a few times only.
    pub const fn max_attempts(&self) -> usize {
        match self {
            Self::CapturePayment { .. } => 3,
            Self::ProcessWebhookEvent { .. }
            | Self::SendRefund { .. }
            | Self::CheckPayment { .. }
            | Self::ReadMethod { .. }
            | Self::FetchEvents { .. }
            | Self::AnchorLedger { .. }
            | Self::Sweep { .. } => MAX_ATTEMPTS,
        }
    }

    /// The capture of a payment, rung at most once a minute.
    pub fn capture(customer_id: CustomerId, payment_id: PaymentId, now: DateTime<Utc>) -> Self {
        Self::CapturePayment { customer_id, payment_id, minute: now.timestamp() / 60 * 60 }
    }
}

/// Queues `jobs`; one that is queued already is left alone.
pub async fn enqueue(db: &mut PgConnection, jobs: &[Job]) -> sqlx::Result<()> {
    let bodies: Vec<Vec<u8>> =
        jobs.iter().map(|job| serde_json::to_vec(job).expect("a job is plain data")).collect();
    let keys: Vec<String> = jobs.iter().map(Job::key).collect();
    sqlx::query(
        "insert into apalis.jobs
             (id, job_type, job, status, attempts, max_attempts, run_at, priority, metadata,
              idempotency_key)
         select apalis.generate_ulid(), $1, job, 'Pending', 0, $2, now(), 0, ''::hstore, key
         from unnest($3::bytea[], $4::text[]) as t (job, key)
         on conflict (job_type, idempotency_key) do nothing",
    )
    .bind(QUEUE)
    .bind(i32::try_from(MAX_ATTEMPTS).expect("a small number"))
    .bind(bodies)
    .bind(keys)
    .execute(db)
    .await
    .map(drop)
}

/// Lets a failed job rest before it is fetched again: 1, 2, 4, … s, an hour at most.
///
/// The queue itself would retry at once (measured), so the due time is put into its row.
pub async fn postpone(db: &PgPool, job_id: &str, attempt: usize) -> sqlx::Result<()> {
    let exponent = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX).min(12);
    let seconds = 2_i32.pow(exponent).min(3600);
    sqlx::query("update apalis.jobs set run_at = now() + make_interval(secs => $2) where id = $1")
        .bind(job_id)
        .bind(f64::from(seconds))
        .execute(db)
        .await
        .map(drop)
}

/// Deletes jobs that were done a day ago, and workers not seen for an hour.
pub async fn forget_old(db: &PgPool) -> sqlx::Result<()> {
    sqlx::query(
        "delete from apalis.jobs
         where id in (select id from apalis.jobs
                      where status = 'Done' and done_at < now() - interval '1 day'
                      limit 5000)",
    )
    .execute(db)
    .await?;
    // What the queue gave up on keeps its key: without this no sweep could ring for it again.
    sqlx::query(
        "delete from apalis.jobs
         where id in (select id from apalis.jobs
                      where (status = 'Killed' or (status = 'Failed' and attempts >= max_attempts))
                        and run_at < now() - interval '5 minutes'
                      limit 5000)",
    )
    .execute(db)
    .await?;
    sqlx::query(
        "delete from apalis.workers w
         where last_seen < now() - interval '1 hour'
           and not exists (select from apalis.jobs j where j.lock_by = w.id)",
    )
    .execute(db)
    .await
    .map(drop)
}

/// Rings for jobs whose rows are committed, many in one transaction.
///
/// Losing a ring is harmless: a sweep finds the row. So the caller never waits.
#[derive(Debug, Clone)]
pub struct Doorbell(mpsc::Sender<Job>);

/// Rings that may wait; beyond it the sweep takes over.
const DOORBELL_CAPACITY: usize = 10_000;

impl Doorbell {
    /// Starts the task that queues what was rung for. It ends with the last handle.
    pub fn start(db: PgPool) -> Self {
        let (sender, mut receiver) = mpsc::channel(DOORBELL_CAPACITY);
        tokio::spawn(async move {
            let mut jobs = Vec::new();
            while receiver.recv_many(&mut jobs, 500).await > 0 {
                if let Err(error) = ring_all(&db, &jobs).await {
                    tracing::warn!(%error, count = jobs.len(), "jobs not queued; the sweep will");
                }
                jobs.clear();
            }
        });
        Self(sender)
    }

    /// Asks for `job` to be queued soon.
    pub fn ring(&self, job: Job) {
        if self.0.try_send(job).is_err() {
            tracing::warn!("doorbell is full; the sweep will ring");
        }
    }
}

async fn ring_all(db: &PgPool, jobs: &[Job]) -> sqlx::Result<()> {
    // A ring may be lost, so it does not wait for the disk, nor make those wait who must.
    let mut tx = db.begin_with("begin; set local synchronous_commit = off").await?;
    enqueue(&mut tx, jobs).await?;
    tx.commit().await
}
