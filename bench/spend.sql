-- One spend as one statement: balance where it suffices, and a row that says so.
\set account random(1, :accounts)
with spent as (
    update bench_accounts
    set balance = balance - 1
    where id = :account
      and balance >= 1
    returning id
)
insert into bench_usage (account_id, tokens, created_at)
select id, 1, now()
from spent;
