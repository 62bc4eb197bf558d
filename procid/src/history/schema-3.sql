-- procid's history, what schema version 3 changes.

-- Images are found by their names.
CREATE INDEX images_entity ON images (entity);

-- What network address translation makes of a flow's ends, as the socket of
-- this host has them; of a flow that is not translated, there is no row.
CREATE TABLE translations (
  flow INTEGER PRIMARY KEY,       -- flows.id
  grade TEXT NOT NULL,            -- exact, inferred; ambiguous: the ends are NULL
  local,                          -- as in addresses; NULL: as it is
  local_port INTEGER,
  remote,
  remote_port INTEGER
);
CREATE INDEX translations_local_port ON translations (flow >> 15, local_port);
CREATE INDEX translations_remote ON translations (flow >> 15, remote, remote_port);

-- A row for each flow whose destination a DNS answer had named.
CREATE TABLE domains (
  flow INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  asked_by INTEGER,               -- images.id; NULL: not known
  at INTEGER NOT NULL,            -- when the answer came
  others TEXT                     -- further names, one a line; NULL: none
);
CREATE INDEX domains_asked_by ON domains (asked_by) WHERE asked_by IS NOT NULL;
