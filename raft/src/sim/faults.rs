//! What goes wrong in a simulation, and how it is mended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::network::Link;
use super::node::limits;
use super::runtime::{Host, sleep};
use super::world::World;
use crate::config::Timing;
use crate::snapshot::look;
use crate::wal::tests::disk::Keep;

fn millis(world: &World, from: u64, to: u64) -> Duration {
    world.executor.between(Duration::from_millis(from), Duration::from_millis(to))
}

fn any_node(world: &World) -> u64 {
    let ids = world.ids();
    ids[world.executor.below(ids.len() as u64) as usize]
}

/// What of unsynced writes a power cut keeps.
fn any_keep(world: &World) -> Keep {
    match world.executor.below(4) {
        0 => Keep::Nothing,
        1 => Keep::Everything,
        _ => Keep::Some(world.executor.below(u64::MAX)),
    }
}

/// Crashes nodes whose log could not go on, and starts every node that is down after a while.
pub(super) async fn restart(world: Arc<World>) {
    loop {
        world.any_lost.notified().await;
        for id in world.bury() {
            let down = millis(&world, 50, 2_500);
            let world = Arc::clone(&world);
            let executor = Arc::clone(&world.executor);
            executor.spawn_on(super::runtime::OUTSIDE, async move {
                sleep(down).await;
                if !world.is_alive(id) {
                    world.start(id);
                }
            });
        }
    }
}

/// Breaks machines: power, processes, clocks, disks.
pub(super) async fn break_machines(world: Arc<World>, is_over: Arc<AtomicBool>) {
    while !is_over.load(Ordering::Relaxed) {
        sleep(millis(&world, 200, 2_000)).await;
        let id = any_node(&world);
        match world.executor.below(7) {
            0 | 1 => {
                world.count("power cut");
                crash_for(&world, &[id]).await;
            }
            2 => {
                world.count("power cut during a write");
                let soon = world.executor.below(6);
                world.with_machine(id, |machine| machine.disk.cut_power_at(machine.disk.operations() + soon));
            }
            3 => {
                world.count("power cut of all");
                crash_for(&world, &world.ids()).await;
            }
            4 => {
                world.count("pause");
                let host = world.with_machine(id, |machine| Host(id, machine.lives));
                world.executor.pause(host, true);
                sleep(millis(&world, 100, 3_000)).await;
                world.executor.pause(host, false);
            }
            5 => {
                world.count("clock jump");
                let micros = millis(&world, 1_000, 900_000).as_micros() as i64;
                let micros = if world.executor.below(2) == 0 { -micros } else { micros };
                world.with_machine(id, |machine| machine.clock.0.store(micros, Ordering::SeqCst));
                sleep(millis(&world, 100, 4_000)).await;
                world.with_machine(id, |machine| machine.clock.0.store(0, Ordering::SeqCst));
            }
            _ => {
                world.count("slow disk");
                world.slow_disk(id, Some(millis(&world, 10, 1_200)));
                sleep(millis(&world, 300, 3_000)).await;
                world.slow_disk(id, None);
            }
        }
    }
}

async fn crash_for(world: &Arc<World>, ids: &[u64]) {
    for &id in ids {
        world.crash(id, any_keep(world));
    }
    sleep(millis(world, 20, 2_500)).await;
    for &id in ids.iter().filter(|&&id| !world.is_alive(id)) {
        world.start(id);
        sleep(millis(world, 0, 300)).await;
    }
}

/// Breaks the network: links in one direction and both, and the weather between all nodes.
pub(super) async fn break_network(world: Arc<World>, is_over: Arc<AtomicBool>) {
    while !is_over.load(Ordering::Relaxed) {
        sleep(millis(&world, 100, 1_500)).await;
        let (node, other) = (any_node(&world), any_node(&world));
        let link = if world.executor.below(2) == 0 { Link::Cut } else { Link::Silent };
        match world.executor.below(6) {
            0 | 1 => {
                world.count("isolation");
                let ids = world.ids();
                world.network.lock().isolate(node, &ids, link);
            }
            2 => {
                world.count("one-way cut");
                world.network.lock().set(node, other, link);
            }
            3 => {
                world.count("bridge");
                world.network.lock().set(node, other, link);
                world.network.lock().set(other, node, link);
            }
            4 => {
                world.count("loss");
                let lost = world.executor.below(200);
                world.network.lock().slow_down(Duration::from_millis(10), lost);
            }
            _ => {
                world.count("delay");
                let delay_max = millis(&world, 20, 400);
                world.network.lock().slow_down(delay_max, 0);
            }
        }
        sleep(millis(&world, 200, 3_500)).await;
        world.network.lock().mend();
    }
}

/// What a cluster goes through in its own time: flushes, snapshots and purges on every node, and changes of the leader.
pub(super) async fn keep_house(world: Arc<World>, is_over: Arc<AtomicBool>) {
    while !is_over.load(Ordering::Relaxed) {
        sleep(millis(&world, 50, 500)).await;
        let Some(node) = world.node(any_node(&world)) else { continue };
        let what = world.executor.below(5);
        let executor = Arc::clone(&world.executor);
        let world = Arc::clone(&world);
        // On the node's own time, and gone with it. Nobody waits: a node that is paused takes as long as it likes.
        executor.spawn_on(node.host, async move {
            match what {
                0 => {
                    world.count("flush");
                    if let Err(error) = node.shared.generations.current().flush() {
                        world.violate(format!("node {}: a flush fails: {error}", node.id));
                    }
                }
                1..=3 => {
                    // What has stopped is crashed soon.
                    let looked = look(&node.raft, &node.shared, &limits(), &Timing::default(), Duration::ZERO).await;
                    if looked.is_ok_and(|look| look.took_snapshot) {
                        world.count("snapshot");
                    }
                }
                _ => transfer(&world, &node).await,
            }
        });
    }
}

async fn transfer(world: &World, node: &super::node::SimNode) {
    if node.leader_id() != Some(node.id) {
        return;
    }
    let target = any_node(world);
    if target != node.id && (node.has_wrong_clock() || world.executor.below(2) == 0) {
        world.count("transfer of leadership");
        // It is only asked for.
        let _ = node.raft.trigger().transfer_leader(target).await;
    }
}
