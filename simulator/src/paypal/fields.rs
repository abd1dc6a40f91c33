//! Reads JSON bodies field by field, refusing what the schema refuses.

use serde_json::{Value, json};

use super::error::PayPalError;
use crate::money::{self, BadDecimal};

/// An amount as PayPal counts it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Amount {
    pub(crate) minor: i64,
    pub(crate) currency: String,
}

impl Amount {
    pub(crate) fn json(&self) -> Value {
        json!({ "currency_code": self.currency, "value": self.value() })
    }

    /// Returns the decimal with exactly the currency's places.
    pub(crate) fn value(&self) -> String {
        let decimals = money::paypal_decimals(&self.currency).expect("it was checked when read");
        money::to_decimal(self.minor, decimals)
    }

    /// Returns another amount of the same currency.
    pub(crate) fn of(&self, minor: i64) -> Self {
        Amount { minor, currency: self.currency.clone() }
    }
}

/// Reads an optional text of at most `longest` characters.
pub(super) fn text(
    body: &Value,
    pointer: &str,
    longest: usize,
) -> Result<Option<String>, PayPalError> {
    match body.pointer(pointer) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() || text.chars().count() > longest => {
            let limit = format!("The length must be between 1 and {longest}.");
            Err(PayPalError::invalid("INVALID_STRING_LENGTH", pointer, &limit))
        }
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(PayPalError::invalid(
            "INVALID_PARAMETER_SYNTAX",
            pointer,
            "The value of a field does not conform to the expected format.",
        )),
    }
}

/// Reads a text that must be there.
pub(super) fn required(body: &Value, pointer: &str, longest: usize) -> Result<String, PayPalError> {
    text(body, pointer, longest)?.ok_or_else(|| {
        let description = "A required field is missing.";
        PayPalError::invalid("MISSING_REQUIRED_PARAMETER", pointer, description)
    })
}

/// Reads `{currency_code, value}`; only positive amounts in a currency PayPal takes.
pub(super) fn amount(body: &Value, pointer: &str) -> Result<Amount, PayPalError> {
    let currency = required(body, &format!("{pointer}/currency_code"), 3)?;
    let field = format!("{pointer}/value");
    let value = required(body, &field, 32)?;
    let Some(decimals) = money::paypal_decimals(&currency) else {
        let text = "Currency code is not currently supported.";
        let field = format!("{pointer}/currency_code");
        return Err(PayPalError::unprocessable_field("CURRENCY_NOT_SUPPORTED", &field, text));
    };
    let minor = money::from_decimal(&value, decimals).map_err(|bad| match bad {
        BadDecimal::Malformed if value.starts_with('-') => {
            let text = "Must be greater than zero.";
            PayPalError::unprocessable_field("CANNOT_BE_ZERO_OR_NEGATIVE", &field, text)
        }
        BadDecimal::Malformed => PayPalError::invalid(
            "INVALID_PARAMETER_SYNTAX",
            &field,
            "The value of a field does not conform to the expected format.",
        ),
        BadDecimal::TooPrecise => {
            let text = "If the currency supports decimals, only two decimal place precision is \
                        supported.";
            PayPalError::unprocessable_field("DECIMAL_PRECISION", &field, text)
        }
    })?;
    if minor == 0 {
        let text = "Must be greater than zero.";
        return Err(PayPalError::unprocessable_field("CANNOT_BE_ZERO_OR_NEGATIVE", &field, text));
    }
    Ok(Amount { minor, currency })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issue(currency: &str, value: &str) -> String {
        let body = json!({ "amount": { "currency_code": currency, "value": value } });
        amount(&body, "/amount").unwrap_err().issue().to_owned()
    }

    #[test]
    fn an_amount_has_only_the_decimals_of_its_currency() {
        assert_eq!(issue("USD", "10.999"), "DECIMAL_PRECISION");
        assert_eq!(issue("JPY", "1500.5"), "DECIMAL_PRECISION");
        assert_eq!(issue("HUF", "1.00"), "DECIMAL_PRECISION");
        assert_eq!(issue("USD", "-1.00"), "CANNOT_BE_ZERO_OR_NEGATIVE");
        assert_eq!(issue("USD", "0.00"), "CANNOT_BE_ZERO_OR_NEGATIVE");
        assert_eq!(issue("USD", "1e3"), "INVALID_PARAMETER_SYNTAX");
        assert_eq!(issue("KWD", "1.000"), "CURRENCY_NOT_SUPPORTED");
    }

    #[test]
    fn an_amount_is_written_with_exactly_its_decimals() {
        let body = json!({ "currency_code": "USD", "value": "10.9" });
        assert_eq!(amount(&body, "").unwrap().value(), "10.90");
    }
}
