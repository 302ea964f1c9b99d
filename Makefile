# Everything a contributor needs, a page. `make help` lists the targets.
#
# The peers that tests and demo run against are built once, at these versions,
# into a per-user cache outside the tree.
PROMETHEUS_VERSION := v0.316.0
MINIO_VERSION      := v0.0.0-20260212201848-7aac2a2c5b7c
VMAGENT_VERSION    := v1.140.0
GOLANGCI_VERSION   := v2.15.0
HELM_VERSION       := v3.22.0
VALIDATE_VERSION   := v0.0.4

export FIRNLINE_PEERS ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/firnline
PROMETHEUS := $(FIRNLINE_PEERS)/prometheus-$(PROMETHEUS_VERSION)/bin
MINIO      := $(FIRNLINE_PEERS)/minio-$(MINIO_VERSION)/bin
VMAGENT    := $(FIRNLINE_PEERS)/vmagent-$(VMAGENT_VERSION)/bin
HELM       := $(FIRNLINE_PEERS)/helm-$(HELM_VERSION)/bin/helm
VALIDATE   := $(FIRNLINE_PEERS)/kubectl-validate-$(VALIDATE_VERSION)/bin/kubectl-validate
LINT       := .bin/golangci-lint-$(GOLANGCI_VERSION)

# The GCS client drops its gRPC add-ons under this tag: 20 MB less.
TAGS    := disable_grpc_modules
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
PKG     := github.com/prometheus/common/version
REVISION := $(shell git rev-parse HEAD 2>/dev/null)
BRANCH  := $(shell git rev-parse --abbrev-ref HEAD 2>/dev/null)
LDFLAGS = -s -w -X $(PKG).Version=$(VERSION) -X $(PKG).Revision=$(REVISION) $(BRANCH:%=-X $(PKG).Branch=%)
COMMITTED := $(shell git log -1 --format=%cI 2>/dev/null || echo 1970-01-01T00:00:00Z)
GO_TEST := go test -tags $(TAGS)
MODULE  := github.com/firnline/firnline

# One way to build for binary, tests, linter and peers, so that a clean clone compiles a
# package once, and once more for the race detector, which wants C.
export CGO_ENABLED := 0
export GOFLAGS := $(shell go env GOFLAGS) -trimpath

.PHONY: check-deploy help deps tools build release test unit unit-single unit-scripts unit-race unit-deploy e2e lint proto bench fuzz soak run demo clean
help: ## This list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

deps: tools $(PROMETHEUS)/prometheus $(PROMETHEUS)/promtool $(MINIO)/minio $(VMAGENT)/vmagent ## The peers that tests and demo need: Prometheus, promtool, MinIO, vmagent
	go mod download

tools: $(LINT) ## The linter, into .bin

# One at a time: a link of these takes more than a gigabyte of memory.
.NOTPARALLEL:
$(PROMETHEUS)/%:
	GOBIN=$(PROMETHEUS) go install -tags remove_all_sd -ldflags "-X $(PKG).Version=$(PROMETHEUS_VERSION:v0.3%=3.%)" github.com/prometheus/prometheus/cmd/$*@$(PROMETHEUS_VERSION)
$(MINIO)/minio:
	GOBIN=$(MINIO) go install github.com/minio/minio@$(MINIO_VERSION)
$(VMAGENT)/vmagent:
	GOBIN=$(VMAGENT) go install github.com/VictoriaMetrics/VictoriaMetrics/app/vmagent@$(VMAGENT_VERSION)
$(LINT):
	GOBIN=$(CURDIR)/.bin go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	mv .bin/golangci-lint $@

$(HELM):
	GOBIN=$(@D) go install helm.sh/helm/v3/cmd/helm@$(HELM_VERSION)
$(VALIDATE):
	GOBIN=$(@D) go install sigs.k8s.io/kubectl-validate@$(VALIDATE_VERSION)

build: ## bin/firnline
	go build -tags $(TAGS) -ldflags "$(LDFLAGS)" -o bin/firnline ./cmd/firnline

# Archives are the same bytes for the same commit: no names, times or orders of this machine, and no branch.
PLATFORMS := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64
release: BRANCH :=
release: ## Static binaries for PLATFORMS below dist/, each with an SBOM, and their checksums
	rm -rf dist && mkdir -p dist
	for p in $(PLATFORMS); do \
		os=$${p%/*} arch=$${p#*/} name=firnline-$(VERSION).$$os-$$arch; \
		exe=firnline$$(test $$os != windows || echo .exe); mkdir dist/$$name; \
		GOOS=$$os GOARCH=$$arch go build -tags $(TAGS) -ldflags "$(LDFLAGS)" -o dist/$$name/$$exe ./cmd/firnline || exit 1; \
		go run ./deploy/release dist/$$name/$$exe $(VERSION) "$(COMMITTED)" > dist/$$name.spdx.json || exit 1; \
		cp LICENSE README.md CHANGELOG.md dist/$$name; \
		tar -C dist --sort=name --owner=0 --group=0 --numeric-owner --mtime="$(COMMITTED)" -cf - $$name | gzip -n9 > dist/$$name.tar.gz || exit 1; \
		rm -r dist/$$name; \
	done
	cd dist && sha256sum * > SHA256SUMS

# A failure hides no other: what comes behind it runs all the same.
test: ## Unit and integration tests under the race detector, then the short end-to-end run
	$(MAKE) --keep-going unit e2e

# Packages that start no goroutine. The race detector has nothing to find in their
# tests and makes them ten times as long; who calls them is tested with it.
SINGLE := pkg/block/layout pkg/content pkg/dedup pkg/downsample pkg/rawchunk \
	pkg/compact/internal/merge pkg/compact/internal/output pkg/compact/internal/plan pkg/compact/internal/policy

# The scripts of Prometheus make the same few requests over and over, which other
# tests make at once and under the race detector. One goroutine parses what is huge.
SCRIPTS := '^(TestPromQL|TestHugeExpressions)'

unit:
	$(MAKE) --keep-going unit-single unit-scripts unit-race unit-deploy

unit-single:
	$(GO_TEST) -timeout 30m $(SINGLE:%=./%)
unit-scripts:
	$(GO_TEST) -timeout 30m -run $(SCRIPTS) ./pkg/query/...
unit-race:
	CGO_ENABLED=1 $(GO_TEST) -race -timeout 30m -skip $(SCRIPTS) $(filter-out $(SINGLE:%=$(MODULE)/%),$(shell go list ./cmd/... ./pkg/...))
unit-deploy:
	$(GO_TEST) -timeout 30m ./deploy/...

# Where new seeds of random runs begin: elsewhere each time, or where it is told to.
e2e soak: export FIRNLINE_SEED := $(or $(FIRNLINE_SEED),$(shell date +%s))

e2e: build ## The built binary with real Prometheus pairs and a real MinIO
	@echo "random runs: FIRNLINE_SEED=$$FIRNLINE_SEED"
	$(GO_TEST) -timeout 30m -count=1 ./e2e/...

lint: $(LINT) ## Formatting and static checks
	$(LINT) run

CHART := deploy/helm/firnline
check-deploy: $(HELM) $(VALIDATE) ## Chart, compose file, Terraform and Ansible; builds helm, wants terraform and ansible-core
	for p in $(CHART)/presets/*.yaml; do \
		$(HELM) lint --strict $(CHART) -f $$p && mkdir -p bin/chart && \
		$(HELM) template firnline $(CHART) --kube-version 1.30 --namespace metrics -f $$p > bin/chart/$$(basename $$p) || exit 1; done
	$(VALIDATE) --version 1.30 --local-crds deploy/check/crds bin/chart
	FIRNLINE_CHART=$(CURDIR)/bin/chart $(GO_TEST) -count=1 -run TestChart ./cmd/firnline
	go run -C deploy/check . $(CURDIR)/deploy/compose/compose.yaml
	terraform -chdir=deploy/terraform init -input=false -backend=false
	terraform -chdir=deploy/terraform validate
	terraform -chdir=deploy/terraform fmt -check -diff
	cd deploy/ansible && ansible-playbook -i inventory.example.yml site.yml --syntax-check

proto: ## Generated StoreAPI code; wants protoc (Debian: protobuf-compiler, libprotobuf-dev)
	GOBIN=$(CURDIR)/.bin go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
	GOBIN=$(CURDIR)/.bin go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
	GOBIN=$(CURDIR)/.bin go install github.com/planetscale/vtprotobuf/cmd/protoc-gen-go-vtproto@v0.6.1-0.20250313105119-ba97887b0a25
	PATH=$(CURDIR)/.bin:$$PATH pkg/storeapi/storepb/generate.sh

bench: ## Benchmarks, for benchstat
	$(GO_TEST) -run '^$$' -bench . -benchmem ./pkg/...

fuzz: ## Each fuzz target for a minute
	@for p in $$(grep -rl --include='*_test.go' '^func Fuzz' pkg | xargs -n1 dirname | sort -u); do \
		for f in $$(grep -ho '^func Fuzz[A-Za-z0-9]*' $$p/*_test.go | cut -c6-); do \
			$(GO_TEST) -run '^$$' -fuzz "^$$f\$$" -fuzztime 60s -fuzzminimizetime 1s ./$$p || exit 1; done; done

SOAK ?= 1h
soak: ## Random runs against the reference model and of an ingester's log, an hour each
	@echo "random runs: FIRNLINE_SEED=$$FIRNLINE_SEED"
	FIRNLINE_SOAK=$(SOAK) $(GO_TEST) -timeout 0 -count=1 ./e2e/model
	FIRNLINE_SOAK=$(SOAK) $(GO_TEST) -timeout 0 -count=1 -run '^TestLives$$' ./pkg/ingest/internal/heads
	FIRNLINE_SOAK=$(SOAK) $(GO_TEST) -timeout 0 -count=1 -run '^TestPreparedEqualsReplayed$$' ./pkg/ingest/internal/replay

run: build ## Everything in one process on http://localhost:10902, data in ./data
	bin/firnline all $(ARGS)

demo: build deps ## All of Firnline with real Prometheus pairs and MinIO on loopback, as deploy/compose has it
	go run -tags $(TAGS) ./e2e/demo

clean: ## What builds left in the tree
	rm -rf bin .bin
