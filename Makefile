# dealseal. "make help" lists the targets.
SHELL := /bin/sh
export GOTOOLCHAIN ?= local
export CGO_ENABLED := 1

BUILD    := build
RENDERER := $(BUILD)/typst.wasm
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -X main.version=$(VERSION)
ARGS     ?=
KILLS    ?= 200
BENCH    ?=

# Packages whose tests run under the race detector: all that do several things at once, start no child process of our own
# and no WebAssembly. Those that take longest come first, here and below, so that no core waits for them at the end.
RACE := ./engine ./connectors/... ./config ./deal ./doctor ./secret ./signing ./signing/pades ./signing/tsa ./store/archive ./web/... ./webhooks ./notify ./mocks/crm/...

# Packages that judge how long something takes, or whether a daemon is in time: each has the machine to itself.
ALONE := ./documents/typst ./cmd/dealseal

WAZERO := github.com/tetratelabs/wazero

# SQLite, which is C translated to Go, is not watched itself: that took two thirds of the time. Its locks are the standard
# library's, which are, so that nothing of ours is missed and nothing is reported that is none.
RACEFLAGS := -race -gcflags='modernc.org/...=-race=false'

# Tests of those packages that run without it: they kill child processes, repeat one sequential thing, simulate days, or
# open a browser.
NORACE := TestAPowerCutAtAnyPoint|TestTamperingIsNoticed|TestSimulation|InABrowser|TheKeyboardAlone|WithoutTLS|TheFocusGoes|AnOpenPage|KeepsTheContract/TenThousand|TestReplyIsReadUpToItsLimit|FuzzReplies

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: deps-demo build ## A stage change in two CRMs becomes a sealed contract, before your eyes (ARGS="--once --dir DIR", "--soft-key", "--auto N")
	@go build -ldflags '$(LDFLAGS)' -o $(BUILD)/demo ./cmd/demo
	@$(BUILD)/demo --dealseal $(BUILD)/dealseal --renderer $(RENDERER) --templates templates $(ARGS)

# go vet has seen everything before, so that no test run does it again.
GOTEST := go test -vet=off -timeout 20m

# Nearly half of a first run is compiling, and up to a third of compiling what is big (SQLite, the ledger) is collecting
# garbage. The compiler may leave more of it, which takes 0.9 GB instead of 0.6 to 0.8 while SQLite is compiled. This is for
# the compiler alone: no test runs with it.
COMPILE := GOGC=400

.PHONY: test test-alone test-beside test-browser test-store
test: deps renderer ## Everything that must hold before a change lands (at most 10 minutes on 2 cores)
	$(COMPILE) go vet ./...
	$(COMPILE) go list -export -test $$(go list ./... | grep -vxF "$$(go list $(RACE))") ./engine ./web ./connectors/... >/dev/null
	@$(MAKE) --no-print-directory -j2 --output-sync=target test-alone test-beside
	$(GOTEST) $$(go list ./... | grep -vxF "$$(go list $(RACE) $(ALONE) ./store)")
	@$(MAKE) --no-print-directory -j2 --output-sync=target test-browser test-store
	$(GOTEST) $(RACEFLAGS) -skip '$(NORACE)' $(RACE)

# The compiled renderer belongs to a release of wazero, which tests other than those of commands do not know: told, those of
# the renderer compile what the others then use, which takes half a minute.
test-alone:
	$(GOTEST) -p 1 -ldflags "-X $(WAZERO)/internal/version.version=$$(go list -m -f '{{.Version}}' $(WAZERO))" $(ALONE)

# What needs nothing but a processor takes what those leave of it: simulated days, power cuts, compiling for the race detector.
test-beside:
	nice -n 19 $(GOTEST) -run '$(NORACE)' ./engine
	nice -n 19 $(GOTEST) ./store
	$(COMPILE) nice -n 19 go list -export -test $(RACEFLAGS) $(RACE) ./store >/dev/null

# A browser is waited for; the ledger's locks use what that leaves.
test-browser:
	$(GOTEST) -run '$(NORACE)' ./web ./connectors/...
test-store:
	$(GOTEST) $(RACEFLAGS) -run 'Together|AtOnce|Pulse|Tenant|Queue|Backup|Lease' ./store

.PHONY: torture
torture: deps renderer ## Kill the daemon at random moments, under load and amid deliveries, and count what is lost and doubled (KILLS=1000 SEED=7)
	@KILLS=$(KILLS) SEED=$(SEED) go test -count=1 -timeout 3h -run '^TestTorture' -v ./cmd/dealseal

.PHONY: large
large: deps renderer ## Seal, archive and attach a PDF of 18 MB and then one that is larger by MORE (480) MB, in each CRM: memory must not follow the size
	@MORE=$(or $(MORE),480) go test -count=1 -timeout 3h -run '^TestAContractIsSealedKept' -v ./cmd/dealseal

.PHONY: guard
guard: deps renderer ## Move DEALS (10000) deals in one second in each CRM: the guard holds them; released, all are sealed, within memory and the CRM's allowance
	@DEALS=$(or $(DEALS),10000) go test -count=1 -timeout 3h -run '^TestAMassUpdate' -v ./cmd/dealseal

.PHONY: sfcli
sfcli: deps ## Salesforce's own CLI, unchanged, against the mock org and over the SFDX folder of "dealseal provision" (290 MB from npm, once)
	SFCLI=1 go test -count=1 -timeout 20m -run '^TestTheSalesforceCLI' -v ./cmd/mockcrm

.PHONY: panel
panel: deps ## The Lightning component of "dealseal provision --sfdx", compiled and run by Salesforce's own tools (95 MB from npm, once)
	PANEL=1 go test -count=1 -timeout 20m -run '^TestThePanel' -v ./cmd/mockcrm

.PHONY: bench
bench: deps-bench build ## Measure: a table of figures beside their limits, and bench/out.json (BENCH=part runs one part)
	@mkdir -p $(BUILD)/bench && go build -o $(BUILD)/bench/bench ./cmd/bench
	@$(BUILD)/bench/bench --dealseal $(BUILD)/dealseal --renderer $(RENDERER) --templates templates --only "$(BENCH)"

.PHONY: bench-signing
bench-signing: deps-bench build ## Measure the signing core against the token alone: a table of figures, and bench/signing.json (BENCH=part runs one part)
	@mkdir -p $(BUILD)/bench && go build -o $(BUILD)/bench/bench ./cmd/bench
	@$(BUILD)/bench/bench --suite signing --dealseal $(BUILD)/dealseal --renderer $(RENDERER) --templates templates --only "$(BENCH)"

.PHONY: conformance
conformance: deps renderer ## Have validators of others judge our seals, and ours theirs; writes docs/CONFORMANCE.md (half an hour)
	@scripts/deps.sh conformance judges renderer
	@signing/conformance/fetch.sh $(BUILD)/conformance
	go test -count=1 -timeout 2h -tags conformance -run '^Test' -v ./signing/conformance
	@cp $(BUILD)/conformance/CONFORMANCE.md docs/CONFORMANCE.md

.PHONY: contract-fuzz
contract-fuzz: deps renderer ## Have schemathesis ask a daemon for what its OpenAPI document allows and forbids (EXAMPLES=30 SEED=1)
	@[ -x $(BUILD)/contract/venv/bin/schemathesis ] || { scripts/deps.sh contract && python3 -m venv $(BUILD)/contract/venv && \
		$(BUILD)/contract/venv/bin/pip install -q --disable-pip-version-check schemathesis==4.32.5; } || { echo "*** NOT RUN: pip could not fetch schemathesis ***" >&2; exit 1; }
	SEED=$(SEED) EXAMPLES=$(EXAMPLES) go test -count=1 -timeout 50m -tags contract -run '^TestTheAPIKeepsToItsDocument$$' -v ./cmd/dealseal

.PHONY: alerts
alerts: ## Check the alert rules of deploy/ and try each of them
	@scripts/deps.sh promtool
	cd deploy && promtool check rules alerts.yaml && promtool test rules alerts_test.yaml

SEEDS ?= 10000
SEED  ?= 1

.PHONY: sim
sim: ## The daemon in simulated time under seeded faults, crashes and operators (SEEDS=10000 SEED=1)
	go test ./engine -count=1 -timeout 0 -run '^TestSimulation$$' -args -sim.seeds=$(SEEDS) -sim.seed=$(SEED)

.PHONY: days
days: ## Three days of each connector in simulated time: ties, late rows, pushes, faults, restarts (SEEDS=10000 SEED=1)
	DAYS_SEEDS=$(SEEDS) DAYS_SEED=$(SEED) go test ./connectors/salesforce ./connectors/hubspot -count=1 -timeout 0 -run '^TestSimulationOfThreeDays$$'

.PHONY: lint
lint: ## gofmt, go vet, staticcheck
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "gofmt would change: $$unformatted"; exit 1; }
	go vet ./...
	go tool -modfile=go.tool.mod staticcheck ./...

.PHONY: wycheproof
wycheproof: ## Both signature verifiers, and what proves a webhook, against the vectors of Project Wycheproof (fetched once through the Go proxy)
	WYCHEPROOF="$$(go mod download -modfile=go.wycheproof.mod -json github.com/c2sp/wycheproof | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')" \
		go test -count=1 -tags wycheproof -run '^TestWycheproof$$' -v ./signing/verify/cms ./webhooks

.PHONY: fuzz
TIME ?= 20s
fuzz: ## Every parser of foreign bytes against damaged input (TIME=20s for each)
	scripts/fuzz.sh $(TIME)

.PHONY: build
build: deps-build renderer ## build/dealseal and its renderer
	go build -ldflags '$(LDFLAGS)' -o $(BUILD)/dealseal ./cmd/dealseal

.PHONY: deb
deb: deps-build renderer ## A Debian package with the service, build/dealseal_VERSION_ARCH.deb
	@scripts/deps.sh deb
	go build -trimpath -buildmode=pie -ldflags '-s -w $(LDFLAGS)' -o $(BUILD)/dealseal-stripped ./cmd/dealseal
	@scripts/deb.sh $(BUILD)/dealseal-stripped

.PHONY: service-test
service-test: deb ## The packaged service under systemd, in a container: start, watchdog, reload, drain, upgrade (needs root)
	@scripts/deps.sh service hsm
	go test -c -tags service -o $(BUILD)/service.test ./cmd/dealseal
	@scripts/service-test.sh $(BUILD)/dealseal_*.deb $(BUILD)/service.test

.PHONY: renderer
renderer: $(RENDERER) ## Fetch the document renderer once, by pinned hash

$(RENDERER):
	@scripts/deps.sh renderer
	@scripts/renderer.sh $(RENDERER)

.PHONY: deps deps-build deps-demo deps-bench
deps:
	@RENDERER=$(RENDERER) scripts/deps.sh
deps-build:
	@scripts/deps.sh build
deps-bench:
	@scripts/deps.sh hsm
deps-demo:
	@case "$(ARGS)" in *--soft-key*) ;; *) scripts/deps.sh hsm ;; esac

.PHONY: clean
clean: ## Remove what was built
	rm -rf $(BUILD)
