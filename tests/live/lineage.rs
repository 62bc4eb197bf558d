//! Rules about the images before the one that speaks.

use std::{fs, path::Path};

use procid_tests::{
    agent::Agent, listener, program::Program, records::text, scratch::Image, stage::Stage,
    truth::Act,
};

const EPERM: i32 = 1;

/// A stage with a program that launches, one that is launched by it, and one
/// that speaks.
struct Family {
    stage: Stage,
    controller: Image,
    helper: Image,
    to: listener::Tcp,
}

impl Family {
    fn new() -> Self {
        let stage = Stage::new();
        Self {
            controller: stage.scratch.program("controller"),
            helper: stage.scratch.program("helper"),
            stage,
            to: listener::Tcp::on("127.0.0.1:0"),
        }
    }

    /// Denies what `asks` says, and lets pass what is not certain.
    fn deny(&self, asks: &str) {
        self.apply(asks, "allow");
    }

    /// The warnings.
    fn apply(&self, asks: &str, unknown: &str) -> String {
        let port = self.to.address().port();
        let policy = format!(
            "mode = \"enforce\"\ndefault = \"allow\"\nunknown_hash = \"{unknown}\"\n\
             [[rule]]\nname = \"no descendant\"\naction = \"deny\"\n\
             process = {{ {asks} }}\ndestination = {{ port = {port} }}\n"
        );
        self.stage.apply(&policy, &[])
    }

    /// What the app is run as at the end of a chain.
    fn connect(&self) -> Vec<String> {
        let to = self.to.address().to_string();
        [&shown(&self.stage.app.path), "connect", "--to", &to]
            .map(str::to_owned)
            .to_vec()
    }

    fn start(&self, first: &Image, chain: &[&[&str]]) -> Program {
        let arguments = chain.concat().into_iter().map(str::to_owned);
        let arguments: Vec<_> = arguments.chain(self.connect()).collect();
        self.stage.start_file(&first.path, arguments)
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn by_path(image: &Image) -> String {
    format!("{{ executable = \"{}\" }}", image.path.display())
}

fn error_of(mut program: Program) -> Option<i32> {
    program.go();
    one(program.finish().acts).error
}

fn one(mut acts: Vec<Act>) -> Act {
    assert_eq!(acts.len(), 1, "{acts:?}");
    acts.remove(0)
}

#[test]
fn what_an_image_launches_is_told_by_it_at_any_depth() {
    let family = Family::new();
    let helper = shown(&family.helper.path);
    let wait = ["launch", "--wait", "--"];
    // These are there before the policy is.
    let child = family.start(&family.controller, &[&wait]);
    let grandchild = family.start(&family.controller, &[&["launch", "--"], &[&helper], &wait]);
    let replaced = family.start(&family.controller, &[&["launch", "--wait", "--exec", "--"]]);
    let other = family.start(&family.helper, &[&wait]);
    family.deny(&format!("ancestor = {}", by_path(&family.controller)));
    for (what, program) in [
        ("child", child),
        ("grandchild", grandchild),
        ("replaced", replaced),
    ] {
        assert_eq!(error_of(program), Some(EPERM), "{what}");
    }
    assert_eq!(error_of(other), None);

    // And these after.
    let deep: [&[&str]; 4] = [
        &["launch", "--"],
        &[&helper, "launch", "--exec", "--"],
        &[&helper, "launch", "--"],
        &[&helper, "launch", "--"],
    ];
    let deep = family.start(&family.controller, &deep);
    assert_eq!(one(deep.finish().acts).error, Some(EPERM));
    let other = family.start(&family.helper, &[&["launch", "--"]]);
    assert_eq!(one(other.finish().acts).error, None);

    let denied = |records: &procid_tests::records::Records| records.denials().count() == 4;
    let mut stage = family.stage;
    assert!(stage.agent.until(denied));
    for record in stage.agent.stop().denials() {
        assert_eq!(text(record, "/rule/name"), "no descendant");
        assert_eq!(text(record, "/process/name"), "app");
    }
}

#[test]
fn an_ancestor_counts_when_it_has_ended() {
    let family = Family::new();
    let helper = shown(&family.helper.path);
    let file = fs::metadata(&family.controller.path).unwrap();
    let dev = std::os::unix::fs::MetadataExt::dev(&file);
    let inode = format!(
        "{{ inode = \"{}:{}:{}\" }}",
        rustix::fs::major(dev),
        rustix::fs::minor(dev),
        std::os::unix::fs::MetadataExt::ino(&file)
    );
    // The controller ends at once, and leaves a helper that waits.
    let leave: [&[&str]; 2] = [
        &["launch", "--leave", "--"],
        &[&helper, "launch", "--wait", "--"],
    ];
    let before = family.start(&family.controller, &leave);
    wait_for_helper(&family);
    family.deny(&format!("ancestor = {inode}"));
    assert_eq!(error_of(before), Some(EPERM));
    let after = family.start(&family.controller, &leave);
    wait_for_helper(&family);
    assert_eq!(error_of(after), Some(EPERM));
}

/// Waits until the helper runs, and its launcher has ended.
fn wait_for_helper(family: &Family) {
    let procs = family.stage.cgroup.path().join("cgroup.procs");
    for _ in 0..500 {
        let ids = fs::read_to_string(&procs).unwrap();
        let files: Vec<_> = ids
            .lines()
            .filter_map(|id| fs::read_link(format!("/proc/{id}/exe")).ok())
            .collect();
        if files == [family.helper.path.clone()] {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("no helper alone");
}

#[test]
fn a_parent_is_the_image_that_forked_and_no_other() {
    let family = Family::new();
    let helper = shown(&family.helper.path);
    family.deny(&format!("parent = {}", by_path(&family.controller)));
    let child = family.start(&family.controller, &[&["launch", "--"]]);
    assert_eq!(one(child.finish().acts).error, Some(EPERM));
    let grandchild = family.start(
        &family.controller,
        &[&["launch", "--"], &[&helper, "launch", "--"]],
    );
    assert_eq!(one(grandchild.finish().acts).error, None);
    // Not the image that this process was before.
    let replaced = family.start(&family.controller, &[&["launch", "--exec", "--"]]);
    assert_eq!(one(replaced.finish().acts).error, None);
}

#[test]
fn an_ancestor_is_told_by_its_hash_once_it_is_known() {
    let mut family = Family::new();
    let sha256 = family.controller.sha256.clone();
    let child = family.start(&family.controller, &[&["launch", "--wait", "--"]]);
    let (pid, file) = (child.pid(), family.controller.file.clone());
    family.deny(&format!("ancestor = {{ sha256 = \"{sha256}\" }}"));
    family.stage.wait_for_hash(pid, &file);
    assert_eq!(error_of(child), Some(EPERM));
}

#[test]
fn what_ended_before_the_agent_is_no_ancestor_and_apply_says_so() {
    let family = Family::new();
    let helper = shown(&family.helper.path);
    let leave: [&[&str]; 2] = [
        &["launch", "--leave", "--"],
        &[&helper, "launch", "--wait", "--"],
    ];
    let orphan = family.start(&family.controller, &leave);
    wait_for_helper(&family);
    // Another agent, for which that orphan is older than itself.
    let Family {
        mut stage,
        controller,
        helper,
        to,
    } = family;
    let younger = Agent::start(&stage.cgroup);
    let _records = std::mem::replace(&mut stage.agent, younger).stop();
    let family = Family {
        stage,
        controller,
        helper,
        to,
    };
    let asks = format!("ancestor = {}", by_path(&family.controller));
    let warnings = family.apply(&asks, "deny");
    assert!(
        warnings.contains("who forked them cannot be told"),
        "{warnings}"
    );
    assert_eq!(error_of(orphan), None);
    // What that agent sees itself, it knows.
    let seen = family.start(&family.controller, &leave);
    wait_for_helper(&family);
    assert_eq!(error_of(seen), Some(EPERM));
}
