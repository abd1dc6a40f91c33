-- Which payment a customer's Idempotency-Key of a purchase stands for. Several keys may stand for
-- one payment: a second wish of the same kind is answered with the first one's.
create table purchase_keys (
    customer_id    uuid        not null references customers (customer_id),
    principal      text        not null,
    key            text        not null check (length(key) between 1 and 300),
    payment_id     uuid        not null,
    request_sha256 bytea       not null check (length(request_sha256) = 32),
    created_at     timestamptz not null,

    primary key (customer_id, principal, key),
    foreign key (customer_id, payment_id) references payments (customer_id, id)
);
comment on table purchase_keys is 'Idempotency keys of purchases; the payment''s id is the key at the gateway.';
comment on column purchase_keys.key is 'The route, a colon, and the caller''s key.';
comment on column purchase_keys.request_sha256 is 'A key that comes back with another request is refused.';
