//! Once a day: where all chains stand, under one digest.

use crate::App;
use crate::error::Error;

use super::chain;
use super::store::anchors;

/// Accounts a statement: a page of them stays far below the statement's time limit.
const PAGE: i64 = 5_000;

/// Anchors the heads of all accounts that moved since the last anchor, once for the day of the
/// billing clock however often it is called. Memory is constant; nobody is kept from spending.
pub async fn anchor(app: &App) -> Result<(), Error> {
    let now = app.clock.now();
    let day = now.date_naive();
    let mut tx = app.db.begin().await?;
    let (previous, is_done) = anchors::before(&mut tx, day).await?;
    if is_done {
        return Ok(());
    }
    let mut digest = chain::key().anchor(previous.as_deref().unwrap_or_default(), &day.to_string());
    let (mut after, mut count) = (None, 0);
    loop {
        let heads = anchors::add_heads(&mut tx, day, after, PAGE).await?;
        let Some(last) = heads.last() else { break };
        after = Some(last.customer_id);
        for head in &heads {
            digest.head(head.customer_id, head.seq, &head.digest);
            count += 1;
        }
    }
    // Two at once: the second finds the first's heads and fails on their key, and is done.
    anchors::insert(&mut tx, day, count, &digest.finish(), now).await?;
    tx.commit().await?;
    tracing::info!(%day, heads = count, "the ledger was anchored");
    Ok(())
}
