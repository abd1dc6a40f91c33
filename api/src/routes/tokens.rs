//! Spending tokens, and what was spent.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use shared::ids::CustomerId;
use shared::tokens::{self, Consume, MAX_TOKENS, Tokens, Usage};

use super::{BARE_LIST, idempotency_key, replayed};
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
    let wish = wish(customer.id, &headers, body)?;
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

fn wish(customer_id: CustomerId, headers: &HeaderMap, body: Body) -> Result<Consume, Problem> {
    if !(1..=MAX_TOKENS).contains(&body.tokens) {
        return Err(Problem::field("tokens", &format!("must be 1 to {MAX_TOKENS}")));
    }
    if body.description.chars().count() > 255 || body.description.contains('\0') {
        return Err(Problem::field("description", "must be at most 255 characters"));
    }
    let metadata = Value::Object(body.metadata);
    let text = metadata.to_string();
    if text.len() > 8 * 1024 || text.contains("\\u0000") {
        return Err(Problem::field("metadata", "must be at most 8 KiB, without NUL"));
    }
    Ok(Consume {
        customer_id,
        principal: "customer".to_owned(),
        tokens: Tokens(body.tokens),
        description: body.description,
        metadata,
        key: idempotency_key(headers, body.idempotency_key)?,
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
