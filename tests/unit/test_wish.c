/* SPDX-License-Identifier: Apache-2.0 */
/* test_wish.c -- what a body wishes about names and providers, as candidates in order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/core/wish.h"

static struct sbx_provider providers[] = {
	{ .name = "openai", .auth = SBX_AUTH_BEARER, .first_credential = 0, .n_credentials = 1 },
	{ .name = "azure", .auth = SBX_AUTH_BEARER, .first_credential = 1, .n_credentials = 1 },
	{ .name = "lan", .auth = SBX_AUTH_NONE, .lacks = 1u << SBX_OP_EMBEDDINGS },
};
static struct sbx_credential credentials[2] = { { .provider = 0 }, { .provider = 1 } };
static struct sbx_target targets[] = {
	{ .name = "openai/m", .provider = 0, .model = "m" },
	{ .name = "azure/m", .provider = 1, .model = "m" },
	{ .name = "lan/m", .provider = 2, .model = "m" },
	{ .name = "openai/n", .provider = 0, .model = "n" },
	{ .name = "lan/n", .provider = 2, .model = "n" },
};
static struct sbx_route routes[] = { { .name = "r", .target = { 4, 0 }, .n_targets = 2, .restart = false } };
static const struct sbx_tables tables = {
	.provider = providers, .n_providers = 3, .credential = credentials, .n_credentials = 2,
	.target = targets, .n_targets = 5, .route = routes, .n_routes = 1,
};
static struct sbx_router router;

static int
setup(void **state)
{
	(void)state;
	router = (struct sbx_router){ .tables = &tables, .health = sbx_health_new(&tables, 0), .adhoc = sbx_adhoc_new(&tables, NULL) };
	return router.health && router.adhoc ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	sbx_adhoc_free(router.adhoc);
	sbx_health_free(router.health);
	return 0;
}

/* "a,b" as a list. */
static void
say(struct sbx_said *said, const char *names)
{
	for (const char *at = names; at && *at; at += strcspn(at, ","), at += *at == ',')
		said->name[said->n++] = (struct sbx_span){ at, strcspn(at, ",") };
}

static const struct {
	const char *model, *models, *fallbacks, *order, *only, *ignore;
	bool no_other;
	enum sbx_op op;
	int rc;
	const char *want; /* candidates as target:number-of-its-name; of a refusal "param why" */
} rows[] = {
	{ "m", .want = "openai/m:0 azure/m:0 lan/m:0 " },
	{ "m", .models = "n", .want = "openai/m:0 azure/m:0 lan/m:0 openai/n:1 lan/n:1 " },
	{ NULL, .models = "n,openai/m", .want = "openai/n:1 lan/n:1 openai/m:2 " },
	{ "n", .models = "n,r", .want = "openai/n:0 lan/n:0 openai/m:2 " },            /* the same target once, and the earlier name's */
	{ "openai/m", .fallbacks = "r", .models = "lan/m", .want = "openai/m:0 lan/m:1 lan/n:2 " }, /* models before fallbacks */
	{ "openai/new", .models = "openai/newer,azure/new", .want = "openai/new:0 openai/newer:1 azure/new:2 " },
	{ "m", .order = "LAN,Azure", .want = "lan/m:0 azure/m:0 openai/m:0 " },
	{ "m", .order = "azure", .no_other = true, .want = "azure/m:0 " },
	{ "m", .no_other = true, .want = "openai/m:0 " },
	{ "m", .only = "azure,lan", .want = "azure/m:0 lan/m:0 " },
	{ "m", .ignore = "openai,nobody", .want = "azure/m:0 lan/m:0 " },
	{ "r", .order = "openai", .models = "m", .want = "openai/m:0 lan/n:0 azure/m:1 lan/m:1 " }, /* each name by itself */
	{ "m", .no_other = true, .models = "n", .want = "openai/m:0 openai/n:1 " },
	{ "azure/m", .only = "lan", .models = "n", .want = "lan/n:1 " },
	{ "azure/m", .only = "lan", .rc = -SBX_ENOENT, .want = "provider provider leaves nobody" },
	{ "m", .order = "opnai", .rc = -SBX_ESYNTAX, .want = "provider.order provider.order names \"opnai\"" },
	{ "m", .only = "x", .rc = -SBX_ESYNTAX, .want = "provider.only provider.only names \"x\"" },
	{ "m", .models = "gone", .rc = -SBX_ENOENT, .want = "models no route or model \"gone\"" },
	{ "m", .fallbacks = "gone", .rc = -SBX_ENOENT, .want = "fallbacks no route or model \"gone\"" },
	{ "m", .models = "lan/n", .op = SBX_OP_EMBEDDINGS, .want = "openai/m:0 azure/m:0 " },
	{ NULL, .models = "lan/n", .op = SBX_OP_EMBEDDINGS, .rc = -SBX_EINVAL, .want = " no target of \"lan/n\" does embeddings" },
	/* every name keeps a place; more names than places are too many */
	{ "m", .models = "openai/1,openai/2,openai/3,openai/4,openai/5,openai/6,openai/7,openai/8,openai/9,openai/10,openai/11,openai/12,openai/13,openai/14,openai/15",
	  .want = "openai/m:0 openai/1:1 openai/2:2 openai/3:3 openai/4:4 openai/5:5 openai/6:6 openai/7:7 openai/8:8 openai/9:9 openai/10:10 openai/11:11 "
	          "openai/12:12 openai/13:13 openai/14:14 openai/15:15 " },
	{ "m", .models = "m,m,m,m,m,m,m,m", .fallbacks = "m,m,m,m,m,m,m,m", .rc = -SBX_ESYNTAX, .want = "models models and fallbacks name more than 15" },
};

static void
test_rows(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct sbx_request req;
		struct sbx_routing w = { .retries = -1 };
		struct sbx_fault fault = { .unsupported = false };
		char got[1024] = "", why[384];
		size_t n = 0;
		say(&w.models, rows[i].models);
		say(&w.fallbacks, rows[i].fallbacks);
		say(&w.order, rows[i].order);
		say(&w.only, rows[i].only);
		say(&w.ignore, rows[i].ignore);
		w.no_other = rows[i].no_other;
		sbx_request_init(&req, false, true, 1000, 0, 1);
		req.op = rows[i].op;
		if (rows[i].model)
			assert_int_equal(sbx_router_resolve(&router, sbx_span_of(rows[i].model), false, &req, 0, why, sizeof why), 0);
		int rc = sbx_wish_apply(&router, &w, false, &req, 0, &fault);
		for (uint8_t k = 0; rc == 0 && k < req.n_candidates; k++)
			n += (size_t)snprintf(got + n, sizeof got - n, "%s:%u ", sbx_router_target(&router, req.candidate[k].target)->name, req.candidate[k].name);
		if (rc)
			(void)snprintf(got, sizeof got, "%s %s", fault.param, fault.why);
		if (rc != rows[i].rc || (rc ? strncmp(got, rows[i].want, strlen(rows[i].want)) : strcmp(got, rows[i].want)) != 0)
			fail_msg("row %zu: %d %s\n  want %s", i, rc, got, rows[i].want);
	}
}

/* A route that does not let a stream start over binds also when it is only a fallback; retries become attempts. */
static void
test_what_else_follows(void **state)
{
	(void)state;
	struct sbx_request req;
	struct sbx_routing w = { .retries = 2 };
	struct sbx_fault fault;
	char why[384];
	sbx_request_init(&req, true, true, 1000, 0, 1);
	assert_int_equal(sbx_router_resolve(&router, sbx_span_of("m"), false, &req, 0, why, sizeof why), 0);
	assert_true(req.restart);
	assert_int_equal(sbx_wish_apply(&router, &w, false, &req, 0, &fault), 0);
	assert_true(req.restart);
	assert_int_equal(req.tries_per_name, 3);
	say(&w.fallbacks, "r");
	assert_int_equal(sbx_wish_apply(&router, &w, false, &req, 0, &fault), 0);
	assert_false(req.restart);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_rows, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_else_follows, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
