# The menu: `make help` lists it. Whatever is missing on the machine is installed by name and said (tests/setup.sh).

UWSGI ?= uwsgi
PORT ?= 8080
REDIS ?=
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib

TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
ABI := $(shell sed -n 's/^const ABI: u32 = \([0-9]*\);/\1/p' build.rs)

LIBRARY := $(TARGET)/release/libwsredis.so
ARCHIVE := $(TARGET)/release/libwsredis.a
PLUGIN := uwsgi-plugin/wsredis_plugin.so
PLUGIN_SOURCES := include/wsredis.h $(wildcard $(addprefix uwsgi-plugin/,*.c *.h *.py *.sh))

# Debian's own, because Debian's uWSGI embeds it and its plugin builder is written for it.
export PYTHON ?= /usr/bin/python3
export WSREDIS_LIB = $(ARCHIVE)

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.PHONY: all lib plugin run test soak conformance bench bench-quick check lint deny check-all header install install-plugin clean help FORCE

all: lib plugin ## build libwsredis.so, libwsredis.a and the uWSGI plugin

lib: $(ARCHIVE) ## build target/release/libwsredis.so and libwsredis.a

# Cargo knows best whether there is anything to do; it leaves the files alone if not.
$(ARCHIVE): FORCE
	@tests/setup.sh build $(UWSGI)
	cargo build --release --locked

plugin: $(PLUGIN) ## build uwsgi-plugin/wsredis_plugin.so; UWSGI=/path/of/uwsgi for another binary than the one on PATH

$(PLUGIN): $(ARCHIVE) $(PLUGIN_SOURCES) uwsgi-plugin/build/for
	uwsgi-plugin/build.sh $(UWSGI)

# A plugin fits one binary: another binary, or the same one upgraded, is a reason to build anew.
uwsgi-plugin/build/for: $(ARCHIVE) FORCE
	@mkdir -p $(@D)
	@cksum "$$(readlink -f "$$(command -v $(UWSGI))")" >$@.new
	@cmp -s $@.new $@ || cp $@.new $@

# Debian's uWSGI, whose Python plugin goes with Debian's Python and with the Django of .deps.
run: UWSGI := /usr/bin/uwsgi
run: all ## serve the chat on http://127.0.0.1:8080; PORT=8081 elsewhere, REDIS=redis://127.0.0.1:6379 on Redis
	@UWSGI=$(UWSGI) PORT=$(PORT) REDIS=$(REDIS) examples/chat/run.sh

test: all ## run all tests, with everything they need: Rust, C, real uWSGI, Python, a real browser
	@tests/setup.sh test
	@WSREDIS_LIBRARY=$(LIBRARY) tests/run.sh

soak: all ## what `make test` does a few times, done for hours: reloads, upgrades, killed and frozen processes
	@tests/setup.sh test
	@tests/run.sh soak

conformance: all ## every case of Autobahn through the plugin, also byte by byte, and the other peers: a quarter of an hour
	@tests/setup.sh test
	@tests/run.sh conformance-all

bench: ## measure wsredis beside the floors and beside other servers, which it installs: most of an hour, on a quiet machine
	@tests/setup.sh build /usr/bin/uwsgi
	@tests/setup.sh redis
	@benches/run.sh build
	@benches/run.sh all

bench-quick: ## the same with the floors only: for who changes what is measured
	@tests/setup.sh build /usr/bin/uwsgi
	@tests/setup.sh redis
	@benches/run.sh build
	@benches/run.sh quick

check: lint ## what to run before every commit: format, lints, Rust and C tests
	cargo test --locked

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

deny: ## licences, sources, bans and advisories of the dependencies, by cargo-deny
	@tests/deny.sh

check-all: lint deny test ## everything that CI runs

header: ## write include/wsredis.h anew from src/ffi
	WSREDIS_UPDATE=1 cargo test --locked --test header the_header_is_what_the_source_says

install: lib ## install library, header and pkg-config file; PREFIX=/usr/local, LIBDIR=, DESTDIR=
	install -d $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(PREFIX)/include
	install -m 755 $(LIBRARY) $(DESTDIR)$(LIBDIR)/libwsredis.so.$(VERSION)
	ln -sf libwsredis.so.$(VERSION) $(DESTDIR)$(LIBDIR)/libwsredis.so.$(ABI)
	ln -sf libwsredis.so.$(ABI) $(DESTDIR)$(LIBDIR)/libwsredis.so
	install -m 644 $(ARCHIVE) $(DESTDIR)$(LIBDIR)/libwsredis.a
	install -m 644 include/wsredis.h $(DESTDIR)$(PREFIX)/include/wsredis.h
	printf '%s\n' 'prefix=$(PREFIX)' 'libdir=$(LIBDIR)' 'includedir=$${prefix}/include' '' \
		'Name: wsredis' 'Description: holds websockets and fans Redis pub/sub out to them' \
		'Version: $(VERSION)' 'Cflags: -I$${includedir}' 'Libs: -L$${libdir} -lwsredis' \
		'Libs.private: -lgcc_s -lutil -lrt -lpthread -lm -ldl' >$(DESTDIR)$(LIBDIR)/pkgconfig/wsredis.pc

install-plugin: plugin ## install the uWSGI plugin as LIBDIR/wsredis/wsredis_plugin.so
	install -d $(DESTDIR)$(LIBDIR)/wsredis
	install -m 755 $(PLUGIN) $(DESTDIR)$(LIBDIR)/wsredis/wsredis_plugin.so

clean: ## remove what was built; what was installed into .deps stays
	cargo clean
	rm -rf uwsgi-plugin/build $(PLUGIN)

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
