# SPDX-License-Identifier: Apache-2.0
# signalbox: `make help` lists what can be made. Two commands do everything: `make demo`, `make test`.

VERSION     := 0.1.0
PREFIX      ?= /usr/local
DESTDIR     ?=
SANITIZER   ?=
JOBS        := $(shell nproc)

# ---- build directory: one for each kind of build, so that they do not undo each other ----
KIND := $(if $(SANITIZER),$(SANITIZER),plain)
B    := build/$(KIND)

CC       ?= gcc
PKGS     := libcurl msgpack jansson liburing libcrypto sqlite3 libmicrohttpd
CPPFLAGS += -D_GNU_SOURCE -Iinclude -I. -DSBX_VERSION='"$(VERSION)"'
WARN     := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wconversion -Wno-sign-conversion \
            $(if $(CI),-Werror)
HARDEN   := -fstack-protector-strong -fstack-clash-protection -fcf-protection -ftrivial-auto-var-init=zero
CFLAGS   += -std=c11 -g -fPIC $(WARN)
LDFLAGS  += -Wl,-z,relro,-z,now -Wl,--as-needed
ifeq ($(SANITIZER),)
CFLAGS   += -O2 $(HARDEN) -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=$(if $(filter clang%,$(CC)),2,3)
endif
ifeq ($(SANITIZER),address)
CFLAGS   += -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
LDFLAGS  += -fsanitize=address,undefined
endif
ifeq ($(SANITIZER),thread)
CFLAGS   += -O1 -fsanitize=thread -Wno-tsan
LDFLAGS  += -fsanitize=thread
endif

LIBS_AGENT  := -lcurl -luring -lcrypto -ljansson -lmsgpackc -lsqlite3 -lm
LIBS_CLIENT := -lmsgpackc
LIBS_DOOR   := -lmicrohttpd -lcrypto -ljansson -lmsgpackc -lm
LIBS_MOCK   := -lssl -lcrypto -lnghttp2 -ljansson -lz

# ---- what there is: a new file in a folder needs no line here ----
AGENT_SRC  := $(filter-out agent/main.c,$(wildcard agent/*.c agent/core/*.c agent/dialect/*.c agent/io/*.c))
CLIENT_SRC := $(wildcard client/*.c)
CLI_SRC    := $(wildcard tools/signalbox/*.c)
DOOR_SRC   := $(wildcard tools/door/*.c)
MOCK_SRC   := $(wildcard tools/mock/*.c)
BENCH_SRC  := $(wildcard tools/bench/*.c)
DEMO_SRC   := $(wildcard tools/demo/*.c)
UNIT_SRC   := $(wildcard tests/unit/test_*.c)
E2E_LIB    := $(filter-out $(wildcard tests/e2e/test_*.c),$(wildcard tests/e2e/*.c))
E2E_SRC    := $(wildcard tests/e2e/test_*.c)
FUZZ_SRC   := $(wildcard tests/fuzz/fuzz_*.c)
CONF_SRC   := $(wildcard tests/conformance/*.c)

obj = $(patsubst %.c,$(B)/obj/%.o,$(1))
UNIT_BIN := $(patsubst tests/unit/%.c,$(B)/tests/%,$(UNIT_SRC))
E2E_BIN  := $(patsubst tests/e2e/%.c,$(B)/e2e/%,$(E2E_SRC))
FUZZ_BIN := $(patsubst tests/fuzz/fuzz_%.c,$(B)/fuzz/%,$(FUZZ_SRC))
TOOLS    := $(B)/signalboxd $(B)/signalbox $(B)/signalbox-http $(B)/signalbox-mock

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:

all: deps $(TOOLS) $(B)/libsignalbox.a $(B)/libsignalbox.so ## build the agent, the tools and the library

help: ## this list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

# ---- dependencies: asked of pkg-config once, installed when something is missing ----
deps:
	@tools/install-deps --check || tools/install-deps

$(B)/obj/%.o: %.c | deps
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c $< -o $@

# The library goes into every process of the host: small where nothing is repeated a million times.
$(call obj,$(filter-out client/board_pick.c client/buf.c client/wire.c,$(CLIENT_SRC))): CFLAGS += $(if $(SANITIZER),,-Os)

$(B)/libagent.a: $(call obj,$(AGENT_SRC))
$(B)/obj/agent/catalog_data.o: agent/catalog.json
$(B)/libsignalbox.a: $(call obj,$(CLIENT_SRC))
$(B)/%.a:
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^

$(B)/libsignalbox.so: $(call obj,$(CLIENT_SRC)) client/libsignalbox.map
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS) -shared -Wl,-soname,libsignalbox.so.0 -Wl,--version-script=client/libsignalbox.map \
	    -Wl,--gc-sections,-z,noseparate-code $(LDFLAGS) $(call obj,$(CLIENT_SRC)) $(LIBS_CLIENT) -o $@ # two pages of padding less

link = $(call say,LD,$@); $(CC) $(CFLAGS) $(if $(SANITIZER),,-pie) $(LDFLAGS)
$(B)/signalboxd: $(call obj,agent/main.c) $(B)/libagent.a $(B)/libsignalbox.a
	$(Q)$(link) $^ $(LIBS_AGENT) -o $@
$(B)/signalbox: $(call obj,$(CLI_SRC)) $(B)/libsignalbox.a
	$(Q)$(link) $^ $(LIBS_CLIENT) -lcurl -ljansson -o $@
# Of the agent it has what every daemon needs, and nothing that knows of providers.
$(B)/signalbox-http: $(call obj,$(DOOR_SRC) agent/log.c agent/keys.c agent/sdnotify.c agent/confine.c agent/io/listen.c) $(B)/libsignalbox.a
	$(Q)$(link) $^ $(LIBS_DOOR) -o $@
$(B)/signalbox-mock: $(call obj,$(MOCK_SRC))
	$(Q)$(link) $^ $(LIBS_MOCK) -o $@
$(B)/bench: $(call obj,$(BENCH_SRC)) $(B)/libsignalbox.a
	$(Q)$(link) $^ $(LIBS_CLIENT) -lcurl -ljansson -lm -o $@
$(B)/demo-workers: $(call obj,$(DEMO_SRC)) $(B)/libsignalbox.a
	$(Q)$(link) $^ $(LIBS_CLIENT) -o $@
$(B)/conformance: $(call obj,$(CONF_SRC) $(E2E_LIB)) $(B)/libsignalbox.a
	$(Q)$(link) $^ -lcmocka $(LIBS_CLIENT) -ljansson -o $@
$(B)/tests/%: $(B)/obj/tests/unit/%.o $(B)/libagent.a $(B)/libsignalbox.a
	@mkdir -p $(@D)
	$(Q)$(link) $^ -lcmocka $(LIBS_AGENT) -o $@
$(B)/e2e/%: $(B)/obj/tests/e2e/%.o $(call obj,$(E2E_LIB)) $(B)/libsignalbox.a
	@mkdir -p $(@D)
	$(Q)$(link) $^ -lcmocka $(LIBS_CLIENT) -ljansson -lcurl -lcrypto -o $@
$(B)/long/%: $(B)/obj/tests/long/%.o $(call obj,$(E2E_LIB)) $(B)/libsignalbox.a
	@mkdir -p $(@D)
	$(Q)$(link) $^ -lcmocka $(LIBS_CLIENT) -ljansson -lcurl -lsqlite3 -o $@
$(B)/fuzz/%: $(B)/obj/tests/fuzz/fuzz_%.o $(B)/obj/tests/fuzz/replay.o $(B)/libagent.a $(B)/libsignalbox.a
	@mkdir -p $(@D)
	$(Q)$(link) $^ $(LIBS_AGENT) -o $@

# The simulation, and the same built around bugs that were put in on purpose.
SIM_OBJ := $(B)/obj/tests/sim/sim.o $(B)/obj/tests/sim/world.o
MUTANTS := 1 2 3 4 5
$(B)/obj/tests/sim/subject-%.o: tests/sim/subject.c | deps
	@mkdir -p $(@D)
	$(call say,CC,$< $*)
	$(Q)$(CC) $(CPPFLAGS) -DSBX_SIM_MUTANT=$* $(CFLAGS) -MMD -MP -c $< -o $@
$(B)/sim: $(SIM_OBJ) $(B)/obj/tests/sim/subject-0.o $(B)/libagent.a $(B)/libsignalbox.a
	$(Q)$(link) $^ $(LIBS_AGENT) -o $@
$(B)/sim-mutant-%: $(SIM_OBJ) $(B)/obj/tests/sim/subject-%.o $(B)/libagent.a $(B)/libsignalbox.a
	$(Q)$(link) $^ $(LIBS_AGENT) -o $@

# ---- tests ----
unit-programs: $(UNIT_BIN)
e2e-programs: $(TOOLS) $(E2E_BIN)
fuzz-programs: $(FUZZ_BIN)
# What runs in one kind of build; $(MAKE) comes here once for each kind.
run-unit: $(UNIT_BIN) $(B)/header_cxx.o
	@tests/run -j $(JOBS) -t 120 $(UNIT_BIN)
# Those that measure deadlines to a quarter of a second have the machine to themselves; the others share it.
E2E_ALONE := $(filter %/test_deadlines %/test_clients %/test_door_life,$(E2E_BIN))
run-e2e: $(TOOLS) $(E2E_BIN)
	@for loop in $(or $(LOOPS),uring epoll); do \
	    echo "end to end, loop $$loop$(if $(SANITIZER), (sanitized))"; \
	    export SBX_BUILD=$(CURDIR)/$(B) SIGNALBOX_LOOP=$$loop; \
	    tests/run -j $(JOBS) -t 240 $(filter-out $(E2E_ALONE),$(E2E_BIN)) && tests/run -j 1 -t 240 $(E2E_ALONE) || exit 1; \
	done
run-fuzz-replay: $(FUZZ_BIN)
	@for f in $(FUZZ_BIN); do $$f tests/fuzz/corpus/$${f##*/} || exit 1; done
$(B)/header_cxx.o: tests/unit/header_cxx.cc include/signalbox.h include/signalbox/board.h
	@mkdir -p $(@D)
	$(call say,CXX,$<)
	$(Q)if command -v g++ >/dev/null; then g++ -std=c++11 -Wall -Wextra -pedantic -Werror -Iinclude -c $< -o $@; else echo "  (no g++: the header is not tried as C++)"; fi

check: deps ## unit tests: a few seconds
	@$(MAKE) --no-print-directory run-unit

test: deps ## everything: unit and end to end, sanitized, on both loops, fuzz corpora, simulation (under 8 minutes)
	@$(MAKE) --no-print-directory -j$(JOBS) all unit-programs e2e-programs $(B)/sim
	@$(MAKE) --no-print-directory -j$(JOBS) SANITIZER=address unit-programs e2e-programs fuzz-programs
	@echo "unit tests, sanitized"; $(MAKE) --no-print-directory SANITIZER=address run-unit
	@echo "fuzz corpora, sanitized"; $(MAKE) --no-print-directory SANITIZER=address run-fuzz-replay
	@$(MAKE) --no-print-directory sim SEEDS=200
	@$(MAKE) --no-print-directory mutants
	@$(MAKE) --no-print-directory run-e2e LOOPS=uring
	@$(MAKE) --no-print-directory SANITIZER=address run-e2e
	@$(MAKE) --no-print-directory test-readme lint
	@echo "make test: all of it passed"

READS ?= 10000000
tsan: deps ## the board under ThreadSanitizer: READS=n looks of reader threads at rows that a writer thread never leaves alone
	@$(MAKE) --no-print-directory SANITIZER=thread build/thread/tests/test_board_race
	@READS=$(READS) build/thread/tests/test_board_race

SEEDS ?= 200
sim: $(B)/sim ## simulate SEEDS=n random histories, or replay one with SEED=n
	@$(B)/sim $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))
mutants: $(foreach m,$(MUTANTS),$(B)/sim-mutant-$(m)) ## does the simulation catch bugs put in on purpose?
	@tests/sim/mutants.sh 200 $^

ROUNDS ?= 10
kills: $(TOOLS) $(B)/long/kills ## ROUNDS=n of kill -9 under load: does the store keep what it acknowledged?
	@SBX_BUILD=$(CURDIR)/$(B) $(B)/long/kills $(ROUNDS)

conformance: $(TOOLS) $(B)/conformance ## RECORDINGS=DIR: recorded answers through the real agent against what was expected, and what they cost
	@[ -n "$(RECORDINGS)" ] || { echo "make conformance RECORDINGS=DIR" >&2; exit 64; }
	@SBX_BUILD=$(CURDIR)/$(B) $(B)/conformance $(RECORDINGS)

bench: $(TOOLS) $(B)/libsignalbox.so $(B)/bench ## CPU, latency and memory beside their floors; BENCH="--json" and other options
	@SBX_BUILD=$(CURDIR)/$(B) $(B)/bench $(BENCH)

FUZZ_CC   ?= clang-14
SECONDS   ?= 60
fuzz: ## SECONDS=n of each fuzz target with clang's libFuzzer
	@tools/install-deps --fuzz
	@CC=$(FUZZ_CC) tests/fuzz/fuzz $(SECONDS)

long: deps ## what takes hours elsewhere: many seeds, fuzzing, rounds of kills (about an hour)
	@$(MAKE) --no-print-directory test
	@$(MAKE) --no-print-directory test-sdk
	@$(MAKE) --no-print-directory kills ROUNDS=50
	@$(MAKE) --no-print-directory sim SEEDS=$(or $(LONG_SEEDS),100000)
	@$(MAKE) --no-print-directory fuzz SECONDS=$(or $(LONG_FUZZ),300)

lint: ## dependency direction, purity, banned functions, file lengths
	@tests/lint

test-sdk: $(TOOLS) ## OpenAI's, Vercel's and LangChain's clients and curl through the door (installed into build/sdk; needs python3, node)
	@tools/install-deps --sdk
	@SBX_BUILD=$(CURDIR)/$(B) tests/sdk/run

test-readme: $(TOOLS) $(B)/libsignalbox.a $(B)/libsignalbox.so ## the README's example compiles and runs as printed
	@tests/readme $(B)

demo: all $(B)/demo-workers ## doubles and the agent: failover, the board, cost, an agent that dies; no key, no network
	@tools/demo/demo $(B)

# ---- install: PREFIX is where it will run, DESTDIR where it is put for now ----
INSTALL ?= install
TO       = $(DESTDIR)$(PREFIX)
PAGES   := tools/signalbox/signalbox.1 tools/door/signalbox-http.1 tools/mock/signalbox-mock.1 client/libsignalbox.3 agent/signalboxd.conf.5 agent/signalboxd.8
UNITS   := agent/signalboxd.service agent/signalboxd.socket tools/door/signalbox-http.service

install: all ## PREFIX=/usr/local DESTDIR=: programs, library, headers, man pages, systemd units
	$(INSTALL) -d $(TO)/bin $(TO)/lib/pkgconfig $(TO)/lib/systemd/system $(TO)/include/signalbox $(TO)/share/doc/signalbox
	$(INSTALL) -s -m 755 $(TOOLS) $(TO)/bin
	$(INSTALL) -m 644 $(B)/libsignalbox.a $(TO)/lib
	$(INSTALL) -s -m 755 $(B)/libsignalbox.so $(TO)/lib/libsignalbox.so.$(VERSION)
	ln -sf libsignalbox.so.$(VERSION) $(TO)/lib/libsignalbox.so.0
	ln -sf libsignalbox.so.0 $(TO)/lib/libsignalbox.so
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' client/libsignalbox.pc.in >$(TO)/lib/pkgconfig/libsignalbox.pc
	$(INSTALL) -m 644 include/signalbox.h $(TO)/include
	$(INSTALL) -m 644 include/signalbox/*.h $(TO)/include/signalbox
	for p in $(PAGES); do $(INSTALL) -D -m 644 $$p $(TO)/share/man/man$${p##*.}/$${p##*/} || exit 1; done
	for u in $(UNITS); do sed 's|/usr/bin/|$(PREFIX)/bin/|' $$u >$(TO)/lib/systemd/system/$${u##*/} || exit 1; done
	$(INSTALL) -m 644 agent/config.example.json README.md LICENSE $(TO)/share/doc/signalbox
	$(if $(DESTDIR),,-ldconfig)

uninstall: ## take away what install put there
	rm -f $(patsubst $(B)/%,$(TO)/bin/%,$(TOOLS)) $(TO)/lib/libsignalbox.a $(TO)/lib/libsignalbox.so $(TO)/lib/libsignalbox.so.0 \
	    $(TO)/lib/libsignalbox.so.$(VERSION) $(TO)/lib/pkgconfig/libsignalbox.pc $(TO)/include/signalbox.h
	rm -f $(foreach p,$(PAGES),$(TO)/share/man/man$(subst .,,$(suffix $(p)))/$(notdir $(p))) \
	    $(addprefix $(TO)/lib/systemd/system/,$(notdir $(UNITS)))
	rm -rf $(TO)/include/signalbox $(TO)/share/doc/signalbox

# ---- noise: V=1 shows the commands ----
Q   := $(if $(V),,@)
say = $(if $(V),,@printf '  %-4s %s\n' '$(1)' '$(patsubst $(B)/%,%,$(2))')

-include $(shell find build -name '*.d' 2>/dev/null)

clean: ## remove what was built
	rm -rf build

.PHONY: all help deps clean check test tsan sim mutants kills conformance bench fuzz long lint test-readme test-sdk demo install uninstall \
        unit-programs e2e-programs fuzz-programs run-unit run-e2e run-fuzz-replay
