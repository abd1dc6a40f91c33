-- Tokens set aside, and what the ledger must say of them. New enum values are used only by code.
alter type entry_kind add value 'held';
alter type entry_kind add value 'released';
alter type entry_kind add value 'adjusted';
alter type entry_kind add value 'plan_change';
alter type entry_kind add value 'debt_forgiven';
alter type grant_source add value 'trial';
alter type grant_source add value 'admin';
alter type grant_source add value 'import';

create type hold_status as enum ('open', 'settled', 'released', 'expired');
create type hold_rule as enum ('release', 'settle_reported');

create table holds (
    customer_id uuid        not null references token_accounts (customer_id),
    id          uuid        not null,
    principal   text        not null check (length(principal) between 1 and 64),
    status      hold_status not null,
    on_expiry   hold_rule   not null,
    lot_ids     uuid[]      not null,
    lot_tokens  bigint[]    not null,
    settled     bigint      not null default 0 check (settled >= 0),
    reported    bigint      not null default 0 check (reported >= 0),
    description text        not null default '' check (length(description) <= 255),
    metadata    jsonb       not null default '{}',
    expires_at  timestamptz not null,
    created_at  timestamptz not null,
    updated_at  timestamptz not null,

    primary key (customer_id, id),
    check (cardinality(lot_ids) = cardinality(lot_tokens)),
    check (status = 'open' or cardinality(lot_ids) = 0)
) with (fillfactor = 70);
create index holds_open on holds (customer_id) where status = 'open';
comment on table holds is 'Tokens set aside for work that runs: settled bit by bit, released, or ended by their rule.';
comment on column holds.principal is 'Who made it: only he, or an admin, may go on with it.';
comment on column holds.lot_ids is 'The lots still reserved, in the order in which they are drawn.';
comment on column holds.lot_tokens is 'How many of each.';
comment on column holds.settled is 'Spent through it so far, cumulative; debt included.';
comment on column holds.reported is 'The largest total that was reported, settled at expiry by rule settle_reported.';

-- Used up lots leave the index by a flag of their own: an index over remaining would make every
-- spend write to all indexes of the table.
alter table grants
    add column is_used_up   boolean       not null default false,
    add column held         bigint        not null default 0 check (held >= 0),
    add column overdue      bigint        not null default 0,
    add column adjusted     bigint        not null default 0,
    add column rollover     plan_rollover not null default 'none',
    add column rollover_cap bigint        check (rollover_cap between 1 and 1000000000000);
update grants set is_used_up = true where remaining = 0;
drop index grants_open;
create index grants_open on grants (customer_id) where not is_used_up;
alter table grants
    drop constraint grants_counted_once,
    drop constraint grants_check,
    add constraint grants_counted_once check (
        remaining >= 0 and taken_free >= 0 and taken_debt >= 0 and expired_tokens >= 0
        and remaining + taken_free + taken_debt + expired_tokens <= tokens + adjusted),
    add constraint grants_held_of_rest check (held <= remaining),
    add constraint grants_overdue_of_held check (overdue between 0 and held),
    add constraint grants_used_up check (not is_used_up or remaining = 0),
    add constraint grants_rollover check ((rollover = 'capped') = (rollover_cap is not null));
comment on column grants.is_used_up is 'Nothing is left; true only where remaining is 0.';
comment on column grants.held is 'Of what remains: reserved by open holds.';
comment on column grants.overdue is 'Of what is held: past its end or above the rollover''s cap, burned when it is released.';
comment on column grants.adjusted is 'By operators and changes of plan: added, or below 0 taken away.';
comment on column grants.rollover is 'What becomes of the rest where a next period opens at its end.';

alter table token_accounts
    add column held             bigint  not null default 0 check (held >= 0),
    add column used             bigint  not null default 0 check (used >= 0),
    add column open_holds       integer not null default 0 check (open_holds >= 0),
    add column last_digest      bytea   not null default '',
    add column paused_until     timestamptz,
    add column overdraft_tokens bigint  not null default 0 check (overdraft_tokens >= 0),
    add column low_at           bigint  check (low_at > 0),
    add column top_up_at        bigint  check (top_up_at > 0),
    add column top_up_since     timestamptz,
    add constraint token_accounts_held_of_balance check (held <= balance);
create index token_accounts_due on token_accounts (next_due_at) where next_due_at is not null;
create index token_accounts_top_up on token_accounts (top_up_since) where top_up_since is not null;
comment on column token_accounts.held is 'Of the balance: reserved by open holds.';
comment on column token_accounts.used is 'Tokens consumed in all, for statistics.';
comment on column token_accounts.last_digest is 'Digest of the newest entry: the head of the chain; empty before the first.';
comment on column token_accounts.paused_until is 'Nothing may be spent before; null: not paused.';
comment on column token_accounts.overdraft_tokens is 'Most debt that a running hold may run into.';
comment on column token_accounts.low_at is 'A spend that leaves at most so many is an event; null: none.';
comment on column token_accounts.top_up_at is 'A spend that leaves at most so many asks for a top-up; null: off.';
comment on column token_accounts.top_up_since is 'Since when a top-up is asked for; null: none is.';

alter table ledger_entries
    add column held           bigint not null default 0,
    add column used_after     bigint not null default 0,
    add column hold_id        uuid,
    add column hold_after     jsonb,
    add column content_digest bytea  not null default '',
    add column digest         bytea  not null default '';
comment on column ledger_entries.held is 'Change of what is held.';
comment on column ledger_entries.used_after is 'Tokens consumed in all after the entry: what was used between two entries is the difference.';
comment on column ledger_entries.hold_id is 'The hold it belongs to.';
comment on column ledger_entries.hold_after is 'The hold after it, for a replayed answer.';
comment on column ledger_entries.content_digest is 'SHA-256 of description and metadata, which stay provable when they are erased.';
comment on column ledger_entries.digest is 'HMAC of the entry and of the digest before it: the chain.';
update ledger_entries e set used_after = t.total
from (select customer_id, seq, sum(used) over (partition by customer_id order by seq) as total
      from ledger_entries) t
where t.customer_id = e.customer_id and t.seq = e.seq;
update token_accounts a set used = t.total
from (select customer_id, sum(used) as total from ledger_entries group by 1) t
where t.customer_id = a.customer_id;

-- Once a day the heads of all accounts that moved are put under one digest, chained to the last:
-- what is cut off an account's end is then missed.
create table ledger_anchors (
    day        date        primary key,
    heads      bigint      not null check (heads >= 0),
    digest     bytea       not null,
    created_at timestamptz not null
);
comment on table ledger_anchors is 'One a day: HMAC over the anchor before and the heads that moved since.';

create table ledger_heads (
    customer_id uuid   not null references token_accounts (customer_id),
    day         date   not null,
    seq         bigint not null,
    digest      bytea  not null,
    primary key (customer_id, day)
);
create index ledger_heads_day on ledger_heads (day, customer_id);
comment on table ledger_heads is 'Where an account''s chain stood when the day was anchored.';
