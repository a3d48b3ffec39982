/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_replace.c -- signalboxd --replace: a new agent takes the place of the running one. Under load nobody is refused and nothing
 * is lost, and whatever goes wrong with the new one leaves the old one where it is.
 */
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/e2e/control.h"
#include "tests/e2e/harness.h"
#include "tests/e2e/raw.h"

static bool
exists(const char *path)
{
	return access(path, F_OK) == 0;
}

static int
end_of(pid_t pid, int timeout_ms)
{
	for (uint64_t until = now_ms() + (uint64_t)timeout_ms; now_ms() < until; pause_ms(2)) {
		int status;
		if (waitpid(pid, &status, WNOHANG) == pid)
			return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	}
	return -1;
}

static void
wait_log(struct world *w, const char *text)
{
	for (uint64_t until = now_ms() + 20000; !log_has(w, text); pause_ms(2))
		if (now_ms() > until)
			fail_msg("the log does not say: %s", text);
}

/* Starts another agent with --replace and waits until it is the one that answers. The pid of the old one, which still is a child. */
static pid_t
replace(struct world *w)
{
	const pid_t old = w->agent;
	world_agent_start(w, NULL, &(struct start){ .args = (const char *const[]){ "--replace", NULL } });
	for (uint64_t until = now_ms() + 20000; agent_number(w, "pid") != w->agent; pause_ms(2))
		if (now_ms() > until)
			fail_msg("agent %d does not serve", (int)w->agent);
	assert_int_equal(agent_number(w, "predecessor"), old);
	return old;
}

/* As an operator would: to its end. */
static int
try_replace(struct world *w, const char *config_path, char **ret_said)
{
	const char *const args[] = { "--replace", "--config", config_path ? config_path : w->config_path, NULL };
	return world_run(w, "signalboxd", &(struct start){ .args = args }, ret_said);
}

static void
assert_serves(struct world *w, pid_t agent)
{
	struct sbx_client *c = client_up(w);
	struct sbx_reply *r = ask(c, true, 10000);
	if (!sbx_reply_ok(r))
		fail_msg("%s", sbx_reply_message(r));
	sbx_reply_free(r);
	sbx_close(c);
	assert_int_equal(agent_number(w, "pid"), agent);
}

/* ---- under load ---- */

enum { ASK_WHOLE, ASK_STREAM, ASK_ANEW, ASK_AFTER_A_PAUSE, MANY_AT_ONCE, OWN_LOOP, KINDS };
static const char *const kinds[KINDS] = { "whole", "streams", "a connection for each", "with pauses", "many at once", "a loop of its own" };
#define AT_ONCE 8

/* Shared with the clients. */
struct load {
	bool stop;
	char want[4096];                     /* the answer */
	struct { uint64_t answered, failed; char why[300]; } kind[KINDS];
};

static struct load *load;

static void
failed(int kind, const char *what, const char *why)
{
	if (!__atomic_fetch_add(&load->kind[kind].failed, 1, __ATOMIC_RELAXED))
		(void)snprintf(load->kind[kind].why, sizeof load->kind[kind].why, "%s: %s", what, why);
}

static void
check(int kind, bool ok, const struct sbx_reply *r, const char *text)
{
	char why[200];
	if (!ok) {
		(void)snprintf(why, sizeof why, "%s, sent %d: %s", sbx_reply_code_word(r), sbx_reply_sent(r), sbx_reply_message(r));
		failed(kind, "ended badly", why);
	} else if (strcmp(text, load->want) != 0) {
		failed(kind, "not the whole answer", text);
	} else {
		(void)__atomic_add_fetch(&load->kind[kind].answered, 1, __ATOMIC_RELAXED);
	}
}

static struct sbx_request_options
question(bool stream)
{
	struct sbx_request_options o = SBX_REQUEST_INIT;
	o.route = "r";
	o.body = BODY;
	o.body_bytes = sizeof BODY - 1;
	o.stream = stream;
	o.deadline_ms = 30000;
	return o;
}

static void
ask_once(int kind, struct sbx_client *c)
{
	struct sbx_request_options o = question(kind != ASK_WHOLE);
	struct sbx_reply *r = NULL;
	const int rc = sbx_ask(c, &o, &r);
	if (r)
		check(kind, rc == 0, r, rc == 0 ? sbx_reply_text(r, 0, NULL) : "");
	else
		failed(kind, "no reply", sbx_client_error(c));
	sbx_reply_free(r);
}

/* Requests overlap all the time: there is no moment at which nothing runs on the connection. */
static void
ask_many(int kind, struct sbx_client *c)
{
	struct { uint64_t id; char text[4096]; } slot[AT_ONCE] = { 0 };
	struct sbx_request_options o = question(true);
	struct sbx_event ev;
	int open = 0;
	for (;;) {
		for (int i = 0; i < AT_ONCE && !__atomic_load_n(&load->stop, __ATOMIC_RELAXED); i++)
			if (!slot[i].id) {
				slot[i].text[0] = 0;
				if (sbx_submit(c, &o, &slot[i].id))
					failed(kind, "submit", sbx_client_error(c));
				else
					open++;
			}
		if (!open)
			return;
		if (kind == OWN_LOOP) {
			struct pollfd p = { .fd = sbx_fd(c), .events = sbx_events(c) };
			const int timeout_ms = sbx_timeout_ms(c);
			(void)poll(&p, 1, timeout_ms < 0 || timeout_ms > 1000 ? 1000 : timeout_ms);
			(void)sbx_process(c, p.fd >= 0 ? p.revents : 0);
		}
		while (sbx_next(c, kind == OWN_LOOP ? 0 : 1000, &ev) == 0) {
			int i = 0;
			while (i < AT_ONCE && slot[i].id != ev.id)
				i++;
			if (i == AT_ONCE) {
				failed(kind, "an event", "of no request");
				continue;
			}
			if (ev.note == SBX_NOTE_TEXT)
				(void)snprintf(slot[i].text + strlen(slot[i].text), sizeof slot[i].text - strlen(slot[i].text), "%s", ev.text);
			else if (ev.note == SBX_NOTE_RESET)
				failed(kind, "a stream", "started over");
			if (!ev.last)
				continue;
			check(kind, ev.note == SBX_NOTE_DONE, ev.reply, slot[i].text);
			slot[i].id = 0;
			open--;
			if (kind != OWN_LOOP)
				break;
		}
	}
}

static void
be_client(int kind, const char *socket)
{
	struct sbx_open_options o = SBX_OPEN_OPTIONS_INIT;
	struct sbx_client *c = NULL;
	o.socket = socket;
	while (!__atomic_load_n(&load->stop, __ATOMIC_RELAXED)) {
		if (!c && sbx_open(&o, &c)) {
			failed(kind, "open", sbx_client_error(c));
			sbx_close(c);
			c = NULL;
			pause_ms(10);
			continue;
		}
		if (kind == MANY_AT_ONCE || kind == OWN_LOOP)
			ask_many(kind, c);
		else
			ask_once(kind, c);
		if (kind == ASK_AFTER_A_PAUSE)
			pause_ms(1 + (int)(now_ns() % 23));
		if (kind == ASK_ANEW) {
			sbx_close(c);
			c = NULL;
		}
	}
	sbx_close(c);
}

static uint64_t
answered(void)
{
	uint64_t n = 0;
	for (int k = 0; k < KINDS; k++)
		n += __atomic_load_n(&load->kind[k].answered, __ATOMIC_RELAXED);
	return n;
}

static int64_t
rows_in_store(struct world *w)
{
	struct sbx_client *c = client_up(w);
	struct sbx_event ev;
	uint64_t id;
	int64_t n = -1;
	assert_int_equal(sbx_report(c, NULL, &id), 0);
	assert_int_equal(sbx_next(c, 10000, &ev), 0);
	if (ev.note == SBX_NOTE_STATS)
		(void)sbx_reply_number(ev.reply, "total.attempts", &n);
	sbx_close(c);
	return n;
}

#define ROUNDS 5
#define EACH 2

static void
five_in_a_row_under_load(void **state)
{
	(void)state;
	struct world w;
	pid_t client[KINDS * EACH], old[ROUNDS];
	world_simple(&w, 2, (const char *const[]){ "m: first=5ms,gap=1ms,tokens=30", NULL }, "\"store\": \"$DIR/s.db\"");
	load = mmap(NULL, sizeof *load, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true((void *)load != MAP_FAILED);
	struct sbx_client *c = client_up(&w);
	struct sbx_reply *r = ask(c, true, 10000);
	assert_true(sbx_reply_ok(r));
	(void)snprintf(load->want, sizeof load->want, "%s", sbx_reply_text(r, 0, NULL));
	sbx_reply_free(r);
	sbx_close(c);
	for (int i = 0; i < KINDS * EACH; i++) {
		client[i] = fork();
		assert_true(client[i] >= 0);
		if (client[i] == 0) {
			(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
			be_client(i % KINDS, w.socket);
			_exit(0);
		}
	}
	for (int i = 0; i < ROUNDS; i++) {
		const uint64_t so_far = answered();
		for (uint64_t until = now_ms() + 20000; answered() < so_far + 100; pause_ms(2))
			if (now_ms() > until)
				fail_msg("round %d: %llu answers", i, (unsigned long long)answered());
		old[i] = replace(&w);
	}
	const uint64_t so_far = answered();
	for (uint64_t until = now_ms() + 20000; answered() < so_far + 100 && now_ms() < until;)
		pause_ms(2);
	__atomic_store_n(&load->stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < KINDS * EACH; i++)
		assert_int_equal(end_of(client[i], 30000), 0);
	for (int k = 0; k < KINDS; k++) {
		if (load->kind[k].failed)
			fail_msg("%s: %llu failed of %llu; the first: %s", kinds[k], (unsigned long long)load->kind[k].failed,
			         (unsigned long long)load->kind[k].answered, load->kind[k].why);
		assert_true(load->kind[k].answered > 0);
	}
	for (int i = 0; i < ROUNDS; i++)
		assert_int_equal(end_of(old[i], 10000), 0);
	/* Nobody was asked twice for one answer, and the rows of all six agents are in the file. */
	assert_int_equal(double_requests(&w, 0), (int64_t)answered() + 1);
	assert_int_equal(double_requests(&w, 1), 0);
	for (uint64_t until = now_ms() + 20000; rows_in_store(&w) != (int64_t)answered() + 1; pause_ms(20))
		if (now_ms() > until)
			fail_msg("%lld rows of %llu", (long long)rows_in_store(&w), (unsigned long long)answered() + 1);
	print_message("%llu answers, %d agents\n", (unsigned long long)answered(), ROUNDS + 1);
	(void)munmap(load, sizeof *load);
	assert_serves(&w, w.agent);
	world_down(&w);
	assert_false(exists(w.socket));
}

/* ---- what it means ---- */

/* Streams of the old one run to their end, health goes along, the old board sends its readers to the new one, and the files stay. */
static void
what_runs_ends_where_it_began(void **state)
{
	(void)state;
	struct world w;
	struct raw r;
	struct sbx_frame f;
	struct sbx_board *board;
	struct sbx_target_view v;
	struct stat before, after;
	char snapshot[200];
	world_simple(&w, 2, (const char *const[]){ "m: status=500", NULL }, NULL);
	struct sbx_client *c = client_up(&w);
	for (int i = 0; i < 3; i++)
		sbx_reply_free(ask(c, true, 10000));
	assert_int_equal(sbx_board(c, &board), 0);
	assert_int_equal(stat(w.socket, &before), 0);
	raw_up(&r, &w);
	raw_submit(&r, 1, "b/m@tokens=600,gap=5ms", true, 30000); /* longer than a sanitized start on a busy machine */
	raw_expect(&r, SBX_FRAME_EVENT, 1, 5000, &f);
	const int asked = double_requests(&w, 0);
	const pid_t old = replace(&w);
	assert_int_equal(sbx_board_life(board, sbx_boot_ns()), SBX_LIFE_REPLACED);
	sbx_board_close(board);
	raw_expect_error(&r, 0, "draining", 5000);
	raw_submit(&r, 2, "b/m", true, 20000);
	raw_expect_error(&r, 2, "draining", 5000);
	struct sbx_reply *reply = ask(c, true, 10000); /* its connection was idle, and is gone */
	assert_true(sbx_reply_ok(reply));
	assert_string_equal(sbx_reply_target(reply), "b/m");
	sbx_reply_free(reply);
	assert_int_equal(double_requests(&w, 0), asked); /* the new one knows that it is down */
	assert_int_equal(sbx_board(c, &board), 0);
	struct sbx_board_info info;
	sbx_board_describe(board, &info);
	assert_int_equal(info.agent_pid, w.agent);
	assert_int_equal(sbx_board_target(board, 0, sbx_boot_ns(), &v), 0);
	assert_int_equal(v.standing, SBX_STANDING_DOWN);
	sbx_board_close(board);
	sbx_close(c);
	raw_expect(&r, SBX_FRAME_DONE, 1, 20000, &f);
	raw_expect_close(&r, 2000);
	raw_close(&r);
	assert_int_equal(end_of(old, 5000), 0);
	assert_int_equal(stat(w.socket, &after), 0);
	assert_int_equal(after.st_ino, before.st_ino); /* the same socket under the same name */
	assert_true(exists(w.admin_socket));
	assert_true(log_has(&w, "event=handing_over") && log_has(&w, "event=replaced") && log_has(&w, "event=took_over"));
	/* The snapshot is the new one's, also after the old one ended. */
	(void)snprintf(snapshot, sizeof snapshot, "%s/board.snapshot", w.dir);
	assert_int_equal(sbx_board_load(snapshot, &board, NULL, 0), 0);
	sbx_board_describe(board, &info);
	assert_int_equal(info.agent_pid, w.agent);
	assert_int_equal(sbx_board_life(board, sbx_boot_ns()), SBX_LIFE_SERVING);
	sbx_board_close(board);
	/* It holds the locks: nobody else starts here. */
	char *said;
	assert_int_not_equal(world_run(&w, "signalboxd", &(struct start){ .args = (const char *const[]){ "--config", w.config_path, NULL } }, &said), 0);
	assert_non_null(strstr(said, "another agent is running"));
	free(said);
	assert_serves(&w, w.agent);
	world_down(&w);
}

static void
without_an_agent_it_is_an_ordinary_start(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 1, NULL, NULL);
	world_agent_signal(&w, SIGKILL); /* which leaves the files */
	assert_int_equal(world_agent_wait(&w, 5000), 128 + SIGKILL);
	world_agent_start(&w, NULL, &(struct start){ .args = (const char *const[]){ "--replace", NULL } });
	assert_serves(&w, w.agent);
	assert_true(log_has(&w, "event=nobody_to_replace"));
	world_down(&w);
}

/* ---- what goes wrong ---- */

static void
a_new_one_that_cannot_start_changes_nothing(void **state)
{
	(void)state;
	struct world w;
	char path[200], *said;
	world_simple(&w, 1, NULL, NULL);
	const struct {
		const char *config;
		int status;
		const char *says;
	} rows[] = {
		{ "{ \"ruotes\": {} }", 78, "ruotes" },
		{ "{ \"listen\": { \"socket\": \"%s/other.sock\", \"admin_socket\": \"%s/admin.sock\" } }", 1, "other sockets" },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		(void)snprintf(path, sizeof path, "%s/other.json", w.dir);
		FILE *f = fopen(path, "we");
		assert_non_null(f);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		(void)fprintf(f, rows[i].config, w.dir, w.dir);
#pragma GCC diagnostic pop
		(void)fclose(f);
		const int status = try_replace(&w, path, &said);
		if (status != rows[i].status || !strstr(said, rows[i].says))
			fail_msg("%zu: %d: %s", i, status, said);
		free(said);
		assert_serves(&w, w.agent);
	}
	(void)end_of(replace(&w), 10000);
	world_down(&w);
}

/* The heir, as far as the running agent can tell: it asks, gets the sockets, and then? */
static void
ask_takeover(struct raw *r, struct world *w)
{
	struct sbx_packer p;
	char clients[sizeof w->socket];
	(void)snprintf(clients, sizeof clients, "%s", w->socket);
	(void)snprintf(w->socket, sizeof w->socket, "%s", w->admin_socket);
	raw_up(r, w);
	(void)snprintf(w->socket, sizeof w->socket, "%s", clients);
	sbx_buf_clear(&r->out);
	sbx_frame_begin(&p, &r->out, SBX_FRAME_TAKEOVER, 7, 0);
	assert_int_equal(sbx_frame_end(&p), 0);
	assert_true(raw_send(r, r->out.data, r->out.n));
}

static void
say_serving(struct raw *r)
{
	struct sbx_packer p;
	sbx_buf_clear(&r->out);
	sbx_frame_begin(&p, &r->out, SBX_FRAME_SERVING, 8, 0);
	assert_int_equal(sbx_frame_end(&p), 0);
	assert_true(raw_send(r, r->out.data, r->out.n));
}

static void
an_heir_that_dies_is_forgotten(void **state)
{
	(void)state;
	struct world w;
	struct raw r, second;
	struct sbx_frame f;
	world_simple(&w, 1, NULL, NULL);
	assert_serves(&w, w.agent);
	agent_wait_at_rest(&w, 5000);
	int fds = agent_fds(&w);
	for (int i = 0; i < 3; i++) {
		ask_takeover(&r, &w);
		for (int left = 3; left >= 0; left--) {
			struct sbx_value v;
			raw_expect(&r, SBX_FRAME_INHERIT, 7, 5000, &f);
			assert_true(sbx_map_get(&f.map, "left", &v) && v.u == (uint64_t)left);
		}
		ask_takeover(&second, &w); /* one at a time */
		raw_expect_error(&second, 7, "busy", 5000);
		say_serving(&second);
		raw_expect_error(&second, 8, "invalid_request", 5000);
		raw_close(&second);
		assert_serves(&w, w.agent);
		raw_close(&r);
		agent_wait_at_rest(&w, 5000);
	}
	wait_log(&w, "event=handover_failed");
	for (uint64_t until = now_ms() + 5000; agent_fds(&w) > fds; pause_ms(2))
		assert_true(now_ms() < until);
	assert_serves(&w, w.agent);
	(void)end_of(replace(&w), 10000);
	assert_serves(&w, w.agent);
	world_down(&w);
}

/* SIGTERM between the two words: the heir has the sockets, so their files stay. */
static void
a_stop_in_the_middle_leaves_the_sockets_to_the_heir(void **state)
{
	(void)state;
	struct world w;
	struct raw r;
	struct sbx_frame f;
	world_simple(&w, 1, NULL, NULL);
	ask_takeover(&r, &w);
	for (int i = 0; i < 4; i++)
		raw_expect(&r, SBX_FRAME_INHERIT, 7, 5000, &f);
	world_agent_signal(&w, SIGTERM);
	raw_expect_error(&r, 0, "draining", 5000);
	raw_expect_close(&r, 5000);
	raw_close(&r);
	assert_int_equal(world_agent_wait(&w, 5000), 0);
	assert_true(exists(w.socket) && exists(w.admin_socket));
	world_agent_start(&w, NULL, &(struct start){ .args = (const char *const[]){ "--replace", NULL } });
	assert_serves(&w, w.agent);
	world_down(&w);
}

static void
a_hanging_one_is_told_of(void **state)
{
	(void)state;
	struct world w;
	char *said;
	world_simple(&w, 1, NULL, NULL);
	world_agent_signal(&w, SIGSTOP);
	uint64_t began = now_ms();
	assert_int_equal(try_replace(&w, NULL, &said), 1);
	assert_in_range(now_ms() - began, 4900, 10000);
	assert_non_null(strstr(said, "does not answer"));
	free(said);
	world_agent_signal(&w, SIGCONT);
	assert_serves(&w, w.agent);
	world_down(&w);
}

/* Old agents, and what is none: the answer to TAKEOVER comes from a socket of the test. */
static void
an_old_version_is_told_of(void **state)
{
	(void)state;
	static const struct {
		const char *code, *message, *says;
	} rows[] = {
		{ "invalid_request", "kind 8 is no frame that a client sends", "does not know how to hand over" },
		{ NULL, NULL, "hung up" },
		{ "forbidden", "this user may not use this socket", "refuses: this user" },
	};
	struct world w;
	world_up(&w);
	(void)world_double(&w, "a", NULL);
	world_reconfigure(&w, "{ \"providers\": { \"a\": { \"dialect\": \"openai-chat\", \"base_url\": \"$0\", \"key\": \"$KEY\" } } }");
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	(void)snprintf(at.sun_path, sizeof at.sun_path, "%.100s", w.admin_socket);
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof at), 0);
	assert_int_equal(listen(listener, 4), 0);
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		pid_t peer = fork();
		if (peer == 0) {
			struct sbx_buf out;
			struct sbx_packer p;
			char rest[4096];
			(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
			int fd = accept(listener, NULL, NULL);
			sbx_buf_init(&out, 4096);
			if (i != 2) {
				sbx_frame_begin(&p, &out, SBX_FRAME_WELCOME, 0, 2);
				sbx_pack_uint(&p, "version", 1);
				sbx_pack_str(&p, "agent", SBX_SPAN("signalboxd/0.0.1"));
				(void)sbx_frame_end(&p);
			}
			if (rows[i].code) {
				sbx_frame_begin(&p, &out, SBX_FRAME_ERROR, 0, 2);
				sbx_pack_str(&p, "code", sbx_span_of(rows[i].code));
				sbx_pack_str(&p, "message", sbx_span_of(rows[i].message));
				(void)sbx_frame_end(&p);
			}
			(void)recv(fd, rest, sizeof rest, 0);
			(void)send(fd, out.data, out.n, MSG_NOSIGNAL);
			(void)shutdown(fd, SHUT_WR);
			while (recv(fd, rest, sizeof rest, 0) > 0) {}
			_exit(0);
		}
		char *said;
		assert_int_equal(try_replace(&w, NULL, &said), 1);
		if (!strstr(said, rows[i].says) || (i != 2 && !strstr(said, "signalboxd/0.0.1")))
			fail_msg("%zu: %s", i, said);
		free(said);
		assert_int_equal(end_of(peer, 5000), 0);
	}
	(void)close(listener);
	world_down(&w);
}

static void
only_on_the_admin_socket_and_only_for_its_user(void **state)
{
	(void)state;
	struct world w;
	struct raw r;
	char admin[sizeof w.admin_socket];
	world_simple(&w, 1, NULL, NULL);
	(void)snprintf(admin, sizeof admin, "%s", w.admin_socket);
	(void)snprintf(w.admin_socket, sizeof w.admin_socket, "%s", w.socket);
	ask_takeover(&r, &w);
	raw_expect_error(&r, 7, "forbidden", 5000);
	say_serving(&r);
	raw_expect_error(&r, 8, "forbidden", 5000);
	raw_close(&r);
	(void)snprintf(w.admin_socket, sizeof w.admin_socket, "%s", admin);
	assert_false(log_has(&w, "event=handing_over"));
	if (geteuid() == 0) { /* else there is no other user to be */
		assert_int_equal(chmod(w.dir, 0755), 0);
		assert_int_equal(chmod(w.admin_socket, 0666), 0); /* the mode is the first door; this is the second */
		pid_t stranger = fork();
		if (stranger == 0) {
			struct sockaddr_un at = { .sun_family = AF_UNIX };
			char said[1024];
			(void)snprintf(at.sun_path, sizeof at.sun_path, "%.100s", w.admin_socket);
			int fd = socket(AF_UNIX, SOCK_STREAM, 0);
			if (setgid(12345) || setuid(12345) || connect(fd, (struct sockaddr *)&at, sizeof at))
				_exit(1);
			ssize_t n = recv(fd, said, sizeof said, 0);
			_exit(n > 0 && memmem(said, (size_t)n, "forbidden", 9) && recv(fd, said, sizeof said, 0) <= 0 ? 0 : 2);
		}
		assert_int_equal(end_of(stranger, 10000), 0);
	}
	assert_serves(&w, w.agent);
	world_down(&w);
}

/* ---- the service manager ---- */

static void
expect_note(int fd, const char *want)
{
	char note[256];
	struct pollfd p = { .fd = fd, .events = POLLIN };
	for (uint64_t until = now_ms() + 10000; now_ms() < until;) {
		if (poll(&p, 1, 100) != 1)
			continue;
		ssize_t n = recv(fd, note, sizeof note - 1, 0);
		note[n > 0 ? n : 0] = 0;
		if (strcmp(note, want) == 0)
			return;
		if (strcmp(note, "STOPPING=1") == 0)
			fail_msg("%s, while waiting for %s", note, want);
	}
	fail_msg("the manager was not told: %s", want);
}

static int
listening_at(const char *path)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	(void)snprintf(at.sun_path, sizeof at.sun_path, "%.100s", path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
	assert_int_equal(listen(fd, 64), 0);
	return fd;
}

/* Sockets that came by activation are handed on, the manager is told who the service is now, and the heir, started without
 * any of that in its environment, keeps the watchdog quiet. */
static void
the_service_manager_follows(void **state)
{
	(void)state;
	struct world w;
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	char notify[200], want[64];
	world_up(&w);
	(void)world_double(&w, "a", NULL);
	int manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	(void)snprintf(at.sun_path, sizeof at.sun_path, "%.90s/notify", w.dir);
	assert_int_equal(bind(manager, (struct sockaddr *)&at, sizeof at), 0);
	(void)snprintf(notify, sizeof notify, "NOTIFY_SOCKET=%s", at.sun_path);
	int activated = listening_at(w.socket);
	world_agent_start(&w, "{ \"providers\": { \"a\": { \"dialect\": \"openai-chat\", \"base_url\": \"$0\", \"key\": \"$KEY\" } }, \"routes\": { \"r\": { \"targets\": [\"a/m\"] } } }",
	                  &(struct start){ .env = (const char *const[]){ notify, "WATCHDOG_USEC=200000", NULL }, .listen_fd = { activated }, .n_listen_fds = 1, .listen_names = "agent" });
	expect_note(manager, "READY=1");
	(void)close(activated);
	for (int i = 0; i < 2; i++) {
		const pid_t old = replace(&w);
		(void)snprintf(want, sizeof want, "MAINPID=%d", (int)w.agent);
		expect_note(manager, want);
		expect_note(manager, "READY=1");
		assert_int_equal(end_of(old, 10000), 0);
		for (int k = 0; k < 3; k++)
			expect_note(manager, "WATCHDOG=1");
		assert_serves(&w, w.agent);
	}
	(void)close(manager);
	world_down(&w);
	assert_false(exists(w.admin_socket));
}

int
main(int argc, char **argv)
{
	cmocka_set_test_filter(argc > 1 ? argv[1] : NULL); /* a pattern */
	(void)unsetenv("STATE_DIRECTORY");                   /* of whoever runs the tests */
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(five_in_a_row_under_load),
		cmocka_unit_test(what_runs_ends_where_it_began),
		cmocka_unit_test(without_an_agent_it_is_an_ordinary_start),
		cmocka_unit_test(a_new_one_that_cannot_start_changes_nothing),
		cmocka_unit_test(an_heir_that_dies_is_forgotten),
		cmocka_unit_test(a_stop_in_the_middle_leaves_the_sockets_to_the_heir),
		cmocka_unit_test(a_hanging_one_is_told_of),
		cmocka_unit_test(an_old_version_is_told_of),
		cmocka_unit_test(only_on_the_admin_socket_and_only_for_its_user),
		cmocka_unit_test(the_service_manager_follows),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
