//! PayPal's issues: which are the payer's, which are the state of things, which are our bugs.

use crate::gateways::Advice;

/// The issue of a buyer who may choose another source of money on the same order.
pub(super) fn is_buyers_turn(code: &str) -> bool {
    matches!(
        code,
        "INSTRUMENT_DECLINED" | "PAYER_ACTION_REQUIRED" | "REDIRECT_PAYER_FOR_ALTERNATE_FUNDING"
    )
}

/// Whether an issue says that the payer's side said no (Orders v2 and Payments v2, 422).
pub(super) fn is_decline(code: &str) -> bool {
    is_buyers_turn(code)
        || is_gone_method(code)
        || matches!(
            code,
            "TRANSACTION_REFUSED"
                | "PAYER_CANNOT_PAY"
                | "COMPLIANCE_VIOLATION"
                | "PAYEE_BLOCKED_TRANSACTION"
                | "MAX_NUMBER_OF_PAYMENT_ATTEMPTS_EXCEEDED"
                | "PAYER_ACCOUNT_RESTRICTED"
                | "PAYER_ACCOUNT_LOCKED_OR_CLOSED"
                | "PAYMENT_DENIED"
                | "TRANSACTION_BLOCKED_BY_PAYEE"
                | "TRANSACTION_LIMIT_EXCEEDED"
                | "TRANSACTION_RECEIVING_LIMIT_EXCEEDED"
                | "CARD_EXPIRED"
                | "CARD_CLOSED"
        )
}

/// Our own word for a saved method that PayPal does not find any more.
pub(super) const METHOD_GONE: &str = "VAULT_TOKEN_GONE";

/// Whether an issue says that a saved method can never be charged again.
pub(super) fn is_gone_method(code: &str) -> bool {
    matches!(
        code,
        METHOD_GONE
            | "TOKEN_ID_NOT_FOUND"
            | "AGREEMENT_ALREADY_CANCELLED"
            | "BILLING_AGREEMENT_NOT_FOUND"
    )
}

/// Whether an issue ends an order: another attempt at the payment needs a new one.
pub(super) fn is_final(code: &str) -> bool {
    matches!(
        code,
        "TRANSACTION_REFUSED"
            | "PAYER_CANNOT_PAY"
            | "COMPLIANCE_VIOLATION"
            | "PAYEE_BLOCKED_TRANSACTION"
            | "TRANSACTION_BLOCKED_BY_PAYEE"
            | "DUPLICATE_INVOICE_ID"
            | "MAX_NUMBER_OF_PAYMENT_ATTEMPTS_EXCEEDED"
            | "ORDER_VOIDED"
            | "ORDER_EXPIRED"
    )
}

/// Whether an issue can only be a fault in our request, in a state that retries will not mend.
pub(super) fn is_bug(code: &str) -> bool {
    matches!(code, "DUPLICATE_REQUEST_ID" | "PAYPAL_REQUEST_ID_PREVIOUSLY_USED")
}

/// What to do about a charge of a saved method that PayPal declined with this code.
pub fn advice(code: &str) -> Advice {
    if is_gone_method(code) {
        return Advice::Stop;
    }
    match code {
        "PAYER_ACTION_REQUIRED" | "REDIRECT_PAYER_FOR_ALTERNATE_FUNDING" => Advice::Authenticate,
        "PAYER_CANNOT_PAY"
        | "COMPLIANCE_VIOLATION"
        | "PAYEE_BLOCKED_TRANSACTION"
        | "TRANSACTION_BLOCKED_BY_PAYEE"
        | "PAYER_ACCOUNT_LOCKED_OR_CLOSED"
        | "CARD_CLOSED" => Advice::Stop,
        _ => Advice::Later,
    }
}

/// What a customer reads about a decline.
pub(super) fn words(code: &str) -> &'static str {
    if is_gone_method(code) {
        return "The saved PayPal account can no longer be charged.";
    }
    if is_buyers_turn(code) {
        return "PayPal declined the chosen source of money; another may do.";
    }
    "PayPal declined the payment."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_token_advises_to_stop() {
        assert_eq!(advice("VAULT_TOKEN_GONE"), Advice::Stop);
        assert_eq!(advice("PAYER_CANNOT_PAY"), Advice::Stop);
        assert_eq!(advice("INSTRUMENT_DECLINED"), Advice::Later);
        assert_eq!(advice("PAYER_ACTION_REQUIRED"), Advice::Authenticate);
        assert_eq!(advice("SOMETHING_NEW"), Advice::Later);
    }
}
