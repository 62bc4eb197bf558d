//! Rows to the facts that they were made of.

use std::{num::NonZero, sync::Arc};

use procid_common::{
    image::{Credentials, FileState, ImageId},
    policy::verdict,
    process::{Actor, COMM_LEN},
};
use rusqlite::{OptionalExtension as _, Result, Row};

use super::{
    fact::Ruling,
    reader::{Reader, json},
    translations,
    value::{Stored, boot, marks, outcome_of},
};
use crate::{
    connections::{Connection, Judged, Key, Speaker},
    identity::{
        context::{Container, Context, Within, names::runtime_named, pods::Pod},
        entity::EntityId,
        hash::{FileHash, Grade, Missing},
        image::{Image, Provenance},
        script::{Found, Script},
    },
    names::Domain,
    records::escape::unescape,
};

/// A flow, and who used it.
#[derive(Clone, Debug)]
pub struct PastFlow {
    /// `flows.id`.
    pub id: i64,
    /// [`PastRun::id`](super::reader::PastRun::id).
    pub run: i64,
    pub key: Key,
    pub connection: Connection,
    pub within: Within,
    pub ruling: Option<Ruling>,
    /// An act that was denied on a flow that goes on.
    pub is_denied_use: bool,
    pub uses: Vec<PastUse>,
    /// `images.id` of the images that it names.
    pub images: Vec<i64>,
}

/// A further image that used a flow.
#[derive(Clone, Debug)]
pub struct PastUse {
    pub speaker: Speaker,
    pub within: Within,
}

/// An image, and its end.
#[derive(Clone, Debug)]
pub struct PastImage {
    pub id: ImageId,
    /// `None`: it was named, and not seen.
    pub image: Option<Image>,
    pub within: Within,
    pub status: Option<u32>,
    /// `images.id` of its parent.
    pub parent: Option<i64>,
    /// The same of the image that its process ran before.
    pub previous: Option<i64>,
}

/// Columns of an actor, of its image and of a judgement: [`actor`],
/// [`image_id`] and [`judgement`] read them.
const ACTOR: &str = "a.euid, a.egid, a.uid, a.gid, a.loginuid, a.sessionid, a.tid, a.vpid, a.comm, \
     a.cgroup, a.netns, a.mntns, a.user, a.image, a.place, c.path, c.container, c.runtime, \
     c.pod, c.namespace, c.pod_name, c.unit";
const ACTOR_LEN: usize = 22;
const IMAGE: &str = "i.pid, i.start, i.exec";
const IMAGE_LEN: usize = 3;
const JUDGEMENT: &str = "j.verdict, j.generation, j.rule_index, j.rule, j.policy, j.audit_index, j.audit, \
     j.hash_unknown";
const JUDGEMENT_LEN: usize = 8;

impl Reader {
    /// The flow of that number; `None`: there is none any more.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub fn flow(&self, id: i64) -> Result<Option<PastFlow>> {
        let text = format!(
            "SELECT {ACTOR}, {IMAGE}, {JUDGEMENT}, f.run, f.cookie, f.flow, f.creator, \
             l.address, f.local_port, f.remote, f.remote_port, f.wire, f.started, f.duration, \
             f.marks, f.sent, f.received, f.outcome, f.sequence, k.family, k.type, k.protocol, \
             k.netns, k.hook, k.flags, k.state, k.snapshot, k.is_use, d.name, d.at, d.others, \
             q.pid, q.start, q.exec, {} \
             FROM flows f JOIN actors a ON a.id = f.actor JOIN kinds k ON k.id = f.kind \
             JOIN addresses l ON l.id = f.local LEFT JOIN images i ON i.id = a.image \
             LEFT JOIN places c ON c.id = a.place \
             LEFT JOIN domains d ON d.flow = f.id LEFT JOIN images q ON q.id = d.asked_by \
             LEFT JOIN judgements j ON j.id = f.judgement \
             LEFT JOIN translations t ON t.flow = f.id WHERE f.id = ?1",
            translations::COLUMNS
        );
        let found = self
            .database
            .prepare_cached(&text)?
            .query_row([id], |row| flow(id, row))
            .optional()?;
        let Some((mut flow, creator)) = found else {
            return Ok(None);
        };
        let mut others = Vec::new();
        for number in self.others(id, creator)? {
            if let Some(image) = self.image(number)? {
                others.push(image.id);
                flow.images.push(number);
            }
        }
        flow.connection.others = others.into();
        self.read_uses(&mut flow)?;
        let speakers: Vec<Speaker> = flow.uses.iter().map(|one| one.speaker.clone()).collect();
        flow.connection.speakers = (!speakers.is_empty()).then(|| Box::new(speakers));
        Ok(Some(flow))
    }

    /// The image of that number; `None`: there is none any more.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub fn image(&self, number: i64) -> Result<Option<PastImage>> {
        let text = format!(
            "SELECT {ACTOR}, {IMAGE}, i.entity, i.flags, i.born, i.ended, i.status, i.snapshot, \
             i.sequence, coalesce(i.args, o.args), m.pid, m.start, m.exec, v.pid, v.start, v.exec, \
             p.path, p.dev, p.inode, p.fs, p.sha256, p.grade, p.reason, p.script, p.script_dev, \
             p.script_inode, p.script_sha256, p.script_grade, p.script_reason, i.parent, i.previous \
             FROM images i LEFT JOIN programs p ON p.id = i.program \
             LEFT JOIN actors a ON a.id = i.actor LEFT JOIN places c ON c.id = a.place \
             LEFT JOIN images o ON o.id = i.root LEFT JOIN images m ON m.id = i.parent \
             LEFT JOIN images v ON v.id = i.previous WHERE i.id = ?1"
        );
        self.database
            .prepare_cached(&text)?
            .query_row([number], image)
            .optional()
    }

    /// The image of that name, by its number, and the run that saw it last; `None`:
    /// it was not seen.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub fn named(&self, entity: EntityId) -> Result<Option<(i64, i64)>> {
        self.database
            .prepare_cached(
                "SELECT id, run FROM images WHERE entity = ?1 AND program IS NOT NULL \
                 ORDER BY id DESC LIMIT 1",
            )?
            .query_row([entity.bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
    }

    /// The creator of a socket, or all who held one that was found open.
    fn others(&self, flow: i64, creator: Option<i64>) -> Result<Vec<i64>> {
        if creator.is_some() {
            return Ok(creator.into_iter().collect());
        }
        self.database
            .prepare_cached("SELECT image FROM holders WHERE flow = ?1 ORDER BY place")?
            .query_map([flow], |row| row.get(0))?
            .collect()
    }

    fn read_uses(&self, flow: &mut PastFlow) -> Result<()> {
        let text = format!(
            "SELECT {ACTOR}, {IMAGE}, u.at, u.flags, u.hook, u.sequence \
             FROM uses u JOIN actors a ON a.id = u.actor LEFT JOIN images i ON i.id = a.image \
             LEFT JOIN places c ON c.id = a.place WHERE u.flow = ?1 ORDER BY u.id"
        );
        let mut statement = self.database.prepare_cached(&text)?;
        let mut rows = statement.query([flow.id])?;
        while let Some(row) = rows.next()? {
            let (actor, within, number) = actor(row)?;
            let at = ACTOR_LEN + IMAGE_LEN;
            flow.images.extend(number);
            flow.uses.push(PastUse {
                speaker: Speaker {
                    image: image_id(row, ACTOR_LEN)?,
                    actor,
                    at_ns: boot(row.get(at)?),
                    flags: row.get(at + 1)?,
                    hook: row.get(at + 2)?,
                    sequence: sequence(row, at + 3)?,
                    denied: None,
                },
                within,
            });
        }
        Ok(())
    }
}

/// A flow without its uses, and who created its socket.
fn flow(id: i64, row: &Row<'_>) -> Result<(PastFlow, Option<i64>)> {
    let (actor, within, number) = actor(row)?;
    let at = ACTOR_LEN + IMAGE_LEN;
    let (judged, ruling) = judgement(row, at)?;
    let at = at + JUDGEMENT_LEN;
    let local = row.get::<_, Stored>(at + 4)?.0;
    let local_port: u16 = row.get(at + 5)?;
    let remote = row.get::<_, Stored>(at + 6)?.0;
    let remote_port: u16 = row.get(at + 7)?;
    let started: i64 = row.get(at + 9)?;
    let duration: Option<i64> = row.get(at + 10)?;
    let marked: i64 = row.get(at + 11)?;
    let ended_ns =
        duration.and_then(|duration| NonZero::new(boot(started.saturating_add(duration))));
    let mut connection = Connection {
        image: image_id(row, ACTOR_LEN)?,
        others: Box::default(),
        actor,
        speakers: None,
        source: local,
        destination: remote,
        domain: domain(row, at + 25)?.map(Box::new),
        wire: row
            .get::<_, Option<Stored>>(at + 8)?
            .map(|wire| Box::new(wire.0)),
        nat: translations::read(row, at + 31)?,
        sent: row.get::<_, Option<i64>>(at + 12)?.map(i64::cast_unsigned),
        received: row.get::<_, Option<i64>>(at + 13)?.map(i64::cast_unsigned),
        started_ns: boot(started),
        ended_ns,
        released_ns: ended_ns.filter(|_| marked & marks::RELEASED != 0),
        sequence: sequence(row, at + 15)?,
        outcome: outcome_of(row.get(at + 14)?),
        judged: judged.map(Box::new),
        flags: row.get(at + 21)?,
        hook: row.get(at + 20)?,
        netns: row.get(at + 19)?,
        source_port: local_port,
        destination_port: remote_port,
        protocol: row.get(at + 18)?,
        sock_type: row.get(at + 17)?,
        provenance: provenance(row.get(at + 23)?),
        state: row.get(at + 22)?,
        family: row.get(at + 16)?,
        is_use: row.get(at + 24)?,
    };
    if connection.is_accepted() {
        connection.source = remote;
        connection.destination = local;
        connection.source_port = remote_port;
        connection.destination_port = local_port;
    }
    let flow = PastFlow {
        id,
        run: row.get(at)?,
        key: Key {
            cookie: row.get::<_, i64>(at + 1)?.cast_unsigned(),
            flow: row.get(at + 2)?,
        },
        connection,
        within,
        ruling,
        is_denied_use: marked & marks::USE != 0,
        uses: Vec::new(),
        images: number.into_iter().collect(),
    };
    Ok((flow, row.get(at + 3)?))
}

/// What the destination of a flow was called.
fn domain(row: &Row<'_>, at: usize) -> Result<Option<Domain>> {
    let Some(name) = row.get::<_, Option<String>>(at)? else {
        return Ok(None);
    };
    let others = row.get::<_, Option<String>>(at + 2)?.unwrap_or_default();
    Ok(Some(Domain {
        name: name.into(),
        asked_by: image_id(row, at + 3)?,
        at_ns: boot(row.get(at + 1)?),
        others: others.lines().map(Into::into).collect(),
    }))
}

fn image(row: &Row<'_>) -> Result<PastImage> {
    let id = image_id(row, ACTOR_LEN)?;
    let at = ACTOR_LEN + IMAGE_LEN;
    let grade: Option<String> = row.get(at + 19)?;
    let parent = image_id(row, at + 8)?;
    let previous = image_id(row, at + 11)?;
    let (mut image, mut around) = (None, Within::default());
    if let Some(grade) = grade {
        let (actor, within, _) = actor(row)?;
        around = within;
        let path = |column: usize| -> Result<Option<Vec<u8>>> {
            Ok(row
                .get::<_, Option<String>>(column)?
                .map(|text| unescape(&text)))
        };
        let script_grade: Option<String> = row.get(at + 25)?;
        let script = match (path(at + 21)?, script_grade) {
            (Some(path), Some(grade)) => Some(Arc::new(Script::restored(
                path,
                Found {
                    file: file(row, at + 22)?,
                    hash: hash(row, at + 24, &grade)?,
                },
            ))),
            _ => None,
        };
        let args: Option<Vec<String>> = match row.get::<_, Option<String>>(at + 7)? {
            Some(_) => Some(json(row, at + 7)?),
            None => None,
        };
        image = Some(Image {
            id,
            entity: EntityId::of_bytes(row.get(at)?),
            parent: parent.is_known().then_some(parent),
            previous: (previous.tgid == id.tgid && previous.is_known()).then_some(previous),
            root: id,
            exe: file(row, at + 15)?,
            fs_magic: row.get(at + 17)?,
            flags: row.get(at + 1)?,
            path: path(at + 14)?.map(Arc::from),
            args: args.map(|args| args.iter().map(|arg| unescape(arg)).collect()),
            actor,
            born_ns: boot(row.get(at + 2)?),
            ended_ns: row.get::<_, Option<i64>>(at + 3)?.map(boot),
            provenance: provenance(row.get(at + 5)?),
            hash: hash(row, at + 18, &grade)?,
            script,
            sequence: sequence(row, at + 6)?,
        });
    }
    Ok(PastImage {
        id,
        image,
        within: around,
        status: row.get(at + 4)?,
        parent: row.get(at + 27)?,
        previous: row.get(at + 28)?,
    })
}

/// Device and inode at two columns.
fn file(row: &Row<'_>, at: usize) -> Result<Option<FileState>> {
    let inode: Option<i64> = row.get(at + 1)?;
    Ok(row.get::<_, Option<u32>>(at)?.map(|dev| FileState {
        dev,
        ino: inode.unwrap_or(0).cast_unsigned(),
        ..FileState::default()
    }))
}

/// A hash at that column, its grade and its reason at the two after it.
fn hash(row: &Row<'_>, at: usize, grade: &str) -> Result<FileHash> {
    let sha256: Option<[u8; 32]> = row.get(at)?;
    let reason: Option<String> = row.get(at + 2)?;
    Ok(match (sha256, Grade::named(grade)) {
        (Some(sha256), Some(grade)) => FileHash::Known { sha256, grade },
        _ => FileHash::None(
            reason
                .as_deref()
                .and_then(Missing::named)
                .unwrap_or(Missing::Gone),
        ),
    })
}

/// Who a task was, where it was, and the number of its image; all zero
/// where the row has none.
fn actor(row: &Row<'_>) -> Result<(Actor, Within, Option<i64>)> {
    let number = |at: usize| -> Result<u32> { Ok(row.get::<_, Option<u32>>(at)?.unwrap_or(0)) };
    let mut comm = [0; COMM_LEN];
    let name = unescape(&row.get::<_, Option<String>>(8)?.unwrap_or_default());
    for (to, from) in comm.iter_mut().zip(name) {
        *to = from;
    }
    let actor = Actor {
        creds: Credentials {
            euid: number(0)?,
            egid: number(1)?,
            uid: number(2)?,
            gid: number(3)?,
            loginuid: number(4)?,
            sessionid: number(5)?,
        },
        tid: number(6)?,
        vpid: number(7)?,
        comm,
        cgroup: row.get::<_, Option<i64>>(9)?.unwrap_or(0).cast_unsigned(),
        netns: number(10)?,
        mntns: number(11)?,
    };
    let place: Option<i64> = row.get(14)?;
    let within = Within {
        context: match place {
            Some(_) => Some(Arc::new(context(row, 15)?)),
            None => None,
        },
        user: row.get::<_, Option<String>>(12)?.map(Arc::from),
    };
    Ok((actor, within, row.get(13)?))
}

/// A place at seven columns.
fn context(row: &Row<'_>, at: usize) -> Result<Context> {
    let runtime: Option<String> = row.get(at + 2)?;
    let container = row.get::<_, Option<String>>(at + 1)?.map(|id| Container {
        id,
        runtime: runtime.as_deref().and_then(runtime_named),
    });
    let names: (Option<String>, Option<String>) = (row.get(at + 4)?, row.get(at + 5)?);
    let pod_names = match names {
        (Some(namespace), Some(name)) => Some(Arc::new(Pod { namespace, name })),
        _ => None,
    };
    Ok(Context {
        path: row.get(at)?,
        container,
        pod: row.get(at + 3)?,
        pod_names,
        unit: row.get(at + 6)?,
    })
}

/// An image's name at three columns; unknown, where there is none.
fn image_id(row: &Row<'_>, at: usize) -> Result<ImageId> {
    let Some(tgid) = row.get::<_, Option<u32>>(at)? else {
        return Ok(ImageId::UNKNOWN);
    };
    Ok(ImageId {
        tgid,
        start_boottime: boot(row.get(at + 1)?),
        self_exec_id: row.get::<_, i64>(at + 2)?.cast_unsigned(),
        reserved: 0,
    })
}

fn judgement(row: &Row<'_>, at: usize) -> Result<(Option<Judged>, Option<Ruling>)> {
    let Some(word) = row.get::<_, Option<String>>(at)? else {
        return Ok((None, None));
    };
    let text = |at: usize| -> Result<Option<Arc<str>>> {
        Ok(row.get::<_, Option<String>>(at)?.map(Arc::from))
    };
    let judged = Judged {
        generation: row.get::<_, i64>(at + 1)?.cast_unsigned(),
        verdict: match word.as_str() {
            "deny" => verdict::DENY,
            "audit" => verdict::AUDIT,
            _ => verdict::ALLOW,
        },
        rule: row.get(at + 2)?,
        audit: row.get(at + 5)?,
        unknown: row.get(at + 7)?,
    };
    let ruling = Ruling {
        rule: text(at + 3)?,
        policy: text(at + 4)?,
        audit: text(at + 6)?,
    };
    Ok((Some(judged), Some(ruling)))
}

const fn provenance(snapshot: bool) -> Provenance {
    if snapshot {
        Provenance::Snapshot
    } else {
        Provenance::Live
    }
}

fn sequence(row: &Row<'_>, at: usize) -> Result<Option<NonZero<u64>>> {
    Ok(row
        .get::<_, Option<i64>>(at)?
        .map(boot)
        .and_then(NonZero::new))
}
