//! SQL of subscriptions and periods.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::book::Bought;
use super::periods::Paid;
use super::view::View;
use super::{Live, Status};
use crate::error::Error;
use crate::ids::{CustomerId, PaymentId, SubscriptionId};
use crate::plans::{self, Plan};
use crate::tokens::Tokens;

/// Locks the customer's live subscription until the transaction ends.
pub(super) async fn lock_live(
    db: &mut PgConnection,
    customer_id: CustomerId,
) -> sqlx::Result<Option<Live>> {
    let row = sqlx::query!(
        r#"
        select id as "id: SubscriptionId", ends_at
        from subscriptions
        where customer_id = $1
          and status in ('trialing', 'active', 'past_due', 'paused')
        for update
        "#,
        customer_id as _
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Live { id: row.id, ends_at: row.ends_at }))
}

/// Inserts an active subscription from `span.0` to `span.1`.
pub(super) async fn insert(
    db: &mut PgConnection,
    customer_id: CustomerId,
    id: SubscriptionId,
    plan: &Plan,
    span: (DateTime<Utc>, Option<DateTime<Utc>>),
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        insert into subscriptions
            (customer_id, id, plan_id, plan_version, status, starts_at, ends_at, created_at,
             updated_at)
        values ($1, $2, $3, $4, 'active', $5, $6, $5, $5)
        "#,
        customer_id as _,
        id as _,
        plan.id,
        plan.version,
        span.0,
        span.1,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Inserts a paid period; refuses a second one for the same payment.
pub(super) async fn insert_period(
    db: &mut PgConnection,
    customer_id: CustomerId,
    id: SubscriptionId,
    bought: &Bought,
    span: (DateTime<Utc>, DateTime<Utc>),
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        insert into periods
            (customer_id, subscription_id, starts_at, ends_at, payment_id, plan_id, plan_version,
             created_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8)
        "#,
        customer_id as _,
        id as _,
        span.0,
        span.1,
        bought.payment_id as _,
        bought.plan.id,
        bought.plan.version,
        now,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Moves the end; a pending cancellation and an unpaid renewal are cleared, for the customer paid.
pub(super) async fn extend(
    db: &mut PgConnection,
    customer_id: CustomerId,
    id: SubscriptionId,
    ends_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let updated = sqlx::query!(
        r#"
        update subscriptions
        set ends_at = $3, cancel_at_period_end = false, canceled_at = null, updated_at = $4,
            status = case when status = 'past_due' then 'active' else status end
        where customer_id = $1
          and id = $2
        "#,
        customer_id as _,
        id as _,
        ends_at,
        now,
    )
    .execute(db)
    .await?;
    assert_eq!(updated.rows_affected(), 1, "a locked subscription is there");
    Ok(())
}

/// Says that the renewal of an active subscription was not paid.
pub(super) async fn set_past_due(
    db: &mut PgConnection,
    customer_id: CustomerId,
    id: SubscriptionId,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        update subscriptions
        set status = 'past_due', updated_at = $3
        where customer_id = $1
          and id = $2
          and status = 'active'
        "#,
        customer_id as _,
        id as _,
        now,
    )
    .execute(db)
    .await
    .map(drop)
}

/// A pack's subscription becomes that of the plan bought over it.
pub(super) async fn set_plan(
    db: &mut PgConnection,
    customer_id: CustomerId,
    id: SubscriptionId,
    plan: &Plan,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let updated = sqlx::query!(
        r#"
        update subscriptions
        set plan_id = $3, plan_version = $4, updated_at = $5
        where customer_id = $1
          and id = $2
        "#,
        customer_id as _,
        id as _,
        plan.id,
        plan.version,
        now,
    )
    .execute(db)
    .await?;
    assert_eq!(updated.rows_affected(), 1, "a locked subscription is there");
    Ok(())
}

/// Closes a subscription whose time is over.
pub(super) async fn expire(
    db: &mut PgConnection,
    customer_id: CustomerId,
    id: SubscriptionId,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let updated = sqlx::query!(
        r#"
        update subscriptions
        set status = 'expired', updated_at = $3
        where customer_id = $1
          and id = $2
        "#,
        customer_id as _,
        id as _,
        now,
    )
    .execute(db)
    .await?;
    assert_eq!(updated.rows_affected(), 1, "a locked subscription is there");
    Ok(())
}

/// The newest subscription of a customer, with the plan of the period that runs at `now`.
pub(super) async fn newest(
    db: &mut PgConnection,
    customer_id: CustomerId,
    now: DateTime<Utc>,
) -> Result<Option<View>, Error> {
    let row = sqlx::query!(
        r#"
        select s.id as "id: SubscriptionId", s.status as "status: Status", s.starts_at, s.ends_at,
               s.cancel_at_period_end, s.canceled_at, s.created_at, s.updated_at,
               c.external_id, c.email,
               coalesce(p.plan_id, s.plan_id) as "plan_id!",
               coalesce(p.plan_version, s.plan_version) as "plan_version!",
               n.plan_id as "next_plan_id?", n.plan_version as "next_plan_version?"
        from subscriptions s
        join customers c on c.customer_id = s.customer_id
        left join lateral (
            select plan_id, plan_version, ends_at
            from periods
            where customer_id = s.customer_id
              and subscription_id = s.id
              and voided_at is null
              and starts_at <= $2
            order by starts_at desc
            limit 1
        ) p on true
        left join lateral (
            select plan_id, plan_version
            from periods
            where customer_id = s.customer_id
              and subscription_id = s.id
              and voided_at is null
              and starts_at > $2
              and (plan_id, plan_version) is distinct from (p.plan_id, p.plan_version)
            order by starts_at
            limit 1
        ) n on true
        where s.customer_id = $1
        order by s.created_at desc, s.id desc
        limit 1
        "#,
        customer_id as _,
        now,
    )
    .fetch_optional(&mut *db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let plan = plans::version(db, row.plan_id, row.plan_version).await?;
    let queued_plan = match (row.next_plan_id, row.next_plan_version) {
        (Some(id), Some(version)) => Some(plans::version(db, id, version).await?),
        (Some(_) | None, _) => None,
    };
    Ok(Some(View {
        id: row.id,
        external_id: row.external_id,
        email: row.email,
        plan,
        queued_plan,
        status: row.status,
        is_active: false,
        is_spendable: false,
        starts_at: row.starts_at,
        ends_at: row.ends_at,
        tokens_remaining: Tokens::ZERO,
        cancel_at_period_end: row.cancel_at_period_end,
        canceled_at: row.canceled_at,
        created_at: row.created_at,
        updated_at: row.updated_at,
    }))
}

/// A payment's period, voided or not.
pub(super) struct Period {
    pub(super) subscription_id: SubscriptionId,
    pub(super) paid: Paid,
    pub(super) voided_at: Option<DateTime<Utc>>,
}

/// The period that a payment bought; none for a pack.
pub(super) async fn period_of(
    db: &mut PgConnection,
    customer_id: CustomerId,
    payment_id: PaymentId,
) -> sqlx::Result<Option<Period>> {
    let row = sqlx::query!(
        r#"
        select subscription_id as "subscription_id: SubscriptionId", starts_at, ends_at, voided_at
        from periods
        where customer_id = $1
          and payment_id = $2
        "#,
        customer_id as _,
        payment_id as _,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Period {
        subscription_id: row.subscription_id,
        paid: Paid { payment_id, starts_at: row.starts_at, ends_at: row.ends_at },
        voided_at: row.voided_at,
    }))
}

/// All periods of a subscription that are not voided, in their order.
pub(super) async fn periods(
    db: &mut PgConnection,
    customer_id: CustomerId,
    id: SubscriptionId,
) -> sqlx::Result<Vec<Paid>> {
    sqlx::query_as!(
        Paid,
        r#"
        select payment_id as "payment_id: PaymentId", starts_at, ends_at
        from periods
        where customer_id = $1
          and subscription_id = $2
          and voided_at is null
        order by starts_at
        "#,
        customer_id as _,
        id as _,
    )
    .fetch_all(db)
    .await
}

/// Marks a period as voided.
pub(super) async fn void_period(
    db: &mut PgConnection,
    customer_id: CustomerId,
    payment_id: PaymentId,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let updated = sqlx::query!(
        r#"
        update periods
        set voided_at = $3
        where customer_id = $1
          and payment_id = $2
        "#,
        customer_id as _,
        payment_id as _,
        now,
    )
    .execute(db)
    .await?;
    assert_eq!(updated.rows_affected(), 1, "a period was just found");
    Ok(())
}

/// Puts a voided period back to that span.
pub(super) async fn restore_period(
    db: &mut PgConnection,
    customer_id: CustomerId,
    period: &Paid,
) -> Result<(), Error> {
    let updated = sqlx::query!(
        r#"
        update periods
        set voided_at = null, starts_at = $3, ends_at = $4
        where customer_id = $1
          and payment_id = $2
        "#,
        customer_id as _,
        period.payment_id as _,
        period.starts_at,
        period.ends_at,
    )
    .execute(db)
    .await?;
    assert_eq!(updated.rows_affected(), 1, "a period was just found");
    Ok(())
}

/// Moves a period to that span.
pub(super) async fn set_period(
    db: &mut PgConnection,
    customer_id: CustomerId,
    period: &Paid,
) -> Result<(), Error> {
    let updated = sqlx::query!(
        r#"
        update periods
        set starts_at = $3, ends_at = $4
        where customer_id = $1
          and payment_id = $2
        "#,
        customer_id as _,
        period.payment_id as _,
        period.starts_at,
        period.ends_at,
    )
    .execute(db)
    .await?;
    assert_eq!(updated.rows_affected(), 1, "a period was just found");
    Ok(())
}

/// Locks a subscription until the transaction ends.
pub(super) async fn lock(
    db: &mut PgConnection,
    customer_id: CustomerId,
    id: SubscriptionId,
) -> sqlx::Result<()> {
    sqlx::query_scalar!(
        "select 1 as one from subscriptions where customer_id = $1 and id = $2 for update",
        customer_id as _,
        id as _,
    )
    .fetch_one(db)
    .await
    .map(drop)
}

/// Ends a subscription: what it had paid for was taken back.
pub(super) async fn end(
    db: &mut PgConnection,
    customer_id: CustomerId,
    id: SubscriptionId,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let updated = sqlx::query!(
        r#"
        update subscriptions
        set status = 'expired', ends_at = least(coalesce(ends_at, $3), $3), updated_at = $3
        where customer_id = $1
          and id = $2
        "#,
        customer_id as _,
        id as _,
        now,
    )
    .execute(db)
    .await?;
    assert_eq!(updated.rows_affected(), 1, "a locked subscription is there");
    Ok(())
}

/// Lets a subscription live until `ends_at`; `None`: without end.
pub(super) async fn reopen(
    db: &mut PgConnection,
    customer_id: CustomerId,
    id: SubscriptionId,
    ends_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let updated = sqlx::query!(
        r#"
        update subscriptions
        set status = case when status = 'expired' then 'active' else status end,
            ends_at = $3, updated_at = $4
        where customer_id = $1
          and id = $2
        "#,
        customer_id as _,
        id as _,
        ends_at,
        now,
    )
    .execute(db)
    .await?;
    assert_eq!(updated.rows_affected(), 1, "a locked subscription is there");
    Ok(())
}

/// The subscription without periods that a pack's payment opened and that has ended.
pub(super) async fn ended_pack(
    db: &mut PgConnection,
    customer_id: CustomerId,
    payment_id: PaymentId,
) -> sqlx::Result<Option<SubscriptionId>> {
    sqlx::query_scalar!(
        r#"
        select s.id as "id: SubscriptionId"
        from subscriptions s
        join payments p on p.customer_id = s.customer_id and p.subscription_id = s.id
        where s.customer_id = $1
          and p.id = $2
          and s.status = 'expired'
          and not exists (select from periods r
                          where r.customer_id = s.customer_id and r.subscription_id = s.id)
        for update of s
        "#,
        customer_id as _,
        payment_id as _,
    )
    .fetch_optional(db)
    .await
}

/// The customer's newest subscription.
pub(super) async fn newest_id(
    db: &mut PgConnection,
    customer_id: CustomerId,
) -> sqlx::Result<Option<SubscriptionId>> {
    sqlx::query_scalar!(
        r#"
        select id as "id: SubscriptionId"
        from subscriptions
        where customer_id = $1
        order by created_at desc, id desc
        limit 1
        "#,
        customer_id as _,
    )
    .fetch_optional(db)
    .await
}

/// Whether nothing is left of what a subscription's packs gave beside this payment's: `of` names
/// the subscription and the payment.
pub(super) async fn is_all_of(
    db: &mut PgConnection,
    customer_id: CustomerId,
    of: (SubscriptionId, PaymentId),
) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"
        select exists (select from payments
                       where customer_id = $1 and id = $3 and subscription_id = $2)
           and not exists (
               select from payments p
               join grants g on g.customer_id = p.customer_id and g.source_id = p.id
                and g.source_kind = 'payment'
               where p.customer_id = $1
                 and p.subscription_id = $2
                 and p.id <> $3
                 and g.taken < g.tokens) as "is!"
        "#,
        customer_id as _,
        of.0 as _,
        of.1 as _,
    )
    .fetch_one(db)
    .await
}

/// The paid period that runs at `now`.
pub(super) async fn running_period(
    db: &mut PgConnection,
    customer_id: CustomerId,
    now: DateTime<Utc>,
) -> sqlx::Result<Option<(DateTime<Utc>, DateTime<Utc>)>> {
    let row = sqlx::query!(
        r#"
        select starts_at, ends_at
        from periods
        where customer_id = $1
          and voided_at is null
          and starts_at <= $2
          and ends_at > $2
        order by starts_at desc
        limit 1
        "#,
        customer_id as _,
        now,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| (row.starts_at, row.ends_at)))
}
