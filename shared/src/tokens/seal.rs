//! Putting entries of before the chain under it, once.

use sqlx::PgPool;

use super::chain;
use super::store::seal;
use crate::error::Error;

/// Accounts a transaction.
const PAGE: i64 = 500;

/// Chains the entries of accounts that were booked before there was a chain, once in the life of
/// a database: afterwards an entry without its digest is found by `check`, never mended.
///
/// May be repeated after a crash: accounts that are done are not looked at again.
pub async fn seal_old(db: &PgPool, now: chrono::DateTime<chrono::Utc>) -> Result<u64, Error> {
    if seal::is_done(db).await? {
        return Ok(0);
    }
    let mut sealed = 0;
    loop {
        let mut tx = db.begin().await?;
        let accounts = seal::unsealed(&mut tx, PAGE).await?;
        if accounts.is_empty() {
            break;
        }
        for customer_id in accounts {
            let mut head = Vec::new();
            for stored in seal::entries_of(&mut tx, customer_id).await? {
                let entry = &stored.entry;
                let content = chain::content_digest(&entry.description, &entry.metadata);
                head = chain::key().digest(&head, customer_id, entry, &content).to_vec();
                seal::set(&mut tx, (customer_id, entry.seq), &content, &head).await?;
                sealed += 1;
            }
            seal::set_head(&mut tx, customer_id, &head).await?;
        }
        tx.commit().await?;
    }
    seal::done(db, now).await?;
    Ok(sealed)
}
