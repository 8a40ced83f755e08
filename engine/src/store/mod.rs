//! The store: what lies in RocksDB, and how.
//!
//! ```text
//!   apply, reads ---> rows: plaintext by key ---> sealed under the tenant's key ---> rocks: one column family
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `keys` | the byte map of every key, and the kinds |
//! | `sealing` | plaintext rows to stored values and back |
//! | `rocks` | RocksDB: options, open, refusal of foreign directories, flush, checkpoint |
//! | `blobs` | large values in files of their own: what is garbage in them, and how it goes |
//! | `overlay` | the changes of commands that are not written yet, over what is |

mod blobs;
pub(crate) mod keys;
pub(crate) mod overlay;
pub(crate) mod rocks;
pub(crate) mod sealing;

use prost::Message;

use crate::error::{Error, Result};
use keys::Key;

/// Plaintext rows of one consistent state.
pub(crate) trait Rows {
    /// The plaintext of a row; `None` where it is not there.
    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>>;

    /// Decodes a row's message.
    fn get_message<M: Message + Default>(&self, key: &Key) -> Result<Option<M>> {
        self.get(key)?.map(|plain| decode(key, &plain)).transpose()
    }
}

/// Decodes the plaintext of a row.
pub(crate) fn decode<M: Message + Default>(key: &Key, plain: &[u8]) -> Result<M> {
    M::decode(plain)
        .map_err(|e| Error::corruption(format!("a {} row does not decode", key.kind().name())).with_source(e))
}
