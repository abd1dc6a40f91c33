//! A subscription as its customer sees it.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{Status, store};
use crate::App;
use crate::error::Error;
use crate::ids::{CustomerId, SubscriptionId};
use crate::plans::Plan;
use crate::tokens::{self, Tokens};

/// A subscription at one instant: time has been taken into account, whether a sweep ran or not.
#[derive(Debug, Clone)]
pub struct View {
    /// The subscription.
    pub id: SubscriptionId,
    /// The application's id of the user.
    pub external_id: String,
    /// His address, where known.
    pub email: Option<String>,
    /// The plan of the period that runs now.
    pub plan: Plan,
    /// The plan of the next period, where it is another.
    pub queued_plan: Option<Plan>,
    /// Where it stands now.
    pub status: Status,
    /// Whether it is live.
    pub is_active: bool,
    /// Whether a spend of one token would be let through.
    pub is_spendable: bool,
    /// When it was opened.
    pub starts_at: DateTime<Utc>,
    /// End of the last period paid for; `None`: never ends.
    pub ends_at: Option<DateTime<Utc>>,
    /// All tokens that have not expired.
    pub tokens_remaining: Tokens,
    /// Whether it ends at its period's end.
    pub cancel_at_period_end: bool,
    /// When that was asked for.
    pub canceled_at: Option<DateTime<Utc>>,
    /// When the row was made.
    pub created_at: DateTime<Utc>,
    /// When the row was changed.
    pub updated_at: DateTime<Utc>,
}

/// Whether a subscription of that status and end is live at `now`.
pub fn is_live(status: Status, ends_at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
    let has_time = ends_at.is_none_or(|end| now < end);
    match status {
        Status::Trialing | Status::Active | Status::PastDue => has_time,
        Status::Incomplete | Status::Paused | Status::Canceled | Status::Expired => false,
    }
}

/// The customer's newest subscription; `NoSubscription` for one who never had any.
pub async fn current(app: &App, customer_id: CustomerId) -> Result<View, Error> {
    let balance = tokens::balance(app, customer_id).await?;
    let mut db = app.db.acquire().await?;
    let mut view = view_in(&mut db, customer_id, app.clock.now()).await?;
    view.tokens_remaining = balance.remaining;
    view.is_spendable = balance.is_spendable && (view.is_active || balance.has_lasting);
    if balance.has_lasting && !view.is_active && view.status == Status::Expired {
        // What is left of a pack outlives the plan (rules.md).
        view.status = Status::Active;
        view.is_active = true;
        view.ends_at = None;
    }
    Ok(view)
}

/// The customer's newest subscription without its tokens, within the caller's transaction.
pub async fn view_in(
    db: &mut PgConnection,
    customer_id: CustomerId,
    now: DateTime<Utc>,
) -> Result<View, Error> {
    let mut view = store::newest(db, customer_id, now).await?.ok_or(Error::NoSubscription)?;
    if view.status != Status::Canceled && !is_live(view.status, view.ends_at, now) {
        view.status = Status::Expired;
    }
    view.is_active = is_live(view.status, view.ends_at, now);
    Ok(view)
}

/// The paid period that runs at `now`, from when until when; a pack has none.
pub async fn running_period(
    db: &mut PgConnection,
    customer_id: CustomerId,
    now: DateTime<Utc>,
) -> Result<Option<(DateTime<Utc>, DateTime<Utc>)>, Error> {
    Ok(store::running_period(db, customer_id, now).await?)
}
