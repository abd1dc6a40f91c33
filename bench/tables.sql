-- What pgbench works on: plain tables, apart from the product's.
create table bench_accounts (
    id      integer primary key,
    balance bigint  not null check (balance >= 0)
) with (fillfactor = 70);
create table bench_usage (
    id         bigint      generated always as identity primary key,
    account_id integer     not null,
    tokens     bigint      not null,
    created_at timestamptz not null
);
create table bench_events (
    id               uuid        primary key,
    gateway_event_id text        not null unique,
    kind             text        not null,
    payload          bytea       not null,
    status           text        not null,
    received_at      timestamptz not null
);
create table bench_queue (
    id     uuid        primary key,
    key    text        not null unique,
    job    bytea       not null,
    status text        not null,
    run_at timestamptz not null
);
create index bench_queue_pending on bench_queue (run_at) where status = 'pending';
