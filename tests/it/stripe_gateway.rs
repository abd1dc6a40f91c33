//! Stripe's adapter against the simulator, over HTTP.

use std::collections::HashSet;

use chrono::{DateTime, Duration, TimeDelta, Utc};
use harness::STRIPE_WEBHOOK_SECRET;
use shared::clock::wall_now;
use shared::config;
use shared::gateways::stripe::{Stripe, advice};
use shared::gateways::{
    Advice, CaptureRef, CustomerRequest, DisputeStage, Form, Gateway, GatewayError, GatewayEvent,
    IntentRequest, Next, Object, RefundRequest, RefundStatus, SavedCharge, SetupRequest, Span,
};
use shared::ids::{CustomerId, PaymentId, RefundId};
use shared::money::{Currency, Money};
use simulator::{DisputeOutcome, Fault, Simulator, Trouble};

/// The adapter and whom it talks to.
struct Ground {
    simulator: Simulator,
    stripe: Stripe,
}

async fn ground() -> Ground {
    let _installed_before = rustls::crypto::ring::default_provider().install_default();
    let simulator = harness::simulator().await;
    let stripe = Stripe::new(&config::Stripe {
        secret_key: simulator.settings().stripe_secret_key.clone().into(),
        publishable_key: None,
        webhook_secrets: vec![STRIPE_WEBHOOK_SECRET.to_owned().into()],
        api_base: simulator.stripe_url().parse().unwrap(),
        livemode: false,
        account: None,
    });
    Ground { simulator, stripe }
}

fn wish(form: Form) -> IntentRequest {
    IntentRequest {
        payment_id: PaymentId::new(wall_now()),
        attempt: 0,
        form,
        amount: Money::new(1_500, Currency::USD),
        description: "Basic".to_owned(),
        return_url: "https://app.example.com/done".to_owned(),
        cancel_url: "https://app.example.com/back".to_owned(),
        gateway_customer: None,
        saves_method: false,
    }
}

impl Ground {
    async fn customer(&self) -> String {
        let request = CustomerRequest {
            customer_id: CustomerId::of("42"),
            attempt: 0,
            external_id: "42".to_owned(),
            email: Some("jenny@example.com".to_owned()),
            name: None,
        };
        let id = self.stripe.create_customer(&request).await.unwrap();
        assert_eq!(self.stripe.create_customer(&request).await.unwrap(), id);
        id
    }

    /// A paid intent of 15.00 USD.
    async fn paid(&self, card: &str) -> (IntentRequest, Object) {
        let wish = wish(Form::Intent);
        let object = self.stripe.create_intent(&wish).await.unwrap();
        self.simulator.pay_stripe(&object.id, card).unwrap();
        let object = self.stripe.fetch_intent(&object.id).await.unwrap();
        (wish, object)
    }

    /// A customer with a card that was saved without a purchase.
    async fn saved(&self, card: &str) -> SavedCharge {
        let customer = self.customer().await;
        let setup = self.setup(&customer).await;
        let status = self.simulator.setup_stripe(&setup, card).unwrap();
        if status == "requires_action" {
            self.simulator.authenticate_stripe_setup(&setup, true).unwrap();
        }
        let method = self.stripe.finish_setup(&setup).await.unwrap().unwrap();
        SavedCharge {
            payment_id: PaymentId::new(wall_now()),
            attempt: 0,
            amount: Money::new(1_500, Currency::USD),
            description: "Basic".to_owned(),
            gateway_customer: customer,
            method: method.id,
        }
    }

    async fn setup(&self, customer: &str) -> String {
        let request = SetupRequest {
            customer_id: CustomerId::of("42"),
            key: format!("setup:{}", PaymentId::new(wall_now())),
            gateway_customer: Some(customer.to_owned()),
            return_url: "https://app.example.com/".to_owned(),
            cancel_url: "https://app.example.com/".to_owned(),
        };
        let setup = self.stripe.begin_setup(&request).await.unwrap();
        assert!(matches!(setup.next, Next::ClientSecret(_)));
        assert!(self.stripe.finish_setup(&setup.id).await.unwrap().is_none());
        setup.id
    }

    fn captures(&self) -> usize {
        self.simulator.truth().iter().map(|truth| truth.captures).sum()
    }

    fn refunded(&self) -> i64 {
        self.simulator.truth().iter().map(|truth| truth.refunded_minor).sum()
    }

    fn refund_calls(&self) -> usize {
        let is_refund =
            |call: &&simulator::Call| call.path == "/v1/refunds" && call.method == "POST";
        self.simulator.calls().iter().filter(is_refund).count()
    }
}

fn of(object: &Object) -> CaptureRef {
    let captured = object.facts.captured.as_ref();
    CaptureRef {
        object_id: Some(object.id.clone()),
        capture_id: captured.and_then(|captured| captured.capture_id.clone()),
    }
}

fn refund(wish: &IntentRequest, object: &Object, minor: i64) -> RefundRequest {
    RefundRequest {
        refund_id: RefundId::new(wall_now()),
        payment_id: wish.payment_id,
        capture: of(object),
        amount: Money::new(minor, Currency::USD),
        first_asked_at: wall_now(),
    }
}

fn around(now: DateTime<Utc>) -> Span {
    Span { from: now - Duration::hours(1), until: now + Duration::hours(1) }
}

#[tokio::test]
async fn an_intent_is_opened_once_and_tells_that_it_was_paid() {
    let ground = ground().await;
    let wish = wish(Form::Intent);

    let opened = ground.stripe.create_intent(&wish).await.unwrap();
    let again = ground.stripe.create_intent(&wish).await.unwrap();
    assert_eq!(opened.id, again.id);
    assert!(opened.is_ours && opened.amount == wish.amount);
    assert_eq!(opened.names_payment, Some(wish.payment_id.to_string()));
    assert!(matches!(opened.next, Next::ClientSecret(_)));
    let second = IntentRequest { attempt: 1, ..wish.clone() };
    assert_ne!(ground.stripe.create_intent(&second).await.unwrap().id, opened.id);

    ground.simulator.pay_stripe(&opened.id, "pm_card_visa").unwrap();
    let paid = ground.stripe.fetch_intent(&opened.id).await.unwrap();
    let captured = paid.facts.captured.clone().unwrap();
    assert_eq!(captured.amount, wish.amount);
    let charge = captured.capture_id.unwrap();
    assert_eq!(ground.stripe.object_of_capture(&charge).await.unwrap(), opened.id);
    let read = ground.stripe.capture(&opened.id, wish.payment_id, 0).await.unwrap();
    assert_eq!(read.facts.captured.unwrap().amount, wish.amount);
}

#[tokio::test]
async fn a_declined_card_is_told_with_its_code() {
    let ground = ground().await;
    let object = ground.stripe.create_intent(&wish(Form::Intent)).await.unwrap();

    let _declined = ground.simulator.pay_stripe(&object.id, "pm_card_visa_chargeDeclinedLostCard");

    let facts = ground.stripe.fetch_intent(&object.id).await.unwrap().facts;
    assert!(facts.is_declined && facts.captured.is_none() && facts.failure.is_some());
    assert_eq!(advice(&facts.failure_code.unwrap()), Advice::Stop);
}

#[tokio::test]
async fn amounts_reach_stripe_in_its_own_decimals() {
    let ground = ground().await;
    for (code, minor, told) in
        [("JPY", 1_500, 1_500), ("KWD", 12_340, 12_340), ("ISK", 700, 70_000)]
    {
        let amount = Money::new(minor, Currency::parse(code).unwrap());
        let object = ground
            .stripe
            .create_intent(&IntentRequest { amount, ..wish(Form::Intent) })
            .await
            .unwrap();
        assert_eq!(object.amount, amount);
        let truth = ground.simulator.truth();
        let truth = truth.iter().find(|truth| truth.object_id == object.id).unwrap();
        assert_eq!(truth.amount_minor, told, "{code}");
    }
    let odd = Money::new(12_345, Currency::parse("KWD").unwrap());
    let refused =
        ground.stripe.create_intent(&IntentRequest { amount: odd, ..wish(Form::Intent) }).await;
    assert!(matches!(refused, Err(GatewayError::Refused { .. })));
}

#[tokio::test]
async fn a_cancelled_intent_collects_nothing_and_a_paid_one_stays_paid() {
    let ground = ground().await;
    let wish = wish(Form::Intent);
    let open = ground.stripe.create_intent(&wish).await.unwrap();

    for _twice in 0..2 {
        let object = ground.stripe.cancel_intent(&open.id, wish.payment_id).await.unwrap();
        assert!(object.facts.is_voided);
    }
    assert!(ground.simulator.pay_stripe(&open.id, "pm_card_visa").is_err());

    let (wish, paid) = ground.paid("pm_card_visa").await;
    let object = ground.stripe.cancel_intent(&paid.id, wish.payment_id).await.unwrap();
    assert!(object.facts.captured.is_some() && !object.facts.is_voided);

    let missing = ground.stripe.cancel_intent("pi_nobody", wish.payment_id).await;
    assert!(matches!(missing, Err(GatewayError::NotFound)));
}

#[tokio::test]
async fn a_cancel_whose_answer_is_a_kept_fault_is_read() {
    let ground = ground().await;
    let wish = wish(Form::Intent);
    let open = ground.stripe.create_intent(&wish).await.unwrap();
    ground.simulator.set_fault(Fault::once(Trouble::ErrorAfter).matching("cancel"));

    let fault = ground.stripe.cancel_intent(&open.id, wish.payment_id).await;
    assert!(matches!(fault, Err(GatewayError::Unavailable(_))));
    let object = ground.stripe.cancel_intent(&open.id, wish.payment_id).await.unwrap();
    assert!(object.facts.is_voided);
}

#[tokio::test]
async fn a_kept_fault_does_not_keep_a_payment_from_being_opened() {
    let ground = ground().await;
    let wish = wish(Form::Intent);
    ground.simulator.set_fault(Fault::once(Trouble::ErrorSaved));

    let fault = ground.stripe.create_intent(&wish).await;
    assert!(matches!(fault, Err(GatewayError::Unavailable(_))));
    let first = ground.stripe.create_intent(&wish).await.unwrap();
    assert_eq!(ground.stripe.create_intent(&wish).await.unwrap().id, first.id);
}

#[tokio::test]
async fn one_refund_asked_for_twice_or_after_a_lost_answer_is_made_once() {
    let ground = ground().await;
    let (wish, paid) = ground.paid("pm_card_visa").await;
    let first = refund(&wish, &paid, 400);

    let made = ground.stripe.refund(&first).await.unwrap();
    assert_eq!(made.status, RefundStatus::Succeeded);
    assert_eq!(made.names_refund, Some(first.refund_id.to_string()));
    assert_eq!(ground.stripe.refund(&first).await.unwrap().id, made.id);
    assert_eq!(ground.stripe.fetch_refund(&made.id).await.unwrap(), made);

    for trouble in [Trouble::ResetAfter, Trouble::AnswerLost, Trouble::ErrorAfter] {
        let request = refund(&wish, &paid, 100);
        ground.simulator.set_fault(Fault::once(trouble).matching("refunds"));
        let lost = ground.stripe.refund(&request).await;
        assert!(matches!(lost, Err(GatewayError::Unavailable(_))), "{lost:?}");
        let found = ground.stripe.refund(&request).await.unwrap();
        assert_eq!(found.names_refund, Some(request.refund_id.to_string()));
    }
    assert_eq!(ground.refunded(), 700);
    let by_charge = CaptureRef { object_id: None, ..of(&paid) };
    assert_eq!(ground.stripe.refunds_of(&of(&paid)).await.unwrap().len(), 4);
    assert_eq!(ground.stripe.refunds_of(&by_charge).await.unwrap().len(), 4);
}

#[tokio::test]
async fn a_late_repeat_of_a_refund_looks_before_it_asks() {
    let ground = ground().await;
    let (wish, paid) = ground.paid("pm_card_visa").await;
    let mut request = refund(&wish, &paid, 400);
    let made = ground.stripe.refund(&request).await.unwrap();
    let calls = ground.refund_calls();

    ground.simulator.advance_clock(TimeDelta::hours(25));
    request.first_asked_at = wall_now() - Duration::hours(25);
    let again = ground.stripe.refund(&request).await.unwrap();

    assert_eq!(again.id, made.id);
    assert_eq!((ground.refund_calls(), ground.refunded()), (calls, 400));
}

#[tokio::test]
async fn more_than_is_left_is_refused_and_all_of_it_is_found_again() {
    let ground = ground().await;
    let (wish, paid) = ground.paid("pm_card_visa").await;

    let too_much = ground.stripe.refund(&refund(&wish, &paid, 1_501)).await;
    assert!(matches!(too_much, Err(GatewayError::Refused { .. })), "{too_much:?}");

    let all = refund(&wish, &paid, 1_500);
    let made = ground.stripe.refund(&all).await.unwrap();
    ground.simulator.advance_clock(TimeDelta::hours(25));
    // The key is forgotten, and we believe it is not: Stripe's refusal makes us look.
    assert_eq!(ground.stripe.refund(&all).await.unwrap().id, made.id);
    let more = ground.stripe.refund(&refund(&wish, &paid, 1)).await;
    assert!(
        matches!(&more, Err(GatewayError::Refused { code }) if code == "charge_already_refunded")
    );
    assert_eq!(ground.refunded(), 1_500);
}

#[tokio::test]
async fn a_refund_may_pend_and_fail() {
    let ground = ground().await;
    let (wish, paid) = ground.paid("pm_card_pendingRefund").await;

    let made = ground.stripe.refund(&refund(&wish, &paid, 400)).await.unwrap();
    assert_eq!(made.status, RefundStatus::Pending);
    ground.simulator.settle_stripe_refund(&made.id, false).unwrap();

    let failed = ground.stripe.fetch_refund(&made.id).await.unwrap();
    assert_eq!(failed.status, RefundStatus::Failed);
    assert!(failed.failure_code.is_some());
}

#[tokio::test]
async fn a_dispute_is_read_from_its_inquiry_to_its_end() {
    let ground = ground().await;
    let (wish, paid) = ground.paid("pm_card_visa").await;
    let dispute = ground.simulator.open_stripe_dispute(&paid.id, true, None).unwrap();
    let stage = || async { ground.stripe.fetch_dispute(&dispute).await.unwrap().stage };

    assert_eq!(stage().await, DisputeStage::Inquiry);
    ground.simulator.escalate_stripe_dispute(&dispute).unwrap();
    assert_eq!(stage().await, DisputeStage::Open);
    let refused = ground.stripe.refund(&refund(&wish, &paid, 100)).await;
    assert!(matches!(refused, Err(GatewayError::Refused { .. })), "{refused:?}");
    ground.simulator.settle_stripe_dispute(&dispute, DisputeOutcome::Lost).unwrap();
    assert_eq!(stage().await, DisputeStage::Lost);

    let all = ground.stripe.disputes_of(&of(&paid)).await.unwrap();
    assert_eq!(all.len(), 1);
    assert!(all[0].is_ours && all[0].amount == paid.amount);
    assert_eq!(all[0].capture, of(&paid));
}

#[tokio::test]
async fn a_saved_card_is_charged_once_however_late_it_is_asked_again() {
    let ground = ground().await;
    let charge = ground.saved("pm_card_visa").await;

    let paid = ground.stripe.charge_saved(&charge).await.unwrap();
    assert_eq!(paid.facts.captured.as_ref().unwrap().amount, charge.amount);
    assert_eq!(paid.gateway_customer.as_ref(), Some(&charge.gateway_customer));
    assert_eq!(ground.stripe.charge_saved(&charge).await.unwrap().id, paid.id);
    ground.simulator.advance_clock(TimeDelta::hours(25));
    assert_eq!(ground.stripe.charge_saved(&charge).await.unwrap().id, paid.id);

    assert_eq!(ground.captures(), 1);
}

#[tokio::test]
async fn a_charge_whose_answer_was_lost_is_found() {
    let ground = ground().await;
    let mut charge = ground.saved("pm_card_visa").await;
    for trouble in [Trouble::ErrorAfter, Trouble::ResetAfter, Trouble::MalformedAnswer] {
        charge.payment_id = PaymentId::new(wall_now());
        let before = ground.captures();
        ground.simulator.set_fault(Fault::once(trouble).matching("POST /v1/payment_intents"));
        let lost = ground.stripe.charge_saved(&charge).await;
        assert!(lost.as_ref().is_err_and(GatewayError::is_temporary), "{lost:?}");
        let found = ground.stripe.charge_saved(&charge).await.unwrap();
        assert!(found.facts.captured.is_some());
        assert_eq!(ground.captures(), before + 1);
    }
}

#[tokio::test]
async fn a_declined_renewal_is_an_answer_with_its_advice() {
    for (card, code, what) in [
        ("pm_card_authenticationRequired", "authentication_required", Advice::Authenticate),
        ("pm_card_chargeCustomerFail", "generic_decline", Advice::Later),
    ] {
        let ground = ground().await;
        let charge = ground.saved(card).await;

        let object = ground.stripe.charge_saved(&charge).await.unwrap();
        assert!(object.facts.is_declined && object.facts.captured.is_none());
        assert_eq!(object.facts.failure_code.as_deref(), Some(code));
        assert_eq!(advice(code), what);
        assert!(matches!(object.next, Next::ClientSecret(_)));
        assert_eq!(object.names_payment, Some(charge.payment_id.to_string()));

        // The same attempt is the same intent; a new attempt is a new one.
        assert_eq!(ground.stripe.charge_saved(&charge).await.unwrap().id, object.id);
        let next = SavedCharge { attempt: 1, ..charge };
        assert_ne!(ground.stripe.charge_saved(&next).await.unwrap().id, object.id);
    }
}

#[tokio::test]
async fn a_bank_s_own_word_reaches_the_renewal() {
    let ground = ground().await;
    let charge = ground.saved("pm_card_visa").await;
    for (card, code, what) in [
        ("pm_card_visa_chargeDeclinedInsufficientFunds", "insufficient_funds", Advice::Later),
        ("pm_card_visa_chargeDeclinedLostCard", "lost_card", Advice::Stop),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", Advice::Stop),
    ] {
        // The simulator makes a method of a test card's name as it is charged.
        let charge = SavedCharge {
            payment_id: PaymentId::new(wall_now()),
            method: card.to_owned(),
            ..charge.clone()
        };
        let object = ground.stripe.charge_saved(&charge).await.unwrap();
        assert_eq!(object.facts.failure_code.as_deref(), Some(code));
        assert_eq!(advice(code), what);
    }
    assert_eq!(ground.captures(), 0);
}

#[tokio::test]
async fn a_method_that_is_gone_is_never_charged() {
    let ground = ground().await;
    let charge = ground.saved("pm_card_visa").await;
    let method = ground.stripe.fetch_method(&charge.method).await.unwrap();
    assert_eq!(method.gateway_customer.as_ref(), Some(&charge.gateway_customer));
    assert_eq!((method.kind.as_str(), method.last_four.as_deref()), ("card", Some("4242")));
    assert!(method.expires.is_some());

    for _twice in 0..2 {
        ground.stripe.detach_method(&charge.method).await.unwrap();
    }
    ground.simulator.advance_clock(TimeDelta::hours(25));
    ground.stripe.detach_method(&charge.method).await.unwrap();
    ground.stripe.detach_method("pm_nobody").await.unwrap();

    let read = ground.stripe.fetch_method(&charge.method).await;
    assert!(matches!(read, Err(GatewayError::NotFound)));
    let charged = ground.stripe.charge_saved(&charge).await;
    assert!(matches!(charged, Err(GatewayError::NotFound)), "{charged:?}");
    let other = SavedCharge { gateway_customer: "cus_nobody".to_owned(), ..charge };
    assert!(ground.stripe.charge_saved(&other).await.is_err());
    assert_eq!(ground.captures(), 0);
}

#[tokio::test]
async fn a_purchase_that_keeps_the_card_tells_the_method() {
    let ground = ground().await;
    let customer = ground.customer().await;
    let wish = IntentRequest {
        gateway_customer: Some(customer.clone()),
        saves_method: true,
        ..wish(Form::Intent)
    };
    let open = ground.stripe.create_intent(&wish).await.unwrap();
    assert_eq!((open.gateway_customer, open.saved_method), (Some(customer.clone()), None));

    ground.simulator.pay_stripe(&open.id, "pm_card_visa").unwrap();
    let method = ground.stripe.fetch_intent(&open.id).await.unwrap().saved_method.unwrap();

    let charge = SavedCharge {
        payment_id: PaymentId::new(wall_now()),
        attempt: 0,
        amount: wish.amount,
        description: "Basic".to_owned(),
        gateway_customer: customer,
        method,
    };
    let renewed = ground.stripe.charge_saved(&charge).await.unwrap();
    assert!(renewed.facts.captured.is_some());
    assert_eq!(renewed.saved_method, None);
}

#[tokio::test]
async fn a_hosted_page_is_paid_through_its_intent() {
    let ground = ground().await;
    let customer = ground.customer().await;
    let wish = IntentRequest {
        gateway_customer: Some(customer.clone()),
        saves_method: true,
        ..wish(Form::HostedPage)
    };
    let open = ground.stripe.create_intent(&wish).await.unwrap();
    assert_eq!(ground.stripe.create_intent(&wish).await.unwrap().id, open.id);
    assert!(open.id.starts_with("cs_") && open.is_ours && open.amount == wish.amount);
    assert!(matches!(&open.next, Next::Approve(url) if url.contains(&open.id)));
    assert_eq!(open.names_payment, Some(wish.payment_id.to_string()));

    ground.simulator.pay_stripe_session(&open.id, "pm_card_visa").unwrap();
    let paid = ground.stripe.fetch_intent(&open.id).await.unwrap();

    assert!(paid.facts.captured.is_none() && !paid.facts.is_voided);
    assert!(matches!(paid.next, Next::Nothing));
    let intent = paid.intent.unwrap();
    assert_eq!(intent.facts.captured.unwrap().amount, wish.amount);
    assert_eq!(intent.names_payment, Some(wish.payment_id.to_string()));
    assert!(intent.saved_method.is_some() && intent.gateway_customer == Some(customer));

    // Too late to be cancelled: says how it stands.
    let late = ground.stripe.cancel_intent(&paid.id, wish.payment_id).await.unwrap();
    assert!(late.intent.unwrap().facts.captured.is_some() && !late.facts.is_voided);
}

#[tokio::test]
async fn a_hosted_page_that_is_closed_collects_nothing() {
    let ground = ground().await;
    let wish = wish(Form::HostedPage);
    let open = ground.stripe.create_intent(&wish).await.unwrap();
    // An intent of its own that is still open after a refused card.
    let _declined = ground.simulator.pay_stripe_session(&open.id, "pm_card_chargeDeclined");

    for _twice in 0..2 {
        let closed = ground.stripe.cancel_intent(&open.id, wish.payment_id).await.unwrap();
        assert!(closed.facts.is_voided);
        assert!(closed.intent.is_none_or(|intent| intent.facts.is_voided));
    }
    assert!(ground.simulator.pay_stripe_session(&open.id, "pm_card_visa").is_err());
    assert_eq!(ground.captures(), 0);
}

#[tokio::test]
async fn the_portal_is_a_page_of_the_gateway() {
    let ground = ground().await;
    let customer = ground.customer().await;
    let url = ground.stripe.portal(&customer, "https://app.example.com/account").await.unwrap();
    assert!(url.starts_with("http"), "{url}");
    let nobody = ground.stripe.portal("cus_nobody", "https://app.example.com/").await;
    assert!(matches!(nobody, Err(GatewayError::NotFound)), "{nobody:?}");
}

#[tokio::test]
async fn undelivered_events_and_captures_are_read_page_by_page() {
    let ground = ground().await;
    let mut wanted = HashSet::new();
    for _many in 0..101 {
        wanted.insert(ground.paid("pm_card_visa").await.1.id);
    }
    ground.stripe.create_intent(&wish(Form::Intent)).await.unwrap();
    let span = around(ground.simulator.now());

    let (mut told, mut cursor, mut pages) = (HashSet::new(), None, 0);
    loop {
        let page = ground.stripe.events_since(&span, cursor.as_deref()).await.unwrap();
        for fetched in page.items {
            // As a webhook's would be.
            let event = ground.stripe.parse_event(&fetched.payload).unwrap();
            let GatewayEvent::Snapshot(object) = event else { panic!("{}", fetched.event.kind) };
            told.insert(object.id);
        }
        pages += 1;
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!((&told, pages), (&wanted, 2));

    let mut captured = HashSet::new();
    let first = ground.stripe.captures_since(&span, None).await.unwrap();
    let second = ground.stripe.captures_since(&span, first.next.as_deref()).await.unwrap();
    assert!(first.next.is_some() && second.next.is_none());
    for capture in first.items.into_iter().chain(second.items) {
        assert_eq!(capture.amount, Money::new(1_500, Currency::USD));
        assert!(capture.capture_id.is_some() && capture.names_payment.is_some());
        captured.insert(capture.object_id.unwrap());
    }
    assert_eq!(captured, wanted);

    let past = around(ground.simulator.now() - Duration::days(2));
    assert!(ground.stripe.captures_since(&past, None).await.unwrap().items.is_empty());
    assert!(ground.stripe.events_since(&past, None).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn an_answer_that_cannot_be_used_is_no_success() {
    let ground = ground().await;
    let open = ground.stripe.create_intent(&wish(Form::Intent)).await.unwrap();

    ground.simulator.set_fault(Fault::once(Trouble::MalformedAnswer));
    let cut = ground.stripe.fetch_intent(&open.id).await;
    assert!(matches!(cut, Err(GatewayError::Malformed(_))), "{cut:?}");
    ground.simulator.set_fault(Fault::once(Trouble::RateLimited { retry_after_s: 1 }));
    let busy = ground.stripe.fetch_intent(&open.id).await;
    assert!(matches!(busy, Err(GatewayError::Unavailable(_))), "{busy:?}");
    // A read whose connection broke is repeated at once.
    ground.simulator.set_fault(Fault::once(Trouble::ResetBefore));
    assert_eq!(ground.stripe.fetch_intent(&open.id).await.unwrap().id, open.id);
    let escaped = ground.stripe.fetch_intent("../refunds").await;
    assert!(matches!(escaped, Err(GatewayError::NotFound)));
}
