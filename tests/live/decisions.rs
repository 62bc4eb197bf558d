//! The programs in the kernel decide as a plain reading of the policy does.

use std::{
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

use fastrand::Rng;
use procid::{
    api::accounts::Accounts,
    policy::{
        ExeFacts, Facts, ImageFacts, InRoot, Inode, Policy, Role, Transport, reference::evaluate,
        text::parse,
    },
};
use procid_tests::{
    cgroup::v2_root,
    program::Program,
    records::{Records, text},
    scratch::Image,
    stage::Stage,
    truth::{self, Act},
};

pub(super) const EPERM: i32 = 1;
/// So many policies, each asked by so many processes, of so many destinations.
const POLICIES: usize = 40;
const PROCESSES: usize = 4;
const DESTINATIONS: usize = 20;
pub(super) const USERS: [u32; 3] = [0, 7, 65_534];
/// The container that some of them are in.
const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// What rules ask of and acts are made of: so little that they often meet.
pub(super) struct World<'a> {
    pub(super) random: Rng,
    pub(super) stage: &'a Stage,
    pub(super) images: [&'a Image; 2],
    /// A container's root, and what it has at the paths of those.
    pub(super) container: Option<(&'a Path, [&'a Image; 2])>,
}

/// What one process did, and who it was.
struct Acts {
    image: Image,
    /// Where a container's root has it.
    in_root: Option<PathBuf>,
    user: u32,
    cgroup: PathBuf,
    acts: Vec<Act>,
}

impl World<'_> {
    fn one_of(&mut self, choices: &[String]) -> String {
        self.random.choice(choices).cloned().unwrap_or_default()
    }

    pub(super) fn policy(&mut self) -> String {
        let default = if self.random.bool() { "allow" } else { "deny" };
        let mut policy = format!("mode = \"enforce\"\ndefault = \"{default}\"\n");
        for number in 0..self.random.usize(1..12) {
            let action = self.one_of(&["allow", "deny", "audit"].map(str::to_owned));
            write!(
                policy,
                "\n[[rule]]\nname = \"rule {number}\"\naction = \"{action}\"\n"
            )
            .unwrap();
            let process = self.some(6, Self::process_field);
            let destination = self.some(3, Self::destination_field);
            for (table, fields) in [("process", process), ("destination", destination)] {
                if !fields.is_empty() {
                    writeln!(policy, "{table} = {{ {} }}", fields.join(", ")).unwrap();
                }
            }
        }
        policy
    }

    /// Up to two different ones of so many fields.
    fn some(&mut self, kinds: usize, field: fn(&mut Self, usize) -> String) -> Vec<String> {
        let first = self.random.usize(0..kinds);
        let count = self.random.usize(0..3);
        (first..first + count)
            .map(|number| field(self, number % kinds))
            .collect()
    }

    fn process_field(&mut self, number: usize) -> String {
        let directory = self.stage.scratch.path().display().to_string();
        let cgroup = cgroup(self.stage);
        let image = self.images[self.random.usize(0..2)];
        let users = ["0", "7", "\"1-9\"", "[0, 65534]"].map(str::to_owned);
        match number {
            0 => format!(
                "executable = \"{}\"",
                self.one_of(&[
                    image.path.display().to_string(),
                    format!("{directory}/**"),
                    format!("{directory}/a"),
                ])
            ),
            1 => format!(
                "container = \"{}\"",
                self.one_of(&[ID.to_owned(), ID[..12].to_owned(), "f".repeat(12)])
            ),
            2 => format!("sha256 = \"{}\"", image.sha256),
            3 => format!("uid = {}", self.one_of(&users)),
            4 => format!("gid = {}", self.one_of(&users)),
            _ => format!(
                "cgroup = \"{}\"",
                self.one_of(&[cgroup.display().to_string(), "/another".to_owned()])
            ),
        }
    }

    fn destination_field(&mut self, number: usize) -> String {
        let networks = [
            "\"127.0.0.0/8\"",
            "\"127.0.0.0/30\"",
            "\"127.0.0.5\"",
            "[\"127.0.0.2/31\", \"::/0\"]",
        ];
        let ports = ["4000", "\"4001-4003\"", "[4002, 4007]", "\"4003-65535\""];
        match number {
            0 => format!("cidr = {}", self.one_of(&networks.map(str::to_owned))),
            1 => format!("port = {}", self.one_of(&ports.map(str::to_owned))),
            _ => format!(
                "transport = {}",
                self.one_of(&["\"udp\"", "\"tcp\""].map(str::to_owned))
            ),
        }
    }

    /// One process, to different destinations.
    fn acts(&mut self) -> Acts {
        let number = self.random.usize(0..2);
        let mut image = self.images[number];
        let path = &image.path;
        let mut command = Command::new(&self.stage.app.path);
        command.arg("enter");
        let mut in_root = None;
        if let Some((root, inside)) = self.container
            && self.random.bool()
        {
            command.arg("--container").arg(root);
            image = inside[number];
            in_root = Some(path.clone());
        }
        let user = USERS[self.random.usize(0..USERS.len())];
        let mut all: Vec<_> = (1..8)
            .flat_map(|host| (4000..4008).map(move |port| (host, port)))
            .collect();
        self.random.shuffle(&mut all);
        let how = self.one_of(&["udp", "udp --connected", "connect"].map(str::to_owned));
        let user_id = user.to_string();
        command.args(["--uid", &user_id, "--"]).arg(path);
        command.args(how.split(' '));
        for (host, port) in all.into_iter().take(DESTINATIONS) {
            let to = SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), port));
            command.args(["--to", &to.to_string()]);
        }
        let mut cgroup = self.stage.cgroup.path().to_owned();
        if self.random.bool() {
            cgroup.push(format!("docker-{ID}.scope"));
        }
        Acts {
            image: image.clone(),
            in_root,
            user,
            acts: Program::spawn_in(&cgroup, command).finish().acts,
            cgroup,
        }
    }
}

fn cgroup(stage: &Stage) -> PathBuf {
    PathBuf::from("/").join(stage.cgroup.path().file_name().unwrap())
}

/// What is so of an act, in the words of policies.
fn facts(of: &Acts, act: &Act) -> Facts {
    let image = &of.image;
    let (major, minor) = image.file.dev.split_once(':').unwrap();
    let inode = Inode {
        major: major.parse().unwrap(),
        minor: minor.parse().unwrap(),
        ino: image.file.inode.parse().unwrap(),
    };
    let mut sha256 = [0; 32];
    for (byte, digits) in sha256.iter_mut().zip(image.sha256.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
    }
    Facts {
        process: ImageFacts {
            exe: ExeFacts {
                path: Some(image.path.clone()),
                sha256: Some(sha256),
                inode: Some(inode),
            },
            in_root: of.in_root.clone().map_or(InRoot::No, InRoot::At),
            ..ImageFacts::default()
        },
        destination: Some(act.destination.ip()),
        port: act.destination.port(),
        source_port: 0,
        transport: Some(match act.transport {
            truth::Transport::Tcp => Transport::Tcp,
            truth::Transport::Udp => Transport::Udp,
        }),
        socket: None,
        role: Some(Role::Opener),
        euid: of.user,
        egid: of.user,
        cgroup: Path::new("/").join(of.cgroup.strip_prefix(v2_root().unwrap()).unwrap()),
        now: 0,
    }
}

/// The rule that the policy says denies this act; the default has no name.
fn denied_by(policy: &Policy, facts: &Facts) -> Option<String> {
    let decision = evaluate(policy, facts);
    let rule = policy.rules.get(decision.rule as usize);
    decision
        .deny
        .then(|| rule.map_or_else(String::new, |rule| rule.name.to_string()))
}

pub(super) fn told(records: &Records, act: &Act) -> Option<String> {
    let of_act = records.of_act(act);
    let denial = of_act
        .into_iter()
        .find(|record| text(record, "/procid/verdict") == "deny")?;
    Some(text(denial, "/rule/name").into_owned())
}

#[test]
fn the_programs_decide_as_the_plain_reading_does() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut stage = Stage::new();
    let other = stage.scratch.program("other");
    let app = stage.app.clone();
    for image in [&app, &other] {
        let act = stage
            .start_file(&image.path, ["udp", "--to", "127.0.0.1:4000"])
            .finish()
            .acts
            .remove(0);
        stage.wait_for_hash(act.actor.pid, &image.file);
    }
    let images = [&app, &other];
    let root = stage.scratch.directory("root");
    let inside = images.map(|image| {
        let path = root.join(image.path.strip_prefix("/").unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        Image::copy_to(&path)
    });
    let container = root.display().to_string();
    for (image, inside) in images.into_iter().zip(&inside) {
        let path = image.path.display().to_string();
        let how = ["udp", "--to", "127.0.0.1:4000"];
        let acts = stage
            .start([&["enter", "--container", &container, "--", &path], &how[..]].concat())
            .finish()
            .acts;
        stage.wait_for_hash(acts[0].actor.pid, &inside.file);
    }
    fs::create_dir(stage.cgroup.path().join(format!("docker-{ID}.scope"))).unwrap();
    let mut decided = Vec::new();
    for _ in 0..POLICIES {
        let mut world = World {
            random: Rng::with_seed(seed.wrapping_add(decided.len() as u64)),
            stage: &stage,
            images,
            container: Some((&root, inside.each_ref())),
        };
        let policy = world.policy();
        stage.apply(&policy, &[]);
        let parsed = parse(&policy, "policy.toml", &Accounts).unwrap().policy;
        for _ in 0..PROCESSES {
            let of = world.acts();
            assert_eq!(of.acts.len(), DESTINATIONS);
            for act in &of.acts {
                let facts = facts(&of, act);
                let rule = denied_by(&parsed, &facts);
                assert_eq!(
                    act.error == Some(EPERM),
                    rule.is_some(),
                    "seed {seed}: {rule:?}: {act:?} by user {} in {}, {policy}",
                    of.user,
                    of.cgroup.display()
                );
                decided.push((act.clone(), rule));
            }
        }
    }
    let denied = decided.iter().filter(|(_, rule)| rule.is_some()).count();
    assert!(
        stage
            .agent
            .until(|records| records.denials().count() >= denied)
    );
    let records = stage.agent.stop();
    assert_eq!(records.denials().count(), denied);
    for (act, rule) in &decided {
        assert_eq!(told(&records, act), *rule, "seed {seed}: {act:?}");
    }
    // Neither everything nor nothing.
    assert!((100..decided.len() - 100).contains(&denied), "{denied}");
    assert_eq!(records.lost(), 0);
}
