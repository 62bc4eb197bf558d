//! Who pretends to be somebody else: other files at an allowed path, other users
//! and cgroups than a rule names.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use procid_tests::{listener, program::Program, records::text, scratch::Image, stage::Stage};

const EPERM: i32 = 1;

/// A stage where only what a rule asks for may reach a listener.
struct Door {
    stage: Stage,
    to: listener::Tcp,
}

impl Door {
    fn new() -> Self {
        Self {
            stage: Stage::new(),
            to: listener::Tcp::on("127.0.0.1:0"),
        }
    }

    fn only(&self, process: &str) {
        self.apply("allow", process, "deny");
    }

    fn all_but(&self, process: &str) {
        self.apply("deny", process, "allow");
    }

    fn apply(&self, action: &str, process: &str, other: &str) {
        let port = self.to.address().port();
        let policy = format!(
            "mode = \"enforce\"\ndefault = \"allow\"\n\n\
             [[rule]]\nname = \"the first\"\naction = \"{action}\"\n\
             process = {{ {process} }}\ndestination = {{ port = {port} }}\n\n\
             [[rule]]\nname = \"the other\"\naction = \"{other}\"\n\
             destination = {{ port = {port} }}\n"
        );
        self.stage.apply(&policy, &[]);
    }

    /// Starts the image where `place` leads, to connect.
    fn start(&self, place: &[&str], image: &Path, further: &[&str]) -> Program {
        let to = self.to.address().to_string();
        let image = image.display().to_string();
        let connect = ["--", &image, "connect", "--to", &to];
        self.stage.start([place, &connect, further].concat())
    }

    fn is_let_through(&self, place: &[&str], image: &Path) -> bool {
        is_let_through(self.start(place, image, &[]))
    }
}

fn is_let_through(program: Program) -> bool {
    let acts = program.finish().acts;
    assert_eq!(acts.len(), 1, "{acts:?}");
    match acts[0].error {
        None => true,
        Some(EPERM) => false,
        other => panic!("{other:?}"),
    }
}

fn by_path(image: &Image) -> String {
    format!("executable = \"{}\"", image.path.display())
}

fn bind(source: &Path, target: &Path) -> String {
    format!("{}:{}", source.display(), target.display())
}

#[test]
fn a_file_mounted_over_an_allowed_one_is_not_that_one() {
    let door = Door::new();
    let other = door.stage.scratch.program("other");
    let app = door.stage.app.clone();
    door.only(&by_path(&app));
    let over = bind(&other.path, &app.path);
    assert!(door.is_let_through(&["enter", "--mount-ns"], &app.path));
    assert!(!door.is_let_through(&["enter", "--bind", &over], &app.path));
    // And the allowed one, under the name of the other.
    let over = bind(&app.path, &other.path);
    assert!(door.is_let_through(&["enter", "--bind", &over], &other.path));
}

/// By an ordinary user, in a user namespace of his own.
#[test]
fn what_a_user_mounts_in_his_own_namespace_forges_nothing() {
    let door = Door::new();
    let other = door.stage.scratch.program("other");
    let app = door.stage.app.clone();
    door.only(&by_path(&app));
    let over = bind(&other.path, &app.path);
    let tool = other.path.display().to_string();
    let user = ["enter", "--uid", "65534", "--user-ns", "--", &tool];
    let mounted = [&user[..], &["enter", "--bind", &over]].concat();
    assert!(!door.is_let_through(&mounted, &app.path));
    let entered = [&user[..], &["enter", "--mount-ns"]].concat();
    assert!(door.is_let_through(&entered, &app.path));
}

/// As a container has its own file at a path of the host's.
#[test]
fn another_roots_file_at_the_same_path_is_another_file() {
    let door = Door::new();
    let scratch = &door.stage.scratch;
    let (outside, inside) = (scratch.directory("shared"), scratch.directory("inside"));
    let root = scratch.directory("root").display().to_string();
    let allowed = Image::copy_to(&outside.join("app"));
    let forged = Image::copy_to(&inside.join("app"));
    assert_ne!(allowed.file, forged.file);
    door.only(&by_path(&allowed));
    assert!(door.is_let_through(&["enter", "--mount-ns"], &allowed.path));
    let over = bind(&inside, &outside);
    let place = ["enter", "--root", &root, "--bind", &over];
    assert!(!door.is_let_through(&place, &allowed.path));
    // In another root, and yet the host's file.
    assert!(door.is_let_through(&["enter", "--root", &root], &allowed.path));
}

/// A service with `PrivateTmp=`: its own executable lies elsewhere, and what it
/// has in its /tmp is not what the host has there.
#[test]
fn a_private_tmp_changes_what_is_below_it_and_nothing_else() {
    let door = Door::new();
    let home = tempfile::tempdir_in("/var/tmp").unwrap();
    let service = Image::copy_to(&home.path().join("service"));
    let app = door.stage.app.clone();
    // Made before the mount hides it.
    let private = tempfile::tempdir_in("/var/tmp").unwrap();
    let forged = private.path().join(app.path.strip_prefix("/tmp").unwrap());
    fs::create_dir_all(forged.parent().unwrap()).unwrap();
    fs::copy(&app.path, &forged).unwrap();
    let over = bind(private.path(), Path::new("/tmp"));
    door.only(&by_path(&service));
    assert!(door.is_let_through(&["enter", "--bind", &over], &service.path));
    door.only(&by_path(&app));
    assert!(door.is_let_through(&["enter", "--mount-ns"], &app.path));
    assert!(!door.is_let_through(&["enter", "--bind", &over], &app.path));
}

#[test]
fn the_root_of_a_user_namespace_is_who_he_is_outside() {
    let door = Door::new();
    let app = door.stage.app.path.clone();
    door.only("uid = 0");
    assert!(door.is_let_through(&["enter"], &app));
    assert!(!door.is_let_through(&["enter", "--uid", "65534", "--user-ns"], &app));
    door.only("uid = 65534");
    assert!(door.is_let_through(&["enter", "--uid", "65534", "--user-ns"], &app));
}

/// New pid and network namespaces change nothing either.
#[test]
fn other_namespaces_are_judged_by_the_same_rules() {
    let door = Door::new();
    let app = door.stage.app.clone();
    door.all_but(&by_path(&app));
    assert!(!door.is_let_through(&["enter", "--pid-ns"], &app.path));
    let place = ["enter", "--net-ns", "--loopback"];
    let there = door.start(&place, &app.path, &["--listen"]);
    // There its listener has that port to itself.
    assert!(!is_let_through(there));
}

/// The credentials that a ring was given are those that act.
#[test]
fn a_ring_acts_as_whose_credentials_it_was_given() {
    let mut stage = Stage::new();
    stage.apply(
        "mode = \"enforce\"\ndefault = \"allow\"\n\n\
         [[rule]]\nname = \"nobody\"\naction = \"deny\"\nprocess = { uid = 65534 }\n\
         destination = { cidr = \"127.0.0.0/8\" }\n",
        &[],
    );
    let mut command = Command::new(&stage.app.path);
    command.args(["way", "uring-personality"]);
    stage.cgroup.holds(&mut command);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "the ring connected");
    assert!(said.contains("Operation not permitted"), "{said}");
    assert!(stage.agent.until(|records| records.denials().count() > 0));
    let records = stage.agent.stop();
    for record in records.denials() {
        assert_eq!(text(record, "/rule/name"), "nobody");
        assert_eq!(text(record, "/process/user/id"), "65534");
        assert_eq!(text(record, "/process/real_user/id"), "0");
    }
}

/// A cgroup below that of a stage; gone with it.
fn inner(stage: &Stage, name: &str) -> PathBuf {
    let path = stage.cgroup.path().join(name);
    fs::create_dir(&path).unwrap();
    path
}

/// As a policy names it: from the root of the hierarchy.
fn by_cgroup(path: &Path) -> String {
    let root = procid_tests::cgroup::v2_root().unwrap();
    format!(
        "cgroup = \"/{}\"",
        path.strip_prefix(root).unwrap().display()
    )
}

#[test]
fn a_process_is_judged_by_the_cgroup_it_is_in_now() {
    let door = Door::new();
    let held = inner(&door.stage, "held");
    let app = door.stage.app.path.clone();
    door.all_but(&by_cgroup(&held));
    let moved = |to: Option<&Path>| {
        let mut program = door.start(&["enter"], &app, &["--wait"]);
        if let Some(to) = to {
            fs::write(to.join("cgroup.procs"), program.pid().to_string()).unwrap();
        }
        program.go();
        is_let_through(program)
    };
    assert!(moved(None));
    assert!(!moved(Some(&held)));
    remove(&held);
}

/// Its birth shows it in no other cgroup than that.
#[test]
fn a_child_cloned_into_another_cgroup_is_judged_by_that() {
    let door = Door::new();
    let (held, free) = (inner(&door.stage, "held"), inner(&door.stage, "free"));
    let app = door.stage.app.path.clone();
    door.all_but(&by_cgroup(&held));
    let born = |into: &Path| {
        let into = into.display().to_string();
        door.is_let_through(&["launch", "--into", &into], &app)
    };
    assert!(!born(&held));
    assert!(born(&free));
    remove(&held);
    remove(&free);
}

fn remove(cgroup: &Path) {
    for _ in 0..500 {
        if fs::remove_dir(cgroup).is_ok() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{} is in use", cgroup.display());
}
