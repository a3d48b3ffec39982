/* SPDX-License-Identifier: Apache-2.0 */
/* test_route.c -- names to candidates, the nearest name, and the life of ad-hoc rows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/core/names.h"
#include "agent/core/route.h"

#define S 1000000000ull

static struct sbx_provider providers[] = {
	{ .name = "openai", .auth = SBX_AUTH_BEARER, .first_credential = 0, .n_credentials = 1 },
	{ .name = "openrouter", .auth = SBX_AUTH_BEARER, .first_credential = 1, .n_credentials = 1 },
	{ .name = "azure", .auth = SBX_AUTH_API_KEY, .first_credential = 2, .n_credentials = 0 }, /* its key is missing */
	{ .name = "lan", .auth = SBX_AUTH_NONE, .first_credential = 2, .n_credentials = 0 },
};
static struct sbx_credential credentials[2] = { { .provider = 0 }, { .provider = 1 } };
static struct sbx_target targets[] = {
	{ .name = "azure/gpt-5.2", .provider = 2, .model = "gpt-5.2", .reasoning = true },
	{ .name = "openai/gpt-5.2", .provider = 0, .model = "gpt-5.2", .reasoning = true, .context_tokens = 400000 },
	{ .name = "openai/gpt-4.1-mini", .provider = 0, .model = "gpt-4.1-mini" },
	{ .name = "openrouter/meta-llama/llama-4", .provider = 1, .model = "meta-llama/llama-4" },
	{ .name = "openrouter/gpt-5.2", .provider = 1, .model = "gpt-5.2", .reasoning = true },
	{ .name = "lan/qwen3-32b", .provider = 3, .model = "qwen3-32b" },
};
static struct sbx_route routes[] = {
	{ .name = "chat", .target = { 5, 1, 0 }, .n_targets = 3 },
	{ .name = "summaries", .target = { 2 }, .n_targets = 1 },
};
static const struct sbx_tables tables = {
	.provider = providers, .n_providers = 4, .credential = credentials, .n_credentials = 2,
	.target = targets, .n_targets = 6, .route = routes, .n_routes = 2,
};
enum { N_TARGETS = 6 };

static struct sbx_router router;
static struct sbx_request req;
static char why[1024];

static bool
reasons(const char *model)
{
	return strncmp(model, "o3", 2) == 0;
}

static int
setup(void **state)
{
	(void)state;
	memset(&req, 0, sizeof req);
	router = (struct sbx_router){ .tables = &tables, .health = sbx_health_new(&tables, 0), .adhoc = sbx_adhoc_new(&tables, reasons) };
	return router.health && router.adhoc ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	sbx_adhoc_free(router.adhoc);
	sbx_health_free(router.health);
	sbx_adhoc_free(NULL);
	return 0;
}

/* ---- names ---- */

typedef int resolve_fn(struct sbx_router *, struct sbx_span, bool, struct sbx_request *, uint64_t, char *, size_t);
#define ANY sbx_router_resolve
#define ROUTE sbx_router_resolve_route
#define MODEL sbx_router_resolve_model
#define ADD sbx_router_add
#define STATUS "; see `signalbox status`"

static const struct {
	resolve_fn *resolve;
	const char *name;
	int want;
	const char *want_text; /* the candidates' names, else the message */
} cases[] = {
	{ ANY, "chat", 0, "lan/qwen3-32b openai/gpt-5.2 azure/gpt-5.2 " },
	{ ROUTE, "chat", 0, "lan/qwen3-32b openai/gpt-5.2 azure/gpt-5.2 " },
	{ MODEL, "chat", -SBX_ENOENT, "no model \"chat\"; there is a route of that name" },
	{ ADD, "chat", -SBX_ENOENT, "no model \"chat\"; there is a route of that name" },
	{ ANY, "openai/gpt-5.2", 0, "openai/gpt-5.2 " },
	{ MODEL, "openai/gpt-5.2", 0, "openai/gpt-5.2 " },
	{ ADD, "openai/gpt-5.2", 0, "openai/gpt-5.2 " },
	{ ROUTE, "openai/gpt-5.2", -SBX_ENOENT, "no route \"openai/gpt-5.2\"" STATUS },
	{ ANY, "azure/gpt-5.2", 0, "azure/gpt-5.2 " }, /* the gate will say that it has no key */
	/* a bare model: every provider of it, the one without a key last */
	{ ANY, "gpt-5.2", 0, "openai/gpt-5.2 openrouter/gpt-5.2 azure/gpt-5.2 " },
	{ MODEL, "gpt-5.2", 0, "openai/gpt-5.2 openrouter/gpt-5.2 azure/gpt-5.2 " },
	{ ADD, "gpt-5.2", -SBX_ENOENT, "no model \"gpt-5.2\"; nearest is \"openai/gpt-5.2\"" STATUS },
	/* a slash belongs to the model where no provider is before it */
	{ ANY, "meta-llama/llama-4", 0, "openrouter/meta-llama/llama-4 " },
	{ ANY, "openrouter/meta-llama/llama-4", 0, "openrouter/meta-llama/llama-4 " },
	/* ad-hoc */
	{ ANY, "openai/o3-new", 0, "openai/o3-new " },
	{ ANY, "openrouter/a/b/c", 0, "openrouter/a/b/c " },
	{ ADD, "lan/mistral", 0, "lan/mistral " },
	{ ANY, "openai/", -SBX_ESYNTAX, NULL },
	/* nothing of that name */
	{ ANY, "gpt-5.2-mini", -SBX_ENOENT, "no route or model \"gpt-5.2-mini\"; nearest is \"openai/gpt-4.1-mini\"" STATUS },
	{ ANY, "gpt-5.2-pro", -SBX_ENOENT, "no route or model \"gpt-5.2-pro\"; nearest is \"openai/gpt-5.2\"" STATUS },
	{ ANY, "GPT-5.1", -SBX_ENOENT, "no route or model \"GPT-5.1\"; nearest is \"openai/gpt-5.2\"" STATUS },
	{ ANY, "chta", -SBX_ENOENT, "no route or model \"chta\"; nearest is \"chat\"" STATUS },
	{ ROUTE, "summary", -SBX_ENOENT, "no route \"summary\"; nearest is \"summaries\"" STATUS },
	{ ANY, "opnai/gpt-5.2", -SBX_ENOENT, "no route or model \"opnai/gpt-5.2\"; nearest is \"openai/gpt-5.2\"" STATUS },
	{ ANY, "opnai/gpt-99-turbo", -SBX_ENOENT, "no route or model \"opnai/gpt-99-turbo\"; nearest is \"openai/gpt-99-turbo\"" STATUS },
	{ ANY, "openai", -SBX_ENOENT, "\"openai\" is a provider: name one of its models, as in \"openai/MODEL\"" },
	{ ANY, "zzzzzzzz", -SBX_ENOENT, "no route or model \"zzzzzzzz\"" STATUS },
	{ ANY, "x", -SBX_ENOENT, "no route or model \"x\"" STATUS },
	{ ANY, "/", -SBX_ENOENT, "no route or model \"/\"" STATUS },
	{ ANY, "/gpt-5.2", -SBX_ENOENT, "no route or model \"/gpt-5.2\"; nearest is \"openai/gpt-5.2\"" STATUS },
	{ ANY, "qw\xc3\xa9n3", -SBX_ENOENT, "no route or model \"qw\xc3\xa9n3\"" STATUS },
	/* no name */
	{ ANY, "", -SBX_ESYNTAX, NULL },
	{ ANY, "openai/a\nb", -SBX_ESYNTAX, NULL },
	{ ANY, "openai/a\x7f", -SBX_ESYNTAX, NULL },
	{ ANY, "openai/a\x1b[2J", -SBX_ESYNTAX, NULL },
	{ ANY, "openai/\xc2\x85", -SBX_ESYNTAX, NULL }, /* C1 */
	{ ANY, "openai/\xff", -SBX_ESYNTAX, NULL },
	{ ANY, "openai/\xc0\xaf", -SBX_ESYNTAX, NULL },
	{ ANY, "openai/\xed\xa0\x80", -SBX_ESYNTAX, NULL },
	{ ANY, "openai/\xf4\x90\x80\x80", -SBX_ESYNTAX, NULL },
	{ ANY, "openai/\xe2\x82", -SBX_ESYNTAX, NULL },
	{ ADD, "\xf0\x9f", -SBX_ESYNTAX, NULL },
};

static void
every_kind_of_name(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char got[1024] = "";
		req.n_candidates = 0;
		why[0] = '\0';
		int rc = cases[i].resolve(&router, sbx_span_of(cases[i].name), false, &req, S, why, sizeof why);
		for (uint32_t k = 0; rc == 0 && k < req.n_candidates; k++)
			(void)snprintf(got + strlen(got), sizeof got - strlen(got), "%s ", sbx_router_target(&router, req.candidate[k].target)->name);
		if (rc != cases[i].want || (cases[i].want_text && strcmp(rc ? why : got, cases[i].want_text) != 0) || (rc && (req.n_candidates || !why[0])))
			fail_msg("\"%s\": %d, \"%s\"", cases[i].name, rc, rc ? why : got);
	}
}

static void
facts_of_a_candidate(void **state)
{
	(void)state;
	assert_int_equal(ANY(&router, SBX_SPAN("openai/gpt-5.2"), false, &req, S, why, sizeof why), 0);
	assert_int_equal(req.candidate[0].target, 1);
	assert_int_equal(req.candidate[0].provider, 0);
	assert_int_equal(req.candidate[0].context_tokens, 400000);
	assert_ptr_equal(req.candidate[0].policy, &providers[0].policy);
	assert_true(req.candidate[0].reasoning);
	req.candidate[0].closed = true; /* left over by a former use of the struct */
	assert_int_equal(ANY(&router, SBX_SPAN("openai/gpt-5.2"), true, &req, S, why, sizeof why), 0);
	assert_false(req.candidate[0].reasoning || req.candidate[0].closed);
	/* an ad-hoc model: what its name tells */
	assert_int_equal(ANY(&router, SBX_SPAN("lan/o3-mini"), false, &req, S, why, sizeof why), 0);
	assert_true(req.candidate[0].reasoning);
	assert_true(req.candidate[0].target >= N_TARGETS);
	const struct sbx_target *t = sbx_router_target(&router, req.candidate[0].target);
	assert_string_equal(t->model, "o3-mini");
	assert_int_equal(t->provider, 3);
	assert_int_equal(ANY(&router, SBX_SPAN("lan/other"), false, &req, S, why, sizeof why), 0);
	assert_false(req.candidate[0].reasoning);
	assert_null(sbx_router_target(&router, N_TARGETS + SBX_TARGETS_ADHOC_MAX));
	assert_null(sbx_router_target(&router, N_TARGETS + 2)); /* never used */
}

static void
longest_names(void **state)
{
	char name[600] = "openai/";
	(void)state;
	memset(name + 7, 'm', sizeof name - 7);
	assert_int_equal(ANY(&router, (struct sbx_span){ name, 7 + SBX_MODEL_MAX_BYTES }, false, &req, S, why, sizeof why), 0);
	assert_int_equal(ANY(&router, (struct sbx_span){ name, 8 + SBX_MODEL_MAX_BYTES }, false, &req, S, why, sizeof why), -SBX_ESYNTAX);
	assert_int_equal(ANY(&router, (struct sbx_span){ name, sizeof name }, false, &req, S, why, sizeof why), -SBX_ESYNTAX);
	assert_int_equal(ANY(&router, (struct sbx_span){ name + 7, 384 }, false, &req, S, why, sizeof why), -SBX_ENOENT);
	assert_int_equal(ANY(&router, (struct sbx_span){ name + 7, 384 }, false, &req, S, why, 8), -SBX_ENOENT);
	assert_int_equal(strlen(why), 7); /* cut, and terminated */
}

static void
a_list_of_targets(void **state)
{
	char name[32];
	(void)state;
	assert_int_equal(ADD(&router, SBX_SPAN("openai/gpt-5.2"), false, &req, S, why, sizeof why), 0);
	assert_int_equal(ADD(&router, SBX_SPAN("openai/new"), false, &req, S, why, sizeof why), 0);
	assert_int_equal(ADD(&router, SBX_SPAN("openai/new"), false, &req, S, why, sizeof why), -SBX_ESYNTAX);
	assert_string_equal(why, "the target \"openai/new\" is named twice");
	assert_int_equal(req.n_candidates, 2);
	for (int i = 2; i < SBX_ROUTE_TARGETS_MAX; i++) {
		(void)snprintf(name, sizeof name, "lan/m%d", i);
		assert_int_equal(ADD(&router, sbx_span_of(name), false, &req, S, why, sizeof why), 0);
	}
	assert_int_equal(ADD(&router, SBX_SPAN("lan/more"), false, &req, S, why, sizeof why), -SBX_ESYNTAX);
	assert_int_equal(req.n_candidates, SBX_ROUTE_TARGETS_MAX);
	sbx_router_hold(&router, &req);
	sbx_router_release(&router, &req);
}

/* ---- ad-hoc rows ---- */

static uint32_t
ask(uint32_t i, uint64_t now_ns, int want)
{
	char name[32];
	(void)snprintf(name, sizeof name, "lan/model-%u", i);
	assert_int_equal(ANY(&router, sbx_span_of(name), false, &req, now_ns, why, sizeof why), want);
	return want ? 0 : req.candidate[0].target;
}

static void
the_least_recently_used_idle_row_is_reused(void **state)
{
	uint32_t first = ask(0, 1 * S, 0);
	(void)state;
	assert_int_equal(ask(0, 1 * S, 0), first); /* the same name, the same row */
	for (uint32_t i = 1; i < SBX_TARGETS_ADHOC_MAX; i++)
		assert_int_equal(ask(i, (1 + i) * S, 0), first + i);
	(void)ask(0, 500 * S, 0); /* used again: now model-1 is the oldest */
	sbx_health_on_start(router.health, &tables, first + 1, 3, UINT32_MAX, 500 * S);
	sbx_health_on_end(router.health, &tables, first + 1, 3, UINT32_MAX, SBX_CLASS_NOT_THERE, -1, 0, 0, 500 * S);
	assert_int_equal(ask(1000, 501 * S, 0), first + 1);
	assert_string_equal(sbx_router_target(&router, first + 1)->name, "lan/model-1000");
	assert_int_equal(sbx_health_target(router.health, first + 1)->state, SBX_BREAKER_CLOSED); /* nothing of the former is left */
	assert_int_equal(sbx_health_target(router.health, first + 1)->attempts, 0);
	assert_int_equal(ask(1, 502 * S, 0), first + 2);
}

static void
held_rows_stay(void **state)
{
	static struct sbx_request holder[SBX_TARGETS_ADHOC_MAX];
	(void)state;
	for (uint32_t i = 0; i < SBX_TARGETS_ADHOC_MAX; i++) {
		(void)ask(i, i * S, 0);
		holder[i] = req;
		sbx_router_hold(&router, &holder[i]);
	}
	(void)ask(5000, 900 * S, -SBX_EBUSY);
	assert_true(strstr(why, "256 models") != NULL);
	uint32_t row = ask(7, 901 * S, 0); /* known ones can still be asked for */
	sbx_router_hold(&router, &req);
	sbx_router_release(&router, &req);
	sbx_router_release(&router, &holder[200]);
	assert_int_equal(ask(5000, 902 * S, 0), holder[200].candidate[0].target);
	assert_int_not_equal(row, holder[200].candidate[0].target);
	/* One row is idle: a list of two new targets cannot have it twice. */
	req.n_candidates = 0;
	assert_int_equal(ADD(&router, SBX_SPAN("lan/x"), false, &req, 903 * S, why, sizeof why), 0);
	assert_int_equal(ADD(&router, SBX_SPAN("lan/y"), false, &req, 903 * S, why, sizeof why), -SBX_EBUSY);
	assert_int_equal(req.n_candidates, 1);
	for (uint32_t i = 0; i < SBX_TARGETS_ADHOC_MAX; i++)
		if (i != 200)
			sbx_router_release(&router, &holder[i]);
}

/* ---- the index ---- */

static void
thousands_of_names(void **state)
{
	static char name[SBX_TARGETS_MAX][40];
	struct sbx_target *many = calloc(SBX_TARGETS_MAX, sizeof *many);
	const struct sbx_tables big = { .provider = providers, .n_providers = 4, .target = many, .n_targets = SBX_TARGETS_MAX };
	(void)state;
	for (uint32_t i = 0; i < SBX_TARGETS_MAX; i++) {
		(void)snprintf(name[i], sizeof name[i], "%s/model-%u", i % 2 ? "openai" : "lan", i / 2);
		many[i] = (struct sbx_target){ .name = name[i], .provider = i % 2 ? 0 : 3, .model = strchr(name[i], '/') + 1 };
	}
	struct sbx_names *n = sbx_names_new(&big);
	assert_non_null(n);
	for (uint32_t i = 0; i < SBX_TARGETS_MAX; i++) {
		assert_int_equal(sbx_names_target(n, sbx_span_of(name[i])), i);
		assert_int_equal(sbx_names_model(n, sbx_span_of(many[i].model)), i & ~1u);
		assert_int_equal(sbx_names_next_of_model(n, i), i % 2 ? SBX_NAMES_NONE : i + 1);
	}
	assert_int_equal(sbx_names_target(n, SBX_SPAN("openai/model-2048")), SBX_NAMES_NONE);
	char buf[128];
	assert_string_equal(sbx_names_nearest(n, SBX_SPAN("opena/model-2047"), true, true, buf, sizeof buf), "openai/model-2047");
	assert_string_equal(sbx_names_nearest(n, SBX_SPAN("model-20477"), true, true, buf, sizeof buf), "lan/model-2047");
	assert_string_equal(sbx_names_nearest(n, SBX_SPAN("nothing like any of them"), true, true, buf, sizeof buf), "");
	sbx_names_free(n);
	sbx_names_free(NULL);
	free(many);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(every_kind_of_name), T(facts_of_a_candidate), T(longest_names), T(a_list_of_targets),
		T(the_least_recently_used_idle_row_is_reused), T(held_rows_stay), cmocka_unit_test(thousands_of_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
