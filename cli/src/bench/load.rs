//! Makes a large database: accounts, their lots and entries, as if all had been bought and spent.
//!
//! By COPY, table after table; the entries of an account stand together in their order, so that
//! what hangs on the entry before is at hand.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::Value;
use sha2::{Digest, Sha256};
use shared::clock::wall_now;
use shared::ids::{CustomerId, EntryId, GrantId, PaymentId, SubscriptionId};
use shared::money::Currency;
use shared::plans::{self, NewPlan};
use shared::tokens::{self, Allocation, Entry, EntryKind, Tokens};
use sqlx::PgConnection;
use sqlx::postgres::PgCopyIn;

use super::world;

type Failed = Box<dyn std::error::Error>;

/// Of each account's one lot: as many as a plan may grant.
const LOT_TOKENS: i64 = 1_000_000_000_000;

/// The entries are spread evenly over the time before now.
const HISTORY: chrono::Duration = chrono::Duration::days(90);

/// What to make.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    /// Customers, each with a pack that never ends.
    pub(super) accounts: u32,
    /// Entries of consumed tokens, spread evenly over the accounts.
    pub(super) entries: u64,
}

impl Wish {
    /// How many entries the account of that number has.
    fn entries_of(self, account: u32) -> u64 {
        let accounts = u64::from(self.accounts);
        self.entries / accounts + u64::from(u64::from(account) < self.entries % accounts)
    }
}

/// The application's id of a customer: of one length, so that requests are.
pub(super) fn user_id(account: u32) -> String {
    format!("bench{account:08}")
}

/// Fills a database that has the schema and none of these customers; how long it took.
pub(super) async fn load(url: &str, wish: Wish) -> Result<Duration, Failed> {
    let start = Instant::now();
    let plan_id = plan(url).await?;
    // As exact as the database keeps it: the chain covers it.
    let now = DateTime::from_timestamp_micros(wall_now().timestamp_micros()).ok_or("no time")?;
    // Not the pool's connections: a COPY may take longer than their statements.
    let mut db = world::connect(url).await?;
    let mut accounts: Vec<Account> =
        (0..wish.accounts).map(|n| Account::new(n, wish, now)).collect();
    copy_customers(&mut db, &accounts, plan_id).await?;
    copy_tokens(&mut db, &accounts).await?;
    copy_entries(&mut db, &mut accounts).await?;
    set_ends(&mut db, &accounts).await?;
    sqlx::raw_sql("vacuum analyze").execute(&mut db).await?;
    Ok(start.elapsed())
}

/// The pack that everybody bought, for nothing.
async fn plan(url: &str) -> Result<i32, Failed> {
    let app = world::app(url).await?;
    let pack = NewPlan {
        name: "Bench pack",
        description: "",
        price_minor: 0,
        currency: Currency::USD,
        tokens_included: Tokens(LOT_TOKENS.unsigned_abs()),
        duration_days: None,
        is_recurring: false,
    };
    Ok(plans::create(&app, &pack).await?)
}

/// One customer with everything that hangs on him.
struct Account {
    number: u32,
    customer: CustomerId,
    subscription: SubscriptionId,
    payment: PaymentId,
    lot: GrantId,
    since: DateTime<Utc>,
    until: DateTime<Utc>,
    entries: u64,
    used: i64,
    /// The link of its newest entry.
    digest: Vec<u8>,
}

impl Account {
    fn new(number: u32, wish: Wish, now: DateTime<Utc>) -> Self {
        let since = now - HISTORY;
        let entries = wish.entries_of(number);
        Self {
            number,
            customer: CustomerId::of(&user_id(number)),
            subscription: SubscriptionId::new(since),
            payment: PaymentId::new(since),
            lot: GrantId::new(since),
            since,
            until: now,
            entries,
            used: (0..entries).map(|index| spent(number, index)).sum(),
            digest: Vec::new(),
        }
    }

    /// Its first entry: the lot.
    fn granted(&self) -> Entry {
        Entry {
            seq: 1,
            id: EntryId::new(self.since),
            kind: EntryKind::Granted,
            tokens: LOT_TOKENS,
            debt: 0,
            held: 0,
            used: Tokens::ZERO,
            used_after: Tokens::ZERO,
            balance_after: Tokens(LOT_TOKENS.unsigned_abs()),
            available_after: Tokens(LOT_TOKENS.unsigned_abs()),
            principal: "system:grant".to_owned(),
            operation_key: format!("payment:{}:0", self.payment),
            request_digest: Sha256::digest(b"").to_vec(),
            lots: vec![Allocation { lot: self.lot, tokens: Tokens(LOT_TOKENS.unsigned_abs()) }],
            hold: None,
            subscription_id: Some(self.subscription),
            description: String::new(),
            metadata: Value::Object(serde_json::Map::new()),
            created_at: self.since,
        }
    }

    /// A later one: a spend, and what balance and use are after it.
    fn consumed(&self, index: u64, tokens: i64, (balance, used): (i64, i64)) -> Entry {
        let at = self.at(index);
        let number = index + 2;
        let balance = Tokens(balance.unsigned_abs());
        let spent = Tokens(tokens.unsigned_abs());
        Entry {
            seq: i64::try_from(number).unwrap_or(i64::MAX),
            id: EntryId::new(at),
            kind: EntryKind::Consumed,
            tokens: -tokens,
            used: spent,
            used_after: Tokens(used.unsigned_abs()),
            balance_after: balance,
            available_after: balance,
            principal: "customer".to_owned(),
            operation_key: format!("consume:bench-{number}"),
            request_digest: Sha256::digest(format!("[{tokens},\"\",{{}}]")).to_vec(),
            lots: vec![Allocation { lot: self.lot, tokens: spent }],
            created_at: at,
            ..self.granted()
        }
    }

    /// The instant of a spend.
    fn at(&self, index: u64) -> DateTime<Utc> {
        let share =
            HISTORY.num_milliseconds() / i64::try_from(self.entries + 1).unwrap_or(i64::MAX);
        self.since + chrono::Duration::milliseconds(share * i64::try_from(index + 1).unwrap_or(0))
    }
}

/// How many tokens a spend took, 1 … 100: mixed, and the same whenever it is asked.
fn spent(account: u32, index: u64) -> i64 {
    let mut x = (u64::from(account) << 32) ^ index ^ 0x9e37_79b9_7f4a_7c15;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    i64::try_from((x ^ (x >> 31)) % 100).unwrap_or(0) + 1
}

async fn copy_customers(
    db: &mut PgConnection,
    accounts: &[Account],
    plan_id: i32,
) -> Result<(), Failed> {
    let columns = "customers (customer_id, external_id, created_at, updated_at)";
    let mut rows = Rows::begin(db, columns).await?;
    for account in accounts {
        let Account { customer, since, .. } = account;
        let user = user_id(account.number);
        rows.add(format_args!("{customer}\t{user}\t{since}\t{since}")).await?;
    }
    rows.end().await?;
    let columns = "subscriptions (customer_id, id, plan_id, plan_version, status, starts_at,
                   created_at, updated_at)";
    let mut rows = Rows::begin(db, columns).await?;
    for Account { customer, subscription, since, .. } in accounts {
        rows.add(format_args!(
            "{customer}\t{subscription}\t{plan_id}\t1\tactive\t{since}\t{since}\t{since}"
        ))
        .await?;
    }
    rows.end().await?;
    let columns =
        "payments (customer_id, id, plan_id, plan_version, amount_minor, currency, method,
                   gateway, status, subscription_id, completed_at, created_at, updated_at)";
    let mut rows = Rows::begin(db, columns).await?;
    for Account { customer, payment, subscription, since, .. } in accounts {
        rows.add(format_args!(
            "{customer}\t{payment}\t{plan_id}\t1\t0\tUSD\tother\tmanual\tcompleted\t\
             {subscription}\t{since}\t{since}\t{since}"
        ))
        .await?;
    }
    rows.end().await
}

async fn copy_tokens(db: &mut PgConnection, accounts: &[Account]) -> Result<(), Failed> {
    let columns =
        "token_accounts (customer_id, balance, used, last_seq, subscription_id, is_active,
                   created_at, updated_at)";
    let mut rows = Rows::begin(db, columns).await?;
    for Account { customer, subscription, since, until, entries, used, .. } in accounts {
        let (balance, last_seq) = (LOT_TOKENS - used, entries + 1);
        rows.add(format_args!(
            "{customer}\t{balance}\t{used}\t{last_seq}\t{subscription}\tt\t{since}\t{until}"
        ))
        .await?;
    }
    rows.end().await?;
    let columns = "grants (customer_id, id, source_kind, source_id, priority, tokens, remaining,
                   opens_at, is_opened, created_at)";
    let mut rows = Rows::begin(db, columns).await?;
    for Account { customer, lot, payment, since, used, .. } in accounts {
        let rest = LOT_TOKENS - used;
        rows.add(format_args!(
            "{customer}\t{lot}\tpayment\t{payment}\t20\t{LOT_TOKENS}\t{rest}\t{since}\tt\t{since}"
        ))
        .await?;
    }
    rows.end().await
}

/// Names the end of each chain on its account, which had to be there first.
async fn set_ends(db: &mut PgConnection, accounts: &[Account]) -> Result<(), Failed> {
    sqlx::raw_sql("create temporary table ends (customer_id uuid, digest bytea)")
        .execute(&mut *db)
        .await?;
    let mut rows = Rows::begin(db, "ends (customer_id, digest)").await?;
    for Account { customer, digest, .. } in accounts {
        rows.add(format_args!("{customer}\t{}", hex(digest))).await?;
    }
    rows.end().await?;
    let set = "update token_accounts a set last_digest = e.digest from ends e
               where e.customer_id = a.customer_id";
    sqlx::raw_sql(set).execute(db).await?;
    Ok(())
}

/// Entries, an account after the other, in the order of their numbers.
async fn copy_entries(db: &mut PgConnection, accounts: &mut [Account]) -> Result<(), Failed> {
    let columns = "ledger_entries (customer_id, seq, id, kind, tokens, used, used_after,
                   balance_after, available_after, principal, operation_key, request_digest,
                   lot_ids, lot_tokens, subscription_id, created_at, content_digest, digest)";
    let mut rows = Rows::begin(db, columns).await?;
    for account in accounts {
        add_entry(&mut rows, account, &account.granted()).await?;
        let (mut balance, mut used) = (LOT_TOKENS, 0);
        for index in 0..account.entries {
            let tokens = spent(account.number, index);
            (balance, used) = (balance - tokens, used + tokens);
            let entry = account.consumed(index, tokens, (balance, used));
            add_entry(&mut rows, account, &entry).await?;
        }
    }
    rows.end().await
}

/// Adds the entry that follows the account's last.
async fn add_entry(
    rows: &mut Rows<'_>,
    account: &mut Account,
    entry: &Entry,
) -> Result<(), Failed> {
    let (content, digest) = tokens::link(&account.digest, account.customer, entry);
    account.digest = digest.to_vec();
    let Account { customer, subscription, lot, .. } = account;
    let Entry { seq, id, tokens, used, used_after, balance_after, created_at, .. } = entry;
    let (kind, principal, key) = (entry.kind.as_str(), &entry.principal, &entry.operation_key);
    let moved = tokens.abs();
    let (asked, content, digest) = (hex(&entry.request_digest), hex(&content), hex(&digest));
    rows.add(format_args!(
        "{customer}\t{seq}\t{id}\t{kind}\t{tokens}\t{used}\t{used_after}\t{balance_after}\t\
         {balance_after}\t{principal}\t{key}\t{asked}\t{{{lot}}}\t{{{moved}}}\t{subscription}\t\
         {created_at}\t{content}\t{digest}"
    ))
    .await
}

/// Bytes as COPY reads them.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(3 + 2 * bytes.len());
    text.push_str("\\\\x");
    for byte in bytes {
        write!(text, "{byte:02x}").expect("text grows");
    }
    text
}

/// Rows on their way into a table: tabs between the values, none of which needs an escape.
pub(super) struct Rows<'a> {
    copy: PgCopyIn<&'a mut PgConnection>,
    buffer: String,
}

/// Sent at once: large enough that sending costs nothing beside the rows.
const CHUNK_BYTES: usize = 256 * 1024;

impl<'a> Rows<'a> {
    /// Begins with the table's name and its columns in brackets.
    pub(super) async fn begin(db: &'a mut PgConnection, columns: &str) -> sqlx::Result<Self> {
        let copy = db.copy_in_raw(&format!("copy {columns} from stdin")).await?;
        Ok(Self { copy, buffer: String::with_capacity(CHUNK_BYTES + 4096) })
    }

    /// Adds a row.
    pub(super) async fn add(&mut self, row: std::fmt::Arguments<'_>) -> Result<(), Failed> {
        self.buffer.write_fmt(row)?;
        self.buffer.push('\n');
        if self.buffer.len() >= CHUNK_BYTES {
            self.copy.send(self.buffer.as_bytes()).await?;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Ends it; the rows are committed.
    pub(super) async fn end(mut self) -> Result<(), Failed> {
        self.copy.send(self.buffer.as_bytes()).await?;
        self.copy.finish().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_spread_evenly_and_none_is_lost() {
        let wish = Wish { accounts: 7, entries: 100 };
        let each: Vec<u64> = (0..7).map(|account| wish.entries_of(account)).collect();
        assert_eq!(each, [15, 15, 14, 14, 14, 14, 14]);
        assert_eq!(each.iter().sum::<u64>(), 100);
    }

    #[test]
    fn a_spend_is_the_same_whenever_it_is_asked_and_never_nothing() {
        for index in 0..1_000 {
            assert!((1..=100).contains(&spent(3, index)));
            assert_eq!(spent(3, index), spent(3, index));
        }
    }
}
