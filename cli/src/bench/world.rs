//! What is measured: a durable Postgres of its own, and the processes of the product.

use std::collections::HashMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::str::FromStr as _;
use std::time::{Duration, Instant};

use postgres::{Postgres, Settings, reachable_dir};
use shared::clock::wall_now;
use shared::config::Config;
use shared::db::{self, PoolSettings};
use shared::{App, Clock};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, PgPool};

use super::machine::{self, Cores};

type Failed = Box<dyn std::error::Error>;

/// Signs customers' tokens in a benchmark.
pub(super) const JWT_SECRET: &str = "a-secret-of-benchmarks-and-of-nothing-else";
/// Signs Stripe's events in a benchmark.
pub(super) const WEBHOOK_SECRET: &str = "whsec_of_benchmarks_and_of_nothing_else";

/// All of the accounts' pages fit, as they do on a server of a fitting size.
const SHARED_BUFFERS_MB: u32 = 512;

/// After a checkpoint each page is written whole once more. Servers make one in minutes; a run of
/// seconds would measure little else, or fall into the middle of one.
const RARE_CHECKPOINTS: [&str; 2] = ["max_wal_size = '8GB'", "checkpoint_timeout = '1h'"];

/// How long a process may take to start.
const START: Duration = Duration::from_secs(30);

/// The server and its folder, which is gone with it.
pub(super) struct Ground {
    pub(super) server: Postgres,
    /// A folder for scripts and logs, which other users can read.
    pub(super) folder: PathBuf,
    stripe: ::simulator::Simulator,
}

impl Ground {
    /// Starts a durable server on a new folder within `parent`.
    pub(super) async fn start(parent: &Path) -> Result<Self, Failed> {
        let name = format!("tollgate-bench-{}", std::process::id());
        let folder = reachable_dir(&std::path::absolute(parent.join(name))?);
        let dir = folder.join("postgres");
        let settings = Settings {
            dir,
            durable: true,
            max_connections: 300,
            shared_buffers_mb: SHARED_BUFFERS_MB,
        };
        let server = Postgres::start(&settings).await?;
        let mut admin = connect(&server.url("postgres")).await?;
        // Tells when a grant became visible, to the microsecond, without asking all the time.
        for setting in ["track_commit_timestamp = on", RARE_CHECKPOINTS[0], RARE_CHECKPOINTS[1]] {
            let sql = AssertSqlSafe(format!("alter system set {setting}"));
            sqlx::raw_sql(sql).execute(&mut admin).await?;
        }
        admin.close().await?;
        server.restart().await?;
        let stripe = ::simulator::Simulator::start(::simulator::Settings::default()).await?;
        Ok(Self { server, folder, stripe })
    }

    /// Makes a database with the product's schema; its URL.
    pub(super) async fn database(&self, name: &str) -> Result<String, Failed> {
        let mut admin = connect(&self.server.url("postgres")).await?;
        let sql = AssertSqlSafe(format!("create database {name}"));
        sqlx::raw_sql(sql).execute(&mut admin).await?;
        let url = self.server.url(name);
        app(&url).await?;
        Ok(url)
    }

    /// Makes what came before durable in the data files, so that no measurement pays for it.
    pub(super) async fn settle(&self) -> Result<(), Failed> {
        let mut admin = connect(&self.server.url("postgres")).await?;
        sqlx::raw_sql("checkpoint").execute(&mut admin).await?;
        Ok(())
    }

    /// Starts the API on a database and waits until it is ready.
    pub(super) async fn api(&self, url: &str, cores: Cores) -> Result<Process, Failed> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut process = self.process("api", url, address, cores.api)?;
        let end = Instant::now() + START;
        while tokio::net::TcpStream::connect(address).await.is_err() {
            process.must_live()?;
            if Instant::now() > end {
                return Err("the API did not start".into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(process)
    }

    /// Starts a worker on a database.
    pub(super) fn worker(&self, url: &str) -> Result<Process, Failed> {
        self.process("worker", url, SocketAddr::from(([127, 0, 0, 1], 0)), None)
    }

    fn process(
        &self,
        part: &'static str,
        url: &str,
        address: SocketAddr,
        core: Option<usize>,
    ) -> Result<Process, Failed> {
        let log = self.folder.join(format!("{part}.log"));
        let mut settings = settings(url, address);
        settings.insert("STRIPE_API_BASE", self.stripe.stripe_url().to_owned());
        let child = machine::command(&std::env::current_exe()?, core)
            .args(["bench", part])
            .env_clear()
            .envs(settings)
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::options().create(true).append(true).open(&log)?)
            .spawn()?;
        Ok(Process { part, child, address, log })
    }

    /// Stops the server and removes its folder.
    pub(super) async fn end(self) -> Result<(), Failed> {
        self.stripe.shutdown();
        self.server.stop().await?;
        let Self { server, folder, .. } = self;
        drop(server);
        Ok(std::fs::remove_dir_all(folder)?)
    }
}

/// A process of the product; killed when dropped.
pub(super) struct Process {
    part: &'static str,
    child: Child,
    pub(super) address: SocketAddr,
    log: PathBuf,
}

impl Process {
    /// Its number. `taskset` becomes what it starts.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error with the end of its log if it has ended.
    pub(super) fn must_live(&mut self) -> Result<(), Failed> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(5).collect();
        Err(format!("the {} ended, {status}: {}", self.part, tail.join("\n")).into())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// A pool for statements that may take long without being worth a warning.
pub(super) fn patient(url: &str) -> sqlx::Result<PgPool> {
    Ok(PgPool::connect_lazy_with(PgConnectOptions::from_str(url)?.disable_statement_logging()))
}

/// A connection of that kind.
pub(super) async fn connect(url: &str) -> sqlx::Result<PgConnection> {
    PgConnectOptions::from_str(url)?.disable_statement_logging().connect().await
}

/// The same settings that a deployment reads from its environment.
fn settings(url: &str, address: SocketAddr) -> HashMap<&'static str, String> {
    HashMap::from([
        ("TOLLGATE_ENV", "test".to_owned()),
        ("DATABASE_URL", url.to_owned()),
        ("BIND", address.to_string()),
        ("JWT_HS256_SECRET", JWT_SECRET.to_owned()),
        ("STRIPE_SECRET_KEY", ::simulator::Settings::default().stripe_secret_key),
        ("STRIPE_WEBHOOK_SECRETS", WEBHOOK_SECRET.to_owned()),
        ("RATE_LIMITS", "off".to_owned()),
        ("LOG", "warn".to_owned()),
    ])
}

/// The business on a database whose schema is brought up to date; refused where it is one of
/// production.
pub(super) async fn app(url: &str) -> Result<App, Failed> {
    let settings = settings(url, SocketAddr::from(([127, 0, 0, 1], 0)));
    let config = Config::read(&|name| settings.get(name).cloned())?;
    let pool = db::connect(&config.database_url, PoolSettings::WORKER)?;
    db::migrate(&pool, &config, wall_now()).await?;
    Ok(App::new(config, pool, Clock::system())?)
}
