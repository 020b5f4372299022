-- A sum over each row of the journal, so that a damaged one is refused. Rows of before have none.
alter table facts add column sum text;
-- Under which epoch the newest wish was told: an older coordinator's does not replace a newer one's.
alter table beside add column wish_epoch integer not null default 0;
