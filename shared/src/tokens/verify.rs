//! Walking the chains: which entry is not what was written.

use std::pin::pin;

use futures_util::TryStreamExt;
use sqlx::PgPool;

use super::chain;
use super::store::{anchors, entries};
use crate::error::Error;
use crate::ids::CustomerId;

/// How much is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Every entry of every account, and every anchor.
    Full,
    /// What came after the newest anchor, and that anchor.
    Recent,
}

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// An entry was changed, or one before it was changed, put in or taken out.
    Entry {
        /// Whose.
        customer_id: CustomerId,
        /// Which.
        seq: i64,
        /// In what way.
        how: &'static str,
    },
    /// An account's row names another end than its entries have.
    End {
        /// Whose.
        customer_id: CustomerId,
        /// Where its row says that the chain ends.
        seq: i64,
    },
    /// An anchor, or a head under it, was changed.
    Anchor {
        /// Of which day.
        day: chrono::NaiveDate,
    },
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Entry { customer_id, seq, how } => {
                write!(f, "account {customer_id} entry {seq}: {how}")
            }
            Self::End { customer_id, seq } => {
                write!(f, "account {customer_id} entry {seq}: the account ends elsewhere")
            }
            Self::Anchor { day } => write!(f, "the anchor of {day}, or a head under it"),
        }
    }
}

/// Stops listing here: more would only repeat what is known.
const ENOUGH: usize = 1_000;

/// Compares every entry with its digest, each digest with the one before, and the ends of the
/// chains with accounts and anchors. Reads only; memory is constant.
pub async fn verify(db: &PgPool, depth: Depth) -> Result<Vec<Broken>, Error> {
    let mut broken = anchors_of(db, depth).await?;
    broken.extend(chains(db, depth).await?);
    let torn = anchors::torn(db).await?;
    broken.extend(
        torn.into_iter().map(|head| Broken::End { customer_id: head.customer_id, seq: head.seq }),
    );
    Ok(broken)
}

async fn anchors_of(db: &PgPool, depth: Depth) -> Result<Vec<Broken>, Error> {
    let newest = match depth {
        Depth::Full => i64::MAX,
        Depth::Recent => 2,
    };
    let days = anchors::days(db, newest).await?;
    let mut broken = Vec::new();
    let mut previous = Vec::new();
    for (index, anchored) in days.iter().enumerate() {
        let is_given = depth == Depth::Recent && index == 0 && days.len() == 2;
        let mut digest = chain::key().anchor(&previous, &anchored.day.to_string());
        let mut heads = pin!(anchors::of_day(db, anchored.day));
        while let Some(head) = heads.try_next().await? {
            digest.head(head.customer_id, head.seq, &head.digest);
        }
        if !is_given && digest.finish()[..] != anchored.digest {
            broken.push(Broken::Anchor { day: anchored.day });
        }
        previous.clone_from(&anchored.digest);
    }
    let mut lost = pin!(anchors::lost(db));
    while let Some(head) = lost.try_next().await? {
        let how = "an anchored entry is gone or another one";
        broken.push(Broken::Entry { customer_id: head.customer_id, seq: head.seq, how });
    }
    Ok(broken)
}

/// An account's chain while it is walked.
struct Walk {
    customer_id: CustomerId,
    seq: i64,
    digest: Vec<u8>,
}

async fn chains(db: &PgPool, depth: Depth) -> Result<Vec<Broken>, Error> {
    let mut broken = Vec::new();
    let mut walk: Option<Walk> = None;
    let mut all = pin!(entries::all(db, depth == Depth::Recent));
    while let Some(stored) = all.try_next().await? {
        let customer_id = stored.customer_id;
        let at = match walk.take().filter(|walk| walk.customer_id == customer_id) {
            Some(walk) => walk,
            None => start(db, depth, customer_id).await?,
        };
        if let Some(how) = wrong(&at, &stored) {
            broken.push(Broken::Entry { customer_id, seq: stored.entry.seq, how });
            if broken.len() >= ENOUGH {
                break;
            }
        }
        walk = Some(Walk { customer_id, seq: stored.entry.seq, digest: stored.digest });
    }
    Ok(broken)
}

async fn start(db: &PgPool, depth: Depth, customer_id: CustomerId) -> Result<Walk, Error> {
    let head = match depth {
        Depth::Full => None,
        Depth::Recent => anchors::newest(db, customer_id).await?,
    };
    let (seq, digest) = head.map_or((0, Vec::new()), |head| (head.seq, head.digest));
    Ok(Walk { customer_id, seq, digest })
}

/// What is wrong with an entry that should follow `before`.
fn wrong(before: &Walk, stored: &entries::Stored) -> Option<&'static str> {
    let entry = &stored.entry;
    if entry.seq != before.seq + 1 {
        return Some("entries before it are missing");
    }
    let key = chain::key();
    let digest = key.digest(&before.digest, stored.customer_id, entry, &stored.content_digest);
    if digest[..] != stored.digest {
        return Some("it is not what was written");
    }
    let is_erased = entry.description.is_empty() && entry.metadata == serde_json::json!({});
    let content = chain::content_digest(&entry.description, &entry.metadata);
    if !is_erased && content[..] != stored.content_digest {
        return Some("its description or metadata is not what was written");
    }
    None
}
