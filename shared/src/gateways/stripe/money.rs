//! Stripe's amounts: integers whose decimals are Stripe's own, which are not always ISO 4217's.

use crate::money::{Currency, MAX_MINOR, Money};

/// An amount that one of the two sides cannot write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadMoney {
    /// More precise than the other side is.
    #[error("the amount is more precise than its currency allows")]
    TooPrecise,
    /// Below zero, or too large.
    #[error("amount out of range")]
    OutOfRange,
}

/// How Stripe writes a currency (docs.stripe.com/currencies).
struct Notation {
    /// Decimal places of Stripe's integer.
    exponent: u32,
    /// Stripe's integer must be a multiple of it.
    step: i64,
}

fn notation(currency: Currency) -> Notation {
    let (exponent, step) = match currency.as_str() {
        "BIF" | "CLP" | "DJF" | "GNF" | "JPY" | "KMF" | "KRW" | "MGA" | "PYG" | "RWF" | "VND"
        | "VUV" | "XAF" | "XOF" | "XPF" => (0, 1),
        "BHD" | "JOD" | "KWD" | "OMR" | "TND" => (3, 10),
        // Without decimals since, but still written with two, which must be zero.
        "ISK" | "UGX" => (2, 100),
        _ => (2, 1),
    };
    Notation { exponent, step }
}

/// The integer that Stripe is told.
pub fn to_stripe(amount: Money) -> Result<i64, BadMoney> {
    let stripe = notation(amount.currency);
    let units = rescale(amount.minor, amount.currency.exponent(), stripe.exponent)?;
    if units % stripe.step != 0 {
        return Err(BadMoney::TooPrecise);
    }
    in_range(amount.minor)?;
    Ok(units)
}

/// What an integer of Stripe's says.
///
/// Not held to Stripe's steps, which bind charges only: what Stripe says happened did happen.
pub fn from_stripe(units: i64, currency: Currency) -> Result<Money, BadMoney> {
    let minor = rescale(units, notation(currency).exponent, currency.exponent())?;
    in_range(minor)?;
    Ok(Money::new(minor, currency))
}

fn in_range(minor: i64) -> Result<(), BadMoney> {
    (0..=MAX_MINOR).contains(&minor).then_some(()).ok_or(BadMoney::OutOfRange)
}

/// The same amount with other decimals, exactly or not at all.
fn rescale(units: i64, from: u32, to: u32) -> Result<i64, BadMoney> {
    let factor = 10_i64.pow(from.abs_diff(to));
    if to >= from {
        return units.checked_mul(factor).ok_or(BadMoney::OutOfRange);
    }
    if units % factor != 0 {
        return Err(BadMoney::TooPrecise);
    }
    Ok(units / factor)
}

/// The least that Stripe charges, in our minor units (docs.stripe.com/currencies, minimum amounts);
/// `None` where it depends on the currency of the merchant's bank account alone.
pub fn minimum_minor(currency: Currency) -> Option<i64> {
    let minor = match currency.as_str() {
        "AUD" | "BRL" | "CAD" | "CHF" | "EUR" | "INR" | "JPY" | "NZD" | "SGD" | "USD" => 50,
        "GBP" => 30,
        "BGN" => 100,
        "AED" | "MYR" | "PLN" | "RON" => 200,
        "DKK" => 250,
        "NOK" | "SEK" => 300,
        "HKD" => 400,
        "MXN" | "THB" => 1_000,
        "CZK" => 1_500,
        "HUF" => 17_500,
        _ => return None,
    };
    Some(minor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn currency(code: &str) -> Currency {
        Currency::parse(code).unwrap()
    }

    fn told(minor: i64, code: &str) -> Result<i64, BadMoney> {
        to_stripe(Money::new(minor, currency(code)))
    }

    #[test]
    fn amounts_have_the_decimals_that_stripe_writes() {
        assert_eq!(told(1_099, "USD"), Ok(1_099));
        assert_eq!(told(1_500, "JPY"), Ok(1_500));
        assert_eq!(told(12_340, "KWD"), Ok(12_340));
        assert_eq!(told(12_345, "KWD"), Err(BadMoney::TooPrecise));
        assert_eq!(told(5, "ISK"), Ok(500));
        assert_eq!(told(2_000, "UGX"), Ok(200_000));
        assert_eq!(told(1_099, "HUF"), Ok(1_099));
        assert_eq!(told(1_099, "TWD"), Ok(1_099));
        assert_eq!(told(500, "MGA"), Ok(5));
        assert_eq!(told(501, "MGA"), Err(BadMoney::TooPrecise));
        assert_eq!(told(-1, "USD"), Err(BadMoney::OutOfRange));
    }

    #[test]
    fn what_stripe_says_is_never_rounded() {
        assert_eq!(from_stripe(150, currency("ISK")), Err(BadMoney::TooPrecise));
        assert_eq!(from_stripe(-1, currency("EUR")), Err(BadMoney::OutOfRange));
        assert_eq!(from_stripe(i64::MAX, currency("MGA")), Err(BadMoney::OutOfRange));
        assert_eq!(from_stripe(12_345, currency("KWD")), Ok(Money::new(12_345, currency("KWD"))));
    }

    #[test]
    fn every_least_amount_can_be_charged() {
        for code in ["USD", "GBP", "JPY", "HUF", "CZK", "PLN"] {
            let minor = minimum_minor(currency(code)).unwrap();
            assert!(told(minor, code).is_ok(), "{code}");
        }
    }

    proptest! {
        /// An amount comes back from Stripe as it was sent, or it is not sent.
        #[test]
        fn an_amount_comes_back_or_is_refused(
            minor in prop_oneof![0..100_000_i64, any::<i64>()],
            code in "[A-Z]{3}",
            known in prop::sample::select(vec!["USD", "JPY", "KWD", "ISK", "UGX", "MGA", "IQD"]),
            use_known: bool,
        ) {
            let currency = currency(if use_known { known } else { &code });
            let amount = Money::new(minor, currency);
            if let Ok(units) = to_stripe(amount) {
                prop_assert_eq!(from_stripe(units, currency), Ok(amount));
            }
        }
    }
}
