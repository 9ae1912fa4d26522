# stopd. `make demo` shows it, `make test` is everything that CI needs.

GO          ?= go
FUZZTIME    ?= 3s
LDFLAGS     := -s -w
# Go's means to erase what is left of keys (package runtime/secret). Without it everything works, and what is left of a
# batch's key stays in memory until that is used again.
export GOEXPERIMENT := runtimesecret
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.7.0

# Debian packages that the tests use on the machine itself. Servers that only tests need are unpacked
# into a test host's own root, never installed (internal/netlab).
PACKAGES    := iproute2 util-linux mandoc sqlite3 openssh-client unzip zip openssl age

.PHONY: build packages demo test unit integration soak lint fuzz compiler generate program generated kernels completions records recordings dictionary bench cross man needed clean

build:
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/stopd ./cmd/stopctl

# Packages of Debian and RPM, in dist/. The same commit gives the same bytes (docs/packages.md).
packages:
	GO=$(GO) deploy/packages/make amd64 arm64

demo: build needed
	@bin/stopctl demo

test: needed generated lint unit fuzz integration cross man

# needed installs what is missing, as root; otherwise it says what would be needed.
needed:
	@missing=""; for p in $(PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    { apt-get install -y --no-install-recommends $$missing || { apt-get update && apt-get install -y --no-install-recommends $$missing; }; } >/dev/null; \
	  else echo "missing packages, some tests are left out: apt-get install$$missing" >&2; fi; \
	fi

lint:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo "gofmt would change these files" >&2; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

unit:
	$(GO) test -race -timeout 60m $$($(GO) list ./... | grep -v /integration)

# As root the tests between hosts must run; a skip is a failure.
integration: build
	@if [ "$$(id -u)" = 0 ]; then \
	  GO=$(GO) .ci/integration; \
	else echo "not root: the tests between hosts are left out" >&2; fi

# The counted loops at the figure that is claimed: a hundred kills of the store's writer and twenty thousand acknowledged tokens,
# power lost at every 13th byte, every byte of a small store, its log and a bundle flipped, 1,000 traces while processes come and go and get each other's pids,
# a million requests at full speed, each process of the daemon killed and stopped at each step of a request,
# half an hour of a steady load, each client of a proxy asked about. Tests do a tenth and less.
soak: build
	STOPD_SOAK=1 $(GO) test -count=1 -timeout 60m -v -run 'TestKilled|TestPowerLoss|TestEveryByteFlipped|TestAuditEveryOctet|TestEveryOctetOfALog' ./evidence/ ./evidence/translog/ ./bundle/
	STOPD_REQUIRE_NETNS=1 STOPD_SOAK=1000 $(GO) test -count=1 -timeout 180m -run 'TestSoak|TestFlooded|TestFaults|TestSteady|TestEveryPortAsked|TestRelayOfMany|TestForwardsOfMany' -v ./integration/

# Every fuzz target for some seconds.
fuzz:
	@GO=$(GO) .ci/fuzz $(FUZZTIME)

# Other systems: vet and build what they can have.
cross:
	@for t in linux/arm64 openbsd/amd64 illumos/amd64 solaris/amd64 freebsd/amd64 darwin/arm64 windows/amd64; do \
	  echo "build for $$t"; \
	  GOOS=$${t%/*} GOARCH=$${t#*/} CGO_ENABLED=0 $(GO) vet ./... && \
	  GOOS=$${t%/*} GOARCH=$${t#*/} CGO_ENABLED=0 $(GO) build -o /dev/null ./... || exit 1; \
	done

man:
	@if command -v mandoc >/dev/null; then mandoc -Tlint -Wwarning man/*.[1-8]; else echo "no mandoc: the man pages are not checked" >&2; fi

# Generated files, besides golden files of tests (go test ./... -update).
generate: program records recordings completions

# The programs that the kernel runs (internal/linux/bpf), by the compiler that made what is committed.
GENERATED   := $(foreach p,files recorder flow,$(foreach e,el eb,internal/linux/bpf/$(p)_bpf$(e).go internal/linux/bpf/$(p)_bpf$(e).o))
COMPILER    := clang-14 llvm-14

compiler:
	@command -v clang-14 >/dev/null && command -v llvm-strip-14 >/dev/null || [ "$$(id -u)" != 0 ] || \
	  { apt-get install -y --no-install-recommends $(COMPILER) || { apt-get update && apt-get install -y --no-install-recommends $(COMPILER); }; } >/dev/null 2>&1 || true

program: compiler
	$(GO) generate ./internal/linux/bpf

# generated holds what is committed to what its sources make.
generated: compiler
	@if command -v clang-14 >/dev/null && command -v llvm-strip-14 >/dev/null; then \
	  was=$$(sha256sum $(GENERATED)); \
	  $(GO) generate ./internal/linux/bpf >/dev/null && [ "$$was" = "$$(sha256sum $(GENERATED))" ] || \
	    { echo "make program changes files that are committed" >&2; exit 1; }; \
	else echo "no clang-14: whether $(GENERATED) are what their sources make is not checked" >&2; fi

# What the programs need of Debian's kernels, for a test. As root; it downloads some 200 MB of packages.
kernels:
	internal/linux/bpf/testdata/kernels/make

# What shells complete, of the programs' flags. Their tests hold it.
completions:
	$(GO) test -count=1 ./cmd/stopd ./cmd/stopctl -run '^TestCompletions$$' -update

# Records as other systems' kernels write them, from C structures.
records:
	@for d in illumos freebsd; do (cd internal/$$d/testdata && $(CC) -Wall -Wextra -o records records.c && ./records && rm records) || exit 1; done

# Recordings of busy hosts, made as root. They download some 200 MB of packages and differ each time, so what comes of
# them is read before it is committed.
recordings:
	$(GO) test -count=1 -timeout 30m ./integration/ -run TestRecord -record

# The dictionary that reports are compressed with. Another one is another version of the store (docs/store.md).
dictionary:
	cat evidence/samples/*.json >evidence/dictionary.bin

bench: build
	$(GO) run ./bench

clean:
	rm -rf bin dist
