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

#include "tests/unit/board_rig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define NOW 1000500000000ull

/* Everything that a reader can ask. */
static void
look_at(const struct sbx_board *b)
{
	struct sbx_pick pick[8];
	struct sbx_direct direct[8];
	struct sbx_target_view target;
	struct sbx_route_view route;
	struct sbx_board_info info;
	size_t letters = 0;
	uint32_t found;

	sbx_board_describe(b, &info);
	(void)sbx_life_word(sbx_board_life(b, NOW));
	for (uint32_t i = 0; i <= info.n_targets && i < 70; i++) {
		int rc = sbx_board_target(b, i, NOW, &target);
		if (rc == -SBX_ENOENT)
			continue;
		letters += strlen(target.name) + strlen(target.provider) + strlen(target.model) + strlen(target.dialect) + strlen(target.state) + strlen(target.why) +
		           strlen(sbx_standing_word(target.standing));
	}
	for (uint32_t i = 0; i <= info.n_routes && i < 70; i++) {
		if (sbx_board_route(b, i, &route) == 0) {
			assert(route.n_targets <= 16);
			letters += strlen(route.name);
		}
		struct sbx_need need = SBX_NEED_INIT;
		need.route = i;
		(void)sbx_board_pick(b, &need, NOW, pick, 8);
	}
	(void)sbx_board_find_route(b, "back", &found);
	(void)sbx_board_find_target(b, "bare/e", &found);
	for (int64_t max = -1; max < 2; max++) {
		struct sbx_need need = SBX_NEED_INIT;
		need.max_cost_nanousd = max;
		need.caps = SBX_CAP_REASONING;
		need.input_tokens = need.output_tokens = (uint64_t)(max + 1) << 62;
		int n = sbx_board_pick(b, &need, NOW, pick, 8);
		assert(n >= 0 && n <= 8);
		for (int i = 0; i < n; i++)
			assert(pick[i].target < info.n_targets && pick[i].standing != SBX_STANDING_NO_KEY);
		n = sbx_bypass(b, &need, NOW, direct, 8);
		assert(n >= 0 && n <= 8);
		for (int i = 0; i < n; i++)
			letters += strlen(direct[i].target) + strlen(direct[i].url) + strlen(direct[i].model) + strlen(direct[i].dialect) + strlen(direct[i].auth) + strlen(direct[i].key_name);
	}
	assert(letters < SIZE_MAX);
}

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
		look_at(&b);
		for (size_t i = before; before != SIZE_MAX && (i + 1) * 10 <= bytes; i++)
			patch(base, n, data + i * 10);
		look_at(&b);
	}
	free(base);
	return 0;
}
