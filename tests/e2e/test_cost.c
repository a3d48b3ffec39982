/* SPDX-License-Identifier: Apache-2.0 */
/* test_cost.c -- what an answer cost, end to end: the same whole and streamed, over all attempts, and never claimed where unknown. */
#include "tests/e2e/harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* gpt-4o-mini, built in: 150 nano-USD a token read, 75 from the cache, 600 written. */
static int64_t
mini(struct sbx_tokens t)
{
	int64_t cached = t.cached > 0 ? t.cached : 0;
	return (t.prompt - cached) * 150 + cached * 75 + t.completion * 600;
}

static void
an_answer_has_its_price(void **state)
{
	(void)state;
	struct world w;
	world_up(&w);
	world_double(&w, "openai", (const char *[]){ "--rule", "gpt-4o-mini: prompt-tokens=1001, cached-tokens=400", NULL });
	world_agent(&w, "{\"providers\":{\"openai\":{\"base_url\":\"$0\",\"key\":\"$KEY\",\"models\":{\"gpt-4o-mini\":{},\"m\":{}}}}}", NULL);
	struct sbx_client *c = client_up(&w);
	int64_t cost[2];
	for (int stream = 0; stream < 2; stream++) {
		struct sbx_attempt_info a;
		struct sbx_reply *r = ask_body(c, NULL, "gpt-4o-mini", BODY, stream, 10000); /* a bare name */
		struct sbx_tokens t = sbx_reply_tokens(r);
		assert_true(sbx_reply_ok(r));
		assert_string_equal(sbx_reply_target(r), "openai/gpt-4o-mini");
		assert_true(t.prompt == 1001 && t.cached == 400 && t.completion > 0);
		cost[stream] = sbx_reply_cost_nanousd(r);
		assert_int_equal(cost[stream], mini(t));
		assert_true(sbx_reply_attempt(r, 0, &a));
		assert_int_equal(a.cost_nanousd, cost[stream]);
		sbx_reply_free(r);
	}
	assert_int_equal(cost[0], cost[1]);
	struct sbx_reply *r = ask_body(c, NULL, "openai/m", BODY, false, 10000); /* not in the catalog */
	assert_true(sbx_reply_ok(r));
	assert_int_equal(sbx_reply_cost_nanousd(r), -1);
	sbx_reply_free(r);
	sbx_close(c);
	world_down(&w);
}

/* ---- one answer, whole and streamed ---- */

/* What a provider says was used, in the words of its answer, and what that costs by mini(). */
static const struct shape {
	const char *name, *usage; /* NULL = it says nothing */
	int64_t cost;             /* -1 = cannot be known */
} shapes[] = {
	{ "plain", "{\"prompt_tokens\":1001,\"completion_tokens\":37,\"total_tokens\":1038}", 1001 * 150 + 37 * 600 },
	{ "some from the cache", "{\"prompt_tokens\":1001,\"completion_tokens\":37,\"total_tokens\":1038,\"prompt_tokens_details\":{\"cached_tokens\":400}}",
	  601 * 150 + 400 * 75 + 37 * 600 },
	{ "all from the cache", "{\"prompt_tokens\":1001,\"completion_tokens\":37,\"total_tokens\":1038,\"prompt_tokens_details\":{\"cached_tokens\":1001}}",
	  1001 * 75 + 37 * 600 },
	{ "reasoning", "{\"prompt_tokens\":1001,\"completion_tokens\":101,\"total_tokens\":1102,\"completion_tokens_details\":{\"reasoning_tokens\":64}}",
	  1001 * 150 + 101 * 600 },
	{ "cache and reasoning",
	  "{\"prompt_tokens\":1001,\"completion_tokens\":101,\"total_tokens\":1102,\"prompt_tokens_details\":{\"cached_tokens\":3},"
	  "\"completion_tokens_details\":{\"reasoning_tokens\":101}}",
	  998 * 150 + 3 * 75 + 101 * 600 },
	{ "explicit 0 of the details",
	  "{\"prompt_tokens\":7,\"completion_tokens\":1,\"total_tokens\":8,\"prompt_tokens_details\":{\"cached_tokens\":0},"
	  "\"completion_tokens_details\":{\"reasoning_tokens\":0}}",
	  7 * 150 + 600 },
	{ "null details", "{\"prompt_tokens\":7,\"completion_tokens\":1,\"total_tokens\":8,\"prompt_tokens_details\":null}", 7 * 150 + 600 },
	{ "nothing written", "{\"prompt_tokens\":1001,\"completion_tokens\":0,\"total_tokens\":1001}", 1001 * 150 },
	{ "explicit 0 of all", "{\"prompt_tokens\":0,\"completion_tokens\":0,\"total_tokens\":0}", 0 },
	{ "no usage", NULL, -1 },
};

/* Where in a stream the usage stands. */
enum place { IN_THE_LAST_CHUNK, IN_THE_FINISH_CHUNK, IN_BOTH, IN_EVERY_CHUNK, PLACES };

static void
write_chunk(FILE *f, const char *choices, const char *usage)
{
	(void)fprintf(f, "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-4o-mini\",\"choices\":[%s]%s%s}\n\n", choices,
	              usage ? ",\"usage\":" : "", usage ? usage : "");
}

static void
write_stream(FILE *f, const char *usage, enum place place)
{
	const char *each = place == IN_EVERY_CHUNK ? usage : NULL;
	write_chunk(f, "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}", each);
	write_chunk(f, "{\"index\":0,\"delta\":{\"content\":\"hello\"},\"finish_reason\":null}", each);
	write_chunk(f, "{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}", place == IN_THE_LAST_CHUNK ? NULL : usage);
	if (usage && (place == IN_THE_LAST_CHUNK || place == IN_BOTH))
		write_chunk(f, "", usage);
	(void)fputs("data: [DONE]\n\n", f);
}

static void
write_whole(FILE *f, const char *usage)
{
	(void)fprintf(f,
	              "{\"id\":\"c\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"gpt-4o-mini\",\"choices\":[{\"index\":0,"
	              "\"message\":{\"role\":\"assistant\",\"content\":\"hello\"},\"finish_reason\":\"stop\"}]%s%s}",
	              usage ? ",\"usage\":" : "", usage ? usage : "");
}

/* What the agent says that the answer cost, given as a stream with its usage in that place, or whole (PLACES). */
static int64_t
cost_of(struct world *w, struct sbx_client *c, const char *usage, enum place place)
{
	char path[256], rule[512];
	(void)snprintf(path, sizeof path, "%s/answer", w->dir);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	if (place == PLACES)
		write_whole(f, usage);
	else
		write_stream(f, usage, place);
	assert_int_equal(fclose(f), 0);
	(void)snprintf(rule, sizeof rule, "*: replay,content-type=%s,file=%s", place == PLACES ? "application/json" : "text/event-stream", path);
	double_rules(w, 0, rule);
	struct sbx_reply *r = ask_body(c, NULL, "openai/gpt-4o-mini", BODY, place != PLACES, 10000);
	assert_true(sbx_reply_ok(r));
	assert_string_equal(sbx_reply_text(r, 0, NULL), "hello");
	int64_t cost = sbx_reply_cost_nanousd(r);
	sbx_reply_free(r);
	return cost;
}

static void
whole_and_streamed_cost_the_same(void **state)
{
	(void)state;
	struct world w;
	world_up(&w);
	world_double(&w, "openai", NULL);
	world_agent(&w, "{\"providers\":{\"openai\":{\"base_url\":\"$0\",\"key\":\"$KEY\"}}}", NULL);
	struct sbx_client *c = client_up(&w);
	for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
		for (int place = 0; place <= PLACES; place++) {
			int64_t cost = cost_of(&w, c, shapes[i].usage, (enum place)place);
			if (cost != shapes[i].cost)
				fail_msg("%s, place %d: got %lld, expected %lld", shapes[i].name, place, (long long)cost, (long long)shapes[i].cost);
		}
	sbx_close(c);
	world_down(&w);
}

/* The request that failed over is priced at the model that answered; the attempt that cannot have been billed is 0. */
static void
all_attempts_together(void **state)
{
	(void)state;
	struct world w;
	world_up(&w);
	world_double(&w, "groq", (const char *[]){ "--rule", "*: status=503", NULL });
	world_double(&w, "openai", NULL);
	world_agent(&w, "{\"providers\":{\"groq\":{\"base_url\":\"$0\",\"key\":\"$KEY\"},\"openai\":{\"base_url\":\"$1\",\"key\":\"$KEY\"}},"
	            "\"routes\":{\"r\":{\"targets\":[\"groq/openai/gpt-oss-120b\",\"openai/gpt-4o-mini\"]}}}", NULL);
	struct sbx_client *c = client_up(&w);
	struct sbx_reply *r = ask(c, false, 10000);
	struct sbx_attempt_info a;
	assert_true(sbx_reply_ok(r));
	assert_string_equal(sbx_reply_target(r), "openai/gpt-4o-mini");
	assert_int_equal(sbx_reply_cost_nanousd(r), mini(sbx_reply_tokens(r)));
	assert_true(sbx_reply_attempt(r, 0, &a));
	assert_int_equal(a.cost_nanousd, 0);
	sbx_reply_free(r);
	sbx_close(c);
	world_down(&w);
}

/* Half an answer may be billed, and nobody said for how much: then the whole request has no known cost, though its second half does. */
static void
what_may_have_been_billed_is_unknown(void **state)
{
	(void)state;
	struct world w;
	world_up(&w);
	world_double(&w, "groq", (const char *[]){ "--rule", "*: cut=40", NULL });
	world_double(&w, "openai", (const char *[]){ "--rule", "*: prompt-tokens=100", NULL });
	world_agent(&w, "{\"providers\":{\"groq\":{\"base_url\":\"$0\",\"key\":\"$KEY\"},\"openai\":{\"base_url\":\"$1\",\"key\":\"$KEY\"}},"
	            "\"routes\":{\"r\":{\"targets\":[\"groq/openai/gpt-oss-120b\",\"openai/gpt-4o-mini\"]}}}", NULL);
	struct sbx_client *c = client_up(&w);
	struct sbx_reply *r = ask(c, false, 10000);
	struct sbx_attempt_info first, second;
	assert_true(sbx_reply_ok(r));
	assert_true(sbx_reply_attempt(r, 0, &first) && sbx_reply_attempt(r, 1, &second));
	assert_string_equal(first.outcome, "UNCERTAIN");
	assert_int_equal(first.cost_nanousd, -1);
	assert_int_equal(second.cost_nanousd, mini(sbx_reply_tokens(r)));
	assert_int_equal(sbx_reply_cost_nanousd(r), -1);
	sbx_reply_free(r);
	sbx_close(c);
	world_down(&w);
}

/* A file says what is cheap: a bare name goes there first, and RELOAD takes new prices over. */
static void
a_file_of_prices(void **state)
{
	static const char list[] = "{\"models\":["
	                           "{\"model\":\"x/big\",\"prices\":[{\"from\":\"2020-01-01\",\"source\":\"s\",\"read_on\":\"2020-01-01\","
	                           "\"input_cost_per_token\":%s,\"output_cost_per_token\":1e-6}]},"
	                           "{\"model\":\"y/big-1\",\"same_as\":\"big\",\"prices\":[{\"from\":\"2020-01-01\",\"source\":\"s\",\"read_on\":\"2020-01-01\","
	                           "\"input_cost_per_token\":2e-6,\"output_cost_per_token\":1e-6}]}]}";
	static const char *const price[] = { "1e-6", "3e-6" }, *const first[] = { "x/big", "y/big-1" };
	(void)state;
	struct world w;
	char path[256];
	world_up(&w);
	world_double(&w, "x", NULL);
	world_double(&w, "y", NULL);
	(void)snprintf(path, sizeof path, "%s/prices.json", w.dir);
	for (int i = 0; i < 2; i++) {
		FILE *f = fopen(path, "w");
		assert_non_null(f);
		(void)fprintf(f, list, price[i]);
		assert_int_equal(fclose(f), 0);
		if (i == 0)
			world_agent(&w, "{\"catalog\":\"$DIR/prices.json\",\"providers\":{\"x\":{\"base_url\":\"$0\",\"key\":\"$KEY\"},\"y\":{\"base_url\":\"$1\",\"key\":\"$KEY\"}}}", NULL);
		else
			world_agent_signal(&w, 1 /* SIGHUP: read again */);
		if (i == 1)
			agent_wait_number(&w, "reloads", 1, 5000);
		struct sbx_client *c = client_up(&w);
		struct sbx_reply *r = ask_body(c, NULL, "big", BODY, false, 10000);
		assert_true(sbx_reply_ok(r));
		assert_string_equal(sbx_reply_target(r), first[i]);
		assert_int_equal(sbx_reply_cost_nanousd(r), sbx_reply_tokens(r).prompt * (i ? 2000 : 1000) + sbx_reply_tokens(r).completion * 1000);
		sbx_reply_free(r);
		sbx_close(c);
	}
	world_down(&w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_answer_has_its_price),
		cmocka_unit_test(whole_and_streamed_cost_the_same),
		cmocka_unit_test(all_attempts_together),
		cmocka_unit_test(what_may_have_been_billed_is_unknown),
		cmocka_unit_test(a_file_of_prices),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
