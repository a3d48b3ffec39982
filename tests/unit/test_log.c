/* SPDX-License-Identifier: Apache-2.0 */
/* test_log.c -- agent/log: the form of lines, what is kept out of them, the rate. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/keys.h"
#include "agent/log.h"

#define S UINT64_C(1000000000)

static uint64_t mono;
static int ends[2];
static char got[1 << 17];

static uint64_t
fake_mono(void)
{
	return mono;
}

static uint64_t
fake_wall(void)
{
	return UINT64_C(1772366400) * S + 123456789;
}

static int
setup(void **state)
{
	(void)state;
	mono = 100 * S;
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
		return -1;
	struct sbx_log_opts o = sbx_log_default();
	o.fd = ends[1];
	o.level = SBX_LOG_INFO;
	o.journal = false;
	o.wall_ns = fake_wall;
	o.mono_ns = fake_mono;
	sbx_log_init(&o);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	close(ends[0]);
	close(ends[1]);
	struct sbx_log_opts o = sbx_log_default();
	sbx_log_init(&o);
	return 0;
}

/* What was written since the last call. */
static const char *
take(void)
{
	ssize_t n = read(ends[0], got, sizeof got - 1);
	got[n > 0 ? n : 0] = '\0';
	return got;
}

static size_t
lines(const char *text)
{
	size_t n = 0;
	for (; *text; text++)
		n += *text == '\n';
	return n;
}

static void
test_form(void **state)
{
	(void)state;
	sbx_log(SBX_LOG_WARNING, "provider_disabled", SBX_STR("provider", "openai"), SBX_INT("line", -12), SBX_UINT("n", UINT64_MAX),
	        SBX_BOOL("ok", true), SBX_BOOL("no", false), SBX_NS("took", 1234567), SBX_ERRNO_F("err", -ECONNRESET), SBX_ERRNO_F("e2", 99999));
	assert_string_equal(take(), "2026-03-01T12:00:00.123Z level=warning event=provider_disabled provider=openai line=-12 "
	                            "n=18446744073709551615 ok=true no=false took=1.234ms err=ECONNRESET e2=99999\n");
	sbx_log(SBX_LOG_INFO, "bare", );
	assert_string_equal(take(), "2026-03-01T12:00:00.123Z level=info event=bare\n");
	sbx_log(SBX_LOG_INFO, "absent", SBX_STR("a", (const char *)NULL), SBX_STR("b", ""));
	assert_string_equal(take(), "2026-03-01T12:00:00.123Z level=info event=absent b=\"\"\n");
}

static void
test_values(void **state)
{
	(void)state;
	static const struct {
		const char *value, *want;
	} cases[] = {
		{ "plain/value-1.2:3", "plain/value-1.2:3" }, { "two words", "\"two words\"" }, { "a=b", "\"a=b\"" },
		{ "say \"x\"\\", "\"say \\\"x\\\"\\\\\"" }, { "line\nevent=fake", "\"line\\nevent=fake\"" }, { "\x1b[31m", "\"\\x1b[31m\"" },
		{ "\xc2\x9b", "\"\\xc2\\x9b\"" }, { "\r\t\x7f", "\"\\x0d\\x09\\x7f\"" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char want[128];
		sbx_log(SBX_LOG_INFO, "v", SBX_STR("v", cases[i].value));
		snprintf(want, sizeof want, "2026-03-01T12:00:00.123Z level=info event=v v=%s\n", cases[i].want);
		assert_string_equal(take(), want);
	}
	sbx_log(SBX_LOG_INFO, "v", SBX_STRN("v", "a\0b", 3));
	assert_non_null(strstr(take(), "v=\"a\\x00b\""));
}

static void
test_lengths(void **state)
{
	(void)state;
	char big[9000];
	memset(big, 'x', sizeof big);
	sbx_log(SBX_LOG_INFO, "big", SBX_STRN("v", big, sizeof big), SBX_INT("after", 1));
	const char *line = take();
	assert_true(strlen(line) < SBX_LOG_VALUE_MAX_BYTES + 100);
	assert_non_null(strstr(line, "xxx...\" after=1\n"));
	memset(big, 1, sizeof big); /* four characters each */
	sbx_log(SBX_LOG_INFO, "bigger", SBX_STRN("a", big, 9000), SBX_STRN("b", big, 9000), SBX_STRN("c", big, 9000));
	line = take();
	size_t n = strlen(line);
	assert_true(n <= SBX_LOG_LINE_MAX_BYTES);
	assert_string_equal(line + n - 5, " ...\n");
	assert_int_equal(lines(line), 1);
}

static void
test_secrets(void **state)
{
	(void)state;
	struct sbx_secret *s = NULL;
	assert_int_equal(sbx_secret_new("sk-secret-0123456789", 20, &s), 0);
	sbx_log(SBX_LOG_ERROR, "leak", SBX_STR("v", "sk-secret-0123456789"), SBX_STR("w", "got sk-secret-0123456789 from us"));
	const char *line = take();
	assert_null(strstr(line, "secret"));
	assert_non_null(strstr(line, sbx_secret_fingerprint(s)));
	/* where a cut would go through it */
	char text[1024];
	memset(text, 'x', sizeof text);
	for (size_t at = SBX_LOG_VALUE_MAX_BYTES - 21; at <= SBX_LOG_VALUE_MAX_BYTES; at++) {
		mono += S;
		memset(text, 'x', sizeof text);
		memcpy(text + at, "sk-secret-0123456789", 20);
		sbx_log(SBX_LOG_ERROR, "leak", SBX_STRN("v", text, sizeof text));
		line = take();
		assert_null(strstr(line, "sk-"));
	}
	sbx_secret_put(s);
}

static void
test_levels(void **state)
{
	(void)state;
	sbx_log(SBX_LOG_DEBUG, "quiet", SBX_INT("a", 1));
	assert_string_equal(take(), "");
	sbx_log_set_level(SBX_LOG_DEBUG);
	sbx_log(SBX_LOG_DEBUG, "quiet", SBX_INT("a", 1));
	assert_int_equal(lines(take()), 1);
	sbx_log_set_level(SBX_LOG_ERROR);
	assert_true(sbx_log_wants(SBX_LOG_ERROR));
	assert_false(sbx_log_wants(SBX_LOG_WARNING));
	static const char *const words[] = { "error", "warning", "notice", "info", "debug" };
	enum sbx_log_level level = SBX_LOG_INFO;
	for (int i = 0; i < 5; i++) {
		assert_int_equal(sbx_log_level_parse(words[i], &level), 0);
		assert_int_equal((int)level, 3 + i);
	}
	assert_int_equal(sbx_log_level_parse("loud", &level), -1);
	assert_int_equal((int)level, SBX_LOG_DEBUG);
}

static void
test_rate(void **state)
{
	(void)state;
	for (int i = 0; i < 100; i++)
		sbx_log(SBX_LOG_INFO, "storm", SBX_INT("i", i));
	sbx_log(SBX_LOG_INFO, "calm", SBX_INT("i", 1)); /* others are not held back with it */
	const char *text = take();
	assert_int_equal(lines(text), SBX_LOG_RATE + 1);
	assert_non_null(strstr(text, "event=calm"));
	sbx_log_tick(false); /* its second is not over */
	assert_string_equal(take(), "");
	mono += S;
	sbx_log_tick(false);
	assert_non_null(strstr(take(), "level=notice event=log_held_back of=storm lines=80\n"));
	sbx_log_tick(true);
	assert_string_equal(take(), "");
	for (int i = 0; i < 21; i++)
		sbx_log(SBX_LOG_INFO, "storm", SBX_INT("i", i));
	take();
	mono += S;
	sbx_log(SBX_LOG_INFO, "storm", SBX_INT("i", 7)); /* or the next line of the event tells */
	text = take();
	assert_int_equal(lines(text), 2);
	assert_non_null(strstr(text, "of=storm lines=1\n"));
	/* more names than are counted apart share one counter, and nothing breaks */
	static char names[200][16];
	for (int i = 0; i < 200; i++) {
		snprintf(names[i], sizeof names[i], "e%d", i);
		sbx_log(SBX_LOG_INFO, names[i], SBX_INT("i", i));
	}
	assert_true(lines(take()) >= 96);
	sbx_log_tick(true);
	assert_non_null(strstr(take(), "of=other"));
}

static void
test_nobody_reads(void **state)
{
	(void)state;
	char fill[4096];
	memset(fill, 'f', sizeof fill);
	while (write(ends[1], fill, sizeof fill) > 0)
		;
	assert_int_equal(fcntl(ends[1], F_SETFL, 0), 0); /* from here on a write would hang */
	alarm(10);
	errno = 1234;
	sbx_log(SBX_LOG_INFO, "lost", SBX_INT("i", 1)); /* returns */
	assert_int_equal(errno, 1234);
	sbx_log(SBX_LOG_INFO, "lost", SBX_INT("i", 2));
	alarm(0);
	assert_int_equal(sbx_log_dropped(), 2);
	while (read(ends[0], got, sizeof got) > 0)
		;
	sbx_log(SBX_LOG_INFO, "back", SBX_INT("i", 3));
	const char *text = take();
	assert_non_null(strstr(text, "level=warning event=log_lines_lost lines=2\n"));
	assert_non_null(strstr(text, "event=back i=3\n"));
	close(ends[0]);
	sbx_log(SBX_LOG_INFO, "nobody", SBX_INT("i", 3)); /* no SIGPIPE */
	assert_true(sbx_log_dropped() > 2);
	ends[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void
test_journal(void **state)
{
	(void)state;
	char value[64];
	struct stat st;
	assert_int_equal(fstat(STDERR_FILENO, &st), 0);
	snprintf(value, sizeof value, "%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
	setenv("JOURNAL_STREAM", value, 1);
	struct sbx_log_opts o = sbx_log_default();
	assert_true(o.journal);
	o.fd = ends[1];
	sbx_log_init(&o);
	sbx_log(SBX_LOG_ERROR, "x", SBX_INT("i", 1));
	assert_string_equal(take(), "<3>level=error event=x i=1\n");
	static const char *const others[] = { "1:2", "", "x" };
	for (size_t i = 0; i < 3; i++) {
		setenv("JOURNAL_STREAM", others[i], 1);
		assert_false(sbx_log_default().journal);
	}
	unsetenv("JOURNAL_STREAM");
	assert_false(sbx_log_default().journal);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int
main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(test_form), TEST(test_values), TEST(test_lengths), TEST(test_secrets), TEST(test_levels),
		TEST(test_rate), TEST(test_nobody_reads), TEST(test_journal),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
