/* SPDX-License-Identifier: Apache-2.0 */
/* test_board.c -- the board through the real agent: handed over, following what happens, replaced, and left behind. */
#include "tests/e2e/harness.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
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
	agent_wait_at_rest(&w, 5000);
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
	struct sbx_agent_view v;
	sbx_board_agent(b, &v);
	assert_true(v.life == SBX_LIFE_SERVING && v.pid == w.agent && v.pid_visible && v.facts_age_ns < 3000000000u);
	world_agent_signal(&w, SIGSTOP);
	wait_life(b, SBX_LIFE_HUNG, 10000);
	assert_int_equal(sbx_board_life(b, sbx_boot_ns()), SBX_LIFE_STALE);
	sbx_board_agent(b, &v);
	assert_true(v.life == SBX_LIFE_HUNG && v.facts_age_ns > 3000000000u);
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
	wait_life(b, SBX_LIFE_DEAD, 2000); /* a zombie is dead, and is seen before its heartbeat is old */
	(void)world_agent_wait(&w, 5000);
	assert_int_equal(sbx_board_probe(b, sbx_boot_ns()), SBX_LIFE_DEAD);
	struct sbx_board *s = snapshot_of(&w);
	sbx_board_describe(s, &info);
	assert_true(info.snapshot && info.n_targets == 2);
	assert_int_equal(sbx_board_probe(s, sbx_board_now(s)), SBX_LIFE_DEAD); /* the last file says that it serves; it does not */
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

/* ---- a client that gets no descriptor ---- */

/* One connection to the agent, byte by byte as plain read() and write() see it: descriptors fall by the way. Never returns. */
static void
relay(int listener, const char *to)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	char bytes[4096];
	(void)snprintf(addr.sun_path, sizeof addr.sun_path, "%.100s", to);
	const int client = accept(listener, NULL, NULL), agent = socket(AF_UNIX, SOCK_STREAM, 0);
	if (client < 0 || connect(agent, (struct sockaddr *)&addr, sizeof addr))
		_exit(1);
	struct pollfd p[2] = { { .fd = client, .events = POLLIN }, { .fd = agent, .events = POLLIN } };
	while (poll(p, 2, -1) > 0)
		for (int i = 0; i < 2; i++) {
			if (!p[i].revents)
				continue;
			const ssize_t n = read(p[i].fd, bytes, sizeof bytes);
			if (n <= 0)
				_exit(0);
			for (ssize_t done = 0, put; done < n; done += put)
				if ((put = write(p[1 - i].fd, bytes + done, (size_t)(n - done))) <= 0)
					_exit(0);
		}
	_exit(0);
}

/* A relay, a sandbox, a runtime that cannot receive descriptors: everything but the board works. */
static void
a_relay_that_drops_the_board(void **state)
{
	(void)state;
	struct world w;
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct sbx_open_options options = SBX_OPEN_OPTIONS_INIT;
	struct sbx_client *c;
	struct sbx_board *b;
	int status;
	world_simple(&w, 1, NULL, NULL);
	(void)snprintf(addr.sun_path, sizeof addr.sun_path, "%.80s/relay", w.dir);
	const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&addr, sizeof addr), 0);
	assert_int_equal(listen(listener, 1), 0);
	const pid_t pid = fork();
	if (pid == 0)
		relay(listener, w.socket);
	(void)close(listener);
	options.socket = addr.sun_path;
	assert_int_equal(sbx_open(&options, &c), 0);
	for (int reloads = 0; reloads < 3; reloads++) {
		assert_int_equal(sbx_board(c, &b), -SBX_ENOBOARD);
		assert_non_null(strstr(sbx_client_error(c), "no board"));
		for (int stream = 0; stream < 2; stream++) {
			struct sbx_reply *r = ask(c, stream, 10000);
			assert_true(sbx_reply_ok(r));
			sbx_reply_free(r);
		}
		world_agent_signal(&w, SIGHUP); /* and a frame BOARD, without its descriptor */
		agent_wait_number(&w, "reloads", reloads + 1, 5000);
	}
	sbx_close(c);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	c = client_up(&w); /* who comes without the relay has it */
	sbx_board_close(board_of(c));
	sbx_close(c);
	world_down(&w);
}

/* ---- prices ---- */

#define PRICED(tokens, price)                                                                                                  \
	"{\"models\":[{\"model\":\"a/m\",\"context\":" tokens ",\"max_output\":500,\"supports\":[\"function_calling\"],\"prices\":[{" \
	"\"from\":\"2020-01-01\",\"source\":\"s\",\"read_on\":\"2020-01-01\",\"input_cost_per_token\":" price ",\"output_cost_per_token\":5e-6}]}]}"

static void
write_catalog(const struct world *w, const char *text)
{
	char path[192];
	(void)snprintf(path, sizeof path, "%s/catalog.json", w->dir);
	FILE *f = fopen(path, "we");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

/* What the catalog says stands on the board, and a reload brings what it says now. */
static void
what_a_model_costs_and_can_do(void **state)
{
	(void)state;
	struct world w;
	struct sbx_target_view v;
	struct sbx_need need = SBX_NEED_INIT;
	struct sbx_pick pick[4];
	world_up(&w);
	(void)world_double(&w, "a", NULL);
	(void)world_double(&w, "b", NULL);
	write_catalog(&w, PRICED("1000", "2e-6"));
	world_agent(&w, "{\"catalog\":\"$DIR/catalog.json\",\"providers\":{"
	                "\"a\":{\"dialect\":\"openai-chat\",\"base_url\":\"$0\",\"key\":\"$KEY\"},\"b\":{\"dialect\":\"openai-chat\",\"base_url\":\"$1\",\"key\":\"$KEY\"}},"
	                "\"routes\":{\"r\":{\"targets\":[\"a/m\",\"b/m\"]}}}", NULL);
	struct sbx_client *c = client_up(&w);
	struct sbx_board *b = board_of(c);
	assert_int_equal(sbx_board_find_route(b, "r", &need.route), 0);
	assert_int_equal(sbx_board_target(b, 0, sbx_boot_ns(), &v), 0);
	assert_string_equal(v.name, "a/m");
	assert_true(v.price_in == 2000000000 && v.price_out == 5000000000 && v.price_change_unix_s == 0);
	assert_true(v.context_tokens == 1000 && v.output_tokens == 500);
	assert_true(v.caps == SBX_CAP_TOOLS && (v.caps_known & SBX_CAP_VISION) && !(v.caps_known & SBX_CAP_PREFILL));
	assert_int_equal(sbx_board_target(b, 1, sbx_boot_ns(), &v), 0);
	assert_true(v.price_in == SBX_UNPRICED && v.price_out == SBX_UNPRICED && v.caps_known == 0);
	need.caps = SBX_CAP_VISION;
	assert_int_equal(sbx_board_pick(b, &need, sbx_boot_ns(), pick, 4), 1);
	assert_int_equal(pick[0].target, 1);
	need.caps = 0;
	need.input_tokens = need.output_tokens = 100;
	need.max_cost_nanousd = 700000;
	assert_int_equal(sbx_board_pick(b, &need, sbx_boot_ns(), pick, 4), 1);
	assert_true(pick[0].target == 0 && pick[0].cost_nanousd == 700000);
	write_catalog(&w, PRICED("2000", "3e-6"));
	world_agent_signal(&w, SIGHUP);
	wait_life(b, SBX_LIFE_REPLACED, 5000);
	sbx_board_close(b);
	for (uint64_t until = now_ms() + 5000;; nap()) {
		assert_true(now_ms() < until);
		b = board_of(c);
		if (sbx_board_life(b, sbx_boot_ns()) == SBX_LIFE_SERVING)
			break;
		sbx_board_close(b);
	}
	assert_int_equal(sbx_board_target(b, 0, sbx_boot_ns(), &v), 0);
	assert_true(v.price_in == 3000000000 && v.context_tokens == 2000);
	assert_int_equal(sbx_board_pick(b, &need, sbx_boot_ns(), pick, 4), 0);
	sbx_board_close(b);
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
		cmocka_unit_test(a_relay_that_drops_the_board),
		cmocka_unit_test(what_a_model_costs_and_can_do),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
