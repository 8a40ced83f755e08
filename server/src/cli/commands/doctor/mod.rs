//! `cairn doctor`: looks for what makes a cluster slow or unsafe before it does.
//!
//! | file | what |
//! |---|---|
//! | `cluster.rs` | the members, through the API |
//! | `machine.rs` | the machine that it runs on: limits, disk, configuration |
//! | `finding.rs` | ok, warn or fail, and how they are printed |

mod cluster;
mod finding;
mod machine;
#[cfg(test)]
mod tests;

use crate::cli::args::{ClientOptions, DoctorArgs};
use crate::cli::exit::{Exit, Failure, Result};
use crate::cli::output::Output;
use finding::Grade;

/// Runs all checks that can be run; exits with 1 where one fails.
pub(super) async fn run(options: &ClientOptions, args: &DoctorArgs, mut out: Output) -> Result<()> {
    let mut findings = machine::check(args);
    if !args.offline {
        findings.extend(cluster::check(options).await?);
    }
    finding::print(&findings, &mut out)?;
    out.flush()?;
    let failed = findings.iter().filter(|finding| finding.grade == Grade::Fail).count();
    match failed {
        0 => Ok(()),
        1 => Err(Failure::new(Exit::Other, "1 check failed")),
        _ => Err(Failure::new(Exit::Other, format!("{failed} checks failed"))),
    }
}
