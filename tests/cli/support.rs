//! A development server, and commands run at it as a user runs them.

use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use cairn_tests::cairn_binary;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;

/// The exit codes, as documented; a script relies on them.
pub(crate) const DONE: i32 = 0;
/// Anything that has no code of its own.
pub(crate) const FAILED: i32 = 1;
pub(crate) const USAGE: i32 = 2;
pub(crate) const NOT_FOUND: i32 = 3;
pub(crate) const CONFLICT: i32 = 4;
pub(crate) const PRECONDITION: i32 = 5;
pub(crate) const OVERLOAD: i32 = 6;
pub(crate) const UNAVAILABLE: i32 = 7;
pub(crate) const DEADLINE: i32 = 8;
pub(crate) const INTERRUPTED: i32 = 130;

/// Long, since many tests may share few processors.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A development server on ports that the system chose; it is told to stop at the end.
pub(crate) struct Server {
    process: Child,
    pub(crate) endpoint: String,
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Server {
    pub(crate) fn start(directory: &Path) -> Self {
        let log = directory.join("server.log");
        let mut process = Command::new(cairn_binary())
            .args(["dev", "--listen", "127.0.0.1:0", "--data"])
            .arg(directory.join("data"))
            .env("XDG_CONFIG_HOME", directory)
            .stdin(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let started = Instant::now();
        loop {
            let said = std::fs::read_to_string(&log).unwrap();
            // The banner is printed as a whole, when the node is ready.
            let address = said.lines().find_map(|line| line.trim().strip_prefix("gRPC"));
            if let Some(address) = address {
                return Self { process, endpoint: format!("http://{}", address.trim()) };
            }
            let over = process.try_wait().unwrap().is_some() || started.elapsed() > READY_WITHIN;
            assert!(!over, "cairn dev did not become ready:\n{said}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks the server to stop, and waits for it.
    pub(crate) fn stop(mut self) -> i32 {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, Signal::TERM).unwrap();
        self.process.wait().unwrap().code().unwrap_or(-1)
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with_input(arguments, "")
    }

    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &str) -> Ran {
        run_at(&self.endpoint, arguments, input)
    }

    /// Runs a command that must succeed, and returns what it printed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, DONE, "{arguments:?}: {ran:?}");
        ran.stdout
    }

    /// Runs a command that must fail in a certain way, and returns what it said.
    pub(crate) fn fails(&self, arguments: &[&str], code: i32) -> String {
        let ran = self.run(arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (code, ""), "{arguments:?}: {ran:?}");
        assert!(ran.stderr.starts_with("error: "), "{arguments:?}: {ran:?}");
        ran.stderr
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A test that failed leaves no process behind; one that has stopped is not there any more.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn run_at(endpoint: &str, arguments: &[&str], input: &str) -> Ran {
    run_with(&[("CAIRN_ENDPOINT", endpoint)], arguments, input)
}

/// Runs a command with these variables and none of its own beside them.
pub(crate) fn run_with(environment: &[(&str, &str)], arguments: &[&str], input: &str) -> Ran {
    let mut process = Command::new(cairn_binary())
        .args(arguments)
        .env_remove("CAIRN_ENDPOINT")
        .env_remove("CAIRN_CONTEXT")
        .env_remove("CAIRN_SPACE")
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads nothing may have ended before it is written to.
    let _ = process.stdin.take().unwrap().write_all(input.as_bytes());
    process.wait_with_output().unwrap().into()
}

pub(crate) fn json_lines(text: &str) -> Vec<Json> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// An address that takes connections and never answers; for as long as the listener is kept.
pub(crate) fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    (listener, endpoint)
}

/// Runs a command whose output goes where there is no room.
pub(crate) fn full_disk(endpoint: &str, arguments: &[&str]) -> Ran {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(cairn_binary());
    command.args(arguments).env("CAIRN_ENDPOINT", endpoint).stdout(full).output().unwrap().into()
}

/// Interrupts a command, as Ctrl-C does, once `begun` says so.
pub(crate) fn interrupted(endpoint: &str, arguments: &[&str], begun: impl Fn() -> bool) -> Ran {
    let mut command = Command::new(cairn_binary());
    command.args(arguments).env("CAIRN_ENDPOINT", endpoint).stdin(Stdio::null());
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while !begun() {
        assert!(process.try_wait().unwrap().is_none(), "it has ended before");
        std::thread::sleep(Duration::from_millis(10));
    }
    kill_process(Pid::from_child(&process), Signal::INT).unwrap();
    process.wait_with_output().unwrap().into()
}

/// Runs a command that may write no file of more than 4 KiB.
pub(crate) fn short_of_room(endpoint: &str, arguments: &[&str]) -> Ran {
    let mut command = Command::new("sh");
    // The signal would end the program before it hears of the error.
    command.args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$@\"", "sh"]).arg(cairn_binary()).args(arguments);
    command.env("CAIRN_ENDPOINT", endpoint).stdin(Stdio::null()).output().unwrap().into()
}
