/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rank.h -- may a target be used now, and which of several comes first. The one place where that is decided.
 *
 * The agent asks with facts from its own tables, the board's reader with words of the board; both get the same answer, because
 * it is the same code. Pure: no clock, no memory, no system call; times are of whatever clock the caller uses throughout.
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
 * prefer() in rank.c, which turns the facts of a candidate into a number; what it needs to know is a member of struct
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
/* The first usable key in order. Where a target is shut and has no usable key either, the keys answer: a BROKEN one always has a
 * key to try. not_keys: bit n = key n is not to be used. */
struct sbx_gate_verdict sbx_gate_ask(const struct sbx_gate_facts *f, uint32_t not_keys, uint64_t now_ns);

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

/* Puts a copy of c at its place among best[0..n), which is in order of rank; what is beyond `max` falls off. Returns the new n. */
uint32_t sbx_rank_insert(enum sbx_rank_policy policy, uint64_t now_ns, const struct sbx_candidate *c, struct sbx_candidate *best,
                         uint32_t n, uint32_t max);
/* Are the first `places` of best[0..n) final, whatever candidate of a later position still comes? Saves looking at the rest. */
bool sbx_rank_settled(enum sbx_rank_policy policy, const struct sbx_candidate *best, uint32_t n, uint32_t places);

#endif
