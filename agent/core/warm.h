/* SPDX-License-Identifier: Apache-2.0 */
/*
 * warm.h -- when to open connections ahead of need: one row for each provider, judged by a clock that is an argument.
 *
 * A round is so many warm-ups of one provider at the same time, each a request that costs nothing: side by side they take what
 * idle connections there are, which keeps those, and open what is missing. When is a round due?
 *
 *   a provider in routes    once after the start or a reload, and again until one went well
 *   a provider in use       every `every_ns`, a little early by chance, until `after_use_ns` have passed since its last use
 *   any other               never
 *
 * A round in which nothing went well doubles the time to the next, up to SBX_WARM_REST_MAX_NS: what is broken is not hammered, however
 * much it is asked for. Whether a provider may be asked at all just now (its breaker, its throttle) is for the caller to know: it
 * takes a round and passes it.
 */
#ifndef SBX_AGENT_CORE_WARM_H
#define SBX_AGENT_CORE_WARM_H

#include <stdbool.h>
#include <stdint.h>

#define SBX_WARM_AT_ONCE     4              /* warm-ups under way, of all providers: a TLS handshake takes 2 ms of the loop */
#define SBX_WARM_REST_MAX_NS 60000000000ull /* longest time between rounds of a provider that is broken: it may come back */
#define SBX_WARM_FIRST_NS    1000000000ull  /* after the first use: by then that request's own connection may be idle again */

struct sbx_warm;

/* What a round's end changed, so that it is told once. */
enum sbx_warm_change { SBX_WARM_AS_BEFORE, SBX_WARM_BROKE, SBX_WARM_HEALED };

/* Rows for n providers, all at rest. NULL on no memory. */
struct sbx_warm *sbx_warm_new(uint32_t n_rows, uint64_t seed);
void sbx_warm_free(struct sbx_warm *w); /* NULL is fine */
/* connections: of a round, at most SBX_WARM_AT_ONCE; 0 = this row is never warmed. owed_ns: when its first round is due, UINT64_MAX = not
 * before it is used. Once per row. */
void sbx_warm_set(struct sbx_warm *w, uint32_t row, uint32_t connections, uint64_t every_ns, uint64_t after_use_ns, uint64_t owed_ns);
/* After a reload: the use that row `from` of `old` saw counts for row `to`. After sbx_warm_set(). */
void sbx_warm_carry(struct sbx_warm *w, uint32_t to, const struct sbx_warm *old, uint32_t from, uint64_t now_ns);

/* A request goes to this provider. true = that made a round due where none was; look at sbx_warm_next_ns() again. */
bool sbx_warm_on_use(struct sbx_warm *w, uint32_t row, uint64_t now_ns);

/* Takes the round that has been due for longest, if all of its warm-ups are within `room`. false: none. The caller starts
 * *ret_connections warm-ups and reports the end of each, or passes the round. */
bool sbx_warm_take(struct sbx_warm *w, uint32_t room, uint64_t now_ns, uint32_t *ret_row, uint32_t *ret_connections);
void sbx_warm_pass(struct sbx_warm *w, uint32_t row, uint64_t now_ns);
enum sbx_warm_change sbx_warm_on_end(struct sbx_warm *w, uint32_t row, bool good, uint64_t now_ns);

/* When sbx_warm_take() with this room will have something; UINT64_MAX = not by time alone. */
uint64_t sbx_warm_next_ns(const struct sbx_warm *w, uint32_t room);

#endif
