//! Writes manual pages and shell completions, made from the command line's
//! definition.
//!
//! `cargo run -p procid --example pages -- DIRECTORY`, which `cargo xtask dist`
//! does. The program itself is the smaller for not holding this.

use std::{
    error::Error,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

/// The section of commands that only root can use in full.
const SECTION: &str = "8";

fn main() -> Result<(), Box<dyn Error>> {
    let directory: PathBuf = std::env::args_os()
        .nth(1)
        .ok_or("give a directory to write to")?
        .into();
    let (manual, completions) = (directory.join("man8"), directory.join("completions"));
    fs::create_dir_all(&manual)?;
    fs::create_dir_all(&completions)?;
    let mut command = procid::cli::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command.clone(), "procid", &completions)?;
    }
    // Every command has --help; a page for each `help` would say it again.
    command = command.disable_help_subcommand(true);
    command.build();
    pages(command, &manual)?;
    Ok(())
}

/// A page for `command`, and one for each command below that is not hidden.
fn pages(command: Command, directory: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|it| !it.is_hide_set()) {
        pages(below.clone(), directory)?;
    }
    let page = Man::new(command)
        .section(SECTION)
        .source(concat!("procid ", env!("CARGO_PKG_VERSION")))
        .manual("procid");
    page.render(&mut File::create(directory.join(page.get_filename()))?)
}
