//! Names that look like the gateways' own and never repeat, not even across restarts.

use ring::rand::{SecureRandom, SystemRandom};

const ALPHANUMERIC: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Letters and digits of PayPal's ids: the first 36 of [`ALPHANUMERIC`].
const UPPER: usize = 36;

/// Returns `length` random characters out of the first `alphabet` ones.
fn random(length: usize, alphabet: usize) -> String {
    let mut bytes = vec![0; length];
    SystemRandom::new().fill(&mut bytes).expect("the system gives random bytes");
    bytes.into_iter().map(|byte| char::from(ALPHANUMERIC[usize::from(byte) % alphabet])).collect()
}

/// Returns an id such as `pi_3QzK…`: prefix, underscore, a digit and 23 letters or digits.
pub(crate) fn stripe(prefix: &str) -> String {
    let digit = if prefix == "pm" { 1 } else { 3 };
    format!("{prefix}_{digit}{}", random(23, ALPHANUMERIC.len()))
}

/// Returns an id with 14 letters or digits, the shape of customers and requests.
pub(crate) fn stripe_short(prefix: &str) -> String {
    format!("{prefix}_{}", random(14, ALPHANUMERIC.len()))
}

/// Returns 17 capital letters or digits, the shape of orders, captures and refunds.
pub(crate) fn paypal() -> String {
    random(17, UPPER)
}

/// Returns the id of a PayPal event: `WH-`, two groups of 17.
pub(crate) fn paypal_event() -> String {
    format!("WH-{}-{}", paypal(), paypal())
}

/// Returns the id of a PayPal dispute, such as `PP-R-ABC-10012345`.
pub(crate) fn paypal_dispute() -> String {
    let letters = |length| random(length, UPPER);
    format!("PP-R-{}-{}", letters(3), random(8, 10))
}

/// Returns `length` random letters or digits, for secrets and tokens.
pub(crate) fn token(length: usize) -> String {
    random(length, ALPHANUMERIC.len())
}

/// Returns `length` random lower-case hexadecimal digits.
pub(crate) fn hex(length: usize) -> String {
    random(length, 16).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_shape_of_the_gateways() {
        assert_eq!(stripe("pi").len(), 27);
        assert!(stripe_short("cus").starts_with("cus_"));
        assert_eq!(paypal().len(), 17);
        assert!(paypal().bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()));
        assert_eq!(paypal_event().len(), 3 + 17 + 1 + 17);
        assert!(hex(8).bytes().all(|b| b.is_ascii_hexdigit()));
    }

    #[test]
    fn two_ids_are_never_the_same() {
        assert_ne!(stripe("pi"), stripe("pi"));
        assert_ne!(paypal(), paypal());
    }
}
