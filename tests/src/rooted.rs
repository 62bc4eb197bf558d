//! Containers with roots of their own: which file a rule by `container` and
//! `executable` means.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    agent::{Agent, LIMIT},
    cgroup::TestCgroup,
    listener,
    program::Program,
    records::{Records, text},
    scratch::{Image, Scratch},
    stage::Stage,
    truth::{Act, FileId},
};

const EPERM: i32 = 1;
const ONE: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
/// The rules of every policy here: what asks for both, and what follows.
const ASKING: &str = "in the container";
const FOLLOWING: &str = "no other";
/// Directories of the host that programs need in a container, whose root
/// `procid-testprog enter` gives them.
const SHARED: [&str; 4] = ["lib", "lib64", "usr/lib", "proc"];

/// Whether a rule matches an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Yes,
    No,
    Perhaps,
}
use Expected::{No, Perhaps, Yes};

/// What was done, and by which rule that should have been denied.
type Done = (Act, Option<&'static str>);

/// Two containers, each with a file at the path of a file of the host's.
struct World {
    stage: Stage,
    one: PathBuf,
    other: PathBuf,
    outside: PathBuf,
    /// Roots of the two.
    roots: [PathBuf; 2],
    to: listener::Tcp,
    done: Vec<Done>,
}

impl World {
    /// `before`: acts while no agent runs.
    fn new<T>(arguments: &[&str], before: impl FnOnce(&Places<'_>) -> T) -> (Self, T) {
        let (cgroup, scratch) = (TestCgroup::new(), Scratch::new());
        let app = scratch.program("app");
        let make = |name: &str| {
            let path = cgroup.path().join(name);
            fs::create_dir(&path).expect("a cgroup");
            path
        };
        let one = make(&format!("docker-{ONE}.scope"));
        let other = make(&format!("docker-{OTHER}.scope"));
        let outside = make("outside");
        let roots = ["one", "other"].map(|name| root(&scratch, name, &app.path));
        let to = listener::Tcp::on("127.0.0.1:0");
        let made = before(&Places {
            app: &app.path,
            one: &one,
            root: &roots[0],
            to: &to,
        });
        let stage = Stage {
            agent: Agent::start_with(&cgroup, arguments),
            cgroup,
            scratch,
            app,
        };
        let world = Self {
            stage,
            one,
            other,
            outside,
            roots,
            to,
            done: Vec::new(),
        };
        (world, made)
    }

    /// The path that rules name, which the host and both containers have.
    fn path(&self) -> String {
        self.stage.app.path.display().to_string()
    }

    fn apply(&self, action: &str, executable: &str, further: &str) {
        let port = self.to.address().port();
        let following = if action == "allow" { "deny" } else { "allow" };
        self.stage.apply(
            &format!(
                "mode = \"enforce\"\n{further}\n\
                 [[rule]]\nname = \"{ASKING}\"\naction = \"{action}\"\n\
                 process = {{ container = \"{}\", executable = \"{executable}\" }}\n\
                 destination = {{ port = {port} }}\n\n\
                 [[rule]]\nname = \"{FOLLOWING}\"\naction = \"{following}\"\n\
                 destination = {{ port = {port} }}\n",
                &ONE[..12]
            ),
            &[],
        );
    }

    /// Starts what a few words lead to, to connect.
    fn start(&self, cgroup: &Path, place: &[&str], image: &str, further: &[&str]) -> Program {
        start(
            &self.stage.app.path,
            cgroup,
            place,
            image,
            &self.to,
            further,
        )
    }

    /// Acts, where the rule that asks for both allows, and nothing else does.
    fn holds(&mut self, what: &str, cgroup: &Path, place: &[&str], image: &str, is: Expected) {
        let program = self.start(cgroup, place, image, &[]);
        self.is(what, program, is);
    }

    fn is(&mut self, what: &str, program: Program, expected: Expected) {
        let denied_by = match expected {
            Yes => None,
            No => Some(FOLLOWING),
            Perhaps => Some(ASKING),
        };
        self.ends(what, program, denied_by);
    }

    fn ends(&mut self, what: &str, program: Program, denied_by: Option<&'static str>) {
        let mut acts = program.finish().acts;
        assert_eq!(acts.len(), 1, "{what}: {acts:?}");
        let act = acts.remove(0);
        assert_eq!(act.error, denied_by.map(|_| EPERM), "{what}");
        self.done.push((act, denied_by));
    }

    /// Every denial is told with its rule.
    fn end(mut self) {
        let acts: Vec<_> = self.done.iter().map(|(act, _)| act.clone()).collect();
        self.stage.agent.settle(&acts);
        let records = self.stage.agent.stop();
        for (act, denied_by) in &self.done {
            assert_eq!(denial(&records, act).as_deref(), *denied_by, "{act:?}");
        }
        assert_eq!(records.lost(), 0);
    }
}

fn denial(records: &Records, act: &Act) -> Option<String> {
    let of_act = records.of_act(act);
    let denial = of_act
        .into_iter()
        .find(|record| text(record, "/procid/verdict") == "deny")?;
    Some(text(denial, "/rule/name").into_owned())
}

/// What there is before an agent runs.
struct Places<'a> {
    app: &'a Path,
    one: &'a Path,
    root: &'a Path,
    to: &'a listener::Tcp,
}

fn start(
    app: &Path,
    cgroup: &Path,
    place: &[&str],
    image: &str,
    to: &listener::Tcp,
    further: &[&str],
) -> Program {
    let mut command = Command::new(app);
    command.arg("enter").args(place).args(["--", image]);
    command.args(["connect", "--to", &to.address().to_string()]);
    command.args(further);
    Program::spawn_in(cgroup, command)
}

/// Waits until a program runs the file that a root has at a path; which one that
/// is.
fn runs(program: &Program, root: &Path, path: &str) -> PathBuf {
    let file = root.join(path.strip_prefix('/').expect("an absolute path"));
    let expected = FileId::of(&file).expect("the file is there");
    let link = PathBuf::from(format!("/proc/{}/exe", program.pid()));
    until("no exec", || {
        FileId::of(&link).is_ok_and(|running| running == expected)
    });
    file
}

fn until(otherwise: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "{otherwise}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A container's root: a file at the host's path of another, one beside it and
/// one below it, one for a tool, and one more at that path in a directory that
/// is to be mounted or changed root to.
fn root(scratch: &Scratch, name: &str, app: &Path) -> PathBuf {
    let root = scratch.directory(name);
    let inside = |path: &Path| root.join(path.strip_prefix("/").expect("an absolute path"));
    let app_inside = inside(app);
    let beside = app_inside.with_file_name("beside");
    let below = app_inside.with_file_name("directory").join("below");
    let volume = root.join("volume");
    let in_volume = volume.join(app.strip_prefix("/").expect("an absolute path"));
    for image in [&app_inside, &beside, &below, &root.join("tool"), &in_volume] {
        fs::create_dir_all(image.parent().expect("a directory")).expect("directories");
        let _image = Image::copy_to(image);
    }
    for name in SHARED {
        fs::create_dir_all(volume.join(name)).expect("directories");
    }
    root
}

/// # Panics
///
/// When a rule means another file than the one in the container's root.
pub fn a_container_has_executables_of_its_own(arguments: &[&str]) {
    let (mut world, ()) = World::new(arguments, |_| ());
    let path = world.path();
    world.apply(
        "allow",
        &path,
        "default = \"allow\"\nunknown_hash = \"deny\"",
    );
    files(&mut world);
    mounts(&mut world);
    users(&mut world);
    explained(&mut world);
    later(&mut world);
    directories(&mut world);
    world.end();
}

/// Files of the container, of the host and of another container.
fn files(world: &mut World) {
    let (path, one, other) = (world.path(), world.one.clone(), world.other.clone());
    let outside = world.outside.clone();
    let [root, others] = world.roots.clone().map(|root| root.display().to_string());
    let contained = ["--container", &root];
    let beside = Path::new(&path).with_file_name("beside");
    let beside = beside.display().to_string();
    world.holds("its own", &one, &contained, &path, Yes);
    world.holds("beside it", &one, &contained, &beside, No);
    world.holds("the host's, there", &one, &[], &path, No);
    world.holds("the host's", &outside, &[], &path, No);
    world.holds("its own, not there", &outside, &contained, &path, No);
    let of_other = ["--container", &others];
    world.holds("the other's", &other, &of_other, &path, No);
    // Where a container sees the processes of another.
    let waits = world.start(&other, &of_other, &path, &["--wait"]);
    runs(&waits, &world.roots[1], &path);
    let there = format!("/proc/{}/root{path}", waits.pid());
    world.holds("the other's, through /proc", &one, &contained, &there, No);
}

/// By the superuser of the container: mounts, and another root directory.
fn mounts(world: &mut World) {
    let (path, one) = (world.path(), world.one.clone());
    let root = world.roots[0].display().to_string();
    let forged = format!("/volume{path}");
    let over = format!("{forged}:{path}");
    let bound = ["--container", &root, "--bind", &over];
    world.holds("mounted over it", &one, &bound, &path, No);
    let tree: Vec<_> = SHARED
        .iter()
        .filter(|name| Path::new("/").join(name).exists())
        .map(|name| format!("/{name}:/volume/{name}"))
        .collect();
    let mut changed = vec!["--container", &root, "--chroot", "/volume"];
    for bind in &tree {
        changed.extend(["--bind", bind]);
    }
    world.holds("in a root directory", &one, &changed, &path, No);
}

/// By an ordinary user, in a user namespace of his own.
fn users(world: &mut World) {
    let (path, one) = (world.path(), world.one.clone());
    let root = world.roots[0].display().to_string();
    let user = [
        "--container",
        &root,
        "--uid",
        "65534",
        "--user-ns",
        "--",
        "/tool",
        "enter",
    ];
    let over = format!("/volume{path}:{path}");
    let bound = [&user[..], &["--bind", &over]].concat();
    world.holds("mounted over it by a user", &one, &bound, &path, Perhaps);
    let pivoted = [&user[..], &["--container", "/volume"]].concat();
    world.holds("in the root of a user", &one, &pivoted, &path, Perhaps);
    // Which is his word only.
    let entered = [&user[..], &["--mount-ns"]].concat();
    world.holds("its own, by a user", &one, &entered, &path, Perhaps);
    // In the container's own mount namespace.
    world.holds("its own, as a user", &one, &user, &path, Yes);

    world.apply(
        "deny",
        &path,
        "default = \"allow\"\nunknown_hash = \"deny\"",
    );
    for (what, place) in [("bound", &bound), ("pivoted", &pivoted)] {
        let program = world.start(&one, place, &path, &[]);
        world.ends(what, program, Some(ASKING));
    }
    world.apply(
        "allow",
        &path,
        "default = \"allow\"\nunknown_hash = \"allow\"",
    );
    let program = world.start(&one, &pivoted, &path, &[]);
    world.ends("pivoted, where that is allowed", program, None);
}

/// `procid policy explain` says what is then done, and why.
fn explained(world: &mut World) {
    let (path, one) = (world.path(), world.one.clone());
    world.apply(
        "allow",
        &path,
        "default = \"allow\"\nunknown_hash = \"deny\"",
    );
    let root = world.roots[0].clone();
    let text = root.display().to_string();
    let beside = Path::new(&path)
        .with_file_name("beside")
        .display()
        .to_string();
    let own = vec!["--container", &text];
    let mut users = own.clone();
    users.extend(["--uid", "65534", "--user-ns", "--", "/tool", "enter"]);
    users.extend(["--container", "/volume"]);
    for (place, below, image, expected, why) in [
        (&own, root.clone(), &path, Yes, "is the first to match"),
        (&own, root.clone(), &beside, No, "no container's root has"),
        (
            &users,
            root.join("volume"),
            &path,
            Perhaps,
            "may have arranged",
        ),
    ] {
        let mut program = world.start(&one, place, image, &["--wait"]);
        runs(&program, &below, image);
        let (pid, to) = (program.pid().to_string(), world.to.address().to_string());
        let question = ["policy", "explain", "--json", "--pid", &pid, "--to", &to];
        let said = world.stage.agent.ask(&question);
        let said: Value = serde_json::from_slice(&said.stdout).expect("an answer");
        let verdict = if expected == Yes { "allow" } else { "deny" };
        let rule = if expected == No { FOLLOWING } else { ASKING };
        assert_eq!(said["verdict"], verdict, "{said}");
        assert_eq!(said["rule"]["name"], rule, "{said}");
        let reason = if expected == No {
            &said["passed"][0]["reason"]
        } else {
            &said["why"]
        };
        assert!(
            reason.as_str().is_some_and(|text| text.contains(why)),
            "{said}"
        );
        program.go();
        world.is("explained", program, expected);
    }
}

/// What a process does after its exec.
fn later(world: &mut World) {
    let (path, one) = (world.path(), world.one.clone());
    world.apply(
        "allow",
        &path,
        "default = \"allow\"\nunknown_hash = \"deny\"",
    );
    let root = world.roots[0].clone();
    let text = root.display().to_string();
    let contained = ["--container", &text];
    let moved = world.start(&one, &contained, &path, &["--move-away"]);
    world.is("moved away, and nobody is left there", moved, Perhaps);
    // Where another process stays, as a container's first one does.
    let contained = [&contained[..], &["--", "/tool", "launch"]].concat();
    let moved = world.start(&one, &contained, &path, &["--move-away"]);
    world.is("moved away", moved, Yes);
    let beside = Path::new(&path).with_file_name("beside");
    let beside = beside.display().to_string();
    let moved = world.start(&one, &contained, &beside, &["--move-away"]);
    world.is("another, moved away", moved, No);
    let forked = world.start(&one, &contained, &path, &["--by", "fork"]);
    world.is("forked", forked, Yes);
}

/// `/dir/**`.
fn directories(world: &mut World) {
    let (path, one) = (world.path(), world.one.clone());
    let root = world.roots[0].display().to_string();
    let contained = ["--container", &root];
    let directory = Path::new(&path).parent().expect("a directory").to_owned();
    let below = directory.join("directory/below").display().to_string();
    let all = format!("{}/**", directory.display());
    world.apply(
        "allow",
        &all,
        "default = \"allow\"\nunknown_hash = \"deny\"",
    );
    world.holds("in the directory", &one, &contained, &path, Yes);
    world.holds("below it", &one, &contained, &below, Yes);
    world.holds("elsewhere", &one, &contained, "/tool", No);
    world.holds("the host's, there", &one, &[], &path, No);
    world.apply(
        "allow",
        "/**",
        "default = \"allow\"\nunknown_hash = \"deny\"",
    );
    world.holds("anywhere in it", &one, &contained, "/tool", Yes);
    world.holds("the host's", &one, &[], &path, No);
    // Last, for it changes the root.
    world.apply(
        "allow",
        &path,
        "default = \"allow\"\nunknown_hash = \"deny\"",
    );
    let mut unlinked = world.start(&one, &contained, &path, &["--wait"]);
    let file = runs(&unlinked, &world.roots[0], &path);
    fs::remove_file(file).expect("the file is there");
    unlinked.go();
    world.is("unlinked", unlinked, No);
}

/// Processes that are older than the agent.
///
/// # Panics
///
/// As above.
pub fn it_has_them_before_an_agent_runs(arguments: &[&str]) {
    let (mut world, older) = World::new(arguments, |places| {
        let root = places.root.display().to_string();
        let path = places.app.display().to_string();
        let contained = ["--container", &root];
        let start = |further: &[&str]| {
            start(
                places.app, places.one, &contained, &path, places.to, further,
            )
        };
        let [stays, moves] = [start(&["--wait"]), start(&["--wait", "--move-away"])];
        runs(&stays, places.root, &path);
        runs(&moves, places.root, &path);
        let mounts = |process: &str| fs::read_link(format!("/proc/{process}/ns/user"));
        let (ours, its) = (
            mounts("self").expect("a namespace"),
            moves.pid().to_string(),
        );
        until("it has not moved away", || {
            mounts(&its).is_ok_and(|its| its != ours)
        });
        [stays, moves]
    });
    let path = world.path();
    world.apply(
        "allow",
        &path,
        "default = \"allow\"\nunknown_hash = \"deny\"",
    );
    let [mut stays, mut moves] = older;
    stays.go();
    world.is("older", stays, Yes);
    moves.go();
    world.is("older, and moved away", moves, Perhaps);
    world.end();
}
