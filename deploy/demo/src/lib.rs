//! What `make demo` is made of, and the tests of whole clusters with it.
//!
//! | file | what is in it |
//! |---|---|
//! | `cluster.rs` | real `cairn start` processes on loopback: start, kill, stop, wait, logs |
//! | `sample.rs` | the memories and questions beside this crate, with their vectors |
//! | `show.rs` | the show, scene by scene |
//! | `writer.rs` | writers that note what was acknowledged, for the scene in which the leader dies |
//! | `screen.rs` | tables and progress on a terminal, plain lines elsewhere |

pub mod cluster;
pub mod sample;
pub mod screen;
pub mod show;
mod writer;

/// Why the demo failed, as one line.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A process did not do what it should.
    #[error(transparent)]
    Cluster(#[from] cluster::ClusterError),
    /// A call failed.
    #[error("{doing}: {source}")]
    Call {
        /// What was being done.
        doing: &'static str,
        /// What the client says.
        source: cairn_client::Error,
    },
    /// The samples cannot be read.
    #[error("the sample {file}: {problem}")]
    Sample {
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Cairn answered, and the answer breaks a promise.
    #[error("{0}")]
    Promise(String),
}

/// Puts what was being done before a client's error.
pub(crate) trait Doing<T> {
    /// Says what was being done.
    fn doing(self, doing: &'static str) -> Result<T, Failure>;
}

impl<T> Doing<T> for cairn_client::Result<T> {
    fn doing(self, doing: &'static str) -> Result<T, Failure> {
        self.map_err(|source| Failure::Call { doing, source })
    }
}

/// Fails with `broken` unless `kept`.
pub(crate) fn promise(kept: bool, broken: impl FnOnce() -> String) -> Result<(), Failure> {
    if kept { Ok(()) } else { Err(Failure::Promise(broken())) }
}
