//! The one source of randomness: the operating system's.

use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng, SeedableRng};

use super::CryptoError;
use super::record::NONCE_LEN;

/// Fills `bytes` with random bytes: for keys, nonces and ids, none of which is drawn under `apply`. Not pooled, since
/// cloned virtual machines would repeat what a pool holds.
///
/// # Errors
/// [`CryptoError::Random`] when the operating system gives none.
#[expect(clippy::disallowed_methods, reason = "this is the place where it is allowed")]
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<(), CryptoError> {
    getrandom::fill(bytes).map_err(CryptoError::Random)
}

/// A nonce that nothing was sealed with yet. It is used up by the seal that takes it.
pub(crate) struct FreshNonce([u8; NONCE_LEN]);

impl FreshNonce {
    /// Draws one for a single value.
    ///
    /// # Errors
    /// As [`fill_random`].
    pub(crate) fn draw() -> Result<Self, CryptoError> {
        let mut nonce = [0; NONCE_LEN];
        fill_random(&mut nonce)?;
        Ok(Self(nonce))
    }

    pub(super) fn into_bytes(self) -> [u8; NONCE_LEN] {
        self.0
    }
}

/// Nonces for values that are sealed together: ChaCha20's stream under a key that is drawn for them alone, since a call of
/// the operating system for each costs more than to seal a small value. To be dropped with the batch, so that no pool is
/// left that a cloned virtual machine could repeat.
pub(crate) struct Nonces(ChaCha20Rng);

impl Nonces {
    /// Draws the key.
    ///
    /// # Errors
    /// As [`fill_random`].
    pub(crate) fn draw() -> Result<Self, CryptoError> {
        let mut seed = [0; 32];
        fill_random(&mut seed)?;
        Ok(Self(ChaCha20Rng::from_seed(seed)))
    }

    /// The next one.
    pub(crate) fn fresh(&mut self) -> FreshNonce {
        let mut nonce = [0; NONCE_LEN];
        self.0.fill_bytes(&mut nonce);
        FreshNonce(nonce)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_nonces_are_the_same() {
        let mut seen = HashSet::new();
        for _ in 0..4 {
            let mut nonces = Nonces::draw().unwrap();
            assert!((0..1000).all(|_| seen.insert(nonces.fresh().into_bytes())));
        }
        assert!((0..1000).all(|_| seen.insert(FreshNonce::draw().unwrap().into_bytes())));
    }
}
