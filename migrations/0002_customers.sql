-- The user as billing knows it.
create table customers (
    customer_id uuid        primary key,
    external_id text        not null check (length(external_id) between 1 and 255),
    email       text,
    name        text,
    created_at  timestamptz not null,
    updated_at  timestamptz not null
);
comment on table customers is 'The application''s users, as billing knows them.';
comment on column customers.customer_id is 'UUIDv5 of external_id: derived, never looked up.';
comment on column customers.external_id is 'The user''s id in the application, as text.';
