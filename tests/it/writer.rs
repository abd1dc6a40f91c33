//! The one who writes spends together, in trouble: lost connections, commits of which nobody knows,
//! neighbours that are refused, a full queue, a second process, clients that go away.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use api::ApiState;
use harness::{TestApp, text, token};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use shared::db::PoolSettings;
use shared::ids::{CustomerId, PaymentId};
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

/// What befalls a statement that spends; each is a transaction of its own.
#[derive(Clone)]
enum Trouble {
    /// Its answer is lost; it is committed before it is answered.
    Lost,
    /// Another process does this first.
    Overtaken(Arc<dyn Fn() -> Overtaking + Send + Sync>),
}

type Overtaking = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A wire to Postgres on which trouble befalls the first statements that spend.
struct TroubledWire {
    addr: SocketAddr,
    befell: Arc<AtomicUsize>,
}

impl TroubledWire {
    /// `times`: how many statements.
    async fn start(app: &TestApp, trouble: Trouble, times: usize) -> Self {
        let target = authority(app).replace("localhost", "127.0.0.1").parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, befell) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&befell);
        tokio::spawn(async move {
            while let Ok((ours, _)) = listener.accept().await {
                let (befell, trouble) = (Arc::clone(&counted), trouble.clone());
                tokio::spawn(async move {
                    let _cut = carry(ours, target, (&trouble, &befell), times).await;
                });
            }
        });
        Self { addr, befell }
    }

    /// Another process, whose database is behind this wire.
    fn process(&self, app: &TestApp) -> App {
        let url = app.app.config.database_url.expose_secret();
        second(app, &url.replace(&authority(app), &self.addr.to_string()))
    }
}

/// Host and port of the database.
fn authority(app: &TestApp) -> String {
    let url = app.app.config.database_url.expose_secret();
    url.split_once('@').unwrap().1.split_once('/').unwrap().0.to_owned()
}

async fn carry(
    mut ours: TcpStream,
    target: SocketAddr,
    (trouble, befell): (&Trouble, &AtomicUsize),
    times: usize,
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
                // The kind of the entries that the statement writes is one of its arguments.
                let is_spend = asked.windows(8).any(|word| word == b"consumed");
                let is_befallen = is_spend && befell.load(Ordering::SeqCst) < times;
                if is_befallen && let Trouble::Overtaken(overtake) = trouble {
                    befell.fetch_add(1, Ordering::SeqCst);
                    overtake().await;
                }
                theirs.write_all(asked).await?;
                if is_befallen && matches!(trouble, Trouble::Lost) {
                    // The first byte of an answer is sent after the commit; the answer is kept.
                    theirs.read_u8().await?;
                    befell.fetch_add(1, Ordering::SeqCst);
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
    let wire = TroubledWire::start(&app, Trouble::Lost, 2).await;
    let lossy = wire.process(&app);

    let wishes: Vec<Consume> =
        (0..40).map(|number| wish(&(1 + number % 4).to_string(), number.to_string())).collect();
    let verdicts = futures(wishes.iter().map(|wish| tokens::consume(&lossy, wish))).await;

    assert!(wire.befell.load(Ordering::SeqCst) > 0, "an answer was lost");
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
async fn what_another_process_changed_meanwhile_is_decided_again() {
    let app = TestApp::start().await;
    for user in ["1", "2"] {
        app.bought(user, 1).await;
    }
    let of = |user, key: &str| Consume { tokens: Tokens(600), ..wish(user, key.to_owned()) };
    let (other, first) = (app.app.clone(), of("1", "first"));
    let overtake = move || -> Overtaking {
        let (other, first) = (other.clone(), first.clone());
        Box::pin(async move { tokens::consume(&other, &first).await.map(drop).unwrap() })
    };
    let wire = TroubledWire::start(&app, Trouble::Overtaken(Arc::new(overtake)), 1).await;
    let slow = wire.process(&app);

    let wishes = [of("1", "second"), of("2", "neighbour")];
    let verdicts = futures(wishes.iter().map(|wish| tokens::consume(&slow, wish))).await;

    assert_eq!(wire.befell.load(Ordering::SeqCst), 1, "1,000 were there when it was decided");
    let refused = verdicts[0].as_ref().unwrap_err().to_string();
    assert!(refused.contains("400 are available"), "{refused}");
    assert!(verdicts[1].is_ok(), "who was left alone is served: {:?}", verdicts[1]);
    assert_eq!(count(&app, "consume:%").await, 2);
    app.assert_books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lot_that_is_moved_meanwhile_stays_moved() {
    let app = TestApp::start().await;
    let purchase = app.bought("1", 1).await;
    let payment_id: PaymentId = text(&purchase, "payment_id").parse().unwrap();
    let (now, customer) = (app.clock.now(), CustomerId::of("1"));
    let span = (now, now + chrono::Duration::days(90));
    let db = app.app.db.clone();
    // It leaves no entry: only the account's row tells that something changed.
    let overtake = move || -> Overtaking {
        let db = db.clone();
        Box::pin(async move {
            let mut tx = db.begin().await.unwrap();
            tokens::reschedule(&mut tx, customer, payment_id, span, now).await.unwrap();
            tx.commit().await.unwrap();
        })
    };
    let wire = TroubledWire::start(&app, Trouble::Overtaken(Arc::new(overtake)), 1).await;
    let slow = wire.process(&app);

    tokens::consume(&slow, &wish("1", "once".to_owned())).await.unwrap();

    assert_eq!(wire.befell.load(Ordering::SeqCst), 1);
    let days = "select (extract(epoch from expires_at - opens_at) / 86400)::bigint from grants";
    assert_eq!(app.scalar(days).await, 90);
    assert_eq!(app.scalar("select balance from token_accounts").await, 999);
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

    // Sixteen clients, eight of each process, each one request after the other.
    let clients = (0..16).map(|client| {
        let base = if client % 2 == 0 { &app.base } else { &base };
        let (http, url) = (&app.http, format!("{base}/api/v1/billing/tokens/consume/"));
        async move {
            let mut answers = Vec::new();
            for number in 0..15 {
                // Every key comes to both processes, at about the same time.
                let key = format!("{}-{number}", client / 2);
                let body = json!({ "tokens": 10, "idempotency_key": key });
                let request = http.post(&url).bearer_auth(token("1")).json(&body);
                let answer = request.send().await.unwrap();
                answers.push((answer.status().as_u16(), answer.json::<Value>().await.unwrap()));
            }
            answers
        }
    });
    let answers: Vec<_> = futures(clients).await.into_iter().flatten().collect();

    let usage: BTreeSet<String> = answers
        .iter()
        .filter(|(status, _)| *status == 200)
        .map(|(_, body)| text(body, "usage_id").to_owned())
        .collect();
    assert_eq!(usage.len(), 100, "1,000 tokens are a hundred spends of ten");
    let booked: Vec<String> =
        sqlx::query_scalar("select id::text from ledger_entries where kind = 'consumed'")
            .fetch_all(&app.app.db)
            .await
            .unwrap();
    assert_eq!(booked.into_iter().collect::<BTreeSet<_>>(), usage, "what was answered is booked");
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
