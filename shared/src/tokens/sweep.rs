//! Booking what is due on accounts that nobody touches.
//!
//! Nobody waits for it: whoever reads or locks an account reckons what is due by himself. It makes
//! the books and what is told of them (expired lots, ended holds) come on time.

use super::ledger::Account;
use super::store::{self, batch};
use crate::App;
use crate::error::Error;

/// Accounts a transaction: few enough that a customer's request waits only a moment for them.
const PAGE: i64 = 100;

/// Pages a run; what is left is the next sweep's.
const PAGES: usize = 50;

/// Books what is due, the longest overdue first. Costs what is due, not what exists.
pub async fn book_due(app: &App) -> Result<(), Error> {
    for _ in 0..PAGES {
        let now = app.clock.now();
        let mut tx = app.db.begin().await?;
        let due = store::due(&mut tx, now, PAGE).await?;
        if due.is_empty() {
            return Ok(());
        }
        let mut accounts = batch::lock(&mut tx, &due).await?;
        for account in accounts.values_mut() {
            account.book_due(now);
        }
        let mut changed: Vec<&Account> = accounts.values().collect();
        changed.sort_by_key(|account| account.customer_id);
        batch::save(&mut tx, &changed, now).await?;
        tx.commit().await?;
    }
    Ok(())
}
