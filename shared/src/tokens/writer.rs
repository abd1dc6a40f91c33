//! The one way by which customers' tokens are spent and held: what waits is committed together.
//!
//! A writer takes what is in its queue and waits for nothing, locks the accounts in order, decides
//! each request by the ledger's rules, and commits all in one transaction. One request's refusal
//! never fails its neighbours. All requests of one account go to the same writer, in their order.

use std::collections::{BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use sqlx::pool::PoolConnection;
use sqlx::{Acquire, PgConnection, PgPool, Postgres};
use tokio::sync::{mpsc, oneshot};

use super::Tokens;
use super::consume::Consumed;
use super::hold::Held;
use super::ledger::{Account, Entry};
use super::reserve::{Asked, Hold, HoldStatus, NewHold, Step};
use super::store::{batch, entries, holds};
use crate::clock::Clock;
use crate::error::Error;
use crate::ids::{CustomerId, HoldId};

/// Writers of a process; each keeps one connection.
const WRITERS: usize = 2;

/// Requests that may wait for one writer; beyond it callers are told to come again.
const QUEUE: usize = 4_096;

/// Most requests of one transaction: more would hold locks for longer than they save.
const BATCH: usize = 512;

/// A request that waited longer has lost its caller; its key tells whether it was booked.
const PATIENCE: Duration = Duration::from_secs(5);

/// One request to decide.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    /// Whose tokens.
    pub(super) customer_id: CustomerId,
    /// Who asks, under which entry.
    pub(super) asked: Asked,
    /// What for.
    pub(super) deed: Deed,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) enum Deed {
    /// Tokens are spent.
    Spend(Tokens),
    /// Tokens are set aside.
    Open(NewHold),
    /// A hold goes on.
    Step(HoldId, Step),
}

/// What was done.
#[derive(Debug)]
pub(super) enum Done {
    /// Tokens were spent.
    Consumed(Consumed),
    /// A hold was made, or went on.
    Held(Held),
}

struct Waiting {
    wish: Wish,
    since: Instant,
    reply: oneshot::Sender<Result<Done, Error>>,
}

/// Handle to the writers of this process. They end with the last handle.
#[derive(Debug, Clone)]
pub struct Writers(Vec<mpsc::Sender<Waiting>>);

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").field("id", &self.wish.asked.id).finish_non_exhaustive()
    }
}

/// A request that a writer has taken.
pub(super) struct Pending(oneshot::Receiver<Result<Done, Error>>);

impl Pending {
    /// Waits for the verdict. A writer that ends without one leaves it to the request's key.
    pub(super) async fn answer(self) -> Result<Done, Error> {
        self.0.await.unwrap_or(Err(Error::Overloaded))
    }
}

impl Writers {
    /// Starts the writers.
    pub fn start(db: &PgPool, clock: &Clock) -> Self {
        let start = |_| {
            let (sender, queue) = mpsc::channel(QUEUE);
            let writer = Writer { db: db.clone(), clock: clock.clone(), connection: None };
            tokio::spawn(writer.run(queue));
            sender
        };
        Self((0..WRITERS).map(start).collect())
    }

    /// Puts a request into its writer's queue. A full queue is [`Error::Overloaded`]: nothing was
    /// done.
    pub(super) fn submit(&self, wish: Wish) -> Result<Pending, Error> {
        let (reply, answer) = oneshot::channel();
        let shard = wish.customer_id.uuid().as_u128() % self.0.len() as u128;
        let writer = &self.0[usize::try_from(shard).expect("a remainder of a small number")];
        let waiting = Waiting { wish, since: Instant::now(), reply };
        writer.try_send(waiting).map_err(|_| Error::Overloaded)?;
        Ok(Pending(answer))
    }
}

struct Writer {
    db: PgPool,
    clock: Clock,
    /// Kept from batch to batch, given up after an error.
    connection: Option<PoolConnection<Postgres>>,
}

impl Writer {
    async fn run(mut self, mut queue: mpsc::Receiver<Waiting>) {
        let mut waiting = Vec::with_capacity(BATCH);
        while queue.recv_many(&mut waiting, BATCH).await > 0 {
            let (mut wishes, mut replies) = (Vec::new(), Vec::new());
            for Waiting { wish, since, reply } in waiting.drain(..) {
                if since.elapsed() > PATIENCE {
                    answer(reply, Err(Error::Overloaded));
                } else {
                    wishes.push(wish);
                    replies.push(reply);
                }
            }
            let verdicts = match self.commit(&wishes).await {
                Ok(verdicts) => verdicts,
                Err(error) => self.one_by_one(&wishes, error).await,
            };
            for (reply, verdict) in replies.into_iter().zip(verdicts) {
                answer(reply, verdict);
            }
        }
    }

    /// Each request alone, after the batch failed: its commit may have been lost, or made, so each
    /// looks for its own entry first, under the lock of its account.
    async fn one_by_one(&mut self, wishes: &[Wish], error: Error) -> Vec<Result<Done, Error>> {
        tracing::warn!(%error, count = wishes.len(), "a batch failed; each request is tried alone");
        let end = Instant::now() + PATIENCE;
        let mut verdicts = Vec::with_capacity(wishes.len());
        for wish in wishes {
            let verdict = if Instant::now() > end {
                Err(Error::Overloaded)
            } else {
                let one = self.commit(std::slice::from_ref(wish)).await;
                one.and_then(|mut one| one.pop().unwrap_or(Err(Error::Overloaded)))
            };
            verdicts.push(verdict);
        }
        verdicts
    }

    /// Decides and commits; a bug that panics is an error of this batch, not the end of the writer.
    async fn commit(&mut self, wishes: &[Wish]) -> Result<Vec<Result<Done, Error>>, Error> {
        if wishes.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.db.acquire().await?,
        };
        let work = decide_and_save(&mut connection, &self.clock, wishes);
        let done = match AssertUnwindSafe(work).catch_unwind().await {
            Ok(done) => done?,
            Err(_) => return Err(Error::Bug("a request panicked in the ledger")),
        };
        self.connection = Some(connection);
        Ok(done)
    }
}

/// A caller that has gone away is told nothing; its key tells it later.
fn answer(reply: oneshot::Sender<Result<Done, Error>>, verdict: Result<Done, Error>) {
    let _gone = reply.send(verdict);
}

async fn decide_and_save(
    connection: &mut PgConnection,
    clock: &Clock,
    wishes: &[Wish],
) -> Result<Vec<Result<Done, Error>>, Error> {
    let ids: BTreeSet<CustomerId> = wishes.iter().map(|wish| wish.customer_id).collect();
    let ids: Vec<CustomerId> = ids.into_iter().collect();
    let mut tx = connection.begin().await?;
    let mut accounts = batch::lock(&mut tx, &ids).await?;
    let earlier = Earlier::load(&mut tx, wishes).await?;
    let now = clock.now();
    let verdicts: Vec<_> =
        wishes.iter().map(|wish| decide(&mut accounts, &earlier, wish, now)).collect();
    let mut changed: Vec<&Account> =
        accounts.values().filter(|account| account.is_changed()).collect();
    changed.sort_by_key(|account| account.customer_id);
    if changed.is_empty() {
        tx.rollback().await?;
    } else {
        batch::save(&mut tx, &changed, now).await?;
        tx.commit().await?;
    }
    Ok(verdicts)
}

/// What was there before this batch: entries by account, principal and key, and holds that the
/// batch names and that are closed.
struct Earlier {
    entries: HashMap<(CustomerId, String, String), Entry>,
    holds: HashMap<(CustomerId, HoldId), Hold>,
}

impl Earlier {
    async fn load(db: &mut PgConnection, wishes: &[Wish]) -> Result<Self, Error> {
        let asked = wishes.iter().map(|wish| (wish.customer_id, &wish.asked.request));
        let entries = entries::find(db, asked).await?.into_iter().map(|(customer_id, entry)| {
            ((customer_id, entry.principal.clone(), entry.operation_key.clone()), entry)
        });
        let entries = entries.collect();
        let named: Vec<_> = wishes
            .iter()
            .filter_map(|wish| match wish.deed {
                Deed::Step(id, _) => Some((wish.customer_id, id)),
                Deed::Spend(_) | Deed::Open(_) => None,
            })
            .collect();
        let mut closed = HashMap::new();
        if !named.is_empty() {
            for (customer_id, hold) in holds::named(db, &named).await? {
                if hold.status != HoldStatus::Open {
                    closed.insert((customer_id, hold.id), hold);
                }
            }
        }
        Ok(Self { entries, holds: closed })
    }

    /// The entry under the request's key, made before this batch or in it.
    fn find<'a>(&'a self, account: &'a Account, wish: &Wish) -> Option<&'a Entry> {
        let request = &wish.asked.request;
        let is_same = |entry: &&Entry| {
            entry.principal == request.principal && entry.operation_key == request.operation_key
        };
        let key = (wish.customer_id, request.principal.clone(), request.operation_key.clone());
        self.entries.get(&key).or_else(|| account.entries.iter().find(is_same))
    }
}

/// One request's verdict, by the same rules as if it were alone.
fn decide(
    accounts: &mut HashMap<CustomerId, Account>,
    earlier: &Earlier,
    wish: &Wish,
    now: DateTime<Utc>,
) -> Result<Done, Error> {
    let account = accounts.get_mut(&wish.customer_id).ok_or(match wish.deed {
        Deed::Spend(_) | Deed::Open(_) => Error::NoSubscription,
        Deed::Step(..) => Error::NotFound("hold"),
    })?;
    if let Some(entry) = earlier.find(account, wish) {
        return replay(entry, wish);
    }
    account.book_due(now);
    let asked = wish.asked.clone();
    match &wish.deed {
        Deed::Spend(tokens) => {
            let entry = account.spend(*tokens, asked.id, asked.request, now)?;
            Ok(Done::Consumed(Consumed::of(entry, false)))
        }
        Deed::Open(new) => {
            account.open_hold(new, asked, now)?;
            Ok(held(account, account.holds.len() - 1, now))
        }
        Deed::Step(id, step) => decide_step(account, earlier, (*id, *step), asked, now),
    }
}

fn decide_step(
    account: &mut Account,
    earlier: &Earlier,
    (id, step): (HoldId, Step),
    asked: Asked,
    now: DateTime<Utc>,
) -> Result<Done, Error> {
    let principal = asked.request.principal.clone();
    let is_his = |hold: &&Hold| hold.id == id && hold.principal == principal;
    if let Some(index) = account.open_hold_of(id, &principal) {
        let short = account.step(index, step, asked, now)?;
        let done = held(account, index, now);
        return match (short, done) {
            (Some(short), Done::Held(held)) => {
                Err(Error::SettledShort { short, hold: held.hold, is_replay: false })
            }
            (_, done) => Ok(done),
        };
    }
    let before = earlier.holds.get(&(account.customer_id, id));
    let closed = account.holds.iter().chain(before).find(is_his).ok_or(Error::NotFound("hold"))?;
    let state = closed.state();
    let is_repeated = match step {
        Step::Release => state.status == HoldStatus::Released,
        Step::Settle { total, .. } => state.status == HoldStatus::Settled && total <= state.settled,
        Step::Extend { .. } => false,
    };
    if !is_repeated {
        return Err(Error::HoldNotOpen(state));
    }
    Ok(Done::Held(Held { hold: state, available: account.available(now), is_replay: false }))
}

fn held(account: &Account, index: usize, now: DateTime<Utc>) -> Done {
    let hold = account.holds[index].state();
    Done::Held(Held { hold, available: account.available(now), is_replay: false })
}

/// The answer that was given under the same key.
fn replay(entry: &Entry, wish: &Wish) -> Result<Done, Error> {
    if entry.request_digest != wish.asked.request.digest {
        return Err(Error::IdempotencyMismatch);
    }
    let Some(hold) = entry.hold.clone() else {
        return Ok(Done::Consumed(Consumed::of(entry, true)));
    };
    match hold.short.as_deref().copied() {
        Some(short) => Err(Error::SettledShort { short, hold, is_replay: true }),
        None => Ok(Done::Held(Held { hold, available: entry.available_after, is_replay: true })),
    }
}
