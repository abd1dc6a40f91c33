//! Money asked of a customer, once.

mod cancel;
mod capture;
mod charge;
mod compare;
mod confirm;
mod facts;
mod glance;
mod learn;
mod list;
mod object;
mod purchase;
mod reckon;
mod reconcile;
mod redirect;
mod refund;
mod settle;
mod status;
mod store;
mod sweep;
mod visit;

use chrono::{DateTime, Utc};

pub use cancel::cancel;
pub use capture::{capture, capture_approved};
pub use charge::{Charge, charge_saved};
pub use compare::{Difference, DifferenceKind, compare, compare_one};
pub use confirm::confirm;
pub use glance::{Glance, glance, has_open_dispute};
pub use learn::learn_objects;
pub use list::{PaymentView, find, list};
pub use purchase::{Purchase, Purchased, purchase};
pub use reconcile::check;
pub use redirect::{
    Redirect, allowed, portal_return, redirect_of, redirect_of_payment, setup_urls,
};
pub use refund::{
    Quote, Refund, RefundWish, quote, refund, refunds_of, send_refund, settle_refund,
};
pub use settle::{
    Owner, Settled, Verdict, owner_of, owner_of_capture, settle, settle_approval, settle_dispute,
};
pub use status::PaymentStatus;
pub use sweep::due;
pub use visit::{cancel_order, capture_order};

use crate::gateways::{Form, GatewayName};
use crate::ids::{CustomerId, PaymentId, SubscriptionId};
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
    /// Where the payer finishes it.
    pub form: Form,
    /// Number of its newest gateway object, from 0.
    pub object_attempt: u32,
    /// The gateway's record of the customer that its objects are opened for.
    pub gateway_customer: Option<String>,
    /// The saved method that is charged while the customer is away.
    pub charged_method: Option<String>,
    /// Where the payer's browser goes after paying, as the application said.
    pub success_url: Option<String>,
    /// Where it goes after cancelling.
    pub cancel_url: Option<String>,
    /// What its capture opened or extended; `None`: it bought nothing (yet).
    pub subscription_id: Option<SubscriptionId>,
    /// When its money was booked as arrived.
    pub completed_at: Option<DateTime<Utc>>,
    /// When it was cancelled.
    pub cancelled_at: Option<DateTime<Utc>>,
    /// Whether a capture after its cancellation is always refunded.
    pub refunds_late: bool,
    /// How often its gateway was asked about it.
    pub checks: i32,
    /// When it was asked.
    pub created_at: DateTime<Utc>,
}

/// What becomes of a refunded payment's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type, serde::Deserialize)]
#[sqlx(type_name = "refund_choice", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum RefundChoice {
    /// The refunded share is taken back; what of it was spent becomes debt.
    Proportional,
    /// The refunded share is taken back as far as it is unused.
    UnusedOnly,
    /// The customer keeps them.
    None,
}

impl RefundChoice {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Proportional => "proportional",
            Self::UnusedOnly => "unused_only",
            Self::None => "none",
        }
    }
}

/// Who made a refund.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "refund_origin", rename_all = "snake_case")]
pub enum RefundOrigin {
    /// An operator, here.
    Operator,
    /// Somebody at the gateway.
    Gateway,
    /// We ourselves: the money was one capture too many, or came too late.
    Automatic,
}

impl RefundOrigin {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Gateway => "gateway",
            Self::Automatic => "automatic",
        }
    }
}
