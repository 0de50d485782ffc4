# Lorikeet's only build file.
#
#   make            build/lorikeet
#   make demo       builds, serves the demo model, speaks in every voice, stays up until Ctrl-C (DEMO_ONCE=1: exits)
#   make test       everything that must hold; last line: N passed, N failed, N skipped
#   make test-goldens   all of ../shared/goldens, in C and over HTTP (GOLDENS=DIR:DIR: these folders, too)
#   make check      layers, foreign headers, doors alone, clang-format, clang-tidy
#   make deps       installs the Debian packages that are missing (test-deps: those of the tests too)
#   make bench      speed: kernels, steps, load, growth (MODELS="a.gguf", PARTS=)     make soak / make fuzz   longer suites
#   make stress     reloads under load, kills     make bench-swap, make bench-zipf   swaps, cold voices: docs/SWAP.md
#   make bench-peer LLAMA_BIN=FOLDER   the same work on llama.cpp's programs found there, in turns: docs/performance.md
#       MODELS="a.gguf b.gguf", or SHAPE=llama1b TYPE=q8_0 (made from ../shared)   PARTS="single batch crowd8"
#   make bench-table LLAMA_BIN=FOLDER MODELS=FOLDER   all of that page's tables, in MINUTES=25
#   make bench-merged   merged copies against adapters beside the base, and what the cost model foretells
#   make sim        versions, memory, scheduler and pages simulated for millions of steps (STEPS=N SEED=N)
#   make test-clients   clients and checkers of the API from PyPI and npm that are large: schemathesis, LiteLLM, the AI SDK …
#   make real-model, make test-real                          the golden prompts on gemma-3-270m
#   make install    PREFIX=/usr/local DESTDIR=
#
# Flags: BUILD=release|asan|tsan picks the variant (objects never mix), V=1 shows commands.

BUILD  ?= release
PREFIX ?= /usr/local
CC     ?= gcc
AR     ?= ar
VERSION := $(shell cat VERSION)
B       := build/$(BUILD)
ARCH    := $(shell $(CC) -dumpmachine | cut -d- -f1)

LIBS := libmicrohttpd jansson libuv openblas libpcre2-8 libutf8proc libcyaml libcurl gnutls sqlite3 libxxhash libexttextcat
WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef -Wpointer-arith -Wcast-qual \
        -Wno-format-truncation -Werror # messages are cut to their buffers on purpose
SAN_release :=
SAN_asan    := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
SAN_tsan    := -fsanitize=thread
SAN         := $(SAN_$(BUILD))
OPT_release := -O2
OPT_asan    := -O1
OPT_tsan    := -O1
# -ffp-contract=off: a*b+c is one rounding only where the code says fma, so every instruction set adds up the same.
CFLAGS_ALL = -std=gnu11 -D_GNU_SOURCE -g $(OPT_$(BUILD)) -ffp-contract=off -fstack-protector-strong $(WARN) $(SAN) \
             -Iinclude -DLORIKEET_VERSION='"$(VERSION)"' $(PKG_CFLAGS) $(CFLAGS)
ifeq ($(filter deps test-deps clean help,$(MAKECMDGOALS)),)
PKG_CFLAGS  = $(shell pkg-config --cflags $(LIBS) 2>/dev/null)
PKG_LIBS    = $(shell pkg-config --libs $(LIBS) 2>/dev/null)
endif
LDLIBS_ALL = -Wl,--as-needed $(PKG_LIBS) -lm -lpthread

# The suffix alone sets instruction-set flags; files of another architecture are left out.
ISA_avx2    := -mavx2 -mfma -mf16c
ISA_avxvnni := $(ISA_avx2) -mavxvnni
ISA_avx512  := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx512bf16 -mavx2 -mfma -mf16c
ISA_neon    := -march=armv8.2-a+dotprod+fp16
FOREIGN     := $(if $(filter x86_64,$(ARCH)),%_neon.c,%_avx2.c %_avxvnni.c %_avx512.c)

CORE_SRC    := $(filter-out $(FOREIGN),$(wildcard core/*/*.c))
ADAPTER_SRC := $(wildcard adapters/*.c)
SERVER_SRC  := $(filter-out server/main.c,$(wildcard server/*.c))
UNIT_SRC    := $(wildcard tests/unit/test_*.c tests/golden/test_*.c)
PROGRAM_SRC := tests/kernels/check.c $(wildcard tests/bench/*.c tests/sampling/*.c)
OBJ          = $(patsubst %.c,$(B)/%.o,$(1))
UNIT_BIN    := $(patsubst %.c,$(B)/%,$(UNIT_SRC))
PROGRAM_BIN := $(patsubst %.c,$(B)/%,$(PROGRAM_SRC))
Q           := $(if $(V),,@)

.PHONY: all clean deps test-deps demo test test-goldens check bench bench-peer bench-table bench-merged bench-swap \
        bench-zipf soak stress sim fuzz real-model test-real test-clients install uninstall unit programs help
.SECONDARY:
.DELETE_ON_ERROR:

all: build/lorikeet

build/lorikeet: $(B)/lorikeet
	$(Q)cp -f $< $@

$(B)/lorikeet: $(call OBJ,server/main.c) $(B)/libserver.a $(B)/libadapters.a $(B)/libcore.a
	@echo "  LINK  $@"
	$(Q)$(CC) $(SAN) $(LDFLAGS) -o $@ $^ $(LDLIBS_ALL)

$(B)/libcore.a: $(call OBJ,$(CORE_SRC))
$(B)/libadapters.a: $(call OBJ,$(ADAPTER_SRC))
$(B)/libserver.a: $(call OBJ,$(SERVER_SRC))
$(B)/lib%.a:
	@mkdir -p $(@D)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

# Places of variables in long unrolled code take longer to find than the code itself; checks of pointers that
# AddressSanitizer makes too take half as long again.
UNROLLED_asan := -fno-sanitize=null,alignment,object-size,pointer-overflow
$(B)/%_avx2.o $(B)/%_avxvnni.o $(B)/%_avx512.o $(B)/%_neon.o: CFLAGS += -fno-var-tracking $(UNROLLED_$(BUILD))
$(B)/%_avx2.o: ISA = $(ISA_avx2)
$(B)/%_avxvnni.o: ISA = $(ISA_avxvnni)
$(B)/%_avx512.o: ISA = $(ISA_avx512)
$(B)/%_neon.o: ISA = $(ISA_neon)
$(B)/%.o: %.c Makefile VERSION | $(if $(MAKE_DEPS_DONE),,deps-check)
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) $(CFLAGS_ALL) $(ISA) -MMD -MP -c -o $@ $<

# Test programs may look into their room (inner headers) and link everything but main.
$(B)/tests/%: $(B)/tests/%.o $(B)/libserver.a $(B)/libadapters.a $(B)/libcore.a
	@echo "  LINK  $@"
	$(Q)$(CC) $(SAN) $(LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LDLIBS_ALL) -lcmocka
$(B)/tests/kernels/check: $(call OBJ,$(filter-out $(FOREIGN),$(wildcard tests/kernels/*_avx2.c)))
$(B)/tests/sim/sim: $(call OBJ,$(filter-out tests/sim/sim.c,$(wildcard tests/sim/*.c)))
$(B)/tests/%.o: CFLAGS += -I. -Icore/base -Icore/format -Icore/text -Icore/grammar -Icore/kernels -Icore/model -Icore/engine -Iadapters \
                          -Iserver

unit: $(UNIT_BIN)
programs: $(PROGRAM_BIN)

.PHONY: deps-check
deps deps-check:
	$(Q)sh tests/deps.sh product
test-deps:
	$(Q)sh tests/deps.sh product tests

demo: all
	$(Q)sh demo/run.sh

test:
	$(Q)bash tests/run.sh
test-goldens: deps-check
	$(Q)bash tests/golden/run.sh
check: deps-check
	$(Q)bash tests/check.sh
bench: all programs
	$(Q)MODELS="$(MODELS)" PARTS="$(PARTS)" bash tests/bench/run.sh
bench-peer: all $(B)/tests/bench/bench_step $(B)/tests/bench/limits
	$(Q)python3 tests/bench/bench_peer.py --llama-bin "$(LLAMA_BIN)" --models "$(MODELS)" \
	    $(if $(SHAPE),--shape $(SHAPE)) $(if $(TYPE),--type $(TYPE)) $(if $(PARTS),--parts "$(PARTS)") $(BENCH_ARGS)
	$(Q)python3 tests/bench/report.py
bench-table: all $(B)/tests/bench/bench_step $(B)/tests/bench/limits
	$(Q)LLAMA_BIN="$(LLAMA_BIN)" MODELS="$(MODELS)" bash tests/bench/table.sh
bench-swap: all
	$(Q)python3 tests/bench/bench_swap.py
bench-zipf: all
	$(Q)python3 tests/bench/bench_zipf.py
stress: all
	$(Q)bash tests/stress/run.sh
bench-merged: $(B)/tests/bench/bench_merged
	$(Q)$< $(BENCH_ARGS)
soak: all
	$(Q)bash tests/soak.sh
sim: $(B)/tests/sim/sim
	$(Q)$< run $(or $(STEPS),5000000) $(SEED)
fuzz:
	$(Q)bash tests/fuzz/run.sh
real-model:
	$(Q)bash tests/real/fetch.sh
test-clients: all
	$(Q)bash tests/clients/run.sh
test-real: all real-model
	$(Q)bash tests/real/run.sh

install: all
	install -D -m 755 build/lorikeet $(DESTDIR)$(PREFIX)/bin/lorikeet
	install -D -m 644 docs/man/lorikeet.1 $(DESTDIR)$(PREFIX)/share/man/man1/lorikeet.1
	install -D -m 644 conf/lorikeet.yaml $(DESTDIR)$(PREFIX)/share/doc/lorikeet/lorikeet.yaml
	install -D -m 644 LICENSE $(DESTDIR)$(PREFIX)/share/doc/lorikeet/LICENSE
uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/lorikeet $(DESTDIR)$(PREFIX)/share/man/man1/lorikeet.1
	rm -rf $(DESTDIR)$(PREFIX)/share/doc/lorikeet

clean:
	rm -rf build
help:
	@sed -n '2,19s/^# \{0,1\}//p' Makefile

-include $(shell find $(B) -name '*.d' 2>/dev/null)
