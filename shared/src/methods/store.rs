//! SQL of saved methods and of the gateways' records.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

use super::Method;
use crate::gateways::{GatewayName, SavedMethod};
use crate::ids::{CustomerId, PaymentMethodId};

/// Makes the customer the owner of a gateway's id; false if it is another's.
pub(super) async fn own(
    db: &mut PgConnection,
    gateway: GatewayName,
    object_id: &str,
    customer_id: CustomerId,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    sqlx::query!(
        r#"
        insert into gateway_owned (gateway, object_id, customer_id, created_at)
        values ($1, $2, $3, $4)
        on conflict (gateway, object_id) do nothing
        "#,
        gateway as _,
        object_id,
        customer_id as _,
        now,
    )
    .execute(&mut *db)
    .await?;
    Ok(owner(db, gateway, object_id).await? == Some(customer_id))
}

/// Whose a gateway's id is.
pub(super) async fn owner(
    db: &mut PgConnection,
    gateway: GatewayName,
    object_id: &str,
) -> sqlx::Result<Option<CustomerId>> {
    sqlx::query_scalar!(
        r#"
        select customer_id as "customer_id: CustomerId"
        from gateway_owned
        where gateway = $1
          and object_id = $2
        "#,
        gateway as _,
        object_id,
    )
    .fetch_optional(db)
    .await
}

/// Inserts a method whose details are not known yet; false if it is there.
pub(super) async fn insert(
    db: &mut PgConnection,
    customer_id: CustomerId,
    id: PaymentMethodId,
    (gateway, gateway_method_id, gateway_customer): (GatewayName, &str, Option<&str>),
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    let inserted = sqlx::query!(
        r#"
        insert into payment_methods
            (customer_id, id, gateway, gateway_method_id, gateway_customer, kind, created_at,
             updated_at)
        values ($1, $2, $3, $4, $5, '', $6, $6)
        on conflict (customer_id, gateway, gateway_method_id) do nothing
        "#,
        customer_id as _,
        id as _,
        gateway as _,
        gateway_method_id,
        gateway_customer,
        now,
    )
    .execute(db)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Saves what the gateway says of a method.
pub(super) async fn save_details(
    db: &mut PgConnection,
    customer_id: CustomerId,
    gateway: GatewayName,
    saved: &SavedMethod,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        update payment_methods
        set kind = $4, brand = $5, last_four = $6, expires_month = $7, expires_year = $8,
            gateway_customer = coalesce($9, gateway_customer), updated_at = $10
        where customer_id = $1
          and gateway = $2
          and gateway_method_id = $3
        "#,
        customer_id as _,
        gateway as _,
        saved.id,
        saved.kind,
        saved.brand,
        saved.last_four,
        saved.expires.and_then(|(month, _)| i32::try_from(month).ok()),
        saved.expires.map(|(_, year)| year),
        saved.gateway_customer,
        now,
    )
    .execute(db)
    .await
    .map(drop)
}

/// The customer's methods that can be charged, newest first, or the one of that id.
pub(super) async fn list(
    db: &PgPool,
    customer_id: CustomerId,
    id: Option<PaymentMethodId>,
) -> sqlx::Result<Vec<Method>> {
    sqlx::query_as!(
        Method,
        r#"
        select id as "id: PaymentMethodId", gateway as "gateway: GatewayName", gateway_method_id,
               gateway_customer, kind, brand, last_four, expires_month, expires_year, created_at
        from payment_methods
        where customer_id = $1
          and detached_at is null
          and ($2::uuid is null or id = $2)
        order by created_at desc, id desc
        "#,
        customer_id as _,
        id.map(PaymentMethodId::uuid),
    )
    .fetch_all(db)
    .await
}

/// Methods whose details were never read, made before `at`.
pub(super) async fn unread(
    db: &PgPool,
    at: DateTime<Utc>,
    limit: i64,
) -> sqlx::Result<Vec<(CustomerId, PaymentMethodId)>> {
    let rows = sqlx::query!(
        r#"
        select customer_id as "customer_id: CustomerId", id as "id: PaymentMethodId"
        from payment_methods
        where kind = ''
          and detached_at is null
          and created_at < $1
        order by created_at desc
        limit $2
        "#,
        at,
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.customer_id, row.id)).collect())
}

/// Marks a method as gone.
pub(super) async fn set_detached(
    db: &mut PgConnection,
    customer_id: CustomerId,
    (gateway, gateway_method_id): (GatewayName, &str),
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        update payment_methods
        set detached_at = coalesce(detached_at, $4), updated_at = $4
        where customer_id = $1
          and gateway = $2
          and gateway_method_id = $3
        "#,
        customer_id as _,
        gateway as _,
        gateway_method_id,
        now,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Marks all of a customer's methods as gone.
pub(super) async fn detach_all(
    db: &mut PgConnection,
    customer_id: CustomerId,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        update payment_methods
        set detached_at = $2, updated_at = $2
        where customer_id = $1
          and detached_at is null
        "#,
        customer_id as _,
        now,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Marks all methods that hang on a gateway's record as gone.
pub(super) async fn detach_of_record(
    db: &mut PgConnection,
    customer_id: CustomerId,
    (gateway, gateway_customer): (GatewayName, &str),
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        update payment_methods
        set detached_at = $4, updated_at = $4
        where customer_id = $1
          and gateway = $2
          and gateway_customer = $3
          and detached_at is null
        "#,
        customer_id as _,
        gateway as _,
        gateway_customer,
        now,
    )
    .execute(db)
    .await
    .map(drop)
}

/// A gateway's record of a customer.
pub(super) struct Record {
    pub(super) attempt: i32,
    pub(super) gateway_customer_id: Option<String>,
    pub(super) is_gone: bool,
}

/// The newest record of a customer at a gateway.
pub(super) async fn newest_record(
    db: &mut PgConnection,
    customer_id: CustomerId,
    gateway: GatewayName,
) -> sqlx::Result<Option<Record>> {
    sqlx::query_as!(
        Record,
        r#"
        select attempt, gateway_customer_id, is_gone
        from gateway_customers
        where customer_id = $1
          and gateway = $2
        order by attempt desc
        limit 1
        "#,
        customer_id as _,
        gateway as _,
    )
    .fetch_optional(db)
    .await
}

/// Inserts a record whose creation is about to be asked for.
pub(super) async fn insert_record(
    db: &mut PgConnection,
    customer_id: CustomerId,
    (gateway, attempt): (GatewayName, i32),
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        insert into gateway_customers (customer_id, gateway, attempt, created_at)
        values ($1, $2, $3, $4)
        "#,
        customer_id as _,
        gateway as _,
        attempt,
        now,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Saves the gateway's answer.
pub(super) async fn set_record(
    db: &mut PgConnection,
    customer_id: CustomerId,
    (gateway, attempt): (GatewayName, u32),
    gateway_customer_id: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        update gateway_customers
        set gateway_customer_id = $4
        where customer_id = $1
          and gateway = $2
          and attempt = $3
        "#,
        customer_id as _,
        gateway as _,
        i32::try_from(attempt).expect("a small number"),
        gateway_customer_id,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Marks a record as deleted at the gateway.
pub(super) async fn set_record_gone(
    db: &mut PgConnection,
    customer_id: CustomerId,
    gateway: GatewayName,
    gateway_customer_id: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        update gateway_customers
        set is_gone = true
        where customer_id = $1
          and gateway = $2
          and gateway_customer_id = $3
        "#,
        customer_id as _,
        gateway as _,
        gateway_customer_id,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Marks a record whose creation cannot be asked for again as gone.
pub(super) async fn give_up_record(
    db: &mut PgConnection,
    customer_id: CustomerId,
    (gateway, attempt): (GatewayName, u32),
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        update gateway_customers
        set is_gone = true
        where customer_id = $1
          and gateway = $2
          and attempt = $3
          and gateway_customer_id is null
        "#,
        customer_id as _,
        gateway as _,
        i32::try_from(attempt).expect("a small number"),
    )
    .execute(db)
    .await
    .map(drop)
}
