//! Setting tokens aside for work that runs, and settling it while it runs.

use chrono::Duration;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Tokens;
use super::ledger::Request;
use super::lot::InsufficientTokens;
use super::reserve::{Asked, HoldRule, HoldState, NewHold, Step};
use super::writer::{Deed, Done, Wish};
use crate::App;
use crate::error::Error;
use crate::ids::{CustomerId, EntryId, HoldId};

/// A wish to set tokens aside.
#[derive(Debug, Clone)]
pub struct OpenHold {
    /// Whose tokens.
    pub customer_id: CustomerId,
    /// Who asks: `customer`, or `key:<api key id>`. Only he may go on with the hold.
    pub principal: String,
    /// How many, 1 … 10¹².
    pub tokens: Tokens,
    /// How long it runs, at most 24 h.
    pub lasts: Duration,
    /// What becomes of it if nobody ends it.
    pub on_expiry: HoldRule,
    /// At most 255 characters.
    pub description: String,
    /// A JSON object of the caller's own.
    pub metadata: Value,
    /// The caller's name for this intention; `None`: it cannot be repeated.
    pub key: Option<String>,
}

/// A wish to go on with a hold.
#[derive(Debug, Clone)]
pub struct HoldWish {
    /// Whose tokens.
    pub customer_id: CustomerId,
    /// Who asks.
    pub principal: String,
    /// The hold.
    pub hold_id: HoldId,
    /// The caller's name for this intention.
    pub key: Option<String>,
}

/// What a hold's caller is answered.
#[derive(Debug, Clone)]
pub struct Held {
    /// The hold.
    pub hold: HoldState,
    /// What is free to spend after it.
    pub available: Tokens,
    /// Whether this is the answer of an earlier request with the same key.
    pub is_replay: bool,
}

/// A settle that booked all there was, which was too little.
#[derive(Debug, Clone)]
pub struct SettledShort {
    /// What was asked for beyond what was settled before, and what was booked of it.
    pub short: InsufficientTokens,
    /// The hold after it.
    pub hold: HoldState,
    /// Whether this is the answer of an earlier request with the same key.
    pub is_replay: bool,
}

/// Sets tokens aside, exactly or not at all. With a key it may be repeated: one effect.
pub async fn open_hold(app: &App, wish: &OpenHold) -> Result<Held, Error> {
    let now = app.clock.now();
    let new = NewHold {
        id: HoldId::new(now),
        tokens: wish.tokens,
        on_expiry: wish.on_expiry,
        lasts: wish.lasts,
    };
    let seconds = wish.lasts.num_seconds();
    let what =
        json!(["open", wish.tokens, seconds, wish.on_expiry, wish.description, wish.metadata]);
    let id = EntryId::new(now);
    let mut request = request(&wish.principal, wish.key.as_deref(), id, "hold", &what);
    request.description.clone_from(&wish.description);
    request.metadata.clone_from(&wish.metadata);
    let asked = Asked { id, request, is_keyed: wish.key.is_some() };
    submit(app, wish.customer_id, asked, Deed::Open(new)).await
}

/// Reserves more, runs longer, notes what was used so far; charges nothing until it is settled or
/// ends by its rule `settle_reported`.
pub async fn extend(
    app: &App,
    wish: &HoldWish,
    tokens: Tokens,
    lasts: Option<Duration>,
    reported: Option<Tokens>,
) -> Result<Held, Error> {
    let seconds = lasts.map(|lasts| lasts.num_seconds());
    let what = json!(["extend", wish.hold_id, tokens, seconds, reported]);
    step(app, wish, &what, Step::Extend { tokens, lasts, reported }).await
}

/// Spends up to `total` through the hold; a total that was reached before changes nothing, so it
/// may be repeated. Final: what is left is free again.
///
/// [`Error::SettledShort`] where too little was there: all there was is booked.
pub async fn settle(
    app: &App,
    wish: &HoldWish,
    total: Tokens,
    is_final: bool,
) -> Result<Held, Error> {
    let what = json!(["settle", wish.hold_id, total, is_final]);
    step(app, wish, &what, Step::Settle { total, is_final }).await
}

/// Lets go of all that was not settled. May be repeated.
pub async fn release(app: &App, wish: &HoldWish) -> Result<Held, Error> {
    step(app, wish, &json!(["release", wish.hold_id]), Step::Release).await
}

async fn step(app: &App, wish: &HoldWish, what: &Value, step: Step) -> Result<Held, Error> {
    let id = EntryId::new(app.clock.now());
    let request = request(&wish.principal, wish.key.as_deref(), id, "step", what);
    let asked = Asked { id, request, is_keyed: wish.key.is_some() };
    submit(app, wish.customer_id, asked, Deed::Step(wish.hold_id, step)).await
}

fn request(principal: &str, key: Option<&str>, id: EntryId, route: &str, what: &Value) -> Request {
    let key = key.map_or_else(|| id.to_string(), str::to_owned);
    Request {
        principal: principal.to_owned(),
        operation_key: format!("{route}:{key}"),
        digest: Sha256::digest(what.to_string()).to_vec(),
        description: String::new(),
        metadata: json!({}),
    }
}

async fn submit(
    app: &App,
    customer_id: CustomerId,
    asked: Asked,
    deed: Deed,
) -> Result<Held, Error> {
    let wish = Wish { customer_id, asked, deed };
    match app.writers.submit(wish)?.answer().await? {
        Done::Held(held) => Ok(held),
        Done::Consumed(_) => Err(Error::Bug("a hold was answered as a spend")),
    }
}
