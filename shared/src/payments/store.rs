//! SQL of payments and what gateways told of them.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

use super::list::PaymentView;
use super::purchase::Purchase;
use super::{Payment, PaymentMethod, PaymentStatus};
use crate::error::Error;
use crate::gateways::{Captured, GatewayName, ObjectFacts};
use crate::ids::{CustomerId, PaymentId, SubscriptionId};
use crate::money::{Currency, Money};

struct Row {
    customer_id: CustomerId,
    id: PaymentId,
    plan_id: i32,
    plan_version: i32,
    quantity: i32,
    amount_minor: i64,
    currency: String,
    method: PaymentMethod,
    status: PaymentStatus,
    gateway_reference: Option<String>,
    created_at: DateTime<Utc>,
}

impl From<Row> for Payment {
    fn from(row: Row) -> Self {
        Self {
            customer_id: row.customer_id,
            id: row.id,
            plan_id: row.plan_id,
            plan_version: row.plan_version,
            quantity: u32::try_from(row.quantity).expect("the schema checks the quantity"),
            amount: money(row.amount_minor, &row.currency),
            method: row.method,
            status: row.status,
            gateway_reference: row.gateway_reference,
            created_at: row.created_at,
        }
    }
}

fn money(minor: i64, currency: &str) -> Money {
    Money::new(minor, Currency::parse(currency).expect("the schema checks the currency"))
}

/// Inserts a pending payment.
pub(super) async fn insert(
    db: &mut PgConnection,
    payment: &Payment,
    wish: &Purchase,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        insert into payments
            (customer_id, id, plan_id, plan_version, quantity, amount_minor, currency, method,
             gateway, status, success_url, cancel_url, created_at, updated_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'pending', $10, $11, $12, $12)
        "#,
        payment.customer_id as _,
        payment.id as _,
        payment.plan_id,
        payment.plan_version,
        i32::try_from(payment.quantity).expect("a quantity of 1 to 100"),
        payment.amount.minor,
        payment.amount.currency.as_str(),
        payment.method as _,
        payment.method.gateway() as _,
        wish.success_url,
        wish.cancel_url,
        payment.created_at,
    )
    .execute(db)
    .await
    .map(drop)
}

/// The pending payment of the same kind, made after `since`.
pub(super) async fn find_same(
    db: &mut PgConnection,
    like: &Payment,
    since: DateTime<Utc>,
) -> sqlx::Result<Option<Payment>> {
    let row = sqlx::query_as!(
        Row,
        r#"
        select customer_id as "customer_id: CustomerId", id as "id: PaymentId", plan_id,
               plan_version, quantity, amount_minor, currency, method as "method: PaymentMethod",
               status as "status: PaymentStatus", gateway_reference, created_at
        from payments
        where customer_id = $1
          and status = 'pending'
          and plan_id = $2
          and plan_version = $3
          and quantity = $4
          and amount_minor = $5
          and currency = $6
          and gateway = $7
          and created_at > $8
        order by created_at desc
        limit 1
        "#,
        like.customer_id as _,
        like.plan_id,
        like.plan_version,
        i32::try_from(like.quantity).expect("a quantity of 1 to 100"),
        like.amount.minor,
        like.amount.currency.as_str(),
        like.method.gateway() as _,
        since,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(Payment::from))
}

/// Whether the customer was ever given this plan for nothing.
pub(super) async fn was_given(db: &mut PgConnection, payment: &Payment) -> sqlx::Result<bool> {
    let found = sqlx::query_scalar!(
        r#"
        select exists (
            select from payments
            where customer_id = $1
              and plan_id = $2
              and amount_minor = 0
              and status = 'completed'
        ) as "exists!"
        "#,
        payment.customer_id as _,
        payment.plan_id,
    );
    found.fetch_one(db).await
}

/// A customer's payment, as committed.
pub(super) async fn find(
    db: &mut PgConnection,
    customer_id: CustomerId,
    id: PaymentId,
) -> sqlx::Result<Option<Payment>> {
    let row = sqlx::query_as!(
        Row,
        r#"
        select customer_id as "customer_id: CustomerId", id as "id: PaymentId", plan_id,
               plan_version, quantity, amount_minor, currency, method as "method: PaymentMethod",
               status as "status: PaymentStatus", gateway_reference, created_at
        from payments
        where customer_id = $1
          and id = $2
        "#,
        customer_id as _,
        id as _,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(Payment::from))
}

/// Locks a customer's payment until the transaction ends.
pub(super) async fn lock(
    db: &mut PgConnection,
    customer_id: CustomerId,
    id: PaymentId,
) -> sqlx::Result<Option<Payment>> {
    let row = sqlx::query_as!(
        Row,
        r#"
        select customer_id as "customer_id: CustomerId", id as "id: PaymentId", plan_id,
               plan_version, quantity, amount_minor, currency, method as "method: PaymentMethod",
               status as "status: PaymentStatus", gateway_reference, created_at
        from payments
        where customer_id = $1
          and id = $2
        for no key update
        "#,
        customer_id as _,
        id as _,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(Payment::from))
}

/// The payment of that id, whoever owns it: for the worker, which has no customer to ask for.
pub(super) async fn find_by_id(
    db: &mut PgConnection,
    id: PaymentId,
) -> sqlx::Result<Option<Payment>> {
    let row = sqlx::query_as!(
        Row,
        r#"
        select customer_id as "customer_id: CustomerId", id as "id: PaymentId", plan_id,
               plan_version, quantity, amount_minor, currency, method as "method: PaymentMethod",
               status as "status: PaymentStatus", gateway_reference, created_at
        from payments
        where id = $1
        "#,
        id as _,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(Payment::from))
}

/// Which payment owns an object of a gateway.
pub(super) async fn owner(
    db: &mut PgConnection,
    gateway: GatewayName,
    object_id: &str,
) -> sqlx::Result<Option<(CustomerId, PaymentId)>> {
    let row = sqlx::query!(
        r#"
        select customer_id as "customer_id: CustomerId", payment_id as "payment_id: PaymentId"
        from gateway_objects
        where gateway = $1
          and object_id = $2
        "#,
        gateway as _,
        object_id,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| (row.customer_id, row.payment_id)))
}

/// Makes the payment the owner of an object; an object keeps its first owner.
pub(super) async fn own(
    db: &mut PgConnection,
    gateway: GatewayName,
    object_id: &str,
    payment: &Payment,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let inserted = sqlx::query!(
        r#"
        insert into gateway_objects (gateway, object_id, customer_id, payment_id, created_at)
        values ($1, $2, $3, $4, $5)
        on conflict (gateway, object_id) do nothing
        "#,
        gateway as _,
        object_id,
        payment.customer_id as _,
        payment.id as _,
        now,
    )
    .execute(&mut *db)
    .await?;
    if inserted.rows_affected() == 1 {
        return Ok(());
    }
    let owner = owner(db, gateway, object_id).await?;
    if owner == Some((payment.customer_id, payment.id)) {
        return Ok(());
    }
    tracing::error!(payment.id = %payment.id, object_id, "a gateway object has another owner");
    Err(Error::Conflict("the gateway's object belongs to another payment".to_owned()))
}

/// Inserts an object without facts; one that is there is left alone.
pub(super) async fn save_object(
    db: &mut PgConnection,
    payment: &Payment,
    gateway: GatewayName,
    object_id: &str,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        insert into payment_objects
            (customer_id, payment_id, gateway, object_id, created_at, updated_at)
        values ($1, $2, $3, $4, $5, $5)
        on conflict (customer_id, payment_id, gateway, object_id) do nothing
        "#,
        payment.customer_id as _,
        payment.id as _,
        gateway as _,
        object_id,
        now,
    )
    .execute(db)
    .await
    .map(drop)
}

/// What is known of one object, locked until the transaction ends.
pub(super) async fn lock_facts(
    db: &mut PgConnection,
    payment: &Payment,
    gateway: GatewayName,
    object_id: &str,
) -> sqlx::Result<ObjectFacts> {
    let row = sqlx::query!(
        r#"
        select captured_minor, captured_at, capture_id, is_declined, is_voided, is_processing,
               approved_at, failure
        from payment_objects
        where customer_id = $1
          and payment_id = $2
          and gateway = $3
          and object_id = $4
        for update
        "#,
        payment.customer_id as _,
        payment.id as _,
        gateway as _,
        object_id,
    )
    .fetch_one(db)
    .await?;
    Ok(ObjectFacts {
        captured: captured(payment, row.captured_minor, row.captured_at, row.capture_id),
        is_declined: row.is_declined,
        is_voided: row.is_voided,
        is_processing: row.is_processing,
        is_approved: row.approved_at.is_some(),
        failure: row.failure,
        failure_code: None,
    })
}

/// Only amounts in the payment's currency are ever stored.
fn captured(
    payment: &Payment,
    minor: Option<i64>,
    at: Option<DateTime<Utc>>,
    capture_id: Option<String>,
) -> Option<Captured> {
    let amount = Money::new(minor?, payment.amount.currency);
    Some(Captured { amount, capture_id, at: at? })
}

/// Saves what is known of one object.
pub(super) async fn save_facts(
    db: &mut PgConnection,
    payment: &Payment,
    gateway: GatewayName,
    object_id: &str,
    facts: &ObjectFacts,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let captured = facts.captured.as_ref();
    let updated = sqlx::query!(
        r#"
        update payment_objects
        set captured_minor = $5, captured_at = $6, capture_id = $7, is_declined = $8,
            is_voided = $9, is_processing = $10,
            approved_at = case when $11 then coalesce(approved_at, $13) end,
            failure = $12, updated_at = $13
        where customer_id = $1
          and payment_id = $2
          and gateway = $3
          and object_id = $4
        "#,
        payment.customer_id as _,
        payment.id as _,
        gateway as _,
        object_id,
        captured.map(|captured| captured.amount.minor),
        captured.map(|captured| captured.at),
        captured.and_then(|captured| captured.capture_id.clone()),
        facts.is_declined,
        facts.is_voided,
        facts.is_processing,
        facts.is_approved,
        facts.failure,
        now,
    )
    .execute(db)
    .await?;
    assert_eq!(updated.rows_affected(), 1, "a locked object is there");
    Ok(())
}

/// What is known of all the payment's objects.
pub(super) async fn all_facts(
    db: &mut PgConnection,
    payment: &Payment,
) -> sqlx::Result<Vec<ObjectFacts>> {
    let rows = sqlx::query!(
        r#"
        select captured_minor, captured_at, capture_id, is_declined, is_voided
        from payment_objects
        where customer_id = $1
          and payment_id = $2
        "#,
        payment.customer_id as _,
        payment.id as _,
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| ObjectFacts {
            captured: captured(payment, row.captured_minor, row.captured_at, row.capture_id),
            is_declined: row.is_declined,
            is_voided: row.is_voided,
            ..ObjectFacts::default()
        })
        .collect())
}

/// Saves the status that the facts add up to.
pub(super) async fn set_status(
    db: &mut PgConnection,
    payment: &Payment,
    status: PaymentStatus,
    failure: Option<&str>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let updated = sqlx::query!(
        r#"
        update payments
        set status = $3, failure = $4, updated_at = $5
        where customer_id = $1
          and id = $2
        "#,
        payment.customer_id as _,
        payment.id as _,
        status as _,
        failure,
        now,
    )
    .execute(db)
    .await?;
    assert_eq!(updated.rows_affected(), 1, "a locked payment is there");
    Ok(())
}

/// Saves what the capture opened, and when.
pub(super) async fn set_completed(
    db: &mut PgConnection,
    payment: &Payment,
    subscription_id: SubscriptionId,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let updated = sqlx::query!(
        r#"
        update payments
        set subscription_id = $3, completed_at = $4
        where customer_id = $1
          and id = $2
        "#,
        payment.customer_id as _,
        payment.id as _,
        subscription_id as _,
        now,
    )
    .execute(db)
    .await?;
    assert_eq!(updated.rows_affected(), 1, "a locked payment is there");
    Ok(())
}

/// Saves which object the payer is sent to.
pub(super) async fn set_reference(
    db: &mut PgConnection,
    payment: &Payment,
    object_id: &str,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let updated = sqlx::query!(
        r#"
        update payments
        set gateway_reference = $3, updated_at = $4
        where customer_id = $1
          and id = $2
        "#,
        payment.customer_id as _,
        payment.id as _,
        object_id,
        now,
    )
    .execute(db)
    .await?;
    assert_eq!(updated.rows_affected(), 1, "the payment was just inserted or found");
    Ok(())
}

/// Where the payer's browser goes after paying and after cancelling.
pub(super) async fn redirects(
    db: &mut PgConnection,
    customer_id: CustomerId,
    id: PaymentId,
) -> sqlx::Result<(Option<String>, Option<String>)> {
    let row = sqlx::query!(
        "select success_url, cancel_url from payments where customer_id = $1 and id = $2",
        customer_id as _,
        id as _,
    )
    .fetch_one(db)
    .await?;
    Ok((row.success_url, row.cancel_url))
}

/// Payments with an object that was approved before `at` and is not captured.
pub(super) async fn approved_before(
    db: &PgPool,
    at: DateTime<Utc>,
    limit: i64,
) -> sqlx::Result<Vec<(CustomerId, PaymentId)>> {
    let rows = sqlx::query!(
        r#"
        select customer_id as "customer_id: CustomerId", payment_id as "payment_id: PaymentId"
        from payment_objects
        where approved_at < $1
          and captured_at is null
          and not is_voided
          and not is_declined
          and not is_processing
        order by approved_at
        limit $2
        "#,
        at,
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.customer_id, row.payment_id)).collect())
}

/// The newest payments of a customer, or the one of that id.
pub(super) async fn list(
    db: &PgPool,
    customer_id: CustomerId,
    id: Option<PaymentId>,
    limit: i64,
) -> sqlx::Result<Vec<PaymentView>> {
    let rows = sqlx::query!(
        r#"
        select p.id as "id: PaymentId", c.external_id, c.email,
               p.subscription_id as "subscription_id: SubscriptionId", p.plan_id,
               l.name as plan_name, p.amount_minor, p.currency, p.completed_at,
               p.method as "method: PaymentMethod", p.status as "status: PaymentStatus",
               p.gateway_reference, p.failure, p.created_at, p.updated_at
        from payments p
        join customers c on c.customer_id = p.customer_id
        join plans l on l.id = p.plan_id
        where p.customer_id = $1
          and ($2::uuid is null or p.id = $2)
        order by p.created_at desc, p.id desc
        limit $3
        "#,
        customer_id as _,
        id.map(PaymentId::uuid),
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| PaymentView {
            id: row.id,
            external_id: row.external_id,
            email: row.email,
            subscription_id: row.subscription_id,
            plan_id: row.plan_id,
            plan_name: row.plan_name,
            amount: money(row.amount_minor, &row.currency),
            completed_at: row.completed_at,
            method: row.method,
            status: row.status,
            gateway_reference: row.gateway_reference,
            failure: row.failure,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
        .collect())
}
