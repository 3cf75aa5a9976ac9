# Every target works on a fresh clone: what it needs is made first.
PYTHON ?= python3
BIN := .venv/bin
# The Docker Engines that the tests run on, of Debian: bookworm has 20.10, trixie 26.1, forky 28.5;
# forky-containerd is that one with the image store and the oldest API of Engine 29.
ENGINE ?= bookworm
COPY_TESTS := $(patsubst %,tests/integration/test_%.py,copy* swap* recovery* engine_dies compose upgrade deploy pins plan proof pulls platforms registries ecr cleanup readme socket_proxy)
export PYTHONPATH := docker
export LOOKOUT_TEST_SUITE = $(ENGINE)

.DEFAULT_GOAL := help
.PHONY: help demo run send image wheels pins footprint test compat crash fuzz lint unit integration format clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

.venv/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Lookout needs Python 3.11 or later; set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: .venv/.ready ## watch deploys, a rollback and two images side by side; nothing to configure
	@$(BIN)/python -m demo

run: .venv/.ready ## start Lookout with the settings in ./.env
	@$(BIN)/lookout

send: .venv/.ready ## put a message on that queue: make send IMAGE=ghcr.io/acme/api TAG=42
	@$(BIN)/lookout deploy --no-wait "$(IMAGE):$(TAG)"

image: IMAGE ?= lookout
image: DOCKER ?= docker
image: ## build Lookout's image, with the tag IMAGE=lookout; BUILD_FLAGS are docker build's
	$(DOCKER) build --file docker/Dockerfile --tag $(IMAGE) $(BUILD_FLAGS) .

# For this machine's architecture, and the Python of the Dockerfile's base image.
wheels: ## download what the image is made of, so that `make image` needs no package index
	rm -rf wheels
	machine=$$(uname -m | sed 's/^arm64$$/aarch64/'); \
	for pins in requirements build; do \
	  $(PYTHON) -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary=:all: \
	    --python-version 3.13 --implementation cp --abi cp313 --abi abi3 --abi none --platform any \
	    --platform manylinux2014_$$machine --platform manylinux_2_28_$$machine \
	    --requirement docker/image/$$pins.txt --dest wheels || exit 1; \
	done

# uv, since it knows the hashes of all platforms' wheels at once.
PIN := .cache/uv/bin/uv pip compile --quiet --upgrade --python-platform linux --python-version 3.13 \
  --generate-hashes --no-header --no-annotate --no-emit-index-url
pins: ## choose the newest versions that the image may be made of, and write their hashes down
	$(PYTHON) -m venv .cache/uv
	.cache/uv/bin/pip install --quiet --disable-pip-version-check 'uv>=0.9'
	$(PIN) --extra cli --output-file docker/image/requirements.txt pyproject.toml
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
	  | $(PIN) --output-file docker/image/build.txt -

footprint: .venv/.ready ## what the image takes: size, memory and CPU when idle, beside a bare poll
	@$(BIN)/python -m footprint

# More workers than processors, since many of these tests mostly wait. `lint` is one of them. Beside all
# this the image is made that some of them run; it needs nothing of the virtual environment.
test: ## all that must pass: format, types, unit, integration
	@$(PYTHON) -m testbed & $(MAKE) --no-print-directory .venv/.ready && $(BIN)/pytest -n 8 --dist worksteal

compat: ENGINE = trixie forky forky-containerd
compat: export LOOKOUT_TEST_COMPAT = 1
compat: export LOOKOUT_TEST_EXAMPLES ?= 300
compat: .venv/.ready ## the tests of the copy on newer engines, with those too long for `make test`
	$(BIN)/pytest -n 4 $(wildcard $(COPY_TESTS))

crash: export LOOKOUT_TEST_CRASH ?= all
crash: .venv/.ready ## Lookout or the engine dies at each single call of a deploy; takes long
	$(BIN)/pytest -n 4 $(wildcard tests/integration/test_crash*.py) tests/integration/test_queue_chaos.py

fuzz: export LOOKOUT_TEST_FUZZ ?= 100000
fuzz: .venv/.ready ## 100,000 message bodies that nobody should send; `make test` draws 2,000
	$(BIN)/pytest -n 4 tests/unit/test_request.py tests/unit/test_receiver.py

lint: .venv/.ready ## ruff, mypy --strict, and what GitHub's workflows may be
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/zizmor --offline --quiet --pedantic --strict-collection .github

unit: .venv/.ready ## only the tests that need neither engine nor queue
	$(BIN)/pytest tests/unit

integration: .venv/.ready ## only the tests on a real engine, registry and SQS server
	$(BIN)/pytest -n 6 tests/integration

format: .venv/.ready ## let ruff format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove the virtual environment and every cache
	rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
