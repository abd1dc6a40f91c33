-- Entries of before the chain are put under it once, by the first migrate that can.
alter table installation add column ledger_sealed_at timestamptz;
comment on column installation.ledger_sealed_at is 'When entries older than the chain were put under it; once.';
