//! The prepared keys of one tenant.

use std::fmt;

use zeroize::Zeroizing;

use crate::crypto::{
    Aad, Compression, CryptoError, FileKey, FreshNonce, KeyId, LookupKey, Purpose, RecordCipher, SecretKey,
    StoredFileKey, TenantId, sealed_key_id,
};

/// The family under which file keys are wrapped, and the format of what is wrapped: the 32 bytes themselves.
const FILE_KEY: &str = "file-key";
const FILE_KEY_FORMAT: u8 = 1;

/// What seals, opens and looks up one tenant's data. Ciphers are prepared once, so every call is cheap; all methods
/// take `&self` and may run on any number of threads.
pub struct TenantKeys {
    tenant: TenantId,
    /// Ascending by version, never empty; the last one seals, all of them open.
    data_keys: Vec<RecordCipher>,
    lookup_key: LookupKey,
}

impl TenantKeys {
    /// `data_keys` ascend by version and are not empty.
    pub(super) fn new(tenant: TenantId, data_keys: Vec<RecordCipher>, lookup_key: &SecretKey) -> TenantKeys {
        debug_assert!(data_keys.windows(2).all(|pair| pair[0].key_id() < pair[1].key_id()));
        TenantKeys { tenant, data_keys, lookup_key: LookupKey::new(lookup_key) }
    }

    /// Whose keys these are.
    #[must_use]
    pub fn tenant_id(&self) -> TenantId {
        self.tenant
    }

    /// The version of the data key that new values are sealed under.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.newest().key_id()
    }

    fn newest(&self) -> &RecordCipher {
        &self.data_keys[self.data_keys.len() - 1]
    }

    /// Seals `plain` for the place `aad`, compressed where that makes it smaller. The result names its key version.
    ///
    /// # Errors
    /// [`CryptoError::TooLong`]; [`CryptoError::Random`].
    pub fn seal(&self, aad: &Aad<'_>, plain: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let mut sealed = Vec::new();
        self.seal_into(aad, plain, &mut sealed)?;
        Ok(sealed)
    }

    /// As [`TenantKeys::seal`], appending to `out`, which is as before on an error.
    ///
    /// # Errors
    /// As [`TenantKeys::seal`].
    pub fn seal_into(&self, aad: &Aad<'_>, plain: &[u8], out: &mut Vec<u8>) -> Result<(), CryptoError> {
        self.newest().seal_into(Purpose::Record, Compression::Try, aad, plain, out)
    }

    /// As [`TenantKeys::seal_into`], with or without trying to compress, under a nonce of a batch.
    pub(crate) fn seal_with_nonce(
        &self,
        compression: Compression,
        nonce: FreshNonce,
        aad: &Aad<'_>,
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        self.newest().seal_with_nonce(Purpose::Record, compression, nonce, aad, plain, out)
    }

    /// Opens what one of the `seal` methods made for the same place, under whichever version of the data key.
    ///
    /// # Errors
    /// [`CryptoError::BadTag`] when any bit differs or the place is another; [`CryptoError::UnknownKey`];
    /// [`CryptoError::Malformed`]; [`CryptoError::UnknownFormat`].
    pub fn open(&self, aad: &Aad<'_>, sealed: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.data_key(sealed)?.open(Purpose::Record, aad, sealed)
    }

    /// The cipher whose version the sealed bytes name.
    fn data_key(&self, sealed: &[u8]) -> Result<&RecordCipher, CryptoError> {
        let key_id = sealed_key_id(sealed)?;
        let newest_first = self.data_keys.iter().rev();
        newest_first.into_iter().find(|key| key.key_id() == key_id).ok_or(CryptoError::UnknownKey(key_id))
    }

    /// The 16 bytes that stand for a string in storage keys. `domain` says what kind of string it is.
    #[must_use]
    pub fn lookup_id(&self, domain: u8, bytes: &[u8]) -> [u8; 16] {
        self.lookup_key.id(domain, &[bytes])
    }

    /// The 16 bytes that stand for several strings together, where no two sequences of strings share a result.
    #[must_use]
    pub fn lookup_id_of_parts(&self, domain: u8, parts: &[&[u8]]) -> [u8; 16] {
        self.lookup_key.id(domain, parts)
    }

    /// Wraps the key of a file for that file's header; `aad` names the file, and the key unwraps nowhere else. 78 bytes.
    ///
    /// # Errors
    /// [`CryptoError::Random`].
    pub fn wrap_file_key(&self, key: &FileKey, aad: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let mut wrapped = Vec::new();
        let aad = Aad { format: FILE_KEY_FORMAT, family: FILE_KEY, key: aad };
        self.newest().seal_into(Purpose::FileKey, Compression::Skip, &aad, key.0.expose(), &mut wrapped)?;
        Ok(wrapped)
    }

    /// Unwraps what [`TenantKeys::wrap_file_key`] made with the same `aad`. The result opens frames and cannot seal.
    ///
    /// # Errors
    /// As [`TenantKeys::open`].
    pub fn unwrap_file_key(&self, wrapped: &[u8], aad: &[u8]) -> Result<StoredFileKey, CryptoError> {
        let aad = Aad { format: FILE_KEY_FORMAT, family: FILE_KEY, key: aad };
        let opened = Zeroizing::new(self.data_key(wrapped)?.open(Purpose::FileKey, &aad, wrapped)?);
        let key = SecretKey::from_slice(&opened).ok_or(CryptoError::Malformed("a file key is not 32 bytes long"))?;
        Ok(StoredFileKey(key))
    }
}

impl fmt::Debug for TenantKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TenantKeys")
            .field("tenant", &self.tenant)
            .field("key_id", &self.key_id())
            .finish_non_exhaustive()
    }
}
