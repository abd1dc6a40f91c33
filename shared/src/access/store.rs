//! SQL of API keys.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

/// A key as stored.
pub(super) struct StoredKey {
    pub(super) name: String,
    pub(super) secret_sha256: Vec<u8>,
    pub(super) scopes: Vec<String>,
    pub(super) expires_at: Option<DateTime<Utc>>,
    pub(super) revoked_at: Option<DateTime<Utc>>,
}

/// Inserts a key of `named.0`, called `named.1`.
pub(super) async fn insert_key(
    db: &PgPool,
    named: (&str, &str),
    secret_sha256: &[u8],
    scopes: &[String],
    expires_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        insert into api_keys (id, name, secret_sha256, scopes, expires_at, created_at)
        values ($1, $2, $3, $4, $5, $6)
        "#,
        named.0,
        named.1,
        secret_sha256,
        scopes,
        expires_at,
        now,
    )
    .execute(db)
    .await
    .map(drop)
}

/// The key of that public part.
pub(super) async fn find_key(db: &PgPool, id: &str) -> sqlx::Result<Option<StoredKey>> {
    sqlx::query_as!(
        StoredKey,
        "select name, secret_sha256, scopes, expires_at, revoked_at from api_keys where id = $1",
        id,
    )
    .fetch_optional(db)
    .await
}

/// Marks a key as revoked; false if there is none.
pub(super) async fn revoke_key(db: &PgPool, id: &str, now: DateTime<Utc>) -> sqlx::Result<bool> {
    let updated = sqlx::query!(
        "update api_keys set revoked_at = coalesce(revoked_at, $2) where id = $1",
        id,
        now,
    )
    .execute(db)
    .await?;
    Ok(updated.rows_affected() == 1)
}
