/* SPDX-License-Identifier: Apache-2.0 */
/* test_catalog.c -- the list of known models: the built-in one is valid, a file overrides it, every bad row has its reason. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <signalbox/errors.h>

#include "agent/catalog.h"
#include "agent/core/price.h"
#include "agent/core/route.h"
#include "agent/providers.h"

#define N(table) (sizeof(table) / sizeof(table)[0])

static struct sbx_config_messages refused;
static struct sbx_catalog *c;
static char why[512];

static int
teardown(void **state)
{
	(void)state;
	sbx_catalog_free(c);
	c = NULL;
	sbx_config_messages_fini(&refused);
	return 0;
}

static int
parse(const char *text)
{
	(void)teardown(NULL);
	return sbx_catalog_parse("list", text, strlen(text), &refused, &c, why, sizeof why);
}

static const struct sbx_model *
model(const char *name)
{
	return sbx_facts_find(&c->facts, sbx_span_of(name));
}

/* ---- the built-in list ---- */

static void
builtin_is_valid(void **state)
{
	char seen[64][32];
	size_t n_seen = 0;
	(void)state;
	assert_int_equal(sbx_catalog_load(NULL, &refused, &c, why, sizeof why), 0);
	for (uint32_t i = 0; i < refused.n; i++)
		print_error("%s\n", refused.message[i].text);
	assert_int_equal(refused.n, 0);
	assert_int_equal(c->n_refused, 0);
	assert_true(c->facts.n_models >= 30);
	for (uint32_t i = 0; i < c->facts.n_models; i++) {
		const struct sbx_model *m = &c->facts.model[i];
		char provider[32];
		size_t k = 0;
		assert_true(i == 0 || strcmp(m[-1].name, m->name) < 0);
		assert_ptr_equal(model(m->name), m);
		(void)snprintf(provider, sizeof provider, "%.*s", (int)m->provider_bytes, m->name);
		while (k < n_seen && strcmp(seen[k], provider) != 0)
			k++;
		if (k == n_seen)
			memcpy(seen[n_seen++], provider, sizeof provider);
		assert_true(m->context_tokens > 0 && m->n_rows > 0);
		for (uint32_t r = 0; r < m->n_rows; r++) {
			const struct sbx_price_row *row = &c->facts.row[m->first_row + r];
			struct sbx_price p;
			assert_true(strncmp(row->source, "https://", 8) == 0 && strlen(row->read_on) == 10);
			assert_true(sbx_price_at(&c->facts, m, row->from_unix_s, &p) && p.row == row);
			int64_t in = sbx_price_of(&p, SBX_PRICE_INPUT, 0), out = sbx_price_of(&p, SBX_PRICE_OUTPUT, 0);
			assert_true(in > 0 && out >= in && sbx_price_of(&p, SBX_PRICE_CACHE_READ, 0) <= in);
		}
	}
	assert_true(n_seen >= 10);
}

static void
what_a_row_becomes(void **state)
{
	(void)state;
	assert_int_equal(sbx_catalog_load(NULL, &refused, &c, why, sizeof why), 0);
	const struct sbx_model *m = model("openai/gpt-5.6-sol");
	assert_non_null(m);
	assert_string_equal(m->model, "gpt-5.6-sol");
	assert_string_equal(sbx_model_group(m), "gpt-5.6-sol");
	assert_int_equal(m->context_tokens, 1050000);
	assert_int_equal(m->max_output_tokens, 128000);
	assert_int_equal(m->caps, SBX_MODEL_REASONING | SBX_MODEL_REASONS | SBX_MODEL_TOOLS | SBX_MODEL_VISION | SBX_MODEL_JSON_SCHEMA);
	assert_int_equal(m->n_rows, 2);
	const struct sbx_price_row *row = &c->facts.row[m->first_row + 1];
	assert_string_equal(row->id, "openai/gpt-5.6-sol@2026-08-21");
	assert_int_equal(row->from_unix_s, sbx_price_date(2026, 8, 21));
	assert_int_equal(row->until_unix_s, SBX_PRICE_FOREVER);
	assert_int_equal(row->n_tiers, 2);
	assert_int_equal(c->facts.tier[row->first_tier + 1].above_tokens, 272000);
	assert_int_equal(c->facts.tier[row->first_tier].nanousd[SBX_PRICE_INPUT], INT64_C(4000000000));
	assert_int_equal(c->facts.tier[row->first_tier].nanousd[SBX_PRICE_CACHE_WRITE_1H], SBX_PRICE_NONE);
	m = model("groq/openai/gpt-oss-120b");
	assert_string_equal(m->model, "openai/gpt-oss-120b");
	assert_string_equal(sbx_model_group(m), "gpt-oss-120b");
	m = model("deepseek/deepseek-flash");
	row = &c->facts.row[m->first_row];
	assert_int_equal(row->n_windows, 2);
	assert_int_equal(c->facts.window[row->first_window].weekdays, 0x1f);
	assert_true(c->facts.window[row->first_window].first_tier == c->facts.window[row->first_window + 1].first_tier);
	assert_null(model("openai/gpt-5.6-so"));
	assert_null(model("openai/gpt-5.6-soll"));
	assert_null(model(""));
	assert_null(sbx_facts_find(NULL, SBX_SPAN("x")));
}

/* ---- what is refused, and why ---- */

#define GOOD "\"from\":\"2026-01-01\",\"source\":\"s\",\"read_on\":\"2026-01-02\",\"input_cost_per_token\":1e-6"
#define ROWS(rows) "{\"models\":[{\"model\":\"p/m\",\"prices\":[" rows "]},{\"model\":\"p/good\",\"prices\":[{" GOOD "}]}]}"
#define ROW(members) ROWS("{" members "}")
#define MODELS(models) "{\"models\":[" models ",{\"model\":\"p/good\",\"prices\":[{" GOOD "}]}]}"
#define WINDOW(members) ROW(GOOD ",\"windows\":[{" members "}]")

/* rows: how many price rows p/m has left; -1: the model is not there. p/good is always there. */
static const struct {
	const char *text, *reason;
	int rows;
} bad[] = {
	/* money */
	{ ROW(GOOD ",\"output_cost_per_token\":-1e-6"), "models[0].prices[0].output_cost_per_token: must not be negative", 0 },
	{ ROW(GOOD ",\"output_cost_per_token\":2.5"), "is more than 0.01 USD a token; prices are per token, not per million", 0 },
	{ ROW(GOOD ",\"output_cost_per_token\":0.010000000000001"), "is more than 0.01 USD a token", 0 },
	{ ROW(GOOD ",\"output_cost_per_token\":1e999"), "is more than 0.01 USD a token", 0 },
	{ ROW(GOOD ",\"output_cost_per_token\":1e-16"), "is finer than a billionth of a dollar per million", 0 },
	{ ROW(GOOD ",\"output_cost_per_token\":0.00000000000000000000000001"), "is finer", 0 },
	{ ROW(GOOD ",\"output_cost_per_token\":1e-99999999999999999999"), "is finer", 0 },
	{ ROW(GOOD ",\"output_cost_per_token\":1.23456789012345678901e-6"), "is finer", 0 },
	{ ROW(GOOD ",\"output_cost_per_token\":\"1e-6\""), "must be a number: USD per token", 0 },
	{ ROW(GOOD ",\"input_cost_per_request\":101"), "is more than 100 USD a request", 0 },
	{ ROW("\"from\":\"2026-01-01\",\"source\":\"s\",\"read_on\":\"2026-01-02\""), "has no price in it", 0 },
	/* keys */
	{ ROW(GOOD ",\"output_cost_per_tokens\":1e-6"), "unknown member \"output_cost_per_tokens\" (did you mean \"output_cost_per_token\"?)", 0 },
	{ MODELS("{\"model\":\"p/m\",\"colour\":1}"), "models[0]: unknown member \"colour\"", -1 },
	{ MODELS("{\"model\":\"p/m\",\"context\":-1}"), "models[0].context: must be a whole number from 1", -1 },
	{ MODELS("{\"model\":\"p/m\",\"context\":\"1M\"}"), "models[0].context: must be a whole number", -1 },
	{ MODELS("{\"model\":\"p/m\",\"supports\":[\"tool\"]}"), "models[0].supports: must be one of \"reasoning\", ", -1 },
	{ MODELS("{\"model\":\"p/m\",\"supports\":\"vision\"}"), "must be an array", -1 },
	{ MODELS("{\"context\":1}"), "needs \"model\": \"provider/model\"", -1 },
	{ MODELS("{\"model\":\"m\"}"), "needs \"model\"", -1 },
	{ MODELS("{\"model\":\"/m\"}"), "needs \"model\"", -1 },
	{ MODELS("{\"model\":\"p/\"}"), "needs \"model\"", -1 },
	{ MODELS("{\"model\":\"p/m\\n\"}"), "has a control character in it", -1 },
	{ MODELS("7"), "models[0]: must be an object, not a number", -1 },
	{ MODELS("{\"model\":\"p/m\",\"prices\":{}}"), "\"prices\" must be an array", -1 },
	{ MODELS("{\"model\":\"p/m\"},{\"model\":\"p/m\"}"), "models[1]: the model \"p/m\" is in this list already", 0 },
	{ ROWS("7"), "models[0].prices[0]: must be an object", 0 },
	/* dates */
	{ ROW("\"source\":\"s\",\"read_on\":\"2026-01-02\",\"input_cost_per_token\":1e-6"), "needs \"from\"", 0 },
	{ ROW(GOOD ",\"until\":\"2026-01-01\""), "ends before it begins", 0 },
	{ ROW(GOOD ",\"until\":\"2025-12-31\""), "ends before it begins", 0 },
	{ ROW(GOOD ",\"until\":\"2026-02-29\""), "must be a day like", 0 },
	{ ROW(GOOD ",\"until\":\"2026-13-01\""), "must be a day like", 0 },
	{ ROW(GOOD ",\"until\":\"2026-1-1\""), "must be a day like", 0 },
	{ ROW(GOOD ",\"until\":\"2026-02-01T24:00Z\""), "must be a day like", 0 },
	{ ROW(GOOD ",\"until\":20260201"), "must be a day like", 0 },
	{ ROW("\"from\":\"2026-01-01\",\"input_cost_per_token\":1e-6"), "needs \"source\" and \"read_on\"", 0 },
	{ ROWS("{" GOOD "},{" GOOD "}"), "prices[1]: overlaps the prices p/m@2026-01-01", 1 },
	{ ROWS("{" GOOD ",\"until\":\"2026-03-01\"},{\"from\":\"2026-02-28T23:59Z\",\"source\":\"s\",\"read_on\":\"2026-01-02\",\"input_cost_per_token\":1e-6}"),
	  "prices[1]: overlaps", 1 },
	{ ROWS("{" GOOD ",\"colour\":1},{" GOOD "}"), "prices[0]: unknown member", 1 },
	/* tiers */
	{ ROW(GOOD ",\"tiers\":[{\"input_cost_per_token\":2e-6}]"), "tiers: needs \"above_input_tokens\"", 0 },
	{ ROW(GOOD ",\"tiers\":[{\"above_input_tokens\":0}]"), "must be a whole number from 1", 0 },
	{ ROW(GOOD ",\"tiers\":[{\"above_input_tokens\":9},{\"above_input_tokens\":9}]"), "tiers overlap", 0 },
	{ ROW(GOOD ",\"tiers\":{}"), "tiers: must be an array", 0 },
	{ ROW(GOOD ",\"tiers\":[{\"above_input_tokens\":1},{\"above_input_tokens\":2},{\"above_input_tokens\":3},{\"above_input_tokens\":4},"
	      "{\"above_input_tokens\":5},{\"above_input_tokens\":6},{\"above_input_tokens\":7},{\"above_input_tokens\":8}]"), "more than 8 tiers", 0 },
	/* windows */
	{ ROW(GOOD ",\"zone\":\"Asia/Shanghai\""), "must be \"UTC\", a distance", 0 },
	{ ROW(GOOD ",\"zone\":\"UTC+8\""), "must be \"UTC\"", 0 },
	{ ROW(GOOD ",\"zone\":\"UTC+08:00/XX\""), "must be \"UTC\"", 0 },
	{ WINDOW("\"input_cost_per_token\":2e-6"), "needs \"hours\"", 0 },
	{ WINDOW("\"hours\":[\"9-18\"]"), "must be hours like", 0 },
	{ WINDOW("\"hours\":[\"09:00-09:00\"]"), "must be hours like", 0 },
	{ WINDOW("\"hours\":[\"09:00-24:01\"]"), "must be hours like", 0 },
	{ WINDOW("\"hours\":[\"09:60-10:00\"]"), "must be hours like", 0 },
	{ WINDOW("\"hours\":[7]"), "must be hours like", 0 },
	{ WINDOW("\"hours\":[\"09:00-18:00\"],\"weekdays\":\"monday\""), "must be days like", 0 },
	{ WINDOW("\"hours\":[\"09:00-18:00\"],\"weekdays\":\"mon-\""), "must be days like", 0 },
	{ WINDOW("\"hours\":[\"09:00-18:00\"],\"weekdays\":\"mon,,tue\""), "must be days like", 0 },
	{ WINDOW("\"hours\":[\"09:00-18:00\"],\"weekdays\":\"\""), "must be days like", 0 },
	{ WINDOW("\"hours\":[\"09:00-18:00\",\"17:59-19:00\"]"), "overlaps another window", 0 },
	{ ROW(GOOD ",\"windows\":[{\"hours\":[\"22:00-06:00\"],\"weekdays\":\"sun\"},{\"hours\":[\"05:59-07:00\"],\"weekdays\":\"mon\"}]"), "overlaps another window", 0 },
	{ ROW(GOOD ",\"tiers\":[{\"above_input_tokens\":9}],\"windows\":[{\"hours\":[\"22:00-06:00\"]}]"), "needs \"tiers\": its row has some", 0 },
	{ ROW(GOOD ",\"windows\":{}"), "windows: must be an array", 0 },
};

static void
bad_rows_are_refused_with_the_reason(void **state)
{
	(void)state;
	for (size_t i = 0; i < N(bad); i++) {
		assert_int_equal(parse(bad[i].text), 0);
		const struct sbx_model *m = model("p/m");
		bool said = false;
		for (uint32_t k = 0; k < refused.n; k++)
			said |= strstr(refused.message[k].text, bad[i].reason) != NULL && strncmp(refused.message[k].text, "list:1: ", 8) == 0;
		if (!said || (m ? (int)m->n_rows : -1) != bad[i].rows || !model("p/good") || model("p/good")->n_rows != 1 || c->n_refused != 1)
			fail_msg("%s: %s; %d rows, %u refused", bad[i].text, refused.n ? refused.message[0].text : "nothing said", m ? (int)m->n_rows : -1, c->n_refused);
	}
}

static void
good_rows_are_not(void **state)
{
	static const char *const good[] = {
		ROW(GOOD ",\"until\":\"2028-02-29\""),
		ROW(GOOD ",\"output_cost_per_token\":0.01,\"cache_read_input_token_cost\":0,\"input_cost_per_request\":100"),
		ROW(GOOD ",\"output_cost_per_token\":0.0000010000000000000000000000"),
		ROW(GOOD ",\"output_cost_per_token\":-0"),
		ROW(GOOD ",\"output_cost_per_token\":0e99999"),
		ROW(GOOD ",\"output_cost_per_token\":12.5E-7,\"note\":\"n\",\"zone\":null"),
		ROWS("{" GOOD ",\"until\":\"2026-03-01\"},{\"from\":\"2026-03-01\",\"source\":\"s\",\"read_on\":\"2026-01-02\",\"input_cost_per_token\":1e-6}"),
		WINDOW("\"hours\":[\"00:00-24:00\"],\"weekdays\":\"sat-mon,wed\""),
		WINDOW("\"hours\":[\"09:00-18:00\",\"18:00-19:00\",\"22:00-09:00\"]"),
		ROW(GOOD ",\"windows\":[{\"hours\":[\"22:00-06:00\"],\"weekdays\":\"sun\"},{\"hours\":[\"06:00-07:00\"],\"weekdays\":\"mon\"}]"),
	};
	(void)state;
	for (size_t i = 0; i < N(good); i++) {
		assert_int_equal(parse(good[i]), 0);
		if (refused.n)
			fail_msg("%s: %s", good[i], refused.message[0].text);
	}
}

static void
no_list_at_all(void **state)
{
	static const struct {
		const char *text, *why;
	} cases[] = {
		{ "", "line 1: " },
		{ "{", "line 1: " },
		{ "{\n\"models\":[\n}", "line 3: " },
		{ "[]", "needs an array \"models\"" },
		{ "{}", "needs an array \"models\"" },
		{ "{\"models\":{}}", "needs an array \"models\"" },
		{ "{\"models\":[],\"models\":[]}", "line 1: " },
	};
	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		assert_int_equal(parse(cases[i].text), -SBX_ESYNTAX);
		assert_null(c);
		if (!strstr(why, cases[i].why))
			fail_msg("%s: %s", cases[i].text, why);
	}
	assert_int_equal(parse("// nothing yet\n{\"models\":[]} // really"), 0);
	assert_int_equal(c->facts.n_models, 0);
}

/* ---- a file, through the configuration ---- */

static void
a_file_overrides(void **state)
{
	char path[] = "/tmp/sbx-test-catalog-XXXXXX", text[512];
	static const char file[] = "{\"models\":[\n"
	                           "{\"model\":\"openai/gpt-4o\",\"context\":7,\"prices\":[{" GOOD "}]},\n"
	                           "{\"model\":\"lan/qwen3-32b\",\"same_as\":\"qwen3-32b\",\"context\":32768,\"supports\":[\"reasoning_by_default\"],\"prices\":[\n"
	                           "  {" GOOD ",\"output_cost_per_token\":-1}]}]}";
	struct sbx_vault vault;
	struct sbx_config *config = NULL;
	struct sbx_config_messages errors = { 0 };
	(void)state;
	int fd = mkstemp(path);
	assert_true(fd >= 0 && write(fd, file, sizeof file - 1) == (ssize_t)sizeof file - 1 && close(fd) == 0);
	sbx_vault_init(&vault);
	struct sbx_config_opts opts = { .vault = &vault };
	(void)snprintf(text, sizeof text, "{\"catalog\":\"%s\",\"providers\":{\"lan\":{\"base_url\":\"http://127.0.0.1:1\",\"key\":\"none\",\"models\":{\"qwen3-32b\":{},"
	               "\"other\":{}}},\"openai\":{\"base_url\":\"http://127.0.0.1:1\",\"key\":\"none\",\"models\":{\"gpt-4o\":{\"context\":9},\"gpt-5.2\":{}}}}}", path);
	assert_int_equal(sbx_config_parse("conf", text, strlen(text), &opts, &config, &errors), 0);
	bool said = false;
	for (uint32_t i = 0; i < config->notes.n; i++)
		said |= config->notes.message[i].severity == SBX_CONFIG_WARNING && strstr(config->notes.message[i].text, ":4: models[1].prices[0].output_cost_per_token: must not be negative");
	assert_true(said);
	const struct sbx_target *t = config->tables.target;
	assert_int_equal(config->tables.n_targets, 4);
	assert_true(t[0].known && t[0].context_tokens == 32768 && t[0].reasoning && t[0].known->n_rows == 0);
	assert_null(t[1].known);
	assert_int_equal(t[2].known->context_tokens, 7); /* the file's, not the built-in one */
	assert_int_equal(t[2].context_tokens, 9);        /* and the configuration above both */
	assert_int_equal(t[3].context_tokens, 400000);   /* what the file does not name is built in */
	sbx_config_free(config);

	assert_int_equal(unlink(path), 0);
	config = NULL;
	assert_int_equal(sbx_config_parse("conf", text, strlen(text), &opts, &config, &errors), -SBX_ESYNTAX);
	assert_non_null(strstr(errors.message[0].text, "cannot be opened"));
	assert_int_equal(sbx_config_parse("conf", "{\"catalog\":\"x.json\"}", 20, &opts, &config, &errors), -SBX_ESYNTAX);
	assert_non_null(strstr(errors.message[0].text, "catalog: must be an absolute path"));
	sbx_config_messages_fini(&errors);
	sbx_vault_fini(&vault);
}

/* ---- names over the catalog ---- */

static struct sbx_request req;

static const char *
resolve(struct sbx_router *r, const char *name)
{
	static char got[512];
	got[0] = '\0';
	if (sbx_router_resolve(r, sbx_span_of(name), false, &req, 1, why, sizeof why))
		return "";
	for (uint32_t i = 0; i < req.n_candidates; i++)
		(void)snprintf(got + strlen(got), sizeof got - strlen(got), "%s ", sbx_router_target(r, req.candidate[i].target)->name);
	return got;
}

static void
bare_names_in_price_order(void **state)
{
#define OFFER(name, same, rest) "{\"model\":\"" name "\",\"same_as\":\"" same "\",\"context\":5000,\"supports\":[\"reasoning_by_default\"]" rest "}"
#define PRICE(from_until, in) "{" from_until ",\"source\":\"s\",\"read_on\":\"2026-01-02\",\"input_cost_per_token\":" in ",\"output_cost_per_token\":1e-6}"
	static const char list[] =
		"{\"models\":["
		OFFER("a/big", "big", ",\"prices\":[" PRICE("\"from\":\"2026-01-01\",\"until\":\"2026-02-01\"", "1e-6") "," PRICE("\"from\":\"2026-02-01\"", "9e-6") "]") ","
		OFFER("b/vendor/big-1", "big", ",\"prices\":[" PRICE("\"from\":\"2026-01-01\"", "3e-6") "]") ","
		OFFER("c/big", "big", "") ","
		OFFER("keyless/big-x", "big", ",\"prices\":[" PRICE("\"from\":\"2026-01-01\"", "1e-9") "]") ","
		OFFER("absent/big", "big", ",\"prices\":[" PRICE("\"from\":\"2026-01-01\"", "1e-9") "]") "]}";
	static struct sbx_provider providers[] = {
		{ .name = "c", .auth = SBX_AUTH_NONE }, { .name = "b", .auth = SBX_AUTH_NONE },
		{ .name = "a", .auth = SBX_AUTH_NONE }, { .name = "keyless", .auth = SBX_AUTH_BEARER },
	};
	static struct sbx_target targets[] = { { .name = "c/big", .provider = 0, .model = "big" } };
	(void)state;
	assert_int_equal(parse(list), 0);
	assert_int_equal(refused.n, 0);
	struct sbx_tables tables = { .provider = providers, .n_providers = 4, .target = targets, .n_targets = 1, .facts = &c->facts };
	struct sbx_router r = { .tables = &tables, .health = sbx_health_new(&tables, 0), .adhoc = sbx_adhoc_new(&tables, NULL) };
	assert_true(r.health && r.adhoc);
	r.now_unix_s = sbx_price_date(2026, 1, 15);
	assert_string_equal(resolve(&r, "big"), "a/big b/vendor/big-1 c/big keyless/big-x ");
	assert_int_equal(req.candidate[0].context_tokens, 5000); /* what is known goes with an ad-hoc row, too */
	assert_true(req.candidate[0].reasoning);
	assert_true(req.candidate[2].target == 0);
	r.now_unix_s = sbx_price_date(2026, 2, 15); /* a is dear now */
	assert_string_equal(resolve(&r, "big"), "b/vendor/big-1 a/big c/big keyless/big-x ");
	assert_string_equal(resolve(&r, "vendor/big-1"), "b/vendor/big-1 a/big c/big keyless/big-x "); /* by anybody's name for it */
	assert_string_equal(resolve(&r, "big-x"), "b/vendor/big-1 a/big c/big keyless/big-x ");
	assert_string_equal(resolve(&r, "a/big"), "a/big "); /* named with its provider it is that one */
	assert_string_equal(resolve(&r, "bigg"), "");
	assert_non_null(strstr(why, "nearest is \"c/big\"")); /* what is configured before what is known */
	assert_string_equal(resolve(&r, "b/vendor/big-1"), "b/vendor/big-1 ");
	assert_string_equal(resolve(&r, "vendor/bjg-1"), "");
	assert_non_null(strstr(why, "nearest is \"b/vendor/big-1\""));
	sbx_adhoc_free(r.adhoc);
	sbx_health_free(r.health);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(builtin_is_valid, teardown),
		cmocka_unit_test_teardown(what_a_row_becomes, teardown),
		cmocka_unit_test_teardown(bad_rows_are_refused_with_the_reason, teardown),
		cmocka_unit_test_teardown(good_rows_are_not, teardown),
		cmocka_unit_test_teardown(no_list_at_all, teardown),
		cmocka_unit_test_teardown(a_file_overrides, teardown),
		cmocka_unit_test_teardown(bare_names_in_price_order, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
