//! `tollgate bench`: spending, intake and granting beside pgbench, on one machine (docs/bench.md).
#![expect(
    clippy::float_arithmetic,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates and times for people to read; no money"
)]

mod drive;
mod grants;
mod http;
mod load;
mod machine;
mod pgbench;
mod report;
mod requests;
mod stats;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::ApiState;
use serde_json::{Value, json};
use shared::check;
use shared::clock::wall_now;
use shared::config::Config;
use shared::db::{self, PoolSettings};
use shared::tokens::Depth;
use shared::{App, Clock};

use crate::{Done, say};
use drive::{Load, Order, Outcome};
use grants::Grants;
use http::Requests;
use load::Wish;
use machine::Cores;
use pgbench::{Pgbench, Script};
use report::Row;
use stats::percentile;
use world::{Ground, Process};

type Failed = Box<dyn std::error::Error>;

/// How to measure.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    part: Option<Part>,
    /// Length of each measurement.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// How often each is repeated, all taking turns; medians are printed.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Customers whose tokens are spent.
    #[arg(long, default_value_t = 100_000)]
    accounts: u32,
    /// Entries of consumed tokens that are there before, over all accounts.
    #[arg(long, default_value_t = 0)]
    entries: u64,
    /// Keep-alive connections, and pgbench's.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Payments a second of the measure `tokens`.
    #[arg(long, default_value_t = 200.0)]
    payments_per_second: f64,
    /// Only these, in commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Measure>,
    /// Writes settings, machine and every round to a file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where the data of the run are kept while it runs; default: the system's temporary folder.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Measures a build without optimisation, to try the benchmark itself.
    #[arg(long)]
    allow_debug: bool,
}

#[derive(clap::Subcommand)]
enum Part {
    /// Fills an empty database with accounts and entries, and says how long it took.
    Load(LoadOptions),
    /// The API, as a benchmark starts it.
    #[command(hide = true)]
    Api,
    /// The worker, as a benchmark starts it.
    #[command(hide = true)]
    Worker,
}

/// What to fill.
#[derive(clap::Args)]
struct LoadOptions {
    /// The database; its schema is made where it is missing.
    #[arg(long)]
    database_url: String,
    /// Customers, each with one lot.
    #[arg(long, default_value_t = 1_000_000)]
    accounts: u32,
    /// Entries of consumed tokens.
    #[arg(long, default_value_t = 10_000_000)]
    entries: u64,
}

/// Warm requests for the usage page: enough for a 95th percentile.
const USAGE_PAGES: usize = 50;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Measure {
    /// Spends over all accounts.
    Spread,
    /// Spends of one account.
    Hot,
    /// A hold opened and settled.
    Holds,
    /// Signed events stored.
    Intake,
    /// From the webhook's 200 to the grant.
    Tokens,
}

impl Measure {
    const ALL: [Self; 5] = [Self::Spread, Self::Hot, Self::Holds, Self::Intake, Self::Tokens];

    const fn name(self) -> &'static str {
        match self {
            Self::Spread => "spread",
            Self::Hot => "hot",
            Self::Holds => "holds",
            Self::Intake => "intake",
            Self::Tokens => "tokens",
        }
    }

    const fn says(self) -> &'static str {
        match self {
            Self::Spread => "consume, all accounts",
            Self::Hot => "consume, one account",
            Self::Holds => "hold opened and settled",
            Self::Intake => "webhook intake",
            Self::Tokens => "webhook to tokens, paced",
        }
    }

    /// What pgbench does meanwhile that is most like it.
    const fn script(self) -> Option<Script> {
        match self {
            Self::Spread => Some(Script::Spend),
            Self::Hot => Some(Script::SpendHot),
            Self::Intake => Some(Script::Intake),
            Self::Holds | Self::Tokens => None,
        }
    }
}

/// Measures, or does a part of it.
pub(crate) async fn run(options: &Options) -> Done {
    match &options.part {
        None => measure(options).await,
        Some(Part::Load(wish)) => fill(wish).await,
        Some(Part::Api) => serve().await,
        Some(Part::Worker) => work().await,
    }
}

async fn serve() -> Done {
    shared::app::init_logs();
    let config = Config::from_env()?;
    let listener = tokio::net::TcpListener::bind(config.bind).await?;
    let pool = db::connect(&config.database_url, PoolSettings::API)?;
    let state = ApiState::new(App::new(config, pool, Clock::system())?)?;
    api::serve(state, listener, shared::app::stop_signal()).await?;
    Ok(ExitCode::SUCCESS)
}

async fn work() -> Done {
    shared::app::init_logs();
    let config = Config::from_env()?;
    let pool = db::connect(&config.database_url, PoolSettings::WORKER)?;
    let app = App::new(config, pool, Clock::system())?;
    worker::serve(app, shared::app::stop_signal()).await?;
    Ok(ExitCode::SUCCESS)
}

async fn fill(options: &LoadOptions) -> Done {
    let LoadOptions { database_url, accounts, entries } = options;
    let wish = Wish { accounts: *accounts, entries: *entries };
    if wish.accounts == 0 {
        return Err("at least one account is needed".into());
    }
    world::app(database_url).await?;
    let time = load::load(database_url, wish).await?;
    let mut db = world::connect(database_url).await?;
    let size: String =
        sqlx::query_scalar("select pg_size_pretty(pg_database_size(current_database()))")
            .fetch_one(&mut db)
            .await?;
    say(format!("{accounts} accounts, {entries} spends: {:.1} s, {size}", time.as_secs_f64()));
    Ok(ExitCode::SUCCESS)
}

async fn measure(options: &Options) -> Done {
    if cfg!(debug_assertions) && !options.allow_debug {
        return Err("this is a build without optimisation: its figures say nothing. Use \
                    cargo run --release -- bench, or --allow-debug to try the benchmark itself"
            .into());
    }
    if options.accounts == 0 || options.clients == 0 || options.rounds == 0 || options.seconds == 0
    {
        return Err("accounts, clients, rounds and seconds must be at least 1".into());
    }
    shared::app::init_logs_quietly();
    let parent = options.data_dir.clone().unwrap_or_else(std::env::temp_dir);
    let ground = Ground::start(&parent).await?;
    let done = tokio::select! {
        done = measure_on(&ground, options) => done,
        () = shared::app::stop_signal() => Err("stopped".into()),
    };
    let ended = ground.end().await;
    let code = done?;
    ended?;
    Ok(code)
}

async fn measure_on(ground: &Ground, options: &Options) -> Done {
    let mut bench = Bench::prepare(ground, options).await?;
    let mut rows = Vec::new();
    for round in 0..options.rounds {
        for measure in bench.measures.clone() {
            let row = bench.turn(measure, round).await?;
            say(row.line(&format!("  {}, round {}", measure.name(), round + 1)));
            rows.push(row);
        }
    }
    let medians: Vec<Row> = Measure::ALL
        .iter()
        .filter_map(|measure| {
            let of_it: Vec<&Row> = rows.iter().filter(|row| row.measure == *measure).collect();
            report::middle(&of_it)
        })
        .collect();
    let mut halves = Vec::new();
    for median in &medians {
        if matches!(median.measure, Measure::Spread | Measure::Intake) {
            let outcome = bench.ours(median.measure, Some(median.ours / 2.0)).await?;
            halves.push(Row::of(median.measure, &outcome, None));
        }
    }
    let (resident, peak) = machine::memory(bench.api.pid());
    say(format!("\n{}", report::heading()));
    for row in &medians {
        say(row.line(row.measure.says()));
    }
    for row in &halves {
        say(row.line(&format!("{}, half load", row.measure.says())));
    }
    let unknown = || "unknown".to_owned();
    say(format!(
        "memory of the API: {} now, {} at most\n{}",
        resident.clone().unwrap_or_else(unknown),
        peak.clone().unwrap_or_else(unknown),
        bench.setting
    ));
    if let Some(path) = &options.json {
        let json = |rows: &[Row]| rows.iter().map(Row::json).collect::<Vec<_>>();
        let all = json!({
            "setting": bench.setting, "medians": json(&medians), "half_load": json(&halves),
            "rounds": json(&rows), "api_memory": { "now": resident, "peak": peak },
        });
        std::fs::write(path, format!("{all:#}\n"))?;
    }
    bench.usage_page().await?;
    bench.check().await?;
    Ok(ExitCode::SUCCESS)
}

/// Everything that a turn needs.
struct Bench<'a> {
    ground: &'a Ground,
    options: &'a Options,
    measures: Vec<Measure>,
    setting: Value,
    url: String,
    api: Process,
    cores: Cores,
    pgbench: Option<Pgbench>,
    grants: Option<Grants>,
    consume: Arc<Requests>,
    holds: Arc<Requests>,
    /// Events sent so far, and how many a second were stored at most.
    events: usize,
    most_events: f64,
}

impl<'a> Bench<'a> {
    async fn prepare(ground: &'a Ground, options: &'a Options) -> Result<Self, Failed> {
        let cores = Cores::here();
        let url = ground.database("tollgate").await?;
        let accounts = options.accounts;
        let entries = options.entries;
        let time = load::load(&url, Wish { accounts, entries }).await?;
        let seconds = time.as_secs_f64();
        say(format!("{accounts} accounts with {entries} entries made in {seconds:.1} s"));
        let setting = pgbench::Setting {
            folder: &ground.folder,
            accounts,
            clients: options.clients,
            core: cores.load,
        };
        let pgbench = Pgbench::prepare(&ground.server, setting).await?;
        if pgbench.is_none() {
            say("pgbench is not installed (Debian: postgresql): nothing to compare with");
        }
        let spend = r#"{"tokens":1,"description":"bench"}"#;
        let hold = r#"{"tokens":10,"expires_in_seconds":60,"description":"bench"}"#;
        let consume = requests::of_customers(accounts, "tokens/consume/", spend)?.into();
        let holds = requests::of_customers(accounts, "tokens/holds/", hold)?.into();
        let api = ground.api(&url, cores).await?;
        let mut bench = Self {
            ground,
            options,
            measures: Measure::ALL.to_vec(),
            setting: setting_of(options, cores, &url).await?,
            url,
            api,
            cores,
            pgbench,
            grants: None,
            consume,
            holds,
            events: 0,
            // Signed in advance: as many as a fast machine stores until the rate is known.
            most_events: 12_000.0,
        };
        bench.choose().await?;
        bench.warm_up().await?;
        Ok(bench)
    }

    /// Leaves out what was not asked for and what this build cannot do.
    async fn choose(&mut self) -> Result<(), Failed> {
        let only = &self.options.only;
        self.measures.retain(|measure| only.is_empty() || only.contains(measure));
        if self.measures.contains(&Measure::Holds) {
            let mut wire = http::Wire::connect(self.api.address).await?;
            if wire.exchange(self.holds.get(0), None, 0).await?.status == 404 {
                say("holds: left out, this build answers 404");
                self.measures.retain(|measure| *measure != Measure::Holds);
            }
        }
        if self.measures.contains(&Measure::Tokens) {
            self.grants = Some(Grants::prepare(self.ground, self.cores).await?);
        }
        Ok(())
    }

    /// Opens every connection of the API's, and fills the caches of both sides.
    async fn warm_up(&mut self) -> Result<(), Failed> {
        self.ground.settle().await?;
        let load = self.load(self.consume.clone(), Order::Random);
        drive::run(Load { time: Duration::from_secs(1), ..load }).await?;
        if let Some(pgbench) = &self.pgbench {
            pgbench.run(Script::Spend, Duration::from_secs(1)).await?;
        }
        Ok(())
    }

    /// One measure and what stands beside it, in turns first and second.
    async fn turn(&mut self, measure: Measure, round: usize) -> Result<Row, Failed> {
        let is_first = round.is_multiple_of(2);
        let before = if is_first { None } else { self.theirs(measure).await? };
        let outcome = self.ours(measure, None).await?;
        let pgbench = if is_first { self.theirs(measure).await? } else { before };
        if outcome.done.is_empty() {
            let refused = &outcome.refused;
            return Err(
                format!("{}: nothing was answered well: {refused:?}", measure.name()).into()
            );
        }
        Ok(Row::of(measure, &outcome, pgbench))
    }

    async fn theirs(&self, measure: Measure) -> Result<Option<f64>, Failed> {
        let (Some(pgbench), Some(script)) = (&self.pgbench, measure.script()) else {
            return Ok(None);
        };
        Ok(Some(pgbench.run(script, self.time()).await?))
    }

    /// Runs ours, as fast as it goes or at a pace.
    async fn ours(&mut self, measure: Measure, pace: Option<f64>) -> Result<Outcome, Failed> {
        let load = match measure {
            Measure::Spread => self.load(self.consume.clone(), Order::Random),
            Measure::Hot => self.load(only_first(&self.consume), Order::Random),
            Measure::Holds => Load {
                follow: Some(requests::settle),
                ..self.load(self.holds.clone(), Order::Random)
            },
            Measure::Intake => {
                let events = self.events(pace)?;
                self.load(events, Order::Once)
            }
            Measure::Tokens => {
                let pace = Some(self.options.payments_per_second);
                let load = Load { pace, ..self.load(self.consume.clone(), Order::Once) };
                let grants = self.grants.as_mut().ok_or("grants are not prepared")?;
                return grants.run(self.ground, &load).await;
            }
        };
        let api = self.api.pid().to_string();
        let before = machine::processor_seconds(&api);
        let mut outcome = drive::run(Load { pace, ..load }).await?;
        outcome.api_seconds = machine::processor_seconds(&api) - before;
        self.api.must_live()?;
        if measure == Measure::Intake && pace.is_none() {
            self.most_events = outcome.rate();
        }
        Ok(outcome)
    }

    fn load(&self, requests: Arc<Requests>, order: Order) -> Load {
        Load {
            address: self.api.address,
            requests,
            order,
            follow: None,
            clients: self.options.clients,
            pace: None,
            time: self.time(),
            core: self.cores.load,
        }
    }

    fn time(&self) -> Duration {
        Duration::from_secs(self.options.seconds)
    }

    /// Signed events, half as many again as can be needed.
    fn events(&mut self, pace: Option<f64>) -> Result<Arc<Requests>, Failed> {
        let rate = pace.unwrap_or(self.most_events) * 1.5;
        let count = (rate * self.time().as_secs_f64()) as usize;
        let mut requests = Requests::default();
        for number in self.events..self.events + count.max(1) {
            let event = format!("evt_bench{number}");
            let intent = format!("pi_bench{number}");
            let told =
                requests::Told { event: &event, intent: &intent, payment: "-", is_paid: false };
            requests::push_event(&mut requests, &told)?;
        }
        self.events += requests.len();
        Ok(requests.into())
    }

    /// How long the first page of what one customer spent takes, warm.
    async fn usage_page(&self) -> Result<(), Failed> {
        let request = requests::usage_page(self.consume.get(0))?;
        let mut wire = http::Wire::connect(self.api.address).await?;
        let mut micros = Vec::new();
        for _ in 0..USAGE_PAGES {
            let start = Instant::now();
            let answer = wire.exchange(&request, None, 0).await?;
            if answer.status != 200 {
                return Err(format!("the usage page answers {}", answer.status).into());
            }
            micros.push(u32::try_from(start.elapsed().as_micros())?);
        }
        micros.sort_unstable();
        let (median, late) = (percentile(&micros, 500), percentile(&micros, 950));
        say(format!("first page of usage: p50 {median} µs, p95 {late} µs"));
        Ok(())
    }

    /// The books must balance after all that.
    async fn check(&self) -> Result<(), Failed> {
        let grants = self.grants.as_ref().map(Grants::url);
        for url in [Some(self.url.as_str()), grants].into_iter().flatten() {
            let pool = world::patient(url)?;
            for finding in check::run(&pool, Depth::Full, wall_now()).await? {
                // Stored events wait for ever: no worker runs on their database.
                if finding.violations > 0 && finding.name != "nothing_is_stuck" {
                    return Err(format!("the books are broken: {finding:?}").into());
                }
            }
        }
        say("the books balance");
        Ok(())
    }
}

/// The request of the first account alone.
fn only_first(requests: &Requests) -> Arc<Requests> {
    requests.first().into()
}

async fn setting_of(options: &Options, cores: Cores, url: &str) -> Result<Value, Failed> {
    let mut db = world::connect(url).await?;
    let mut postgres = serde_json::Map::new();
    for name in [
        "server_version",
        "fsync",
        "synchronous_commit",
        "shared_buffers",
        "max_wal_size",
        "checkpoint_timeout",
    ] {
        let value: String =
            sqlx::query_scalar("select current_setting($1)").bind(name).fetch_one(&mut db).await?;
        postgres.insert(name.to_owned(), value.into());
    }
    Ok(json!({
        "machine": machine::describe(cores),
        "postgres": postgres,
        "profile": if cfg!(debug_assertions) { "dev" } else { "release" },
        "seconds": options.seconds,
        "rounds": options.rounds,
        "accounts": options.accounts,
        "clients": options.clients,
        "payments_per_second": options.payments_per_second,
    }))
}
