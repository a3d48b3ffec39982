/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_retry_after.c -- response headers as a provider may send them: lines "name: value", any bytes.
 *
 * Holds: an answer is -1 or within its limits, whatever our clock says; Retry-After beats resets; reading is the same wherever
 * the Date stands; nothing is read beyond a header's end (each is given in memory of its own length).
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "agent/core/retry_after.h"

#define NOW 1795458600ll
#define HEADERS_MAX 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check(int truth)
{
	if (!truth)
		abort();
}

static int64_t
ask(const struct sbx_retry_after *r, int64_t wall_unix_s)
{
	int64_t ns = sbx_retry_after_ns(r, wall_unix_s);
	check(ns >= -1 && ns <= SBX_RETRY_AFTER_MAX_NS);
	return ns;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const int64_t clocks[] = { 0, NOW - 3600, NOW, NOW + 3600, 253402300799ll };
	struct {
		char *at;
		size_t name_bytes, bytes;
	} header[HEADERS_MAX];
	size_t n = 0;

	for (size_t from = 0; from < size && n < HEADERS_MAX; n++) {
		const uint8_t *end = memchr(data + from, '\n', size - from);
		size_t bytes = end ? (size_t)(end - data) - from : size - from;
		const uint8_t *colon = bytes ? memchr(data + from, ':', bytes) : NULL;
		header[n].name_bytes = colon ? (size_t)(colon - data) - from : bytes;
		header[n].bytes = bytes;
		header[n].at = malloc(bytes ? bytes : 1);
		if (!header[n].at)
			abort();
		memcpy(header[n].at, data + from, bytes);
		from += bytes + 1;
	}
	for (size_t c = 0; c < sizeof clocks / sizeof clocks[0]; c++) {
		struct sbx_retry_after r, backwards;
		sbx_retry_after_init(&r);
		sbx_retry_after_init(&backwards);
		int n_dates = 0;
		for (size_t i = 0; i < n; i++)
			for (int k = 0; k < 2; k++) {
				size_t at = k ? n - 1 - i : i, skip = header[at].name_bytes + (header[at].name_bytes < header[at].bytes);
				struct sbx_span name = { header[at].at, header[at].name_bytes }, value = { header[at].at + skip, header[at].bytes - skip };
				sbx_retry_after_header(k ? &backwards : &r, name, value, clocks[c]);
				n_dates += k == 0 && name.n == 4 && strncasecmp(name.at, "date", 4) == 0;
			}
		int64_t ns = ask(&r, clocks[c]);
		(void)ask(&r, NOW);
		if (r.explicit_ns >= 0 || r.explicit_unix_ms >= 0) {
			check(ns >= r.explicit_ns);
			if (n_dates <= 1) /* of two Dates the last one counts: then the order matters */
				check(ask(&backwards, clocks[c]) == ns);
		}
		check(r.told_no_retry == backwards.told_no_retry);
		check(r.n_limits <= SBX_RETRY_AFTER_LIMITS_MAX);
	}
	while (n > 0)
		free(header[--n].at);
	return 0;
}
