-- Packs that are bought by themselves when few tokens are left.
create type top_up_off as enum
    ('customer', 'declined', 'no_payment_method', 'plan_unavailable', 'price_changed');

-- What a customer wants bought for him, within which limits: one row a customer.
create table top_ups (
    customer_id          uuid        primary key references customers (customer_id),
    off_reason           top_up_off,
    off_at               timestamptz,
    threshold            bigint      not null check (threshold between 1 and 1000000000000),
    plan_id              integer     not null references plans (id),
    price_minor          bigint      not null check (price_minor between 1 and 999999999999),
    currency             text        not null check (currency ~ '^[A-Z]{3}$'),
    max_per_period       integer     not null check (max_per_period between 1 and 100),
    max_minor_per_period bigint      not null check (max_minor_per_period <= 999999999999),
    failures             integer     not null default 0 check (failures >= 0),
    looked_for           timestamptz,
    look_at              timestamptz,
    looks                integer     not null default 0,
    created_at           timestamptz not null,
    updated_at           timestamptz not null,

    check ((off_reason is null) = (off_at is null)),
    check (max_minor_per_period >= price_minor)
) with (fillfactor = 70);
comment on table top_ups is 'Auto top-up: the line stands on the account too, where spending reads it.';
comment on column top_ups.off_reason is 'Why nothing is bought; null: it is on.';
comment on column top_ups.price_minor is 'What the pack cost when the customer agreed; a dearer one is not bought.';
comment on column top_ups.failures is 'Failed payments in a row.';
comment on column top_ups.looked_for is 'The token_accounts.top_up_since that was looked at last: another one has lost its doorbell.';
comment on column top_ups.look_at is 'When to look again; null: there is nothing to wait for.';
comment on column top_ups.looks is 'How often it was looked at: tells one doorbell from the next.';

-- What was bought by itself: one payment for each time the line was reached.
create table top_up_orders (
    customer_id  uuid        not null references top_ups (customer_id),
    asked_at     timestamptz not null,
    payment_id   uuid        not null,
    method_id    uuid        not null,
    plan_id      integer     not null,
    plan_version integer     not null,
    amount_minor bigint      not null check (amount_minor > 0),
    currency     text        not null check (currency ~ '^[A-Z]{3}$'),
    is_paid      boolean,
    failure_code text,
    created_at   timestamptz not null,
    concluded_at timestamptz,

    -- However often it is asked, one gap is one payment.
    primary key (customer_id, asked_at),
    unique (customer_id, payment_id),
    foreign key (plan_id, plan_version) references plan_versions (plan_id, version),
    check ((is_paid is null) = (concluded_at is null)),
    check (failure_code is null or not is_paid)
);
-- At most one is pending.
create unique index top_up_orders_open on top_up_orders (customer_id) where concluded_at is null;
comment on table top_up_orders is 'Committed before the payment of that id is made and charged.';
comment on column top_up_orders.asked_at is 'The token_accounts.top_up_since that it answers, or when it was asked anew.';
comment on column top_up_orders.is_paid is 'Null until its payment has ended one way or the other.';
