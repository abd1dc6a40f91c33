//! A gateway that is down: purchases wait for it, nothing else does, and nobody is charged twice.

use std::time::Duration;

use harness::proxy::Wire;
use harness::{Options, TestApp, Wires, text, token};
use reqwest::Response;
use serde_json::{Value, json};
use shared::Error;
use shared::jobs::Job;
use simulator::{Call, Gateway};
use tokio::time::{Instant, timeout};

use crate::purchase::futures;

/// Long enough for a simulator on a busy machine, short enough to be waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Far longer than anything may take that does not wait for a gateway.
const PROMPT: Duration = Duration::from_secs(1);

async fn ground() -> TestApp {
    let options =
        Options { has_wires: true, gateway_timeout: Some(PATIENCE), ..Options::default() };
    TestApp::start_with(options).await
}

fn wires(app: &TestApp) -> &Wires {
    app.wires.as_ref().unwrap()
}

async fn buy(app: &TestApp, user: &str, wish: &Value, key: Option<&str>) -> Response {
    let mut request = app.http.post(app.url("purchase/")).bearer_auth(token(user)).json(wish);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    request.send().await.unwrap()
}

fn wish(plan_id: i32, method: &str) -> Value {
    json!({ "plan_id": plan_id, "payment_method": method })
}

/// Does the jobs of the webhooks that came in; all others are left.
async fn process(app: &TestApp) {
    let later = app.clock.now() + chrono::Duration::minutes(1);
    for job in shared::webhooks::due(&app.app, later).await.unwrap() {
        worker::run(&app.app, job).await.unwrap();
    }
}

/// Asks again as long as the gateway is said not to answer: for a second after a failure the next
/// callers are told of it instead of each trying for a token of PayPal's.
async fn again<F: Future<Output = Response>>(ask: impl Fn() -> F) -> Response {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = ask().await;
        if answer.status() != 502 || Instant::now() > deadline {
            return answer;
        }
    }
}

async fn spend(app: &TestApp, user: &str, tokens: u64) -> u16 {
    let body = json!({ "tokens": tokens });
    app.post(user, "tokens/consume/", &body).await.status().as_u16()
}

/// Fails unless it is the problem of a gateway that does not answer.
async fn assert_unavailable(answer: Response) {
    let retry_after = answer.headers().get("retry-after").cloned();
    assert_eq!(answer.status(), 502);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["code"], "gateway_unavailable");
    let seconds: u32 = retry_after.unwrap().to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
}

/// The calls that ask for a payment's object.
fn creations(app: &TestApp) -> Vec<Call> {
    let is_creation = |call: &Call| {
        call.method == "POST"
            && (call.path == "/v1/payment_intents" || call.path == "/v2/checkout/orders")
    };
    app.simulator.calls().into_iter().filter(is_creation).collect()
}

/// Fails unless all calls carried one key and made one object.
fn assert_asked_for_one(calls: &[Call]) {
    assert!(calls.iter().all(|call| call.idempotency_key.is_some()));
    assert!(calls.iter().all(|call| call.idempotency_key == calls[0].idempotency_key), "{calls:?}");
    let made: usize = calls.iter().map(|call| call.effects.len()).sum();
    assert_eq!(made, 1, "{calls:?}");
}

/// Pays a purchase, tells us and returns what it gave.
async fn pay(app: &TestApp, user: &str, purchase: &Value) -> Value {
    let id = text(purchase, "transaction_id");
    if purchase["payment_method"] == "paypal" {
        app.simulator.approve_paypal(id).unwrap();
    } else {
        app.simulator.pay_stripe(id, "pm_card_visa").unwrap();
    }
    app.tell().await;
    app.get(user, "subscription/").await
}

#[tokio::test]
async fn a_purchase_goes_on_with_the_same_payment_when_the_gateway_is_back() {
    for method in ["stripe", "paypal"] {
        for (user, wire) in [
            ("1", Wire::Refuses),
            ("2", Wire::Resets),
            ("3", Wire::Hangs),
            ("4", Wire::LosesAnswers),
        ] {
            let app = ground().await;
            wires(&app).set(wire);
            assert_unavailable(buy(&app, user, &wish(1, method), None).await).await;
            assert_unavailable(buy(&app, user, &wish(1, method), None).await).await;
            let pending = app.get(user, "payments/").await;
            assert_eq!(pending.as_array().unwrap().len(), 1, "{method} {wire:?}");
            assert_eq!(pending[0]["status"], "pending");

            wires(&app).set(Wire::Whole);
            let wished = wish(1, method);
            let answer = again(|| buy(&app, user, &wished, None)).await;
            assert_eq!(answer.status(), 201, "{method} {wire:?}");
            let purchase: Value = answer.json().await.unwrap();

            assert_eq!(purchase["payment_id"], pending[0]["id"], "{method} {wire:?}");
            assert_asked_for_one(&creations(&app));
            assert_eq!(pay(&app, user, &purchase).await["tokens_remaining"], 1_000);
            assert_eq!(app.simulator.truth().iter().map(|it| it.captures).sum::<usize>(), 1);
            assert_eq!(app.scalar("select count(*) from payments").await, 1);
            app.assert_books_balance().await;
        }
    }
}

#[tokio::test]
async fn an_answer_that_was_lost_costs_no_second_object() {
    for method in ["stripe", "paypal"] {
        let app = ground().await;
        // What comes before the object (a customer, a token) is known: the object's answer is lost.
        app.purchase("42", 2, method).await;
        let before = creations(&app).len();
        wires(&app).set(Wire::LosesAnswers);
        for _twice in 0..2 {
            assert_unavailable(buy(&app, "42", &wish(1, method), None).await).await;
        }

        wires(&app).set(Wire::Whole);
        let purchase = app.purchase("42", 1, method).await;

        let calls = creations(&app).split_off(before);
        assert_eq!(calls.len(), 3, "{method}: {calls:?}");
        assert_asked_for_one(&calls);
        assert_eq!(calls[0].effects, [text(&purchase, "transaction_id")]);
    }
}

#[tokio::test]
async fn spending_and_webhooks_do_not_notice_a_hanging_gateway() {
    let app = ground().await;
    app.bought("1", 1).await;
    let open = app.purchase("2", 1, "stripe").await;
    app.simulator.pay_stripe(text(&open, "transaction_id"), "pm_card_visa").unwrap();
    let succeeded = app.stripe_event(&open, "payment_intent.succeeded");
    wires(&app).set(Wire::Hangs);

    let wished = wish(1, "stripe");
    let hanging = buy(&app, "3", &wished, None);
    let meanwhile = async {
        let from = Instant::now();
        assert_eq!(spend(&app, "1", 10).await, 200);
        assert_eq!(spend(&app, "1", 100_000).await, 400);
        assert_eq!(app.deliver_stripe(&succeeded).await.status(), 200);
        process(&app).await;
        assert_eq!(app.get("2", "subscription/").await["tokens_remaining"], 1_000);
        assert_eq!(app.get("1", "subscription/").await["tokens_remaining"], 990);
        from.elapsed()
    };
    let started = Instant::now();
    let (answer, took) = tokio::join!(async { (hanging.await, started.elapsed()) }, meanwhile);

    assert_unavailable(answer.0).await;
    assert!(answer.1 >= PATIENCE, "it hung for {:?}", answer.1);
    assert!(took < PATIENCE, "the others took {took:?}");
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_hundred_purchases_at_a_hanging_gateway_end_in_time_and_keep_nobody_waiting() {
    for method in ["stripe", "paypal"] {
        let app = ground().await;
        app.bought("42", 1).await;
        // PayPal's token is known: its callers do not wait for one fetch of it.
        app.purchase("7", 2, method).await;
        wires(&app).set(Wire::Hangs);
        let users: Vec<String> = (100..200).map(|user| user.to_string()).collect();
        let wished = wish(1, method);

        let started = Instant::now();
        let purchases = async {
            let answers = futures(users.iter().map(|user| buy(&app, user, &wished, None))).await;
            (answers, started.elapsed())
        };
        let spends = async {
            let spent = futures((0..50).map(|_| spend(&app, "42", 1))).await;
            (spent, started.elapsed())
        };
        let ((answers, all), (spent, took)) = tokio::join!(purchases, spends);

        assert!(spent.iter().all(|status| *status == 200), "{spent:?}");
        assert!(took < all, "{method}: spends {took:?}, purchases {all:?}");
        // A turn and two calls take 5 s at the most; the rest is a busy machine.
        assert!(all < 10 * PATIENCE, "{method}: {all:?}");
        let wire = if method == "stripe" { &wires(&app).stripe } else { &wires(&app).paypal };
        assert!((1..=40).contains(&wire.most_at_once()), "{method}: {}", wire.most_at_once());
        for answer in answers {
            assert_unavailable(answer).await;
        }
        assert_eq!(app.get("42", "subscription/").await["tokens_remaining"], 950);
        assert_eq!(app.scalar("select count(*) from payments where status = 'pending'").await, 101);
        app.assert_books_balance().await;
    }
}

#[tokio::test]
async fn a_refund_during_an_outage_takes_the_tokens_and_is_sent_once_after() {
    for (method, wire) in [
        ("stripe", Wire::Refuses),
        ("stripe", Wire::LosesAnswers),
        ("paypal", Wire::Refuses),
        ("paypal", Wire::LosesAnswers),
    ] {
        let app = ground().await;
        let purchase = match method {
            "paypal" => app.bought_with_paypal("42", 1).await,
            _ => app.bought("42", 1).await,
        };
        wires(&app).set(wire);
        let path = format!("payments/{}/refund/", text(&purchase, "payment_id"));
        let (status, answer) = app.operate(&path, &json!({ "reason": "asked for" })).await;
        assert_eq!((status, &answer["status"]), (200, &json!("pending")), "{answer}");
        assert_eq!(app.get("42", "subscription/").await["tokens_remaining"], 0);
        app.clock.advance(chrono::Duration::seconds(5));
        app.run_jobs().await;
        assert_eq!(app.scalar("select count(*) from refunds where status = 'pending'").await, 1);

        wires(&app).set(Wire::Whole);
        app.clock.advance(chrono::Duration::minutes(1));
        app.run_jobs().await;
        app.tell().await;

        let payment = app.payment("42", &purchase).await;
        assert_eq!(
            (&payment["status"], &payment["refunded_amount"]),
            (&json!("refunded"), &json!("15.00"))
        );
        assert_eq!(app.scalar("select count(*) from refunds where status = 'succeeded'").await, 1);
        let truth = app.simulator.truth();
        assert_eq!(
            truth.iter().map(|it| it.refunded_minor).sum::<i64>(),
            1_500,
            "{method} {wire:?}"
        );
        let is_refund = |call: &Call| call.method == "POST" && call.path.contains("refund");
        let calls: Vec<Call> = app.simulator.calls().into_iter().filter(is_refund).collect();
        assert_asked_for_one(&calls);
        app.assert_books_balance().await;
    }
}

/// Waits until a statement counts something; the queue works by itself meanwhile.
async fn until(app: &TestApp, what: &'static str) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while app.scalar(what).await == 0 {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn jobs_rest_during_an_outage_and_are_done_after_it() {
    let app = ground().await;
    let purchase = app.purchase("42", 1, "paypal").await;
    app.simulator.approve_paypal(text(&purchase, "transaction_id")).unwrap();
    wires(&app).set(Wire::Refuses);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let stopped = async { drop(stopped.await) };
    let worker = tokio::spawn(worker::serve(app.app.clone(), stopped));

    app.deliver_all_of_paypal().await;
    until(
        &app,
        "select count(*) from apalis.jobs
         where convert_from(job, 'UTF8') like '%webhook_event%' and attempts >= 2 and run_at > now()",
    )
    .await;
    let failed = "select count(*) from webhook_events where status in ('failed', 'quarantined')";
    assert_eq!(app.scalar(failed).await, 0);
    wires(&app).set(Wire::Whole);
    until(&app, "select count(*) from payments where status = 'completed'").await;

    stop.send(()).unwrap();
    worker.await.unwrap().unwrap();
    assert_eq!(app.get("42", "subscription/").await["tokens_remaining"], 1_000);
    assert_eq!(app.scalar(failed).await, 0);
    app.assert_books_balance().await;
}

#[tokio::test]
async fn a_job_that_meets_an_outage_asks_to_be_run_again() {
    let app = ground().await;
    let purchase = app.purchase("42", 1, "paypal").await;
    app.simulator.approve_paypal(text(&purchase, "transaction_id")).unwrap();
    // The approval is heard, the capture not made yet.
    app.deliver_new().await;
    process(&app).await;
    let unheard = app.purchase("7", 1, "paypal").await;
    app.simulator.approve_paypal(text(&unheard, "transaction_id")).unwrap();
    app.deliver_new().await;
    let later = app.clock.now() + chrono::Duration::minutes(1);
    let jobs = shared::webhooks::due(&app.app, later).await.unwrap();
    let payment_id = text(&purchase, "payment_id").parse().unwrap();
    let customer_id = shared::ids::CustomerId::of("42");
    let capture = Job::capture(customer_id, payment_id, app.clock.now());
    let fetch = Job::FetchEvents { gateway: shared::gateways::GatewayName::Paypal, tick: 0 };
    for wire in [Wire::Refuses, Wire::Hangs, Wire::Resets] {
        wires(&app).set(wire);
        for job in [&jobs[0], &capture, &fetch] {
            let done = worker::run(&app.app, job.clone()).await;
            let is_temporary = matches!(&done, Err(Error::Gateway(error)) if error.is_temporary());
            assert!(is_temporary, "{wire:?} {job:?}: {done:?}");
        }
    }

    wires(&app).set(Wire::Whole);
    app.run_jobs().await;

    assert_eq!(app.payment("42", &purchase).await["status"], "completed");
    assert_eq!(app.payment("7", &unheard).await["status"], "completed");
    let orders = app.simulator.truth();
    let orders = orders.iter().filter(|truth| truth.gateway == Gateway::PayPal);
    assert_eq!(orders.map(|truth| truth.captures).collect::<Vec<_>>(), [1, 1]);
}

#[tokio::test]
async fn a_payment_that_never_reached_its_gateway_can_be_cancelled_after_the_outage() {
    for method in ["stripe", "paypal"] {
        let app = ground().await;
        wires(&app).set(Wire::Refuses);
        assert_unavailable(buy(&app, "42", &wish(1, method), None).await).await;
        let payment = app.get("42", "payments/").await[0].clone();
        let path = format!("payments/{}/cancel/", text(&payment, "id"));
        assert_unavailable(app.post("42", &path, &json!({})).await).await;

        wires(&app).set(Wire::Whole);
        let answer = again(|| async { app.post("42", &path, &json!({})).await }).await;

        assert_eq!(answer.status(), 200, "{method}: {}", answer.text().await.unwrap());
        assert_eq!(app.get("42", "payments/").await[0]["status"], "cancelled");
        assert_eq!(app.simulator.truth().iter().map(|it| it.captures).sum::<usize>(), 0);
    }
}

#[tokio::test]
async fn a_key_goes_on_with_its_payment_however_late_it_comes() {
    for method in ["stripe", "paypal"] {
        let app = ground().await;
        wires(&app).set(Wire::LosesAnswers);
        let lost = buy(&app, "42", &wish(1, method), Some("key-1")).await;
        assert_unavailable(lost).await;
        wires(&app).set(Wire::Whole);
        // Without a key this would be another purchase by now.
        app.clock.advance(chrono::Duration::hours(2));

        let wished = wish(1, method);
        let first = again(|| buy(&app, "42", &wished, Some("key-1"))).await;
        assert_eq!(first.status(), 201);
        assert!(!first.headers().contains_key("idempotent-replayed"));
        let first: Value = first.json().await.unwrap();
        let second = buy(&app, "42", &wish(1, method), Some("key-1")).await;
        assert_eq!(second.status(), 201);
        assert_eq!(second.headers()["idempotent-replayed"], "true");
        let second: Value = second.json().await.unwrap();

        assert_eq!(first, second, "the secret is read again");
        assert_asked_for_one(&creations(&app));
        pay(&app, "42", &first).await;
        let paid = buy(&app, "42", &wish(1, method), Some("key-1")).await;
        let paid: Value = paid.json().await.unwrap();
        assert_eq!(
            (&paid["payment_id"], &paid["status"]),
            (&first["payment_id"], &json!("completed"))
        );
        assert_eq!(app.scalar("select count(*) from payments").await, 1);
        app.assert_books_balance().await;
    }
}

#[tokio::test]
async fn a_key_that_comes_with_another_request_is_refused() {
    let app = TestApp::start().await;
    assert_eq!(buy(&app, "42", &wish(3, "stripe"), Some("key-1")).await.status(), 201);

    let mut three = wish(3, "stripe");
    three["quantity"] = json!(3);
    for other in [wish(2, "stripe"), wish(3, "paypal"), wish(3, "credit_card"), three] {
        let refused = buy(&app, "42", &other, Some("key-1")).await;
        assert_eq!(refused.status(), 422, "{other}");
        assert_eq!(refused.json::<Value>().await.unwrap()["code"], "idempotency_key_reused");
    }
    // Another customer's key of the same text is another key.
    assert_eq!(buy(&app, "7", &wish(2, "stripe"), Some("key-1")).await.status(), 201);
    // Two wishes of one kind are one payment, whatever their keys.
    assert_eq!(buy(&app, "42", &wish(3, "stripe"), Some("key-2")).await.status(), 201);
    assert_eq!(app.get("42", "payments/").await.as_array().unwrap().len(), 1);
    for bad in [String::new(), "x".repeat(256)] {
        assert_eq!(buy(&app, "42", &wish(3, "stripe"), Some(&bad)).await.status(), 400);
    }
}

#[tokio::test]
async fn one_key_twelve_times_at_once_is_one_payment() {
    let app = TestApp::start().await;
    let wished = wish(1, "stripe");

    let answers = futures((0..12).map(|_| buy(&app, "42", &wished, Some("key-1")))).await;

    assert!(answers.iter().all(|answer| answer.status() == 201));
    assert_eq!(app.scalar("select count(*) from payments").await, 1);
    assert_eq!(app.scalar("select count(*) from purchase_keys").await, 1);
}

#[tokio::test]
async fn an_unauthenticated_answer_and_a_list_of_plans_wait_for_no_gateway() {
    let app = ground().await;
    wires(&app).set(Wire::Hangs);
    for path in ["plans/", "payments/"] {
        let asked = timeout(PROMPT, app.http.get(app.url(path)).send()).await;
        assert!(asked.unwrap().unwrap().status().as_u16() < 500, "{path}");
    }
}
