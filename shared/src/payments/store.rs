//! SQL of payments and what gateways told of them.

pub(super) mod disputes;
pub(super) mod glance;
pub(super) mod refunds;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

use super::facts::{KnownObject, Reckoning};
use super::list::PaymentView;
use super::{Payment, PaymentMethod, PaymentStatus};
use crate::error::Error;
use crate::gateways::{Captured, Form, GatewayName, ObjectFacts};
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
    form: Form,
    object_attempt: i32,
    gateway_customer: Option<String>,
    charged_method: Option<String>,
    success_url: Option<String>,
    cancel_url: Option<String>,
    subscription_id: Option<SubscriptionId>,
    completed_at: Option<DateTime<Utc>>,
    cancelled_at: Option<DateTime<Utc>>,
    refunds_late: bool,
    checks: i32,
    created_at: DateTime<Utc>,
}

/// Selects whole payments; the rest of the statement follows.
macro_rules! select_payments {
    ($tail:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            Row,
            r#"
            select customer_id as "customer_id: CustomerId", id as "id: PaymentId", plan_id,
                   plan_version, quantity, amount_minor, currency,
                   method as "method: PaymentMethod", status as "status: PaymentStatus",
                   gateway_reference, object_form as "form: Form", object_attempt,
                   gateway_customer, charged_method, success_url, cancel_url,
                   subscription_id as "subscription_id: SubscriptionId", completed_at,
                   cancelled_at, refunds_late, checks, created_at
            from payments
            "# + $tail
            $(, $argument)*
        )
    };
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
            form: row.form,
            object_attempt: u32::try_from(row.object_attempt).expect("the schema checks it"),
            gateway_customer: row.gateway_customer,
            charged_method: row.charged_method,
            success_url: row.success_url,
            cancel_url: row.cancel_url,
            subscription_id: row.subscription_id,
            completed_at: row.completed_at,
            cancelled_at: row.cancelled_at,
            refunds_late: row.refunds_late,
            checks: row.checks,
            created_at: row.created_at,
        }
    }
}

fn money(minor: i64, currency: &str) -> Money {
    Money::new(minor, Currency::parse(currency).expect("the schema checks the currency"))
}

/// Inserts a pending payment; the gateway is asked about it from `next_check_at` on.
pub(super) async fn insert(
    db: &mut PgConnection,
    payment: &Payment,
    next_check_at: Option<DateTime<Utc>>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        insert into payments
            (customer_id, id, plan_id, plan_version, quantity, amount_minor, currency, method,
             gateway, status, object_form, gateway_customer, charged_method, success_url,
             cancel_url, refunds_late, next_check_at, created_at, updated_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'pending', $10, $11, $12, $13, $14, $15, $16,
                $17, $17)
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
        payment.form as _,
        payment.gateway_customer,
        payment.charged_method,
        payment.success_url,
        payment.cancel_url,
        payment.refunds_late,
        next_check_at,
        payment.created_at,
    )
    .execute(db)
    .await
    .map(drop)
}

/// The open payment of the same kind, made after `since`. A declined one is open too: another
/// card may still pay it.
pub(super) async fn find_same(
    db: &mut PgConnection,
    like: &Payment,
    since: DateTime<Utc>,
) -> sqlx::Result<Option<Payment>> {
    let row = select_payments!(
        "where customer_id = $1
           and status in ('pending', 'failed')
           and charged_method is null
           and plan_id = $2
           and plan_version = $3
           and quantity = $4
           and amount_minor = $5
           and currency = $6
           and gateway = $7
           and created_at > $8
         order by created_at desc
         limit 1
         for no key update",
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

/// Whose key: the customer, the caller, and the key with its route.
pub(super) type Key<'a> = (CustomerId, &'a str, String);

/// Which payment a key of a purchase stands for, and the digest of the request it came with.
pub(super) async fn keyed(
    db: &mut PgConnection,
    (customer_id, principal, key): &Key<'_>,
) -> sqlx::Result<Option<(PaymentId, Vec<u8>)>> {
    let row = sqlx::query!(
        r#"
        select payment_id as "payment_id: PaymentId", request_sha256
        from purchase_keys
        where customer_id = $1
          and principal = $2
          and key = $3
        "#,
        customer_id as _,
        principal,
        key,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| (row.payment_id, row.request_sha256)))
}

/// Lets a key stand for a payment; refuses one that stands for another already.
pub(super) async fn insert_key(
    db: &mut PgConnection,
    (customer_id, principal, key): &Key<'_>,
    payment_id: PaymentId,
    request_sha256: &[u8],
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        insert into purchase_keys
            (customer_id, principal, key, payment_id, request_sha256, created_at)
        values ($1, $2, $3, $4, $5, $6)
        "#,
        customer_id as _,
        principal,
        key,
        payment_id as _,
        request_sha256,
        now,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Stores the gateway's record of the customer that a payment's objects are opened for, once;
/// returns the one that counts.
pub(super) async fn set_gateway_customer(
    db: &mut PgConnection,
    payment: &Payment,
    gateway_customer: &str,
) -> sqlx::Result<String> {
    sqlx::query_scalar!(
        r#"
        update payments
        set gateway_customer = coalesce(gateway_customer, $3)
        where customer_id = $1
          and id = $2
        returning gateway_customer as "gateway_customer!"
        "#,
        payment.customer_id as _,
        payment.id as _,
        gateway_customer,
    )
    .fetch_one(db)
    .await
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

/// Whether the customer paid for the same plan again since `since`.
pub(super) async fn was_bought_again(
    db: &mut PgConnection,
    payment: &Payment,
    since: DateTime<Utc>,
) -> sqlx::Result<bool> {
    let found = sqlx::query_scalar!(
        r#"
        select exists (
            select from payments
            where customer_id = $1
              and id <> $2
              and plan_id = $3
              and completed_at >= $4
              and status = 'completed'
        ) as "exists!"
        "#,
        payment.customer_id as _,
        payment.id as _,
        payment.plan_id,
        since,
    );
    found.fetch_one(db).await
}

/// A customer's payment, as committed.
pub(super) async fn find(
    db: &mut PgConnection,
    customer_id: CustomerId,
    id: PaymentId,
) -> sqlx::Result<Option<Payment>> {
    let row = select_payments!("where customer_id = $1 and id = $2", customer_id as _, id as _)
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
    let row = select_payments!(
        "where customer_id = $1 and id = $2 for no key update",
        customer_id as _,
        id as _,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(Payment::from))
}

/// The payment of that id, whoever owns it: for operators and the worker, who have no customer to
/// ask for.
pub(super) async fn find_by_id(
    db: &mut PgConnection,
    id: PaymentId,
) -> sqlx::Result<Option<Payment>> {
    let row = select_payments!("where id = $1", id as _).fetch_optional(db).await?;
    Ok(row.map(Payment::from))
}

/// Payments made or changed in a span, oldest first, after `after`: for reconciliation.
pub(super) async fn page_since(
    db: &mut PgConnection,
    since: DateTime<Utc>,
    after: Option<PaymentId>,
    limit: i64,
) -> sqlx::Result<Vec<Payment>> {
    let rows = select_payments!(
        "where updated_at >= $1
           and amount_minor > 0
           and gateway <> 'manual'
           and ($2::uuid is null or id > $2)
         order by id
         limit $3",
        since,
        after.map(PaymentId::uuid),
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(Payment::from).collect())
}

/// Payments whose gateway is to be asked, the longest overdue first.
pub(super) async fn to_check(
    db: &PgPool,
    now: DateTime<Utc>,
    limit: i64,
) -> sqlx::Result<Vec<(CustomerId, PaymentId, i32)>> {
    let rows = sqlx::query!(
        r#"
        select customer_id as "customer_id: CustomerId", id as "id: PaymentId", checks
        from payments
        where next_check_at <= $1
        order by next_check_at
        limit $2
        "#,
        now,
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.customer_id, row.id, row.checks)).collect())
}

/// Says when the gateway is asked next; `None`: nothing more is expected of it.
pub(super) async fn set_next_check(
    db: &mut PgConnection,
    payment: &Payment,
    next: Option<DateTime<Utc>>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        update payments
        set next_check_at = $3, checks = checks + 1
        where customer_id = $1
          and id = $2
        "#,
        payment.customer_id as _,
        payment.id as _,
        next,
    )
    .execute(db)
    .await
    .map(drop)
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
               approved_at, failure, failure_code
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
        failure_code: row.failure_code,
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
            failure = $12, failure_code = $14, updated_at = $13
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
        facts.failure_code,
    )
    .execute(db)
    .await?;
    assert_eq!(updated.rows_affected(), 1, "a locked object is there");
    Ok(())
}

/// What is known of all the payment's objects.
pub(super) async fn objects(
    db: &mut PgConnection,
    payment: &Payment,
) -> sqlx::Result<Vec<KnownObject>> {
    let rows = sqlx::query!(
        r#"
        select object_id, captured_minor, captured_at, capture_id, is_declined, is_voided,
               is_processing, approved_at, failure, failure_code
        from payment_objects
        where customer_id = $1
          and payment_id = $2
        order by created_at, object_id
        "#,
        payment.customer_id as _,
        payment.id as _,
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| KnownObject {
            id: row.object_id,
            facts: ObjectFacts {
                captured: captured(payment, row.captured_minor, row.captured_at, row.capture_id),
                is_declined: row.is_declined,
                is_voided: row.is_voided,
                is_processing: row.is_processing,
                is_approved: row.approved_at.is_some(),
                failure: row.failure,
                failure_code: row.failure_code,
            },
        })
        .collect())
}

/// How often captures of an object were definitely declined.
pub(super) async fn capture_attempt(
    db: &mut PgConnection,
    payment: &Payment,
    object_id: &str,
) -> sqlx::Result<u32> {
    let attempt = sqlx::query_scalar!(
        r#"
        select capture_attempt
        from payment_objects
        where customer_id = $1
          and payment_id = $2
          and object_id = $3
        "#,
        payment.customer_id as _,
        payment.id as _,
        object_id,
    )
    .fetch_optional(db)
    .await?;
    Ok(u32::try_from(attempt.unwrap_or(0)).expect("the schema checks it"))
}

/// Counts a definite decline of the capture numbered `attempt`, once.
pub(super) async fn count_declined_capture(
    db: &mut PgConnection,
    payment: &Payment,
    object_id: &str,
    attempt: u32,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        update payment_objects
        set capture_attempt = capture_attempt + 1
        where customer_id = $1
          and payment_id = $2
          and object_id = $3
          and capture_attempt = $4
        "#,
        payment.customer_id as _,
        payment.id as _,
        object_id,
        i32::try_from(attempt).expect("a small number"),
    )
    .execute(db)
    .await
    .map(drop)
}

/// Saves what the facts add up to.
pub(super) async fn save_reckoning(
    db: &mut PgConnection,
    payment: &Payment,
    reckoned: &Reckoning,
    failure: (Option<&str>, Option<&str>),
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let is_cancelled = reckoned.status == PaymentStatus::Cancelled;
    // PayPal lets an order be captured that we marked as never to be: such a capture may be on its
    // way, so we go on asking.
    let is_open = match reckoned.status {
        PaymentStatus::Pending | PaymentStatus::Failed => true,
        PaymentStatus::Cancelled => payment.method.gateway() == GatewayName::Paypal,
        PaymentStatus::Completed | PaymentStatus::Refunded => false,
    };
    // One that was cancelled and goes on is asked about again; no other that is done with.
    let is_anew = payment.status == PaymentStatus::Cancelled && !is_cancelled;
    let next_check = is_anew.then(|| now + super::reconcile::FIRST_CHECK);
    let updated = sqlx::query!(
        r#"
        update payments
        set status = $3, refunded_minor = $4, failure = $5, failure_code = $6,
            cancelled_at = case when $7 then coalesce(cancelled_at, $8)
                                when $9 then null else cancelled_at end,
            next_check_at = case when $9 then coalesce(next_check_at, $10) end,
            updated_at = case when status is distinct from $3 or refunded_minor <> $4
                                or failure is distinct from $5 then $8 else updated_at end
        where customer_id = $1
          and id = $2
        "#,
        payment.customer_id as _,
        payment.id as _,
        reckoned.status as _,
        reckoned.refunded_minor,
        failure.0,
        failure.1,
        is_cancelled,
        now,
        is_open,
        next_check,
    )
    .execute(db)
    .await?;
    assert_eq!(updated.rows_affected(), 1, "a locked payment is there");
    Ok(())
}

/// Completes a payment that costs nothing.
pub(super) async fn set_given(
    db: &mut PgConnection,
    payment: &Payment,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let updated = sqlx::query!(
        r#"
        update payments
        set status = 'completed', updated_at = $3
        where customer_id = $1
          and id = $2
          and amount_minor = 0
        "#,
        payment.customer_id as _,
        payment.id as _,
        now,
    )
    .execute(db)
    .await?;
    assert_eq!(updated.rows_affected(), 1, "a free payment is there");
    Ok(())
}

/// Saves when the money was booked as arrived, and what it opened or extended.
pub(super) async fn set_captured(
    db: &mut PgConnection,
    payment: &Payment,
    subscription_id: Option<SubscriptionId>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let updated = sqlx::query!(
        r#"
        update payments
        set subscription_id = coalesce($3, subscription_id),
            completed_at = coalesce(completed_at, $4)
        where customer_id = $1
          and id = $2
        "#,
        payment.customer_id as _,
        payment.id as _,
        subscription_id.map(SubscriptionId::uuid),
        now,
    )
    .execute(db)
    .await?;
    assert_eq!(updated.rows_affected(), 1, "a locked payment is there");
    Ok(())
}

/// Makes the next object the payment's newest: its form and number are in its idempotency key.
pub(super) async fn set_next_object(
    db: &mut PgConnection,
    payment: &Payment,
    form: Form,
    attempt: u32,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let updated = sqlx::query!(
        r#"
        update payments
        set object_form = $3, object_attempt = $4, gateway_reference = null, updated_at = $5
        where customer_id = $1
          and id = $2
        "#,
        payment.customer_id as _,
        payment.id as _,
        form as _,
        i32::try_from(attempt).expect("a small number"),
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

/// Payments with an object that was approved before `at` and is not captured.
pub(super) async fn approved_before(
    db: &PgPool,
    at: DateTime<Utc>,
    limit: i64,
) -> sqlx::Result<Vec<(CustomerId, PaymentId)>> {
    let rows = sqlx::query!(
        r#"
        select customer_id as "customer_id: CustomerId", payment_id as "payment_id: PaymentId"
        from payment_objects o
        where approved_at between $3 and $1
          and captured_at is null
          and not is_voided
          and not is_processing
          and exists (select from payments p
                      where p.customer_id = o.customer_id and p.id = o.payment_id
                        and p.completed_at is null)
        order by approved_at
        limit $2
        "#,
        at,
        limit,
        at - chrono::Duration::days(3),
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
               p.gateway_reference, p.failure, p.refunded_minor, p.created_at, p.updated_at
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
            refunded: money(row.refunded_minor, &row.currency),
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
        .collect())
}

/// Marks a charge as failed that its gateway declined without making an object.
pub(super) async fn set_declined(
    db: &mut PgConnection,
    payment: &Payment,
    code: &str,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        update payments
        set status = 'failed', failure = $3, failure_code = $3, next_check_at = null,
            updated_at = $4
        where customer_id = $1
          and id = $2
          and status = 'pending'
        "#,
        payment.customer_id as _,
        payment.id as _,
        code,
        now,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Marks an object as approved (again) by its buyer.
pub(super) async fn set_approved(
    db: &mut PgConnection,
    payment: &Payment,
    object_id: &str,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        update payment_objects
        set approved_at = $4
        where customer_id = $1
          and payment_id = $2
          and object_id = $3
          and approved_at is null
          and captured_at is null
          and not is_voided
        "#,
        payment.customer_id as _,
        payment.id as _,
        object_id,
        now,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Takes the turn of a browser without a token; false where another had it since `quiet`.
pub(super) async fn visit(
    db: &mut PgConnection,
    customer_id: CustomerId,
    id: PaymentId,
    now: DateTime<Utc>,
    quiet: DateTime<Utc>,
) -> sqlx::Result<bool> {
    let updated = sqlx::query!(
        r#"
        update payments
        set visited_at = $3
        where customer_id = $1
          and id = $2
          and (visited_at is null or visited_at <= $4)
        "#,
        customer_id as _,
        id as _,
        now,
        quiet,
    )
    .execute(db)
    .await?;
    Ok(updated.rows_affected() == 1)
}
