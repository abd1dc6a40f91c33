-- One webhook as most store it: the event and the job that will act on it, in one transaction.
\set event random(1, 9000000000000000000)
begin;
insert into bench_events (id, gateway_event_id, kind, payload, status, received_at)
values (gen_random_uuid(), 'evt_' || :event, 'payment_intent.created',
        convert_to(repeat('x', 1500), 'UTF8'), 'received', now());
insert into bench_queue (id, key, job, status, run_at)
values (gen_random_uuid(), 'event:' || :event, convert_to('{"event":' || :event || '}', 'UTF8'),
        'pending', now());
end;
