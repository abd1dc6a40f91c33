//! The one who writes spends together, in trouble: lost connections, commits of which nobody knows,
//! neighbours that are refused, a full queue, a second process, clients that go away.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use api::ApiState;
use harness::{TestApp, token};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use shared::db::PoolSettings;
use shared::ids::CustomerId;
use shared::tokens::{self, Consume, Tokens};
use shared::{App, Error};
use sqlx::{PgPool, Postgres, Transaction};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::purchase::futures;

/// More than a writer has places for, and takes into one batch.
const FLOOD: usize = 4_800;

/// What a test waits for comes long before.
const DEADLINE: Duration = Duration::from_secs(20);

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !is_so().await {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn wish(user: &str, key: String) -> Consume {
    Consume {
        customer_id: CustomerId::of(user),
        principal: "customer".to_owned(),
        tokens: Tokens(1),
        description: String::new(),
        metadata: json!({}),
        key: Some(key),
    }
}

/// Holds an account's lock, so that whoever writes to it waits in the middle of its batch.
async fn lock<'a>(app: &TestApp, user: &str) -> Transaction<'a, Postgres> {
    let mut tx = app.app.db.begin().await.unwrap();
    let patient = "set local idle_in_transaction_session_timeout = 0";
    sqlx::query(patient).execute(&mut *tx).await.unwrap();
    sqlx::query("select from token_accounts where customer_id = $1 for update")
        .bind(CustomerId::of(user).uuid())
        .execute(&mut *tx)
        .await
        .unwrap();
    tx
}

/// Processes that wait for somebody's lock.
async fn blocked(db: &PgPool) -> Vec<i32> {
    let sql = "select pid from pg_stat_activity
               where datname = current_database() and wait_event_type = 'Lock'";
    sqlx::query_scalar(sql).fetch_all(db).await.unwrap()
}

async fn count(app: &TestApp, like: &str) -> i64 {
    sqlx::query_scalar("select count(*) from ledger_entries where operation_key like $1")
        .bind(like)
        .fetch_one(&app.app.db)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_lost_in_mid_batch_fails_nobody() {
    let app = Arc::new(TestApp::start().await);
    for user in ["1", "2", "3", "4"] {
        app.bought(user, 1).await;
    }
    let held = lock(&app, "1").await;
    let spends: Vec<_> = (0..40)
        .map(|number| {
            let wish = wish(&(1 + number % 4).to_string(), number.to_string());
            let app = Arc::clone(&app);
            tokio::spawn(async move { tokens::consume(&app.app, &wish).await })
        })
        .collect();
    let mut lost = Vec::new();
    until("a batch waits for the lock", async || {
        lost = blocked(&app.app.db).await;
        !lost.is_empty()
    })
    .await;

    for pid in &lost {
        sqlx::query("select pg_terminate_backend($1)")
            .bind(pid)
            .execute(&app.app.db)
            .await
            .unwrap();
    }
    until("they are gone", async || {
        let sql = "select count(*) from pg_stat_activity where pid = any($1)";
        let left: i64 = sqlx::query_scalar(sql).bind(&lost).fetch_one(&app.app.db).await.unwrap();
        left == 0
    })
    .await;
    held.rollback().await.unwrap();

    for spend in spends {
        spend.await.unwrap().unwrap();
    }
    assert_eq!(count(&app, "consume:%").await, 40);
    app.assert_books_balance().await;
}

/// A wire to Postgres on which the answer to the first statements that spend is lost: each is a
/// transaction of its own, committed before it is answered.
struct LossyWire {
    addr: SocketAddr,
    lost: Arc<AtomicUsize>,
}

impl LossyWire {
    async fn start(target: SocketAddr, losses: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, lost) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&lost);
        tokio::spawn(async move {
            while let Ok((ours, _)) = listener.accept().await {
                let lost = Arc::clone(&counted);
                tokio::spawn(async move {
                    let _cut = carry(ours, target, &lost, losses).await;
                });
            }
        });
        Self { addr, lost }
    }
}

async fn carry(
    mut ours: TcpStream,
    target: SocketAddr,
    lost: &AtomicUsize,
    losses: usize,
) -> std::io::Result<()> {
    let mut theirs = TcpStream::connect(target).await?;
    let (mut question, mut answer) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = ours.read(&mut question) => {
                let asked = &question[..read?];
                if asked.is_empty() {
                    return Ok(());
                }
                theirs.write_all(asked).await?;
                // The kind of the entries that the statement writes is one of its arguments.
                let is_spend = asked.windows(8).any(|word| word == b"consumed");
                if is_spend && lost.load(Ordering::SeqCst) < losses {
                    // The first byte of an answer is sent after the commit; the answer is kept.
                    theirs.read_u8().await?;
                    lost.fetch_add(1, Ordering::SeqCst);
                    return Ok(());
                }
            }
            read = theirs.read(&mut answer) => {
                let said = &answer[..read?];
                if said.is_empty() {
                    return Ok(());
                }
                ours.write_all(said).await?;
            }
        }
    }
}

/// Another process on the same database.
fn second(app: &TestApp, database_url: &str) -> App {
    let config = shared::config::Config::clone(&app.app.config);
    let url = SecretString::from(database_url.to_owned());
    let pool = shared::db::connect(&url, PoolSettings::API).unwrap();
    App::new(config, pool, app.clock.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_which_nobody_knows_has_one_effect() {
    let app = TestApp::start().await;
    for user in ["1", "2", "3", "4"] {
        app.bought(user, 1).await;
    }
    let url = app.app.config.database_url.expose_secret().to_owned();
    let authority = url.split_once('@').unwrap().1.split_once('/').unwrap().0.to_owned();
    let target = authority.replace("localhost", "127.0.0.1").parse().unwrap();
    let wire = LossyWire::start(target, 2).await;
    let lossy = second(&app, &url.replace(&authority, &wire.addr.to_string()));

    let wishes: Vec<Consume> =
        (0..40).map(|number| wish(&(1 + number % 4).to_string(), number.to_string())).collect();
    let verdicts = futures(wishes.iter().map(|wish| tokens::consume(&lossy, wish))).await;

    assert!(wire.lost.load(Ordering::SeqCst) > 0, "an answer was lost");
    let usage: BTreeSet<_> = verdicts.into_iter().map(|one| one.unwrap().usage_id.uuid()).collect();
    assert_eq!(usage.len(), 40);
    let booked: Vec<uuid::Uuid> = sqlx::query_scalar(
        "select id from ledger_entries where operation_key like 'consume:%' order by id",
    )
    .fetch_all(&app.app.db)
    .await
    .unwrap();
    assert_eq!(booked, usage.into_iter().collect::<Vec<_>>(), "each once, as answered");
    app.assert_books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_neighbour_fails_nobody() {
    let app = TestApp::start().await;
    for user in ["1", "2"] {
        app.bought(user, 1).await;
    }
    let held = lock(&app, "1").await;
    let first = wish("1", "first".to_owned());
    let blocking = futures([tokens::consume(&app.app, &first)]);
    let bad: Vec<(Consume, &str)> = vec![
        (Consume { tokens: Tokens(5_000), ..wish("1", "too-many".to_owned()) }, "were requested"),
        (wish("nobody", "none".to_owned()), "subscription"),
        (Consume { tokens: Tokens(2), ..wish("1", "first".to_owned()) }, "different request"),
    ];
    let good: Vec<Consume> =
        (0..60).map(|number| wish(&(1 + number % 2).to_string(), format!("g{number}"))).collect();

    let all = async {
        let good = futures(good.iter().map(|wish| tokens::consume(&app.app, wish)));
        let bad = futures(bad.iter().map(|(wish, _)| tokens::consume(&app.app, wish)));
        let release = async {
            until("a batch waits", async || !blocked(&app.app.db).await.is_empty()).await;
            held.rollback().await.unwrap();
        };
        tokio::join!(good, bad, release)
    };
    let (first, (good, refused, ())) = tokio::join!(blocking, all);

    assert!(first.iter().chain(&good).all(Result::is_ok), "{good:?}");
    for (refusal, (_, word)) in refused.into_iter().zip(&bad) {
        let why = refusal.unwrap_err().to_string();
        assert!(why.contains(word), "{why}");
    }
    assert_eq!(count(&app, "consume:%").await, 61);
    app.assert_books_balance().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_queue_is_a_503_that_says_when_to_come_again() {
    let app = Arc::new(TestApp::start().await);
    app.bought("1", 2).await;
    let held = lock(&app, "1").await;
    let mut flood = JoinSet::new();
    for number in 0..FLOOD {
        let app = Arc::clone(&app);
        let wish = wish("1", number.to_string());
        flood.spawn(async move { (tokens::consume(&app.app, &wish).await, wish) });
    }
    // Those who find no place are told at once; the others wait for the lock.
    let (turned_away, unlucky) = flood.join_next().await.unwrap().unwrap();
    let refused = app.post("1", "tokens/consume/", &json!({ "tokens": 1 })).await;
    held.rollback().await.unwrap();

    assert!(matches!(turned_away, Err(Error::Overloaded)), "{turned_away:?}");
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    let mut again = vec![unlucky];
    while let Some(answered) = flood.join_next().await {
        match answered.unwrap() {
            (Ok(_), _) => {}
            (Err(Error::Overloaded), wish) => again.push(wish),
            (Err(error), _) => panic!("{error}"),
        }
    }
    let served = FLOOD - again.len();
    assert_eq!(count(&app, "consume:%").await, i64::try_from(served).unwrap(), "nothing by halves");
    for wish in again {
        assert!(!tokens::consume(&app.app, &wish).await.unwrap().is_replay);
    }
    app.assert_books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_spend_one_account_to_its_last_token() {
    let app = TestApp::start().await;
    app.bought("1", 1).await;
    let other = second(&app, app.app.config.database_url.expose_secret());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let state = ApiState::new(other).unwrap();
    tokio::spawn(api::serve(state, listener, std::future::pending()));

    let spends = (0..240).map(|number| {
        let base = if number % 2 == 0 { &app.base } else { &base };
        let url = format!("{base}/api/v1/billing/tokens/consume/");
        // Every key comes to both processes at once.
        let body = json!({ "tokens": 10, "idempotency_key": (number / 2).to_string() });
        let request = app.http.post(url).bearer_auth(token("1")).json(&body);
        async move {
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
        }
    });
    let answers = futures(spends).await;

    let usage: BTreeSet<String> = answers
        .iter()
        .filter(|(status, _)| *status == 200)
        .map(|(_, body)| body["usage_id"].to_string())
        .collect();
    assert_eq!(usage.len(), 100, "1,000 tokens are a hundred spends of ten");
    assert!(answers.iter().all(|(status, _)| [200, 400].contains(status)));
    assert_eq!(app.scalar("select balance from token_accounts").await, 0);
    app.assert_books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_tells_a_client_that_went_away_what_became_of_it() {
    let app = TestApp::start().await;
    app.bought("1", 1).await;
    let held = lock(&app, "1").await;
    let body = json!({ "tokens": 7, "idempotency_key": "gone" });
    let ask = || app.http.post(app.url("tokens/consume/")).bearer_auth(token("1")).json(&body);

    let gone = futures((0..3).map(|_| ask().timeout(Duration::from_millis(300)).send())).await;
    assert!(gone.iter().all(Result::is_err), "nobody waits for the answer");
    held.rollback().await.unwrap();
    let answer = ask().send().await.unwrap();

    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["tokens_remaining"], 993);
    assert_eq!(count(&app, "consume:gone").await, 1);
    app.assert_books_balance().await;
}
