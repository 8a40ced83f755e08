//! What is different on a terminal. `script` of util-linux plays one: what it prints is what the terminal shows.

use std::io::Write as _;
use std::process::{Command, Stdio};

use cairn_tests::cairn_binary;

use crate::support::{DONE, FAILED, Ran, Server, run_with};

const ESCAPE: char = '\u{1b}';

/// Runs a line of a shell on a terminal where `typed` is typed; `$CAIRN` is the program. Both streams are in `stdout`.
fn on_terminal(environment: &[(&str, &str)], line: &str, typed: &str) -> Ran {
    let mut process = Command::new("script")
        .args(["--quiet", "--return", "--command", line, "/dev/null"])
        .env_remove("CAIRN_CONTEXT")
        .env_remove("CAIRN_SPACE")
        .env_remove("NO_COLOR")
        .env("CAIRN", cairn_binary())
        .env("SHELL", "/bin/sh")
        .env("TERM", "xterm")
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    process.stdin.as_mut().unwrap().write_all(typed.as_bytes()).unwrap();
    process.wait_with_output().unwrap().into()
}

/// Whether there is a terminal to be had; says so where there is none.
fn has_terminal() -> bool {
    let found = Command::new("script").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        // Past what the test harness keeps to itself of a test that passes.
        let reason = "there is no `script`, which is in util-linux";
        let told = writeln!(std::io::stderr(), "SKIPPED the test of a terminal: {reason}");
        told.unwrap();
    }
    found
}

#[test]
fn a_terminal_is_asked_shows_progress_and_colour() {
    if !has_terminal() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    server.ok(&["add", "one", "--id", "a"]);
    server.ok(&["add", "two", "--id", "b"]);
    let here = ("CAIRN_ENDPOINT", server.endpoint.as_str());

    // Colour and tables, unless they are not wanted.
    let listed = on_terminal(&[here], "\"$CAIRN\" ls", "");
    assert!(listed.code == DONE && listed.stdout.contains(ESCAPE) && listed.stdout.contains("ID"), "{listed:?}");
    let plain = on_terminal(&[here, ("NO_COLOR", "1")], "\"$CAIRN\" ls; \"$CAIRN\" get nobody", "");
    assert!(plain.stdout.contains("ID") && plain.stdout.contains("error: "), "{plain:?}");
    assert!(!plain.stdout.contains(ESCAPE), "{plain:?}");
    let failed = on_terminal(&[here], "\"$CAIRN\" get nobody", "");
    assert!(failed.stdout.contains("\u{1b}[1;31merror:"), "{failed:?}");
    let watched = on_terminal(&[here], "\"$CAIRN\" status --watch=50ms -n 2", "");
    assert_eq!(watched.stdout.matches("\u{1b}[H\u{1b}[J").count(), 2, "{watched:?}");

    // Progress is on standard error, the result is not touched by it.
    let file = directory.path().join("all.jsonl");
    let line = format!("\"$CAIRN\" export - > '{}'", file.display());
    let exported = on_terminal(&[here], &line, "");
    assert!(exported.code == DONE && exported.stdout.contains("/2 "), "{exported:?}");
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(written.lines().count() == 2 && written.lines().all(|line| line.starts_with("{\"content\":")), "{written}");
    let line = format!("\"$CAIRN\" import '{}' 2>/dev/null", file.display());
    let imported = on_terminal(&[here], &line, "");
    assert_eq!(imported.stdout, "2 memories: 2 replaced\r\n", "without its standard error there is no progress");

    // Whoever deletes is asked.
    let no = on_terminal(&[here], "\"$CAIRN\" rm --all", "n\n");
    assert!(no.stdout.contains("Delete 2 memories from space default? [y/N] "), "{no:?}");
    assert!(no.code == FAILED && no.stdout.contains("nothing was deleted"), "{no:?}");
    assert_eq!(server.ok(&["count"]), "2\n");
    let yes = on_terminal(&[here], "\"$CAIRN\" rm --all", "y\n");
    assert!(yes.code == DONE && yes.stdout.contains("deleted 2 memories"), "{yes:?}");
    assert_eq!(server.ok(&["count"]), "0\n");
}

#[test]
fn colour_can_be_asked_for_and_declined() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let status = |more: &[(&str, &str)], arguments: &[&str]| {
        let environment = [&[("CAIRN_ENDPOINT", server.endpoint.as_str())], more].concat();
        let ran = run_with(&environment, &[&["status", "-o", "table"], arguments].concat(), "");
        assert_eq!(ran.code, DONE, "{ran:?}");
        ran.stdout
    };
    assert!(status(&[("CLICOLOR_FORCE", "1")], &[]).contains(ESCAPE));
    assert!(!status(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], &[]).contains(ESCAPE));
    let watched = status(&[], &["--watch=50ms", "-n", "2"]);
    assert!(!watched.contains(ESCAPE), "nothing is cleared where it goes into a pipe: {watched:?}");
    assert_eq!(watched.matches("\n\ncluster").count(), 1, "one table is told from the next: {watched:?}");
}

/// The log of a node that refuses to start, but warns first.
#[test]
fn a_log_is_coloured_like_everything_else() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("node.yaml");
    let place = directory.path().display();
    let text = format!(
        "node: {{ id: 1, data_dir: {place}/data }}\nroot_key: {{ file: {place}/nowhere.key }}\n\
         listen: {{ grpc: 127.0.0.1:0, peer: 127.0.0.1:0, http: 127.0.0.1:0 }}\n\
         security: {{ allow_unauthenticated_remote: true }}\n"
    );
    std::fs::write(&config, text).unwrap();
    let log = |environment: &[(&str, &str)]| {
        let ran = run_with(environment, &["start", "--config", config.to_str().unwrap()], "");
        assert!(ran.stderr.contains("there is no authentication"), "{ran:?}");
        ran.stderr
    };
    assert!(log(&[("CLICOLOR_FORCE", "1")]).contains(ESCAPE));
    assert!(!log(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]).contains(ESCAPE));
    assert!(!log(&[]).contains(ESCAPE));
}
