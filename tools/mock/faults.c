/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parser of the fault language and of rules; see faults.h.
 *
 * Each word's kind, place in the struct and argument come out of MOCK_FAULTS;
 * one setter per kind does the rest.  An unknown word is an error that names
 * the nearest known one: a mistyped fault must never pass for a healthy answer.
 */
#include "tools/mock/faults.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORD_MAX 24                        /* longest word looked at for the nearest one */
#define COUNT_MAX ((int64_t)256 << 20)     /* bytes, events or tokens of one answer */
#define TIME_MAX_NS (86400ull * 1000000000ull) /* a day: "for ever" to any test */

enum kind { FLAG, COUNT, OPTIONAL, SIGNED, TIME, TEXT, CHOICE, HEADER };

struct word {
	const char *word;
	const char *arg;
	const char *help;
	size_t offset; /* of the member in struct mock_faults */
	enum kind kind;
};

static const struct word words[] = {
#define X(member, word, kind, arg, help) { word, arg, help, offsetof(struct mock_faults, member), kind },
	MOCK_FAULTS(X)
#undef X
};

#define N_WORDS (sizeof(words) / sizeof(words[0]))

/* Edit distance, for words of at most WORD_MAX characters. */
static size_t distance(const char *a, size_t na, const char *b, size_t nb)
{
	size_t row[WORD_MAX + 1];

	for (size_t j = 0; j <= nb; j++)
		row[j] = j;
	for (size_t i = 1; i <= na; i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= nb; j++) {
			size_t above = row[j];
			size_t best = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);

    if (above + 1 < best)
    best = above + 1;
    if (row[j - 1] + 1 < best)
    best = row[j - 1] + 1;
    row[j] = best;
    diagonal = above;
		}
	}
	return row[nb];
}

static const char *nearest(const char *text, size_t n)
{
	const char *best = words[0].word;
	size_t best_distance = SIZE_MAX;

	if (n > WORD_MAX)
		n = WORD_MAX;
	for (size_t i = 0; i < N_WORDS; i++) {
		size_t length = strlen(words[i].word);
		size_t d = distance(text, n, words[i].word, length < WORD_MAX ? length : WORD_MAX);

		if (d < best_distance) {
			best_distance = d;
			best = words[i].word;
		}
	}
	return best;
}

static void *xalloc(size_t n)
{
	void *p = calloc(1, n);

	if (p == NULL) {
		fputs("signalbox-mock: out of memory\n", stderr);
		exit(70);
	}
	return p;
}

static char *copy_of(const char *at, size_t n)
{
	char *p = xalloc(n + 1);

	memcpy(p, at, n);
	return p;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Undoes the backslashes of a value; the caller owns the result. */
static struct mock_text unescape(const char *at, size_t n)
{
	struct mock_text text = { .at = xalloc(n + 1) };

	for (size_t i = 0; i < n; i++) {
		char c = at[i];

		if (c == '\\' && i + 1 < n) {
			c = at[++i];
			if (c == 'n')
				c = '\n';
			else if (c == 'r')
				c = '\r';
			else if (c == 't')
				c = '\t';
			else if (c == '0')
				c = '\0';
			else if (c == 'x' && i + 2 < n && hex_digit(at[i + 1]) >= 0 && hex_digit(at[i + 2]) >= 0) {
				c = (char)(hex_digit(at[i + 1]) * 16 + hex_digit(at[i + 2]));
				i += 2;
			}
		}
		text.at[text.n++] = c;
	}
	return text;
}

/* Decimal digits at the front; -1 without any or above COUNT_MAX's reach. */
static int64_t digits(const char *at, size_t n, size_t *ret_used)
{
	int64_t v = 0;
	size_t i = 0;

	while (i < n && at[i] >= '0' && at[i] <= '9') {
		v = v * 10 + (at[i++] - '0');
		if (v > INT64_MAX / 16)
			return -1;
	}
	if (i == 0)
		return -1;
	*ret_used = i;
	return v;
}

static bool set_count(int64_t *member, const char *at, size_t n)
{
	size_t used;
	int64_t v = digits(at, n, &used);

	if (v < 0 || v > COUNT_MAX)
		return false;
	if (used + 1 == n && (at[used] == 'k' || at[used] == 'm'))
		v *= at[used] == 'k' ? 1 << 10 : 1 << 20;
	else if (used != n)
		return false;
	if (v > COUNT_MAX)
		return false;
	*member = v;
	return true;
}

static bool set_time(uint64_t *member, const char *at, size_t n)
{
	size_t used;
	int64_t v = digits(at, n, &used);
	uint64_t unit_ns;

	if (v < 0)
		return false;
	at += used;
	n -= used;
	if (n == 0 || (n == 2 && memcmp(at, "ms", 2) == 0))
		unit_ns = 1000000;
	else if (n == 2 && memcmp(at, "us", 2) == 0)
		unit_ns = 1000;
	else if (n == 1 && at[0] == 's')
		unit_ns = 1000000000;
	else
		return false;
	if ((uint64_t)v > TIME_MAX_NS / unit_ns)
		return false;
	*member = (uint64_t)v * unit_ns;
	return true;
}

static bool set_choice(int *member, const char *choices, const char *at, size_t n)
{
	int number = 1;

	for (;;) {
		size_t length = strcspn(choices, "|");

		if (length == n && memcmp(choices, at, n) == 0) {
			*member = number;
			return true;
		}
		if (choices[length] == '\0')
			return false;
		choices += length + 1;
		number++;
	}
}

static bool add_header(struct mock_faults *faults, const char *at, size_t n)
{
	const char *colon = memchr(at, ':', n);
	struct mock_fault_header *header;
	size_t n_name;

	if (colon == NULL || faults->n_headers == MOCK_FAULT_HEADERS_MAX)
		return false;
	n_name = (size_t)(colon - at);
	header = &faults->headers[faults->n_headers++];
	header->name = unescape(at, n_name);
	header->value = unescape(colon + 1, n - n_name - 1);
	return true;
}

static int set_word(struct mock_faults *faults, const struct word *word, const char *at, size_t n,
    char *error, size_t error_bytes)
{
	void *member = (char *)faults + word->offset;
	bool good = false;

	switch (word->kind) {
	case FLAG:
		good = at == NULL;
		*(bool *)member = good;
		break;
	case OPTIONAL:
		if (at == NULL)
			*(int64_t *)member = 1;
		good = at == NULL || set_count(member, at, n);
		break;
	case COUNT:
		good = at != NULL && set_count(member, at, n);
		break;
	case SIGNED:
		good = at != NULL && n > 1 && (at[0] == '+' || at[0] == '-') && set_count(member, at + 1, n - 1);
		if (good && at[0] == '-')
			*(int64_t *)member = -*(int64_t *)member;
		break;
	case TIME:
		good = at != NULL && set_time(member, at, n);
		break;
	case TEXT:
		good = at != NULL;
		if (good) {
			free(((struct mock_text *)member)->at);
			*(struct mock_text *)member = unescape(at, n);
		}
		break;
	case CHOICE:
		good = at != NULL && set_choice(member, word->arg, at, n);
		break;
	case HEADER:
		good = at != NULL && add_header(faults, at, n);
		break;
	}
	if (good)
		return 0;
	if (word->kind == FLAG)
		(void)snprintf(error, error_bytes, "fault '%s' takes no value", word->word);
	else
		(void)snprintf(error, error_bytes, "fault '%s' wants %s=%s, not '%.*s'", word->word, word->word,
		    word->arg, at == NULL ? 0 : (int)(n < 64 ? n : 64), at == NULL ? "" : at);
	return -1;
}

/* Rules between words. */
static int check_whole(const struct mock_faults *faults, char *error, size_t error_bytes)
{
	const char *sentence = NULL;

	if (faults->replay && faults->file.at == NULL)
		sentence = "fault 'replay' wants file=PATH beside it";
	else if (faults->status >= 0 && (faults->status < 200 || faults->status > 999))
		sentence = "fault 'status' wants a number from 200 to 999 (1xx=N makes interim responses)";
	else if (faults->big_headers > 1 << 20)
		sentence = "fault 'big-headers' goes up to 1m";
	else if (faults->choices == 0 || faults->choices > 128)
		sentence = "fault 'choices' wants a number from 1 to 128";
	else if (faults->tool > 64)
		sentence = "fault 'tool' goes up to 64";
	else if (faults->split == 0)
		sentence = "fault 'split' wants a number from 1";
	if (sentence == NULL)
		return 0;
	(void)snprintf(error, error_bytes, "%s", sentence);
	return -1;
}

void mock_faults_init(struct mock_faults *faults)
{
	memset(faults, 0, sizeof(*faults));
	for (size_t i = 0; i < N_WORDS; i++)
		if (words[i].kind == COUNT || words[i].kind == OPTIONAL)
			*(int64_t *)(void *)((char *)faults + words[i].offset) = -1;
}

void mock_faults_fini(struct mock_faults *faults)
{
	for (size_t i = 0; i < N_WORDS; i++)
		if (words[i].kind == TEXT)
			free(((struct mock_text *)(void *)((char *)faults + words[i].offset))->at);
	for (size_t i = 0; i < faults->n_headers; i++) {
		free(faults->headers[i].name.at);
		free(faults->headers[i].value.at);
	}
	free(faults->content.at);
	mock_faults_init(faults);
}

int mock_faults_parse(struct mock_faults *faults, const char *list, size_t n, char *error,
    size_t error_bytes)
{
	size_t i = 0;

	if (n > MOCK_FAULT_LIST_MAX) {
		(void)snprintf(error, error_bytes, "a list of faults has at most %d bytes", MOCK_FAULT_LIST_MAX);
		return -1;
	}
	while (i < n) {
		const struct word *word = NULL;
		const char *value = NULL;
		size_t start, n_word, end;

		while (i < n && (list[i] == ' ' || list[i] == '\t'))
			i++;
		start = i;
		while (i < n && list[i] != ',')
			i += list[i] == '\\' && i + 1 < n ? 2 : 1;
		end = i;
		i++; /* the comma */
		if (end == start) {
			if (end == n)
				break; /* blanks at the end */
			(void)snprintf(error, error_bytes, "an empty fault at byte %zu of the list", start);
			return -1;
		}
		value = memchr(list + start, '=', end - start);
		n_word = value == NULL ? end - start : (size_t)(value - list) - start;
		while (value == NULL && n_word > 0 && list[start + n_word - 1] == ' ')
			n_word--;
		for (size_t w = 0; w < N_WORDS && word == NULL; w++)
			if (strlen(words[w].word) == n_word && memcmp(words[w].word, list + start, n_word) == 0)
				word = &words[w];
		if (word == NULL) {
			(void)snprintf(error, error_bytes, "unknown fault '%.*s'; the nearest known word is '%s'",
			    (int)(n_word < 64 ? n_word : 64), list + start, nearest(list + start, n_word));
			return -1;
		}
		if (value != NULL)
			value++;
		if (set_word(faults, word, value, value == NULL ? 0 : (size_t)(list + end - value), error,
		    error_bytes) < 0)
			return -1;
	}
	return check_whole(faults, error, error_bytes);
}

void mock_faults_help(struct mock_bytes *out)
{
	for (size_t i = 0; i < N_WORDS; i++) {
		char left[64];
		bool bare = words[i].kind == FLAG || words[i].kind == OPTIONAL;

		(void)snprintf(left, sizeof(left), "%s%s%s", words[i].word, bare ? "" : "=", words[i].arg);
		mock_bytes_fmt(out, "  %-28s %s\n", left, words[i].help);
	}
}

const char *mock_faults_word(size_t i)
{
	return i < N_WORDS ? words[i].word : NULL;
}

struct mock_rule *mock_rule_new(const char *pattern, size_t n_pattern, const char *list, size_t n_list,
    char *error, size_t error_bytes)
{
	struct mock_rule *rule = xalloc(sizeof(*rule));

	rule->refs = 1;
	rule->pattern = copy_of(pattern, n_pattern);
	rule->list = copy_of(list, n_list);
	mock_faults_init(&rule->faults);
	if (mock_faults_parse(&rule->faults, list, n_list, error, error_bytes) < 0) {
		mock_rule_unref(rule);
		return NULL;
	}
	return rule;
}

struct mock_rule *mock_rule_parse(const char *line, size_t n, char *error, size_t error_bytes)
{
	size_t colon = 0;

	while (n > 0 && (line[0] == ' ' || line[0] == '\t')) {
		line++;
		n--;
	}
	while (n > 0 && strchr(" \t\r\n", line[n - 1]) != NULL)
		n--;
	/* model names may hold colons ("qwen:7b"): the one before a blank divides, else the last */
	for (size_t i = 0; i < n && line[i] != ' '; i++)
		if (line[i] == ':' && (i + 1 == n || line[i + 1] == ' '))
			colon = i;
	if (colon == 0)
		for (size_t i = 0; i < n && line[i] != '=' && line[i] != ','; i++)
			if (line[i] == ':')
				colon = i;
	if (colon == 0) {
		(void)snprintf(error, error_bytes, "a rule reads 'MODEL: FAULTS', not '%.*s'",
		    (int)(n < 64 ? n : 64), line);
		return NULL;
	}
	return mock_rule_new(line, colon, line + colon + 1, n - colon - 1, error, error_bytes);
}

void mock_rule_ref(struct mock_rule *rule)
{
	rule->refs++;
}

void mock_rule_unref(struct mock_rule *rule)
{
	if (rule == NULL || --rule->refs > 0)
		return;
	mock_faults_fini(&rule->faults);
	free(rule->pattern);
	free(rule->list);
	free(rule);
}

bool mock_rule_try(struct mock_rule *rule, const char *model, bool conn_reused, bool at_accept)
{
	const struct mock_faults *faults = &rule->faults;

	if (at_accept != (faults->accept_close || faults->no_read))
		return false;
	if (!at_accept) {
		if (strcmp(model, MOCK_WARM) == 0 ? strcmp(rule->pattern, model) != 0 : fnmatch(rule->pattern, model, 0) != 0)
			return false;
		if (faults->conn != 0 && (faults->conn == MOCK_CONN_REUSED) != conn_reused)
			return false;
	}
	rule->seen++;
	if (faults->skip >= 0 && rule->seen <= faults->skip)
		return false;
	if (faults->times >= 0 && rule->used >= faults->times)
		return false;
	rule->used++;
	return true;
}
