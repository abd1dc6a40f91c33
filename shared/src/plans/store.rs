//! SQL of plans.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

use super::{NewPlan, Plan};
use crate::money::{Currency, Money};
use crate::tokens::{Rollover, RolloverRule, Tokens};

struct Row {
    id: i32,
    version: i32,
    name: String,
    description: String,
    is_active: bool,
    price_minor: i64,
    currency: String,
    tokens_included: i64,
    duration_days: Option<i32>,
    is_recurring: bool,
    trial_days: i32,
    trial_tokens: i64,
    rollover: RolloverRule,
    rollover_cap: Option<i64>,
    overdraft_tokens: i64,
    features: serde_json::Value,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Row> for Plan {
    fn from(row: Row) -> Self {
        let currency = Currency::parse(&row.currency).expect("the schema checks the currency");
        Self {
            id: row.id,
            version: row.version,
            name: row.name,
            description: row.description,
            is_active: row.is_active,
            price: Money::new(row.price_minor, currency),
            tokens_included: Tokens::from_db(row.tokens_included),
            duration_days: row.duration_days,
            is_recurring: row.is_recurring,
            trial_days: row.trial_days,
            trial_tokens: Tokens::from_db(row.trial_tokens),
            rollover: Rollover::from_db(row.rollover, row.rollover_cap),
            overdraft_tokens: Tokens::from_db(row.overdraft_tokens),
            features: row.features,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// Plans that are sold, at their current version.
pub(super) async fn active(db: &PgPool) -> sqlx::Result<Vec<Plan>> {
    let rows = sqlx::query_as!(
        Row,
        r#"
        select p.id, v.version, p.name, p.description, p.is_active, v.price_minor, v.currency,
               v.tokens_included, v.duration_days, v.is_recurring, v.trial_days, v.trial_tokens,
               v.rollover as "rollover: RolloverRule", v.rollover_cap, v.overdraft_tokens,
               v.features, p.created_at, p.updated_at
        from plans p
        join plan_versions v on v.plan_id = p.id and v.version = p.version
        where p.is_active
        order by p.id
        "#
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(Plan::from).collect())
}

/// A plan at its current version.
pub(super) async fn current(db: &PgPool, id: i32) -> sqlx::Result<Option<Plan>> {
    let row = sqlx::query_as!(
        Row,
        r#"
        select p.id, v.version, p.name, p.description, p.is_active, v.price_minor, v.currency,
               v.tokens_included, v.duration_days, v.is_recurring, v.trial_days, v.trial_tokens,
               v.rollover as "rollover: RolloverRule", v.rollover_cap, v.overdraft_tokens,
               v.features, p.created_at, p.updated_at
        from plans p
        join plan_versions v on v.plan_id = p.id and v.version = p.version
        where p.id = $1
        "#,
        id
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(Plan::from))
}

/// A plan at the version that was bought.
pub(super) async fn version(
    db: &mut PgConnection,
    id: i32,
    version: i32,
) -> sqlx::Result<Option<Plan>> {
    let row = sqlx::query_as!(
        Row,
        r#"
        select p.id, v.version, p.name, p.description, p.is_active, v.price_minor, v.currency,
               v.tokens_included, v.duration_days, v.is_recurring, v.trial_days, v.trial_tokens,
               v.rollover as "rollover: RolloverRule", v.rollover_cap, v.overdraft_tokens,
               v.features, p.created_at, p.updated_at
        from plans p
        join plan_versions v on v.plan_id = p.id
        where p.id = $1
          and v.version = $2
        "#,
        id,
        version
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(Plan::from))
}

/// Inserts a plan and its first version, unless the name is taken; returns the plan's id.
pub(super) async fn insert(
    db: &mut PgConnection,
    plan: &NewPlan<'_>,
    now: DateTime<Utc>,
) -> sqlx::Result<i32> {
    // Plans are few and rarely made: one maker at a time keeps the numbers dense.
    sqlx::query!("lock table plans in share row exclusive mode").execute(&mut *db).await?;
    let same = sqlx::query_scalar!("select id from plans where name = $1", plan.name);
    if let Some(id) = same.fetch_optional(&mut *db).await? {
        return Ok(id);
    }
    let id = sqlx::query_scalar!(
        r#"
        insert into plans (id, name, description, version, created_at, updated_at)
        select coalesce(max(id), 0) + 1, $1, $2, 1, $3, $3
        from plans
        returning id
        "#,
        plan.name,
        plan.description,
        now,
    )
    .fetch_one(&mut *db)
    .await?;
    sqlx::query!(
        r#"
        insert into plan_versions
            (plan_id, version, price_minor, currency, tokens_included, duration_days,
             is_recurring, created_at)
        values ($1, 1, $2, $3, $4, $5, $6, $7)
        "#,
        id,
        plan.price_minor,
        plan.currency.as_str(),
        plan.tokens_included.to_db(),
        plan.duration_days,
        plan.is_recurring,
        now,
    )
    .execute(db)
    .await?;
    Ok(id)
}
