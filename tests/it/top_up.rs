//! A pack that is bought by itself when few tokens are left: once, within limits, never in the dark.

use std::time::Duration as Wait;

use chrono::Duration;
use harness::{TestApp, text, token};
use serde_json::{Value, json};
use shared::ids::CustomerId;
use shared::jobs::Job;
use shared::top_ups;
use simulator::{DisputeOutcome, Fault, Funding, Trouble};
use tokio::time::Instant;

use crate::lifecycle::attached;
use crate::purchase::futures;

const PACK: i32 = 3;
const PATH: &str = "tokens/auto-top-up/";

fn wish(threshold: u64) -> Value {
    json!({ "threshold": threshold, "plan_id": PACK })
}

async fn put(app: &TestApp, user: &str, wish: &Value) -> (u16, Value) {
    let request = app.http.put(app.url(PATH)).bearer_auth(token(user)).json(wish);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn spend(app: &TestApp, user: &str, tokens: u64) -> u16 {
    let body = json!({ "tokens": tokens });
    app.post(user, "tokens/consume/", &body).await.status().as_u16()
}

/// A customer with 1000 tokens, a saved card, and a pack of 500 bought at 100 and below.
async fn ground() -> TestApp {
    let app = TestApp::start().await;
    app.bought("42", 1).await;
    app.tell().await;
    let (status, answer) = put(&app, "42", &wish(100)).await;
    assert_eq!((status, &answer["enabled"]), (200, &json!(true)), "{answer}");
    app
}

async fn available(app: &TestApp) -> i64 {
    app.get("42", "tokens/balance/").await["tokens_available"].as_i64().unwrap()
}

/// How many packs the gateways were paid for; none of them twice.
fn packs(app: &TestApp) -> usize {
    let paid: Vec<_> = app.simulator.truth().into_iter().filter(|it| it.captures > 0).collect();
    assert!(paid.iter().all(|it| it.captures == 1), "charged twice: {paid:?}");
    paid.iter().filter(|it| it.amount_minor == 1_000).count()
}

async fn orders(app: &TestApp) -> i64 {
    app.scalar("select count(*) from top_up_orders").await
}

/// What happened to top-ups, in order.
async fn events(app: &TestApp) -> Vec<(String, Value)> {
    let sql = "select kind, after from events where kind like 'top_up.%' order by created_at, id";
    sqlx::query_as(sql).fetch_all(&app.app.db).await.unwrap()
}

async fn kinds(app: &TestApp) -> Vec<String> {
    events(app).await.into_iter().map(|(kind, _)| kind).collect()
}

/// Replaces the saved card by a test card that behaves as its name says.
async fn charge_from_now_on(app: &TestApp, card: &str) {
    let own = "update payment_methods set gateway_method_id = $1";
    sqlx::query(own).bind(attached(app, card).await).execute(&app.app.db).await.unwrap();
}

/// Waits until a job of that kind is queued.
async fn rung(app: &TestApp) {
    let queued = "select count(*) from apalis.jobs where convert_from(job, 'UTF8') like '%top_up%'";
    let deadline = Instant::now() + Wait::from_secs(30);
    while app.scalar(queued).await == 0 {
        assert!(Instant::now() < deadline, "nobody rang");
        tokio::time::sleep(Wait::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_spend_that_reaches_the_line_buys_one_pack_and_the_next_reach_the_next() {
    let app = ground().await;
    assert_eq!(spend(&app, "42", 899).await, 200);
    app.run_jobs().await;
    assert_eq!((available(&app).await, orders(&app).await), (101, 0), "above the line");

    assert_eq!(spend(&app, "42", 1).await, 200);
    rung(&app).await;
    app.run_jobs().await;

    assert_eq!((available(&app).await, packs(&app)), (600, 1));
    let shown = app.get("42", PATH).await;
    assert_eq!(shown["bought_this_period"], json!({ "count": 1, "amount": "10.00" }));
    assert_eq!(spend(&app, "42", 550).await, 200);
    app.run_jobs().await;
    assert_eq!((available(&app).await, packs(&app)), (550, 2), "the clock stood still meanwhile");
    assert_eq!(kinds(&app).await, ["top_up.completed", "top_up.completed"]);
    app.tell().await;
    assert_eq!((packs(&app), orders(&app).await), (2, 2));
    app.assert_books_balance().await;
}

#[tokio::test]
async fn sixty_four_spends_at_once_reach_the_line_and_one_pack_is_charged() {
    let app = ground().await;

    let spent = futures((0..64).map(|_| spend(&app, "42", 15))).await;
    assert!(spent.iter().all(|status| *status == 200), "{spent:?}");
    rung(&app).await;
    let looks = (0..8).map(|_| top_ups::fill(&app.app, CustomerId::of("42")));
    futures(looks).await;
    app.run_jobs().await;

    assert_eq!((available(&app).await, packs(&app), orders(&app).await), (540, 1, 1));
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_hold_that_reaches_the_line_buys_a_pack() {
    let app = ground().await;

    let held = app.post("42", "tokens/holds/", &json!({ "tokens": 950 })).await;
    assert_eq!(held.status(), 201);
    rung(&app).await;
    app.run_jobs().await;

    assert_eq!((available(&app).await, packs(&app)), (550, 1));
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_lost_job_is_found_by_the_sweep() {
    let app = ground().await;
    assert_eq!(spend(&app, "42", 950).await, 200);
    rung(&app).await;
    sqlx::query("delete from apalis.jobs").execute(&app.app.db).await.unwrap();
    app.clock.advance(Duration::seconds(5));

    worker::run(&app.app, Job::Sweep { tick: 0 }).await.unwrap();
    rung(&app).await;
    app.run_jobs().await;

    assert_eq!((available(&app).await, packs(&app)), (550, 1));
}

#[tokio::test]
async fn the_sweep_rings_for_nobody_who_waits_for_nothing() {
    let app = ground().await;
    assert_eq!(spend(&app, "42", 950).await, 200);
    app.run_jobs().await;
    let later = app.clock.now() + Duration::days(2);
    assert_eq!(top_ups::due(&app.app, later).await.unwrap(), [], "bought, above the line");

    let limited = json!({ "threshold": 1_000, "plan_id": PACK, "max_per_period": 1 });
    put(&app, "42", &limited).await;
    app.run_jobs().await;
    assert_eq!(packs(&app), 1, "the limit counts what was bought before it was set");
    assert_eq!(top_ups::due(&app.app, later).await.unwrap(), [], "until the period ends");
    assert_eq!(top_ups::due(&app.app, later + Duration::days(29)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_worker_that_dies_at_any_point_charges_once() {
    for dies in ["before the payment", "before the charge", "before the booking"] {
        let app = ground().await;
        assert_eq!(spend(&app, "42", 950).await, 200);
        let trouble = match dies {
            "before the booking" => Trouble::ResetAfter,
            _ => Trouble::ResetBefore,
        };
        app.simulator.set_fault(Fault::once(trouble).matching("POST /v1/payment_intents"));
        top_ups::fill(&app.app, CustomerId::of("42")).await.unwrap_err();
        if dies == "before the payment" {
            // The order is committed first: what a worker leaves that dies right after.
            sqlx::query("delete from payments where charged_method is not null")
                .execute(&app.app.db)
                .await
                .unwrap();
        }
        assert_eq!(orders(&app).await, 1, "{dies}");
        app.clock.advance(Duration::minutes(2));

        let due = top_ups::due(&app.app, app.clock.now()).await.unwrap();
        assert_eq!(due.len(), 1, "{dies}");
        app.run_jobs().await;
        app.clock.advance(Duration::minutes(5));
        app.run_jobs().await;
        app.tell().await;

        assert_eq!((available(&app).await, packs(&app)), (550, 1), "{dies}");
        assert_eq!(orders(&app).await, 1, "{dies}");
        app.assert_books_balance().await;
    }
}

#[tokio::test]
async fn two_failures_in_a_row_switch_it_off_with_a_notice() {
    let app = ground().await;
    charge_from_now_on(&app, "pm_card_chargeCustomerFail").await;
    assert_eq!(spend(&app, "42", 950).await, 200);
    app.run_jobs().await;
    let shown = app.get("42", PATH).await;
    assert_eq!((&shown["enabled"], &shown["failures"]), (&json!(true), &json!(1)));
    assert_eq!(spend(&app, "42", 1).await, 200);
    app.clock.advance(Duration::hours(23));
    app.run_jobs().await;
    assert_eq!(orders(&app).await, 1, "the next attempt is a day later");

    app.clock.advance(Duration::hours(1));
    app.run_jobs().await;

    assert_eq!(kinds(&app).await, ["top_up.failed", "top_up.failed", "top_up.disabled"]);
    let shown = app.get("42", PATH).await;
    assert_eq!(shown["disabled_reason"], "declined");
    assert_eq!(shown["disabled_at"], "2026-11-25T12:00:00Z");
    assert_eq!(shown["bought_this_period"]["count"], 0);
    assert_eq!(spend(&app, "42", 1).await, 200);
    app.clock.advance(Duration::days(3));
    app.run_jobs().await;
    app.tell().await;
    assert_eq!((orders(&app).await, packs(&app)), (2, 0));
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_success_between_two_failures_keeps_it_on_and_a_new_wish_forgets_them() {
    let app = ground().await;
    charge_from_now_on(&app, "pm_card_chargeCustomerFail").await;
    assert_eq!(spend(&app, "42", 950).await, 200);
    app.run_jobs().await;
    assert_eq!(app.get("42", PATH).await["failures"], 1);

    charge_from_now_on(&app, "pm_card_visa").await;
    put(&app, "42", &wish(100)).await;
    app.run_jobs().await;
    assert_eq!((available(&app).await, packs(&app)), (550, 1), "asked at once");
    assert_eq!(app.get("42", PATH).await["failures"], 0);

    charge_from_now_on(&app, "pm_card_chargeCustomerFail").await;
    assert_eq!(spend(&app, "42", 500).await, 200);
    app.run_jobs().await;
    let shown = app.get("42", PATH).await;
    assert_eq!((&shown["enabled"], &shown["failures"]), (&json!(true), &json!(1)));
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_charge_that_needs_the_customer_is_a_failure_with_a_link_that_he_can_finish() {
    let app = ground().await;
    charge_from_now_on(&app, "pm_card_authenticationRequired").await;
    assert_eq!(spend(&app, "42", 950).await, 200);
    app.run_jobs().await;
    let (kind, told) = events(&app).await.remove(0);
    assert_eq!(
        (kind.as_str(), &told["failure_code"]),
        ("top_up.failed", &json!("authentication_required"))
    );
    assert!(text(&told, "link").ends_with("/api/v1/billing/tokens/auto-top-up/confirm/"), "{told}");

    let confirm = app.post("42", "tokens/auto-top-up/confirm/", &json!({})).await;
    assert_eq!(confirm.status(), 200);
    let confirm: Value = confirm.json().await.unwrap();
    let payment = app.payment("42", &confirm).await;
    let intent = text(&payment, "transaction_id");
    assert!(text(&confirm, "client_secret").starts_with(intent), "{confirm}");
    let stranger = app.post("7", "tokens/auto-top-up/confirm/", &json!({})).await;
    assert_eq!(stranger.status(), 404);
    app.simulator.pay_stripe(intent, "pm_card_visa").unwrap();
    app.tell().await;
    app.clock.advance(Duration::days(2));
    app.run_jobs().await;

    assert_eq!((available(&app).await, packs(&app), orders(&app).await), (550, 1, 1));
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_failed_payment_cannot_be_paid_any_more_once_the_next_one_is_made() {
    let app = ground().await;
    charge_from_now_on(&app, "pm_card_authenticationRequired").await;
    assert_eq!(spend(&app, "42", 950).await, 200);
    app.run_jobs().await;
    let shown = app.get("42", PATH).await;
    let first = json!({ "payment_id": shown["unconfirmed_payment_id"] });
    let intent = text(&app.payment("42", &first).await, "transaction_id").to_owned();
    charge_from_now_on(&app, "pm_card_visa").await;
    app.clock.advance(Duration::days(1));
    app.run_jobs().await;

    assert!(app.simulator.pay_stripe(&intent, "pm_card_visa").is_err());
    app.tell().await;
    assert_eq!((available(&app).await, packs(&app)), (550, 1));
    assert_eq!(app.payment("42", &first).await["status"], "cancelled");
    app.assert_books_balance().await;
}

#[tokio::test]
async fn the_limit_of_number_holds_until_the_period_ends() {
    let app = ground().await;
    for bought in 1..=3 {
        let left = u64::try_from(available(&app).await).unwrap();
        assert_eq!(spend(&app, "42", left - 50).await, 200);
        app.run_jobs().await;
        assert_eq!(packs(&app), bought);
    }
    assert_eq!(spend(&app, "42", 500).await, 200);
    app.clock.advance(Duration::days(10));
    app.run_jobs().await;
    assert_eq!((available(&app).await, packs(&app)), (50, 3));

    // The packs' tokens live on after the period; so does the wish.
    app.clock.advance(Duration::days(21));
    app.run_jobs().await;

    assert_eq!(packs(&app), 4);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn the_limit_of_money_holds() {
    let app = ground().await;
    let limited = json!({
        "threshold": 100, "plan_id": PACK, "max_per_period": 50, "max_amount_per_period": "19.99"
    });
    let (status, answer) = put(&app, "42", &limited).await;
    assert_eq!((status, &answer["max_amount_per_period"]), (200, &json!("19.99")));
    for _ in 0..2 {
        let left = u64::try_from(available(&app).await).unwrap();
        assert_eq!(spend(&app, "42", left - 50).await, 200);
        app.run_jobs().await;
    }

    assert_eq!((available(&app).await, packs(&app)), (50, 1));
}

#[tokio::test]
async fn a_line_above_one_pack_is_filled_by_several_within_the_limits() {
    let app = ground().await;
    assert_eq!(spend(&app, "42", 900).await, 200);
    app.run_jobs().await;
    assert_eq!((available(&app).await, packs(&app)), (600, 1));

    // Below the line already: asked at once, and again until above or at the limit.
    put(&app, "42", &wish(1_000)).await;
    rung(&app).await;
    app.run_jobs().await;
    assert_eq!((available(&app).await, packs(&app), orders(&app).await), (1_100, 2, 2));

    put(&app, "42", &wish(1_000_000)).await;
    app.run_jobs().await;
    assert_eq!((available(&app).await, packs(&app), orders(&app).await), (1_600, 3, 3));
    app.assert_books_balance().await;
}

#[tokio::test]
async fn while_debt_is_open_nothing_is_bought() {
    let app = ground().await;
    let pack = app.bought("42", PACK).await;
    assert_eq!(spend(&app, "42", 1_390).await, 200);
    let refund = format!("payments/{}/refund/", text(&pack, "payment_id"));
    app.operate(&refund, &json!({ "reason": "asked for" })).await;
    assert!(app.scalar("select debt from token_accounts").await > 0);
    let before = packs(&app);
    put(&app, "42", &wish(1_000)).await;
    app.run_jobs().await;

    assert_eq!((orders(&app).await, packs(&app)), (0, before));
    assert_eq!(app.get("42", PATH).await["enabled"], true, "it only waits");
}

#[tokio::test]
async fn while_a_dispute_is_open_nothing_is_bought_and_after_it_the_pack_is() {
    let app = ground().await;
    let pack = app.bought("42", PACK).await;
    let dispute =
        app.simulator.open_stripe_dispute(text(&pack, "transaction_id"), false, None).unwrap();
    app.tell().await;
    assert_eq!(spend(&app, "42", 950).await, 200);
    app.run_jobs().await;
    assert_eq!((orders(&app).await, available(&app).await), (0, 50));

    app.simulator.settle_stripe_dispute(&dispute, DisputeOutcome::Won).unwrap();
    app.tell().await;
    assert_eq!((orders(&app).await, available(&app).await), (0, 550), "its own pack came back");
    assert_eq!(spend(&app, "42", 500).await, 200);
    app.run_jobs().await;
    assert_eq!((orders(&app).await, available(&app).await), (1, 550));
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_paypal_account_is_charged_and_declines_like_a_card() {
    let app = TestApp::start().await;
    app.bought_with_paypal("42", 1).await;
    assert_eq!(put(&app, "42", &wish(100)).await.0, 200);
    assert_eq!(spend(&app, "42", 950).await, 200);
    app.run_jobs().await;
    assert_eq!((available(&app).await, packs(&app)), (550, 1));

    let method = "select gateway_method_id from payment_methods";
    let method: String = sqlx::query_scalar(method).fetch_one(&app.app.db).await.unwrap();
    app.simulator.fund_paypal_token(&method, Funding::Declines).unwrap();
    assert_eq!(spend(&app, "42", 500).await, 200);
    app.run_jobs().await;
    app.clock.advance(Duration::days(1));
    app.run_jobs().await;
    app.tell().await;

    assert_eq!((available(&app).await, packs(&app)), (50, 1));
    assert_eq!(app.get("42", PATH).await["disabled_reason"], "declined");
    app.assert_books_balance().await;
}

#[tokio::test]
async fn while_a_payment_is_on_its_way_no_other_one_is_made() {
    let app = TestApp::start().await;
    app.bought_with_paypal("42", 1).await;
    put(&app, "42", &wish(100)).await;
    let method = "select gateway_method_id from payment_methods";
    let method: String = sqlx::query_scalar(method).fetch_one(&app.app.db).await.unwrap();
    app.simulator.fund_paypal_token(&method, Funding::Pending).unwrap();
    assert_eq!(spend(&app, "42", 950).await, 200);
    app.run_jobs().await;
    let pending = json!({ "payment_id": app.get("42", PATH).await["pending_payment_id"] });
    assert_eq!(app.payment("42", &pending).await["status"], "pending");
    assert_eq!(spend(&app, "42", 1).await, 200);
    put(&app, "42", &wish(200)).await;
    app.clock.advance(Duration::hours(2));
    app.run_jobs().await;
    assert_eq!((orders(&app).await, available(&app).await), (1, 49));

    let events = app.simulator.events();
    let capture = events.iter().rev().find(|event| event.kind == "PAYMENT.CAPTURE.PENDING");
    app.simulator.settle_paypal(&capture.unwrap().object_id, true).unwrap();
    app.tell().await;
    app.clock.advance(Duration::minutes(2));
    app.run_jobs().await;

    assert_eq!((available(&app).await, packs(&app), orders(&app).await), (549, 1, 1));
    assert_eq!(kinds(&app).await, ["top_up.completed"]);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_customer_who_never_bought_anything_gets_his_first_pack_at_once() {
    let app = TestApp::start().await;
    let begun = app.post("42", "payment-methods/", &json!({ "payment_method": "stripe" })).await;
    let begun: Value = begun.json().await.unwrap();
    app.simulator.setup_stripe(text(&begun, "setup_id"), "pm_card_visa").unwrap();
    app.tell().await;

    assert_eq!(put(&app, "42", &wish(100)).await.0, 200);
    app.run_jobs().await;

    assert_eq!((available(&app).await, packs(&app)), (500, 1));
    assert_eq!(spend(&app, "42", 450).await, 200);
    app.run_jobs().await;
    assert_eq!((available(&app).await, packs(&app)), (550, 2));
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_removed_method_switches_it_off() {
    let app = ground().await;
    let methods = app.get("42", "payment-methods/").await;
    let path = format!("payment-methods/{}/", text(&methods[0], "id"));
    let gone = app.http.delete(app.url(&path)).bearer_auth(token("42")).send().await.unwrap();
    assert_eq!(gone.status(), 204);
    assert_eq!(spend(&app, "42", 950).await, 200);
    app.run_jobs().await;

    let shown = app.get("42", PATH).await;
    assert_eq!(
        (&shown["enabled"], &shown["disabled_reason"]),
        (&json!(false), &json!("no_payment_method"))
    );
    assert_eq!((kinds(&app).await, orders(&app).await), (vec!["top_up.disabled".to_owned()], 0));
    let (status, problem) = put(&app, "42", &wish(100)).await;
    assert_eq!((status, &problem["code"]), (409, &json!("conflict")));
}

#[tokio::test]
async fn a_method_removed_between_order_and_charge_charges_nobody() {
    let app = ground().await;
    assert_eq!(spend(&app, "42", 950).await, 200);
    app.simulator.set_fault(Fault::once(Trouble::ResetBefore).matching("POST /v1/payment_intents"));
    top_ups::fill(&app.app, CustomerId::of("42")).await.unwrap_err();
    sqlx::query("delete from payments where charged_method is not null")
        .execute(&app.app.db)
        .await
        .unwrap();
    let removed = "update payment_methods set detached_at = created_at";
    sqlx::query(removed).execute(&app.app.db).await.unwrap();
    app.clock.advance(Duration::minutes(3));
    app.run_jobs().await;

    assert_eq!((available(&app).await, packs(&app)), (50, 0));
    assert_eq!(app.get("42", PATH).await["disabled_reason"], "no_payment_method");
}

#[tokio::test]
async fn a_pack_that_is_dearer_or_no_longer_sold_is_not_bought() {
    for (change, reason) in [
        ("update plan_versions set price_minor = 1001 where plan_id = 3", "price_changed"),
        ("update plans set is_active = false where id = 3", "plan_unavailable"),
    ] {
        let app = ground().await;
        sqlx::query(change).execute(&app.app.db).await.unwrap();
        assert_eq!(spend(&app, "42", 950).await, 200);
        app.run_jobs().await;

        assert_eq!(app.get("42", PATH).await["disabled_reason"], reason);
        assert_eq!((orders(&app).await, packs(&app)), (0, 0));
    }
}

#[tokio::test]
async fn a_customer_switches_it_off_and_nobody_else_sees_or_changes_it() {
    let app = ground().await;
    assert_eq!(app.get("7", PATH).await, json!({ "enabled": false }));
    let off = |user: &str| app.http.delete(app.url(PATH)).bearer_auth(token(user)).send();
    assert_eq!(off("7").await.unwrap().status(), 204);
    assert_eq!(app.get("42", PATH).await["enabled"], true);
    assert_eq!(app.http.get(app.url(PATH)).send().await.unwrap().status(), 401);

    assert_eq!(off("42").await.unwrap().status(), 204);
    assert_eq!(off("42").await.unwrap().status(), 204);
    assert_eq!(spend(&app, "42", 950).await, 200);
    app.run_jobs().await;

    let shown = app.get("42", PATH).await;
    assert_eq!((&shown["enabled"], &shown["disabled_reason"]), (&json!(false), &json!("customer")));
    assert_eq!((orders(&app).await, kinds(&app).await.len()), (0, 0));
}

#[tokio::test]
async fn a_wrong_wish_is_a_clear_4xx_and_changes_nothing() {
    let app = TestApp::start().await;
    let (status, problem) = put(&app, "42", &wish(100)).await;
    assert_eq!((status, &problem["code"]), (409, &json!("conflict")), "no method is saved");
    app.bought("42", 1).await;
    let with = |name: &str, value: Value| {
        let mut wish = wish(100);
        wish[name] = value;
        wish
    };
    for (wish, status, code) in [
        (with("plan_id", json!(99)), 404, "plan_unavailable"),
        (with("plan_id", json!(1)), 400, "invalid_request"),
        (with("threshold", json!(0)), 400, "invalid_request"),
        (with("threshold", json!(1_000_000_000_001_u64)), 400, "invalid_request"),
        (with("threshold", json!(-1)), 400, "invalid_request"),
        (with("max_per_period", json!(0)), 400, "invalid_request"),
        (with("max_per_period", json!(101)), 400, "invalid_request"),
        (with("max_amount_per_period", json!("9.99")), 400, "invalid_request"),
        (with("max_amount_per_period", json!("30.001")), 400, "invalid_request"),
        (with("max_amount_per_period", json!("-1")), 400, "invalid_request"),
        (with("max_amount_per_period", json!("1e30")), 400, "invalid_request"),
    ] {
        let (answered, problem) = put(&app, "42", &wish).await;
        assert_eq!((answered, &problem["code"]), (status, &json!(code)), "{wish}: {problem}");
    }
    assert_eq!(app.scalar("select count(*) from top_ups").await, 0);
    assert_eq!(app.scalar("select count(*) from token_accounts where top_up_at > 0").await, 0);
}
