/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rank.h -- may a target be used now, and which of several comes first. The one place where that is decided.
 *
 * The agent asks with facts from its own tables, the board's reader with words of the board; both get the same answer, because
 * it is the same code. Pure: no clock, no memory, no system call; times are of whatever clock the caller uses throughout. All of it
 * is inline, since a choice among 168 targets goes through it 168 times, and calls would be a third of its time.
 *
 * Two questions. The gate: one target with its keys -> usable, or why not and until when. The ranking: many candidates, each with
 * its gate, into an order. A candidate's rank is its tier first, and within the tier a number:
 *
 *   USABLE      by the policy: for `priority` the caller's own order
 *   SHORT_WAIT  throttled, but free again so soon that waiting is the best bet: the soonest first
 *   DOWN        the last resort: never eject the last; the one that is due soonest first
 *   LONG_WAIT   throttled for longer than that: the soonest first
 *   OUT         no key: it cannot be asked at all
 *
 * What each tier is worth (whether to wait at all, or to try what is down) is the caller's decision. A policy is one case of
 * sbx_rank_prefer(), which turns the facts of a candidate into a number; what it needs to know is a member of struct
 * sbx_candidate.
 */
#ifndef SBX_CLIENT_RANK_H
#define SBX_CLIENT_RANK_H

#include <stdbool.h>
#include <stdint.h>

#define SBX_GATE_KEYS_MAX 8 /* of one provider */

/* ---- the gate ---- */

enum sbx_gate { SBX_GATE_YES, SBX_GATE_PROBE /* yes, as the one trial */, SBX_GATE_THROTTLED, SBX_GATE_BROKEN, SBX_GATE_NO_KEY };

/* Of a target or a key: 0 = usable; UINT64_MAX = not by time alone (its one trial is under way); else when one may try. */
struct sbx_gate_key {
	uint64_t shut_until_ns;
	uint64_t throttled_until_ns; /* of this target with this key; in the past = not throttled */
};
struct sbx_gate_facts {
	uint64_t shut_until_ns;      /* the target itself */
	uint32_t n_keys;             /* 0 = it needs one, and there is none. A provider that wants no key has one that is never shut */
	struct sbx_gate_key key[SBX_GATE_KEYS_MAX];
};
struct sbx_gate_verdict {
	enum sbx_gate gate;
	uint32_t key;                /* YES, PROBE, BROKEN: which; else UINT32_MAX */
	uint64_t until_ns;           /* THROTTLED, BROKEN, NO_KEY: when it may change; UINT64_MAX = not by time alone */
};
static inline struct sbx_gate_verdict
sbx_gate_ask_key(const struct sbx_gate_key *k, uint32_t number, uint64_t now_ns)
{
	if (now_ns < k->shut_until_ns)
		return (struct sbx_gate_verdict){ SBX_GATE_NO_KEY, UINT32_MAX, k->shut_until_ns };
	if (now_ns < k->throttled_until_ns)
		return (struct sbx_gate_verdict){ SBX_GATE_THROTTLED, UINT32_MAX, k->throttled_until_ns };
	return (struct sbx_gate_verdict){ k->shut_until_ns ? SBX_GATE_PROBE : SBX_GATE_YES, number, 0 };
}

/* The first key that may be used; else the earliest time at which one may, THROTTLED if any of them is. */
static inline struct sbx_gate_verdict
sbx_gate_ask_keys(const struct sbx_gate_facts *f, uint32_t not_keys, uint64_t now_ns)
{
	struct sbx_gate_verdict all = { SBX_GATE_NO_KEY, UINT32_MAX, UINT64_MAX };

	for (uint32_t k = 0; k < f->n_keys; k++) {
		if (not_keys & (1u << k))
			continue;
		struct sbx_gate_verdict v = sbx_gate_ask_key(&f->key[k], k, now_ns);
		if (v.key != UINT32_MAX)
			return v;
		if (v.gate == SBX_GATE_THROTTLED)
			all.gate = SBX_GATE_THROTTLED;
		if (v.until_ns < all.until_ns)
			all.until_ns = v.until_ns;
	}
	return all;
}

/* The first usable key in order. Where a target is shut and has no usable key either, the keys answer: a BROKEN one always has a
 * key to try. not_keys: bit n = key n is not to be used. */
static inline struct sbx_gate_verdict
sbx_gate_ask(const struct sbx_gate_facts *f, uint32_t not_keys, uint64_t now_ns)
{
	struct sbx_gate_verdict v = sbx_gate_ask_keys(f, not_keys, now_ns);
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

enum sbx_rank_policy { SBX_RANK_PRIORITY };
enum sbx_rank_tier { SBX_TIER_USABLE, SBX_TIER_SHORT_WAIT, SBX_TIER_DOWN, SBX_TIER_LONG_WAIT, SBX_TIER_OUT };

struct sbx_candidate {
	uint32_t target;             /* the caller's number for it */
	uint32_t position;           /* in the caller's own order; also settles a tie */
	enum sbx_gate gate;
	uint32_t key;                /* as the gate gave it, or the caller's number for it; passed through */
	uint64_t until_ns;
	uint64_t patience_ns;        /* a throttle of at most this is a short wait; 0 = none is */
	int64_t cost_nanousd;        /* of this request there; INT64_MIN = not known */
	/* written by sbx_rank_insert() */
	enum sbx_rank_tier tier;
	uint64_t within;             /* its order in the tier: less is better */
};

/* What a policy makes of a candidate that can be used: less is better. A new policy is one more case. */
static inline uint64_t
sbx_rank_prefer(enum sbx_rank_policy policy, const struct sbx_candidate *c)
{
	switch (policy) {
	case SBX_RANK_PRIORITY:
		return c->position;
	}
	return c->position;
}

static inline enum sbx_rank_tier
sbx_rank_tier_of(const struct sbx_candidate *c, uint64_t now_ns)
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

static inline bool
sbx_rank_is_before(enum sbx_rank_tier tier, uint64_t within, uint32_t position, const struct sbx_candidate *b)
{
	if (tier != b->tier)
		return tier < b->tier;
	if (within != b->within)
		return within < b->within;
	return position < b->position;
}

/* Puts a copy of c at its place among best[0..n), which is in order of rank; what is beyond `max` falls off. Returns the new n. */
static inline uint32_t
sbx_rank_insert(enum sbx_rank_policy policy, uint64_t now_ns, const struct sbx_candidate *c, struct sbx_candidate *best, uint32_t n,
                uint32_t max)
{
	const enum sbx_rank_tier tier = sbx_rank_tier_of(c, now_ns);
	const uint64_t within = tier == SBX_TIER_USABLE ? sbx_rank_prefer(policy, c) : c->until_ns;

	uint32_t at = n;
	while (at > 0 && sbx_rank_is_before(tier, within, c->position, &best[at - 1]))
		at--;
	if (at >= max)
		return n;
	if (n < max)
		n++;
	for (uint32_t i = n - 1; i > at; i--)
		best[i] = best[i - 1];
	/* Field by field: c was just written so, and wide loads of narrow stores would wait for them. */
	best[at].target = c->target;
	best[at].position = c->position;
	best[at].gate = c->gate;
	best[at].key = c->key;
	best[at].until_ns = c->until_ns;
	best[at].patience_ns = c->patience_ns;
	best[at].cost_nanousd = c->cost_nanousd;
	best[at].tier = tier;
	best[at].within = within;
	return n;
}

/* Are the first `places` of best[0..n) final, whatever candidate of a later position still comes? Saves looking at the rest. */
static inline bool
sbx_rank_settled(enum sbx_rank_policy policy, const struct sbx_candidate *best, uint32_t n, uint32_t places)
{
	return policy == SBX_RANK_PRIORITY && places > 0 && n >= places && best[places - 1].tier == SBX_TIER_USABLE;
}

#endif
