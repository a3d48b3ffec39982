/* SPDX-License-Identifier: Apache-2.0 */
/*
 * timer.h -- many deadlines, one question: which is next? A binary heap of pointers; each timer knows its place, so that
 * moving and cancelling cost O(log n) and allocate nothing (the heap grows only when a timer is first armed).
 *
 * Deadlines that only ever move later (idle limits of a stream) need not be moved at all: let the timer fire, look at the real
 * deadline, arm again.
 */
#ifndef SBX_AGENT_CORE_TIMER_H
#define SBX_AGENT_CORE_TIMER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sbx_timer {
	uint64_t at_ns;      /* when it fires */
	uint32_t place;      /* 1-based index in the heap; 0 = not armed */
	void (*fire)(void *arg, uint64_t now_ns);
	void *arg;
};
struct sbx_timers {
	struct sbx_timer **heap; /* heap[0] unused: the children of place p are 2p and 2p+1 */
	uint32_t n, cap;         /* timers armed; how many have room */
	uint64_t run_ns;         /* while sbx_timers_run() works: its now */
	bool running;
};

void sbx_timers_init(struct sbx_timers *t);
void sbx_timers_fini(struct sbx_timers *t); /* no timer may be armed any more */
int sbx_timers_reserve(struct sbx_timers *t, uint32_t n); /* room for n armed timers: 0, or -SBX_ENOMEM; arming up to n allocates nothing then */
/* Also moves an armed one. Beyond what was reserved it allocates, and ends the process when there is no memory: whoever must
 * survive that reserves room first. */
void sbx_timer_arm(struct sbx_timers *t, struct sbx_timer *timer, uint64_t at_ns);
void sbx_timer_cancel(struct sbx_timers *t, struct sbx_timer *timer);              /* not armed is fine */
uint64_t sbx_timers_next_ns(const struct sbx_timers *t);                           /* UINT64_MAX = none */
/* Fires everything that is due, each once, the earliest first. A callback may arm and cancel any timer, its own included; what
 * it arms for now or earlier is moved to now_ns + 1 and so waits for the next run: a timer that always wants to run "at once"
 * cannot keep the loop here. Not to be called from a callback. */
void sbx_timers_run(struct sbx_timers *t, uint64_t now_ns);
/* Heap order, and every timer knows its place. For tests. */
bool sbx_timers_validate(const struct sbx_timers *t);

#endif
