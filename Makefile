# The commands of this repository. The Rust toolchain is the only thing a person brings; .ci/prepare installs the rest.

.PHONY: demo test lint bench bench-idle bench-proxy bench-switchover chaos chaos-sim prepare

# Three nodes on this machine, a live table, and the pids to kill. Ctrl-C stops everything.
demo: prepare
	cargo build --release --bin matriarch
	@exec target/release/matriarch demo

# Everything. The integration tests run target/debug/matriarch, so it is built first.
test: prepare
	@.ci/prepare browser
	cargo build --workspace --locked
	cargo test --workspace --locked

lint:
	cargo fmt --all -- --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

# Gaps, losses and floors as a Markdown table. TRIALS=20 for more trials, MODE=off for asynchronous replication.
# PEERS=1: Patroni with etcd and HAProxy beside Matriarch, in one table; fetches their packages; TRIALS=2 takes 8 minutes.
TRIALS ?= 10
MODE ?= quorum
bench: prepare
	$(if $(PEERS),@.ci/prepare chaos)
	cargo build --release --bin matriarch
	cargo build --release -p matriarch-chaos --bin bench
	target/release/bench --trials $(TRIALS) --mode $(MODE) $(if $(PEERS),--peers)

# Planned switchovers under pgbench that comes through the proxies.
bench-switchover: prepare
	cargo build --release --bin matriarch
	cargo build --release -p matriarch-chaos --bin bench
	target/release/bench --switchover --trials $(TRIALS) --mode $(MODE)

# What an idle cluster costs: memory, processor time, log entries.
bench-idle: prepare
	cargo build --release --bin matriarch
	cargo build --release -p matriarch-chaos --bin bench
	target/release/bench --idle

# What stands between a client and its server costs: the built-in proxy, HAProxy, pgBouncer, side by side (8 minutes).
# QUICK=1 takes three; with DUEL=30 ours and HAProxy alone, in 30 pairs (10 minutes). VISITS=1000000 for more sessions that
# come and go.
VISITS ?= 100000
bench-proxy: prepare
	@.ci/prepare chaos
	cargo build --release --bin matriarch
	cargo build --release -p matriarch-chaos --bin bench
	target/release/bench --proxy --visits $(VISITS) $(if $(QUICK),--quick) $(if $(DUEL),--duel $(DUEL)) $(if $(ONLY),--only "$(ONLY)")

# Seeded lives of a cluster in a modelled world. SEEDS=100 for fewer.
SEEDS ?= 10000
chaos-sim:
	cargo build --release -p matriarch-chaos --bin stories
	target/release/stories --runs $(SEEDS)

# Faults at random on three real nodes in a network of their own, a verdict and a page that shows it. Needs root.
# SEED=7 repeats a schedule, MODE=async|on|quorum, ONLY=kill-primary,cut-primary (target/release/chaos --list).
MINUTES ?= 2
chaos: prepare
	@.ci/prepare chaos
	cargo build --release --bin matriarch
	cargo build --release -p matriarch-chaos --bin chaos
	target/release/chaos --minutes $(MINUTES) --mode $(MODE) $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only $(ONLY))

prepare:
	@.ci/prepare
