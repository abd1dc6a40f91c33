//! Money sent back: by operators, by the gateway, twice, at once, out of order, unanswered.

use chrono::Duration;
use harness::{TestApp, text};
use serde_json::{Value, json};
use simulator::{Fault, Gateway, Trouble, When};

use crate::purchase::futures;

fn refund_path(purchase: &Value) -> String {
    format!("payments/{}/refund/", text(purchase, "payment_id"))
}

async fn refund(app: &TestApp, purchase: &Value, amount: Option<&str>) -> (u16, Value) {
    let body = json!({ "amount": amount, "reason": "asked for" });
    app.operate(&refund_path(purchase), &body).await
}

async fn spend(app: &TestApp, user: &str, tokens: u64) {
    let body = json!({ "tokens": tokens });
    let answer = app.post(user, "tokens/consume/", &body).await;
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
}

async fn tokens(app: &TestApp, user: &str) -> i64 {
    app.get(user, "subscription/").await["tokens_remaining"].as_i64().unwrap()
}

fn trouble(matching: &str, trouble: Trouble) -> Fault {
    Fault { gateway: None, matching: matching.to_owned(), trouble, when: When::Next(1) }
}

#[tokio::test]
async fn a_whole_refund_takes_the_tokens_and_ends_the_period() {
    let app = TestApp::start().await;
    let purchase = app.bought("42", 1).await;

    let (status, answer) = refund(&app, &purchase, None).await;

    assert_eq!((status, &answer["status"]), (200, &json!("succeeded")), "{answer}");
    assert_eq!(answer["amount"], "15.00");
    let payment = app.payment("42", &purchase).await;
    assert_eq!(
        (&payment["status"], &payment["refunded_amount"]),
        (&json!("refunded"), &json!("15.00"))
    );
    let subscription = app.get("42", "subscription/").await;
    assert_eq!(subscription["is_active"], false);
    assert_eq!(subscription["tokens_remaining"], 0);
    app.tell().await;
    assert_eq!(app.payment("42", &purchase).await["refunded_amount"], "15.00");
    assert_eq!(app.scalar("select count(*) from refunds").await, 1);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_part_refund_takes_its_share_and_the_rest_goes_on() {
    let app = TestApp::start().await;
    let purchase = app.bought("42", 1).await;

    let (status, _) = refund(&app, &purchase, Some("4.00")).await;

    assert_eq!(status, 200);
    let payment = app.payment("42", &purchase).await;
    assert_eq!(
        (&payment["status"], &payment["refunded_amount"]),
        (&json!("completed"), &json!("4.00"))
    );
    // 1,000 × 4 / 15, rounded up.
    assert_eq!(tokens(&app, "42").await, 1_000 - 267);
    assert_eq!(app.get("42", "subscription/").await["is_active"], true);
    app.tell().await;
    assert_eq!(tokens(&app, "42").await, 733);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn spent_tokens_of_a_refunded_payment_become_debt_unless_only_unused_are_taken() {
    let app = TestApp::start().await;
    for (user, choice) in [("1", "proportional"), ("2", "unused_only"), ("3", "none")] {
        let purchase = app.bought(user, 1).await;
        spend(&app, user, 900).await;
        let body = json!({ "reason": "asked for", "tokens": choice });
        assert_eq!(app.operate(&refund_path(&purchase), &body).await.0, 200);
    }

    let debts = "select string_agg(a.debt || ' ' || a.balance, ', ' order by c.external_id)
                 from token_accounts a join customers c using (customer_id)";
    let debts: String = sqlx::query_scalar(debts).fetch_one(&app.app.db).await.unwrap();
    assert_eq!(debts, "900 0, 0 0, 0 100");
    app.tell().await;
    app.assert_books_balance().await;
}

#[tokio::test]
async fn what_is_paid_behind_a_refunded_period_moves_up() {
    let app = TestApp::start().await;
    let first = app.bought("42", 1).await;
    let second = app.bought("42", 1).await;
    app.clock.advance(Duration::days(10));

    assert_eq!(refund(&app, &first, None).await.0, 200);

    let subscription = app.get("42", "subscription/").await;
    assert_eq!(subscription["is_active"], true);
    // The second period starts now: 1,000 tokens, 30 days from the tenth.
    assert_eq!(subscription["tokens_remaining"], 1_000);
    assert_eq!(subscription["end_date"], "2027-01-03T12:00:00Z");
    app.tell().await;
    assert_eq!(refund(&app, &second, None).await.0, 200);
    assert_eq!(app.get("42", "subscription/").await["is_active"], false);
    app.tell().await;
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_queued_period_is_refunded_from_the_queue() {
    let app = TestApp::start().await;
    app.bought("42", 1).await;
    let second = app.bought("42", 1).await;

    assert_eq!(refund(&app, &second, None).await.0, 200);

    let subscription = app.get("42", "subscription/").await;
    assert_eq!(subscription["tokens_remaining"], 1_000);
    assert_eq!(subscription["end_date"], "2026-12-24T12:00:00Z");
    app.clock.advance(Duration::days(31));
    assert_eq!(tokens(&app, "42").await, 0);
    app.tell().await;
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_refunded_pack_leaves_the_plan_beside_it() {
    let app = TestApp::start().await;
    app.bought("42", 1).await;
    let pack = app.bought("42", 3).await;

    assert_eq!(refund(&app, &pack, None).await.0, 200);

    let subscription = app.get("42", "subscription/").await;
    assert_eq!(
        (&subscription["is_active"], &subscription["tokens_remaining"]),
        (&json!(true), &json!(1_000))
    );
    let alone = app.bought("43", 3).await;
    assert_eq!(refund(&app, &alone, None).await.0, 200);
    assert_eq!(app.get("43", "subscription/").await["is_active"], false);
    app.tell().await;
    app.assert_books_balance().await;
}

#[tokio::test]
async fn one_key_is_one_refund_and_another_amount_under_it_is_refused() {
    let app = TestApp::start().await;
    let purchase = app.bought("42", 1).await;
    let operator = app.operator().await;
    let body = |amount: &str| json!({ "amount": amount, "reason": "x", "idempotency_key": "k1" });
    let send = |body: Value| {
        let url = app.url(&format!("admin/{}", refund_path(&purchase)));
        app.http.post(url).bearer_auth(&operator).json(&body).send()
    };

    let answers = futures((0..4).map(|_| send(body("4.00")))).await;
    let other = send(body("5.00")).await.unwrap();

    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().status() == 200));
    assert_eq!(other.status(), 422);
    assert_eq!(app.scalar("select count(*) from refunds").await, 1);
    assert_eq!(app.simulator.truth()[0].refunded_minor, 400);
    app.tell().await;
    app.assert_books_balance().await;
}

#[tokio::test]
async fn two_refunds_at_once_never_send_back_more_than_was_captured() {
    let app = TestApp::start().await;
    let purchase = app.bought("42", 1).await;

    let answers = futures((0..5).map(|_| refund(&app, &purchase, Some("4.00")))).await;

    let sent = answers.iter().filter(|(status, _)| *status == 200).count();
    assert_eq!(sent, 3, "{answers:?}");
    assert!(answers.iter().all(|(status, _)| [200, 409].contains(status)));
    assert_eq!(app.simulator.truth()[0].refunded_minor, 1_200);
    assert_eq!(app.payment("42", &purchase).await["refunded_amount"], "12.00");
    app.tell().await;
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_refund_decides_under_its_customers_lock() {
    let app = TestApp::start().await;
    let purchase = app.bought("42", 1).await;
    let mut held = app.app.db.begin().await.unwrap();
    let lock = "select from customers for no key update";
    sqlx::query(lock).execute(&mut *held).await.unwrap();

    let refunds = futures((0..2).map(|_| refund(&app, &purchase, Some("10.00"))));
    let released = async {
        let waiting = "select count(*) from pg_stat_activity
                       where datname = current_database() and wait_event_type = 'Lock'";
        let all_wait = async { while app.scalar(waiting).await < 2 {} };
        let deadline = std::time::Duration::from_secs(20);
        tokio::time::timeout(deadline, all_wait).await.expect("refunds wait for the lock");
        held.commit().await.unwrap();
    };
    let (answers, ()) = tokio::join!(refunds, released);

    let mut statuses: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409], "{answers:?}");
    assert_eq!(app.simulator.truth()[0].refunded_minor, 1_000);
    app.tell().await;
    app.assert_books_balance().await;
}

#[tokio::test]
async fn what_cannot_be_refunded_is_a_clear_refusal_and_changes_nothing() {
    let app = TestApp::start().await;
    let pending = app.purchase("41", 1, "stripe").await;
    let paid = app.bought("42", 1).await;
    let cancelled = app.purchase("43", 1, "stripe").await;
    let path = format!("payments/{}/cancel/", text(&cancelled, "payment_id"));
    assert_eq!(app.post("43", &path, &json!({})).await.status(), 200);

    assert_eq!(refund(&app, &pending, None).await.0, 409);
    assert_eq!(refund(&app, &cancelled, None).await.0, 409);
    assert_eq!(refund(&app, &paid, Some("15.01")).await.0, 409);
    assert_eq!(refund(&app, &paid, Some("0.00")).await.0, 400);
    assert_eq!(refund(&app, &paid, Some("1.001")).await.0, 400);
    assert_eq!(refund(&app, &paid, Some("-1.00")).await.0, 400);
    let nobody = json!({ "payment_id": "0191f000-0000-7000-8000-000000000000" });
    assert_eq!(refund(&app, &nobody, None).await.0, 404);

    assert_eq!(app.scalar("select count(*) from refunds").await, 0);
    assert_eq!(tokens(&app, "42").await, 1_000);
}

#[tokio::test]
async fn a_refund_whose_answer_was_lost_is_sent_once() {
    for trouble_kind in [Trouble::ResetAfter, Trouble::AnswerLost, Trouble::ErrorAfter] {
        let app = TestApp::start().await;
        let purchase = app.bought("42", 1).await;
        app.simulator.set_fault(trouble("POST /v1/refunds", trouble_kind));

        let (status, answer) = refund(&app, &purchase, Some("4.00")).await;
        // Tokens are taken before the gateway is called, whatever it answers.
        assert_eq!((status, &answer["status"]), (200, &json!("pending")), "{answer}");
        assert_eq!(tokens(&app, "42").await, 733);
        app.tell().await;
        app.clock.advance(Duration::minutes(5));
        app.run_jobs().await;
        app.clock.advance(Duration::minutes(5));
        app.run_jobs().await;

        let refunds =
            app.look(&format!("payments/{}/refunds/", text(&purchase, "payment_id"))).await;
        assert_eq!(refunds[0]["status"], "succeeded", "{refunds}");
        assert_eq!(refunds.as_array().unwrap().len(), 1);
        assert_eq!(app.simulator.truth()[0].refunded_minor, 400);
        app.tell().await;
        app.assert_books_balance().await;
    }
}

#[tokio::test]
async fn our_own_refunds_event_before_our_own_answer_is_not_a_second_refund() {
    let app = TestApp::start().await;
    let purchase = app.bought("42", 1).await;
    app.simulator.set_fault(trouble("POST /v1/refunds", Trouble::ResetAfter));
    assert_eq!(refund(&app, &purchase, Some("4.00")).await.1["status"], "pending");

    // Its events come while ours has no answer: they name our refund in their metadata, and those
    // that name none wait until ours is settled.
    app.deliver_new().await;
    app.run_jobs().await;
    app.clock.advance(Duration::minutes(5));
    app.run_jobs().await;

    assert_eq!(app.scalar("select count(*) from refunds").await, 1);
    assert_eq!(app.payment("42", &purchase).await["refunded_amount"], "4.00");
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_refund_that_names_none_waits_while_ours_has_no_answer() {
    let app = TestApp::start().await;
    let purchase = app.bought("42", 1).await;
    app.lose_events();
    app.simulator.set_fault(trouble("POST /v1/refunds", Trouble::ResetAfter));
    assert_eq!(refund(&app, &purchase, Some("4.00")).await.1["status"], "pending");
    let told = app.stripe_event(&purchase, "refund.created");
    app.lose_events();

    let mut told: Value = serde_json::from_slice(&told).unwrap();
    told["data"]["object"]["metadata"] = json!({});
    assert_eq!(app.deliver_stripe(told.to_string().as_bytes()).await.status(), 200);
    let now = app.clock.now();
    for job in shared::webhooks::due(&app.app, now + Duration::minutes(1)).await.unwrap() {
        worker::run(&app.app, job).await.unwrap();
    }

    let waiting = "select count(*) from webhook_events where status = 'waiting'";
    assert_eq!(app.scalar(waiting).await, 1);
    assert_eq!(app.scalar("select count(*) from refunds").await, 1);
    app.clock.advance(Duration::minutes(5));
    app.run_jobs().await;
    assert_eq!(app.scalar(waiting).await, 0);
    assert_eq!(app.scalar("select count(*) from refunds").await, 1);
    assert_eq!(app.payment("42", &purchase).await["refunded_amount"], "4.00");
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_refund_that_the_gateway_refuses_gives_the_tokens_back() {
    let app = TestApp::start().await;
    let purchase = app.bought("42", 1).await;
    // Sent back at the dashboard, and the webhook did not come yet.
    app.simulator.refund_stripe(text(&purchase, "transaction_id"), None).unwrap();
    app.lose_events();

    let (status, answer) = refund(&app, &purchase, Some("4.00")).await;

    assert_eq!((status, &answer["status"]), (200, &json!("failed")), "{answer}");
    assert_eq!(tokens(&app, "42").await, 1_000);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_refund_that_fails_later_gives_tokens_and_period_back() {
    let app = TestApp::start().await;
    let purchase = app.bought("42", 1).await;
    let (_, answer) = refund(&app, &purchase, None).await;
    app.tell().await;
    assert_eq!(app.payment("42", &purchase).await["status"], "refunded");
    app.clock.advance(Duration::days(2));

    app.simulator.settle_stripe_refund(text(&answer, "gateway_refund_id"), false).unwrap();
    app.tell().await;

    let payment = app.payment("42", &purchase).await;
    assert_eq!(
        (&payment["status"], &payment["refunded_amount"]),
        (&json!("completed"), &json!("0.00"))
    );
    let subscription = app.get("42", "subscription/").await;
    assert_eq!(
        (&subscription["is_active"], &subscription["tokens_remaining"]),
        (&json!(true), &json!(1_000))
    );
    // Two days away, so two days longer.
    assert_eq!(subscription["end_date"], "2026-12-26T12:00:00Z");
    app.assert_books_balance().await;
}

#[tokio::test]
async fn part_refunds_made_at_the_gateway_add_up_by_their_ids_in_any_order() {
    for gateway in ["stripe", "paypal"] {
        let app = TestApp::start().await;
        let purchase = if gateway == "stripe" {
            app.bought("42", 1).await
        } else {
            app.bought_with_paypal("42", 1).await
        };
        app.lose_events();
        let before = app.simulator.events().len();
        for minor in [400, 1_100] {
            if gateway == "stripe" {
                let intent = text(&purchase, "transaction_id");
                app.simulator.refund_stripe(intent, Some(minor)).unwrap();
            } else {
                let capture = app.simulator.truth()[0].capture_ids[0].clone();
                app.simulator.refund_paypal(&capture, Some(minor)).unwrap();
            }
        }
        let mut events: Vec<_> = app.simulator.events().split_off(before);
        events.reverse();
        for event in events.iter().chain(&events) {
            let path = format!("webhooks/{gateway}/");
            app.deliver(&path, app.simulator.signed(event), &event.body).await;
        }
        app.run_jobs().await;

        let payment = app.payment("42", &purchase).await;
        assert_eq!(
            (&payment["status"], &payment["refunded_amount"]),
            (&json!("refunded"), &json!("15.00"))
        );
        assert_eq!(app.scalar("select count(*) from refunds").await, 2);
        assert_eq!(tokens(&app, "42").await, 0);
        app.assert_books_balance().await;
    }
}

#[tokio::test]
async fn a_refund_told_before_its_capture_grants_nothing_for_the_whole_and_less_for_a_part() {
    for (minor, status, left) in [(1_500, "refunded", 0), (400, "completed", 733)] {
        let app = TestApp::start().await;
        let purchase = app.purchase("42", 1, "stripe").await;
        let intent = text(&purchase, "transaction_id");
        app.simulator.pay_stripe(intent, "pm_card_visa").unwrap();
        app.simulator.refund_stripe(intent, Some(minor)).unwrap();
        let mut events = app.simulator.events();
        events.reverse();
        for event in &events {
            app.deliver_stripe(&event.body).await;
            app.run_jobs().await;
        }
        for _ in 0..4 {
            app.clock.advance(Duration::minutes(2));
            app.run_jobs().await;
        }

        assert_eq!(app.payment("42", &purchase).await["status"], status);
        let remaining = "select coalesce(sum(balance), 0)::bigint from token_accounts";
        assert_eq!(app.scalar(remaining).await, left);
        app.assert_books_balance().await;
    }
}

#[tokio::test]
async fn a_second_capture_of_one_payment_is_refunded_by_itself() {
    let app = TestApp::start().await;
    let first = app.purchase("42", 1, "stripe").await;
    // As if the first object could not be cancelled before the second was opened.
    let body = json!({ "plan_id": 1 });
    let session = app.post("42", "stripe/checkout-session/", &body).await;
    assert_eq!(session.status(), 201);
    let session: Value = session.json().await.unwrap();
    assert_eq!(session["payment_id"], first["payment_id"]);
    assert_eq!(app.simulator.truth()[0].status, "canceled", "the first was cancelled first");
    app.simulator.pay_stripe_session(text(&session, "session_id"), "pm_card_visa").unwrap();
    app.tell().await;
    assert_eq!(tokens(&app, "42").await, 1_000);

    // Another intent of ours for the same payment, captured all the same.
    let key = simulator::Settings::default().stripe_secret_key;
    let form = format!(
        "amount=1500&currency=usd&confirm=true&payment_method=pm_card_visa\
         &automatic_payment_methods[enabled]=true&automatic_payment_methods[allow_redirects]=never\
         &metadata[payment_id]={}",
        text(&first, "payment_id")
    );
    let url = format!("{}/v1/payment_intents", app.simulator.stripe_url().trim_end_matches('/'));
    let stray = app.http.post(url).bearer_auth(key).body(form);
    let stray = stray.header("content-type", "application/x-www-form-urlencoded");
    let stray: Value = stray.send().await.unwrap().json().await.unwrap();
    let own =
        "insert into gateway_objects select 'stripe', $1, customer_id, id, now() from payments";
    sqlx::query(own).bind(text(&stray, "id")).execute(&app.app.db).await.unwrap();
    app.tell().await;

    let truth = app.simulator.truth();
    // The earlier stays; within one second of Stripe's clock either may be it.
    let refunded = truth.iter().filter(|truth| truth.refunded_minor == 1_500).count();
    assert_eq!(refunded, 1);
    assert_eq!(
        truth.iter().map(|truth| truth.captured_minor - truth.refunded_minor).sum::<i64>(),
        1_500
    );
    let payment = app.payment("42", &first).await;
    assert_eq!(
        (&payment["status"], &payment["refunded_amount"]),
        (&json!("completed"), &json!("0.00"))
    );
    assert_eq!(app.scalar("select count(*) from grants").await, 1);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_paypal_refund_is_sent_once_and_booked_once() {
    let app = TestApp::start().await;
    let purchase = app.bought_with_paypal("43", 1).await;
    app.simulator.set_fault(Fault {
        gateway: Some(Gateway::PayPal),
        ..trouble("/refund", Trouble::ResetAfter)
    });

    let (status, answer) = refund(&app, &purchase, Some("4.00")).await;
    assert_eq!((status, &answer["status"]), (200, &json!("pending")), "{answer}");
    app.tell().await;
    app.clock.advance(Duration::minutes(10));
    app.run_jobs().await;
    app.tell().await;

    assert_eq!(app.simulator.truth()[0].refunded_minor, 400);
    assert_eq!(app.scalar("select count(*) from refunds where status = 'succeeded'").await, 1);
    assert_eq!(tokens(&app, "43").await, 733);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_quote_is_the_unused_share_and_bounds_nothing() {
    let app = TestApp::start().await;
    let purchase = app.bought("42", 1).await;
    spend(&app, "42", 100).await;
    app.clock.advance(Duration::days(20));

    let quote =
        app.look(&format!("payments/{}/refund/quote/", text(&purchase, "payment_id"))).await;

    assert_eq!((&quote["quoted"], &quote["refundable"]), (&json!("5.00"), &json!("15.00")));
    assert_eq!(refund(&app, &purchase, Some("10.00")).await.0, 200);
}

#[tokio::test]
async fn only_an_operator_refunds_and_what_he_does_is_written_down() {
    let app = TestApp::start().await;
    let purchase = app.bought("42", 1).await;
    let path = format!("admin/{}", refund_path(&purchase));
    let body = json!({ "reason": "mine" });

    let customer = app.post("42", &path, &body).await;
    let nobody = app.http.post(app.url(&path)).json(&body).send().await.unwrap();
    let forged = app.http.post(app.url(&path)).bearer_auth("tgk_test_x").json(&body).send();

    assert_eq!(customer.status(), 403);
    assert_eq!(nobody.status(), 401);
    assert_eq!(forged.await.unwrap().status(), 401);
    assert_eq!(refund(&app, &purchase, Some("1.00")).await.0, 200);
    let deeds =
        "select count(*) from audit_log where action = 'payment.refund' and reason = 'asked for'";
    assert_eq!(app.scalar(deeds).await, 1);
}
