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
		cmocka_unit_test(all_attempts_together),
		cmocka_unit_test(what_may_have_been_billed_is_unknown),
		cmocka_unit_test(a_file_of_prices),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
