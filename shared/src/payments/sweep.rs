//! Finding approved orders whose capture was never rung for.

use chrono::{DateTime, Duration, Utc};

use super::store;
use crate::App;
use crate::error::Error;
use crate::jobs::Job;

/// An approval younger than this is being captured already.
const QUIET: Duration = Duration::seconds(5);

/// Orders per sweep; the rest waits for the next.
const PAGE: i64 = 500;

/// Captures to ring for.
pub async fn to_capture(app: &App, now: DateTime<Utc>) -> Result<Vec<Job>, Error> {
    let due = store::approved_before(&app.db, now - QUIET, PAGE).await?;
    Ok(due.into_iter().map(|(customer_id, id)| Job::capture(customer_id, id, now)).collect())
}
