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
PKGS     := libcurl msgpack jansson liburing libcrypto
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

LIBS_AGENT  := -lcurl -luring -lcrypto -ljansson -lmsgpackc -lm
LIBS_CLIENT := -lmsgpackc
LIBS_MOCK   := -lssl -lcrypto -lnghttp2 -ljansson -lz

# ---- what there is: a new file in a folder needs no line here ----
AGENT_SRC  := $(filter-out agent/main.c,$(wildcard agent/*.c agent/core/*.c agent/dialect/*.c agent/io/*.c))
CLIENT_SRC := $(wildcard client/*.c)
CLI_SRC    := $(wildcard tools/signalbox/*.c)
MOCK_SRC   := $(wildcard tools/mock/*.c)
BENCH_SRC  := $(wildcard tools/bench/*.c)
UNIT_SRC   := $(wildcard tests/unit/test_*.c)
E2E_LIB    := $(filter-out $(wildcard tests/e2e/test_*.c),$(wildcard tests/e2e/*.c))
E2E_SRC    := $(wildcard tests/e2e/test_*.c)
FUZZ_SRC   := $(wildcard tests/fuzz/fuzz_*.c)
CONF_SRC   := $(wildcard tests/conformance/*.c)

obj = $(patsubst %.c,$(B)/obj/%.o,$(1))
UNIT_BIN := $(patsubst tests/unit/%.c,$(B)/tests/%,$(UNIT_SRC))
E2E_BIN  := $(patsubst tests/e2e/%.c,$(B)/e2e/%,$(E2E_SRC))
FUZZ_BIN := $(patsubst tests/fuzz/fuzz_%.c,$(B)/fuzz/%,$(FUZZ_SRC))
TOOLS    := $(B)/signalboxd $(B)/signalbox $(B)/signalbox-mock

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

$(B)/libagent.a: $(call obj,$(AGENT_SRC))
$(B)/libsignalbox.a: $(call obj,$(CLIENT_SRC))
$(B)/%.a:
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^

$(B)/libsignalbox.so: $(call obj,$(CLIENT_SRC)) client/libsignalbox.map
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS) -shared -Wl,-soname,libsignalbox.so.0 -Wl,--version-script=client/libsignalbox.map \
	    -Wl,--gc-sections $(LDFLAGS) $(call obj,$(CLIENT_SRC)) $(LIBS_CLIENT) -o $@

link = $(call say,LD,$@); $(CC) $(CFLAGS) $(if $(SANITIZER),,-pie) $(LDFLAGS)
$(B)/signalboxd: $(call obj,agent/main.c) $(B)/libagent.a $(B)/libsignalbox.a
	$(Q)$(link) $^ $(LIBS_AGENT) -o $@
$(B)/signalbox: $(call obj,$(CLI_SRC)) $(B)/libsignalbox.a
	$(Q)$(link) $^ $(LIBS_CLIENT) -ljansson -o $@
$(B)/signalbox-mock: $(call obj,$(MOCK_SRC))
	$(Q)$(link) $^ $(LIBS_MOCK) -o $@
$(B)/bench: $(call obj,$(BENCH_SRC)) $(B)/libsignalbox.a
	$(Q)$(link) $^ $(LIBS_CLIENT) -lcurl -ljansson -lm -o $@
$(B)/conformance: $(call obj,$(CONF_SRC) $(E2E_LIB)) $(B)/libsignalbox.a
	$(Q)$(link) $^ $(LIBS_CLIENT) -ljansson -o $@
$(B)/tests/%: $(B)/obj/tests/unit/%.o $(B)/libagent.a $(B)/libsignalbox.a
	@mkdir -p $(@D)
	$(Q)$(link) $^ -lcmocka $(LIBS_AGENT) -o $@
$(B)/e2e/%: $(B)/obj/tests/e2e/%.o $(call obj,$(E2E_LIB)) $(B)/libsignalbox.a
	@mkdir -p $(@D)
	$(Q)$(link) $^ -lcmocka $(LIBS_CLIENT) -ljansson -o $@
$(B)/fuzz/%: $(B)/obj/tests/fuzz/fuzz_%.o $(B)/obj/tests/fuzz/replay.o $(B)/libagent.a $(B)/libsignalbox.a
	@mkdir -p $(@D)
	$(Q)$(link) $^ $(LIBS_AGENT) -o $@
$(B)/sim: $(B)/obj/tests/sim/sim.o $(B)/libagent.a $(B)/libsignalbox.a
	$(Q)$(link) $^ $(LIBS_AGENT) -o $@

# ---- noise: V=1 shows the commands ----
Q   := $(if $(V),,@)
say = $(if $(V),,@printf '  %-4s %s\n' '$(1)' '$(patsubst $(B)/%,%,$(2))')

-include $(shell find build -name '*.d' 2>/dev/null)

clean: ## remove what was built
	rm -rf build

.PHONY: all help deps clean
