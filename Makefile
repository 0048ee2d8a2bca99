.PHONY: demo test check bench fix setup lock clean
PYTHON := $(shell for p in python3.13 python3.14 python3.12 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin

BRIDGE := gateway/policy/engines/opa_bridge

setup: .venv/stamp $(BRIDGE)/libopa_bridge.so

$(BRIDGE)/libopa_bridge.so: .venv/stamp $(wildcard $(BRIDGE)/*.go $(BRIDGE)/go.* $(BRIDGE)/build.py)
	@echo "Building the OPA library"
	@$(BIN)/python $(BRIDGE)/build.py
	@touch $@

.venv/stamp: requirements-dev.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.12 or newer is needed (3.13 is best)."; exit 1; }
	@echo "Setting up .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup ## The real gateway, walked through with a real client
	@$(BIN)/gateway demo

test: setup ## Every test; installs what it needs when it may
	@sh tests/tools.sh
	@$(BIN)/python -m pytest -n auto --dist loadgroup $(ARGS)

check: setup ## Format, lint, types, layers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

fix: setup ## Format and repair what a tool can repair
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: setup ## Side-by-side measurements; ONLY=edge (or another) runs one group
	@sh tests/tools.sh bench
	@$(BIN)/python -m bench $(if $(ONLY),--only $(ONLY))

lock: ## Pin every dependency anew, with hashes
	uv pip compile -q --python 3.13 --upgrade --generate-hashes --no-emit-index-url --no-header pyproject.toml --group data -o requirements.lock
	uv pip compile -q --python 3.13 --upgrade --generate-hashes --no-emit-index-url --no-header pyproject.toml --group data --group dev -o requirements-dev.lock

clean:
	rm -rf .venv .tools build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
