//! A private server from its users' side: shared, stopped after the last of them, recovered.
#![expect(clippy::unwrap_used, reason = "the functions that the tests share are tests, too")]

use std::{
    env,
    fs::{self, File},
    future,
    io::{self, BufRead, BufReader, Write},
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use postgres::{Postgres, Settings};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

/// Names the folder to [`a_process_of_its_own`].
const DIR: &str = "TOLLGATE_TEST_POSTGRES_DIR";

#[tokio::test]
async fn a_server_is_shared_and_its_url_answers() {
    let dir = TempDir::new().unwrap();

    let (first, second) = tokio::join!(start(dir.path()), start(dir.path()));

    assert_eq!(first.pid(), second.pid());
    assert_eq!(first.url("postgres"), second.url("postgres"));
    let options = "select string_agg(setting, ' ' order by name) from pg_settings
        where name in ('listen_addresses', 'fsync', 'server_encoding', 'TimeZone')";
    assert_eq!(ask(&first, options).await, "UTC off 127.0.0.1 UTF8");
    assert_eq!(ask(&second, "select current_user::text").await, "postgres");
    remove(dir, second).await;
}

#[tokio::test]
async fn what_is_in_the_folder_is_closed_to_others() {
    let dir = TempDir::new().unwrap();
    let server = start(dir.path()).await;

    let wrong = server.url("postgres").replace("postgres:", "postgres:0");
    assert!(PgConnection::connect(&wrong).await.is_err());
    #[cfg(unix)]
    for (name, mode) in [(".", 0o700), ("password", 0o600), ("data", 0o700)] {
        use std::os::unix::fs::MetadataExt;
        assert_eq!(fs::metadata(dir.path().join(name)).unwrap().mode() & 0o777, mode, "{name}");
    }
    remove(dir, server).await;
}

#[tokio::test]
async fn processes_that_start_at_once_share_a_server_that_stops_when_the_last_was_killed() {
    let dir = TempDir::new().unwrap();
    let mut first = UserProcess::spawn(dir.path());
    let mut second = UserProcess::spawn(dir.path());
    let server = first.server();
    assert_eq!(second.server(), server);

    first.process.kill().unwrap();
    first.process.wait().unwrap();
    let joined = start(dir.path()).await;
    assert_eq!(joined.pid(), Some(server));
    drop(joined);
    second.process.kill().unwrap();
    second.process.wait().unwrap();

    until("the server has stopped", || is_stopped(dir.path())).await;
    let log = fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(log.contains("database system is shut down"), "{log}");
    assert_eq!(log.matches("ready to accept connections").count(), 1, "{log}");
}

#[tokio::test]
async fn a_server_that_was_stopped_starts_again_with_its_data() {
    let dir = TempDir::new().unwrap();
    let server = start(dir.path()).await;
    execute(&server, "create table kept (id integer)").await;
    let url = server.url("postgres");
    drop(server);
    until("the server has stopped", || is_stopped(dir.path())).await;

    let server = start(dir.path()).await;
    assert_eq!(server.url("postgres"), url);
    assert_eq!(ask(&server, "select count(*)::text from kept").await, "0");
    remove(dir, server).await;
}

#[tokio::test]
async fn a_killed_durable_server_is_recovered_by_the_next_start_for_all_its_users() {
    let dir = TempDir::new().unwrap();
    let durable = Settings { durable: true, ..settings(dir.path()) };
    let first = Postgres::start(&durable).await.unwrap();
    execute(&first, "create table kept (id integer)").await;
    let killed = first.pid();

    first.kill().await.unwrap();
    assert_eq!(first.pid(), None);
    let second = Postgres::start(&durable).await.unwrap();

    assert_ne!(second.pid(), killed);
    assert_eq!(ask(&first, "select count(*)::text from kept").await, "0");
    remove(dir, second).await;
}

#[tokio::test]
async fn a_restarted_server_keeps_its_port() {
    let dir = TempDir::new().unwrap();
    let server = start(dir.path()).await;
    let before = server.pid();
    server.restart().await.unwrap();
    assert_ne!(server.pid(), before);
    assert_eq!(ask(&server, "select 'back'").await, "back");

    server.kill().await.unwrap();
    server.restart().await.unwrap();
    assert_eq!(ask(&server, "select 'again'").await, "again");
    remove(dir, server).await;
}

#[tokio::test]
async fn a_port_that_was_taken_meanwhile_is_given_up() {
    let dir = TempDir::new().unwrap();
    let server = start(dir.path()).await;
    let port = server.port();
    server.stop().await.unwrap();
    let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();

    let elsewhere = start(dir.path()).await;
    assert_ne!(elsewhere.port(), port);
    assert_eq!(ask(&elsewhere, "select 'here'").await, "here");
    remove(dir, elsewhere).await;
}

#[tokio::test]
async fn half_made_data_is_made_anew() {
    let dir = TempDir::new().unwrap();
    let unfinished = dir.path().join("data.unfinished");
    fs::create_dir(&unfinished).unwrap();
    fs::write(unfinished.join("PG_VERSION"), "15\n").unwrap();

    let server = start(dir.path()).await;
    assert_eq!(ask(&server, "select 'made'").await, "made");
    assert!(!unfinished.exists());
    remove(dir, server).await;
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let dir = TempDir::new().unwrap();
    let server = start(dir.path()).await;
    server.stop().await.unwrap();
    let options = dir.path().join("data/postgresql.conf");
    writeln!(File::options().append(true).open(options).unwrap(), "no_such = setting").unwrap();

    let error = server.restart().await.unwrap_err().to_string();
    assert!(error.contains("unrecognized configuration parameter \"no_such\""), "{error}");
    assert!(error.contains(dir.path().join("log").to_str().unwrap()), "{error}");
    remove(dir, server).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_killed_watchdog_is_replaced_without_a_restart() {
    let dir = TempDir::new().unwrap();
    let first = start(dir.path()).await;
    let watchdog = watchdog_of(dir.path()).unwrap();
    Command::new("kill").args(["-9", &watchdog]).status().unwrap();
    until("the watchdog is gone", || watchdog_of(dir.path()).is_none()).await;

    let second = start(dir.path()).await;
    assert_eq!(second.pid(), first.pid());
    until("there is a new watchdog", || watchdog_of(dir.path()).is_some()).await;
    drop((first, second));
    until("the server has stopped", || is_stopped(dir.path())).await;
}

/// The process of [`UserProcess`]: uses a server until it is killed.
#[tokio::test]
#[ignore = "other tests run it as a process of its own"]
async fn a_process_of_its_own() {
    let dir = env::var_os(DIR).unwrap();
    let server = start(dir.as_ref()).await;
    writeln!(io::stdout(), "\nserver {}", server.pid().unwrap()).unwrap();
    future::pending::<()>().await;
}

/// Another process that uses the server of a folder.
struct UserProcess {
    process: Child,
    lines: BufReader<ChildStdout>,
}

impl UserProcess {
    fn spawn(dir: &Path) -> UserProcess {
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["--exact", "a_process_of_its_own", "--ignored", "--nocapture"])
            .env(DIR, dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap());
        UserProcess { process, lines }
    }

    /// Waits for the server and returns its process.
    fn server(&mut self) -> u32 {
        let mut lines = (&mut self.lines).lines().map(Result::unwrap);
        lines.find_map(|line| line.strip_prefix("server ")?.parse().ok()).unwrap()
    }
}

impl Drop for UserProcess {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

fn settings(dir: &Path) -> Settings {
    Settings { dir: dir.to_path_buf(), durable: false, max_connections: 10, shared_buffers_mb: 64 }
}

async fn start(dir: &Path) -> Postgres {
    Postgres::start(&settings(dir)).await.unwrap()
}

/// Stops the server first: one that still writes would keep its folder from being removed.
async fn remove(dir: TempDir, server: Postgres) {
    server.stop().await.unwrap();
    dir.close().unwrap();
}

async fn ask(server: &Postgres, question: &'static str) -> String {
    let mut db = PgConnection::connect(&server.url("postgres")).await.unwrap();
    sqlx::query_scalar(question).fetch_one(&mut db).await.unwrap()
}

async fn execute(server: &Postgres, statement: &'static str) {
    let mut db = PgConnection::connect(&server.url("postgres")).await.unwrap();
    sqlx::query(statement).execute(&mut db).await.unwrap();
}

/// Tells whether the server ended cleanly (it removes its file) and its watchdog did, too.
fn is_stopped(dir: &Path) -> bool {
    !["data/postmaster.pid", "users", "users.leaving"].iter().any(|name| dir.join(name).exists())
}

#[cfg(target_os = "linux")]
fn watchdog_of(dir: &Path) -> Option<String> {
    let dir = fs::canonicalize(dir).unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes.map(|process| process.path()).find_map(|process| {
        let cmdline = fs::read(process.join("cmdline")).ok()?;
        let wanted = format!("\0tollgate-postgres-watchdog\0{}\0", dir.display());
        String::from_utf8_lossy(&cmdline).ends_with(&wanted).then_some(())?;
        Some(process.file_name()?.to_str()?.to_owned())
    })
}

/// Polls until `holds`, ten seconds at most.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let poll = async {
        while !holds() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = timeout(Duration::from_secs(10), poll).await;
    assert!(waited.is_ok(), "waited for ten seconds until {what}");
}
