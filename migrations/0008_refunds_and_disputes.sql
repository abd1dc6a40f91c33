create type object_form as enum ('intent', 'hosted_page');
create type refund_status as enum ('pending', 'succeeded', 'failed');
create type refund_choice as enum ('proportional', 'unused_only', 'none');
create type refund_origin as enum ('operator', 'gateway', 'automatic');
create type dispute_kind as enum ('dispute', 'reversal');
create type dispute_stage as enum ('inquiry', 'inquiry_closed', 'open', 'lost', 'won');

alter table payments
    add column refunded_minor   bigint      not null default 0 check (refunded_minor >= 0),
    add column object_form      object_form not null default 'intent',
    add column object_attempt   integer     not null default 0 check (object_attempt >= 0),
    add column gateway_customer text,
    add column charged_method   text,
    add column failure_code     text,
    add column cancelled_at     timestamptz,
    add column refunds_late     boolean     not null default false,
    add column next_check_at    timestamptz,
    add column checks           integer     not null default 0,
    add column visited_at       timestamptz;
comment on column payments.visited_at is 'When a browser without a token last made us ask the gateway (wall clock): at most once in 5 s.';
create index payments_to_check on payments (next_check_at) where next_check_at is not null;
comment on column payments.refunded_minor is 'Sum of refunds that did not fail, kept for lists.';
comment on column payments.object_attempt is 'Number of the newest gateway object, from 0: part of its idempotency key.';
comment on column payments.gateway_customer is 'The gateway''s record of the customer the object is opened for; fixed, so that a repeat asks the same.';
comment on column payments.charged_method is 'The saved method that is charged while the customer is away.';
comment on column payments.refunds_late is 'LATE_CAPTURE as it was set when the payment was made: a capture after its cancellation is always refunded.';
comment on column payments.next_check_at is 'When the gateway is asked next; null: nothing is expected of it.';
comment on column payments.completed_at is 'When the money was booked as arrived, whether or not it bought anything.';

alter table payment_objects
    add column failure_code    text,
    add column capture_attempt integer not null default 0 check (capture_attempt >= 0);
drop index payment_objects_to_capture;
create index payment_objects_to_capture on payment_objects (approved_at)
    where approved_at is not null and captured_at is null and not is_voided and not is_processing;
comment on column payment_objects.approved_at is 'PayPal: since when the capture is ours to make; a declined capture ends it until the buyer approves again.';
comment on column payment_objects.capture_attempt is 'PayPal: captures of this order that were definitely declined; part of the next one''s key.';

-- Money sent back, whoever asked for it; one row a refund.
create table refunds (
    customer_id       uuid          not null,
    id                uuid          not null,
    payment_id        uuid          not null,
    gateway           gateway_name  not null,
    object_id         text          not null,
    gateway_refund_id text,
    amount_minor      bigint        not null check (amount_minor > 0),
    choice            refund_choice not null,
    origin            refund_origin not null,
    status            refund_status not null,
    failure_code      text,
    reason            text          not null default '' check (length(reason) <= 500),
    requested_by      text          not null,
    attempts          integer       not null default 0,
    next_attempt_at   timestamptz,
    created_at        timestamptz   not null,
    updated_at        timestamptz   not null,

    primary key (customer_id, id),
    unique (customer_id, gateway, gateway_refund_id),
    foreign key (customer_id, payment_id) references payments (customer_id, id)
);
create index refunds_of_payment on refunds (customer_id, payment_id);
create index refunds_due on refunds (next_attempt_at) where next_attempt_at is not null;
comment on table refunds is 'Refunds of ours, of the gateway''s dashboard, and of captures too many.';
comment on column refunds.object_id is 'The gateway object whose money is sent back.';
comment on column refunds.gateway_refund_id is 'Null until the gateway answered; our own id is its idempotency key.';
comment on column refunds.choice is 'What becomes of the tokens.';
comment on column refunds.next_attempt_at is 'When the gateway is asked (again); null: it has given its last answer.';

-- A payer's bank contests a capture; one row a dispute or reversal.
create table disputes (
    customer_id        uuid          not null,
    id                 uuid          not null,
    payment_id         uuid          not null,
    gateway            gateway_name  not null,
    object_id          text          not null,
    gateway_dispute_id text          not null,
    kind               dispute_kind  not null,
    amount_minor       bigint        not null check (amount_minor > 0),
    stage              dispute_stage not null,
    reason             text,
    created_at         timestamptz   not null,
    updated_at         timestamptz   not null,

    primary key (customer_id, id),
    unique (customer_id, gateway, gateway_dispute_id),
    foreign key (customer_id, payment_id) references payments (customer_id, id)
);
create index disputes_of_payment on disputes (customer_id, payment_id);
comment on table disputes is 'Disputes and reversals; a reversal counts only where no dispute tells of the same capture.';

-- A refunded or lost payment's period is voided; what is paid behind it moves up.
alter table periods add column voided_at timestamptz;
alter table periods drop constraint periods_pkey;
alter table periods drop constraint periods_customer_id_payment_id_key;
alter table periods add primary key (customer_id, payment_id);
create index periods_of_subscription on periods (customer_id, subscription_id, starts_at)
    where voided_at is null;
comment on column periods.voided_at is 'When its payment was refunded or lost; what was left of it then is given back if the money returns.';
alter table subscriptions drop constraint subscriptions_check;
alter table subscriptions add constraint subscriptions_check check (ends_at >= starts_at);

-- The money of each payment as its rows add up to it, for `tollgate check` and for operators; the
-- business itself reckons in Rust.
create view payment_money as
select p.customer_id, p.id as payment_id, p.refunded_minor, o.captured_minor as captured,
       coalesce(r.refunded, 0) as refunded, coalesce(r.taking, 0) as taking,
       coalesce(case when d.is_told then d.by_dispute
                     else greatest(d.by_dispute, d.by_reversal) end, 0) as lost,
       coalesce(d.is_disputed, false) as is_disputed
from payments p
cross join lateral (
    select object_id, captured_minor
    from payment_objects
    where customer_id = p.customer_id
      and payment_id = p.id
      and captured_minor is not null
    order by exists (select from refunds a
                     where a.customer_id = p.customer_id and a.payment_id = p.id
                       and a.object_id = payment_objects.object_id and a.origin = 'automatic'),
             captured_at, object_id
    limit 1
) o
left join lateral (
    select sum(amount_minor) as refunded,
           sum(amount_minor) filter (where choice <> 'none') as taking
    from refunds
    where customer_id = p.customer_id
      and payment_id = p.id
      and object_id = o.object_id
      and status <> 'failed'
) r on true
left join lateral (
    select coalesce(sum(amount_minor) filter (where kind = 'dispute' and stage = 'lost'), 0)
               as by_dispute,
           coalesce(sum(amount_minor) filter (where kind = 'reversal' and stage = 'lost'), 0)
               as by_reversal,
           bool_or(kind = 'dispute' and stage in ('open', 'won')) as is_told,
           bool_or(stage = 'open') as is_disputed
    from disputes
    where customer_id = p.customer_id
      and payment_id = p.id
      and object_id = o.object_id
) d on true;
comment on view payment_money is 'Captured, refunded and lost money of each captured payment.';

-- For operators and the worker, who have a payment's id and no customer's; for reconciliation; and
-- for the events that need a person.
create index payments_by_id on payments (id);
create index payments_changed on payments (updated_at);
create index webhook_events_for_people on webhook_events (status, id)
    where status in ('waiting', 'quarantined', 'failed');
