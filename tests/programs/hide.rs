//! Images that hide: behind a name that is not theirs, a file that has another
//! name or none, another root, another process's id.
//!
//! | module | what hides the image |
//! | --- | --- |
//! | [`lie`] | what the process says of itself |
//! | [`place`] | the file, or the way to it |
//! | [`pid`] | an id that another had before |
//! | [`script`] | an interpreter |
//!
//! The hidden image ([`image`]) connects to a process that is not hidden
//! (`crate::hand::peer`). Each ends with the two lines of that connection
//! ([`procid_tests::way`]), after the hidden image's own account of its
//! executable has been held to the file that was run.

pub(crate) mod image;
mod lie;
mod pid;
mod place;
pub(crate) mod script;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use procid_tests::{
    truth::{FileId, print_line},
    way::Flow,
};

use crate::hand::{child::Running, peer::Peer};

#[derive(Debug, clap::Args)]
pub(crate) struct Hide {
    /// What hides the image
    #[arg(value_enum)]
    behind: Behind,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Behind {
    /// PR_SET_NAME
    Comm,
    /// Other words in the memory of its arguments
    Argv,
    /// PR_SET_MM_MAP with another executable
    SetMmExe,
    /// Another program is renamed to the path of the running one
    RenamedOver,
    /// A file in memory
    Memfd,
    /// A deleted file
    FexecveDeleted,
    /// A second name of the file
    HardLink,
    /// The file over another, in a mount namespace
    BindMount,
    /// A layer of an overlay, in a mount namespace
    Overlay,
    /// Another root directory
    Chroot,
    /// Five programs before it in the same process
    ExecChain,
    /// An exec by a thread that does not lead its process
    ThreadExec,
    /// Another user
    OtherUser,
    /// Namespaces and a root of its own
    Container,
    /// A process id that comes round again
    PidReuse,
    /// A process id that is asked for again
    PidChosen,
    /// A script that names its interpreter, which is this program
    ScriptShebang,
    /// A script that names bash
    ScriptShebangBash,
    /// A script that its interpreter was given, which is bash
    ScriptArgument,
    /// The same, which is python
    ScriptPython,
}

impl Hide {
    pub(crate) fn run(self) -> Result<()> {
        match self.behind {
            Behind::Comm => lie::told(image::Lie::Comm),
            Behind::Argv => lie::told(image::Lie::Argv),
            Behind::SetMmExe => lie::told(image::Lie::MmExe),
            Behind::RenamedOver => place::renamed_over(),
            Behind::Memfd => place::memfd(),
            Behind::FexecveDeleted => place::fexecve_deleted(),
            Behind::HardLink => place::hard_link(),
            Behind::BindMount => place::bind_mount(),
            Behind::Overlay => place::overlay(),
            Behind::Chroot => place::chroot(),
            Behind::ExecChain => place::exec_chain(),
            Behind::ThreadExec => place::thread_exec(),
            Behind::OtherUser => place::other_user(),
            Behind::Container => place::container(),
            Behind::PidReuse => pid::comes_round(),
            Behind::PidChosen => pid::chosen(),
            Behind::ScriptShebang => script::shebang(),
            Behind::ScriptShebangBash => script::shebang_bash(),
            Behind::ScriptArgument => script::argument(),
            Behind::ScriptPython => script::python(),
        }
    }
}

/// Takes the line of a hidden image that runs `file`, and the other end's.
fn told(running: Running, file: &FileId, peer: Peer) -> Result<()> {
    let flow: Flow = running.only_line()?;
    let said = &flow.actor.exe;
    ensure!(said == file, "{said:?} connected, not {file:?}");
    print_line(&flow)?;
    peer.agrees_with(&flow)
}
