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
