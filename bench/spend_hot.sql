-- As spend.sql, always of the same account.
\set account 1
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
