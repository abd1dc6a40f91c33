with account as (
    select * from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[],
                         $6::bigint[], $7::integer[], $8::bigint[], $9::bytea[],
                         $10::timestamptz[], $11::timestamptz[])
        as t (customer_id, version, balance, debt, held, used, open_holds, last_seq, last_digest,
              next_due_at, top_up_since)
),
-- Whatever was booked or changed since an account was loaded has made a new version of its row.
unchanged as (
    select a.customer_id
    from token_accounts a
    join account t on t.customer_id = a.customer_id
    where a.xmin::text::bigint = t.version
    order by a.customer_id
    for no key update of a skip locked
),
updated as (
    update token_accounts a
    set balance = t.balance, debt = t.debt, held = t.held, used = t.used,
        open_holds = t.open_holds, last_seq = t.last_seq, last_digest = t.last_digest,
        next_due_at = t.next_due_at, top_up_since = t.top_up_since, updated_at = $12
    from unchanged u
    join account t on t.customer_id = u.customer_id
    where a.customer_id = u.customer_id
    returning a.customer_id
),
entered as (
    insert into ledger_entries
        (customer_id, seq, id, kind, tokens, debt, used, balance_after, available_after,
         principal, operation_key, request_digest, lot_ids, lot_tokens, subscription_id,
         description, metadata, created_at, held, used_after, hold_id, hold_after,
         content_digest, digest)
    -- The lots of all entries lie in two long arrays; each entry takes its slice of them.
    select t.customer_id, t.seq, t.id, t.kind::entry_kind, t.tokens, t.debt, t.used,
           t.balance_after, t.available_after, t.principal, t.operation_key, t.request_digest,
           ($28::uuid[])[t.lots_from:t.lots_to], ($29::bigint[])[t.lots_from:t.lots_to],
           t.subscription_id, t.description, t.metadata, t.created_at, t.held, t.used_after,
           t.hold_id, t.hold_after, t.content_digest, t.digest
    from unnest($13::uuid[], $14::bigint[], $15::uuid[], $16::text[], $17::bigint[],
                $18::bigint[], $19::bigint[], $20::bigint[], $21::bigint[], $22::text[],
                $23::text[], $24::bytea[], $25::uuid[], $26::text[], $27::jsonb[],
                $30::timestamptz[], $31::integer[], $32::integer[], $33::bigint[],
                $34::bigint[], $35::uuid[], $36::jsonb[], $37::bytea[], $38::bytea[])
        as t (customer_id, seq, id, kind, tokens, debt, used, balance_after, available_after,
              principal, operation_key, request_digest, subscription_id, description,
              metadata, created_at, lots_from, lots_to, held, used_after, hold_id,
              hold_after, content_digest, digest)
    join unchanged u on u.customer_id = t.customer_id
),
drawn as (
    update grants g
    set remaining = t.remaining, is_used_up = t.remaining = 0, held = t.held,
        overdue = t.overdue, adjusted = t.adjusted, expired_tokens = t.expired,
        is_opened = t.is_opened, expires_at = t.expires_at
    from unnest($39::uuid[], $40::uuid[], $41::bigint[], $42::bigint[], $43::bigint[],
                $44::bigint[], $45::bigint[], $46::boolean[], $47::timestamptz[])
        as t (customer_id, id, remaining, held, overdue, adjusted, expired, is_opened,
              expires_at)
    join unchanged u on u.customer_id = t.customer_id
    where g.customer_id = t.customer_id
      and g.id = t.id
    returning g.id
)
select customer_id as "customer_id: CustomerId", (select count(*) from drawn) as "lots!"
from updated
