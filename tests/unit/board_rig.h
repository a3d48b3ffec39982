/* SPDX-License-Identifier: Apache-2.0 */
/*
 * board_rig.h -- a small configuration and its board, for tests: three providers, five targets, two routes.
 *
 *   0 one/a   keys 0, 1      route "all"  0 1 2 3 4
 *   1 one/b   keys 0, 1      route "back" 3 0
 *   2 two/c   key 2; the only one that a catalog knows: reasons, tools, 1000 tokens of context, 200 of output, a fee, two tiers
 *   3 lan/d   wants no key
 *   4 bare/e  has no key and needs one
 */
#ifndef SBX_TESTS_UNIT_BOARD_RIG_H
#define SBX_TESTS_UNIT_BOARD_RIG_H

#include <stdlib.h>
#include <string.h>

#include "agent/core/facts.h"
#include "agent/core/health.h"
#include "agent/dialect/hub.h"
#include "agent/io/board_image.h"
#include "client/board.h"

#define RIG_TARGETS 5u

static struct sbx_provider rig_provider[] = {
	{ .name = (char[]){ "one" }, .base_url = (char[]){ "https://one.example/v1" }, .policy = { .wait_short_ns = 2000000000 }, .auth = SBX_AUTH_BEARER, .first_credential = 0, .n_credentials = 2 },
	{ .name = (char[]){ "two" }, .base_url = (char[]){ "https://two.example/v1" }, .query = (char[]){ "api-version=7" }, .auth = SBX_AUTH_API_KEY, .first_credential = 2, .n_credentials = 1 },
	{ .name = (char[]){ "lan" }, .base_url = (char[]){ "http://127.0.0.1:8000/v1" }, .auth = SBX_AUTH_NONE },
	{ .name = (char[]){ "bare" }, .base_url = (char[]){ "https://bare.example/v1" }, .auth = SBX_AUTH_BEARER },
};
static struct sbx_credential rig_credential[] = {
	{ .provider = 0, .source = (char[]){ "env:ONE" } },
	{ .provider = 0, .source = (char[]){ "file:/one" } },
	{ .provider = 1, .source = (char[]){ "env:TWO" } },
};
static struct sbx_model rig_model = {
	.name = (char[]){ "two/c" }, .caps = SBX_MODEL_REASONING | SBX_MODEL_REASONS | SBX_MODEL_TOOLS, .says_caps = true, .context_tokens = 1000, .max_output_tokens = 200, .n_rows = 2,
};
#define RIG_TIER(above, in, out, fee) { (above), { [SBX_PRICE_INPUT] = (in), [SBX_PRICE_OUTPUT] = (out), [SBX_PRICE_REQUEST] = (fee) } }
static struct sbx_price_tier rig_tier[] = {
	RIG_TIER(-1, 9000000000, 9000000000, 9000000000000), RIG_TIER(100, 1, 1, 1), /* of a row that is over */
	RIG_TIER(-1, 2000000000, 10000000000, 3000000000000), RIG_TIER(500, 4000000000, 20000000000, 5000000000000),
};
static struct sbx_price_row rig_row[] = {
	{ .from_unix_s = 1, .until_unix_s = 1700000000, .first_tier = 0, .n_tiers = 2 },
	{ .from_unix_s = 1700000000, .until_unix_s = SBX_PRICE_FOREVER, .first_tier = 2, .n_tiers = 2 },
};
static const struct sbx_facts rig_facts = { .model = &rig_model, .row = rig_row, .tier = rig_tier, .n_models = 1, .n_rows = 2, .n_tiers = 4 };
static struct sbx_target rig_target[] = {
	{ .name = (char[]){ "one/a" }, .provider = 0, .model = (char[]){ "a" } },
	{ .name = (char[]){ "one/b" }, .provider = 0, .model = (char[]){ "b" } },
	{ .name = (char[]){ "two/c" }, .provider = 1, .model = (char[]){ "c" }, .reasoning = true, .context_tokens = 1000, .known = &rig_model },
	{ .name = (char[]){ "lan/d" }, .provider = 2, .model = (char[]){ "d" } },
	{ .name = (char[]){ "bare/e" }, .provider = 3, .model = (char[]){ "e" } },
};
static struct sbx_route rig_route[] = {
	{ .name = (char[]){ "all" }, .target = { 0, 1, 2, 3, 4 }, .n_targets = 5 },
	{ .name = (char[]){ "back" }, .target = { 3, 0 }, .n_targets = 2 },
};
static const struct sbx_board_identity rig_identity = { .generation = 0x1111, .edition = 2, .pid = 3333, .start_boot_ns = 4444, .start_ticks = 5555, .pid_ns = 6666 };

static inline struct sbx_tables
rig_tables(void)
{
	for (size_t i = 0; i < sizeof rig_provider / sizeof rig_provider[0]; i++)
		rig_provider[i].dialect = sbx_dialect_find("openai-chat");
	return (struct sbx_tables){
		.provider = rig_provider, .n_providers = 4, .credential = rig_credential, .n_credentials = 3,
		.target = rig_target, .n_targets = RIG_TARGETS, .route = rig_route, .n_routes = 2, .facts = &rig_facts,
	};
}

/* The image with its magic and a heartbeat, served. malloc'd: sanitizers see one byte too much. */
static inline uint8_t *
rig_image(size_t *ret_bytes)
{
	const struct sbx_tables tables = rig_tables();
	struct sbx_buf image;
	sbx_buf_init(&image, SBX_BOARD_BYTES_MAX);
	if (sbx_board_image(&tables, &rig_identity, 1800000000, &image))
		abort();
	uint8_t *copy = malloc(image.n);
	if (!copy)
		abort();
	memcpy(copy, image.data, image.n);
	*ret_bytes = image.n;
	sbx_buf_fini(&image);
	struct sbx_board_header *h = (struct sbx_board_header *)(void *)copy;
	h->magic = SBX_BOARD_MAGIC;
	h->state = SBX_BOARD_SERVING;
	h->heartbeat_boot_ns = 1000000000000ull;
	h->heartbeat_unix_ns = 1800000000000000000ull;
	return copy;
}

#endif
