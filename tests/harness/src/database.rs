//! A fresh database for each test, cloned from a migrated template on one shared server.

use std::path::{Path, PathBuf};

use postgres::{Postgres, Settings, reachable_dir};
use shared::config::Config;
use shared::db::{self, PoolSettings};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::JWT_SECRET;

/// A database of its own on the shared server.
pub struct Database {
    /// How to connect.
    pub url: String,
    server: Postgres,
    /// Files of this test; they go with it.
    files: TempDir,
}

/// One handle per test process; other processes share the same server.
static SERVER: OnceCell<Postgres> = OnceCell::const_new();

/// Databases older than this are of runs that ended.
const STALE_SECONDS: u64 = 3_600;

impl Database {
    /// Clones the template.
    pub async fn create() -> Self {
        let server = SERVER.get_or_init(start).await.clone();
        let seconds = shared::clock::wall_now().timestamp();
        let name = format!("t_{seconds}_{}", Uuid::now_v7().simple());
        let mut admin = PgConnection::connect(&server.url("postgres")).await.unwrap();
        run(&mut admin, format!("create database {name} template {}", template())).await;
        let files = tempfile::tempdir().unwrap();
        Self { url: server.url(&name), files, server }
    }

    /// Writes a file that processes of this test can read.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The server that all tests share.
    pub fn server(&self) -> &Postgres {
        &self.server
    }
}

async fn start() -> Postgres {
    let wanted = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tollgate/test-postgres");
    let dir = reachable_dir(&std::path::absolute(wanted).unwrap());
    let settings = Settings { dir, durable: false, max_connections: 300, shared_buffers_mb: 64 };
    let server = Postgres::start(&settings).await.unwrap();
    make_template(&server).await;
    server
}

/// Named after the migrations, so that a changed schema gets a template of its own.
fn template() -> String {
    let migrations = sqlx::migrate!("../migrations");
    let sums = migrations.iter().flat_map(|migration| migration.checksum.iter().copied());
    let hash = sums.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    format!("template_{hash:016x}")
}

/// Makes the template once, however many processes ask at the same time.
async fn make_template(server: &Postgres) {
    let mut admin = PgConnection::connect(&server.url("postgres")).await.unwrap();
    run(&mut admin, "select pg_advisory_lock(715)".to_owned()).await;
    drop_stale(&mut admin).await;
    let name = template();
    let is_there: bool =
        sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
            .bind(&name)
            .fetch_one(&mut admin)
            .await
            .unwrap();
    if !is_there {
        run(&mut admin, "drop database if exists template_making".to_owned()).await;
        run(&mut admin, "create database template_making".to_owned()).await;
        migrate(&server.url("template_making")).await;
        run(&mut admin, format!("alter database template_making rename to {name}")).await;
    }
    admin.close().await.unwrap();
}

async fn migrate(url: &str) {
    let settings =
        [("TOLLGATE_ENV", "test"), ("DATABASE_URL", url), ("JWT_HS256_SECRET", JWT_SECRET)];
    let lookup = |name: &str| {
        settings.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    };
    let config = Config::read(&lookup).unwrap();
    let pool = db::connect(&config.database_url, PoolSettings::WORKER).unwrap();
    db::migrate(&pool, &config, shared::clock::wall_now()).await.unwrap();
    pool.close().await;
}

/// Drops databases of ended runs; one that is in use stays.
async fn drop_stale(admin: &mut PgConnection) {
    let names: Vec<String> =
        sqlx::query_scalar("select datname from pg_database where datname like 't\\_%'")
            .fetch_all(&mut *admin)
            .await
            .unwrap();
    let now = u64::try_from(shared::clock::wall_now().timestamp()).unwrap();
    for name in names {
        let made = name.split('_').nth(1).and_then(|seconds| seconds.parse::<u64>().ok());
        if made.is_some_and(|made| made + STALE_SECONDS < now) {
            let dropped = sqlx::query(AssertSqlSafe(format!("drop database if exists {name}")));
            let _in_use = dropped.execute(&mut *admin).await;
        }
    }
}

async fn run(admin: &mut PgConnection, sql: String) {
    sqlx::query(AssertSqlSafe(sql)).execute(admin).await.unwrap();
}
