# The front door: everything that people and machines do here goes through a target. `make help` lists them.

# The system's own where it will do: Debian builds it with profile and link time optimisation, and chatd takes a fifth less
# CPU on it than on a plain build of the same version (docs/performance.md).
PYTHON ?= $(shell /usr/bin/python3 -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo /usr/bin/python3 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH_READY := $(VENV)/.bench-ready
NATIVE := .native/.ready
AS_NATIVE := PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/.native
BY_FILES := -n 2 --dist loadfile --no-loadscope-reorder # those with few tests take longest, and would come last
JS := tests/js/node_modules/.package-lock.json
DEBIAN := redis-server rabbitmq-server faketime

.DEFAULT_GOAL := help
.PHONY: install uninstall deb native native-if-it-can-be native-test systemd-test compose-test alerts-test docs help venv run test check format cluster demo bench bench-quick bench-peers profile chaos chaos-quick faults-long multi durability sizes skew rolling overload sim services browser clean

help: ## what can be done here
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

venv: $(READY) ## the virtual environment with all Python packages

$(READY): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "chatd needs Python 3.11 or newer: make PYTHON=python3.12 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@

run: $(READY) ## the embedded server: one process, no Redis, no RabbitMQ
	@$(BIN)/chatctl demo
	@exec $(BIN)/chatd

services: ## Redis and RabbitMQ from Debian, when they are missing; what we run of them are private copies
	@missing=; for p in $(DEBIAN); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ]; then get="apt-get"; elif sudo -n true 2>/dev/null; then get="sudo apt-get"; \
	  else echo "please install:$$missing   (sudo apt-get install$$missing)"; exit 1; fi; \
		  export DEBIAN_FRONTEND=noninteractive; $$get update -q >/dev/null; $$get install -y -q --no-install-recommends $$missing >/dev/null; \
	fi

$(JS): tests/js/package.json tests/js/package-lock.json
	npm ci --prefix tests/js --ignore-scripts --no-audit --no-fund --silent
	@touch $@

test: $(READY) services ## every test, against real servers that the suite starts itself
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(JS); else echo "no npm: the tests of the Node.js client are left out"; fi
	$(BIN)/python -m pytest -q $(BY_FILES)

check: $(READY) ## format, lint, strict types, house rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/house

format: $(READY) ## put the code into its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

cluster: $(READY) services ## private Redis and RabbitMQ, two chatd, two brokerd, until Ctrl-C
	@exec $(BIN)/python -m bench.cluster

demo: $(READY) services ## a conversation of thousands of lines, on the embedded server and on the cluster, with a server killed
	@exec $(BIN)/python -m bench.demo

$(BENCH_READY): $(READY)
	@$(BIN)/pip install -q --disable-pip-version-check -e '.[bench]' && touch $@ || echo "no network? the bench runs on without its report and without profiles"

# What `make install` installs, apart from the checkout, so that no edited file runs as it was before.
$(NATIVE): setup.py setup.cfg pyproject.toml $(shell find protocol brokerd chatd -type f -not -name '*.pyc') | $(READY)
	@systemd/compiler.sh $(BIN)/python 2>/dev/null || [ "$$(id -u)" != 0 ] || { apt-get update -q && DEBIAN_FRONTEND=noninteractive \
	apt-get install -y -q --no-install-recommends gcc libc6-dev python3-dev; } >/dev/null 2>&1 || true
	@systemd/compiler.sh $(BIN)/python
	@echo "compiling (setup.py): a minute or two"; rm -rf build .native
	@CHATD_NATIVE=1 $(BIN)/pip install -q --disable-pip-version-check --no-deps --target .native .
	@rm -rf build .native/bench .native/bin && touch $@

native: $(NATIVE) ## the hot modules compiled to C (gcc, Python's headers), in .native; the bench measures that

native-if-it-can-be:
	@$(MAKE) --no-print-directory native || echo "no compiler? what follows is measured without"

native-test: $(NATIVE) services ## every test that does not look into modules, against the compiled ones; ONLY=… some of them
	$(AS_NATIVE):$(CURDIR) $(BIN)/python -m pytest -q $(BY_FILES) -o "pythonpath=.native ." -m "not pure" $(ONLY)

bench: $(BENCH_READY) services native-if-it-can-be ## every scenario, a quarter of an hour; bench/out/latest.{json,html}
	$(AS_NATIVE) $(BIN)/python -m bench run

bench-quick: $(BENCH_READY) services native-if-it-can-be ## the figures with their floors, in less than three minutes; bench/out/latest.{json,html}
	$(AS_NATIVE) $(BIN)/python -m bench quick

bench-peers: $(BENCH_READY) services native-if-it-can-be ## the same load on other servers (mosquitto, NATS, ejabberd, prosody …), servers on one core, load on another
	$(AS_NATIVE) $(BIN)/python -m bench peers

profile: $(BENCH_READY) services native-if-it-can-be ## a flame graph of each of our processes under load, bench/out/profile-*.svg
	$(AS_NATIVE) $(BIN)/python -m bench profile

chaos: $(READY) services ## a cluster under load, with processes killed and links cut; SEED=… SECONDS=… repeat a run, POWER=1 (root) cuts the power too
	$(BIN)/python -m tests.chaos --seconds $(or $(SECONDS),60) $(if $(SEED),--seed $(SEED)) $(if $(POWER),--power)

chaos-quick: $(READY) services ## the same for 20 seconds
	$(BIN)/python -m tests.chaos --seconds 20 $(if $(SEED),--seed $(SEED))

rolling: $(READY) services ## three chatd and two brokerd restarted one by one under load: lost, doubled, absences, logins per 100 ms
	$(BIN)/python -m tests.rolling

multi: $(READY) services ## three RabbitMQ nodes, Redis with sentinels, each machine lost in turn under load: what was noticed of it
	$(BIN)/python -m tests.multi

durability: $(READY) services ## what appendfsync and WAIT cost on the same machines: a table
	$(BIN)/python -m tests.multi.saves
	$(BIN)/python -m tests.multi.durability

sizes: $(READY) services ## bytes of Redis and SQLite for each user, device and waiting message, of the kernel for each connection; CPU of a PING
	$(BIN)/python -m tests.operate.sizes
	$(BIN)/python -m tests.operate.pings

skew: $(READY) services ## an upgrade from COMMIT to this tree and back, daemon by daemon, on a real cluster under talk
	$(BIN)/python -m tests.operate.skew $(COMMIT)

faults-long: $(READY) services ## the fault tests in full: every crash point, all 24 orders of a restart, and chaos; POWER=1 (root) cuts the power in it too
	FAULTS=long $(BIN)/python -m pytest -q tests/faults -k "test_f" --timeout 1800
	$(BIN)/python -m tests.chaos --seconds $(or $(SECONDS),120) $(if $(SEED),--seed $(SEED)) $(if $(POWER),--power)

overload: $(READY) services ## every overload at full size, and who suffers: a table; exit status 1 when a bound is broken; ONLY=… some of them
	@$(BIN)/python -m tests.overload $(if $(ONLY),--only $(ONLY))

sim: $(READY) ## the real cores on simulated links and a virtual clock, seed by seed; SEED=… repeats one, SEEDS=… more of them
	@$(BIN)/python -m tests.sim $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),1000))
	@$(if $(SEED),true,$(BIN)/python -m pytest -q tests/faults/test_sim_short.py -k catches)

docs: $(READY) ## draw the picture, print the configuration's reference and chatctl's completion
	$(BIN)/python docs/draw.py
	$(BIN)/python -m chatd.config > docs/configuration.md
	for shell in bash zsh; do COLUMNS=200 $(BIN)/shtab --prefix chatctl --shell $$shell chatd.ctl.build_parser > systemd/completion/chatctl.$$shell || exit 1; done

install: ## into PREFIX (/usr/local), below DESTDIR: commands, a virtual environment, units for systemd, examples
	DESTDIR="$(DESTDIR)" PREFIX="$(or $(PREFIX),/usr/local)" systemd/install.sh install

uninstall: ## remove what install put there; configuration and data stay
	DESTDIR="$(DESTDIR)" PREFIX="$(or $(PREFIX),/usr/local)" systemd/install.sh uninstall

deb: ## a Debian package in dist/ (needs debhelper)
	systemd/build_deb.sh dist

SYSTEMD_ROOT ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/chatd/systemd-root
systemd-test: $(READY) deb ## as root: that package on a machine with a real systemd (debootstrap, systemd-container); kept in SYSTEMD_ROOT
	SYSTEMD_ROOT=$(SYSTEMD_ROOT) CHATD_DEB="$$(ls -t dist/*.deb | head -1)" $(BIN)/python -m pytest -s tests/systemd/booted.py tests/systemd/booted_cluster.py

PROMTOOL := $(BIN)/promtool
$(PROMTOOL): | $(READY) # of Debian's package, without its service
	@command -v promtool >/dev/null && ln -sf "$$(command -v promtool)" $@ || { folder=$$(mktemp -d); \
	(cd "$$folder" && apt-get download -q prometheus >/dev/null && dpkg-deb --fsys-tarfile prometheus_*.deb | tar -xf - ./usr/bin/promtool) && \
	mv "$$folder/usr/bin/promtool" $@; rm -rf "$$folder"; test -x $@; }

alerts-test: $(PROMTOOL) services ## the alert rules and the dashboard: promtool's checks and tests, and that each metric is exported
	$(BIN)/python -m pytest -q tests/operate/test_alerts.py

DOCKER_FOLDER ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/chatd/docker
compose-test: $(READY) ## as root: build the image and bring compose.yaml up on a Docker of its own (docker.io, docker-compose), kept in DOCKER_FOLDER
	SYSTEMD_ROOT=$(SYSTEMD_ROOT) DOCKER_FOLDER=$(DOCKER_FOLDER) $(BIN)/python -m pytest -s tests/compose/composed.py

clean: ## remove what was built; data folders stay
	rm -rf $(VENV) .native build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache tests/js/node_modules
