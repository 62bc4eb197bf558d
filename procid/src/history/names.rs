//! What is written once and named by a number: images, actors, programs, kinds
//! of sockets, addresses, judgements, places.
//!
//! Numbers last given are remembered. Where one is not, what can be found is
//! looked up, and what cannot is written again: a second row of one program or
//! actor says the same and costs its bytes.

use std::{collections::HashMap, num::NonZero, sync::Arc};

use lru::LruCache;
use procid_common::{
    image::{FileState, ImageId},
    policy::verdict,
    process::Actor,
};
use rusqlite::{Connection as Database, OptionalExtension as _, Result, params};
use zerocopy::IntoBytes as _;

use super::{
    fact::Ruling,
    value::{Stored, ns},
};
use crate::{
    connections::{Connection, Judged},
    identity::{
        context::{Context, Within},
        entity::{BootId, EntityId},
        hash::FileHash,
        image::{Image, Provenance},
    },
    records::escape::escape,
};

const IMAGES: NonZero<usize> = NonZero::new(32_768).expect("not 0");
const ACTORS: NonZero<usize> = NonZero::new(8_192).expect("not 0");
const PROGRAMS: NonZero<usize> = NonZero::new(1_024).expect("not 0");
const OTHERS: NonZero<usize> = NonZero::new(4_096).expect("not 0");

/// Tables whose numbers are given here.
const TABLES: [&str; 7] = [
    "images",
    "actors",
    "programs",
    "kinds",
    "addresses",
    "judgements",
    "places",
];

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Program {
    path: Option<Arc<[u8]>>,
    exe: Option<Place>,
    fs_magic: u32,
    hash: Hash,
    script: Option<(Vec<u8>, Option<Place>, Hash)>,
}

/// Device and inode.
type Place = (u32, u64);

/// A [`FileHash`] as the database keeps it.
type Hash = (Option<[u8; 32]>, &'static str, Option<&'static str>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Kind {
    family: u8,
    sock_type: u16,
    protocol: u16,
    netns: u32,
    hook: u32,
    flags: u32,
    state: u8,
    snapshot: bool,
    is_use: bool,
}

type Judgement = (u64, u32, u32, u32, u32, Ruling);

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Names {
    run: i64,
    boot_id: BootId,
    /// The next number of each of [`TABLES`].
    next: HashMap<&'static str, i64>,
    images: LruCache<ImageId, i64>,
    actors: LruCache<(Option<i64>, [u8; size_of::<Actor>()]), i64>,
    programs: LruCache<Program, i64>,
    kinds: LruCache<Kind, i64>,
    addresses: LruCache<Stored, i64>,
    judgements: LruCache<Judgement, i64>,
    places: LruCache<Arc<Context>, i64>,
}

impl Names {
    pub(super) fn new(database: &Database, run: i64, boot_id: BootId) -> Result<Self> {
        let mut next = HashMap::new();
        for table in TABLES {
            next.insert(table, next_id(database, table)?);
        }
        Ok(Self {
            run,
            boot_id,
            next,
            images: LruCache::new(IMAGES),
            actors: LruCache::new(ACTORS),
            programs: LruCache::new(PROGRAMS),
            kinds: LruCache::new(OTHERS),
            addresses: LruCache::new(OTHERS),
            judgements: LruCache::new(OTHERS),
            places: LruCache::new(OTHERS),
        })
    }

    fn give(&mut self, table: &'static str) -> i64 {
        let next = self.next.entry(table).or_insert(1);
        let id = *next;
        *next += 1;
        id
    }

    /// The number of an image, and whether it has a row. An image that is not
    /// known of has none yet.
    pub(super) fn find_image(&mut self, database: &Database, id: &ImageId) -> Result<Option<i64>> {
        if let Some(found) = self.images.get(id) {
            return Ok(Some(*found));
        }
        let found = database
            .prepare_cached(
                "SELECT id FROM images WHERE pid = ?1 AND start = ?2 AND exec = ?3 AND run = ?4",
            )?
            .query_row(
                params![
                    id.tgid,
                    ns(id.start_boottime),
                    id.self_exec_id.cast_signed(),
                    self.run
                ],
                |row| row.get(0),
            )
            .optional()?;
        if let Some(found) = found {
            self.images.put(*id, found);
        }
        Ok(found)
    }

    /// The number of an image, which gets a row that says no more than its name
    /// where it has none yet. `None`: no image.
    pub(super) fn image(&mut self, database: &Database, id: &ImageId) -> Result<Option<i64>> {
        if !id.is_known() {
            return Ok(None);
        }
        if let Some(found) = self.find_image(database, id)? {
            return Ok(Some(found));
        }
        let number = self.new_image(id);
        let entity = EntityId::new(&self.boot_id, id);
        database
            .prepare_cached(
                "INSERT INTO images (id, run, pid, start, exec, entity, flags, born, snapshot) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, 0, 0)",
            )?
            .execute(params![
                number,
                self.run,
                id.tgid,
                ns(id.start_boottime),
                id.self_exec_id.cast_signed(),
                entity.bytes(),
            ])?;
        Ok(Some(number))
    }

    /// A number for an image that has none.
    pub(super) fn new_image(&mut self, id: &ImageId) -> i64 {
        let number = self.give("images");
        self.images.put(*id, number);
        number
    }

    /// An image that has lost its row.
    pub(super) fn forget_image(&mut self, id: &ImageId) {
        self.images.pop(id);
    }

    /// Who a task of an image was.
    pub(super) fn actor(
        &mut self,
        database: &Database,
        image: Option<i64>,
        actor: &Actor,
        within: &Within,
    ) -> Result<i64> {
        let mut bytes = [0; size_of::<Actor>()];
        bytes.copy_from_slice(actor.as_bytes());
        if let Some(found) = self.actors.get(&(image, bytes)) {
            return Ok(*found);
        }
        let place = match &within.context {
            Some(context) => Some(self.place(database, context)?),
            None => None,
        };
        let comm = actor.comm.split(|byte| *byte == 0).next().unwrap_or(&[]);
        let number = self.give("actors");
        let creds = &actor.creds;
        database
            .prepare_cached(
                "INSERT INTO actors VALUES \
                 (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
            )?
            .execute(params![
                number,
                image,
                creds.euid,
                creds.egid,
                creds.uid,
                creds.gid,
                creds.loginuid,
                creds.sessionid,
                actor.tid,
                actor.vpid,
                escape(comm),
                actor.cgroup.cast_signed(),
                place,
                actor.netns,
                actor.mntns,
                within.user,
            ])?;
        self.actors.put((image, bytes), number);
        Ok(number)
    }

    fn place(&mut self, database: &Database, context: &Arc<Context>) -> Result<i64> {
        if let Some(found) = self.places.get(context) {
            return Ok(*found);
        }
        let number = self.give("places");
        let container = context.container.as_ref();
        let pod = context.pod_names.as_deref();
        database
            .prepare_cached("INSERT INTO places VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
            .execute(params![
                number,
                context.path,
                container.map(|container| &container.id),
                container.and_then(|container| container.runtime),
                context.pod,
                pod.map(|pod| &pod.namespace),
                pod.map(|pod| &pod.name),
                context.unit,
            ])?;
        self.places.put(Arc::clone(context), number);
        Ok(number)
    }

    /// The program that an image runs: file, hash and script.
    pub(super) fn program(&mut self, database: &Database, image: &Image) -> Result<i64> {
        let place = |file: &FileState| (file.dev, file.ino);
        let script = image.script.as_ref().map(|script| {
            let found = script.found();
            let file = found.file.as_ref().map(place);
            (script.path.clone(), file, hash(found.hash))
        });
        let program = Program {
            path: image.path.clone(),
            exe: image.exe.as_ref().map(place),
            fs_magic: image.fs_magic,
            hash: hash(image.hash),
            script,
        };
        if let Some(found) = self.programs.get(&program) {
            return Ok(*found);
        }
        let number = self.give("programs");
        let (sha256, grade, reason) = program.hash;
        let script = program.script.as_ref();
        let script_hash = script.map(|(_, _, hash)| *hash);
        let script_file = script.and_then(|(_, file, _)| *file);
        database
            .prepare_cached(
                "INSERT INTO programs VALUES \
                 (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
            )?
            .execute(params![
                number,
                program.path.as_deref().map(escape),
                program.exe.map(|(dev, _)| dev),
                program.exe.map(|(_, ino)| ino.cast_signed()),
                program.fs_magic,
                sha256,
                grade,
                reason,
                script.map(|(path, ..)| escape(path)),
                script_file.map(|(dev, _)| dev),
                script_file.map(|(_, ino)| ino.cast_signed()),
                script_hash.and_then(|(sha256, ..)| sha256),
                script_hash.map(|(_, grade, _)| grade),
                script_hash.and_then(|(.., reason)| reason),
            ])?;
        self.programs.put(program, number);
        Ok(number)
    }

    pub(super) fn kind(&mut self, database: &Database, connection: &Connection) -> Result<i64> {
        let kind = Kind {
            family: connection.family,
            sock_type: connection.sock_type,
            protocol: connection.protocol,
            netns: connection.netns,
            hook: connection.hook,
            flags: connection.flags,
            state: connection.state,
            snapshot: connection.provenance == Provenance::Snapshot,
            is_use: connection.is_use,
        };
        if let Some(found) = self.kinds.get(&kind) {
            return Ok(*found);
        }
        let number = self.give("kinds");
        database
            .prepare_cached("INSERT INTO kinds VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?
            .execute(params![
                number,
                kind.family,
                kind.sock_type,
                kind.protocol,
                kind.netns,
                kind.hook,
                kind.flags,
                kind.state,
                kind.snapshot,
                kind.is_use,
            ])?;
        self.kinds.put(kind, number);
        Ok(number)
    }

    pub(super) fn address(&mut self, database: &Database, address: Stored) -> Result<i64> {
        if let Some(found) = self.addresses.get(&address) {
            return Ok(*found);
        }
        let found = database
            .prepare_cached("SELECT id FROM addresses WHERE address = ?1")?
            .query_row([address], |row| row.get(0))
            .optional()?;
        let number = match found {
            Some(found) => found,
            None => {
                let number = self.give("addresses");
                database
                    .prepare_cached("INSERT INTO addresses VALUES (?1, ?2)")?
                    .execute(params![number, address])?;
                number
            }
        };
        self.addresses.put(address, number);
        Ok(number)
    }

    /// What the policy said; `None`: no policy judged.
    pub(super) fn judgement(
        &mut self,
        database: &Database,
        judged: Option<&Judged>,
        ruling: Option<&Ruling>,
    ) -> Result<Option<i64>> {
        let Some(judged) = judged else {
            return Ok(None);
        };
        let judgement = (
            judged.generation,
            judged.verdict,
            judged.rule,
            judged.audit,
            judged.unknown,
            ruling.cloned().unwrap_or_default(),
        );
        if let Some(found) = self.judgements.get(&judgement) {
            return Ok(Some(*found));
        }
        let number = self.give("judgements");
        let ruling = &judgement.5;
        database
            .prepare_cached("INSERT INTO judgements VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?
            .execute(params![
                number,
                match judged.verdict {
                    verdict::DENY => "deny",
                    verdict::AUDIT => "audit",
                    _ => "allow",
                },
                judged.generation.cast_signed(),
                judged.rule,
                ruling.rule,
                ruling.policy,
                judged.audit,
                ruling.audit,
                judged.unknown,
            ])?;
        self.judgements.put(judgement, number);
        Ok(Some(number))
    }
}

/// The number that the next row of a table gets.
pub(super) fn next_id(database: &Database, table: &str) -> Result<i64> {
    let last = format!("SELECT coalesce(max(id), 0) + 1 FROM {table}");
    database.query_row(&last, [], |row| row.get(0))
}

fn hash(hash: FileHash) -> Hash {
    match hash {
        FileHash::Known { sha256, grade } => (Some(sha256), grade.name(), None),
        FileHash::None(missing) => (None, "none", Some(missing.name())),
    }
}
