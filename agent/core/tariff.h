/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tariff.h -- what one model costs now, what it will cost next and when: three figures that are remembered until they end.
 *
 * Reading the catalog's rows and windows takes up to some microseconds, and its answer holds for hours. Whoever needs it all the time
 * (the board, for every target) keeps one of these for each and follows the wall clock with it, which costs two comparisons.
 *
 * It has one price for input and one for output, which is less than the catalog knows: of the lowest tier, and of what comes from no
 * cache. sbx_tariff_bounds() says how far that carries.
 *
 * Pure: the wall clock is an argument, and may go backwards.
 */
#ifndef SBX_AGENT_CORE_TARIFF_H
#define SBX_AGENT_CORE_TARIFF_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/core/price.h"

struct sbx_tariff_prices {
	int64_t in, out;           /* nano-USD per million tokens; SBX_PRICE_NONE: unknown */
};

struct sbx_tariff {
	int64_t since_unix_s;      /* when it was looked up */
	int64_t change_unix_s;     /* from then on `after`; SBX_PRICE_FOREVER = no change is known */
	struct sbx_tariff_prices now, after;
};

/* Zeroed, it knows nothing and holds at no time. m NULL: nothing is known of the model. True: it was looked up anew. */
bool sbx_tariff_follow(struct sbx_tariff *t, const struct sbx_facts *facts, const struct sbx_model *m, int64_t unix_s);

/* Of all prices that are in force or announced at unix_s. ret_prompt_tokens: the longest prompt for which the lowest tier holds
 * everywhere, 0 = any. ret_request: the highest fee for a request, nano-USD per million of them. */
void sbx_tariff_bounds(const struct sbx_facts *facts, const struct sbx_model *m, int64_t unix_s, uint64_t *ret_prompt_tokens, uint64_t *ret_request);

#endif
