//! The keyed chain over each account's entries: what was changed afterwards is found. Pure.
//!
//! An entry's digest is an HMAC over its fields and the digest before it. Its description and
//! metadata stand in it by a digest of their own, so that personal data can be erased.

use std::sync::OnceLock;

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::ledger::Entry;
use crate::ids::CustomerId;

/// Tells this use of the key, and this order of fields, from any other.
const DOMAIN: &[u8] = b"tollgate.ledger.1";

/// Same for anchors.
const ANCHOR_DOMAIN: &[u8] = b"tollgate.anchor.1";

/// The key of an installation's ledger.
#[derive(Clone)]
pub(super) struct LedgerKey(Hmac<Sha256>);

impl std::fmt::Debug for LedgerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LedgerKey")
    }
}

/// Entries are made in many operations that join a caller's transaction, all under one key for the
/// life of the process.
static KEY: OnceLock<(LedgerKey, [u8; 32])> = OnceLock::new();

/// Two keys for one ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("LEDGER_KEY is another one than before in this process")]
pub struct OtherKey;

/// Says by which key this process signs entries. It cannot be changed while it runs.
pub fn use_key(secret: &SecretString) -> Result<(), OtherKey> {
    let bytes = secret.expose_secret().as_bytes();
    let fingerprint: [u8; 32] = Sha256::digest(bytes).into();
    let (_, first) = KEY.get_or_init(|| (LedgerKey::new(bytes), fingerprint));
    if *first == fingerprint { Ok(()) } else { Err(OtherKey) }
}

/// The key of this process.
pub(super) fn key() -> &'static LedgerKey {
    &KEY.get().expect("App::new names the ledger's key").0
}

/// An entry's digests under this process's key: of its content, and of its link in the chain, which
/// follows the link `previous` (empty: it is the first).
///
/// For who writes entries in bulk; all others get theirs when they are saved.
pub fn link(previous: &[u8], customer_id: CustomerId, entry: &Entry) -> ([u8; 32], [u8; 32]) {
    let content = content_digest(&entry.description, &entry.metadata);
    (content, key().digest(previous, customer_id, entry, &content))
}

impl LedgerKey {
    fn new(bytes: &[u8]) -> Self {
        Self(Hmac::new_from_slice(bytes).expect("HMAC takes keys of any length"))
    }

    /// The digest of an entry that follows the one of digest `previous` (empty: it is the first).
    pub(super) fn digest(
        &self,
        previous: &[u8],
        customer_id: CustomerId,
        entry: &Entry,
        content: &[u8],
    ) -> [u8; 32] {
        let mut mac = Fields(self.0.clone());
        mac.field(DOMAIN);
        mac.field(previous);
        mac.field(customer_id.uuid().as_bytes());
        mac.number(entry.seq);
        mac.field(entry.kind.as_str().as_bytes());
        mac.number(entry.tokens);
        mac.number(entry.debt);
        mac.number(entry.held);
        mac.number(entry.used.to_db());
        mac.number(entry.balance_after.to_db());
        mac.field(entry.principal.as_bytes());
        mac.field(entry.operation_key.as_bytes());
        let ids: Vec<u8> = entry.lots.iter().flat_map(|part| *part.lot.uuid().as_bytes()).collect();
        mac.field(&ids);
        let tokens: Vec<u8> =
            entry.lots.iter().flat_map(|part| part.tokens.to_db().to_be_bytes()).collect();
        mac.field(&tokens);
        mac.number(entry.created_at.timestamp_micros());
        // What a repeated request is answered stands in the chain as well.
        mac.field(entry.id.uuid().as_bytes());
        mac.field(&entry.request_digest);
        mac.number(entry.used_after.to_db());
        mac.number(entry.available_after.to_db());
        match entry.subscription_id {
            Some(id) => mac.field(id.uuid().as_bytes()),
            None => mac.field(b""),
        }
        match &entry.hold {
            Some(hold) => mac.field(serde_json::json!(hold).to_string().as_bytes()),
            None => mac.field(b""),
        }
        mac.field(content);
        mac.0.finalize().into_bytes().into()
    }

    /// The digest of an anchor: of the one before, its day, and the heads that moved since.
    pub(super) fn anchor(&self, previous: &[u8], day: &str) -> Anchor {
        let mut mac = Fields(self.0.clone());
        mac.field(ANCHOR_DOMAIN);
        mac.field(previous);
        mac.field(day.as_bytes());
        Anchor(mac)
    }
}

/// An anchor's digest while heads are added to it, in the order of their customers.
pub(super) struct Anchor(Fields);

impl Anchor {
    /// Adds where an account's chain stands.
    pub(super) fn head(&mut self, customer_id: CustomerId, seq: i64, digest: &[u8]) {
        self.0.field(customer_id.uuid().as_bytes());
        self.0.number(seq);
        self.0.field(digest);
    }

    /// The digest over all.
    pub(super) fn finish(self) -> [u8; 32] {
        self.0.0.finalize().into_bytes().into()
    }
}

/// Fields with their lengths before them, so that no two lists of fields read alike.
struct Fields(Hmac<Sha256>);

impl Fields {
    fn field(&mut self, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).expect("a field is far below 4 GiB");
        self.0.update(&length.to_be_bytes());
        self.0.update(bytes);
    }

    fn number(&mut self, number: i64) {
        self.field(&number.to_be_bytes());
    }
}

/// SHA-256 of what the caller wrote: description and metadata.
pub(super) fn content_digest(description: &str, metadata: &Value) -> [u8; 32] {
    let mut text = String::new();
    canonical(metadata, &mut text);
    let mut hash = Sha256::new();
    let length = u64::try_from(description.len()).expect("a length fits");
    hash.update(length.to_be_bytes());
    hash.update(description.as_bytes());
    hash.update(text.as_bytes());
    hash.finalize().into()
}

/// JSON that reads the same after a `jsonb` column kept it: keys sorted, no spaces, a number
/// without a fraction as an integer.
fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => text.push_str(&value.to_string()),
        Value::Number(number) => text.push_str(&canonical_number(number)),
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                canonical(item, text);
            }
            text.push(']');
        }
        Value::Object(members) => {
            text.push('{');
            // Postgres orders keys in its own way; here the bytes decide.
            let mut keys: Vec<&String> = members.keys().collect();
            keys.sort();
            for (index, key) in keys.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Value::String(key.clone()).to_string());
                text.push(':');
                canonical(&members[key], text);
            }
            text.push('}');
        }
    }
}

fn canonical_number(number: &serde_json::Number) -> String {
    match number.as_f64().filter(|_| number.is_f64()) {
        // No difference between -0.0 and 0, which Postgres does not keep.
        Some(0.0) => "0".to_owned(),
        Some(float) if float.fract() == 0.0 => format!("{float:.0}"),
        Some(_) | None => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};
    use serde_json::json;

    use super::super::Tokens;
    use super::super::ledger::EntryKind;
    use super::super::lot::Allocation;
    use super::super::reserve::{HoldState, HoldStatus};
    use super::*;
    use crate::ids::{EntryId, GrantId, HoldId, SubscriptionId};

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn entry() -> Entry {
        Entry {
            seq: 7,
            id: EntryId::new(now()),
            kind: EntryKind::Consumed,
            tokens: -5,
            debt: 0,
            held: 0,
            used: Tokens(5),
            used_after: Tokens(12),
            balance_after: Tokens(88),
            available_after: Tokens(88),
            principal: "customer".to_owned(),
            operation_key: "consume:a".to_owned(),
            request_digest: Vec::new(),
            lots: vec![Allocation { lot: GrantId::new(now()), tokens: Tokens(5) }],
            hold: Some(HoldState {
                id: HoldId::new(now()),
                held: Tokens(1),
                settled: Tokens(5),
                expires_at: now(),
                status: HoldStatus::Open,
                short: None,
            }),
            subscription_id: None,
            description: "a call".to_owned(),
            metadata: json!({ "model": "large" }),
            created_at: now(),
        }
    }

    fn digest_of(entry: &Entry, previous: &[u8]) -> [u8; 32] {
        let content = content_digest(&entry.description, &entry.metadata);
        LedgerKey::new(b"key").digest(previous, CustomerId::of("1"), entry, &content)
    }

    #[test]
    fn every_field_counts() {
        let original = entry();
        let first = digest_of(&original, b"before");
        assert_eq!(first, digest_of(&original.clone(), b"before"));
        let changes: [fn(&mut Entry); 19] = [
            |it| it.seq = 8,
            |it| it.kind = EntryKind::Adjusted,
            |it| it.tokens = -6,
            |it| it.debt = 1,
            |it| it.held = -1,
            |it| it.used = Tokens(6),
            |it| it.balance_after = Tokens(87),
            |it| it.principal = "key:1".to_owned(),
            |it| it.operation_key = "consume:b".to_owned(),
            |it| it.lots[0].tokens = Tokens(4),
            |it| it.lots[0].lot = GrantId::new(now()),
            |it| it.created_at += chrono::Duration::microseconds(1),
            |it| it.description.push('!'),
            |it| it.id = EntryId::new(now()),
            |it| it.request_digest.push(1),
            |it| it.used_after = Tokens(13),
            |it| it.available_after = Tokens(87),
            |it| it.subscription_id = Some(SubscriptionId::new(now())),
            |it| it.hold.as_mut().unwrap().settled = Tokens(6),
        ];
        for change in changes {
            let mut other = original.clone();
            change(&mut other);
            assert_ne!(digest_of(&other, b"before"), first);
        }
        assert_ne!(digest_of(&original, b"other"), first);
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        let original = entry();
        let mut moved = original.clone();
        moved.principal = "custome".to_owned();
        moved.operation_key = "rconsume:a".to_owned();
        assert_ne!(digest_of(&moved, b""), digest_of(&original, b""));
    }

    #[test]
    fn numbers_read_the_same_after_a_database_kept_them() {
        let text = |value: Value| {
            let mut text = String::new();
            canonical(&value, &mut text);
            text
        };
        assert_eq!(text(json!(1e16)), text(json!(10_000_000_000_000_000_u64)));
        assert_eq!(text(json!(-0.0)), "0");
        assert_eq!(text(json!(100.0)), "100");
        assert_eq!(text(json!(0.1)), "0.1");
        assert_eq!(text(json!({ "b": [1, null], "a": "x\"" })), r#"{"a":"x\"","b":[1,null]}"#);
    }
}
