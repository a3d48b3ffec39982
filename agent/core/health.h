/* SPDX-License-Identifier: Apache-2.0 */
/*
 * health.h -- what is known about each target and credential right now: breaker, throttle, latency, retry budget.
 *
 * Shared by all requests of all processes of the host. A target row and a credential row decide together whether a target
 * may be used:
 *
 *   target:      CLOSED --3 consecutive failures--> OPEN --open time over--> HALF_OPEN --one real request, good--> CLOSED
 *                                                    ^------------------------ bad -------'
 *                CLOSED --half of at least 10 within 30 s failed--> OPEN
 *                throttle (429, 503, 529) is kept apart from failure, per credential: it says until when, not how ill.
 *                AWAY: misconfigured (404, 403); tried again after 60 s, or after a reload
 *   credential:  CLOSED, or OPEN until (wrong key 300 s, no money 1 h); half-open after that like a target
 *
 * An attempt tells about the time in which it ran. A success closes a target whenever the attempt began; the failure of an
 * attempt that began before the target came to its present state says nothing new, and changes nothing.
 *
 * Pure: time comes as an argument. "Never eject the last" is not here but in request.c, which alone sees all candidates.
 */
#ifndef SBX_AGENT_CORE_HEALTH_H
#define SBX_AGENT_CORE_HEALTH_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/core/class.h"
#include "agent/core/latency.h"
#include "agent/core/tables.h"
#include "client/rank.h"

#define SBX_BREAKER_STATES(X)                                                                                                  \
	X(CLOSED, "up") X(OPEN, "down") X(HALF_OPEN, "probing") X(AWAY, "misconfigured")
enum sbx_breaker_state {
#define X(name, word) SBX_BREAKER_##name,
	SBX_BREAKER_STATES(X)
#undef X
	SBX_BREAKER__COUNT
};
const char *sbx_breaker_word(enum sbx_breaker_state s);

struct sbx_target_health {
	enum sbx_breaker_state state;
	enum sbx_class why;                       /* of the failure that tripped it; NONE while CLOSED */
	uint64_t since_ns;                        /* in this state */
	uint64_t until_ns;                        /* OPEN, AWAY: when one request may try */
	uint64_t open_ns;                         /* OPEN: how long it was opened for */
	uint64_t tripped_ns;                      /* first trip of this outage; 0 = none */
	uint32_t failures;                        /* consecutive */
	uint32_t trips;                           /* consecutive, without a success between */
	bool probing;                             /* the one request of HALF_OPEN is under way: true exactly in that state */
	bool dirty;                               /* in the list of rows that changed since they were last taken */
	bool last_good;                           /* the last attempt that told anything was a success (true before any) */
	uint32_t in_flight;
	uint64_t throttle_until_ns[SBX_KEYS_MAX]; /* by the provider's credential number (0 where no key is needed); 0 = none */
	uint8_t throttle_step[SBX_KEYS_MAX];      /* refusals in a row that did not say until when */
	uint64_t recent_slot;                     /* number of the 5 s slot that recent[recent_slot % 6] counts */
	struct { uint16_t good, bad; } recent[6]; /* ends of the last 30 s, for the rate that trips */
	uint64_t attempts, successes, failures_total, refusals;
};

struct sbx_credential_health {
	uint64_t open_until_ns;   /* 0 = usable */
	uint64_t since_ns;        /* when it was opened, or its trial began */
	enum sbx_class why;       /* AUTH, QUOTA; NONE while usable */
	bool probing;             /* the one request after open_until_ns is under way */
};

struct sbx_health;
/* Rows for all targets of the tables and for SBX_TARGETS_ADHOC_MAX more (their numbers follow). NULL on no memory. A row's
 * histograms take no memory before its first success. */
struct sbx_health *sbx_health_new(const struct sbx_tables *tables, uint64_t now_ns);
void sbx_health_free(struct sbx_health *h); /* NULL is fine */
/* After a reload: what was known about row `from` of `old` becomes the start of row `to`, nothing in flight. A trial that was
 * under way counts as not made: the row is due at once. */
void sbx_health_carry_target(struct sbx_health *h, uint32_t to, const struct sbx_health *old, uint32_t from);
void sbx_health_carry_credential(struct sbx_health *h, uint32_t to, const struct sbx_health *old, uint32_t from);
/* After a restart: what an earlier agent published (the words of the board as they stand; its times on this agent's clock), into
 * fresh rows. Nothing of it is believed further than this agent could have come to it by itself: a state, or a reason for it, that
 * cannot be is left out, and nothing is shut for longer from now than by the event that shuts it. A trial that was under
 * way counts as not made. What is over is forgotten; a target that is due for its trial stays so for two minutes, the longest pause
 * between two trials: if nobody made it by then, what is known is too old. */
struct sbx_past_latency {
	uint64_t n, p50_ns, p95_ns, p99_ns;
};
struct sbx_past_target {
	uint64_t state, why;      /* SBX_BOARD_* */
	uint64_t since_ns;
	uint64_t shut_until_ns;   /* UINT64_MAX = its trial was under way */
	uint64_t throttle_until_ns[SBX_KEYS_MAX]; /* by this agent's numbers of credentials */
	struct sbx_past_latency first_content, total;
};
struct sbx_past_credential {
	uint64_t why, since_ns, shut_until_ns;
};
void sbx_health_seed_target(struct sbx_health *h, uint32_t target, const struct sbx_past_target *past, uint64_t then_ns, uint64_t now_ns);
void sbx_health_seed_credential(struct sbx_health *h, uint32_t credential, const struct sbx_past_credential *past, uint64_t now_ns);
void sbx_health_clear_target(struct sbx_health *h, uint32_t target, uint64_t now_ns); /* an ad-hoc row is reused; none in flight */

/* May this target be used now, and with which credential? The first usable one in the order of the configuration. Where a
 * target is broken and has no usable credential either, the credentials answer: a BROKEN one always has a credential to try.
 * Decided by sbx_gate_ask() of client/rank.h, as a reader of the board decides it. */
struct sbx_gate_answer {
	enum sbx_gate gate;
	uint32_t credential;  /* YES, PROBE, BROKEN: index into tables->credential; UINT32_MAX = needs none */
	uint64_t until_ns;    /* THROTTLED, BROKEN, NO_KEY: when it may change; UINT64_MAX = not by time alone (a trial is under
	                       * way, every key was tried, there is no key) */
};
/* not_keys: bit n = the provider's credential number n (0 where no key is needed) was tried in this request and is not to be
 * used again. */
struct sbx_gate_answer sbx_health_gate(const struct sbx_health *h, const struct sbx_tables *t, uint32_t target, uint16_t provider,
                                       uint32_t not_keys, uint64_t now_ns);

/* An attempt begins and ends. `credential` as the gate gave it. The first attempt on a target or credential that is due makes it
 * half-open; one that is started although the gate said BROKEN (the last resort) leaves the state as it is, and only its success
 * changes it. first_content_ns and total_ns are since the attempt's start, 0 = no content; total_ns is given for every class, as
 * it tells when the attempt began. retry_after_ns: -1 = not said. */
void sbx_health_on_start(struct sbx_health *h, const struct sbx_tables *t, uint32_t target, uint16_t provider, uint32_t credential, uint64_t now_ns);
void sbx_health_on_end(struct sbx_health *h, const struct sbx_tables *t, uint32_t target, uint16_t provider, uint32_t credential,
                       enum sbx_class class, int64_t retry_after_ns, uint64_t first_content_ns, uint64_t total_ns, uint64_t now_ns);

/* Retry budget of a provider: 20 % of its requests in 10 s, plus 1 a second (burst 10). true = taken. Not for first attempts. */
bool sbx_health_try_retry(struct sbx_health *h, uint16_t provider, uint64_t now_ns);

/* Deadlines learned from what was seen (defaults: sbx_policy_default()). First content: clamp(3 x p99, seed, max); where the model
 * reasons the seed is long, and a shorter limit is learned only from many answers. Whole answer: max(floor, 3 x p99). */
uint64_t sbx_health_first_content_limit_ns(const struct sbx_health *h, const struct sbx_policy *p, uint32_t target, bool reasoning, uint64_t now_ns);
uint64_t sbx_health_whole_limit_ns(const struct sbx_health *h, const struct sbx_policy *p, uint32_t target, bool reasoning, uint64_t now_ns);

/* To look at; valid until the health is freed. */
uint32_t sbx_health_n_targets(const struct sbx_health *h); /* rows, ad-hoc ones included */
const struct sbx_target_health *sbx_health_target(const struct sbx_health *h, uint32_t target);
const struct sbx_credential_health *sbx_health_credential(const struct sbx_health *h, uint32_t credential);
const struct sbx_latency *sbx_health_first_content(const struct sbx_health *h, uint32_t target); /* of successes */
const struct sbx_latency *sbx_health_total(const struct sbx_health *h, uint32_t target);         /* of successes */
/* Rows that changed since the last call: at most max of them into ret_target, each once; those that did not fit come next time. A
 * row's credentials may have changed with it. is_dirty: there are some. */
bool sbx_health_is_dirty(const struct sbx_health *h);
uint32_t sbx_health_take_dirty(struct sbx_health *h, uint32_t *ret_target, uint32_t max);
/* Ends of the last 30 s. */
void sbx_health_recent(const struct sbx_health *h, uint32_t target, uint64_t now_ns, uint32_t *ret_good, uint32_t *ret_bad);
/* When a target, or a credential, may be used again by its own state: 0 = it may; UINT64_MAX = its one trial is under way. */
uint64_t sbx_health_shut_until_ns(const struct sbx_target_health *row);
uint64_t sbx_health_credential_shut_until_ns(const struct sbx_credential_health *c);
/* NULL, or the invariant that does not hold. For tests. */
const char *sbx_health_validate(const struct sbx_health *h);

#endif
