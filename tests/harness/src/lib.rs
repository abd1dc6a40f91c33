//! What the integration tests stand on: a real Postgres, the real API over HTTP, the simulator as
//! gateway, a clock that stands still, and a queue that is drained on demand.
#![expect(clippy::unwrap_used, reason = "a test ends where its ground gives way")]

pub mod certificates;
pub mod database;
pub mod logs;
pub mod processes;
pub mod proxy;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::{ApiState, Limits};
use chrono::{DateTime, Utc};
use jsonwebtoken::{EncodingKey, Header, encode};
use reqwest::{Client, Response};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use shared::config::Config;
use shared::db::PoolSettings;
use shared::jobs::{Job, QUEUE};
use shared::money::Currency;
use shared::plans::{self, NewPlan};
use shared::tokens::{Depth, Tokens};
use shared::{App, Clock, check, methods, payments, top_ups, webhooks};
use simulator::{Settings as SimulatorSettings, Simulator};
use tokio::net::TcpListener;

use database::Database;
use proxy::{Proxy, Wire};

/// Signs customers' tokens in tests.
pub const JWT_SECRET: &str = "a-secret-of-the-tests-and-of-nothing-else";
/// Signs Stripe's webhooks in tests.
pub const STRIPE_WEBHOOK_SECRET: &str = "whsec_of_the_tests_and_of_nothing_else";

/// The API's pool, for machines of any speed: no test is about how long a connection is waited for.
const PATIENT: PoolSettings = PoolSettings {
    statement_timeout: std::time::Duration::from_mins(1),
    acquire_timeout: std::time::Duration::from_mins(1),
    ..PoolSettings::API
};

/// One application on a database of its own.
pub struct TestApp {
    /// The business.
    pub app: App,
    /// Moves the time.
    pub clock: Clock,
    /// The gateways.
    pub simulator: Simulator,
    /// Where the API listens: `http://127.0.0.1:<port>`.
    pub base: String,
    /// Sends requests.
    pub http: Client,
    /// The API's own state.
    pub api: ApiState,
    /// What leads to the gateways, where a test wants to cut it.
    pub wires: Option<Wires>,
    /// How many of the simulator's events were delivered by [`TestApp::deliver_new`].
    delivered: AtomicUsize,
    _database: Database,
}

/// How an application differs from the usual one.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Settings in place of the usual ones.
    pub settings: Vec<(&'static str, String)>,
    /// What a connection may take.
    pub limits: Limits,
    /// PEM text of roots to trust beside the simulator's.
    pub more_roots: String,
    /// Gateways in place of the usual ones.
    pub simulator: Option<SimulatorSettings>,
    /// Whether there are wires to the gateways that can be cut.
    pub has_wires: bool,
    /// How long a call to a gateway may take, where not as long as usual.
    pub gateway_timeout: Option<Duration>,
}

/// The wires to both gateways.
pub struct Wires {
    /// To Stripe.
    pub stripe: Proxy,
    /// To PayPal.
    pub paypal: Proxy,
}

impl Wires {
    /// Changes both.
    pub fn set(&self, wire: Wire) {
        self.stripe.set(wire);
        self.paypal.set(wire);
    }
}

/// What a run of the tests was told by its environment: how much of a thing, or which seed.
#[expect(clippy::disallowed_methods, reason = "a setting of the tests, not of the product")]
pub fn told(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Settings of a process that uses this database and simulator, as in its environment.
pub fn settings(
    database_url: &str,
    bind: &str,
    simulator: &Simulator,
    roots: &std::path::Path,
) -> HashMap<String, String> {
    let gateway = SimulatorSettings::default();
    HashMap::from(
        [
            ("TOLLGATE_ENV", "test".to_owned()),
            ("DATABASE_URL", database_url.to_owned()),
            ("BIND", bind.to_owned()),
            ("JWT_HS256_SECRET", JWT_SECRET.to_owned()),
            ("STRIPE_SECRET_KEY", gateway.stripe_secret_key),
            ("STRIPE_WEBHOOK_SECRETS", STRIPE_WEBHOOK_SECRET.to_owned()),
            ("STRIPE_API_BASE", simulator.stripe_url().to_owned()),
            ("PAYPAL_CLIENT_ID", gateway.paypal_client_id),
            ("PAYPAL_CLIENT_SECRET", gateway.paypal_client_secret),
            ("PAYPAL_WEBHOOK_ID", gateway.paypal_webhook_id),
            ("PAYPAL_MERCHANT_ID", gateway.paypal_merchant_id),
            ("PAYPAL_VAULT", "true".to_owned()),
            ("PAYPAL_API_BASE", simulator.paypal_url().to_owned()),
            ("PAYPAL_CERT_ROOTS", roots.display().to_string()),
            ("PAYPAL_CERT_RESOLVE", simulator.paypal_tls_addr().to_string()),
            ("REDIRECT_ORIGINS", "https://app.example.com".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    )
}

/// A simulator that signs with the tests' secret and delivers to nobody until told.
pub async fn simulator() -> Simulator {
    simulator_with(SimulatorSettings::default()).await
}

async fn simulator_with(settings: SimulatorSettings) -> Simulator {
    Simulator::start(SimulatorSettings {
        stripe_webhook_secrets: vec![STRIPE_WEBHOOK_SECRET.to_owned()],
        ..settings
    })
    .await
    .unwrap()
}

impl TestApp {
    /// Starts an application with the plans Basic (1), Pro (2) and Pack (3).
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    /// Starts an application that differs from the usual one.
    pub async fn start_with(options: Options) -> Self {
        logs::watch();
        let database = Database::create().await;
        let simulator = simulator_with(options.simulator.unwrap_or_default()).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bind = listener.local_addr().unwrap().to_string();
        let roots = format!("{}{}", simulator.paypal_root_pem(), options.more_roots);
        let roots = database.write("roots.pem", &roots);
        let mut settings = settings(&database.url, &bind, &simulator, &roots);
        let wires = options.has_wires.then(|| Wires {
            stripe: Proxy::start(simulator.stripe_url()),
            paypal: Proxy::start(simulator.paypal_url()),
        });
        if let Some(wires) = &wires {
            settings.insert("STRIPE_API_BASE".into(), wires.stripe.url());
            settings.insert("PAYPAL_API_BASE".into(), wires.paypal.url());
        }
        settings.extend(options.settings.into_iter().map(|(name, value)| (name.into(), value)));
        let mut config = Config::read(&|name| settings.get(name).cloned()).unwrap();
        config.gateway_timeout = options.gateway_timeout.unwrap_or(config.gateway_timeout);
        let pool = shared::db::connect(&config.database_url, PATIENT).unwrap();
        let clock = Clock::fixed("2026-11-24T12:00:00Z".parse().unwrap());
        let app = App::new(config, pool, clock.clone()).unwrap();
        make_plans(&app).await;
        let mut api = ApiState::new(app.clone()).unwrap();
        api.limits = options.limits;
        tokio::spawn(api::serve(api.clone(), listener, std::future::pending()));
        let base = format!("http://{bind}");
        let delivered = AtomicUsize::new(0);
        let http = client();
        Self { app, clock, simulator, base, http, api, wires, delivered, _database: database }
    }

    /// An address below the contract's base path.
    pub fn url(&self, path: &str) -> String {
        format!("{}/api/v1/billing/{path}", self.base)
    }

    /// GETs as a customer.
    pub async fn get(&self, user: &str, path: &str) -> Value {
        let response = self.http.get(self.url(path)).bearer_auth(token(user)).send().await.unwrap();
        response.json().await.unwrap()
    }

    /// POSTs as a customer.
    pub async fn post(&self, user: &str, path: &str, body: &Value) -> Response {
        self.http.post(self.url(path)).bearer_auth(token(user)).json(body).send().await.unwrap()
    }

    /// Buys a plan; the answer of the purchase.
    pub async fn purchase(&self, user: &str, plan_id: i32, method: &str) -> Value {
        let body = json!({ "plan_id": plan_id, "payment_method": method });
        let response = self.post(user, "purchase/", &body).await;
        assert_eq!(response.status(), 201, "{}", response.text().await.unwrap());
        response.json().await.unwrap()
    }

    /// Buys with Stripe, pays with a good card, delivers the events and runs the jobs.
    pub async fn bought(&self, user: &str, plan_id: i32) -> Value {
        let purchase = self.purchase(user, plan_id, "stripe").await;
        self.simulator.pay_stripe(text(&purchase, "transaction_id"), "pm_card_visa").unwrap();
        let succeeded = self.stripe_event(&purchase, "payment_intent.succeeded");
        assert_eq!(self.deliver_stripe(&succeeded).await.status(), 200);
        self.run_jobs().await;
        purchase
    }

    /// Buys with PayPal, approves, delivers what there is and runs the jobs.
    pub async fn bought_with_paypal(&self, user: &str, plan_id: i32) -> Value {
        let purchase = self.purchase(user, plan_id, "paypal").await;
        self.simulator.approve_paypal(text(&purchase, "transaction_id")).unwrap();
        self.tell().await;
        purchase
    }

    /// Delivers all events of both gateways that were not delivered by it before, in their order.
    pub async fn deliver_new(&self) {
        let events = self.simulator.events();
        let from = self.delivered.swap(events.len(), Ordering::SeqCst);
        for event in &events[from..] {
            let path = match event.gateway {
                simulator::Gateway::Stripe => "webhooks/stripe/",
                simulator::Gateway::PayPal => "webhooks/paypal/",
            };
            let answer = self.deliver(path, self.simulator.signed(event), &event.body).await;
            assert_eq!(answer.status(), 200, "{}", event.kind);
        }
    }

    /// Delivers new events and runs the jobs, until nothing new comes of it.
    pub async fn tell(&self) {
        while self.simulator.events().len() > self.delivered.load(Ordering::SeqCst) {
            self.deliver_new().await;
            self.run_jobs().await;
        }
    }

    /// Leaves all events made so far undelivered, as if their webhooks were lost.
    pub fn lose_events(&self) {
        self.delivered.store(self.simulator.events().len(), Ordering::SeqCst);
    }

    /// A service key with scope `admin`.
    pub async fn operator(&self) -> String {
        let scopes = [shared::access::Scope::Admin];
        let key = shared::access::create_key(&self.app, "tests", &scopes, None).await.unwrap();
        key.expose_secret().to_owned()
    }

    /// POSTs as an operator; status and body.
    pub async fn operate(&self, path: &str, body: &Value) -> (u16, Value) {
        let key = self.operator().await;
        let request = self.http.post(self.url(&format!("admin/{path}"))).bearer_auth(key);
        let answer = request.json(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// GETs as an operator.
    pub async fn look(&self, path: &str) -> Value {
        let key = self.operator().await;
        let request = self.http.get(self.url(&format!("admin/{path}"))).bearer_auth(key);
        request.send().await.unwrap().json().await.unwrap()
    }

    /// One payment of a customer.
    pub async fn payment(&self, user: &str, purchase: &Value) -> Value {
        self.get(user, &format!("payments/{}/", text(purchase, "payment_id"))).await
    }

    /// The body of the simulator's event of that kind about this purchase.
    pub fn stripe_event(&self, purchase: &Value, kind: &str) -> Vec<u8> {
        let id = text(purchase, "transaction_id");
        let found =
            self.simulator.events().into_iter().find(|event| {
                event.kind == kind && String::from_utf8_lossy(&event.body).contains(id)
            });
        found.unwrap_or_else(|| panic!("no {kind} about {id}")).body
    }

    /// Signs a body as Stripe would and POSTs it.
    pub async fn deliver_stripe(&self, body: &[u8]) -> Response {
        self.deliver("webhooks/stripe/", self.simulator.signed_stripe(body), body).await
    }

    /// Signs a body as PayPal would and POSTs it.
    pub async fn deliver_paypal(&self, body: &[u8]) -> Response {
        self.deliver("webhooks/paypal/", self.simulator.signed_paypal(body), body).await
    }

    /// Delivers all events of PayPal that the simulator has, in their order.
    pub async fn deliver_all_of_paypal(&self) {
        for event in self.simulator.events() {
            if event.gateway == simulator::Gateway::PayPal {
                assert_eq!(self.deliver_paypal(&event.body).await.status(), 200);
            }
        }
    }

    /// POSTs a webhook with these headers.
    pub async fn deliver(
        &self,
        path: &str,
        headers: Vec<(String, String)>,
        body: &[u8],
    ) -> Response {
        let mut request = self.http.post(self.url(path)).body(body.to_vec());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.send().await.unwrap()
    }

    /// Rings for everything that is open and works until nothing is left that is due.
    pub async fn run_jobs(&self) {
        for _round in 0..10 {
            let soon = self.clock.now() + chrono::Duration::minutes(1);
            let mut jobs = webhooks::due(&self.app, soon).await.unwrap();
            jobs.extend(payments::due(&self.app, soon).await.unwrap());
            jobs.extend(methods::to_read(&self.app, soon).await.unwrap());
            jobs.extend(top_ups::due(&self.app, soon).await.unwrap());
            jobs.extend(self.queued().await);
            if jobs.is_empty() {
                return;
            }
            for job in jobs {
                worker::run(&self.app, job).await.unwrap();
            }
        }
    }

    /// Takes what is queued out of the queue.
    async fn queued(&self) -> Vec<Job> {
        let bodies: Vec<Vec<u8>> =
            sqlx::query_scalar("delete from apalis.jobs where job_type = $1 returning job")
                .bind(QUEUE)
                .fetch_all(&self.app.db)
                .await
                .unwrap();
        bodies.iter().map(|body| serde_json::from_slice(body).unwrap()).collect()
    }

    /// One value of the database.
    pub async fn scalar(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.app.db).await.unwrap()
    }

    /// Fails if an invariant of the books is broken.
    pub async fn assert_books_balance(&self) {
        assert_clean(&self.app.db, self.clock.now()).await;
    }
}

/// Fails if an invariant of the tokens is broken; what money entitles to is not looked at.
pub async fn assert_tokens_balance(db: &sqlx::PgPool, now: DateTime<Utc>) {
    for finding in check::run(db, Depth::Full, now).await.unwrap() {
        let is_of_money = ["taken_is_entitled", "frozen_is_disputed"].contains(&finding.name);
        assert!(is_of_money || finding.violations == 0, "{finding:?}");
    }
}

/// Fails if an invariant of the books is broken.
pub async fn assert_clean(db: &sqlx::PgPool, now: DateTime<Utc>) {
    for finding in check::run(db, Depth::Full, now).await.unwrap() {
        assert_eq!(finding.violations, 0, "{finding:?}");
    }
}

/// Makes the plans Basic (1), Pro (2) and Pack (3).
pub async fn make_plans(app: &App) {
    let basic = NewPlan {
        name: "Basic",
        description: "",
        price_minor: 1_500,
        currency: Currency::USD,
        tokens_included: Tokens(1_000),
        duration_days: Some(30),
        is_recurring: true,
    };
    let pro = NewPlan {
        name: "Pro",
        price_minor: 4_000,
        tokens_included: Tokens(5_000),
        ..basic.clone()
    };
    let pack = NewPlan {
        name: "Pack",
        price_minor: 1_000,
        tokens_included: Tokens(500),
        duration_days: None,
        is_recurring: false,
        ..basic.clone()
    };
    for plan in [basic, pro, pack] {
        plans::create(app, &plan).await.unwrap();
    }
}

/// A client without a pool shared between tests.
pub fn client() -> Client {
    let _installed_before = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(std::time::Duration::from_secs(30))
        .build()
        .unwrap()
}

/// A token of that user, valid for an hour.
pub fn token(user: &str) -> String {
    let expires_at = shared::clock::wall_now().timestamp() + 3_600;
    let email = format!("someone{}", logs::EMAIL_CANARY);
    signed(&json!({ "user_id": user, "token_type": "access", "exp": expires_at, "email": email }))
}

/// A token with these claims.
pub fn signed(claims: &Value) -> String {
    let key = EncodingKey::from_secret(JWT_SECRET.as_bytes());
    encode(&Header::default(), claims, &key).unwrap()
}

/// A member of an answer that must be text.
pub fn text<'a>(answer: &'a Value, member: &str) -> &'a str {
    answer[member].as_str().unwrap_or_else(|| panic!("no {member} in {answer}"))
}
