//! Handlers, a file a noun. Here our words meet the wire's.

pub(crate) mod operations;
pub(crate) mod payments;
pub(crate) mod plans;
pub(crate) mod subscription;
pub(crate) mod tokens;
pub(crate) mod webhooks;

use serde_json::Value;

/// The user's id as old front ends read it: a number where it is a canonical integer.
fn user(external_id: &str) -> Value {
    match external_id.parse::<i64>() {
        Ok(number) if number.to_string() == external_id => Value::from(number),
        Ok(_) | Err(_) => Value::from(external_id),
    }
}

/// Rows of a list that is answered as a bare array.
const BARE_LIST: i64 = 100;
