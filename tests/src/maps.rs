//! The maps of procid's programs, for tests that bring about what no load does.
//!
//! <https://docs.kernel.org/userspace-api/ebpf/syscall.html>

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::maps::{MapInfo, loaded_maps};

const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;

/// An array of the agent that was started last.
#[derive(Debug)]
pub struct Values {
    map: MapInfo,
}

/// The arguments of bpf(2) for an entry.
#[repr(C)]
struct Entry {
    map: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl Values {
    /// # Panics
    ///
    /// When no such map is there.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let maps = loaded_maps().map(|map| map.expect("maps can be listed"));
        let map = maps
            .filter(|map| map.name_as_str() == Some(name))
            .max_by_key(MapInfo::id)
            .expect("a map of that name");
        Self { map }
    }

    /// Writes the first word of each value.
    ///
    /// # Panics
    ///
    /// When an entry cannot be read or written.
    pub fn put_first_words(&self, word: u64) {
        for index in 0..self.map.max_entries() {
            let mut value = vec![0; self.map.value_size() as usize];
            self.call(BPF_MAP_LOOKUP_ELEM, index, &mut value);
            value[..8].copy_from_slice(&word.to_ne_bytes());
            self.call(BPF_MAP_UPDATE_ELEM, index, &mut value);
        }
    }

    fn call(&self, command: libc::c_int, index: u32, value: &mut [u8]) {
        let map = self.map.fd().expect("a descriptor of the map");
        let entry = Entry {
            map: map.as_fd().as_raw_fd().cast_unsigned(),
            reserved: 0,
            key: (&raw const index).addr() as u64,
            value: value.as_mut_ptr().addr() as u64,
            flags: 0,
        };
        // SAFETY: key and value are as long as the map's are, and live until it
        // returns.
        let done =
            unsafe { libc::syscall(libc::SYS_bpf, command, &raw const entry, size_of::<Entry>()) };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
    }
}
