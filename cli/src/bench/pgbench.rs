//! Postgres's own benchmark as the measure beside ours.

use std::path::{Path, PathBuf};
use std::time::Duration;

use postgres::Postgres;
use sqlx::AssertSqlSafe;

use super::{machine, world};

/// Which statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Script {
    /// One spend of any account.
    Spend,
    /// One spend of always the same account.
    SpendHot,
    /// One event and its job.
    Intake,
}

impl Script {
    fn text(self) -> &'static str {
        match self {
            Self::Spend => include_str!("../../../bench/spend.sql"),
            Self::SpendHot => include_str!("../../../bench/spend_hot.sql"),
            Self::Intake => include_str!("../../../bench/intake.sql"),
        }
    }
}

/// pgbench, ready to run on a database of its own.
pub(super) struct Pgbench {
    program: PathBuf,
    folder: PathBuf,
    url: String,
    accounts: u32,
    clients: usize,
    core: Option<usize>,
}

/// How it runs.
pub(super) struct Setting<'a> {
    pub(super) folder: &'a Path,
    pub(super) accounts: u32,
    pub(super) clients: usize,
    pub(super) core: Option<usize>,
}

impl Pgbench {
    /// Makes its database; `None` where the program is not installed.
    pub(super) async fn prepare(
        server: &Postgres,
        setting: Setting<'_>,
    ) -> Result<Option<Self>, Box<dyn std::error::Error>> {
        let Some(program) = find(server) else { return Ok(None) };
        let mut admin = world::connect(&server.url("postgres")).await?;
        sqlx::raw_sql("create database pgbench").execute(&mut admin).await?;
        let url = server.url("pgbench");
        let mut connection = world::connect(&url).await?;
        sqlx::raw_sql(include_str!("../../../bench/tables.sql")).execute(&mut connection).await?;
        let Setting { folder, accounts, clients, core } = setting;
        let fill = format!(
            "insert into bench_accounts select id, 1000000000000 from generate_series(1, {accounts}) id"
        );
        sqlx::raw_sql(AssertSqlSafe(fill)).execute(&mut connection).await?;
        sqlx::raw_sql("vacuum analyze").execute(&mut connection).await?;
        let folder = folder.to_owned();
        Ok(Some(Self { program, folder, url, accounts, clients, core }))
    }

    /// Runs a script; transactions a second.
    pub(super) async fn run(
        &self,
        script: Script,
        time: Duration,
    ) -> Result<f64, Box<dyn std::error::Error>> {
        let file = self.folder.join("script.sql");
        std::fs::write(&file, script.text())?;
        let (url, password) = without_password(&self.url)?;
        let mut command = machine::command(&self.program, self.core);
        command
            .args(["--no-vacuum", "--protocol=prepared", "--jobs=1"])
            .arg(format!("--client={}", self.clients))
            .arg(format!("--time={}", time.as_secs().max(1)))
            .arg(format!("--define=accounts={}", self.accounts))
            .arg("--file")
            .arg(&file)
            .arg(url)
            .env("PGPASSWORD", password);
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        let rate = if output.status.success() { rate(&said) } else { None };
        rate.ok_or_else(|| format!("pgbench: {complaint}{said}").into())
    }
}

/// Beside the binary of the running server, else on the path.
fn find(server: &Postgres) -> Option<PathBuf> {
    let beside = server
        .pid()
        .and_then(|pid| std::fs::read_link(format!("/proc/{pid}/exe")).ok())
        .and_then(|postgres| Some(postgres.parent()?.join("pgbench")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("pgbench"));
    beside.into_iter().chain(on_path).find(|program| program.is_file())
}

/// The address for an argument, which others can see, and the password for the environment.
fn without_password(url: &str) -> Result<(String, String), Box<dyn std::error::Error>> {
    let split = || {
        let (user, rest) = url.strip_prefix("postgres://")?.split_once(':')?;
        let (password, rest) = rest.split_once('@')?;
        Some((format!("postgres://{user}@{rest}"), password.to_owned()))
    };
    split().ok_or_else(|| "the private server's URL has no password".into())
}

/// The figure in `tps = 1234.5 (without initial connection time)`.
fn rate(said: &str) -> Option<f64> {
    let line = said.lines().find_map(|line| line.strip_prefix("tps = "))?;
    line.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read_from_what_pgbench_says() {
        let said =
            "latency average = 3.1 ms\ntps = 20512.250000 (without initial connection time)\n";
        assert_eq!(rate(said).map(f64::round).map(f64::to_bits), Some(20_512.0_f64.to_bits()));
        assert_eq!(rate("pgbench: error"), None);
    }

    #[test]
    fn a_password_is_never_an_argument() {
        let (url, password) = without_password("postgres://tollgate:s3@127.0.0.1:5/x").unwrap();
        assert_eq!((&*url, &*password), ("postgres://tollgate@127.0.0.1:5/x", "s3"));
    }
}
