-- Which installation this is: written by the first migrate, never changed.
create table installation (
    id            integer     primary key check (id = 1),
    environment   text        not null check (environment in ('production', 'development', 'test')),
    jwt_id_claim  text        not null,
    created_at    timestamptz not null
);
comment on table installation is 'One row: the environment and the JWT id claim this database was made for.';

create type plan_rollover as enum ('none', 'capped', 'all');

-- What is sold. Integer ids, because front ends of the replaced system send them.
create table plans (
    id          integer     primary key check (id > 0),
    name        text        not null check (length(name) between 1 and 100),
    description text        not null default '',
    version     integer     not null check (version > 0),
    is_active   boolean     not null default true,
    created_at  timestamptz not null,
    updated_at  timestamptz not null
);
comment on table plans is 'What is sold; the terms stand in plan_versions.';
comment on column plans.version is 'The version that is sold today.';

-- The terms of a plan. Never changed once written: payments refer to them as what was bought.
create table plan_versions (
    plan_id          integer       not null references plans (id),
    version          integer       not null check (version > 0),
    price_minor      bigint        not null check (price_minor between 0 and 999999999999),
    currency         text          not null check (currency ~ '^[A-Z]{3}$'),
    tokens_included  bigint        not null check (tokens_included between 1 and 1000000000000),
    duration_days    integer       check (duration_days between 1 and 36500),
    is_recurring     boolean       not null default false,
    trial_days       integer       not null default 0 check (trial_days between 0 and 365),
    trial_tokens     bigint        not null default 0 check (trial_tokens between 0 and 1000000000000),
    rollover         plan_rollover not null default 'none',
    rollover_cap     bigint        check (rollover_cap between 1 and 1000000000000),
    overdraft_tokens bigint        not null default 0 check (overdraft_tokens between 0 and 1000000000000),
    features         jsonb         not null default '[]',
    created_at       timestamptz   not null,

    primary key (plan_id, version),
    check (duration_days is not null or not is_recurring),
    check ((rollover = 'capped') = (rollover_cap is not null))
);
comment on table plan_versions is 'The terms of a plan; a change of price or tokens makes a new version.';
comment on column plan_versions.duration_days is 'Days of 24 h that one purchase lasts; null: a pack, which never ends.';
