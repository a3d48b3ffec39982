/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_life.c -- the agent's life: start, reload, key rotation, drain and stop (T40), what service managers expect of it, and a
 * wall clock that jumps (T31).
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/e2e/control.h"
#include "tests/e2e/harness.h"
#include "tests/e2e/raw.h"

#define PROVIDER(name, double_, key) "\"" name "\": { \"dialect\": \"openai-chat\", \"base_url\": \"" double_ "\", \"key\": \"" key "\" }"
#define ROUTE(target) "\"routes\": { \"r\": { \"targets\": [\"" target "\"] } }"
#define CONFIG_A "{ \"providers\": {" PROVIDER("a", "$0", "$KEY") "}, " ROUTE("a/m") " }"
#define CONFIG_B "{ \"providers\": {" PROVIDER("b", "$1", "$KEY") "}, " ROUTE("b/m") " }"

static bool
exists(const char *path)
{
	return access(path, F_OK) == 0;
}

static void
wait_gone(const char *path, int timeout_ms)
{
	uint64_t until = now_ms() + (uint64_t)timeout_ms;
	while (exists(path)) {
		if (now_ms() > until)
			fail_msg("%s is still there after %d ms", path, timeout_ms);
		pause_ms(2);
	}
}

static void
write_key(struct world *w, const char *name, const char *key)
{
	char path[200];
	(void)snprintf(path, sizeof path, "%s/%s", w->dir, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0 && write(fd, key, strlen(key)) == (ssize_t)strlen(key));
	(void)close(fd);
}

/* An answer on route r by this target, with one attempt. */
static void
assert_answers(struct world *w, const char *target)
{
	struct sbx_client *c = client_up(w);
	struct sbx_reply *r = ask(c, true, 10000);
	if (!sbx_reply_ok(r))
		fail_msg("%s: %s", target, sbx_reply_message(r));
	assert_string_equal(sbx_reply_target(r), target);
	assert_int_equal(sbx_reply_attempts(r), 1);
	sbx_reply_free(r);
	sbx_close(c);
}

/* RELOAD on the admin socket. True when taken; what was said is malloc'd. */
static bool
reload(struct world *w, char **ret_said)
{
	struct sbx_open_options o = SBX_OPEN_OPTIONS_INIT;
	struct sbx_client *c = NULL;
	struct sbx_event ev;
	uint64_t id;
	const char *said = "";
	o.socket = w->admin_socket;
	assert_int_equal(sbx_open(&o, &c), 0);
	assert_int_equal(sbx_reload(c, &id), 0);
	assert_int_equal(sbx_next(c, 20000, &ev), 0);
	bool ok = ev.note == SBX_NOTE_STATS;
	if (ok)
		(void)sbx_reply_string(ev.reply, "notes", &said);
	else
		said = sbx_reply_message(ev.reply);
	*ret_said = strdup(said);
	sbx_close(c);
	return ok;
}

/* By RELOAD, or by SIGHUP. Good configurations only. */
static void
take_over(struct world *w, bool by_signal)
{
	int64_t reloads = agent_number(w, "reloads");
	if (by_signal) {
		world_agent_signal(w, SIGHUP);
		agent_wait_number(w, "reloads", reloads + 1, 5000);
	} else {
		char *said;
		if (!reload(w, &said))
			fail_msg("refused: %s", said);
		free(said);
	}
}

/* ---- reload ---- */

static void
t40_reload_is_for_new_requests_and_leaves_streams_alone(void **state)
{
	(void)state;
	struct world w;
	struct raw r;
	struct sbx_frame f;
	world_up(&w);
	(void)world_double(&w, "a", NULL);
	(void)world_double(&w, "b", NULL);
	world_agent(&w, CONFIG_A, NULL);
	for (int i = 0; i < 2; i++) {
		double_rules(&w, 0, "m: times=1,tokens=100,gap=5ms");
		raw_up(&r, &w);
		raw_submit(&r, 1, "a/m", true, 20000);
		raw_expect(&r, SBX_FRAME_EVENT, 1, 5000, &f);
		raw_submit(&r, 2, "a/m@hang", true, 20000);
		double_wait(&w, 0, 2 + 3 * i, NULL, 5000);
		world_reconfigure(&w, CONFIG_B);
		take_over(&w, i);
		assert_answers(&w, "b/m");
		raw_submit(&r, 3, "a/m", true, 20000); /* the same connection: its new requests are under the new one */
		(void)raw_expect_error(&r, 3, "unknown_model", 5000);
		raw_expect(&r, SBX_FRAME_DONE, 1, 5000, &f); /* from a provider that the new one does not have */
		raw_cancel(&r, 2);
		(void)raw_expect_error(&r, 2, "cancelled", 5000);
		raw_close(&r);
		world_reconfigure(&w, CONFIG_A);
		take_over(&w, i);
		assert_answers(&w, "a/m");
	}
	world_down(&w);
}

static void
t40_a_bad_configuration_is_refused_with_every_error_and_the_old_one_stays(void **state)
{
	(void)state;
	/* The harness puts `listen` on line 1; what follows begins on line 2. */
	static const struct {
		const char *config, *says[6];
	} rows[] = {
		{ "{ \"providers\": {" PROVIDER("b", "$1", "$KEY") "},\n"
		  "  \"ruotes\": {},\n"
		  "  \"limits\": { \"max_in_flight\": -1 },\n"
		  "  \"timeouts\": { \"connect_ms\": \"soon\" },\n"
		  "  " ROUTE("nobody/m") " }",
		  { "config.json:3:", "routes", "config.json:4:", "config.json:5:", "config.json:6:" } },
		{ "{ \"providers\": { \"b\": {\n \"key\": } } }", { "config.json:3:" } },
		{ "{ \"providers\": {" PROVIDER("b", "$1", "sk-in-the-text-0123456789abcdef") "} }", { "config.json:2:", "key" } },
		{ "{ \"providers\": {" PROVIDER("b", "$1", "file:$DIR/no-such-key") "} }", { "no-such-key" } },
		{ "{ \"providers\": {" PROVIDER("b", "http://10.1.2.3/v1", "$KEY") "} }", { "config.json:2:", "plaintext" } },
	};
	struct world w;
	char *said;
	world_up(&w);
	(void)world_double(&w, "a", NULL);
	(void)world_double(&w, "b", NULL);
	world_agent(&w, CONFIG_A, NULL);
	struct sbx_client *c = client_up(&w); /* it is connected all the time */
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		world_reconfigure(&w, rows[i].config);
		assert_false(reload(&w, &said));
		for (size_t k = 0; k < 6 && rows[i].says[k]; k++)
			if (!strstr(said, rows[i].says[k]))
				fail_msg("row %zu does not speak of %s: %s", i, rows[i].says[k], said);
		assert_null(strstr(said, "sk-in-the-text")); /* what was taken for a key is not repeated */
		free(said);
		world_agent_signal(&w, SIGHUP);
		agent_wait_number(&w, "reloads_refused", 2 * (int64_t)i + 2, 5000);
		struct sbx_reply *r = ask(c, true, 10000);
		assert_string_equal(sbx_reply_target(r), "a/m");
		sbx_reply_free(r);
	}
	for (int line = 3; line <= 6; line++) { /* SIGHUP tells the log */
		char at[32];
		(void)snprintf(at, sizeof at, "config.json:%d:", line);
		assert_true(log_has(&w, at));
	}
	assert_int_equal(agent_number(&w, "reloads"), 0);
	assert_int_equal(unlink(w.config_path), 0);
	assert_false(reload(&w, &said)); /* a file that is gone is an error too, not "no configuration" */
	free(said);
	sbx_close(c);
	assert_answers(&w, "a/m");
	world_down(&w);
}

static void
t40_a_rotated_key_is_used_by_the_next_attempt(void **state)
{
	(void)state;
	static const char *const demands[] = { "--key", WORLD_KEY "-rotated", NULL };
	struct world w;
	struct raw r;
	struct sbx_frame f;
	for (int by_signal = 0; by_signal < 2; by_signal++) {
		world_up(&w);
		(void)world_double(&w, "a", demands);
		(void)world_double(&w, "b", NULL);
		write_key(&w, "rotating", WORLD_KEY "\n");
		world_agent(&w, "{ \"providers\": {" PROVIDER("a", "$0", "file:$DIR/rotating") "," PROVIDER("b", "$1", "file:$DIR/rotating") "}, " ROUTE("a/m") " }", NULL);
		struct sbx_client *c = client_up(&w);
		for (int i = 0; i < 2; i++) { /* refused once; then its credential is not tried for a while */
			struct sbx_reply *reply = ask(c, true, 10000);
			assert_int_equal(sbx_reply_code(reply), SBX_CODE_CREDENTIALS);
			sbx_reply_free(reply);
		}
		assert_int_equal(double_requests(&w, 0), 1);
		/* A stream with the old key runs on where that one is good. */
		raw_up(&r, &w);
		raw_submit(&r, 1, "b/m@tokens=100,gap=3ms", true, 20000);
		raw_expect(&r, SBX_FRAME_EVENT, 1, 5000, &f);
		write_key(&w, "rotating", WORLD_KEY "-rotated\n");
		take_over(&w, by_signal);
		assert_answers(&w, "a/m");
		raw_expect(&r, SBX_FRAME_DONE, 1, 5000, &f);
		raw_close(&r);
		char *old = double_log_string(&w, 0, 0, "authorization"), *new = double_log_string(&w, 0, 1, "authorization");
		assert_string_not_equal(old, new);
		free(old);
		free(new);
		sbx_close(c);
		world_down(&w);
	}
}

/* ---- the environment ---- */

static void
assert_no_key_in(struct world *w, const char *file)
{
	char path[64];
	size_t n;
	(void)snprintf(path, sizeof path, "/proc/%d/%s", (int)w->agent, file);
	char *text = read_whole(path, &n);
	if (text && memmem(text, n, WORLD_KEY, strlen(WORLD_KEY)))
		fail_msg("%s holds the key", path);
	free(text); /* NULL: not even readable to this user */
}

static void
t40_a_key_from_the_environment_is_wiped_there_and_outlives_reloads(void **state)
{
	(void)state;
	static const char *const env[] = { "SBX_E2E_KEY=" WORLD_KEY, NULL };
	struct world w;
	world_up(&w);
	(void)world_double(&w, "a", NULL);
	world_agent_start(&w, "{ \"providers\": {" PROVIDER("a", "$0", "env:SBX_E2E_KEY") "}, " ROUTE("a/m") " }", &(struct start){ .env = env });
	for (int i = 0; i < 3; i++) {
		assert_answers(&w, "a/m");
		assert_no_key_in(&w, "environ");
		take_over(&w, i % 2);
	}
	world_down(&w);
}

static void
life_without_a_configuration_the_usual_variables_are_enough(void **state)
{
	(void)state;
	struct world w;
	char home[160], config_home[160], socket_[200];
	if (exists("/etc/signalbox/config.json")) {
		print_message("skipped: this host has a configuration in /etc/signalbox\n");
		skip();
	}
	world_up(&w);
	(void)snprintf(home, sizeof home, "HOME=%s", w.dir);
	(void)snprintf(config_home, sizeof config_home, "XDG_CONFIG_HOME=%s/none", w.dir);
	(void)snprintf(socket_, sizeof socket_, "SIGNALBOX_SOCKET=%s", w.socket);
	const char *const env[] = { home, config_home, socket_, "SIGNALBOX_CONFIG", "OPENAI_API_KEY=" WORLD_KEY, "GROQ_API_KEY=" WORLD_KEY "x", NULL };
	world_agent_start(&w, NULL, &(struct start){ .bare = true, .env = env });
	assert_true(log_has(&w, "event=ready"));
	assert_no_key_in(&w, "environ");
	assert_no_key_in(&w, "cmdline");
	/* Both are there and usable; asking them would leave this host, so only their names are asked. */
	struct raw r;
	raw_up(&r, &w);
	raw_submit(&r, 1, "opnai/gpt-5.2", true, 5000);
	assert_non_null(strstr(raw_expect_error(&r, 1, "unknown_model", 5000), "openai"));
	raw_submit(&r, 2, "groqq/llama", true, 5000);
	assert_non_null(strstr(raw_expect_error(&r, 2, "unknown_model", 5000), "groq"));
	raw_close(&r);
	assert_true(exists(w.admin_socket)); /* beside the other */
	world_down(&w);
}

static void
life_check_names_the_file_and_every_mistake_and_touches_nothing(void **state)
{
	(void)state;
	struct world w;
	char *said;
	world_up(&w);
	(void)world_double(&w, "a", NULL);
	world_agent(&w, CONFIG_A, NULL);
	const struct start check = { .args = (const char *const[]){ "--check", "--config", w.config_path, NULL } };
	int status = world_run(&w, "signalboxd", &check, &said); /* beside the agent that runs */
	if (status)
		fail_msg("--check: %d, %s", status, said);
	assert_non_null(strstr(said, w.config_path));
	assert_non_null(strstr(said, "valid"));
	free(said);
	world_reconfigure(&w, "{ \"providers\": {},\n \"ruotes\": {},\n \"limits\": { \"max_in_flight\": 0 } }");
	assert_int_equal(world_run(&w, "signalboxd", &check, &said), 78);
	assert_true(strstr(said, "config.json:3:") && strstr(said, "config.json:4:"));
	free(said);
	char named[200];
	(void)snprintf(named, sizeof named, "SIGNALBOX_CONFIG=%s", w.config_path);
	const struct start by_env = { .args = (const char *const[]){ "--check", NULL }, .env = (const char *const[]){ named, NULL } };
	assert_int_equal(world_run(&w, "signalboxd", &by_env, &said), 78);
	assert_non_null(strstr(said, w.config_path));
	free(said);
	assert_answers(&w, "a/m");
	world_down(&w);
}

/* ---- sockets ---- */

static void
life_a_stale_socket_is_replaced_and_a_second_agent_refused(void **state)
{
	(void)state;
	struct world w;
	char *said;
	world_up(&w);
	(void)world_double(&w, "a", NULL);
	world_agent(&w, CONFIG_A, NULL);
	struct stat was;
	assert_int_equal(stat(w.socket, &was), 0);
	assert_int_equal(was.st_mode & 0777, 0660);
	assert_int_equal(stat(w.admin_socket, &was), 0);
	assert_int_equal(was.st_mode & 0777, 0600);
	const struct start same = { .args = (const char *const[]){ "--config", w.config_path, NULL } };
	assert_int_equal(world_run(&w, "signalboxd", &same, &said), 1);
	assert_non_null(strstr(said, "another agent"));
	free(said);
	assert_answers(&w, "a/m"); /* the first one has its sockets still */
	world_agent_signal(&w, SIGKILL);
	assert_int_equal(world_agent_wait(&w, 5000), 128 + SIGKILL);
	assert_true(exists(w.socket) && exists(w.admin_socket));
	world_agent(&w, CONFIG_A, NULL);
	assert_answers(&w, "a/m");
	world_agent_signal(&w, SIGTERM);
	assert_int_equal(world_agent_wait(&w, 10000), 0);
	assert_false(exists(w.socket) || exists(w.admin_socket));
	world_down(&w);
}

static int
listen_at(const char *path)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	(void)snprintf(at.sun_path, sizeof at.sun_path, "%s", path);
	assert_true(fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof at) == 0 && listen(fd, 64) == 0);
	return fd;
}

static void
life_sockets_of_the_service_manager_are_taken_and_left(void **state)
{
	(void)state;
	struct world w;
	struct raw early;
	struct sbx_frame f;
	world_up(&w);
	(void)world_double(&w, "a", NULL);
	struct start how = { .listen_fd = { listen_at(w.socket), listen_at(w.admin_socket) }, .n_listen_fds = 2, .listen_names = "clients:admin" };
	for (int i = 0; i < 2; i++) {
		/* A client that came while no agent was there waits in the socket, and is served. */
		raw_open(&early, &w);
		raw_hello(&early);
		raw_submit(&early, 1, "a/m", true, 10000);
		world_agent_start(&w, CONFIG_A, &how);
		raw_expect(&early, SBX_FRAME_DONE, 1, 10000, &f);
		raw_close(&early);
		take_over(&w, false); /* the admin socket was taken as what it is */
		world_agent_signal(&w, SIGTERM);
		assert_int_equal(world_agent_wait(&w, 10000), 0);
		assert_true(exists(w.socket) && exists(w.admin_socket)); /* not ours to remove */
	}
	(void)close(how.listen_fd[0]);
	(void)close(how.listen_fd[1]);
	world_down(&w);
}

static void
expect_note(int fd, const char *want, int timeout_ms)
{
	uint64_t until = now_ms() + (uint64_t)timeout_ms;
	char text[256];
	while (now_ms() < until) {
		ssize_t n = recv(fd, text, sizeof text - 1, MSG_DONTWAIT);
		if (n < 0) {
			pause_ms(2);
			continue;
		}
		text[n] = 0;
		if (strcmp(text, want) == 0)
			return;
		if (strcmp(text, "WATCHDOG=1") != 0)
			fail_msg("the service manager was told %s, not %s", text, want);
	}
	fail_msg("the service manager was not told %s", want);
}

static void
life_the_service_manager_is_told(void **state)
{
	(void)state;
	struct world w;
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	char notify[200];
	world_up(&w);
	(void)world_double(&w, "a", NULL);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	(void)snprintf(at.sun_path, sizeof at.sun_path, "%.90s/notify", w.dir);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
	(void)snprintf(notify, sizeof notify, "NOTIFY_SOCKET=%s", at.sun_path);
	world_agent_start(&w, CONFIG_A, &(struct start){ .env = (const char *const[]){ notify, "WATCHDOG_USEC=100000", NULL } });
	expect_note(fd, "READY=1", 5000);
	for (int i = 0; i < 3; i++)
		expect_note(fd, "WATCHDOG=1", 2000);
	world_reconfigure(&w, "{ \"ruotes\": {} }");
	for (int i = 0; i < 2; i++) { /* a refused one, and a good one: either way it is ready again */
		world_agent_signal(&w, SIGHUP);
		expect_note(fd, "RELOADING=1", 5000);
		expect_note(fd, "READY=1", 5000);
		world_reconfigure(&w, CONFIG_A);
	}
	world_agent_signal(&w, SIGTERM);
	expect_note(fd, "STOPPING=1", 5000);
	assert_int_equal(world_agent_wait(&w, 10000), 0);
	(void)close(fd);
	world_down(&w);
}

/* ---- the end ---- */

static void
t40_sigterm_drains_live_streams(void **state)
{
	(void)state;
	struct world w;
	struct raw r, idle;
	struct sbx_frame f;
	world_simple(&w, 1, NULL, NULL);
	raw_up(&idle, &w);
	raw_up(&r, &w);
	raw_submit(&r, 1, "a/m@tokens=150,gap=5ms", true, 20000);
	raw_submit(&r, 2, "a/m@first=500ms", false, 20000);
	raw_expect(&r, SBX_FRAME_EVENT, 1, 5000, &f);
	double_wait(&w, 0, 2, NULL, 5000);
	world_agent_signal(&w, SIGTERM);
	wait_gone(w.socket, 5000); /* nobody comes to an agent that stops */
	assert_false(exists(w.admin_socket));
	raw_expect_close(&idle, 2000); /* nothing of it was under way */
	raw_submit(&r, 3, "a/m", true, 20000);
	(void)raw_expect_error(&r, 3, "draining", 2000);
	raw_expect(&r, SBX_FRAME_DONE, 2, 5000, &f);
	raw_expect(&r, SBX_FRAME_DONE, 1, 5000, &f);
	raw_expect_close(&r, 2000);
	assert_int_equal(world_agent_wait(&w, 2000), 0);
	raw_close(&r);
	raw_close(&idle);
	for (int i = 0; i < 2; i++) {
		char *end = double_log_string(&w, 0, i, "state");
		assert_string_equal(end, "answered");
		free(end);
	}
	world_down(&w);
}

static void
t40_the_drain_has_a_deadline_and_the_rest_is_told(void **state)
{
	(void)state;
	static const char *const args[] = { "--drain", "1", NULL };
	struct world w;
	struct raw r;
	struct sbx_frame f;
	world_up(&w);
	(void)world_double(&w, "a", NULL);
	world_agent(&w, CONFIG_A, args);
	raw_up(&r, &w);
	raw_submit(&r, 1, "a/m@tokens=10m,gap=5ms", true, 60000);
	raw_submit(&r, 2, "a/m@hang", false, 60000);
	raw_expect(&r, SBX_FRAME_EVENT, 1, 5000, &f);
	double_wait(&w, 0, 2, NULL, 5000);
	uint64_t began = now_ms();
	world_agent_signal(&w, SIGTERM);
	bool told[3] = { false, false, false };
	struct sbx_value v;
	while (raw_next(&r, 5000, &f) == RAW_FRAME)
		if (f.kind == SBX_FRAME_ERROR) {
			assert_true(f.id < 3 && sbx_map_get(&f.map, "code", &v) && sbx_span_is(v.bytes, "draining"));
			told[f.id] = true;
		}
	assert_true(told[1] && told[2]);
	assert_in_range(now_ms() - began, 750, 1250);
	assert_int_equal(world_agent_wait(&w, 2000), 0);
	double_wait(&w, 0, 2, "client-closed", 2000);
	raw_close(&r);
	world_down(&w);
}

static void
t40_a_second_sigterm_stops_at_once(void **state)
{
	(void)state;
	struct world w;
	struct raw r, deaf;
	world_simple(&w, 1, NULL, NULL);
	raw_up(&r, &w);
	raw_submit(&r, 1, "a/m@hang", true, 60000);
	raw_up(&deaf, &w);
	raw_submit(&deaf, 1, "a/m@tokens=10m", true, 60000); /* and never reads */
	agent_wait_number(&w, "credit_stalls", 1, 5000);
	double_wait(&w, 0, 2, NULL, 5000);
	world_agent_signal(&w, SIGTERM);
	wait_gone(w.socket, 5000);
	uint64_t began = now_ms();
	world_agent_signal(&w, SIGTERM);
	(void)raw_expect_error(&r, 1, "draining", 1000);
	assert_true(now_ms() - began < 500);
	assert_int_equal(world_agent_wait(&w, 4000), 0); /* who does not read gets a moment for his last words, no more */
	raw_close(&deaf);
	raw_close(&r);
	world_down(&w);
}

/* ---- T31 ---- */

/* The wall clock of one process, moved by a number in a file that both sides map; every other clock is left alone. */
static const char wall_source[] =
	"#define _GNU_SOURCE\n"
	"#include <fcntl.h>\n#include <stdint.h>\n#include <stdlib.h>\n#include <sys/mman.h>\n#include <sys/syscall.h>\n"
	"#include <sys/time.h>\n#include <time.h>\n#include <unistd.h>\n"
	"static volatile int64_t *shift;\n"
	"__attribute__((constructor)) static void map(void) {\n"
	"	int fd = open(getenv(\"SBX_WALL_SHIFT\"), O_RDONLY);\n"
	"	shift = mmap(0, 8, PROT_READ, MAP_SHARED, fd, 0);\n	close(fd); }\n"
	"int clock_gettime(clockid_t id, struct timespec *ts) {\n"
	"	long rc = syscall(SYS_clock_gettime, id, ts);\n"
	"	if (rc == 0 && shift && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) ts->tv_sec += *shift;\n"
	"	return (int)rc; }\n"
	"time_t time(time_t *t) { struct timespec ts; clock_gettime(CLOCK_REALTIME, &ts); if (t) *t = ts.tv_sec; return ts.tv_sec; }\n"
	"int gettimeofday(struct timeval *restrict tv, void *restrict tz) { struct timespec ts; (void)tz; clock_gettime(CLOCK_REALTIME, &ts);\n"
	"	tv->tv_sec = ts.tv_sec; tv->tv_usec = ts.tv_nsec / 1000; return 0; }\n";

static bool
build_wall(struct world *w)
{
	char command[600], source[200];
	(void)snprintf(source, sizeof source, "%s/wall.c", w->dir);
	FILE *f = fopen(source, "we");
	assert_non_null(f);
	(void)fputs(wall_source, f);
	(void)fclose(f);
	(void)snprintf(command, sizeof command, "cc -shared -fPIC -O1 -o %s/wall.so %s 2>%s/wall.err", w->dir, source, w->dir);
	return system(command) == 0;
}

static void
t31_durations_do_not_follow_the_wall_clock(void **state)
{
	(void)state;
	static const int64_t jumps[] = { 86400, -3600, -400 * 86400ll }; /* from one to the next */
	struct world w;
	struct raw r;
	struct sbx_frame f;
	char path[200], shift_env[220], preload[220], day[32];
	world_up(&w);
	if (!build_wall(&w)) {
		print_message("skipped: no C compiler to make the clock with\n");
		world_down(&w);
		skip();
	}
	(void)snprintf(path, sizeof path, "%s/shift", w.dir);
	(void)snprintf(shift_env, sizeof shift_env, "SBX_WALL_SHIFT=%s", path);
	(void)snprintf(preload, sizeof preload, "LD_PRELOAD=%s/wall.so", w.dir);
	int fd = open(path, O_RDWR | O_CREAT, 0600);
	assert_true(fd >= 0 && ftruncate(fd, 4096) == 0);
	volatile int64_t *shift = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true((const void *)(uintptr_t)shift != MAP_FAILED);
	(void)world_double(&w, "a", NULL);
	world_agent_start(&w, CONFIG_A, &(struct start){ .env = (const char *const[]){ shift_env, preload, "ASAN_OPTIONS=verify_asan_link_order=0", NULL } });
	raw_up(&r, &w);
	for (size_t i = 0; i < sizeof jumps / sizeof jumps[0]; i++) {
		/* A deadline, a Retry-After in seconds, one as a date (relative to the provider's own Date), and a stream that lasts a while. */
		uint64_t id = 10 * i, began = now_ms();
		double_rules(&w, 0,
		             "s: times=1,status=429,retry-after=1\n"
		             "d: times=1,status=429,date=Mon\\, 01 Jan 2024 23:59:59 GMT,retry-after=Tue\\, 02 Jan 2024 00:00:00 GMT\n"
		             "*: tokens=60,gap=10ms");
		raw_submit(&r, id + 1, "a/m@hang", true, 600);
		raw_submit(&r, id + 2, "a/s", true, 10000);
		raw_submit(&r, id + 3, "a/d", true, 10000);
		raw_submit(&r, id + 4, "a/x", true, 10000);
		double_wait(&w, 0, (int)(6 * i) + 4, NULL, 5000);
		*shift += jumps[i];
		uint64_t took[5] = { 0 };
		for (int left = 4; left;) {
			assert_int_equal(raw_next(&r, 10000, &f), RAW_FRAME);
			if (f.kind == SBX_FRAME_DONE || f.kind == SBX_FRAME_ERROR) {
				struct sbx_value v = { 0 };
				if ((f.kind == SBX_FRAME_ERROR) != (f.id == id + 1)) {
					(void)sbx_map_get(&f.map, "message", &v);
					fail_msg("jump %zu: request %llu ended with kind %u: %.*s", i, (unsigned long long)(f.id - id), f.kind, (int)v.bytes.n, v.bytes.at);
				}
				took[f.id - id] = now_ms() - began;
				left--;
			}
		}
		assert_in_range(took[1], 600 - 250, 600 + 250);
		assert_in_range(took[2], 1000, 1000 + 600 + 400); /* the wait, then the stream's own 600 ms */
		assert_in_range(took[3], 1000, 1000 + 600 + 400);
		assert_in_range(took[4], 590, 600 + 400);
		/* And it did see the other time: the log is written by it. */
		time_t there = time(NULL) + (time_t)*shift;
		struct tm tm;
		assert_non_null(gmtime_r(&there, &tm));
		assert_true(strftime(day, sizeof day, "%Y-%m-%dT", &tm) > 0);
		if (there % 86400 > 10)
			assert_true(log_has(&w, day));
	}
	raw_close(&r);
	(void)munmap((void *)(uintptr_t)shift, 8);
	(void)close(fd);
	world_down(&w);
}

int
main(int argc, char **argv)
{
	cmocka_set_test_filter(argc > 1 ? argv[1] : NULL); /* a pattern: "t40*" */
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(t40_reload_is_for_new_requests_and_leaves_streams_alone),
		cmocka_unit_test(t40_a_bad_configuration_is_refused_with_every_error_and_the_old_one_stays),
		cmocka_unit_test(t40_a_rotated_key_is_used_by_the_next_attempt),
		cmocka_unit_test(t40_a_key_from_the_environment_is_wiped_there_and_outlives_reloads),
		cmocka_unit_test(life_without_a_configuration_the_usual_variables_are_enough),
		cmocka_unit_test(life_check_names_the_file_and_every_mistake_and_touches_nothing),
		cmocka_unit_test(life_a_stale_socket_is_replaced_and_a_second_agent_refused),
		cmocka_unit_test(life_sockets_of_the_service_manager_are_taken_and_left),
		cmocka_unit_test(life_the_service_manager_is_told),
		cmocka_unit_test(t40_sigterm_drains_live_streams),
		cmocka_unit_test(t40_the_drain_has_a_deadline_and_the_rest_is_told),
		cmocka_unit_test(t40_a_second_sigterm_stops_at_once),
		cmocka_unit_test(t31_durations_do_not_follow_the_wall_clock),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
