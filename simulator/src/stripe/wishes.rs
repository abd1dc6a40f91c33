//! What one may say of a payment intent, and what Stripe refuses of it.

use super::customers;
use super::error::StripeError;
use super::form::{Metadata, Params};
use crate::money;
use crate::world::Turn;

/// The most that Stripe takes: eight digits.
const LARGEST_AMOUNT: i64 = 99_999_999;

/// The least that Stripe takes of a two-decimal currency; converted amounts are near enough.
const SMALLEST_AMOUNT: i64 = 50;

/// Parameters that are accepted and change nothing here.
pub(super) const WITHOUT_EFFECT: &[&str] = &[
    "allowed_payment_method_types",
    "confirmation_method",
    "error_on_requires_action",
    "mandate",
    "mandate_data",
    "payment_method_options",
    "payment_method_configuration",
    "radar_options",
    "shipping",
    "use_stripe_sdk",
];

/// What one may say of an intent when making or changing it.
pub(super) struct Wishes {
    pub(super) amount: Option<i64>,
    pub(super) currency: Option<String>,
    pub(super) customer: Option<String>,
    pub(super) description: Option<String>,
    pub(super) metadata: Option<Metadata>,
    pub(super) receipt_email: Option<String>,
    pub(super) setup_future_usage: Option<&'static str>,
    pub(super) statement_descriptor: Option<String>,
    pub(super) statement_descriptor_suffix: Option<String>,
    pub(super) payment_method: Option<String>,
    pub(super) types: Vec<String>,
}

impl Wishes {
    /// Takes them, and checks that the customer is there.
    pub(super) fn take(turn: &Turn<'_>, params: &mut Params) -> Result<Self, StripeError> {
        let wishes = Wishes {
            amount: params.integer("amount")?,
            currency: params.text("currency")?.map(|currency| currency.to_lowercase()),
            customer: params.text("customer")?,
            description: params.text("description")?,
            metadata: params.metadata()?,
            receipt_email: params.text("receipt_email")?,
            setup_future_usage: params
                .one_of("setup_future_usage", &["off_session", "on_session"])?,
            statement_descriptor: params.text("statement_descriptor")?,
            statement_descriptor_suffix: params.text("statement_descriptor_suffix")?,
            payment_method: params.text("payment_method")?,
            types: params.list("payment_method_types")?,
        };
        if let Some(customer) = &wishes.customer {
            customers::check(&turn.world.stripe, customer)?;
        }
        Ok(wishes)
    }
}

/// Refuses what Stripe would not charge.
pub(super) fn check_amount(amount: i64, currency: &str) -> Result<(), StripeError> {
    let Some(decimals) = money::stripe_decimals(currency) else {
        let text = format!("Invalid currency: {currency}. Stripe does not support this currency.");
        return Err(StripeError::invalid(text).param("currency"));
    };
    let smallest = if decimals == 3 { SMALLEST_AMOUNT * 10 } else { SMALLEST_AMOUNT };
    let refuse = |code, text: &str| Err(StripeError::invalid(text).code(code).param("amount"));
    if amount < 1 {
        refuse("parameter_invalid_integer", "This value must be greater than or equal to 1.")
    } else if amount < smallest {
        refuse("amount_too_small", "Amount must convert to at least 50 cents.")
    } else if amount > LARGEST_AMOUNT {
        refuse("amount_too_large", "Amount must be no more than $999,999.99")
    } else if amount % money::stripe_step(currency) != 0 {
        let text = "The last digits of an amount in this currency must be 0.";
        refuse("parameter_invalid_integer", text)
    } else {
        Ok(())
    }
}

/// Takes `automatic_payment_methods`; gives its `allow_redirects`, or `None` if it is switched off.
pub(super) fn automatic(
    params: &mut Params,
    has_types: bool,
) -> Result<Option<String>, StripeError> {
    let Some(mut map) = params.map("automatic_payment_methods")? else {
        return Ok((!has_types).then(|| "always".into()));
    };
    let enabled = map.boolean("enabled")?;
    let redirects = map.one_of("allow_redirects", &["always", "never"])?;
    map.finish()?;
    let enabled =
        enabled.ok_or_else(|| StripeError::missing_param("automatic_payment_methods[enabled]"))?;
    if enabled && has_types {
        let text = "You may only specify one of these parameters: automatic_payment_methods, \
                    payment_method_types.";
        return Err(StripeError::invalid(text));
    }
    Ok(enabled.then(|| redirects.unwrap_or("always").into()))
}

/// What a confirmation was asked with.
pub(super) struct Confirming {
    pub(super) off_session: bool,
    pub(super) return_url: Option<String>,
}

/// Takes what a confirmation may be asked with.
pub(super) fn confirming(params: &mut Params) -> Result<Confirming, StripeError> {
    // Stripe also takes one_off and recurring here.
    let off_session = match params.text("off_session")?.as_deref() {
        None | Some("false") => false,
        Some("true" | "one_off" | "recurring") => true,
        Some(other) => {
            let text = format!("Invalid off_session: {other}");
            return Err(StripeError::invalid(text).param("off_session"));
        }
    };
    Ok(Confirming { off_session, return_url: params.text("return_url")? })
}

/// A browser may be sent away and needs to know where to come back to.
pub(super) fn check_return_url(
    automatic: Option<&str>,
    how: &Confirming,
) -> Result<(), StripeError> {
    if automatic == Some("always") && how.return_url.is_none() && !how.off_session {
        let text = "This PaymentIntent is configured to accept payment methods enabled in your \
                    Dashboard. Because some of these payment methods might redirect your customer \
                    off of your page, you must provide a `return_url`. If you don't want to accept \
                    redirect-based payment methods, set `automatic_payment_methods[enabled]` to \
                    `true` and `automatic_payment_methods[allow_redirects]` to `never` when \
                    creating Setup Intents and Payment Intents.";
        return Err(StripeError::invalid(text).param("return_url"));
    }
    Ok(())
}
