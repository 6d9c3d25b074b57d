# What can be done here; `make` alone prints the list.
# Needed: Rust by rustup (the version is pinned in rust-toolchain.toml), Go 1.26 for the control plane, a C compiler and
# openssl; for the conformance tests also a JDK (17 or later), Maven and libfaketime, which the chaos tests need, too.

CARGO ?= cargo
KUBERNETES ?= 1.37.2
OLDEST_KUBERNETES ?= 1.30.14

# Binaries for the API-server tests: those of KUBEBUILDER_ASSETS if it is set, else built once and kept.
controlplane_of = $(if $(KUBEBUILDER_ASSETS),@echo "control plane: $(KUBEBUILDER_ASSETS)",tests/controlplane/build.sh $(1))

.DEFAULT_GOAL := help
.PHONY: help
help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Show two leaders at once, and the guard that stops it; no cluster needed, 20 seconds
	$(CARGO) run --locked --release -- demo

.PHONY: test
test: controlplane ## Run every test: library, sockets, commands, a real API server; builds what it needs
	LEASEHOLD_TEST_KUBERNETES=$(KUBERNETES) $(CARGO) test --locked --no-fail-fast

.PHONY: test-oldest
test-oldest: ## Run the API-server tests on the oldest Kubernetes that is supported
	tests/controlplane/build.sh $(OLDEST_KUBERNETES)
	env -u KUBEBUILDER_ASSETS LEASEHOLD_TEST_KUBERNETES=$(OLDEST_KUBERNETES) $(CARGO) test --locked --test apiserver

.PHONY: conformance
conformance: controlplane ## Run real electors of many kinds, guarded and not (needs Go, Java, Maven, faketime); prints a table
	LEASEHOLD_TEST_KUBERNETES=$(KUBERNETES) $(CARGO) test --locked --test conformance

.PHONY: chaos
chaos: controlplane ## Kill, flood, stop and overload it, rotate certificates 1,000 times (needs root, faketime); prints tables
	LEASEHOLD_TEST_KUBERNETES=$(KUBERNETES) $(CARGO) test --locked --profile chaos --test chaos
	LEASEHOLD_TEST_KUBERNETES=$(KUBERNETES) LEASEHOLD_TEST_ROTATIONS=1000 $(CARGO) test --locked --profile chaos --test apiserver -- certificates::rotations

.PHONY: controlplane
controlplane: ## Build etcd, kube-apiserver, kubectl and real electors from Go modules; kept between runs
	$(call controlplane_of,$(KUBERNETES))

.PHONY: image
image: ## Build the static binary for release and its image, and check both (the image: needs root and buildah)
	tests/image/check.sh

.PHONY: bench
bench: controlplane ## Measure what design and README promise, side by side in one run; the API server's part on the oldest, too
	LEASEHOLD_TEST_KUBERNETES=$(KUBERNETES) $(CARGO) bench --locked --bench speed
	tests/controlplane/build.sh $(OLDEST_KUBERNETES)
	env -u KUBEBUILDER_ASSETS LEASEHOLD_TEST_KUBERNETES=$(OLDEST_KUBERNETES) $(CARGO) bench --locked --bench speed -- apiserver

.PHONY: lint
lint: format clippy doc deny scripts ## Check everything that needs no run: the five below

.PHONY: format
format: ## Check the format (cargo fmt repairs it)
	$(CARGO) fmt --check

.PHONY: clippy
clippy: ## Check with clippy; warnings are errors
	$(CARGO) clippy --locked --all-targets -- --deny warnings
	$(CARGO) clippy --locked --test conformance --test chaos -- --deny warnings

.PHONY: doc
doc: ## Check the documentation; warnings are errors
	RUSTDOCFLAGS='--deny warnings' $(CARGO) doc --locked --no-deps --document-private-items

.PHONY: deny
deny: ## Check licences, banned crates and sources of dependencies (cargo install cargo-deny --locked)
	$(CARGO) deny --locked check licenses bans sources

SCRIPTS = .ci/run .ci/static-binary certs/make-certs.sh tests/controlplane/build.sh tests/helm/build.sh tests/image/check.sh \
  tests/opentofu/build.sh tests/promtool/build.sh

.PHONY: scripts
scripts: ## Check the shell scripts, with shellcheck where it is installed
	@for script in $(SCRIPTS); do bash -n $$script || exit 1; done
	@if command -v shellcheck >/dev/null; then shellcheck --severity=warning $(SCRIPTS); \
	else echo "shellcheck is not installed: checked the syntax of $(SCRIPTS) only"; fi
