/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_routing.c -- who is asked, in which order, with which key; and what the client is told about it.
 *
 * Names: route, "provider/model" configured or not, a bare model, a list of targets, the body's own model; configuration by
 * a file, and by the environment alone. Then what decides between targets besides their order: what was refused a moment
 * ago, the keys of a provider, the context of a model, and whether a broken stream may start over.
 */
#include "tests/e2e/fault.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define MESSAGES "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

/* Doubles a and b; the configuration's providers of these names have `of_a` and `of_b` beside address and key. */
static void
world_two(struct world *w, const char *of_a, const char *of_b, const char *routes)
{
	char config[2048];
	world_up(w);
	(void)world_double(w, "a", NULL);
	(void)world_double(w, "b", NULL);
	(void)snprintf(config, sizeof config,
	               "{ \"providers\": { \"a\": { \"base_url\": \"$0\", \"key\": \"$KEY\" %s }, \"b\": { \"base_url\": \"$1\", \"key\": \"$KEY\" %s } },"
	               " \"routes\": { %s } }",
	               of_a, of_b, routes);
	world_agent(w, config, NULL);
}

static void
assert_line(struct sbx_client *c, const struct question *q, const char *line)
{
	struct answer a = answer_of(c, q);
	if (strcmp(a.attempts, line) != 0)
		fail_msg("%s, not %s; %s", a.attempts, line, a.message);
	answer_free(&a);
}

/* ---- names ---- */

static struct sbx_reply *
ask_by(struct sbx_client *c, const char *route, const char *model, const char *body)
{
	return ask_body(c, route, model, body, false, 20000);
}

static void
every_kind_of_name_finds_its_targets(void **state)
{
	(void)state;
	static const struct {
		const char *route, *model, *body, *target; /* target NULL: not found */
	} row[] = {
		{ "first", NULL, BODY, "a/m" },
		{ "second", NULL, BODY, "b/m" },
		{ NULL, "b/m", BODY, "b/m" },
		{ NULL, "b/never-configured", BODY, "b/never-configured" },
		{ NULL, "b/vendor/model:free", BODY, "b/vendor/model:free" }, /* cut at the first slash */
		{ NULL, "shared", BODY, "a/shared" },
		{ NULL, "only-b", BODY, "b/only-b" },
		/* the body's own model: a route, a target, a bare model */
		{ NULL, NULL, "{\"model\":\"second\"," MESSAGES "}", "b/m" },
		{ NULL, NULL, "{\"model\":\"b\\/x\"," MESSAGES "}", "b/x" },
		{ NULL, NULL, "{\"model\":\"only-b\"," MESSAGES "}", "b/only-b" },
		/* the frame wins over the body */
		{ "first", NULL, "{\"model\":\"second\"," MESSAGES "}", "a/m" },
		{ NULL, "b/m", "{\"model\":\"first\"," MESSAGES "}", "b/m" },
		/* not found: what is looked for is of one kind, unless the body says it */
		{ "a/m", NULL, BODY, NULL },
		{ NULL, "first", BODY, NULL },
		{ NULL, "never-configured", BODY, NULL },
		{ NULL, "c/m", BODY, NULL },
		{ NULL, "a", BODY, NULL },
		{ NULL, NULL, "{\"model\":\"firts\"," MESSAGES "}", NULL },
	};
	struct world w;
	world_two(&w, ", \"models\": { \"shared\": {} }", ", \"models\": { \"shared\": {}, \"only-b\": {} }",
	          "\"first\": { \"targets\": [\"a/m\", \"b/m\"] }, \"second\": { \"targets\": [\"b/m\", \"a/m\"] }");
	struct sbx_client *c = client_up(&w);
	for (size_t i = 0; i < COUNT(row); i++) {
		struct sbx_reply *r = ask_by(c, row[i].route, row[i].model, row[i].body);
		if (row[i].target) {
			int n = row[i].target[0] - 'a';
			char *model = double_log_string(&w, n, double_requests(&w, n) - 1, "model");
			assert_string_equal(sbx_reply_target(r), row[i].target);
			assert_string_equal(model, row[i].target + 2); /* the provider's own name of it */
			free(model);
		} else {
			assert_int_equal(sbx_reply_code(r), SBX_CODE_UNKNOWN_MODEL);
			assert_int_equal(sbx_reply_status(r), 404);
			assert_int_equal(sbx_reply_attempts(r), 0);
		}
		sbx_reply_free(r);
	}
	struct sbx_reply *r = ask_by(c, NULL, NULL, "{\"model\":\"firts\"," MESSAGES "}");
	assert_non_null(strstr(sbx_reply_message(r), "\"first\""));
	sbx_reply_free(r);
	r = ask_by(c, NULL, NULL, BODY); /* no name at all */
	assert_int_equal(sbx_reply_code(r), SBX_CODE_INVALID_REQUEST);
	sbx_reply_free(r);
	sbx_close(c);
	world_down(&w);
}

static void
a_bare_model_fails_over_between_the_providers_that_have_it(void **state)
{
	(void)state;
	struct world w;
	world_two(&w, ", \"models\": { \"shared\": {} }", ", \"models\": { \"shared\": {} }", "");
	double_rules(&w, 0, "shared: status=500");
	struct sbx_client *c = client_up(&w);
	struct sbx_reply *r = ask_by(c, NULL, "shared", BODY);
	assert_true(sbx_reply_ok(r));
	assert_string_equal(sbx_reply_target(r), "b/shared");
	assert_string_equal(sbx_reply_text(r, 0, NULL), "hello from b");
	sbx_reply_free(r);
	sbx_close(c);
	world_down(&w);
}

static void
targets_are_tried_in_the_order_given(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 3, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	assert_line(c, &(struct question){ .targets = { "c/m", "a/m" } }, "c/m OK");
	assert_line(c, &(struct question){ .targets = { "c/m@close-before", "b/m@close-before", "a/m" } },
	            "c/m@close-before UNCERTAIN, b/m@close-before UNCERTAIN, a/m OK");
	assert_int_equal(double_requests(&w, 0), 1);
	assert_int_equal(double_requests(&w, 1), 1);
	assert_int_equal(double_requests(&w, 2), 2);
	sbx_close(c);
	world_down(&w);
}

/* ---- configuration ---- */

/* Servers of one's own need no key; a provider of one's own does as a known one does. */
static void
ollama_and_vllm_are_configured_by_their_address(void **state)
{
	(void)state;
	static const char *const any_key[] = { DOUBLE_ANY_KEY, NULL };
	struct world w;
	world_up(&w);
	(void)world_double(&w, "a", any_key);
	world_agent(&w,
	            "{ \"providers\": { \"ollama\": { \"base_url\": \"$0\" }, \"vllm\": { \"base_url\": \"$0\", \"key\": \"none\", \"models\": { \"qwen3-32b\": { \"context\": 32768 } } },"
	            " \"lan\": { \"like\": \"mistral\", \"base_url\": \"$0\", \"key\": \"$KEY\" } } }",
	            NULL);
	struct sbx_client *c = client_up(&w);
	assert_line(c, &(struct question){ .targets = { "ollama/llama3.2:3b" }, .stream = true }, "ollama/llama3.2:3b OK");
	assert_line(c, &(struct question){ .targets = { "vllm/qwen3-32b" } }, "vllm/qwen3-32b OK");
	assert_line(c, &(struct question){ .targets = { "lan/m" }, .stream = true }, "lan/m OK");
	char *key[3], *asked[3];
	for (int i = 0; i < 3; i++) {
		key[i] = double_log_string(&w, 0, i, "authorization");
		asked[i] = double_log_string(&w, 0, i, "body");
	}
	assert_true(!key[0] || !*key[0]);
	assert_true(!key[1] || !*key[1]);
	assert_int_equal(strlen(key[2]), 8);
	assert_non_null(strstr(asked[0], "stream_options"));
	assert_null(strstr(asked[2], "stream_options")); /* as mistral: it would refuse them */
	for (int i = 0; i < 3; i++) {
		free(key[i]);
		free(asked[i]);
	}
	sbx_close(c);
	world_down(&w);
}

static void
without_a_file_the_environment_says_which_providers_there_are(void **state)
{
	(void)state;
	static const char *const any_key[] = { DOUBLE_ANY_KEY, NULL };
	struct world w;
	char socket[200], home[200], host[200];
	world_up(&w);
	(void)world_double(&w, "a", any_key);
	(void)snprintf(socket, sizeof socket, "SIGNALBOX_SOCKET=%s", w.socket);
	(void)snprintf(home, sizeof home, "XDG_CONFIG_HOME=%s", w.dir);
	(void)snprintf(host, sizeof host, "OLLAMA_HOST=127.0.0.1:%d", w.dbl[0].http_port);
	const char *const env[] = { socket, home, host, "GROQ_API_KEY=" WORLD_KEY, "SIGNALBOX_CONFIG", "OPENAI_API_KEY", NULL };
	world_agent_start(&w, NULL, &(struct start){ .bare = true, .env = env });
	struct sbx_client *c = client_up(&w);
	assert_line(c, &(struct question){ .targets = { "ollama/m" } }, "ollama/m OK");
	/* groq is there, since its variable is set (only the name is asked for here: nothing is sent); openai is not */
	struct sbx_reply *r = ask_by(c, NULL, "groq", BODY);
	assert_int_equal(sbx_reply_code(r), SBX_CODE_UNKNOWN_MODEL);
	assert_non_null(strstr(sbx_reply_message(r), "is a provider"));
	sbx_reply_free(r);
	r = ask_by(c, NULL, "openai/m", BODY);
	assert_false(sbx_reply_ok(r));
	assert_int_equal(sbx_reply_attempts(r), 0);
	sbx_reply_free(r);
	sbx_close(c);
	world_down(&w);
}

/* ---- who is passed over ---- */

static void
done_tells_who_was_passed_over_and_why(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 2, (const char *[]){ "m: status=429,retry-after=60", NULL }, NULL);
	struct sbx_client *c = client_up(&w);
	assert_line(c, &(struct question){ .route = "r" }, "a/m REFUSED, b/m OK");
	struct sbx_reply *r = ask(c, false, 10000);
	struct sbx_attempt_info info;
	assert_true(sbx_reply_ok(r));
	assert_int_equal(sbx_reply_attempts(r), 2);
	assert_true(sbx_reply_attempt(r, 0, &info));
	assert_string_equal(info.target, "b/m");
	assert_true(sbx_reply_attempt(r, 1, &info));
	assert_string_equal(info.target, "a/m");
	assert_string_equal(info.outcome, "PASSED_OVER");
	assert_non_null(strstr(info.message, "throttled"));
	sbx_reply_free(r);
	assert_int_equal(double_requests(&w, 0), 1); /* it was told once, and asked no more */
	sbx_close(c);
	world_down(&w);
}

/* ---- a stream that breaks after content ---- */

static void
a_broken_stream_starts_over_where_the_client_takes_it(void **state)
{
	(void)state;
	static const char *const rule[] = { "m: cut-tokens=2", "m: cut-tokens=2,how=rst", "m: error-after=2" };
	for (size_t i = 0; i < COUNT(rule); i++) {
		struct world w;
		world_simple(&w, 2, (const char *[]){ rule[i], NULL }, NULL);
		struct sbx_client *c = client_up(&w);
		const struct question q = { .route = "r", .stream = true, .restart = true };
		struct answer a = answer_of(c, &q);
		assert_string_equal(a.attempts, "a/m MIDSTREAM, b/m OK");
		assert_int_equal(a.resets, 1);
		assert_string_equal(a.text, "hello from b"); /* gathered since the RESET */
		answer_free(&a);
		sbx_close(c);
		world_down(&w);
	}
}

static void
a_broken_stream_is_an_error_where_the_client_does_not(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 2, (const char *[]){ "m: cut-tokens=2", NULL }, NULL);
	struct sbx_client *c = client_up(&w);
	const struct question q = { .route = "r", .stream = true };
	struct answer a = answer_of(c, &q);
	assert_false(a.ok);
	assert_int_equal(a.code, SBX_CODE_STREAM_BROKEN);
	assert_string_equal(a.attempts, "a/m MIDSTREAM");
	assert_string_equal(a.text, "hello from"); /* what was given stands, and nothing was added to it */
	assert_int_equal(a.resets, 0);
	assert_int_equal(double_requests(&w, 1), 0);
	answer_free(&a);
	sbx_close(c);
	world_down(&w);
}

/* The one-call form has shown nothing to anybody: it gathers the second answer only. A whole answer fails over by itself. */
static void
the_one_call_form_returns_only_the_second_answer(void **state)
{
	(void)state;
	for (int stream = 0; stream < 2; stream++) {
		struct world w;
		world_simple(&w, 2, (const char *[]){ stream ? "m: tokens=40,cut-tokens=30" : "m: cut=40", NULL }, NULL);
		struct sbx_client *c = client_up(&w);
		struct sbx_reply *r = ask(c, stream, 10000);
		assert_true(sbx_reply_ok(r));
		assert_string_equal(sbx_reply_text(r, 0, NULL), "hello from b");
		assert_int_equal(sbx_reply_choices(r), 1);
		assert_string_equal(sbx_reply_target(r), "b/m");
		assert_int_equal(sbx_reply_attempts(r), 2);
		sbx_reply_free(r);
		sbx_close(c);
		world_down(&w);
	}
}

static void
restarted_data_are_one_whole_answer(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 2, (const char *[]){ "m: cut-tokens=2", NULL }, NULL);
	struct sbx_client *c = client_up(&w);
	const struct question q = { .route = "r", .stream = true, .restart = true, .data = true };
	struct answer a = answer_of(c, &q);
	assert_true(a.ok);
	assert_int_equal(a.resets, 1);
	char *role = strstr(a.data, "\"role\":\"assistant\""), *done = strstr(a.data, "[DONE]");
	assert_non_null(role);
	assert_null(strstr(role + 1, "\"role\":\"assistant\""));
	assert_non_null(done);
	assert_null(strstr(done + 1, "[DONE]"));
	answer_free(&a);
	sbx_close(c);
	world_down(&w);
}

static void
on_stream_failure_error_starts_nothing_over(void **state)
{
	(void)state;
	struct world w;
	world_two(&w, "", "", "\"r\": { \"targets\": [\"a/m\", \"b/m\"], \"on_stream_failure\": \"error\" }");
	double_rules(&w, 0, "m: cut-tokens=2");
	struct sbx_client *c = client_up(&w);
	const struct question q = { .route = "r", .stream = true, .restart = true };
	struct answer a = answer_of(c, &q);
	assert_int_equal(a.code, SBX_CODE_STREAM_BROKEN);
	assert_string_equal(a.attempts, "a/m MIDSTREAM");
	answer_free(&a);
	struct sbx_reply *r = ask(c, true, 10000);
	assert_int_equal(sbx_reply_code(r), SBX_CODE_STREAM_BROKEN);
	assert_string_equal(sbx_reply_text(r, 0, NULL), "hello from");
	sbx_reply_free(r);
	assert_int_equal(double_requests(&w, 1), 0);
	sbx_close(c);
	world_down(&w);
}

/* ---- keys ---- */

static void
the_idempotency_key_goes_to_those_that_take_it(void **state)
{
	(void)state;
	struct world w;
	world_up(&w);
	(void)world_double(&w, "a", NULL);
	(void)world_double(&w, "b", NULL);
	double_rules(&w, 0, "m: close-before");
	world_agent(&w,
	            "{ \"providers\": { \"a\": { \"dialect\": \"openai-chat\", \"base_url\": \"$0\", \"key\": \"$KEY\", \"idempotency_key\": true },"
	            " \"b\": { \"dialect\": \"openai-chat\", \"base_url\": \"$1\", \"key\": \"$KEY\" } },"
	            " \"routes\": { \"r\": { \"targets\": [\"a/m\", \"b/m\"] } } }",
	            NULL);
	struct sbx_client *c = client_up(&w);
	for (int with = 1; with >= 0; with--) {
		struct sbx_request_options o = SBX_REQUEST_INIT;
		struct sbx_reply *r = NULL;
		o.route = "r";
		o.body = BODY;
		o.body_bytes = strlen(BODY);
		o.idempotency_key = with ? "order-7!~\"x\"" : NULL;
		assert_int_equal(sbx_ask(c, &o, &r), 0);
		assert_int_equal(sbx_reply_attempts(r), 2);
		sbx_reply_free(r);
		for (int n = 0; n < 2; n++) {
			char *seen = double_log_string(&w, n, double_requests(&w, n) - 1, "idempotency_key");
			if (with && n == 0)
				assert_string_equal(seen, "order-7!~\"x\"");
			else
				assert_true(!seen || !*seen);
			free(seen);
		}
	}
	sbx_close(c);
	world_down(&w);
}

/* A provider with two keys; `rule` of double a, which takes any. */
static void
world_two_keys(struct world *w, const char *rule)
{
	static const char *const any_key[] = { DOUBLE_ANY_KEY, NULL };
	char path[2][200];
	world_up(w);
	(void)world_double(w, "a", any_key);
	(void)world_double(w, "b", NULL);
	double_rules(w, 0, rule);
	write_file(w, "key1", "sk-the-first-one", 16, path[0], sizeof path[0]);
	write_file(w, "key2", "sk-the-second-one", 17, path[1], sizeof path[1]);
	for (int i = 0; i < 2; i++)
		assert_int_equal(chmod(path[i], 0400), 0);
	world_agent(w,
	            "{ \"providers\": { \"a\": { \"base_url\": \"$0\", \"keys\": [\"file:$DIR/key1\", \"file:$DIR/key2\"] }, \"b\": { \"base_url\": \"$1\", \"key\": \"$KEY\" } },"
	            " \"routes\": { \"r\": { \"targets\": [\"a/m\", \"b/m\"] } } }",
	            NULL);
}

static void
assert_same_key(struct world *w, int i, int k, bool same)
{
	char *one = double_log_string(w, 0, i, "authorization"), *other = double_log_string(w, 0, k, "authorization");
	assert_int_equal(strlen(one), 8);
	assert_int_equal(strcmp(one, other) == 0, same);
	free(one);
	free(other);
}

static void
the_second_key_is_used_when_the_first_is_refused_or_throttled(void **state)
{
	(void)state;
	static const char *const rule[] = { "m: times=1,status=401", "m: times=1,status=429,retry-after=60", "m: times=1,status=429,retry-after=2", "m: times=1,status=402" };
	static const char *const line[] = { "a/m AUTH, a/m OK", "a/m REFUSED, a/m OK", "a/m REFUSED, a/m OK", "a/m QUOTA, a/m OK" };
	for (size_t i = 0; i < COUNT(rule); i++) {
		struct world w;
		world_two_keys(&w, rule[i]);
		struct sbx_client *c = client_up(&w);
		struct answer a = answer_of(c, &(struct question){ .route = "r" });
		assert_string_equal(a.attempts, line[i]);
		assert_true(a.attempt[1].started_ms < 1500); /* at once: a wait that would be short enough is not needed either */
		assert_same_key(&w, 0, 1, false);
		answer_free(&a);
		assert_line(c, &(struct question){ .route = "r" }, "a/m OK"); /* the first one rests */
		assert_same_key(&w, 1, 2, true);
		assert_int_equal(double_requests(&w, 1), 0);
		sbx_close(c);
		world_down(&w);
	}
}

static void
the_next_target_answers_when_every_key_is_refused(void **state)
{
	(void)state;
	struct world w;
	world_two_keys(&w, "m: status=401");
	struct sbx_client *c = client_up(&w);
	assert_line(c, &(struct question){ .route = "r" }, "a/m AUTH, a/m AUTH, b/m OK");
	assert_same_key(&w, 0, 1, false);
	assert_line(c, &(struct question){ .route = "r" }, "b/m OK, a/m PASSED_OVER");
	assert_int_equal(double_requests(&w, 0), 2);
	sbx_close(c);
	world_down(&w);
}

/* ---- context ---- */

#define TOO_LONG \
	"m: status=400,body={\"error\":{\"message\":\"This model's maximum context length is 1000 tokens.\"\\,\"type\":\"invalid_request_error\"\\,\"param\":\"messages\"\\,\"code\":\"context_length_exceeded\"}}"

static void
what_is_too_long_goes_only_to_a_larger_context(void **state)
{
	(void)state;
	static const struct {
		const char *targets, *line;
		int b, c_; /* requests they must have seen */
	} row[] = {
		{ "\"a/m\", \"b/m\", \"c/m\"", "a/m CONTEXT_LENGTH, c/m OK", 0, 1 },       /* b holds no more than a */
		{ "\"a/m\", \"b/m\", \"c/unknown\"", "a/m CONTEXT_LENGTH, c/unknown OK", 0, 1 }, /* nobody knows: worth a try */
		{ "\"a/m\", \"b/m\"", "a/m CONTEXT_LENGTH", 0, 0 },
	};
	for (size_t i = 0; i < COUNT(row); i++) {
		struct world w;
		char config[1200];
		world_up(&w);
		for (int n = 0; n < 3; n++)
			(void)world_double(&w, (const char *[]){ "a", "b", "c" }[n], NULL);
		double_rules(&w, 0, TOO_LONG);
		(void)snprintf(config, sizeof config,
		               "{ \"providers\": { \"a\": { \"base_url\": \"$0\", \"key\": \"$KEY\", \"models\": { \"m\": { \"context\": 1000 } } },"
		               " \"b\": { \"base_url\": \"$1\", \"key\": \"$KEY\", \"models\": { \"m\": { \"context\": 1000 } } },"
		               " \"c\": { \"base_url\": \"$2\", \"key\": \"$KEY\", \"models\": { \"m\": { \"context\": 32000 } } } },"
		               " \"routes\": { \"r\": { \"targets\": [%s] } } }",
		               row[i].targets);
		world_agent(&w, config, NULL);
		struct sbx_client *c = client_up(&w);
		const struct question q = { .route = "r" };
		struct answer a = answer_of(c, &q);
		assert_string_equal(a.attempts, row[i].line);
		assert_int_equal(double_requests(&w, 1), row[i].b);
		assert_int_equal(double_requests(&w, 2), row[i].c_);
		if (!row[i].c_) {
			assert_int_equal(a.code, SBX_CODE_CONTEXT_LENGTH);
			assert_int_equal(a.status, 400);
			assert_non_null(strstr(a.message, "1000 tokens")); /* the provider's own words */
		}
		answer_free(&a);
		sbx_close(c);
		world_down(&w);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_kind_of_name_finds_its_targets),
		cmocka_unit_test(a_bare_model_fails_over_between_the_providers_that_have_it),
		cmocka_unit_test(targets_are_tried_in_the_order_given),
		cmocka_unit_test(ollama_and_vllm_are_configured_by_their_address),
		cmocka_unit_test(without_a_file_the_environment_says_which_providers_there_are),
		cmocka_unit_test(done_tells_who_was_passed_over_and_why),
		cmocka_unit_test(a_broken_stream_starts_over_where_the_client_takes_it),
		cmocka_unit_test(a_broken_stream_is_an_error_where_the_client_does_not),
		cmocka_unit_test(the_one_call_form_returns_only_the_second_answer),
		cmocka_unit_test(restarted_data_are_one_whole_answer),
		cmocka_unit_test(on_stream_failure_error_starts_nothing_over),
		cmocka_unit_test(the_idempotency_key_goes_to_those_that_take_it),
		cmocka_unit_test(the_second_key_is_used_when_the_first_is_refused_or_throttled),
		cmocka_unit_test(the_next_target_answers_when_every_key_is_refused),
		cmocka_unit_test(what_is_too_long_goes_only_to_a_larger_context),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
