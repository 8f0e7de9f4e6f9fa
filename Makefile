# The verbs are the same at the desk and in CI. `make` alone is `make help`.

CARGO ?= cargo
# How many garbage lines `make fuzz` sends. Not `?=`: some shells export LINES, the terminal's height.
LINES = 1000000
# How long `make chaos`, `make sim` and `make sim-faults` play. Only as an argument of make: bash has a SECONDS of its own.
seconds = $(if $(filter command line,$(origin SECONDS)),$(SECONDS),$(1))

# Where cargo builds, and the small node beside the full one.
TARGET = $(or $(CARGO_TARGET_DIR),target)
SMALL = $(TARGET)/small

.PHONY: help run build test check smoke size instructions cross bench fairness fuzz sim sim-faults lanes chaos cluster cluster-stop ci needs services peers valgrind patch

help: ## list the verbs (what plain `make` does)
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile | expand -t 20

run: needs ## build and run a node with default settings; Ctrl-C drains it
	$(CARGO) run --release -- serve

build: needs ## build the release binary with all commands, target/release/pinpost
	$(CARGO) build --release

test: services ## run every test; installs Redis, RabbitMQ and a C linker through apt-get if they are missing
	tests/services.sh around $(CARGO) test --features internals

check: needs ## formatting, lints (of the small node and the bench too), documentation, layers
	$(CARGO) fmt --all --check
	$(CARGO) clippy --all-targets --features internals -- -D warnings
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) clippy -p pinpost-bench -- -D warnings
	$(CARGO) clippy --no-default-features --lib --bins -- -D warnings
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --no-deps
	$(CARGO) test --test layers

smoke: needs ## start the real binary, and the small node; talk to them from outside, drain them; run the examples
	$(CARGO) build --release
	$(CARGO) build --no-default-features --bin pinpost --target-dir $(SMALL)
	tests/smoke.sh

size: needs ## build the full node and the small one; print their sizes, start times and memory, with their bounds
	$(CARGO) build --release --bin pinpost
	$(CARGO) build --release --no-default-features --bin pinpost --target-dir $(SMALL)
	$(CARGO) run --release -p pinpost-bench -- --only size --small $(SMALL)/release/pinpost

instructions: valgrind services ## count the instructions a message of a node, and of two, with valgrind; installs it through apt-get
	$(CARGO) build --release
	$(CARGO) run --release -p pinpost-bench -- --only instructions

cross: ## build a server and the small node for aarch64 and armv7, and run what comes out under qemu; installs compilers through apt-get
	tests/cross.sh

bench: peers ## compare with other servers and a bare relay, measure memory and a cluster; QUICK=1 is shorter; BEFORE=PATH is another binary to compare with
	$(CARGO) build --release
	$(CARGO) run --release -p pinpost-bench -- --chart $(TARGET)/bench.svg $(if $(QUICK),--quick) $(if $(BEFORE),--before $(BEFORE))

fairness: needs ## what a pair that talks notices while others flood; prints times, and the longest turn of a node
	$(CARGO) test --release --test fairness -- --nocapture --include-ignored --test-threads=1

fuzz: needs ## send garbage for longer: LINES=1000000; PINPOST_SEED=N repeats a run
	PINPOST_LINES=$(LINES) $(CARGO) test --release --test garbage -- --nocapture

sim: needs ## play simulated clusters in which everything fails: SECONDS=60; PINPOST_SEED=N repeats a run
	PINPOST_SIM_SECONDS=$(call seconds,60) $(CARGO) test --profile sim --features internals --test sim every_promise \
		-- --nocapture

sim-faults: patch ## plant known faults one by one, each of which the simulator has to find: SECONDS=60 for each; FAULT=NAME plants one
	tests/sim-faults.sh $(call seconds,60) $(FAULT)

lanes: needs ## go through all states of the lane and the nodes around it, in larger worlds than the tests do; a few minutes
	$(CARGO) test --profile sim --features internals --lib node::lane -- --include-ignored

chaos: services ## break a cluster at random, 2,000 messages a second: SECONDS=720; PINPOST_SEED=N repeats it
	PINPOST_CHAOS_SECONDS=$(call seconds,720) $(CARGO) test --release --features internals --test chaos every_promise \
		-- --nocapture --include-ignored --test-threads=1

cluster: services ## start a Redis, a RabbitMQ and three nodes of the release build, all on loopback
	$(CARGO) build --release
	@tests/cluster.sh start

cluster-stop: ## end them
	@tests/cluster.sh stop

ci: check test smoke ## all that has to pass: check, test, smoke

# What a build needs.
needs:
	@tests/needs.sh

# What a build and the tests need: the programs of Redis and RabbitMQ, with no service of the system started.
services:
	@tests/needs.sh services

# And what the benchmark compares with: NATS, mosquitto and ejabberd, none of them started either.
peers:
	@tests/needs.sh peers

# What plants faults.
patch:
	@tests/needs.sh patch

# And what counts instructions.
valgrind:
	@tests/needs.sh valgrind
