/* SPDX-License-Identifier: Apache-2.0 */
/* test_routing_members.c -- members of a body that are for a gateway: what each becomes, what is sent on, and what is refused by name. */
#include "agent/dialect/routing_members.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct sbx_dialect *dialect;
static struct sbx_json_scratch scratch;

#define MSG "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

static void
add_list(char *to, size_t cap, const char *name, const struct sbx_said *said)
{
	size_t n = strlen(to);
	for (uint32_t i = 0; i < said->n; i++)
		n += (size_t)snprintf(to + n, cap - n, "%s%.*s", i ? "," : name, (int)said->name[i].n, said->name[i].at);
	if (said->n)
		(void)snprintf(to + n, cap - n, " ");
}

/* What was understood, as one line. */
static void
fmt(const struct sbx_routing *r, char *to, size_t cap)
{
	to[0] = '\0';
	add_list(to, cap, "models:", &r->models);
	add_list(to, cap, "fallbacks:", &r->fallbacks);
	add_list(to, cap, "order:", &r->order);
	add_list(to, cap, "only:", &r->only);
	add_list(to, cap, "ignore:", &r->ignore);
	add_list(to, cap, "tags:", &r->tags);
	size_t n = strlen(to);
	if (r->no_other)
		n += (size_t)snprintf(to + n, cap - n, "no-other ");
	if (r->want_cost)
		n += (size_t)snprintf(to + n, cap - n, "cost ");
	if (r->retries >= 0)
		n += (size_t)snprintf(to + n, cap - n, "retries:%d ", r->retries);
	if (r->timeout_ms)
		n += (size_t)snprintf(to + n, cap - n, "timeout:%u ", r->timeout_ms);
	if (r->user[0])
		n += (size_t)snprintf(to + n, cap - n, "user:%s ", r->user);
}

static int
read_body(const char *body, struct sbx_routing *r, struct sbx_ask *ask, struct sbx_fault *fault)
{
	return dialect->read_request(SBX_OP_CHAT, sbx_span_of(body), &scratch, r, ask, fault);
}

/* ---- what is taken ---- */

static const struct {
	const char *body, *want, *sent; /* sent, with the model "t"; NULL = as it came */
} taken[] = {
	{ "{\"model\":\"t\"," MSG "}", "", NULL },
	{ "{\"model\":\"t\"," MSG ",\"models\":[\"a\",\"b/c\"]}", "models:a,b/c ", "{\"model\":\"t\"," MSG "}" },
	{ "{\"model\":\"t\",\"models\":[\"a\"]," MSG "}", "models:a ", "{\"model\":\"t\"," MSG "}" },
	{ "{\"models\":[\"a\"],\"model\":\"t\"," MSG "}", "models:a ", "{\"model\":\"t\"," MSG "}" },
	{ "{\"models\":[\"openai\\/a\",\"\\u0062\"]," MSG "}", "models:openai/a,b ", "{\"model\":\"t\"," MSG "}" },
	{ "{\"mod\\u0065ls\":[]," MSG "}", "", "{\"model\":\"t\"," MSG "}" },
	/* neighbours, on both sides of what stays */
	{ "{\"models\":[\"a\"],\"route\":\"fallback\",\"timeout\":1," MSG ",\"model\":\"t\"}", "models:a timeout:1000 ", "{" MSG ",\"model\":\"t\"}" },
	{ "{" MSG ",\"model\":\"t\",\"models\":[\"a\"],\"route\":\"fallback\",\"timeout\":1}", "models:a timeout:1000 ", "{" MSG ",\"model\":\"t\"}" },
	{ "{\"models\":[] , " MSG " , \"route\" : null , \"x\":1 , \"usage\" : {} }", "", "{\"model\":\"t\", " MSG "  , \"x\":1  }" },
	{ "{" MSG ",\"fallbacks\":[\"f\"],\"models\":[\"m\"]}", "models:m fallbacks:f ", "{\"model\":\"t\"," MSG "}" },
	/* provider */
	{ "{" MSG ",\"provider\":{\"order\":[\"OpenAI\",\"x\"],\"only\":[\"y\"],\"ignore\":[\"z\"],\"allow_fallbacks\":false}}",
	  "order:OpenAI,x only:y ignore:z no-other ", "{\"model\":\"t\"," MSG "}" },
	{ "{" MSG ",\"provider\":{\"allow_fallbacks\":true,\"sort\":null,\"require_parameters\":false,\"data_collection\":\"allow\",\"zdr\":false}}",
	  "", "{\"model\":\"t\"," MSG "}" },
	{ "{" MSG ",\"provider\":null}", "", "{\"model\":\"t\"," MSG "}" },
	/* numbers */
	{ "{" MSG ",\"timeout\":30}", "timeout:30000 ", "{\"model\":\"t\"," MSG "}" },
	{ "{" MSG ",\"timeout\":0.5}", "timeout:500 ", "{\"model\":\"t\"," MSG "}" },
	{ "{" MSG ",\"timeout\":0.0001}", "timeout:1 ", "{\"model\":\"t\"," MSG "}" },
	{ "{" MSG ",\"timeout\":1.2345}", "timeout:1234 ", "{\"model\":\"t\"," MSG "}" },
	{ "{" MSG ",\"timeout\":6e2}", "timeout:600000 ", "{\"model\":\"t\"," MSG "}" },
	{ "{" MSG ",\"timeout\":86400}", "timeout:86400000 ", "{\"model\":\"t\"," MSG "}" },
	{ "{" MSG ",\"num_retries\":0}", "retries:0 ", "{\"model\":\"t\"," MSG "}" },
	{ "{" MSG ",\"num_retries\":100}", "retries:100 ", "{\"model\":\"t\"," MSG "}" },
	{ "{" MSG ",\"num_retries\":null,\"timeout\":null}", "", "{\"model\":\"t\"," MSG "}" },
	/* usage */
	{ "{" MSG ",\"usage\":{\"include\":true}}", "cost ", "{\"model\":\"t\"," MSG "}" },
	{ "{" MSG ",\"usage\":{\"include\":false}}", "", "{\"model\":\"t\"," MSG "}" },
	/* OpenAI's own: sent on */
	{ "{\"model\":\"t\"," MSG ",\"user\":\"u\\u00e9\\n\"}", "user:u\xc3\xa9? ", NULL },
	{ "{\"model\":\"t\"," MSG ",\"user\":7}", "", NULL },
	{ "{\"model\":\"t\"," MSG ",\"metadata\":{\"tags\":\"a\",\"k\":\"v\"}}", "", NULL },
	{ "{\"model\":\"t\"," MSG ",\"metadata\":null}", "", NULL },
	{ "{\"model\":\"t\"," MSG ",\"metadata\":[1]}", "", NULL },
	/* but LiteLLM's list in it */
	{ "{\"model\":\"t\"," MSG ",\"metadata\":{\"tags\":[\"a\",\"b\"]}}", "tags:a,b ", "{\"model\":\"t\"," MSG "}" },
	{ "{\"model\":\"t\"," MSG ",\"metadata\":{\"tags\":[\"a\"],\"k\":\"v\"}}", "tags:a ", "{\"model\":\"t\"," MSG ",\"metadata\":{\"k\":\"v\"}}" },
	{ "{\"metadata\":{\"k\":\"v\", \"tags\":[\"a\"] }," MSG ",\"model\":\"t\",\"timeout\":2}", "tags:a timeout:2000 ",
	  "{\"metadata\":{\"k\":\"v\" }," MSG ",\"model\":\"t\"}" },
	{ "{\"model\":\"t\"," MSG ",\"metadata\":{\"k\":\"v\",\"tags\":[],\"l\":\"w\"}}", "", "{\"model\":\"t\"," MSG ",\"metadata\":{\"k\":\"v\",\"l\":\"w\"}}" },
	{ "{\"model\":\"t\"," MSG ",\"tags\":[\"a\"]}", "tags:a ", "{\"model\":\"t\"," MSG "}" },
	/* switched off: nothing is asked for */
	{ "{" MSG ",\"mock_testing_fallbacks\":false,\"priority\":null,\"cache\":null}", "", "{\"model\":\"t\"," MSG "}" },
	/* of no meaning here */
	{ "{\"model\":\"t\"," MSG ",\"transforms\":[],\"service_tier\":\"flex\",\"mock_\":1}", "", NULL },
};

static void
test_taken(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++) {
		struct sbx_routing r;
		struct sbx_ask ask;
		struct sbx_fault fault;
		struct sbx_pieces pieces;
		struct sbx_quirks quirks = { .no_finish = false };
		char got[1024];
		size_t n = 0;
		memset(&r, 0x5a, sizeof r);
		if (read_body(taken[i].body, &r, &ask, &fault))
			fail_msg("%s: %s", taken[i].body, fault.why);
		fmt(&r, got, sizeof got);
		if (strcmp(got, taken[i].want) != 0)
			fail_msg("%s\n  got  %s\n  want %s", taken[i].body, got, taken[i].want);
		dialect->write_request(&ask, "t", false, &quirks, &pieces);
		for (uint32_t p = 0; p < pieces.n; p++) {
			memcpy(got + n, pieces.piece[p].at, pieces.piece[p].n);
			n += pieces.piece[p].n;
		}
		got[n] = '\0';
		const char *want = taken[i].sent ? taken[i].sent : taken[i].body;
		if (strcmp(got, want) != 0)
			fail_msg("%s\n  sent %s\n  want %s", taken[i].body, got, want);
		/* Without as_http nothing of it is ours. */
		assert_int_equal(dialect->read_request(SBX_OP_CHAT, sbx_span_of(taken[i].body), &scratch, NULL, &ask, &fault), 0);
		assert_int_equal(ask.n_taken + ask.cut.n, 0);
	}
}

/* ---- what is refused ---- */

#define A16 "\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\""

static const struct {
	const char *member, *param;
	bool unsupported;
	const char *says;
} refused[] = {
	{ "\"models\":\"a\"", "models", false, "must be a list of texts" },
	{ "\"models\":[1]", "models", false, "must be a list of texts" },
	{ "\"models\":[\"\"]", "models", false, "1 to 384 bytes" },
	{ "\"models\":[\"a\\u0000\"]", "models", false, "control characters" },
	{ "\"models\":[" A16 ",\"b\"]", "models", false, "more than 16" },
	{ "\"fallbacks\":[{\"a\":[\"b\"]}]", "fallbacks", true, "with objects are not supported" },
	{ "\"fallbacks\":{\"a\":[\"b\"]}", "fallbacks", false, "must be a list" },
	{ "\"route\":\"sort\"", "route", true, "\"fallback\"" },
	{ "\"provider\":[]", "provider", false, "must be an object" },
	{ "\"provider\":\"openai\"", "provider", false, "must be an object" },
	{ "\"provider\":{\"order\":\"openai\"}", "provider.order", false, "must be a list" },
	{ "\"provider\":{\"order\":[" A16 ",\"b\"]}", "provider.order", false, "more than 16" },
	{ "\"provider\":{\"only\":[{}]}", "provider.only", false, "must be a list of texts" },
	{ "\"provider\":{\"ignore\":7}", "provider.ignore", false, "must be a list" },
	{ "\"provider\":{\"allow_fallbacks\":1}", "provider.allow_fallbacks", false, "true or false" },
	{ "\"provider\":{\"sort\":\"price\"}", "provider.sort", true, "is not supported" },
	{ "\"provider\":{\"sort\":{\"by\":\"price\"}}", "provider.sort", true, "is not supported" },
	{ "\"provider\":{\"max_price\":{\"prompt\":1}}", "provider.max_price", true, "is not supported" },
	{ "\"provider\":{\"require_parameters\":true}", "provider.require_parameters", true, "is not supported" },
	{ "\"provider\":{\"data_collection\":\"deny\"}", "provider.data_collection", true, "is not supported" },
	{ "\"provider\":{\"zdr\":true}", "provider.zdr", true, "is not supported" },
	{ "\"provider\":{\"quantizations\":[\"fp8\"]}", "provider.quantizations", true, "is not supported" },
	{ "\"provider\":{\"preferred_max_latency\":1}", "provider.preferred_max_latency", true, "is not supported" },
	{ "\"provider\":{\"of_tomorrow\":1}", "provider.of_tomorrow", true, "is not supported" },
	{ "\"usage\":true", "usage", false, "must be an object" },
	{ "\"usage\":{\"include\":1}", "usage.include", false, "true or false" },
	{ "\"usage\":{\"exclude\":1}", "usage.exclude", true, "is not supported" },
	{ "\"timeout\":0", "timeout", false, "number of seconds" },
	{ "\"timeout\":-1.5", "timeout", false, "number of seconds" },
	{ "\"timeout\":86400.5", "timeout", false, "number of seconds" },
	{ "\"timeout\":1.5e1000", "timeout", false, "number of seconds" },
	{ "\"timeout\":99999999999999999999999.5", "timeout", false, "number of seconds" },
	{ "\"timeout\":\"30\"", "timeout", false, "number of seconds" },
	{ "\"num_retries\":-1", "num_retries", false, "whole number" },
	{ "\"num_retries\":101", "num_retries", false, "whole number" },
	{ "\"num_retries\":1.5", "num_retries", false, "whole number" },
	{ "\"tags\":{\"a\":1}", "tags", false, "must be a list" },
	{ "\"metadata\":{\"tags\":[1]}", "metadata.tags", false, "must be a list of texts" },
	{ "\"tags\":[\"a\"],\"metadata\":{\"tags\":[\"b\"]}", "metadata.tags", false, "exclude each other" },
	{ "\"priority\":1", "priority", true, "is not supported" },
	{ "\"context_window_fallbacks\":[]", "context_window_fallbacks", true, "is not supported" },
	{ "\"content_policy_fallbacks\":[]", "content_policy_fallbacks", true, "is not supported" },
	{ "\"stream_timeout\":1", "stream_timeout", true, "is not supported" },
	{ "\"mock_response\":\"x\"", "mock_response", true, "is not supported" },
	{ "\"mock_testing_fallbacks\":true", "mock_testing_fallbacks", true, "is not supported" },
	{ "\"mock_testing_rate_limit_error\":true", "mock_testing_rate_limit_error", true, "is not supported" },
	{ "\"cache\":{\"no-cache\":true}", "cache", true, "is not supported" },
	{ "\"guardrails\":[\"g\"]", "guardrails", true, "is not supported" },
	{ "\"api_base\":\"http://evil\"", "api_base", true, "is not supported" },
	{ "\"base_url\":\"http://evil\"", "base_url", true, "is not supported" },
	{ "\"api_key\":\"sk\"", "api_key", true, "is not supported" },
	{ "\"mock_testing_a\":0,\"mock_testing_b\":null", "mock_testing_a", true, "is not supported" },
	{ "\"mock_testing_1\":null,\"mock_testing_2\":null,\"mock_testing_3\":null,\"mock_testing_4\":null,\"mock_testing_5\":null,\"mock_testing_6\":null,"
	  "\"mock_testing_7\":null,\"mock_testing_8\":null,\"mock_testing_9\":null,\"mock_testing_10\":null,\"mock_testing_11\":null,\"mock_testing_12\":null,"
	  "\"mock_testing_13\":null", "mock_testing_13", false, "one too many" },
};

static void
test_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
		struct sbx_routing r;
		struct sbx_ask ask;
		struct sbx_fault fault = { .unsupported = false };
		char body[1024];
		(void)snprintf(body, sizeof body, "{" MSG ",%s}", refused[i].member);
		if (read_body(body, &r, &ask, &fault) != -SBX_ESYNTAX)
			fail_msg("%s was taken", body);
		if (strcmp(fault.param, refused[i].param) != 0 || fault.unsupported != refused[i].unsupported || !strstr(fault.why, refused[i].says) ||
		    strncmp(fault.why, refused[i].param, strlen(refused[i].param)) != 0)
			fail_msg("%s: param %s, unsupported %d: %s", body, fault.param, fault.unsupported, fault.why);
	}
}

/* Names with escapes have a memory of their own, and it has an end. */
static void
test_escaped_names_have_a_limit(void **state)
{
	(void)state;
	struct sbx_routing r;
	struct sbx_ask ask;
	struct sbx_fault fault;
	struct sbx_buf body;
	sbx_buf_init(&body, 1u << 20);
	assert_int_equal(sbx_buf_append(&body, "{\"models\":[", 11), 0);
	for (int i = 0; i < 16; i++)
		assert_int_equal(sbx_buf_printf(&body, "%s\"\\/%0380d\"", i ? "," : "", i), 0);
	assert_int_equal(sbx_buf_printf(&body, "]," MSG "}"), 0);
	assert_int_equal(dialect->read_request(SBX_OP_CHAT, (struct sbx_span){ (char *)body.data, body.n }, &scratch, &r, &ask, &fault), -SBX_ESYNTAX);
	assert_string_equal(fault.param, "models");
	assert_non_null(strstr(fault.why, "too long together"));
	sbx_buf_fini(&body);
}

/* ---- the cost in an answer ---- */

static const struct {
	const char *payload, *usage, *usd, *want;
} costs[] = {
	{ "{\"usage\":{\"a\":1}}", "{\"a\":1}", "0.5", "{\"usage\":{\"a\":1,\"cost\":0.5}}" },
	{ "{\"usage\":{\"a\":1 } , \"z\":{}}", "{\"a\":1 }", "0.5", "{\"usage\":{\"a\":1 ,\"cost\":0.5} , \"z\":{}}" },
	{ "{\"usage\":{\"a\":1}}", "{\"a\":1}", NULL, "{\"usage\":{\"a\":1,\"cost\":null}}" },
	{ "{\"usage\":{\"cost\":{\"total\":3},\"a\":1}}", "{\"cost\":{\"total\":3},\"a\":1}", "0.5", "{\"usage\":{\"cost\":0.5,\"a\":1}}" },
	{ "{\"usage\":{\"cost\":3,\"a\":1}}", "{\"cost\":3,\"a\":1}", NULL, "{\"usage\":{\"cost\":3,\"a\":1}}" }, /* the provider's own stands */
};

static void
test_cost_in_usage(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof costs / sizeof costs[0]; i++) {
		struct sbx_buf out;
		const char *at = strstr(costs[i].payload, costs[i].usage);
		sbx_buf_init(&out, 4096);
		assert_int_equal(dialect->add_cost(sbx_span_of(costs[i].payload), (struct sbx_span){ at, strlen(costs[i].usage) }, costs[i].usd, &out), 0);
		if (out.n != strlen(costs[i].want) || memcmp(out.data, costs[i].want, out.n) != 0)
			fail_msg("got %.*s, want %s", (int)out.n, (char *)out.data, costs[i].want);
		sbx_buf_fini(&out);
	}
}

/* ---- errors towards clients ---- */

static const struct {
	enum sbx_code code;
	const char *param;
	struct sbx_provider_error said;
	const char *want; /* behind the message */
} errors[] = {
	{ SBX_CODE_UNKNOWN_MODEL, NULL, { .status = 0 }, "\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"model_not_found\"}}" },
	{ SBX_CODE_INVALID_REQUEST, "n", { .status = 0 }, "\"type\":\"invalid_request_error\",\"param\":\"n\",\"code\":null}}" },
	{ SBX_CODE_UNSUPPORTED, "provider.sort", { .status = 0 }, "\"type\":\"invalid_request_error\",\"param\":\"provider.sort\",\"code\":\"unsupported_parameter\"}}" },
	{ SBX_CODE_RATE_LIMITED, "", { .status = 0 }, "\"type\":\"requests\",\"param\":null,\"code\":\"rate_limit_exceeded\"}}" },
	{ SBX_CODE_TIMEOUT, NULL, { .status = 0 }, "\"type\":\"server_error\",\"param\":null,\"code\":\"timeout\"}}" },
	/* a provider's words stand as they are, and its null too */
	{ SBX_CODE_REJECTED, NULL, { .type = "invalid_request_error", .param = "messages" }, "\"type\":\"invalid_request_error\",\"param\":\"messages\",\"code\":null}}" },
	{ SBX_CODE_RATE_LIMITED, NULL, { .type = "tokens", .code = "rate_limit_exceeded" }, "\"type\":\"tokens\",\"param\":null,\"code\":\"rate_limit_exceeded\"}}" },
	{ SBX_CODE_RATE_LIMITED, NULL, { .type = "tokens" }, "\"type\":\"tokens\",\"param\":null,\"code\":null}}" },
	{ SBX_CODE_UPSTREAM, NULL, { .message = "a page of HTML" }, "\"type\":\"server_error\",\"param\":null,\"code\":\"upstream_failed\"}}" },
};

static void
test_errors(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
		const struct sbx_provider_error *said = &errors[i].said;
		bool any = said->type[0] || said->code[0] || said->message[0];
		struct sbx_buf out;
		char want[256];
		sbx_buf_init(&out, 4096);
		assert_int_equal(dialect->write_error(errors[i].code, "\"m\"", errors[i].param, any ? said : NULL, &out), 0);
		(void)snprintf(want, sizeof want, "{\"error\":{\"message\":\"\\\"m\\\"\",%s", errors[i].want);
		if (out.n != strlen(want) || memcmp(out.data, want, out.n) != 0)
			fail_msg("got %.*s\nwant %s", (int)out.n, (char *)out.data, want);
		sbx_buf_fini(&out);
	}
	/* every code has words */
	for (int code = SBX_CODE_NONE + 1; code < SBX_CODE__COUNT; code++) {
		struct sbx_buf out;
		sbx_buf_init(&out, 4096);
		assert_int_equal(dialect->write_error((enum sbx_code)code, "m", NULL, NULL, &out), 0);
		assert_int_equal(sbx_json_check((char *)out.data, out.n, &scratch, NULL), 0);
		assert_null(memmem(out.data, out.n, "\"type\":null", 11));
		sbx_buf_fini(&out);
	}
}

static int
setup(void **state)
{
	(void)state;
	sbx_json_scratch_init(&scratch);
	dialect = sbx_dialect_find("openai-chat");
	return dialect ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	sbx_json_scratch_fini(&scratch);
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_taken),         cmocka_unit_test(test_refused), cmocka_unit_test(test_escaped_names_have_a_limit),
		cmocka_unit_test(test_cost_in_usage), cmocka_unit_test(test_errors),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
