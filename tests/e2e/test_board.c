/* SPDX-License-Identifier: Apache-2.0 */
/* test_board.c -- the board through the real agent: handed over, following what happens, replaced, and left behind. */
#include "tests/e2e/harness.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void
nap(void)
{
	(void)usleep(2000); /* between two looks at a condition that has a deadline */
}

/* The name of the route's first choice. */
static const char *
first_choice(const struct sbx_board *b, struct sbx_pick *ret_pick)
{
	struct sbx_need need = SBX_NEED_INIT;
	struct sbx_target_view v;
	assert_int_equal(sbx_board_find_route(b, "r", &need.route), 0);
	if (sbx_board_pick(b, &need, sbx_boot_ns(), ret_pick, 1) != 1)
		return "";
	assert_int_equal(sbx_board_target(b, ret_pick->target, sbx_boot_ns(), &v), 0);
	return v.name;
}

static void
wait_first_choice(const struct sbx_board *b, const char *name)
{
	struct sbx_pick pick;
	for (uint64_t until = now_ms() + 5000; strcmp(first_choice(b, &pick), name) != 0; nap())
		if (now_ms() > until)
			fail_msg("the first choice is %s, not %s", first_choice(b, &pick), name);
}

static void
wait_life(const struct sbx_board *b, enum sbx_life life, int timeout_ms)
{
	for (uint64_t until = now_ms() + (uint64_t)timeout_ms; sbx_board_probe(b, sbx_boot_ns()) != life; nap())
		if (now_ms() > until)
			fail_msg("the agent is %s, not %s", sbx_life_word(sbx_board_probe(b, sbx_boot_ns())), sbx_life_word(life));
}

static struct sbx_board *
board_of(struct sbx_client *c)
{
	struct sbx_board *b;
	int rc = sbx_board(c, &b);
	if (rc)
		fail_msg("%d: %s", rc, sbx_client_error(c));
	return b;
}

static struct sbx_board *
snapshot_of(const struct world *w)
{
	char path[192], why[192] = "";
	struct sbx_board *b;
	(void)snprintf(path, sizeof path, "%.*s/board.snapshot", (int)(strrchr(w->socket, '/') - w->socket), w->socket);
	int rc = sbx_board_load(path, &b, why, sizeof why);
	if (rc)
		fail_msg("%d: %s", rc, why);
	return b;
}

static void
it_tells_who_is_healthy_before_one_asks(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 2, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	struct sbx_board *b = board_of(c);
	struct sbx_target_view v;
	struct sbx_pick pick;
	assert_string_equal(first_choice(b, &pick), "a/m");
	assert_int_equal(pick.standing, SBX_STANDING_UP);
	double_rules(&w, 0, "m: status=500");
	for (int i = 0; i < 3; i++)
		sbx_reply_free(ask(c, false, 10000));
	wait_first_choice(b, "b/m");
	uint32_t a;
	assert_int_equal(sbx_board_find_target(b, "a/m", &a), 0);
	assert_int_equal(sbx_board_target(b, a, sbx_boot_ns(), &v), 0);
	assert_int_equal(v.standing, SBX_STANDING_DOWN);
	assert_string_equal(v.state, "down");
	assert_string_equal(v.why, "provider fails");
	assert_true(v.until_boot_ns > sbx_boot_ns() && v.recent_bad >= 3 && v.recent_good == 0);
	assert_true(v.price_in == SBX_UNPRICED);
	for (uint64_t until = now_ms() + 5000;; nap()) { /* rows are published every 10 ms, and it answered after the other had failed */
		assert_int_equal(sbx_board_target(b, 1 - a, sbx_boot_ns(), &v), 0);
		if (v.total.n >= 3 && v.in_flight == 0)
			break;
		assert_true(now_ms() < until);
	}
	assert_true(v.total.p50_ns > 0 && v.total.p99_ns >= v.total.p50_ns);
	sbx_board_close(b);
	sbx_close(c);
	world_down(&w);
}

static void
a_reload_brings_another_one(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 2, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	struct sbx_board *old = board_of(c), *now;
	struct sbx_board_info info;
	double_rules(&w, 0, "m: status=500");
	for (int i = 0; i < 3; i++)
		sbx_reply_free(ask(c, false, 10000));
	wait_first_choice(old, "b/m");
	int fds = agent_fds(&w);
	for (uint64_t edition = 2; edition < 12; edition++) {
		world_agent_signal(&w, SIGHUP);
		wait_life(old, SBX_LIFE_REPLACED, 5000);
		for (uint64_t until = now_ms() + 5000;; nap()) { /* its frame follows the mark */
			assert_true(now_ms() < until);
			now = board_of(c);
			sbx_board_describe(now, &info);
			if (info.edition == edition)
				break;
			sbx_board_close(now);
		}
		assert_int_equal(sbx_board_life(now, sbx_boot_ns()), SBX_LIFE_SERVING);
		wait_first_choice(now, "b/m"); /* what was known came along */
		sbx_board_close(old);
		old = now;
	}
	assert_true(agent_fds(&w) <= fds);
	sbx_board_close(old);
	sbx_close(c);
	world_down(&w);
}

static void
stopped_in_an_orderly_way(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	struct sbx_board *b = board_of(c);
	world_agent_signal(&w, SIGTERM);
	wait_life(b, SBX_LIFE_STOPPED, 10000);
	assert_int_equal(world_agent_wait(&w, 10000), 0);
	struct sbx_board *s = snapshot_of(&w);
	assert_int_equal(sbx_board_probe(s, sbx_boot_ns()), SBX_LIFE_STOPPED);
	sbx_board_close(s);
	sbx_close(c);
	assert_int_equal(sbx_board_life(b, sbx_boot_ns()), SBX_LIFE_STOPPED); /* the board outlives its handle */
	sbx_board_close(b);
	world_down(&w);
}

static void
hung_is_not_dead(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	struct sbx_board *b = board_of(c);
	assert_int_equal(sbx_board_probe(b, sbx_boot_ns()), SBX_LIFE_SERVING);
	world_agent_signal(&w, SIGSTOP);
	wait_life(b, SBX_LIFE_HUNG, 10000);
	assert_int_equal(sbx_board_life(b, sbx_boot_ns()), SBX_LIFE_STALE);
	world_agent_signal(&w, SIGCONT);
	wait_life(b, SBX_LIFE_SERVING, 10000);
	sbx_board_close(b);
	sbx_close(c);
	world_down(&w);
}

/* The agent's death leaves a board that says so, and a file that says whom to call. */
static void
dead_and_whom_to_call(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 2, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	struct sbx_board *b = board_of(c);
	struct sbx_need need = SBX_NEED_INIT;
	struct sbx_direct direct[4];
	struct sbx_board_info info;
	char url[128];
	(void)snprintf(url, sizeof url, "http://127.0.0.1:%d/v1/chat/completions", w.dbl[0].http_port);
	world_agent_signal(&w, SIGKILL);
	(void)world_agent_wait(&w, 5000);
	wait_life(b, SBX_LIFE_DEAD, 10000);
	struct sbx_board *s = snapshot_of(&w);
	sbx_board_describe(s, &info);
	assert_true(info.snapshot && info.n_targets == 2);
	assert_int_equal(sbx_board_find_route(s, "r", &need.route), 0);
	assert_int_equal(sbx_bypass(s, &need, sbx_boot_ns(), direct, 4), 2);
	assert_string_equal(direct[0].target, "a/m");
	assert_string_equal(direct[0].url, url);
	assert_string_equal(direct[0].dialect, "openai-chat");
	assert_string_equal(direct[0].model, "m");
	assert_string_equal(direct[0].auth, "bearer");
	assert_non_null(strstr(direct[0].key_name, "file:"));
	assert_int_equal(direct[0].standing, SBX_STANDING_UP);
	sbx_board_close(s);
	sbx_board_close(b);
	sbx_close(c);
	w.agent = 0; /* killed on purpose */
	world_down(&w);
}

/* A forked worker looks at the board that its parent got; its handle is not its own. */
static void
good_in_a_forked_child(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 2, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	struct sbx_board *b = board_of(c);
	int status;
	pid_t pid = fork();
	if (pid == 0) {
		struct sbx_board *mine;
		struct sbx_pick pick;
		struct sbx_need need = SBX_NEED_INIT;
		_exit(sbx_board(c, &mine) == -SBX_EFORK && sbx_board_pick(b, &need, sbx_boot_ns(), &pick, 1) == 1 ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	sbx_board_close(b);
	sbx_close(c);
	world_down(&w);
}

/* No key in the board or its snapshot; the file is nobody's to write. */
static void
no_key_on_the_board(void **state)
{
	(void)state;
	struct world w;
	char path[192];
	struct stat st;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	sbx_reply_free(ask(c, false, 10000));
	sbx_close(c);
	world_agent_signal(&w, SIGTERM);
	assert_int_equal(world_agent_wait(&w, 10000), 0);
	(void)snprintf(path, sizeof path, "%.*s/board.snapshot", (int)(strrchr(w.socket, '/') - w.socket), w.socket);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0440);
	FILE *f = fopen(path, "re");
	assert_non_null(f);
	char *all = malloc((size_t)st.st_size);
	assert_non_null(all);
	assert_int_equal(fread(all, 1, (size_t)st.st_size, f), st.st_size);
	assert_null(memmem(all, (size_t)st.st_size, WORLD_KEY, strlen(WORLD_KEY)));
	assert_non_null(memmem(all, (size_t)st.st_size, "a/m", 4));
	free(all);
	(void)fclose(f);
	world_down(&w);
}

/* Where no sealed memory can be had, everything but the board works. */
static void
without_a_board_all_else_works(void **state)
{
	(void)state;
	struct world w;
	world_up(&w);
	(void)world_double(&w, "a", NULL);
	world_agent_start(&w, "{\"providers\": {\"a\": {\"dialect\": \"openai-chat\", \"base_url\": \"$0\", \"key\": \"$KEY\", \"models\": {\"m\": {}}}}, \"routes\": {\"r\": {\"targets\": [\"a/m\"]}}}",
	                  &(struct start){ .denied_call = SYS_memfd_create, .denied_errno = 1 /* EPERM */ });
	struct sbx_client *c = client_up(&w);
	struct sbx_board *b;
	assert_int_equal(sbx_board(c, &b), -SBX_ENOBOARD);
	assert_non_null(strstr(sbx_client_error(c), "no board"));
	struct sbx_reply *r = ask(c, false, 10000);
	assert_true(sbx_reply_ok(r));
	sbx_reply_free(r);
	world_agent_signal(&w, SIGHUP);
	agent_wait_number(&w, "reloads", 1, 5000);
	assert_int_equal(sbx_board(c, &b), -SBX_ENOBOARD);
	sbx_close(c);
	world_down(&w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_tells_who_is_healthy_before_one_asks),
		cmocka_unit_test(a_reload_brings_another_one),
		cmocka_unit_test(stopped_in_an_orderly_way),
		cmocka_unit_test(hung_is_not_dead),
		cmocka_unit_test(dead_and_whom_to_call),
		cmocka_unit_test(good_in_a_forked_child),
		cmocka_unit_test(no_key_on_the_board),
		cmocka_unit_test(without_a_board_all_else_works),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
