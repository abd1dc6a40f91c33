create type webhook_event_status as enum (
    'received', 'processed', 'ignored', 'waiting', 'quarantined', 'failed'
);

-- The inbox: what gateways told us, as they said it.
create table webhook_events (
    id               uuid                 primary key,
    gateway          gateway_name         not null,
    gateway_event_id text                 not null check (length(gateway_event_id) between 1 and 255),
    delivery_id      text,
    kind             text                 not null,
    payload          bytea                not null,
    status           webhook_event_status not null,
    attempts         integer              not null default 0,
    next_attempt_at  timestamptz          not null,
    last_error       text,
    received_at      timestamptz          not null,
    processed_at     timestamptz
);
create unique index webhook_events_once on webhook_events (gateway, gateway_event_id);
create unique index webhook_events_delivery_once on webhook_events (gateway, delivery_id)
    where delivery_id is not null;
create index webhook_events_due on webhook_events (next_attempt_at)
    where status in ('received', 'waiting');
comment on table webhook_events is 'Verified events; the row is committed before the gateway gets its 200.';
comment on column webhook_events.delivery_id is 'PayPal''s transmission id: one signature may bring in one body only.';
comment on column webhook_events.next_attempt_at is 'From when a sweep may ring the doorbell (again).';
