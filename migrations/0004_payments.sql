create type payment_status as enum ('pending', 'completed', 'failed', 'cancelled', 'refunded');
create type payment_method as enum ('stripe', 'paypal', 'credit_card', 'bank_transfer', 'other');
create type gateway_name as enum ('stripe', 'paypal', 'manual');

-- Money asked of a customer, once.
create table payments (
    customer_id       uuid           not null references customers (customer_id),
    id                uuid           not null,
    plan_id           integer        not null,
    plan_version      integer        not null,
    quantity          integer        not null default 1 check (quantity between 1 and 100),
    amount_minor      bigint         not null check (amount_minor between 0 and 999999999999),
    currency          text           not null check (currency ~ '^[A-Z]{3}$'),
    method            payment_method not null,
    gateway           gateway_name   not null,
    status            payment_status not null,
    gateway_reference text,
    success_url       text,
    cancel_url        text,
    failure           text,
    subscription_id   uuid,
    completed_at      timestamptz,
    created_at        timestamptz    not null,
    updated_at        timestamptz    not null,

    primary key (customer_id, id),
    foreign key (plan_id, plan_version) references plan_versions (plan_id, version),
    foreign key (customer_id, subscription_id) references subscriptions (customer_id, id)
);
create index payments_newest on payments (customer_id, created_at desc, id desc);
comment on table payments is 'Money asked of a customer, once; the plan version is what was bought.';
comment on column payments.status is 'A pure function of payment_objects, kept for lists.';
comment on column payments.gateway_reference is 'The gateway''s id of the object the payer is sent to.';
comment on column payments.subscription_id is 'What the capture opened or extended.';

-- Facts a gateway told us, in absolute terms, one row per object of theirs that may pay a payment.
create table payment_objects (
    customer_id    uuid         not null,
    payment_id     uuid         not null,
    gateway        gateway_name not null,
    object_id      text         not null,
    captured_minor bigint       check (captured_minor >= 0),
    captured_at    timestamptz,
    capture_id     text,
    is_declined    boolean      not null default false,
    is_voided      boolean      not null default false,
    is_processing  boolean      not null default false,
    approved_at    timestamptz,
    failure        text,
    created_at     timestamptz  not null,
    updated_at     timestamptz  not null,

    primary key (customer_id, payment_id, gateway, object_id),
    foreign key (customer_id, payment_id) references payments (customer_id, id),
    check ((captured_minor is null) = (captured_at is null))
);
create index payment_objects_to_capture on payment_objects (approved_at)
    where approved_at is not null and captured_at is null
      and not is_voided and not is_declined and not is_processing;
comment on table payment_objects is 'Facts per gateway object (intent, order); the payment''s status follows from them.';
comment on column payment_objects.capture_id is 'Stripe''s charge or PayPal''s capture, by which refunds and disputes name it.';
comment on column payment_objects.approved_at is 'PayPal: the buyer approved, the capture is ours to make.';

-- Which payment owns which id of a gateway: unique over all customers.
create table gateway_objects (
    gateway     gateway_name not null,
    object_id   text         not null,
    customer_id uuid         not null,
    payment_id  uuid         not null,
    created_at  timestamptz  not null,

    primary key (gateway, object_id)
);
comment on table gateway_objects is 'Ids we stored or learned by our own reads; an id not here proves nothing.';
