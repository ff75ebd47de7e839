# gatepost: the obvious way to build, test, show and measure. Each target installs the system packages it lacks.

CARGO ?= cargo
# The namespace tests need root; everything is built as you, only test binaries run with sudo.
ROOT := $(if $(filter 0,$(shell id -u)),,sudo -E)
RUNNER := $(if $(ROOT),CARGO_TARGET_$(shell $(CARGO) -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')_RUNNER='$(ROOT)')

# clang and libbpf's headers build what runs in the kernel.
BUILD_PACKAGES := gcc libc6-dev libpcap-dev clang libbpf-dev linux-libc-dev
# swaks only suggests what it needs for TLS and IPv6.
TEST_PACKAGES := $(BUILD_PACKAGES) iproute2 nftables postfix openssl ca-certificates procps prometheus haproxy curl \
	swaks libnet-ssleay-perl libio-socket-inet6-perl tshark knot redis-server python3-prometheus-client chromium \
	systemd man-db groff-base zsh fish
CAPTURE_PACKAGES := $(TEST_PACKAGES) ethtool
BENCH_PACKAGES := $(TEST_PACKAGES) nginx-light libnginx-mod-stream
NEEDED = $(BUILD_PACKAGES)

.PHONY: help build deb demo test captures dashboards lint bench fuzz packages

help: ## What can be made
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

build: packages ## The release binary, target/release/gatepost
	$(CARGO) build --release --locked

deb: build ## The Debian package, target/debian/*.deb; installs cargo-deb if it is not there
	command -v cargo-deb >/dev/null || $(CARGO) install --locked cargo-deb
	rm -rf target/packaging && mkdir -p target/packaging/man target/packaging/completions
	target/release/gatepost man target/packaging/man
	target/release/gatepost completions bash > target/packaging/completions/gatepost
	target/release/gatepost completions zsh > target/packaging/completions/_gatepost
	target/release/gatepost completions fish > target/packaging/completions/gatepost.fish
	$(CARGO) deb --locked --no-build

demo: packages ## Watch gatepost at work on loopback; no root, no configuration
	$(CARGO) run --release --locked -- demo $(DEMO)

test: NEEDED = $(TEST_PACKAGES)
# From a clean clone that is faster by a tenth: every file is compiled once.
test: export CARGO_INCREMENTAL ?= 0
test: packages ## Every test, with real Postfix, kernel and Prometheus; as root, or with sudo
	$(RUNNER) $(CARGO) test --locked

captures: NEEDED = $(CAPTURE_PACKAGES)
captures: packages ## Record the cases of captures/ again, or those whose test is named CASE; as root, or with sudo
	$(RUNNER) $(CARGO) test --locked --test captures -- --ignored record::$(CASE)

dashboards: ## Make dashboards/*.json again, of dashboards/source/*.toml
	$(CARGO) test --locked --test dashboards -- --ignored dashboards_are_written

lint: ## Formatting, clippy, documentation: no warnings
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps

bench: NEEDED = $(BENCH_PACKAGES)
bench: packages ## The relay beside HAProxy and nginx, replay beside tshark, watch beside dumpcap, a decision, the door; writes target/bench/*.json
	$(RUNNER) $(CARGO) bench --locked --bench relay -- $(BENCH)
	$(RUNNER) $(CARGO) bench --locked --bench replay -- $(BENCH)
	$(RUNNER) $(CARGO) bench --locked --bench watch -- $(BENCH)
	$(CARGO) bench --locked --bench decide
	$(RUNNER) $(CARGO) bench --locked --bench door -- $(BENCH)

fuzz: ## Every fuzz target for FUZZ_SECONDS (60); needs cargo-fuzz
	for target in $$($(CARGO) fuzz list --fuzz-dir tests/fuzz); do \
	  found=tests/fuzz/target/found/$$target && mkdir -p $$found && \
	  RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --fuzz-dir tests/fuzz $$target $$found tests/fuzz/corpus/$$target \
	    -- -print_funcs=0 -max_total_time=$${FUZZ_SECONDS:-60} || exit 1; \
	done

packages:
	@sh tests/packages.sh $(NEEDED)
