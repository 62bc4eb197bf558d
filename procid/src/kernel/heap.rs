//! Memory that was needed to begin, and not since.

use rustix::{
    mm::{Advice, madvise},
    param::page_size,
};

use super::OBJECT;

/// Gives the kernel back what the allocator keeps: the types of the kernel and
/// of the programs, which are looked through to load them, are larger than all
/// that the agent keeps of an idle host. And the pages of the eBPF object, which
/// is loaded.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and may be called at any time by any thread.
    // <https://man7.org/linux/man-pages/man3/malloc_trim.3.html>
    unsafe {
        libc::malloc_trim(0);
    }
    let pages = whole_pages(OBJECT, page_size());
    // SAFETY: read-only pages of this program's file, and of a constant in it:
    // who reads them again, reads the same from the file.
    let done = unsafe {
        madvise(
            pages.as_ptr().cast_mut().cast(),
            pages.len(),
            Advice::LinuxDontNeed,
        )
    };
    if let Err(error) = done {
        tracing::debug!(%error, "the pages of the eBPF object are kept");
    }
}

/// The part of `bytes` that shares its pages with nothing else.
fn whole_pages(bytes: &[u8], page: usize) -> &[u8] {
    let start = bytes.as_ptr().align_offset(page).min(bytes.len());
    let whole = (bytes.len() - start) / page * page;
    &bytes[start..start + whole]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_pages_are_given_back() {
        const PAGE: usize = 64;
        let bytes = vec![0; 10 * PAGE];
        for start in 0..PAGE {
            let pages = whole_pages(&bytes[start..], PAGE);
            assert!(pages.as_ptr().addr().is_multiple_of(PAGE));
            assert!(pages.len().is_multiple_of(PAGE) && pages.len() >= 8 * PAGE);
        }
        assert!(whole_pages(&bytes[1..3], PAGE).is_empty());
    }
}
