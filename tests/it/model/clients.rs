//! Clients that all at once do things to a few accounts, and note what they asked, when, and what
//! they were answered.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::Duration;
use harness::{TestApp, token};
use serde_json::{Value, json};
use shared::Error;
use shared::ids::{CustomerId, HoldId, PaymentId, SubscriptionId};
use shared::tokens::{
    self, Access, Consume, Corrected, Correction, Entitlement, GrantSource, NewLot, Part, Source,
    Tokens,
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::deeds::{self, Deed, Facts, Given, Known, Share, Step};
use super::plain::Time;
use crate::chaos::dice::Dice;
use crate::purchase::futures;

/// Who asks by a service's key.
const SERVICE: &str = "key:7";

/// An account, and what clients know of it.
pub(super) struct Account {
    pub(super) id: CustomerId,
    token: String,
    known: Mutex<Known>,
    asked: Mutex<Vec<Asked>>,
}

/// A request that may be repeated.
#[derive(Debug, Clone)]
struct Asked {
    deed: Deed,
    key: String,
    principal: &'static str,
    is_done: bool,
}

/// Where something stands that was done in a transaction of our own, under the account's lock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Entries of the account before it.
    pub(super) before: i64,
    /// Entries after it.
    pub(super) after: i64,
    /// Which of those between the same entries.
    pub(super) turn: u64,
    /// The time that it was told.
    pub(super) now: Time,
}

/// What was asked and answered.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) account: usize,
    pub(super) deed: Deed,
    /// Principal and operation key, where it has one.
    pub(super) key: Option<(&'static str, String)>,
    /// Ticks before it was sent and after it was answered.
    pub(super) sent: u64,
    pub(super) answered: u64,
    pub(super) answer: Value,
    pub(super) place: Option<Place>,
    /// Another request under a key that was used: it must be refused.
    pub(super) is_misuse: bool,
    /// Place in a batch.
    pub(super) batch: Option<(u64, usize)>,
}

/// A time that the clock showed: from which tick on it may have been seen, and must have been.
struct Shown {
    from: u64,
    surely: u64,
    time: Time,
}

/// One sequence of deeds.
pub(super) struct Sequence<'a> {
    pub(super) app: &'a TestApp,
    pub(super) accounts: Vec<Account>,
    pub(super) records: Mutex<Vec<Record>>,
    ticks: AtomicU64,
    shown: Mutex<Vec<Shown>>,
    began: Time,
}

impl<'a> Sequence<'a> {
    pub(super) async fn start(app: &'a TestApp, dice: &mut Dice, accounts: usize) -> Self {
        let began = app.clock.now();
        let shown = Shown { from: 0, surely: 0, time: began };
        let mut sequence = Self {
            app,
            accounts: Vec::new(),
            records: Mutex::default(),
            ticks: AtomicU64::new(1),
            shown: Mutex::new(vec![shown]),
            began,
        };
        for index in 0..accounts {
            sequence.add_account(dice, index).await;
        }
        sequence
    }

    async fn add_account(&mut self, dice: &mut Dice, index: usize) {
        let user = Uuid::now_v7().to_string();
        let id = CustomerId::of(&user);
        let now = self.app.clock.now();
        sqlx::query(
            "with c as (insert into customers (customer_id, external_id, created_at, updated_at)
                        values ($1, $2, $3, $3))
             insert into token_accounts (customer_id, created_at, updated_at)
             values ($1, $3, $3)",
        )
        .bind(id.uuid())
        .bind(&user)
        .bind(now)
        .execute(&self.app.app.db)
        .await
        .unwrap();
        let (known, asked) = (Mutex::default(), Mutex::default());
        self.accounts.push(Account { id, token: token(&user), known, asked });
        self.in_transaction(index, Deed::Terms(deeds::usual_terms(dice))).await;
        for _ in 0..=dice.below(2) {
            let lots = {
                let mut known = self.accounts[index].known.lock().unwrap();
                deeds::period(dice, &mut known, now)
            };
            for lot in lots {
                self.in_transaction(index, Deed::Grant(lot)).await;
            }
        }
        self.in_transaction(index, Deed::Grant(deeds::extra(dice, now))).await;
    }

    pub(super) fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::SeqCst)
    }

    /// The times that the clock may have shown between two ticks.
    pub(super) fn times(&self, sent: u64, answered: u64) -> Vec<Time> {
        let shown = self.shown.lock().unwrap();
        let mut times = Vec::new();
        for (index, one) in shown.iter().enumerate() {
            let is_over = shown.get(index + 1).is_some_and(|next| next.surely <= sent);
            if one.from <= answered && !is_over {
                times.push(one.time);
            }
        }
        times
    }

    pub(super) fn move_clock(&self, dice: &mut Dice) {
        let mut shown = self.shown.lock().unwrap();
        let now = self.app.clock.now();
        let second = i64::try_from(dice.below(300)).unwrap();
        // Most things happen on the half hour, so that many meet at one instant.
        let half = 1_800 - (now - self.began).num_seconds() % 1_800;
        let halves = i64::try_from(dice.below(8)).unwrap();
        let by = match dice.below(4) {
            0 => second,
            1 => half,
            _ => half + 1_800 * halves,
        };
        let by = Duration::seconds(by);
        let from = self.tick();
        self.app.clock.advance(by);
        let surely = self.tick();
        shown.push(Shown { from, surely, time: now + by });
    }

    /// One client's turn: a few deeds, one after the other.
    pub(super) async fn take_turn(&self, mut dice: Dice, deeds: usize) {
        for _ in 0..deeds {
            let index = usize::try_from(dice.below(self.accounts.len() as u64)).unwrap();
            match dice.below(100) {
                0..3 => self.move_clock(&mut dice),
                3..5 => tokens::book_due(&self.app.app).await.unwrap(),
                5..20 => self.repeat(index, &mut dice).await,
                _ => self.act(index, &mut dice).await,
            }
        }
    }

    async fn act(&self, index: usize, dice: &mut Dice) {
        let now = self.app.clock.now();
        let mut deeds = {
            let mut known = self.accounts[index].known.lock().unwrap();
            deeds::next(dice, &mut known, now)
        };
        if deeds.len() > 1 && matches!(deeds[0], Deed::Consume { .. }) {
            return self.batch(index, deeds).await;
        }
        for deed in deeds.drain(..) {
            let is_service = dice.percent(15) && matches!(deed, Deed::Consume { .. });
            let principal = if is_service { SERVICE } else { "customer" };
            let key = self.tick().to_string();
            let asked = Asked { deed, key, principal, is_done: false };
            if dice.percent(10) {
                futures([self.ask(index, asked.clone()), self.ask(index, asked)]).await;
            } else {
                self.ask(index, asked).await;
            }
        }
    }

    /// Asks again under a key that was used, for the same or for something else.
    async fn repeat(&self, index: usize, dice: &mut Dice) {
        let asked = {
            let asked = self.accounts[index].asked.lock().unwrap();
            let count = asked.len() as u64;
            (count > 0).then(|| asked[usize::try_from(dice.below(count)).unwrap()].clone())
        };
        let Some(mut asked) = asked else { return };
        let other = match &asked.deed {
            Deed::Consume { tokens } => Some(Deed::Consume { tokens: tokens + 1 }),
            Deed::Step { hold, step: Step::Settle { total, is_final } } => {
                let step = Step::Settle { total: total + 1, is_final: *is_final };
                Some(Deed::Step { hold: *hold, step })
            }
            Deed::Step { .. }
            | Deed::Open { .. }
            | Deed::Look
            | Deed::Grant(_)
            | Deed::Adapt(_)
            | Deed::Terms(_)
            | Deed::Remove { .. }
            | Deed::Forgive { .. }
            | Deed::Reset { .. }
            | Deed::Reserve { .. }
            | Deed::Take { .. }
            | Deed::Let { .. } => None,
        };
        match other.filter(|_| asked.is_done && dice.percent(25)) {
            Some(other) => {
                asked.deed = other;
                self.ask_as(index, asked, true).await;
            }
            None => self.ask(index, asked).await,
        }
    }

    async fn ask(&self, index: usize, asked: Asked) {
        self.ask_as(index, asked, false).await;
    }

    async fn ask_as(&self, index: usize, asked: Asked, is_misuse: bool) {
        let Asked { deed, key, principal, .. } = asked;
        let sent = self.tick();
        let (route, answer) = match &deed {
            Deed::Consume { tokens } if principal == SERVICE => {
                ("consume", self.consume_as_service(index, *tokens, &key).await)
            }
            Deed::Consume { tokens } => {
                let body = json!({ "tokens": tokens, "idempotency_key": key });
                ("consume", self.post(index, "consume/", body).await)
            }
            Deed::Open { tokens, seconds, settles_reported, .. } => {
                let rule = if *settles_reported { "settle_reported" } else { "release" };
                let body = json!({
                    "tokens": tokens, "expires_in_seconds": seconds, "on_expiry": rule,
                    "idempotency_key": key,
                });
                ("hold", self.post(index, "holds/", body).await)
            }
            Deed::Step { hold, step } => ("step", self.go_on(index, *hold, *step, &key).await),
            Deed::Look => ("", self.look(index).await),
            Deed::Remove { tokens } => {
                ("correct", self.correct(index, Tokens(*tokens), &key, false).await)
            }
            Deed::Forgive { tokens } => {
                ("correct", self.correct(index, Tokens(*tokens), &key, true).await)
            }
            Deed::Grant(_)
            | Deed::Adapt(_)
            | Deed::Terms(_)
            | Deed::Reset { .. }
            | Deed::Reserve { .. }
            | Deed::Take { .. }
            | Deed::Let { .. } => return self.in_transaction(index, deed).await,
        };
        let answered = self.tick();
        let principal = if route == "correct" { SERVICE } else { principal };
        let key = (!route.is_empty()).then(|| (principal, format!("{route}:{key}")));
        let record = Record {
            account: index,
            deed,
            key,
            sent,
            answered,
            answer,
            place: None,
            is_misuse,
            batch: None,
        };
        self.note(record);
    }

    /// Remembers it, for the judge and for repeats.
    fn note(&self, mut record: Record) {
        let account = &self.accounts[record.account];
        let is_done = record.answer["status"].as_u64().is_some_and(|status| status < 300);
        if let Deed::Open { id, .. } = &mut record.deed
            && let Some(made) = record.answer["hold_id"].as_str()
        {
            *id = made.parse().unwrap();
            let mut known = account.known.lock().unwrap();
            if !known.holds.contains(id) {
                known.holds.push(*id);
            }
        }
        if let Some((principal, key)) = &record.key
            && !record.is_misuse
        {
            let key = key.split_once(':').unwrap().1.to_owned();
            let (deed, principal) = (record.deed.clone(), *principal);
            account.asked.lock().unwrap().push(Asked { deed, key, principal, is_done });
        }
        self.records.lock().unwrap().push(record);
    }

    async fn batch(&self, index: usize, deeds: Vec<Deed>) {
        let item = |deed: &Deed| {
            let Deed::Consume { tokens } = deed else { unreachable!("a batch spends") };
            json!({ "tokens": tokens })
        };
        let items: Vec<Value> = deeds.iter().map(item).collect();
        let sent = self.tick();
        let body = json!({ "items": items, "idempotency_key": sent.to_string() });
        let mut answer = self.post(index, "consume/batch/", body).await;
        let answered = self.tick();
        let Value::Array(results) = answer["results"].take() else { panic!("{answer}") };
        assert_eq!(results.len(), deeds.len(), "a verdict for each item");
        for (place, (deed, verdict)) in deeds.into_iter().zip(results).enumerate() {
            let mut answer = verdict.get("problem").cloned().unwrap_or(verdict.clone());
            answer["status"] = verdict["status"].clone();
            let key = Some(("customer", format!("consume:batch:{sent}:{place}")));
            let batch = Some((sent, place));
            self.note(Record {
                account: index,
                deed,
                key,
                sent,
                answered,
                answer,
                place: None,
                is_misuse: false,
                batch,
            });
        }
    }

    pub(super) async fn look(&self, index: usize) -> Value {
        let request = self.app.http.get(self.app.url("tokens/balance/"));
        self.send(index, request).await
    }

    /// Looks, and notes what was seen.
    pub(super) async fn look_last(&self, index: usize) {
        let key = String::new();
        self.ask(index, Asked { deed: Deed::Look, key, principal: "customer", is_done: false })
            .await;
    }

    async fn post(&self, index: usize, path: &str, body: Value) -> Value {
        let request = self.app.http.post(self.app.url(&format!("tokens/{path}"))).json(&body);
        self.send(index, request).await
    }

    async fn go_on(&self, index: usize, hold: Uuid, step: Step, key: &str) -> Value {
        match step {
            Step::Extend { tokens, seconds, reported } => {
                let body = json!({
                    "tokens": (tokens > 0).then_some(tokens), "expires_in_seconds": seconds,
                    "reported_total": reported, "idempotency_key": key,
                });
                self.post(index, &format!("holds/{hold}/extend/"), body).await
            }
            Step::Settle { total, is_final } => {
                let body =
                    json!({ "tokens_total": total, "final": is_final, "idempotency_key": key });
                self.post(index, &format!("holds/{hold}/settle/"), body).await
            }
            Step::Release => {
                let url = self.app.url(&format!("tokens/holds/{hold}/release/"));
                self.send(index, self.app.http.post(url).header("idempotency-key", key)).await
            }
        }
    }

    async fn send(&self, index: usize, request: reqwest::RequestBuilder) -> Value {
        let request = request.bearer_auth(&self.accounts[index].token);
        let ask = || request.try_clone().unwrap().send();
        // A connection that was idle for long may be closed while it is used; then the key tells.
        let (answer, is_known) = match ask().await {
            Ok(answer) => (answer, true),
            Err(_) => (ask().await.unwrap(), false),
        };
        let status = answer.status().as_u16();
        let is_replay = is_known && answer.headers().contains_key("idempotent-replayed");
        let mut body: Value = answer.json().await.unwrap();
        if body["status"].is_string() {
            body["hold_status"] = body["status"].take();
        }
        body["status"] = status.into();
        if is_replay {
            body["replayed"] = true.into();
        }
        body
    }

    async fn consume_as_service(&self, index: usize, tokens: u64, key: &str) -> Value {
        let wish = Consume {
            customer_id: self.accounts[index].id,
            principal: SERVICE.to_owned(),
            tokens: Tokens(tokens),
            description: String::new(),
            metadata: json!({}),
            key: Some(key.to_owned()),
        };
        match tokens::consume(&self.app.app, &wish).await {
            Ok(done) => json!({
                "status": 200, "tokens_consumed": done.tokens, "usage_id": done.usage_id,
                "tokens_remaining": done.remaining, "tokens_available": done.available,
                "replayed": done.is_replay,
            }),
            Err(Error::InsufficientTokens(short)) => json!({
                "status": 400, "code": "insufficient_tokens", "requested": short.requested,
                "available": short.available, "held": short.held,
                "overdraft_left": short.overdraft_left,
            }),
            Err(Error::SubscriptionInactive) => {
                json!({ "status": 400, "code": "subscription_inactive" })
            }
            Err(Error::IdempotencyMismatch) => json!({ "status": 422 }),
            Err(error) => panic!("{error}"),
        }
    }

    async fn correct(&self, index: usize, count: Tokens, key: &str, is_debt: bool) -> Value {
        let correction = Correction {
            customer_id: self.accounts[index].id,
            principal: SERVICE.to_owned(),
            reason: "model".to_owned(),
            key: Some(key.to_owned()),
        };
        let app = &self.app.app;
        let done = if is_debt {
            tokens::forgive_debt(app, &correction, count, false).await
        } else {
            tokens::remove(app, &correction, count, false).await
        };
        match done {
            Ok(Corrected { remaining, available, debt, is_replay }) => json!({
                "status": 200, "remaining": remaining, "available": available, "debt": debt,
                "replayed": is_replay,
            }),
            Err(Error::Conflict(why)) => {
                let there: String = why.chars().filter(char::is_ascii_digit).collect();
                json!({ "status": 409, "available": there.parse::<u64>().unwrap() })
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Does something as payments and subscriptions do: in a transaction of their own.
    async fn in_transaction(&self, index: usize, deed: Deed) {
        let customer_id = self.accounts[index].id;
        let sent = self.tick();
        let mut tx = self.app.app.db.begin().await.unwrap();
        let now = self.app.clock.now();
        let before = last_seq(&mut tx, customer_id).await;
        let answer = perform(&mut tx, customer_id, &deed, now).await;
        let after = last_seq(&mut tx, customer_id).await;
        let turn = self.tick();
        tx.commit().await.unwrap();
        let answered = self.tick();
        if let Deed::Grant(given) = &deed {
            let mut known = self.accounts[index].known.lock().unwrap();
            known.lots.push(given.clone());
        }
        let place = Some(Place { before, after, turn, now });
        self.note(Record {
            account: index,
            deed,
            key: None,
            sent,
            answered,
            answer,
            place,
            is_misuse: false,
            batch: None,
        });
    }
}

async fn last_seq(db: &mut PgConnection, customer_id: CustomerId) -> i64 {
    let sql = "select last_seq from token_accounts where customer_id = $1 for no key update";
    sqlx::query_scalar(sql).bind(customer_id.uuid()).fetch_one(db).await.unwrap()
}

async fn perform(db: &mut PgConnection, customer_id: CustomerId, deed: &Deed, now: Time) -> Value {
    match deed {
        Deed::Grant(given) => tokens::grant(db, customer_id, &lot(given), now).await.unwrap(),
        Deed::Adapt(facts) => {
            let done = tokens::adapt(db, customer_id, &entitlement(facts), "model", now).await;
            let done = done.unwrap();
            return json!({
                "taken": done.taken, "became_debt": done.became_debt, "returned": done.returned,
            });
        }
        Deed::Terms(terms) => {
            let access = Access {
                subscription_id: SubscriptionId::from(Uuid::nil()),
                is_active: terms.is_active,
                spendable_until: terms.until,
                paused_until: terms.paused_until,
                overdraft: Tokens(terms.overdraft),
                low_at: Some(Tokens(10)),
            };
            tokens::set_access(db, customer_id, &access, now).await.unwrap();
        }
        Deed::Reset { source, part, tokens } => {
            let correction = Correction {
                customer_id,
                principal: SERVICE.to_owned(),
                reason: "model".to_owned(),
                key: Some(Uuid::now_v7().to_string()),
            };
            let source = Source::payment(PaymentId::from(*source), *part);
            tokens::reset(db, &correction, (source, Tokens(*tokens)), now).await.unwrap();
        }
        Deed::Reserve { id, shares, ends_at } => {
            let (id, parts) = (HoldId::from(*id), parts(shares));
            let done = tokens::reserve_for_change(db, customer_id, id, &parts, *ends_at, now).await;
            return json!({ "reserved": done.unwrap() });
        }
        Deed::Take { id, shares } => {
            let (id, parts) = (HoldId::from(*id), parts(shares));
            tokens::take_for_change(db, customer_id, id, &parts, now).await.unwrap();
        }
        Deed::Let { id } => {
            tokens::release_for_change(db, customer_id, HoldId::from(*id), now).await.unwrap();
        }
        Deed::Consume { .. }
        | Deed::Open { .. }
        | Deed::Step { .. }
        | Deed::Look
        | Deed::Remove { .. }
        | Deed::Forgive { .. } => unreachable!("the API does it"),
    }
    Value::Null
}

fn lot(given: &Given) -> NewLot {
    let kind = if given.is_payment { GrantSource::Payment } else { GrantSource::Admin };
    NewLot {
        source: Source { kind, id: given.source, part: given.part },
        tokens: Tokens(given.tokens),
        priority: given.priority,
        opens_at: given.opens_at,
        expires_at: given.ends_at,
        rollover: given.rollover,
    }
}

fn entitlement(facts: &Facts) -> Entitlement {
    let money = |minor: u64| i64::try_from(minor).unwrap();
    Entitlement {
        payment_id: PaymentId::from(facts.payment),
        captured_minor: money(facts.captured),
        gone_minor: money(facts.gone),
        gone_unused_only_minor: money(facts.gone_unused_only),
        is_frozen: facts.is_frozen,
    }
}

fn parts(shares: &[Share]) -> Vec<Part> {
    let part = |share: &Share| Part {
        source: Source::payment(PaymentId::from(share.source), share.part),
        tokens: Tokens(share.tokens),
    };
    shares.iter().map(part).collect()
}
