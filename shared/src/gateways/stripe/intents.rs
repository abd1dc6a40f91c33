//! Payment intents: opened, read, cancelled, and charged while the customer is away.

use stripe_client_core::StripeRequest;
use stripe_core::charge::RetrieveCharge;
use stripe_core::payment_intent::{
    CancelPaymentIntent, CancelPaymentIntentCancellationReason, CreatePaymentIntent,
    CreatePaymentIntentAutomaticPaymentMethods, CreatePaymentIntentOffSession, ListPaymentIntent,
    RetrievePaymentIntent,
};

use stripe_core::PaymentIntentSetupFutureUsage;

use super::errors::{Failure, Refusal, Unreadable};
use super::lists::{List, PAGE};
use super::objects::{Intent, Link, word};
use super::{Stripe, currency, numbered, told};
use crate::gateways::{GatewayError, IntentRequest, Object, SavedCharge};
use crate::ids::PaymentId;

impl Stripe {
    /// Opens an intent that the front end confirms.
    pub(super) async fn open_intent(
        &self,
        request: &IntentRequest,
    ) -> Result<Object, GatewayError> {
        let mut create = CreatePaymentIntent::new(told(request.amount)?, currency(request.amount))
            .automatic_payment_methods(CreatePaymentIntentAutomaticPaymentMethods::new(true))
            .description(request.description.clone())
            .metadata([("payment_id".to_owned(), request.payment_id.to_string())]);
        if let Some(customer) = &request.gateway_customer {
            create = create.customer(customer);
            if request.saves_method {
                create = create.setup_future_usage(PaymentIntentSetupFutureUsage::OffSession);
            }
        }
        let key = numbered("pi-create", request.payment_id, request.attempt);
        let intent: Intent = self.open(&key, &create.build()).await?;
        Ok(intent.object(self.reading())?)
    }

    /// Where an intent stands.
    pub(super) async fn read_intent(&self, id: &str) -> Result<Object, GatewayError> {
        let read = RetrievePaymentIntent::new(id);
        let intent: Intent = self.transport.without_key().ask(&read).await?;
        Ok(intent.object(self.reading())?)
    }

    /// The intent that a charge belongs to.
    pub(super) async fn intent_of_charge(&self, id: &str) -> Result<String, GatewayError> {
        #[derive(serde::Deserialize)]
        struct Charge {
            payment_intent: Option<Link>,
        }
        let charge: Charge = self.transport.without_key().ask(&RetrieveCharge::new(id)).await?;
        charge.payment_intent.and_then(Link::into_id).ok_or(GatewayError::NotFound)
    }

    /// Cancels an intent; where that is too late, or the answer is a fault that Stripe keeps,
    /// reads how it stands.
    pub(super) async fn cancel(
        &self,
        id: &str,
        payment_id: PaymentId,
    ) -> Result<Object, GatewayError> {
        let reason = CancelPaymentIntentCancellationReason::Abandoned;
        let cancel = CancelPaymentIntent::new(id).cancellation_reason(reason);
        let key = format!("cancel:{payment_id}:{id}");
        let refusal = match self.transport.with_key(&key).ask::<Intent>(&cancel).await {
            Ok(intent) => return Ok(intent.object(self.reading())?),
            Err(Failure::Refused(refusal)) => refusal,
            Err(failure) => return Err(failure.into()),
        };
        if !refusal.is_of_state() && !refusal.is_saved_fault() {
            return Err(Failure::Refused(refusal).into());
        }
        let object = self.read_intent(id).await?;
        if is_settled(&object) { Ok(object) } else { Err(Failure::Refused(refusal).into()) }
    }

    /// Charges a saved method, or finds the charge of the same attempt.
    ///
    /// Looks first: a key may be forgotten after 24 h, and a repeat that late would charge twice.
    pub(super) async fn charge_away(&self, request: &SavedCharge) -> Result<Object, GatewayError> {
        if let Some(made) = self.charged_before(request).await? {
            return Ok(made.object(self.reading())?);
        }
        let create = off_session(request)?;
        let key = format!("renew:{}:{}", request.payment_id, request.attempt);
        match self.transport.with_key(&key).ask::<Intent>(&create).await {
            Ok(intent) => Ok(intent.object(self.reading())?),
            Err(Failure::Refused(refusal)) => self.declined(refusal),
            Err(failure) => Err(failure.into()),
        }
    }

    /// A decline carries the intent as it stands after it.
    fn declined(&self, refusal: Box<Refusal>) -> Result<Object, GatewayError> {
        let is_gone = refusal.is_about("payment_method") || refusal.is_about("customer");
        let Some(intent) = refusal.intent.as_ref().filter(|_| refusal.status == 402) else {
            if is_gone && refusal.status != 402 {
                return Err(GatewayError::NotFound);
            }
            return Err(Failure::Refused(refusal).into());
        };
        let intent: Intent =
            serde_json::from_str(intent.get()).map_err(|error| Unreadable::of(&error))?;
        let mut object = intent.object(self.reading())?;
        object.facts.is_declined = true;
        // The error says more than the intent: the bank's advice.
        let code = word(refusal.decline.failure_code());
        object.facts.failure_code = code.or(object.facts.failure_code);
        object.facts.failure = object.facts.failure.or_else(|| refusal.decline.message());
        Ok(object)
    }

    /// The intent of this attempt, if somebody was charged by it. A customer's last hundred
    /// intents reach back further than any attempt that is still repeated.
    async fn charged_before(&self, request: &SavedCharge) -> Result<Option<Intent>, Failure> {
        let list = ListPaymentIntent::new().customer(&request.gateway_customer).limit(PAGE);
        let list: List<Intent> = self.transport.without_key().ask(&list).await?;
        let names = names(request);
        let is_same = |intent: &Intent| {
            names.iter().all(|(name, value)| intent.metadata.get(name) == Some(value))
        };
        Ok(list.data.into_iter().find(|intent| is_same(intent) && intent.was_tried()))
    }
}

/// Whether nothing more can be collected, or what can is under way.
pub(super) fn is_settled(object: &Object) -> bool {
    let facts = &object.facts;
    facts.captured.is_some() || facts.is_voided || facts.is_processing
}

/// What names an attempt in its intent.
fn names(request: &SavedCharge) -> [(String, String); 2] {
    [
        ("payment_id".to_owned(), request.payment_id.to_string()),
        ("attempt".to_owned(), request.attempt.to_string()),
    ]
}

/// Without `error_on_requires_action`, which would hide why authentication is asked for.
fn off_session(request: &SavedCharge) -> Result<CreatePaymentIntent, GatewayError> {
    Ok(CreatePaymentIntent::new(told(request.amount)?, currency(request.amount))
        .automatic_payment_methods(CreatePaymentIntentAutomaticPaymentMethods::new(true))
        .customer(&request.gateway_customer)
        .payment_method(&request.method)
        .description(request.description.clone())
        .metadata(names(request))
        .off_session(CreatePaymentIntentOffSession::Bool(true))
        .confirm(true))
}
