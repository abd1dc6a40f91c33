//! What gateways are asked and what they tell, in our words.

use chrono::{DateTime, Utc};
use secrecy::SecretString;

use crate::ids::{CustomerId, PaymentId, RefundId};
use crate::money::Money;

/// Where the payer finishes a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "object_form", rename_all = "snake_case")]
pub enum Form {
    /// An intent that the application's front end confirms, or an order approved at PayPal.
    Intent,
    /// A page that the gateway hosts (Stripe's Checkout Session).
    HostedPage,
}

/// What to collect.
#[derive(Debug, Clone)]
pub struct IntentRequest {
    /// Our id: in the idempotency key, and in the gateway object's metadata.
    pub payment_id: PaymentId,
    /// Number of this object among the payment's, from 0; part of the idempotency key.
    pub attempt: u32,
    /// Where the payer finishes it.
    pub form: Form,
    /// How much.
    pub amount: Money,
    /// What the payer reads.
    pub description: String,
    /// Where the payer's browser comes back to after approving.
    pub return_url: String,
    /// Where it comes back to after cancelling.
    pub cancel_url: String,
    /// The gateway's record of the customer, where there is one.
    pub gateway_customer: Option<String>,
    /// Whether the method is kept for renewals while the customer is away.
    pub saves_method: bool,
}

/// Money that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// How much.
    pub amount: Money,
    /// Stripe's charge or PayPal's capture.
    pub capture_id: Option<String>,
    /// When the gateway says so, or when we learned of it.
    pub at: DateTime<Utc>,
}

/// What a gateway says of one of its objects, in absolute terms: telling it twice changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "facts are independent of each other")]
pub struct ObjectFacts {
    /// Money that arrived through it.
    pub captured: Option<Captured>,
    /// A charge was declined. Not the end: the payer may try another card.
    pub is_declined: bool,
    /// It can collect nothing any more.
    pub is_voided: bool,
    /// Money is under way.
    pub is_processing: bool,
    /// PayPal: the buyer approved, the capture is ours to make.
    pub is_approved: bool,
    /// Why it was declined, for the customer.
    pub failure: Option<String>,
    /// Why it was declined, as the gateway codes it (`insufficient_funds`).
    pub failure_code: Option<String>,
}

/// How the payer goes on.
#[derive(Debug, Clone)]
pub enum Next {
    /// The front end confirms with this secret. Never stored, never logged.
    ClientSecret(SecretString),
    /// The payer's browser goes there.
    Approve(String),
    /// He follows instructions, or there is nothing left to do.
    Nothing,
}

/// A gateway's object (intent, hosted page, order) that may pay one payment.
#[derive(Debug, Clone)]
pub struct Object {
    /// The gateway's id.
    pub id: String,
    /// How much it asks.
    pub amount: Money,
    /// The payment that it names: a hint, never proof.
    pub names_payment: Option<String>,
    /// Whether it is paid to us, in the mode that is configured.
    pub is_ours: bool,
    /// What happened to it. A hosted page never captures itself: its intent does.
    pub facts: ObjectFacts,
    /// How the payer goes on.
    pub next: Next,
    /// The gateway's record of the customer it is opened for.
    pub gateway_customer: Option<String>,
    /// The method it was paid with, if that was saved for renewals.
    pub saved_method: Option<String>,
    /// The gateway's name of who paid, where it tells it (PayPal).
    pub payer: Option<String>,
    /// A hosted page's own intent, as our read of the page showed it.
    pub intent: Option<Box<Object>>,
}

/// A charge of a saved method while the customer is away.
#[derive(Debug, Clone)]
pub struct SavedCharge {
    /// Our id, as in [`IntentRequest`].
    pub payment_id: PaymentId,
    /// Number of this attempt, from 0; a new one only after a definite decline.
    pub attempt: u32,
    /// How much.
    pub amount: Money,
    /// What the payer reads.
    pub description: String,
    /// The gateway's record of the customer.
    pub gateway_customer: String,
    /// The saved method.
    pub method: String,
}

/// Names a capture by what is known of it; at least one is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CaptureRef {
    /// The intent or order that collected it.
    pub object_id: Option<String>,
    /// Stripe's charge or PayPal's capture.
    pub capture_id: Option<String>,
}

/// Money to send back.
#[derive(Debug, Clone)]
pub struct RefundRequest {
    /// Our id: the idempotency key, and named in the gateway's object.
    pub refund_id: RefundId,
    /// The payment, named in the gateway's object.
    pub payment_id: PaymentId,
    /// What was captured.
    pub capture: CaptureRef,
    /// How much of it.
    pub amount: Money,
    /// When we first asked: a gateway forgets idempotency keys, so a late repeat looks first.
    pub first_asked_at: DateTime<Utc>,
}

/// Where a refund stands. It only ever moves downwards in this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::Type)]
#[sqlx(type_name = "refund_status", rename_all = "snake_case")]
pub enum RefundStatus {
    /// Asked for, or under way at the gateway.
    Pending,
    /// Sent.
    Succeeded,
    /// It came back or was never sent: the money is ours again.
    Failed,
}

impl RefundStatus {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}

/// What a gateway says of one refund, in absolute terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefundState {
    /// The gateway's id.
    pub id: String,
    /// What it refunds.
    pub capture: CaptureRef,
    /// How much.
    pub amount: Money,
    /// Where it stands.
    pub status: RefundStatus,
    /// The refund of ours that it names.
    pub names_refund: Option<String>,
    /// Whether it is of our account, in the mode that is configured.
    pub is_ours: bool,
    /// Why it failed, as the gateway codes it.
    pub failure_code: Option<String>,
}

/// What contests a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, sqlx::Type)]
#[sqlx(type_name = "dispute_kind", rename_all = "snake_case")]
pub enum DisputeKind {
    /// A dispute with a life of its own.
    Dispute,
    /// Money taken back at once; it counts only where no dispute tells of the same capture.
    Reversal,
}

/// Where a dispute stands. It only ever moves downwards in this list, save that the gateway may
/// open an inquiry that was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::Type)]
#[sqlx(type_name = "dispute_stage", rename_all = "snake_case")]
pub enum DisputeStage {
    /// The bank asks; no money moved.
    Inquiry,
    /// It asked and is content.
    InquiryClosed,
    /// Contested: the money is held.
    Open,
    /// Decided for the payer.
    Lost,
    /// Decided for us.
    Won,
}

/// What a gateway says of one dispute, in absolute terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisputeState {
    /// The gateway's id.
    pub id: String,
    /// What kind.
    pub kind: DisputeKind,
    /// What it contests.
    pub capture: CaptureRef,
    /// How much of it; when lost, how much was lost.
    pub amount: Money,
    /// Where it stands.
    pub stage: DisputeStage,
    /// Whether it is of our account, in the mode that is configured.
    pub is_ours: bool,
    /// The bank's reason, as the gateway codes it.
    pub reason: Option<String>,
}

/// Who a customer is, for the gateway's own record of him.
#[derive(Debug, Clone)]
pub struct CustomerRequest {
    /// Our key: the idempotency key.
    pub customer_id: CustomerId,
    /// Number of this record among the customer's, from 0; part of the idempotency key.
    pub attempt: u32,
    /// The application's id of the user.
    pub external_id: String,
    /// His address, where known.
    pub email: Option<String>,
    /// His name, where known.
    pub name: Option<String>,
}

/// A method to save without a purchase.
#[derive(Debug, Clone)]
pub struct SetupRequest {
    /// Our key, named in the gateway's object.
    pub customer_id: CustomerId,
    /// The idempotency key.
    pub key: String,
    /// The gateway's record of the customer, where it keeps one.
    pub gateway_customer: Option<String>,
    /// Where the customer's browser comes back to.
    pub return_url: String,
    /// Where it comes back to after cancelling.
    pub cancel_url: String,
}

/// A setup that its customer still has to finish.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The gateway's id.
    pub id: String,
    /// How the customer goes on.
    pub next: Next,
}

/// A payment method that the gateway keeps for us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedMethod {
    /// The gateway's id.
    pub id: String,
    /// The gateway's record of the customer whose it is.
    pub gateway_customer: Option<String>,
    /// The gateway's name of who pays with it, where it tells it (PayPal).
    pub payer: Option<String>,
    /// `card`, `paypal`, or the gateway's own word.
    pub kind: String,
    /// The card's brand.
    pub brand: Option<String>,
    /// The card's last four digits.
    pub last_four: Option<String>,
    /// The card's last month: 1 … 12, and the year.
    pub expires: Option<(u32, i32)>,
}

/// Half open: from, until.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// The first instant.
    pub from: DateTime<Utc>,
    /// The first instant after.
    pub until: DateTime<Utc>,
}

/// One page of a list.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// What to ask for next; `None`: that was all.
    pub next: Option<String>,
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self { items: Vec::new(), next: None }
    }
}

/// An event read from the gateway's list, as its webhook would have brought it.
#[derive(Debug, Clone)]
pub struct FetchedEvent {
    /// Id and kind.
    pub event: VerifiedEvent,
    /// Its body.
    pub payload: Vec<u8>,
}

/// Money that a gateway says it collected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayCapture {
    /// Its object, where the list tells it.
    pub object_id: Option<String>,
    /// Stripe's charge or PayPal's capture.
    pub capture_id: Option<String>,
    /// How much was collected.
    pub amount: Money,
    /// The payment that it names.
    pub names_payment: Option<String>,
    /// When.
    pub at: DateTime<Utc>,
}

/// What to do about a declined charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Try again on another day.
    Later,
    /// The customer must prove himself to his bank.
    Authenticate,
    /// Never again with this method: lost, stolen, gone.
    Stop,
}

/// Why a gateway call did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GatewayError {
    /// Outcome unknown, or "not now": try again with the same key.
    #[error("no answer: {0}")]
    Unavailable(String),
    /// The payer's bank said no. Definite; a new attempt needs a new key.
    #[error("declined: {code}")]
    Declined {
        /// The gateway's own code.
        code: String,
    },
    /// The state of the thing does not allow it, definite; trying again changes nothing.
    #[error("refused: {code}")]
    Refused {
        /// The gateway's own code.
        code: String,
    },
    /// The gateway has no such thing.
    #[error("the gateway has no such object")]
    NotFound,
    /// Our request was wrong: a bug of ours, for a person; trying again changes nothing.
    #[error("our request was wrong: {code}")]
    Bug {
        /// The gateway's own code.
        code: String,
    },
    /// Our keys are wrong or not set, or the gateway does not offer this: for a person.
    #[error("not configured: {0}")]
    Misconfigured(&'static str),
    /// The answer was not what was asked for; the outcome is unknown.
    #[error("unusable answer: {0}")]
    Malformed(String),
}

impl GatewayError {
    /// Whether the same call may succeed later.
    pub const fn is_temporary(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Malformed(_) | Self::Misconfigured(_) => true,
            Self::Declined { .. } | Self::Refused { .. } | Self::NotFound | Self::Bug { .. } => {
                false
            }
        }
    }
}

/// A webhook body that the gateway proved to have sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedEvent {
    /// The gateway's id of the event.
    pub id: String,
    /// The gateway's word for what happened.
    pub kind: String,
    /// PayPal's transmission id: one signature may bring in one body only.
    pub delivery_id: Option<String>,
}

/// Why a webhook was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebhookRejected {
    /// 400: not proven to come from the gateway. The reason is for the log.
    Invalid(String),
    /// 400 with an alert: proven, but not an event we can read.
    Unparsable,
    /// 503: could not be checked now; the gateway tries again.
    Unavailable(String),
}

/// What a stored event says, in our words.
#[derive(Debug, Clone)]
pub enum GatewayEvent {
    /// A signed snapshot of an object, believed once it equals ours.
    Snapshot(Box<Object>),
    /// Something happened to this object: read it.
    ReadObject(String),
    /// The buyer approved this object (again): read it, and take its money.
    Approved(String),
    /// Something happened to this capture: read it to learn its object.
    ReadCapture(String),
    /// A signed snapshot of a refund that is final, believed once it equals ours.
    Refund(Box<RefundState>),
    /// Something happened to this refund: read it.
    ReadRefund(String),
    /// Something was refunded of this capture: read all its refunds.
    ReadRefundsOf(CaptureRef),
    /// A signed snapshot of a dispute that is final, believed once it equals ours.
    Dispute(Box<DisputeState>),
    /// Something happened to this dispute: read it.
    ReadDispute(String),
    /// Money was taken back without a refund of ours: read it.
    ReadReversal {
        /// The id its event names.
        id: String,
        /// The capture it takes back.
        capture_id: String,
    },
    /// A setup was finished: read its method.
    ReadSetup(String),
    /// A method was saved or changed: read it. It may name the order it was saved with.
    ReadMethod {
        /// The method.
        id: String,
        /// The order that was paid when it was saved, which tells whose it is.
        object_id: Option<String>,
    },
    /// A saved method is gone.
    MethodGone(String),
    /// The gateway's record of a customer is gone, and all his methods with it.
    CustomerGone(String),
    /// Of no use to us.
    Ignored(&'static str),
    /// Sent to the wrong installation: ignored, with an alert.
    Misdirected(&'static str),
}

/// A stored event that cannot be read: it needs a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the event cannot be read: {0}")]
pub struct MalformedEvent(pub String);
