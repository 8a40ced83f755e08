#!/usr/bin/env bash
# Takes out one defence at a time, in a copy of HEAD, and shows that tests turn red for each which are green with it.
# Arguments choose mutants by name. docs/testing.md says what each one stands for. With --check alone, only shows that what they take out
# is in the tree as it is.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

is_check=
if [ "${1:-}" = --check ]; then
  is_check=yes
  shift
fi
wanted=" $* "
# For one build and one run of the tests of one mutant.
TEST_TIME_MAX=40m
# One mutant differs from the next in a few lines.
export CARGO_INCREMENTAL=1
logs="$CARGO_TARGET_DIR/mutants"
tree="$logs/tree"
if [ -z "$is_check" ]; then
  scripts/setup.sh build
  mkdir -p "$logs"
  git worktree remove --force "$tree" 2>/dev/null || true
  git worktree prune
  git worktree add --detach --quiet "$tree" HEAD
  trap 'git worktree remove --force "$tree"' EXIT
fi
failed=0
declare -A green known

is_wanted() {
  [ "$wanted" = "  " ] || [[ "$wanted" == *" $1 "* ]]
}

# take FILE WHAT-TO-FIND WHAT-TO-PUT-THERE: one edit of the mutant that `mutant` then tests.
edits=()
take() {
  edits+=("$1" "$2" "$3")
}

# Whether all that the edits of a mutant take out is in the tree below a directory.
finds_all() {
  local index
  for ((index = 0; index < ${#edits[@]}; index += 3)); do
    if ! FIND="${edits[index + 1]}" perl -0ne 'exit(index($_, $ENV{FIND}) < 0)' "$2/${edits[index]}"; then
      echo "$1: what it takes out is not in ${edits[index]} any more"
      return 1
    fi
  done
}

# Applies the edits to the copy; fails where one finds nothing.
mutate() {
  local index
  git -C "$tree" checkout --quiet -- .
  finds_all "$1" "$tree" || return 1
  for ((index = 0; index < ${#edits[@]}; index += 3)); do
    FIND="${edits[index + 1]}" PUT="${edits[index + 2]}" perl -0pi -e 's/\Q$ENV{FIND}\E/$ENV{PUT}/' "$tree/${edits[index]}"
  done
}

run_tests() {
  local log="$1"
  shift
  # A mutant may well wait for ever for what it has taken out.
  (cd "$tree" && timeout --kill-after=30s "$TEST_TIME_MAX" cargo test --release --locked --quiet "$@") >"$log" 2>&1
}

# mutant NAME ARGUMENTS-OF-CARGO-TEST..: tests the edits before it.
mutant() {
  local name="$1" log="$logs/$1.log"
  known[$name]=yes
  shift
  if [ -n "$is_check" ]; then
    finds_all "$name" . || failed=$((failed + 1))
  elif is_wanted "$name"; then
    # Red says something only of tests that are green.
    if [ -z "${green[$*]:-}" ]; then
      git -C "$tree" checkout --quiet -- .
      if run_tests "$logs/green.log" "$@" && grep -q '^test result: ok. [1-9]' "$logs/green.log"; then green[$*]=yes; else green[$*]=no; fi
    fi
    if [ "${green[$*]}" = no ]; then
      echo "$name: its tests are not green without it, see $logs/green.log"
      failed=$((failed + 1))
    elif ! mutate "$name"; then
      failed=$((failed + 1))
    elif run_tests "$log" "$@"; then
      echo "$name: SURVIVED, no test noticed"
      failed=$((failed + 1))
    elif grep -q '^test result: FAILED' "$log"; then
      echo "$name: noticed by $(grep -oE '^    [a-z_0-9]+(::[a-z_0-9]+)*$' "$log" | sort -u | tr -s ' \n' ' ')"
    elif grep -q '^running [1-9]' "$log"; then
      echo "$name: noticed, its tests came to no end, see $log"
    else
      echo "$name: was not tested, see $log"
      failed=$((failed + 1))
    fi
  fi
  edits=()
}

take raft/src/wal/writer.rs 'self.write(&pending).and_then(|()| self.sync())' \
  'pending.chunks(1).try_for_each(|one| self.write(one).and_then(|()| self.sync())).and_then(|()| self.sync())'
mutant one-sync-for-all -p cairn-raft --lib wal::tests::commit::whoever_waits

take raft/src/wal/writer.rs 'segment.file.sync_data()' 'Ok::<(), std::io::Error>(())'
mutant fsync -p cairn-raft --lib wal::tests::faults::acknowledged_calls_survive_a

take raft/src/wal/mod.rs 'self.shared.submit(Some(Waiting { done, room: None }), |ledger| {
            ledger.apply(&record)?;' 'done(Ok(()));
        self.shared.submit(Some(Waiting { done: Box::new(drop), room: None }), |ledger| {
            ledger.apply(&record)?;'
mutant vote-sync -p cairn-raft --lib wal::tests::faults::acknowledged_calls_survive_a

take raft/src/wal/writer.rs 'segment.file.sync_data()' 'segment.file.sync_data().or(Ok::<(), std::io::Error>(()))'
mutant failed-sync -p cairn-raft --lib wal::tests::faults::a_failed_sync

take raft/src/wal/writer.rs 'std::process::abort();' 'let _ = std::process::abort;'
mutant abort -p cairn-raft --test cluster failed_sync::a_failed_sync_ends

take raft/src/log_store/mod.rs 'self.reader.wal.append(first_index, encoded, done).await?;' \
  'let (sender, receiver) = std::sync::mpsc::channel();
        let inner: Callback = done;
        let done: Callback = Box::new(move |result| {
            inner(result);
            let _ = sender.send(());
        });
        self.reader.wal.append(first_index, encoded, done).await?;
        let _ = receiver.recv();'
mutant sync-off-the-workers -p cairn-raft --test cluster faults::slow_disks

take raft/src/state_machine/apply.rs 'if crate::sim::is_running() {
            crate::sim::before' 'if !entries.is_empty() {
            crate::sim::before'
mutant apply-off-the-workers -p cairn-raft --lib state_machine::tests::what_holds_up

take raft/src/state_machine/generation.rs 'let next = open_engine(&self.group_dir, number,' \
  'write_current(&self.group_dir, number)?;
        let next = open_engine(&self.group_dir, number,'
mutant switch-at-the-end -p cairn-raft --lib state_machine::generation::tests

take engine/src/store/rocks.rs 'let db = DB::open(&rocks_options(options), dir)' \
  'rocksdb::Options::default().create_if_missing(true);
        let mut several = rocks_options(options);
        several.create_missing_column_families(true);
        let db = DB::open_cf(&several, dir, ["default", "feed"])'
mutant one-family -p cairn-engine --lib store::rocks

take engine/src/store/rocks.rs 'create_checkpoint_with_log_size(dir, 0)' 'create_checkpoint_with_log_size(dir, u64::MAX)'
mutant checkpoint-flush -p cairn-engine --test storage a_checkpoint_holds

take engine/src/engine.rs 'Ok(Checkpoint { applied: applied_state(&applied)?, files })' \
  'drop(applied);
        Ok(Checkpoint { applied: self.applied(), files })'
mutant checkpoint-index -p cairn-engine --test storage a_checkpoint_beside

take raft/src/snapshot/controller.rs 'view.durable_applied.min(view.snapshot).min(view.previous_snapshot)' 'view.snapshot'
mutant purge-guard -p cairn-raft --lib snapshot::controller

take raft/src/wal/record.rs 'let after = index.saturating_add(1);' 'let after = index.saturating_add(1).min(self.next);'
mutant purge-beyond-tail -p cairn-raft --lib log_store::tests::the_suite_passes

take raft/src/log_store/mod.rs 'self.reader.wal.save_committed(encode_log_id(&committed))?;' 'let _ = encode_log_id(&committed);'
mutant save-committed -p cairn-raft --lib log_store::tests::the_committed_position

take engine/src/apply/expire.rs 'end_of_time(group, Kind::Expiry, self.stamp_micros())' 'end_of_time(group, Kind::Expiry, i64::MAX - 1)'
mutant expiry-stamp -p cairn-engine --lib testscripts

take engine/src/apply/requests.rs 'filter(|old| old.expires_at_micros > self.stamp_micros())' 'filter(|_| false)'
mutant dedup-row -p cairn-engine --lib testscripts

take raft/src/identity.rs 'Some(known) if known != incarnation => Sighting::OtherDirectory' \
  'Some(known) if known != incarnation && known == Incarnation::default() => Sighting::OtherDirectory'
mutant known-id -p cairn-raft --test cluster bootstrap::an_empty_disk

take raft/src/log_store/mod.rs 'self.read(start..end, self.batch_bytes_max).await?' 'self.read(start..end, usize::MAX).await?'
mutant byte-cap -p cairn-raft --lib log_store::tests::batches

take raft/src/node/read.rs 'confirm_leadership(core, vote).await?;' 'let _ = (vote, confirm_leadership);'
mutant read-confirmation -p cairn-raft --test cluster reads::

take raft/src/node/read.rs 'await_applied(core, point.index, until).await?;
    core.reads' 'core.reads'
mutant read-index-wait -p cairn-raft --test cluster reads::a_node_that_lags_behind

take raft/src/types/convert.rs 'LogId { term: leader.term, leader_node_id: leader.node_id,' \
  'LogId { term: leader.node_id, leader_node_id: leader.term,'
take raft/src/types/convert.rs 'LeaderId { term: log_id.term, node_id: log_id.leader_node_id }' \
  'LeaderId { term: log_id.leader_node_id, node_id: log_id.term }'
mutant encoding-of-our-own -p cairn-raft --lib types::convert

take raft/src/config.rs 'election_min: Duration::from_millis(600)' 'election_min: Duration::from_millis(150)'
take raft/src/config.rs 'election_max: Duration::from_millis(900)' 'election_max: Duration::from_millis(300)'
take raft/src/config.rs 'heartbeat: Duration::from_millis(150)' 'heartbeat: Duration::from_millis(50)'
mutant election-timeout -p cairn-raft --lib sim::a_node_that_stands_still

take raft/src/network/client.rs 'let sending = send(&mut client, self.header(), &vote, snapshot.snapshot, keyring, pace);' \
  'let _ = (&mut client, keyring, pace, send);
        let sending = async { Ok::<Vote, SendError>(vote) };'
mutant base-for-the-new -p cairn-raft --test cluster members::a_joining_node_far_behind

take raft/src/node/mod.rs 'pub async fn shutdown(&self) {' 'pub async fn shutdown(&self) {
        let _ = self.remove_member(self.node_id(), Instant::now() + Duration::from_secs(20)).await;'
mutant stop-is-not-leave -p cairn-raft --test cluster faults::a_leader_that_shuts_down

take raft/src/node/mod.rs 'self.core.stopped().is_none() && self.core.raft' \
  'self.core.leader_id().is_some() && self.core.stopped().is_none() && self.core.raft'
mutant alive-without-a-leader -p cairn-raft --test cluster faults::a_node_that_finds_no_leader

take raft/src/network/mod.rs 'tokio::time::timeout(timeout, call)' 'tokio::time::timeout(timeout * 1000, call)'
mutant peer-deadline -p cairn-raft --lib network::tests

take raft/src/snapshot/controller.rs 'Some(covered.min(transfer))' 'Some(covered.max(transfer.min(covered)))'
mutant log-for-transfers -p cairn-raft --lib snapshot::controller

take raft/src/node/start.rs 'enable_leader_restore: Some(false)' 'enable_leader_restore: Some(true)'
mutant leader-restore -p cairn-raft --lib sim::clusters

take engine/src/crypto/aad.rs '[&head, family, aad.key];' '[&head, &family[..0], &aad.key[..0]];'
mutant aad -p cairn-engine --lib crypto

take raft/src/node/transfer.rs 'matched + lag_max >= last' 'matched <= last'
mutant successor-has-caught-up -p cairn-raft --test cluster members::leadership_goes_to_no_node

take raft/src/node/start.rs 'APPEND_BYTES_MAX: usize = 256 << 10' 'APPEND_BYTES_MAX: usize = 2 << 20'
mutant small-appends -p cairn-raft --test cluster backpressure::a_follower_catches_up_over_a_slow_link_that_breaks

take engine/src/partitions/upkeep.rs 'if steps <= LEFT_MAX || is_enough' 'if is_enough || batches < changes'
mutant link-bound -p cairn-engine --lib partitions::upkeep

for name in "$@"; do
  if [ -z "${known[$name]:-}" ]; then
    echo "$name: there is no such mutant"
    failed=$((failed + 1))
  fi
done
if [ "$failed" -gt 0 ]; then echo "$failed mutants were not shown to be noticed"; fi
exit "$((failed > 0))"
