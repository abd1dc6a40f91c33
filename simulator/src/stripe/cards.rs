//! Stripe's test cards, by number and by payment method id.

use serde::{Deserialize, Serialize};

/// What the bank says to a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Paid.
    Approve,
    /// Refused for a reason.
    Decline(Decline),
    /// The payer must prove who they are; unless `always`, once is enough for later charges.
    Authenticate {
        /// Whether even a saved card needs it each time.
        always: bool,
    },
    /// The bank answers later: the control API settles it.
    Process,
}

/// A refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decline {
    /// `error.code`.
    pub(crate) code: &'static str,
    /// `error.decline_code`.
    pub(crate) bank_code: &'static str,
    /// `error.advice_code`.
    pub(crate) advice: Option<&'static str>,
    /// For people.
    pub(crate) message: &'static str,
}

const DECLINED: &str = "Your card was declined.";

const fn decline(bank_code: &'static str, advice: &'static str) -> Verdict {
    let advice = Some(advice);
    Verdict::Decline(Decline { code: "card_declined", bank_code, advice, message: DECLINED })
}

/// The refusal of a charge that needs a payer who is not there.
pub(crate) const AUTHENTICATION_REQUIRED: Decline = Decline {
    code: "authentication_required",
    bank_code: "authentication_required",
    advice: None,
    message: "Your card was declined. This transaction requires authentication.",
};

/// The refusal after the payer failed to prove who they are.
pub(crate) const AUTHENTICATION_FAILED: Decline = Decline {
    code: "payment_intent_authentication_failure",
    bank_code: "",
    advice: None,
    message: "We are unable to authenticate your payment method. Please choose a different payment \
              method and try again.",
};

/// What later happens to money taken from a card, of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Aftermath {
    /// Nothing.
    Quiet,
    /// The payer's bank contests the charge at once.
    Disputed,
    /// The payer's bank asks about the charge at once, without taking the money.
    Inquired,
    /// Refunds stay pending until the control API settles them.
    RefundPends,
    /// Refunds succeed and then fail.
    RefundFails,
}

/// A card.
#[derive(Debug)]
pub(crate) struct Card {
    /// What one types into the page.
    pub(crate) number: &'static str,
    /// What one passes as `payment_method`.
    pub(crate) methods: &'static [&'static str],
    pub(crate) brand: &'static str,
    pub(crate) verdict: Verdict,
    pub(crate) aftermath: Aftermath,
}

const fn card(number: &'static str, methods: &'static [&'static str], verdict: Verdict) -> Card {
    Card { number, methods, brand: "visa", verdict, aftermath: Aftermath::Quiet }
}

const fn branded(
    number: &'static str,
    method: &'static [&'static str],
    brand: &'static str,
) -> Card {
    Card { number, methods: method, brand, verdict: Verdict::Approve, aftermath: Aftermath::Quiet }
}

const fn troubled(
    number: &'static str,
    methods: &'static [&'static str],
    aftermath: Aftermath,
) -> Card {
    Card { number, methods, brand: "visa", verdict: Verdict::Approve, aftermath }
}

/// Stands for every method whose bank answers days later.
pub(crate) const BANK_DEBIT: &str = "pm_usBankAccount_processing";

/// Every card the simulator knows; any other number is refused as incorrect.
pub(crate) const CARDS: &[Card] = &[
    card("4242424242424242", &["pm_card_visa", "pm_card_us"], Verdict::Approve),
    branded("5555555555554444", &["pm_card_mastercard"], "mastercard"),
    branded("378282246310005", &["pm_card_amex"], "amex"),
    card(
        "4000000000000002",
        &["pm_card_chargeDeclined", "pm_card_visa_chargeDeclined"],
        decline("generic_decline", "try_again_later"),
    ),
    card(
        "4000000000009995",
        &[
            "pm_card_chargeDeclinedInsufficientFunds",
            "pm_card_visa_chargeDeclinedInsufficientFunds",
        ],
        Verdict::Decline(Decline {
            code: "card_declined",
            bank_code: "insufficient_funds",
            advice: Some("try_again_later"),
            message: "Your card has insufficient funds.",
        }),
    ),
    card(
        "4000000000009987",
        &["pm_card_visa_chargeDeclinedLostCard"],
        decline("lost_card", "do_not_try_again"),
    ),
    card(
        "4000000000009979",
        &["pm_card_visa_chargeDeclinedStolenCard"],
        decline("stolen_card", "do_not_try_again"),
    ),
    card(
        "4000000000000069",
        &["pm_card_chargeDeclinedExpiredCard"],
        Verdict::Decline(Decline {
            code: "expired_card",
            bank_code: "expired_card",
            advice: Some("do_not_try_again"),
            message: "Your card has expired.",
        }),
    ),
    card(
        "4000000000000127",
        &["pm_card_chargeDeclinedIncorrectCvc"],
        Verdict::Decline(Decline {
            code: "incorrect_cvc",
            bank_code: "incorrect_cvc",
            advice: Some("confirm_card_data"),
            message: "Your card's security code is incorrect.",
        }),
    ),
    card(
        "4000000000000119",
        &["pm_card_chargeDeclinedProcessingError"],
        Verdict::Decline(Decline {
            code: "processing_error",
            bank_code: "processing_error",
            advice: Some("try_again_later"),
            message: "An error occurred while processing your card. Try again in a little bit.",
        }),
    ),
    // Can be saved, then refuses every charge.
    card(
        "4000000000000341",
        &["pm_card_chargeCustomerFail"],
        decline("generic_decline", "try_again_later"),
    ),
    card(
        "4000002500003155",
        &["pm_card_authenticationRequiredOnSetup"],
        Verdict::Authenticate { always: false },
    ),
    card(
        "4000002760003184",
        &["pm_card_authenticationRequired"],
        Verdict::Authenticate { always: true },
    ),
    troubled("4000000000000259", &["pm_card_createDispute"], Aftermath::Disputed),
    troubled("4000000000001976", &["pm_card_createDisputeInquiry"], Aftermath::Inquired),
    troubled("4000000000007726", &["pm_card_pendingRefund"], Aftermath::RefundPends),
    troubled("4000000000005126", &["pm_card_refundFail"], Aftermath::RefundFails),
    card("4000000000000010", &[BANK_DEBIT], Verdict::Process),
];

impl Card {
    /// Finds a card by a test payment method id or by its number, spaces allowed.
    pub(crate) fn find(name: &str) -> Option<&'static Card> {
        let digits: String = name.chars().filter(|sign| !matches!(sign, ' ' | '-')).collect();
        CARDS.iter().find(|card| card.number == digits || card.methods.contains(&name))
    }

    /// Returns the last four digits.
    pub(crate) fn last4(&self) -> &'static str {
        &self.number[self.number.len() - 4..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_found_by_its_number_with_spaces_and_by_its_method() {
        let card = Card::find("4242 4242 4242 4242").unwrap();

        assert_eq!(card.last4(), "4242");
        assert_eq!(Card::find("pm_card_visa").unwrap().number, card.number);
        assert!(Card::find("4111").is_none());
    }
}
