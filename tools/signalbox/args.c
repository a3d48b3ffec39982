/* SPDX-License-Identifier: Apache-2.0 */
/* args.c -- arguments: mistakes and how they are told. See cli.h. */
#include "tools/signalbox/cli.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WORD_MAX_BYTES 32 /* longer ones are near to nothing */

int
usage(const char *command, const char *fmt, ...)
{
	va_list ap;
	(void)fprintf(stderr, "signalbox%s%s: ", command[0] ? " " : "", command);
	va_start(ap, fmt);
	(void)vfprintf(stderr, fmt, ap);
	va_end(ap);
	(void)fprintf(stderr, "\nsee: signalbox%s%s --help\n", command[0] ? " " : "", command);
	return CLI_USAGE;
}

bool
parse_seconds(const char *text, uint32_t max_ms, uint32_t *ret_ms)
{
	char *end;
	errno = 0;
	double seconds = strtod(text, &end);
	if (errno || end == text || *end || !isfinite(seconds) || seconds * 1000 < 1 || seconds * 1000 > max_ms)
		return false;
	*ret_ms = (uint32_t)(seconds * 1000);
	return true;
}

bool
parse_span(const char *text, uint64_t *ret_ms)
{
	static const struct {
		char unit;
		uint64_t ms;
	} units[] = { { 's', 1000 }, { 'm', 60000 }, { 'h', 3600000 }, { 'd', 86400000 }, { 'w', 604800000 } };
	size_t n = strspn(text, "0123456789");
	if (n == 0 || n > 9 || !text[n] || text[n + 1])
		return false;
	for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
		if (text[n] == units[i].unit) {
			*ret_ms = strtoull(text, NULL, 10) * units[i].ms;
			return true;
		}
	return false;
}

bool
parse_date(const char *text, uint64_t *ret_unix_ms)
{
	struct tm tm = { 0 }, same;
	const char *end = strptime(text, "%Y-%m-%d", &tm);
	if (end && (*end == 'T' || *end == ' '))
		end = strptime(end + 1, "%H:%M", &tm);
	if (!end || *end)
		return false;
	same = tm;
	time_t t = timegm(&same);
	if (t < 0 || same.tm_mday != tm.tm_mday || same.tm_mon != tm.tm_mon)
		return false;
	*ret_unix_ms = (uint64_t)t * 1000;
	return true;
}

/* Levenshtein's distance; both words at most WORD_MAX_BYTES long. */
static size_t
distance(const char *a, const char *b)
{
	size_t row[WORD_MAX_BYTES + 1], n_b = strlen(b);
	for (size_t j = 0; j <= n_b; j++)
		row[j] = j;
	for (size_t i = 1; a[i - 1]; i++) {
		size_t diagonal = row[0];
		row[0] = i;
		for (size_t j = 1; j <= n_b; j++) {
			size_t change = diagonal + (a[i - 1] != b[j - 1]);
			diagonal = row[j];
			size_t skip = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
			row[j] = change < skip ? change : skip;
		}
	}
	return row[n_b];
}

const char *
nearest_word(const char *word, const char *const *words)
{
	const char *best = NULL;
	size_t best_distance = 4; /* three slips at most, and fewer than the word has letters */
	if (strlen(word) > WORD_MAX_BYTES)
		return NULL;
	for (; *words; words++) {
		size_t d = distance(word, *words);
		if (d < best_distance && d < strlen(word)) {
			best = *words;
			best_distance = d;
		}
	}
	return best;
}

void *
must(void *memory)
{
	if (!memory) {
		(void)fputs("signalbox: out of memory\n", stderr);
		exit(CLI_FAILED);
	}
	return memory;
}
