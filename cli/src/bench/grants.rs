//! From a gateway's webhook to tokens that can be spent: intake, queue, worker, ledger.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use shared::clock::wall_now;
use shared::ids::{CustomerId, PaymentId};
use shared::money::Currency;
use shared::plans::{self, NewPlan};
use shared::tokens::Tokens;
use uuid::Uuid;

use super::drive::{Done, Load, Order, Outcome};
use super::http::Requests;
use super::load::Rows;
use super::requests::{Told, push_event};
use super::world::{Ground, Process};
use super::{drive, machine, world};

type Failed = Box<dyn std::error::Error>;

/// How long the worker may take to start, and after the last event to grant.
const PATIENCE: Duration = Duration::from_mins(1);

/// A database of payments that wait for their webhook, and the API on it.
pub(super) struct Grants {
    url: String,
    plan_id: i32,
    api: Process,
    payments: usize,
}

/// What one payment is called.
struct Pending {
    customer: CustomerId,
    payment: PaymentId,
    event: String,
    intent: String,
}

impl Grants {
    /// Makes the database and starts an API on it.
    pub(super) async fn prepare(ground: &Ground, cores: machine::Cores) -> Result<Self, Failed> {
        let url = ground.database("grants").await?;
        let pack = NewPlan {
            name: "Pack",
            description: "",
            price_minor: 1_000,
            currency: Currency::USD,
            tokens_included: Tokens(1_000),
            duration_days: None,
            is_recurring: false,
        };
        let plan_id = plans::create(&world::app(&url).await?, &pack).await?;
        let api = ground.api(&url, cores).await?;
        Ok(Self { url, plan_id, api, payments: 0 })
    }

    /// The database.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Delivers paced events of new payments while a worker runs. Latencies are from the 200 to the
    /// commit of the grant; the rate is that of the grants.
    pub(super) async fn run(&mut self, ground: &Ground, load: &Load) -> Result<Outcome, Failed> {
        let pace = load.pace.unwrap_or(1.0);
        let count = (pace * load.time.as_secs_f64()).ceil() as usize;
        let pending: Vec<Pending> = (0..=count).map(|_| self.next()).collect();
        self.copy(&pending).await?;
        let mut worker = ground.worker(&self.url)?;
        let (first, rest) = pending.split_first().ok_or("no payment")?;
        // Its grant shows that the worker works.
        self.deliver(std::slice::from_ref(first), load).await?;
        self.granted(std::slice::from_ref(first), &mut worker).await?;
        let api = self.api.pid().to_string();
        let before = machine::processor_seconds(&api);
        let mut told = self.deliver(rest, load).await?;
        told.api_seconds = machine::processor_seconds(&api) - before;
        let granted = self.granted(rest, &mut worker).await?;
        self.api.must_live()?;
        Ok(latencies(told, rest, &granted))
    }

    fn next(&mut self) -> Pending {
        self.payments += 1;
        let number = self.payments;
        Pending {
            customer: CustomerId::of(&format!("payer{number}")),
            payment: PaymentId::new(wall_now()),
            event: format!("evt_paid{number}"),
            intent: format!("pi_paid{number}"),
        }
    }

    /// Payments as they are once the gateway answered that the payer may pay.
    async fn copy(&self, pending: &[Pending]) -> Result<(), Failed> {
        let mut db = world::connect(&self.url).await?;
        let (now, plan) = (wall_now(), self.plan_id);
        let columns = "customers (customer_id, external_id, created_at, updated_at)";
        let mut rows = Rows::begin(&mut db, columns).await?;
        for Pending { customer, event, .. } in pending {
            rows.add(format_args!("{customer}\t{event}\t{now}\t{now}")).await?;
        }
        rows.end().await?;
        let columns = "payments (customer_id, id, plan_id, plan_version, amount_minor, currency,
                       method, gateway, status, gateway_reference, created_at, updated_at)";
        let mut rows = Rows::begin(&mut db, columns).await?;
        for Pending { customer, payment, intent, .. } in pending {
            rows.add(format_args!(
                "{customer}\t{payment}\t{plan}\t1\t1000\tUSD\tstripe\tstripe\tpending\t{intent}\t\
                 {now}\t{now}"
            ))
            .await?;
        }
        rows.end().await?;
        let columns = "payment_objects (customer_id, payment_id, gateway, object_id, created_at,
                       updated_at)";
        let mut rows = Rows::begin(&mut db, columns).await?;
        for Pending { customer, payment, intent, .. } in pending {
            rows.add(format_args!("{customer}\t{payment}\tstripe\t{intent}\t{now}\t{now}")).await?;
        }
        rows.end().await?;
        let columns = "gateway_objects (gateway, object_id, customer_id, payment_id, created_at)";
        let mut rows = Rows::begin(&mut db, columns).await?;
        for Pending { customer, payment, intent, .. } in pending {
            rows.add(format_args!("stripe\t{intent}\t{customer}\t{payment}\t{now}")).await?;
        }
        rows.end().await
    }

    async fn deliver(&self, pending: &[Pending], load: &Load) -> Result<Outcome, Failed> {
        let mut requests = Requests::default();
        for Pending { payment, event, intent, .. } in pending {
            let payment = payment.to_string();
            push_event(&mut requests, &Told { event, intent, payment: &payment, is_paid: true })?;
        }
        let told = drive::run(Load {
            address: self.api.address,
            requests: requests.into(),
            order: Order::Once,
            follow: None,
            // The schedule decides when it ends; the last ones are due just before.
            time: load.time * 2,
            ..load.clone()
        })
        .await?;
        if told.done.len() != pending.len() {
            return Err(format!("events were refused: {:?}", told.refused).into());
        }
        Ok(told)
    }

    /// When each payment's grant was committed, in microseconds since 1970.
    async fn granted(
        &self,
        pending: &[Pending],
        worker: &mut Process,
    ) -> Result<HashMap<Uuid, i64>, Failed> {
        let mut db = world::connect(&self.url).await?;
        let ids: Vec<Uuid> = pending.iter().map(|pending| pending.payment.uuid()).collect();
        let end = Instant::now() + PATIENCE;
        loop {
            let granted: Vec<(Uuid, i64)> = sqlx::query_as(
                "select source_id,
                        (extract(epoch from pg_xact_commit_timestamp(xmin)) * 1000000)::bigint
                 from grants
                 where source_kind = 'payment' and source_id = any($1)",
            )
            .bind(&ids)
            .fetch_all(&mut db)
            .await?;
            if granted.len() == ids.len() {
                return Ok(granted.into_iter().collect());
            }
            worker.must_live()?;
            if Instant::now() > end {
                let missing = ids.len() - granted.len();
                return Err(format!("{missing} payments were not granted in a minute").into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn latencies(told: Outcome, pending: &[Pending], granted: &HashMap<Uuid, i64>) -> Outcome {
    let done = |done: &Done| {
        let at_us = granted.get(&pending[done.index].payment.uuid()).copied().unwrap_or(done.at_us);
        Done { latency_us: u32::try_from(at_us - done.at_us).unwrap_or(0), at_us, ..*done }
    };
    let first = told.done.iter().map(|done| done.at_us).min().unwrap_or(0);
    let done: Vec<Done> = told.done.iter().map(done).collect();
    let last = done.iter().map(|done| done.at_us).max().unwrap_or(0);
    let elapsed = Duration::from_micros(u64::try_from(last - first).unwrap_or(0));
    Outcome { done, elapsed, ..told }
}
