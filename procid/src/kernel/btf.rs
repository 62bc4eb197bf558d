//! Offsets of kernel fields, from the running kernel's own description (BTF).
//!
//! aya parses BTF but keeps the types to itself, and the reader crates on
//! hand are copyleft; what is needed is a walk over one section.
//! Format: <https://docs.kernel.org/bpf/btf.html>.

use std::collections::HashMap;

use procid_common::offsets::{ABSENT, FIELDS, Field, Need, Offsets};
use zerocopy::{FromBytes, IntoBytes};

const MAGIC: u16 = 0xeb9f;
const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;
/// Chains of typedefs and nested anonymous members end well before this.
const DEPTH_MAX: u32 = 32;

/// Why the offsets could not be found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    #[error("the kernel's BTF is damaged: {0}")]
    Damaged(&'static str),
    #[error("this kernel's BTF has no `struct {0}`")]
    NoStructure(&'static str),
    #[error("this kernel's `struct {structure}` has no field `{field}`")]
    NoField {
        structure: &'static str,
        field: String,
    },
}

#[derive(Clone, Copy)]
struct Type {
    name: u32,
    info: u32,
    size_or_type: u32,
    /// Offset of what follows the type's three words.
    data: usize,
}

impl Type {
    fn kind(self) -> u32 {
        (self.info >> 24) & 0x1f
    }

    fn members(self) -> usize {
        (self.info & 0xffff) as usize
    }

    /// Whether member offsets carry a bit-field size in their top byte.
    fn has_bit_fields(self) -> bool {
        self.info >> 31 != 0
    }
}

/// A parsed BTF blob.
pub struct KernelTypes<'a> {
    bytes: &'a [u8],
    strings: &'a [u8],
    /// Index 0 is `void`.
    types: Vec<Type>,
    structures: HashMap<&'a [u8], u32>,
}

impl std::fmt::Debug for KernelTypes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelTypes")
            .field("types", &self.types.len())
            .finish_non_exhaustive()
    }
}

fn word(bytes: &[u8], at: usize) -> Result<u32, BtfError> {
    let end = at.checked_add(4).ok_or(BtfError::Damaged("offset"))?;
    let slice = bytes
        .get(at..end)
        .ok_or(BtfError::Damaged("it ends early"))?;
    u32::read_from_bytes(slice).map_err(|_| BtfError::Damaged("it ends early"))
}

/// Of two bit offsets.
fn sum(one: u32, other: u32) -> Result<u32, BtfError> {
    one.checked_add(other)
        .ok_or(BtfError::Damaged("a member lies too far in its structure"))
}

impl<'a> KernelTypes<'a> {
    /// Indexes a BTF blob, such as `/sys/kernel/btf/vmlinux`.
    ///
    /// # Errors
    ///
    /// A blob that is not BTF of this machine's byte order, or cut short.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        let first = word(bytes, 0)?;
        if first & 0xffff != u32::from(MAGIC) {
            return Err(BtfError::Damaged("it does not start with BTF's magic"));
        }
        let header_len = word(bytes, 4)? as usize;
        let section = |at: usize| -> Result<&'a [u8], BtfError> {
            let start = (word(bytes, at)? as usize).checked_add(header_len);
            let len = word(bytes, at + 4)? as usize;
            start
                .and_then(|start| bytes.get(start..start.checked_add(len)?))
                .ok_or(BtfError::Damaged("a section lies outside of it"))
        };
        let type_bytes = section(8)?;
        let strings = section(16)?;
        let mut this = Self {
            bytes: type_bytes,
            strings,
            types: vec![Type {
                name: 0,
                info: 0,
                size_or_type: 0,
                data: 0,
            }],
            structures: HashMap::new(),
        };
        this.index()?;
        Ok(this)
    }

    fn index(&mut self) -> Result<(), BtfError> {
        let mut at = 0;
        while at < self.bytes.len() {
            let entry = Type {
                name: word(self.bytes, at)?,
                info: word(self.bytes, at + 4)?,
                size_or_type: word(self.bytes, at + 8)?,
                data: at + 12,
            };
            let count = entry.members();
            at = entry.data
                + match entry.kind() {
                    KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
                    KIND_ARRAY => 12,
                    KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12 * count,
                    KIND_ENUM | KIND_FUNC_PROTO => 8 * count,
                    _ => 0,
                };
            if entry.kind() == KIND_STRUCT && entry.name != 0 {
                let id = u32::try_from(self.types.len())
                    .map_err(|_| BtfError::Damaged("too many types"))?;
                let name = self.string(entry.name)?;
                self.structures.entry(name).or_insert(id);
            }
            self.types.push(entry);
        }
        Ok(())
    }

    fn string(&self, at: u32) -> Result<&'a [u8], BtfError> {
        let rest = self
            .strings
            .get(at as usize..)
            .ok_or(BtfError::Damaged("a name lies outside of it"))?;
        let end = rest
            .iter()
            .position(|&byte| byte == 0)
            .ok_or(BtfError::Damaged("a name has no end"))?;
        Ok(&rest[..end])
    }

    fn get(&self, id: u32) -> Result<Type, BtfError> {
        self.types
            .get(id as usize)
            .copied()
            .ok_or(BtfError::Damaged("a type id lies outside of it"))
    }

    /// Follows typedefs and qualifiers.
    fn resolve(&self, mut id: u32) -> Result<Type, BtfError> {
        for _ in 0..DEPTH_MAX {
            let entry = self.get(id)?;
            match entry.kind() {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => {
                    id = entry.size_or_type;
                }
                _ => return Ok(entry),
            }
        }
        Err(BtfError::Damaged("a type that names itself"))
    }

    /// Bit offset and type of a member, through anonymous members.
    fn member(
        &self,
        owner: Type,
        wanted: &[u8],
        depth: u32,
    ) -> Result<Option<(u32, u32)>, BtfError> {
        if !matches!(owner.kind(), KIND_STRUCT | KIND_UNION) || depth == DEPTH_MAX {
            return Ok(None);
        }
        for index in 0..owner.members() {
            let at = owner.data + 12 * index;
            let name = self.string(word(self.bytes, at)?)?;
            let kind = word(self.bytes, at + 4)?;
            let mut bits = word(self.bytes, at + 8)?;
            if owner.has_bit_fields() {
                bits &= 0x00ff_ffff;
            }
            if name == wanted {
                return Ok(Some((bits, kind)));
            }
            if name.is_empty()
                && let Some((inner, kind)) = self.member(self.resolve(kind)?, wanted, depth + 1)?
            {
                return Ok(Some((sum(bits, inner)?, kind)));
            }
        }
        Ok(None)
    }

    fn structure(&self, name: &'static str) -> Result<Type, BtfError> {
        let id = self
            .structures
            .get(name.as_bytes())
            .ok_or(BtfError::NoStructure(name))?;
        self.get(*id)
    }

    /// Bit offset of a dotted member path.
    fn path(&self, structure: &'static str, path: &str) -> Result<Option<u32>, BtfError> {
        let mut owner = self.structure(structure)?;
        let mut total = 0;
        for part in path.split('.') {
            let Some((bits, kind)) = self.member(owner, part.as_bytes(), 0)? else {
                return Ok(None);
            };
            total = sum(total, bits)?;
            owner = self.resolve(kind)?;
        }
        Ok(Some(total))
    }

    fn offset(&self, field: &Field) -> Result<u32, BtfError> {
        if field.need == Need::Size {
            return Ok(self.structure(field.structure)?.size_or_type);
        }
        let optional = field.need == Need::Optional;
        for path in field.paths {
            match self.path(field.structure, path) {
                Ok(Some(bits)) if field.need == Need::Bit => return Ok(bits),
                Ok(Some(bits)) => return Ok(bits / 8),
                Ok(None) => {}
                Err(BtfError::NoStructure(_)) if optional => return Ok(ABSENT),
                Err(error) => return Err(error),
            }
        }
        if optional {
            return Ok(ABSENT);
        }
        Err(BtfError::NoField {
            structure: field.structure,
            field: field.paths.join("` or `"),
        })
    }

    /// The offsets of every field procid reads.
    ///
    /// # Errors
    ///
    /// The first structure or field that this kernel does not have.
    pub fn offsets(&self) -> Result<Offsets, BtfError> {
        let mut words = Vec::with_capacity(FIELDS.len());
        for field in FIELDS {
            words.push(self.offset(field)?);
        }
        Offsets::read_from_bytes(words.as_bytes())
            .map_err(|_| BtfError::Damaged("the table of fields"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_field_of_the_running_kernel() {
        let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else {
            eprintln!("skipped: this kernel has no BTF (CONFIG_DEBUG_INFO_BTF)");
            return;
        };
        let offsets = KernelTypes::parse(&bytes).unwrap().offsets().unwrap();
        // `struct sock` begins with `__sk_common`, whose first union is the
        // pair of addresses.
        assert_eq!(offsets.sock_daddr, 0);
        assert_eq!(offsets.sock_rcv_saddr, 4);
        assert_eq!(offsets.upid_size, 16);
        assert_ne!(offsets.task_tgid, offsets.task_pid);
    }

    #[test]
    fn names_the_field_that_is_missing() {
        // One structure, `sock`, with no members.
        let strings = b"\0sock\0";
        let mut types = Vec::new();
        for word in [1_u32, KIND_STRUCT << 24, 0] {
            types.extend_from_slice(word.as_bytes());
        }
        let blob = blob(&types, strings);
        let types = KernelTypes::parse(&blob).unwrap();
        let field = FIELDS
            .iter()
            .find(|field| field.name == "sock_err")
            .unwrap();
        assert_eq!(
            types.offset(field).unwrap_err().to_string(),
            "this kernel's `struct sock` has no field `sk_err`"
        );
        let field = FIELDS
            .iter()
            .find(|field| field.name == "task_pid")
            .unwrap();
        assert_eq!(
            types.offset(field).unwrap_err().to_string(),
            "this kernel's BTF has no `struct task_struct`"
        );
    }

    #[test]
    fn descends_into_anonymous_members_and_bit_fields() {
        // struct sock { int a; union { struct { u8 x:1, y:1; }; int b; }; }
        let strings = b"\0sock\0x\0y\0int\0";
        let mut types = Vec::new();
        let mut push = |words: &[u32]| {
            for word in words {
                types.extend_from_slice(word.as_bytes());
            }
        };
        push(&[10, KIND_INT << 24, 4, 32]); // 1: int
        push(&[0, KIND_STRUCT << 24 | 2 | 1 << 31, 4]); // 2: the inner struct
        push(&[6, 1, 1 << 24]); // x:1 at bit 0
        push(&[8, 1, 1 << 24 | 1]); // y:1 at bit 1
        push(&[0, KIND_UNION << 24 | 1, 4, 0, 2, 0]); // 3: union
        push(&[1, KIND_STRUCT << 24 | 1, 8, 0, 3, 32]); // 4: sock
        let blob = blob(&types, strings);
        let parsed = KernelTypes::parse(&blob).unwrap();
        assert_eq!(parsed.path("sock", "y").unwrap(), Some(33));
        assert_eq!(parsed.path("sock", "z").unwrap(), None);
    }

    /// Found by fuzzing.
    #[test]
    fn a_member_that_lies_too_far_is_damage() {
        // struct sock { struct sock; int a; }, where the first lies at the end of
        // all addresses.
        let mut types = Vec::new();
        for word in [10, KIND_INT << 24, 4, 32, 1, KIND_STRUCT << 24 | 2, 8] {
            types.extend_from_slice(u32::as_bytes(&word));
        }
        for word in [0, 2, 0xaaaa_aaaa, 6, 1, 32] {
            types.extend_from_slice(u32::as_bytes(&word));
        }
        let blob = blob(&types, b"\0sock\0a\0\0int\0");
        let parsed = KernelTypes::parse(&blob).unwrap();
        assert!(matches!(
            parsed.path("sock", "a"),
            Err(BtfError::Damaged(_))
        ));
    }

    fn blob(types: &[u8], strings: &[u8]) -> Vec<u8> {
        let mut blob = Vec::new();
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
        for word in [
            u32::from(MAGIC) | 1 << 16,
            24,
            0,
            len(types),
            len(types),
            len(strings),
        ] {
            blob.extend_from_slice(word.as_bytes());
        }
        blob.extend_from_slice(types);
        blob.extend_from_slice(strings);
        blob
    }

    proptest::proptest! {
        #[test]
        fn damaged_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
            if let Ok(types) = KernelTypes::parse(&bytes) {
                let _ = types.offsets();
            }
            let mut framed = blob(&bytes, b"\0task_struct\0pid\0");
            if let Ok(types) = KernelTypes::parse(&framed) {
                let _ = types.offsets();
            }
            framed.truncate(framed.len() / 2);
            let _ = KernelTypes::parse(&framed).map(|types| types.offsets());
        }
    }
}
