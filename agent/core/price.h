/* SPDX-License-Identifier: Apache-2.0 */
/*
 * price.h -- what something costs: which prices are in force, when they change, and the exact sum.
 *
 * Money is int64 nano-USD. Amounts of all kinds are multiplied with their prices and summed in 128 bits, divided by a million
 * once and rounded up once; there is no floating point. One function (sbx_price_cost) prices both what was used and what may
 * be used at most, so that a reservation and the bill for it cannot disagree about a price.
 *
 * What cannot be told is told apart, and never 0: no price (UNPRICED), a price but no figures (NO_USAGE), a request whose use
 * has no upper bound (UNBOUNDED), a sum beyond 9.2 billion USD (TOO_LARGE: the figures are wrong).
 *
 * Pure: the wall clock is an argument.
 */
#ifndef SBX_AGENT_CORE_PRICE_H
#define SBX_AGENT_CORE_PRICE_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/core/facts.h"
#include "agent/dialect/hub.h"

#define SBX_COST_STATUSES(X)                                                                                                   \
	X(KNOWN, NULL)                                                                                                         \
	X(UNPRICED, "unpriced")   /* no price is known for this model now, or for one of the kinds used */                     \
	X(NO_USAGE, "no_usage")   /* it may have been billed, but nobody said how much was used */                             \
	X(UNBOUNDED, "unbounded") /* estimates only: neither the request nor the model limits it */                            \
	X(TOO_LARGE, "too_large") /* beyond int64 nano-USD */
enum sbx_cost_status {
#define X(name, word) SBX_COST_##name,
	SBX_COST_STATUSES(X)
#undef X
};
const char *sbx_cost_status_word(enum sbx_cost_status s); /* NULL for KNOWN */

/* ---- which prices ---- */

/* The prices in force: of one row, at one time. Points into the facts. */
struct sbx_price {
	const struct sbx_price_row *row;
	const struct sbx_price_tier *tier; /* n_tiers of them, in the order of their bounds */
	uint32_t n_tiers;
};
/* false, and nothing written: no row of this model (NULL: unknown) is valid then. */
bool sbx_price_at(const struct sbx_facts *facts, const struct sbx_model *m, int64_t unix_s, struct sbx_price *ret_price);
/* The first instant after unix_s at which other prices come into force, or none any more; SBX_PRICE_FOREVER if none is known. */
int64_t sbx_price_next_change(const struct sbx_facts *facts, const struct sbx_model *m, int64_t unix_s);
/* Nano-USD per million, for a prompt of so many tokens; what is charged in its place where the kind has none of its own;
 * SBX_PRICE_NONE. */
int64_t sbx_price_of(const struct sbx_price *p, enum sbx_price_kind kind, uint64_t prompt_tokens);
/* The instant at which a day of the Gregorian calendar begins in UTC. */
int64_t sbx_price_date(int64_t year, int month, int day);
/* One figure to put offers of the same model in order: a request that reads three times what it writes. INT64_MAX without a
 * price. */
int64_t sbx_price_rank(const struct sbx_facts *facts, const struct sbx_model *m, int64_t unix_s);

/* ---- how much of what ---- */

struct sbx_amounts {
	uint64_t n[SBX_PRICE__COUNT]; /* disjoint: a cached token is not input as well */
	uint64_t prompt_tokens;       /* decides the tier: all that was read, from the cache too */
};
/* false: the figures do not say what was used. Figures that contradict each other are cut so that nothing is counted twice. */
bool sbx_amounts_of_usage(const struct sbx_usage *u, struct sbx_amounts *ret_amounts);

/* ---- what it costs ---- */

/* ret_nanousd is written on KNOWN only. */
enum sbx_cost_status sbx_price_cost(const struct sbx_price *p, const struct sbx_amounts *a, int64_t *ret_nanousd);

/* A request before it is sent. */
struct sbx_estimate {
	uint64_t body_bytes;
	int64_t max_tokens;           /* of one answer; -1 = the request does not say */
	uint32_t choices;
	bool has_images;              /* or anything else whose tokens are not bounded by its bytes */
};
/* The most that it can cost at these prices. No tokeniser: a token stands for at least one byte, and a model reads no more than
 * its context and writes no more than its maximum. ret_nanousd and ret_amounts (may be NULL) are written on KNOWN only. */
enum sbx_cost_status sbx_price_estimate(const struct sbx_price *p, const struct sbx_model *m, const struct sbx_estimate *e,
                                        struct sbx_amounts *ret_amounts, int64_t *ret_nanousd);

#endif
