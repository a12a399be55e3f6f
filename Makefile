# aisix: two commands do everything. `make run` builds and starts the gateway, `make test` checks it.
# Both install what is missing first (Bun at the pinned version, dependencies of the frozen lock file).
BUN := .tools/bun
CONFIG ?= config.yaml
TESTS ?=
export PATH := $(CURDIR)/.tools:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup run dev build test check docs bench test-real soak clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: ## install what is missing: Bun at the pinned version, the dependencies
	@sh tools/setup.sh

run: build ## compile ./aisix and start it on config.yaml (CONFIG=FILE for another)
	./aisix --config $(CONFIG)

dev: setup ## start from source and again at each change
	$(BUN) --no-env-file --watch src/main.ts --config $(CONFIG)

build: setup ## compile the executable ./aisix
	@sh tools/build.sh

check: setup ## formatting, lint, types, generated documents
	$(BUN) x biome check --error-on-warnings .
	$(BUN) x tsc --noEmit
	$(BUN) tools/docs.ts --check

test: check build ## check, then run every test (TESTS="test/a.test.ts …" for some)
	$(BUN) test --timeout 30000 $(TESTS)

docs: setup ## generate the documents that come from schemas
	$(BUN) tools/docs.ts

bench: build ## measure the executable on this machine
	$(BUN) tools/bench.ts

test-real: build ## the guide and the official clients against a real inference engine (downloads it from npm once)
	$(BUN) tools/test-real.ts

soak: build ## the long drills: kill -9, full disks, cut streams, leases, failover
	$(BUN) tools/soak.ts

clean: ## remove what was built or installed here
	rm -rf aisix dist node_modules .tools
