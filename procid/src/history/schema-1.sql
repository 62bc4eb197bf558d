-- procid's history, schema version 1. What each table holds, and what is
-- promised of it: docs/HISTORY.md.
--
-- Times are nanoseconds since boot; runs.clock (of starts of processes:
-- runs.first_clock) is added to make them nanoseconds since 1970. IPv4
-- addresses are signed 32-bit numbers, IPv6 addresses blobs of 16 bytes. 64-bit
-- numbers without sign are kept as signed ones of the same bits. Text of
-- processes is escaped as in records.

CREATE TABLE runs (
  id INTEGER PRIMARY KEY,
  name TEXT,                      -- agent.ephemeral_id
  agent TEXT,                     -- agent.id
  version TEXT NOT NULL,
  host TEXT,
  host_id TEXT,
  boot BLOB NOT NULL,
  keeps_args INTEGER NOT NULL,
  backend TEXT NOT NULL,
  uncovered TEXT NOT NULL,        -- JSON: [{"path", "reason"}]
  first_flow INTEGER NOT NULL,    -- flows.id: its own begin here
  since INTEGER NOT NULL,         -- its hooks were attached
  seen INTEGER NOT NULL,          -- the last batch was written
  ended INTEGER,                  -- a clean stop
  first_clock INTEGER NOT NULL,
  clock INTEGER NOT NULL
);

CREATE TABLE programs (
  id INTEGER PRIMARY KEY,
  path TEXT,
  dev INTEGER,                    -- major << 20 | minor
  inode INTEGER,
  fs INTEGER NOT NULL,            -- super_block.s_magic
  sha256 BLOB,
  grade TEXT NOT NULL,
  reason TEXT,
  script TEXT,
  script_dev INTEGER,
  script_inode INTEGER,
  script_sha256 BLOB,
  script_grade TEXT,
  script_reason TEXT
);
CREATE INDEX programs_path ON programs (path);
CREATE INDEX programs_sha256 ON programs (sha256);

CREATE TABLE images (
  id INTEGER PRIMARY KEY,
  run INTEGER NOT NULL,
  pid INTEGER NOT NULL,
  start INTEGER NOT NULL,
  exec INTEGER NOT NULL,
  entity BLOB NOT NULL,
  parent INTEGER,                 -- images.id
  previous INTEGER,
  root INTEGER,                   -- a fork: the image whose exec loaded it
  program INTEGER,                -- NULL: the image itself was not seen
  args TEXT,                      -- JSON; NULL with a root: the root's
  flags INTEGER NOT NULL,
  actor INTEGER,
  born INTEGER NOT NULL,
  ended INTEGER,
  status INTEGER,                 -- as wait(2) reports it
  snapshot INTEGER NOT NULL,      -- 1: found running
  sequence INTEGER
);
CREATE INDEX images_pid ON images (pid, start);
CREATE INDEX images_program ON images (program);
CREATE INDEX images_parent ON images (parent);

-- Who a task was at an act.
CREATE TABLE actors (
  id INTEGER PRIMARY KEY,
  image INTEGER,                  -- NULL: the kernel, or not known
  euid INTEGER NOT NULL,
  egid INTEGER NOT NULL,
  uid INTEGER NOT NULL,
  gid INTEGER NOT NULL,
  loginuid INTEGER,
  sessionid INTEGER,
  tid INTEGER NOT NULL,
  vpid INTEGER NOT NULL,
  comm TEXT NOT NULL,
  cgroup INTEGER NOT NULL,
  container INTEGER,              -- 0: in none; NULL: not known
  netns INTEGER NOT NULL,
  mntns INTEGER NOT NULL
);
CREATE INDEX actors_image ON actors (image);
CREATE INDEX actors_euid ON actors (euid);
CREATE INDEX actors_container ON actors (container) WHERE container > 0;

CREATE TABLE containers (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL
);

CREATE TABLE kinds (
  id INTEGER PRIMARY KEY,
  family INTEGER NOT NULL,
  type INTEGER NOT NULL,
  protocol INTEGER NOT NULL,
  netns INTEGER NOT NULL,
  hook INTEGER NOT NULL,
  flags INTEGER NOT NULL,
  state INTEGER NOT NULL,
  snapshot INTEGER NOT NULL,
  is_use INTEGER NOT NULL         -- its beginning was not seen: a send was
);

CREATE TABLE addresses (
  id INTEGER PRIMARY KEY,
  address NOT NULL UNIQUE
);

CREATE TABLE judgements (
  id INTEGER PRIMARY KEY,
  verdict TEXT NOT NULL,
  generation INTEGER NOT NULL,
  rule_index INTEGER NOT NULL,
  rule TEXT,
  policy TEXT,                    -- SHA-256; NULL: another agent's
  audit_index INTEGER NOT NULL,
  audit TEXT,
  hash_unknown INTEGER NOT NULL
);

CREATE TABLE flows (
  id INTEGER PRIMARY KEY,
  run INTEGER NOT NULL,
  cookie INTEGER NOT NULL,
  flow INTEGER NOT NULL,
  actor INTEGER NOT NULL,
  creator INTEGER,                -- images.id: another image made the socket
  kind INTEGER NOT NULL,
  local INTEGER NOT NULL,         -- addresses.id
  local_port INTEGER NOT NULL,
  remote NOT NULL,
  remote_port INTEGER NOT NULL,
  wire,
  started INTEGER NOT NULL,
  duration INTEGER,               -- NULL: it had not ended
  marks INTEGER NOT NULL,         -- 1: the end is that of its last descriptor;
                                  -- 2: written late; 4: denied, or noted as such;
                                  -- 8: denied on a flow that went on, beside it
  sent INTEGER,
  received INTEGER,
  outcome INTEGER NOT NULL,       -- 0 or errno; below 0: docs/HISTORY.md
  judgement INTEGER,
  sequence INTEGER
);
-- Flows are written in the order of their start, those marked late aside, so
-- that an index that begins with a part of that order is written in one place.
CREATE INDEX flows_remote_port ON flows (id >> 15, remote_port);
CREATE INDEX flows_local_port ON flows (id >> 15, local_port);
CREATE INDEX flows_remote ON flows (id >> 15, remote, remote_port);
CREATE INDEX flows_actor ON flows (actor);
CREATE INDEX flows_long ON flows (id >> 15, started + duration)
  WHERE duration IS NULL OR duration > 2000000000;
CREATE INDEX flows_late ON flows (run, started) WHERE marks & 2;
CREATE INDEX flows_noted ON flows (id) WHERE marks & 4;
CREATE INDEX flows_creator ON flows (creator) WHERE creator IS NOT NULL;
CREATE INDEX flows_open ON flows (run, cookie, flow) WHERE duration IS NULL;

-- Images that hold a socket found open, oldest first, where there are several.
CREATE TABLE holders (
  flow INTEGER NOT NULL,
  place INTEGER NOT NULL,
  image INTEGER NOT NULL,
  PRIMARY KEY (flow, place)
) WITHOUT ROWID;
CREATE INDEX holders_image ON holders (image);

-- Further images that used a flow.
CREATE TABLE uses (
  id INTEGER PRIMARY KEY,
  flow INTEGER NOT NULL,          -- flows.id
  actor INTEGER NOT NULL,
  at INTEGER NOT NULL,
  flags INTEGER NOT NULL,
  hook INTEGER NOT NULL,
  sequence INTEGER
);
CREATE INDEX uses_flow ON uses (flow);
CREATE INDEX uses_actor ON uses (actor);

-- Changes of the policy, as records.
CREATE TABLE changes (
  id INTEGER PRIMARY KEY,
  run INTEGER NOT NULL,
  at INTEGER NOT NULL,
  record TEXT NOT NULL
);

-- What the run itself lost, as its loss records say.
CREATE TABLE losses (
  run INTEGER NOT NULL,
  at INTEGER NOT NULL,
  cause TEXT NOT NULL,
  count INTEGER NOT NULL
);

-- What was not written here; nanoseconds since 1970.
CREATE TABLE gaps (
  id INTEGER PRIMARY KEY,
  start INTEGER,
  stop INTEGER NOT NULL,
  count INTEGER,                  -- NULL: not known
  cause TEXT NOT NULL
);

-- What was removed for want of room, or for its age.
CREATE TABLE removed (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  flows INTEGER NOT NULL,
  images INTEGER NOT NULL,
  until INTEGER                   -- what ended before is missing; since 1970
);
INSERT INTO removed VALUES (1, 0, 0, NULL);
