//! Asking the programs for a decision, without the act.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::{
    Ebpf,
    maps::{Array, MapData},
};
use procid_common::policy::asked::{Asked, AskedRow, OpenRow};
use zerocopy::IntoBytes as _;

use super::{AttachError, iterate, iterators::iterator, take_map};
use crate::decode::Event;

const ASKED: usize = size_of::<Asked>();

/// The question's map, and the iterators that answer.
pub(super) struct Ask {
    asked: Array<MapData, [u8; ASKED]>,
    process: OwnedFd,
    open: OwnedFd,
}

impl Ask {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, AttachError> {
        let owned = |ebpf: &Ebpf, name: &str| {
            iterator(ebpf, name)
                .and_then(|fd| fd.try_clone_to_owned())
                .map_err(|error| AttachError::new(format!("the {name} iterator: {error}")))
        };
        Ok(Self {
            process: owned(ebpf, "iterate_asked")?,
            open: owned(ebpf, "iterate_open")?,
            asked: take_map(ebpf, "ASKED")?,
        })
    }

    fn put(&mut self, asked: &Asked) -> io::Result<()> {
        let value: [u8; ASKED] = asked
            .as_bytes()
            .try_into()
            .map_err(|_| io::Error::other("a question of another size"))?;
        self.asked.set(0, value, 0).map_err(io::Error::other)
    }

    pub(super) fn process(&mut self, asked: &Asked) -> io::Result<Vec<AskedRow>> {
        self.put(asked)?;
        let rows = match iterate::rows(self.process.as_fd(), iterate::Over::Process(asked.tgid)) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Vec::new(),
            rows => rows?,
        };
        Ok(rows
            .into_iter()
            .filter_map(|event| match event {
                Event::AskedRow(row) => Some(*row),
                _ => None,
            })
            .collect())
    }

    pub(super) fn open(&mut self, slot: u32, of: Option<&[u32]>) -> io::Result<Vec<OpenRow>> {
        self.put(&Asked {
            slot,
            ..Asked::default()
        })?;
        let mut rows = Vec::new();
        match of {
            None => rows = iterate::rows(self.open.as_fd(), iterate::Over::All)?,
            Some(processes) => {
                for process in processes {
                    match iterate::rows(self.open.as_fd(), iterate::Over::Process(*process)) {
                        Ok(found) => rows.extend(found),
                        // It has ended meanwhile.
                        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(rows
            .into_iter()
            .filter_map(|event| match event {
                Event::OpenRow(row) => Some(row),
                _ => None,
            })
            .collect())
    }
}
