//! A payment's ways beside the straight one: cancelled, late, on a hosted page, by hand, asked about.

use chrono::Duration;
use harness::{Options, TestApp, text};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use shared::gateways::{GatewayName, Next};
use shared::ids::{CustomerId, PaymentId};
use shared::payments::{self, Charge, PaymentStatus};
use simulator::{Fault, Funding, Gateway, Trouble, When};

use crate::purchase::futures;

fn intent(purchase: &Value) -> &str {
    text(purchase, "transaction_id")
}

async fn cancel(app: &TestApp, user: &str, purchase: &Value) -> u16 {
    let path = format!("payments/{}/cancel/", text(purchase, "payment_id"));
    app.post(user, &path, &json!({})).await.status().as_u16()
}

async fn status(app: &TestApp, user: &str, purchase: &Value) -> Value {
    app.payment(user, purchase).await["status"].clone()
}

async fn grants(app: &TestApp) -> i64 {
    app.scalar("select count(*) from grants").await
}

fn trouble(matching: &str, trouble: Trouble, times: u32) -> Fault {
    Fault { gateway: None, matching: matching.to_owned(), trouble, when: When::Next(times) }
}

#[tokio::test]
async fn a_cancelled_payment_is_cancelled_at_the_gateway_first() {
    let app = TestApp::start().await;
    let purchase = app.purchase("42", 1, "stripe").await;

    assert_eq!(cancel(&app, "42", &purchase).await, 200);
    assert_eq!(cancel(&app, "42", &purchase).await, 200, "again");

    assert_eq!(status(&app, "42", &purchase).await, "cancelled");
    assert_eq!(app.simulator.truth()[0].status, "canceled");
    app.simulator.pay_stripe(intent(&purchase), "pm_card_visa").unwrap_err();
    let again = app.purchase("42", 1, "stripe").await;
    assert_ne!(again["payment_id"], purchase["payment_id"]);
}

#[tokio::test]
async fn what_was_paid_or_is_under_way_cannot_be_cancelled() {
    let app = TestApp::start().await;
    let paid = app.purchase("42", 1, "stripe").await;
    app.simulator.pay_stripe(intent(&paid), "pm_card_visa").unwrap();
    assert_eq!(cancel(&app, "42", &paid).await, 409);
    // The refusal learned that it was paid: nothing waits for the webhook.
    assert_eq!(status(&app, "42", &paid).await, "completed");

    let slow = app.purchase("43", 1, "stripe").await;
    app.simulator.pay_stripe(intent(&slow), "pm_usBankAccount_processing").unwrap();
    assert_eq!(cancel(&app, "43", &slow).await, 409);
    app.tell().await;
    assert_eq!(cancel(&app, "43", &slow).await, 409);
    app.simulator.settle_stripe(intent(&slow), true).unwrap();
    app.tell().await;
    assert_eq!(status(&app, "43", &slow).await, "completed");
    app.assert_books_balance().await;
}

/// Cancels here what the buyer pays at PayPal all the same: PayPal cannot void an order.
async fn captured_though_cancelled(app: &TestApp) -> Value {
    let purchase = app.purchase("43", 1, "paypal").await;
    assert_eq!(cancel(app, "43", &purchase).await, 200);
    app.simulator.approve_paypal(intent(&purchase)).unwrap();
    purchase
}

/// Captures an order as an old worker would that did not know of the cancellation.
async fn capture_all_the_same(app: &TestApp, purchase: &Value) {
    let gateway = app.app.gateways.get(GatewayName::Paypal).unwrap();
    let id: PaymentId = text(purchase, "payment_id").parse().unwrap();
    gateway.capture(intent(purchase), id, 0).await.unwrap();
    app.tell().await;
}

#[tokio::test]
async fn a_cancelled_order_is_never_captured() {
    let app = TestApp::start().await;
    let purchase = captured_though_cancelled(&app).await;
    app.tell().await;
    let back = app.url(&format!("paypal/return/?token={}", intent(&purchase)));
    assert_eq!(app.http.get(back).send().await.unwrap().status(), 200);
    app.clock.advance(Duration::minutes(30));
    app.run_jobs().await;

    assert_eq!(app.simulator.truth()[0].captured_minor, 0);
    assert_eq!(status(&app, "43", &purchase).await, "cancelled");
}

#[tokio::test]
async fn a_late_capture_is_honoured() {
    let app = TestApp::start().await;
    let purchase = captured_though_cancelled(&app).await;
    capture_all_the_same(&app, &purchase).await;

    assert_eq!(status(&app, "43", &purchase).await, "completed");
    assert_eq!(app.get("43", "subscription/").await["tokens_remaining"], 1_000);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_late_capture_is_refunded_if_the_same_was_bought_again_or_the_operator_wants_it() {
    let app = TestApp::start().await;
    let purchase = captured_though_cancelled(&app).await;
    app.bought("43", 1).await;
    capture_all_the_same(&app, &purchase).await;
    app.tell().await;
    assert_eq!(status(&app, "43", &purchase).await, "refunded");
    assert_eq!(grants(&app).await, 1);
    app.assert_books_balance().await;

    let settings = vec![("LATE_CAPTURE", "refund".to_owned())];
    let app = TestApp::start_with(Options { settings, ..Options::default() }).await;
    let purchase = captured_though_cancelled(&app).await;
    capture_all_the_same(&app, &purchase).await;
    app.tell().await;
    assert_eq!(status(&app, "43", &purchase).await, "refunded");
    assert_eq!(app.simulator.truth()[0].refunded_minor, 1_500);
    assert_eq!(grants(&app).await, 0);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_cancellation_told_after_the_success_changes_nothing() {
    let app = TestApp::start().await;
    let purchase = app.bought("42", 1).await;
    let succeeded = app.stripe_event(&purchase, "payment_intent.succeeded");
    let mut late: Value = serde_json::from_slice(&succeeded).unwrap();
    late["id"] = json!("evt_late");
    late["type"] = json!("payment_intent.canceled");
    late["data"]["object"]["status"] = json!("canceled");
    late["data"]["object"]["amount_received"] = json!(0);
    app.deliver_stripe(late.to_string().as_bytes()).await;
    app.run_jobs().await;

    assert_eq!(status(&app, "42", &purchase).await, "completed");
    assert_eq!(app.get("42", "subscription/").await["tokens_remaining"], 1_000);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_hosted_page_completes_once_whichever_of_its_events_come() {
    let app = TestApp::start().await;
    let body = json!({ "plan_id": 1, "success_url": "https://app.example.com/done" });
    let answer = app.post("42", "stripe/checkout-session/", &body).await;
    assert_eq!(answer.status(), 201);
    let session: Value = answer.json().await.unwrap();
    assert!(text(&session, "url").starts_with("http"));
    app.simulator.pay_stripe_session(text(&session, "session_id"), "pm_card_visa").unwrap();
    let mut events = app.simulator.events();
    events.reverse();
    for event in &events {
        app.deliver_stripe(&event.body).await;
    }
    app.run_jobs().await;
    for _ in 0..3 {
        app.clock.advance(Duration::minutes(1));
        app.run_jobs().await;
    }

    assert_eq!(status(&app, "42", &session).await, "completed");
    assert_eq!(grants(&app).await, 1);
    let back = app.url(&format!("stripe/return/?payment={}", text(&session, "payment_id")));
    let back = app.http.get(back).send().await.unwrap();
    assert_eq!(
        (back.status().as_u16(), &back.headers()["location"]),
        (303, &"https://app.example.com/done".parse().unwrap())
    );
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_hosted_page_that_ends_unpaid_cancels_its_payment() {
    let app = TestApp::start().await;
    let session = app.post("42", "stripe/checkout-session/", &json!({ "plan_id": 1 })).await;
    let session: Value = session.json().await.unwrap();
    app.simulator.expire_stripe_session(text(&session, "session_id")).unwrap();
    app.tell().await;

    assert_eq!(status(&app, "42", &session).await, "cancelled");
    assert_eq!(grants(&app).await, 0);
}

#[tokio::test]
async fn a_hosted_page_paid_by_a_delayed_method_waits_for_its_end() {
    for is_paid in [true, false] {
        let app = TestApp::start().await;
        let session = app.post("42", "stripe/checkout-session/", &json!({ "plan_id": 1 })).await;
        let session: Value = session.json().await.unwrap();
        let id = text(&session, "session_id");
        app.simulator.pay_stripe_session(id, "pm_usBankAccount_processing").unwrap();
        app.tell().await;
        assert_eq!(status(&app, "42", &session).await, "pending");
        assert_eq!(grants(&app).await, 0);

        let truth = app.simulator.truth();
        app.simulator.settle_stripe(&truth[0].object_id, is_paid).unwrap();
        app.tell().await;

        let expected = if is_paid { "completed" } else { "failed" };
        assert_eq!(status(&app, "42", &session).await, expected);
        assert_eq!(grants(&app).await, i64::from(is_paid));
    }
}

#[tokio::test]
async fn a_pending_capture_completes_or_fails_later() {
    for is_paid in [true, false] {
        let app = TestApp::start().await;
        let purchase = app.purchase("43", 1, "paypal").await;
        app.simulator.approve_paypal_with(intent(&purchase), Funding::Pending).unwrap();
        app.tell().await;
        assert_eq!(status(&app, "43", &purchase).await, "pending");
        assert_eq!(cancel(&app, "43", &purchase).await, 409);
        let captures: Vec<String> =
            app.simulator.calls().into_iter().flat_map(|call| call.effects).collect();
        let capture = captures.last().unwrap();

        app.simulator.settle_paypal(capture, is_paid).unwrap();
        app.tell().await;

        let expected = if is_paid { "completed" } else { "failed" };
        assert_eq!(status(&app, "43", &purchase).await, expected);
        assert_eq!(grants(&app).await, i64::from(is_paid));
        app.assert_books_balance().await;
    }
}

#[tokio::test]
async fn a_declined_order_is_captured_again_only_after_a_new_approval() {
    let app = TestApp::start().await;
    let purchase = app.purchase("43", 1, "paypal").await;
    app.simulator.approve_paypal_with(intent(&purchase), Funding::Declines).unwrap();
    app.tell().await;
    assert_eq!(status(&app, "43", &purchase).await, "failed");
    let tries = || {
        let calls = app.simulator.calls();
        calls.iter().filter(|call| call.path.ends_with("/capture")).count()
    };
    let before = tries();
    for _ in 0..4 {
        app.clock.advance(Duration::minutes(10));
        app.run_jobs().await;
    }
    assert_eq!(tries(), before, "nobody approved again");

    app.simulator.approve_paypal(intent(&purchase)).unwrap();
    let back = app.url(&format!("paypal/return/?token={}", intent(&purchase)));
    assert_eq!(app.http.get(back).send().await.unwrap().status(), 200);
    app.tell().await;

    assert_eq!(status(&app, "43", &purchase).await, "completed");
    assert_eq!(grants(&app).await, 1);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn an_approval_that_paypal_took_back_cancels_the_payment() {
    let app = TestApp::start().await;
    let purchase = app.purchase("43", 1, "paypal").await;
    app.simulator.approve_paypal(intent(&purchase)).unwrap();
    app.lose_events();
    app.simulator.reverse_paypal_approval(intent(&purchase)).unwrap();
    app.tell().await;

    assert_eq!(status(&app, "43", &purchase).await, "cancelled");
    assert_eq!(grants(&app).await, 0);
}

#[tokio::test]
async fn an_order_of_another_payee_is_quarantined() {
    let settings = vec![("PAYPAL_MERCHANT_ID", "SOMEBODYELSE".to_owned())];
    let app = TestApp::start_with(Options { settings, ..Options::default() }).await;
    let body = json!({ "plan_id": 1, "payment_method": "paypal" });
    let answer = app.post("43", "purchase/", &body).await;
    // The order is opened, but what comes of it is never believed.
    let purchase: Value = answer.json().await.unwrap();
    app.simulator.approve_paypal(&app.simulator.truth()[0].object_id).unwrap();
    app.tell().await;

    assert_eq!(grants(&app).await, 0, "{purchase}");
    let quarantined = "select count(*) from webhook_events where status = 'quarantined'";
    assert!(app.scalar(quarantined).await > 0);
}

#[tokio::test]
async fn a_manual_payment_waits_for_an_operator_and_is_cancelled_after_thirty_days() {
    let app = TestApp::start().await;
    let purchase = app.purchase("42", 1, "bank_transfer").await;
    assert!(text(&purchase, "instructions").contains("payment id"));
    let path = format!("payments/{}/confirm/", text(&purchase, "payment_id"));
    let body = json!({ "reason": "it is on the statement", "reference": "2026-11-24/17" });
    let mine = app.post("42", &format!("admin/{path}"), &body).await;
    assert_eq!(mine.status(), 403);
    app.clock.advance(Duration::days(29));
    app.run_jobs().await;
    assert_eq!(status(&app, "42", &purchase).await, "pending");

    let done = futures((0..4).map(|_| app.operate(&path, &body))).await;
    assert!(done.iter().all(|(status, _)| *status == 200), "{done:?}");
    assert_eq!(status(&app, "42", &purchase).await, "completed");
    assert_eq!(grants(&app).await, 1);

    let refund = format!("payments/{}/refund/", text(&purchase, "payment_id"));
    let (code, answer) = app.operate(&refund, &json!({ "reason": "sent back" })).await;
    assert_eq!((code, &answer["status"]), (200, &json!("succeeded")));

    let forgotten = app.purchase("43", 1, "other").await;
    for _ in 0..31 {
        app.clock.advance(Duration::days(1));
        app.run_jobs().await;
    }
    assert_eq!(status(&app, "43", &forgotten).await, "cancelled");
    let gateway = app.bought("44", 1).await;
    let path = format!("payments/{}/confirm/", text(&gateway, "payment_id"));
    assert_eq!(app.operate(&path, &json!({ "reason": "x" })).await.0, 409);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn what_was_paid_while_no_webhook_came_is_learned_by_asking() {
    let app = TestApp::start().await;
    let card = app.purchase("42", 1, "stripe").await;
    app.simulator.pay_stripe(intent(&card), "pm_card_visa").unwrap();
    let order = app.purchase("43", 1, "paypal").await;
    app.simulator.approve_paypal(intent(&order)).unwrap();
    app.lose_events();

    app.clock.advance(Duration::minutes(4));
    app.run_jobs().await;

    assert_eq!(status(&app, "42", &card).await, "completed");
    assert_eq!(status(&app, "43", &order).await, "completed");
    assert_eq!(grants(&app).await, 2);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn what_nobody_paid_in_a_day_is_cancelled_at_the_gateway_and_here() {
    let app = TestApp::start().await;
    let card = app.purchase("42", 1, "stripe").await;
    let order = app.purchase("43", 1, "paypal").await;
    for _ in 0..26 {
        app.clock.advance(Duration::hours(1));
        app.run_jobs().await;
    }

    assert_eq!(status(&app, "42", &card).await, "cancelled");
    assert_eq!(status(&app, "43", &order).await, "cancelled");
    assert_eq!(app.simulator.truth()[0].status, "canceled");
    let open = "select count(*) from payments where next_check_at is not null";
    assert_eq!(app.scalar(open).await, 0);
}

#[tokio::test]
async fn refunds_and_disputes_whose_webhooks_were_lost_are_read_from_the_lists() {
    let app = TestApp::start().await;
    let card = app.bought("42", 1).await;
    let order = app.bought_with_paypal("43", 1).await;
    app.simulator.refund_stripe(intent(&card), Some(400)).unwrap();
    let truth = app.simulator.truth();
    let capture =
        &truth.iter().find(|truth| truth.gateway == Gateway::PayPal).unwrap().capture_ids[0];
    app.simulator.open_paypal_dispute(capture, false).unwrap();
    app.lose_events();

    for name in [GatewayName::Stripe, GatewayName::Paypal] {
        shared::webhooks::fetch_missed(&app.app, name).await.unwrap();
    }
    app.run_jobs().await;

    assert_eq!(app.payment("42", &card).await["refunded_amount"], "4.00");
    assert_eq!(app.post("43", "tokens/consume/", &json!({ "tokens": 1 })).await.status(), 400);
    let again = shared::webhooks::fetch_missed(&app.app, GatewayName::Stripe).await.unwrap();
    assert_eq!(again, 0, "what is stored is left alone");
    assert_eq!(status(&app, "43", &order).await, "completed");
    app.assert_books_balance().await;
}

#[tokio::test]
async fn comparing_both_ways_heals_what_is_safe_and_lists_the_rest() {
    let app = TestApp::start().await;
    let paid = app.purchase("42", 1, "stripe").await;
    app.simulator.pay_stripe(intent(&paid), "pm_card_visa").unwrap();
    let refunded = app.bought("43", 1).await;
    app.simulator.refund_stripe(intent(&refunded), Some(400)).unwrap();
    let booked_by_mistake = app.purchase("44", 1, "stripe").await;
    let mistake = "update payment_objects set captured_minor = 1500, captured_at = now()
                   where object_id = $1";
    sqlx::query(mistake).bind(intent(&booked_by_mistake)).execute(&app.app.db).await.unwrap();
    let mistake = "update payments set completed_at = now(), status = 'completed' where gateway_reference = $1";
    sqlx::query(mistake).bind(intent(&booked_by_mistake)).execute(&app.app.db).await.unwrap();
    let key = simulator::Settings::default().stripe_secret_key;
    let url = format!("{}/v1/payment_intents", app.simulator.stripe_url().trim_end_matches('/'));
    let stray = app.http.post(url).bearer_auth(key).body(
        "amount=700&currency=usd&confirm=true&payment_method=pm_card_visa\
         &automatic_payment_methods[enabled]=true&automatic_payment_methods[allow_redirects]=never",
    );
    let stray = stray.header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(stray.send().await.unwrap().status(), 200);
    app.lose_events();

    let since = app.clock.now() - Duration::days(1);
    let found = payments::compare(&app.app, since).await.unwrap();

    let rows: Vec<_> = found
        .iter()
        .map(|it| (json!(it.kind), it.is_healed, it.payment_id.map(|id| id.to_string())))
        .collect();
    let id = |purchase: &Value| Some(text(purchase, "payment_id").to_owned());
    assert!(rows.contains(&(json!("paid_not_granted"), true, id(&paid))), "{found:#?}");
    assert!(rows.contains(&(json!("refunds"), true, id(&refunded))), "{found:#?}");
    assert!(
        rows.contains(&(json!("granted_not_paid"), false, id(&booked_by_mistake))),
        "{found:#?}"
    );
    assert!(rows.contains(&(json!("unknown"), false, None)), "{found:#?}");
    assert_eq!(rows.len(), 4, "{found:#?}");
    assert_eq!(status(&app, "42", &paid).await, "completed");
    let again = payments::compare(&app.app, since).await.unwrap();
    assert_eq!(again.iter().filter(|it| it.is_healed).count(), 0, "{again:#?}");
}

#[tokio::test]
async fn an_answer_with_another_amount_is_not_taken_and_the_payment_goes_on() {
    let app = TestApp::start().await;
    app.simulator.set_fault(trouble("POST /v1/payment_intents", Trouble::WrongAmount, 1));
    let body = json!({ "plan_id": 1, "payment_method": "stripe" });
    let first = app.post("42", "purchase/", &body).await;
    assert_eq!(first.status(), 502);
    assert!(first.headers().contains_key("retry-after"));

    let second = app.purchase("42", 1, "stripe").await;
    app.simulator.pay_stripe(intent(&second), "pm_card_visa").unwrap();
    app.tell().await;

    assert_eq!(app.simulator.truth().len(), 1, "one object, by one key");
    assert_eq!(status(&app, "42", &second).await, "completed");
    app.assert_books_balance().await;
}

#[tokio::test]
async fn an_event_that_can_never_be_acted_on_ends_and_lets_the_others_through() {
    let app = TestApp::start().await;
    let purchase = app.purchase("42", 1, "stripe").await;
    app.simulator.pay_stripe(intent(&purchase), "pm_card_visa").unwrap();
    let body = json!({
        "id": "evt_poison", "object": "event", "type": "charge.dispute.created", "livemode": false,
        "created": 1, "data": { "object": { "id": "du_nowhere", "object": "dispute" } },
    });
    assert_eq!(app.deliver_stripe(body.to_string().as_bytes()).await.status(), 200);
    app.tell().await;

    let end = "select count(*) from webhook_events
               where gateway_event_id = 'evt_poison' and status in ('quarantined', 'failed')";
    assert_eq!(app.scalar(end).await, 1);
    assert_eq!(status(&app, "42", &purchase).await, "completed");
    let listed = app.look("webhook-events/?status=quarantined").await;
    assert!(listed[0]["last_error"].as_str().is_some_and(|why| !why.is_empty()), "{listed}");
}

#[tokio::test]
async fn acting_on_every_event_again_changes_nothing() {
    let app = TestApp::start().await;
    let card = app.bought("42", 1).await;
    app.bought_with_paypal("43", 1).await;
    let refund = format!("payments/{}/refund/", text(&card, "payment_id"));
    app.operate(&refund, &json!({ "amount": "4.00", "reason": "asked for" })).await;
    app.tell().await;
    let books = || async {
        let sums = "select count(*) || ' ' || sum(tokens) || ' ' || sum(debt) from ledger_entries";
        let sums: String = sqlx::query_scalar(sums).fetch_one(&app.app.db).await.unwrap();
        (sums, app.scalar("select count(*) from refunds").await, grants(&app).await)
    };
    let before = books().await;

    let ids = "select id from webhook_events order by random()";
    let ids: Vec<uuid::Uuid> = sqlx::query_scalar(ids).fetch_all(&app.app.db).await.unwrap();
    for id in ids {
        let (status, _) = app.operate(&format!("webhook-events/{id}/reprocess/"), &json!({})).await;
        assert_eq!(status, 200);
        app.run_jobs().await;
    }

    assert_eq!(books().await, before);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn an_event_of_the_other_gateway_pays_nothing() {
    let app = TestApp::start().await;
    let order = app.purchase("43", 1, "paypal").await;
    let other = app.purchase("7", 1, "stripe").await;
    app.simulator.pay_stripe(intent(&other), "pm_card_visa").unwrap();
    let mut event: Value =
        serde_json::from_slice(&app.stripe_event(&other, "payment_intent.succeeded")).unwrap();
    event["id"] = json!("evt_crossed");
    event["data"]["object"]["id"] = json!("pi_crossed");
    event["data"]["object"]["metadata"]["payment_id"] = order["payment_id"].clone();
    app.deliver_stripe(event.to_string().as_bytes()).await;
    app.run_jobs().await;
    app.clock.advance(Duration::minutes(20));
    app.run_jobs().await;

    let crossed = "select count(*) from webhook_events
                   where gateway_event_id = 'evt_crossed' and status = 'quarantined'";
    assert_eq!(app.scalar(crossed).await, 1);
    assert_eq!(status(&app, "43", &order).await, "pending");
}

/// Buys Basic, which saves the card, and returns what charges it for another period.
async fn saved(app: &TestApp, user: &str) -> Charge {
    app.bought(user, 1).await;
    app.tell().await;
    let methods = app.get(user, "payment-methods/").await;
    assert_eq!((&methods[0]["kind"], &methods[0]["last_four"]), (&json!("card"), &json!("4242")));
    Charge {
        customer_id: CustomerId::of(user),
        payment_id: PaymentId::new(app.clock.now()),
        plan_id: 1,
        plan_version: 1,
        method_id: text(&methods[0], "id").parse().unwrap(),
    }
}

#[tokio::test]
async fn a_saved_method_is_charged_once_however_often_it_is_asked() {
    let app = TestApp::start().await;
    let charge = saved(&app, "42").await;
    app.simulator.set_fault(trouble("POST /v1/payment_intents", Trouble::ResetAfter, 1));
    payments::charge_saved(&app.app, &charge).await.unwrap_err();

    let done = futures((0..4).map(|_| payments::charge_saved(&app.app, &charge))).await;
    assert!(done.iter().any(|done| matches!(done, Ok((PaymentStatus::Completed, _)))), "{done:?}");
    let again = payments::charge_saved(&app.app, &charge).await.unwrap();
    app.tell().await;

    assert_eq!(again.0, PaymentStatus::Completed);
    let charged: i64 = app.simulator.truth().iter().map(|truth| truth.captured_minor).sum();
    assert_eq!(charged, 3_000);
    assert_eq!(grants(&app).await, 2);
    assert_eq!(app.get("42", "subscription/").await["end_date"], "2027-01-23T12:00:00Z");
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_charge_whose_key_is_forgotten_is_looked_for_not_made_again() {
    let app = TestApp::start().await;
    let charge = saved(&app, "42").await;
    app.simulator.set_fault(trouble("POST /v1/payment_intents", Trouble::ResetAfter, 1));
    payments::charge_saved(&app.app, &charge).await.unwrap_err();
    app.lose_events();
    app.clock.advance(Duration::hours(30));
    app.simulator.advance_clock(Duration::hours(30));

    app.run_jobs().await;

    let payment = format!("payments/{}/", charge.payment_id);
    assert_eq!(app.get("42", &payment).await["status"], "completed");
    let charged: i64 = app.simulator.truth().iter().map(|truth| truth.captured_minor).sum();
    assert_eq!(charged, 3_000);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_charge_that_never_arrived_is_given_up_once_its_key_may_be_forgotten() {
    let app = TestApp::start().await;
    let charge = saved(&app, "42").await;
    app.simulator.set_fault(trouble("POST /v1/payment_intents", Trouble::ResetBefore, 1));
    payments::charge_saved(&app.app, &charge).await.unwrap_err();
    app.clock.advance(Duration::hours(6));

    app.run_jobs().await;

    let payment = app.get("42", &format!("payments/{}/", charge.payment_id)).await;
    assert_eq!(payment["status"], "failed");
    let charged: i64 = app.simulator.truth().iter().map(|truth| truth.captured_minor).sum();
    assert_eq!(charged, 1_500, "the purchase alone");
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_charge_that_needs_the_customer_can_be_confirmed_by_him() {
    let app = TestApp::start().await;
    let charge = saved(&app, "42").await;
    let own = "update payment_methods set gateway_method_id = $1";
    let method = attached(&app, "pm_card_authenticationRequired").await;
    sqlx::query(own).bind(&method).execute(&app.app.db).await.unwrap();

    let (status, next) = payments::charge_saved(&app.app, &charge).await.unwrap();

    assert_eq!(status, PaymentStatus::Failed);
    let Next::ClientSecret(secret) = next else { panic!("no secret to confirm with") };
    let payment = app.get("42", &format!("payments/{}/", charge.payment_id)).await;
    assert!(secret.expose_secret().starts_with(text(&payment, "transaction_id")));
    let code: Option<String> =
        sqlx::query_scalar("select failure_code from payments where id = $1")
            .bind(charge.payment_id.uuid())
            .fetch_one(&app.app.db)
            .await
            .unwrap();
    assert_eq!(code.as_deref(), Some("authentication_required"));
    app.simulator.pay_stripe(text(&payment, "transaction_id"), "pm_card_visa").unwrap();
    app.tell().await;
    let payment = app.get("42", &format!("payments/{}/", charge.payment_id)).await;
    assert_eq!(payment["status"], "completed");
    app.assert_books_balance().await;
}

/// A test method attached to the customer's record at the simulator.
pub(crate) async fn attached(app: &TestApp, method: &str) -> String {
    let record = "select gateway_customer_id from gateway_customers";
    let record: String = sqlx::query_scalar(record).fetch_one(&app.app.db).await.unwrap();
    let base = app.simulator.stripe_url().trim_end_matches('/').to_owned();
    let url = format!("{base}/v1/payment_methods/{method}/attach");
    let key = simulator::Settings::default().stripe_secret_key;
    let attach = app.http.post(url).bearer_auth(key).body(format!("customer={record}"));
    let attach = attach.header("content-type", "application/x-www-form-urlencoded");
    let attached: Value = attach.send().await.unwrap().json().await.unwrap();
    text(&attached, "id").to_owned()
}

#[tokio::test]
async fn a_customer_saves_lists_and_removes_a_method() {
    let app = TestApp::start().await;
    let begun = app.post("42", "payment-methods/", &json!({ "payment_method": "stripe" })).await;
    assert_eq!(begun.status(), 201);
    let begun: Value = begun.json().await.unwrap();
    app.simulator.setup_stripe(text(&begun, "setup_id"), "pm_card_visa").unwrap();
    app.tell().await;
    let paypal =
        json!({ "payment_method": "paypal", "return_url": "https://app.example.com/back" });
    let begun: Value = app.post("42", "payment-methods/", &paypal).await.json().await.unwrap();
    app.simulator.approve_paypal_setup(text(&begun, "setup_id")).unwrap();
    let back = format!("paypal/setup/?approval_token_id={}", text(&begun, "setup_id"));
    let back = format!("{back}&to=https%3A%2F%2Fapp.example.com%2Fback");
    let back = app.http.get(app.url(&back)).send().await.unwrap();
    assert_eq!(
        (back.status().as_u16(), &back.headers()["location"]),
        (303, &"https://app.example.com/back".parse().unwrap())
    );

    let methods = app.get("42", "payment-methods/").await;
    let mut kinds: Vec<_> = methods.as_array().unwrap().iter().map(|it| text(it, "kind")).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["card", "paypal"], "{methods}");
    assert_eq!(app.get("7", "payment-methods/").await, json!([]));
    for method in methods.as_array().unwrap() {
        let url = app.url(&format!("payment-methods/{}/", text(method, "id")));
        let other = app.http.delete(&url).bearer_auth(harness::token("7")).send().await.unwrap();
        assert_eq!(other.status(), 404);
        let mine = app.http.delete(&url).bearer_auth(harness::token("42")).send().await.unwrap();
        assert_eq!(mine.status(), 204);
    }
    assert_eq!(app.get("42", "payment-methods/").await, json!([]));
    let open = app.post("42", "stripe/customer-portal/", &json!({})).await;
    assert_eq!(open.status(), 200);
    let evil = json!({ "return_url": "https://evil.example/" });
    assert_eq!(app.post("42", "stripe/customer-portal/", &evil).await.status(), 400);
}

#[tokio::test]
async fn a_customer_deleted_at_the_gateway_has_no_methods_and_gets_a_new_record() {
    let app = TestApp::start().await;
    saved(&app, "42").await;
    let record = "select gateway_customer_id from gateway_customers order by attempt desc limit 1";
    let old: String = sqlx::query_scalar(record).fetch_one(&app.app.db).await.unwrap();
    let url = format!("{}/v1/customers/{old}", app.simulator.stripe_url().trim_end_matches('/'));
    let key = simulator::Settings::default().stripe_secret_key;
    assert_eq!(app.http.delete(url).bearer_auth(key).send().await.unwrap().status(), 200);
    app.tell().await;
    assert_eq!(app.get("42", "payment-methods/").await, json!([]));

    app.bought("42", 1).await;

    let new: String = sqlx::query_scalar(record).fetch_one(&app.app.db).await.unwrap();
    assert_ne!(new, old);
    app.assert_books_balance().await;
}
