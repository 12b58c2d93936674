# `make` lists the targets. The servers behind test, soak and bench are started natively by deploy/local/services;
# INOSEC_TEST_… variables set beforehand point at servers of your own instead.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test soak check fuzz bench services-up services-down

prerequisites := deploy/local/prerequisites
services := deploy/local/services

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r target what; do \
		printf 'make %-14s %s\n' "$$target" "$$what"; done

demo: ## a day of several tenants through the whole road; needs no server (ARGS="…" goes to `inosec demo`)
	@$(prerequisites) build
	cargo build --release --bin inosec
	./target/release/inosec demo $(ARGS)

# `services run` stops what it started, however the command ends, and passes on the command's exit code.
test: ## every test, on real servers
	@$(prerequisites) test
	@$(services) run cargo test --workspace

soak: ## 940 kills under load, five minutes of overload, every verdict of detection, 1,000,000 cases of correlation
	@$(prerequisites) test
	@INOSEC_SOAK=full $(services) run cargo test --release --test system -- killed_at_random_under_load memory_stays_bounded threat_events_are_the_oracles alerts_are_the_references the_corpus_makes --nocapture
	INOSEC_SOAK=full cargo test --release -p inosec-enrich -- every_verdict correlate::properties correlate::alerts --nocapture

check: ## format, lints and unit tests; no server
	@$(prerequisites) build
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo test --workspace --lib --bins

fuzz: ## every fuzz target for SECONDS (60), on the stable compiler; no server
	@$(prerequisites) build
	@fuzz/run $(or $(SECONDS),60)

bench: ## end-to-end throughput on this machine, on real servers (ARGS="…" goes to the benchmark)
	@$(prerequisites) test
	cargo build --release --bin inosec
	@$(services) run cargo run --release -p inosec-bench -- e2e $(ARGS)

services-up: ## start Kafka, TimescaleDB, PostgreSQL and MinIO, and leave them up
	@$(services) up
	@$(services) status

services-down: ## stop them (deploy/local/services reset also deletes their data)
	@$(services) down
