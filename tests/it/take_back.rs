//! Tokens of refunded and disputed payments, on the books as they are stored.

use chrono::Duration;
use harness::{TestApp, assert_tokens_balance, text};
use serde_json::{Value, json};
use shared::check;
use shared::ids::CustomerId;
use shared::tokens::{self, Adapted, Balance, Entitlement, Tokens};

use crate::purchase::futures;

/// What the plan Basic costs in the tests.
const CAPTURED: i64 = 1_500;

fn facts(purchase: &Value) -> Entitlement {
    Entitlement {
        payment_id: text(purchase, "payment_id").parse().unwrap(),
        captured_minor: CAPTURED,
        gone_minor: 0,
        gone_unused_only_minor: 0,
        is_frozen: false,
    }
}

fn gone(purchase: &Value, gone_minor: i64) -> Entitlement {
    Entitlement { gone_minor, ..facts(purchase) }
}

async fn adapt(app: &TestApp, facts: Entitlement) -> Adapted {
    let mut tx = app.app.db.begin().await.unwrap();
    let now = app.clock.now();
    let adapted =
        tokens::adapt(&mut tx, CustomerId::of("42"), &facts, "refund 7", now).await.unwrap();
    tx.commit().await.unwrap();
    adapted
}

async fn spend(app: &TestApp, tokens: u64) -> u16 {
    let answer = app.post("42", "tokens/consume/", &json!({ "tokens": tokens })).await;
    answer.status().as_u16()
}

async fn balance(app: &TestApp) -> Balance {
    tokens::balance(&app.app, CustomerId::of("42")).await.unwrap()
}

/// Balance, available, debt.
async fn state(app: &TestApp) -> (u64, u64, u64) {
    let Balance { remaining, available, debt, .. } = balance(app).await;
    (remaining.0, available.0, debt.0)
}

#[tokio::test]
async fn spent_tokens_become_debt_that_the_next_purchase_repays() {
    let app = TestApp::start().await;
    let purchase = app.bought("42", 1).await;
    assert_eq!(spend(&app, 700).await, 200);

    let adapted = adapt(&app, gone(&purchase, CAPTURED)).await;

    assert_eq!((adapted.taken, adapted.became_debt), (Tokens(300), Tokens(700)));
    assert_eq!(state(&app).await, (0, 0, 700));
    assert_eq!(adapt(&app, gone(&purchase, CAPTURED)).await, Adapted::default(), "a repeat");
    assert_tokens_balance(&app.app.db, app.clock.now()).await;
    app.bought("42", 1).await;
    app.clock.advance(Duration::days(30));
    assert_eq!(spend(&app, 1).await, 200);
    assert_eq!(state(&app).await, (299, 299, 0));
    let entries = "select count(*) from ledger_entries where principal = 'system:take_back'
                   and (kind = 'taken_back') = (description = 'refund 7')";
    assert_eq!(app.scalar(entries).await, 2, "taken back with its reason, and repaid");
    assert_tokens_balance(&app.app.db, app.clock.now()).await;
}

#[tokio::test]
async fn a_part_refund_takes_its_share_rounded_up() {
    let app = TestApp::start().await;
    let purchase = app.bought("42", 1).await;

    let first = adapt(&app, gone(&purchase, 1)).await;
    let second = adapt(&app, gone(&purchase, 500)).await;

    assert_eq!((first.taken, second.taken), (Tokens(1), Tokens(333)));
    assert_eq!(state(&app).await, (666, 666, 0));
    assert_tokens_balance(&app.app.db, app.clock.now()).await;
}

#[tokio::test]
async fn two_takes_at_once_take_once() {
    let app = TestApp::start().await;
    let purchase = app.bought("42", 1).await;
    assert_eq!(spend(&app, 500).await, 200);

    let all = futures((0..6).map(|_| adapt(&app, gone(&purchase, CAPTURED)))).await;

    let sum = |tokens: fn(&Adapted) -> Tokens| all.iter().map(tokens).sum::<Tokens>();
    assert_eq!(sum(|one| one.taken), Tokens(500));
    assert_eq!(sum(|one| one.became_debt), Tokens(500));
    assert_eq!(state(&app).await, (0, 0, 500));
    assert_tokens_balance(&app.app.db, app.clock.now()).await;
}

#[tokio::test]
async fn spends_and_a_take_at_once_share_out_what_there_is() {
    let app = TestApp::start().await;
    let purchase = app.bought("42", 1).await;

    let spends = futures((0..8).map(|turn| {
        let app = &app;
        let facts = gone(&purchase, CAPTURED);
        async move {
            if turn == 4 {
                adapt(app, facts).await;
                return 0;
            }
            u64::from(spend(app, 100).await == 200) * 100
        }
    }));
    let spent: u64 = spends.await.into_iter().sum();

    assert_eq!(state(&app).await, (0, 0, spent));
    assert_tokens_balance(&app.app.db, app.clock.now()).await;
}

#[tokio::test]
async fn frozen_tokens_are_not_spendable_and_do_not_expire() {
    let app = TestApp::start().await;
    let purchase = app.bought("42", 1).await;
    app.clock.advance(Duration::days(20));
    let frozen = Entitlement { is_frozen: true, ..facts(&purchase) };

    adapt(&app, frozen).await;
    assert_eq!(state(&app).await, (1_000, 0, 0));
    assert_eq!(balance(&app).await.frozen, Tokens(1_000));
    assert_eq!(spend(&app, 1).await, 400);
    app.clock.advance(Duration::days(25));
    assert_eq!(adapt(&app, frozen).await, Adapted::default(), "a repeat");
    assert_eq!(state(&app).await, (1_000, 0, 0), "past its end it is still there");
    assert_tokens_balance(&app.app.db, app.clock.now()).await;
    let thawed = adapt(&app, facts(&purchase)).await;

    assert_eq!(thawed.thawed_after, Some(Duration::days(25)));
    assert_eq!(state(&app).await.0, 1_000);
    app.clock.advance(Duration::days(10));
    assert_eq!(state(&app).await.0, 0, "ten days were left");
    assert_tokens_balance(&app.app.db, app.clock.now()).await;
}

#[tokio::test]
async fn tokens_given_back_after_their_end_are_there_for_the_time_that_was_left() {
    let app = TestApp::start().await;
    let purchase = app.bought("42", 1).await;
    app.clock.advance(Duration::days(29));
    adapt(&app, gone(&purchase, CAPTURED / 2)).await;
    app.clock.advance(Duration::days(11));
    assert_eq!(state(&app).await.0, 0);

    let adapted = adapt(&app, facts(&purchase)).await;

    assert_eq!(adapted.returned, Tokens(500));
    assert_eq!(state(&app).await.0, 500);
    assert_tokens_balance(&app.app.db, app.clock.now()).await;
    app.clock.advance(Duration::days(1));
    adapt(&app, facts(&purchase)).await;
    assert_eq!(state(&app).await.0, 0);
    assert_tokens_balance(&app.app.db, app.clock.now()).await;
}

#[tokio::test]
async fn debt_repaid_before_it_was_undone_is_granted_anew() {
    let app = TestApp::start().await;
    let purchase = app.bought("42", 1).await;
    assert_eq!(spend(&app, 1_000).await, 200);
    adapt(&app, gone(&purchase, CAPTURED)).await;
    app.bought("42", 3).await;
    assert_eq!(state(&app).await, (0, 0, 500));

    let adapted = adapt(&app, facts(&purchase)).await;

    assert_eq!(adapted.returned, Tokens(500));
    assert_eq!(state(&app).await, (500, 500, 0));
    assert_eq!(spend(&app, 100).await, 200);
    assert_tokens_balance(&app.app.db, app.clock.now()).await;
    adapt(&app, gone(&purchase, CAPTURED)).await;
    assert_eq!(state(&app).await, (0, 0, 600), "what was granted anew repays it first");
    assert_tokens_balance(&app.app.db, app.clock.now()).await;
}

#[tokio::test]
async fn a_lot_paid_ahead_is_taken_before_it_opens() {
    let app = TestApp::start().await;
    app.bought("42", 1).await;
    let ahead = app.bought("42", 1).await;

    let taken = adapt(&app, gone(&ahead, CAPTURED)).await;
    assert_eq!(taken.taken, Tokens(1_000));
    assert_eq!(state(&app).await, (1_000, 1_000, 0));
    assert_tokens_balance(&app.app.db, app.clock.now()).await;
    adapt(&app, gone(&ahead, CAPTURED / 2)).await;
    app.clock.advance(Duration::days(30));

    assert_eq!(state(&app).await, (500, 500, 0));
    assert_eq!(spend(&app, 1).await, 200);
    assert_tokens_balance(&app.app.db, app.clock.now()).await;
}

#[tokio::test]
async fn every_broken_book_is_found() {
    let app = TestApp::start().await;
    let purchase = app.bought("42", 1).await;
    spend(&app, 600).await;
    adapt(&app, gone(&purchase, CAPTURED)).await;
    app.bought("42", 3).await;
    adapt(&app, gone(&purchase, CAPTURED / 2)).await;
    assert_tokens_balance(&app.app.db, app.clock.now()).await;
    // The schema refuses most of it already; `check` proves it without believing the schema.
    execute(
        &app,
        "alter table grants drop constraint grants_counted_once,
                            drop constraint grants_used_up,
                            drop constraint grants_held_of_rest,
                            drop constraint grants_taken_at_most;
         alter table token_accounts drop constraint token_accounts_debt_check,
                                    drop constraint token_accounts_held_of_balance",
    )
    .await;
    let basic = "where part = 0 and tokens = 1000";
    let one = format!("update grants set {{}} {basic}");
    let lot = |change: &str| one.replace("{}", change);
    let kind = |kind: &str, change: &str| {
        format!("update ledger_entries set {change} where kind = '{kind}'")
    };
    let plants = [
        ("balance_is_its_ledger", "update token_accounts set debt = debt + 1".to_owned()),
        ("balance_is_its_ledger", kind("taken_back", "debt = debt - 1")),
        ("balance_is_its_lots", lot("remaining = remaining + 1")),
        ("lot_is_its_entries", lot("taken_free = taken_free + 1")),
        ("lot_is_its_entries", lot("expired_tokens = 1, taken_free = taken_free - 1")),
        ("lot_is_its_entries", lot("remaining = remaining + 1, taken_free = taken_free - 1")),
        ("entry_is_its_lots", kind("taken_back", "lot_tokens = array[lot_tokens[1] + 1]")),
        ("taken_is_at_most_the_lot", lot("taken = tokens + 1")),
        ("taken_is_at_most_the_lot", lot("taken = taken_free + taken_debt - 1")),
        ("taken_is_at_most_the_lot", lot("taken_debt = tokens, taken = tokens")),
        ("taken_is_at_most_the_lot", lot("taken_at = null")),
        ("debt_is_its_lots", lot("taken_debt = taken_debt + 1")),
        ("returned_is_of_a_lot", lot("source_kind = 'returned'")),
        ("debt_has_a_reason", kind("consumed", "debt = 1")),
        ("lot_is_its_entries", lot("adjusted = 1")),
        ("held_is_its_holds", lot("held = 1")),
        ("held_is_its_holds", "update token_accounts set held = 1".to_owned()),
        ("held_is_its_holds", "update token_accounts set open_holds = 1".to_owned()),
        ("held_has_a_reason", kind("granted", "held = 1")),
        ("used_is_its_entries", kind("consumed", "used_after = used_after + 1")),
        ("used_is_its_entries", "update token_accounts set used = used + 1".to_owned()),
        ("entries_are_as_written", kind("consumed", "principal = 'key:1'")),
        ("entries_are_as_written", kind("consumed", "description = 'other'")),
        ("entries_are_as_written", "update token_accounts set last_digest = '\\x00'".to_owned()),
        ("debt_has_a_reason", kind("debt_repaid", "debt = 0")),
    ];
    for (name, sql) in plants {
        assert!(found(&app, &sql).await.contains(&name), "{name} does not find: {sql}");
    }
    assert_tokens_balance(&app.app.db, app.clock.now()).await;
}

/// The invariants that this statement breaks; it is undone.
async fn found(app: &TestApp, sql: &str) -> Vec<&'static str> {
    execute(
        app,
        "create table saved_grants as table grants;
         create table saved_entries as table ledger_entries;
         create table saved_accounts as table token_accounts",
    )
    .await;
    execute(app, sql).await;
    let findings =
        check::run(&app.app.db, shared::tokens::Depth::Full, app.clock.now()).await.unwrap();
    execute(
        app,
        "delete from grants; delete from ledger_entries; delete from token_accounts;
         insert into token_accounts table saved_accounts;
         insert into grants table saved_grants;
         insert into ledger_entries table saved_entries;
         drop table saved_grants, saved_entries, saved_accounts",
    )
    .await;
    findings.into_iter().filter(|one| one.violations > 0).map(|one| one.name).collect()
}

async fn execute(app: &TestApp, sql: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&app.app.db).await.unwrap();
}
