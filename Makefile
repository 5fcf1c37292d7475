# Sluice: every target does its own set-up; `make demo` is the place to begin.
SHELL := /bin/bash
.DEFAULT_GOAL := help
NODE_STAMP := node_modules/.package-lock.json
SOURCES := $(shell find proxy classifier checkpoint-hooks bench -name '*.ts' 2>/dev/null)
PAGE := checkpoint-hooks/page
# Of fastify, but never loaded here: its own compilers of schemas, and what asks it without a socket.
UNUSED := @fastify/ajv-compiler @fastify/fast-json-stringify-compiler light-my-request
DOORS := $(patsubst %.ts,dist/%.js,$(wildcard proxy/doors/*.ts))

.PHONY: help setup build check unit test explore fuzz deb test-deb test-image test-callers audit pictures demo demo-hosts test-hosts demo-vm test-vm bench bench-quick longrun object clean

help: ## what there is
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(NODE_STAMP): package.json package-lock.json
	@deploy/setup.sh build
	npm ci --no-audit --no-fund
	@touch $@

dist/.built: $(SOURCES) $(wildcard checkpoint-hooks/page/*.html checkpoint-hooks/page/*.css checkpoint-hooks/page/*.svg) $(NODE_STAMP) tsconfig.json tsconfig.build.json
	node_modules/.bin/tsc -p tsconfig.build.json
	node_modules/.bin/tsc -p $(PAGE)/tsconfig.json
	node_modules/.bin/esbuild $(DOORS) --bundle --platform=node --format=esm --target=node20 --log-level=warning --allow-overwrite --outbase=dist --outdir=dist \
	  $(addprefix --external:,$(UNUSED)) --banner:js='import { createRequire } from "node:module"; const require = createRequire(import.meta.url);'
	cp $(PAGE)/*.html $(PAGE)/*.css $(PAGE)/*.svg node_modules/uplot/dist/uPlot.iife.min.js node_modules/uplot/dist/uPlot.min.css dist/$(PAGE)/
	@touch $@

setup: $(NODE_STAMP) ## packages of the system (as root) and of npm
	@deploy/setup.sh run

build: dist/.built ## bin/sluiced and bin/sluice run from here afterwards

check: dist/.built ## types, lint, unit tests: needs no root
	node_modules/.bin/tsc -p tsconfig.json --noEmit
	node_modules/.bin/tsc -p $(PAGE)/tsconfig.json --noEmit
	node_modules/.bin/eslint .
	node_modules/.bin/vitest run --project unit

test: setup dist/.built ## everything; as root also namespaces, kernel programs, real traffic
	@deploy/setup.sh test
	@deploy/setup.sh vm
	node_modules/.bin/tsc -p tsconfig.json --noEmit
	node_modules/.bin/eslint .
	node_modules/.bin/vitest run --project unit --project host --project alone

fuzz: setup dist/.built ## the API: 50,000 requests from its schema and a flood of 100,000; SEED=n runs one again
	SLUICE_FUZZ=50000 SLUICE_FLOOD=100000 SLUICE_SEED=$(SEED) node_modules/.bin/vitest run --project host test/host/fuzz-api.test.ts test/host/attacks-api.test.ts

deb: dist/.built ## out/sluice_*.deb, looked at by lintian
	@deploy/setup.sh deb
	@deploy/deb.sh
	lintian --fail-on error --suppress-tags script-not-executable out/sluice_*.deb

test-deb: deb ## the package on a clean Debian root: installed, run as its unit says, upgraded, purged without a trace
	@deploy/setup.sh testdeb
	@test/deb/run.sh

test-image: deb ## the container's image: built of the package, run by podman, a group protected through its end and another
	@deploy/setup.sh image
	@test/image/run.sh

test-callers: setup dist/.built ## a real libvirtd and its hook; bridges of ifupdown, networkd and NetworkManager themselves; the alert rules by promtool
	@deploy/setup.sh callers
	node_modules/.bin/vitest run --project callers

audit: $(NODE_STAMP) ## known faults of the npm packages; fails too, and says so, where the registry did not look
	@deploy/audit.sh

demo: setup dist/.built ## two members, an outsider, real traffic; writes out/demo.json
	@node dist/bench/demo.js

demo-hosts: setup dist/.built ## one group on three hosts with an etcd: leader killed, host cut off, host killed; writes out/demo-hosts.json
	@deploy/setup.sh hosts
	@node dist/bench/demo-hosts.js

test-hosts: setup dist/.built ## chaos on three hosts, 112 runs, some 12 minutes; SERIES="7 1-20" is a part, SERIES=split the attempts to split a group; writes out/test-hosts.json
	@deploy/setup.sh hosts
	@node dist/bench/test-hosts.js $(SERIES)

pictures: setup dist/.built ## the dashboard on one host and on three, at work and in trouble, light and dark, desktop and phone; out/pictures
	@deploy/setup.sh test
	@deploy/setup.sh hosts
	@node dist/bench/pictures.js $(SCENES)

demo-vm: setup dist/.built ## two real VMs die and go on, a client counts through it; writes out/demo-vm.json
	@deploy/setup.sh vm
	@node dist/bench/demo-vm.js

test-vm: setup dist/.built ## the long series on real VMs: failovers, negative controls, speed inside
	@deploy/setup.sh vm
	@node dist/bench/test-vm.js $(SERIES)

bench: setup dist/.built ## everything beside its peers, most of an hour on two cores; out/bench.json, out/bench.html
	@deploy/setup.sh bench
	@node dist/bench/bench.js $(BENCH)

bench-quick: setup dist/.built ## the figures with floors, under 3 minutes
	@deploy/setup.sh bench
	@node dist/bench/bench.js --quick $(BENCH)

explore: dist/.built ## one host's control, 2,000,000 random steps; the protocol between hosts, every state to a bound and 1,000,000 steps beyond; up to an hour, no root
	SLUICE_STEPS=2000000 node_modules/.bin/vitest run --project unit test/unit/simulation.test.ts
	SLUICE_STATES=1000000 SLUICE_STEPS=1000000 node_modules/.bin/vitest run --project unit test/unit/hosts-explore.test.ts

longrun: setup dist/.built ## 10 minutes of mixed traffic at 100 epochs a second
	@node dist/bench/longrun.js

object: ## rebuild classifier/classify.bpf.o (clang and libbpf-dev needed; users need neither)
	classifier/build.sh

clean: ## what was built, not what was installed
	rm -rf dist out coverage
