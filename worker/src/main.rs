//! The worker process.

use std::process::ExitCode;

use shared::config::Config;
use shared::db::{self, PoolSettings};
use shared::{App, Clock};

#[tokio::main]
async fn main() -> ExitCode {
    shared::app::init_logs();
    match start().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn start() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::from_env()?;
    let pool = db::connect(&config.database_url, PoolSettings::WORKER)?;
    let app = App::new(config, pool, Clock::system())?;
    worker::serve(app, shared::app::stop_signal()).await?;
    Ok(())
}
