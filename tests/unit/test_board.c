/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_board.c -- the board's bytes, the ladder of attaching, choosing from it, and that a choice agrees with the agent's gate.
 * Its race is test_board_race.c, how the agent is test_board_life.c, prices test_board_prices.c; through the real agent: tests/e2e/test_board.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent/io/publish.h"
#include "agent/log.h"
#include "client/wire.h"
#include "tests/unit/board_rig.h"

#define NOW 1000500000000ull /* half a second after the rig's heartbeat */
#define S 1000000000ull

/* ---- layout ---- */

/* Every word of the rig's image that is not 0, up to its text, and that text. Whoever changes one changes the layout: a new
 * version, and this list. Offsets: hot 256, credential 1536, target 1728, provider 2048, route 2304, text 2496. */
static void
golden_bytes(void **state)
{
	static const struct { uint32_t at; uint64_t value; } words[] = {
		{ 0, 0x4452414f42584253 }, { 8, 1 }, { 24, 256 }, { 32, 0x1111 }, { 40, 2 }, { 48, 3333 }, { 56, 4444 }, { 64, 1000000000 },
		{ 80, 256 }, { 88, 5ull << 32 | 256 }, { 96, 1536 }, { 104, 3ull << 32 | 64 }, { 112, 2048 }, { 120, 4ull << 32 | 64 },
		{ 128, 1728 }, { 136, 5ull << 32 | 64 }, { 144, 2304 }, { 152, 2ull << 32 | 96 }, { 160, 2496 }, { 176, 5555 }, { 184, 6666 },
		{ 192, 1000000000000 }, { 200, 1800000000000000000 }, { 208, 1 },
		/* prices of the five hot rows: unknown */
		{ 256 + 32, 1ull << 63 }, { 256 + 40, 1ull << 63 }, { 256 + 224, 1ull << 63 }, { 256 + 232, 1ull << 63 },
		{ 512 + 32, 1ull << 63 }, { 512 + 40, 1ull << 63 }, { 512 + 224, 1ull << 63 }, { 512 + 232, 1ull << 63 },
		{ 768 + 32, 1ull << 63 }, { 768 + 40, 1ull << 63 }, { 768 + 224, 1ull << 63 }, { 768 + 232, 1ull << 63 },
		{ 1024 + 32, 1ull << 63 }, { 1024 + 40, 1ull << 63 }, { 1024 + 224, 1ull << 63 }, { 1024 + 232, 1ull << 63 },
		{ 1280 + 32, 1ull << 63 }, { 1280 + 40, 1ull << 63 }, { 1280 + 224, 1ull << 63 }, { 1280 + 232, 1ull << 63 },
		/* credentials: provider, source */
		{ 1536 + 40, 7ull << 32 | 42 }, { 1600 + 40, 9ull << 32 | 50 }, { 1664 + 32, 1 }, { 1664 + 40, 7ull << 32 | 60 },
		/* targets: provider and keyless, caps, limits, name, model, credentials, fee */
		{ 1728 + 32, 5ull << 32 | 1 }, { 1728 + 40, 1ull << 32 | 7 }, { 1728 + 48, 2ull << 32 },
		{ 1792 + 32, 5ull << 32 | 9 }, { 1792 + 40, 1ull << 32 | 15 }, { 1792 + 48, 2ull << 32 },
		{ 1856 + 0, 1 }, { 1856 + 8, 15ull << 32 | 3 }, { 1856 + 16, 200ull << 32 | 1000 }, { 1856 + 24, 500 }, { 1856 + 32, 5ull << 32 | 17 }, { 1856 + 40, 1ull << 32 | 23 }, { 1856 + 48, 1ull << 32 | 2 }, { 1856 + 56, 5000000000000 },
		{ 1920 + 0, 1ull << 32 | 2 }, { 1920 + 32, 5ull << 32 | 25 }, { 1920 + 40, 1ull << 32 | 31 },
		{ 1984 + 0, 3 }, { 1984 + 32, 6ull << 32 | 33 }, { 1984 + 40, 1ull << 32 | 40 },
		/* providers: name, base_url, chat_url, dialect, auth, credentials, wait_short */
		{ 2048 + 0, 3ull << 32 | 68 }, { 2048 + 8, 22ull << 32 | 72 }, { 2048 + 16, 39ull << 32 | 95 }, { 2048 + 24, 11ull << 32 | 135 }, { 2048 + 32, 1 }, { 2048 + 40, 2ull << 32 }, { 2048 + 48, 2 * S },
		{ 2112 + 0, 3ull << 32 | 147 }, { 2112 + 8, 22ull << 32 | 151 }, { 2112 + 16, 53ull << 32 | 174 }, { 2112 + 24, 11ull << 32 | 228 }, { 2112 + 32, 2 }, { 2112 + 40, 1ull << 32 | 2 },
		{ 2176 + 0, 3ull << 32 | 240 }, { 2176 + 8, 24ull << 32 | 244 }, { 2176 + 16, 41ull << 32 | 269 }, { 2176 + 24, 11ull << 32 | 311 },
		{ 2240 + 0, 4ull << 32 | 323 }, { 2240 + 8, 23ull << 32 | 328 }, { 2240 + 16, 40ull << 32 | 352 }, { 2240 + 24, 11ull << 32 | 393 }, { 2240 + 32, 1 },
		/* routes: name, targets */
		{ 2304 + 0, 3ull << 32 | 405 }, { 2304 + 8, 5 }, { 2304 + 16, 1ull << 32 }, { 2304 + 24, 3ull << 32 | 2 }, { 2304 + 32, 4 },
		{ 2400 + 0, 4ull << 32 | 409 }, { 2400 + 8, 2 }, { 2400 + 16, 3 },
	};
	static const char text[] = "\0one/a\0a\0one/b\0b\0two/c\0c\0lan/d\0d\0bare/e\0e\0env:ONE\0file:/one\0env:TWO\0"
	                           "one\0https://one.example/v1\0https://one.example/v1/chat/completions\0openai-chat\0"
	                           "two\0https://two.example/v1\0https://two.example/v1/chat/completions?api-version=7\0openai-chat\0"
	                           "lan\0http://127.0.0.1:8000/v1\0http://127.0.0.1:8000/v1/chat/completions\0openai-chat\0"
	                           "bare\0https://bare.example/v1\0https://bare.example/v1/chat/completions\0openai-chat\0"
	                           "all\0back";
	size_t n, k = 0;
	uint8_t *image = rig_image(&n);
	uint64_t word;
	(void)state;
	assert_int_equal(n, 2496 + sizeof text);
	assert_memory_equal(image + 2496, text, sizeof text);
	for (uint32_t at = 0; at < 2496; at += 8) {
		memcpy(&word, image + at, 8);
		if (at == 16 || at == 168) { /* sizes: told above */
			assert_int_equal(word, at == 16 ? n : sizeof text);
			continue;
		}
		const bool listed = k < sizeof words / sizeof words[0] && words[k].at == at;
		if (word != (listed ? words[k].value : 0))
			fail_msg("the word at %u is 0x%llx", at, (unsigned long long)word);
		k += listed;
	}
	assert_int_equal(k, sizeof words / sizeof words[0]);
	free(image);
}

/* ---- attaching ---- */

static void
the_ladder(void **state)
{
	static const struct {
		const char *name;
		uint32_t at, bytes;
		uint64_t value;
		int want;
	} cases[] = {
		{ "as it is", 72, 8, 0, 0 },
		{ "a later 1.x", 12, 4, 9, 0 },
		{ "not ready", 0, 8, 0, -SBX_EBUSY },
		{ "no board", 0, 8, 0x1234, -SBX_EPROTO },
		{ "version 2", 8, 4, 2, -SBX_EVERSION },
		{ "version 0", 8, 4, 0, -SBX_EVERSION },
		{ "larger than it is", 16, 8, 1u << 20, -SBX_EPROTO },
		{ "endless", 16, 8, UINT64_MAX, -SBX_EPROTO },
		{ "smaller than its tables", 16, 8, 300, -SBX_EPROTO },
		{ "header too small", 24, 4, 248, -SBX_EPROTO },
		{ "header too large", 24, 4, UINT32_MAX, -SBX_EPROTO },
		{ "hot rows inside the header", 80, 8, 128, -SBX_EPROTO },
		{ "hot rows behind the end", 80, 8, 1u << 30, -SBX_EPROTO },
		{ "hot rows at the end of the address space", 80, 8, UINT64_MAX - 255, -SBX_EPROTO },
		{ "hot rows not aligned", 80, 8, 257, -SBX_EPROTO },
		{ "hot stride 0", 88, 4, 0, -SBX_EPROTO },
		{ "hot stride too small", 88, 4, 248, -SBX_EPROTO },
		{ "hot stride not aligned", 88, 4, 260, -SBX_EPROTO },
		{ "hot stride huge", 88, 4, UINT32_MAX - 7, -SBX_EPROTO },
		{ "more hot rows than targets", 92, 4, 6, -SBX_EPROTO },
		{ "as many hot rows as there are numbers", 92, 4, UINT32_MAX, -SBX_EPROTO },
		{ "credentials without end", 108, 4, UINT32_MAX, -SBX_EPROTO },
		{ "providers gone", 124, 4, 0, -SBX_EPROTO },
		{ "routes without end", 156, 4, 65536, -SBX_EPROTO },
		{ "text outside", 160, 8, 1u << 30, -SBX_EPROTO },
		{ "no text", 168, 8, 0, -SBX_EPROTO },
		{ "text without end", 168, 8, UINT64_MAX, -SBX_EPROTO },
		{ "provider of a target", 1728, 4, 4, -SBX_EPROTO },
		{ "name of a target outside", 1728 + 32, 4, 100000, -SBX_EPROTO },
		{ "name of a target without end", 1728 + 36, 4, UINT32_MAX, -SBX_EPROTO },
		{ "name of a target without its NUL", 1728 + 36, 4, 4, -SBX_EPROTO },
		{ "credentials of a target", 1728 + 48, 4, 2, -SBX_EPROTO },
		{ "number of credentials of a target", 1728 + 52, 4, 9, -SBX_EPROTO },
		{ "credentials that wrap round", 1728 + 48, 8, 2ull << 32 | UINT32_MAX, -SBX_EPROTO },
		{ "provider of a credential", 1536 + 32, 4, 99, -SBX_EPROTO },
		{ "URL of a provider", 2048 + 16, 4, 5000, -SBX_EPROTO },
		{ "targets of a route", 2304 + 8, 4, 17, -SBX_EPROTO },
		{ "target of a route", 2304 + 16, 4, 5, -SBX_EPROTO },
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct sbx_board b;
		char why[200] = "";
		size_t n;
		uint8_t *image = rig_image(&n);
		memcpy(image + cases[i].at, &cases[i].value, cases[i].bytes);
		int rc = sbx_board_check(image, n, &b, why, sizeof why);
		if (rc != cases[i].want || (rc == 0) != (why[0] == 0))
			fail_msg("%s: %d, \"%s\"", cases[i].name, rc, why);
		free(image);
	}
}

/* Cut off at any length: refused, and not a byte read beyond it. */
static void
cut_short(void **state)
{
	struct sbx_board b;
	size_t n;
	uint8_t *image = rig_image(&n);
	(void)state;
	for (size_t k = 0; k < n; k++) {
		uint8_t *cut = malloc(k ? k : 1);
		assert_non_null(cut);
		memcpy(cut, image, k);
		assert_int_equal(sbx_board_check(cut, k, &b, NULL, 0), -SBX_EPROTO);
		free(cut);
	}
	free(image);
}

static int
memory_of(const uint8_t *image, size_t n, int seals)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, image, n), n);
	if (seals)
		assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static int
attach_and_close(int fd)
{
	struct sbx_board *b;
	char why[200] = "";
	int rc = sbx_board_attach(fd, &b, why, sizeof why);
	(void)close(fd);
	if (rc == 0)
		sbx_board_close(b);
	else
		assert_true(why[0]);
	return rc;
}

static void
descriptors(void **state)
{
	const int all = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE;
	size_t n;
	uint8_t *image = rig_image(&n);
	int pipe_fd[2];
	(void)state;
	assert_int_equal(attach_and_close(memory_of(image, n, all)), 0);
	assert_int_equal(attach_and_close(memory_of(image, n, all | F_SEAL_SEAL)), 0);
	assert_int_equal(attach_and_close(memory_of(image, n, 0)), -SBX_EPROTO);
	assert_int_equal(attach_and_close(memory_of(image, n, F_SEAL_SHRINK | F_SEAL_GROW)), -SBX_EPROTO);
	assert_int_equal(attach_and_close(memory_of(image, n, F_SEAL_GROW | F_SEAL_FUTURE_WRITE)), -SBX_EPROTO);
	assert_int_equal(attach_and_close(memory_of(image, 255, all)), -SBX_EPROTO);
	assert_int_equal(attach_and_close(memory_of(image, 0, all)), -SBX_EPROTO);
	assert_int_equal(attach_and_close(open("/dev/null", O_RDONLY | O_CLOEXEC)), -SBX_EPROTO);
	assert_int_equal(pipe2(pipe_fd, O_CLOEXEC), 0);
	assert_int_equal(attach_and_close(pipe_fd[0]), -SBX_EPROTO);
	(void)close(pipe_fd[1]);
	assert_int_equal(attach_and_close(-1), -SBX_EPROTO);
	free(image);
}

/* ---- choosing ---- */

static struct sbx_board
check(uint8_t *image, size_t n)
{
	struct sbx_board b = { .base = NULL };
	assert_int_equal(sbx_board_check(image, n, &b, NULL, 0), 0);
	return b;
}

static const char *
pick_text(const struct sbx_board *b, const struct sbx_need *need, uint32_t max, char *buf, size_t bytes)
{
	struct sbx_pick pick[SBX_PICK_MAX];
	int n = sbx_board_pick(b, need, NOW, pick, max);
	buf[0] = 0;
	if (n < 0)
		(void)snprintf(buf, bytes, "%d", n);
	for (int i = 0; i < n; i++) {
		struct sbx_target_view v;
		assert_int_equal(sbx_board_target(b, pick[i].target, NOW, &v), pick[i].standing == SBX_STANDING_UNKNOWN ? -SBX_EBUSY : 0);
		assert_int_equal(v.standing, pick[i].standing); /* whoever looks and whoever picks see the same */
		(void)snprintf(buf + strlen(buf), bytes - strlen(buf), "%s%s%s", i ? " " : "", v.name, pick[i].standing == SBX_STANDING_UP ? "" : "=");
		if (pick[i].standing != SBX_STANDING_UP)
			(void)snprintf(buf + strlen(buf), bytes - strlen(buf), "%s", sbx_standing_word(pick[i].standing));
	}
	return buf;
}

static void
picks(void **state)
{
	enum { ROW0 = 256, ROW1 = 512, ROW2 = 768, ROW3 = 1024, KEY0 = 1536, KEY1 = 1600, KEY2 = 1664, SHUT = 8, THROTTLED = 16, KEY_THROTTLE = 64, PRICE_IN = 32, PRICE_OUT = 40 };
	static const struct {
		const char *name;
		struct { uint32_t at; uint64_t value; } word[6]; /* at 0 = no more */
		struct sbx_need need;
		uint32_t max;
		const char *want;
	} cases[] = {
#define NEED(...) { .size = sizeof(struct sbx_need), .max_cost_nanousd = -1, __VA_ARGS__ }
		{ "all, in order; one has no key", { { 0, 0 } }, NEED(.route = 0), 8, "one/a one/b two/c lan/d" },
		{ "the route's order", { { 0, 0 } }, NEED(.route = 1), 8, "lan/d one/a" },
		{ "no route: any target", { { 0, 0 } }, NEED(.route = SBX_ROUTE_ALL), 8, "one/a one/b two/c lan/d" },
		{ "no such route", { { 0, 0 } }, NEED(.route = 2), 8, "-11" },
		{ "only two", { { 0, 0 } }, NEED(.route = 0), 2, "one/a one/b" },
		{ "none", { { 0, 0 } }, NEED(.route = 0), 0, "" },
		{ "too many", { { 0, 0 } }, NEED(.route = 0), 17, "-1" },
		{ "one is down", { { ROW0 + SHUT, NOW + 5 * S } }, NEED(.route = 0), 8, "one/b two/c lan/d one/a=down" },
		{ "down and due", { { ROW0 + SHUT, NOW } }, NEED(.route = 0), 2, "one/a=trial one/b" },
		{ "its trial runs", { { ROW0 + SHUT, UINT64_MAX } }, NEED(.route = 1), 8, "lan/d one/a=down" },
		{ "throttled on one of two keys", { { ROW0 + THROTTLED, NOW + S }, { ROW0 + KEY_THROTTLE, NOW + S } }, NEED(.route = 0), 1, "one/a" },
		{ "throttled on both, for a moment", { { ROW0 + THROTTLED, NOW + S }, { ROW0 + KEY_THROTTLE, NOW + S }, { ROW0 + KEY_THROTTLE + 8, NOW + S }, { ROW3 + SHUT, NOW + 9 * S } },
		  NEED(.route = 1), 8, "one/a=throttled lan/d=down" },
		{ "throttled on both, for long", { { ROW0 + THROTTLED, NOW + 9 * S }, { ROW0 + KEY_THROTTLE, NOW + 9 * S }, { ROW0 + KEY_THROTTLE + 8, NOW + 8 * S }, { ROW3 + SHUT, NOW + 9 * S } },
		  NEED(.route = 1), 8, "lan/d=down one/a=throttled" },
		{ "a throttle that is over", { { ROW0 + THROTTLED, NOW }, { ROW0 + KEY_THROTTLE, NOW }, { ROW0 + KEY_THROTTLE + 8, NOW } }, NEED(.route = 0), 1, "one/a" },
		{ "the first key is shut", { { KEY0 + SHUT, NOW + S } }, NEED(.route = 0), 1, "one/a" },
		{ "both keys are shut: not to be asked", { { KEY0 + SHUT, NOW + S }, { KEY1 + SHUT, UINT64_MAX } }, NEED(.route = 0), 8, "two/c lan/d" },
		{ "a key due for its trial", { { KEY2 + SHUT, NOW } }, NEED(.route = 0), 3, "one/a one/b two/c=trial" },
		{ "a row half written", { { ROW0, 7 } }, NEED(.route = 0), 8, "one/b two/c lan/d one/a=unknown" },
		{ "a row half written, before those that are down", { { ROW0, 7 }, { ROW3 + SHUT, NOW + S } }, NEED(.route = 1), 8, "one/a=unknown lan/d=down" },
		{ "vision is known to be missing", { { 0, 0 } }, NEED(.route = 0, .caps = SBX_CAP_VISION), 8, "one/a one/b lan/d" },
		{ "vision and tools", { { 0, 0 } }, NEED(.route = 0, .caps = SBX_CAP_VISION | SBX_CAP_TOOLS), 8, "one/a one/b lan/d" },
		{ "tools are there", { { 0, 0 } }, NEED(.route = 0, .caps = SBX_CAP_TOOLS | SBX_CAP_REASONING), 8, "one/a one/b two/c lan/d" },
		{ "prefill: nobody says so, and nobody is left out", { { 0, 0 } }, NEED(.route = 0, .caps = SBX_CAP_PREFILL), 8, "one/a one/b two/c lan/d" },
		{ "a longer answer than it gives", { { 0, 0 } }, NEED(.route = 0, .output_tokens = 201), 8, "one/a one/b lan/d" },
		{ "too long for one", { { 0, 0 } }, NEED(.route = 0, .input_tokens = 900, .output_tokens = 101), 8, "one/a one/b lan/d" },
		{ "just fits", { { 0, 0 } }, NEED(.route = 0, .input_tokens = 900, .output_tokens = 100), 8, "one/a one/b two/c lan/d" },
		{ "tokens that overflow when added", { { 0, 0 } }, NEED(.route = 0, .input_tokens = 1, .output_tokens = UINT64_MAX), 8, "one/a one/b lan/d" },
		/* 1000 tokens in at 2 USD a million, 500 out at 10: 2,000,000 + 5,000,000 nano-USD */
		{ "a price within the limit", { { ROW1 + PRICE_IN, 2000000000 }, { ROW1 + PRICE_OUT, 10000000000 } },
		  { sizeof(struct sbx_need), 0, 0, 1000, 500, 7000000 }, 8, "one/b" },
		{ "a price above it", { { ROW1 + PRICE_IN, 2000000000 }, { ROW1 + PRICE_OUT, 10000000000 } },
		  { sizeof(struct sbx_need), 0, 0, 1000, 500, 6999999 }, 8, "" },
		{ "a price that is none", { { ROW1 + PRICE_IN, (uint64_t)-5 }, { ROW1 + PRICE_OUT, 1 } },
		  { sizeof(struct sbx_need), 0, 0, 10, 10, 1000 }, 8, "" },
		{ "free is a price", { { ROW3 + PRICE_IN, 0 }, { ROW3 + PRICE_OUT, 0 } },
		  { sizeof(struct sbx_need), 1, 0, 10, 10, 0 }, 8, "lan/d" },
		{ "a price that changed ten seconds ago", { { ROW1 + PRICE_IN, 1 }, { ROW1 + PRICE_OUT, 1 }, { ROW1 + 24, 1799999990 }, { ROW1 + 224, 1u << 30 }, { ROW1 + 232, 1u << 30 } },
		  { sizeof(struct sbx_need), 0, 0, 1000000, 0, 1000 }, 8, "" },
		{ "a price that changes in ten seconds", { { ROW1 + PRICE_IN, 1 }, { ROW1 + PRICE_OUT, 1 }, { ROW1 + 24, 1800000010 }, { ROW1 + 224, 1u << 30 }, { ROW1 + 232, 1u << 30 } },
		  { sizeof(struct sbx_need), 0, 0, 1000000, 0, 1000 }, 8, "one/b" },
		{ "more than any number", { { ROW1 + PRICE_IN, INT64_MAX }, { ROW1 + PRICE_OUT, INT64_MAX } },
		  { sizeof(struct sbx_need), 0, 0, UINT64_MAX, UINT64_MAX, INT64_MAX }, 8, "one/b" },
		/* 500 in at 2, 100 out at 10 a million, and the fee of 0.005: 1,000,000 + 1,000,000 + 5,000,000 */
		{ "the fee counts", { { ROW2 + PRICE_IN, 2000000000 }, { ROW2 + PRICE_OUT, 10000000000 } },
		  { sizeof(struct sbx_need), 0, 0, 500, 100, 7000000 }, 8, "two/c" },
		{ "a nano-dollar less", { { ROW2 + PRICE_IN, 2000000000 }, { ROW2 + PRICE_OUT, 10000000000 } },
		  { sizeof(struct sbx_need), 0, 0, 500, 100, 6999999 }, 8, "" },
		{ "a prompt for which no price stands there", { { ROW2 + PRICE_IN, 2000000000 }, { ROW2 + PRICE_OUT, 10000000000 } },
		  { sizeof(struct sbx_need), 0, 0, 501, 100, INT64_MAX }, 8, "" },
		{ "a need that is no need", { { 0, 0 } }, { .size = 4 }, 8, "-1" },
		{ "a need of a later version", { { 0, 0 } }, { .size = 4096 }, 8, "-1" },
		{ "a need of an earlier version", { { 0, 0 } }, { .size = offsetof(struct sbx_need, caps), .route = 1 }, 8, "lan/d one/a" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char got[300];
		size_t n;
		uint8_t *image = rig_image(&n);
		for (size_t k = 0; k < 6 && cases[i].word[k].at; k++)
			memcpy(image + cases[i].word[k].at, &cases[i].word[k].value, 8);
		const struct sbx_board b = check(image, n);
		if (strcmp(pick_text(&b, &cases[i].need, cases[i].max, got, sizeof got), cases[i].want) != 0)
			fail_msg("%s: \"%s\", not \"%s\"", cases[i].name, got, cases[i].want);
		free(image);
	}
}

static void
whom_to_call_directly(void **state)
{
	struct sbx_need need = SBX_NEED_INIT;
	struct sbx_direct d[8];
	size_t n;
	uint8_t *image = rig_image(&n);
	const uint64_t shut = UINT64_MAX;
	(void)state;
	memcpy(image + 1664 + 8, &shut, 8); /* the agent's key at `two` was refused: the caller's own need not be */
	const struct sbx_board b = check(image, n);
	need.route = 0;
	assert_int_equal(sbx_bypass(&b, &need, NOW, d, 8), 5);
	assert_string_equal(d[2].target, "two/c");
	assert_string_equal(d[2].url, "https://two.example/v1/chat/completions?api-version=7");
	assert_string_equal(d[2].model, "c");
	assert_string_equal(d[2].dialect, "openai-chat");
	assert_string_equal(d[2].auth, "api-key");
	assert_string_equal(d[2].key_name, "env:TWO");
	assert_string_equal(d[3].auth, "none");
	assert_string_equal(d[3].key_name, "");
	assert_string_equal(d[4].target, "bare/e"); /* the agent has no key for it */
	free(image);
}

/* ---- no system call ---- */

/* Everything but exit_group and write kills. */
static void
allow_nothing(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};
	const struct sock_fprog program = { sizeof code / sizeof code[0], code };
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		(void)syscall(SYS_exit_group, 77);
}

/* How a child ends that does this under the filter: its exit status, or -signal. */
static int
end_of(int (*act)(const struct sbx_board *), const struct sbx_board *b)
{
	int status;
	pid_t pid = fork();
	if (pid == 0) {
		allow_nothing();
		(void)syscall(SYS_exit_group, act(b));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static int
act_pick(const struct sbx_board *b)
{
	struct sbx_pick pick[4];
	struct sbx_direct direct[4];
	struct sbx_target_view v;
	struct sbx_need need = SBX_NEED_INIT;
	uint32_t found;
	int bad = 0;
	for (int i = 0; i < 1000; i++) {
		need.route = i % 2 ? SBX_ROUTE_ALL : 0;
		need.input_tokens = (uint64_t)i;
		bad |= sbx_board_pick(b, &need, NOW + (uint64_t)i, pick, 4) != 4;
		bad |= sbx_bypass(b, &need, NOW, direct, 4) != 4;
		bad |= sbx_board_target(b, pick[0].target, NOW, &v) != 0;
		bad |= sbx_board_life(b, NOW) != SBX_LIFE_SERVING;
		bad |= sbx_board_find_route(b, "back", &found) != 0;
	}
	return bad;
}

static int
act_probe(const struct sbx_board *b)
{
	return sbx_board_probe(b, 2000 * S) == SBX_LIFE_SERVING; /* stale: it has to look for a process */
}

static void
no_system_call(void **state)
{
	size_t n;
	uint8_t *image = rig_image(&n);
	const struct sbx_board b = check(image, n);
	(void)state;
	int rc = end_of(act_pick, &b);
	if (rc == 77) {
		free(image);
		skip(); /* no seccomp here */
	}
	assert_int_equal(rc, 0);
	assert_int_equal(end_of(act_probe, &b), -SIGSYS); /* the filter does kill */
	free(image);
}

/* ---- the publisher ---- */

static uint64_t
mono_ns(void)
{
	struct timespec t;
	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * S + (uint64_t)t.tv_nsec;
}

struct world_rig {
	struct sbx_config config;
	struct sbx_world world;
	struct sbx_publisher *publisher;
	struct sbx_board *board;
	uint64_t now_ns;       /* of the health, monotonic */
};

static void
world_rig_up(struct world_rig *r, const char *snapshot)
{
	const struct sbx_publish_opts opts = { .generation = 99, .snapshot_path = snapshot };
	*r = (struct world_rig){ .config = { .tables = rig_tables() }, .now_ns = mono_ns() };
	r->world.config = &r->config;
	r->world.health = sbx_health_new(&r->config.tables, r->now_ns);
	assert_non_null(r->world.health);
	assert_int_equal(sbx_publisher_new(&opts, &r->publisher), 0);
	assert_int_equal(sbx_publish_world(r->publisher, &r->world, r->now_ns), 0);
	assert_int_equal(sbx_board_attach(sbx_publisher_fd(r->publisher), &r->board, NULL, 0), 0);
}

static void
world_rig_down(struct world_rig *r)
{
	sbx_board_close(r->board);
	sbx_publisher_free(r->publisher);
	sbx_health_free(r->world.health);
}

/* The snapshot belongs to the agent that took over. */
static void
a_replaced_agent_leaves_the_snapshot_alone(void **state)
{
	char dir[] = "/tmp/sbx-board-XXXXXX", path[64];
	struct world_rig r;
	(void)state;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof path, "%s/board.snapshot", dir);
	world_rig_up(&r, path);
	assert_int_equal(unlink(path), 0);
	sbx_publish_turn(r.publisher, &r.world, r.now_ns + SBX_BOARD_SNAPSHOT_NS);
	assert_int_equal(unlink(path), 0);
	sbx_publish_state(r.publisher, &r.world, SBX_BOARD_REPLACED, r.now_ns + SBX_BOARD_SNAPSHOT_NS);
	sbx_publish_turn(r.publisher, &r.world, r.now_ns + 3 * SBX_BOARD_SNAPSHOT_NS);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(sbx_board_life(r.board, sbx_boot_ns()), SBX_LIFE_REPLACED);
	world_rig_down(&r);
	assert_int_equal(rmdir(dir), 0);
}

/* What a reader of the board concludes is what the agent's gate says, whatever has happened to the targets. */
static void
the_board_agrees_with_the_gate(void **state)
{
	static const enum sbx_class classes[] = { SBX_CLASS_OK, SBX_CLASS_OK, SBX_CLASS_OK, SBX_CLASS_FAILED, SBX_CLASS_FAILED, SBX_CLASS_REFUSED, SBX_CLASS_AUTH, SBX_CLASS_QUOTA,
	                                          SBX_CLASS_NOT_THERE, SBX_CLASS_NOT_SENT, SBX_CLASS_UNCERTAIN, SBX_CLASS_CANCELLED };
	static const enum sbx_standing standing[] = { [SBX_GATE_YES] = SBX_STANDING_UP, [SBX_GATE_PROBE] = SBX_STANDING_TRIAL, [SBX_GATE_THROTTLED] = SBX_STANDING_THROTTLED,
	                                              [SBX_GATE_BROKEN] = SBX_STANDING_DOWN, [SBX_GATE_NO_KEY] = SBX_STANDING_NO_KEY };
	struct world_rig r;
	struct { uint32_t target, credential; uint64_t started_ns; } running[16];
	uint32_t n_running = 0, seen[5] = { 0 };
	uint64_t random = 1;
	(void)state;
	world_rig_up(&r, NULL);
	const struct sbx_tables *t = &r.config.tables;
	const uint64_t offset_ns = ((const struct sbx_board_hot *)sbx_board_row(r.board, &r.board->hot, 0))->since_boot_ns - r.now_ns; /* as the publisher has it */
	for (int round = 0; round < 20000; round++) {
		random = random * 6364136223846793005ull + 1442695040888963407ull;
		const uint32_t dice = (uint32_t)(random >> 33), target = dice % RIG_TARGETS;
		r.now_ns += dice % 7 == 0 ? (1 + dice % 90) * S : 20000000;
		const struct sbx_gate_answer g = sbx_health_gate(r.world.health, t, target, t->target[target].provider, 0, r.now_ns);
		if (n_running < 16 && (g.gate == SBX_GATE_YES || g.gate == SBX_GATE_PROBE) && dice % 3) {
			sbx_health_on_start(r.world.health, t, target, t->target[target].provider, g.credential, r.now_ns);
			running[n_running].target = target;
			running[n_running].started_ns = r.now_ns;
			running[n_running++].credential = g.credential;
		} else if (n_running > 0) {
			const uint32_t i = dice % n_running;
			const enum sbx_class class = classes[(dice >> 8) % (sizeof classes / sizeof classes[0])];
			sbx_health_on_end(r.world.health, t, running[i].target, t->target[running[i].target].provider, running[i].credential, class,
			                  dice % 2 ? (int64_t)((dice % 40) * S) : -1, 1, r.now_ns - running[i].started_ns, r.now_ns);
			running[i] = running[--n_running];
		}
		sbx_publish_turn(r.publisher, &r.world, r.now_ns);
		for (uint32_t i = 0; i < RIG_TARGETS; i++) {
			struct sbx_target_view v;
			/* Half a millisecond on: no edge of a time falls on the microseconds between two looks at two clocks. */
			const uint64_t ask_ns = r.now_ns + 500000;
			const struct sbx_gate_answer want = sbx_health_gate(r.world.health, t, i, t->target[i].provider, 0, ask_ns);
			assert_int_equal(sbx_board_target(r.board, i, ask_ns + offset_ns, &v), 0);
			if (v.standing != standing[want.gate])
				fail_msg("round %d, %s: %s on the board, gate %d", round, v.name, sbx_standing_word(v.standing), (int)want.gate);
			if (v.standing >= SBX_STANDING_THROTTLED && want.until_ns != UINT64_MAX)
				assert_true(v.until_boot_ns + 1000000 > want.until_ns + offset_ns && v.until_boot_ns < want.until_ns + offset_ns + 1000000);
			else if (v.standing >= SBX_STANDING_THROTTLED)
				assert_true(v.until_boot_ns == UINT64_MAX);
			assert_int_equal(v.in_flight, sbx_health_target(r.world.health, i)->in_flight);
			seen[want.gate]++;
		}
	}
	print_message("usable %u, trial %u, throttled %u, down %u, no key %u\n", seen[0], seen[1], seen[2], seen[3], seen[4]);
	for (int i = 0; i < 5; i++)
		assert_true(seen[i] > 100); /* all of it was tried */
	world_rig_down(&r);
}

/* Rows appear at once after a pause, and then every 10 ms at most; the loop is told when to come back. */
static void
how_often_rows_are_written(void **state)
{
	struct world_rig r;
	struct sbx_target_view v;
	(void)state;
	world_rig_up(&r, NULL);
	const struct sbx_tables *t = &r.config.tables;
	const uint64_t start_ns = r.now_ns;
	assert_int_equal(sbx_publish_wake_ns(r.publisher, &r.world), start_ns + S); /* idle: the heartbeat */
	sbx_health_on_start(r.world.health, t, 3, 2, UINT32_MAX, start_ns + 1);
	assert_int_equal(sbx_publish_wake_ns(r.publisher, &r.world), start_ns + SBX_PUBLISH_EVERY_NS);
	sbx_publish_turn(r.publisher, &r.world, start_ns + 1);
	assert_int_equal(sbx_board_target(r.board, 3, sbx_boot_ns(), &v), 0);
	assert_int_equal(v.in_flight, 0); /* too soon */
	sbx_publish_turn(r.publisher, &r.world, start_ns + SBX_PUBLISH_EVERY_NS);
	assert_int_equal(sbx_board_target(r.board, 3, sbx_boot_ns(), &v), 0);
	assert_int_equal(v.in_flight, 1);
	assert_int_equal(sbx_publish_wake_ns(r.publisher, &r.world), start_ns + S);
	world_rig_down(&r);
}

/* Nobody but the agent can write, grow or shrink it: not the same user, not through /proc. */
static void
sealed(void **state)
{
	struct world_rig r;
	char path[64];
	(void)state;
	world_rig_up(&r, NULL);
	int fd = sbx_publisher_fd(r.publisher);
	assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
	assert_int_equal(ftruncate(fd, 0), -1);
	assert_int_equal(ftruncate(fd, 1 << 20), -1);
	assert_int_equal(pwrite(fd, "x", 1, 0), -1);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
	(void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	int again = open(path, O_RDWR | O_CLOEXEC);
	if (again >= 0) {
		assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, again, 0), MAP_FAILED);
		(void)close(again);
	}
	assert_int_equal(mprotect((void *)(uintptr_t)r.board->base, 4096, PROT_READ | PROT_WRITE), -1);
	world_rig_down(&r);
}

/* A writer that is killed in the middle of a row: that row is unknown, the others are good, and nobody hangs. */
static void
killed_in_the_middle(void **state)
{
	size_t n;
	uint8_t *image = rig_image(&n);
	uint8_t *shared = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char got[200];
	int status;
	struct sbx_need need = SBX_NEED_INIT;
	(void)state;
	assert_true(shared != MAP_FAILED);
	memcpy(shared, image, n);
	const struct sbx_board b = check(shared, n);
	pid_t pid = fork();
	if (pid == 0) {
		struct sbx_board_hot *row = sbx_board_slot(shared, &b.hot, 1);
		(void)sbx_row_write_begin(&row->seq);
		__atomic_store_n(&row->in_flight, 5, __ATOMIC_RELAXED);
		(void)raise(SIGKILL);
		_exit(1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	need.route = 0;
	assert_string_equal(pick_text(&b, &need, 8, got, sizeof got), "one/a two/c lan/d one/b=unknown");
	(void)munmap(shared, n);
	free(image);
}

/* ---- the snapshot ---- */

static void
write_file(const char *path, const void *data, size_t n)
{
	(void)unlink(path);
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, n), n);
	assert_int_equal(close(fd), 0);
}

static void
snapshots(void **state)
{
	char dir[] = "/tmp/sbx-board-XXXXXX", path[64], why[300];
	struct world_rig r;
	struct sbx_board *b;
	struct stat st;
	size_t n;
	uint8_t *image = rig_image(&n);
	(void)state;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof path, "%s/board.snapshot", dir);
	assert_int_equal(sbx_board_load(path, &b, why, sizeof why), -SBX_ENOENT);
	world_rig_up(&r, path);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0440);
	sbx_publish_state(r.publisher, &r.world, SBX_BOARD_STOPPED, r.now_ns);
	assert_int_equal(sbx_board_load(path, &b, why, sizeof why), 0);
	assert_int_equal(sbx_board_probe(b, sbx_boot_ns() + 100 * S), SBX_LIFE_STOPPED);
	assert_int_equal(b->target.count, RIG_TARGETS);
	sbx_board_close(b);
	world_rig_down(&r);

	write_file(path, image, n - 1);
	assert_int_equal(sbx_board_load(path, &b, why, sizeof why), -SBX_EPROTO);
	assert_non_null(strstr(why, "cut short"));
	write_file(path, image, 0);
	assert_int_equal(sbx_board_load(path, &b, why, sizeof why), -SBX_EPROTO);
	image[8] = 2;
	write_file(path, image, n);
	assert_int_equal(sbx_board_load(path, &b, why, sizeof why), -SBX_EVERSION);
	(void)unlink(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(sbx_board_load(path, &b, why, sizeof why), -SBX_EPROTO); /* and it does not wait for a writer */
	(void)unlink(path);
	assert_int_equal(sbx_snapshot_write("/nonexistent/dir/board.snapshot", false, 0, image, n), -ENOENT);
	(void)rmdir(dir);
	free(image);
}

/* ---- the library's half of the hand-over ---- */

static int
count_fds(void)
{
	int n = 0;
	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* One client: HELLO is read, WELCOME goes out with these descriptors, then nothing until the client is gone. */
static void
serve_one(int listener, const int *fds, size_t n_fds)
{
	char in[256], control[256] = { 0 };
	struct sbx_buf frame;
	struct sbx_packer p;
	int c = accept(listener, NULL, NULL);
	if (c < 0 || read(c, in, sizeof in) <= 0)
		_exit(1);
	sbx_buf_init(&frame, 256);
	sbx_frame_begin(&p, &frame, SBX_FRAME_WELCOME, 0, 1);
	sbx_pack_uint(&p, "version", SBX_WIRE_VERSION);
	if (sbx_frame_end(&p))
		_exit(2);
	struct iovec iov = { frame.data, frame.n };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	if (n_fds) {
		m.msg_control = control;
		m.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		struct cmsghdr *h = CMSG_FIRSTHDR(&m);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(h), fds, n_fds * sizeof(int));
	}
	if (sendmsg(c, &m, 0) != (ssize_t)frame.n)
		_exit(3);
	sbx_buf_fini(&frame);
	(void)!read(c, in, sizeof in); /* its end */
	_exit(0);
}

static void
the_library_takes_one_descriptor(void **state)
{
	static const struct {
		const char *name;
		int n_fds, first; /* first: 0 = a board, 1 = not sealed, 2 = another version, 3 = /dev/null */
		int want;
	} cases[] = {
		{ "none", 0, 0, -SBX_ENOBOARD }, { "a board", 1, 0, 0 }, { "three, of which the first counts", 3, 0, 0 }, { "not sealed", 1, 1, -SBX_EPROTO },
		{ "another version", 1, 2, -SBX_EVERSION }, { "something else", 2, 3, -SBX_EPROTO },
	};
	char dir[] = "/tmp/sbx-board-XXXXXX";
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	(void)state;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(addr.sun_path, sizeof addr.sun_path, "%s/agent.sock", dir);
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&addr, sizeof addr), 0);
	assert_int_equal(listen(listener, 4), 0);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct sbx_open_options options = SBX_OPEN_OPTIONS_INIT;
		struct sbx_client *c;
		struct sbx_board *b = NULL;
		int status, fds[3];
		size_t n;
		uint8_t *image = rig_image(&n);
		image[8] = cases[i].first == 2 ? 2 : 1;
		for (int k = 0; k < 3; k++)
			fds[k] = cases[i].first == 3 ? open("/dev/null", O_RDONLY | O_CLOEXEC) : memory_of(image, n, cases[i].first == 1 ? 0 : F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE);
		pid_t pid = fork();
		if (pid == 0)
			serve_one(listener, fds, (size_t)cases[i].n_fds);
		const int before = count_fds();
		options.socket = addr.sun_path;
		assert_int_equal(sbx_open(&options, &c), 0);
		int rc = sbx_board(c, &b);
		if (rc != cases[i].want)
			fail_msg("%s: %d, %s", cases[i].name, rc, sbx_client_error(c));
		if (rc)
			assert_non_null(strstr(sbx_client_error(c), "no board"));
		assert_int_equal(count_fds(), before + 1); /* the connection: no descriptor of the board stays, none of the others was taken */
		sbx_close(c);
		if (rc == 0)
			assert_int_equal(b->target.count, RIG_TARGETS); /* outlives the handle */
		sbx_board_close(b);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
		for (int k = 0; k < 3; k++)
			(void)close(fds[k]);
		free(image);
	}
	(void)close(listener);
	(void)unlink(addr.sun_path);
	(void)rmdir(dir);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(golden_bytes),
		cmocka_unit_test(the_ladder),
		cmocka_unit_test(cut_short),
		cmocka_unit_test(descriptors),
		cmocka_unit_test(picks),
		cmocka_unit_test(whom_to_call_directly),
		cmocka_unit_test(no_system_call),
		cmocka_unit_test(the_board_agrees_with_the_gate),
		cmocka_unit_test(a_replaced_agent_leaves_the_snapshot_alone),
		cmocka_unit_test(how_often_rows_are_written),
		cmocka_unit_test(sealed),
		cmocka_unit_test(killed_in_the_middle),
		cmocka_unit_test(snapshots),
		cmocka_unit_test(the_library_takes_one_descriptor),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
