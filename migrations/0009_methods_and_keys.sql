-- The gateways' own records of our customers; a new one where the gateway deleted the last.
create table gateway_customers (
    customer_id         uuid         not null references customers (customer_id),
    gateway             gateway_name not null,
    attempt             integer      not null check (attempt >= 0),
    gateway_customer_id text,
    is_gone             boolean      not null default false,
    created_at          timestamptz  not null,

    primary key (customer_id, gateway, attempt)
);
comment on column gateway_customers.attempt is 'Part of the idempotency key of its creation.';
comment on column gateway_customers.gateway_customer_id is 'Null until the gateway answered.';

-- Payment methods that a gateway keeps for us: never a card number.
create table payment_methods (
    customer_id       uuid         not null references customers (customer_id),
    id                uuid         not null,
    gateway           gateway_name not null,
    gateway_method_id text         not null,
    gateway_customer  text,
    kind              text         not null,
    brand             text,
    last_four         text,
    expires_month     integer      check (expires_month between 1 and 12),
    expires_year      integer,
    created_at        timestamptz  not null,
    updated_at        timestamptz  not null,
    detached_at       timestamptz,

    primary key (customer_id, id),
    unique (customer_id, gateway, gateway_method_id)
);

create index payment_methods_unread on payment_methods (created_at) where kind = '' and detached_at is null;
comment on column payment_methods.kind is 'Empty until the gateway was asked for its details.';

-- Which customer owns which id of a gateway's records, setups and methods: unique over all.
create table gateway_owned (
    gateway     gateway_name not null,
    object_id   text         not null,
    customer_id uuid         not null,
    created_at  timestamptz  not null,

    primary key (gateway, object_id)
);
comment on table gateway_owned is 'Ids we stored or learned by our own reads, beside the payments'' own in gateway_objects.';

-- How far each gateway's list of events has been read.
create table gateway_cursors (
    gateway     gateway_name primary key,
    events_from timestamptz  not null,
    updated_at  timestamptz  not null
);

-- Keys of services that act for customers or operate; only a digest is stored.
create table api_keys (
    id            text        primary key check (id ~ '^[a-z0-9]{8}$'),
    name          text        not null check (length(name) between 1 and 100),
    secret_sha256 bytea       not null check (length(secret_sha256) = 32),
    scopes        text[]      not null,
    expires_at    timestamptz,
    revoked_at    timestamptz,
    created_at    timestamptz not null
);
comment on table api_keys is 'tgk_<id><secret>: the secret is random, so a plain SHA-256 is enough.';

-- What operators did. Append-only.
create table audit_log (
    id          uuid        primary key,
    actor       text        not null,
    action      text        not null,
    subject     text        not null,
    customer_id uuid,
    reason      text        not null default '',
    before      jsonb       not null default '{}',
    after       jsonb       not null default '{}',
    request_id  text,
    created_at  timestamptz not null
);
create index audit_log_of_customer on audit_log (customer_id, created_at);
