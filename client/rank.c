/* SPDX-License-Identifier: Apache-2.0 */
/* rank.c -- see rank.h. */
#include "client/rank.h"

#include <stddef.h>

/* ---- the gate ---- */

static struct sbx_gate_verdict
ask_key(const struct sbx_gate_key *k, uint32_t number, uint64_t now_ns)
{
	if (now_ns < k->shut_until_ns)
		return (struct sbx_gate_verdict){ SBX_GATE_NO_KEY, UINT32_MAX, k->shut_until_ns };
	if (now_ns < k->throttled_until_ns)
		return (struct sbx_gate_verdict){ SBX_GATE_THROTTLED, UINT32_MAX, k->throttled_until_ns };
	return (struct sbx_gate_verdict){ k->shut_until_ns ? SBX_GATE_PROBE : SBX_GATE_YES, number, 0 };
}

/* The first key that may be used; else the earliest time at which one may, THROTTLED if any of them is. */
static struct sbx_gate_verdict
ask_keys(const struct sbx_gate_facts *f, uint32_t not_keys, uint64_t now_ns)
{
	struct sbx_gate_verdict all = { SBX_GATE_NO_KEY, UINT32_MAX, UINT64_MAX };

	for (uint32_t k = 0; k < f->n_keys; k++) {
		if (not_keys & (1u << k))
			continue;
		struct sbx_gate_verdict v = ask_key(&f->key[k], k, now_ns);
		if (v.key != UINT32_MAX)
			return v;
		if (v.gate == SBX_GATE_THROTTLED)
			all.gate = SBX_GATE_THROTTLED;
		if (v.until_ns < all.until_ns)
			all.until_ns = v.until_ns;
	}
	return all;
}

struct sbx_gate_verdict
sbx_gate_ask(const struct sbx_gate_facts *f, uint32_t not_keys, uint64_t now_ns)
{
	struct sbx_gate_verdict v = ask_keys(f, not_keys, now_ns);
	const bool has_key = v.key != UINT32_MAX;

	if (f->shut_until_ns == 0)
		return v;
	if (now_ns >= f->shut_until_ns) { /* due for its trial */
		if (has_key)
			v.gate = SBX_GATE_PROBE;
	} else if (has_key) {
		v.gate = SBX_GATE_BROKEN;
		v.until_ns = f->shut_until_ns;
	} else if (f->shut_until_ns > v.until_ns) {
		v.until_ns = f->shut_until_ns; /* both have to allow it */
	}
	return v;
}

/* ---- the ranking ---- */

/* What a policy makes of a candidate that can be used: less is better. A new policy is one more case. */
static uint64_t
prefer(enum sbx_rank_policy policy, const struct sbx_candidate *c)
{
	switch (policy) {
	case SBX_RANK_PRIORITY:
		return c->position;
	}
	return c->position;
}

static enum sbx_rank_tier
tier_of(const struct sbx_candidate *c, uint64_t now_ns)
{
	switch (c->gate) {
	case SBX_GATE_YES:
	case SBX_GATE_PROBE:
		return SBX_TIER_USABLE;
	case SBX_GATE_THROTTLED: {
		const uint64_t wait_ns = c->until_ns > now_ns ? c->until_ns - now_ns : 0;
		return c->patience_ns > 0 && wait_ns <= c->patience_ns ? SBX_TIER_SHORT_WAIT : SBX_TIER_LONG_WAIT;
	}
	case SBX_GATE_BROKEN:
		return SBX_TIER_DOWN;
	case SBX_GATE_NO_KEY:
		break;
	}
	return SBX_TIER_OUT;
}

static bool
is_before(enum sbx_rank_tier tier, uint64_t within, uint32_t position, const struct sbx_candidate *b)
{
	if (tier != b->tier)
		return tier < b->tier;
	if (within != b->within)
		return within < b->within;
	return position < b->position;
}

uint32_t
sbx_rank_insert(enum sbx_rank_policy policy, uint64_t now_ns, const struct sbx_candidate *c, struct sbx_candidate *best, uint32_t n,
                uint32_t max)
{
	const enum sbx_rank_tier tier = tier_of(c, now_ns);
	const uint64_t within = tier == SBX_TIER_USABLE ? prefer(policy, c) : c->until_ns;

	uint32_t at = n;
	while (at > 0 && is_before(tier, within, c->position, &best[at - 1]))
		at--;
	if (at >= max)
		return n;
	if (n < max)
		n++;
	for (uint32_t i = n - 1; i > at; i--)
		best[i] = best[i - 1];
	best[at] = *c;
	best[at].tier = tier;
	best[at].within = within;
	return n;
}

bool
sbx_rank_settled(enum sbx_rank_policy policy, const struct sbx_candidate *best, uint32_t n, uint32_t places)
{
	return policy == SBX_RANK_PRIORITY && places > 0 && n >= places && best[places - 1].tier == SBX_TIER_USABLE;
}
