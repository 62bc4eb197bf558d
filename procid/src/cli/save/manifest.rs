//! What was saved, and how sure it is.

use std::collections::BTreeMap;

use serde::Serialize;

use super::folder::Saved;
use crate::records::Record;

/// `manifest.json`, written last.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Manifest {
    /// RFC 3339.
    pub saved: String,
    /// Of procid.
    pub version: String,
    pub entity_id: String,
    pub pid: u32,
    /// The path that the kernel gives for what runs; `(deleted)` is its word.
    pub link: String,
    pub recorded: Recorded,
    /// In what the copy is not what was recorded, a sentence each.
    pub differs: Vec<String>,
    /// Connections that it opened, accepted or used, as far as they are known.
    pub connections: usize,
    pub files: Vec<Saved>,
    /// What is missing: name → why.
    pub not_saved: BTreeMap<String, String>,
}

/// What the agent had recorded of the file.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Recorded {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// How that is known, or why it is not.
    pub hash: String,
}

/// The copy.
#[derive(Clone, Debug)]
pub struct Image {
    pub inode: u64,
    pub sha256: String,
}

/// What it is to be.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    inode: Option<u64>,
    sha256: Option<String>,
    hash: String,
}

impl Expected {
    pub fn of(record: &Record) -> Self {
        let process = record.process.as_deref();
        let procid = record.procid.as_deref();
        let state = procid.and_then(|procid| procid.hash.as_ref());
        let exe = procid.and_then(|procid| procid.exe.as_ref());
        Self {
            inode: exe.and_then(|exe| exe.inode.parse().ok()),
            sha256: process
                .and_then(|process| process.hash.as_ref())
                .map(|hash| hash.sha256.clone()),
            hash: state.map_or_else(
                || "none".to_owned(),
                |state| state.reason.clone().unwrap_or_else(|| state.grade.clone()),
            ),
        }
    }
}

impl Manifest {
    /// Notes in what the copy is not what was recorded.
    pub fn compare(&mut self, image: &Image, expected: &Expected) {
        self.not_saved.insert(
            "environment".to_owned(),
            "it holds secrets; read /proc/PID/environ by hand where the case needs it".to_owned(),
        );
        if let Some(inode) = expected.inode
            && inode != image.inode
        {
            self.differs.push(format!(
                "what runs is inode {}, and inode {inode} was recorded at exec: the process has \
                 changed its link (PR_SET_MM_EXE_FILE), or its file system gives two numbers",
                image.inode
            ));
        }
        if let Some(sha256) = &expected.sha256
            && *sha256 != image.sha256
        {
            self.differs.push(format!(
                "the copy's SHA-256 is {}, and {sha256} was recorded: the file has changed since, \
                 or is another one",
                image.sha256
            ));
        }
        self.recorded = Recorded {
            sha256: expected.sha256.clone(),
            hash: expected.hash.clone(),
        };
    }

    pub fn missing(&mut self, name: &str, why: &str) {
        self.not_saved.insert(name.to_owned(), why.to_owned());
    }

    /// The copy's hash, and what it is worth.
    pub fn verdict(&self) -> String {
        let copy = self.files.iter().find(|file| file.name == "exe");
        let copy = copy.map_or("", |file| &file.sha256);
        match &self.recorded.sha256 {
            Some(recorded) if recorded == copy => {
                format!("{copy}, as recorded ({})", self.recorded.hash)
            }
            Some(_) => format!("{copy}, which is NOT what was recorded"),
            None => format!("{copy}; none was recorded ({})", self.recorded.hash),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(inode: u64, sha256: Option<&str>) -> Expected {
        Expected {
            inode: Some(inode),
            sha256: sha256.map(str::to_owned),
            hash: "verified".to_owned(),
        }
    }

    fn compared(expected: &Expected) -> Manifest {
        let mut manifest = Manifest::default();
        let image = Image {
            inode: 7,
            sha256: "aa".to_owned(),
        };
        manifest.compare(&image, expected);
        manifest.files.push(Saved {
            name: "exe".to_owned(),
            bytes: 1,
            sha256: image.sha256,
        });
        manifest
    }

    #[test]
    fn a_copy_that_is_something_else_is_said_to_be() {
        let same = compared(&expected(7, Some("aa")));
        assert_eq!(same.differs, [""; 0]);
        assert_eq!(same.verdict(), "aa, as recorded (verified)");
        let unknown = compared(&expected(7, None));
        assert_eq!(unknown.differs, [""; 0]);
        assert_eq!(unknown.verdict(), "aa; none was recorded (verified)");
        let other = compared(&expected(8, Some("bb")));
        assert_eq!(other.differs.len(), 2);
        assert!(other.differs[0].contains("inode 7, and inode 8"));
        assert!(other.differs[1].contains("aa, and bb was recorded"));
        assert!(other.verdict().contains("NOT"));
        assert!(other.not_saved.contains_key("environment"));
    }
}
