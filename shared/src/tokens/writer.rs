//! The one way by which customers' tokens are spent and held: what waits is committed together.
//!
//! A writer takes what is in its queue and waits for nothing, decides each request by the ledger's
//! rules on the accounts as it reads them, and writes all where nobody changed them meanwhile. One
//! request's refusal never fails its neighbours. All requests of one account go to the same writer,
//! in their order.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::pool::PoolConnection;
use sqlx::{Acquire, PgConnection, PgPool, Postgres};

use super::Tokens;
use super::consume::Consumed;
use super::hold::{Held, SettledShort};
use super::ledger::{Account, Entry};
use super::lot::InsufficientTokens;
use super::reserve::{Asked, Hold, HoldState, HoldStatus, NewHold, Step};
use super::store::{batch, entries, holds};
use crate::clock::Clock;
use crate::coalesce::{self, Coalescer, Committer, Settings};
use crate::error::Error;
use crate::ids::{CustomerId, HoldId};
use crate::jobs::{Doorbell, Job};

/// Writers of a process. Each keeps one connection, and one more for accounts that must be waited
/// for.
const WRITERS: usize = 2;

/// Of a transaction 512 requests: more would hold locks for longer than they save. Who waited 5 s
/// has lost his caller; his key tells whether it was booked.
const SETTINGS: Settings =
    Settings { capacity: 4_096, largest_batch: 512, patience: Duration::from_secs(5) };

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

/// Handle to the writers of this process; clones share them.
#[derive(Clone)]
pub struct Writers(Vec<Coalescer<Writer>>);

/// A request that a writer has taken.
pub(super) struct Pending(coalesce::Pending<Writer>);

impl Pending {
    /// Waits for the verdict.
    pub(super) async fn answer(self) -> Result<Done, Error> {
        match self.0.verdict().await? {
            Verdict::Decided(verdict) => verdict,
            Verdict::Deferred(pending) => pending?.verdict().await?,
        }
    }
}

impl Writers {
    /// Starts the writers.
    pub fn start(db: &PgPool, clock: &Clock, doorbell: &Doorbell) -> Self {
        let ledger = || Ledger {
            db: db.clone(),
            clock: clock.clone(),
            doorbell: doorbell.clone(),
            connection: None,
        };
        let start = |_| {
            let patient = Coalescer::start([PatientWriter(ledger())], SETTINGS);
            Coalescer::start([Writer { ledger: ledger(), patient }], SETTINGS)
        };
        Self((0..WRITERS).map(start).collect())
    }

    /// Puts a request into its account's writer's queue. A full queue is [`Error::Overloaded`]:
    /// nothing was done.
    pub(super) fn submit(&self, wish: Wish) -> Result<Pending, Error> {
        let shard = wish.customer_id.uuid().as_u128() % self.0.len() as u128;
        let writer = &self.0[usize::try_from(shard).expect("a remainder of a small number")];
        writer.enqueue(wish).map(Pending)
    }
}

/// Decides on what it reads, and writes what was not changed or locked by anybody else meanwhile:
/// three round trips, and no lock is waited for. The rest goes to a writer that waits.
///
/// All requests of an account in this process come here, so only other processes, grants and
/// corrections ever get in the way.
struct Writer {
    ledger: Ledger,
    patient: Coalescer<PatientWriter>,
}

/// Waits for locks, then decides.
struct PatientWriter(Ledger);

/// What became of a request.
enum Verdict {
    /// It was decided, and committed where it changes something.
    Decided(Result<Done, Error>),
    /// It waits for its account.
    Deferred(Result<coalesce::Pending<PatientWriter>, Error>),
}

impl Committer for Writer {
    type Item = Wish;
    type Verdict = Verdict;

    async fn commit(&mut self, wishes: &[Wish]) -> Result<Vec<Verdict>, Error> {
        let mut connection = self.ledger.connect().await?;
        let batch = decide_and_write(&mut connection, &self.ledger.clock, wishes).await?;
        self.ledger.done(connection, batch.jobs);
        let verdicts = wishes.iter().zip(batch.verdicts).map(|(wish, verdict)| {
            if batch.passed_over.contains(&wish.customer_id) {
                Verdict::Deferred(self.patient.enqueue(wish.clone()))
            } else {
                Verdict::Decided(verdict)
            }
        });
        Ok(verdicts.collect())
    }
}

impl Committer for PatientWriter {
    type Item = Wish;
    type Verdict = Result<Done, Error>;

    /// After an error it is called with each request alone: the lost commit may have been made, so
    /// it looks for the request's own entry first, under the lock of its account.
    async fn commit(&mut self, wishes: &[Wish]) -> Result<Vec<Self::Verdict>, Error> {
        let mut connection = self.0.connect().await?;
        let batch = lock_decide_and_save(&mut connection, &self.0.clock, wishes).await?;
        self.0.done(connection, batch.jobs);
        Ok(batch.verdicts)
    }
}

/// Keeps its connection as long as it works: a pool would ask it for a sign of life each time.
struct Ledger {
    db: PgPool,
    clock: Clock,
    doorbell: Doorbell,
    connection: Option<PoolConnection<Postgres>>,
}

impl Ledger {
    /// Keeps a connection that has proven good, and rings.
    fn done(&mut self, connection: PoolConnection<Postgres>, jobs: Vec<Job>) {
        self.connection = Some(connection);
        for job in jobs {
            self.doorbell.ring(job);
        }
    }

    /// The kept connection; give it back by [`Self::done`].
    async fn connect(&mut self) -> Result<PoolConnection<Postgres>, Error> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => Ok(self.db.acquire().await?),
        }
    }
}

/// What became of requests that were decided together.
struct Batch {
    verdicts: Vec<Result<Done, Error>>,
    /// Accounts of which nothing was written: their verdicts do not hold.
    passed_over: HashSet<CustomerId>,
    /// To be rung for.
    jobs: Vec<Job>,
}

/// Decides by what is committed now, and writes it where that still holds.
async fn decide_and_write(
    db: &mut PgConnection,
    clock: &Clock,
    wishes: &[Wish],
) -> Result<Batch, Error> {
    let mut accounts = batch::load(db, &customers(wishes)).await?;
    let earlier = Earlier::load(db, wishes).await?;
    let now = clock.now();
    let verdicts = decide_all(&mut accounts, &earlier, wishes, now);
    let changed = changed(&accounts);
    let mut passed_over: HashSet<CustomerId> =
        changed.iter().map(|account| account.customer_id).collect();
    if changed.is_empty() {
        return Ok(Batch { verdicts, passed_over, jobs: Vec::new() });
    }
    let written = if changed.iter().any(|account| batch::has_rest(account)) {
        let mut tx = db.begin().await?;
        let written = batch::write(&mut tx, &changed, now).await?;
        let those: Vec<&Account> =
            changed.into_iter().filter(|account| written.contains(&account.customer_id)).collect();
        batch::write_rest(&mut tx, &those, now).await?;
        tx.commit().await?;
        written
    } else {
        batch::write(db, &changed, now).await?
    };
    passed_over.retain(|customer_id| !written.contains(customer_id));
    let is_written = |account: &&Account| written.contains(&account.customer_id);
    let jobs = accounts.values().filter(is_written).filter_map(|it| top_up(it, now)).collect();
    Ok(Batch { verdicts, passed_over, jobs })
}

async fn lock_decide_and_save(
    connection: &mut PgConnection,
    clock: &Clock,
    wishes: &[Wish],
) -> Result<Batch, Error> {
    let mut tx = connection.begin().await?;
    let mut accounts = batch::lock(&mut tx, &customers(wishes)).await?;
    let earlier = Earlier::load(&mut tx, wishes).await?;
    let now = clock.now();
    let verdicts = decide_all(&mut accounts, &earlier, wishes, now);
    let changed = changed(&accounts);
    if changed.is_empty() {
        tx.rollback().await?;
    } else {
        batch::save(&mut tx, &changed, now).await?;
        tx.commit().await?;
    }
    let jobs = changed.iter().filter_map(|account| top_up(account, now)).collect();
    Ok(Batch { verdicts, passed_over: HashSet::new(), jobs })
}

/// The job for an account whose line was reached by what was just saved.
fn top_up(account: &Account, now: DateTime<Utc>) -> Option<Job> {
    let since = account.asks_since(now).filter(|_| account.top_up_since.is_none())?;
    let customer_id = account.customer_id;
    Some(Job::TopUp { customer_id, since: since.timestamp_micros(), look: 0 })
}

/// Whose tokens are asked for, each once, in ascending order.
fn customers(wishes: &[Wish]) -> Vec<CustomerId> {
    let ids: BTreeSet<CustomerId> = wishes.iter().map(|wish| wish.customer_id).collect();
    ids.into_iter().collect()
}

/// The accounts on which something was booked, in ascending order.
fn changed(accounts: &HashMap<CustomerId, Account>) -> Vec<&Account> {
    let mut changed: Vec<&Account> =
        accounts.values().filter(|account| account.is_changed()).collect();
    changed.sort_by_key(|account| account.customer_id);
    changed
}

fn decide_all(
    accounts: &mut HashMap<CustomerId, Account>,
    earlier: &Earlier,
    wishes: &[Wish],
    now: DateTime<Utc>,
) -> Vec<Result<Done, Error>> {
    let decided = wishes.iter().map(|wish| match accounts.get_mut(&wish.customer_id) {
        Some(account) => decide(account, earlier, wish, now),
        None => Err(match wish.deed {
            Deed::Spend(_) | Deed::Open(_) => Error::NoSubscription,
            Deed::Step(..) => Error::NotFound("hold"),
        }),
    });
    decided.collect()
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
    account: &mut Account,
    earlier: &Earlier,
    wish: &Wish,
    now: DateTime<Utc>,
) -> Result<Done, Error> {
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
            (Some(short), Done::Held(held)) => Err(fell_short(short, held.hold, false)),
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

fn fell_short(short: InsufficientTokens, hold: HoldState, is_replay: bool) -> Error {
    Error::SettledShort(Box::new(SettledShort { short, hold, is_replay }))
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
        Some(short) => Err(fell_short(short, hold, true)),
        None => Ok(Done::Held(Held { hold, available: entry.available_after, is_replay: true })),
    }
}
