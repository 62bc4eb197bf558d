//! An initial ramdisk in cpio's "newc" format, the one the kernel unpacks:
//! <https://docs.kernel.org/driver-api/early-userspace/buffer-format.html>.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

const DIRECTORY: u32 = 0o040_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const REGULAR: u32 = 0o100_000;

/// An archive that is being written. Everything in it belongs to root; the
/// directories above an entry are made with it.
#[derive(Debug)]
pub(crate) struct Initramfs {
    out: BufWriter<File>,
    /// Also the inode numbers: the count of entries written.
    entries: u32,
    /// Paths written, without the leading slash.
    written: BTreeSet<PathBuf>,
}

impl Initramfs {
    /// Starts an archive in the new file `path`.
    ///
    /// # Errors
    ///
    /// When the file cannot be made.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        Ok(Self {
            out: BufWriter::new(file),
            entries: 0,
            written: BTreeSet::new(),
        })
    }

    /// Adds an empty directory.
    ///
    /// # Errors
    ///
    /// When writing fails.
    pub(crate) fn directory(&mut self, path: &str, mode: u32) -> Result<()> {
        self.parents(Path::new(path))?;
        self.entry(Path::new(path), DIRECTORY | mode, (0, 0), &[])
    }

    /// Adds a character device.
    ///
    /// # Errors
    ///
    /// When writing fails.
    pub(crate) fn character_device(&mut self, path: &str, device: (u32, u32)) -> Result<()> {
        self.parents(Path::new(path))?;
        self.entry(Path::new(path), CHARACTER_DEVICE | 0o600, device, &[])
    }

    /// Adds a file with `content`.
    ///
    /// # Errors
    ///
    /// When writing fails.
    pub(crate) fn file(&mut self, path: impl AsRef<Path>, mode: u32, content: &[u8]) -> Result<()> {
        self.parents(path.as_ref())?;
        self.entry(path.as_ref(), REGULAR | mode, (0, 0), content)
    }

    /// Adds the host's file `from`, and, when it is a dynamic executable, the
    /// libraries it is linked with, at the host's paths.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, or a library is missing on this host.
    pub(crate) fn host_file(&mut self, from: &Path, to: impl AsRef<Path>) -> Result<()> {
        self.copy(from, to.as_ref())?;
        for library in libraries(from)? {
            self.copy(&library, &library)?;
        }
        Ok(())
    }

    /// Ends the archive.
    ///
    /// # Errors
    ///
    /// When writing fails.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.entry(Path::new("TRAILER!!!"), 0, (0, 0), &[])?;
        self.out.flush().context("writing the initramfs")
    }

    fn copy(&mut self, from: &Path, to: &Path) -> Result<()> {
        let name = || from.display().to_string();
        let content = fs::read(from).with_context(name)?;
        let mode = fs::metadata(from).with_context(name)?.permissions().mode() & 0o7777;
        self.file(to, mode, &content)
    }

    fn parents(&mut self, path: &Path) -> Result<()> {
        let mut above: Vec<_> = path.ancestors().skip(1).collect();
        above.reverse();
        for dir in above {
            if dir
                .components()
                .any(|part| matches!(part, std::path::Component::Normal(_)))
            {
                self.entry(dir, DIRECTORY | 0o755, (0, 0), &[])?;
            }
        }
        Ok(())
    }

    /// Writes one entry, unless its path was written before: the first wins.
    fn entry(&mut self, path: &Path, mode: u32, device: (u32, u32), content: &[u8]) -> Result<()> {
        let path = path.strip_prefix("/").unwrap_or(path);
        if !self.written.insert(path.to_owned()) {
            return Ok(());
        }
        self.entries += 1;
        let written = self.write_entry(path, mode, device, content);
        written.with_context(|| format!("writing {} to the initramfs", path.display()))
    }

    fn write_entry(
        &mut self,
        path: &Path,
        mode: u32,
        device: (u32, u32),
        content: &[u8],
    ) -> io::Result<()> {
        let too_large = |_| io::Error::other("larger than the format allows");
        let name = path.as_os_str().as_bytes();
        let links = 1;
        let header = [
            self.entries,
            mode,
            0, // uid
            0, // gid
            links,
            0, // mtime
            u32::try_from(content.len()).map_err(too_large)?,
            0, // the device it lies on, major
            0, // and minor
            device.0,
            device.1,
            u32::try_from(name.len() + 1).map_err(too_large)?,
            0, // checksum, in another format
        ];
        write!(self.out, "070701")?;
        for field in header {
            write!(self.out, "{field:08x}")?;
        }
        let header_length = 6 + 8 * header.len();
        self.out.write_all(name)?;
        self.out.write_all(&[0])?;
        self.pad(header_length + name.len() + 1)?;
        self.out.write_all(content)?;
        self.pad(content.len())
    }

    /// Fills up to a multiple of four after `length` bytes.
    fn pad(&mut self, length: usize) -> io::Result<()> {
        self.out.write_all(&[0; 3][..length.wrapping_neg() % 4])
    }
}

/// The shared libraries, loader included, that `file` is linked with; none for
/// a static executable, a script or data.
fn libraries(file: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd")
        .arg(file)
        .env("LC_ALL", "C")
        .output()
        .context("cannot start ldd")?;
    if !output.status.success() {
        return Ok(Vec::new());
    }
    parse_ldd(&String::from_utf8_lossy(&output.stdout)).with_context(|| file.display().to_string())
}

fn parse_ldd(output: &str) -> Result<Vec<PathBuf>> {
    let mut libraries = Vec::new();
    for line in output.lines().map(str::trim) {
        if let Some(name) = line.strip_suffix(" => not found") {
            bail!("needs the library {name}, which is not on this host");
        }
        let path = line.split(" => ").last().unwrap_or_default();
        if let Some((path, _address)) = path.split_once(" (")
            && path.starts_with('/')
        {
            libraries.push(path.into());
        }
    }
    Ok(libraries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_s_lines_are_understood() {
        let output = "\tlinux-vdso.so.1 (0x00007ffd)\n\
            \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(parse_ldd(output).unwrap(), expected.map(PathBuf::from));
        let none = parse_ldd("\tstatically linked\n").unwrap();
        assert!(none.is_empty());
        parse_ldd("\tlibodd.so.1 => not found\n").unwrap_err();
    }

    #[test]
    fn an_archive_is_laid_out_as_the_kernel_reads_it() {
        let path = std::env::temp_dir().join(format!("procid-newc-{}", std::process::id()));
        let mut archive = Initramfs::create(&path).unwrap();
        archive.file("/a/b", 0o644, b"hello").unwrap();
        archive.file("/a/b", 0o644, b"again").unwrap();
        archive.character_device("/a/console", (5, 1)).unwrap();
        archive.finish().unwrap();
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let found = read_archive(&bytes);
        let expected: [(&str, u32, &[u8]); 4] = [
            ("a", 0o040_755, b""),
            ("a/b", 0o100_644, b"hello"),
            ("a/console", 0o020_600, b""),
            ("TRAILER!!!", 0, b""),
        ];
        assert_eq!(
            found,
            expected.map(|(n, m, c)| (n.to_owned(), m, c.to_vec()))
        );
    }

    /// Names, modes and contents, read by the letter of the format.
    fn read_archive(bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |index: usize| {
                let digits = &bytes[at + 6 + 8 * index..at + 14 + 8 * index];
                u32::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = &bytes[at + 110..at + 110 + name_size - 1];
            let content = (at + 110 + name_size).next_multiple_of(4);
            entries.push((
                String::from_utf8(name.to_vec()).unwrap(),
                mode,
                bytes[content..content + size].to_vec(),
            ));
            at = (content + size).next_multiple_of(4);
        }
        entries
    }
}
