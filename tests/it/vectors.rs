//! Every shared event does what its index expects, and every shared error answer is sorted so.
//!
//! A vector's ids are replaced by those of real objects of the running simulator, for what is
//! told is read from it. Each event comes three times: twice as it is, and once under another id.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use chrono::Duration;
use harness::{TestApp, text};
use serde_json::{Value, json};
use shared::gateways::Next;
use shared::ids::{CustomerId, PaymentId};
use shared::money::Currency;
use shared::payments::{self, Charge, PaymentStatus};
use shared::plans::{self, NewPlan};
use shared::tokens::Tokens;
use simulator::{DisputeOutcome, Fault, Funding, PayPalDisputeOutcome, Trouble};

/// Who buys.
const USER: &str = "42";

/// The plan of 10.99 USD that the vectors are about: 1,000 tokens for 30 days.
const PLAN: i32 = 4;

/// Ids of the vectors that stand for one object each.
const INTENT: &str = "pi_3Vec0000000000000001";
const CHARGE: &str = "ch_3Vec0000000000000001";
const RENEWAL: &str = "pi_3Vec0000000000000002";
const DECLINED_RENEWAL: &str = "pi_3Vec0000000000000003";
const REFUND: &str = "re_3Vec0000000000000001";
const DISPUTE: &str = "du_1Vec0000000000000001";
const SESSION: &str = "cs_test_a1Vec00000000000000000000000000000000000000000000000001";
const SETUP: &str = "seti_1Vec0000000000000001";
const RECORD: &str = "cus_Vec00000000001";
const ORDER: &str = "5O190127TN364715T";
const CAPTURE: &str = "2GG279541U471931P";
const PAYPAL_REFUND: &str = "1JU08902781691411";
const REVERSAL: &str = "5YV77211JH9906131";
const PAYPAL_DISPUTE: &str = "PP-D-27803";
const TOKEN: &str = "8kk8451t";

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

pub(crate) fn read(file: &str) -> String {
    std::fs::read_to_string(folder().join(file)).unwrap()
}

/// An application that sells the vectors' plan.
struct Ground {
    app: TestApp,
}

/// What a vector's ids and placeholders are replaced by.
type Names<'a> = Vec<(&'a str, String)>;

impl Ground {
    async fn start() -> Self {
        let app = TestApp::start().await;
        let plan = NewPlan {
            name: "Vector",
            description: "",
            price_minor: 1_099,
            currency: Currency::USD,
            tokens_included: Tokens(1_000),
            duration_days: Some(30),
            is_recurring: true,
        };
        assert_eq!(plans::create(&app.app, &plan).await.unwrap(), PLAN);
        Self { app }
    }

    /// A purchase by Stripe that nobody has paid.
    async fn open(&self) -> Value {
        self.app.purchase(USER, PLAN, "stripe").await
    }

    /// A purchase whose payer did so with this card; nothing was told of it.
    async fn paid(&self, card: &str) -> Value {
        let purchase = self.open().await;
        self.app.simulator.pay_stripe(text(&purchase, "transaction_id"), card).unwrap();
        purchase
    }

    /// A purchase that was paid and granted.
    async fn bought(&self) -> Value {
        let purchase = self.app.bought(USER, PLAN).await;
        self.app.tell().await;
        purchase
    }

    /// A purchase by PayPal whose capture's answer was lost: only the event can tell.
    async fn captured_unheard(&self, funding: Funding) -> (Value, String) {
        let purchase = self.app.purchase(USER, PLAN, "paypal").await;
        let order = text(&purchase, "transaction_id");
        self.app.simulator.approve_paypal_with(order, funding).unwrap();
        self.app.simulator.set_fault(Fault::once(Trouble::ResetAfter).matching("/capture"));
        let path = format!("payments/{}/capture/", text(&purchase, "payment_id"));
        assert_eq!(self.app.post(USER, &path, &json!({})).await.status(), 502);
        assert_eq!(self.payment(&purchase).await["status"], "pending");
        (purchase, self.object_of("PAYMENT.CAPTURE."))
    }

    /// The capture of a PayPal purchase that was granted.
    async fn bought_with_paypal(&self) -> (Value, String) {
        let purchase = self.app.bought_with_paypal(USER, PLAN).await;
        (purchase, self.object_of("PAYMENT.CAPTURE.COMPLETED"))
    }

    /// The object of the simulator's newest event of such a kind.
    fn object_of(&self, kind: &str) -> String {
        let events = self.app.simulator.events();
        let event = events.iter().rev().find(|event| event.kind.starts_with(kind));
        event.unwrap_or_else(|| panic!("no {kind}")).object_id.clone()
    }

    /// Stripe's charge of an intent.
    fn charge_of(&self, intent: &str) -> String {
        let truth = self.app.simulator.truth();
        truth.iter().find(|it| it.object_id == intent).unwrap().capture_ids[0].clone()
    }

    fn stripe_names<'a>(&self, purchase: &Value) -> Names<'a> {
        let intent = text(purchase, "transaction_id");
        let truth = self.app.simulator.truth();
        let is_charged =
            truth.iter().any(|it| it.object_id == intent && !it.capture_ids.is_empty());
        let mut names = names(purchase, INTENT);
        if is_charged {
            names.push((CHARGE, self.charge_of(intent)));
        }
        names
    }

    /// Delivers a vector about these objects three times, and does the jobs after each.
    async fn tell(&self, file: &str, names: &Names<'_>) {
        let body = filled(file, names);
        let event: Value = serde_json::from_str(&body).unwrap();
        let id = text(&event, "id");
        let renamed = body.replace(id, &format!("{id}again"));
        for body in [&body, &body, &renamed] {
            self.deliver(file, body).await;
            self.app.run_jobs().await;
        }
    }

    async fn deliver(&self, file: &str, body: &str) {
        let answer = if file.starts_with("stripe") {
            self.app.deliver_stripe(body.as_bytes()).await
        } else {
            self.app.deliver_paypal(body.as_bytes()).await
        };
        assert_eq!(answer.status(), 200, "{file}");
    }

    /// What became of the vector's event and its copy, once each.
    async fn outcomes(&self) -> String {
        let statuses = "select coalesce(string_agg(distinct status::text, ','), '')
                        from webhook_events
                        where gateway_event_id like 'evt_3Vec%'
                           or gateway_event_id like 'WH-000000000000000%'";
        sqlx::query_scalar(statuses).fetch_one(&self.app.app.db).await.unwrap()
    }

    async fn payment(&self, purchase: &Value) -> Value {
        self.app.payment(USER, purchase).await
    }

    /// Status and refunded amount of the purchase's payment.
    async fn standing(&self, purchase: &Value) -> (String, String) {
        let payment = self.payment(purchase).await;
        (text(&payment, "status").to_owned(), text(&payment, "refunded_amount").to_owned())
    }

    async fn subscription(&self) -> Value {
        self.app.get(USER, "subscription/").await
    }

    async fn spend(&self, tokens: u64) -> u16 {
        let body = json!({ "tokens": tokens });
        self.app.post(USER, "tokens/consume/", &body).await.status().as_u16()
    }

    async fn methods(&self) -> Vec<Value> {
        self.app.get(USER, "payment-methods/").await.as_array().unwrap().clone()
    }

    async fn value(&self, sql: &'static str) -> String {
        sqlx::query_scalar(sql).fetch_one(&self.app.app.db).await.unwrap()
    }

    /// Granted once: status, tokens, one period.
    async fn assert_completed_once(&self, purchase: &Value) {
        assert_eq!(self.standing(purchase).await, ("completed".to_owned(), "0.00".to_owned()));
        let subscription = self.subscription().await;
        assert_eq!(subscription["tokens_remaining"], 1_000);
        assert_eq!(subscription["end_date"], "2026-12-24T12:00:00Z");
        assert_eq!(self.app.scalar("select count(*) from grants").await, 1);
        assert_eq!(self.app.scalar("select count(*) from periods").await, 1);
    }

    /// Nothing was granted, and the payment waits.
    async fn assert_waits(&self, purchase: &Value) {
        assert_eq!(self.standing(purchase).await.0, "pending");
        assert_eq!(self.app.scalar("select count(*) from grants").await, 0);
    }

    /// *processing* in our words: pending at that stage, and not to be cancelled.
    async fn assert_processing(&self, purchase: &Value) {
        self.assert_waits(purchase).await;
        let path = format!("payments/{}/cancel/", text(purchase, "payment_id"));
        assert_eq!(self.app.post(USER, &path, &json!({})).await.status(), 409);
        self.assert_waits(purchase).await;
    }

    /// What a renewal of the subscription charges: the saved method.
    async fn renewal(&self) -> Charge {
        let methods = self.methods().await;
        Charge {
            customer_id: CustomerId::of(USER),
            payment_id: PaymentId::new(self.app.clock.now()),
            plan_id: PLAN,
            plan_version: 1,
            method_id: text(&methods[0], "id").parse().unwrap(),
        }
    }

    /// Charges asked of Stripe: intents made or confirmed.
    fn charges(&self) -> usize {
        let is_charge = |call: &simulator::Call| {
            call.method == "POST"
                && (call.path == "/v1/payment_intents" || call.path.ends_with("/confirm"))
        };
        self.app.simulator.calls().into_iter().filter(is_charge).count()
    }
}

fn names<'a>(purchase: &Value, object: &'a str) -> Names<'a> {
    vec![
        ("{{PAYMENT_ID}}", text(purchase, "payment_id").to_owned()),
        (object, text(purchase, "transaction_id").to_owned()),
    ]
}

fn paypal_names<'a>(purchase: &Value, capture: &str) -> Names<'a> {
    let mut names = names(purchase, ORDER);
    names.push((CAPTURE, capture.to_owned()));
    names
}

/// The vector's own bytes with other ids in them.
fn filled(file: &str, names: &Names<'_>) -> String {
    let body = names.iter().fold(read(file), |body, (from, to)| body.replace(from, to));
    assert!(!body.contains("{{"), "{file} has a placeholder that is not filled");
    body
}

/// The index: what is expected of each file.
fn index(gateway: &str) -> BTreeMap<String, String> {
    let index: Value = serde_json::from_str(&read("events_index.json")).unwrap();
    let entries = index[gateway].as_array().unwrap();
    entries
        .iter()
        .map(|entry| (text(entry, "file").to_owned(), text(entry, "expect").to_owned()))
        .collect()
}

#[test]
fn every_event_file_is_in_the_index() {
    for (gateway, count) in [("stripe", 18), ("paypal", 10)] {
        let name = format!("{gateway}_events");
        let files = std::fs::read_dir(folder().join(&name)).unwrap();
        let files: BTreeSet<String> = files
            .map(|file| format!("{name}/{}", file.unwrap().file_name().to_str().unwrap()))
            .collect();
        assert_eq!(files, index(gateway).into_keys().collect());
        assert_eq!(files.len(), count);
    }
}

#[tokio::test]
async fn every_stripe_event_does_what_is_expected_and_none_is_left_out() {
    for (file, expect) in index("stripe") {
        let ground = Ground::start().await;
        let proven = stripe(&ground, &file).await;
        assert_eq!(proven, expect, "{file}: the case proves another thing than is expected");
        ground.app.assert_books_balance().await;
    }
}

#[tokio::test]
async fn every_paypal_event_does_what_is_expected_and_none_is_left_out() {
    for (file, expect) in index("paypal") {
        let ground = Ground::start().await;
        let proven = paypal(&ground, &file).await;
        assert_eq!(proven, expect, "{file}: the case proves another thing than is expected");
        ground.app.assert_books_balance().await;
    }
}

/// Runs the case of a file; returns the expectation that it proves.
async fn stripe(ground: &Ground, file: &str) -> &'static str {
    match file.strip_prefix("stripe_events/").unwrap() {
        "payment_intent.created.json" => created(ground, file).await,
        "payment_intent.succeeded.json" => succeeded(ground, file).await,
        "payment_intent.succeeded.renewal_off_session.json" => renewed(ground, file).await,
        "payment_intent.payment_failed.json" => failed(ground, file).await,
        "payment_intent.payment_failed.authentication_required.json" => {
            authentication_required(ground, file).await
        }
        "payment_intent.processing.json" => processing(ground, file).await,
        "payment_intent.requires_action.json" => requires_action(ground, file).await,
        "payment_intent.canceled.json" => canceled(ground, file).await,
        "charge.refunded.partial.json" => refunded_in_part(ground, file).await,
        "refund.created.json" => refund_created(ground, file).await,
        "refund.updated.json" => refund_updated(ground, file).await,
        "refund.failed.json" => refund_failed(ground, file).await,
        "charge.dispute.created.json" => disputed(ground, file).await,
        "charge.dispute.closed.won.json" => dispute_won(ground, file).await,
        "checkout.session.completed.json" => session_completed(ground, file).await,
        "checkout.session.expired.json" => session_expired(ground, file).await,
        "setup_intent.succeeded.json" => set_up(ground, file).await,
        "customer.deleted.json" => customer_deleted(ground, file).await,
        other => panic!("no case for {other}"),
    }
}

async fn created(ground: &Ground, file: &str) -> &'static str {
    let purchase = ground.open().await;
    ground.tell(file, &ground.stripe_names(&purchase)).await;
    assert_eq!(ground.outcomes().await, "ignored");
    ground.assert_waits(&purchase).await;
    "store, no state change"
}

async fn succeeded(ground: &Ground, file: &str) -> &'static str {
    let purchase = ground.paid("pm_card_visa").await;
    ground.assert_waits(&purchase).await;
    ground.tell(file, &ground.stripe_names(&purchase)).await;
    assert_eq!(ground.outcomes().await, "processed");
    ground.assert_completed_once(&purchase).await;
    "pending -> completed, once"
}

async fn renewed(ground: &Ground, file: &str) -> &'static str {
    ground.bought().await;
    ground.app.clock.advance(Duration::days(29));
    let charge = ground.renewal().await;
    // We never hear the answer: the event comes first.
    let lost = Fault::once(Trouble::ResetAfter).matching("POST /v1/payment_intents");
    ground.app.simulator.set_fault(lost);
    assert!(payments::charge_saved(&ground.app.app, &charge).await.is_err());
    let names = vec![
        ("{{PAYMENT_ID}}", charge.payment_id.to_string()),
        ("{{SUBSCRIPTION_ID}}", text(&ground.subscription().await, "id").to_owned()),
        ("{{PERIOD_START}}", "2026-12-24T12:00:00Z".to_owned()),
        (RENEWAL, ground.object_of("payment_intent.succeeded")),
        (RECORD, ground.value("select gateway_customer_id from gateway_customers").await),
    ];
    ground.tell(file, &names).await;
    // The charge is asked for again with its key; then the event finds its payment.
    for _check in 0..2 {
        ground.app.clock.advance(Duration::minutes(4));
        ground.app.run_jobs().await;
    }

    assert_eq!(ground.outcomes().await, "processed");
    let again = payments::charge_saved(&ground.app.app, &charge).await.unwrap();
    assert_eq!(again.0, PaymentStatus::Completed);
    let subscription = ground.subscription().await;
    assert_eq!(subscription["end_date"], "2027-01-23T12:00:00Z");
    assert_eq!(subscription["status"], "active");
    assert_eq!(ground.app.scalar("select count(*) from periods").await, 2);
    assert_eq!(ground.app.scalar("select count(*) from grants").await, 2);
    let truth = ground.app.simulator.truth();
    assert_eq!(truth.iter().map(|it| it.captures).sum::<usize>(), 2, "one purchase, one renewal");
    "renewal payment completed, subscription period extended once"
}

async fn failed(ground: &Ground, file: &str) -> &'static str {
    let purchase = ground.open().await;
    let intent = text(&purchase, "transaction_id");
    ground.app.simulator.pay_stripe(intent, "pm_card_chargeDeclined").unwrap_err();
    ground.tell(file, &ground.stripe_names(&purchase)).await;
    assert_eq!(ground.outcomes().await, "processed");
    let payment = ground.payment(&purchase).await;
    assert_eq!(payment["status"], "failed");
    assert!(payment["failure"].is_string(), "the attempt is recorded: {payment}");
    assert_eq!(ground.app.scalar("select count(*) from grants").await, 0);

    // It stays payable: the same purchase again is the same payment, and another card pays it.
    assert_eq!(ground.open().await["payment_id"], purchase["payment_id"]);
    ground.app.simulator.pay_stripe(intent, "pm_card_visa").unwrap();
    ground.app.tell().await;
    ground.assert_completed_once(&purchase).await;
    "stays payable (PI back to requires_payment_method): record attempt, do not mark terminal unless our policy says so"
}

async fn authentication_required(ground: &Ground, file: &str) -> &'static str {
    let purchase = ground.open().await;
    let intent = text(&purchase, "transaction_id");
    ground.app.simulator.pay_stripe(intent, "pm_card_authenticationRequired").unwrap();
    ground.app.simulator.authenticate_stripe(intent, true).unwrap();
    ground.app.tell().await;
    ground.assert_completed_once(&purchase).await;
    ground.app.clock.advance(Duration::days(29));

    let charge = ground.renewal().await;
    let (status, next) = payments::charge_saved(&ground.app.app, &charge).await.unwrap();
    assert_eq!(status, PaymentStatus::Failed);
    assert!(matches!(next, Next::ClientSecret(_)), "the customer can prove himself");
    let asked = ground.charges();
    let declined = ground.object_of("payment_intent.payment_failed");
    let names = vec![
        ("{{PAYMENT_ID}}", charge.payment_id.to_string()),
        ("{{SUBSCRIPTION_ID}}", text(&ground.subscription().await, "id").to_owned()),
        (DECLINED_RENEWAL, declined.clone()),
        (RECORD, ground.value("select gateway_customer_id from gateway_customers").await),
    ];
    ground.tell(file, &names).await;
    assert_eq!(ground.outcomes().await, "processed");
    for _hour in 0..20 {
        ground.app.clock.advance(Duration::hours(1));
        ground.app.run_jobs().await;
    }

    let code = "select failure_code from payments where status = 'failed'";
    assert_eq!(ground.value(code).await, "authentication_required");
    assert_eq!(ground.charges(), asked, "nothing is tried again");
    let subscription = ground.subscription().await;
    assert_eq!(
        (&subscription["status"], &subscription["is_active"]),
        (&json!("past_due"), &json!(true))
    );
    assert_eq!(subscription["end_date"], "2026-12-24T12:00:00Z");
    assert_eq!(ground.spend(10).await, 200, "what was paid for is there until its end");

    ground.app.simulator.pay_stripe(&declined, "pm_card_visa").unwrap();
    ground.app.tell().await;
    ground.tell(file, &names).await;
    let subscription = ground.subscription().await;
    assert_eq!(
        (&subscription["status"], &subscription["end_date"]),
        (&json!("active"), &json!("2027-01-23T12:00:00Z"))
    );
    "renewal needs the customer on-session: subscription past_due + notify, no blind retry"
}

async fn processing(ground: &Ground, file: &str) -> &'static str {
    let purchase = ground.paid("pm_usBankAccount_processing").await;
    ground.tell(file, &ground.stripe_names(&purchase)).await;
    assert_eq!(ground.outcomes().await, "processed");
    ground.assert_processing(&purchase).await;
    ground.app.simulator.settle_stripe(text(&purchase, "transaction_id"), true).unwrap();
    ground.app.tell().await;
    ground.assert_completed_once(&purchase).await;
    "pending -> processing; not completed"
}

async fn requires_action(ground: &Ground, file: &str) -> &'static str {
    let purchase = ground.paid("pm_card_authenticationRequired").await;
    ground.tell(file, &ground.stripe_names(&purchase)).await;
    assert_eq!(ground.outcomes().await, "processed");
    ground.assert_waits(&purchase).await;
    "no completion"
}

async fn canceled(ground: &Ground, file: &str) -> &'static str {
    let purchase = ground.open().await;
    let intent = text(&purchase, "transaction_id");
    let url = format!("{}/v1/payment_intents/{intent}/cancel", ground.app.simulator.stripe_url());
    let key = &ground.app.simulator.settings().stripe_secret_key;
    let cancelled = ground.app.http.post(url).bearer_auth(key).send().await.unwrap();
    assert_eq!(cancelled.status(), 200);
    ground.assert_waits(&purchase).await;
    ground.tell(file, &ground.stripe_names(&purchase)).await;
    assert_eq!(ground.outcomes().await, "processed");
    assert_eq!(ground.standing(&purchase).await.0, "cancelled");
    "pending -> cancelled"
}

async fn refunded_in_part(ground: &Ground, file: &str) -> &'static str {
    let purchase = ground.bought().await;
    let intent = text(&purchase, "transaction_id");
    ground.app.simulator.refund_stripe(intent, Some(400)).unwrap();
    ground.tell(file, &ground.stripe_names(&purchase)).await;
    assert_eq!(ground.outcomes().await, "processed");
    // *partially_refunded* in our words.
    assert_eq!(ground.standing(&purchase).await, ("completed".to_owned(), "4.00".to_owned()));
    // 1,000 × 400 / 1,099, rounded up.
    assert_eq!(ground.subscription().await["tokens_remaining"], 1_000 - 364);
    "refunded_total=400 (absolute value, not a delta); payment stays completed / partially_refunded"
}

/// A purchase of which 4.00 were refunded by us, without our hearing the answer; and the names.
async fn refunded_unheard(ground: &Ground, card: &str) -> (Value, Names<'static>) {
    let purchase = ground.paid(card).await;
    ground.app.tell().await;
    let path = format!("payments/{}/refund/", text(&purchase, "payment_id"));
    ground.app.simulator.set_fault(Fault::once(Trouble::ResetAfter).matching("POST /v1/refunds"));
    let body = json!({ "amount": "4.00", "reason": "asked for" });
    assert_eq!(ground.app.operate(&path, &body).await.0, 200);
    let unheard = "select count(*) from refunds where gateway_refund_id is null";
    assert_eq!(ground.app.scalar(unheard).await, 1);
    let mut names = ground.stripe_names(&purchase);
    names.push(("{{REFUND_ID}}", ground.value("select id::text from refunds").await));
    names.push((REFUND, ground.object_of("refund.created")));
    (purchase, names)
}

async fn refund_created(ground: &Ground, file: &str) -> &'static str {
    let (purchase, names) = refunded_unheard(ground, "pm_card_pendingRefund").await;
    ground.tell(file, &names).await;
    assert_eq!(ground.outcomes().await, "processed");
    let refund = "select string_agg(status || ' ' || amount_minor || ' ' || gateway_refund_id, ',')
                  from refunds";
    assert_eq!(ground.value(refund).await, format!("pending 400 {}", names[4].1));
    assert_eq!(ground.standing(&purchase).await.0, "completed");
    "record refund pending"
}

async fn refund_updated(ground: &Ground, file: &str) -> &'static str {
    let (purchase, names) = refunded_unheard(ground, "pm_card_pendingRefund").await;
    ground.app.simulator.settle_stripe_refund(&names[4].1, true).unwrap();
    ground.tell(file, &names).await;
    assert_eq!(ground.outcomes().await, "processed");
    let refund = "select string_agg(status || ' ' || amount_minor, ',') from refunds";
    assert_eq!(ground.value(refund).await, "succeeded 400");
    assert_eq!(ground.standing(&purchase).await, ("completed".to_owned(), "4.00".to_owned()));
    assert_eq!(ground.subscription().await["tokens_remaining"], 1_000 - 364);
    "idempotent update of the refund row"
}

async fn refund_failed(ground: &Ground, file: &str) -> &'static str {
    let (purchase, names) = refunded_unheard(ground, "pm_card_visa").await;
    ground.tell("stripe_events/refund.updated.json", &names).await;
    assert_eq!(ground.standing(&purchase).await, ("completed".to_owned(), "4.00".to_owned()));
    ground.app.simulator.settle_stripe_refund(&names[4].1, false).unwrap();
    ground.tell(file, &names).await;
    assert_eq!(ground.outcomes().await, "processed");
    assert_eq!(ground.standing(&purchase).await, ("completed".to_owned(), "0.00".to_owned()));
    assert_eq!(ground.subscription().await["tokens_remaining"], 1_000);
    "refund failed: refunded_total goes back down, alert; payment is still paid"
}

async fn disputed(ground: &Ground, file: &str) -> &'static str {
    let purchase = ground.bought().await;
    let names = dispute(ground, &purchase);
    let body: Value = serde_json::from_str(&filled(file, &names)).unwrap();
    assert_eq!(body["data"]["object"]["metadata"], json!({}), "found by its intent or charge");
    ground.tell(file, &names).await;
    assert_eq!(ground.outcomes().await, "processed");
    // *disputed* in our words: completed, with an open dispute that freezes the tokens.
    assert_eq!(ground.standing(&purchase).await.0, "completed");
    assert_eq!(ground.value("select string_agg(stage::text, ',') from disputes").await, "open");
    assert_eq!(ground.spend(1).await, 400);
    "payment -> disputed; metadata is empty: look the payment up by payment_intent / charge"
}

fn dispute(ground: &Ground, purchase: &Value) -> Names<'static> {
    let intent = text(purchase, "transaction_id");
    let dispute = ground.app.simulator.open_stripe_dispute(intent, false, None).unwrap();
    let mut names = ground.stripe_names(purchase);
    names.push((DISPUTE, dispute));
    names
}

async fn dispute_won(ground: &Ground, file: &str) -> &'static str {
    let purchase = ground.bought().await;
    let names = dispute(ground, &purchase);
    ground.tell("stripe_events/charge.dispute.created.json", &names).await;
    assert_eq!(ground.spend(1).await, 400);
    let id = &names.last().unwrap().1;
    ground.app.simulator.settle_stripe_dispute(id, DisputeOutcome::Won).unwrap();
    ground.tell(file, &names).await;
    assert_eq!(ground.outcomes().await, "processed");
    assert_eq!(ground.value("select string_agg(stage::text, ',') from disputes").await, "won");
    assert_eq!(ground.standing(&purchase).await, ("completed".to_owned(), "0.00".to_owned()));
    assert_eq!(ground.spend(1_000).await, 200);
    "disputed -> completed (restored)"
}

/// A page of Stripe's to buy the plan on.
async fn session(ground: &Ground) -> (Value, Names<'static>) {
    let body = json!({ "plan_id": PLAN });
    let answer = ground.app.post(USER, "stripe/checkout-session/", &body).await;
    let session: Value = answer.json().await.unwrap();
    let names = vec![
        ("{{PAYMENT_ID}}", text(&session, "payment_id").to_owned()),
        (SESSION, text(&session, "session_id").to_owned()),
    ];
    (session, names)
}

async fn session_completed(ground: &Ground, file: &str) -> &'static str {
    let (session, mut names) = session(ground).await;
    let page = text(&session, "session_id");
    ground.app.simulator.pay_stripe_session(page, "pm_card_visa").unwrap();
    names.push((INTENT, ground.object_of("payment_intent.succeeded")));
    ground.tell(file, &names).await;
    assert_eq!(ground.outcomes().await, "processed");
    ground.assert_completed_once(&session).await;
    ground.tell("stripe_events/payment_intent.succeeded.json", &names).await;
    ground.app.tell().await;
    assert_eq!(ground.outcomes().await, "processed");
    ground.assert_completed_once(&session).await;
    "same effect as payment_intent.succeeded, still once"
}

async fn session_expired(ground: &Ground, file: &str) -> &'static str {
    let (session, names) = session(ground).await;
    ground.app.simulator.expire_stripe_session(text(&session, "session_id")).unwrap();
    ground.assert_waits(&session).await;
    ground.tell(file, &names).await;
    assert_eq!(ground.outcomes().await, "processed");
    assert_eq!(ground.standing(&session).await.0, "cancelled");
    "pending -> expired/cancelled"
}

async fn set_up(ground: &Ground, file: &str) -> &'static str {
    let wish = json!({ "payment_method": "stripe" });
    let answer = ground.app.post(USER, "payment-methods/", &wish).await;
    let setup: Value = answer.json().await.unwrap();
    let setup = text(&setup, "setup_id");
    ground.app.simulator.setup_stripe(setup, "pm_card_visa").unwrap();
    assert_eq!(ground.methods().await, Vec::<Value>::new());
    let names = vec![(SETUP, setup.to_owned()), ("{{USER_ID}}", USER.to_owned())];
    ground.tell(file, &names).await;
    assert_eq!(ground.outcomes().await, "processed");
    let methods = ground.methods().await;
    assert_eq!(methods.len(), 1);
    assert_eq!(methods[0]["last_four"], "4242");
    "store payment method for off-session renewals"
}

async fn customer_deleted(ground: &Ground, file: &str) -> &'static str {
    ground.bought().await;
    let charge = ground.renewal().await;
    let record = ground.value("select gateway_customer_id from gateway_customers").await;
    let url = format!("{}/v1/customers/{record}", ground.app.simulator.stripe_url());
    let key = &ground.app.simulator.settings().stripe_secret_key;
    let deleted = ground.app.http.delete(url).bearer_auth(key).send().await.unwrap();
    assert_eq!(deleted.status(), 200);
    let names = vec![
        (RECORD, record.clone()),
        ("{{USER_ID}}", USER.to_owned()),
        ("{{PAYMENT_ID}}", charge.payment_id.to_string()),
    ];
    ground.tell(file, &names).await;
    assert_eq!(ground.outcomes().await, "processed");

    assert_eq!(ground.methods().await, Vec::<Value>::new());
    assert_eq!(ground.subscription().await["payment_method_on_file"], false);
    let asked = ground.charges();
    assert!(payments::charge_saved(&ground.app.app, &charge).await.is_err());
    assert_eq!(ground.charges(), asked, "nothing is charged");
    // The next purchase is on a new record.
    let purchase = ground.open().await;
    let is_gone = "select gateway_customer_id from gateway_customers where not is_gone";
    let next = ground.value(is_gone).await;
    assert_ne!(next, record);
    ground.app.simulator.pay_stripe(text(&purchase, "transaction_id"), "pm_card_visa").unwrap();
    ground.app.tell().await;
    assert_eq!(ground.methods().await.len(), 1);
    "detach gateway customer; subscriptions cannot renew"
}

/// Runs the case of a file; returns the expectation that it proves.
async fn paypal(ground: &Ground, file: &str) -> &'static str {
    match file.strip_prefix("paypal_events/").unwrap() {
        "checkout.order.approved.json" => order_approved(ground, file).await,
        "payment.capture.completed.json" => capture_completed(ground, file).await,
        "payment.capture.pending.json" => capture_pending(ground, file).await,
        "payment.capture.denied.json" => capture_denied(ground, file).await,
        "payment.capture.refunded.json" => capture_refunded(ground, file).await,
        "payment.capture.reversed.json" => capture_reversed(ground, file).await,
        "customer.dispute.created.json" => paypal_disputed(ground, file).await,
        "customer.dispute.resolved.seller.json" => paypal_dispute_won(ground, file).await,
        "vault.payment-token.created.json" => vaulted(ground, file).await,
        "payment.sale.completed.legacy.json" => legacy_sale(ground, file).await,
        other => panic!("no case for {other}"),
    }
}

async fn order_approved(ground: &Ground, file: &str) -> &'static str {
    let purchase = ground.app.purchase(USER, PLAN, "paypal").await;
    ground.app.simulator.approve_paypal(text(&purchase, "transaction_id")).unwrap();
    let names = names(&purchase, ORDER);
    ground.deliver(file, &filled(file, &names)).await;
    let later = ground.app.clock.now() + Duration::minutes(1);
    for job in shared::webhooks::due(&ground.app.app, later).await.unwrap() {
        worker::run(&ground.app.app, job).await.unwrap();
    }
    assert_eq!(ground.outcomes().await, "processed");
    ground.assert_waits(&purchase).await;

    ground.tell(file, &names).await;
    assert_eq!(ground.outcomes().await, "processed");
    ground.assert_completed_once(&purchase).await;
    let is_capture = |call: &simulator::Call| call.path.ends_with("/capture");
    let calls: Vec<_> = ground.app.simulator.calls().into_iter().filter(is_capture).collect();
    assert_eq!(ground.app.simulator.truth()[0].captures, 1);
    assert!(calls.iter().all(|call| call.idempotency_key.is_some()));
    "worker captures the order (idempotent PayPal-Request-Id); NOT completed yet"
}

async fn capture_completed(ground: &Ground, file: &str) -> &'static str {
    let (purchase, capture) = ground.captured_unheard(Funding::Instant).await;
    ground.tell(file, &paypal_names(&purchase, &capture)).await;
    assert_eq!(ground.outcomes().await, "processed");
    ground.assert_completed_once(&purchase).await;
    "pending -> completed, once"
}

async fn capture_pending(ground: &Ground, file: &str) -> &'static str {
    let (purchase, capture) = ground.captured_unheard(Funding::Pending).await;
    ground.tell(file, &paypal_names(&purchase, &capture)).await;
    assert_eq!(ground.outcomes().await, "processed");
    ground.assert_processing(&purchase).await;
    "processing; not completed"
}

async fn capture_denied(ground: &Ground, file: &str) -> &'static str {
    let (purchase, capture) = ground.captured_unheard(Funding::Pending).await;
    ground.app.simulator.settle_paypal(&capture, false).unwrap();
    ground.tell(file, &paypal_names(&purchase, &capture)).await;
    assert_eq!(ground.outcomes().await, "processed");
    assert_eq!(ground.standing(&purchase).await.0, "failed");
    assert_eq!(ground.app.scalar("select count(*) from grants").await, 0);
    "-> failed"
}

async fn capture_refunded(ground: &Ground, file: &str) -> &'static str {
    let (purchase, capture) = ground.bought_with_paypal().await;
    let refund = ground.app.simulator.refund_paypal(&capture, None).unwrap();
    let mut names = paypal_names(&purchase, &capture);
    names.push((PAYPAL_REFUND, refund));
    ground.tell(file, &names).await;
    assert_eq!(ground.outcomes().await, "processed");
    assert_eq!(ground.standing(&purchase).await, ("refunded".to_owned(), "10.99".to_owned()));
    assert_eq!(ground.app.scalar("select count(*) from refunds").await, 1);
    assert_eq!(ground.subscription().await["is_active"], false);
    "resource is a REFUND; capture id only in links[rel=up]; total from seller_payable_breakdown.total_refunded_amount"
}

async fn capture_reversed(ground: &Ground, file: &str) -> &'static str {
    let (purchase, capture) = ground.bought_with_paypal().await;
    let reversal = ground.app.simulator.reverse_paypal(&capture).unwrap();
    let mut names = paypal_names(&purchase, &capture);
    names.push((REVERSAL, reversal));
    ground.tell(file, &names).await;
    assert_eq!(ground.outcomes().await, "processed");
    // *charged_back* in our words: completed with a lost dispute.
    assert_eq!(ground.standing(&purchase).await.0, "completed");
    assert_eq!(ground.value("select string_agg(stage::text, ',') from disputes").await, "lost");
    let subscription = ground.subscription().await;
    assert_eq!(subscription["is_active"], false);
    assert_eq!(subscription["tokens_remaining"], 0);
    "money taken back by PayPal: -> charged_back/reversed, revoke"
}

async fn paypal_disputed(ground: &Ground, file: &str) -> &'static str {
    let (purchase, capture) = ground.bought_with_paypal().await;
    let dispute = ground.app.simulator.open_paypal_dispute(&capture, false).unwrap();
    let mut names = paypal_names(&purchase, &capture);
    names.push((PAYPAL_DISPUTE, dispute));
    ground.tell(file, &names).await;
    assert_eq!(ground.outcomes().await, "processed");
    assert_eq!(ground.standing(&purchase).await.0, "completed");
    assert_eq!(ground.value("select string_agg(stage::text, ',') from disputes").await, "open");
    assert_eq!(ground.spend(1).await, 400);
    "completed -> disputed; match on disputed_transactions[].seller_transaction_id = capture id"
}

async fn paypal_dispute_won(ground: &Ground, file: &str) -> &'static str {
    let (purchase, capture) = ground.bought_with_paypal().await;
    let dispute = ground.app.simulator.open_paypal_dispute(&capture, false).unwrap();
    let mut names = paypal_names(&purchase, &capture);
    names.push((PAYPAL_DISPUTE, dispute.clone()));
    ground.tell("paypal_events/customer.dispute.created.json", &names).await;
    assert_eq!(ground.spend(1).await, 400);
    let outcome = PayPalDisputeOutcome::ResolvedSellerFavour;
    ground.app.simulator.settle_paypal_dispute(&dispute, outcome).unwrap();
    ground.tell(file, &names).await;
    assert_eq!(ground.outcomes().await, "processed");
    assert_eq!(ground.value("select string_agg(stage::text, ',') from disputes").await, "won");
    assert_eq!(ground.standing(&purchase).await.0, "completed");
    assert_eq!(ground.spend(1_000).await, 200);
    "disputed -> completed"
}

async fn vaulted(ground: &Ground, file: &str) -> &'static str {
    ground.app.simulator.vault_paypal_late(true);
    let purchase = ground.app.purchase(USER, PLAN, "paypal").await;
    ground.app.simulator.approve_paypal(text(&purchase, "transaction_id")).unwrap();
    let path = format!("payments/{}/capture/", text(&purchase, "payment_id"));
    assert_eq!(ground.app.post(USER, &path, &json!({})).await.status(), 200);
    assert_eq!(ground.methods().await, Vec::<Value>::new());
    let mut names = names(&purchase, ORDER);
    names.push((TOKEN, ground.object_of("VAULT.PAYMENT-TOKEN.CREATED")));
    ground.tell(file, &names).await;
    assert_eq!(ground.outcomes().await, "processed");
    let methods = ground.methods().await;
    assert_eq!(methods.len(), 1);
    assert_eq!(methods[0]["gateway"], "paypal");
    // It can be charged while the customer is away.
    let charge = ground.renewal().await;
    let charged = payments::charge_saved(&ground.app.app, &charge).await.unwrap();
    assert_eq!(charged.0, PaymentStatus::Completed);
    "store vault id for recurring charge"
}

async fn legacy_sale(ground: &Ground, file: &str) -> &'static str {
    let purchase = ground.app.purchase(USER, PLAN, "paypal").await;
    ground.tell(file, &names(&purchase, ORDER)).await;
    assert_eq!(ground.outcomes().await, "ignored");
    ground.assert_waits(&purchase).await;
    "legacy v1 event: 200, ignored unless migrating old payments"
}
