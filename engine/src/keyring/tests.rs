use std::fs;
use std::io::{Read, Seek};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::durable_file::{self, Step};
use super::*;
use crate::crypto::{Aad, CryptoError, FrameOpener, FrameSealer};

const CLUSTER: ClusterId = ClusterId([0xc1; 16]);
const TENANT: TenantId = TenantId(42);
const PLACE: Aad<'static> = Aad { format: 1, family: "records", key: b"key" };

fn root() -> RootKey {
    let mut bytes = [7; 32];
    bytes[0] = 1;
    RootKey::from_bytes(&bytes)
}

fn other_root() -> RootKey {
    let mut bytes = [7; 32];
    bytes[0] = 2;
    RootKey::from_bytes(&bytes)
}

struct Fixture {
    directory: TempDir,
    keyring: Keyring,
}

impl Fixture {
    fn new() -> Fixture {
        let directory = TempDir::new().expect("a directory");
        let keyring = Keyring::create(&directory.path().join("keyring"), &root(), CLUSTER).expect("creates");
        Fixture { directory, keyring }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("keyring")
    }

    fn reopened(&self) -> Keyring {
        Keyring::open(&self.path(), &root()).expect("opens")
    }

    fn with_tenant(self) -> Fixture {
        let wrapped = self.keyring.new_tenant_keys(TENANT).expect("makes keys");
        assert_eq!(self.keyring.install_tenant_keys(&wrapped).expect("installs"), Installed::New);
        self
    }
}

/// The keyring file with a checksum that fits, as an attacker would leave it.
fn with_checksum(mut file: Vec<u8>) -> Vec<u8> {
    let end = file.len() - 4;
    let checksum = crc32fast::hash(&file[..end]);
    file[end..].copy_from_slice(&checksum.to_le_bytes());
    file
}

fn decode(file: &[u8]) -> Result<Contents, KeyringError> {
    Contents::decode("the test's keyring", file, &root())
}

fn assert_one_line(error: &KeyringError) {
    let message = error.to_string();
    assert!(!message.contains('\n') && message.contains(": "), "one line that says what to do: {message}");
}

// ---- root key

fn write_root_key(directory: &TempDir, text: &str, mode: u32) -> PathBuf {
    let path = directory.path().join("root.key");
    fs::write(&path, text).expect("writes");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("sets mode");
    path
}

#[test]
fn a_root_key_reads_as_hex_and_as_base64() {
    let directory = TempDir::new().expect("a directory");
    let bytes: [u8; 32] = std::array::from_fn(|i| i as u8 * 8 + 3);
    let expected = RootKey::from_bytes(&bytes).id();
    let hex = hex::encode(bytes);
    let base64 = "AwsTGyMrMztDS1NbY2tze4OLk5ujq7O7w8vT2+Pr8/s=";
    for text in [hex.clone(), hex.to_uppercase(), format!("  {hex}\n"), base64.to_owned(), base64.replace('=', "\n")] {
        let path = write_root_key(&directory, &text, 0o600);
        assert_eq!(RootKey::from_file(&path).expect("reads").id(), expected, "{text}");
    }
}

#[test]
fn the_id_of_a_root_key_is_hkdf_sha_256() {
    // Computed once with Python's `hmac`.
    let id = RootKey::from_bytes(&std::array::from_fn(|i| i as u8)).id();
    assert_eq!(hex::encode(id), "20e857df931a5dcf718f64f3d9e9f9b4");
}

#[test]
fn text_that_is_no_root_key_is_refused_without_being_quoted() {
    let directory = TempDir::new().expect("a directory");
    let good = hex::encode::<[u8; 32]>(std::array::from_fn(|i| i as u8));
    for text in ["", "\n", "secret words", &good[..62], &format!("{good}00"), &good.replace('a', "g"), &"0".repeat(64)]
    {
        let error = RootKey::from_file(&write_root_key(&directory, text, 0o600)).expect_err("refused");
        assert!(matches!(error, KeyringError::RootKeyMalformed { .. }), "{text}: {error}");
        assert_one_line(&error);
        assert!(text.trim().is_empty() || !error.to_string().contains(text));
    }
}

#[test]
fn a_root_key_file_that_others_can_read_is_refused() {
    let directory = TempDir::new().expect("a directory");
    let good = hex::encode::<[u8; 32]>(std::array::from_fn(|i| i as u8));
    for mode in [0o644, 0o640, 0o620, 0o604, 0o601] {
        let error = RootKey::from_file(&write_root_key(&directory, &good, mode)).expect_err("refused");
        assert!(matches!(error, KeyringError::RootKeyExposed { .. }), "{error}");
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
    for mode in [0o600, 0o400] {
        RootKey::from_file(&write_root_key(&directory, &good, mode)).expect("accepted");
    }
}

#[test]
fn a_missing_root_key_says_how_to_make_one() {
    let directory = TempDir::new().expect("a directory");
    for error in [
        RootKey::from_file(&directory.path().join("none")).expect_err("refused"),
        RootKey::from_env("CAIRN_TEST_VARIABLE_THAT_NOBODY_SETS").expect_err("refused"),
    ] {
        assert!(matches!(error, KeyringError::RootKeyMissing { .. }), "{error}");
        assert!(error.to_string().contains("openssl rand -hex 32"), "{error}");
    }
    // Some variable that every test run has: it is read, and is no key.
    let error = RootKey::from_env("PATH").expect_err("refused");
    assert!(matches!(error, KeyringError::RootKeyMalformed { .. }), "{error}");
}

#[test]
fn a_generated_root_key_file_is_private_new_and_never_replaced() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("root.key");
    let made = RootKey::generate_file(&path).expect("generates");
    assert_eq!(fs::metadata(&path).expect("exists").permissions().mode() & 0o7777, 0o600);
    assert_eq!(RootKey::from_file(&path).expect("reads").id(), made.id());
    let before = fs::read(&path).expect("reads");
    assert_eq!(before.len(), 65);
    assert!(matches!(RootKey::generate_file(&path), Err(KeyringError::Exists { .. })));
    assert_eq!(fs::read(&path).expect("reads"), before);
    assert_eq!(fs::read_dir(directory.path()).expect("lists").count(), 1);
}

// ---- keyring

#[test]
fn what_one_keyring_seals_the_reopened_one_opens() {
    let fixture = Fixture::new().with_tenant();
    let sealed = fixture.keyring.tenant(TENANT).expect("has keys").seal(&PLACE, b"content").expect("seals");
    let id = fixture.keyring.tenant(TENANT).expect("has keys").lookup_id(1, b"memory");

    let reopened = fixture.reopened();
    assert_eq!(reopened.cluster_id(), CLUSTER);
    assert_eq!(reopened.tenant_ids(), [TENANT]);
    let keys = reopened.tenant(TENANT).expect("has keys");
    assert_eq!(keys.open(&PLACE, &sealed).expect("opens"), b"content");
    assert_eq!(keys.lookup_id(1, b"memory"), id);

    let system = reopened.system();
    assert!(matches!(system.open(&PLACE, &sealed), Err(CryptoError::BadTag)));
    assert_ne!(system.lookup_id(1, b"memory"), id);
    assert_eq!(reopened.tenant(TenantId(43)).expect_err("unknown"), KeyError::Unknown(TenantId(43)));
}

#[test]
fn creating_never_replaces_a_keyring() {
    let fixture = Fixture::new();
    let before = fs::read(fixture.path()).expect("reads");
    let exported = fixture.keyring.export().expect("exports");
    for refused in
        [Keyring::create(&fixture.path(), &root(), CLUSTER), Keyring::import(&fixture.path(), &exported, &root())]
    {
        assert!(matches!(refused, Err(KeyringError::Exists { .. })));
    }
    assert_eq!(fs::read(fixture.path()).expect("reads"), before);
    assert_eq!(fs::metadata(fixture.path()).expect("exists").permissions().mode() & 0o7777, 0o600);
}

#[test]
fn a_missing_keyring_a_wrong_root_key_and_a_newer_format_have_errors_of_their_own() {
    let fixture = Fixture::new().with_tenant();
    let missing = Keyring::open(&fixture.directory.path().join("none"), &root()).expect_err("refused");
    assert!(matches!(missing, KeyringError::NotFound { .. }));
    let wrong = Keyring::open(&fixture.path(), &other_root()).expect_err("refused");
    assert!(matches!(wrong, KeyringError::WrongRootKey { .. }), "{wrong}");
    let mut file = fs::read(fixture.path()).expect("reads");
    file[0] = 2;
    fs::write(fixture.path(), with_checksum(file)).expect("writes");
    let newer = Keyring::open(&fixture.path(), &root()).expect_err("refused");
    assert!(matches!(newer, KeyringError::NewerFormat { found: 2, .. }), "{newer}");
    for error in [missing, wrong, newer] {
        assert_one_line(&error);
    }
}

#[test]
fn every_flipped_bit_and_every_cut_of_the_file_is_damage() {
    let fixture = Fixture::new().with_tenant();
    fixture.keyring.destroy_tenant(TenantId(9), 5).expect("destroys");
    let mut file = fs::read(fixture.path()).expect("reads");
    for bit in 0..file.len() * 8 {
        file[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(decode(&file), Err(KeyringError::Damaged { .. })), "bit {bit}");
        // The same with the checksum made to fit: still never accepted.
        if bit / 8 < file.len() - 4 {
            assert!(decode(&with_checksum(file.clone())).is_err(), "bit {bit}");
        }
        file[bit / 8] ^= 1 << (bit % 8);
    }
    for len in 0..file.len() {
        assert!(matches!(decode(&file[..len]), Err(KeyringError::Damaged { .. })), "cut to {len} bytes");
    }
    assert!(decode(&file).is_ok());

    file[100] ^= 1;
    fs::write(fixture.path(), &file).expect("writes");
    assert_one_line(&Keyring::open(&fixture.path(), &root()).expect_err("refused"));
}

#[test]
fn installing_twice_changes_nothing_the_second_time() {
    let fixture = Fixture::new();
    let wrapped = fixture.keyring.new_tenant_keys(TENANT).expect("makes keys");
    assert_eq!(fixture.keyring.tenant(TENANT).expect_err("not yet"), KeyError::Unknown(TENANT));
    assert_eq!(fixture.keyring.install_tenant_keys(&wrapped).expect("installs"), Installed::New);
    let before = fs::read(fixture.path()).expect("reads");
    assert_eq!(fixture.keyring.install_tenant_keys(&wrapped).expect("installs"), Installed::Present);
    assert_eq!(fixture.reopened().install_tenant_keys(&wrapped).expect("installs"), Installed::Present);
    assert_eq!(fs::read(fixture.path()).expect("reads"), before);
    assert!(matches!(fixture.keyring.new_tenant_keys(TENANT), Err(KeyringError::Refused { .. })));
}

#[test]
fn keys_that_contradict_installed_ones_are_refused() {
    let fixture = Fixture::new();
    let first = fixture.keyring.new_tenant_keys(TENANT).expect("makes keys");
    let second = fixture.keyring.new_tenant_keys(TENANT).expect("makes keys");
    let system = fixture.keyring.new_tenant_keys(TenantId::SYSTEM);
    assert!(matches!(system, Err(KeyringError::Refused { .. })));
    fixture.keyring.install_tenant_keys(&first).expect("installs");
    let before = fs::read(fixture.path()).expect("reads");
    let as_system = WrappedTenantKeys { tenant_id: 0, ..first.clone() };
    let without_version = WrappedTenantKeys { data_key_version: 0, ..first.clone() };
    for refused in [&second, &as_system, &without_version] {
        assert!(matches!(fixture.keyring.install_tenant_keys(refused), Err(KeyringError::Refused { .. })));
    }
    let moved = WrappedTenantKeys { tenant_id: 43, ..first.clone() };
    let newer = WrappedTenantKeys { data_key_version: 2, ..first.clone() };
    let swapped = WrappedTenantKeys {
        tenant_id: 43,
        data_key: first.lookup_key.clone(),
        lookup_key: first.data_key.clone(),
        ..first.clone()
    };
    let unknown_kek = WrappedTenantKeys { tenant_id: 43, kek_version: 9, ..first.clone() };
    let empty = WrappedTenantKeys { tenant_id: 43, data_key_version: 1, kek_version: 1, ..Default::default() };
    for unopened in [&moved, &newer, &swapped, &unknown_kek, &empty] {
        assert!(matches!(fixture.keyring.install_tenant_keys(unopened), Err(KeyringError::Crypto(_))));
    }
    assert_eq!(fs::read(fixture.path()).expect("reads"), before);
    assert_eq!(fixture.keyring.install_tenant_keys(&first).expect("installs"), Installed::Present);
}

#[test]
fn a_rotated_key_seals_and_the_older_one_still_opens() {
    let fixture = Fixture::new().with_tenant();
    let old = fixture.keyring.tenant(TENANT).expect("has keys");
    let sealed = old.seal(&PLACE, b"content").expect("seals");
    let wrapped = fixture.keyring.rotated_tenant_keys(TENANT).expect("rotates");
    assert_eq!(fixture.keyring.install_tenant_keys(&wrapped).expect("installs"), Installed::New);
    for keyring in [&fixture.keyring, &fixture.reopened()] {
        let keys = keyring.tenant(TENANT).expect("has keys");
        assert_eq!(keys.key_id(), KeyId(2));
        assert_eq!(keys.open(&PLACE, &sealed).expect("opens"), b"content");
        assert_eq!(keys.lookup_id(1, b"memory"), old.lookup_id(1, b"memory"));
        let resealed = keys.seal(&PLACE, b"content").expect("seals");
        assert_eq!(keys.open(&PLACE, &resealed).expect("opens"), b"content");
        assert!(matches!(old.open(&PLACE, &resealed), Err(CryptoError::UnknownKey(KeyId(2)))));
    }
    assert!(matches!(fixture.keyring.rotated_tenant_keys(TenantId(43)), Err(KeyringError::Refused { .. })));
}

#[test]
fn a_destroyed_tenant_stays_destroyed() {
    let fixture = Fixture::new();
    let wrapped = fixture.keyring.new_tenant_keys(TENANT).expect("makes keys");
    fixture.keyring.install_tenant_keys(&wrapped).expect("installs");
    let tombstone = fixture.keyring.destroy_tenant(TENANT, 1234).expect("destroys");
    assert_eq!(tombstone, TenantTombstone { tenant_id: 42, destroyed_at_micros: 1234 });
    for keyring in [&fixture.keyring, &fixture.reopened()] {
        assert_eq!(keyring.tenant(TENANT).expect_err("gone"), KeyError::Destroyed(TENANT));
        assert_eq!(keyring.destroy_tenant(TENANT, 9999).expect("destroys"), tombstone);
        assert_eq!(keyring.install_tenant_keys(&wrapped).expect("passes"), Installed::Destroyed);
        assert!(matches!(keyring.new_tenant_keys(TENANT), Err(KeyringError::Refused { .. })));
        assert!(keyring.tenant_ids().is_empty());
    }
    // A replay may meet the end of a tenant before its beginning.
    fixture.keyring.destroy_tenant(TenantId(50), 1).expect("destroys");
    assert_eq!(fixture.reopened().tenant(TenantId(50)).expect_err("gone"), KeyError::Destroyed(TenantId(50)));
    assert!(matches!(fixture.keyring.destroy_tenant(TenantId::SYSTEM, 1), Err(KeyringError::Refused { .. })));
}

#[test]
fn destroying_overwrites_the_replaced_file_but_no_copy_that_has_a_name() {
    let fixture = Fixture::new().with_tenant();
    let mut replaced = fs::File::open(fixture.path()).expect("opens");
    fixture.keyring.destroy_tenant(TENANT, 1).expect("destroys");
    let mut bytes = Vec::new();
    replaced.rewind().expect("rewinds");
    replaced.read_to_end(&mut bytes).expect("reads");
    assert!(!bytes.is_empty() && bytes.iter().all(|byte| *byte == 0));

    let copy = fixture.directory.path().join("copy");
    fs::hard_link(fixture.path(), &copy).expect("links");
    let before = fs::read(&copy).expect("reads");
    fixture.keyring.destroy_tenant(TenantId(50), 1).expect("destroys");
    assert_eq!(fs::read(&copy).expect("reads"), before);
}

#[test]
fn an_exported_keyring_serves_another_member() {
    let fixture = Fixture::new().with_tenant();
    let exported = fixture.keyring.export().expect("exports");
    let elsewhere = TempDir::new().expect("a directory");
    let path = elsewhere.path().join("keyring");
    assert!(matches!(Keyring::import(&path, &exported, &other_root()), Err(KeyringError::WrongRootKey { .. })));
    assert!(matches!(Keyring::import(&path, &exported[1..], &root()), Err(KeyringError::Damaged { .. })));
    assert!(!path.exists());

    let member = Keyring::import(&path, &exported, &root()).expect("imports");
    assert_eq!(member.cluster_id(), CLUSTER);
    let sealed = fixture.keyring.tenant(TENANT).expect("has keys").seal(&PLACE, b"content").expect("seals");
    for keyring in [&member, &Keyring::open(&path, &root()).expect("opens")] {
        assert_eq!(keyring.tenant(TENANT).expect("has keys").open(&PLACE, &sealed).expect("opens"), b"content");
    }
    // Keys made on one member install on the other.
    let wrapped = member.new_tenant_keys(TenantId(77)).expect("makes keys");
    for keyring in [&member, &fixture.keyring] {
        assert_eq!(keyring.install_tenant_keys(&wrapped).expect("installs"), Installed::New);
    }
}

#[test]
fn merging_takes_over_newer_keys_and_tombstones() {
    let leader = Fixture::new().with_tenant();
    let elsewhere = TempDir::new().expect("a directory");
    let path = elsewhere.path().join("keyring");
    let lagging = Keyring::import(&path, &leader.keyring.export().expect("exports"), &root()).expect("imports");

    let rotated = leader.keyring.rotated_tenant_keys(TENANT).expect("rotates");
    leader.keyring.install_tenant_keys(&rotated).expect("installs");
    for tenant in [TenantId(50), TenantId(51)] {
        let wrapped = leader.keyring.new_tenant_keys(tenant).expect("makes keys");
        leader.keyring.install_tenant_keys(&wrapped).expect("installs");
        if tenant == TenantId(51) {
            lagging.install_tenant_keys(&wrapped).expect("installs");
            leader.keyring.destroy_tenant(tenant, 8).expect("destroys");
        }
    }
    let exported = leader.keyring.export().expect("exports");
    lagging.merge(&exported).expect("merges");
    for keyring in [&lagging, &Keyring::open(&path, &root()).expect("opens")] {
        assert_eq!(keyring.tenant(TENANT).expect("has keys").key_id(), KeyId(2));
        assert!(keyring.tenant(TenantId(50)).is_ok());
        assert_eq!(keyring.tenant(TenantId(51)).expect_err("gone"), KeyError::Destroyed(TenantId(51)));
    }
    let before = fs::read(&path).expect("reads");
    lagging.merge(&exported).expect("merges");
    assert_eq!(fs::read(&path).expect("reads"), before, "nothing new, nothing written");

    let stranger = TempDir::new().expect("a directory");
    let stranger = Keyring::create(&stranger.path().join("k"), &root(), ClusterId([9; 16])).expect("creates");
    let refused = stranger.merge(&exported).expect_err("refused");
    assert!(matches!(refused, KeyringError::WrongCluster { .. }), "{refused}");
    assert_one_line(&refused);
}

#[test]
fn file_keys_unwrap_for_their_own_file_and_cluster_only() {
    let fixture = Fixture::new();
    let key = FileKey::generate().expect("a key");
    let wrapped = fixture.keyring.wrap_file_key(&key, b"node 1, segment 3").expect("wraps");
    assert_eq!(wrapped.len(), 78);
    let mut sealer = FrameSealer::new(key, CLUSTER, 3);
    let frame = sealer.seal(0, 1, b"frame").expect("seals");

    let stored = fixture.reopened().unwrap_file_key(&wrapped, b"node 1, segment 3").expect("unwraps");
    assert_eq!(FrameOpener::new(&stored, CLUSTER, 3).open(0, 1, &frame).expect("opens"), b"frame");
    assert!(fixture.keyring.unwrap_file_key(&wrapped, b"node 1, segment 4").is_err());
    assert!(Fixture::new().keyring.unwrap_file_key(&wrapped, b"node 1, segment 3").is_err());
    let as_record = Aad { format: 1, family: "file-key", key: b"node 1, segment 3" };
    assert!(matches!(fixture.keyring.system().open(&as_record, &wrapped), Err(CryptoError::BadTag)));
}

#[test]
fn a_crash_at_any_step_leaves_the_old_keyring_or_the_new_one() {
    let fixture = Fixture::new();
    let old = fs::read(fixture.path()).expect("reads");
    let new = {
        let grown = Fixture::new().with_tenant();
        fs::read(grown.path()).expect("reads")
    };
    for crash in [Step::Created, Step::Written, Step::Synced, Step::Named, Step::Durable] {
        fs::write(fixture.path(), &old).expect("writes");
        durable_file::replace_until(&fixture.path(), &new, crash).expect_err("crashed");
        let survivor = fs::read(fixture.path()).expect("reads");
        assert_eq!(survivor, if crash < Step::Named { old.clone() } else { new.clone() }, "{crash:?}");
        let keyring = fixture.reopened();
        assert_eq!(fs::read_dir(fixture.directory.path()).expect("lists").count(), 1, "no leftovers");
        // The interrupted change is made again, as the replayed log does.
        let wrapped = keyring.new_tenant_keys(TenantId(90)).expect("makes keys");
        keyring.install_tenant_keys(&wrapped).expect("installs");
        assert!(fixture.reopened().tenant(TenantId(90)).is_ok());
    }

    for crash in [Step::Created, Step::Written, Step::Synced, Step::Named, Step::Durable] {
        let path = fixture.directory.path().join("fresh");
        durable_file::create_until(&path, &new, crash).expect_err("crashed");
        let opened = Keyring::open(&path, &root());
        if crash < Step::Named {
            assert!(matches!(opened, Err(KeyringError::NotFound { .. })), "{crash:?}");
            Keyring::import(&path, &new, &root()).expect("imports");
        } else {
            opened.expect("opens");
        }
        fs::remove_file(&path).expect("removes");
        assert_eq!(fs::read_dir(fixture.directory.path()).expect("lists").count(), 1, "no leftovers");
    }
}

#[test]
fn a_leftover_of_a_crash_is_never_read() {
    let fixture = Fixture::new();
    let leftover = fixture.directory.path().join("keyring.new");
    for bytes in [Vec::new(), vec![1; 10], fs::read(fixture.path()).expect("reads")] {
        fs::write(&leftover, bytes).expect("writes");
        fixture.reopened();
        assert!(!leftover.exists());
    }
    // A writer that goes on without reopening replaces it.
    fs::write(&leftover, [1; 10]).expect("writes");
    let wrapped = fixture.keyring.new_tenant_keys(TENANT).expect("makes keys");
    fixture.keyring.install_tenant_keys(&wrapped).expect("installs");
    assert!(fixture.reopened().tenant(TENANT).is_ok());
}

#[test]
fn a_failed_write_leaves_memory_as_it_was() {
    let fixture = Fixture::new();
    let wrapped = fixture.keyring.new_tenant_keys(TENANT).expect("makes keys");
    // A directory in the way of the temporary file stands for a disk that refuses.
    let in_the_way = fixture.directory.path().join("keyring.new");
    fs::create_dir(&in_the_way).expect("makes a directory");
    let error = fixture.keyring.install_tenant_keys(&wrapped).expect_err("fails");
    assert!(matches!(error, KeyringError::Io { .. }), "{error}");
    assert_one_line(&error);
    assert_eq!(fixture.keyring.tenant(TENANT).expect_err("not there"), KeyError::Unknown(TENANT));
    fs::remove_dir(&in_the_way).expect("removes");
    assert_eq!(fixture.keyring.install_tenant_keys(&wrapped).expect("installs"), Installed::New);
}

#[test]
fn tenants_read_while_others_are_installed() {
    let fixture = Fixture::new().with_tenant();
    std::thread::scope(|scope| {
        for worker in 0..3 {
            let keyring = &fixture.keyring;
            scope.spawn(move || {
                for number in 0..5 {
                    let tenant = TenantId(100 + worker * 10 + number);
                    let wrapped = keyring.new_tenant_keys(tenant).expect("makes keys");
                    keyring.install_tenant_keys(&wrapped).expect("installs");
                    assert!(keyring.tenant(TENANT).is_ok());
                }
            });
        }
    });
    assert_eq!(fixture.keyring.tenant_ids().len(), 16);
    assert_eq!(fixture.reopened().tenant_ids(), fixture.keyring.tenant_ids());
}

#[test]
fn a_keyring_file_of_the_first_release_still_opens() {
    let file = hex::decode(include_str!("testdata/keyring_v1.hex").replace('\n', "")).expect("hex");
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("keyring");
    fs::write(&path, file).expect("writes");
    let keyring = Keyring::open(&path, &root()).expect("opens");
    assert_eq!(keyring.cluster_id(), CLUSTER);
    assert_eq!(keyring.tenant(TENANT).expect("has keys").key_id(), KeyId(2));
    assert_eq!(keyring.tenant(TenantId(9)).expect_err("gone"), KeyError::Destroyed(TenantId(9)));
}

/// Prints a keyring for `testdata`; run once for each new format, never to change an old one.
#[test]
#[ignore = "writes nothing; prints the golden file of the current format"]
fn print_golden_file() {
    let fixture = Fixture::new().with_tenant();
    let rotated = fixture.keyring.rotated_tenant_keys(TENANT).expect("rotates");
    fixture.keyring.install_tenant_keys(&rotated).expect("installs");
    fixture.keyring.destroy_tenant(TenantId(9), 1_700_000_000_000_000).expect("destroys");
    println!("{}", hex::encode(fs::read(fixture.path()).expect("reads")));
}

#[test]
fn nothing_secret_prints() {
    let fixture = Fixture::new().with_tenant();
    let printed = format!("{:?} {:?} {:?}", root(), fixture.keyring, fixture.keyring.system());
    assert!(printed.starts_with("RootKey(..) Keyring {"), "{printed}");
    assert!(!printed.contains('['), "no bytes at all: {printed}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), depth in 0..4) {
        // The deeper, the more of the header is right, so that the later checks are reached.
        if depth > 0 && bytes.len() > 50 {
            bytes[0] = 1;
            if depth > 1 {
                bytes[1..17].copy_from_slice(&root().id());
            }
            if depth > 2 {
                bytes[34..37].fill(0);
            }
            bytes = with_checksum(bytes);
        }
        prop_assert!(decode(&bytes).is_err());
    }

    #[test]
    fn arbitrary_wrapped_keys_never_panic(
        tenant_id in 0..3u64,
        kek_version in 0..3u32,
        data_key_version in 0..3u32,
        data_key in prop::collection::vec(any::<u8>(), 0..100),
        lookup_key in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let keks = Keks::generate().expect("keys");
        let wrapped = WrappedTenantKeys {
            tenant_id, kek_version, data_key_version, data_key: data_key.into(), lookup_key: lookup_key.into(),
        };
        prop_assert!(keks.unwrap(CLUSTER, &wrapped).is_err());
    }

    #[test]
    fn arbitrary_wrapped_file_keys_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let secret = SecretKey::generate().expect("a key");
        let keys = TenantKeys::new(TENANT, vec![crate::crypto::RecordCipher::new(&secret, KeyId(1))], &secret);
        prop_assert!(keys.unwrap_file_key(&bytes, b"file").is_err());
    }
}
