//! `cairn inspect`: what a data directory holds, read without a server.

use crate::cli::args::InspectArgs;
use crate::cli::exit::{Failure, Result};
use crate::cli::output::Output;

pub(super) fn run(args: &InspectArgs, _out: Output) -> Result<()> {
    if !args.dir.is_dir() {
        return Err(Failure::usage(format!("{} is not a directory", args.dir.display()))
            .with_hint("give the data directory of a node, such as ./data"));
    }
    Err(Failure::usage("inspect is not there yet"))
}
