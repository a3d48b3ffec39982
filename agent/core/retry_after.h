/* SPDX-License-Identifier: Apache-2.0 */
/*
 * retry_after.h -- when may we ask again? Every form in which providers say it, as one relative time.
 *
 * Feed each response header as it comes, in any order; ask at the end. Two families, any number of headers each:
 *
 *   explicit   retry-after: seconds (also with a fraction) or an HTTP-date; retry-after-ms, x-ms-retry-after-ms
 *   resets     x-ratelimit-reset[-WHAT], ratelimit-reset, anthropic-ratelimit-WHAT-reset: when a limit starts afresh. One counts
 *              only where the `remaining` of the same limit is 0 or not given: on every good answer of OpenAI the minute's limit
 *              has a reset, and nobody has to wait for it
 *
 * The longest explicit one holds; only without any, the longest reset. A value is, whatever its header:
 *   "20", "1.5"              seconds (milliseconds where the header's name ends in -ms)
 *   "1796000000"             unix seconds (or with 13 digits milliseconds), as it lies after 2017; "1000000000" is still a wait
 *   "6m0s", "2m59.56s", "120ms"                    a Go duration
 *   "2026-11-23T18:30:00Z"                         RFC 3339
 *   "Mon, 23 Nov 2026 18:30:00 GMT" and the two older forms of HTTP-date
 * Points in time are taken relative to the response's own Date, so that a wrong clock on either side does not matter; without
 * one, relative to our clock. A past one is 0. Garbage, negative numbers, "nan", "1e9" count as not said. x-should-retry: false
 * is kept beside.
 */
#ifndef SBX_AGENT_CORE_RETRY_AFTER_H
#define SBX_AGENT_CORE_RETRY_AFTER_H

#include <stdbool.h>
#include <stdint.h>

#include "client/span.h"

#define SBX_RETRY_AFTER_MAX_NS (30ll * 86400 * 1000000000) /* what is longer is cut to this: no request and no table waits a month */
#define SBX_RETRY_AFTER_LIMITS_MAX 8 /* limits with a reset in one answer (Anthropic has 4); further ones are ignored */

struct sbx_retry_after {
	int64_t explicit_ns;      /* longest relative one of its family; -1 = none */
	int64_t explicit_unix_ms; /* latest point in time of its family; -1 = none */
	int64_t skew_ms;          /* the server's clock minus ours, by Date; 0 without one */
	struct {
		uint32_t what;        /* hash of the limit's name */
		bool left;            /* remaining is above 0 */
		int64_t ns, unix_ms;  /* its reset, as above; both -1 = not given */
	} limit[SBX_RETRY_AFTER_LIMITS_MAX];
	uint8_t n_limits;
	bool told_no_retry;       /* x-should-retry: false */
};
void sbx_retry_after_init(struct sbx_retry_after *r);
/* wall_unix_s: our clock, when the header came and when it is asked for. Names in any case; a value may have blanks around. */
void sbx_retry_after_header(struct sbx_retry_after *r, struct sbx_span name, struct sbx_span value, int64_t wall_unix_s);
int64_t sbx_retry_after_ns(const struct sbx_retry_after *r, int64_t wall_unix_s); /* -1 = not said; else 0 to SBX_RETRY_AFTER_MAX_NS */

#endif
