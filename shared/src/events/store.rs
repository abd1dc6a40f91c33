//! SQL of events.

use sqlx::PgConnection;
use uuid::Uuid;

use super::Event;
use crate::ids::EventId;

/// Inserts them all with one statement.
pub(super) async fn insert(
    db: &mut PgConnection,
    ids: &[EventId],
    events: &[Event],
) -> sqlx::Result<()> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
    let customers: Vec<Uuid> = events.iter().map(|event| event.customer_id.uuid()).collect();
    let kinds: Vec<String> = events.iter().map(|event| event.kind.as_str().to_owned()).collect();
    let actors: Vec<String> = events.iter().map(|event| event.actor.clone()).collect();
    let subjects: Vec<Option<Uuid>> = events.iter().map(|event| event.subject_id).collect();
    let before: Vec<_> = events.iter().map(|event| event.before.clone()).collect();
    let after: Vec<_> = events.iter().map(|event| event.after.clone()).collect();
    let amounts: Vec<i64> =
        events.iter().map(|event| event.mrr.map_or(0, |(_, money)| money.minor)).collect();
    let currencies: Vec<Option<String>> =
        events.iter().map(|event| event.mrr.map(|(_, money)| money.currency.to_string())).collect();
    let movements: Vec<Option<String>> = events
        .iter()
        .map(|event| event.mrr.map(|(movement, _)| movement.as_str().to_owned()))
        .collect();
    let is_public: Vec<bool> = events.iter().map(|event| event.kind.is_public()).collect();
    let times: Vec<_> = events.iter().map(|event| event.at).collect();
    sqlx::query!(
        r#"
        insert into events
            (customer_id, id, kind, actor, subject_id, before, after, mrr_minor, mrr_currency,
             mrr_movement, is_public, created_at)
        select t.* from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::uuid[],
                    $6::jsonb[], $7::jsonb[], $8::bigint[], $9::text[], $10::text[],
                    $11::boolean[], $12::timestamptz[])
            as t (customer_id, id, kind, actor, subject_id, before, after, mrr_minor,
                  mrr_currency, mrr_movement, is_public, created_at)
        "#,
        &customers,
        &ids,
        &kinds,
        &actors,
        &subjects as &[Option<Uuid>],
        &before,
        &after,
        &amounts,
        &currencies as &[Option<String>],
        &movements as &[Option<String>],
        &is_public,
        &times,
    )
    .execute(db)
    .await
    .map(drop)
}
