//! Amounts as PayPal writes them: decimals whose places its own table gives, not ISO 4217's.

use serde::{Deserialize, Serialize};

use crate::gateways::GatewayError;
use crate::money::{Currency, MAX_MINOR, Money};

/// The longest amount in PayPal's schema.
const MAX_LENGTH: usize = 32;

/// `{currency_code, value}`. The value is text: a number would have gone through a float.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Amount {
    pub(super) currency_code: String,
    pub(super) value: String,
}

impl Amount {
    /// What PayPal is asked for.
    pub(super) fn of(money: Money) -> Result<Self, GatewayError> {
        Ok(Self { currency_code: money.currency.as_str().to_owned(), value: to_paypal(money)? })
    }

    /// What PayPal answered.
    pub(super) fn money(&self) -> Result<Money, GatewayError> {
        let currency = Currency::parse(&self.currency_code)
            .map_err(|error| GatewayError::Malformed(error.to_string()))?;
        from_paypal(&self.value, currency)
    }
}

/// Decimal places that PayPal writes; `None`: it does not take the currency
/// (developer.paypal.com, "Currency codes").
fn places(currency: Currency) -> Option<u32> {
    match currency.as_str() {
        "HUF" | "JPY" | "TWD" => Some(0),
        "AUD" | "BRL" | "CAD" | "CHF" | "CNY" | "CZK" | "DKK" | "EUR" | "GBP" | "HKD" | "ILS"
        | "MXN" | "MYR" | "NOK" | "NZD" | "PHP" | "PLN" | "SEK" | "SGD" | "THB" | "USD" => Some(2),
        _ => None,
    }
}

fn refused(code: &str) -> GatewayError {
    GatewayError::Refused { code: code.to_owned() }
}

/// Writes an amount with exactly PayPal's places: "10.90", "1500" yen.
///
/// Refused: currencies PayPal does not take, fractions it does not write (half a forint),
/// amounts out of range.
pub(super) fn to_paypal(money: Money) -> Result<String, GatewayError> {
    let places = places(money.currency).ok_or_else(|| refused("CURRENCY_NOT_SUPPORTED"))?;
    if !(0..=MAX_MINOR).contains(&money.minor) {
        return Err(refused("AMOUNT_OUT_OF_RANGE"));
    }
    let step = 10_i64.pow(money.currency.exponent().saturating_sub(places));
    if money.minor % step != 0 {
        return Err(refused("DECIMAL_PRECISION"));
    }
    let minor = money.minor / step;
    if places == 0 {
        return Ok(minor.to_string());
    }
    let unit = 10_i64.pow(places);
    Ok(format!("{}.{:0width$}", minor / unit, minor % unit, width = places as usize))
}

/// Reads an amount without rounding, as strict as [`to_paypal`] writes it, save that zeros which
/// change nothing are taken. Refused: signs, exponents, blanks, more decimals than PayPal's.
pub(super) fn from_paypal(text: &str, currency: Currency) -> Result<Money, GatewayError> {
    let malformed = || GatewayError::Malformed(format!("an amount that is none of {currency}"));
    let places = places(currency).ok_or_else(malformed)?;
    let (whole, fraction) = match text.split_once('.') {
        Some((_, "")) => return Err(malformed()),
        Some(parts) => parts,
        None if text.is_empty() => return Err(malformed()),
        None => (text, ""),
    };
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let fraction = fraction.trim_end_matches('0');
    let is_fine = text.len() <= MAX_LENGTH
        && are_digits(whole)
        && are_digits(fraction)
        && fraction.len() <= places as usize;
    if !is_fine {
        return Err(malformed());
    }
    let digits = format!("{whole}{fraction:0<width$}", width = currency.exponent() as usize);
    let digits = digits.trim_start_matches('0');
    let minor = if digits.is_empty() { Some(0) } else { digits.parse().ok() };
    let minor = minor.filter(|minor| (0..=MAX_MINOR).contains(minor)).ok_or_else(malformed)?;
    Ok(Money::new(minor, currency))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn currency(code: &str) -> Currency {
        Currency::parse(code).unwrap()
    }

    fn written(minor: i64, code: &str) -> Option<String> {
        to_paypal(Money::new(minor, currency(code))).ok()
    }

    fn read(text: &str, code: &str) -> Option<i64> {
        from_paypal(text, currency(code)).ok().map(|money| money.minor)
    }

    #[test]
    fn amounts_have_the_places_of_paypals_table() {
        assert_eq!(written(1_090, "USD").as_deref(), Some("10.90"));
        assert_eq!(written(5, "EUR").as_deref(), Some("0.05"));
        assert_eq!(written(1_500, "JPY").as_deref(), Some("1500"));
        assert_eq!(written(150_000, "HUF").as_deref(), Some("1500"));
        assert_eq!(written(150_000, "TWD").as_deref(), Some("1500"));
        assert_eq!(written(150_050, "HUF"), None);
        assert_eq!(written(12_340, "KWD"), None);
        assert_eq!(written(-1, "USD"), None);
        assert_eq!(written(MAX_MINOR + 1, "USD"), None);
    }

    #[test]
    fn only_amounts_of_the_currency_are_read() {
        assert_eq!(read("10.9", "USD"), Some(1_090));
        assert_eq!(read(".5", "USD"), Some(50));
        assert_eq!(read("1500", "JPY"), Some(1_500));
        assert_eq!(read("1500.00", "HUF"), Some(150_000));
        assert_eq!(read("0000000000000000000000000010.90", "USD"), Some(1_090));
        for text in ["", ".", "5.", "-1.00", "+1", "1e3", " 1", "1,00", "10.999", "1.2.3", "٣"] {
            assert_eq!(read(text, "USD"), None, "{text}");
        }
        assert_eq!(read("1500.50", "JPY"), None);
        assert_eq!(read("1500.50", "HUF"), None);
        assert_eq!(read("12.340", "KWD"), None);
        assert_eq!(read("99999999999999999999999999999999", "USD"), None);
        assert_eq!(read("000000000000000000000000000010.90", "USD"), None, "33 characters");
    }

    #[test]
    fn an_amount_that_is_a_number_is_no_amount() {
        let number = r#"{"currency_code":"USD","value":10.9}"#;
        assert!(serde_json::from_str::<Amount>(number).is_err());
    }

    proptest! {
        /// What is written is what is read, or it is not written at all.
        #[test]
        fn an_amount_survives_or_is_refused(
            minor in -10..=MAX_MINOR + 10,
            code in prop::sample::select(vec!["USD", "EUR", "JPY", "HUF", "TWD", "KWD", "ISK"]),
        ) {
            let money = Money::new(minor, currency(code));
            if let Ok(text) = to_paypal(money) {
                prop_assert!(text.len() <= MAX_LENGTH);
                prop_assert_eq!(from_paypal(&text, money.currency).ok(), Some(money));
            }
        }

        /// Whatever is read can be written again, and means the same.
        #[test]
        fn what_is_read_can_be_written(
            text in "[-+0-9.e]{0,34}",
            code in prop::sample::select(vec!["USD", "JPY", "HUF"]),
        ) {
            if let Ok(money) = from_paypal(&text, currency(code)) {
                let again = to_paypal(money).ok();
                let again = again.and_then(|text| from_paypal(&text, money.currency).ok());
                prop_assert_eq!(again, Some(money));
            }
        }
    }
}
