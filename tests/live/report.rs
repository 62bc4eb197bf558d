//! `procid report`: a page for a case file.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
    sync::Arc,
};

use procid_tests::{
    agent::{Agent, Home},
    browser::Browser,
    cgroup::TestCgroup,
    listener,
    program::Program,
    scratch::{Scratch, procid},
    stage::Stage,
};

/// The page, and that it says the same of the connection and its image.
fn page(path: &Path, output: &Output, destination: &str, pid: &str) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains(": 1 connection, "), "{said}");
    let mode = fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let page = fs::read_to_string(path).unwrap();
    for text in [
        destination,
        pid,
        "&lt;b&gt;app",
        "opener",
        "records lost: none",
    ] {
        assert!(page.contains(text), "{text}\n{page}");
    }
    assert!(!page.contains("<b>app"));
    assert_eq!(page.matches("<script").count(), 1);
    page
}

#[test]
fn a_page_of_what_the_agent_and_its_history_know() {
    let to = listener::Tcp::on("127.0.0.1:0");
    let scratch = Scratch::new();
    let app = scratch.program("<b>app");
    let cgroup = TestCgroup::new();
    let home: Home = Arc::new(tempfile::tempdir().unwrap());
    let mut agent = Agent::start_at(&cgroup, Arc::clone(&home), &[]);
    let destination = to.address().to_string();
    let acts = Program::start(&cgroup, &app.path, ["connect", "--to", &destination])
        .finish()
        .acts;
    agent.settle(&acts);
    assert!(agent.until(|records| records.of_act(&acts[0]).len() == 1));
    let pid = format!("pid {}", acts[0].actor.pid);

    let live = scratch.path().join("live.html");
    let arguments = ["report", "--since", "-1h", "-o", live.to_str().unwrap()];
    let output = agent.ask(&arguments);
    let first = page(&live, &output, &destination, &pid);
    // This test is an ancestor, and is described.
    assert!(!first.contains("nothing else is known of it"), "{first}");
    let again = agent.ask(&arguments);
    assert_eq!(again.status.code(), Some(2), "{again:?}");
    assert_eq!(fs::read_to_string(&live).unwrap(), first);

    let none = scratch.path().join("none.html");
    let nobody = ["report", "--dport", "1", "-o", none.to_str().unwrap()];
    assert_eq!(agent.ask(&nobody).status.code(), Some(1));
    let text = fs::read_to_string(&none).unwrap();
    assert!(text.contains("There is nothing to show."), "{text}");
    assert_eq!(agent.stop().lost(), 0);

    let past = scratch.path().join("past.html");
    let output = Command::new(procid())
        .args(["report", "--since", "-1h", "--state-dir"])
        .arg(home.path().join("state"))
        .arg("-o")
        .arg(&past)
        .output()
        .unwrap();
    let second = page(&past, &output, &destination, &pid);
    assert!(!second.contains("nothing else is known of it"), "{second}");
}

/// Names that a page would obey, if it let them.
#[test]
fn a_browser_shows_it_and_obeys_nothing_in_it() {
    const HOSTILE: &str = "<img src=x onerror=document.title='owned'>";
    let to = listener::Tcp::on("127.0.0.1:0");
    let mut stage = Stage::new();
    let hostile = stage.scratch.program(HOSTILE);
    let address = to.address().to_string();
    let program = stage.start_file(&hostile.path, ["connect", "--to", &address]);
    let acts = program.finish().acts;
    stage.agent.settle(&acts);
    let page = stage.scratch.path().join("page.html");
    let arguments = ["report", "--since", "-1h", "-o", page.to_str().unwrap()];
    assert!(stage.agent.ask(&arguments).status.success());
    let browser = Browser::new();
    let dom = browser.dom(&page);
    let title = dom.split("<title>").nth(1).unwrap_or_default();
    assert!(title.starts_with("procid"), "{dom}");
    assert!(
        dom.contains("&lt;img src=x") && !dom.contains("<img"),
        "{dom}"
    );
    // The page's own script has run: what filters its tables is there.
    assert!(dom.contains("<input") && dom.contains(&address), "{dom}");
    let picture = stage.scratch.path().join("page.png");
    browser.picture(&page, &picture, [1280, 1600]);
    let picture = fs::read(picture).unwrap();
    assert!(picture.starts_with(b"\x89PNG"));
    // Nothing but a background is some five kilobytes.
    assert!(picture.len() > 30_000, "{}", picture.len());
    let _records = stage.end(&acts);
}
