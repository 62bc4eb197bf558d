//! `procid ps`: the process images that run now.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Write},
};

use super::{
    AgentSocket,
    failure::{Code, Failure},
    output::printable,
};
use crate::{
    api::client::Client,
    records::{Process, Record, User},
};

/// Digits of a hash, and of a container's id, that a line has room for; `--json`
/// has them all.
const HASH_DIGITS: usize = 12;
/// Characters of a user's name that a line has room for; a longer one's number is
/// given.
const USER: usize = 8;

/// List the process images that run now, each with its file and hash.
///
/// GRADE says how the hash is known, or why it is not. SOCKETS are the open
/// connections that the image has opened, accepted or used. WITHIN is the pod, the
/// container or the systemd unit that it is in. Exit code 4 when no agent answers.
#[derive(Debug, clap::Args)]
pub struct Ps {
    /// Under the image that forked each.
    #[arg(long)]
    tree: bool,
    /// Records as NDJSON, the last line saying what they cover.
    #[arg(long, conflicts_with = "tree")]
    json: bool,
    #[command(flatten)]
    socket: AgentSocket,
}

impl Ps {
    pub(super) fn execute(self) -> Result<Code, Failure> {
        let records = super::runtime()?.block_on(ask(&Client::new(self.socket.socket)))?;
        let mut out = io::BufWriter::new(io::stdout().lock());
        let written = if self.json {
            json(&records, &mut out)
        } else {
            table(&records, self.tree, &mut out)
        };
        written
            .and_then(|()| out.flush())
            .map_err(|error| Failure::of_stdout(&error))?;
        Ok(Code::Done)
    }
}

async fn ask(client: &Client) -> Result<Vec<Record>, Failure> {
    let mut answer = client.processes().await?;
    let mut records = Vec::new();
    while let Some(record) = answer.next().await? {
        records.push(record);
    }
    Ok(records)
}

fn json(records: &[Record], out: &mut impl Write) -> io::Result<()> {
    for record in records {
        serde_json::to_writer(&mut *out, record)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

fn table(records: &[Record], tree: bool, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "{:>7} {:>USER$} {:>7} {:<HASH_DIGITS$} {:<9} {:>15} {:<32} {:<20} IMAGE",
        "PID", "USER", "SOCKETS", "SHA256", "GRADE", "INODE", "ENTITY", "WITHIN"
    )?;
    let images: Vec<&Record> = records
        .iter()
        .filter(|record| record.process.is_some())
        .collect();
    let order = if tree {
        family(&images)
    } else {
        (0..images.len()).map(|at| (at, 0)).collect()
    };
    for (at, depth) in order {
        line(images[at], depth, out)?;
    }
    Ok(())
}

/// The images in the order of a tree, each with its depth: children after their
/// parent, in the order given. Whose parent is not there is at the root.
pub fn family(images: &[&Record]) -> Vec<(usize, usize)> {
    let places: HashMap<&str, usize> = images
        .iter()
        .enumerate()
        .filter_map(|(at, image)| Some((entity(image.process.as_deref()?)?, at)))
        .collect();
    let parent = |at: usize| {
        let parent = images[at].process.as_deref()?.parent.as_deref()?;
        places.get(entity(parent)?).copied()
    };
    let mut children: HashMap<usize, Vec<usize>> = HashMap::new();
    let mut ahead = Vec::new();
    for at in (0..images.len()).rev() {
        match parent(at) {
            Some(parent) if parent != at => children.entry(parent).or_default().push(at),
            _ => ahead.push((at, 0)),
        }
    }
    let mut order = Vec::with_capacity(images.len());
    let mut seen = HashSet::new();
    while let Some((at, depth)) = ahead.pop() {
        if !seen.insert(at) {
            continue;
        }
        order.push((at, depth));
        let below = children.remove(&at).unwrap_or_default();
        ahead.extend(below.into_iter().map(|child| (child, depth + 1)));
    }
    order
}

fn entity(process: &Process) -> Option<&str> {
    process.entity_id.as_deref()
}

fn line(record: &Record, depth: usize, out: &mut impl Write) -> io::Result<()> {
    let process = record.process.as_deref().cloned().unwrap_or_default();
    let procid = record.procid.as_deref().cloned().unwrap_or_default();
    let hash = process.hash.map_or_else(String::new, |hash| hash.sha256);
    let grade = procid
        .hash
        .map_or_else(String::new, |state| state.reason.unwrap_or(state.grade));
    let inode = procid
        .exe
        .map_or_else(String::new, |exe| format!("{}:{}", exe.dev, exe.inode));
    let image = process
        .executable
        .or(process.name)
        .unwrap_or_else(|| "?".to_owned());
    writeln!(
        out,
        "{:>7} {:>USER$} {:>7} {:<HASH_DIGITS$} {:<9} {:>15} {:<32} {:<20} {:width$}{}",
        process.pid.unwrap_or(0),
        printable(&process.user.map_or_else(String::new, user)),
        procid.sockets.unwrap_or(0),
        printable(hash.get(..HASH_DIGITS).unwrap_or(&hash)),
        printable(&grade),
        printable(&inode),
        printable(&process.entity_id.unwrap_or_default()),
        printable(&within(record)),
        "",
        printable(&image),
        width = 2 * depth,
    )
}

fn user(user: User) -> String {
    let name = user.name.filter(|name| name.chars().count() <= USER);
    name.unwrap_or(user.id)
}

/// The pod, container or unit that an image is in, or `-`.
fn within(record: &Record) -> String {
    if let Some(pod) = &record.orchestrator
        && let (Some(namespace), Some(name)) = (&pod.namespace, &pod.resource.name)
    {
        return format!("{namespace}/{name}");
    }
    if let Some(container) = &record.container {
        let runtime = container.runtime.as_deref().unwrap_or("container");
        let id = container.id.get(..HASH_DIGITS).unwrap_or(&container.id);
        return format!("{runtime}:{id}");
    }
    let unit = record.procid.as_ref().and_then(|it| it.unit.as_deref());
    unit.unwrap_or("-").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(entity: &str, parent: Option<&str>) -> Record {
        let process = |entity: &str| Process {
            entity_id: Some(entity.to_owned()),
            executable: Some(format!("/bin/{entity}")),
            ..Process::default()
        };
        Record {
            process: Some(Box::new(Process {
                parent: parent.map(|parent| Box::new(process(parent))),
                ..process(entity)
            })),
            ..Record::default()
        }
    }

    fn printed(records: &[Record], tree: bool) -> Vec<String> {
        let mut out = Vec::new();
        table(records, tree, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines = text.lines().skip(1);
        let lines: Vec<_> = lines
            .map(|line| (line.find("/bin").unwrap(), line))
            .collect();
        let root = lines.iter().map(|(at, _)| *at).min().unwrap_or(0);
        let indented = |(at, line): &(usize, &str)| " ".repeat(at - root) + &line[*at..];
        lines.iter().map(indented).collect()
    }

    #[test]
    fn children_stand_below_who_forked_them() {
        let records = [
            image("init", None),
            image("sshd", Some("init")),
            image("cron", Some("init")),
            image("shell", Some("sshd")),
            // Its parent has ended.
            image("orphan", Some("gone")),
        ];
        let tree = [
            "/bin/init",
            "  /bin/sshd",
            "    /bin/shell",
            "  /bin/cron",
            "/bin/orphan",
        ];
        assert_eq!(printed(&records, true), tree);
        let list = ["init", "sshd", "cron", "shell", "orphan"];
        assert_eq!(
            printed(&records, false),
            list.map(|name| format!("/bin/{name}"))
        );
    }

    #[test]
    fn a_line_says_where_an_image_is() {
        let json = serde_json::json!({
            "process": {"user": {"id": "1000", "name": "alice"}},
            "procid": {"unit": "docker.service"}
        });
        let mut record: Record = serde_json::from_value(json).unwrap();
        assert_eq!(within(&record), "docker.service");
        assert_eq!(within(&Record::default()), "-");
        record.container = Some(crate::records::Container {
            id: "c0ffeec0ffeec0ffee".to_owned(),
            runtime: None,
        });
        assert_eq!(within(&record), "container:c0ffeec0ffee");
        let json = serde_json::json!({"namespace": "shop", "resource": {"id": "u", "name": "web"}});
        record.orchestrator = serde_json::from_value(json).unwrap();
        assert_eq!(within(&record), "shop/web");
        let of = |name: &str| {
            user(User {
                id: "1000".to_owned(),
                name: Some(name.to_owned()),
            })
        };
        assert_eq!(
            (of("alice"), of("a-long-name")),
            ("alice".to_owned(), "1000".to_owned())
        );
    }

    /// What an agent cannot say, and a text might.
    #[test]
    fn a_ring_of_parents_ends() {
        let records = [image("a", Some("b")), image("b", Some("a"))];
        assert!(printed(&records, true).len() <= 2);
        let own = [image("a", Some("a"))];
        assert_eq!(printed(&own, true), ["/bin/a"]);
    }
}
