//! Random deeds of many clients at once on a few accounts: the ledger answers and books exactly
//! what a plain model does, deed by deed in the order of its entries.

mod clients;
mod deeds;
mod judge;
mod plain;

use std::collections::BTreeMap;
use std::time::Instant;

use harness::{TestApp, told};
use shared::check;
use shared::clock::wall_now;
use shared::tokens::Depth;

use crate::chaos::dice::Dice;
use crate::purchase::futures;
use clients::Sequence;

/// Sequences of a run in CI; `TOLLGATE_MODEL_SEQUENCES=20000` makes it the full run.
const SEQUENCES: u64 = 200;
/// Few, so that clients meet on them.
const ACCOUNTS: usize = 3;
const CLIENTS: u64 = 8;
/// The clock moves between them.
const ROUNDS: u64 = 5;
/// Deeds of one client in a round.
const DEEDS: usize = 2;
/// Said of money, which the model does not have: its lots are of payments that nobody made.
const OF_MONEY: [&str; 3] = ["granted_is_paid", "taken_is_entitled", "frozen_is_disputed"];

#[expect(clippy::print_stdout, reason = "the seed and the figures are for whoever looks")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_ledger_does_what_a_plain_model_does() {
    let now = wall_now().timestamp_micros().unsigned_abs();
    let seed = told("TOLLGATE_MODEL_SEED").unwrap_or(now % 1_000_000_007);
    let first = told("TOLLGATE_MODEL_FIRST").unwrap_or(0);
    let count = told("TOLLGATE_MODEL_SEQUENCES").unwrap_or(SEQUENCES);
    println!("seed {seed}: repeat with TOLLGATE_MODEL_SEED={seed}");
    let app = TestApp::start().await;
    let began = Instant::now();
    let mut tally = Tally::new();
    for number in first..first + count {
        if let Err(wrong) = run(&app, seed, number, &mut tally).await {
            panic!(
                "seed {seed}, sequence {number} (TOLLGATE_MODEL_SEED={seed} \
                 TOLLGATE_MODEL_FIRST={number} TOLLGATE_MODEL_SEQUENCES=1): {wrong}"
            );
        }
    }
    let took = began.elapsed().as_millis().max(1);
    println!(
        "{count} sequences in {took} ms, {} a minute: {tally:?}",
        u128::from(count) * 60_000 / took
    );
}

/// How often what was booked or answered.
type Tally = BTreeMap<String, u64>;

/// One sequence; what is wrong, if anything is.
async fn run(app: &TestApp, seed: u64, number: u64, tally: &mut Tally) -> Result<(), String> {
    let mut dice = Dice::of(seed, number);
    let sequence = Sequence::start(app, &mut dice, ACCOUNTS).await;
    for _ in 0..ROUNDS {
        let turns = (0..CLIENTS).map(|_| {
            let own = Dice::of(dice.below(u64::MAX), 1);
            sequence.take_turn(own, DEEDS)
        });
        futures(turns.collect::<Vec<_>>()).await;
        sequence.move_clock(&mut dice);
    }
    futures((0..ACCOUNTS).map(|account| sequence.look_last(account))).await;
    let records = std::mem::take(&mut *sequence.records.lock().unwrap());
    for account in 0..ACCOUNTS {
        let kinds = judge::judge(&sequence, &records, account).await;
        for kind in kinds.map_err(|wrong| format!("account {account}: {wrong}"))? {
            *tally.entry(kind.to_owned()).or_default() += 1;
        }
    }
    for answer in records.iter().map(|record| &record.answer) {
        let of = [answer["code"].as_str(), (answer["replayed"] == true).then_some("replayed")];
        for word in of.into_iter().flatten() {
            *tally.entry(word.to_owned()).or_default() += 1;
        }
    }
    for finding in check::run(&app.app.db, Depth::Full, app.clock.now()).await.unwrap() {
        if finding.violations > 0 && !OF_MONEY.contains(&finding.name) {
            return Err(format!("{finding:?}"));
        }
    }
    forget(app).await;
    Ok(())
}

/// Makes room for the next sequence: `check` shall look at one alone.
async fn forget(app: &TestApp) {
    sqlx::raw_sql(
        "truncate ledger_entries, holds, grants, ledger_heads, ledger_anchors, token_accounts,
                  events",
    )
    .execute(&app.app.db)
    .await
    .unwrap();
}
