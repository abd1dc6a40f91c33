//! The load: keep-alive clients on one thread, as fast as they are answered or at a fixed pace.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::task::LocalSet;

use super::http::{Answer, KEY, Requests, Wire};
use super::machine;
use super::stats::percentile;

/// In which order requests are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Any, again and again.
    Random,
    /// Each once, in their order; when none is left the load ends.
    Once,
}

/// Makes the second request of a pair out of the first one and the body of its answer.
pub(super) type Follow = fn(&[u8], &[u8], &mut Requests) -> Option<()>;

/// What to send, how, and for how long.
#[derive(Clone)]
pub(super) struct Load {
    pub(super) address: SocketAddr,
    pub(super) requests: Arc<Requests>,
    pub(super) order: Order,
    pub(super) follow: Option<Follow>,
    pub(super) clients: usize,
    /// Requests a second, on a schedule that no slow answer delays; `None`: as fast as they go.
    pub(super) pace: Option<f64>,
    pub(super) time: Duration,
    /// The processor of the thread.
    pub(super) core: Option<usize>,
}

/// One request that was answered well.
#[derive(Debug, Clone, Copy)]
pub(super) struct Done {
    /// Which.
    pub(super) index: usize,
    /// From when it was due, or sent if that was later, to its answer.
    pub(super) latency_us: u32,
    /// When the answer was there, in microseconds since 1970.
    pub(super) at_us: i64,
}

/// What came of a load.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) done: Vec<Done>,
    /// Other answers than 2xx, by status.
    pub(super) refused: BTreeMap<u16, u64>,
    pub(super) elapsed: Duration,
    /// Processor time of the API meanwhile, where it was looked at.
    pub(super) api_seconds: f64,
    /// Processor time of the load's own thread.
    pub(super) load_seconds: f64,
}

impl Outcome {
    /// Good answers a second.
    pub(super) fn rate(&self) -> f64 {
        self.done.len() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// The latency that so many of a thousand do not exceed, in milliseconds.
    pub(super) fn latency_ms(&self, per_mille: usize) -> f64 {
        let mut sorted: Vec<u32> = self.done.iter().map(|done| done.latency_us).collect();
        sorted.sort_unstable();
        f64::from(percentile(&sorted, per_mille)) / 1000.0
    }
}

/// Runs a load on a thread of its own.
pub(super) async fn run(load: Load) -> io::Result<Outcome> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _not_waited_for = sender.send(run_here(load));
    });
    receiver.await.map_err(io::Error::other)?
}

fn run_here(load: Load) -> io::Result<Outcome> {
    if let Some(core) = load.core {
        machine::pin_this_thread(core)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = LocalSet::new().block_on(&runtime, drive(load))?;
    Ok(Outcome { load_seconds: machine::processor_seconds("thread-self"), ..outcome })
}

async fn drive(load: Load) -> io::Result<Outcome> {
    let mut wires = Vec::with_capacity(load.clients);
    for _ in 0..load.clients {
        wires.push(Wire::connect(load.address).await?);
    }
    let state = Rc::new(State::start(load));
    let clients: Vec<_> = wires
        .into_iter()
        .map(|wire| tokio::task::spawn_local(client(Rc::clone(&state), wire)))
        .collect();
    for client in clients {
        client.await.map_err(io::Error::other)??;
    }
    let state = Rc::into_inner(state).ok_or_else(|| io::Error::other("a client is left"))?;
    Ok(state.outcome())
}

/// What the clients of a load share.
struct State {
    load: Load,
    key_at: Option<usize>,
    start: Instant,
    end: Instant,
    next: Cell<usize>,
    random: Cell<u64>,
    last: Cell<Instant>,
    outcome: RefCell<Outcome>,
}

impl State {
    fn start(load: Load) -> Self {
        let key = load.requests.get(0).windows(KEY.len()).position(|part| part == KEY.as_bytes());
        let start = Instant::now();
        Self {
            key_at: key,
            start,
            end: start + load.time,
            next: Cell::new(0),
            random: Cell::new(micros() as u64 | 1),
            last: Cell::new(start),
            outcome: RefCell::default(),
            load,
        }
    }

    /// The next request and when it is due; `None` when time or requests are used up.
    fn take(&self) -> Option<(usize, Option<Instant>)> {
        let number = self.next.get();
        self.next.set(number + 1);
        let due =
            self.load.pace.map(|rate| self.start + Duration::from_secs_f64(number as f64 / rate));
        if due.unwrap_or_else(Instant::now) >= self.end {
            return None;
        }
        let count = self.load.requests.len();
        match self.load.order {
            Order::Once => (number < count).then_some((number, due)),
            Order::Random => Some(((self.random() % count as u64) as usize, due)),
        }
    }

    /// Xorshift: good enough to spread, and nothing beside a request.
    fn random(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        x
    }

    fn record(&self, index: usize, from: Instant, answer: Answer) {
        let now = Instant::now();
        self.last.set(now);
        let mut outcome = self.outcome.borrow_mut();
        if answer.is_good() {
            let latency_us = u32::try_from((now - from).as_micros()).unwrap_or(u32::MAX);
            outcome.done.push(Done { index, latency_us, at_us: micros() });
        } else {
            *outcome.refused.entry(answer.status).or_default() += 1;
        }
    }

    /// The time runs to the last answer: all that were sent are counted.
    fn outcome(self) -> Outcome {
        let elapsed = self.last.get() - self.start;
        Outcome { elapsed, ..self.outcome.into_inner() }
    }
}

/// Sends one request after the other. The timer is a millisecond coarse: who slept until his turn
/// is measured from his waking, who was late from when it was due.
async fn client(state: Rc<State>, mut wire: Wire) -> io::Result<()> {
    while let Some((index, due)) = state.take() {
        let mut from = Instant::now();
        if let Some(due) = due {
            if due > from {
                tokio::time::sleep_until(due.into()).await;
                from = Instant::now();
            } else {
                from = due;
            }
        }
        let request = state.load.requests.get(index);
        let mut answer = wire.exchange(request, state.key_at, state.random()).await?;
        if let Some(follow) = state.load.follow
            && answer.is_good()
        {
            let mut second = Requests::default();
            follow(request, wire.body(answer), &mut second)
                .ok_or_else(|| io::Error::other("an answer without what must follow"))?;
            answer = wire.exchange(second.get(0), None, 0).await?;
        }
        state.record(index, from, answer);
    }
    Ok(())
}

fn micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
