//! The API process.

use std::process::ExitCode;

use api::ApiState;
use shared::config::Config;
use shared::db::{self, PoolSettings};
use shared::{App, Clock};
use tokio::net::TcpListener;

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
    let bind = config.bind;
    let pool = db::connect(&config.database_url, PoolSettings::API)?;
    let state = ApiState::new(App::new(config, pool, Clock::system())?)?;
    let listener = TcpListener::bind(bind).await?;
    tracing::info!(address = %listener.local_addr()?, "listening");
    api::serve(state, listener, shared::app::stop_signal()).await?;
    Ok(())
}
