//! Debian packages that are unpacked, not installed.
//!
//! A private apt configuration names the suites wanted; the mirror, its proxy
//! and its credentials are those of this machine's own apt. Nothing here needs
//! root and nothing of the system's package state changes.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{host, process};

/// The architecture of packages that are not `all`.
const ARCHITECTURE: &str = "amd64";

/// One suite of the Debian archive (`bookworm`, `trixie-backports`), by the
/// directory that holds apt's configuration and state for it.
#[derive(Debug)]
pub(crate) struct Suite {
    dir: PathBuf,
}

impl Suite {
    /// Fetches the suite's package index.
    ///
    /// # Errors
    ///
    /// When this machine has no apt, its apt knows no Debian mirror, or the
    /// mirror does not give the suite.
    pub(crate) fn fetch(name: &str) -> Result<Self> {
        let suite = Self {
            dir: host::cache_dir()?.join("apt").join(name),
        };
        let mirror = mirror()?;
        for dir in ["lists/partial", "cache/archives/partial"] {
            let dir = suite.dir.join(dir);
            fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        }
        fs::write(suite.dir.join("status"), "")?;
        fs::write(
            suite.dir.join("sources.list"),
            format!(
                "deb [arch={ARCHITECTURE}{}] {mirror} {name} main\n",
                keyring()
            ),
        )?;
        process::retry(format!("fetching Debian's {name} index"), || {
            process::capture(suite.apt("apt-get").arg("update"))
        })?;
        Ok(suite)
    }

    /// The names of the suite's packages that match the extended regular
    /// expression `pattern`.
    ///
    /// # Errors
    ///
    /// When apt-cache fails.
    pub(crate) fn packages(&self, pattern: &str) -> Result<Vec<String>> {
        let found =
            process::capture(
                self.apt("apt-cache")
                    .args(["search", "--names-only", pattern]),
            )?;
        let names = found.lines().filter_map(|line| line.split(' ').next());
        Ok(names.map(str::to_owned).collect())
    }

    /// The versions the suite has of `package`.
    ///
    /// # Errors
    ///
    /// When apt-cache fails.
    pub(crate) fn versions(&self, package: &str) -> Result<Vec<String>> {
        let table = process::capture(self.apt("apt-cache").args(["madison", package]))?;
        let versions = table.lines().filter_map(|line| line.split('|').nth(1));
        Ok(versions.map(|version| version.trim().to_owned()).collect())
    }

    /// Downloads `package` (`name` or `name=version`) and unpacks it under
    /// `into`, which is made anew.
    ///
    /// # Errors
    ///
    /// When the download, after retries, or dpkg fails.
    pub(crate) fn unpack(&self, package: &str, into: &Path) -> Result<()> {
        if into.exists() {
            fs::remove_dir_all(into).with_context(|| into.display().to_string())?;
        }
        fs::create_dir_all(into).with_context(|| into.display().to_string())?;
        process::retry(format!("downloading {package}"), || {
            let mut download = self.apt("apt-get");
            process::capture(download.args(["download", package]).current_dir(into))
        })?;
        let deb = fs::read_dir(into)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .with_context(|| format!("apt-get left no package file for {package}"))?;
        process::capture(Command::new("dpkg").arg("-x").arg(&deb).arg(into))?;
        fs::remove_file(&deb).with_context(|| deb.display().to_string())
    }

    /// `tool` under the private configuration.
    fn apt(&self, tool: &str) -> Command {
        let mut command = Command::new(tool);
        let dir = self.dir.display();
        for option in [
            format!("Dir::Etc::SourceList={dir}/sources.list"),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            "Dir::Etc::Preferences=/dev/null".to_owned(),
            "Dir::Etc::PreferencesParts=/dev/null".to_owned(),
            format!("Dir::State={dir}"),
            format!("Dir::State::status={dir}/status"),
            format!("Dir::Cache={dir}/cache"),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=3".to_owned(),
            "APT::Update::Error-Mode=any".to_owned(),
            // The cache may be where the user _apt cannot write.
            "APT::Sandbox::User=root".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command.env("LC_ALL", "C.UTF-8");
        command
    }
}

/// The Debian mirror that this machine's apt uses, or `$PROCID_DEBIAN_MIRROR`.
///
/// # Errors
///
/// When this machine has no apt, or its apt knows no mirror.
pub(crate) fn mirror() -> Result<String> {
    const VARIABLE: &str = "PROCID_DEBIAN_MIRROR";
    if let Ok(mirror) = env::var(VARIABLE) {
        return Ok(mirror);
    }
    if host::find_program("apt-get").is_none() {
        bail!("this machine has no apt to download Debian packages with");
    }
    let targets = process::capture(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(LABEL)|$(REPO_URI)",
        "Created-By: Packages",
    ]))?;
    // The security archive has a label of its own and only some of the suites.
    let mirrors: BTreeSet<&str> = targets
        .lines()
        .filter_map(|line| line.strip_prefix("Debian|"))
        .collect();
    mirrors.first().map(|mirror| (*mirror).to_owned()).with_context(|| {
        format!(
            "this machine's apt knows no Debian mirror (run `apt-get update` as root, or name one in {VARIABLE})"
        )
    })
}

/// The `signed-by` option, where Debian's keys lie beside apt's own.
fn keyring() -> String {
    ["gpg", "pgp"]
        .map(|end| format!("/usr/share/keyrings/debian-archive-keyring.{end}"))
        .into_iter()
        .find(|file| Path::new(file).exists())
        .map(|file| format!(" signed-by={file}"))
        .unwrap_or_default()
}
