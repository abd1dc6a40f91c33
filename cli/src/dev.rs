//! `tollgate dev`: everything in one process, on a Postgres of its own.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ::simulator::{Settings as SimulatorSettings, Simulator};
use api::ApiState;
use postgres::{Postgres, Settings as PostgresSettings, Slot, claim_slot, reachable_dir};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use shared::access::{self, Scope};
use shared::clock::wall_now;
use shared::config::Config;
use shared::db::{self, PoolSettings};
use shared::money::Currency;
use shared::plans::{self, NewPlan};
use shared::tokens::{self, Tokens};
use shared::{App, Clock};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::{Done, say, token};

/// Where and how to run.
#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Prints one line of JSON when ready, for scripts.
    #[arg(long)]
    json: bool,
    /// The API's port; 0: any that is free. Default: 8000, or the next that is free.
    #[arg(long)]
    port: Option<u16>,
    /// Where data is kept; default: `.tollgate` in this folder.
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

/// Where the replaced system listened.
const FIRST_PORT: u16 = 8000;

/// Looked at from 8000 upwards when no port was asked for.
const PORTS_TRIED: u16 = 50;

/// The demo customers: one walks with Stripe, one with PayPal.
const CUSTOMERS: [&str; 2] = ["42", "43"];

/// Starts everything, prints what is where, and runs until Ctrl-C.
pub(crate) async fn run(options: &Options) -> Done {
    shared::app::init_logs_quietly();
    let slot = data_folder(options)?;
    let settings = PostgresSettings {
        dir: slot.path.join("postgres"),
        durable: true,
        max_connections: 100,
        shared_buffers_mb: 64,
    };
    let database = Postgres::start(&settings).await?;
    make_database(&database).await?;
    let listener = listen(options.port).await?;
    let address = listener.local_addr()?;
    let secrets = Secrets::of(&slot.path)?;
    let simulator = simulate(address, &secrets).await?;
    let roots = slot.path.join("paypal-roots.pem");
    std::fs::write(&roots, simulator.paypal_root_pem())?;
    let config = config(&database, address, &secrets, &simulator, &roots)?;
    let app = prepare(config).await?;
    let service_key = service_key(&app, &slot.path).await?;
    let (stop, stopped) = watch::channel(false);
    let serving =
        tokio::spawn(api::serve(ApiState::new(app.clone())?, listener, wait(stopped.clone())));
    let working = tokio::spawn(worker::serve(app, wait(stopped)));
    announce(options, &database, address, (&secrets, &service_key), &simulator)?;
    shared::app::stop_signal().await;
    stop.send_replace(true);
    serving.await??;
    working.await??;
    simulator.shutdown();
    drop(database);
    Ok(ExitCode::SUCCESS)
}

fn data_folder(options: &Options) -> std::io::Result<Slot> {
    let wanted = options.data_dir.clone().unwrap_or_else(|| PathBuf::from(".tollgate"));
    claim_slot(&reachable_dir(&std::path::absolute(wanted)?))
}

async fn wait(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop too.
    let _stopped = stopped.wait_for(|is_stopped| *is_stopped).await;
}

/// The database of that name, made where it is missing.
async fn make_database(database: &Postgres) -> Result<(), Box<dyn std::error::Error>> {
    use sqlx::Connection as _;
    let mut connection = sqlx::PgConnection::connect(&database.url("postgres")).await?;
    let made = sqlx::query("create database tollgate").execute(&mut connection).await;
    match made {
        Ok(_) => Ok(()),
        Err(error)
            if error.as_database_error().is_some_and(|it| it.code() == Some("42P04".into())) =>
        {
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

async fn listen(port: Option<u16>) -> std::io::Result<TcpListener> {
    if let Some(port) = port {
        return TcpListener::bind(("127.0.0.1", port)).await;
    }
    for port in FIRST_PORT..FIRST_PORT + PORTS_TRIED {
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await {
            return Ok(listener);
        }
    }
    TcpListener::bind(("127.0.0.1", 0)).await
}

/// Secrets of a data folder: made at the first start, kept for the next.
struct Secrets {
    jwt: String,
    stripe_webhook: String,
    paypal_webhook_id: String,
}

impl Secrets {
    fn of(folder: &Path) -> std::io::Result<Self> {
        let path = folder.join("secret");
        let seed = match std::fs::read_to_string(&path) {
            Ok(seed) => seed,
            Err(_) => new_secret(&path)?,
        };
        Ok(Self {
            jwt: format!("dev-jwt-{seed}"),
            stripe_webhook: format!("whsec_dev{seed}"),
            paypal_webhook_id: format!("WH{}", seed[..16].to_uppercase()),
        })
    }
}

/// The data folder's service key with every scope, made where there is none that is good.
async fn service_key(app: &App, folder: &Path) -> Result<SecretString, Box<dyn std::error::Error>> {
    let path = folder.join("service-key");
    if let Ok(kept) = std::fs::read_to_string(&path)
        && access::verify_key(app, &kept).await.is_ok()
    {
        return Ok(kept.into());
    }
    let key = access::create_key(app, "development", &Scope::ALL, None).await?;
    write_privately(&path, key.expose_secret())?;
    Ok(key)
}

/// 32 random hex digits, in a file that only its owner reads.
fn new_secret(path: &Path) -> std::io::Result<String> {
    let mut random = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let mut seed = String::new();
    for byte in random {
        write!(seed, "{byte:02x}").expect("text grows");
    }
    write_privately(path, &seed)?;
    Ok(seed)
}

fn write_privately(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

async fn simulate(address: SocketAddr, secrets: &Secrets) -> std::io::Result<Simulator> {
    let webhooks = format!("http://{address}/api/v1/billing/webhooks");
    Simulator::start(SimulatorSettings {
        stripe_webhook_secrets: vec![secrets.stripe_webhook.clone()],
        paypal_webhook_id: secrets.paypal_webhook_id.clone(),
        stripe_webhook_url: Some(format!("{webhooks}/stripe/")),
        paypal_webhook_url: Some(format!("{webhooks}/paypal/")),
        ..SimulatorSettings::default()
    })
    .await
}

/// The same settings that a deployment reads from its environment.
fn config(
    database: &Postgres,
    address: SocketAddr,
    secrets: &Secrets,
    simulator: &Simulator,
    roots: &Path,
) -> Result<Config, shared::config::Errors> {
    let gateway = SimulatorSettings::default();
    let settings: HashMap<&str, String> = HashMap::from([
        ("TOLLGATE_ENV", "development".to_owned()),
        ("DATABASE_URL", database.url("tollgate")),
        ("BIND", address.to_string()),
        ("JWT_HS256_SECRET", secrets.jwt.clone()),
        ("STRIPE_SECRET_KEY", gateway.stripe_secret_key),
        ("STRIPE_PUBLISHABLE_KEY", gateway.stripe_publishable_key),
        ("STRIPE_WEBHOOK_SECRETS", secrets.stripe_webhook.clone()),
        ("STRIPE_API_BASE", simulator.stripe_url().to_owned()),
        ("PAYPAL_CLIENT_ID", gateway.paypal_client_id),
        ("PAYPAL_CLIENT_SECRET", gateway.paypal_client_secret),
        ("PAYPAL_WEBHOOK_ID", secrets.paypal_webhook_id.clone()),
        ("PAYPAL_MERCHANT_ID", gateway.paypal_merchant_id),
        ("PAYPAL_VAULT", "true".to_owned()),
        ("PAYPAL_API_BASE", simulator.paypal_url().to_owned()),
        ("PAYPAL_CERT_ROOTS", roots.display().to_string()),
        ("PAYPAL_CERT_RESOLVE", simulator.paypal_tls_addr().to_string()),
    ]);
    Config::read(&|name| settings.get(name).cloned())
}

/// Schema and demo plans.
async fn prepare(config: Config) -> Result<App, Box<dyn std::error::Error>> {
    let pool = db::connect(&config.database_url, PoolSettings::WORKER)?;
    db::migrate(&pool, &config, wall_now()).await?;
    tokens::use_key(&config.ledger_key)?;
    tokens::seal_old(&pool, wall_now()).await?;
    let app = App::new(config, pool, Clock::system())?;
    for plan in demo_plans() {
        plans::create(&app, &plan).await?;
    }
    Ok(app)
}

fn demo_plans() -> [NewPlan<'static>; 3] {
    let period = |name, description, price_minor, tokens| NewPlan {
        name,
        description,
        price_minor,
        currency: Currency::USD,
        tokens_included: Tokens(tokens),
        duration_days: Some(30),
        is_recurring: true,
    };
    let pack = NewPlan {
        duration_days: None,
        is_recurring: false,
        ..period("Token pack", "500 tokens that never expire", 1_000, 500)
    };
    [
        period("Basic", "1,000 tokens a month", 1_500, 1_000),
        period("Pro", "5,000 tokens a month", 4_000, 5_000),
        pack,
    ]
}

fn announce(
    options: &Options,
    database: &Postgres,
    address: SocketAddr,
    (secrets, service_key): (&Secrets, &SecretString),
    simulator: &Simulator,
) -> Result<(), Box<dyn std::error::Error>> {
    let api = format!("http://{address}/api/v1/billing");
    let secret = SecretString::from(secrets.jwt.as_str());
    let [first, second] = CUSTOMERS.map(|user| token::mint(&secret, user, 24 * 30));
    let (first, second) = (first?, second?);
    if options.json {
        say(json!({
            "api": format!("http://{address}"),
            "stripe": simulator.stripe_url(),
            "paypal": simulator.paypal_url(),
            "database_url": database.url("tollgate"),
            "customer": { "user_id": CUSTOMERS[0], "token": first },
            "service_key": service_key.expose_secret(),
            "jwt_secret": secrets.jwt,
            "stripe_secret_key": SimulatorSettings::default().stripe_secret_key,
            "stripe_webhook_secret": secrets.stripe_webhook,
            "paypal_webhook_id": secrets.paypal_webhook_id,
        }));
        return Ok(());
    }
    let is_moved = options.port.is_none() && address.port() != FIRST_PORT;
    let moved = if is_moved {
        " Port 8000 is taken: the API listens on the next that is free."
    } else {
        ""
    };
    let key = service_key.expose_secret();
    let stripe = simulator.stripe_url().trim_end_matches('/');
    let paypal = simulator.paypal_url().trim_end_matches('/');
    say(format!(
        "Tollgate runs.  Ctrl-C ends it.{moved}

  API         {api}/
  Stripe      {stripe}/   (simulated; lists its payments)
  PayPal      {paypal}/   (simulated)
  Database    {}

Buy Basic with Stripe, pay on the simulator's page, spend 10 of 1,000 tokens. Paste line by line:

  T={first}
  S=$(curl -s {api}/purchase/ -H \"Authorization: Bearer $T\" -H 'Content-Type: application/json' -d '{{\"plan_id\": 1, \"payment_method\": \"credit_card\"}}' | sed 's/.*\"client_secret\":\"\\([^\"]*\\)\".*/\\1/'); echo \"Pay here: {stripe}/pay/${{S%_secret_*}}?client_secret=$S\"
  curl -s {stripe}/pay/${{S%_secret_*}} -d client_secret=$S -d card=4242424242424242 -d action=pay -o /dev/null; sleep 1
  curl -s {api}/subscription/ -H \"Authorization: Bearer $T\"
  curl -s {api}/tokens/consume/ -H \"Authorization: Bearer $T\" -H 'Content-Type: application/json' -d '{{\"tokens\": 10, \"description\": \"hello\"}}'

The same with PayPal, as another customer:

  T={second}
  ID=$(curl -s {api}/purchase/ -H \"Authorization: Bearer $T\" -H 'Content-Type: application/json' -d '{{\"plan_id\": 1, \"payment_method\": \"paypal\"}}' | sed 's/.*\"transaction_id\":\"\\([^\"]*\\)\".*/\\1/'); echo \"Approve here: {paypal}/checkoutnow?token=$ID\"
  curl -s {paypal}/checkoutnow -d token=$ID -d action=pay -o /dev/null; sleep 2
  curl -s {api}/subscription/ -H \"Authorization: Bearer $T\"
  curl -s {api}/tokens/consume/ -H \"Authorization: Bearer $T\" -H 'Content-Type: application/json' -d '{{\"tokens\": 10}}'

As an operator, refund 5.00 of that payment; its share of the tokens goes too:

  K={key}
  P=$(curl -s {api}/payments/ -H \"Authorization: Bearer $T\" | sed 's/.*\"id\":\"\\([^\"]*\\)\".*/\\1/')
  curl -s {api}/admin/payments/$P/refund/ -H \"Authorization: Bearer $K\" -H 'Content-Type: application/json' -d '{{\"amount\": \"5.00\", \"reason\": \"demo\"}}'
  curl -s {api}/subscription/ -H \"Authorization: Bearer $T\"
",
        database.url("tollgate")
    ));
    Ok(())
}
