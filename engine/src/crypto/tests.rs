use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{Aes256Gcm, KeyInit, Tag};
use proptest::prelude::*;
use xaes_256_gcm::Xaes256Gcm;

use super::aad::AadBytes;
use super::compress::{decompress, with_compressed};
use super::frame::{FileKey, FrameOpener, FrameSealer, StoredFileKey};
use super::*;

const KEY: [u8; 32] = {
    let mut key = [0; 32];
    let mut i = 0;
    while i < 32 {
        key[i] = i as u8;
        i += 1;
    }
    key
};
const PLACE: Aad<'static> = Aad { format: 1, family: "records", key: b"\x00\x01key" };

fn secret() -> SecretKey {
    SecretKey::from_slice(&KEY).expect("32 bytes")
}

fn cipher() -> RecordCipher {
    RecordCipher::new(&secret(), KeyId(7))
}

fn seal(compression: Compression, plain: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::new();
    cipher().seal_into(Purpose::Record, compression, &PLACE, plain, &mut sealed).expect("seals");
    sealed
}

fn open(sealed: &[u8]) -> Result<Vec<u8>, CryptoError> {
    cipher().open(Purpose::Record, &PLACE, sealed)
}

/// Text that shrinks, then bytes that do not.
fn plaintexts() -> [Vec<u8>; 4] {
    let mut random = vec![0; 2000];
    super::random::fill_random(&mut random).expect("random bytes");
    [Vec::new(), b"x".to_vec(), b"the user prefers tea to coffee; ".repeat(40), random]
}

#[test]
fn a_sealed_value_opens_and_follows_the_byte_map() {
    for plain in plaintexts() {
        let sealed = seal(Compression::Skip, &plain);
        assert_eq!(open(&sealed).expect("opens"), plain);
        assert_eq!(sealed_key_id(&sealed).expect("reads"), KeyId(7));

        assert_eq!(sealed.len(), 30 + plain.len() + 16);
        assert_eq!(sealed[..6], [1, 0, 7, 0, 0, 0]);
        let nonce: [u8; 24] = sealed[6..30].try_into().expect("24 bytes");
        let (body, tag) = sealed[30..].split_last_chunk::<16>().expect("a tag");
        let mut opened = body.to_vec();
        Xaes256Gcm::new(&KEY.into())
            .decrypt_inout_detached(
                &nonce.into(),
                b"\x01\x01\x00\x07\x00\x00\x00\x01\x07records\x00\x01key",
                InOutBuf::from(opened.as_mut_slice()),
                &Tag::from(*tag),
            )
            .expect("opens by hand");
        assert_eq!(opened, plain);
    }
}

#[test]
fn a_value_sealed_by_the_first_release_still_opens() {
    let sealed = hex::decode(include_str!("testdata/sealed_v1.hex").replace('\n', "")).expect("hex");
    assert_eq!(open(&sealed).expect("opens"), b"the user prefers tea to coffee; ".repeat(40));
}

#[test]
fn compression_is_kept_only_where_it_helps() {
    for plain in plaintexts() {
        let tried = seal(Compression::Try, &plain);
        let skipped = seal(Compression::Skip, &plain);
        assert_eq!(open(&tried).expect("opens"), plain);
        assert!(tried.len() <= skipped.len());
    }
    let text = b"the user prefers tea to coffee; ".repeat(40);
    assert!(seal(Compression::Try, &text).len() < text.len() / 4);
}

#[test]
fn every_flipped_bit_of_a_sealed_value_is_detected() {
    for compression in [Compression::Try, Compression::Skip] {
        let mut sealed = seal(compression, &b"the user prefers tea to coffee; ".repeat(4));
        for bit in 0..sealed.len() * 8 {
            sealed[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&sealed).is_err(), "bit {bit}");
            sealed[bit / 8] ^= 1 << (bit % 8);
        }
        for len in 0..sealed.len() {
            assert!(open(&sealed[..len]).is_err(), "cut to {len} bytes");
        }
        assert!(open(&sealed).is_ok());
    }
}

#[test]
fn a_sealed_value_opens_in_its_own_place_only() {
    let sealed = seal(Compression::Skip, b"content");
    for place in [
        Aad { format: 2, ..PLACE },
        Aad { family: "record", ..PLACE },
        Aad { key: b"\x00\x01kez", ..PLACE },
        Aad { family: "records\x00", key: b"\x01key", ..PLACE },
        Aad { family: "", key: b"", ..PLACE },
    ] {
        assert!(matches!(cipher().open(Purpose::Record, &place, &sealed), Err(CryptoError::BadTag)), "{place:?}");
    }
    assert!(matches!(cipher().open(Purpose::FileKey, &PLACE, &sealed), Err(CryptoError::BadTag)));
    let other_key = RecordCipher::new(&SecretKey::generate().expect("key"), KeyId(7));
    assert!(matches!(other_key.open(Purpose::Record, &PLACE, &sealed), Err(CryptoError::BadTag)));
    let other_version = RecordCipher::new(&secret(), KeyId(8));
    assert!(matches!(other_version.open(Purpose::Record, &PLACE, &sealed), Err(CryptoError::UnknownKey(KeyId(7)))));
}

#[test]
fn sealing_appends_and_repeats_no_nonce() {
    let mut out = b"before".to_vec();
    cipher().seal_into(Purpose::Record, Compression::Try, &PLACE, b"content", &mut out).expect("seals");
    assert_eq!(&out[..6], b"before");
    assert_eq!(open(&out[6..]).expect("opens"), b"content");
    assert_ne!(seal(Compression::Skip, b"content")[6..30], seal(Compression::Skip, b"content")[6..30]);
}

#[test]
fn long_storage_keys_are_bound_too() {
    let long = vec![9; 1000];
    let place = Aad { key: &long, ..PLACE };
    let mut sealed = Vec::new();
    cipher().seal_into(Purpose::Record, Compression::Skip, &place, b"content", &mut sealed).expect("seals");
    assert_eq!(cipher().open(Purpose::Record, &place, &sealed).expect("opens"), b"content");
    let mut other = long.clone();
    other[999] = 8;
    assert!(cipher().open(Purpose::Record, &Aad { key: &other, ..PLACE }, &sealed).is_err());
}

#[test]
fn too_much_plaintext_is_refused() {
    let mut out = b"before".to_vec();
    let long = vec![0; PLAINTEXT_LEN_MAX + 1];
    let refused = cipher().seal_into(Purpose::Record, Compression::Try, &PLACE, &long, &mut out);
    assert!(matches!(refused, Err(CryptoError::TooLong { .. })));
    assert_eq!(out, b"before");
}

#[test]
fn unpacking_stays_within_its_bound() {
    let packed = with_compressed(&vec![0; 1 << 20], |packed| packed.map(<[u8]>::to_vec)).expect("packs");
    let mut packed = packed.expect("zeros shrink");
    assert!(packed.len() < 1000);
    assert_eq!(decompress(&packed, 1 << 20).expect("unpacks").len(), 1 << 20);
    assert!(matches!(decompress(&packed, (1 << 20) - 1), Err(CryptoError::TooLong { .. })));
    // A frame that is longer, or shorter, than its length field says.
    packed[0] = 1;
    assert!(matches!(decompress(&packed, 1 << 21), Err(CryptoError::Malformed(_))));
    packed[2] = 0;
    assert!(matches!(decompress(&packed, 1 << 21), Err(CryptoError::Compression(_))));
}

#[test]
fn frames_open_in_their_own_place_only() {
    let origin = ClusterId([3; 16]);
    let mut sealer = FrameSealer::new(FileKey(secret()), origin, 5);
    let sealed = sealer.seal(0, 1, b"frame").expect("seals");
    assert_eq!(sealed.len(), 5 + FRAME_OVERHEAD);
    assert_eq!(sealer.open(0, 1, &sealed).expect("opens"), b"frame");

    let stored = StoredFileKey(secret());
    assert_eq!(FrameOpener::new(&stored, origin, 5).open(0, 1, &sealed).expect("opens"), b"frame");
    for (origin, file_id, frame_no, kind) in
        [(ClusterId([4; 16]), 5, 0, 1), (origin, 6, 0, 1), (origin, 5, 1, 1), (origin, 5, 0, 2)]
    {
        let refused = FrameOpener::new(&stored, origin, file_id).open(frame_no, kind, &sealed);
        assert!(matches!(refused, Err(CryptoError::BadTag)));
    }
}

#[test]
fn a_frame_follows_the_byte_map() {
    let mut sealer = FrameSealer::new(FileKey(secret()), ClusterId([3; 16]), 0x0102);
    let sealed = sealer.seal(0x0a0b, 9, b"frame").expect("seals");
    let mut aad = vec![1];
    aad.extend([3; 16]);
    aad.extend([2, 1, 0, 0, 0, 0, 0, 0, 0x0b, 0x0a, 0, 0, 0, 0, 0, 0, 9]);
    let nonce = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0a, 0x0b];
    let (body, tag) = sealed.split_last_chunk::<16>().expect("a tag");
    let mut opened = body.to_vec();
    Aes256Gcm::new(&KEY.into())
        .decrypt_inout_detached(&nonce.into(), &aad, InOutBuf::from(opened.as_mut_slice()), &Tag::from(*tag))
        .expect("opens by hand");
    assert_eq!(opened, b"frame");
}

#[test]
fn a_frame_number_is_sealed_once() {
    let mut sealer = FrameSealer::new(FileKey(secret()), ClusterId([3; 16]), 5);
    sealer.seal(4, 1, b"frame").expect("seals");
    assert_eq!(sealer.next_frame_no(), 5);
    for frame_no in [0, 4, u64::MAX] {
        let mut out = b"before".to_vec();
        let refused = sealer.seal_into(frame_no, 1, b"frame", &mut out);
        assert!(matches!(refused, Err(CryptoError::FrameOrder { next: 5, .. })), "{refused:?}");
        assert_eq!(out, b"before");
    }
    sealer.seal(5, 1, b"frame").expect("seals");
    sealer.seal(9, 1, b"frame").expect("gaps are allowed");
}

#[test]
fn every_flipped_bit_of_a_frame_is_detected() {
    let mut sealer = FrameSealer::new(FileKey(secret()), ClusterId([3; 16]), 5);
    let opener = FrameOpener::new(&StoredFileKey(secret()), ClusterId([3; 16]), 5);
    let mut sealed = sealer.seal(0, 1, b"one frame of the log").expect("seals");
    for bit in 0..sealed.len() * 8 {
        sealed[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(sealer.open(0, 1, &sealed), Err(CryptoError::BadTag)), "bit {bit}");
        let mut buffer = sealed.clone();
        assert!(opener.open_in_place(0, 1, &mut buffer).is_err());
        assert_eq!(buffer, sealed, "a frame that does not open is left as it was");
        sealed[bit / 8] ^= 1 << (bit % 8);
    }
}

/// Computed once with Python's `hmac`.
#[test]
fn lookup_ids_are_hmac_sha_256() {
    let lookup = LookupKey::new(&secret());
    assert_eq!(hex::encode(lookup.id(1, &[b"memory-1"])), "274c7644f36cc2245b95ace59e6b7319");
    assert_eq!(hex::encode(lookup.id(7, &[b"a", b"", b"bc"])), "16928e8ecbe84116833706f060ce7ef5");
}

#[test]
fn lookup_ids_tell_domains_keys_and_parts_apart() {
    let lookup = LookupKey::new(&secret());
    let other = LookupKey::new(&SecretKey::generate().expect("key"));
    let ids = [
        lookup.id(1, &[b"ab"]),
        lookup.id(2, &[b"ab"]),
        lookup.id(1, &[b"a", b"b"]),
        lookup.id(1, &[b"", b"ab"]),
        lookup.id(1, &[b"ab", b""]),
        lookup.id(1, &[]),
        other.id(1, &[b"ab"]),
    ];
    for (at, id) in ids.iter().enumerate() {
        assert!(!ids[at + 1..].contains(id));
    }
}

#[test]
fn nothing_secret_prints() {
    let file_key = FileKey(secret());
    let printed = format!("{:?} {file_key:?} {:?}", secret(), StoredFileKey(secret()));
    assert_eq!(printed, "SecretKey(..) FileKey(..) StoredFileKey(..)");
    let sealer = format!("{:?}", FrameSealer::new(file_key, ClusterId([3; 16]), 5));
    assert!(!sealer.contains("cipher") && !sealer.contains("8, 9, 10"), "{sealer}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_is_sealed_opens(plain in prop::collection::vec(any::<u8>(), 0..4096), shrink in any::<bool>()) {
        let plain = if shrink { plain.iter().map(|byte| byte & 1).collect() } else { plain };
        for compression in [Compression::Try, Compression::Skip] {
            let sealed = seal(compression, &plain);
            prop_assert!(sealed.len() <= plain.len() + SEALED_OVERHEAD_MAX);
            prop_assert_eq!(&open(&sealed).expect("opens"), &plain);
        }
    }

    #[test]
    fn any_damage_is_an_error(
        plain in prop::collection::vec(any::<u8>(), 0..300),
        at in any::<prop::sample::Index>(),
        difference in 1..=255u8,
    ) {
        let mut sealed = seal(Compression::Try, &plain);
        *at.get_mut(&mut sealed) ^= difference;
        prop_assert!(open(&sealed).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), as_sealed in any::<bool>()) {
        if as_sealed && bytes.len() > 6 {
            let flags = bytes[1] & 1;
            bytes[..6].copy_from_slice(&[1, flags, 7, 0, 0, 0]);
        }
        prop_assert!(open(&bytes).is_err());
        let _ = sealed_key_id(&bytes);
        let _ = decompress(&bytes, 1 << 16);
        let opener = FrameOpener::new(&StoredFileKey(secret()), ClusterId([3; 16]), 5);
        prop_assert!(opener.open(0, 0, &bytes).is_err());
    }

    #[test]
    fn two_places_never_share_an_encoding(
        left in (any::<u8>(), "[a-z]{0,4}", prop::collection::vec(b'a'..=b'd', 0..5)),
        right in (any::<u8>(), "[a-z]{0,4}", prop::collection::vec(b'a'..=b'd', 0..5)),
    ) {
        let encode = |(format, family, key): &(u8, String, Vec<u8>)| {
            let place = Aad { format: *format, family, key };
            AadBytes::new(Purpose::Record, 1, 0, KeyId(1), &place).as_slice().to_vec()
        };
        prop_assert_eq!(left == right, encode(&left) == encode(&right));
    }

    #[test]
    fn frames_of_any_content_open(
        frames in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..200)), 1..20),
    ) {
        let mut sealer = FrameSealer::new(FileKey(secret()), ClusterId([3; 16]), 5);
        let mut file = Vec::new();
        let mut starts = Vec::new();
        for (number, (kind, plain)) in frames.iter().enumerate() {
            starts.push(file.len());
            sealer.seal_into(number as u64, *kind, plain, &mut file).expect("seals");
        }
        starts.push(file.len());
        let opener = sealer.into_opener();
        for (number, (kind, plain)) in frames.iter().enumerate() {
            let sealed = &file[starts[number]..starts[number + 1]];
            prop_assert_eq!(&opener.open(number as u64, *kind, sealed).expect("opens"), plain);
        }
    }
}

/// Prints a value for `testdata`; run once for each new format, never to change an old one.
#[test]
#[ignore = "writes nothing; prints the golden value of the current format"]
fn print_golden_value() {
    println!("{}", hex::encode(seal(Compression::Try, &b"the user prefers tea to coffee; ".repeat(40))));
}
