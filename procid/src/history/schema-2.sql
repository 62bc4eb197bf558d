-- procid's history, what schema version 2 changes: where somebody acted is more
-- than a container, and a user has a name.

CREATE TABLE places (
  id INTEGER PRIMARY KEY,
  path TEXT,                      -- of the cgroup; NULL: version 1 wrote it
  container TEXT,
  runtime TEXT,
  pod TEXT,                       -- its uid
  namespace TEXT,
  pod_name TEXT,
  unit TEXT
);
INSERT INTO places (id, container) SELECT id, name FROM containers;
INSERT INTO places (container) SELECT NULL WHERE EXISTS (SELECT 1 FROM actors WHERE container = 0);

DROP INDEX actors_container;
ALTER TABLE actors RENAME COLUMN container TO place; -- NULL: not known
UPDATE actors SET place = (SELECT max(id) FROM places) WHERE place = 0;
ALTER TABLE actors ADD COLUMN user TEXT;
CREATE INDEX actors_place ON actors (place);
DROP TABLE containers;
