# Development tasks. Each works on a fresh machine with python3 (3.11 or newer) and make: Python packages go
# into .venv by name, system packages come through apt-get when root and are named in one line when not.

PYTHON ?= python3
HOST   ?= 127.0.0.1
PORT   ?= 8443
PYTEST ?=
FLOODS ?=
PEERS  ?=
LIMITS ?=
TRACING ?=
ACME   ?=
SOAK   ?=
FUZZ   ?=
FUZZ_SECONDS ?= 600

VENV  := .venv
BIN   := $(VENV)/bin
PIP   := $(BIN)/python -m pip -qq --no-input --disable-pip-version-check
STAMP := $(VENV)/.installed
TREE  := build/deb/koder-gateway
SCAN  := build/sslyze
LOCK  := build/lock
E2E   := build/e2e
PLATFORM := docs/examples/identity-platform
AUDIT := build/audit

# The daemons that tests start live in /usr/sbin, which an ordinary user's PATH lacks.
export PATH := $(PATH):/usr/sbin:/sbin
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run run-platform test test-long test-tls test-acme test-e2e soak fuzz check format reference score screenshot bench bench-echo bench-floods bench-limits-store bench-refresh bench-tracing bench-peers bench-scale bench-workers bench-acme lock audit deb test-deb test-reproducible test-container clean
.PHONY: system-python system-bench system-test system-test-tls system-test-acme system-test-e2e system-deb system-test-deb

# $(call need,CONDITION,PACKAGES): nothing while CONDITION holds; else the Debian PACKAGES are installed when root,
# and named in one line when not. `type -P` finds all of its names; `command -v` is content with one.
define need
@if ! { $(1); } >/dev/null 2>&1; then \
    if [ "$$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then \
        echo "$(MAKECMDGOALS): missing system packages; install them first, on Debian: apt-get install $(2)" >&2; \
        exit 1; \
    fi; \
    echo "installing $(2)"; \
    apt-get update -qq; \
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $(2) >/dev/null; \
fi
endef

help:
	@echo 'make run       serve the demo over TLS on https://$(HOST):$(PORT) (PORT=, HOST= change it)'
	@echo 'make run-platform  a real OpenID provider of two tenants behind the gateway, to log in to with a browser'
	@echo 'make test      every test (PYTEST= passes options to pytest)'
	@echo 'make test-long  an hour of small messages, in virtual time, as real HTTP/2 clients send them, and ten million keys of limits (some minutes)'
	@echo 'make test-tls  testssl.sh and sslyze look at a gateway (some minutes)'
	@echo 'make test-acme  certificates from a real ACME authority, with all of its faults (some minutes)'
	@echo 'make test-e2e  a real OpenID provider, real clients, a browser, and HAProxy, nginx and Caddy in front (some minutes)'
	@echo 'make soak      ten minutes of 2,000 clients of all kinds while everything around a gateway fails (SOAK= passes options)'
	@echo 'make fuzz      inputs that nobody has thought of, for FUZZ_SECONDS=$(FUZZ_SECONDS) (FUZZ= chooses targets)'
	@echo 'make check     formatting, lint and types'
	@echo 'make format    write the formatting that check asks for'
	@echo 'make reference  write the reference of the configuration anew from the code, after a change of its keys'
	@echo 'make score     run every test that proves a case of tests/cases.toml, and write docs/score.md (some minutes)'
	@echo 'make bench     micro-benchmarks of the hot functions'
	@echo 'make screenshot  draw the picture of the status page in docs (two minutes)'
	@echo 'make bench-scale  whether it stays as fast as tenants, routes, limits and connections grow; draws docs/plots'
	@echo 'make bench-workers  throughput with one and two workers, and how connections spread (WORKERS= passes options)'
	@echo 'make bench-refresh  what requests wait for while a registry of a million tenants is read again (REFRESH= passes options)'
	@echo 'make bench-echo  WebSocket messages a second, beside Go where it is installed'
	@echo 'make bench-limits-store  what limits on a shared store cost, on a Redis beside none (LIMITS= passes options)'
	@echo 'make bench-tracing  what spans cost, with one trace in a hundred and with all (TRACING= passes options)'
	@echo 'make bench-acme  what requests notice of a thousand domains that need certificates at once (ACME= passes options)'
	@echo 'make bench-floods  what attackers cost and honest clients get beside them, next to Go (FLOODS= passes options)'
	@echo 'make bench-peers  the table of docs/performance.md, beside Go, Traefik, Caddy, nginx and HAProxy (PEERS= passes options)'
	@echo 'make lock      choose the versions of the Debian package'"'"'s Python packages anew, and write down their hashes'
	@echo 'make audit     which of the packages have known faults, by debian/known-faults.toml and by PyPI where it answers'
	@echo 'make deb       the Debian package, into dist/'
	@echo 'make test-deb  install that package into a tree of its own, serve, upgrade it under load, remove and purge it'
	@echo 'make test-reproducible  build the package twice, differently, and compare the two'
	@echo 'make test-container  build the image of the Containerfile with buildah, and serve a request through it'
	@echo 'make clean     remove everything that these made'

run: $(STAMP)
	exec $(BIN)/twistd -n --pidfile= koder-gateway --demo --port ssl:$(PORT):interface=$(HOST)

# The platform of docs/identity-platform.md, in a copy: it keeps certificates and packages beside its files.
run-platform: $(STAMP) $(STAMP)-e2e
	mkdir -p build/platform
	cp $(PLATFORM)/* build/platform
	PATH=$(CURDIR)/$(BIN):$$PATH exec build/platform/run.sh

# All tests in two processes, each file in one of them, and a second try for a few that fail (tests/README.md); what
# PYTEST chooses in one, where a debugger works too.
test: system-test $(STAMP)-test
	$(BIN)/python -m pytest $(or $(PYTEST),-p tests.kit.second_try --numprocesses 2 --dist loadfile)

test-long: $(STAMP)-test
	KODER_TEST_SECONDS=3600 $(BIN)/python -m pytest tests/http2/test_honest.py $(PYTEST)
	KODER_TEST_KEYS=10000000 $(BIN)/python -m pytest tests/policy/test_bucket_room.py $(PYTEST)

test-tls: system-test-tls $(STAMP)-test $(SCAN)/.installed
	$(BIN)/python -m tests.tls.scan --sslyze $(SCAN)/bin/sslyze --keep build/tls-scan

# What `make test` leaves out of them, too: each step of an order that is killed, each fault of an authority. They wait
# more than they work, so there are more processes than a small machine has processors.
test-acme: system-test-acme $(STAMP)-test
	KODER_TEST_ACME=all $(BIN)/python -m pytest $(or $(PYTEST),-p tests.kit.second_try --numprocesses 4 --dist worksteal tests/acme)

# Its logs and its report stay in build/soak.
soak: system-test $(STAMP)-test
	rm -rf build/soak
	$(BIN)/python -m tests.soak --keep build/soak $(SOAK)

# The platform that docs/identity-platform.md shows, by its own files.
test-e2e: system-test system-test-e2e $(STAMP)-test $(E2E)/.installed
	KODER_TEST_E2E=$(CURDIR)/$(E2E) $(BIN)/python -m pytest $(or $(PYTEST),-p tests.kit.second_try tests/platform)

# What it finds goes into build/fuzz; `make test` takes the inputs of tests/fuzz/corpus, and a few mutations of them.
fuzz: $(STAMP)-test $(STAMP)-fuzz
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) $(FUZZ)

check: $(STAMP)-check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The reference of the configuration: the tables of docs/configuration.md, the manual page and the JSON Schemas.
reference: $(STAMP)
	$(BIN)/python -m reference

# Every case that the gateway must survive, with the tests that prove it, and the figures that benchmarks have kept.
score: system-test $(STAMP)-test
	$(BIN)/python -m reference.score

screenshot: system-test $(STAMP)-test
	$(BIN)/python -m tests.ops.screenshot --out docs/status.png

format: $(STAMP)-check
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)-test
	$(BIN)/python -m pytest benchmarks --benchmark-enable --benchmark-only --benchmark-columns=min,median,rounds $(PYTEST)

bench-limits-store: system-bench system-test $(STAMP)-test
	$(BIN)/python benchmarks/shared_limits.py $(LIMITS)

bench-tracing: system-bench $(STAMP)-test
	$(BIN)/python benchmarks/tracing.py $(TRACING)

bench-acme: system-bench system-test-acme $(STAMP)-test
	$(BIN)/python benchmarks/acme_domains.py $(ACME)

bench-echo: $(STAMP)
	$(BIN)/python benchmarks/echo.py

bench-floods: $(STAMP)-floods
	$(BIN)/python benchmarks/floods.py $(FLOODS)

# Debian's peers and the tools of the load are used where they are installed, and named in one line where not.
bench-peers: $(STAMP)-peers
	$(BIN)/python benchmarks/peers.py $(PEERS)

bench-workers: system-bench $(STAMP)
	$(BIN)/python benchmarks/workers.py $(WORKERS)

bench-scale: system-bench $(STAMP)-test
	$(BIN)/python benchmarks/scale.py --out docs/plots

bench-refresh: system-bench $(STAMP)
	$(BIN)/python benchmarks/refresh.py $(REFRESH)

# By Debian's own Python, which the package runs with: another one, even 3.11.7, needs other packages.
lock: $(LOCK)/.installed
	$(LOCK)/bin/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-header \
	    --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --build-deps-for wheel \
	    --extra acme --extra completions --extra tracing --output-file debian/requirements.lock setup.cfg

# Whether the service is reached or not, what is known here is compared first.
audit: $(AUDIT)/.installed
	.ci/audit --pip-audit $(AUDIT)/bin/pip-audit

# Built from a copy: dpkg-buildpackage writes beside its tree, and what a developer keeps in his is not source.
deb: system-deb
	rm -rf build/deb
	mkdir -p $(TREE) dist
	tar -c --exclude=./.git --exclude-from=<(sed 's,/$$,,' .gitignore) . | tar -x -C $(TREE)
	cd $(TREE) && dpkg-buildpackage -us -uc
	rm -f dist/koder-gateway_*
	cp build/deb/koder-gateway_* dist/
	lintian --allow-root --fail-on error --tag-display-limit 0 dist/koder-gateway_*.changes

test-deb: system-test-deb deb
	debian/test-installed dist/koder-gateway_*_"$$(dpkg --print-architecture)".deb

test-reproducible: system-deb
	debian/test-reproducible

test-container:
	.ci/test-container

clean:
	rm -rf $(VENV) build dist ./*.egg-info .mypy_cache .ruff_cache .hypothesis .benchmarks .pytest_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
	rm -f twisted/plugins/dropin.cache

# The environment is made anew when what it is made from changes, and only then.
$(STAMP): setup.cfg pyproject.toml | system-python
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) install --editable .
	touch $@

$(STAMP)-%: $(STAMP)
	$(PIP) install --editable '.[$*]'
	touch $@

# In an environment of its own: it brings other versions of what the gateway is built on.
$(SCAN)/.installed: | system-python
	$(PYTHON) -m venv --clear $(SCAN)
	$(SCAN)/bin/python -m pip -qq --no-input --disable-pip-version-check install 'sslyze >= 6.1'
	touch $@

# Node.js and npm come by pip, too: Debian's are too old for these packages, whose versions and hashes the lock has.
$(E2E)/.installed: $(PLATFORM)/package.json $(PLATFORM)/package-lock.json | $(STAMP)-e2e
	rm -rf $(E2E)
	mkdir -p $(E2E)
	cp $^ $(E2E)
	cd $(E2E) && PATH=$(CURDIR)/$(BIN):$$PATH npm ci --ignore-scripts --no-audit --no-fund
	touch $@

$(LOCK)/.installed: | system-python
	/usr/bin/python3 -m venv --clear $(LOCK)
	$(LOCK)/bin/python -m pip -qq --no-input --disable-pip-version-check install 'pip-tools >= 7.5'
	touch $@

$(AUDIT)/.installed: | system-python
	$(PYTHON) -m venv --clear $(AUDIT)
	$(AUDIT)/bin/python -m pip -qq --no-input --disable-pip-version-check install 'pip-audit >= 2.9'
	touch $@

system-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo '$(PYTHON) is missing or older than 3.11: install a newer one, or name it with PYTHON=' >&2; exit 1; }
	$(call need,$(PYTHON) -c 'import ensurepip',python3-venv)

system-test:
	$(call need,type -P nginx redis-server node go chromium fish zsh pebble shellcheck,nginx redis-server nodejs golang-go chromium fish zsh pebble shellcheck)

system-test-tls:
	$(call need,command -v testssl || command -v testssl.sh,testssl.sh)

system-test-acme:
	$(call need,type -P pebble redis-server,pebble redis-server)

system-test-e2e:
	$(call need,type -P haproxy caddy,haproxy caddy)

system-bench:
	$(call need,type -P nginx wrk h2load,nginx wrk nghttp2-client)

system-deb:
	$(call need,type -P dpkg-buildpackage lintian && dpkg-checkbuilddeps,build-essential debhelper dh-virtualenv lintian python3-dev python3-venv)

# Only root can install into a tree; anybody else has the package unpacked.
system-test-deb:
	$(call need,[ "$$(id -u)" -ne 0 ] || command -v debootstrap,debootstrap)
