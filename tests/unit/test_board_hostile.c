/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_board_hostile.c -- boards that are no boards: every number of a good one replaced by every bad value, tables that overlap,
 * memory that changes under the reader, files cut off at every byte. Refused with a reason, or read within its bounds; the
 * sanitizers see a byte too much, since the image is its own allocation.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/unit/board_look.h"
#include "tests/unit/board_rig.h"

/* ---- every number ---- */

/* Accepted or refused, but never without a reason, and never to the reader's harm. */
static bool
try_board(const uint8_t *image, size_t n, bool header)
{
	struct sbx_board b;
	char why[200] = "";
	const int rc = sbx_board_check(image, n, &b, why, sizeof why);
	if (rc == 0)
		look_at_everything(&b);
	if (rc == 0 && header)
		look_at_agent(&b);
	assert_int_equal(rc == 0, why[0] == 0);
	assert_true(rc == 0 || rc == -SBX_EPROTO || rc == -SBX_EVERSION || rc == -SBX_EBUSY);
	return rc == 0;
}

static void
every_word_and_every_value(void **state)
{
	static const uint64_t values[] = { 0, 1, 7, 8, 16, 255, 256, 1000, 4096, 65535, 65536, 0x7fffffff, 0x80000000, 0xfffffff8, 0xffffffff, 0x100000000, 0x7fffffffffffffff,
		                           0x8000000000000000, 0xfffffffffffffff8, 0xffffffffffffffff };
	uint32_t accepted = 0, refused = 0;
	size_t n;
	uint8_t *image = rig_image(&n);
	(void)state;
	for (size_t bytes = 4; bytes <= 8; bytes += 4)
		for (size_t at = 0; at + bytes <= n; at += bytes)
			for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
				uint8_t was[8];
				const uint64_t beyond[] = { values[i], n, n - 1, n + 8 }; /* and the numbers of just this board */
				for (size_t k = 0; k < (i ? 1 : 4); k++) {
					memcpy(was, image + at, bytes);
					memcpy(image + at, &beyond[k], bytes);
					if (try_board(image, n, at < sizeof(struct sbx_board_header)))
						accepted++;
					else
						refused++;
					memcpy(image + at, was, bytes);
				}
			}
	print_message("%u accepted and looked at, %u refused\n", accepted, refused);
	assert_true(accepted > 1000 && refused > 1000);
	free(image);
}

/* Each table, moved onto each other one, whole or by its last row: refused. */
static void
tables_that_overlap(void **state)
{
	static const uint32_t table_at[] = { 80, 96, 112, 128, 144 };
	size_t n;
	uint8_t *image = rig_image(&n);
	uint64_t text_offset;
	(void)state;
	memcpy(&text_offset, image + 160, 8);
	for (size_t i = 0; i < 5; i++)
		for (size_t k = 0; k < 6; k++) {
			struct sbx_board_table one, other = { text_offset, 1, 8 };
			struct sbx_board b;
			char why[200] = "";
			uint64_t to[2];
			if (i == k)
				continue;
			memcpy(&one, image + table_at[i], sizeof one);
			if (k < 5)
				memcpy(&other, image + table_at[k], sizeof other);
			to[0] = other.offset;
			to[1] = other.offset + (uint64_t)other.stride * other.count - 8; /* the last word of it */
			for (int m = 0; m < 2; m++) {
				uint8_t *larger = calloc(1, n + 65536); /* room behind it, so that nothing but the overlap is wrong */
				const uint64_t size = n + 65536;
				assert_non_null(larger);
				memcpy(larger, image, n);
				memcpy(larger + 16, &size, 8);
				memcpy(larger + table_at[i], &to[m], 8);
				const int rc = sbx_board_check(larger, size, &b, why, sizeof why);
				if (rc != -SBX_EPROTO || !strstr(why, "overlap"))
					fail_msg("table %zu on %zu: %d, \"%s\"", i, k, rc, why);
				free(larger);
			}
		}
	free(image);
}

/* Nobody honest does it, but memory that was checked may be changed afterwards: what is answered may be wrong, and no more. */
static void
changed_after_the_check(void **state)
{
	static const uint64_t values[] = { 0, 1, 255, 0xffffffff, 0x7fffffffffffffff, 0xffffffffffffffff };
	size_t n;
	uint8_t *image = rig_image(&n);
	struct sbx_board b;
	(void)state;
	assert_int_equal(sbx_board_check(image, n, &b, NULL, 0), 0);
	for (size_t bytes = 4; bytes <= 8; bytes += 4)
		for (size_t at = 0; at + bytes <= n; at += bytes)
			for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
				uint8_t was[8];
				memcpy(was, image + at, bytes);
				memcpy(image + at, &values[i], bytes);
				look_at_everything(&b);
				memcpy(image + at, was, bytes);
			}
	for (size_t at = 0; at < n; at++) { /* and all of it at once, from the front and in vain */
		image[at] = 0xff;
		if (at % 64 == 0)
			look_at_everything(&b);
	}
	look_at_everything(&b);
	free(image);
}

/* ---- the file, the memory ---- */

static int
memory_of(const uint8_t *image, size_t n)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, image, n), n);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE), 0);
	return fd;
}

/* A snapshot and a sealed memory that end too early, at every byte; and the whole, which is taken. */
static void
cut_off_at_every_byte(void **state)
{
	char dir[] = "/tmp/sbx-hostile-XXXXXX", path[64];
	size_t n;
	uint8_t *image = rig_image(&n);
	(void)state;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof path, "%s/board.snapshot", dir);
	for (size_t k = 0; k <= n; k++) {
		struct sbx_board *b;
		char why[300] = "";
		int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		assert_true(fd >= 0);
		assert_int_equal(write(fd, image, k), k);
		assert_int_equal(close(fd), 0);
		int rc = sbx_board_load(path, &b, why, sizeof why);
		assert_int_equal(rc, k == n ? 0 : -SBX_EPROTO);
		assert_int_equal(rc == 0, why[0] == 0);
		sbx_board_close(rc ? NULL : b);
		fd = memory_of(image, k);
		rc = sbx_board_attach(fd, &b, why, sizeof why);
		assert_int_equal(rc, k == n ? 0 : -SBX_EPROTO);
		sbx_board_close(rc ? NULL : b);
		(void)close(fd);
	}
	(void)unlink(path);
	(void)rmdir(dir);
	free(image);
}

/* The reason fits what it is put into, and none may be asked for. */
static void
the_reason_is_bounded(void **state)
{
	size_t n;
	uint8_t *image = rig_image(&n);
	struct sbx_board b;
	char why[8];
	(void)state;
	image[8] = 9;
	memset(why, 'x', sizeof why);
	assert_int_equal(sbx_board_check(image, n, &b, why, 4), -SBX_EVERSION);
	assert_true(why[3] == 0 && why[4] == 'x');
	assert_int_equal(sbx_board_check(image, n, &b, why, 0), -SBX_EVERSION);
	assert_int_equal(sbx_board_check(image, n, &b, NULL, 0), -SBX_EVERSION);
	free(image);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_word_and_every_value),
		cmocka_unit_test(tables_that_overlap),
		cmocka_unit_test(changed_after_the_check),
		cmocka_unit_test(cut_off_at_every_byte),
		cmocka_unit_test(the_reason_is_bounded),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
