//! Making a payment's lots agree with what its refunds and disputes say.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::lot::GrantSource;
use super::store;
use super::take_back::{Adapted, Entitlement};
use crate::error::Error;
use crate::ids::CustomerId;

/// Takes back, gives back, freezes or thaws the lots of a payment until they agree with its facts.
///
/// Joins the caller's transaction and locks the account: the last lock before its commit. The
/// facts are absolute, so it may be repeated; `why` (at most 255 characters) stands on the
/// entries. A payment without lots is left as it is.
pub async fn adapt(
    db: &mut PgConnection,
    customer_id: CustomerId,
    entitlement: &Entitlement,
    why: &str,
    now: DateTime<Utc>,
) -> Result<Adapted, Error> {
    assert!(why.chars().count() <= 255, "an entry's description has at most 255 characters");
    let Some(mut account) = store::lock(db, customer_id).await? else {
        return Ok(Adapted::default());
    };
    let source = (GrantSource::Payment, entitlement.payment_id.uuid());
    let used_up = store::lots::used_up_lots(db, customer_id, source).await?;
    account.lots.extend(used_up);
    let adapted = account.adapt(entitlement, why, now);
    store::lots::save_adapted(db, &account, entitlement.payment_id).await?;
    store::save(db, &account, now).await?;
    Ok(adapted)
}
