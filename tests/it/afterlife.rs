//! What time, order and repetition must not change about money that was paid or sent back.

use chrono::Duration;
use harness::{Options, TestApp, text};
use serde_json::{Value, json};
use shared::gateways::{CaptureRef, GatewayName, RefundRequest};
use shared::ids::{PaymentId, RefundId};
use shared::jobs::Job;
use shared::money::{Currency, Money};
use shared::payments::{self, RefundChoice, RefundWish};
use shared::plans::{self, NewPlan};
use shared::tokens::Tokens;
use simulator::{DisputeOutcome, PayPalRefundOutcome};

fn intent(purchase: &Value) -> &str {
    text(purchase, "transaction_id")
}

async fn consume(app: &TestApp, user: &str, tokens: u64) -> u16 {
    let body = json!({ "tokens": tokens });
    app.post(user, "tokens/consume/", &body).await.status().as_u16()
}

async fn refund(app: &TestApp, purchase: &Value) -> Value {
    let path = format!("payments/{}/refund/", text(purchase, "payment_id"));
    let (status, answer) = app.operate(&path, &json!({ "reason": "asked for" })).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

async fn page(app: &TestApp, user: &str) -> Value {
    let answer = app.post(user, "stripe/checkout-session/", &json!({ "plan_id": 1 })).await;
    assert_eq!(answer.status(), 201);
    answer.json().await.unwrap()
}

async fn end_date(app: &TestApp, user: &str) -> String {
    text(&app.get(user, "subscription/").await, "end_date").to_owned()
}

#[tokio::test]
async fn a_refund_of_an_old_subscription_leaves_the_one_that_lives_now_spendable() {
    let app = TestApp::start().await;
    let old = app.bought("42", 1).await;
    app.clock.advance(Duration::days(40));
    app.bought("42", 1).await;
    assert_eq!(consume(&app, "42", 1).await, 200);

    refund(&app, &old).await;

    assert_eq!(consume(&app, "42", 1).await, 200, "the second payment was not refunded");
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_lost_dispute_of_an_old_subscription_leaves_the_one_that_lives_now_spendable() {
    let app = TestApp::start().await;
    let old = app.bought("42", 1).await;
    app.clock.advance(Duration::days(40));
    app.bought("42", 1).await;
    let dispute = app.simulator.open_stripe_dispute(intent(&old), false, None).unwrap();
    app.tell().await;
    app.clock.advance(Duration::days(2));
    app.simulator.settle_stripe_dispute(&dispute, DisputeOutcome::Lost).unwrap();
    app.tell().await;

    assert_eq!(consume(&app, "42", 1).await, 200, "the second payment was not disputed");
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_queued_period_comes_back_when_its_refund_fails() {
    let app = TestApp::start().await;
    app.bought("42", 1).await;
    let second = app.bought("42", 1).await;
    let before = end_date(&app, "42").await;
    let answer = refund(&app, &second).await;
    app.tell().await;

    app.simulator.settle_stripe_refund(text(&answer, "gateway_refund_id"), false).unwrap();
    app.tell().await;

    assert_eq!(app.payment("42", &second).await["status"], "completed");
    assert_eq!(end_date(&app, "42").await, before, "its money is ours again");
    app.clock.advance(Duration::days(31));
    assert_eq!(consume(&app, "42", 1_000).await, 200, "what the second payment bought");
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_running_period_comes_back_when_its_refund_fails_though_another_is_paid_behind_it() {
    let app = TestApp::start().await;
    let first = app.bought("42", 1).await;
    app.bought("42", 1).await;
    let before = end_date(&app, "42").await;
    let answer = refund(&app, &first).await;
    app.tell().await;

    app.simulator.settle_stripe_refund(text(&answer, "gateway_refund_id"), false).unwrap();
    app.tell().await;

    assert_eq!(app.payment("42", &first).await["status"], "completed");
    assert_eq!(end_date(&app, "42").await, before, "both periods are paid");
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_payment_whose_buyer_changes_to_the_hosted_page_stays_open() {
    let app = TestApp::start().await;
    let purchase = app.purchase("42", 1, "stripe").await;

    let session = page(&app, "42").await;

    assert_eq!(session["payment_id"], purchase["payment_id"]);
    assert_eq!(app.payment("42", &session).await["status"], "pending");
    assert_eq!(
        app.scalar("select count(*) from payments where next_check_at is not null").await,
        1,
        "its gateway is asked when the webhook is lost"
    );
    let again = page(&app, "42").await;
    assert_eq!(again["payment_id"], purchase["payment_id"], "one pending payment, not two");
}

#[tokio::test]
async fn a_payment_whose_buyer_changed_to_the_hosted_page_was_not_cancelled() {
    let settings = vec![("LATE_CAPTURE", "refund".to_owned())];
    let app = TestApp::start_with(Options { settings, ..Options::default() }).await;
    app.purchase("42", 1, "stripe").await;
    let session = page(&app, "42").await;
    app.simulator.pay_stripe_session(text(&session, "session_id"), "pm_card_visa").unwrap();
    app.tell().await;

    assert_eq!(app.payment("42", &session).await["status"], "completed");
    assert_eq!(app.scalar("select count(*) from refunds").await, 0);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_payment_whose_buyer_changed_to_the_hosted_page_is_learned_without_a_webhook() {
    let app = TestApp::start().await;
    app.purchase("42", 1, "stripe").await;
    let session = page(&app, "42").await;
    app.simulator.pay_stripe_session(text(&session, "session_id"), "pm_card_visa").unwrap();
    app.lose_events();
    app.clock.advance(Duration::minutes(10));
    app.run_jobs().await;

    assert_eq!(app.payment("42", &session).await["status"], "completed");
}

#[tokio::test]
async fn a_lost_dispute_of_a_period_that_is_over_gives_no_time() {
    let app = TestApp::start().await;
    let first = app.bought("42", 1).await;
    app.bought("42", 1).await;
    app.bought("42", 1).await;
    let before = end_date(&app, "42").await;
    app.clock.advance(Duration::days(10));
    let dispute = app.simulator.open_stripe_dispute(intent(&first), false, None).unwrap();
    app.tell().await;
    app.clock.advance(Duration::days(70));
    app.simulator.settle_stripe_dispute(&dispute, DisputeOutcome::Lost).unwrap();
    app.tell().await;

    assert_eq!(end_date(&app, "42").await, before);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_repeated_refund_of_an_old_pack_does_not_end_a_newer_one() {
    let app = TestApp::start().await;
    let old = app.bought("42", 3).await;
    refund(&app, &old).await;
    app.tell().await;
    app.clock.advance(Duration::days(1));
    app.bought("42", 3).await;
    assert_eq!(consume(&app, "42", 500).await, 200);
    let before = app.get("42", "subscription/").await["status"].clone();

    let refunded = app.stripe_event(&old, "charge.refunded");
    let mut again: Value = serde_json::from_slice(&refunded).unwrap();
    again["id"] = json!("evt_again");
    app.deliver_stripe(again.to_string().as_bytes()).await;
    app.run_jobs().await;

    assert_eq!(app.get("42", "subscription/").await["status"], before);
}

#[tokio::test]
async fn a_reversal_ends_alike_whether_it_is_told_or_first_read() {
    let mut ends = Vec::new();
    for is_read_first in [false, true] {
        let app = TestApp::start().await;
        let purchase = app.bought_with_paypal("42", 1).await;
        let capture = app.simulator.truth()[0].capture_ids[0].clone();
        app.simulator.reverse_paypal(&capture).unwrap();
        if is_read_first {
            let id = text(&purchase, "payment_id").parse().unwrap();
            payments::compare_one(&app.app, id).await.unwrap();
        }
        app.tell().await;
        let payment = app.payment("42", &purchase).await;
        ends.push((payment["status"].clone(), payment["refunded_amount"].clone()));
    }

    assert_eq!(ends[0], ends[1]);
}

#[tokio::test]
async fn a_free_plan_is_never_queued_behind_a_paid_one() {
    let app = TestApp::start().await;
    let free = NewPlan {
        name: "Free",
        description: "",
        price_minor: 0,
        currency: Currency::USD,
        tokens_included: Tokens(10),
        duration_days: Some(30),
        is_recurring: false,
    };
    plans::create(&app.app, &free).await.unwrap();
    app.bought("42", 1).await;
    let before = end_date(&app, "42").await;

    let body = json!({ "plan_id": 4, "payment_method": "stripe" });
    let answer = app.post("42", "purchase/", &body).await.status().as_u16();

    assert_eq!((answer, end_date(&app, "42").await), (409, before));
}

#[tokio::test]
async fn a_refund_that_fails_after_a_later_subscription_is_over_is_booked() {
    let app = TestApp::start().await;
    let first = app.bought("42", 1).await;
    let answer = refund(&app, &first).await;
    app.tell().await;
    app.bought("42", 1).await;
    app.clock.advance(Duration::days(31));
    app.simulator.settle_stripe_refund(text(&answer, "gateway_refund_id"), false).unwrap();
    app.tell().await;

    assert_eq!(app.payment("42", &first).await["status"], "completed");
    assert_eq!(consume(&app, "42", 1_000).await, 200, "thirty days are left of what it bought");
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_pending_refund_is_asked_for_by_a_new_job_each_time() {
    let app = TestApp::start().await;
    let purchase = app.bought_with_paypal("42", 1).await;
    app.simulator.begin_next_paypal_refund(PayPalRefundOutcome::Pending);
    assert_eq!(refund(&app, &purchase).await["status"], "pending");
    let mut keys = Vec::new();
    for _ in 0..3 {
        app.clock.advance(Duration::minutes(61));
        let jobs = payments::due(&app.app, app.clock.now()).await.unwrap();
        let job = jobs.into_iter().find(|job| matches!(job, Job::SendRefund { .. })).unwrap();
        keys.push(job.key());
        worker::run(&app.app, job).await.unwrap();
    }

    keys.dedup();
    assert_eq!(keys.len(), 3, "the queue keeps a done job's key for a day: {keys:?}");
}

#[tokio::test]
async fn a_refund_that_the_gateway_shows_as_sent_counts_whatever_was_answered_to_a_repeat() {
    let app = TestApp::start().await;
    // Not so late that the gateway may have forgotten the key.
    app.clock.advance(shared::clock::wall_now() - app.clock.now());
    let purchase = app.bought("42", 1).await;
    let now = app.clock.now();
    let id = RefundId::new(now);
    // Sent by the release before, whose body differed; its answer was lost.
    let sent = RefundRequest {
        refund_id: id,
        payment_id: PaymentId::new(now),
        capture: CaptureRef { object_id: Some(intent(&purchase).to_owned()), capture_id: None },
        amount: Money::new(400, Currency::USD),
        first_asked_at: now,
    };
    app.app.gateways.get(GatewayName::Stripe).unwrap().refund(&sent).await.unwrap();
    let wish = RefundWish {
        id,
        payment_id: text(&purchase, "payment_id").parse().unwrap(),
        amount: Some("4.00".parse().unwrap()),
        choice: RefundChoice::Proportional,
        surplus_object: None,
        reason: "asked for".to_owned(),
        requested_by: "key:tests".to_owned(),
    };
    payments::refund(&app.app, &wish).await.unwrap();
    app.tell().await;

    assert_eq!(app.simulator.truth()[0].refunded_minor, 400);
    assert_eq!(app.payment("42", &purchase).await["refunded_amount"], "4.00");
    assert_eq!(app.get("42", "subscription/").await["tokens_remaining"], 733);
    app.assert_books_balance().await;
}
