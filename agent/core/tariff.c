/* SPDX-License-Identifier: Apache-2.0 */
/* tariff.c -- see tariff.h. */
#include "agent/core/tariff.h"

static struct sbx_tariff_prices
prices_at(const struct sbx_facts *facts, const struct sbx_model *m, int64_t unix_s)
{
	struct sbx_price p;
	if (!sbx_price_at(facts, m, unix_s, &p))
		return (struct sbx_tariff_prices){ SBX_PRICE_NONE, SBX_PRICE_NONE };
	return (struct sbx_tariff_prices){ sbx_price_of(&p, SBX_PRICE_INPUT, 0), sbx_price_of(&p, SBX_PRICE_OUTPUT, 0) };
}

bool
sbx_tariff_follow(struct sbx_tariff *t, const struct sbx_facts *facts, const struct sbx_model *m, int64_t unix_s)
{
	const struct sbx_tariff_prices none = { SBX_PRICE_NONE, SBX_PRICE_NONE };
	if (unix_s >= t->since_unix_s && unix_s < t->change_unix_s)
		return false;
	t->since_unix_s = unix_s;
	t->change_unix_s = sbx_price_next_change(facts, m, unix_s);
	t->now = prices_at(facts, m, unix_s);
	t->after = t->change_unix_s == SBX_PRICE_FOREVER ? none : prices_at(facts, m, t->change_unix_s);
	return true;
}

static void
bound_tiers(const struct sbx_price_tier *tier, uint32_t n, uint64_t *tokens, uint64_t *request)
{
	for (uint32_t i = 0; i < n; i++) {
		const int64_t above = tier[i].above_tokens, fee = tier[i].nanousd[SBX_PRICE_REQUEST];
		if (i > 0 && (*tokens == 0 || (uint64_t)above < *tokens))
			*tokens = (uint64_t)above;
		if (fee > 0 && (uint64_t)fee > *request)
			*request = (uint64_t)fee;
	}
}

void
sbx_tariff_bounds(const struct sbx_facts *facts, const struct sbx_model *m, int64_t unix_s, uint64_t *ret_prompt_tokens, uint64_t *ret_request)
{
	*ret_prompt_tokens = *ret_request = 0;
	for (uint32_t i = 0; m && i < m->n_rows; i++) {
		const struct sbx_price_row *row = &facts->row[m->first_row + i];
		if (unix_s >= row->until_unix_s)
			continue;
		bound_tiers(&facts->tier[row->first_tier], row->n_tiers, ret_prompt_tokens, ret_request);
		for (uint32_t k = 0; k < row->n_windows; k++) {
			const struct sbx_price_window *w = &facts->window[row->first_window + k];
			bound_tiers(&facts->tier[w->first_tier], w->n_tiers, ret_prompt_tokens, ret_request);
		}
	}
}
