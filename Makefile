# Needs Go, git, make and Python 3. What else a build needs is fetched into .cache, which may be
# deleted at any time. "make help" lists the targets.

PYTHON ?= python3
GO ?= go
FUZZTIME ?= 10s
PACKAGES ?= ./...

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || cat VERSION 2>/dev/null || echo devel)
LDFLAGS := -s -w -X main.version=$(VERSION)
# grpcnotrace leaves out a page of gRPC's that nobody serves, and a quarter of zarpa-score with it.
GOBUILD := $(GO) build -tags grpcnotrace -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'

# make sets CC to cc where nobody set it: tools/cc.py looks for itself.
ifeq ($(origin CC),default)
undefine CC
endif
# FIND_CC puts a C compiler into the environment of the rest of its line.
FIND_CC = CC="$$($(PYTHON) tools/cc.py)" && export CC CGO_ENABLED=1 &&

onnxruntime = $(shell sed -n 's/.* onnxruntime-\([0-9.]*\)-.*_x86_64\.whl/\1/p' tools/wheels.sha256)
LIBRARY := bin/libonnxruntime.so.$(onnxruntime)
LINTER = .cache/bin/golangci-lint

.DEFAULT_GOAL := build
.PHONY: build demo test lint fmt generate check-generated fuzz bench cross release clean help

build: $(LIBRARY) ## bin/zarpa, bin/zarpa-score for images, and the native library
	@$(FIND_CC) $(GOBUILD) -o bin/ ./cmd/zarpa ./cmd/zarpa-score

$(LIBRARY): tools/wheels.sha256
	@$(PYTHON) tools/onnxruntime.py bin
	@touch $@

demo: ## two real models from file to answer, in a minute
	+@MAKE='$(MAKE)' $(PYTHON) tools/demo.py

test: $(LIBRARY) ## all tests that need no root and no engine from outside
	@$(FIND_CC) ZARPA_ONNXRUNTIME='$(CURDIR)/$(LIBRARY)' $(GO) test -race -shuffle=on -timeout 9m $(PACKAGES)

lint: $(LINTER) ## the rules of .golangci.yml
	@$(FIND_CC) $(LINTER) run ./...

fmt: $(LINTER) ## format the code
	@$(LINTER) fmt ./...

$(LINTER): tools/lint/go.mod tools/lint/go.sum
	@echo "building the linter" >&2
	@CGO_ENABLED=0 $(GO) -C tools/lint build -buildvcs=false -o '$(CURDIR)/$@' github.com/golangci/golangci-lint/v2/cmd/golangci-lint

generate: ## write generated code anew
	@$(GO) generate ./...

check-generated: ## generated code is what its sources make
	@GO='$(GO)' sh tools/check-generated.sh

fuzz: $(LIBRARY) ## every fuzz target for FUZZTIME (10s)
	@$(FIND_CC) GO='$(GO)' sh tools/fuzz.sh '$(FUZZTIME)'

bench: build ## the figures of bench/RESULTS.md, on this machine
	@$(FIND_CC) $(GO) run ./bench

cross: ## everything compiles without cgo; the engine then says what it lacks
	@set -e; for target in linux/amd64 linux/arm64 darwin/arm64; do echo "$$target, no cgo"; \
		CGO_ENABLED=0 GOOS=$${target%/*} GOARCH=$${target#*/} $(GO) vet ./...; done
	@CGO_ENABLED=0 $(GO) test -count=1 ./engine/onnx

release: ## dist/: archives for linux amd64 and arm64, on glibc 2.28 and later
	@GO='$(GO)' PYTHON='$(PYTHON)' sh tools/release.sh '$(VERSION)'

clean: ## remove what was built; .cache keeps what was fetched
	@rm -rf bin dist .cache/bin .cache/demo

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 18
