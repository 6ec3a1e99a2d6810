# make demo   the main job on one machine, no cluster needed: real containers, real eBPF, policies out
# make test   every test, with a real two-node cluster
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
export PATH := $(PATH):/usr/sbin:/sbin:$(HOME)/.cargo/bin

.PHONY: help setup build demo test lint unit bench fuzz fuzz-policy ledger chaos pictures image clean

help: ## This list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

setup: ## Install what building, demo and tests need
	@.ci/setup test

build: ## Build everything
	@.ci/setup build
	cargo build --workspace --bins --locked

demo: ## Learn an application's traffic on this machine and write its policies (as root, under a minute after the build); STAY=1: look at its page afterwards
	@.ci/setup demo
	cargo build --workspace --bins --locked
	@target/debug/lab demo $(if $(STAY),--stay)

test: ## Every test, the real cluster included (as root)
	@.ci/setup test
	@$(MAKE) lint unit

lint: ## Formatting, lints, licences
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy --manifest-path tests/fuzz/Cargo.toml --target-dir target --locked -- -D warnings
	cargo deny --log-level error check bans licenses sources

unit: ## Tests alone, nothing skipped: small lab and full lab too
	cargo build --workspace --bins --locked
	target/debug/lab build --full
	NANOSEG_REQUIRE_ROOT=1 cargo test --workspace --locked

bench: ## What the policy kernel costs beside two other engines, capturing beside other designs, the page with 10,000 edges (as root)
	@.ci/setup test
	cargo bench --locked -p nanoseg-learner --bench capture
	cargo bench --locked -p nanoseg-tests --bench table
	NANOSEG_REQUIRE_ROOT=1 cargo bench --locked -p nanoseg --bench scale
	NANOSEG_REQUIRE_ROOT=1 cargo test --locked -p nanoseg --test page -- --nocapture many

fuzz-policy: ## The policy evaluator against two other engines: 10,000,000 questions to each, other ones every time
	NANOSEG_REQUIRE_ROOT=1 NANOSEG_SEED=$${NANOSEG_SEED:-$$(od -An -N6 -tu8 /dev/urandom | tr -d ' ')} \
		NANOSEG_QUESTIONS=$${NANOSEG_QUESTIONS:-10000000} \
		cargo test --release --locked -p nanoseg-tests --test differential -- --nocapture

fuzz: ## Every reader of outside bytes under libFuzzer, FUZZ_SECONDS (60) for each; findings in target/fuzz/artifacts
	@.ci/setup fuzz
	RUSTC_BOOTSTRAP=1 cargo fuzz build --sanitizer none --fuzz-dir tests/fuzz --target-dir target/fuzz
	@cd tests/fuzz/seeds && for target in *; do \
		mkdir -p ../../../target/fuzz/corpus/$$target ../../../target/fuzz/artifacts && \
		../../../target/fuzz/$$(rustc --print host-tuple)/release/$$target ../../../target/fuzz/corpus/$$target $$target \
			-artifact_prefix=../../../target/fuzz/artifacts/$$target- -max_total_time=$${FUZZ_SECONDS:-60} \
			-timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=256 -verbosity=0 -print_final_stats=1 || exit 1; \
	done

ledger: ## A million connections over 100,000 edges, the learner stopped for a minute in the middle: nothing may be lost (as root)
	NANOSEG_REQUIRE_ROOT=1 NANOSEG_FULL_LEDGER=1 cargo test --locked -p nanoseg-learner --test ledger

chaos: ## The controller killed 1,000 times, at every step of what it writes, and no API server for six minutes: never a wrong policy, right in seconds (as root)
	NANOSEG_REQUIRE_ROOT=1 NANOSEG_KILLS=1000 NANOSEG_OUTAGE=360 \
		cargo test --locked -p nanoseg --test api_server -- --nocapture chaos p31

pictures: ## The pictures of the documentation, made of the page as it is (controller/pictures)
	@.ci/setup test
	UPDATE=1 cargo test --locked -p nanoseg --test page pictures

image: ## The container image, target/nanoseg-image.tar
	@.ci/setup build
	cargo build --release --locked -p nanoseg -p nanoseg-learner -p nanoseg-lab --bins
	target/release/lab image

clean: ## Remove labs that are still up, and what was built
	-target/debug/lab down --all
	cargo clean
