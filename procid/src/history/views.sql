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
  d.name AS domain,
  iif(k.flags & 256, n.remote_text, n.local_text) AS source_nat,
  iif(k.flags & 256, n.remote_port, n.local_port) AS source_nat_port,
  iif(k.flags & 256, n.local_text, n.remote_text) AS destination_nat,
  iif(k.flags & 256, n.local_port, n.remote_port) AS destination_nat_port,
  n.grade AS nat_grade,
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
  iif(k.snapshot AND t.use IS NULL, NULL, a.user) AS user_name,
  c.container,
  c.unit,
  c.pod_name AS pod,
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
LEFT JOIN places c ON c.id = a.place
LEFT JOIN domains d ON d.flow = f.id
LEFT JOIN judgements j ON j.id = t.judgement
LEFT JOIN (
  SELECT *, CASE typeof(local)
    WHEN 'null' THEN NULL
    WHEN 'integer' THEN (local >> 24 & 255) || '.' || (local >> 16 & 255) || '.'
      || (local >> 8 & 255) || '.' || (local & 255)
    ELSE lower(substr(hex(local), 1, 4) || ':' || substr(hex(local), 5, 4) || ':'
      || substr(hex(local), 9, 4) || ':' || substr(hex(local), 13, 4) || ':'
      || substr(hex(local), 17, 4) || ':' || substr(hex(local), 21, 4) || ':'
      || substr(hex(local), 25, 4) || ':' || substr(hex(local), 29, 4)) END AS local_text,
    CASE typeof(remote)
    WHEN 'null' THEN NULL
    WHEN 'integer' THEN (remote >> 24 & 255) || '.' || (remote >> 16 & 255) || '.'
      || (remote >> 8 & 255) || '.' || (remote & 255)
    ELSE lower(substr(hex(remote), 1, 4) || ':' || substr(hex(remote), 5, 4) || ':'
      || substr(hex(remote), 9, 4) || ':' || substr(hex(remote), 13, 4) || ':'
      || substr(hex(remote), 17, 4) || ':' || substr(hex(remote), 21, 4) || ':'
      || substr(hex(remote), 25, 4) || ':' || substr(hex(remote), 29, 4)) END AS remote_text
  FROM translations
) n ON n.flow = t.flow;

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
  a.user AS user_name,
  nullif(a.loginuid, 4294967295) AS loginuid,
  c.container,
  c.unit,
  c.pod_name AS pod,
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
LEFT JOIN places c ON c.id = a.place
WHERE i.program IS NOT NULL;
