//! `tollgate check`.

use std::process::ExitCode;

use serde_json::json;
use shared::check::{self, Finding};
use shared::clock::wall_now;
use shared::config::Config;
use shared::db::{self, PoolSettings};
use shared::tokens::{self, Depth};

use crate::{Done, say};

/// How to print.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// One JSON object instead of lines.
    #[arg(long)]
    json: bool,
    /// Looks only at what moved since the ledger was anchored last, instead of at everything.
    #[arg(long)]
    recent: bool,
}

/// Checks every invariant of the database at `DATABASE_URL`.
pub(crate) async fn run(options: &Options) -> Done {
    let config = Config::from_env()?;
    let pool = db::connect(&config.database_url, PoolSettings::WORKER)?;
    tokens::use_key(&config.ledger_key)?;
    let depth = if options.recent { Depth::Recent } else { Depth::Full };
    let findings = check::run(&pool, depth, wall_now()).await?;
    let is_clean = findings.iter().all(|finding| finding.violations == 0);
    if options.json {
        say(
            json!({ "clean": is_clean, "invariants": findings.iter().map(row).collect::<Vec<_>>() }),
        );
    } else {
        for finding in &findings {
            say(line(finding));
        }
    }
    Ok(if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn row(finding: &Finding) -> serde_json::Value {
    json!({ "name": finding.name, "violations": finding.violations, "example": finding.example })
}

fn line(finding: &Finding) -> String {
    match &finding.example {
        None => format!("ok    {}: {}", finding.name, finding.promise),
        Some(row) => format!(
            "WRONG {}: {} row(s) break \"{}\", the first: {row}",
            finding.name, finding.violations, finding.promise
        ),
    }
}
