//! Minor units and decimals, as each gateway counts them. Whole numbers only.

/// Stripe's currencies without decimals.
const STRIPE_ZERO: &[&str] = &[
    "bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf",
    "xof", "xpf",
];

/// Stripe's currencies with three decimals; the last digit must be 0.
const STRIPE_THREE: &[&str] = &["bhd", "jod", "kwd", "omr", "tnd"];

/// The other currencies the simulated Stripe account may charge in.
const STRIPE_TWO: &[&str] = &[
    "aed", "ars", "aud", "bgn", "brl", "cad", "chf", "cny", "cop", "czk", "dkk", "egp", "eur",
    "gbp", "gel", "hkd", "huf", "idr", "ils", "inr", "isk", "kes", "mad", "mxn", "myr", "ngn",
    "nok", "nzd", "pen", "php", "pln", "qar", "ron", "rsd", "sar", "sek", "sgd", "thb", "try",
    "twd", "uah", "ugx", "usd", "uyu", "zar",
];

/// Currencies PayPal takes, those without decimals apart.
const PAYPAL_TWO: &[&str] = &[
    "AUD", "BRL", "CAD", "CHF", "CNY", "CZK", "DKK", "EUR", "GBP", "HKD", "ILS", "MXN", "MYR",
    "NOK", "NZD", "PHP", "PLN", "SEK", "SGD", "THB", "USD",
];
const PAYPAL_ZERO: &[&str] = &["HUF", "JPY", "TWD"];

/// Returns how many decimals Stripe counts for a lower-case currency, or `None` if it takes none such.
pub(crate) fn stripe_decimals(currency: &str) -> Option<u32> {
    if STRIPE_TWO.contains(&currency) {
        Some(2)
    } else if STRIPE_ZERO.contains(&currency) {
        Some(0)
    } else if STRIPE_THREE.contains(&currency) {
        Some(3)
    } else {
        None
    }
}

/// Returns what a Stripe amount must be a multiple of.
pub(crate) fn stripe_step(currency: &str) -> i64 {
    match currency {
        // Kept with two decimals for old callers' sake, yet charged in whole units.
        "isk" | "ugx" => 100,
        _ if STRIPE_THREE.contains(&currency) => 10,
        _ => 1,
    }
}

/// Returns how many decimals PayPal writes for an upper-case currency, or `None` if it takes none such.
pub(crate) fn paypal_decimals(currency: &str) -> Option<u32> {
    if PAYPAL_TWO.contains(&currency) {
        Some(2)
    } else if PAYPAL_ZERO.contains(&currency) {
        Some(0)
    } else {
        None
    }
}

/// Returns minor units as a decimal with exactly `decimals` digits after the point.
pub(crate) fn to_decimal(minor: i64, decimals: u32) -> String {
    if decimals == 0 {
        return minor.to_string();
    }
    let unit = 10_u64.pow(decimals);
    let sign = if minor < 0 { "-" } else { "" };
    let absolute = minor.unsigned_abs();
    let width = usize::try_from(decimals).expect("a handful of decimals");
    format!("{sign}{}.{:0width$}", absolute / unit, absolute % unit)
}

/// Why a decimal is not an amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadDecimal {
    /// Not a plain non-negative decimal that fits 64 bits.
    Malformed,
    /// More decimals than the currency has.
    TooPrecise,
}

/// Returns a plain decimal such as `10.9` in minor units; refuses signs, exponents and blanks.
pub(crate) fn from_decimal(text: &str, decimals: u32) -> Result<i64, BadDecimal> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() && fraction.is_empty() || !digits(whole) || !digits(fraction) {
        return Err(BadDecimal::Malformed);
    }
    let places = usize::try_from(decimals).expect("a handful of decimals");
    if fraction.len() > places {
        return Err(BadDecimal::TooPrecise);
    }
    format!("{whole}{fraction:0<places$}").parse().map_err(|_| BadDecimal::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decimals_are_written_exactly() {
        assert_eq!(to_decimal(1090, 2), "10.90");
        assert_eq!(to_decimal(5, 2), "0.05");
        assert_eq!(to_decimal(1500, 0), "1500");
        assert_eq!(to_decimal(-5, 2), "-0.05");
    }

    #[test]
    fn what_is_no_plain_amount_is_refused() {
        for text in ["", ".", "-1.00", "+1", "1e3", " 1", "1.0.0", "99999999999999999999"] {
            assert_eq!(from_decimal(text, 2), Err(BadDecimal::Malformed), "{text:?}");
        }
        assert_eq!(from_decimal("1.005", 2), Err(BadDecimal::TooPrecise));
        assert_eq!(from_decimal("1500.5", 0), Err(BadDecimal::TooPrecise));
    }

    proptest! {
        #[test]
        fn an_amount_survives_the_way_there_and_back(minor in 0..i64::MAX, decimals in 0..4_u32) {
            prop_assert_eq!(from_decimal(&to_decimal(minor, decimals), decimals), Ok(minor));
        }
    }
}
