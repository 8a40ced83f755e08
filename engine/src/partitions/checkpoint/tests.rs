//! A crash at every step of writing a checkpoint, and keys that are gone.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::save::Step;
use super::*;
use crate::crypto::{ClusterId, TenantId};
use crate::error::Error;
use crate::keyring::{Keyring, RootKey};
use crate::partitions::bed::{Bed, SPACE, open};

#[test]
fn a_crash_at_any_step_leaves_the_old_checkpoint_or_the_new_one() {
    let mut stopped = Vec::new();
    for crash_at in 0.. {
        let mut bed = Bed::new();
        bed.engine.checkpoint_indexes();
        bed.add(70..95);
        bed.wait_until_linked();
        let slot = bed.engine.partitions().slot(SPACE);
        let mut steps = Vec::new();
        let saved = bed.engine.partitions().keeper.shared.save(&slot, &mut |step| {
            steps.push(step);
            if steps.len() > crash_at { Err(Error::internal("crashed by the test")) } else { Ok(()) }
        });
        drop(slot);
        bed.reopen();
        assert_eq!(bed.found(), 95, "after {steps:?}");
        let counts = bed.engine.index_counts();
        assert_eq!((counts.checkpoints_loaded, counts.made), (1, 0), "after {steps:?}");
        assert!(bed.files() <= 4, "loading has removed what the manifest does not name, after {steps:?}");
        // The next one goes through, and counts.
        bed.add(95..120);
        bed.engine.checkpoint_indexes();
        bed.reopen();
        assert_eq!(bed.found(), 120, "after {steps:?}");
        assert_eq!(bed.engine.index_counts().checkpoints_loaded, 1, "after {steps:?}");
        stopped.extend(steps.last().copied());
        if saved.is_ok() {
            break;
        }
    }
    for step in [Step::Directory, Step::Chunk, Step::Chunks, Step::Manifest, Step::Named, Step::Durable, Step::Cleaned]
    {
        assert!(stopped.contains(&step), "{step:?} was never the last step");
    }
}

#[test]
fn a_save_that_failed_is_made_good_in_the_same_process() {
    let mut bed = Bed::new();
    bed.engine.checkpoint_indexes();
    for fail_at in [Step::Chunk, Step::Chunks, Step::Named] {
        let before = bed.found() as u64;
        bed.add(before..before + 10);
        let slot = bed.engine.partitions().slot(SPACE);
        let fail = &mut |step| if step == fail_at { Err(Error::internal("failed by the test")) } else { Ok(()) };
        assert!(bed.engine.partitions().keeper.shared.save(&slot, fail).is_err());
        drop(slot);
        assert_eq!(bed.engine.checkpoint_indexes(), 1);
        bed.reopen();
        assert_eq!((bed.found() as u64, bed.engine.index_counts().checkpoints_loaded), (before + 10, 1));
        assert!(bed.files() <= 4);
    }
}

#[test]
fn what_was_kept_opens_for_nobody_once_the_tenants_keys_are_gone() {
    let bed = Bed::new();
    bed.engine.checkpoint_indexes();
    let sealer = bed.engine.sealer().clone();
    let place = Place::new(&bed.dir.path().join("store").join(INDEX_DIR), &sealer, SPACE);
    assert!(place.read_file(&place.manifest(), None).unwrap().is_some());
    // Another keyring of the same cluster id has other keys.
    let root = RootKey::from_bytes(&[8; 32]);
    let other = Keyring::create(&bed.dir.path().join("other"), &root, ClusterId([9; 16])).unwrap();
    other.install_tenant_keys(&other.new_tenant_keys(TenantId::DEFAULT).unwrap()).unwrap();
    let stranger = Sealer::new(Arc::new(other), sealer.group());
    let error =
        Place { sealer: &stranger, ..Place::new(&bed.dir.path().join("store").join(INDEX_DIR), &stranger, SPACE) }
            .read_file(&place.manifest(), None)
            .unwrap_err();
    assert!(error.to_string().contains("key that does not open"), "{error}");
    bed.keyring.destroy_tenant(TenantId::DEFAULT, 5).unwrap();
    assert!(place.read_file(&place.manifest(), None).is_err());
    // The next start removes the files too.
    let Bed { dir, keyring, engine, .. } = bed;
    drop(engine);
    let engine = open(dir.path(), &keyring);
    assert!(!dir.path().join("store").join(INDEX_DIR).join("1-1-0").exists());
    assert_eq!(engine.partitions().keeper.shared.counters.loaded.load(Ordering::Relaxed), 0);
}
