//! SQL of the inbox.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::EventStatus;
use super::list::EventView;
use crate::gateways::{GatewayName, VerifiedEvent};
use crate::ids::WebhookEventId;

/// An event as stored.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) id: WebhookEventId,
    pub(super) gateway: GatewayName,
    pub(super) payload: Vec<u8>,
    pub(super) status: EventStatus,
    pub(super) attempts: i32,
    pub(super) received_at: DateTime<Utc>,
}

impl Stored {
    /// Whether there is still something to do.
    pub(super) fn is_open(&self) -> bool {
        match self.status {
            EventStatus::Received | EventStatus::Waiting => true,
            EventStatus::Processed
            | EventStatus::Ignored
            | EventStatus::Quarantined
            | EventStatus::Failed => false,
        }
    }
}

/// An event to be stored.
#[derive(Debug)]
pub(super) struct NewEvent {
    pub(super) id: WebhookEventId,
    pub(super) gateway: GatewayName,
    pub(super) event: VerifiedEvent,
    pub(super) payload: Vec<u8>,
    pub(super) received_at: DateTime<Utc>,
}

/// Inserts events in one statement; returns those that their gateway has not delivered before.
///
/// Of two with one key the first is inserted, whether both are among these or not.
pub(super) async fn insert(
    db: &mut PgConnection,
    new: &[&NewEvent],
) -> sqlx::Result<Vec<WebhookEventId>> {
    let ids: Vec<Uuid> = new.iter().map(|new| new.id.uuid()).collect();
    let gateways: Vec<GatewayName> = new.iter().map(|new| new.gateway).collect();
    let event_ids: Vec<&str> = new.iter().map(|new| new.event.id.as_str()).collect();
    let delivery_ids: Vec<Option<&str>> =
        new.iter().map(|new| new.event.delivery_id.as_deref()).collect();
    let kinds: Vec<&str> = new.iter().map(|new| new.event.kind.as_str()).collect();
    let payloads: Vec<&[u8]> = new.iter().map(|new| new.payload.as_slice()).collect();
    let times: Vec<DateTime<Utc>> = new.iter().map(|new| new.received_at).collect();
    sqlx::query_scalar!(
        r#"
        insert into webhook_events
            (id, gateway, gateway_event_id, delivery_id, kind, payload, status, next_attempt_at,
             received_at)
        select id, gateway, event_id, delivery_id, kind, payload, 'received', received_at,
               received_at
        from unnest($1::uuid[], $2::gateway_name[], $3::text[], $4::text[], $5::text[],
                    $6::bytea[], $7::timestamptz[])
            as t (id, gateway, event_id, delivery_id, kind, payload, received_at)
        on conflict do nothing
        returning id as "id: WebhookEventId"
        "#,
        &ids,
        &gateways as &[GatewayName],
        &event_ids as &[&str],
        &delivery_ids as &[Option<&str>],
        &kinds as &[&str],
        &payloads as &[&[u8]],
        &times,
    )
    .fetch_all(db)
    .await
}

/// Of events that were not inserted: those that are not stored as they came, but with another body,
/// or whose signature came with another event.
pub(super) async fn with_other_body(
    db: &mut PgConnection,
    known: &[&NewEvent],
) -> sqlx::Result<Vec<WebhookEventId>> {
    let ids: Vec<Uuid> = known.iter().map(|new| new.id.uuid()).collect();
    let gateways: Vec<GatewayName> = known.iter().map(|new| new.gateway).collect();
    let event_ids: Vec<&str> = known.iter().map(|new| new.event.id.as_str()).collect();
    let payloads: Vec<&[u8]> = known.iter().map(|new| new.payload.as_slice()).collect();
    sqlx::query_scalar!(
        r#"
        select t.id as "id!: WebhookEventId"
        from unnest($1::uuid[], $2::gateway_name[], $3::text[], $4::bytea[])
            as t (id, gateway, event_id, payload)
        where not exists (
            select from webhook_events e
            where e.gateway = t.gateway
              and e.gateway_event_id = t.event_id
              and e.payload = t.payload
        )
        "#,
        &ids,
        &gateways as &[GatewayName],
        &event_ids as &[&str],
        &payloads as &[&[u8]],
    )
    .fetch_all(db)
    .await
}

/// An event, as committed.
pub(super) async fn find(db: &PgPool, id: WebhookEventId) -> sqlx::Result<Option<Stored>> {
    sqlx::query_as!(
        Stored,
        r#"
        select id as "id: WebhookEventId", gateway as "gateway: GatewayName", payload,
               status as "status: EventStatus", attempts, received_at
        from webhook_events
        where id = $1
        "#,
        id as _,
    )
    .fetch_optional(db)
    .await
}

/// Locks an event until the transaction ends; false if there is nothing more to do.
pub(super) async fn lock_open(db: &mut PgConnection, id: WebhookEventId) -> sqlx::Result<bool> {
    let row = sqlx::query_scalar!(
        r#"
        select 1 as one
        from webhook_events
        where id = $1
          and status in ('received', 'waiting')
        for update
        "#,
        id as _,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.is_some())
}

/// Ends the work on an event that is still open.
pub(super) async fn set_status(
    db: &mut PgConnection,
    id: WebhookEventId,
    status: EventStatus,
    error: Option<&str>,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        update webhook_events
        set status = $2, last_error = $3, processed_at = $4, attempts = attempts + 1
        where id = $1
          and status in ('received', 'waiting')
        "#,
        id as _,
        status as _,
        error,
        now,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Lets an open event wait until `next`.
pub(super) async fn set_waiting(
    db: &mut PgConnection,
    id: WebhookEventId,
    next: DateTime<Utc>,
    why: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        update webhook_events
        set status = 'waiting', attempts = attempts + 1, next_attempt_at = $2, last_error = $3
        where id = $1
          and status in ('received', 'waiting')
        "#,
        id as _,
        next,
        why,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Marks an open event as failed.
pub(super) async fn set_failed(
    db: &mut PgConnection,
    id: WebhookEventId,
    error: &str,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    set_status(db, id, EventStatus::Failed, Some(error), now).await
}

/// Events that should have been acted on: received before `quiet`, or waiting until `now`.
pub(super) async fn due(
    db: &PgPool,
    now: DateTime<Utc>,
    quiet: DateTime<Utc>,
    limit: i64,
) -> sqlx::Result<Vec<(WebhookEventId, i32)>> {
    let rows = sqlx::query!(
        r#"
        select id as "id: WebhookEventId", attempts
        from webhook_events
        where status in ('received', 'waiting')
          and next_attempt_at <= case when status = 'received' then $2::timestamptz else $1 end
        order by next_attempt_at
        limit $3
        "#,
        now,
        quiet,
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.attempts)).collect())
}

/// Up to when a gateway's list of events was read.
pub(super) async fn cursor(
    db: &PgPool,
    gateway: GatewayName,
) -> sqlx::Result<Option<DateTime<Utc>>> {
    sqlx::query_scalar!("select events_from from gateway_cursors where gateway = $1", gateway as _)
        .fetch_optional(db)
        .await
}

/// Saves up to when a gateway's list of events was read.
pub(super) async fn set_cursor(
    db: &PgPool,
    gateway: GatewayName,
    events_from: DateTime<Utc>,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        insert into gateway_cursors (gateway, events_from, updated_at)
        values ($1, $2, $3)
        on conflict (gateway) do update
        set events_from = excluded.events_from, updated_at = excluded.updated_at
        "#,
        gateway as _,
        events_from,
        now,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Opens an event again that a person had to look at; false if it is none of those.
pub(super) async fn reopen(
    db: &PgPool,
    id: WebhookEventId,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    let updated = sqlx::query!(
        r#"
        update webhook_events
        set status = 'received', next_attempt_at = $2, received_at = $2, processed_at = null
        where id = $1
          and status in ('quarantined', 'failed', 'ignored', 'processed')
        "#,
        id as _,
        now,
    )
    .execute(db)
    .await?;
    Ok(updated.rows_affected() == 1)
}

/// The newest events, of that status or all.
pub(super) async fn list(
    db: &PgPool,
    status: Option<EventStatus>,
    limit: i64,
) -> sqlx::Result<Vec<EventView>> {
    sqlx::query_as!(
        EventView,
        r#"
        select id as "id: WebhookEventId", gateway as "gateway: GatewayName", gateway_event_id,
               kind, status as "status: EventStatus", attempts, last_error, received_at,
               processed_at
        from webhook_events
        where $1::webhook_event_status is null or status = $1
        order by id desc
        limit $2
        "#,
        status as Option<EventStatus>,
        limit,
    )
    .fetch_all(db)
    .await
}
