//! Finding accounts below their line whose doorbell was lost, or whose time has come.

use chrono::{DateTime, Duration, Utc};

use super::store;
use crate::App;
use crate::error::Error;
use crate::jobs::Job;

/// A line that was reached after this has its doorbell on the way.
const QUIET: Duration = Duration::seconds(2);

/// Customers per sweep; the rest waits for the next.
const PAGE: i64 = 500;

/// Customers to look at.
pub async fn due(app: &App, now: DateTime<Utc>) -> Result<Vec<Job>, Error> {
    let due = store::due(&app.db, now, now - QUIET, PAGE).await?;
    let job = |(customer_id, looks)| Job::TopUp { customer_id, since: 0, look: looks };
    Ok(due.into_iter().map(job).collect())
}
