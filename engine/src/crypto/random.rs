//! The one source of randomness: the operating system's.

use super::CryptoError;

/// Fills `bytes` with random bytes: for keys, nonces and ids, none of which is drawn under `apply`. Not pooled, since
/// cloned virtual machines would repeat what a pool holds.
///
/// # Errors
/// [`CryptoError::Random`] when the operating system gives none.
#[expect(clippy::disallowed_methods, reason = "this is the place where it is allowed")]
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<(), CryptoError> {
    getrandom::fill(bytes).map_err(CryptoError::Random)
}
