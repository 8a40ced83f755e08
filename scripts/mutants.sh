#!/usr/bin/env bash
# Takes out one defence at a time, in a copy of HEAD, and shows that tests turn red for each. Arguments choose mutants by name.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
scripts/setup.sh build

wanted=" $* "
logs="$CARGO_TARGET_DIR/mutants"
tree="$logs/tree"
mkdir -p "$logs"
git worktree remove --force "$tree" 2>/dev/null || true
git worktree add --detach --quiet "$tree" HEAD
trap 'git worktree remove --force "$tree"' EXIT
survivors=0

# mutant NAME FILE WHAT-TO-FIND WHAT-TO-PUT-THERE ARGUMENTS-OF-CARGO-TEST..
mutant() {
  local name="$1" file="$2" find="$3" put="$4"
  shift 4
  if [ "$wanted" != "  " ] && [[ "$wanted" != *" $name "* ]]; then return; fi
  git -C "$tree" checkout --quiet -- .
  FIND="$find" PUT="$put" perl -0pi -e 's/\Q$ENV{FIND}\E/$ENV{PUT}/' "$tree/$file"
  if git -C "$tree" diff --quiet; then
    echo "$name: what it takes out is not in $file any more"
    survivors=$((survivors + 1))
  elif (cd "$tree" && cargo test --release --locked --quiet "$@") >"$logs/$name.log" 2>&1; then
    echo "$name: SURVIVED, no test noticed"
    survivors=$((survivors + 1))
  elif grep -q '^test result: FAILED' "$logs/$name.log"; then
    echo "$name: noticed, $(grep '^test result: FAILED' "$logs/$name.log" | head -n 1 | sed 's/.*FAILED. //; s/; 0 ignored.*//')"
  else
    echo "$name: was not tested, see $logs/$name.log"
    survivors=$((survivors + 1))
  fi
}

mutant fsync raft/src/wal/writer.rs \
  'segment.file.sync_data()' 'Ok::<(), std::io::Error>(())' \
  -p cairn-raft --lib wal::tests
mutant vote-sync raft/src/wal/mod.rs \
  'self.shared.submit(Some(Waiting { done, room: None }), |ledger| {
            ledger.apply(&record)?;' \
  'done(Ok(()));
        self.shared.submit(Some(Waiting { done: Box::new(drop), room: None }), |ledger| {
            ledger.apply(&record)?;' \
  -p cairn-raft --lib wal::tests
mutant read-index-wait raft/src/node/read.rs \
  'await_applied(core, point.index, until).await?;
    core.reads' \
  'core.reads' \
  -p cairn-raft --test cluster
mutant dedup-row engine/src/apply/requests.rs \
  'filter(|old| old.expires_at_micros > self.stamp_micros())' 'filter(|_| false)' \
  -p cairn-engine --lib testscripts
mutant purge-guard raft/src/snapshot/controller.rs \
  'view.durable_applied.min(view.snapshot).min(view.previous_snapshot)' 'view.snapshot' \
  -p cairn-raft --lib snapshot::controller
mutant aad engine/src/crypto/aad.rs \
  '[&head, family, aad.key];' '[&head, &family[..0], &aad.key[..0]];' \
  -p cairn-engine --lib crypto
mutant expiry-stamp engine/src/apply/expire.rs \
  'end_of_time(group, Kind::Expiry, self.stamp_micros())' 'end_of_time(group, Kind::Expiry, i64::MAX - 1)' \
  -p cairn-engine --lib testscripts
exit "$survivors"
