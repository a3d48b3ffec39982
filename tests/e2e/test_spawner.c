/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_spawner.c -- signalboxd --http: three processes that live and die as they should, the door with fewer rights, the spawner with
 * nothing in its memory, and the key that a newcomer is shown.
 */
#include "tests/e2e/door.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <netinet/in.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/e2e/key.h"

#define WHOLE(model) "{\"model\":\"" model "\"," MESSAGES "}"
#define STREAM(model) "{\"model\":\"" model "\",\"stream\":true," MESSAGES "}"
#define NOBODY_ELSE 65533

static struct world w;
static struct door d;          /* a client's view; its process is the agent's */
static char address[32];
static pid_t agent, spawner, door;

/* ---- what the processes say ---- */

static char *
whole_file(const char *path)
{
	FILE *f = fopen(path, "re");
	char *text = calloc(1, 1 << 20);
	assert_non_null(text);
	if (f) {
		(void)!fread(text, 1, (1 << 20) - 1, f);
		(void)fclose(f);
	}
	return text;
}

/* The number behind the n-th `text` of the agent's log; -1 = there is none. */
static long
said_number(int n, const char *text)
{
	char *log = whole_file(w.log_path), *at = log;
	long number = -1;
	for (; n >= 0 && at && (at = strstr(at, text)); n--)
		at += strlen(text);
	if (at)
		number = strtol(at, NULL, 10);
	free(log);
	return number;
}

static int
times_said(const char *text)
{
	int n = 0;
	while (said_number(n, text) != -1)
		n++;
	return n;
}

static void
wait_said(const char *text, int times)
{
	for (uint64_t until = now_ms() + 15000; times_said(text) < times;) {
		if (now_ms() > until)
			fail_msg("the agent did not say \"%s\" %d times", text, times);
		(void)usleep(5000); /* a condition with a deadline */
	}
}

static char *
proc(pid_t pid, const char *name)
{
	char path[64];
	(void)snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
	return whole_file(path);
}

/* A line of /proc/PID/status, its number. */
static long
status_number(pid_t pid, const char *name, int base)
{
	char *text = proc(pid, "status"), *at = strstr(text, name);
	long number = at ? strtol(at + strlen(name), NULL, base) : -1;
	free(text);
	return number;
}

static void
wait_gone(pid_t pid, int within_ms)
{
	char path[64];
	(void)snprintf(path, sizeof path, "/proc/%d", (int)pid);
	for (uint64_t until = now_ms() + (uint64_t)within_ms; access(path, F_OK) == 0;) {
		char *text = proc(pid, "status");
		bool zombie = strstr(text, "State:\tZ") != NULL; /* its parent is somebody else's business */
		free(text);
		if (zombie)
			return;
		if (now_ms() > until)
			fail_msg("process %d is there after %d ms", (int)pid, within_ms);
		(void)usleep(2000);
	}
}

/* ---- a world with an agent that has a door ---- */

static int
free_port(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof at;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof at) == 0 && getsockname(fd, (struct sockaddr *)&at, &n) == 0);
	(void)close(fd);
	return ntohs(at.sin_port);
}

static void
note_processes(int starts)
{
	wait_said("event=listening", starts);
	door = (pid_t)said_number(starts - 1, "event=door_started pid=");
	assert_true(door > 0);
	agent = w.agent;
	spawner = (pid_t)status_number(door, "PPid:", 10);
	assert_int_equal(status_number(spawner, "PPid:", 10), agent);
}

#define CONFIG "{\"providers\":{\"a\":{\"dialect\":\"openai-chat\",\"base_url\":\"$0\",\"key\":\"env:SBX_TEST_KEY\",\"models\":{\"m\":{}}}}," \
	"\"routes\":{\"r\":{\"targets\":[\"a/m\"]}},\"store\":\"$DIR/s.db\"}"

static void
start_agent(const char *config, const char *user)
{
	const char *args[] = { "--http", address, user ? "--http-user" : NULL, user, NULL };
	world_agent_start(&w, config, &(struct start){ .args = args, .env = (const char *const[]){ "SBX_TEST_KEY=" WORLD_KEY, NULL } });
}

static void
up(const char *rule)
{
	memset(&d, 0, sizeof d);
	world_up(&w);
	world_double(&w, "a", rule ? (const char *[]){ "--rule", rule, NULL } : (const char *[]){ NULL });
	d.w = &w;
	d.port = free_port();
	(void)snprintf(address, sizeof address, "127.0.0.1:%d", d.port);
	start_agent(CONFIG, NULL);
	note_processes(1);
	wait_said("export OPENAI_API_KEY=", 1);
	char *log = whole_file(w.log_path), *at = strstr(log, "export OPENAI_API_KEY=");
	(void)snprintf(d.key, sizeof d.key, "%.50s", at + strlen("export OPENAI_API_KEY="));
	free(log);
}

static int
ask_status(const char *body)
{
	struct http_answer a;
	door_ask(&d, CHAT, "", body, &a);
	int status = a.status;
	http_free(&a);
	return status;
}

/* ==== */

static void
a_newcomer_is_shown_two_lines_once(void **state)
{
	(void)state;
	char line[128];
	up(NULL);
	(void)snprintf(line, sizeof line, "export OPENAI_BASE_URL=http://%s/v1\n", address);
	assert_int_equal(times_said(line), 1);
	assert_int_equal(strncmp(d.key, "sk-sbx-", 7), 0);
	assert_int_equal(ask_status(WHOLE("r")), 200);
	assert_int_equal(ask_status(STREAM("r")), 200);
	/* Among the lines of the log it is not. */
	char *log = whole_file(w.log_path);
	for (char *at = log, *next; *at; at = next) {
		next = at + strcspn(at, "\n");
		next += *next == '\n';
		if (strncmp(at, "export ", 7) != 0)
			assert_true(!memmem(at, (size_t)(next - at), d.key + 7, 20));
	}
	free(log);
	/* The next start has it, and shows nothing. */
	world_agent_signal(&w, SIGTERM);
	assert_int_equal(world_agent_wait(&w, 30000), 0);
	start_agent(NULL, NULL);
	note_processes(2);
	for (uint64_t until = now_ms() + 10000; ask_status(WHOLE("r")) != 200;) {
		assert_true(now_ms() < until);
		(void)usleep(20000); /* its keys are being read */
	}
	assert_int_equal(times_said("export OPENAI_API_KEY="), 1);
	world_down(&w);
}

static void
a_door_that_crashes_is_started_again(void **state)
{
	(void)state;
	static const int deaths[] = { SIGABRT, SIGKILL, SIGTERM };
	up(NULL);
	struct sbx_client *c = client_up(&w); /* a client that must not notice */
	struct sbx_reply *r;
	for (int i = 0; i < 3; i++) {
		assert_int_equal(ask_status(WHOLE("r")), 200);
		pid_t was = door;
		assert_int_equal(kill(door, deaths[i]), 0);
		note_processes(i + 2);
		assert_int_not_equal(door, was);
		assert_int_equal(ask_status(WHOLE("r")), 200);
		r = ask(c, i % 2, 10000);
		assert_true(sbx_reply_ok(r));
		sbx_reply_free(r);
	}
	assert_int_equal(world_agent_wait(&w, 0), -1);
	assert_true(said_number(2, "next=\"it is started again\" in=") >= 400); /* the pause doubles: 100, 200, 400 ms */
	sbx_close(c);
	world_down(&w);
	wait_gone(door, 3000);
	wait_gone(spawner, 3000);
}

/* What is under way in the door ends with the agent, and the clients are told. */
static void
nothing_is_left_of_an_agent_that_is_killed(void **state)
{
	(void)state;
	struct http_answer a;
	up("*: hang");
	int fd = door_connect(&d);
	door_post(&d, fd, CHAT, "", WHOLE("r"));
	double_wait(&w, 0, 1, NULL, 5000);
	world_agent_signal(&w, SIGKILL);
	assert_int_not_equal(world_agent_wait(&w, 5000), -1);
	http_read(fd, 5000, &a);
	assert_true(a.status == 503 || a.status == 0);
	http_free(&a);
	(void)close(fd);
	wait_gone(door, 4000);
	wait_gone(spawner, 4000);
	world_down(&w);
}

static void
an_agent_that_lost_its_spawner_goes_on(void **state)
{
	(void)state;
	up(NULL);
	assert_int_equal(kill(spawner, SIGKILL), 0);
	wait_gone(door, 3000);
	wait_said("event=door_lost", 1);
	struct sbx_client *c = client_up(&w);
	struct sbx_reply *r = ask(c, false, 10000);
	assert_true(sbx_reply_ok(r));
	sbx_reply_free(r);
	sbx_close(c);
	world_down(&w);
}

static bool
connects(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)d.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	bool does = connect(fd, (struct sockaddr *)&at, sizeof at) == 0;
	(void)close(fd);
	return does;
}

static void
a_stop_lets_the_door_finish(void **state)
{
	(void)state;
	struct http_answer a;
	up("*: tokens=150, gap=20"); /* three seconds of stream */
	int fd = door_connect(&d);
	door_post(&d, fd, CHAT, "", STREAM("r"));
	double_wait(&w, 0, 1, NULL, 5000);
	world_agent_signal(&w, SIGTERM);
	for (uint64_t until = now_ms() + 1500; connects();) { /* nobody new comes in, while the stream goes on */
		assert_true(now_ms() < until);
		(void)usleep(5000);
	}
	assert_int_equal(world_agent_wait(&w, 0), -1);
	http_read(fd, 15000, &a);
	assert_int_equal(a.status, 200);
	assert_true(a.whole && strstr(a.body, "data: [DONE]"));
	http_free(&a);
	(void)close(fd);
	assert_int_equal(world_agent_wait(&w, 15000), 0);
	wait_gone(door, 100); /* the agent has waited for them */
	wait_gone(spawner, 100);
	world_down(&w);
}

/* Does the process hold these bytes anywhere in its memory? Root may look. */
static bool
memory_holds(pid_t pid, const char *text)
{
	char path[64], line[512];
	static char piece[1 << 20];
	bool found = false;
	size_t looked = 0;
	(void)snprintf(path, sizeof path, "/proc/%d/mem", (int)pid);
	int mem = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(mem >= 0);
	char *maps = proc(pid, "maps");
	for (char *at = maps; *at && !found; at += strcspn(at, "\n"), at += *at == '\n') {
		unsigned long from, to;
		char rights[8];
		(void)snprintf(line, sizeof line, "%.*s", (int)strcspn(at, "\n"), at);
		if (sscanf(line, "%lx-%lx %7s", &from, &to, rights) != 3 || rights[0] != 'r' || strstr(line, "[v") || to - from > 1ul << 30)
			continue; /* shadow memory of a sanitizer is terabytes of nothing */
		for (; from < to && !found; from += sizeof piece - 64) {
			ssize_t n = pread(mem, piece, to - from < sizeof piece ? to - from : sizeof piece, (off_t)from);
			if (n <= 0)
				break;
			looked += (size_t)n;
			found = memmem(piece, (size_t)n, text, strlen(text)) != NULL;
		}
	}
	(void)close(mem);
	free(maps);
	assert_true(looked > 1 << 16);
	return found;
}

static void
the_door_and_its_spawner_hold_nothing(void **state)
{
	(void)state;
	char path[64];
	struct stat st;
	up(NULL);
	assert_int_equal(ask_status(WHOLE("r")), 200);
	const pid_t both[] = { spawner, door };
	for (int i = 0; i < 2; i++) {
		char *env = proc(both[i], "environ");
		assert_null(memmem(env, 1 << 20, "SBX_TEST_KEY", 12));
		assert_null(memmem(env, 1 << 20, "PATH=", 5));
		free(env);
		for (int fd = 0; fd < 64; fd++) { /* neither the store nor the agent's listening sockets nor its log of doubles */
			char target[256] = "";
			(void)snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)both[i], fd);
			ssize_t n = readlink(path, target, sizeof target - 1);
			if (n > 0)
				assert_null(strstr(target, "s.db"));
		}
	}
	assert_int_equal(status_number(door, "NoNewPrivs:", 10), 1);
	assert_int_equal(status_number(door, "Seccomp:", 10), 2);
	(void)snprintf(path, sizeof path, "/proc/%d/limits", (int)door);
	char *limits = whole_file(path);
	assert_non_null(strstr(limits, "Max core file size        0"));
	free(limits);
	if (geteuid() == 0) {
		assert_int_equal(status_number(door, "Uid:", 10), NOBODY_ELSE);
		assert_int_equal(status_number(door, "Gid:", 10), NOBODY_ELSE);
		assert_int_equal(status_number(door, "CapEff:", 16), 0);
		assert_int_equal(status_number(door, "CapPrm:", 16), 0);
		assert_int_equal(stat(w.socket, &st), 0);
		assert_int_equal(st.st_gid, NOBODY_ELSE);
		assert_int_equal(st.st_mode & 07777, 0660);
#if !defined(__SANITIZE_ADDRESS__) /* which keeps a copy of the environment for itself */
		assert_false(memory_holds(spawner, WORLD_KEY));
#endif
		assert_false(memory_holds(door, WORLD_KEY));
		assert_true(memory_holds(agent, WORLD_KEY)); /* so it can be seen where it is */
	}
	world_down(&w);
}

static void
what_cannot_be_is_told(void **state)
{
	(void)state;
	static const struct {
		const char *args[6];
		int status;
		const char *says;
	} rows[] = {
		{ { "--http-user", "root", NULL }, 64, "--http" },
		{ { "--http", "127.0.0.1:0", "--http-user", "no-such-user-here", NULL }, 1, "no user no-such-user-here" },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		char *said;
		world_up(&w);
		assert_int_equal(world_run(&w, "signalboxd", &(struct start){ .args = rows[i].args, .bare = true }, &said), rows[i].status);
		assert_non_null(strstr(said, rows[i].says));
		free(said);
		world_down(&w);
	}
	/* An address that the door refuses, and one that is taken: the agent is as well as ever. */
	up(NULL);
	world_agent_signal(&w, SIGTERM);
	assert_int_equal(world_agent_wait(&w, 30000), 0);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)d.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
	assert_int_equal(listen(fd, 1), 0);
	start_agent(NULL, NULL);
	wait_said("next=\"it is started again\"", 2);
	struct sbx_client *c = client_up(&w);
	struct sbx_reply *r = ask(c, false, 10000);
	assert_true(sbx_reply_ok(r));
	sbx_reply_free(r);
	sbx_close(c);
	(void)close(fd); /* the address is free: the door comes by itself */
	wait_said("event=listening", 2);
	assert_int_equal(ask_status(WHOLE("r")), 200);
	world_down(&w);
}

static void
root_may_choose_the_doors_user(void **state)
{
	(void)state;
	if (geteuid() != 0)
		skip();
	up(NULL);
	world_agent_signal(&w, SIGTERM);
	assert_int_equal(world_agent_wait(&w, 30000), 0);
	start_agent(NULL, "daemon");
	note_processes(2);
	assert_int_equal(status_number(door, "Uid:", 10), 1);
	for (uint64_t until = now_ms() + 10000; ask_status(WHOLE("r")) != 200;) {
		assert_true(now_ms() < until);
		(void)usleep(20000);
	}
	world_down(&w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_newcomer_is_shown_two_lines_once),
		cmocka_unit_test(a_door_that_crashes_is_started_again),
		cmocka_unit_test(nothing_is_left_of_an_agent_that_is_killed),
		cmocka_unit_test(an_agent_that_lost_its_spawner_goes_on),
		cmocka_unit_test(a_stop_lets_the_door_finish),
		cmocka_unit_test(the_door_and_its_spawner_hold_nothing),
		cmocka_unit_test(what_cannot_be_is_told),
		cmocka_unit_test(root_may_choose_the_doors_user),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
