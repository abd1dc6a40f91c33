//! Spending tokens, and what was spent.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use shared::ids::CustomerId;
use shared::tokens::{self, Consume, Consumed, Lot, Tokens, Usage};

use super::{BARE_LIST, CUSTOMER, idempotency_key, metadata, replayed, tokens_in_range, words};
use crate::ApiState;
use crate::extract::{self, Customer};
use crate::problem::Problem;

/// A wish to spend; members that are not ours are ignored.
#[derive(Deserialize)]
pub(crate) struct Body {
    tokens: u64,
    #[serde(default)]
    description: String,
    #[serde(default)]
    metadata: Map<String, Value>,
    idempotency_key: Option<String>,
}

/// Spends tokens, exactly or not at all; with a key it may be repeated.
pub(crate) async fn consume(
    State(state): State<ApiState>,
    Customer(customer): Customer,
    headers: HeaderMap,
    extract::Json(body): extract::Json<Body>,
) -> Result<Response, Problem> {
    let key = idempotency_key(&headers, body.idempotency_key.clone())?;
    let wish = wish(customer.id, body, key)?;
    let consumed = tokens::consume(&state.app, &wish).await?;
    let answer = Json(json!({
        "message": "Tokens consumed successfully",
        "usage_id": consumed.usage_id,
        "tokens_consumed": consumed.tokens,
        "tokens_remaining": consumed.remaining,
        "tokens_available": consumed.available,
        "subscription_active": consumed.available > Tokens::ZERO,
    }));
    let answer = answer.into_response();
    Ok(if consumed.is_replay { replayed(answer) } else { answer })
}

fn wish(customer_id: CustomerId, body: Body, key: Option<String>) -> Result<Consume, Problem> {
    Ok(Consume {
        customer_id,
        principal: CUSTOMER.to_owned(),
        tokens: tokens_in_range("tokens", body.tokens)?,
        description: words(body.description)?,
        metadata: metadata(body.metadata)?,
        key,
    })
}

/// Most spends of one batch.
const BATCH: usize = 500;

/// Spends that have nothing to do with each other.
#[derive(Deserialize)]
pub(crate) struct Batch {
    items: Vec<Value>,
    idempotency_key: Option<String>,
}

/// Spends each item for itself, in order; one that is refused or malformed does not stop the
/// others. An item without a key is named by the batch's key and its place.
pub(crate) async fn consume_batch(
    State(state): State<ApiState>,
    Customer(customer): Customer,
    headers: HeaderMap,
    extract::Json(body): extract::Json<Batch>,
) -> Result<Json<Value>, Problem> {
    if !(1..=BATCH).contains(&body.items.len()) {
        return Err(Problem::field("items", &format!("must be 1 to {BATCH} items")));
    }
    let key = idempotency_key(&headers, body.idempotency_key)?;
    let items: Vec<_> = body
        .items
        .into_iter()
        .enumerate()
        .map(|(index, item)| batch_item(customer.id, item, key.as_deref(), index))
        .collect();
    let wishes: Vec<Consume> =
        items.iter().filter_map(|item| item.as_ref().ok()).cloned().collect();
    let mut verdicts = tokens::consume_all(&state.app, &wishes).await.into_iter();
    let results: Vec<Value> = items
        .into_iter()
        .map(|item| match item.map(|_| verdicts.next()) {
            Ok(Some(Ok(consumed))) => item_body(&consumed),
            Ok(Some(Err(error))) => problem_body(&Problem::from(error)),
            Ok(None) => problem_body(&Problem::unavailable()),
            Err(problem) => problem_body(&problem),
        })
        .collect();
    Ok(Json(json!({ "results": results })))
}

fn batch_item(
    customer_id: CustomerId,
    item: Value,
    batch_key: Option<&str>,
    index: usize,
) -> Result<Consume, Problem> {
    let body: Body = serde_json::from_value(item).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, "invalid_request", error.to_string())
    })?;
    let own = idempotency_key(&HeaderMap::new(), body.idempotency_key.clone())?;
    let key = own.or_else(|| batch_key.map(|key| format!("batch:{key}:{index}")));
    wish(customer_id, body, key)
}

fn item_body(consumed: &Consumed) -> Value {
    json!({
        "status": 200,
        "usage_id": consumed.usage_id,
        "tokens_consumed": consumed.tokens,
        "tokens_remaining": consumed.remaining,
        "tokens_available": consumed.available,
        "replayed": consumed.is_replay,
    })
}

fn problem_body(problem: &Problem) -> Value {
    json!({ "status": problem.status().as_u16(), "problem": problem.body() })
}

/// What is there, what is set aside, and from which lots it will be drawn.
pub(crate) async fn balance(
    State(state): State<ApiState>,
    Customer(customer): Customer,
) -> Result<Json<Value>, Problem> {
    let balance = tokens::balance(&state.app, customer.id).await?;
    let lots: Vec<Value> = balance.lots.iter().map(lot_body).collect();
    let holds: Vec<Value> = balance
        .holds
        .iter()
        .map(|hold| {
            // A service's hold is seen, but its id would be of no use.
            let is_own = hold.principal == CUSTOMER;
            json!({
                "hold_id": is_own.then_some(hold.state.id),
                "tokens_held": hold.state.held,
                "tokens_settled": hold.state.settled,
                "expires_at": hold.state.expires_at,
            })
        })
        .collect();
    Ok(Json(json!({
        "tokens_remaining": balance.remaining,
        "tokens_held": balance.held,
        "tokens_frozen": balance.frozen,
        "tokens_available": balance.available,
        "debt": balance.debt,
        "grants": lots,
        "holds": holds,
        "runs_out_at": balance.runs_out_at,
    })))
}

/// One lot on the wire.
fn lot_body(lot: &Lot) -> Value {
    json!({
        "id": lot.id,
        "source": lot.source.kind.as_str(),
        "tokens": lot.tokens,
        "remaining": lot.remaining,
        "held": lot.held,
        "is_frozen": lot.frozen_at.is_some(),
        "opens_at": lot.opens_at,
        "is_open": lot.is_opened,
        "expires_at": lot.expires_at,
        "priority": lot.priority,
    })
}

/// The newest hundred spends.
pub(crate) async fn usage(
    State(state): State<ApiState>,
    Customer(customer): Customer,
) -> Result<Json<Vec<Value>>, Problem> {
    let usage = tokens::list_usage(&state.app, customer.id, BARE_LIST).await?;
    Ok(Json(usage.iter().map(usage_body).collect()))
}

/// One spend on the wire.
fn usage_body(usage: &Usage) -> Value {
    json!({
        "id": usage.id,
        "subscription": usage.subscription_id,
        "user_email": usage.email,
        "plan_name": usage.plan_name,
        "used_tokens": usage.tokens,
        "usage_date": usage.created_at,
        "description": usage.description,
        "metadata": usage.metadata,
        "created_at": usage.created_at,
    })
}
