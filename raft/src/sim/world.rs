//! Everything outside of the nodes: their machines, the network, and what is known of all of them together.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cairn_engine::crypto::ClusterId;
use cairn_engine::keyring::Keyring;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::Notify;

use super::network::Network;
use super::node::{Machine, SimNode, Writer, root_key};
use super::runtime::{Executor, Host, OUTSIDE};
use crate::clock::Clock;
use crate::types::{Entry, EntryPayload};
use crate::wal::tests::disk::{BadDisk, Keep};

/// The disks' delay when nothing is wrong with them.
const DISK_DELAY_MAX: Duration = Duration::from_micros(800);

/// See the module.
pub(super) struct World {
    pub(super) executor: Arc<Executor>,
    pub(super) network: Mutex<Network>,
    dir: TempDir,
    machines: Mutex<BTreeMap<u64, Machine>>,
    nodes: Mutex<BTreeMap<u64, Arc<SimNode>>>,
    writers: Mutex<BTreeMap<Host, Arc<Writer>>>,
    disk_delays: Mutex<BTreeMap<u64, Duration>>,
    /// Nodes whose log could not go on.
    lost: Mutex<Vec<Host>>,
    pub(super) any_lost: Notify,
    /// What was applied at each index, on whichever node came first.
    applied: Mutex<BTreeMap<u64, u64>>,
    violations: Mutex<Vec<String>>,
    counts: Mutex<BTreeMap<&'static str, u64>>,
}

impl World {
    /// Machines for nodes 1 to `size`, none of them started, with the keys of one cluster.
    pub(super) fn new(executor: &Arc<Executor>, size: u64) -> Arc<Self> {
        // In memory where that is offered: what a crash loses is decided here, not by the disk beneath.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let world = Arc::new(Self {
            executor: Arc::clone(executor),
            network: Mutex::new(Network::new()),
            dir,
            machines: Mutex::default(),
            nodes: Mutex::default(),
            writers: Mutex::default(),
            disk_delays: Mutex::default(),
            lost: Mutex::default(),
            any_lost: Notify::new(),
            applied: Mutex::default(),
            violations: Mutex::default(),
            counts: Mutex::default(),
        });
        std::fs::create_dir_all(world.dir.path().join("keys")).unwrap();
        let first = Keyring::create(&world.keyring_path(1), &root_key(), ClusterId([1; 16])).unwrap();
        let exported = first.export().unwrap();
        for id in 1..=size {
            if id > 1 {
                Keyring::import(&world.keyring_path(id), &exported, &root_key()).unwrap();
            }
            std::fs::create_dir_all(world.life_dir(id, 1)).unwrap();
            let machine = Machine { disk: BadDisk::new(), lives: 0, clock: Arc::default() };
            world.machines.lock().insert(id, machine);
        }
        let hooked = Arc::clone(&world);
        executor.set_after_poll(move |host| hooked.call_writer(host));
        world
    }

    /// Ends all nodes; the world is of no use afterwards.
    pub(super) fn end(&self) {
        for id in self.ids() {
            self.crash(id, Keep::Nothing);
        }
    }

    pub(super) fn ids(&self) -> Vec<u64> {
        self.machines.lock().keys().copied().collect()
    }

    /// The directory of a node's state in one of its lives. It moves on to the next life when the node crashes.
    pub(super) fn life_dir(&self, id: u64, life: u64) -> PathBuf {
        self.dir.path().join(format!("node-{id}")).join(format!("life-{life}"))
    }

    pub(super) fn keyring_path(&self, id: u64) -> PathBuf {
        self.dir.path().join("keys").join(format!("node-{id}"))
    }

    pub(super) fn with_machine<T>(&self, id: u64, look: impl FnOnce(&mut Machine) -> T) -> T {
        look(self.machines.lock().get_mut(&id).unwrap())
    }

    /// A node that has started and not crashed since.
    pub(super) fn node(&self, id: u64) -> Option<Arc<SimNode>> {
        self.nodes.lock().get(&id).cloned()
    }

    pub(super) fn nodes(&self) -> Vec<Arc<SimNode>> {
        self.nodes.lock().values().cloned().collect()
    }

    /// The latest time that another node's clock shows and can be trusted.
    pub(super) fn latest_clock(&self, but: u64) -> Option<i64> {
        self.machines.lock().iter().filter(|(id, _)| **id != but).map(|(_, machine)| machine.clock.wall_micros()).max()
    }

    /// Starts the next life of a node, unless it runs.
    pub(super) fn start(self: &Arc<Self>, id: u64) {
        let host = self.with_machine(id, |machine| {
            machine.lives += 1;
            Host(id, machine.lives)
        });
        self.executor.trace(&format_args!("{id} starts for the {}. time", host.1));
        let world = Arc::clone(self);
        self.executor.spawn_on(host, async move {
            match SimNode::start(Arc::clone(&world), host).await {
                Ok((node, _)) => {
                    world.executor.trace(&format_args!("{id} has started"));
                    world.nodes.lock().insert(id, node);
                }
                Err(_) if world.with_machine(id, |machine| machine.disk.is_cut()) => {
                    world.lose(host);
                    std::future::pending::<()>().await;
                }
                Err(error) => world.violate(format!("node {id} does not start: {error}")),
            }
        });
    }

    /// Whether a node runs or starts.
    pub(super) fn is_alive(&self, id: u64) -> bool {
        let host = self.with_machine(id, |machine| Host(id, machine.lives));
        self.executor.has_tasks(host)
    }

    /// Cuts a node's power: its memory is gone, and of its disks what was not synced is kept or lost as `keep` says.
    pub(super) fn crash(&self, id: u64, keep: Keep) {
        if !self.is_alive(id) {
            return;
        }
        let life = self.with_machine(id, |machine| {
            machine.disk = machine.disk.after_power_cut(keep);
            machine.lives
        });
        self.executor.trace(&format_args!("{id} crashes"));
        // Before the store is closed, since it writes out its buffers then: what it has not flushed by now is gone.
        let dir = self.life_dir(id, life);
        copy_as_it_is(&dir, &self.life_dir(id, life + 1));
        let node = self.nodes.lock().remove(&id);
        let store = node.as_ref().map(|node| Arc::downgrade(&node.shared.generations.current()));
        self.writers.lock().remove(&Host(id, life));
        self.executor.crash(Host(id, life));
        drop(node);
        assert!(store.is_none_or(|store| store.strong_count() == 0), "somebody keeps the store of node {id} open");
        std::fs::remove_dir_all(dir).unwrap();
    }

    /// Notes that a node's log cannot go on: the process would have ended.
    pub(super) fn lose(&self, host: Host) {
        self.lost.lock().push(host);
        self.any_lost.notify_one();
    }

    /// Crashes those whose log could not go on; returns them.
    pub(super) fn bury(&self) -> Vec<u64> {
        let lost = std::mem::take(&mut *self.lost.lock());
        let mut buried = Vec::new();
        for Host(id, life) in lost {
            if self.with_machine(id, |machine| machine.lives) == life && self.is_alive(id) {
                let seed = self.executor.below(u64::MAX);
                self.crash(id, Keep::Some(seed));
                buried.push(id);
            }
        }
        buried
    }

    pub(super) fn set_writer(&self, host: Host, writer: &Arc<Writer>) {
        self.writers.lock().insert(host, Arc::clone(writer));
    }

    /// Wakes the writer of a node's log when somebody waits for it.
    fn call_writer(&self, host: Host) {
        if host == OUTSIDE {
            return;
        }
        let writer = self.writers.lock().get(&host).cloned();
        if let Some(writer) = writer
            && writer.stepper.lock().is_awaited()
        {
            writer.called.notify_one();
        }
    }

    pub(super) fn disk_delay_max(&self, id: u64) -> Duration {
        self.disk_delays.lock().get(&id).copied().unwrap_or(DISK_DELAY_MAX)
    }

    /// Makes a node's disk slow; `None`: quick again.
    pub(super) fn slow_disk(&self, id: u64, delay_max: Option<Duration>) {
        match delay_max {
            Some(delay_max) => self.disk_delays.lock().insert(id, delay_max),
            None => self.disk_delays.lock().remove(&id),
        };
    }

    /// Notes what a node is about to apply: at one index all nodes apply the same, in all their lives.
    pub(super) fn note_applied(&self, id: u64, entries: &[Entry]) {
        for entry in entries {
            let mut hasher = DefaultHasher::new();
            let leader = entry.log_id.committed_leader_id();
            (leader.term, leader.node_id).hash(&mut hasher);
            match &entry.payload {
                EntryPayload::Normal(command) => command.0.hash(&mut hasher),
                other => format!("{other:?}").hash(&mut hasher),
            }
            let hash = hasher.finish();
            let first = *self.applied.lock().entry(entry.log_id.index).or_insert(hash);
            if first != hash {
                self.violate(format!("node {id} applies another entry at {} than others", entry.log_id));
            }
        }
    }

    /// Notes that a promise is broken.
    pub(super) fn violate(&self, what: String) {
        self.executor.trace(&format_args!("VIOLATION: {what}"));
        self.violations.lock().push(what);
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.violations.lock().clone()
    }

    /// Counts something that has happened, for the report.
    pub(super) fn count(&self, what: &'static str) {
        self.executor.trace(&what);
        *self.counts.lock().entry(what).or_default() += 1;
    }

    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.lock().clone()
    }
}

/// Copies a directory of stores at one moment: again, where a store has merged files meanwhile.
pub(crate) fn copy_as_it_is(from: &Path, to: &Path) {
    loop {
        let before = files_below(from);
        for (path, _) in &before {
            let target = to.join(path);
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            // One that has gone since shows in the comparison.
            let _ = std::fs::copy(from.join(path), target);
        }
        if files_below(from) == before {
            return;
        }
        std::fs::remove_dir_all(to).unwrap();
    }
}

/// All files and their sizes, but for snapshots, which no process takes over, and RocksDB's own text.
fn files_below(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(next) = waiting.pop() {
        // A generation that was given up is being removed beside this.
        let Ok(entries) = std::fs::read_dir(&next) else { continue };
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() && name != "snapshots" {
                waiting.push(path);
            } else if metadata.is_file() && !name.to_string_lossy().starts_with("LO") {
                found.push((path.strip_prefix(dir).unwrap().to_owned(), metadata.len()));
            }
        }
    }
    found.sort();
    found
}
