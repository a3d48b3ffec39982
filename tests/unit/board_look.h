/* SPDX-License-Identifier: Apache-2.0 */
/*
 * board_look.h -- every question that a reader can ask of a board, for tests that feed it bad ones: each string is read to its end,
 * each number of a row is within what the board has. Only look_at_agent() makes system calls.
 */
#ifndef SBX_TESTS_UNIT_BOARD_LOOK_H
#define SBX_TESTS_UNIT_BOARD_LOOK_H

#include <assert.h>
#include <string.h>

#include "client/board.h"

#define LOOK_NOW 1000500000000ull /* half a second after the rig's heartbeat */
#define LOOK_ROWS 70u             /* of each table: a board may have 65,536 */

static inline size_t
look_pick(const struct sbx_board *b, const struct sbx_need *need, const struct sbx_board_info *info, uint32_t max)
{
	struct sbx_pick pick[SBX_PICK_MAX];
	struct sbx_direct direct[SBX_PICK_MAX];
	size_t letters = 0;
	int n = sbx_board_pick(b, need, LOOK_NOW, pick, max);
	assert(n == -SBX_ENOENT || (n >= 0 && (uint32_t)n <= max));
	for (int i = 0; i < n; i++) {
		assert(pick[i].target < info->n_targets && pick[i].standing != SBX_STANDING_NO_KEY);
		assert(need->max_cost_nanousd < 0 || (pick[i].cost_nanousd != SBX_UNPRICED && pick[i].cost_nanousd <= need->max_cost_nanousd));
		assert(pick[i].cost_nanousd == SBX_UNPRICED || pick[i].cost_nanousd >= 0);
		letters += strlen(sbx_standing_word(pick[i].standing));
	}
	n = sbx_bypass(b, need, LOOK_NOW, direct, max);
	assert(n == -SBX_ENOENT || (n >= 0 && (uint32_t)n <= max));
	for (int i = 0; i < n; i++)
		letters += strlen(direct[i].target) + strlen(direct[i].url) + strlen(direct[i].model) + strlen(direct[i].dialect) + strlen(direct[i].auth) + strlen(direct[i].key_name);
	return letters;
}

static inline void
look_at_agent(const struct sbx_board *b)
{
	struct sbx_agent_view agent;
	sbx_board_agent(b, &agent);
	assert(*sbx_life_word(agent.life));
}

static inline void
look_at_everything(const struct sbx_board *b)
{
	struct sbx_target_view target;
	struct sbx_credential_view credential;
	struct sbx_route_view route;
	struct sbx_board_info info;
	struct sbx_need need = SBX_NEED_INIT;
	size_t letters = 0;
	uint32_t found;

	sbx_board_describe(b, &info);
	letters += strlen(sbx_life_word(sbx_board_life(b, LOOK_NOW)));
	for (uint32_t i = 0; i <= info.n_targets && i < LOOK_ROWS; i++) {
		int rc = sbx_board_target(b, i, LOOK_NOW, &target);
		assert((rc == -SBX_ENOENT) == (i >= info.n_targets));
		if (rc != -SBX_ENOENT)
			letters += strlen(target.name) + strlen(target.provider) + strlen(target.model) + strlen(target.dialect) + strlen(target.state) + strlen(target.why) +
			           strlen(sbx_standing_word(target.standing));
	}
	for (uint32_t i = 0; i <= info.n_credentials && i < LOOK_ROWS; i++)
		if (sbx_board_credential(b, i, &credential) == 0)
			letters += strlen(credential.provider) + strlen(credential.source) + strlen(credential.why);
	for (uint32_t i = 0; i <= info.n_routes && i < LOOK_ROWS; i++) {
		if (sbx_board_route(b, i, &route) == 0) {
			assert(route.n_targets <= SBX_BOARD_ROUTE_TARGETS_MAX);
			letters += strlen(route.name) + strlen(route.policy);
		}
		need.route = i;
		letters += look_pick(b, &need, &info, 8);
	}
	if (sbx_board_find_route(b, "back", &found) == 0)
		assert(found < info.n_routes);
	if (sbx_board_find_target(b, "bare/e", &found) == 0)
		assert(found < info.n_targets);
	need.route = SBX_ROUTE_ALL;
	for (uint32_t caps = 0; caps < 32; caps += 5)
		for (int64_t cost = -1; cost < 2; cost++) {
			need.caps = caps;
			need.max_cost_nanousd = cost == 1 ? INT64_MAX : cost;
			need.input_tokens = need.output_tokens = (uint64_t)caps << (caps % 62);
			letters += look_pick(b, &need, &info, SBX_PICK_MAX);
		}
	static const char *const names[] = { "bare/e", "one/x", "", "/", "nobody/x" };
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		struct sbx_direct d;
		if (sbx_bypass_target(b, names[i], LOOK_NOW, &d) == 0)
			letters += strlen(d.target) + strlen(d.url) + strlen(d.model) + strlen(d.dialect) + strlen(d.auth) + strlen(d.key_name);
	}
	assert(letters < SIZE_MAX);
}

#endif
