/* SPDX-License-Identifier: Apache-2.0 */
/* test_restart.c -- an agent that ends and one that starts: what the second one knows of what the first one found out. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/e2e/control.h"
#include "tests/e2e/harness.h"

static void
snapshot_path(const struct world *w, char *ret_path, size_t bytes)
{
	(void)snprintf(ret_path, bytes, "%s/board.snapshot", w->dir);
}

static void
stop(struct world *w)
{
	world_agent_signal(w, SIGTERM);
	assert_int_equal(world_agent_wait(w, 10000), 0);
	w->agent = 0;
}

static void
start_again(struct world *w)
{
	world_agent_start(w, NULL, &(struct start){ 0 });
}

static void
assert_answered(struct world *w, const char *target)
{
	struct sbx_client *c = client_up(w);
	struct sbx_reply *r = ask(c, false, 10000);
	if (!sbx_reply_ok(r))
		fail_msg("%s: %s", target, sbx_reply_message(r));
	assert_string_equal(sbx_reply_target(r), target);
	sbx_reply_free(r);
	sbx_close(c);
}

static void
view_of(struct world *w, const char *target, struct sbx_target_view *ret_view)
{
	struct sbx_client *c = client_up(w);
	struct sbx_board *b;
	uint32_t row;
	assert_int_equal(sbx_board(c, &b), 0);
	assert_int_equal(sbx_board_find_target(b, target, &row), 0);
	assert_int_equal(sbx_board_target(b, row, sbx_boot_ns(), ret_view), 0);
	sbx_board_close(b);
	sbx_close(c);
}

static void
the_next_agent_knows_who_is_down_and_how_long_answers_take(void **state)
{
	(void)state;
	struct world w;
	struct sbx_target_view before, v;
	world_simple(&w, 2, (const char *const[]){ "m: status=500", "m: first=40ms" }, NULL);
	struct sbx_client *c = client_up(&w);
	for (int i = 0; i < 4; i++)
		sbx_reply_free(ask(c, true, 10000));
	sbx_close(c);
	agent_wait_at_rest(&w, 5000);
	stop(&w);
	int asked = double_requests(&w, 0);
	char path[192], why[192];
	struct sbx_board *left;
	snapshot_path(&w, path, sizeof path);
	assert_int_equal(sbx_board_load(path, &left, why, sizeof why), 0);
	assert_int_equal(sbx_board_target(left, 0, sbx_boot_ns(), &before), 0);
	sbx_board_close(left);
	start_again(&w);
	view_of(&w, "a/m", &v);
	assert_int_equal(v.standing, SBX_STANDING_DOWN);
	assert_string_equal(v.why, "provider fails");
	assert_in_range(v.until_boot_ns, before.until_boot_ns - 2000000, before.until_boot_ns + 2000000);
	view_of(&w, "b/m", &v);
	assert_true(v.first_content.n == 4 && v.total.n == 4 && v.first_content.p50_ns >= 40000000u);
	assert_answered(&w, "b/m");
	assert_int_equal(double_requests(&w, 0), asked); /* nobody asked the one that is down */
	assert_true(log_has(&w, "event=health_seeded"));
	world_down(&w);
}

/* The first agent learnt that the key is refused. Mended, it is used at once; else it is left alone. */
static void
a_mended_key_is_used_at_once(void **state)
{
	(void)state;
	struct world w;
	char key[200];
	world_up(&w);
	(void)world_double(&w, "a", NULL);
	(void)snprintf(key, sizeof key, "%s/other-key", w.dir);
	for (int i = 0; i < 3; i++) {
		int fd = open(key, O_WRONLY | O_CREAT | O_TRUNC, 0600);
		const char *text = i == 2 ? WORLD_KEY : "sk-wrong-0123456789abcdef0123";
		assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
		(void)close(fd);
		world_agent(&w, "{ \"providers\": { \"a\": { \"dialect\": \"openai-chat\", \"base_url\": \"$0\", \"key\": \"file:$DIR/other-key\" } },"
		                " \"routes\": { \"r\": { \"targets\": [\"a/m\"] } } }", NULL);
		struct sbx_target_view v;
		view_of(&w, "a/m", &v);
		assert_int_equal(v.standing, i == 1 ? SBX_STANDING_NO_KEY : SBX_STANDING_UP);
		if (i == 2) {
			assert_answered(&w, "a/m");
		} else {
			struct sbx_client *c = client_up(&w);
			struct sbx_reply *r = ask(c, false, 10000);
			assert_false(sbx_reply_ok(r));
			sbx_reply_free(r);
			sbx_close(c);
		}
		agent_wait_at_rest(&w, 5000);
		stop(&w);
	}
	world_down(&w);
}

static void
a_snapshot_that_is_none_does_no_harm(void **state)
{
	(void)state;
	static const char *const texts[] = { "", "SBXBOARD", "not a board at all, and long enough to be a header by its length: "
		"................................................................................................................................"
		"................................................................................................................................" };
	struct world w;
	char path[192];
	world_simple(&w, 1, NULL, NULL);
	snapshot_path(&w, path, sizeof path);
	for (size_t i = 0; i <= sizeof texts / sizeof texts[0]; i++) {
		stop(&w);
		(void)unlink(path);
		if (i < sizeof texts / sizeof texts[0]) {
			int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0400);
			assert_true(fd >= 0 && write(fd, texts[i], strlen(texts[i])) == (ssize_t)strlen(texts[i]));
			(void)close(fd);
		} else {
			assert_int_equal(mkfifo(path, 0600), 0); /* which would hold a careless reader */
		}
		start_again(&w);
		assert_answered(&w, "a/m");
	}
	assert_true(log_has(&w, "event=health_not_seeded"));
	world_down(&w);
}

int
main(int argc, char **argv)
{
	cmocka_set_test_filter(argc > 1 ? argv[1] : NULL); /* a pattern */
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_next_agent_knows_who_is_down_and_how_long_answers_take),
		cmocka_unit_test(a_mended_key_is_used_at_once),
		cmocka_unit_test(a_snapshot_that_is_none_does_no_harm),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
