-- What happened, in the words of the business: written in the transaction of what it tells.
-- Timeline, outbound webhooks, notices and monthly revenue read it.
create table events (
    customer_id    uuid        not null references customers (customer_id),
    id             uuid        not null,
    kind           text        not null check (length(kind) between 1 and 64),
    actor          text        not null check (length(actor) between 1 and 64),
    subject_id     uuid,
    before         jsonb       not null default '{}',
    after          jsonb       not null default '{}',
    mrr_minor      bigint      not null default 0,
    mrr_currency   text        check (mrr_currency ~ '^[A-Z]{3}$'),
    mrr_movement   text        check (mrr_movement in
                       ('new', 'expansion', 'contraction', 'churn', 'reactivation')),
    is_public      boolean     not null,
    is_fanned_out  boolean     not null default false,
    created_at     timestamptz not null,

    primary key (customer_id, id),
    check ((mrr_minor <> 0) = (mrr_movement is not null)),
    check (mrr_minor = 0 or mrr_currency is not null)
);
create index events_to_fan_out on events (created_at, id) where is_public and not is_fanned_out;
create index events_mrr on events (created_at) where mrr_minor <> 0;
comment on table events is 'Append-only; only is_fanned_out ever changes.';
comment on column events.kind is 'The word on the wire where it is public: payment.completed, tokens.low.';
comment on column events.actor is 'customer, key:<id>, system, gateway:<name>.';
comment on column events.subject_id is 'What it happened to: a payment, subscription, lot or hold.';
comment on column events.before is 'What it was before, as far as it changed.';
comment on column events.after is 'What it is now.';
comment on column events.mrr_minor is 'Change of monthly recurring revenue, in minor units; its sum over time is that revenue.';
comment on column events.is_public is 'Whether endpoints of the application may be told.';
comment on column events.is_fanned_out is 'Whether its deliveries were made; always false where it is not public.';
comment on column events.created_at is 'When it happened, by the clock of billing.';
