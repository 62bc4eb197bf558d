//! What the programs know of a socket outlives the agent too: who speaks on it
//! is denied by the next one as by the one before.

use std::{fs, process::Command, sync::Arc, thread, time::Duration};

use procid_tests::{
    agent::Agent,
    cgroup::TestCgroup,
    listener,
    program::Program,
    scratch::{Scratch, procid},
};

/// Without tags, who opened a connection that is older than the hooks is not
/// known, and nobody on it is judged.
#[test]
fn a_speaker_stays_denied_across_kills_and_restarts() {
    let scratch = Scratch::new();
    let to = listener::Tcp::on("127.0.0.1:0");
    let policy = scratch.path().join("policy.toml");
    let text = format!(
        "mode = \"enforce\"\ndefault = \"allow\"\n[[rule]]\nname = \"openers only\"\n\
         action = \"deny\"\nprocess = {{ role = \"speaker\" }}\ndestination = {{ port = {} }}\n",
        to.address().port()
    );
    fs::write(&policy, text).unwrap();
    let (cgroup, app) = (TestCgroup::new(), scratch.program("app"));
    let home = Arc::new(tempfile::tempdir().unwrap());
    let given = ["--policy", &policy.display().to_string()];
    let mut agent = Agent::start_at(&cgroup, Arc::clone(&home), &given);
    let address = to.address().to_string();
    let knocker = Program::start(&cgroup, &app.path, ["knock", "--speak", "--to", &address]);
    for _ in 0..2 {
        drop(agent.kill());
        thread::sleep(Duration::from_millis(50));
        agent = Agent::start_at(&cgroup, Arc::clone(&home), &[]);
    }
    let knocks = knocker.finish().knocks.unwrap();
    assert!(knocks.denied > 100, "{knocks:?}");
    assert_eq!((knocks.done, knocks.failed), (0, 0), "{knocks:?}");
    // Its opener was let: it is the connection's one byte.
    assert_eq!(to.peers(1).len(), 1);

    // Not so once nothing is left of what was known.
    drop(agent.kill());
    let unload = Command::new(procid()).arg("unload").output().unwrap();
    assert!(unload.status.success());
}
