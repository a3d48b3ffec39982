/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_board_race.c -- readers against a writer that never pauses: nothing torn, and nobody waits without end.
 *
 * The writer stores the same number into every word of a row; a row that shows two numbers is torn. $READS is how many looks each
 * reader takes (default: a second's worth); `make tsan` runs it under ThreadSanitizer with ten million.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>

#include "tests/unit/board_rig.h"

#define READERS 2u
#define READS_DEFAULT 200000ul

struct race {
	struct sbx_board board;
	uint8_t *base;
	bool stop;              /* atomic */
	uint64_t pause;         /* turns of an empty loop between two writes */
	bool again;             /* readers look again until they have read it: so many looks must all come to an end */
	unsigned long reads;
};

struct seen {
	struct race *race;
	unsigned long good, busy, torn, unknown;
};

static void *
write_on(void *arg)
{
	struct race *r = arg;
	struct sbx_board_hot *row = sbx_board_slot(r->base, &r->board.hot, 3);
	uint64_t words[32];
	for (uint64_t n = 1; !__atomic_load_n(&r->stop, __ATOMIC_RELAXED); n++) {
		for (size_t i = 1; i < 32; i++)
			words[i] = n;
		sbx_row_write(&row->seq, words, 32);
		for (uint64_t i = 0; i < r->pause; i++)
			sbx_row_pause();
	}
	return NULL;
}

static void *
read_on(void *arg)
{
	struct seen *s = arg;
	struct sbx_target_view v;
	struct sbx_need need = SBX_NEED_INIT;
	struct sbx_pick pick[4];
	for (unsigned long i = 0; i < s->race->reads; i++) {
		/* now: beyond every throttle and trial that the writer can have written */
		int rc = sbx_board_target(&s->race->board, 3, 1u << 30, &v);
		if (rc == -SBX_EBUSY) {
			s->busy++;
			i -= s->race->again;
		} else {
			const uint64_t n = v.in_flight;
			if (v.since_boot_ns != n || v.attempts != n || v.first_content.p50_ns != n || v.first_content.n != n || v.total.p99_ns != n || v.recent_bad != n || v.total.n != n)
				s->torn++;
			s->good++;
		}
		if (i % 16 == 0 && rc == 0 && sbx_board_pick(&s->race->board, &need, 1u << 30, pick, 4) != 4)
			s->unknown++; /* four of the five can be asked, whatever state row 3 is in */
	}
	return NULL;
}

static void
race(uint64_t pause, unsigned long reads, bool again)
{
	struct race r = { .pause = pause, .again = again, .reads = reads };
	struct seen seen[READERS];
	pthread_t writer, reader[READERS];
	size_t n;
	r.base = rig_image(&n);
	assert_int_equal(sbx_board_check(r.base, n, &r.board, NULL, 0), 0);
	assert_int_equal(pthread_create(&writer, NULL, write_on, &r), 0);
	for (uint32_t i = 0; i < READERS; i++) {
		seen[i] = (struct seen){ .race = &r };
		assert_int_equal(pthread_create(&reader[i], NULL, read_on, &seen[i]), 0);
	}
	unsigned long good = 0, busy = 0;
	for (uint32_t i = 0; i < READERS; i++) {
		assert_int_equal(pthread_join(reader[i], NULL), 0);
		good += seen[i].good;
		busy += seen[i].busy;
	}
	__atomic_store_n(&r.stop, true, __ATOMIC_RELAXED);
	assert_int_equal(pthread_join(writer, NULL), 0);
	for (uint32_t i = 0; i < READERS; i++) {
		assert_int_equal(seen[i].torn, 0);
		assert_int_equal(seen[i].unknown, 0);
	}
	print_message("writer pauses %llu: %lu rows read, none torn, busy %lu (%.2f %%)\n", (unsigned long long)pause, good, busy, 100.0 * (double)busy / (double)(good + busy));
	assert_true(good > 0);
	assert_int_equal(again ? good : good + busy, READERS * reads);
	free(r.base);
}

static unsigned long
reads(void)
{
	const char *text = getenv("READS");
	return text ? strtoul(text, NULL, 10) : READS_DEFAULT;
}

static void
a_writer_that_never_pauses(void **state)
{
	(void)state;
	race(0, reads() / READERS, false);
}

static void
a_writer_that_comes_often(void **state)
{
	(void)state;
	race(2000, reads() / READERS, true);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_writer_that_never_pauses),
		cmocka_unit_test(a_writer_that_comes_often),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
