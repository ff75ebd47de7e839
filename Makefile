# gatepost: the obvious way to build, test, show and measure. Each target installs the system packages it lacks.

CARGO ?= cargo
# The namespace tests need root; everything is built as you, only test binaries run with sudo.
ROOT := $(if $(filter 0,$(shell id -u)),,sudo -E)
RUNNER := $(if $(ROOT),CARGO_TARGET_$(shell $(CARGO) -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')_RUNNER='$(ROOT)')

# clang and libbpf's headers build what runs in the kernel.
BUILD_PACKAGES := gcc libc6-dev libpcap-dev clang libbpf-dev linux-libc-dev
# swaks only suggests what it needs for TLS and IPv6.
TEST_PACKAGES := $(BUILD_PACKAGES) iproute2 nftables iptables postfix openssl ca-certificates procps prometheus haproxy curl \
	gnutls-bin swaks libnet-ssleay-perl libio-socket-inet6-perl tshark knot redis-server python3-prometheus-client chromium \
	python3-dkim python3-nacl libmail-dkim-perl \
	nginx-light systemd man-db groff-base zsh fish libidn12 libgnutls-dane0 sasl2-bin libsasl2-modules \
	nodejs testssl.sh sslscan rspamd unbound ldnsutils fail2ban
CAPTURE_PACKAGES := $(TEST_PACKAGES) ethtool
BENCH_PACKAGES := $(TEST_PACKAGES) libnginx-mod-stream libnginx-mod-mail stunnel4
NEEDED = $(BUILD_PACKAGES)
# Exim conflicts with Postfix as a package: only its program is unpacked, and the user that it demands created.
EXIM := target/exim4/usr/sbin/exim4
# A mail client of applications, in exactly the version of the lock file.
NODEMAILER := target/nodemailer/node_modules/.package-lock.json
# The database of advisories, where `cargo deny fetch` has put one. Its folder alone says nothing: a fetch that failed leaves it too.
ADVISORIES = $(wildcard $(or $(CARGO_HOME),$(HOME)/.cargo)/advisory-dbs/advisory-db-*)

.PHONY: help build deb demo check test soak captures dashboards lint bench fuzz packages

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

check: packages ## Unit tests, engine, configuration, captures, replay: no root, two minutes after the build
	$(CARGO) test --locked --lib --test core

test: NEEDED = $(TEST_PACKAGES)
# From a clean clone that is faster by a tenth: every file is compiled once.
test: export CARGO_INCREMENTAL ?= 0
test: packages $(EXIM) $(NODEMAILER) ## Every test, with real Postfix, kernel and Prometheus; as root, or with sudo
	$(CARGO) test --locked --no-run
	$(RUNNER) $(CARGO) test --locked --lib -- --include-ignored
	$(RUNNER) $(CARGO) test --locked --test core --test constant_memory --test lab

$(EXIM):
	mkdir -p target/exim4 && cd target/exim4 && apt-get -qq download exim4-daemon-light && dpkg-deb -x exim4-daemon-light_*.deb .
	id Debian-exim >/dev/null 2>&1 || $(ROOT) useradd --system --no-create-home --shell /usr/sbin/nologin Debian-exim

# nodejs of NodeSource has npm in it, and conflicts with Debian's package npm.
$(NODEMAILER): tests/lab/nodemailer/package-lock.json | packages
	command -v npm >/dev/null || sh tests/packages.sh npm
	mkdir -p target/nodemailer && cp tests/lab/nodemailer/package*.json target/nodemailer
	npm ci --prefix target/nodemailer --ignore-scripts --no-audit --no-fund
	touch $@

soak: NEEDED = $(TEST_PACKAGES)
soak: packages ## Ordinary mail beside hostile clients, upstreams and resolvers for SOAK_MINUTES (120); as root, or with sudo
	$(RUNNER) $(CARGO) test --locked --test lab -- --ignored soak

captures: NEEDED = $(CAPTURE_PACKAGES)
captures: packages ## Record the cases of captures/ again, or those whose test is named CASE; as root, or with sudo
	$(RUNNER) $(CARGO) test --locked --test lab -- --ignored captures::record::$(CASE)

dashboards: ## Generate dashboards/*.json from dashboards/source/*.toml
	$(CARGO) test --locked --test core -- --ignored dashboards_are_written

lint: ## Formatting, clippy, documentation, dependencies: no warnings; installs cargo-deny if it is not there
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps
	command -v cargo-deny >/dev/null || $(CARGO) install --locked cargo-deny
	$(CARGO) deny --locked check licenses bans sources
	@if [ -n "$(ADVISORIES)" ]; then $(CARGO) deny --offline --locked check advisories; fi

bench: NEEDED = $(BENCH_PACKAGES)
bench: packages ## The relay beside HAProxy and nginx, also under TLS and beside stunnel, replay beside tshark, watch beside dumpcap, a decision, the questions of Postfix, the mail log, the door; writes target/bench/*.json
	$(RUNNER) $(CARGO) bench --locked --bench relay -- $(BENCH)
	$(RUNNER) $(CARGO) bench --locked --bench tls -- $(BENCH)
	$(RUNNER) $(CARGO) bench --locked --bench replay -- $(BENCH)
	$(RUNNER) $(CARGO) bench --locked --bench watch -- $(BENCH)
	$(CARGO) bench --locked --bench decide
	$(CARGO) bench --locked --bench policy -- $(BENCH)
	$(CARGO) bench --locked --bench mail_log
	$(RUNNER) $(CARGO) bench --locked --bench door -- $(BENCH)

fuzz: ## Every fuzz target for FUZZ_SECONDS (60); needs cargo-fuzz
	for target in $$($(CARGO) fuzz list --fuzz-dir tests/fuzz); do \
	  found=tests/fuzz/target/found/$$target && mkdir -p $$found && \
	  RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --fuzz-dir tests/fuzz $$target $$found tests/fuzz/corpus/$$target \
	    -- -print_funcs=0 -max_total_time=$${FUZZ_SECONDS:-60} || exit 1; \
	done

packages:
	@sh tests/packages.sh $(NEEDED)
