//! What is sold.

mod store;

use chrono::{DateTime, Duration, Utc};

use crate::App;
use crate::error::Error;
use crate::money::{Currency, Money};
use crate::tokens::{Rollover, Tokens};

/// A plan and the terms of one version of it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The plan's number.
    pub id: i32,
    /// The version of these terms.
    pub version: i32,
    /// What customers read.
    pub name: String,
    /// What customers read below the name.
    pub description: String,
    /// Whether it is sold now.
    pub is_active: bool,
    /// Price of one purchase, in minor units.
    pub price: Money,
    /// Tokens that one purchase grants.
    pub tokens_included: Tokens,
    /// Days of 24 h that one purchase lasts; `None`: a pack, which never ends.
    pub duration_days: Option<i32>,
    /// Whether it renews by itself.
    pub is_recurring: bool,
    /// Days to try it without paying.
    pub trial_days: i32,
    /// Tokens of the trial.
    pub trial_tokens: Tokens,
    /// What becomes of a period's rest where the next one follows.
    pub rollover: Rollover,
    /// Most debt that a running hold may run into.
    pub overdraft_tokens: Tokens,
    /// What a front end shows as bullet points.
    pub features: serde_json::Value,
    /// When the plan was made.
    pub created_at: DateTime<Utc>,
    /// When its newest version was made.
    pub updated_at: DateTime<Utc>,
}

impl Plan {
    /// How long one purchase lasts; `None`: without end.
    pub fn duration(&self) -> Option<Duration> {
        self.duration_days.map(|days| Duration::hours(i64::from(days) * 24))
    }
}

/// Which plans to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// All that are sold.
    All,
    /// Packs: tokens without a duration.
    Token,
    /// Plans with a duration.
    Full,
}

/// Lists the plans that are sold, cheapest first within a kind.
pub async fn list(app: &App, kind: Kind) -> Result<Vec<Plan>, Error> {
    let plans = store::active(&app.db).await?;
    Ok(plans
        .into_iter()
        .filter(|plan| match kind {
            Kind::All => true,
            Kind::Token => plan.duration_days.is_none(),
            Kind::Full => plan.duration_days.is_some(),
        })
        .collect())
}

/// The plan as it is sold now; `PlanUnavailable` if it is not.
pub async fn sold(app: &App, id: i32) -> Result<Plan, Error> {
    store::current(&app.db, id).await?.filter(|plan| plan.is_active).ok_or(Error::PlanUnavailable)
}

/// The terms that were bought.
pub async fn version(db: &mut sqlx::PgConnection, id: i32, version: i32) -> Result<Plan, Error> {
    store::version(db, id, version).await?.ok_or(Error::NotFound("plan"))
}

/// What a new plan says.
#[derive(Debug, Clone)]
pub struct NewPlan<'a> {
    /// What customers read; a plan of this name is not made twice.
    pub name: &'a str,
    /// What customers read below the name.
    pub description: &'a str,
    /// Price in minor units.
    pub price_minor: i64,
    /// Currency of the price.
    pub currency: Currency,
    /// Tokens that one purchase grants.
    pub tokens_included: Tokens,
    /// Days that one purchase lasts; `None`: a pack.
    pub duration_days: Option<i32>,
    /// Whether it renews by itself.
    pub is_recurring: bool,
}

/// Makes a plan unless one of that name exists; returns its id.
pub async fn create(app: &App, plan: &NewPlan<'_>) -> Result<i32, Error> {
    let mut tx = app.db.begin().await?;
    let id = store::insert(&mut tx, plan, app.clock.now()).await?;
    tx.commit().await?;
    Ok(id)
}
