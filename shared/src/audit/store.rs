//! SQL of the audit log.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use super::Deed;
use crate::ids::AuditId;

/// Inserts a deed.
pub(super) async fn insert(db: &PgPool, deed: &Deed<'_>, now: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        insert into audit_log (id, actor, action, subject, reason, after, request_id, created_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8)
        "#,
        AuditId::new(now) as _,
        deed.actor,
        deed.action,
        deed.subject,
        deed.reason,
        deed.asked,
        deed.request_id,
        now,
    )
    .execute(db)
    .await
    .map(drop)
}
