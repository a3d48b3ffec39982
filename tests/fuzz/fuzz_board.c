/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_board.c -- any bytes as a board, and a good board that is scribbled on before and after it was checked: never a crash, a
 * read beyond it, or an endless loop; what is answered stays within its own bounds.
 *
 * The first byte chooses. Even: the rest is the board (with its magic and size put right, or hardly any input would get past
 * them; with 2 left as it is). Odd: patches to a good one, 10 bytes each, a little-endian word number and its new value; those
 * after the first (byte / 2) patches are made after the check, behind the reader's back.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/unit/board_look.h"
#include "tests/unit/board_rig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void
patch(uint8_t *base, size_t bytes, const uint8_t *p)
{
	const size_t at = ((size_t)p[0] | (size_t)p[1] << 8) * 8;
	if (at + 8 <= bytes)
		memcpy(base + at, p + 2, 8);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct sbx_board b;
	char why[200];
	size_t n, before = SIZE_MAX;
	uint8_t *base;

	if (bytes < 1)
		return 0;
	const uint8_t how = *data++;
	bytes--;
	if (how & 1) {
		base = rig_image(&n);
		before = how / 2;
		for (size_t i = 0; i < before && (i + 1) * 10 <= bytes; i++)
			patch(base, n, data + i * 10);
	} else {
		n = bytes;
		base = malloc(n ? n : 1);
		if (!base)
			return 0;
		memcpy(base, data, n);
		if (how != 2 && n >= sizeof(struct sbx_board_header)) {
			const uint64_t magic = SBX_BOARD_MAGIC, size = n;
			memcpy(base, &magic, 8);
			memcpy(base + 16, &size, 8);
		}
	}
	why[0] = 0;
	const int rc = sbx_board_check(base, n, &b, why, sizeof why);
	assert((rc == 0) == (why[0] == 0));
	if (rc == 0) {
		look_at_everything(&b);
		look_at_agent(&b);
		for (size_t i = before; before != SIZE_MAX && (i + 1) * 10 <= bytes; i++)
			patch(base, n, data + i * 10);
		look_at_everything(&b);
		look_at_agent(&b);
	}
	free(base);
	return 0;
}
