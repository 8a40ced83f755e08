//! `cairn-demo`: plays the show and says `demo: ok`, or what failed. `KEEP=1` leaves the cluster running.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the demo's only purpose is to be watched")]

use std::path::Path;
use std::process::ExitCode;

use cairn_demo::cluster::{Cluster, cairn_binary};
use cairn_demo::screen::Screen;
use cairn_demo::show::{SPACE, Show};

/// What a shell reports for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    let directory = match tempfile::Builder::new().prefix("cairn-demo-").tempdir() {
        Ok(directory) => directory,
        Err(error) => {
            eprintln!("demo: FAILED: no temporary directory: {error}");
            return ExitCode::FAILURE;
        }
    };
    let binary = cairn_binary();
    // Either way the show is dropped here, and its processes with it.
    let outcome = tokio::select! {
        outcome = Show::play(Screen::standard(), &binary, directory.path()) => outcome,
        _ = tokio::signal::ctrl_c() => return ExitCode::from(INTERRUPTED),
    };
    match outcome {
        Ok(mut cluster) => {
            if std::env::var_os("KEEP").is_some_and(|keep| keep == "1") {
                cluster.leave_running();
                explain_running(&binary, &cluster, &directory.keep());
            }
            println!("demo: ok");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("demo: FAILED: {failure}");
            eprintln!("logs and data are in {}", directory.keep().display());
            ExitCode::FAILURE
        }
    }
}

fn explain_running(binary: &Path, cluster: &Cluster, directory: &Path) {
    let processes: Vec<_> =
        cluster.nodes().iter().filter_map(|node| node.process_id()).map(|id| id.to_string()).collect();
    let program = binary.display();
    println!("\nThe cluster goes on running. To look around:");
    println!("  export CAIRN_ENDPOINT={} CAIRN_SPACE={SPACE}", cluster.endpoints().join(","));
    println!("  {program} status");
    println!("  {program} ls --namespace devops --filter 'kind = \"incident\"'");
    println!("  {program} count --user priya");
    println!("To stop it and remove what it wrote:");
    println!("  kill {} && rm -r {}\n", processes.join(" "), directory.display());
}
