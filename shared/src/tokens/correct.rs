//! What operators do to an account, and what a change of plan takes of it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use super::corrections::Part;
use super::ledger::{Request, system_request};
use super::lot::Source;
use super::reserve::{Asked, HoldStatus};
use super::{Tokens, store};
use crate::App;
use crate::error::Error;
use crate::ids::{CustomerId, EntryId, HoldId};

/// Who holds and takes tokens that are credited to the price of another plan.
const PLAN_CHANGE: &str = "system:plan_change";

/// An operator's correction.
#[derive(Debug, Clone)]
pub struct Correction {
    /// Whose tokens.
    pub customer_id: CustomerId,
    /// Who: `key:<api key id>`.
    pub principal: String,
    /// Why, at most 255 characters.
    pub reason: String,
    /// The operator's name for this intention; `None`: it cannot be repeated.
    pub key: Option<String>,
}

/// An account before and after a correction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Corrected {
    /// The balance after it.
    pub remaining: Tokens,
    /// What is free to spend after it.
    pub available: Tokens,
    /// What is owed after it.
    pub debt: Tokens,
    /// Whether this is the answer of an earlier request with the same key.
    pub is_replay: bool,
}

/// Takes free tokens away, exactly or not at all ([`Error::Conflict`]: what is held stays). With
/// `is_preview` it only says what would be.
pub async fn remove(
    app: &App,
    correction: &Correction,
    tokens: Tokens,
    is_preview: bool,
) -> Result<Corrected, Error> {
    correct(app, correction, Deed::Remove(tokens), is_preview).await
}

/// Lets a debt go, as far as there is one.
pub async fn forgive_debt(
    app: &App,
    correction: &Correction,
    tokens: Tokens,
    is_preview: bool,
) -> Result<Corrected, Error> {
    correct(app, correction, Deed::Forgive(tokens), is_preview).await
}

#[derive(Debug, Clone, Copy, Serialize)]
enum Deed {
    Remove(Tokens),
    Forgive(Tokens),
}

async fn correct(
    app: &App,
    correction: &Correction,
    deed: Deed,
    is_preview: bool,
) -> Result<Corrected, Error> {
    assert!(correction.reason.chars().count() <= 255, "a reason has at most 255 characters");
    let mut tx = app.db.begin().await?;
    let account = store::lock(&mut tx, correction.customer_id).await?;
    let mut account = account.ok_or(Error::NotFound("token account"))?;
    let now = app.clock.now();
    let id = EntryId::new(now);
    let key = correction.key.clone().unwrap_or_else(|| id.to_string());
    let request = Request {
        digest: Sha256::digest(json!([deed, correction.reason]).to_string()).to_vec(),
        description: correction.reason.clone(),
        ..system_request(&correction.principal, format!("correct:{key}"))
    };
    let asked = std::iter::once((correction.customer_id, &request));
    if let Some((_, made)) = store::entries::find(&mut tx, asked).await?.pop() {
        if made.request_digest != request.digest {
            return Err(Error::IdempotencyMismatch);
        }
        let (remaining, available) = (made.balance_after, made.available_after);
        let debt = store::entries::debt_after(&mut tx, correction.customer_id, made.seq).await?;
        return Ok(Corrected { remaining, available, debt, is_replay: true });
    }
    account.book_due(now);
    match deed {
        Deed::Forgive(tokens) => account.forgive(tokens, id, request, now),
        Deed::Remove(tokens) => account.remove(tokens, id, request, now).map_err(|short| {
            Error::Conflict(format!("only {} tokens are free to be taken away", short.available))
        })?,
    }
    let (remaining, available, debt) = (account.balance, account.available(now), account.debt);
    if !is_preview {
        store::save(&mut tx, &account, now).await?;
        tx.commit().await?;
    }
    Ok(Corrected { remaining, available, debt, is_replay: false })
}

/// Makes what is left of a source's lot be `tokens`, but never less than is held of it.
///
/// Joins the caller's transaction and locks the account; `key` names the reset for ever.
pub async fn reset(
    db: &mut PgConnection,
    correction: &Correction,
    (source, tokens): (Source, Tokens),
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let Some(mut account) = store::lock(db, correction.customer_id).await? else { return Ok(()) };
    let key = correction.key.clone().unwrap_or_else(|| EntryId::new(now).to_string());
    let request = Request {
        description: correction.reason.clone(),
        ..system_request(&correction.principal, format!("reset:{key}"))
    };
    let asked = std::iter::once((correction.customer_id, &request));
    if !store::entries::find(db, asked).await?.is_empty() {
        return Ok(());
    }
    let used_up = store::lots::used_up_lots(db, correction.customer_id, (source.kind, source.id));
    account.lots.extend(used_up.await?);
    account.book_due(now);
    account.reset(source, tokens, request, now);
    store::save(db, &account, now).await
}

/// Sets tokens aside that are credited to the price of another plan, as many of each lot as are
/// free, until that payment ends. Returns how many that are. Once for a hold's id.
///
/// Joins the caller's transaction and locks the account.
pub async fn reserve_for_change(
    db: &mut PgConnection,
    customer_id: CustomerId,
    hold_id: HoldId,
    parts: &[Part],
    expires_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Tokens, Error> {
    let account = store::lock(db, customer_id).await?;
    let mut account = account.ok_or(Error::NotFound("token account"))?;
    let asked = asked_by_change("reserve", hold_id, now);
    let before = std::iter::once((customer_id, &asked.request));
    if let Some((_, made)) = store::entries::find(db, before).await?.pop() {
        return Ok(Tokens::from_db(made.held));
    }
    account.book_due(now);
    let reserved = account.reserve_parts(hold_id, parts, expires_at, asked, now);
    store::save(db, &account, now).await?;
    Ok(reserved)
}

/// Takes credited tokens for good: what the hold still reserves, then what is free of their lots;
/// what is gone by then is owed. Once for a hold's id. Joins the caller's transaction.
pub async fn take_for_change(
    db: &mut PgConnection,
    customer_id: CustomerId,
    hold_id: HoldId,
    parts: &[Part],
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let account = store::lock(db, customer_id).await?;
    let mut account = account.ok_or(Error::NotFound("token account"))?;
    let asked = asked_by_change("take", hold_id, now);
    let before = std::iter::once((customer_id, &asked.request));
    if !store::entries::find(db, before).await?.is_empty() {
        return Ok(());
    }
    account.book_due(now);
    let hold = account.open_hold_of(hold_id, PLAN_CHANGE);
    account.take_parts(hold, parts, asked, now);
    store::save(db, &account, now).await
}

/// Lets go of what was set aside for a change of plan that did not come. May be repeated.
pub async fn release_for_change(
    db: &mut PgConnection,
    customer_id: CustomerId,
    hold_id: HoldId,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let Some(mut account) = store::lock(db, customer_id).await? else { return Ok(()) };
    account.book_due(now);
    if let Some(index) = account.open_hold_of(hold_id, PLAN_CHANGE) {
        let asked = asked_by_change("release", hold_id, now);
        account.close(index, HoldStatus::Released, asked, now);
        account.book_from(now, now);
    }
    store::save(db, &account, now).await
}

fn asked_by_change(what: &str, hold_id: HoldId, now: DateTime<Utc>) -> Asked {
    Asked {
        id: EntryId::new(now),
        request: system_request(PLAN_CHANGE, format!("{what}:{hold_id}")),
        is_keyed: true,
    }
}
