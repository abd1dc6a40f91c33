create type subscription_status as enum (
    'incomplete', 'trialing', 'active', 'past_due', 'paused', 'canceled', 'expired'
);

-- A right to successive periods; at most one that is live a customer.
create table subscriptions (
    customer_id          uuid                not null references customers (customer_id),
    id                   uuid                not null,
    plan_id              integer             not null,
    plan_version         integer             not null,
    status               subscription_status not null,
    starts_at            timestamptz         not null,
    ends_at              timestamptz,
    cancel_at_period_end boolean             not null default false,
    canceled_at          timestamptz,
    created_at           timestamptz         not null,
    updated_at           timestamptz         not null,

    primary key (customer_id, id),
    foreign key (plan_id, plan_version) references plan_versions (plan_id, version),
    check (ends_at > starts_at)
);
create unique index subscriptions_one_live on subscriptions (customer_id)
    where status in ('trialing', 'active', 'past_due', 'paused');
comment on table subscriptions is 'A right to successive periods; at most one live one a customer.';
comment on column subscriptions.ends_at is 'End of the last period paid for; null: never ends (a pack).';

-- What was paid for, one after the other without overlap.
create table periods (
    customer_id     uuid        not null,
    subscription_id uuid        not null,
    starts_at       timestamptz not null,
    ends_at         timestamptz not null,
    payment_id      uuid        not null,
    plan_id         integer     not null,
    plan_version    integer     not null,
    created_at      timestamptz not null,

    primary key (customer_id, subscription_id, starts_at),
    unique (customer_id, payment_id),
    foreign key (customer_id, subscription_id) references subscriptions (customer_id, id),
    foreign key (plan_id, plan_version) references plan_versions (plan_id, version),
    check (ends_at > starts_at)
);
comment on table periods is 'Paid periods [starts_at, ends_at) of a subscription.';
