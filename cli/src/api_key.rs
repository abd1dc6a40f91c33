//! `tollgate api-key`: keys of services.

use std::process::ExitCode;

use chrono::Duration;
use secrecy::ExposeSecret;
use shared::access::{self, Scope};
use shared::clock::wall_now;
use shared::config::Config;
use shared::db::{self, PoolSettings};
use shared::{App, Clock};

use crate::{Done, say};

/// What to do.
#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// Makes a key and prints it: it is shown this once.
    Create {
        /// What it is called.
        #[arg(long)]
        name: String,
        /// What it may do; may be repeated.
        #[arg(long = "scope", required = true)]
        scopes: Vec<Scope>,
        /// Days that it is valid; without it, until it is revoked.
        #[arg(long)]
        days: Option<u32>,
    },
    /// Revokes a key by its public part: the eight letters after `tgk_live_`.
    Revoke {
        /// The public part.
        id: String,
    },
}

/// Makes or revokes a key in the database at `DATABASE_URL`.
pub(crate) async fn run(verb: &Verb) -> Done {
    let config = Config::from_env()?;
    let pool = db::connect(&config.database_url, PoolSettings::WORKER)?;
    let app = App::new(config, pool, Clock::system())?;
    match verb {
        Verb::Create { name, scopes, days } => {
            let expires_at = days.map(|days| wall_now() + Duration::days(i64::from(days)));
            let key = access::create_key(&app, name, scopes, expires_at).await?;
            say(key.expose_secret());
        }
        Verb::Revoke { id } => {
            access::revoke_key(&app, id).await?;
            say(format!("{id} is revoked"));
        }
    }
    Ok(ExitCode::SUCCESS)
}
