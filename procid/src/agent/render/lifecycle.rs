//! Births and ends of images, hashes that came late, rows of processes.

use std::num::NonZero;

use procid_common::image::{ImageId, flags};

use super::{
    Head, Renderer,
    process::{provenance, put_actor},
};
use crate::{
    identity::image::Provenance,
    records::{Procid, Record},
};

const DATASET: &str = "procid.process";

impl Renderer<'_> {
    /// `exec`.
    pub(in crate::agent) fn exec(&self, id: &ImageId, at_ns: u64) -> Record {
        let mut record = self.birth("exec", id, at_ns);
        let previous = self.images.get(id).and_then(|image| image.previous);
        if let (Some(previous), Some(process)) = (previous, record.process.as_deref_mut()) {
            process.previous = Some(Box::new(self.brief_of(&previous)));
        }
        record
    }

    /// `fork`: an image of its parent's executable.
    pub(in crate::agent) fn fork(&self, id: &ImageId, at_ns: u64) -> Record {
        self.birth("fork", id, at_ns)
    }

    /// `exit`; `status` as wait(2) reports it. A signal is told as a shell
    /// tells it: 128 and its number.
    pub(in crate::agent) fn exit(&self, id: &ImageId, status: u32, at_ns: u64) -> Record {
        let signal = status & 0x7f;
        let code = if signal == 0 {
            status >> 8 & 0xff
        } else {
            128 + signal
        };
        let mut record = self.image_record("exit", &["end"], id, at_ns);
        let process = record.process.get_or_insert_default();
        process.exit_code = Some(i64::from(code));
        process.end = Some(self.time(at_ns));
        record
    }

    /// `hash`: what is known by now of the file of an image whose records said
    /// that its hash was pending.
    pub(in crate::agent) fn hash(&self, id: &ImageId, at_ns: u64) -> Record {
        self.image_record("hash", &["info"], id, at_ns)
    }

    /// A row of the snapshot. The exec itself may have been told since, where
    /// the kernel was between the two when the row was read.
    pub(in crate::agent) fn row(&self, id: &ImageId) -> Record {
        let mut record = self.state(id);
        record.procid.get_or_insert_default().provenance =
            Some(provenance(Provenance::Snapshot).to_owned());
        record
    }

    /// An image as it is known now: the record that told of it, with what became
    /// known since.
    pub(in crate::agent) fn image(&self, id: &ImageId) -> Record {
        let image = self.images.get(id);
        let mut record = match image {
            Some(image) if image.provenance == Provenance::Live => {
                if image.flags & flags::FORKED == 0 {
                    self.exec(id, image.born_ns)
                } else {
                    self.fork(id, image.born_ns)
                }
            }
            _ => self.row(id),
        };
        if let Some(event) = &mut record.event {
            event.sequence = image.and_then(|image| image.sequence).map(NonZero::get);
        }
        let ended_ns = image.and_then(|image| image.ended_ns);
        if let (Some(ended_ns), Some(process)) = (ended_ns, &mut record.process) {
            process.end = Some(self.time(ended_ns));
        }
        record
    }

    fn state(&self, id: &ImageId) -> Record {
        let image = self.images.get(id);
        let mut record = self.record(&Head {
            action: "exec",
            dataset: DATASET,
            category: Some("process"),
            types: &["info"],
            is_state: true,
            at_ns: image.map_or(0, |image| image.born_ns),
        });
        self.put(&mut record, id, true);
        record
    }

    fn birth(&self, action: &'static str, id: &ImageId, at_ns: u64) -> Record {
        let mut record = self.record(&Head {
            action,
            dataset: DATASET,
            category: Some("process"),
            types: &["start"],
            is_state: false,
            at_ns,
        });
        self.put(&mut record, id, true);
        record
    }

    fn image_record(
        &self,
        action: &'static str,
        types: &'static [&'static str],
        id: &ImageId,
        at_ns: u64,
    ) -> Record {
        let mut record = self.record(&Head {
            action,
            dataset: DATASET,
            category: Some("process"),
            types,
            is_state: false,
            at_ns,
        });
        self.put(&mut record, id, false);
        record
    }

    /// Credentials are those at birth: they are told of a birth alone.
    fn put(&self, record: &mut Record, id: &ImageId, with_actor: bool) {
        let mut procid = Box::new(Procid::default());
        self.put_image(record, &mut procid, id);
        let image = self.images.get(id);
        let seen = image.map_or(Provenance::Live, |image| image.provenance);
        procid.provenance = Some(provenance(seen).to_owned());
        if with_actor && let Some(image) = image {
            put_actor(record, &mut procid, &image.actor);
            procid.netns = (image.actor.netns != 0).then(|| image.actor.netns.to_string());
        }
        record.procid = Some(procid);
    }
}
