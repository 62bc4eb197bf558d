//! One program under other names, mounts and none.

use std::{
    ffi::CString,
    fs,
    path::{Path, PathBuf},
};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

use crate::{listener, scratch::Image, stage::Stage, unseen::denies};

/// How a copy of a program is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    Renamed,
    HardLink,
    BindMount,
    /// A lower layer, through the overlay.
    Overlay,
    /// A copy in memory, which the program makes and runs.
    Memfd,
}

/// A copy of the program, reached so; its mounts go with it.
struct Named {
    path: PathBuf,
    before: &'static [&'static str],
    mounted: Option<PathBuf>,
}

impl Name {
    fn of(self, image: &Image, place: &Path) -> Named {
        let copied = place.join("copied");
        fs::copy(&image.path, &copied).expect("a copy");
        let mut named = Named {
            path: place.join("named"),
            before: &[],
            mounted: None,
        };
        match self {
            Self::Renamed => fs::rename(&copied, &named.path).expect("a name"),
            Self::HardLink => fs::hard_link(&copied, &named.path).expect("a link"),
            Self::BindMount => {
                fs::copy("/bin/true", &named.path).expect("another program");
                mount_bind(&copied, &named.path).expect("a bind mount");
                named.mounted = Some(named.path.clone());
            }
            Self::Overlay => {
                let layers = ["lower", "upper", "work", "merged"].map(|layer| place.join(layer));
                layers
                    .iter()
                    .for_each(|layer| fs::create_dir(layer).expect("a directory"));
                let [lower, upper, work, merged] = layers;
                fs::rename(&copied, lower.join("named")).expect("a name");
                let options = format!(
                    "lowerdir={},upperdir={},workdir={}\0",
                    lower.display(),
                    upper.display(),
                    work.display()
                );
                let options = CString::from_vec_with_nul(options.into_bytes());
                let options = options.expect("a path has no zero byte");
                mount(
                    "overlay",
                    &merged,
                    "overlay",
                    MountFlags::empty(),
                    &*options,
                )
                .expect("an overlay");
                named.path = merged.join("named");
                named.mounted = Some(merged);
            }
            Self::Memfd => {
                named.path = copied;
                named.before = &["memfd", "--", "copy"];
            }
        }
        named
    }
}

impl Named {
    /// What its connect returns.
    fn connect(&self, stage: &Stage, to: &listener::Tcp) -> Option<i32> {
        let to = to.address().to_string();
        let arguments = [self.before, &["connect", "--to", &to]].concat();
        let acts = stage.start_file(&self.path, arguments).finish().acts;
        assert_eq!(acts.len(), 1);
        acts[0].error
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        if let Some(mounted) = &self.mounted {
            // A test that fails has said why already.
            let _busy = unmount(mounted, UnmountFlags::DETACH);
        }
    }
}

/// A program that its hash denies is denied at its first connect under each of
/// these names, and another one connects.
///
/// # Panics
///
/// When it is not so.
pub fn change_nothing(stage: &Stage, place: &Path, names: &[Name]) {
    let to = listener::Tcp::on("127.0.0.1:0");
    let denied = Image::copy_to(&stage.scratch.path().join("denied"));
    let control = Image::copy_to(&stage.scratch.path().join("control"));
    let expected = [
        ("allow", &denied, Some(libc::EPERM)),
        ("deny", &control, None),
    ];
    for (unknown, image, expected) in expected {
        // What is mounted after the gate stands it sees a moment later.
        let all: Vec<_> = names
            .iter()
            .map(|name| {
                let place = place.join(format!("{unknown}-{name:?}"));
                fs::create_dir(&place).expect("a directory");
                name.of(image, &place)
            })
            .collect();
        stage.apply(&denies(&denied, to.address().port(), unknown), &[]);
        for (name, named) in names.iter().zip(&all) {
            let error = named.connect(stage, &to);
            assert_eq!(error, expected, "{name:?}, unknown_hash = {unknown}");
        }
    }
}
