//! Entries changed behind the ledger's back, by one who may do anything to the database but does
//! not have the ledger's key: `tollgate check` names account and entry.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;

use harness::{TestApp, processes};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use shared::ids::CustomerId;
use shared::tokens;
use sqlx::AssertSqlSafe;

use crate::purchase::futures;

/// The operator's command, and an application to whose books things are done.
struct Scene {
    app: TestApp,
    tollgate: PathBuf,
    settings: HashMap<&'static str, String>,
}

/// What `tollgate check` says of the chain.
struct Verdict {
    is_clean: bool,
    violations: i64,
    example: String,
}

impl Scene {
    /// Customer 42 has bought (entry 1) and spent five times (entries 2 to 6); 43 as well.
    async fn start() -> Self {
        let tollgate = processes::build().join("tollgate");
        let app = TestApp::start().await;
        for user in ["42", "43"] {
            app.bought(user, 1).await;
            spend(&app, user, 5).await;
        }
        let settings = HashMap::from([
            ("TOLLGATE_ENV", "test".to_owned()),
            ("DATABASE_URL", app.app.config.database_url.expose_secret().to_owned()),
            ("JWT_HS256_SECRET", harness::JWT_SECRET.to_owned()),
            ("LEDGER_KEY", app.app.config.ledger_key.expose_secret().to_owned()),
        ]);
        Self { app, tollgate, settings }
    }

    fn check(&self, options: &[&str]) -> Verdict {
        let output = Command::new(&self.tollgate)
            .args(["check", "--json"])
            .args(options)
            .env_clear()
            .envs(&self.settings)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let found: Value = serde_json::from_str(&text)
            .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
        let chain = found["invariants"].as_array().unwrap().iter();
        let chain = chain.clone().find(|one| one["name"] == "entries_are_as_written").unwrap();
        assert_eq!(output.status.success(), found["clean"] == true, "the exit code says it too");
        Verdict {
            is_clean: found["clean"] == true,
            violations: chain["violations"].as_i64().unwrap(),
            example: chain["example"].as_str().unwrap_or_default().to_owned(),
        }
    }

    async fn execute(&self, sql: &str) {
        let sql = sql.replace("$42", &format!("'{}'", CustomerId::of("42")));
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&self.app.app.db).await.unwrap();
    }

    /// What is found after this was done to the books; it is undone.
    async fn found(&self, tampering: &str, options: &[&str]) -> Verdict {
        self.execute(
            "create table saved as table ledger_entries;
             create table saved_accounts as table token_accounts",
        )
        .await;
        self.execute(tampering).await;
        let verdict = self.check(options);
        self.execute(
            "delete from ledger_entries; insert into ledger_entries table saved;
             delete from token_accounts where false;
             update token_accounts a set last_seq = s.last_seq, last_digest = s.last_digest,
                    balance = s.balance, used = s.used
             from saved_accounts s where s.customer_id = a.customer_id;
             drop table saved, saved_accounts",
        )
        .await;
        verdict
    }

    async fn assert_names(&self, tampering: &str, seq: i64, options: &[&str]) {
        let verdict = self.found(tampering, options).await;
        let named = format!("account {} entry {seq}:", CustomerId::of("42"));
        assert!(!verdict.is_clean && verdict.violations > 0, "{tampering}");
        assert!(verdict.example.starts_with(&named), "{tampering}: {}", verdict.example);
    }
}

async fn spend(app: &TestApp, user: &str, times: u64) {
    for tokens in 1..=times {
        let metadata = json!({ "model": "large", "cost": 0.25 });
        let body = json!({ "tokens": tokens, "description": "a call", "metadata": metadata });
        assert_eq!(app.post(user, "tokens/consume/", &body).await.status(), 200);
    }
}

fn entry(seq: i64, change: &str) -> String {
    format!("update ledger_entries set {change} where customer_id = $42 and seq = {seq}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_changed_in_one_entry_is_found_and_named() {
    let scene = Scene::start().await;
    assert!(scene.check(&[]).is_clean);
    let changes = [
        "tokens = tokens - 1",
        "debt = 1",
        "held = -1",
        "used = used + 1",
        "used_after = used_after + 1",
        "balance_after = balance_after + 1",
        "available_after = available_after + 1",
        "kind = 'expired'",
        "created_at = created_at + interval '1 microsecond'",
        "principal = 'customes'",
        "operation_key = operation_key || '0'",
        "request_digest = set_byte(request_digest, 0, get_byte(request_digest, 0) # 1)",
        "id = '00000000-0000-0000-0000-000000000000'",
        "subscription_id = null",
        "description = 'a cell'",
        "metadata = metadata || '{\"model\": \"small\"}'",
        "lot_tokens = array[lot_tokens[1] + 1]",
        "lot_ids = array['00000000-0000-0000-0000-000000000000'::uuid]",
        "digest = set_byte(digest, 31, get_byte(digest, 31) # 1)",
        "content_digest = set_byte(content_digest, 0, get_byte(content_digest, 0) # 128)",
    ];
    for change in changes {
        scene.assert_names(&entry(4, change), 4, &[]).await;
    }
    assert!(scene.check(&[]).is_clean, "all was undone");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_taken_out_or_moved_is_found_and_named() {
    let scene = Scene::start().await;

    let middle = "delete from ledger_entries where customer_id = $42 and seq = 4";
    scene.assert_names(middle, 5, &[]).await;
    let end = "delete from ledger_entries where customer_id = $42 and seq = 6";
    scene.assert_names(end, 6, &[]).await;
    let swapped = [entry(3, "seq = 1000"), entry(4, "seq = 3"), entry(1_000, "seq = 4")].join(";");
    scene.assert_names(&swapped, 3, &[]).await;
    let copied = "update ledger_entries o set digest = e.digest from ledger_entries e
                  where o.customer_id = $42 and o.seq = 4
                    and e.customer_id <> $42 and e.seq = 4";
    scene.assert_names(copied, 4, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_erased_is_not_reported() {
    let scene = Scene::start().await;

    scene.execute(&entry(4, "description = '', metadata = '{}'")).await;

    assert!(scene.check(&[]).is_clean);
    scene.assert_names(&entry(4, "tokens = tokens - 1"), 4, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn above_the_anchor_a_recent_check_finds_it_below_only_a_full_one() {
    let scene = Scene::start().await;
    tokens::anchor(&scene.app.app).await.unwrap();
    scene.app.clock.advance(chrono::Duration::hours(1));
    spend(&scene.app, "42", 3).await;
    assert!(scene.check(&["--recent"]).is_clean);

    scene.assert_names(&entry(8, "metadata = '{\"a\": 1}'"), 8, &["--recent"]).await;
    scene
        .assert_names(
            "delete from ledger_entries where customer_id = $42 and seq = 8",
            9,
            &["--recent"],
        )
        .await;
    let below = entry(4, "request_digest = '\\x01'");
    assert!(scene.found(&below, &["--recent"]).await.is_clean, "it was looked at before");
    scene.assert_names(&below, 4, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_anchored_head_cut_off_is_found_though_the_account_was_made_to_fit() {
    let scene = Scene::start().await;
    let cut = "delete from ledger_entries where customer_id = $42 and seq > 4;
               update token_accounts a
               set last_seq = 4, last_digest = e.digest, balance = e.balance_after,
                   used = e.used_after
               from ledger_entries e
               where a.customer_id = $42 and e.customer_id = $42 and e.seq = 4";
    let verdict = scene.found(cut, &[]).await;
    assert_eq!(verdict.violations, 0, "nothing but an anchor can know");
    tokens::anchor(&scene.app.app).await.unwrap();

    scene.assert_names(cut, 6, &[]).await;
    scene.assert_names(cut, 6, &["--recent"]).await;
    let verdict = scene.found("update ledger_heads set seq = seq - 1 where customer_id = $42", &[]);
    assert!(verdict.await.violations > 0, "a head that was changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_is_anchored_once_and_the_next_one_again() {
    let scene = Scene::start().await;
    let app = &scene.app;
    let anchors = "select count(*) from ledger_anchors";

    let at_once = futures((0..4).map(|_| tokens::anchor(&app.app))).await;
    assert!(at_once.iter().any(Result::is_ok), "one of those at once does it");
    tokens::anchor(&app.app).await.unwrap();
    assert_eq!(app.scalar(anchors).await, 1);
    assert_eq!(app.scalar("select count(*) from ledger_heads").await, 2);
    assert!(scene.check(&[]).is_clean);

    app.clock.advance(chrono::Duration::days(1));
    spend(app, "42", 1).await;
    tokens::anchor(&app.app).await.unwrap();
    assert_eq!(app.scalar(anchors).await, 2);
    assert_eq!(app.scalar("select count(*) from ledger_heads").await, 3, "43 did not move");
    assert!(scene.check(&[]).is_clean && scene.check(&["--recent"]).is_clean);
    let changed = "update ledger_anchors set digest = '\\x00'";
    scene.execute(changed).await;
    assert!(scene.check(&["--recent"]).violations > 0);
}
