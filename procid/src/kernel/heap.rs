//! Memory that was needed to begin, and not since.

/// Gives the kernel back what the allocator keeps: the types of the kernel and
/// of the programs, which are looked through to load them, are larger than all
/// that the agent keeps of an idle host.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and may be called at any time by any thread.
    // <https://man7.org/linux/man-pages/man3/malloc_trim.3.html>
    unsafe {
        libc::malloc_trim(0);
    }
}
