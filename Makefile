# make run    serve metrics of config.example.yaml on :10435; installs missing packages
# make test   run every test; installs missing packages
# make deb    build dist/bpf-exporter_VERSION_ARCH.deb, for Debian 12 and 13
# make help   the rest

SHELL := /bin/bash
VENV := .venv
PYTHON := $(VENV)/bin/python
CONFIG ?= config.example.yaml
LISTEN ?= :10435
CACHE ?= /var/cache/bpf-exporter
# Two processes, as tests/lanes.py divides the tests; with LANES= one process runs all of them, one after the other.
LANES ?= -n 2 --dist each

RUN_PACKAGES := python3-bpfcc python3-venv libbpf1
TEST_PACKAGES := $(RUN_PACKAGES) bpftool iproute2 procps curl nftables gcc libc6-dev systemtap-sdt-dev prometheus \
	qemu-system-x86 busybox-static cpio kmod e2fsprogs xfsprogs xz-utils zstd lz4 debootstrap systemd-container chromium openssl \
	podman runc
MATRIX_PACKAGES := $(TEST_PACKAGES) qemu-system-arm

.PHONY: help run test lint format unit kernel matrix e2e bench soak packages-run packages-test packages-matrix mounts deb clean

help:
	@grep -hE '^# make |^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^# //; s/:.*## /	/'

packages-run:
	@deploy/install-packages $(RUN_PACKAGES)

packages-test:
	@deploy/install-packages $(TEST_PACKAGES)

packages-matrix:
	@deploy/install-packages $(MATRIX_PACKAGES)

# Debian's python3 and its bcc: a venv of another Python does not see python3-bpfcc.
$(VENV)/run.stamp: pyproject.toml constraints.txt | packages-run
	@echo "installing Python packages into $(VENV)"
	@[ -x $(PYTHON) ] || /usr/bin/python3 -m venv --system-site-packages $(VENV)
	@$(PYTHON) -m pip install -q --disable-pip-version-check --no-input -c constraints.txt -e .
	@touch $@

$(VENV)/test.stamp: pyproject.toml constraints.txt $(VENV)/run.stamp | packages-test
	@echo "installing Python packages for tests into $(VENV)"
	@$(PYTHON) -m pip install -q --disable-pip-version-check --no-input -c constraints.txt -e '.[test]'
	@touch $@

# systemd mounts both; a container or a small virtual machine may not have them.
mounts:
	@mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing
	@mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf

run: packages-run $(VENV)/run.stamp  ## serve metrics of $(CONFIG) on $(LISTEN)
	@exec $(VENV)/bin/bpf-exporter run --config.file $(CONFIG) --web.listen-address $(LISTEN) \
		--cache.dir $(CACHE) --config.trust-owner "$$(stat -c %u .)"

test: packages-test $(VENV)/test.stamp lint mounts  ## everything: lint, types, unit, golden, kernel, matrix, end to end
	$(PYTHON) -m pytest -q $(LANES) $(PYTEST_ARGS)

lint: $(VENV)/test.stamp  ## ruff and mypy --strict
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/test.stamp  ## format the code
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

unit: $(VENV)/test.stamp  ## tests that need no root
	$(PYTHON) -m pytest -q tests/unit tests/golden $(PYTEST_ARGS)

kernel: $(VENV)/test.stamp mounts  ## tests on the running kernel
	$(PYTHON) -m pytest -q tests/kernel $(PYTEST_ARGS)

matrix: packages-matrix $(VENV)/test.stamp mounts  ## every program on 5.10, 6.1, 6.12, 7.2, arm64 6.1 and 6.12, and here
	BPF_EXPORTER_MATRIX=whole $(PYTHON) -m pytest -q -s tests/matrix $(PYTEST_ARGS)

e2e: $(VENV)/test.stamp mounts  ## Prometheus, systemd, browser
	$(PYTHON) -m pytest -q tests/e2e $(PYTEST_ARGS)

bench: $(VENV)/test.stamp mounts  ## measure, and write docs/performance.md; make bench PEER=DIR adds ebpf_exporter
	$(PYTHON) -m benchmarks.report $(if $(PEER),--peer $(PEER)) $(BENCH_ARGS)

soak: $(VENV)/test.stamp mounts  ## long tests, with a table of results: ten minutes of load, hostile hosts, many kills
	$(PYTHON) -m benchmarks.soak $(SOAK_ARGS)

deb: $(VENV)/run.stamp  ## build dist/bpf-exporter_VERSION_ARCH.deb; ARCH=arm64 on any machine
	@deploy/build-deb $(PYTHON)

clean:  ## remove what make made in this directory
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
