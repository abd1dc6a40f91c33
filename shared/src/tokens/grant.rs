//! Giving tokens, and saying from when and until when they may be spent.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::ledger::{GrantSource, Lot, Source, Taken};
use super::{Tokens, store};
use crate::error::Error;
use crate::ids::{CustomerId, GrantId, PaymentId, SubscriptionId};

/// A lot that a payment entitles to.
#[derive(Debug, Clone)]
pub struct NewLot {
    /// The payment that bought it.
    pub payment_id: PaymentId,
    /// Number of the lot within the payment; yearly plans grant in parts.
    pub part: i32,
    /// How many tokens.
    pub tokens: Tokens,
    /// Lower is drawn first: periods 10, packs 20.
    pub priority: i16,
    /// From when it counts.
    pub opens_at: DateTime<Utc>,
    /// Until when it counts; `None`: for ever.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Gives the customer a lot, once per payment and part however often it is called.
///
/// Joins the caller's transaction and locks the account.
pub async fn grant(
    db: &mut PgConnection,
    customer_id: CustomerId,
    new: &NewLot,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    store::ensure(db, customer_id, now).await?;
    let mut account =
        store::lock(db, customer_id).await?.ok_or(Error::NotFound("token account"))?;
    account.book_due(now);
    let lot = lot(new, now);
    if store::insert_lot(db, customer_id, &lot).await? {
        account.add_lot(lot, now);
    }
    store::save(db, &account, now).await
}

fn lot(new: &NewLot, now: DateTime<Utc>) -> Lot {
    let kind = GrantSource::Payment;
    Lot {
        id: GrantId::new(now),
        source: Source { kind, id: new.payment_id.uuid(), part: new.part },
        priority: new.priority,
        tokens: new.tokens,
        remaining: new.tokens,
        expired: Tokens::ZERO,
        taken: Taken::default(),
        frozen_at: None,
        opens_at: new.opens_at,
        is_opened: false,
        expires_at: new.expires_at,
        created_at: now,
    }
}

/// Whether, and until when, the customer may spend lots that expire.
#[derive(Debug, Clone, Copy)]
pub struct Access {
    /// The subscription whose terms hold.
    pub subscription_id: SubscriptionId,
    /// Whether it allows spending.
    pub is_active: bool,
    /// Its end; `None`: no limit.
    pub spendable_until: Option<DateTime<Utc>>,
}

/// Writes on the account what the subscription allows, so that spending reads nothing else.
pub async fn set_access(
    db: &mut PgConnection,
    customer_id: CustomerId,
    access: &Access,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    store::ensure(db, customer_id, now).await?;
    store::set_access(db, customer_id, access, now).await
}
