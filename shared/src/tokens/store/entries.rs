//! SQL of ledger entries.

use chrono::{DateTime, Utc};
use futures_util::{Stream, TryStreamExt};
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::ids::{CustomerId, EntryId, GrantId, SubscriptionId};
use crate::tokens::ledger::{Account, Entry, EntryKind, Request};
use crate::tokens::lot::Allocation;
use crate::tokens::reserve::HoldState;
use crate::tokens::{Tokens, chain};

/// Selects entries `e`; the rest of the statement is the caller's.
macro_rules! select_entries {
    ($rest:literal $(, $argument:expr)*) => {
        sqlx::query_as!(
            EntryRow,
            r#"
            select e.customer_id as "customer_id: CustomerId", e.seq, e.id as "id: EntryId",
                   e.kind as "kind: EntryKind", e.tokens, e.debt, e.held, e.used, e.used_after,
                   e.balance_after, e.available_after, e.principal, e.operation_key,
                   e.request_digest, e.lot_ids, e.lot_tokens,
                   e.hold_after as "hold_after: Json<HoldState>",
                   e.subscription_id as "subscription_id: SubscriptionId", e.description, e.metadata,
                   e.created_at, e.content_digest, e.digest
            "# + $rest
            $(, $argument)*
        )
    };
}

/// The entries that were made under these principals and keys. Their accounts must be locked: then
/// what is not here was not made.
pub(in crate::tokens) async fn find<'a>(
    db: &mut PgConnection,
    asked: impl Iterator<Item = (CustomerId, &'a Request)>,
) -> sqlx::Result<Vec<(CustomerId, Entry)>> {
    let mut ids = Vec::new();
    let mut principals = Vec::new();
    let mut keys = Vec::new();
    for (customer_id, request) in asked {
        ids.push(customer_id.uuid());
        principals.push(request.principal.clone());
        keys.push(request.operation_key.clone());
    }
    let rows = select_entries!(
        r#"
        from unnest($1::uuid[], $2::text[], $3::text[]) as k (customer_id, principal, key)
        join ledger_entries e
          on e.customer_id = k.customer_id
         and e.principal = k.principal
         and e.operation_key = k.key
        "#,
        &ids,
        &principals,
        &keys
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.customer_id, row.into_stored().entry)).collect())
}

/// What was owed after that entry.
pub(in crate::tokens) async fn debt_after(
    db: &mut PgConnection,
    customer_id: CustomerId,
    seq: i64,
) -> sqlx::Result<Tokens> {
    let debt = sqlx::query_scalar!(
        r#"
        select coalesce(sum(debt), 0)::bigint as "debt!"
        from ledger_entries
        where customer_id = $1
          and seq <= $2
        "#,
        customer_id as _,
        seq,
    )
    .fetch_one(db)
    .await?;
    Ok(Tokens::from_db(debt))
}

/// An entry as it is stored.
struct EntryRow {
    customer_id: CustomerId,
    seq: i64,
    id: EntryId,
    kind: EntryKind,
    tokens: i64,
    debt: i64,
    held: i64,
    used: i64,
    used_after: i64,
    balance_after: i64,
    available_after: i64,
    principal: String,
    operation_key: String,
    request_digest: Vec<u8>,
    lot_ids: Vec<Uuid>,
    lot_tokens: Vec<i64>,
    hold_after: Option<Json<HoldState>>,
    subscription_id: Option<SubscriptionId>,
    description: String,
    metadata: Value,
    created_at: DateTime<Utc>,
    content_digest: Vec<u8>,
    digest: Vec<u8>,
}

/// An entry with what proves it.
pub(in crate::tokens) struct Stored {
    /// Whose.
    pub(in crate::tokens) customer_id: CustomerId,
    /// What it says.
    pub(in crate::tokens) entry: Entry,
    /// Digest of description and metadata as they were written.
    pub(in crate::tokens) content_digest: Vec<u8>,
    /// Its link of the chain.
    pub(in crate::tokens) digest: Vec<u8>,
}

impl EntryRow {
    fn into_stored(self) -> Stored {
        let parts = self.lot_ids.into_iter().zip(self.lot_tokens);
        let entry = Entry {
            seq: self.seq,
            id: self.id,
            kind: self.kind,
            tokens: self.tokens,
            debt: self.debt,
            held: self.held,
            used: Tokens::from_db(self.used),
            used_after: Tokens::from_db(self.used_after),
            balance_after: Tokens::from_db(self.balance_after),
            available_after: Tokens::from_db(self.available_after),
            principal: self.principal,
            operation_key: self.operation_key,
            request_digest: self.request_digest,
            lots: parts
                .map(|(lot, tokens)| Allocation {
                    lot: GrantId::from(lot),
                    tokens: Tokens::from_db(tokens),
                })
                .collect(),
            hold: self.hold_after.map(|hold| hold.0),
            subscription_id: self.subscription_id,
            description: self.description,
            metadata: self.metadata,
            created_at: self.created_at,
        };
        let Self { customer_id, content_digest, digest, .. } = self;
        Stored { customer_id, entry, content_digest, digest }
    }
}

/// All entries in the order of their chains; with `is_recent` only those above the account's
/// newest anchored head.
pub(in crate::tokens) fn all(
    db: &PgPool,
    is_recent: bool,
) -> impl Stream<Item = sqlx::Result<Stored>> + '_ {
    select_entries!(
        r#"
        from token_accounts a
        cross join lateral (
            select coalesce(max(seq), 0) as seq from ledger_heads h
            where $1 and h.customer_id = a.customer_id) h
        join ledger_entries e on e.customer_id = a.customer_id and e.seq > h.seq
        where not $1 or a.last_seq > h.seq
        order by e.customer_id, e.seq
        "#,
        is_recent
    )
    .fetch(db)
    .map_ok(EntryRow::into_stored)
}

/// An account's entries, in order.
pub(super) async fn of_account(
    db: &mut PgConnection,
    customer_id: CustomerId,
) -> sqlx::Result<Vec<Stored>> {
    let rows = select_entries!(
        "from ledger_entries e where e.customer_id = $1 order by e.seq",
        customer_id as _
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(EntryRow::into_stored).collect())
}

/// All entries, chained, and the digest with which each account's chain now ends.
pub(super) fn sealed(accounts: &[&Account]) -> (EntryColumns, Vec<Vec<u8>>) {
    let key = chain::key();
    let mut columns = EntryColumns::default();
    let mut heads = Vec::with_capacity(accounts.len());
    for account in accounts {
        let mut head = account.last_digest.clone();
        for entry in &account.entries {
            let content = chain::content_digest(&entry.description, &entry.metadata);
            head = key.digest(&head, account.customer_id, entry, &content).to_vec();
            columns.content_digests.push(content.to_vec());
            columns.chain.push(head.clone());
            columns.push(account.customer_id, entry);
        }
        heads.push(head);
    }
    (columns, heads)
}

/// Entries, column by column.
#[derive(Default)]
pub(super) struct EntryColumns {
    pub(super) customer_ids: Vec<Uuid>,
    pub(super) seqs: Vec<i64>,
    pub(super) ids: Vec<Uuid>,
    pub(super) kinds: Vec<String>,
    pub(super) tokens: Vec<i64>,
    pub(super) debts: Vec<i64>,
    pub(super) used: Vec<i64>,
    pub(super) balances: Vec<i64>,
    pub(super) available: Vec<i64>,
    pub(super) principals: Vec<String>,
    pub(super) keys: Vec<String>,
    pub(super) digests: Vec<Vec<u8>>,
    pub(super) subscriptions: Vec<Option<Uuid>>,
    pub(super) descriptions: Vec<String>,
    pub(super) metadata: Vec<Value>,
    pub(super) created_at: Vec<DateTime<Utc>>,
    pub(super) lot_ids: Vec<Uuid>,
    pub(super) lot_tokens: Vec<i64>,
    pub(super) lots_from: Vec<i32>,
    pub(super) lots_to: Vec<i32>,
    pub(super) held: Vec<i64>,
    pub(super) used_after: Vec<i64>,
    pub(super) holds: Vec<Option<Uuid>>,
    pub(super) holds_after: Vec<Option<Value>>,
    pub(super) content_digests: Vec<Vec<u8>>,
    pub(super) chain: Vec<Vec<u8>>,
}

impl EntryColumns {
    fn push(&mut self, customer_id: CustomerId, entry: &Entry) {
        self.customer_ids.push(customer_id.uuid());
        self.seqs.push(entry.seq);
        self.ids.push(entry.id.uuid());
        self.kinds.push(entry.kind.as_str().to_owned());
        self.tokens.push(entry.tokens);
        self.debts.push(entry.debt);
        self.used.push(entry.used.to_db());
        self.balances.push(entry.balance_after.to_db());
        self.available.push(entry.available_after.to_db());
        self.principals.push(entry.principal.clone());
        self.keys.push(entry.operation_key.clone());
        self.digests.push(entry.request_digest.clone());
        self.subscriptions.push(entry.subscription_id.map(SubscriptionId::uuid));
        self.descriptions.push(entry.description.clone());
        self.metadata.push(entry.metadata.clone());
        self.created_at.push(entry.created_at);
        let place = |lots: &[Uuid]| i32::try_from(lots.len()).expect("a batch is small");
        self.lots_from.push(place(&self.lot_ids) + 1);
        self.lot_ids.extend(entry.lots.iter().map(|part| part.lot.uuid()));
        self.lot_tokens.extend(entry.lots.iter().map(|part| part.tokens.to_db()));
        self.lots_to.push(place(&self.lot_ids));
        self.held.push(entry.held);
        self.used_after.push(entry.used_after.to_db());
        self.holds.push(entry.hold.as_ref().map(|hold| hold.id.uuid()));
        let after = entry.hold.as_ref().map(|hold| serde_json::json!(hold));
        self.holds_after.push(after);
    }
}
