//! SQL of auto top-up's settings and orders.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

use super::rules::{Bought, Limits, OffReason};
use super::{Order, Setting};
use crate::error::Error;
use crate::ids::{CustomerId, PaymentId, PaymentMethodId};
use crate::money::{Currency, Money};
use crate::tokens::Tokens;

/// The customer's setting. For a decision the caller holds the customer's lock.
pub(super) async fn find(
    db: &mut PgConnection,
    customer_id: CustomerId,
) -> sqlx::Result<Option<Setting>> {
    let row = sqlx::query!(
        r#"
        select off_reason as "off_reason: OffReason", off_at, threshold, plan_id, price_minor,
               currency, max_per_period, max_minor_per_period, failures, looks, created_at,
               updated_at
        from top_ups
        where customer_id = $1
        "#,
        customer_id as _,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Setting {
        off: row.off_reason.zip(row.off_at),
        threshold: Tokens::from_db(row.threshold),
        plan_id: row.plan_id,
        price: money(row.price_minor, &row.currency),
        limits: Limits { count: number(row.max_per_period), minor: row.max_minor_per_period },
        failures: number(row.failures),
        looks: row.looks,
        created_at: row.created_at,
        updated_at: row.updated_at,
    }))
}

fn number(count: i32) -> u32 {
    u32::try_from(count).expect("the schema keeps numbers from being negative")
}

fn small(count: u32) -> i32 {
    i32::try_from(count).expect("a small number")
}

fn money(minor: i64, currency: &str) -> Money {
    Money::new(minor, Currency::parse(currency).expect("the schema checks the currency"))
}

/// Saves what the customer wants; it is on, and no failure counts any more.
pub(super) async fn save(
    db: &mut PgConnection,
    customer_id: CustomerId,
    setting: &Setting,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        insert into top_ups
            (customer_id, threshold, plan_id, price_minor, currency, max_per_period,
             max_minor_per_period, created_at, updated_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $8)
        on conflict (customer_id) do update
        set threshold = excluded.threshold, plan_id = excluded.plan_id,
            price_minor = excluded.price_minor, currency = excluded.currency,
            max_per_period = excluded.max_per_period,
            max_minor_per_period = excluded.max_minor_per_period,
            off_reason = null, off_at = null, failures = 0, updated_at = excluded.updated_at
        "#,
        customer_id as _,
        setting.threshold.to_db(),
        setting.plan_id,
        setting.price.minor,
        setting.price.currency.as_str(),
        small(setting.limits.count),
        setting.limits.minor,
        now,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Switches it off, where it is on.
pub(super) async fn switch_off(
    db: &mut PgConnection,
    customer_id: CustomerId,
    why: OffReason,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        update top_ups
        set off_reason = $2, off_at = $3, updated_at = $3
        where customer_id = $1
          and off_reason is null
        "#,
        customer_id as _,
        why as _,
        now,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Writes which gap was looked at, and when to look again.
pub(super) async fn set_look(
    db: &mut PgConnection,
    customer_id: CustomerId,
    looked_for: Option<DateTime<Utc>>,
    look_at: Option<DateTime<Utc>>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        update top_ups
        set looked_for = $2, look_at = $3, looks = looks + 1
        where customer_id = $1
        "#,
        customer_id as _,
        looked_for,
        look_at,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Writes how many payments failed in a row.
pub(super) async fn set_failures(
    db: &mut PgConnection,
    customer_id: CustomerId,
    failures: u32,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update top_ups set failures = $2 where customer_id = $1",
        customer_id as _,
        small(failures),
    )
    .execute(db)
    .await
    .map(drop)
}

/// The newest order; if one is pending, it is this.
pub(super) async fn last_order(
    db: &mut PgConnection,
    customer_id: CustomerId,
) -> sqlx::Result<Option<Order>> {
    let row = sqlx::query!(
        r#"
        select asked_at, payment_id as "payment_id: PaymentId",
               method_id as "method_id: PaymentMethodId", plan_id, plan_version, amount_minor,
               currency, is_paid, created_at, concluded_at
        from top_up_orders
        where customer_id = $1
        order by asked_at desc
        limit 1
        "#,
        customer_id as _,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Order {
        asked_at: row.asked_at,
        payment_id: row.payment_id,
        method_id: row.method_id,
        plan_id: row.plan_id,
        plan_version: row.plan_version,
        amount: money(row.amount_minor, &row.currency),
        is_paid: row.is_paid.unwrap_or(false),
        created_at: row.created_at,
        concluded_at: row.concluded_at,
    }))
}

/// Inserts a pending order; false where its gap was answered, or another one is pending.
pub(super) async fn insert_order(
    db: &mut PgConnection,
    customer_id: CustomerId,
    order: &Order,
) -> sqlx::Result<bool> {
    let inserted = sqlx::query!(
        r#"
        insert into top_up_orders
            (customer_id, asked_at, payment_id, method_id, plan_id, plan_version, amount_minor,
             currency, created_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        on conflict do nothing
        "#,
        customer_id as _,
        order.asked_at,
        order.payment_id as _,
        order.method_id as _,
        order.plan_id,
        order.plan_version,
        order.amount.minor,
        order.amount.currency.as_str(),
        order.created_at,
    )
    .execute(db)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Writes how an order's payment ended.
pub(super) async fn conclude(
    db: &mut PgConnection,
    customer_id: CustomerId,
    order: &Order,
    failure: Option<&str>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let updated = sqlx::query!(
        r#"
        update top_up_orders
        set is_paid = $3, failure_code = $4, concluded_at = coalesce(concluded_at, $5)
        where customer_id = $1
          and asked_at = $2
        "#,
        customer_id as _,
        order.asked_at,
        failure.is_none(),
        failure,
        now,
    )
    .execute(db)
    .await?;
    assert_eq!(updated.rows_affected(), 1, "an order that was read is there");
    Ok(())
}

/// What was bought after `from`, pending orders included, and when the first of it was.
pub(super) async fn bought(
    db: &mut PgConnection,
    customer_id: CustomerId,
    from: DateTime<Utc>,
    currency: Currency,
) -> sqlx::Result<(Bought, Option<DateTime<Utc>>)> {
    let row = sqlx::query!(
        r#"
        select count(*) as "count!",
               coalesce(sum(amount_minor) filter (where currency = $3), 0)::bigint as "minor!",
               min(created_at) as first_at
        from top_up_orders
        where customer_id = $1
          and created_at > $2
          and is_paid is not false
        "#,
        customer_id as _,
        from,
        currency.as_str(),
    )
    .fetch_one(db)
    .await?;
    let count = u32::try_from(row.count).unwrap_or(u32::MAX);
    Ok((Bought { count, minor: row.minor }, row.first_at))
}

/// Customers to look at: their gap has not been looked at since `quiet`, or the time to look again
/// has come; and how often they were looked at.
pub(super) async fn due(
    db: &PgPool,
    now: DateTime<Utc>,
    quiet: DateTime<Utc>,
    limit: i64,
) -> sqlx::Result<Vec<(CustomerId, i32)>> {
    let rows = sqlx::query!(
        r#"
        (select t.customer_id as "customer_id!: CustomerId", t.looks as "looks!"
         from token_accounts a
         join top_ups t on t.customer_id = a.customer_id
         where a.top_up_since is not null
           and ((t.looked_for is distinct from a.top_up_since and a.top_up_since <= $2)
                or t.look_at <= $1)
         order by a.top_up_since
         limit $3)
        union
        (select t.customer_id, t.looks
         from top_up_orders o
         join top_ups t on t.customer_id = o.customer_id
         where o.concluded_at is null
           and (t.look_at is null or t.look_at <= $1)
         limit $3)
        "#,
        now,
        quiet,
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.customer_id, row.looks)).collect())
}
