//! One transaction for what many callers want at the same time.
//!
//! A writer takes what waits in a bounded queue and waits for nothing more: alone, a caller pays
//! one transaction as before; under load the batches grow by themselves.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;

use crate::error::Error;

/// What a writer does with the items that it took.
pub trait Committer: Send + 'static {
    /// What a caller wants.
    type Item: Send + Sync + 'static;
    /// What the caller is told once it is committed.
    type Verdict: Send + 'static;

    /// Commits the items in one transaction, all or none; the verdicts stand in their order.
    ///
    /// After an error or a panic it is called again with each item alone, so what it keeps between
    /// calls (a connection) must be good or gone by then. A refusal of one item that leaves the
    /// others alone is a verdict, not an error.
    fn commit(
        &mut self,
        items: &[Self::Item],
    ) -> impl Future<Output = Result<Vec<Self::Verdict>, Error>> + Send;
}

/// How much may wait, go together, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Items that may wait; one more is refused at once.
    pub capacity: usize,
    /// Most items of a transaction.
    pub largest_batch: usize,
    /// Longest that a caller waits, in the queue and for the commit.
    pub patience: Duration,
}

/// Handle to the writers of one kind; clones share them. They end with the last handle.
pub struct Coalescer<C: Committer> {
    sender: mpsc::Sender<Waiting<C>>,
    patience: Duration,
}

type Reply<C> = oneshot::Sender<Result<<C as Committer>::Verdict, Error>>;

struct Waiting<C: Committer> {
    item: C::Item,
    reply: Reply<C>,
}

impl<C: Committer> Clone for Coalescer<C> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), patience: self.patience }
    }
}

impl<C: Committer> Coalescer<C> {
    /// Starts one task per writer on a common queue: while one commits, the next takes what came.
    pub fn start(writers: impl IntoIterator<Item = C>, settings: Settings) -> Self {
        let Settings { capacity, largest_batch, patience } = settings;
        let (sender, receiver) = mpsc::channel(capacity);
        let queue = Arc::new(Mutex::new(receiver));
        for writer in writers {
            tokio::spawn(write(writer, Arc::clone(&queue), largest_batch));
        }
        Self { sender, patience }
    }

    /// Hands an item in and returns its verdict once it is committed: see [`Pending::verdict`].
    pub async fn submit(&self, item: C::Item) -> Result<C::Verdict, Error> {
        self.enqueue(item)?.verdict().await
    }

    /// Puts an item behind what waits already; `Overloaded` at once where the queue is full.
    pub fn enqueue(&self, item: C::Item) -> Result<Pending<C>, Error> {
        let (reply, verdict) = oneshot::channel();
        self.sender.try_send(Waiting { item, reply }).map_err(|_| Error::Overloaded)?;
        Ok(Pending { verdict, until: Instant::now() + self.patience })
    }
}

/// An item that waits for its verdict. Who drops it in the queue has lost his place.
pub struct Pending<C: Committer> {
    verdict: oneshot::Receiver<Result<C::Verdict, Error>>,
    until: Instant,
}

impl<C: Committer> Pending<C> {
    /// Returns the verdict once the item is committed.
    ///
    /// `Overloaded` after the settings' patience. Who lost patience in the queue has lost his
    /// place: the item is not committed. During the commit nobody can tell, so an item must be
    /// repeatable.
    pub async fn verdict(self) -> Result<C::Verdict, Error> {
        match tokio::time::timeout_at(self.until, self.verdict).await {
            Ok(Ok(verdict)) => verdict,
            // Only a runtime that ends drops a writer.
            Ok(Err(_)) | Err(_) => Err(Error::Overloaded),
        }
    }
}

async fn write<C: Committer>(
    mut writer: C,
    queue: Arc<Mutex<mpsc::Receiver<Waiting<C>>>>,
    largest_batch: usize,
) {
    let mut waiting = Vec::with_capacity(largest_batch);
    while queue.lock().await.recv_many(&mut waiting, largest_batch).await > 0 {
        let (items, replies): (Vec<_>, Vec<_>) = waiting
            .drain(..)
            .filter(|waiting| !waiting.reply.is_closed())
            .map(|waiting| (waiting.item, waiting.reply))
            .unzip();
        if !items.is_empty() {
            serve(&mut writer, &items, replies).await;
        }
    }
}

/// Commits all together; where that fails, each alone, so that one never fails for another.
async fn serve<C: Committer>(writer: &mut C, items: &[C::Item], replies: Vec<Reply<C>>) {
    let error = match attempt(writer, items).await {
        Ok(verdicts) => {
            for (reply, verdict) in replies.into_iter().zip(verdicts) {
                tell::<C>(reply, Ok(verdict));
            }
            return;
        }
        Err(error) => error,
    };
    // Also where it was alone: its connection may have died while nothing was to do.
    tracing::warn!(%error, count = items.len(), "a transaction failed; each is tried alone");
    for (item, reply) in items.iter().zip(replies) {
        // An outage outlasts the callers' patience: then nobody is left to try for.
        if !reply.is_closed() {
            let alone = attempt(writer, std::slice::from_ref(item)).await;
            tell::<C>(reply, alone.map(|mut verdicts| verdicts.remove(0)));
        }
    }
}

/// One transaction. A panic ends it, not the writer.
async fn attempt<C: Committer>(
    writer: &mut C,
    items: &[C::Item],
) -> Result<Vec<C::Verdict>, Error> {
    let done = AssertUnwindSafe(writer.commit(items)).catch_unwind().await;
    let Ok(done) = done else {
        tracing::error!(count = items.len(), "a writer's transaction panicked");
        return Err(Error::Bug("a transaction of a writer panicked"));
    };
    let verdicts = done?;
    assert_eq!(verdicts.len(), items.len(), "every item has a verdict");
    Ok(verdicts)
}

fn tell<C: Committer>(reply: Reply<C>, verdict: Result<C::Verdict, Error>) {
    // Who lost patience during the commit has been answered already.
    let _gone = reply.send(verdict);
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as Lock;

    use super::*;

    /// Doubles numbers; odd ones fail, a seven panics. Each batch waits for a permit of the gate.
    struct Doubler {
        gate: Arc<tokio::sync::Semaphore>,
        batches: Arc<Lock<Vec<Vec<u32>>>>,
    }

    impl Committer for Doubler {
        type Item = u32;
        type Verdict = u32;

        async fn commit(&mut self, items: &[u32]) -> Result<Vec<u32>, Error> {
            self.gate.acquire().await.unwrap().forget();
            self.batches.lock().unwrap().push(items.to_vec());
            assert!(!items.contains(&7), "a seven");
            if items.iter().any(|item| item % 2 == 1) {
                return Err(Error::Conflict("odd".to_owned()));
            }
            Ok(items.iter().map(|item| item * 2).collect())
        }
    }

    struct World {
        queue: Coalescer<Doubler>,
        gate: Arc<tokio::sync::Semaphore>,
        batches: Arc<Lock<Vec<Vec<u32>>>>,
    }

    impl World {
        fn new(capacity: usize, patience: Duration) -> Self {
            let gate = Arc::new(tokio::sync::Semaphore::new(0));
            let batches = Arc::default();
            let writer = Doubler { gate: Arc::clone(&gate), batches: Arc::clone(&batches) };
            let settings = Settings { capacity, largest_batch: 4, patience };
            Self { queue: Coalescer::start([writer], settings), gate, batches }
        }

        /// Hands all in, in order, while the writer is busy with a first 0.
        async fn all(&self, items: &[u32]) -> Vec<Result<u32, Error>> {
            let mut tasks = Vec::new();
            for item in [0].iter().chain(items).copied() {
                let queue = self.queue.clone();
                tasks.push(tokio::spawn(async move { queue.submit(item).await }));
                tokio::task::yield_now().await;
            }
            self.gate.add_permits(100);
            let mut verdicts = Vec::new();
            for task in tasks {
                verdicts.push(task.await.unwrap());
            }
            verdicts.split_off(1)
        }

        fn batches(&self) -> Vec<Vec<u32>> {
            self.batches.lock().unwrap().clone()
        }
    }

    const LONG: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn what_waits_goes_together_and_each_is_told_his_own() {
        let world = World::new(100, LONG);
        let verdicts = world.all(&[2, 4, 6, 8, 10]).await;
        let verdicts: Vec<u32> = verdicts.into_iter().map(Result::unwrap).collect();
        assert_eq!(verdicts, [4, 8, 12, 16, 20]);
        assert_eq!(world.batches(), [vec![0], vec![2, 4, 6, 8], vec![10]]);
    }

    #[tokio::test]
    async fn one_that_fails_or_panics_fails_alone() {
        for bad in [3, 7] {
            let world = World::new(100, LONG);
            let verdicts = world.all(&[2, bad, 4]).await;
            assert!(matches!(verdicts[..], [Ok(4), Err(_), Ok(8)]), "{verdicts:?}");
            assert_eq!(world.queue.submit(6).await.unwrap(), 12, "the writer goes on");
        }
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let world = World::new(2, LONG);
        let verdicts = world.all(&[2, 4, 6, 8]).await;
        assert!(matches!(
            verdicts[..],
            [Ok(4), Ok(8), Err(Error::Overloaded), Err(Error::Overloaded)]
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn who_loses_patience_in_the_queue_loses_his_place() {
        let world = World::new(100, Duration::from_millis(20));
        let busy = tokio::spawn({
            let queue = world.queue.clone();
            async move { queue.submit(0).await }
        });
        tokio::task::yield_now().await;

        let refused = world.queue.submit(2).await;

        assert!(matches!(refused, Err(Error::Overloaded)));
        world.gate.add_permits(100);
        assert!(matches!(busy.await.unwrap(), Err(Error::Overloaded)));
        assert_eq!(world.queue.submit(4).await.unwrap(), 8);
        assert_eq!(world.batches(), [vec![0], vec![4]]);
    }
}
