//! Finding work on payments whose doorbell was lost, or whose time has come.

use chrono::{DateTime, Duration, Utc};

use super::store;
use crate::App;
use crate::error::Error;
use crate::jobs::Job;

/// An approval younger than this is being captured already.
const QUIET: Duration = Duration::seconds(5);

/// Rows per sweep and kind; the rest waits for the next.
const PAGE: i64 = 500;

/// Orders to capture, refunds to send, payments to ask their gateway about.
pub async fn due(app: &App, now: DateTime<Utc>) -> Result<Vec<Job>, Error> {
    let captures = store::approved_before(&app.db, now - QUIET, PAGE).await?;
    let refunds = store::refunds::due(&app.db, now, PAGE).await?;
    let checks = store::to_check(&app.db, now, PAGE).await?;
    let captures = captures.into_iter().map(|(customer_id, id)| Job::capture(customer_id, id, now));
    let refunds = refunds.into_iter().map(|(customer_id, refund_id, attempt)| Job::SendRefund {
        customer_id,
        refund_id,
        attempt,
    });
    let checks = checks.into_iter().map(|(customer_id, payment_id, check)| Job::CheckPayment {
        customer_id,
        payment_id,
        check,
    });
    Ok(captures.chain(refunds).chain(checks).collect())
}
