//! The real binaries, killed with -9 at random: nothing paid is lost, nothing granted twice.

use std::time::{Duration, Instant};

use harness::database::Database;
use harness::logs::search_file;
use harness::processes::{Process, build};
use harness::{assert_clean, client, make_plans, settings, simulator, text, token};
use serde_json::{Value, json};
use shared::config::Config;
use shared::db::PoolSettings;
use shared::{App, Clock};

/// Purchases of one run.
const PURCHASES: usize = 200;
/// Everything must have been booked this long after the last kill.
const DEADLINE: Duration = Duration::from_mins(2);

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_purchases_survive_killed_processes() {
    let binaries = build();
    let database = Database::create().await;
    let simulator = simulator().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let bind = format!("127.0.0.1:{port}");
    let roots = database.write("roots.pem", simulator.paypal_root_pem());
    let settings = settings(&database.url, &bind, &simulator, &roots);
    let config = Config::read(&|name| settings.get(name).cloned()).unwrap();
    let pool = shared::db::connect(&config.database_url, PoolSettings::WORKER).unwrap();
    make_plans(&App::new(config, pool.clone(), Clock::system()).unwrap()).await;
    let webhooks = format!("http://{bind}/api/v1/billing/webhooks/stripe/");
    simulator.set_webhook_urls(Some(webhooks), None);

    let log = database.write("processes.log", "");
    let start = |name: &str| Process::start_logged(&binaries.join(name), &settings, &log);
    let (mut api, mut worker) = (start("api"), start("worker"));
    let base = format!("http://{bind}/api/v1/billing");
    let buyers = tokio::spawn(buy_all(base, simulator.clone()));
    let mut kill = 0_u32;
    while !buyers.is_finished() {
        tokio::time::sleep(Duration::from_millis(700 + u64::from(kill % 5) * 211)).await;
        if kill.is_multiple_of(2) {
            drop(api);
            api = start("api");
        } else {
            drop(worker);
            worker = start("worker");
        }
        kill += 1;
    }
    buyers.await.unwrap();

    let granted = || async {
        let count = "select count(*) from grants where tokens = 1000";
        sqlx::query_scalar::<_, i64>(count).fetch_one(&pool).await.unwrap()
    };
    let end = Instant::now() + DEADLINE;
    while granted().await < i64::try_from(PURCHASES).unwrap() && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(granted().await, i64::try_from(PURCHASES).unwrap(), "after {kill} kills");
    assert_clean(&pool, shared::clock::wall_now()).await;
    drop((api, worker));
    assert!(search_file(&log) > 1_000, "the processes logged next to nothing");
}

/// Buys and pays for all customers, ten at a time, repeating whatever failed.
async fn buy_all(base: String, simulator: simulator::Simulator) {
    let mut buyers = tokio::task::JoinSet::new();
    for buyer in 0..10 {
        let (base, simulator) = (base.clone(), simulator.clone());
        buyers.spawn(async move {
            for index in (buyer..PURCHASES).step_by(10) {
                let user = format!("user-{index}");
                let intent = purchase(&base, &user).await;
                simulator.pay_stripe(&intent, "pm_card_visa").unwrap();
            }
        });
    }
    buyers.join_all().await;
}

async fn purchase(base: &str, user: &str) -> String {
    let http = client();
    let end = Instant::now() + DEADLINE;
    while Instant::now() < end {
        let body = json!({ "plan_id": 1, "payment_method": "stripe" });
        let sent = http.post(format!("{base}/purchase/")).bearer_auth(token(user)).json(&body);
        if let Ok(answer) = sent.send().await
            && answer.status() == 201
            && let Ok(answer) = answer.json::<Value>().await
        {
            return text(&answer, "transaction_id").to_owned();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{user} could not buy");
}
