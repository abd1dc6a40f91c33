//! Stripe's memory of idempotency keys.

use std::collections::HashMap;

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::StripeError;
use super::form::Params;

/// Keys may be forgotten after a day; here they always are.
const KEPT_SECONDS: i64 = 24 * 3600;

/// Longer keys are refused.
const LONGEST_KEY: usize = 255;

/// What came of the first call with a key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Saved {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) request_id: String,
}

/// What was asked with a key, and the answer once there is one.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    path: String,
    params: Params,
    begun_at: i64,
    saved: Option<Saved>,
}

/// The keys of the account.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Keys {
    entries: HashMap<String, Entry>,
}

/// What a key tells us to do.
#[derive(Debug)]
pub(crate) enum Begun {
    /// Go ahead; the key is taken until `save` or `forget`.
    First,
    /// Answer this again.
    Again(Saved),
}

impl Keys {
    /// Takes a key, or says why it cannot be had.
    pub(crate) fn begin(
        &mut self,
        key: &str,
        path: &str,
        params: &Params,
        now: i64,
    ) -> Result<Begun, StripeError> {
        if key.len() > LONGEST_KEY {
            let text = format!("Idempotency-Key must be at most {LONGEST_KEY} characters.");
            return Err(StripeError::invalid(text));
        }
        let fresh = |entry: &&Entry| now - entry.begun_at < KEPT_SECONDS;
        let Some(entry) = self.entries.get(key).filter(fresh) else {
            let entry =
                Entry { path: path.into(), params: params.clone(), begun_at: now, saved: None };
            self.entries.insert(key.into(), entry);
            return Ok(Begun::First);
        };
        if entry.path != path {
            return Err(StripeError::idempotency(format!(
                "Keys for idempotent requests can only be used for the same endpoint they were \
                 first used for ('{}' vs '{path}'). Try using a key other than '{key}' if you \
                 meant to execute a different request.",
                entry.path
            )));
        }
        if entry.params != *params {
            return Err(StripeError::idempotency(format!(
                "Keys for idempotent requests can only be used with the same parameters they were \
                 first used with. Try using a key other than '{key}' if you meant to execute a \
                 different request."
            )));
        }
        entry.saved.clone().map(Begun::Again).ok_or_else(StripeError::in_progress)
    }

    /// Remembers the answer to a key's first call.
    pub(crate) fn save(&mut self, key: &str, status: StatusCode, body: Value, request_id: &str) {
        if let Some(entry) = self.entries.get_mut(key) {
            let request_id = request_id.to_owned();
            entry.saved = Some(Saved { status: status.as_u16(), body, request_id });
        }
    }

    /// Frees the keys of calls that have no answer.
    pub(super) fn forget_unfinished(&mut self) {
        self.entries.retain(|_, entry| entry.saved.is_some());
    }

    /// Frees a key whose call did not begin to execute.
    pub(crate) fn forget(&mut self, key: &str) {
        self.entries.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_forgotten_after_a_day() {
        let mut keys = Keys::default();
        let params = Params::default();
        assert!(matches!(keys.begin("k", "/v1/x", &params, 0), Ok(Begun::First)));
        keys.save("k", StatusCode::OK, Value::Null, "req_1");

        let within = keys.begin("k", "/v1/x", &params, KEPT_SECONDS - 1);
        let after = keys.begin("k", "/v1/x", &params, KEPT_SECONDS);

        assert!(matches!(within, Ok(Begun::Again(_))));
        assert!(matches!(after, Ok(Begun::First)));
    }

    #[test]
    fn a_key_in_use_is_refused_until_its_answer_is_known() {
        let mut keys = Keys::default();
        let params = Params::default();
        assert!(matches!(keys.begin("k", "/v1/x", &params, 0), Ok(Begun::First)));

        let second = keys.begin("k", "/v1/x", &params, 1).unwrap_err();

        assert_eq!(second.status, StatusCode::CONFLICT);
    }
}
