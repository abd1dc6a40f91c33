//! Money asked of a customer, once.

mod capture;
mod list;
mod purchase;
mod redirect;
mod settle;
mod status;
mod store;
mod sweep;

use chrono::{DateTime, Utc};

pub use capture::{capture, capture_order};
pub use list::{PaymentView, find, list};
pub use purchase::{Purchase, Purchased, purchase};
pub use redirect::{Redirect, redirect_of};
pub use settle::{Settled, learn_objects, owner_of, settle};
pub use status::PaymentStatus;
pub use sweep::to_capture;

use crate::gateways::GatewayName;
use crate::ids::{CustomerId, PaymentId};
use crate::money::Money;

/// How a customer pays; the wire's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type, serde::Deserialize, serde::Serialize)]
#[sqlx(type_name = "payment_method", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum PaymentMethod {
    /// Stripe.
    Stripe,
    /// PayPal.
    Paypal,
    /// Stripe, by the replaced system's name.
    CreditCard,
    /// Confirmed by an admin.
    BankTransfer,
    /// Confirmed by an admin.
    Other,
}

impl PaymentMethod {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stripe => "stripe",
            Self::Paypal => "paypal",
            Self::CreditCard => "credit_card",
            Self::BankTransfer => "bank_transfer",
            Self::Other => "other",
        }
    }

    /// Who moves the money.
    pub const fn gateway(self) -> GatewayName {
        match self {
            Self::Stripe | Self::CreditCard => GatewayName::Stripe,
            Self::Paypal => GatewayName::Paypal,
            Self::BankTransfer | Self::Other => GatewayName::Manual,
        }
    }
}

/// A payment, as locked for a decision.
#[derive(Debug, Clone)]
pub struct Payment {
    /// Whose.
    pub customer_id: CustomerId,
    /// The payment.
    pub id: PaymentId,
    /// The plan that was bought.
    pub plan_id: i32,
    /// The version of its terms.
    pub plan_version: i32,
    /// How many.
    pub quantity: u32,
    /// What is asked.
    pub amount: Money,
    /// How the customer pays.
    pub method: PaymentMethod,
    /// What the facts add up to.
    pub status: PaymentStatus,
    /// The gateway's id of the object the payer is sent to.
    pub gateway_reference: Option<String>,
    /// When it was asked.
    pub created_at: DateTime<Utc>,
}
