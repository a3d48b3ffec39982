/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_board_race.c -- readers against a writer that never pauses: nothing torn, and nobody waits without end.
 *
 * The writer stores the same number into every word of a row; a row that shows two numbers is torn. $READS is how many looks the
 * readers take together in each race (default: a moment's worth); `make tsan` runs it under ThreadSanitizer with ten million.
 *
 * Three writers. One stays on one row: the worst that can be, which no agent does; most looks are busy there, and each says so
 * after SBX_BOARD_TRIES. One writes all rows in turn and begins again at once: what the agent does after a reload or a suspend, but
 * for ever. One comes back to its row after a pause as short as no agent's; its readers look until they have read it.
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
#define WORDS (sizeof(struct sbx_board_hot) / sizeof(uint64_t))
#define ROWS 168u            /* of the race over all rows: as many targets as a large configuration has */

enum writer { STAYS_ON_ONE_ROW, WRITES_ALL_ROWS, COMES_OFTEN };

struct race {
	struct sbx_board board;
	uint8_t *base;
	bool stop;              /* atomic */
	enum writer writer;
	uint64_t writes;
	unsigned long reads;    /* of each reader */
};

struct seen {
	struct race *race;
	unsigned long looks, good, busy, torn, unknown;
	uint32_t longest;       /* tries of a look that came to something */
};

/* ---- the writer ---- */

static void *
write_on(void *arg)
{
	struct race *r = arg;
	uint64_t words[WORDS];
	for (uint64_t n = 1; !__atomic_load_n(&r->stop, __ATOMIC_RELAXED); n++) {
		for (size_t i = 1; i < WORDS; i++)
			words[i] = n;
		for (uint32_t row = 0; row < r->board.hot.count; row++) {
			if (r->writer != WRITES_ALL_ROWS && row != 3)
				continue;
			sbx_row_write(&((struct sbx_board_hot *)sbx_board_slot(r->base, &r->board.hot, row))->seq, words, WORDS);
			r->writes++;
		}
		for (int i = 0; r->writer == COMES_OFTEN && i < 2000; i++)
			sbx_row_pause();
	}
	return NULL;
}

/* ---- the readers ---- */

/* As signalbox/board.h says that a row is to be read, and counted. All of its words; 0 tries = busy. */
static uint32_t
look(const struct sbx_board *b, uint32_t row, bool *ret_torn)
{
	const uint64_t *word = sbx_board_row(b, &b->hot, row);
	for (uint32_t tries = 1; tries <= SBX_BOARD_TRIES; tries++, sbx_row_pause()) {
		uint64_t seq, copy[WORDS];
		if (!sbx_row_read_begin(word, &seq))
			continue;
		for (size_t i = 1; i < WORDS; i++)
			copy[i] = sbx_word_load(&word[i]);
		if (!sbx_row_read_end(word, seq))
			continue;
		for (size_t i = 2; i < WORDS; i++)
			*ret_torn |= copy[i] != copy[1] && seq != 0; /* 0: nobody wrote it yet */
		return tries;
	}
	return 0;
}

/* The same through the library. now: beyond every throttle and trial that the writer can have written. */
static void
look_by_library(struct seen *s, uint32_t row)
{
	struct sbx_need need = SBX_NEED_INIT;
	struct sbx_target_view v;
	struct sbx_pick pick[4];
	const uint64_t now = 1ull << 62;
	const int rc = sbx_board_target(&s->race->board, row, now, &v);
	const uint64_t n = v.in_flight;
	if (rc == 0 && n && (v.since_boot_ns != n || v.attempts != n || v.first_content.p50_ns != n || v.first_content.n != n || v.total.p99_ns != n || v.recent_bad != n || v.total.n != n))
		s->torn++;
	if (sbx_board_pick(&s->race->board, &need, now, pick, 4) != 4)
		s->unknown++; /* four can be asked, whatever state a row is in */
}

static void *
read_on(void *arg)
{
	struct seen *s = arg;
	const struct race *r = s->race;
	for (unsigned long done = 0; done < r->reads; s->looks++) {
		const uint32_t row = r->writer == WRITES_ALL_ROWS ? (uint32_t)(s->looks % r->board.hot.count) : 3;
		bool torn = false;
		const uint32_t tries = look(&r->board, row, &torn);
		s->torn += torn;
		if (tries) {
			s->good++;
			s->longest = tries > s->longest ? tries : s->longest;
		} else {
			s->busy++;
		}
		if (s->looks % 16 == 0)
			look_by_library(s, row);
		done += tries || r->writer != COMES_OFTEN; /* there so many looks must all come to something */
	}
	return NULL;
}

/* ---- the race ---- */

/* The rig's image, or one of ROWS targets. */
static uint8_t *
image_for(enum writer writer, size_t *ret_bytes)
{
	static struct sbx_target target[ROWS];
	struct sbx_tables t = rig_tables();
	struct sbx_buf image;
	if (writer != WRITES_ALL_ROWS)
		return rig_image(ret_bytes);
	for (uint32_t i = 0; i < ROWS; i++)
		target[i] = rig_target[i % 4];
	t.target = target;
	t.n_targets = ROWS;
	sbx_buf_init(&image, SBX_BOARD_BYTES_MAX);
	assert_int_equal(sbx_board_image(&t, &rig_identity, 1800000000, &image), 0);
	uint8_t *base = malloc(image.n);
	assert_non_null(base);
	memcpy(base, image.data, *ret_bytes = image.n);
	sbx_buf_fini(&image);
	((struct sbx_board_header *)(void *)base)->magic = SBX_BOARD_MAGIC;
	return base;
}

static struct seen
race(const char *name, enum writer how)
{
	const char *text = getenv("READS");
	struct race r = { .writer = how, .reads = (text ? strtoul(text, NULL, 10) : READS_DEFAULT) / READERS };
	struct seen seen[READERS], all = { .race = NULL };
	pthread_t writer, reader[READERS];
	size_t n;
	r.base = image_for(how, &n);
	assert_int_equal(sbx_board_check(r.base, n, &r.board, NULL, 0), 0);
	assert_int_equal(pthread_create(&writer, NULL, write_on, &r), 0);
	for (uint32_t i = 0; i < READERS; i++) {
		seen[i] = (struct seen){ .race = &r };
		assert_int_equal(pthread_create(&reader[i], NULL, read_on, &seen[i]), 0);
	}
	for (uint32_t i = 0; i < READERS; i++) {
		assert_int_equal(pthread_join(reader[i], NULL), 0);
		all.looks += seen[i].looks;
		all.good += seen[i].good;
		all.busy += seen[i].busy;
		all.torn += seen[i].torn;
		all.unknown += seen[i].unknown;
		all.longest = seen[i].longest > all.longest ? seen[i].longest : all.longest;
	}
	__atomic_store_n(&r.stop, true, __ATOMIC_RELAXED);
	assert_int_equal(pthread_join(writer, NULL), 0);
	print_message("%s: %lu looks during %llu writes: %lu read (%.2f %%), %lu busy after %d tries, %lu torn; the longest that was read took %u tries\n", name, all.looks,
	              (unsigned long long)r.writes, all.good, 100.0 * (double)all.good / (double)all.looks, all.busy, SBX_BOARD_TRIES, all.torn, all.longest);
	assert_int_equal(all.torn, 0);
	assert_int_equal(all.unknown, 0);
	assert_int_equal(all.good + all.busy, all.looks); /* each look came to its end */
	assert_true(all.good > 0 && all.longest <= SBX_BOARD_TRIES);
	free(r.base);
	return all;
}

static void
a_writer_that_never_leaves_the_row(void **state)
{
	(void)state;
	(void)race("a writer that never leaves the row", STAYS_ON_ONE_ROW);
}

static void
a_writer_that_never_pauses(void **state)
{
	(void)state;
	const struct seen all = race("a writer of all rows that never pauses", WRITES_ALL_ROWS);
	assert_true(all.good > all.looks / 2);
}

static void
a_writer_that_comes_often(void **state)
{
	(void)state;
	(void)race("a writer that comes often", COMES_OFTEN);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_writer_that_never_leaves_the_row),
		cmocka_unit_test(a_writer_that_never_pauses),
		cmocka_unit_test(a_writer_that_comes_often),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
