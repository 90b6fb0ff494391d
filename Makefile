# Everything that is built lies in one cache outside the checkout, so that a second clone starts warm.
FS_DATA_SINK_CACHE ?= $(HOME)/.cache/fs-data-sink
CARGO_TARGET_DIR ?= $(FS_DATA_SINK_CACHE)/target
# What incremental compilation keeps takes gigabytes, and more time to write than it saves in a fresh clone.
CARGO_INCREMENTAL ?= 0
export FS_DATA_SINK_CACHE CARGO_TARGET_DIR CARGO_INCREMENTAL

# Every cargo command of `make test` names the whole workspace in one profile: another selection of packages would select
# other features of what they stand on, and build it again.
WORKSPACE := --locked --workspace

.PHONY: help demo plugins test check unit e2e soak fuzz bench fmt lint clean

help: ## Show this list
	@sed -n 's/^\([a-z0-9]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "  make %-9s %s\n", $$1, $$2 }'

demo: plugins ## Watch 200,000 records go through Kafka's protocol and two plugins into Parquet, in demo-lake/
	cargo build --locked --release --package fs-data-sink
	$(CARGO_TARGET_DIR)/release/fs-data-sink demo

plugins: ## Build the example plugins into plugins/dist/
	tests/setup.sh build
	plugins/build.sh

test: check unit e2e ## Formatting, clippy, unit tests, plugin tests, and end-to-end tests with real servers
	@echo "make test: all passed"

# The machine first: what is missing should be said before half an hour of compiling.
check:
	tests/setup.sh
	cargo fmt --all --check
	plugins/build.sh
	cargo clippy $(WORKSPACE) --all-targets -- -D warnings

unit: ## Only the tests that need no server
	cargo test $(WORKSPACE) --lib --bins --test architecture --test config_examples --test ledger_model --test plugin_hostile
	cargo test $(WORKSPACE) --doc

# Two at a time: a scenario has up to three processes of its own.
e2e: ## Only the end-to-end tests; `make e2e T=kill` only those of that name
	tests/setup.sh
	cargo build $(WORKSPACE) --bins
	RUST_BACKTRACE=0 cargo test $(WORKSPACE) --test e2e -- --test-threads=2 $(T)

# 250 kills for each of S3, local, HDFS by RPC, HDFS by WebHDFS, Redis' streams, groups and lists, and counted windows on S3 and local;
# 128 of them are in `make test`. Then 5,000 files merged on S3 and on HDFS, 10,000 directories written on S3, 300 pipelines of 100 tenants, three minutes of processes that
# come and go, and Spark as a reader.
soak: ## Kill the program 2,250 times, and merge 5,000 files on S3 and HDFS: two hours
	tests/setup.sh soak
	plugins/build.sh
	cargo build $(WORKSPACE) --bins
	FS_DATA_SINK_KILLS=250 RUST_BACKTRACE=0 cargo test $(WORKSPACE) --test e2e -- --test-threads=2 kills_double_no_row kills_lose_no_row_of
	RUST_BACKTRACE=0 cargo test $(WORKSPACE) --test e2e -- --test-threads=1 --ignored

# Without a sanitizer it runs on a stable compiler; no parser of ours has an unsafe block that one would watch. What is found
# stays in the cache; a failure names the file that shows it, which belongs into fuzz/corpus/ once it is mended.
FUZZ_SECONDS ?= 600
FUZZ_TARGETS ?= $(patsubst fuzz/fuzz_targets/%.rs,%,$(wildcard fuzz/fuzz_targets/*.rs))
fuzz: ## Look for bytes that break a parser, ten minutes for each: FUZZ_SECONDS=60, FUZZ_TARGETS=json; needs a C++ compiler
	cargo install --quiet --locked --root $(FS_DATA_SINK_CACHE)/cargo-fuzz cargo-fuzz@0.13.2
	for target in $(FUZZ_TARGETS); do mkdir -p $(FS_DATA_SINK_CACHE)/fuzz/$$target; \
	  PATH=$(FS_DATA_SINK_CACHE)/cargo-fuzz/bin:$$PATH CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
	  cargo fuzz run --sanitizer none --features libfuzzer --target-dir $(CARGO_TARGET_DIR)/fuzz $$target \
	  $(FS_DATA_SINK_CACHE)/fuzz/$$target fuzz/corpus/$$target -- -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=3000 || exit 1; \
	done

bench: plugins ## Measure the release build: decode, Parquet, plugins, Redis to disk, and Kafka to S3
	tests/setup.sh
	cargo build --locked --release --package fs-data-sink
	FS_DATA_SINK_BIN=$(CARGO_TARGET_DIR)/release/fs-data-sink cargo run --locked --release --package fs-data-sink-tests --bin bench
	cargo run --locked --release --package fs-data-sink-tests --bin plugin_bench

fmt: ## Format all sources
	cargo fmt --all

lint: ## Formatting and clippy, with warnings denied
	cargo fmt --all --check
	cargo clippy $(WORKSPACE) --all-targets -- -D warnings

clean: ## Remove what was built; servers and readers stay in the cache
	rm -rf demo-lake plugins/dist $(CARGO_TARGET_DIR)
