/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fault language and the rules of signalbox-mock, and that its manual
 * documents every word. The files under test are included: they belong to a
 * tool and to no library.
 */
#include "tools/mock/faults.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const struct {
	const char *list;
	const char *error; /* part of the sentence; NULL = parses */
} lists[] = {
	{ "", NULL },
	{ "  ", NULL },
	{ "status=429", NULL },
	{ "status=429, retry-after=2", NULL },
	{ "hang ", NULL },
	{ "tool", NULL },
	{ "tool=3", NULL },
	{ "cut=0", NULL },
	{ "line=17m", NULL },
	{ "header=A:b,header=C:d", NULL },
	{ "goaway=below", NULL },
	{ "wrong-length=-3", NULL },
	{ "replay,file=/x", NULL },
	{ "statsu=500", "nearest known word is 'status'" },
	{ "cut-token=5", "nearest known word is 'cut-tokens'" },
	{ "rety-after=2", "nearest known word is 'retry-after'" },
	{ "a-word-that-is-much-longer-than-any-other-word-here=1", "unknown fault" },
	{ "=3", "unknown fault ''" },
	{ "hang=1", "takes no value" },
	{ "status", "wants status=N" },
	{ "status=", "wants status=N" },
	{ "status=abc", "wants status=N" },
	{ "status=-1", "wants status=N" },
	{ "status=99999999999999999999", "wants status=N" },
	{ "status=101", "200 to 999" },
	{ "line=999m", "wants line=BYTES" },
	{ "gap=5x", "wants gap=TIME" },
	{ "gap=ms", "wants gap=TIME" },
	{ "gap=99999999s", "wants gap=TIME" },
	{ "wrong-length=3", "wants wrong-length=+N|-N" },
	{ "usage=lots", "wants usage=none|zero|double|always|cumulative, not 'lots'" },
	{ "header=nocolon", "wants header=NAME:VALUE" },
	{ "hang,,hang", "an empty fault" },
	{ "replay", "wants file=PATH" },
	{ "split=0", "from 1" },
	{ "choices=0", "from 1 to 128" },
};

static void test_lists(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		struct mock_faults faults;
		char error[256] = "";
		int rc;

		mock_faults_init(&faults);
		rc = mock_faults_parse(&faults, lists[i].list, strlen(lists[i].list), error, sizeof(error));
		if ((rc == 0) != (lists[i].error == NULL) || (rc < 0 && strstr(error, lists[i].error) == NULL))
			fail_msg("'%s': got '%s', want '%s'", lists[i].list, error, lists[i].error ? lists[i].error : "");
		mock_faults_fini(&faults);
	}
}

static void test_values(void **state)
{
	static const char list[] = "status=503,gap=20ms,first=2s,drip=7,comments=50us,cut=4k,wrong-length=-3,usage=double,"
				   "text=a\\, b\\n\\x41\\\\,header=X-A: v=1,tool,header=Y:\\x00,goaway=above";
	struct mock_faults faults;
	char error[256];

	(void)state;
	mock_faults_init(&faults);
	assert_int_equal(faults.cut_tokens, -1);
	assert_int_equal(mock_faults_parse(&faults, list, sizeof(list) - 1, error, sizeof(error)), 0);
	assert_int_equal(faults.status, 503);
	assert_int_equal(faults.gap, 20000000);
	assert_int_equal(faults.first, 2000000000);
	assert_int_equal(faults.drip, 7000000);
	assert_int_equal(faults.comments, 50000);
	assert_int_equal(faults.cut, 4096);
	assert_int_equal(faults.wrong_length, -3);
	assert_int_equal(faults.usage, MOCK_USAGE_DOUBLE);
	assert_int_equal(faults.goaway, MOCK_GOAWAY_ABOVE);
	assert_int_equal(faults.tool, 1);
	assert_int_equal(faults.cut_tokens, -1);
	assert_string_equal(faults.text.at, "a, b\nA\\");
	assert_int_equal(faults.n_headers, 2);
	assert_string_equal(faults.headers[0].name.at, "X-A");
	assert_string_equal(faults.headers[0].value.at, " v=1");
	assert_int_equal(faults.headers[1].value.n, 1);
	mock_faults_fini(&faults);
}

/* Any prefix of a list parses or is refused with a sentence; nothing leaks (the sanitizer looks). */
static void test_prefixes(void **state)
{
	static const char list[] = "status=503,gap=20ms,text=a\\,\\x4,header=X:y,wrong-length=+5,usage=none,tool=2,replay,file=x";

	(void)state;
	for (size_t n = 0; n < sizeof(list); n++) {
		struct mock_faults faults;
		char error[256] = "";

		mock_faults_init(&faults);
		if (mock_faults_parse(&faults, list, n, error, sizeof(error)) < 0)
			assert_true(error[0] != '\0');
		mock_faults_fini(&faults);
	}
}

static const struct {
	const char *line, *pattern; /* pattern NULL = refused */
} rule_lines[] = {
	{ "m: status=500", "m" },
	{ "  m*:hang  \n", "m*" },
	{ "qwen:7b: hang", "qwen:7b" },
	{ "m: header=X: y", "m" },
	{ "m:", "m" },
	{ "*: ", "*" },
	{ "status=500", NULL },
	{ "", NULL },
	{ ": hang", NULL },
	{ "m: nonsense", NULL },
};

static void test_rule_lines(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(rule_lines) / sizeof(rule_lines[0]); i++) {
		char error[256] = "";
		struct mock_rule *rule = mock_rule_parse(rule_lines[i].line, strlen(rule_lines[i].line), error, sizeof(error));

		if ((rule == NULL) != (rule_lines[i].pattern == NULL))
			fail_msg("'%s': %s", rule_lines[i].line, error);
		if (rule != NULL)
			assert_string_equal(rule->pattern, rule_lines[i].pattern);
		mock_rule_unref(rule);
	}
}

/* skip, times, conn and accept-close: which of ten requests are taken. */
static const struct {
	const char *line, *model;
	bool reused, at_accept;
	const char *taken; /* of ten tries: x = taken */
} tries[] = {
	{ "m: hang", "m", false, false, "xxxxxxxxxx" },
	{ "m: hang", "n", false, false, ".........." },
	{ "m*: hang", "mn", false, false, "xxxxxxxxxx" },
	{ "*: hang", "/models", false, false, "xxxxxxxxxx" },
	{ "m: times=2", "m", false, false, "xx........" },
	{ "m: skip=3", "m", false, false, "...xxxxxxx" },
	{ "m: skip=3,times=2", "m", false, false, "...xx....." },
	{ "m: times=0", "m", false, false, ".........." },
	{ "m: conn=reused", "m", false, false, ".........." },
	{ "m: conn=reused", "m", true, false, "xxxxxxxxxx" },
	{ "m: conn=new,times=1", "m", false, false, "x........." },
	{ "m: accept-close", "m", false, false, ".........." },
	{ "m: accept-close,times=1", "", false, true, "x........." },
	{ "m: hang", "m", false, true, ".........." },
};

static void test_tries(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(tries) / sizeof(tries[0]); i++) {
		char error[256], taken[11] = "";
		struct mock_rule *rule = mock_rule_parse(tries[i].line, strlen(tries[i].line), error, sizeof(error));

		assert_non_null(rule);
		for (int n = 0; n < 10; n++)
			taken[n] = mock_rule_try(rule, tries[i].model, tries[i].reused, tries[i].at_accept) ? 'x' : '.';
		if (strcmp(taken, tries[i].taken) != 0)
			fail_msg("'%s' for '%s': %s, want %s", tries[i].line, tries[i].model, taken, tries[i].taken);
		mock_rule_unref(rule);
	}
}

/* The manual has a paragraph for every word of the table (run from the top of the tree). */
static void test_manual(void **state)
{
	FILE *file = fopen("tools/mock/signalbox-mock.1", "re");
	static char text[1 << 16];
	const char *word;
	size_t n;

	(void)state;
	if (file == NULL)
		skip();
	n = fread(text, 1, sizeof(text) - 1, file);
	(void)fclose(file);
	text[n] = '\0';
	for (size_t i = 0; (word = mock_faults_word(i)) != NULL; i++) {
		char want[64] = "\n.B ";
		size_t at = 4, found = 0;

		for (; *word != '\0' && at < sizeof(want) - 3; word++) {
			if (*word == '-')
				want[at++] = '\\';
			want[at++] = *word;
		}
		want[at] = '\0';
		for (const char *p = strstr(text, want); p != NULL; p = strstr(p + 1, want))
			found += strchr("=[\n", p[at]) != NULL;
		if (found == 0)
			fail_msg("the manual lacks '%s'", mock_faults_word(i));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lists),	     cmocka_unit_test(test_values), cmocka_unit_test(test_prefixes),
		cmocka_unit_test(test_rule_lines), cmocka_unit_test(test_tries),  cmocka_unit_test(test_manual),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
