-- What schema version 1 wrote. Never edited: procid reads it for as long as it
-- reads that version.
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

-- What people read. Times are ISO 8601 in UTC.

CREATE VIEW acts AS
SELECT id AS flow, NULL AS use, actor, started AS at, judgement, sequence FROM flows
UNION ALL
SELECT flow, id, actor, at, NULL, sequence FROM uses;

-- A row for each connection and image that opened, accepted or used it.
CREATE VIEW connections AS
SELECT
  strftime('%Y-%m-%dT%H:%M:%fZ', (t.at + r.clock) / 1e9, 'unixepoch') AS start,
  strftime('%Y-%m-%dT%H:%M:%fZ', (f.started + f.duration + r.clock) / 1e9, 'unixepoch') AS "end",
  CASE k.protocol
    WHEN 1 THEN 'icmp' WHEN 6 THEN 'tcp' WHEN 17 THEN 'udp' WHEN 33 THEN 'dccp'
    WHEN 58 THEN 'ipv6-icmp' WHEN 132 THEN 'sctp' WHEN 136 THEN 'udplite' WHEN 262 THEN 'tcp'
    ELSE k.protocol END AS transport,
  iif(k.flags & 256, f.remote_text, l.local_text) AS source,
  iif(k.flags & 256, f.remote_port, f.local_port) AS source_port,
  iif(k.flags & 256, l.local_text, f.remote_text) AS destination,
  iif(k.flags & 256, f.local_port, f.remote_port) AS destination_port,
  CASE
    WHEN t.use IS NOT NULL OR k.is_use THEN 'speaker'
    WHEN k.snapshot THEN NULL
    WHEN k.flags & 257 = 1 THEN 'opener'
    WHEN k.flags & 256 THEN 'acceptor'
    WHEN NOT k.flags & 64 THEN 'opener'
    WHEN f.creator IS NOT NULL THEN 'speaker'
    WHEN k.flags & 2 THEN NULL
    ELSE 'opener' END AS role,
  iif(k.snapshot AND t.use IS NULL, NULL, coalesce(j.verdict, 'allow')) AS verdict,
  j.rule,
  CASE f.outcome WHEN 0 THEN 'success' WHEN -1 THEN 'failure' WHEN -2 THEN 'denied'
    WHEN -4 THEN NULL ELSE iif(f.outcome > 0, 'failure', 'unknown') END AS outcome,
  iif(f.outcome > 0, f.outcome, NULL) AS errno,
  iif(k.flags & 256, f.received, f.sent) AS source_bytes,
  iif(k.flags & 256, f.sent, f.received) AS destination_bytes,
  i.pid,
  p.path AS executable,
  coalesce(i.args, o.args) AS args,
  lower(hex(p.sha256)) AS sha256,
  p.grade,
  iif(k.snapshot AND t.use IS NULL, NULL, a.euid) AS user,
  c.name AS container,
  lower(hex(i.entity)) AS entity_id,
  printf('%llu', f.cookie) || '.' || f.flow AS flow_id,
  iif(k.snapshot, 'snapshot', 'live') AS provenance,
  r.name AS run
FROM acts t
JOIN (
  SELECT *, CASE typeof(remote)
    WHEN 'integer' THEN (remote >> 24 & 255) || '.' || (remote >> 16 & 255) || '.'
      || (remote >> 8 & 255) || '.' || (remote & 255)
    ELSE lower(substr(hex(remote), 1, 4) || ':' || substr(hex(remote), 5, 4) || ':'
      || substr(hex(remote), 9, 4) || ':' || substr(hex(remote), 13, 4) || ':'
      || substr(hex(remote), 17, 4) || ':' || substr(hex(remote), 21, 4) || ':'
      || substr(hex(remote), 25, 4) || ':' || substr(hex(remote), 29, 4)) END AS remote_text
  FROM flows
) f ON f.id = t.flow
JOIN (
  SELECT id, CASE typeof(address)
    WHEN 'integer' THEN (address >> 24 & 255) || '.' || (address >> 16 & 255) || '.'
      || (address >> 8 & 255) || '.' || (address & 255)
    ELSE lower(substr(hex(address), 1, 4) || ':' || substr(hex(address), 5, 4) || ':'
      || substr(hex(address), 9, 4) || ':' || substr(hex(address), 13, 4) || ':'
      || substr(hex(address), 17, 4) || ':' || substr(hex(address), 21, 4) || ':'
      || substr(hex(address), 25, 4) || ':' || substr(hex(address), 29, 4)) END AS local_text
  FROM addresses
) l ON l.id = f.local
JOIN runs r ON r.id = f.run
JOIN kinds k ON k.id = f.kind
JOIN actors a ON a.id = t.actor
LEFT JOIN images i ON i.id = a.image
LEFT JOIN images o ON o.id = i.root
LEFT JOIN programs p ON p.id = i.program
LEFT JOIN containers c ON c.id = a.container
LEFT JOIN judgements j ON j.id = t.judgement;

CREATE VIEW denials AS SELECT * FROM connections WHERE verdict = 'deny';

CREATE VIEW processes AS
SELECT
  strftime('%Y-%m-%dT%H:%M:%fZ', (i.start + r.first_clock) / 1e9, 'unixepoch') AS start,
  strftime('%Y-%m-%dT%H:%M:%fZ', (i.born + r.clock) / 1e9, 'unixepoch') AS born,
  strftime('%Y-%m-%dT%H:%M:%fZ', (i.ended + r.clock) / 1e9, 'unixepoch') AS "end",
  iif(i.status & 127, 128 + (i.status & 127), i.status >> 8 & 255) AS exit_code,
  i.pid,
  p.path AS executable,
  coalesce(i.args, o.args) AS args,
  lower(hex(p.sha256)) AS sha256,
  p.grade,
  p.reason,
  p.script,
  a.euid AS user,
  nullif(a.loginuid, 4294967295) AS loginuid,
  c.name AS container,
  (p.dev >> 20) || ':' || (p.dev & 1048575) AS device,
  printf('%llu', p.inode) AS inode,
  lower(hex(i.entity)) AS entity_id,
  lower(hex(m.entity)) AS parent_entity_id,
  m.pid AS parent_pid,
  iif(i.snapshot, 'snapshot', 'live') AS provenance,
  r.name AS run
FROM images i
JOIN runs r ON r.id = i.run
LEFT JOIN images o ON o.id = i.root
LEFT JOIN images m ON m.id = i.parent
LEFT JOIN programs p ON p.id = i.program
LEFT JOIN actors a ON a.id = i.actor
LEFT JOIN containers c ON c.id = a.container
WHERE i.program IS NOT NULL;

INSERT INTO runs VALUES (1, 'first', 'agent', '0.1.0', 'web-3', NULL,
  x'01010101010101010101010101010101', 1, 'cgroup', '[{"path":"AF_PACKET","reason":"no LSM"}]',
  1, 1000, 5000000000, NULL, 1700000000000000000, 1700000000000000000);
INSERT INTO programs VALUES (1, '/usr/bin/cu\x1brl', 266338305, 77, 61267,
  x'abababababababababababababababababababababababababababababababab', 'verified', NULL,
  NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO images VALUES (1, 1, 5, 500, 1, x'05050505050505050505050505050505',
  NULL, NULL, NULL, NULL, NULL, 0, NULL, 0, NULL, NULL, 0, NULL);
INSERT INTO images VALUES (2, 1, 10, 1000, 1, x'10101010101010101010101010101010',
  1, NULL, NULL, 1, '["curl","a b\\x0a"]', 0, 1, 2000, NULL, NULL, 0, 1);
INSERT INTO actors VALUES (1, 2, 1001, 1002, 1000, 1000, 1000, 4294967295, 11, 7, 'co\x0amm',
  42, 0, 100, 200);
INSERT INTO kinds VALUES (1, 2, 1, 6, 100, 1, 0, 0, 0, 0);
INSERT INTO addresses VALUES (1, 167772165);
INSERT INTO flows VALUES (1, 1, 9, 1, 1, NULL, 1, 1, 50000, 167772167, 443, NULL, 3000,
  1000000, 0, 100, 200, 0, NULL, 2);
PRAGMA user_version = 1;
