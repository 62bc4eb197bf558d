//! Files whose hash the programs are told.

use std::sync::{Arc, Mutex, PoisonError};

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use procid_common::image::{FileState, KnownFile};

use super::{AttachError, take_map};

type Map = HashMap<MapData, [u8; size_of::<FileState>()], [u8; size_of::<KnownFile>()]>;

/// The map `KNOWN_FILES`. Whoever writes to it holds it for one system call.
#[derive(Clone, Debug)]
pub struct KnownFiles(Arc<Mutex<Map>>);

impl KnownFiles {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, AttachError> {
        let map = take_map(ebpf, "KNOWN_FILES")?;
        Ok(Self(Arc::new(Mutex::new(map))))
    }

    /// Says that the hash of this state of a file is known: an exec of it has
    /// that hash from the start, and need not wake the agent unless it runs a
    /// script.
    pub fn tell(&self, state: &FileState, file: KnownFile) {
        let state: [u8; size_of::<FileState>()] = zerocopy::transmute!(*state);
        let file: [u8; size_of::<KnownFile>()] = zerocopy::transmute!(file);
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = map.insert(state, file, 0) {
            tracing::warn!(%error, "the programs cannot be told of a known file");
        }
    }
}
