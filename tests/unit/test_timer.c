/* SPDX-License-Identifier: Apache-2.0 */
/* test_timer.c -- the heap against a naive model, and what callbacks may do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "agent/core/timer.h"

#define N 200u
#define OPS 100000u

static uint64_t
next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* ---- against the model: an array of deadlines, UINT64_MAX = not armed ---- */

static struct world {
	struct sbx_timers timers;
	struct sbx_timer timer[N];
	uint64_t model[N];
	uint64_t last_fired_ns;
	uint32_t fired;
} w;

static void
model_fire(void *arg, uint64_t now_ns)
{
	uint32_t i = (uint32_t)((uint64_t *)arg - w.model);
	assert_true(w.model[i] <= now_ns);
	assert_true(w.model[i] >= w.last_fired_ns); /* earliest first */
	for (uint32_t k = 0; k < N; k++)
		assert_true(w.model[k] >= w.model[i]);
	w.last_fired_ns = w.model[i];
	w.model[i] = UINT64_MAX;
	w.fired++;
}

static void
agrees_with_naive_model(void **state)
{
	uint64_t random = 88172645463325252ull, now_ns = 1000;
	uint32_t fired = 0;
	(void)state;

	sbx_timers_init(&w.timers);
	for (uint32_t i = 0; i < N; i++) {
		w.timer[i] = (struct sbx_timer){ .fire = model_fire, .arg = &w.model[i] };
		w.model[i] = UINT64_MAX;
	}
	for (uint32_t op = 0; op < OPS; op++) {
		uint32_t i = (uint32_t)(next_random(&random) % N);
		uint64_t kind = next_random(&random) % 10;
		if (kind < 6) {
			w.model[i] = now_ns + next_random(&random) % 500; /* few values: many equal deadlines */
			sbx_timer_arm(&w.timers, &w.timer[i], w.model[i]);
		} else if (kind < 9) {
			w.model[i] = UINT64_MAX;
			sbx_timer_cancel(&w.timers, &w.timer[i]);
		} else {
			uint32_t due = 0;
			now_ns += next_random(&random) % 100;
			for (uint32_t k = 0; k < N; k++)
				due += w.model[k] <= now_ns;
			fired = w.fired;
			w.last_fired_ns = 0;
			sbx_timers_run(&w.timers, now_ns);
			assert_int_equal(w.fired - fired, due);
		}
		uint64_t next_ns = UINT64_MAX;
		uint32_t armed = 0;
		for (uint32_t k = 0; k < N; k++) {
			next_ns = w.model[k] < next_ns ? w.model[k] : next_ns;
			armed += w.model[k] != UINT64_MAX;
			assert_true((w.model[k] != UINT64_MAX) == (w.timer[k].place != 0));
		}
		assert_true(sbx_timers_next_ns(&w.timers) == next_ns);
		assert_int_equal(w.timers.n, armed);
		assert_true(op % 16 != 0 || sbx_timers_validate(&w.timers));
	}
	for (uint32_t i = 0; i < N; i++)
		sbx_timer_cancel(&w.timers, &w.timer[i]);
	sbx_timers_fini(&w.timers);
}

/* ---- what callbacks do ---- */

struct again {
	struct sbx_timers *timers;
	struct sbx_timer timer, *victim;
	uint64_t at_ns; /* armed for in the callback */
	uint32_t fired;
};

static void
fire_again(void *arg, uint64_t now_ns)
{
	struct again *a = arg;
	(void)now_ns;
	a->fired++;
	sbx_timer_arm(a->timers, &a->timer, a->at_ns);
}

static void
arming_for_now_waits_for_the_next_run(void **state)
{
	static const uint64_t at[] = { 0, 99, 100 };
	(void)state;
	for (size_t i = 0; i < sizeof at / sizeof at[0]; i++) {
		struct sbx_timers t;
		struct again a = { .timers = &t, .at_ns = at[i] }, b = { .timers = &t, .at_ns = 200 };
		sbx_timers_init(&t);
		a.timer = (struct sbx_timer){ .fire = fire_again, .arg = &a };
		b.timer = (struct sbx_timer){ .fire = fire_again, .arg = &b };
		sbx_timer_arm(&t, &a.timer, 50);
		sbx_timer_arm(&t, &b.timer, 100);
		sbx_timers_run(&t, 100);
		assert_int_equal(a.fired, 1); /* ended at all, and did not keep b from its turn */
		assert_int_equal(b.fired, 1);
		assert_int_equal(sbx_timers_next_ns(&t), 101);
		sbx_timers_run(&t, 101);
		assert_int_equal(a.fired, 2);
		sbx_timer_cancel(&t, &a.timer);
		sbx_timer_cancel(&t, &b.timer);
		sbx_timers_fini(&t);
	}
}

static void
fire_cancel(void *arg, uint64_t now_ns)
{
	struct again *a = arg;
	(void)now_ns;
	a->fired++;
	sbx_timer_cancel(a->timers, a->victim);
}

static void
a_due_timer_can_be_cancelled_by_another(void **state)
{
	struct sbx_timers t;
	struct again a = { .timers = &t }, b = { .timers = &t };
	(void)state;
	sbx_timers_init(&t);
	a.timer = (struct sbx_timer){ .fire = fire_cancel, .arg = &a };
	b.timer = (struct sbx_timer){ .fire = fire_cancel, .arg = &b };
	a.victim = &b.timer;
	b.victim = &a.timer;
	sbx_timer_arm(&t, &a.timer, 10);
	sbx_timer_arm(&t, &b.timer, 20);
	sbx_timers_run(&t, 100);
	assert_int_equal(a.fired, 1);
	assert_int_equal(b.fired, 0);
	assert_int_equal(t.n, 0);
	sbx_timers_fini(&t);
}

static void
fire_free(void *arg, uint64_t now_ns)
{
	(void)now_ns;
	free(arg);
}

static void
a_callback_may_free_its_timer(void **state)
{
	struct sbx_timers t;
	(void)state;
	sbx_timers_init(&t);
	for (uint64_t i = 0; i < 10; i++) {
		struct sbx_timer *timer = calloc(1, sizeof *timer);
		*timer = (struct sbx_timer){ .fire = fire_free, .arg = timer };
		sbx_timer_arm(&t, timer, 10 - i);
	}
	sbx_timers_run(&t, UINT64_MAX);
	assert_int_equal(t.n, 0);
	sbx_timers_fini(&t);
}

static void
reserve_is_kept(void **state)
{
	struct sbx_timers t;
	struct sbx_timer timer[100];
	(void)state;
	sbx_timers_init(&t);
	assert_true(sbx_timers_next_ns(&t) == UINT64_MAX);
	assert_int_equal(sbx_timers_reserve(&t, 100), 0);
	struct sbx_timer **heap = t.heap;
	for (uint32_t i = 0; i < 100; i++) {
		timer[i] = (struct sbx_timer){ .fire = fire_free };
		sbx_timer_arm(&t, &timer[i], 1000 - i);
	}
	assert_ptr_equal(t.heap, heap); /* nothing was allocated */
	assert_int_equal(sbx_timers_reserve(&t, 10), 0);
	assert_true(sbx_timers_reserve(&t, UINT32_MAX) < 0);
	assert_true(sbx_timers_validate(&t));
	timer[99].at_ns = 5000; /* the heap's order is broken on purpose */
	assert_false(sbx_timers_validate(&t));
	timer[99].at_ns = 901;
	for (uint32_t i = 0; i < 100; i++)
		sbx_timer_cancel(&t, &timer[i]);
	sbx_timer_cancel(&t, &timer[0]);
	sbx_timers_fini(&t);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(agrees_with_naive_model),
		cmocka_unit_test(arming_for_now_waits_for_the_next_run),
		cmocka_unit_test(a_due_timer_can_be_cancelled_by_another),
		cmocka_unit_test(a_callback_may_free_its_timer),
		cmocka_unit_test(reserve_is_kept),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
