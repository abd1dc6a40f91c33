-- What refunds and disputes did to a lot. New enum values are used only by code, never here: a
-- value cannot be used in the transaction that adds it.
alter type entry_kind add value 'taken_back';
alter type entry_kind add value 'given_back';
alter type entry_kind add value 'debt_repaid';
alter type grant_source add value 'returned';

-- Always: tokens = remaining + taken_free + expired_tokens + what was spent of the lot.
alter table grants
    add column taken          bigint      not null default 0,
    add column taken_free     bigint      not null default 0,
    add column taken_debt     bigint      not null default 0,
    add column expired_tokens bigint      not null default 0,
    add column taken_at       timestamptz,
    add column frozen_at      timestamptz;
comment on column grants.taken is 'How many of its tokens the payment''s facts take by now, in all; some of them may have expired before.';
comment on column grants.taken_free is 'Of those: what was taken out of remaining.';
comment on column grants.taken_debt is 'Of those: what had been spent and became debt.';
comment on column grants.expired_tokens is 'What was left at its end and burned.';
comment on column grants.taken_at is 'Since when tokens are away by the expiry''s reckoning; null: none are. Giving back moves the expiry by the time from here.';
comment on column grants.frozen_at is 'Since when an open dispute freezes it: not spendable, does not expire; null: it is not frozen.';
comment on column grants.source_id is 'The payment; of a returned lot the lot whose debt had been repaid already when it was undone.';
comment on column grants.expires_at is 'Moves when tokens are given back or a dispute ends.';

update grants g
set expired_tokens = e.tokens
from (select customer_id, lot, sum(t) as tokens
      from ledger_entries
      cross join lateral unnest(lot_ids, lot_tokens) as l (lot, t)
      where kind = 'expired'
      group by customer_id, lot) e
where e.customer_id = g.customer_id
  and e.lot = g.id;

alter table grants
    add constraint grants_counted_once check (
        taken_free >= 0 and taken_debt >= 0 and expired_tokens >= 0
        and remaining + taken_free + taken_debt + expired_tokens <= tokens),
    add constraint grants_taken_at_most check (
        taken_free + taken_debt <= taken and taken <= tokens);

comment on column ledger_entries.debt is 'Change of the account''s debt.';
comment on column ledger_entries.tokens is 'Change of the balance; 0 for debt alone, and for a lot paid ahead, which is outside the balance.';
comment on column token_accounts.debt is 'Tokens owed after a refund or lost dispute of what was spent; the next lot to open repays it.';
