//! What can go wrong while sealing or opening.

use super::KeyId;

/// Why bytes could not be sealed or opened. None of these depends on the caller's timing: the same bytes fail again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CryptoError {
    /// The bytes are too short or their fixed parts contradict each other.
    #[error("sealed bytes are malformed: {0}")]
    Malformed(&'static str),
    /// A newer release wrote them.
    #[error("sealed bytes have format {found}, this release reads format {supported}")]
    UnknownFormat {
        /// The format byte that was found.
        found: u8,
        /// The newest format that this release reads.
        supported: u8,
    },
    /// They name a key version that this keyring does not hold.
    #[error("sealed bytes name key version {0}, which the keyring does not hold")]
    UnknownKey(KeyId),
    /// The tag does not match: the bytes are damaged, lie in a foreign place, or belong to another key.
    #[error("sealed bytes do not match their tag: damaged, moved from another place, or sealed under another key")]
    BadTag,
    /// More plaintext than one value may hold.
    #[error("{len} bytes are more than the {max} that one sealed value may hold")]
    TooLong {
        /// Length of the plaintext in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// A frame number was used before; sealing it again would repeat a nonce.
    #[error("frame {frame_no} was asked for, but frames below {next} of this file are sealed already")]
    FrameOrder {
        /// The frame number that was asked for.
        frame_no: u64,
        /// The lowest frame number that may still be sealed.
        next: u64,
    },
    /// zstd refused; for opened values this means that the writer was faulty, since the tag matched.
    #[error("compression failed: {0}")]
    Compression(#[source] std::io::Error),
    /// The operating system gave no random bytes.
    #[error("the operating system's random number generator failed: {0}")]
    Random(getrandom::Error),
}
