-- The balance of a customer and all that the hot path must know beside lots.
create table token_accounts (
    customer_id     uuid        primary key references customers (customer_id),
    balance         bigint      not null default 0 check (balance >= 0),
    debt            bigint      not null default 0 check (debt >= 0),
    last_seq        bigint      not null default 0 check (last_seq >= 0),
    next_due_at     timestamptz,
    subscription_id uuid,
    is_active       boolean     not null default false,
    spendable_until timestamptz,
    created_at      timestamptz not null,
    updated_at      timestamptz not null
) with (fillfactor = 70);
comment on table token_accounts is 'One row a customer: balance, and whether it may be spent.';
comment on column token_accounts.next_due_at is 'When a lot opens or expires next; whoever locks the row later books it first.';
comment on column token_accounts.subscription_id is 'The subscription whose terms hold; null: none was ever opened.';
comment on column token_accounts.spendable_until is 'End of access to lots that expire; null: no limit.';

create type grant_source as enum ('payment');

-- Tokens given to a customer from one source; drawn by priority, soonest expiry, age.
create table grants (
    customer_id uuid         not null references token_accounts (customer_id),
    id          uuid         not null,
    source_kind grant_source not null,
    source_id   uuid         not null,
    part        integer      not null default 0 check (part >= 0),
    priority    smallint     not null,
    tokens      bigint       not null check (tokens between 1 and 100000000000000),
    remaining   bigint       not null check (remaining between 0 and tokens),
    opens_at    timestamptz  not null,
    is_opened   boolean      not null,
    expires_at  timestamptz,
    created_at  timestamptz  not null,

    primary key (customer_id, id),
    -- One payment is delivered once, however often we are told of it.
    unique (customer_id, source_kind, source_id, part),
    check (expires_at > opens_at)
) with (fillfactor = 70);
create index grants_open on grants (customer_id, priority, expires_at, created_at)
    where remaining > 0;
comment on table grants is 'Lots of tokens: unique per source and part.';
comment on column grants.is_opened is 'False: paid ahead, outside the balance until opens_at is booked.';

create type entry_kind as enum ('granted', 'consumed', 'expired');

-- The ledger: one signed change of a balance a row, never edited.
create table ledger_entries (
    customer_id     uuid        not null references token_accounts (customer_id),
    seq             bigint      not null check (seq > 0),
    id              uuid        not null,
    kind            entry_kind  not null,
    tokens          bigint      not null,
    debt            bigint      not null default 0,
    used            bigint      not null default 0 check (used >= 0),
    balance_after   bigint      not null check (balance_after >= 0),
    principal       text        not null,
    operation_key   text        not null check (length(operation_key) between 1 and 300),
    request_digest  bytea       not null,
    lot_ids         uuid[]      not null,
    lot_tokens      bigint[]    not null,
    subscription_id uuid,
    available_after bigint      not null check (available_after >= 0),
    description     text        not null default '' check (length(description) <= 255),
    metadata        jsonb       not null default '{}',
    created_at      timestamptz not null,

    primary key (customer_id, seq),
    unique (customer_id, principal, operation_key),
    check (cardinality(lot_ids) = cardinality(lot_tokens))
);
create index ledger_entries_usage on ledger_entries (customer_id, created_at desc, seq desc)
    where kind = 'consumed';
comment on table ledger_entries is 'Append-only; seq is gapless per account and is the order.';
comment on column ledger_entries.tokens is 'Change of the balance.';
comment on column ledger_entries.used is 'Tokens consumed, for statistics.';
comment on column ledger_entries.operation_key is 'Route and the caller''s key: one effect per account, principal and key.';
comment on column ledger_entries.request_digest is 'SHA-256 of what was asked, to tell a repeat from another request under the same key.';
comment on column ledger_entries.available_after is 'What was free to spend after the entry, for a replayed answer.';
