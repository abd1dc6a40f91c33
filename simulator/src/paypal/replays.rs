//! PayPal's memory of request ids.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::PayPalError;

/// What was asked with a request id, and the object it made once there is one.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    path: String,
    body: Value,
    begun_at: i64,
    kept_seconds: i64,
    made: Option<String>,
}

/// The request ids of the account, each within its family of calls.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Replays {
    entries: HashMap<String, Entry>,
}

/// A request id as it was used.
#[derive(Debug, Clone)]
pub(crate) struct Use {
    /// Family and id: ids of different families never meet.
    slot: String,
    path: String,
    kept_seconds: i64,
    /// The issue that says the id was used for something else.
    clash: &'static str,
}

impl Use {
    /// Names the slot of a request id, or `None` for calls that heed none.
    pub(super) fn of(path: &str, segments: &[&str], key: &str) -> Option<Self> {
        const HOUR: i64 = 3600;
        let (family, kept_seconds, clash) = match segments {
            ["v2", "checkout", "orders"] => ("order", 6 * HOUR, "DUPLICATE_REQUEST_ID"),
            ["v2", "checkout", "orders", _, "capture"] => {
                ("capture", 6 * HOUR, "DUPLICATE_REQUEST_ID")
            }
            ["v2", "payments", "captures", _, "refund"] => {
                ("refund", 45 * 24 * HOUR, "PAYPAL_REQUEST_ID_PREVIOUSLY_USED")
            }
            ["v3", "vault", _] => ("vault", 3 * HOUR, "PAYPAL_REQUEST_ID_PREVIOUSLY_USED"),
            _ => return None,
        };
        Some(Use { slot: format!("{family} {key}"), path: path.into(), kept_seconds, clash })
    }
}

impl Replays {
    /// Takes a request id. Gives the object an earlier call made with it, if there was one.
    pub(super) fn begin(
        &mut self,
        used: &Use,
        body: &Value,
        now: i64,
    ) -> Result<Option<String>, PayPalError> {
        let fresh = |entry: &&Entry| now - entry.begun_at < entry.kept_seconds;
        let Some(entry) = self.entries.get(&used.slot).filter(fresh) else {
            let entry = Entry {
                path: used.path.clone(),
                body: body.clone(),
                begun_at: now,
                kept_seconds: used.kept_seconds,
                made: None,
            };
            self.entries.insert(used.slot.clone(), entry);
            return Ok(None);
        };
        if entry.path != used.path || entry.body != *body {
            let text = "The PayPal-Request-Id was used before with a different request.";
            return Err(PayPalError::unprocessable(used.clash, text));
        }
        entry.made.clone().map(Some).ok_or_else(PayPalError::in_progress)
    }

    /// Frees the request ids of calls that made nothing.
    pub(super) fn forget_unfinished(&mut self) {
        self.entries.retain(|_, entry| entry.made.is_some());
    }

    /// Ends the first call with a request id: what it made is kept, a failure is forgotten.
    pub(super) fn end(&mut self, used: &Use, made: Option<String>) {
        match made {
            None => {
                self.entries.remove(&used.slot);
            }
            Some(made) => {
                if let Some(entry) = self.entries.get_mut(&used.slot) {
                    entry.made = Some(made);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn used() -> Use {
        let segments = ["v2", "checkout", "orders"];
        Use::of("/v2/checkout/orders", &segments, "order-1").unwrap()
    }

    #[test]
    fn a_request_id_gives_the_same_object_for_six_hours() {
        let mut replays = Replays::default();
        assert_eq!(replays.begin(&used(), &json!({}), 0).unwrap(), None);
        replays.end(&used(), Some("ORDER".into()));

        let within = replays.begin(&used(), &json!({}), 6 * 3600 - 1).unwrap();
        let after = replays.begin(&used(), &json!({}), 6 * 3600).unwrap();

        assert_eq!(within.as_deref(), Some("ORDER"));
        assert_eq!(after, None);
    }

    #[test]
    fn a_request_id_is_refused_for_another_body_and_while_in_use() {
        let mut replays = Replays::default();
        replays.begin(&used(), &json!({}), 0).unwrap();

        let meanwhile = replays.begin(&used(), &json!({}), 1).unwrap_err();
        let other = replays.begin(&used(), &json!({ "a": 1 }), 1).unwrap_err();

        assert_eq!(meanwhile.issue(), "PREVIOUS_REQUEST_IN_PROGRESS");
        assert_eq!(other.issue(), "DUPLICATE_REQUEST_ID");
    }
}
