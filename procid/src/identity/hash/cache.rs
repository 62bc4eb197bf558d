//! Hashes by inode state.

use std::{fmt, num::NonZeroUsize};

use lru::LruCache;
use procid_common::image::FileState;

/// States kept.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");

/// SHA-256 of the content that inodes had in a state.
///
/// Holds only what was read for a settled exec (see [`super::settle`]), so
/// that an entry answers for every settled exec of that state.
pub struct Cache(LruCache<FileState, [u8; 32]>);

impl Cache {
    pub fn get(&mut self, file: &FileState) -> Option<[u8; 32]> {
        self.0.get(file).copied()
    }

    pub fn put(&mut self, file: FileState, sha256: [u8; 32]) {
        self.0.put(file, sha256);
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self(LruCache::new(CAPACITY))
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("len", &self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_field_of_the_state_is_another_key() {
        let file = FileState {
            ino: 1,
            ..FileState::default()
        };
        let mut cache = Cache::default();
        cache.put(file, [1; 32]);
        assert_eq!(cache.get(&file), Some([1; 32]));
        let others = [
            FileState { ino: 2, ..file },
            FileState { size: 1, ..file },
            FileState {
                ctime_sec: 1,
                ..file
            },
            FileState {
                mtime_sec: 1,
                ..file
            },
            FileState {
                ctime_nsec: 1,
                ..file
            },
            FileState {
                mtime_nsec: 1,
                ..file
            },
            FileState { dev: 1, ..file },
            FileState {
                generation: 1,
                ..file
            },
        ];
        for other in others {
            assert_eq!(cache.get(&other), None, "{other:?}");
        }
    }

    #[test]
    fn the_oldest_entry_makes_room() {
        let file = |ino| FileState {
            ino,
            ..FileState::default()
        };
        let mut cache = Cache::default();
        for ino in 0..=CAPACITY.get() as u64 {
            cache.put(file(ino), [0; 32]);
        }
        assert_eq!(cache.get(&file(0)), None);
        assert_eq!(cache.get(&file(1)), Some([0; 32]));
    }
}
