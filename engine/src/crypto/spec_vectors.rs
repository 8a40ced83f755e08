//! The test vectors of the XAES-256-GCM specification, <https://c2sp.org/XAES-256-GCM>, run against the crate that
//! [`super::record`] seals with and through the same calls.

use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{KeyInit, Tag};
use shake::{ExtendableOutput, Shake128, Update, XofReader};
use xaes_256_gcm::{Nonce, Xaes256Gcm};

fn seal(key: [u8; 32], nonce: [u8; 24], plain: &[u8], aad: &[u8]) -> Vec<u8> {
    let mut sealed = plain.to_vec();
    let cipher = Xaes256Gcm::new(&key.into());
    let tag =
        cipher.encrypt_inout_detached(&Nonce::from(nonce), aad, InOutBuf::from(sealed.as_mut_slice())).expect("seals");
    sealed.extend_from_slice(&tag);
    sealed
}

fn open(key: [u8; 32], nonce: [u8; 24], sealed: &[u8], aad: &[u8]) -> Vec<u8> {
    let (body, tag) = sealed.split_last_chunk::<16>().expect("has a tag");
    let mut plain = body.to_vec();
    Xaes256Gcm::new(&key.into())
        .decrypt_inout_detached(&Nonce::from(nonce), aad, InOutBuf::from(plain.as_mut_slice()), &Tag::from(*tag))
        .expect("opens");
    plain
}

#[test]
fn both_vectors_of_the_specification() {
    let nonce = *b"ABCDEFGHIJKLMNOPQRSTUVWX";
    // The two keys lead through both branches of the subkey's derivation (most significant bit of L is 0 and 1).
    for (key, aad, expected) in [
        ([1; 32], b"".as_slice(), "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
        ([3; 32], b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
    ] {
        let sealed = seal(key, nonce, b"XAES-256-GCM", aad);
        assert_eq!(hex::encode(&sealed), expected);
        assert_eq!(open(key, nonce, &sealed, aad), b"XAES-256-GCM");
    }
}

/// Keys, nonces, plaintexts and associated data of random lengths are drawn from SHAKE-128 of nothing, and all sealed
/// bytes are hashed with SHAKE-128.
fn accumulated(iterations: usize) -> String {
    let mut drawn = Shake128::default().finalize_xof();
    let mut sum = Shake128::default();
    let mut bytes = |length: usize| {
        let mut bytes = vec![0; length];
        drawn.read(&mut bytes);
        bytes
    };
    for _ in 0..iterations {
        let key: [u8; 32] = bytes(32).try_into().expect("32 bytes");
        let nonce: [u8; 24] = bytes(24).try_into().expect("24 bytes");
        let plain_len = bytes(1)[0];
        let plain = bytes(plain_len.into());
        let aad_len = bytes(1)[0];
        let aad = bytes(aad_len.into());
        let sealed = seal(key, nonce, &plain, &aad);
        assert_eq!(open(key, nonce, &sealed, &aad), plain);
        sum.update(&sealed);
    }
    let mut digest = [0; 32];
    sum.finalize_xof().read(&mut digest);
    hex::encode(digest)
}

#[test]
fn accumulated_vector_of_10_000_iterations() {
    assert_eq!(accumulated(10_000), "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939");
}

#[test]
#[ignore = "takes seconds; the specification's long form of the vector above"]
fn accumulated_vector_of_1_000_000_iterations() {
    assert_eq!(accumulated(1_000_000), "2163ae1445985a30b60585ee67daa55674df06901b890593e824b8a7c885ab15");
}
