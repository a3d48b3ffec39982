/* SPDX-License-Identifier: Apache-2.0 */
/* timer.c -- see timer.h. */
#include "agent/core/timer.h"

#include <assert.h>
#include <stdlib.h>

#include <signalbox/errors.h>

#define FIRST_CAP 64u

void
sbx_timers_init(struct sbx_timers *t)
{
	*t = (struct sbx_timers){ 0 };
}

void
sbx_timers_fini(struct sbx_timers *t)
{
	assert(t->n == 0 && !t->running);
	free(t->heap);
	*t = (struct sbx_timers){ 0 };
}

int
sbx_timers_reserve(struct sbx_timers *t, uint32_t n)
{
	if (n <= t->cap)
		return 0;
	if (n > UINT32_MAX / 4)
		return -SBX_ENOMEM; /* places are 32 bits, and a child's is twice its parent's */
	struct sbx_timer **heap = realloc(t->heap, ((size_t)n + 1) * sizeof *heap);
	if (!heap)
		return -SBX_ENOMEM;
	t->heap = heap;
	t->cap = n;
	return 0;
}

static void
put(struct sbx_timers *t, uint32_t place, struct sbx_timer *timer)
{
	t->heap[place] = timer;
	timer->place = place;
}

/* Both walk a hole to where `timer` belongs, and put it there last: half the stores of swapping. */
static void
sift_up(struct sbx_timers *t, uint32_t place, struct sbx_timer *timer)
{
	while (place > 1 && timer->at_ns < t->heap[place / 2]->at_ns) {
		put(t, place, t->heap[place / 2]);
		place /= 2;
	}
	put(t, place, timer);
}

static void
sift_down(struct sbx_timers *t, uint32_t place, struct sbx_timer *timer)
{
	for (uint32_t child; (child = place * 2) <= t->n; place = child) {
		if (child < t->n && t->heap[child + 1]->at_ns < t->heap[child]->at_ns)
			child++;
		if (t->heap[child]->at_ns >= timer->at_ns)
			break;
		put(t, place, t->heap[child]);
	}
	put(t, place, timer);
}

static void
settle(struct sbx_timers *t, uint32_t place, struct sbx_timer *timer)
{
	if (place > 1 && timer->at_ns < t->heap[place / 2]->at_ns)
		sift_up(t, place, timer);
	else
		sift_down(t, place, timer);
}

void
sbx_timer_arm(struct sbx_timers *t, struct sbx_timer *timer, uint64_t at_ns)
{
	assert(timer->fire);
	if (t->running && at_ns <= t->run_ns)
		at_ns = t->run_ns + 1;
	timer->at_ns = at_ns;
	if (timer->place) {
		assert(timer->place <= t->n && t->heap[timer->place] == timer);
		settle(t, timer->place, timer);
		return;
	}
	if (t->n == t->cap && sbx_timers_reserve(t, t->cap ? t->cap * 2 : FIRST_CAP))
		abort(); /* a deadline that silently does not exist would be worse: what waits for it would wait for ever */
	sift_up(t, ++t->n, timer);
}

void
sbx_timer_cancel(struct sbx_timers *t, struct sbx_timer *timer)
{
	uint32_t place = timer->place;
	if (!place)
		return;
	assert(place <= t->n && t->heap[place] == timer);
	struct sbx_timer *last = t->heap[t->n--];
	timer->place = 0;
	if (last != timer)
		settle(t, place, last);
}

uint64_t
sbx_timers_next_ns(const struct sbx_timers *t)
{
	return t->n ? t->heap[1]->at_ns : UINT64_MAX;
}

void
sbx_timers_run(struct sbx_timers *t, uint64_t now_ns)
{
	assert(!t->running);
	if (now_ns == UINT64_MAX)
		now_ns--; /* "now + 1" has to exist */
	t->run_ns = now_ns;
	t->running = true;
	while (t->n && t->heap[1]->at_ns <= now_ns) {
		struct sbx_timer *due = t->heap[1];
		sbx_timer_cancel(t, due); /* before the call: it may arm itself again, or free the memory it lies in */
		due->fire(due->arg, now_ns);
	}
	t->running = false;
}

bool
sbx_timers_validate(const struct sbx_timers *t)
{
	if (t->n > t->cap)
		return false;
	for (uint32_t i = 1; i <= t->n; i++)
		if (t->heap[i]->place != i || (i > 1 && t->heap[i]->at_ns < t->heap[i / 2]->at_ns))
			return false;
	return true;
}
