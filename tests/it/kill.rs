//! The real api, killed with -9 under full load: what was acknowledged is booked, once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness::database::Database;
use harness::processes::{Process, build};
use harness::{assert_clean, client, make_plans, settings, simulator, text, token};
use serde_json::{Value, json};
use shared::clock::wall_now;
use shared::config::Config;
use shared::customers::{self, Identity};
use shared::db::PoolSettings;
use shared::ids::{CustomerId, SubscriptionId};
use shared::tokens::{self, Access, GrantSource, NewLot, Rollover, Source, Tokens};
use shared::{App, Clock};
use sqlx::PgPool;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::chaos::dice::Dice;

const KILLS: u64 = 20;
const CLIENTS: u64 = 32;
const ACCOUNTS: u64 = 50;
/// Half of all spends are on so many of them.
const HOT: u64 = 3;
/// Longest that a request is tried again.
const DEADLINE: Duration = Duration::from_mins(1);

/// A spend that was acknowledged.
#[derive(Debug, Clone)]
struct Acknowledged {
    user: String,
    key: String,
    tokens: u64,
    usage_id: String,
    remaining: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[expect(clippy::print_stdout, reason = "the figures are for whoever looks")]
async fn an_acknowledged_spend_survives_a_killed_api_once() {
    let binaries = build();
    let database = Database::create().await;
    let simulator = simulator().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let bind = format!("127.0.0.1:{port}");
    let roots = database.write("roots.pem", simulator.paypal_root_pem());
    let mut settings = settings(&database.url, &bind, &simulator, &roots);
    settings.insert("RATE_LIMITS".to_owned(), "off".to_owned());
    let config = Config::read(&|name| settings.get(name).cloned()).unwrap();
    let pool = shared::db::connect(&config.database_url, PoolSettings::WORKER).unwrap();
    let app = App::new(config, pool.clone(), Clock::system()).unwrap();
    make_plans(&app).await;
    for account in 0..ACCOUNTS {
        fill(&app, &format!("spender-{account}")).await;
    }

    let start = || Process::start(&binaries.join("api"), &settings);
    let mut api = start();
    let is_over = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let (base, is_over) = (format!("http://{bind}/api/v1/billing"), Arc::clone(&is_over));
        clients.spawn(spend(base, number, is_over, Arc::clone(&answered)));
    }
    let mut dice = Dice::of(wall_now().timestamp_micros().unsigned_abs(), 0);
    let mut began = Instant::now();
    let mut under_load = Duration::ZERO;
    for _ in 0..KILLS {
        let before = answered.load(Ordering::SeqCst);
        let end = Instant::now() + DEADLINE;
        while answered.load(Ordering::SeqCst) < before + 2 * CLIENTS {
            assert!(Instant::now() < end, "the api did not come back");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        tokio::time::sleep(Duration::from_millis(dice.below(250))).await;
        drop(api);
        under_load += began.elapsed();
        api = start();
        began = Instant::now();
    }
    is_over.store(true, Ordering::SeqCst);
    let all: Vec<Acknowledged> = clients.join_all().await.into_iter().flatten().collect();
    drop(api);

    println!("{} spends, {KILLS} kills in {under_load:?}", all.len());
    assert_booked_once(&pool, &all).await;
    assert_clean(&pool, wall_now()).await;
}

/// A customer with tokens enough for all.
async fn fill(app: &App, user: &str) {
    let (id, now) = (CustomerId::of(user), app.clock.now());
    let identity = Identity { id, external_id: user.to_owned(), email: None, name: None };
    let access = Access {
        subscription_id: SubscriptionId::new(now),
        is_active: true,
        spendable_until: None,
        paused_until: None,
        overdraft: Tokens::ZERO,
        low_at: None,
    };
    let lot = NewLot {
        source: Source { kind: GrantSource::Admin, id: Uuid::now_v7(), part: 0 },
        tokens: Tokens(10_000_000),
        priority: 10,
        opens_at: now,
        expires_at: None,
        rollover: Rollover::None,
    };
    let mut tx = app.db.begin().await.unwrap();
    customers::ensure_locked(&mut tx, &identity, now).await.unwrap();
    tokens::set_access(&mut tx, id, &access, now).await.unwrap();
    tokens::grant(&mut tx, id, &lot, now).await.unwrap();
    tx.commit().await.unwrap();
}

/// One client: as fast as it can, each spend under a key of its own until it is acknowledged; now
/// and then once more after it was.
async fn spend(
    base: String,
    number: u64,
    is_over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
) -> Vec<Acknowledged> {
    let (http, mut dice) = (client(), Dice::of(number, 7));
    let tokens: HashMap<u64, String> =
        (0..ACCOUNTS).map(|account| (account, token(&format!("spender-{account}")))).collect();
    let mut done: Vec<Acknowledged> = Vec::new();
    let mut count = 0_u64;
    while !is_over.load(Ordering::SeqCst) {
        let among = if dice.percent(50) { HOT } else { ACCOUNTS };
        let account = dice.below(among);
        let (key, amount) = (format!("{number}-{count}"), 1 + dice.below(3));
        count += 1;
        let body = json!({ "tokens": amount, "idempotency_key": key });
        let ask = || {
            let request = http.post(format!("{base}/tokens/consume/")).json(&body);
            until_answered(request.bearer_auth(&tokens[&account]))
        };
        let first = ask().await;
        if dice.percent(10) {
            assert_eq!(ask().await, first, "a repeat is answered as the first time");
        }
        answered.fetch_add(1, Ordering::SeqCst);
        done.push(Acknowledged {
            user: format!("spender-{account}"),
            key,
            tokens: amount,
            usage_id: text(&first, "usage_id").to_owned(),
            remaining: first["tokens_remaining"].as_u64().unwrap(),
        });
    }
    done
}

async fn until_answered(request: reqwest::RequestBuilder) -> Value {
    let end = Instant::now() + DEADLINE;
    let mut last = String::new();
    while Instant::now() < end {
        match request.try_clone().unwrap().send().await {
            Ok(answer) if answer.status() == 200 => {
                if let Ok(body) = answer.json().await {
                    return body;
                }
            }
            Ok(answer) => {
                let status = answer.status();
                assert!(status.is_server_error(), "{status}: {:?}", answer.text().await);
                last = status.to_string();
            }
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never answered: {last}");
}

async fn assert_booked_once(pool: &PgPool, all: &[Acknowledged]) {
    let rows: Vec<(Uuid, String, Uuid, i64, i64)> = sqlx::query_as(
        "select customer_id, operation_key, id, used, balance_after from ledger_entries
         where kind = 'consumed'",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let booked: HashSet<(Uuid, String, Uuid, u64, u64)> = rows
        .iter()
        .cloned()
        .map(|(customer, key, id, used, after)| {
            (customer, key, id, used.unsigned_abs(), after.unsigned_abs())
        })
        .collect();
    for one in all {
        let id = one.usage_id.parse().unwrap();
        let key = format!("consume:{}", one.key);
        let entry = (CustomerId::of(&one.user).uuid(), key, id, one.tokens, one.remaining);
        assert!(booked.contains(&entry), "acknowledged, but not booked: {one:?}");
    }
    assert_eq!(rows.len(), all.len(), "every request was tried until it was acknowledged");
}
