# Everything a developer or an operator of one machine runs. Each command sets itself up; see scripts/setup.sh.

.DEFAULT_GOAL := help
.PHONY: help run release model demo test test-model test-hnsw sim chaos mutants check fix proto-image bench bench-index

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## Build and start one durable node in ./data, on loopback
	@scripts/run.sh

model: ## Fetch a small sentence model (90 MB) into the cache; `make run` then searches by meaning
	@scripts/model.sh

release: ## Build the program as it is released, with the embedder `local`; try it and pack it
	@scripts/release.sh

demo: ## The show: three nodes, real memories, the leader killed in mid-write; KEEP=1 leaves it running
	@scripts/demo.sh

test: ## Every test of the workspace
	@scripts/test.sh

test-model: ## The embedder `local` beside the vectors of sentence-transformers; fetches its model where it is missing
	@scripts/test_model.sh

test-hnsw: ## Spaces of index kind HNSW_RS, which need the feature hnsw-rs; INDEX_ONLY=1 leaves the engine out
	@scripts/test_hnsw.sh

check: ## Every check that changes nothing: formatting, lints, dependencies, house rules, the public API
	@scripts/check.sh

fix: ## Mend what can be mended without thinking: formatting and the lints that mend themselves
	@scripts/fix.sh

sim: ## SEEDS simulated clusters (default 200) under faults; SEED=n runs one again and tells what happens in it
	@scripts/sim.sh

chaos: ## Processes under faults for MINUTES (default 5), their histories checked for linearizability
	@scripts/chaos.sh

mutants: ## Take out one defence at a time and show that tests turn red; takes long
	@scripts/mutants.sh $(NAMES)

proto-image: ## Take the public API as it is now as the one that must stay compatible
	@scripts/proto_image.sh

bench: ## The benches
	@scripts/bench.sh

bench-index: ## The index beside other libraries, on the corpus in CORPUS=DIR; COUNT, DIMENSION: on more, on wider ones
	@scripts/bench_index.sh
