//! Money in minor units of its currency; it refuses to mix currencies.

use rust_decimal::Decimal;
use serde::Serialize;

/// Largest |amount| we accept, in minor units (rules.md).
pub const MAX_MINOR: i64 = 999_999_999_999;

/// An ISO 4217 code of three upper-case letters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency([u8; 3]);

/// Text that is no currency code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a currency code of three letters")]
pub struct NoCurrency;

impl Currency {
    /// US dollar.
    pub const USD: Self = Self(*b"USD");

    /// Reads a code in either case: Stripe writes `usd`, PayPal `USD`.
    pub fn parse(text: &str) -> Result<Self, NoCurrency> {
        let bytes: [u8; 3] = text.as_bytes().try_into().map_err(|_| NoCurrency)?;
        if !bytes.iter().all(u8::is_ascii_alphabetic) {
            return Err(NoCurrency);
        }
        Ok(Self(bytes.map(|byte| byte.to_ascii_uppercase())))
    }

    /// The code in upper case.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a currency code is ASCII")
    }

    /// Decimal places of the minor unit by ISO 4217: what our own amounts and the wire use.
    pub fn exponent(self) -> u32 {
        match &self.0 {
            b"BIF" | b"CLP" | b"DJF" | b"GNF" | b"ISK" | b"JPY" | b"KMF" | b"KRW" | b"PYG"
            | b"RWF" | b"UGX" | b"VND" | b"VUV" | b"XAF" | b"XOF" | b"XPF" => 0,
            b"BHD" | b"IQD" | b"JOD" | b"KWD" | b"LYD" | b"OMR" | b"TND" => 3,
            _ => 2,
        }
    }
}

impl std::fmt::Debug for Currency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::fmt::Display for Currency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Currency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// An amount in minor units (cents) of a currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Money {
    /// Minor units; negative only where a difference is meant.
    pub minor: i64,
    /// The currency.
    pub currency: Currency,
}

/// A decimal that is not an amount of the currency.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAmount {
    /// More decimals that are not zero than the currency has.
    #[error("more decimals than {0} has")]
    TooPrecise(Currency),
    /// Below zero, or more than [`MAX_MINOR`].
    #[error("amount out of range")]
    OutOfRange,
}

impl Money {
    /// An amount of `minor` units.
    pub const fn new(minor: i64, currency: Currency) -> Self {
        Self { minor, currency }
    }

    /// The amount times `quantity`; `None` beyond [`MAX_MINOR`].
    pub fn times(self, quantity: u32) -> Option<Self> {
        let minor = self.minor.checked_mul(i64::from(quantity))?;
        (minor <= MAX_MINOR).then_some(Self { minor, ..self })
    }

    /// Reads a decimal of major units ("10.50") without rounding.
    pub fn from_decimal(amount: Decimal, currency: Currency) -> Result<Self, BadAmount> {
        let amount = amount.normalize();
        let exponent = currency.exponent();
        if amount.scale() > exponent {
            return Err(BadAmount::TooPrecise(currency));
        }
        let factor = Decimal::from(10_i64.pow(exponent));
        let minor = amount.checked_mul(factor).ok_or(BadAmount::OutOfRange)?;
        let minor = i64::try_from(minor).map_err(|_| BadAmount::OutOfRange)?;
        if !(0..=MAX_MINOR).contains(&minor) {
            return Err(BadAmount::OutOfRange);
        }
        Ok(Self { minor, currency })
    }

    /// The amount in major units with exactly the currency's decimals.
    pub fn to_decimal(self) -> Decimal {
        Decimal::new(self.minor, self.currency.exponent())
    }
}

impl std::fmt::Display for Money {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.to_decimal(), self.currency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn money(text: &str, currency: &str) -> Result<Money, BadAmount> {
        Money::from_decimal(text.parse().unwrap(), Currency::parse(currency).unwrap())
    }

    #[test]
    fn decimals_are_those_of_the_currency() {
        assert_eq!(money("15.00", "USD").unwrap().minor, 1_500);
        assert_eq!(money("10.9", "usd").unwrap().minor, 1_090);
        assert_eq!(money("1500", "JPY").unwrap().minor, 1_500);
        assert_eq!(money("12.340", "KWD").unwrap().minor, 12_340);
        assert_eq!(money("10.999", "USD"), Err(BadAmount::TooPrecise(Currency::USD)));
        assert!(money("1.5", "JPY").is_err());
        assert_eq!(money("-1.00", "USD"), Err(BadAmount::OutOfRange));
        assert_eq!(money("10000000000.00", "USD"), Err(BadAmount::OutOfRange));
        assert_eq!(Money::new(1_500, Currency::USD).to_decimal().to_string(), "15.00");
    }

    proptest! {
        /// What is written is what is read, in every currency.
        #[test]
        fn an_amount_survives_its_decimal(
            minor in 0..=MAX_MINOR,
            currency in prop::sample::select(vec!["USD", "JPY", "KWD", "EUR"]),
        ) {
            let amount = Money::new(minor, Currency::parse(currency).unwrap());
            prop_assert_eq!(Money::from_decimal(amount.to_decimal(), amount.currency), Ok(amount));
        }
    }
}
