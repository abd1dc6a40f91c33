//! The PayPal adapter against the simulator, over HTTP, without the business around it.

use std::path::Path;

use chrono::{DateTime, Duration, Utc};
use harness::STRIPE_WEBHOOK_SECRET;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use shared::clock::wall_now;
use shared::config::{Config, PayPalProof};
use shared::gateways::paypal::{PayPal, advice};
use shared::gateways::{
    Advice, CaptureRef, DisputeKind, DisputeStage, Form, Gateway, GatewayError, GatewayEvent,
    IntentRequest, Next, Object, RefundRequest, RefundState, RefundStatus, SavedCharge,
    SetupRequest, Span, WebhookRejected,
};
use shared::ids::{CustomerId, PaymentId, RefundId};
use shared::money::{Currency, Money};
use simulator::{
    Fault, Funding, PayPalDisputeOutcome, PayPalRefundOutcome, Settings, SimEvent, Simulator,
    Trouble,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::purchase::futures;

/// The adapter and the gateway it talks to.
struct Ground {
    simulator: Simulator,
    paypal: PayPal,
}

impl Ground {
    async fn start() -> Self {
        let simulator = harness::simulator().await;
        let paypal = client(&simulator, simulator.paypal_url(), PayPalProof::Certificate);
        Self { simulator, paypal }
    }

    /// An order of 15.00 USD that its buyer approved with such money.
    async fn approved(&self, funding: Funding) -> (PaymentId, Object) {
        let request = request(usd(1_500));
        let order = self.paypal.create_intent(&request).await.unwrap();
        self.simulator.approve_paypal_with(&order.id, funding).unwrap();
        (request.payment_id, order)
    }

    /// A payment of 15.00 USD that was captured: its id, order and capture.
    async fn captured(&self) -> (PaymentId, CaptureRef) {
        let (payment_id, order) = self.approved(Funding::Instant).await;
        let object = self.paypal.capture(&order.id, payment_id, 0).await.unwrap();
        let capture_id = object.facts.captured.unwrap().capture_id;
        (payment_id, CaptureRef { object_id: Some(order.id), capture_id })
    }

    fn events(&self, kind: &str) -> Vec<SimEvent> {
        self.simulator.events().into_iter().filter(|event| event.kind == kind).collect()
    }

    fn calls(&self, path: &str) -> usize {
        self.simulator.calls().iter().filter(|call| call.path.contains(path)).count()
    }
}

fn client(simulator: &Simulator, base: &str, proof: PayPalProof) -> PayPal {
    let mut settings =
        harness::settings("postgres://nobody", "127.0.0.1:0", simulator, Path::new("none"));
    settings.remove("PAYPAL_CERT_ROOTS");
    settings.insert("PAYPAL_API_BASE".to_owned(), base.to_owned());
    let config = Config::read(&|name| settings.get(name).cloned()).unwrap();
    let mut paypal = config.paypal.unwrap();
    paypal.cert_roots = Some(simulator.paypal_root_pem().to_owned());
    paypal.proof = proof;
    let _installed_before = rustls::crypto::ring::default_provider().install_default();
    PayPal::new(&paypal).unwrap()
}

fn usd(minor: i64) -> Money {
    Money::new(minor, Currency::USD)
}

fn new_payment() -> PaymentId {
    PaymentId::new(wall_now())
}

fn request(amount: Money) -> IntentRequest {
    IntentRequest {
        payment_id: new_payment(),
        attempt: 0,
        form: Form::Intent,
        amount,
        description: "Basic".to_owned(),
        return_url: "https://app.example.com/return".to_owned(),
        cancel_url: "https://app.example.com/cancel".to_owned(),
        gateway_customer: None,
        saves_method: false,
    }
}

fn refund_of(payment_id: PaymentId, capture: &CaptureRef, minor: i64) -> RefundRequest {
    RefundRequest {
        refund_id: RefundId::new(wall_now()),
        payment_id,
        capture: capture.clone(),
        amount: usd(minor),
        first_asked_at: wall_now(),
    }
}

fn code(error: &GatewayError) -> &str {
    match error {
        GatewayError::Declined { code }
        | GatewayError::Refused { code }
        | GatewayError::Bug { code } => code,
        GatewayError::Unavailable(_)
        | GatewayError::NotFound
        | GatewayError::Misconfigured(_)
        | GatewayError::Malformed(_) => "",
    }
}

#[tokio::test]
async fn an_order_is_opened_once_and_asks_what_was_asked() {
    let ground = Ground::start().await;
    let request = request(usd(1_090));

    let order = ground.paypal.create_intent(&request).await.unwrap();
    let again = ground.paypal.create_intent(&request).await.unwrap();
    let next = IntentRequest { attempt: 1, form: Form::HostedPage, ..request.clone() };
    let other = ground.paypal.create_intent(&next).await.unwrap();

    assert_eq!(order.id, again.id);
    assert_ne!(order.id, other.id, "another attempt is another order");
    assert_eq!(order.amount, usd(1_090));
    assert_eq!(order.names_payment, Some(request.payment_id.to_string()));
    assert_eq!(other.names_payment, Some(request.payment_id.to_string()));
    assert!(order.is_ours);
    assert!(matches!(order.next, Next::Approve(page) if page.contains(&order.id)));
}

#[tokio::test]
async fn an_approved_order_is_captured_once_however_often_it_is_asked() {
    let ground = Ground::start().await;
    let (payment_id, order) = ground.approved(Funding::Instant).await;
    assert!(ground.paypal.fetch_intent(&order.id).await.unwrap().facts.is_approved);

    let answers = futures((0..4).map(|_| ground.paypal.capture(&order.id, payment_id, 0))).await;

    let money: Vec<_> =
        answers.into_iter().flatten().filter_map(|object| object.facts.captured).collect();
    assert!(!money.is_empty() && money.iter().all(|it| it.amount == usd(1_500)));
    assert_eq!(ground.events("PAYMENT.CAPTURE.COMPLETED").len(), 1);
    let capture_id = money[0].capture_id.as_deref().unwrap();
    assert_eq!(ground.paypal.object_of_capture(capture_id).await.unwrap(), order.id);
}

#[tokio::test]
async fn a_capture_whose_answer_was_lost_is_the_same_capture() {
    for trouble in [Trouble::AnswerLost, Trouble::ResetAfter, Trouble::MalformedAnswer] {
        let ground = Ground::start().await;
        let (payment_id, order) = ground.approved(Funding::Instant).await;
        ground.simulator.set_fault(Fault::once(trouble.clone()).matching("/capture"));

        let lost = ground.paypal.capture(&order.id, payment_id, 0).await.unwrap_err();
        let found = ground.paypal.capture(&order.id, payment_id, 0).await.unwrap();

        assert!(lost.is_temporary(), "{trouble:?}");
        assert!(found.facts.captured.is_some(), "{trouble:?}");
        assert_eq!(ground.events("PAYMENT.CAPTURE.COMPLETED").len(), 1, "{trouble:?}");
    }
}

#[tokio::test]
async fn a_pending_capture_is_under_way_until_it_is_settled() {
    for is_paid in [true, false] {
        let ground = Ground::start().await;
        let (payment_id, order) = ground.approved(Funding::Pending).await;

        let pending = ground.paypal.capture(&order.id, payment_id, 0).await.unwrap().facts;
        let cancelled = ground.paypal.cancel_intent(&order.id, payment_id).await.unwrap().facts;
        let event = ground.events("PAYMENT.CAPTURE.PENDING").remove(0);
        ground.simulator.settle_paypal(&event.object_id, is_paid).unwrap();
        let settled = ground.paypal.fetch_intent(&order.id).await.unwrap().facts;

        assert!(pending.is_processing && pending.captured.is_none() && !pending.is_approved);
        assert!(cancelled.is_processing && !cancelled.is_voided, "money is under way");
        assert!(!settled.is_processing);
        assert_eq!(settled.captured.is_some(), is_paid);
        assert_eq!(settled.is_declined, !is_paid);
    }
}

#[tokio::test]
async fn a_buyer_whose_source_is_declined_may_choose_another() {
    let ground = Ground::start().await;
    let (payment_id, order) = ground.approved(Funding::Declines).await;

    let declined = ground.paypal.capture(&order.id, payment_id, 0).await.unwrap();
    ground.simulator.approve_paypal(&order.id).unwrap();
    let captured = ground.paypal.capture(&order.id, payment_id, 1).await.unwrap();

    assert!(declined.facts.is_declined && !declined.facts.is_voided);
    assert!(!declined.facts.is_approved, "it is the buyer's turn");
    assert_eq!(declined.facts.failure_code.as_deref(), Some("INSTRUMENT_DECLINED"));
    assert!(matches!(declined.next, Next::Approve(page) if page.contains(&order.id)));
    assert!(captured.facts.captured.is_some());
}

#[tokio::test]
async fn a_second_order_of_a_paid_invoice_ends_declined_and_void() {
    let ground = Ground::start().await;
    let request = request(usd(1_500));
    let first = ground.paypal.create_intent(&request).await.unwrap();
    // PayPal forgets the request id, so the same request makes a twin of the order.
    ground.simulator.advance_clock(Duration::hours(7));
    let twin = ground.paypal.create_intent(&request).await.unwrap();
    for order in [&first, &twin] {
        ground.simulator.approve_paypal(&order.id).unwrap();
    }

    let paid = ground.paypal.capture(&first.id, request.payment_id, 0).await.unwrap();
    let refused = ground.paypal.capture(&twin.id, request.payment_id, 0).await.unwrap();

    assert_ne!(first.id, twin.id);
    assert!(paid.facts.captured.is_some());
    assert!(refused.facts.is_declined && refused.facts.is_voided && !refused.facts.is_approved);
    assert_eq!(refused.facts.failure_code.as_deref(), Some("DUPLICATE_INVOICE_ID"));
    assert_eq!(ground.events("PAYMENT.CAPTURE.COMPLETED").len(), 1);
}

#[tokio::test]
async fn a_second_order_after_a_decline_is_captured_by_a_key_of_its_own() {
    let ground = Ground::start().await;
    let (payment_id, first) = ground.approved(Funding::Declines).await;
    ground.paypal.capture(&first.id, payment_id, 0).await.unwrap();
    let next = IntentRequest { payment_id, attempt: 1, ..request(usd(1_500)) };
    let second = ground.paypal.create_intent(&next).await.unwrap();
    ground.simulator.approve_paypal(&second.id).unwrap();

    let captured = ground.paypal.capture(&second.id, payment_id, 0).await.unwrap();

    assert_eq!(captured.id, second.id);
    assert!(captured.facts.captured.is_some());
}

#[tokio::test]
async fn a_cancelled_order_is_marked_never_to_be_captured() {
    let ground = Ground::start().await;
    let (payment_id, order) = ground.approved(Funding::Instant).await;

    let cancelled = ground.paypal.cancel_intent(&order.id, payment_id).await.unwrap().facts;

    assert!(cancelled.is_voided && !cancelled.is_approved && cancelled.captured.is_none());

    let (payment_id, paid) = ground.captured().await;
    let order_id = paid.object_id.unwrap();
    let facts = ground.paypal.cancel_intent(&order_id, payment_id).await.unwrap().facts;
    assert!(facts.captured.is_some() && !facts.is_voided, "the buyer was quicker");
}

#[tokio::test]
async fn an_approval_that_paypal_took_back_is_void() {
    let ground = Ground::start().await;
    let (payment_id, order) = ground.approved(Funding::Instant).await;
    ground.simulator.reverse_paypal_approval(&order.id).unwrap();

    let event = ground.events("CHECKOUT.PAYMENT-APPROVAL.REVERSED").remove(0);
    let told = ground.paypal.parse_event(&event.body).unwrap();
    let facts = ground.paypal.capture(&order.id, payment_id, 0).await.unwrap().facts;

    assert!(matches!(told, GatewayEvent::ReadObject(id) if id == order.id));
    assert!(facts.is_voided && !facts.is_approved && facts.captured.is_none());
}

#[tokio::test]
async fn what_is_no_id_is_not_found_without_a_call() {
    let ground = Ground::start().await;
    for id in ["", "../v1/oauth2/token", "A?B", "A/B", "A%2FB", "é"] {
        let error = ground.paypal.fetch_intent(id).await.unwrap_err();
        assert!(matches!(error, GatewayError::NotFound), "{id}");
        assert!(ground.paypal.fetch_dispute(id).await.is_err());
        assert!(ground.paypal.fetch_method(id).await.is_err());
    }
    assert!(ground.simulator.calls().is_empty());
    let unknown = ground.paypal.fetch_intent("5O190127TN364715T").await.unwrap_err();
    assert!(matches!(unknown, GatewayError::NotFound));
}

#[tokio::test]
async fn forints_and_yen_have_no_decimals_at_paypal() {
    let ground = Ground::start().await;
    for (text, minor) in [("HUF", 150_000), ("JPY", 1_500), ("TWD", 150_000), ("EUR", 1_090)] {
        let amount = Money::new(minor, Currency::parse(text).unwrap());
        let order = ground.paypal.create_intent(&request(amount)).await.unwrap();
        assert_eq!(order.amount, amount);
    }
    for (text, minor) in [("HUF", 150_050), ("KWD", 12_340)] {
        let amount = Money::new(minor, Currency::parse(text).unwrap());
        let error = ground.paypal.create_intent(&request(amount)).await.unwrap_err();
        assert!(matches!(error, GatewayError::Refused { .. }), "{text}: {error}");
    }
    assert_eq!(ground.calls("/v2/checkout/orders"), 4);
}

#[tokio::test]
async fn a_refund_asked_twice_is_made_once() {
    let ground = Ground::start().await;
    let (payment_id, capture) = ground.captured().await;
    let request = refund_of(payment_id, &capture, 400);

    let made = ground.paypal.refund(&request).await.unwrap();
    let again = ground.paypal.refund(&request).await.unwrap();

    assert_eq!(made, again);
    assert_eq!(made.status, RefundStatus::Succeeded);
    assert_eq!(made.amount, usd(400));
    assert_eq!(made.names_refund, Some(request.refund_id.to_string()));
    assert!(made.is_ours);
    let all = ground.paypal.refunds_of(&capture).await.unwrap();
    assert_eq!(all.iter().map(|refund| &refund.id).collect::<Vec<_>>(), [&made.id]);
    let read = ground.paypal.fetch_refund(&made.id).await.unwrap();
    assert_eq!(read.names_refund, made.names_refund);
    assert_eq!(read.capture.capture_id, capture.capture_id);
}

#[tokio::test]
async fn a_refund_whose_answer_was_lost_is_found_again() {
    for trouble in [Trouble::AnswerLost, Trouble::ErrorAfter, Trouble::ResetAfter] {
        let ground = Ground::start().await;
        let (payment_id, capture) = ground.captured().await;
        let request = refund_of(payment_id, &capture, 1_500);
        ground.simulator.set_fault(Fault::once(trouble.clone()).matching("/refund"));

        let lost = ground.paypal.refund(&request).await.unwrap_err();
        let found = ground.paypal.refund(&request).await.unwrap();

        assert!(lost.is_temporary(), "{trouble:?}");
        assert_eq!(found.names_refund, Some(request.refund_id.to_string()));
        assert_eq!(ground.events("PAYMENT.CAPTURE.REFUNDED").len(), 1, "{trouble:?}");
    }
}

#[tokio::test]
async fn a_late_repeat_of_a_refund_looks_before_it_asks() {
    let ground = Ground::start().await;
    let (payment_id, capture) = ground.captured().await;
    let mut request = refund_of(payment_id, &capture, 400);
    let made = ground.paypal.refund(&request).await.unwrap();
    // PayPal forgets the request id: asking again would send 400 once more.
    ground.simulator.advance_clock(Duration::days(46));
    request.first_asked_at = wall_now() - Duration::days(46);
    let asked = ground.calls("/refund");

    let found = ground.paypal.refund(&request).await.unwrap();

    assert_eq!(found.id, made.id);
    assert_eq!(ground.calls("/refund"), asked, "nothing was asked for again");
    assert_eq!(ground.paypal.refunds_of(&capture).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_refund_that_is_refused_because_it_was_made_is_found() {
    let ground = Ground::start().await;
    let (payment_id, capture) = ground.captured().await;
    let request = refund_of(payment_id, &capture, 1_500);
    let made = ground.paypal.refund(&request).await.unwrap();
    ground.simulator.advance_clock(Duration::days(46));

    let found = ground.paypal.refund(&request).await.unwrap();
    let other = ground.paypal.refund(&refund_of(payment_id, &capture, 100)).await.unwrap_err();

    assert_eq!(found.id, made.id);
    assert_eq!(code(&other), "CAPTURE_FULLY_REFUNDED");
    assert!(!other.is_temporary());
}

#[tokio::test]
async fn a_refund_needs_only_the_order_and_may_pend_or_fail() {
    for (outcome, status) in [
        (PayPalRefundOutcome::Pending, RefundStatus::Pending),
        (PayPalRefundOutcome::Failed, RefundStatus::Failed),
        (PayPalRefundOutcome::Cancelled, RefundStatus::Failed),
    ] {
        let ground = Ground::start().await;
        let (payment_id, capture) = ground.captured().await;
        let by_order = CaptureRef { object_id: capture.object_id.clone(), capture_id: None };
        ground.simulator.begin_next_paypal_refund(outcome);

        let refund = ground.paypal.refund(&refund_of(payment_id, &by_order, 400)).await.unwrap();

        assert_eq!(refund.status, status);
        assert_eq!(refund.capture.capture_id, capture.capture_id);
        assert_eq!(refund.failure_code.is_some(), status == RefundStatus::Failed);
    }
}

#[tokio::test]
async fn a_refund_at_the_dashboard_names_no_refund_of_ours() {
    let ground = Ground::start().await;
    let (_, capture) = ground.captured().await;
    let capture_id = capture.capture_id.clone().unwrap();
    let id = ground.simulator.refund_paypal(&capture_id, Some(400)).unwrap();

    let read = ground.paypal.fetch_refund(&id).await.unwrap();
    let by_capture = CaptureRef { object_id: None, capture_id: Some(capture_id) };
    let listed: Vec<RefundState> = ground.paypal.refunds_of(&by_capture).await.unwrap();

    assert_eq!(read.names_refund, None);
    assert_eq!(read.amount, usd(400));
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0].id, &listed[0].names_refund), (&id, &None));
}

#[tokio::test]
async fn a_dispute_is_open_from_its_first_day_and_ends_as_paypal_decides() {
    use PayPalDisputeOutcome::{Accepted, CanceledByBuyer, Denied, ResolvedBuyerFavour};
    use PayPalDisputeOutcome::{ResolvedSellerFavour, ResolvedWithPayout};
    for (outcome, stage) in [
        (ResolvedBuyerFavour, DisputeStage::Lost),
        (Accepted, DisputeStage::Lost),
        (ResolvedSellerFavour, DisputeStage::Won),
        (ResolvedWithPayout, DisputeStage::Won),
        (CanceledByBuyer, DisputeStage::Won),
        (Denied, DisputeStage::Won),
        (PayPalDisputeOutcome::None, DisputeStage::Won),
    ] {
        let ground = Ground::start().await;
        let (_, capture) = ground.captured().await;
        let capture_id = capture.capture_id.clone().unwrap();
        let id = ground.simulator.open_paypal_dispute(&capture_id, true).unwrap();

        let event = ground.events("CUSTOMER.DISPUTE.CREATED").remove(0);
        let told = ground.paypal.parse_event(&event.body).unwrap();
        let opened = ground.paypal.fetch_dispute(&id).await.unwrap();
        ground.simulator.escalate_paypal_dispute(&id).unwrap();
        let claimed = ground.paypal.fetch_dispute(&id).await.unwrap();
        ground.simulator.settle_paypal_dispute(&id, outcome).unwrap();
        let listed = ground.paypal.disputes_of(&capture).await.unwrap();

        assert!(matches!(told, GatewayEvent::ReadDispute(told) if told == id));
        assert_eq!((opened.stage, claimed.stage), (DisputeStage::Open, DisputeStage::Open));
        assert_eq!(opened.capture.capture_id, capture.capture_id);
        assert_eq!((listed.len(), listed[0].stage), (1, stage), "{outcome:?}");
        assert_eq!((listed[0].kind, listed[0].amount), (DisputeKind::Dispute, usd(1_500)));
        assert!(listed[0].is_ours);
    }
}

#[tokio::test]
async fn a_reversal_is_money_lost_and_is_read_before_it_is_believed() {
    let ground = Ground::start().await;
    let (_, capture) = ground.captured().await;
    let capture_id = capture.capture_id.clone().unwrap();
    let invented = ground.paypal.fetch_reversal("5YV77211JH9906131", &capture_id).await;
    ground.simulator.reverse_paypal(&capture_id).unwrap();

    let event = ground.events("PAYMENT.CAPTURE.REVERSED").remove(0);
    let GatewayEvent::ReadReversal { id, capture_id: named } =
        ground.paypal.parse_event(&event.body).unwrap()
    else {
        panic!("a reversal")
    };
    let reversal = ground.paypal.fetch_reversal(&id, &named).await.unwrap();

    assert!(matches!(invented, Err(GatewayError::NotFound)), "nothing was taken back yet");
    assert_eq!(named, capture_id);
    assert_eq!((reversal.kind, reversal.stage), (DisputeKind::Reversal, DisputeStage::Lost));
    assert_eq!(reversal.amount, usd(1_500));
    assert!(matches!(
        ground.paypal.fetch_reversal(&id, "2GG279541U471931P").await,
        Err(GatewayError::NotFound)
    ));
}

#[tokio::test]
async fn a_refund_of_ours_is_no_reversal_whatever_an_event_says() {
    let ground = Ground::start().await;
    let (payment_id, capture) = ground.captured().await;
    let refund = ground.paypal.refund(&refund_of(payment_id, &capture, 400)).await.unwrap();

    let capture_id = capture.capture_id.unwrap();
    let reversal = ground.paypal.fetch_reversal(&refund.id, &capture_id).await;

    assert!(matches!(reversal, Err(GatewayError::NotFound)), "its money would be lost twice");
}

/// Buys with a method that is kept; gives the order's last state.
async fn vaulted(ground: &Ground) -> Object {
    let request = IntentRequest { saves_method: true, ..request(usd(1_500)) };
    let order = ground.paypal.create_intent(&request).await.unwrap();
    ground.simulator.approve_paypal(&order.id).unwrap();
    ground.paypal.capture(&order.id, request.payment_id, 0).await.unwrap()
}

fn charge(object: &Object) -> SavedCharge {
    SavedCharge {
        payment_id: new_payment(),
        attempt: 0,
        amount: usd(1_500),
        description: "Basic".to_owned(),
        gateway_customer: object.gateway_customer.clone().unwrap(),
        method: object.saved_method.clone().unwrap(),
    }
}

#[tokio::test]
async fn a_method_kept_with_a_purchase_pays_the_renewal_once() {
    let ground = Ground::start().await;
    let bought = vaulted(&ground).await;
    let charge = charge(&bought);

    let charged = ground.paypal.charge_saved(&charge).await.unwrap();
    let again = ground.paypal.charge_saved(&charge).await.unwrap();

    assert_eq!(charged.id, again.id);
    assert_eq!(charged.facts.captured.unwrap().amount, usd(1_500));
    assert_eq!(charged.names_payment, Some(charge.payment_id.to_string()));
    assert_eq!(ground.events("PAYMENT.CAPTURE.COMPLETED").len(), 2);
    let method = ground.paypal.fetch_method(&charge.method).await.unwrap();
    assert_eq!(
        (method.kind.as_str(), method.gateway_customer),
        ("paypal", bought.gateway_customer)
    );
}

#[tokio::test]
async fn a_renewal_repeated_after_paypal_forgot_its_key_finds_the_first_charge() {
    let ground = Ground::start().await;
    let charge = charge(&vaulted(&ground).await);
    let charged = ground.paypal.charge_saved(&charge).await.unwrap();
    ground.simulator.advance_clock(Duration::hours(7));

    let found = ground.paypal.charge_saved(&charge).await.unwrap();

    assert_eq!(found.id, charged.id);
    assert_eq!(ground.events("PAYMENT.CAPTURE.COMPLETED").len(), 2, "the purchase and one renewal");
}

#[tokio::test]
async fn a_declined_or_pending_renewal_says_so() {
    let ground = Ground::start().await;
    let charge = charge(&vaulted(&ground).await);
    ground.simulator.fund_paypal_token(&charge.method, Funding::Declines).unwrap();
    let declined = ground.paypal.charge_saved(&charge).await.unwrap_err();
    ground.simulator.fund_paypal_token(&charge.method, Funding::Pending).unwrap();
    let pending =
        ground.paypal.charge_saved(&SavedCharge { attempt: 1, ..charge }).await.unwrap().facts;

    assert!(matches!(&declined, GatewayError::Declined { code } if code == "INSTRUMENT_DECLINED"));
    assert_eq!(advice(code(&declined)), Advice::Later);
    assert!(pending.is_processing && !pending.is_declined);
}

#[tokio::test]
async fn a_deleted_method_is_declined_for_good() {
    let ground = Ground::start().await;
    let charge = charge(&vaulted(&ground).await);
    assert!(ground.simulator.delete_paypal_token(&charge.method));

    let declined = ground.paypal.charge_saved(&charge).await.unwrap_err();
    let gone = ground.paypal.fetch_method(&charge.method).await.unwrap_err();

    assert!(matches!(&declined, GatewayError::Declined { code } if advice(code) == Advice::Stop));
    assert!(matches!(gone, GatewayError::NotFound));
    ground.paypal.detach_method(&charge.method).await.unwrap();
    let event = ground.events("VAULT.PAYMENT-TOKEN.DELETED").remove(0);
    let told = ground.paypal.parse_event(&event.body).unwrap();
    assert!(matches!(told, GatewayEvent::MethodGone(id) if id == charge.method));
}

#[tokio::test]
async fn a_method_that_paypal_keeps_late_is_told_by_its_event() {
    let ground = Ground::start().await;
    ground.simulator.vault_paypal_late(true);

    let bought = vaulted(&ground).await;
    let event = ground.events("VAULT.PAYMENT-TOKEN.CREATED").remove(0);
    let told = ground.paypal.parse_event(&event.body).unwrap();

    assert_eq!(bought.saved_method, None);
    let GatewayEvent::ReadMethod { id, object_id } = told else { panic!("{told:?}") };
    assert_eq!(object_id, Some(bought.id));
    assert_eq!(ground.paypal.fetch_method(&id).await.unwrap().id, id);
}

#[tokio::test]
async fn a_method_is_kept_without_a_purchase_and_forgotten() {
    let ground = Ground::start().await;
    let customer_id = CustomerId::from(Uuid::from_u128(7));
    let request = SetupRequest {
        customer_id,
        key: format!("setup-{customer_id}-0"),
        gateway_customer: None,
        return_url: "https://app.example.com/return".to_owned(),
        cancel_url: "https://app.example.com/cancel".to_owned(),
    };

    let setup = ground.paypal.begin_setup(&request).await.unwrap();
    let again = ground.paypal.begin_setup(&request).await.unwrap();
    let unfinished = ground.paypal.finish_setup(&setup.id).await.unwrap();
    ground.simulator.approve_paypal_setup(&setup.id).unwrap();
    let method = ground.paypal.finish_setup(&setup.id).await.unwrap().unwrap();
    let repeated = ground.paypal.finish_setup(&setup.id).await.unwrap().unwrap();

    assert_eq!(setup.id, again.id);
    assert!(matches!(setup.next, Next::Approve(_)));
    assert_eq!(unfinished, None);
    assert_eq!(method, repeated);
    assert_eq!(method.kind, "paypal");
    ground.paypal.detach_method(&method.id).await.unwrap();
    ground.paypal.detach_method(&method.id).await.unwrap();
    assert!(ground.paypal.fetch_method(&method.id).await.is_err());
}

fn span(from: DateTime<Utc>) -> Span {
    Span { from, until: from + Duration::days(2) }
}

#[tokio::test]
async fn events_are_listed_page_by_page_with_their_bodies() {
    let ground = Ground::start().await;
    let span = span(wall_now() - Duration::days(1));
    for _ in 0..40 {
        ground.captured().await;
    }

    let (mut cursor, mut found, mut pages) = (None, Vec::new(), 0);
    loop {
        let page = ground.paypal.events_since(&span, cursor.as_deref()).await.unwrap();
        found.extend(page.items);
        pages += 1;
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }

    let made: Vec<_> = ground.simulator.events().into_iter().map(|event| event.id).collect();
    let mut ids: Vec<_> = found.iter().map(|it| it.event.id.clone()).collect();
    ids.reverse();
    assert_eq!(ids, made, "newest first, each once");
    assert!(pages > 1);
    let read = |event: &shared::gateways::FetchedEvent| -> Value {
        serde_json::from_slice(&event.payload).unwrap()
    };
    assert!(found.iter().all(|event| read(event)["id"] == event.event.id.as_str()));
    assert!(ground.paypal.events_since(&span, Some("a b")).await.is_err());
}

#[tokio::test]
async fn money_is_listed_whether_we_know_of_it_or_not() {
    let ground = Ground::start().await;
    let (payment_id, capture) = ground.captured().await;
    let capture_id = capture.capture_id.clone().unwrap();
    ground.simulator.refund_paypal(&capture_id, Some(400)).unwrap();
    let (pending_id, order) = ground.approved(Funding::Pending).await;
    ground.paypal.capture(&order.id, pending_id, 0).await.unwrap();

    let from = wall_now() - Duration::days(40);
    let wide = Span { from, until: from + Duration::days(41) };
    let (mut cursor, mut found) = (None, Vec::new());
    loop {
        let page = ground.paypal.captures_since(&wide, cursor.as_deref()).await.unwrap();
        found.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }

    assert_eq!(found.len(), 2, "refunds are no captures: {found:?}");
    let first = found.iter().find(|it| it.capture_id == capture.capture_id).unwrap();
    assert_eq!(first.amount, usd(1_500));
    assert_eq!(first.names_payment, Some(payment_id.to_string()));
}

#[tokio::test]
async fn fifty_callers_at_once_fetch_one_token_and_a_refused_one_is_fetched_anew() {
    let ground = Ground::start().await;
    let order = ground.paypal.create_intent(&request(usd(100))).await.unwrap();
    ground.simulator.expire_paypal_tokens();
    let fresh = client(&ground.simulator, ground.simulator.paypal_url(), PayPalProof::Certificate);
    let before = ground.calls("/v1/oauth2/token");

    let reads = futures((0..50).map(|_| fresh.fetch_intent(&order.id))).await;
    assert!(reads.iter().all(Result::is_ok));
    assert_eq!(ground.calls("/v1/oauth2/token"), before + 1);

    ground.simulator.expire_paypal_tokens();
    let reads = futures((0..50).map(|_| fresh.fetch_intent(&order.id))).await;
    assert!(reads.iter().all(Result::is_ok));
    assert_eq!(ground.calls("/v1/oauth2/token"), before + 2);
}

fn headers(pairs: &[(String, String)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let name: HeaderName = name.to_ascii_lowercase().parse().unwrap();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

#[tokio::test]
async fn both_proofs_take_a_genuine_webhook_and_no_other() {
    for proof in [PayPalProof::Certificate, PayPalProof::Api] {
        let ground = Ground::start().await;
        ground.captured().await;
        let paypal = client(&ground.simulator, ground.simulator.paypal_url(), proof);
        let event = ground.events("PAYMENT.CAPTURE.COMPLETED").remove(0);
        let signed = headers(&ground.simulator.signed_paypal(&event.body));
        let mut changed = event.body.clone();
        let place = changed.windows(5).position(|window| window == b"15.00").unwrap();
        changed[place] = b'9';

        let genuine = paypal.verify_webhook(&signed, &event.body, wall_now()).await.unwrap();
        let forged = paypal.verify_webhook(&signed, &changed, wall_now()).await;

        assert_eq!(genuine.id, event.id);
        assert!(genuine.delivery_id.is_some());
        assert!(matches!(forged, Err(WebhookRejected::Invalid(_))), "{proof:?}: {forged:?}");
    }
}

#[tokio::test]
async fn a_foreign_certificate_address_is_refused_without_a_call() {
    let ground = Ground::start().await;
    let paypal = client(&ground.simulator, ground.simulator.paypal_url(), PayPalProof::Api);
    let mut signed = headers(&ground.simulator.signed_paypal(b"{}"));
    let foreign = "https://evil.example/v1/notifications/certs/CERT-1";
    signed.insert("paypal-cert-url", HeaderValue::from_static(foreign));

    let rejected = paypal.verify_webhook(&signed, b"{}", wall_now()).await;
    let broken = headers(&ground.simulator.signed_paypal(b"{}"));
    let not_json = paypal.verify_webhook(&broken, b"not json", wall_now()).await;

    assert!(matches!(rejected, Err(WebhookRejected::Invalid(_))));
    assert!(matches!(not_json, Err(WebhookRejected::Invalid(_))));
    assert!(ground.simulator.calls().is_empty());
}

/// What a server that is no PayPal says to everything but the request for a token.
#[derive(Clone, Copy)]
enum Says {
    Status(u16, &'static str),
    Nothing,
}

/// Starts one; gives its address. It stops with the test's runtime.
async fn canned(says: Says) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, says));
        }
    });
    base
}

async fn answer(mut stream: TcpStream, says: Says) {
    let mut asked = Vec::new();
    let mut chunk = [0; 4096];
    let is_whole = |asked: &[u8]| {
        let text = String::from_utf8_lossy(asked).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        body.len() >= length.map_or(0, |length| length.parse().unwrap())
    };
    while !is_whole(&asked) {
        match stream.read(&mut chunk).await {
            Ok(read) if read > 0 => asked.extend_from_slice(&chunk[..read]),
            Ok(_) | Err(_) => return,
        }
    }
    let token = json!({ "access_token": "canned", "expires_in": 3_600 }).to_string();
    let (status, body) = match says {
        _ if asked.starts_with(b"POST /v1/oauth2/token") => (200, token.as_str()),
        Says::Status(status, body) => (status, body),
        Says::Nothing => return std::future::pending().await,
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    let _gone = stream.write_all(format!("{head}{body}").as_bytes()).await;
}

#[tokio::test]
async fn only_the_exact_word_success_proves_a_webhook() {
    let simulator = harness::simulator().await;
    let verdict = async |says: Says| {
        let paypal = client(&simulator, &canned(says).await, PayPalProof::Api);
        let body = br#"{"id":"WH-1","event_type":"CHECKOUT.ORDER.APPROVED"}"#;
        let signed = headers(&simulator.signed_paypal(body));
        paypal.verify_webhook(&signed, body, wall_now()).await
    };
    let word = |text| Says::Status(200, text);

    let (success, failure, lower, html, broken, silent) = tokio::join!(
        verdict(word(r#"{"verification_status":"SUCCESS"}"#)),
        verdict(word(r#"{"verification_status":"FAILURE"}"#)),
        verdict(word(r#"{"verification_status":"success"}"#)),
        verdict(word("<html>SUCCESS</html>")),
        verdict(Says::Status(500, "{}")),
        verdict(Says::Nothing),
    );

    assert_eq!(success.unwrap().id, "WH-1");
    assert!(matches!(failure, Err(WebhookRejected::Invalid(_))));
    assert!(matches!(lower, Err(WebhookRejected::Invalid(_))));
    assert!(matches!(html, Err(WebhookRejected::Unavailable(_))));
    assert!(matches!(broken, Err(WebhookRejected::Unavailable(_))));
    assert!(matches!(silent, Err(WebhookRejected::Unavailable(_))), "a timeout");
}

#[tokio::test]
async fn a_call_that_finds_no_turn_gives_up_in_bounded_time() {
    let simulator = harness::simulator().await;
    let paypal = client(&simulator, &canned(Says::Nothing).await, PayPalProof::Certificate);

    let reads = futures((0..33).map(|_| paypal.fetch_intent("5O190127TN364715T"))).await;

    let is_full = |read: &&Result<Object, GatewayError>| matches!(read, Err(GatewayError::Unavailable(why)) if why.contains("too many calls"));
    assert_eq!(reads.iter().filter(is_full).count(), 1);
    assert!(reads.iter().all(|read| matches!(read, Err(GatewayError::Unavailable(_)))));
}

#[tokio::test]
async fn a_refused_client_is_a_matter_for_a_person() {
    let simulator = Simulator::start(Settings {
        stripe_webhook_secrets: vec![STRIPE_WEBHOOK_SECRET.to_owned()],
        paypal_client_secret: "another".to_owned(),
        ..Settings::default()
    })
    .await
    .unwrap();
    let paypal = client(&simulator, simulator.paypal_url(), PayPalProof::Certificate);

    let error = paypal.fetch_intent("5O190127TN364715T").await.unwrap_err();

    assert!(matches!(error, GatewayError::Misconfigured(_)));
}
