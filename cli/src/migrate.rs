//! `tollgate migrate`.

use std::process::ExitCode;

use shared::clock::wall_now;
use shared::config::Config;
use shared::db::{self, PoolSettings};
use shared::tokens;

use crate::{Done, say};

/// Makes or updates the schema of `DATABASE_URL`.
pub(crate) async fn run() -> Done {
    let config = Config::from_env()?;
    let pool = db::connect(&config.database_url, PoolSettings::WORKER)?;
    db::migrate(&pool, &config, wall_now()).await?;
    tokens::use_key(&config.ledger_key)?;
    let sealed = tokens::seal_old(&pool, wall_now()).await?;
    if sealed > 0 {
        say(format_args!("{sealed} old ledger entries are chained now."));
    }
    say("The schema is up to date.");
    Ok(ExitCode::SUCCESS)
}
