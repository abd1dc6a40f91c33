//! What went wrong at Stripe, sorted by what is to be done (docs.stripe.com/error-handling).

use serde::Deserialize;
use serde_json::value::RawValue;
use stripe_client_core::StripeClientErr;

use crate::gateways::{Advice, GatewayError, MalformedEvent};

/// Why a call brought no answer of use.
pub(super) enum Failure {
    /// Nobody answered, or not in time: the outcome is unknown.
    NoAnswer(GatewayError),
    /// Stripe refused.
    Refused(Box<Refusal>),
    /// The answer was not what was asked for.
    Unreadable(Unreadable),
    /// The id asked for is none of Stripe's.
    NoSuchId,
}

impl Failure {
    /// What Stripe answered, if it did.
    pub(super) fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::NoAnswer(_) | Self::Unreadable(_) | Self::NoSuchId => None,
        }
    }
}

/// An answer or an event that lacks what must be there. Names the place, never the value.
#[derive(Debug)]
pub(super) struct Unreadable(pub(super) String);

impl Unreadable {
    /// serde's messages may quote values: only the place is kept.
    pub(super) fn of(error: &serde_json::Error) -> Self {
        Self(format!("line {} column {}", error.line(), error.column()))
    }
}

impl From<Unreadable> for Failure {
    fn from(unreadable: Unreadable) -> Self {
        Self::Unreadable(unreadable)
    }
}

impl From<Unreadable> for GatewayError {
    fn from(unreadable: Unreadable) -> Self {
        Self::Malformed(unreadable.0)
    }
}

impl From<Unreadable> for MalformedEvent {
    fn from(unreadable: Unreadable) -> Self {
        Self(unreadable.0)
    }
}

/// Why a charge was declined, as errors and intents tell it.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Decline {
    code: Option<String>,
    #[serde(rename = "decline_code")]
    bank_code: Option<String>,
    #[serde(rename = "advice_code")]
    advice: Option<String>,
    message: Option<String>,
}

/// Stripe's word for a charge that must never be tried again.
const DO_NOT_TRY_AGAIN: &str = "do_not_try_again";

impl Decline {
    /// The bank's own code, else Stripe's. Where the bank forbids another try and its code does
    /// not say so, that counts more than the code.
    pub(super) fn failure_code(&self) -> Option<String> {
        let code = self.bank_code.as_ref().or(self.code.as_ref());
        let is_forbidden = self.advice.as_deref() == Some(DO_NOT_TRY_AGAIN);
        if is_forbidden && code.is_none_or(|code| advice(code) == Advice::Later) {
            return Some(DO_NOT_TRY_AGAIN.to_owned());
        }
        code.cloned()
    }

    /// What the customer may read, fit to be stored.
    pub(super) fn message(&self) -> Option<String> {
        let message = self.message.as_ref()?;
        Some(message.replace('\0', " ").chars().take(500).collect())
    }
}

/// An error that Stripe answered.
pub(super) struct Refusal {
    pub(super) status: u16,
    kind: Option<String>,
    param: Option<String>,
    pub(super) decline: Decline,
    /// The intent as it stands after the refusal. Holds a secret: never shown.
    pub(super) intent: Option<Box<RawValue>>,
    /// Names the call in Stripe's own logs.
    request_id: Option<String>,
    /// Stripe's own advice whether the same call may succeed.
    should_retry: Option<bool>,
    /// The answer was kept by Stripe from an earlier call with the same key.
    is_replay: bool,
}

/// `error` is read twice: flattening does not go with a raw value.
#[derive(Deserialize)]
struct Body<T> {
    error: T,
}

#[derive(Default, Deserialize)]
struct Detail {
    #[serde(rename = "type")]
    kind: Option<String>,
    param: Option<String>,
    payment_intent: Option<Box<RawValue>>,
}

impl Refusal {
    /// Reads an answer that is no success; a body that says nothing leaves the status.
    pub(super) fn read(status: u16, body: &[u8], header: impl Fn(&str) -> Option<String>) -> Self {
        let detail = serde_json::from_slice::<Body<Detail>>(body);
        let Detail { kind, param, payment_intent } =
            detail.map(|body| body.error).unwrap_or_default();
        let decline = serde_json::from_slice::<Body<Decline>>(body);
        let decline = decline.map(|body| body.error).unwrap_or_default();
        let flag = |name| header(name).and_then(|value| value.parse().ok());
        Self {
            status,
            kind,
            param,
            decline,
            intent: payment_intent,
            request_id: header("request-id"),
            should_retry: flag("stripe-should-retry"),
            is_replay: flag("idempotent-replayed") == Some(true),
        }
    }

    /// Whether Stripe failed once and keeps saying so to whoever comes with the same key.
    pub(super) fn is_saved_fault(&self) -> bool {
        self.status >= 500 && self.is_replay
    }

    /// Whether the state of the thing does not allow it.
    pub(super) fn is_of_state(&self) -> bool {
        matches!(self.class(), GatewayError::Refused { .. })
    }

    /// Whether it is this parameter that Stripe refused.
    pub(super) fn is_about(&self, param: &str) -> bool {
        (400..500).contains(&self.status) && self.param.as_deref() == Some(param)
    }

    fn word(&self) -> String {
        let word = self.decline.code.as_ref().or(self.kind.as_ref());
        word.map_or_else(|| format!("status {}", self.status), Clone::clone)
    }

    /// What is to be done. `stripe-should-retry: false` on a 5xx changes nothing: it stops an
    /// SDK's retries at once, while ours come later, with the same key, to learn the outcome.
    fn class(&self) -> GatewayError {
        let code = self.decline.code.as_deref().unwrap_or_default();
        let is_busy = matches!(code, "rate_limit" | "lock_timeout" | "idempotency_key_in_use")
            || code.ends_with("_rate_limit_exceeded");
        match self.status {
            401 | 403 => GatewayError::Misconfigured("Stripe refused our key"),
            409 | 429 | 500.. => self.unavailable(),
            _ if is_busy || self.should_retry == Some(true) => self.unavailable(),
            402 => {
                let code = self.decline.failure_code().unwrap_or_else(|| self.word());
                GatewayError::Declined { code }
            }
            404 => GatewayError::NotFound,
            _ if code == "resource_missing" => GatewayError::NotFound,
            400..=499 if is_state(code) => GatewayError::Refused { code: self.word() },
            400..=499 => GatewayError::Bug { code: self.word() },
            // Neither a success nor an error: redirects are not followed.
            _ => GatewayError::Malformed(format!("status {}", self.status)),
        }
    }

    fn unavailable(&self) -> GatewayError {
        GatewayError::Unavailable(format!("{} {}", self.status, self.word()))
    }
}

/// Whether a code tells of the thing's state and not of a wrong request.
fn is_state(code: &str) -> bool {
    code.ends_with("_unexpected_state")
        || matches!(
            code,
            "charge_already_refunded"
                | "charge_already_captured"
                | "charge_disputed"
                | "charge_not_refundable"
                | "charge_expired_for_capture"
                | "refund_disputed_payment"
                | "balance_insufficient"
                | "insufficient_funds"
                | "amount_too_small"
                | "amount_too_large"
                | "payment_method_not_available"
                | "payment_intent_incompatible_payment_method"
                | "payment_intent_mandate_invalid"
                | "intent_invalid_state"
        )
}

/// Tells a person where one is needed, once: a failure is turned into an error only where it is
/// handed on.
impl From<Failure> for GatewayError {
    fn from(failure: Failure) -> Self {
        let refusal = match failure {
            Failure::NoAnswer(error) => return error,
            Failure::Unreadable(unreadable) => return unreadable.into(),
            Failure::NoSuchId => return Self::NotFound,
            Failure::Refused(refusal) => refusal,
        };
        let error = refusal.class();
        if matches!(error, Self::Bug { .. } | Self::Misconfigured(_)) {
            tracing::error!(
                status = refusal.status,
                request_id = refusal.request_id,
                code = refusal.word(),
                param = refusal.param,
                "Stripe cannot use our request"
            );
        }
        error
    }
}

/// Says what it is, never what was sent or answered.
impl std::fmt::Debug for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoAnswer(error) => error.fmt(f),
            Self::Refused(refusal) => write!(f, "{} {}", refusal.status, refusal.word()),
            Self::Unreadable(unreadable) => write!(f, "unreadable: {}", unreadable.0),
            Self::NoSuchId => f.write_str("no id of Stripe's"),
        }
    }
}

impl StripeClientErr for Failure {
    fn deserialize_err(_quotes_values: impl std::fmt::Display) -> Self {
        Self::Unreadable(Unreadable("not the object that was asked for".to_owned()))
    }
}

/// What to do about a declined charge of a saved method (docs.stripe.com/declines/codes).
///
/// A code that is not known here may be tried on another day.
pub fn advice(failure_code: &str) -> Advice {
    match failure_code {
        "authentication_required"
        | "authentication_not_handled"
        | "payment_intent_action_required"
        | "payment_intent_authentication_failure" => Advice::Authenticate,
        DO_NOT_TRY_AGAIN
        | "card_not_supported"
        | "currency_not_supported"
        | "customer_max_payment_methods"
        | "debit_not_authorized"
        | "expired_card"
        | "expired_payment_method"
        | "fraudulent"
        | "incorrect_number"
        | "india_recurring_payment_mandate_canceled"
        | "invalid_account"
        | "invalid_card_type"
        | "invalid_expiry_month"
        | "invalid_expiry_year"
        | "invalid_number"
        | "live_mode_test_card"
        | "lost_card"
        | "merchant_blacklist"
        | "payment_intent_mandate_invalid"
        | "payment_method_bank_account_blocked"
        | "payment_method_not_available"
        | "payment_method_restricted"
        | "pickup_card"
        | "resource_missing"
        | "restricted_card"
        | "revocation_of_all_authorizations"
        | "revocation_of_authorization"
        | "security_violation"
        | "stolen_card"
        | "stop_payment_order"
        | "testmode_decline"
        | "transaction_not_allowed" => Advice::Stop,
        _ => Advice::Later,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn refusal(vector: &str) -> Refusal {
        let vector: Value = serde_json::from_str(vector).unwrap();
        let status = u16::try_from(vector["http_status"].as_u64().unwrap()).unwrap();
        let body = serde_json::to_vec(&vector["body"]).unwrap();
        Refusal::read(status, &body, |name| vector["headers"][name].as_str().map(str::to_owned))
    }

    fn answered(status: u16, code: &str) -> GatewayError {
        let body = format!(r#"{{"error":{{"type":"invalid_request_error","code":"{code}"}}}}"#);
        Refusal::read(status, body.as_bytes(), |_| None).class()
    }

    macro_rules! vector {
        ($name:literal) => {
            include_str!(concat!("../../../../tests/vectors/stripe_api_errors/", $name))
        };
    }

    #[test]
    fn every_shared_error_vector_is_sorted_as_it_says() {
        let busy = [vector!("409_idempotency_in_progress.json"), vector!("429_rate_limit.json")];
        for vector in busy {
            let class = refusal(vector).class();
            assert!(matches!(class, GatewayError::Unavailable(_)), "{class:?}");
            assert!(class.is_temporary());
        }

        let mismatch = refusal(vector!("400_idempotency_error.json")).class();
        assert!(matches!(&mismatch, GatewayError::Bug { code } if code == "idempotency_error"));
        assert!(!mismatch.is_temporary());

        for (vector, wanted, what) in [
            (
                vector!("402_authentication_required.json"),
                "authentication_required",
                Advice::Authenticate,
            ),
            (vector!("402_insufficient_funds.json"), "insufficient_funds", Advice::Later),
        ] {
            let refusal = refusal(vector);
            assert!(refusal.intent.is_some());
            let class = refusal.class();
            assert!(matches!(&class, GatewayError::Declined { code } if code == wanted));
            assert!(!class.is_temporary());
            assert_eq!(advice(wanted), what);
        }
    }

    #[test]
    fn a_refusal_by_state_is_no_bug_of_ours() {
        for code in
            ["payment_intent_unexpected_state", "charge_already_refunded", "charge_disputed"]
        {
            assert!(matches!(answered(400, code), GatewayError::Refused { .. }), "{code}");
        }
        assert!(matches!(answered(400, "parameter_unknown"), GatewayError::Bug { .. }));
    }

    #[test]
    fn other_classes_are_sorted_by_status() {
        assert!(matches!(answered(401, ""), GatewayError::Misconfigured(_)));
        assert!(matches!(answered(403, ""), GatewayError::Misconfigured(_)));
        assert!(matches!(answered(404, "resource_missing"), GatewayError::NotFound));
        assert!(matches!(answered(400, "resource_missing"), GatewayError::NotFound));
        assert!(matches!(answered(400, "lock_timeout"), GatewayError::Unavailable(_)));
        assert!(matches!(answered(503, ""), GatewayError::Unavailable(_)));
        assert!(matches!(answered(302, ""), GatewayError::Malformed(_)));
    }

    #[test]
    fn a_fault_stays_open_whatever_stripe_says_of_retries() {
        let never = |name: &str| (name == "stripe-should-retry").then(|| "false".to_owned());
        let fault = Refusal::read(500, b"<html>", never);
        assert!(matches!(fault.class(), GatewayError::Unavailable(_)));
        assert!(!fault.is_saved_fault());

        let again = |name: &str| (name == "stripe-should-retry").then(|| "true".to_owned());
        let strange = Refusal::read(400, b"{}", again);
        assert!(matches!(strange.class(), GatewayError::Unavailable(_)));
    }

    #[test]
    fn a_bank_that_forbids_another_try_is_heard() {
        let code = |decline: &str| {
            let decline = Decline {
                bank_code: Some(decline.to_owned()),
                advice: Some("do_not_try_again".to_owned()),
                ..Decline::default()
            };
            decline.failure_code().unwrap()
        };
        assert_eq!(code("generic_decline"), "do_not_try_again");
        assert_eq!(code("lost_card"), "lost_card");
        assert_eq!(advice("do_not_try_again"), Advice::Stop);
    }

    #[test]
    fn what_is_shown_of_a_refusal_holds_no_secret() {
        let refusal = refusal(vector!("402_authentication_required.json"));
        let shown = format!("{:?}", Failure::Refused(Box::new(refusal)));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
