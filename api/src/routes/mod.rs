//! Handlers, a file a noun. Here our words meet the wire's.

pub(crate) mod admin;
pub(crate) mod holds;
pub(crate) mod methods;
pub(crate) mod operations;
pub(crate) mod payments;
pub(crate) mod plans;
pub(crate) mod subscription;
pub(crate) mod tokens;
pub(crate) mod top_up;
pub(crate) mod webhooks;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use serde_json::{Map, Value};
use shared::tokens::{MAX_TOKENS, Tokens};

use crate::problem::Problem;

/// The user's id as old front ends read it: a number where it is a canonical integer.
fn user(external_id: &str) -> Value {
    match external_id.parse::<i64>() {
        Ok(number) if number.to_string() == external_id => Value::from(number),
        Ok(_) | Err(_) => Value::from(external_id),
    }
}

/// Who a customer is to the ledger: his keys and holds are his own.
const CUSTOMER: &str = "customer";

/// Tokens that a request names: at least one.
fn tokens_in_range(field: &str, tokens: u64) -> Result<Tokens, Problem> {
    if (1..=MAX_TOKENS).contains(&tokens) {
        Ok(Tokens(tokens))
    } else {
        Err(Problem::field(field, &format!("must be 1 to {MAX_TOKENS}")))
    }
}

/// A caller's own words on an entry.
fn words(text: String) -> Result<String, Problem> {
    if text.chars().count() > 255 || text.contains('\0') {
        return Err(Problem::field("description", "must be at most 255 characters, without NUL"));
    }
    Ok(text)
}

/// A caller's own members on an entry.
fn metadata(members: Map<String, Value>) -> Result<Value, Problem> {
    let metadata = Value::Object(members);
    let text = metadata.to_string();
    if text.len() > 8 * 1024 || text.contains("\\u0000") {
        return Err(Problem::field("metadata", "must be at most 8 KiB, without NUL"));
    }
    Ok(metadata)
}

/// Rows of a list that is answered as a bare array.
const BARE_LIST: i64 = 100;

/// The caller's key, from header or body; two that differ are refused.
fn idempotency_key(
    headers: &HeaderMap,
    in_body: Option<String>,
) -> Result<Option<String>, Problem> {
    let wrong = |detail| Problem::field("idempotency_key", detail);
    let mut values = headers.get_all("idempotency-key").iter();
    let in_header = values
        .next()
        .map(|value| value.to_str().map(str::to_owned))
        .transpose()
        .map_err(|_| wrong("must be printable ASCII"))?;
    if values.next().is_some() {
        return Err(wrong("was sent twice"));
    }
    let key = match (in_header, in_body) {
        (Some(header), Some(body)) if header != body => {
            return Err(wrong("differs between header and body"));
        }
        (Some(key), _) | (None, Some(key)) => key,
        (None, None) => return Ok(None),
    };
    let is_printable = key.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if !(1..=255).contains(&key.len()) || !is_printable {
        return Err(wrong("must be 1 to 255 printable ASCII characters"));
    }
    Ok(Some(key))
}

/// Marks an answer to a request whose key had been answered before.
fn replayed(mut answer: Response) -> Response {
    let name = HeaderName::from_static("idempotent-replayed");
    answer.headers_mut().insert(name, HeaderValue::from_static("true"));
    answer
}
