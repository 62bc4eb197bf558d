//! Reading kernel structures at offsets that the loader found in BTF.

use aya_ebpf::helpers::{
    bpf_get_current_task, bpf_probe_read_kernel, generated::bpf_get_current_task_btf,
};
use procid_common::offsets::Offsets;

/// Filled in by the loader before the programs are verified.
#[unsafe(no_mangle)]
pub(crate) static OFFSETS: Offsets = Offsets::ZERO;

/// Bits of [`SETTINGS`].
pub(crate) mod setting {
    /// Keep command lines.
    pub(crate) const ARGS: u32 = 1 << 0;
    /// The return of connect(2) is seen.
    pub(crate) const SYS_EXIT: u32 = 1 << 1;
    /// The LSM hooks make the connection records (no cgroup hooks do).
    pub(crate) const LSM_RECORDS: u32 = 1 << 2;
}

/// Filled in by the loader.
#[unsafe(no_mangle)]
pub(crate) static SETTINGS: u32 = 0;

/// The cgroup that is watched and its depth; 0: the whole host is.
#[unsafe(no_mangle)]
pub(crate) static WATCHED_CGROUP: u64 = 0;
#[unsafe(no_mangle)]
pub(crate) static WATCHED_LEVEL: u32 = 0;

/// The offset of a field of [`Offsets`].
macro_rules! offset {
    ($field:ident) => {
        $crate::kernel::placed(&raw const $crate::kernel::OFFSETS.$field)
    };
}
pub(crate) use offset;

/// Reads what the loader has written into the programs' constants.
#[inline(always)]
pub(crate) fn placed(offset: *const u32) -> usize {
    // SAFETY: a field of an aligned static. It is volatile so that the
    // compiler does not fold the placeholder the loader overwrites.
    unsafe { core::ptr::read_volatile(offset) as usize }
}

#[inline(always)]
pub(crate) fn is_set(bit: u32) -> bool {
    // SAFETY: as in `offset!`.
    let settings = unsafe { core::ptr::read_volatile(&raw const SETTINGS) };
    settings & bit != 0
}

/// A kernel object whose fields can be read.
pub(crate) trait Object: Copy {
    /// Reads a `T` at `offset`; `None` when the address cannot be read.
    fn read<T: Copy>(self, offset: usize) -> Option<T>;
    /// Reads a pointer; null counts as not there.
    fn follow(self, offset: usize) -> Option<Self>;
    /// The bare address.
    fn address(self) -> Kptr;
}

/// A pointer whose type the verifier knows: its fields are plain loads, where
/// each read of a [`Kptr`] is the call of a helper. Offsets must be those of
/// fields of that type.
#[derive(Clone, Copy)]
pub(crate) struct Typed(*const u8);

impl Typed {
    /// The task in whose context the program runs.
    #[inline(always)]
    pub(crate) fn current() -> Self {
        // SAFETY: takes no argument.
        Self(unsafe { bpf_get_current_task_btf() }.cast())
    }

    /// A pointer that the verifier has typed, an argument of a hook.
    #[inline(always)]
    pub(crate) fn of<T>(typed: *const T) -> Self {
        Self(typed.cast())
    }
}

impl Object for Typed {
    #[inline(always)]
    fn read<T: Copy>(self, offset: usize) -> Option<T> {
        // SAFETY: the verifier checks the load against the kernel's types, and
        // the kernel answers a load from a bad address with zero.
        Some(unsafe { core::ptr::read_volatile(self.0.add(offset).cast::<T>()) })
    }

    #[inline(always)]
    fn follow(self, offset: usize) -> Option<Self> {
        // SAFETY: as in `read`.
        let pointer = unsafe { core::ptr::read_volatile(self.0.add(offset).cast::<*const u8>()) };
        if pointer.is_null() {
            None
        } else {
            Some(Self(pointer))
        }
    }

    #[inline(always)]
    fn address(self) -> Kptr {
        Kptr::of(self.0)
    }
}

impl Object for Kptr {
    #[inline(always)]
    fn read<T: Copy>(self, offset: usize) -> Option<T> {
        Self::read(self, offset)
    }

    #[inline(always)]
    fn follow(self, offset: usize) -> Option<Self> {
        Self::follow(self, offset)
    }

    #[inline(always)]
    fn address(self) -> Kptr {
        self
    }
}

/// Address of a kernel object.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Kptr(pub(crate) u64);

impl Kptr {
    /// The bare address behind a pointer that the verifier has typed: some
    /// types allow no arithmetic. A copy made by the helper has no type.
    #[inline(always)]
    pub(crate) fn of<T>(typed: *const T) -> Self {
        let slot = typed as u64;
        Self(Self(&raw const slot as u64).read(0).unwrap_or(0))
    }

    /// The task in whose context the program runs.
    #[inline(always)]
    pub(crate) fn current() -> Self {
        // SAFETY: takes no argument.
        Self(unsafe { bpf_get_current_task() })
    }

    #[inline(always)]
    pub(crate) fn add(self, bytes: usize) -> Self {
        Self(self.0.wrapping_add(bytes as u64))
    }

    /// Reads a `T` at `offset`; `None` when the address cannot be read.
    #[inline(always)]
    pub(crate) fn read<T: Copy>(self, offset: usize) -> Option<T> {
        let address = self.0.wrapping_add(offset as u64) as *const T;
        // SAFETY: the helper copies with fault handling, so that any address
        // may be asked for; every `T` used here is plain old data.
        unsafe { bpf_probe_read_kernel(address) }.ok()
    }

    /// Reads a pointer; null counts as not there.
    #[inline(always)]
    pub(crate) fn follow(self, offset: usize) -> Option<Self> {
        let pointer: u64 = self.read(offset)?;
        if pointer == 0 {
            None
        } else {
            Some(Self(pointer))
        }
    }

    /// Reads a one-bit field at a bit offset.
    #[inline(always)]
    pub(crate) fn bit(self, bit: usize) -> Option<bool> {
        let byte: u8 = self.read(bit >> 3)?;
        Some((byte >> (bit & 7)) & 1 != 0)
    }
}
