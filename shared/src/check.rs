//! The books' invariants, as SQL, and the ledger's chains: `tollgate check`.

use sqlx::PgPool;

use crate::error::Error;
use crate::tokens::{self, Depth};

/// One invariant and how many rows break it.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The invariant's name; it never changes.
    pub name: &'static str,
    /// What it says.
    pub promise: &'static str,
    /// Rows that break it; 0 is what is wanted.
    pub violations: i64,
    /// The first of them, by its ids.
    pub example: Option<String>,
}

struct Invariant {
    name: &'static str,
    promise: &'static str,
    /// Selects one text per row that breaks it.
    violations: &'static str,
    /// Whether it looks at accounts, lots, holds and entries one customer at a time, so that it
    /// may be checked of some customers alone.
    is_by_account: bool,
}

/// Statements of constant text, each selecting the rows that break it.
const INVARIANTS: &[Invariant] = &[
    Invariant {
        name: "balance_is_its_ledger",
        promise: "a balance and a debt equal the sums of their entries",
        violations: "select a.customer_id::text as row from token_accounts a
             left join (select customer_id, sum(tokens) as tokens, sum(debt) as debt,
                               max(seq) as seq, count(*) as n
                        from ledger_entries group by customer_id) e using (customer_id)
             where a.balance <> coalesce(e.tokens, 0)
                or a.debt <> coalesce(e.debt, 0) or a.debt < 0
                or a.last_seq <> coalesce(e.seq, 0) or a.last_seq <> coalesce(e.n, 0)",
        is_by_account: true,
    },
    Invariant {
        name: "balance_is_its_lots",
        promise: "a balance equals what is left of its opened lots",
        violations: "select a.customer_id::text as row from token_accounts a
             left join (select customer_id, sum(remaining) as rest from grants
                        where is_opened group by customer_id) g using (customer_id)
             where a.balance <> coalesce(g.rest, 0)",
        is_by_account: true,
    },
    Invariant {
        name: "running_balance",
        promise: "each entry's balance is that of the entry before plus its tokens, without gaps",
        violations: "select customer_id || ' ' || seq as row from (
                 select customer_id, seq, balance_after,
                        sum(tokens) over w as running, row_number() over w as n
                 from ledger_entries window w as (partition by customer_id order by seq)) e
             where balance_after <> running or seq <> n",
        is_by_account: true,
    },
    Invariant {
        name: "lot_is_its_entries",
        promise: "what is left of a lot is what was granted less what entries drew from it",
        violations: "select g.customer_id || ' ' || g.id as row from grants g
             left join (select e.customer_id, l.lot,
                               sum(case when e.tokens > 0 then l.tokens else -l.tokens end) as rest,
                               sum(l.tokens) filter (where e.kind = 'expired') as expired,
                               sum(l.tokens) filter (where e.kind in ('consumed', 'debt_repaid'))
                                   as spent,
                               sum(case when e.tokens > 0 then l.tokens else -l.tokens end)
                                   filter (where e.kind in ('adjusted', 'plan_change')) as adjusted
                        from ledger_entries e
                        cross join lateral unnest(e.lot_ids, e.lot_tokens) as l (lot, tokens)
                        group by 1, 2) d on d.customer_id = g.customer_id and d.lot = g.id
             where g.remaining <> g.tokens + g.adjusted - g.taken_free - g.expired_tokens
                                  - coalesce(d.spent, 0)
                or g.adjusted <> coalesce(d.adjusted, 0)
                or g.expired_tokens <> coalesce(d.expired, 0)
                or coalesce(d.rest, case when g.is_opened then -1 else 0 end)
                   <> case when g.is_opened then g.remaining else 0 end",
        is_by_account: true,
    },
    Invariant {
        name: "held_is_its_holds",
        promise: "what is held of an account and of its lots is what open holds reserve",
        violations: "select a.customer_id::text as row from token_accounts a
             left join (select customer_id, sum(held) as held from ledger_entries
                        group by 1) e using (customer_id)
             left join (select customer_id, sum(held) as held from grants
                        group by 1) g using (customer_id)
             left join (select customer_id, count(*) as n from holds where status = 'open'
                        group by 1) h using (customer_id)
             where a.held <> coalesce(e.held, 0) or a.held <> coalesce(g.held, 0)
                or a.open_holds <> coalesce(h.n, 0)
             union all
             select g.customer_id || ' ' || g.id from grants g
             left join (select h.customer_id, l.lot, sum(l.tokens) as tokens from holds h
                        cross join lateral unnest(h.lot_ids, h.lot_tokens) as l (lot, tokens)
                        group by 1, 2) h on h.customer_id = g.customer_id and h.lot = g.id
             where g.held <> coalesce(h.tokens, 0)",
        is_by_account: true,
    },
    Invariant {
        name: "held_has_a_reason",
        promise: "only holds and what is taken back change what is held",
        violations: "select customer_id || ' ' || seq as row from ledger_entries
             where not case
                 when kind = 'held' then held >= 0
                 when kind in ('released', 'taken_back', 'plan_change') then held <= 0
                 when kind = 'consumed' then held <= 0 and (held = 0 or hold_id is not null)
                 else held = 0 end",
        is_by_account: true,
    },
    Invariant {
        name: "used_is_its_entries",
        promise: "what was used in all is the sum of the entries, entry by entry",
        violations: "select customer_id || ' ' || seq as row from (
                 select customer_id, seq, used_after,
                        sum(used) over (partition by customer_id order by seq) as running
                 from ledger_entries) e
             where used_after <> running
             union all
             select a.customer_id::text from token_accounts a
             left join (select customer_id, sum(used) as used from ledger_entries
                        group by 1) e using (customer_id)
             where a.used <> coalesce(e.used, 0)",
        is_by_account: true,
    },
    Invariant {
        name: "taken_is_at_most_the_lot",
        promise: "of a lot no more was taken than was granted, and owed than was spent",
        violations: "select g.customer_id || ' ' || g.id as row from grants g
             where least(g.taken_free, g.taken_debt, g.expired_tokens) < 0
                or g.remaining + g.taken_free + g.taken_debt + g.expired_tokens
                   > g.tokens + g.adjusted
                or g.taken_free + g.taken_debt > g.taken or g.taken > g.tokens
                or (g.taken_free + g.taken_debt > 0) <> (g.taken_at is not null)",
        is_by_account: true,
    },
    Invariant {
        name: "debt_is_its_lots",
        promise: "what became debt of a lot is what entries say, less what was granted anew",
        violations: "select g.customer_id || ' ' || g.id as row from grants g
             left join (select e.customer_id, e.lot_ids[1] as lot, sum(e.debt) as debt
                        from ledger_entries e where e.kind in ('taken_back', 'given_back')
                        group by 1, 2) d on d.customer_id = g.customer_id and d.lot = g.id
             left join (select customer_id, source_id, sum(tokens) as tokens
                        from grants where source_kind = 'returned'
                        group by 1, 2) r on r.customer_id = g.customer_id and r.source_id = g.id
             where g.taken_debt <> coalesce(d.debt, 0) - coalesce(r.tokens, 0)",
        is_by_account: true,
    },
    Invariant {
        name: "returned_is_of_a_lot",
        promise: "a lot granted anew comes from another lot of the same customer",
        violations: "select g.customer_id || ' ' || g.id as row from grants g
             where g.source_kind = 'returned'
               and not exists (select from grants o
                   where o.customer_id = g.customer_id and o.id = g.source_id)",
        is_by_account: false,
    },
    Invariant {
        name: "debt_has_a_reason",
        promise: "only what is taken, given back or repaid changes a debt, and a repayment once",
        violations: "select customer_id || ' ' || seq as row from ledger_entries
             where not case
                 when kind = 'taken_back' then debt >= 0 and tokens <= 0
                 when kind = 'given_back' then debt <= 0 and tokens >= 0
                 when kind = 'debt_repaid' then debt = tokens and debt < 0
                 when kind = 'consumed' then debt >= 0 and (debt = 0 or hold_id is not null)
                                             and used = debt - tokens
                 when kind = 'plan_change' then debt >= 0 and tokens <= 0
                 when kind = 'debt_forgiven' then debt <= 0 and tokens = 0
                 else debt = 0 end",
        is_by_account: true,
    },
    Invariant {
        name: "entry_is_its_lots",
        promise: "an entry's tokens are those of the lots it names",
        violations: "select customer_id || ' ' || seq as row from ledger_entries
             where abs(tokens) <> (select coalesce(sum(t), 0) from unnest(lot_tokens) as t)",
        is_by_account: true,
    },
    Invariant {
        name: "paid_is_granted_once",
        promise: "each payment that bought something has exactly one lot of its plan's tokens",
        violations: "select p.customer_id || ' ' || p.id as row from payments p
             join plan_versions v on v.plan_id = p.plan_id and v.version = p.plan_version
             where p.subscription_id is not null
               and (select array_agg(g.tokens) from grants g
                    where g.customer_id = p.customer_id and g.source_kind = 'payment'
                      and g.source_id = p.id)
                   is distinct from array[v.tokens_included * p.quantity]",
        is_by_account: false,
    },
    Invariant {
        name: "paid_buys_unless_gone",
        promise: "a completed payment bought something, unless its money was gone before",
        violations: "select p.customer_id || ' ' || p.id as row from payments p
             where p.status = 'completed' and p.subscription_id is null
               and p.refunded_minor
                   + coalesce((select sum(d.amount_minor) from disputes d
                               where d.customer_id = p.customer_id and d.payment_id = p.id
                                 and d.stage = 'lost'), 0) < p.amount_minor",
        is_by_account: false,
    },
    Invariant {
        name: "refunded_is_its_refunds",
        promise: "what a payment says is refunded are the refunds of its capture that did not fail",
        violations: "select customer_id || ' ' || payment_id as row from payment_money
             where refunded_minor <> refunded or refunded > captured",
        is_by_account: false,
    },
    Invariant {
        name: "taken_is_entitled",
        promise: "a lot's tokens are taken by exactly the share of the money that is gone",
        violations: "select m.customer_id || ' ' || g.id as row from payment_money m
             join grants g on g.customer_id = m.customer_id and g.source_kind = 'payment'
              and g.source_id = m.payment_id
             where g.taken <> ceil(g.tokens::numeric
                     * least(m.captured, m.taking + least(m.lost, m.captured - m.refunded))
                     / m.captured)",
        is_by_account: false,
    },
    Invariant {
        name: "frozen_is_disputed",
        promise: "a lot is frozen exactly while a dispute of its payment is open",
        violations: "select m.customer_id || ' ' || g.id as row from payment_money m
             join grants g on g.customer_id = m.customer_id and g.source_kind = 'payment'
              and g.source_id = m.payment_id
             where (g.frozen_at is not null) <> m.is_disputed",
        is_by_account: false,
    },
    Invariant {
        name: "captured_too_often_is_refunded",
        promise: "every capture of one payment but one is refunded, or on its way",
        violations: "select o.customer_id || ' ' || o.payment_id as row from payment_objects o
             where o.captured_minor is not null
             group by o.customer_id, o.payment_id
             having count(*) - 1 > (
                 select count(distinct r.object_id) from refunds r
                 where r.customer_id = o.customer_id and r.payment_id = o.payment_id
                   and r.origin = 'automatic' and r.status <> 'failed')",
        is_by_account: false,
    },
    Invariant {
        name: "granted_is_paid",
        promise: "no lot comes from a payment that was not captured",
        violations: "select g.customer_id || ' ' || g.id as row from grants g
             left join payments p on p.customer_id = g.customer_id and p.id = g.source_id
             where g.source_kind = 'payment'
               and (p.completed_at is null or p.status not in ('completed', 'refunded'))",
        is_by_account: false,
    },
    Invariant {
        name: "captured_is_asked",
        promise: "a completed payment was captured over exactly its amount",
        violations: "select p.customer_id || ' ' || p.id as row from payments p
             where p.status = 'completed' and p.amount_minor > 0
               and not exists (select from payment_objects o
                   where o.customer_id = p.customer_id and o.payment_id = p.id
                     and o.captured_minor = p.amount_minor)",
        is_by_account: false,
    },
    Invariant {
        name: "periods_do_not_overlap",
        promise: "no two periods of a customer overlap",
        violations: "select a.customer_id || ' ' || a.payment_id as row from periods a
             join periods b on b.customer_id = a.customer_id and b.payment_id <> a.payment_id
              and b.starts_at < a.ends_at and a.starts_at < b.ends_at
             where a.voided_at is null and b.voided_at is null",
        is_by_account: false,
    },
    Invariant {
        name: "nothing_is_stuck",
        promise: "no event waits unprocessed for more than a minute",
        violations: "select id::text as row from webhook_events
             where status = 'received' and received_at < $1::timestamptz - interval '1 minute'",
        is_by_account: false,
    },
];

/// Leaves of the ledger only the accounts that moved since the newest anchor was made.
const RECENT: &str = "with token_accounts as (
         select * from public.token_accounts
         where updated_at >= coalesce((select max(created_at) from ledger_anchors),
                                      '-infinity')),
     ledger_entries as (
         select e.* from public.ledger_entries e join token_accounts using (customer_id)),
     grants as (select g.* from public.grants g join token_accounts using (customer_id)),
     holds as (select h.* from public.holds h join token_accounts using (customer_id)) ";

/// Runs every invariant and walks the ledger's chains; the database is only read.
///
/// [`Depth::Recent`] looks only at accounts that moved since the newest anchor, and at their
/// entries since then; what is not the ledger's is looked at in full.
pub async fn run(
    db: &PgPool,
    depth: Depth,
    now: chrono::DateTime<chrono::Utc>,
) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::with_capacity(INVARIANTS.len() + 1);
    for invariant in INVARIANTS {
        let only = if depth == Depth::Recent && invariant.is_by_account { RECENT } else { "" };
        let sql = format!(
            "{only} select count(*), min(row) from ({}) v where $1::timestamptz is not null",
            invariant.violations
        );
        let (violations, example): (i64, Option<String>) =
            sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(now).fetch_one(db).await?;
        findings.push(Finding {
            name: invariant.name,
            promise: invariant.promise,
            violations,
            example,
        });
    }
    let broken = tokens::verify(db, depth).await?;
    findings.push(Finding {
        name: "entries_are_as_written",
        promise: "each entry has the digest that it and the entries before it had when written",
        violations: i64::try_from(broken.len()).unwrap_or(i64::MAX),
        example: broken.first().map(ToString::to_string),
    });
    Ok(findings)
}
