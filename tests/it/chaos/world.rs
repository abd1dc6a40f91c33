//! The world of a run: the gateways with all their faults, the worker's loops, time that goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use harness::{Options, TestApp};
use shared::clock::wall_now;
use shared::db::PoolSettings;
use shared::gateways::GatewayName;
use shared::jobs::{Job, MAX_ATTEMPTS, QUEUE};
use shared::{App, webhooks};
use simulator::{Fault, Gateway, Trouble};
use tokio::task::JoinSet;

/// Jobs at once.
const WORKERS: usize = 12;
/// Nothing that is waited for may take longer, however slow the machine.
const DEADLINE: Duration = Duration::from_mins(5);
/// How long a loop without work rests: with all of them, one looks every few milliseconds.
const REST: Duration = Duration::from_millis(40);

/// How events reach us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// By webhooks and by the gateways' lists.
    Webhooks,
    /// By the gateways' lists only.
    Lists,
    /// Not at all: payments are only asked about.
    None,
}

/// Everything that one run shares.
pub(super) struct World {
    pub(super) app: TestApp,
    /// The worker's own handle, with a pool of its own.
    pub(super) worker: App,
    pub(super) operator: String,
    pub(super) seed: u64,
    pub(super) news: News,
    pub(super) counts: Mutex<BTreeMap<String, u64>>,
    has_stopped: AtomicBool,
    is_over: AtomicBool,
    began_at: chrono::DateTime<chrono::Utc>,
}

impl World {
    pub(super) async fn start(seed: u64, news: News) -> Arc<Self> {
        let settings = simulator::Settings {
            first_retry_after: Duration::from_millis(20),
            longest_retry_after: Duration::from_millis(200),
            seed,
            ..simulator::Settings::default()
        };
        let options = Options { simulator: Some(settings), ..Options::default() };
        let app = TestApp::start_with(options).await;
        // The gateways' time is the machine's; ours begins with it and runs ahead.
        app.clock.advance(wall_now() - app.clock.now());
        let pool = shared::db::connect(&app.app.config.database_url, PoolSettings::WORKER).unwrap();
        let config = (*app.app.config).clone();
        let worker = App::new(config, pool, app.clock.clone()).unwrap();
        for pool in [&app.app.db, &worker.db] {
            open_all(pool).await;
        }
        let operator = app.operator().await;
        let webhooks = |gateway: &str| {
            (news == News::Webhooks).then(|| app.url(&format!("webhooks/{gateway}/")))
        };
        app.simulator.set_webhook_urls(webhooks("stripe"), webhooks("paypal"));
        let began_at = app.clock.now();
        Arc::new(Self {
            app,
            worker,
            operator,
            seed,
            news,
            counts: Mutex::default(),
            has_stopped: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            began_at,
        })
    }

    /// When the run began.
    pub(super) fn began_at(&self) -> chrono::DateTime<chrono::Utc> {
        self.began_at
    }

    /// Counts something for the report.
    pub(super) fn count(&self, what: impl Into<String>) {
        *self.counts.lock().unwrap().entry(what.into()).or_default() += 1;
    }

    /// Lets everything go wrong that can, at both gateways.
    pub(super) fn break_everything(&self) {
        for (trouble, per_mille) in troubles() {
            self.app.simulator.set_fault(Fault::by_chance(trouble, per_mille));
        }
        self.app.simulator.seed(self.seed);
    }

    /// The worker: several loops on the queue, one that sweeps and reads the lists of events.
    pub(super) fn work(self: &Arc<Self>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for _ in 0..WORKERS {
            tasks.spawn(Arc::clone(self).work_off());
        }
        tasks
    }

    /// Time goes on, about fifty times as fast as outside, until the last buyer is done.
    pub(super) async fn tick(self: Arc<Self>) {
        let mut tick = 0_u64;
        while !self.has_stopped.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.app.clock.advance(chrono::Duration::seconds(5));
            self.sweep().await;
            tick += 1;
            if tick.is_multiple_of(10) {
                self.read_lists().await;
            }
        }
    }

    /// Ends [`World::tick`].
    pub(super) fn stop_ticking(&self) {
        self.has_stopped.store(true, Ordering::SeqCst);
    }

    /// Ends the workers once nothing is queued.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// Rings for what is due, as the worker's sweep does.
    pub(super) async fn sweep(&self) {
        if let Err(error) = webhooks::ring_lost(&self.worker).await {
            self.count(format!("sweep: {error}"));
        }
    }

    /// Reads both gateways' lists of events; returns how many were new.
    pub(super) async fn read_lists(&self) -> usize {
        if self.news == News::None {
            return 0;
        }
        let mut new = 0;
        for gateway in [GatewayName::Stripe, GatewayName::Paypal] {
            // A list that cannot be read now is read with the next tick.
            new += webhooks::fetch_missed(&self.worker, gateway).await.unwrap_or(0);
        }
        new
    }

    /// Waits until the queue is empty and nobody works.
    pub(super) async fn drain(&self) {
        let end = Instant::now() + DEADLINE;
        loop {
            // What was rung for is queued by a task of its own.
            tokio::time::sleep(REST / 2).await;
            let open = "select count(*) from apalis.jobs where status <> 'Done'";
            let open = self.app.scalar(open).await;
            if open == 0 && self.app.simulator.pending_deliveries() == 0 {
                return;
            }
            assert!(Instant::now() < end, "{open} jobs are not done");
        }
    }

    /// One of the worker's loops, by the queue's own rules: a job that is done keeps its key, one
    /// that failed comes back, at last its row says so.
    async fn work_off(self: Arc<Self>) {
        loop {
            let Some((id, body, attempts)) = self.take().await else {
                if self.is_over.load(Ordering::SeqCst) {
                    return;
                }
                tokio::time::sleep(REST).await;
                continue;
            };
            let job: Job = serde_json::from_slice(&body).unwrap();
            let done = worker::run(&self.worker, job.clone()).await;
            let tries = usize::try_from(attempts).unwrap();
            let is_back = match done {
                Ok(()) => false,
                Err(error) if tries < MAX_ATTEMPTS => {
                    self.count(format!("job failed: {error}"));
                    true
                }
                Err(error) => {
                    self.count("jobs given up");
                    if let Job::ProcessWebhookEvent { event_id, .. } = job {
                        let why = error.to_string();
                        webhooks::give_up(&self.worker, event_id, &why).await.unwrap();
                    }
                    false
                }
            };
            let (status, rest) = if is_back { ("Pending", attempts * 20) } else { ("Done", 0) };
            while let Err(error) = self.put_back(&id, status, rest).await {
                self.count(format!("queue: {error}"));
            }
        }
    }

    async fn put_back(&self, id: &str, status: &str, rest_ms: i32) -> sqlx::Result<()> {
        sqlx::query(
            "update apalis.jobs
             set status = $2, done_at = now(), run_at = now() + make_interval(secs => $3 / 1e3)
             where id = $1",
        )
        .bind(id)
        .bind(status)
        .bind(rest_ms)
        .execute(&self.worker.db)
        .await
        .map(drop)
    }

    async fn take(&self) -> Option<(String, Vec<u8>, i32)> {
        let taken = sqlx::query_as(
            "update apalis.jobs set status = 'Running', attempts = attempts + 1
             where id = (select id from apalis.jobs
                         where job_type = $1 and status = 'Pending' and run_at <= now()
                         order by run_at limit 1 for update skip locked)
             returning id, job, attempts",
        );
        // A poll that fails is made again.
        taken.bind(QUEUE).fetch_optional(&self.worker.db).await.unwrap_or_default()
    }

    /// How often each kind of trouble struck a call, and an attempt at a delivery.
    pub(super) fn strikes(&self) -> BTreeMap<String, u64> {
        let calls = self.app.simulator.calls();
        let attempts = self.app.simulator.attempts();
        let troubles = calls.iter().map(|call| &call.trouble);
        let troubles = troubles.chain(attempts.iter().map(|attempt| &attempt.trouble));
        let mut strikes = BTreeMap::new();
        for trouble in troubles.flatten() {
            let word = serde_json::to_value(trouble).unwrap()["kind"].as_str().unwrap().to_owned();
            *strikes.entry(word).or_default() += 1;
        }
        strikes
    }
}

/// Opens a pool's connections one after the other: all at once take longer than one may wait.
async fn open_all(pool: &sqlx::PgPool) {
    let mut connections = Vec::new();
    for _ in 0..pool.options().get_max_connections() {
        connections.push(pool.acquire().await.unwrap());
    }
}

/// Every kind of trouble that there is; short, so that a run takes seconds.
fn troubles() -> Vec<(Trouble, u16)> {
    use Trouble::*;
    vec![
        (ErrorBefore, 12),
        (ErrorSaved, 8),
        (ErrorAfter, 8),
        (AnswerLost, 12),
        (ResetBefore, 8),
        (ResetAfter, 12),
        (RateLimited { retry_after_s: 1 }, 12),
        (Slow { ms: 50 }, 10),
        (MalformedAnswer, 10),
        (WrongAmount, 12),
        (WrongCurrency, 8),
        (AnswerAfterWebhook, 10),
        (Duplicate { times: 2 }, 80),
        (Delay { ms: 100 }, 60),
        (Shuffle { within_ms: 200 }, 150),
        (Drop, 80),
        (WrongSecret, 10),
        (StaleTime { seconds: 3_600 }, 10),
        (FutureTime { seconds: 3_600 }, 10),
        (FlipByte, 10),
        (SlowBody { ms: 30 }, 10),
        (TruncatedBody, 10),
        (Gzip, 10),
        (WrongContentType, 10),
    ]
}

/// Which gateway an id of an object is of.
pub(super) fn gateway_of(object_id: &str) -> Gateway {
    if object_id.starts_with("pi_") || object_id.starts_with("cs_") {
        Gateway::Stripe
    } else {
        Gateway::PayPal
    }
}
