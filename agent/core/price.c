/* SPDX-License-Identifier: Apache-2.0 */
/* price.c -- see price.h: amounts and sums. Which prices are in force when is in price_time.c. */
#include "agent/core/price.h"

#define PER_MILLION 1000000u

typedef unsigned __int128 u128;

/* The largest sum must fit: every amount is below 2^63 and every price at most 10^17 (agent/catalog.c), so that twelve products
 * stay below 2^124. */
_Static_assert(SBX_PRICE__COUNT <= 16, "sums of all kinds fit 128 bits");

const char *
sbx_cost_status_word(enum sbx_cost_status s)
{
	static const char *const words[] = {
#define X(name, word) [SBX_COST_##name] = word,
		SBX_COST_STATUSES(X)
#undef X
	};
	return words[s];
}

/* ---- prices by kind ---- */

enum { OTHERWISE_NONE = -1, OTHERWISE_FREE = -2, OTHERWISE_INPUT = SBX_PRICE_INPUT, OTHERWISE_OUTPUT = SBX_PRICE_OUTPUT };
static const int otherwise_of[SBX_PRICE__COUNT] = {
#define X(name, key, otherwise) [SBX_PRICE_##name] = OTHERWISE_##otherwise,
	SBX_PRICE_KINDS(X)
#undef X
};

static int64_t
price_in_tier(const struct sbx_price_tier *t, enum sbx_price_kind kind)
{
	int otherwise = otherwise_of[kind];
	if (t->nanousd[kind] != SBX_PRICE_NONE)
		return t->nanousd[kind];
	return otherwise == OTHERWISE_FREE ? 0 : otherwise == OTHERWISE_NONE ? SBX_PRICE_NONE : t->nanousd[otherwise];
}

static const struct sbx_price_tier *
tier_for(const struct sbx_price *p, uint64_t prompt_tokens)
{
	uint32_t i = p->n_tiers - 1;
	while (i > 0 && prompt_tokens <= (uint64_t)p->tier[i].above_tokens)
		i--;
	return &p->tier[i];
}

int64_t
sbx_price_of(const struct sbx_price *p, enum sbx_price_kind kind, uint64_t prompt_tokens)
{
	return price_in_tier(tier_for(p, prompt_tokens), kind);
}

int64_t
sbx_price_rank(const struct sbx_facts *facts, const struct sbx_model *m, int64_t unix_s)
{
	struct sbx_price p;
	if (!sbx_price_at(facts, m, unix_s, &p))
		return INT64_MAX;
	int64_t in = sbx_price_of(&p, SBX_PRICE_INPUT, 0), out = sbx_price_of(&p, SBX_PRICE_OUTPUT, 0);
	return in == SBX_PRICE_NONE || out == SBX_PRICE_NONE ? INT64_MAX : 3 * in + out;
}

/* ---- amounts ---- */

/* So many of `of`, at most `most` and at least 0. */
static uint64_t
part(int64_t of, uint64_t most)
{
	return of < 0 ? 0 : (uint64_t)of > most ? most : (uint64_t)of;
}

bool
sbx_amounts_of_usage(const struct sbx_usage *u, struct sbx_amounts *ret_amounts)
{
	struct sbx_amounts a = { .prompt_tokens = part(u->prompt_tokens, INT64_MAX) };
	int64_t completion = u->completion_tokens;
	if (completion < 0 && u->total_tokens >= 0 && u->total_tokens == u->prompt_tokens)
		completion = 0; /* nothing is written where only reading is asked for */
	if (u->prompt_tokens < 0 || completion < 0)
		return false;
	uint64_t rest = a.prompt_tokens;
	a.n[SBX_PRICE_CACHE_READ] = part(u->cached_tokens, rest);
	rest -= a.n[SBX_PRICE_CACHE_READ];
	a.n[SBX_PRICE_CACHE_WRITE] = part(u->cache_write_tokens, rest);
	a.n[SBX_PRICE_INPUT] = rest - a.n[SBX_PRICE_CACHE_WRITE];
	a.n[SBX_PRICE_REASONING] = part(u->reasoning_tokens, (uint64_t)completion);
	a.n[SBX_PRICE_OUTPUT] = (uint64_t)completion - a.n[SBX_PRICE_REASONING];
	a.n[SBX_PRICE_REQUEST] = 1;
	*ret_amounts = a;
	return true;
}

/* ---- sums ---- */

static enum sbx_cost_status
cost_in_tier(const struct sbx_price_tier *t, const struct sbx_amounts *a, int64_t *ret_nanousd)
{
	u128 sum = 0;
	for (int kind = 0; kind < SBX_PRICE__COUNT; kind++) {
		if (a->n[kind] == 0)
			continue;
		int64_t price = price_in_tier(t, (enum sbx_price_kind)kind);
		if (price == SBX_PRICE_NONE)
			return SBX_COST_UNPRICED;
		sum += (u128)a->n[kind] * (uint64_t)price;
	}
	sum = (sum + PER_MILLION - 1) / PER_MILLION;
	if (sum > INT64_MAX)
		return SBX_COST_TOO_LARGE;
	*ret_nanousd = (int64_t)sum;
	return SBX_COST_KNOWN;
}

enum sbx_cost_status
sbx_price_cost(const struct sbx_price *p, const struct sbx_amounts *a, int64_t *ret_nanousd)
{
	return cost_in_tier(tier_for(p, a->prompt_tokens), a, ret_nanousd);
}

static uint64_t
least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

enum sbx_cost_status
sbx_price_estimate(const struct sbx_price *p, const struct sbx_model *m, const struct sbx_estimate *e, struct sbx_amounts *ret_amounts,
                   int64_t *ret_nanousd)
{
	static const enum sbx_price_kind reads[] = { SBX_PRICE_INPUT, SBX_PRICE_CACHE_READ, SBX_PRICE_CACHE_WRITE };
	static const enum sbx_price_kind writes[] = { SBX_PRICE_OUTPUT, SBX_PRICE_REASONING };
	const uint64_t no_limit = INT64_MAX;
	uint64_t context = m && m->context_tokens > 0 ? (uint64_t)m->context_tokens : no_limit;
	uint64_t model_out = m && m->max_output_tokens > 0 ? (uint64_t)m->max_output_tokens : context;
	uint64_t in = least(e->has_images ? no_limit : e->body_bytes, context);
	uint64_t out = least(e->max_tokens >= 0 ? (uint64_t)e->max_tokens : no_limit, model_out), choices = e->choices ? e->choices : 1;
	if (in == no_limit || out == no_limit)
		return SBX_COST_UNBOUNDED;
	if (__builtin_mul_overflow(out, choices, &out) || out > INT64_MAX)
		return SBX_COST_TOO_LARGE;

	/* Nobody knows yet how much comes from a cache, how much is thought, and in which tier the prompt will be: the dearest. */
	int64_t most = -1;
	struct sbx_amounts dearest = { .prompt_tokens = 0 };
	for (uint32_t t = 0; t < p->n_tiers && (t == 0 || in > (uint64_t)p->tier[t].above_tokens); t++)
		for (size_t r = 0; r < sizeof reads / sizeof reads[0]; r++)
			for (size_t w = 0; w < sizeof writes / sizeof writes[0]; w++) {
				struct sbx_amounts a = { .prompt_tokens = in };
				int64_t cost;
				a.n[reads[r]] = in;
				a.n[writes[w]] = out;
				a.n[SBX_PRICE_REQUEST] = 1;
				enum sbx_cost_status s = cost_in_tier(&p->tier[t], &a, &cost);
				if (s != SBX_COST_KNOWN)
					return s;
				if (cost > most) {
					most = cost;
					dearest = a;
				}
			}
	if (ret_amounts)
		*ret_amounts = dearest;
	*ret_nanousd = most;
	return SBX_COST_KNOWN;
}
