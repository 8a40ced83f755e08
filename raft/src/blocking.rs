//! Work that blocks: on the pool for it, so that no async worker waits, or, in a simulation, at once and in order.

use std::io;

/// Does what blocks and awaits it.
///
/// # Errors
/// When it panicked, or the runtime ended before it was done.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    #[cfg(test)]
    if crate::sim::is_running() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}
