/* SPDX-License-Identifier: Apache-2.0 */
/* test_basic.c -- the main job, end to end: one answer, whole and streamed, from the first target that can give it. */
#include "tests/e2e/harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void
an_answer_whole_and_streamed(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	for (int stream = 0; stream < 2; stream++) {
		struct sbx_reply *r = ask(c, stream, 10000);
		assert_true(sbx_reply_ok(r));
		assert_string_equal(sbx_reply_text(r, 0, NULL), "hello from a");
		assert_string_equal(sbx_reply_finish(r, 0), "stop");
		assert_string_equal(sbx_reply_target(r), "a/m");
		assert_true(sbx_reply_tokens(r).prompt > 0 && sbx_reply_tokens(r).completion > 0);
		assert_int_equal(sbx_reply_cost_nanousd(r), -1);
		assert_int_equal(sbx_reply_attempts(r), 1);
		sbx_reply_free(r);
	}
	assert_int_equal(double_requests(&w, 0), 2);
	agent_wait_at_rest(&w, 5000);
	assert_int_equal(agent_number(&w, "upstream.connections"), 1); /* the second call used the first one's connection */
	sbx_close(c);
	world_down(&w);
}

static void
the_second_target_answers_when_the_first_fails(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 2, (const char *[]){ "m: status=503", NULL }, NULL);
	struct sbx_client *c = client_up(&w);
	for (int stream = 0; stream < 2; stream++) {
		struct sbx_attempt_info a;
		struct sbx_reply *r = ask(c, stream, 10000);
		assert_true(sbx_reply_ok(r));
		assert_string_equal(sbx_reply_text(r, 0, NULL), "hello from b");
		assert_true(sbx_reply_attempt(r, 0, &a));
		assert_string_equal(a.target, stream ? "b/m" : "a/m"); /* the second request passes a by: it is throttled */
		assert_int_equal(sbx_reply_attempts(r), 2);
		sbx_reply_free(r);
	}
	sbx_close(c);
	world_down(&w);
}

static void
an_unknown_name_is_told_with_the_nearest(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	struct sbx_reply *r = ask_body(c, NULL, "b/m", BODY, false, 10000);
	assert_false(sbx_reply_ok(r));
	assert_int_equal(sbx_reply_code(r), SBX_CODE_UNKNOWN_MODEL);
	assert_non_null(strstr(sbx_reply_message(r), "a/m"));
	sbx_reply_free(r);
	sbx_close(c);
	world_down(&w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_answer_whole_and_streamed),
		cmocka_unit_test(the_second_target_answers_when_the_first_fails),
		cmocka_unit_test(an_unknown_name_is_told_with_the_nearest),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
