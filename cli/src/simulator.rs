//! `tollgate simulator`: the simulated gateways alone, for the tests of programs in any language.

use std::path::PathBuf;
use std::process::ExitCode;

use ::simulator::{Settings, Simulator};
use serde_json::{Value, json};

use crate::{Done, say};

/// Where and as whom to run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Prints one line of JSON when ready, for scripts: every address and secret.
    #[arg(long)]
    json: bool,
    /// Port of Stripe's API, its pages and the control API; 0: any that is free.
    #[arg(long, default_value_t = 12111)]
    stripe_port: u16,
    /// Port of PayPal's API and its pages; 0: any that is free.
    #[arg(long, default_value_t = 12112)]
    paypal_port: u16,
    /// Port of PayPal's API over TLS, to be resolved as api.sandbox.paypal.com; 0: any that is free.
    #[arg(long, default_value_t = 12113)]
    paypal_tls_port: u16,
    /// Where Stripe's events are sent; without it they are only kept.
    #[arg(long)]
    stripe_webhook_url: Option<String>,
    /// Where PayPal's events are sent; without it they are only kept.
    #[arg(long)]
    paypal_webhook_url: Option<String>,
    /// The secret key that callers of Stripe's API must show.
    #[arg(long)]
    stripe_secret_key: Option<String>,
    /// The key that a browser shows to Stripe's API.
    #[arg(long)]
    stripe_publishable_key: Option<String>,
    /// Signs Stripe's events; named twice, both sign, as during a roll.
    #[arg(long)]
    stripe_webhook_secret: Vec<String>,
    /// Client id of PayPal's API.
    #[arg(long)]
    paypal_client_id: Option<String>,
    /// Client secret of PayPal's API.
    #[arg(long)]
    paypal_client_secret: Option<String>,
    /// Id of the webhook that PayPal's signatures name.
    #[arg(long)]
    paypal_webhook_id: Option<String>,
    /// The merchant whom PayPal's orders pay.
    #[arg(long)]
    paypal_merchant_id: Option<String>,
    /// Writes the root certificate behind PayPal's signatures and TLS to this file.
    #[arg(long)]
    paypal_root_file: Option<PathBuf>,
    /// Seed of everything that goes wrong by chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where payments and events are kept between two starts; without it they are forgotten.
    #[arg(long)]
    state_file: Option<PathBuf>,
}

/// Starts both gateways, prints what is where, and runs until Ctrl-C.
pub(crate) async fn run(options: &Options) -> Done {
    shared::app::init_logs_quietly();
    let simulator = Simulator::start(settings(options)).await.map_err(|error| {
        let Options { stripe_port, paypal_port, paypal_tls_port, .. } = options;
        format!("ports {stripe_port}, {paypal_port} and {paypal_tls_port}: {error}")
    })?;
    if let Some(path) = &options.paypal_root_file {
        std::fs::write(path, simulator.paypal_root_pem())?;
    }
    if options.json {
        say(described(&simulator));
    } else {
        say(announcement(&simulator));
    }
    shared::app::stop_signal().await;
    simulator.shutdown();
    Ok(ExitCode::SUCCESS)
}

fn settings(options: &Options) -> Settings {
    let usual = Settings::default();
    let or = |chosen: &Option<String>, usual: String| chosen.clone().unwrap_or(usual);
    Settings {
        stripe_port: options.stripe_port,
        paypal_port: options.paypal_port,
        paypal_tls_port: options.paypal_tls_port,
        stripe_secret_key: or(&options.stripe_secret_key, usual.stripe_secret_key),
        stripe_publishable_key: or(&options.stripe_publishable_key, usual.stripe_publishable_key),
        stripe_webhook_secrets: if options.stripe_webhook_secret.is_empty() {
            usual.stripe_webhook_secrets
        } else {
            options.stripe_webhook_secret.clone()
        },
        paypal_client_id: or(&options.paypal_client_id, usual.paypal_client_id),
        paypal_client_secret: or(&options.paypal_client_secret, usual.paypal_client_secret),
        paypal_webhook_id: or(&options.paypal_webhook_id, usual.paypal_webhook_id),
        paypal_merchant_id: or(&options.paypal_merchant_id, usual.paypal_merchant_id),
        stripe_webhook_url: options.stripe_webhook_url.clone(),
        paypal_webhook_url: options.paypal_webhook_url.clone(),
        seed: options.seed,
        state_file: options.state_file.clone(),
        ..Settings::default()
    }
}

/// Everything a test of another program needs to know.
fn described(simulator: &Simulator) -> Value {
    let settings = simulator.settings();
    json!({
        "stripe": simulator.stripe_url(),
        "paypal": simulator.paypal_url(),
        "paypal_tls": simulator.paypal_tls_addr().to_string(),
        "control": format!("{}/_sim", simulator.stripe_url()),
        "stripe_secret_key": settings.stripe_secret_key,
        "stripe_publishable_key": settings.stripe_publishable_key,
        "stripe_webhook_secrets": settings.stripe_webhook_secrets,
        "stripe_webhook_url": settings.stripe_webhook_url,
        "paypal_client_id": settings.paypal_client_id,
        "paypal_client_secret": settings.paypal_client_secret,
        "paypal_webhook_id": settings.paypal_webhook_id,
        "paypal_merchant_id": settings.paypal_merchant_id,
        "paypal_webhook_url": settings.paypal_webhook_url,
        "paypal_root_pem": simulator.paypal_root_pem(),
    })
}

fn announcement(simulator: &Simulator) -> String {
    let settings = simulator.settings();
    let stripe = simulator.stripe_url();
    let none = || "nowhere; set it with PUT /_sim/webhooks".to_owned();
    format!(
        "The simulated gateways run.  Ctrl-C ends them.

  Stripe        {stripe}/   (lists its payments; faults are injected there)
  PayPal        {}/
  PayPal, TLS   {}   (as api.sandbox.paypal.com)
  Control API   {stripe}/_sim/

  Stripe's secret key      {}
  Stripe's webhook secret  {}
  Stripe's events go to    {}
  PayPal's client          {} / {}
  PayPal's webhook id      {}
  PayPal's events go to    {}
",
        simulator.paypal_url(),
        simulator.paypal_tls_addr(),
        settings.stripe_secret_key,
        settings.stripe_webhook_secrets.join(", "),
        settings.stripe_webhook_url.clone().unwrap_or_else(none),
        settings.paypal_client_id,
        settings.paypal_client_secret,
        settings.paypal_webhook_id,
        settings.paypal_webhook_url.clone().unwrap_or_else(none),
    )
}
