//! Page tokens: where the next page begins, and which arguments it belongs to. Sealed under the tenant's key, so that
//! clients can neither read nor make one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cairn_proto::storage::PageToken;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::store::sealing::{Place, Sealer};

/// A token longer than this was not made here.
const TOKEN_BYTES_MAX: usize = 4 * 1024;

/// The pages of one list: what its tokens are bound to.
pub(super) struct Pages<'a> {
    sealer: &'a Sealer,
    tenant: u64,
    arguments: Vec<u8>,
}

impl<'a> Pages<'a> {
    /// The pages of a method with these arguments: the request without its page size, page token and consistency.
    pub(super) fn new(sealer: &'a Sealer, tenant: u64, method: &str, arguments: &impl Message) -> Self {
        let mut hash = Sha256::new();
        hash.update([method.len() as u8]);
        hash.update(method.as_bytes());
        hash.update(arguments.encode_to_vec());
        Self { sealer, tenant, arguments: hash.finalize()[..16].to_vec() }
    }

    /// The cursor of a token; empty for the first page. Any token that was not made for these arguments is
    /// INVALID_ARGUMENT.
    pub(super) fn cursor(&self, token: &str) -> Result<Vec<u8>> {
        if token.is_empty() {
            return Ok(Vec::new());
        }
        let foreign = || Error::invalid("page_token", "is not a token that this server returned");
        if token.len() > TOKEN_BYTES_MAX {
            return Err(foreign());
        }
        let sealed = URL_SAFE_NO_PAD.decode(token).map_err(|_| foreign())?;
        let plain = self.sealer.open(Place::PageToken, self.tenant, &sealed).map_err(|_| foreign())?;
        let token = PageToken::decode(plain.as_slice()).map_err(|_| foreign())?;
        if token.arguments != self.arguments {
            return Err(Error::invalid("page_token", "belongs to a request with other arguments"));
        }
        Ok(token.cursor.to_vec())
    }

    /// The token of the page behind a cursor.
    pub(super) fn token(&self, cursor: &[u8]) -> Result<String> {
        let token = PageToken { arguments: self.arguments.clone().into(), cursor: cursor.to_vec().into() };
        let (_, sealed) = self.sealer.seal(Place::PageToken, self.tenant, &token.encode_to_vec())?;
        Ok(URL_SAFE_NO_PAD.encode(sealed))
    }
}
