/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_catalog.c -- any bytes as a catalog: never a crash or a leak; what was accepted is in order and within its limits, at most one
 * row is valid at any time, and every sum and every next change can be asked for.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "agent/catalog.h"
#include "agent/core/price.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void
check_tiers(const struct sbx_facts *f, uint32_t first, uint32_t n)
{
	assert(n >= 1 && n <= SBX_PRICE_TIERS_MAX && first + n <= f->n_tiers);
	assert(f->tier[first].above_tokens == -1);
	for (uint32_t i = first; i < first + n; i++) {
		assert(i == first || (f->tier[i].above_tokens > f->tier[i - 1].above_tokens && f->tier[i].above_tokens > 0));
		for (int kind = 0; kind < SBX_PRICE__COUNT; kind++)
			assert(f->tier[i].nanousd[kind] >= SBX_PRICE_NONE && f->tier[i].nanousd[kind] <= INT64_C(100000000000000000));
	}
}

static void
check_prices(const struct sbx_facts *f, const struct sbx_model *m, int64_t t)
{
	const struct sbx_usage most = { INT64_MAX, INT64_MAX, INT64_MAX, 1, 1, 1, false, false };
	struct sbx_price p;
	struct sbx_amounts a;
	int64_t cost = -1, next = sbx_price_next_change(f, m, t);
	assert(next > t);
	assert(sbx_amounts_of_usage(&most, &a));
	(void)sbx_price_rank(f, m, t);
	if (!sbx_price_at(f, m, t, &p))
		return;
	if (sbx_price_cost(&p, &a, &cost) == SBX_COST_KNOWN)
		assert(cost >= 0);
	const struct sbx_estimate e = { 1000, -1, 1, false };
	if (sbx_price_estimate(&p, m, &e, NULL, &cost) == SBX_COST_KNOWN)
		assert(cost >= 0);
}

static void
check(const struct sbx_facts *f)
{
	assert(f->n_models <= SBX_MODELS_MAX);
	for (uint32_t i = 0; i < f->n_models; i++) {
		const struct sbx_model *m = &f->model[i];
		assert(i == 0 || strcmp(f->model[i - 1].name, m->name) < 0);
		assert(sbx_facts_find(f, sbx_span_of(m->name)) == m);
		assert(m->name[m->provider_bytes] == '/' && m->model == m->name + m->provider_bytes + 1 && m->model[0]);
		assert(m->n_rows <= SBX_MODEL_ROWS_MAX && m->first_row + m->n_rows <= f->n_rows);
		for (uint32_t r = m->first_row; r < m->first_row + m->n_rows; r++) {
			const struct sbx_price_row *row = &f->row[r];
			assert(row->id && row->source && row->read_on && row->from_unix_s < row->until_unix_s);
			assert(r == m->first_row || f->row[r - 1].until_unix_s <= row->from_unix_s);
			check_tiers(f, row->first_tier, row->n_tiers);
			assert(row->n_windows <= SBX_PRICE_WINDOWS_MAX && row->first_window + row->n_windows <= f->n_windows);
			for (uint32_t w = row->first_window; w < row->first_window + row->n_windows; w++) {
				const struct sbx_price_window *win = &f->window[w];
				assert(win->from_min < 1440 && win->to_min <= 1440 && win->from_min != win->to_min && win->weekdays && win->weekdays < 0x80);
				check_tiers(f, win->first_tier, win->n_tiers);
			}
			check_prices(f, m, row->from_unix_s);
			check_prices(f, m, row->from_unix_s + 12345678);
		}
		check_prices(f, m, 0);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static struct sbx_config_messages refused;
	struct sbx_catalog *c = NULL;
	char why[256] = "";
	int rc = sbx_catalog_parse("fuzz", (const char *)data, bytes, &refused, &c, why, sizeof why);
	assert((rc == 0) == (c != NULL));
	assert(rc == 0 || why[0]);
	if (c) {
		assert(refused.n > 0 || c->n_refused == 0);
		check(&c->facts);
	}
	sbx_catalog_free(c);
	sbx_config_messages_fini(&refused);
	return 0;
}
