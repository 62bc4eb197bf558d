//! Child processes: run, captured, with a time limit, tried again.

use std::{
    fmt::Display,
    io::Read,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// Runs `command` and returns its stdout.
///
/// # Errors
///
/// When it cannot be started or fails; what it wrote to stderr is in the error.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", name(command)))?;
    text(command, &output)
}

/// As [`capture`], ended after `limit`.
///
/// # Errors
///
/// As [`capture`]'s, and when `limit` has passed.
pub(crate) fn capture_within(limit: Duration, command: &mut Command) -> Result<String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", name(command)))?;
    // Both pipes are drained at once, or a talkative child would block.
    let stdout = child.stdout.take().map(drain);
    let stderr = child.stderr.take().map(drain);
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            bail!("{} took longer than {} s", name(command), limit.as_secs());
        }
        thread::sleep(Duration::from_millis(50));
    };
    let joined = |reader: Option<thread::JoinHandle<Vec<u8>>>| {
        reader
            .and_then(|thread| thread.join().ok())
            .unwrap_or_default()
    };
    let output = Output {
        status,
        stdout: joined(stdout),
        stderr: joined(stderr),
    };
    text(command, &output)
}

/// Calls `action` up to three times, with a pause that grows, for mirrors and
/// registries that are slow or down for a moment.
///
/// # Errors
///
/// The last failure, with `what` was tried.
pub(crate) fn retry<T>(what: impl Display, mut action: impl FnMut() -> Result<T>) -> Result<T> {
    const PAUSES: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(10)];
    for pause in PAUSES {
        match action() {
            Ok(value) => return Ok(value),
            Err(_) => thread::sleep(pause),
        }
    }
    action().with_context(|| format!("{what} failed three times"))
}

fn drain(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // A pipe that breaks half-way still gives what came before.
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

fn text(command: &Command, output: &Output) -> Result<String> {
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{} failed ({}): {}",
            name(command),
            output.status,
            stderr.trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The program and its first word, enough to recognise a command by.
fn name(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let program = program.rsplit('/').next().unwrap_or_default();
    match command.get_args().next() {
        Some(first) => format!("`{program} {}`", first.to_string_lossy()),
        None => format!("`{program}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_s_stderr_is_in_the_error() {
        let error = capture(Command::new("sh").args(["-c", "echo reason >&2; exit 3"]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("reason") && error.contains('3'), "{error}");
    }

    #[test]
    fn a_time_limit_ends_the_child() {
        let start = Instant::now();
        let limit = Duration::from_millis(200);
        capture_within(limit, Command::new("sleep").arg("60")).unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn output_larger_than_a_pipe_does_not_block_a_limited_command() {
        let limit = Duration::from_secs(30);
        let script = "head -c 300000 /dev/zero | tr '\\0' x";
        let text = capture_within(limit, Command::new("sh").args(["-c", script])).unwrap();
        assert_eq!(text.len(), 300_000);
    }
}
