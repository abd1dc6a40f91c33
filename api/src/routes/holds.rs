//! Tokens set aside for work that runs.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::Duration;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use shared::Error;
use shared::ids::{CustomerId, HoldId};
use shared::tokens::{self, Held, HoldRule, HoldWish, MAX_HOLD, OpenHold, Tokens};

use super::{CUSTOMER, idempotency_key, metadata, replayed, tokens_in_range, words};
use crate::ApiState;
use crate::extract::{self, Customer, Path};
use crate::problem::Problem;

/// How long a hold runs whose caller does not say: a long answer of a model.
const DEFAULT_SECONDS: i64 = 600;

/// A hold to make; members that are not ours are ignored.
#[derive(Deserialize)]
pub(crate) struct Opened {
    tokens: u64,
    expires_in_seconds: Option<i64>,
    #[serde(default)]
    description: String,
    #[serde(default)]
    metadata: Map<String, Value>,
    #[serde(default)]
    on_expiry: HoldRule,
    idempotency_key: Option<String>,
}

/// Sets tokens aside, exactly or not at all.
pub(crate) async fn open(
    State(state): State<ApiState>,
    Customer(customer): Customer,
    headers: HeaderMap,
    extract::Json(body): extract::Json<Opened>,
) -> Result<Response, Problem> {
    let wish = OpenHold {
        customer_id: customer.id,
        principal: CUSTOMER.to_owned(),
        tokens: tokens_in_range("tokens", body.tokens)?,
        lasts: seconds(body.expires_in_seconds.unwrap_or(DEFAULT_SECONDS))?,
        on_expiry: body.on_expiry,
        description: words(body.description)?,
        metadata: metadata(body.metadata)?,
        key: idempotency_key(&headers, body.idempotency_key)?,
    };
    let held = tokens::open_hold(&state.app, &wish).await?;
    Ok(answer(StatusCode::CREATED, &held))
}

/// How far a hold is settled.
#[derive(Deserialize)]
pub(crate) struct Settled {
    tokens_total: u64,
    #[serde(default, rename = "final")]
    is_final: bool,
    idempotency_key: Option<String>,
}

/// Spends up to a total through the hold; may be repeated while tokens stream.
pub(crate) async fn settle(
    State(state): State<ApiState>,
    Customer(customer): Customer,
    Path(id): Path<HoldId>,
    headers: HeaderMap,
    extract::Json(body): extract::Json<Settled>,
) -> Result<Response, Problem> {
    let total = total("tokens_total", body.tokens_total)?;
    let wish = wish(customer.id, id, idempotency_key(&headers, body.idempotency_key)?);
    match tokens::settle(&state.app, &wish, total, body.is_final).await {
        Ok(held) => Ok(answer(StatusCode::OK, &held)),
        Err(Error::SettledShort(short)) if short.is_replay => {
            Ok(replayed(Problem::from(Error::SettledShort(short)).into_response()))
        }
        Err(error) => Err(error.into()),
    }
}

/// What is to change about a hold; each member may be left out.
#[derive(Deserialize)]
pub(crate) struct Extended {
    tokens: Option<u64>,
    expires_in_seconds: Option<i64>,
    reported_total: Option<u64>,
    idempotency_key: Option<String>,
}

/// Reserves more, runs longer, notes what was used so far; charges nothing.
pub(crate) async fn extend(
    State(state): State<ApiState>,
    Customer(customer): Customer,
    Path(id): Path<HoldId>,
    headers: HeaderMap,
    extract::Json(body): extract::Json<Extended>,
) -> Result<Response, Problem> {
    let more = body.tokens.map_or(Ok(Tokens::ZERO), |tokens| tokens_in_range("tokens", tokens))?;
    let lasts = body.expires_in_seconds.map(seconds).transpose()?;
    let reported = body.reported_total.map(|it| total("reported_total", it)).transpose()?;
    let wish = wish(customer.id, id, idempotency_key(&headers, body.idempotency_key)?);
    let held = tokens::extend(&state.app, &wish, more, lasts, reported).await?;
    Ok(answer(StatusCode::OK, &held))
}

/// Lets go of all that was not settled.
pub(crate) async fn release(
    State(state): State<ApiState>,
    Customer(customer): Customer,
    Path(id): Path<HoldId>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wish = wish(customer.id, id, idempotency_key(&headers, None)?);
    Ok(answer(StatusCode::OK, &tokens::release(&state.app, &wish).await?))
}

fn wish(customer_id: CustomerId, hold_id: HoldId, key: Option<String>) -> HoldWish {
    HoldWish { customer_id, principal: CUSTOMER.to_owned(), hold_id, key }
}

fn seconds(seconds: i64) -> Result<Duration, Problem> {
    if (1..=MAX_HOLD.num_seconds()).contains(&seconds) {
        Ok(Duration::seconds(seconds))
    } else {
        let detail = format!("must be 1 to {}", MAX_HOLD.num_seconds());
        Err(Problem::field("expires_in_seconds", &detail))
    }
}

/// A total may be 0: nothing was used.
fn total(field: &str, tokens: u64) -> Result<Tokens, Problem> {
    if tokens == 0 { Ok(Tokens::ZERO) } else { tokens_in_range(field, tokens) }
}

fn answer(status: StatusCode, answer: &Held) -> Response {
    let hold = &answer.hold;
    let body = json!({
        "hold_id": hold.id,
        "tokens_held": hold.held,
        "tokens_settled": hold.settled,
        "tokens_available": answer.available,
        "expires_at": hold.expires_at,
        "status": hold.status,
    });
    let response = (status, Json(body)).into_response();
    if answer.is_replay { replayed(response) } else { response }
}
