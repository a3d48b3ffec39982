/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_limits.c -- what the agent does at its limits: no io_uring (T33), no descriptors (T34), keys that providers throw back (T38),
 * errors with nowhere to go (T41), and more requests than it may hold.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/e2e/control.h"
#include "tests/e2e/harness.h"
#include "tests/e2e/raw.h"

#define CONFIG "{ \"providers\": { \"a\": { \"dialect\": \"openai-chat\", \"base_url\": \"$0\", \"key\": \"$KEY\" } }, \"routes\": { \"r\": { \"targets\": [\"a/m\"] } } }"

static void
assert_serves(struct world *w)
{
	struct sbx_client *c = client_up(w);
	for (int stream = 0; stream < 2; stream++) {
		struct sbx_reply *r = ask(c, stream, 10000);
		if (!sbx_reply_ok(r))
			fail_msg("%s", sbx_reply_message(r));
		sbx_reply_free(r);
	}
	sbx_close(c);
}

/* A number of STATS on a connection that is there already. */
static int64_t
number_on(struct sbx_client *c, const char *name)
{
	struct sbx_event ev;
	uint64_t id;
	int64_t number = -1;
	assert_int_equal(sbx_stats(c, &id), 0);
	assert_int_equal(sbx_next(c, 10000, &ev), 0);
	assert_int_equal(ev.note, SBX_NOTE_STATS);
	if (!sbx_reply_number(ev.reply, name, &number))
		fail_msg("STATS has no number %s", name);
	return number;
}

/* CPU time of the agent over so many milliseconds, in percent of one processor. */
static double
cpu_percent(struct world *w, int ms)
{
	uint64_t cpu = agent_cpu_ms(w), from = now_ms();
	pause_ms(ms); /* the time over which is measured */
	return (double)(agent_cpu_ms(w) - cpu) * 100.0 / (double)(now_ms() - from);
}

/* ---- T33 ---- */

static int
occurrences(struct world *w, const char *text)
{
	char *log = read_whole(w->log_path, NULL);
	int n = 0;
	for (const char *at = log; at && (at = strstr(at, text)); at += strlen(text))
		n++;
	free(log);
	return n;
}

static void
t33_without_io_uring_it_runs_on_epoll_and_says_so_once(void **state)
{
	(void)state;
	static const int errors[] = { EPERM, ENOSYS, ENOMEM };
	for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
		struct world w;
		struct raw r;
		struct sbx_frame f;
		struct sbx_value loop, kind;
		struct start how = { .env = (const char *const[]){ "SIGNALBOX_LOOP", NULL }, .denied_call = SYS_io_uring_setup, .denied_errno = errors[i] };
		world_up(&w);
		(void)world_double(&w, "a", NULL);
		world_agent_start(&w, CONFIG, &how);
		assert_serves(&w);
		raw_up(&r, &w);
		assert_true(raw_send(&r, "\0\0\0\4\x93\x05\x01\x80", 8));
		raw_expect(&r, SBX_FRAME_STATS, 1, 5000, &f);
		assert_true(sbx_map_get(&f.map, "loop", &loop) && sbx_map_get(&loop, "kind", &kind) && sbx_span_is(kind.bytes, "epoll"));
		raw_close(&r);
		assert_int_equal(occurrences(&w, "event=loop "), 1);
		assert_true(log_has(&w, "kind=epoll") && log_has(&w, "io_uring"));
		world_down(&w);
	}
}

static void
t33_io_uring_that_was_demanded_and_is_denied_is_an_error(void **state)
{
	(void)state;
	struct world w;
	char *said;
	world_up(&w);
	(void)world_double(&w, "a", NULL);
	world_reconfigure(&w, CONFIG);
	struct start how = { .args = (const char *const[]){ "--config", w.config_path, NULL }, .env = (const char *const[]){ "SIGNALBOX_LOOP=uring", NULL },
		             .denied_call = SYS_io_uring_setup, .denied_errno = EPERM };
	assert_int_equal(world_run(&w, "signalboxd", &how, &said), 1);
	assert_non_null(strstr(said, "io_uring"));
	assert_int_not_equal(access(w.socket, F_OK), 0);
	free(said);
	world_down(&w);
}

/* ---- T34 ---- */

static void
t34_out_of_descriptors_it_waits_answers_and_recovers(void **state)
{
	(void)state;
	struct world w;
	enum { LIMIT = 40, FLOOD = 100 };
	struct raw flood[FLOOD];
	struct start how = { .nofile = LIMIT };
	world_up(&w);
	(void)world_double(&w, "a", NULL);
	world_agent_start(&w, CONFIG, &how);
	struct sbx_client *c = client_up(&w);
	for (int round = 0; round < 2; round++) {
		int64_t pauses = number_on(c, "loop.accept_pauses");
		for (int i = 0; i < FLOOD; i++)
			raw_open(&flood[i], &w);
		uint64_t until = now_ms() + 5000;
		while (number_on(c, "loop.accept_pauses") == pauses) /* and who was there before is served */
			assert_true(now_ms() < until);
		/* It waits: no busy loop. */
		int64_t turns = number_on(c, "loop.turns");
		double cpu = cpu_percent(&w, 1000);
		turns = number_on(c, "loop.turns") - turns;
		if (cpu > 5 || turns > 200)
			fail_msg("while no descriptor is left: %.1f %% of a processor, %lld turns a second", cpu, (long long)turns);
		/* A call to a provider cannot be made: this is said, and it is not the provider's fault. */
		struct sbx_reply *r = ask(c, true, 5000);
		if (round == 0) { /* later there is a connection that is kept */
			assert_int_equal(sbx_reply_code(r), SBX_CODE_BUSY);
			assert_true(sbx_reply_retry_after_ms(r) >= 0 && sbx_reply_retryable(r));
			assert_int_equal(double_requests(&w, 0), 0);
		}
		sbx_reply_free(r);
		for (int i = 0; i < FLOOD; i++)
			raw_close(&flood[i]);
		uint64_t began = now_ms();
		assert_serves(&w);
		assert_true(now_ms() - began < 2000);
		assert_int_equal(number_on(c, "target.a/m.failures"), 0);
	}
	agent_wait_at_rest(&w, 5000);
	sbx_close(c);
	world_down(&w);
}

/* ---- T38 ---- */

/* Every byte of every frame that comes for request id, up to its end: none may be the key. Returns whether it was replaced somewhere. */
static bool
assert_no_key_in_frames(struct raw *r, uint64_t id)
{
	struct sbx_frame f;
	bool replaced = false;
	do {
		assert_int_equal(raw_next(r, 10000, &f), RAW_FRAME);
		if (memmem(r->in.data, r->taken, WORLD_KEY, strlen(WORLD_KEY)))
			fail_msg("request %llu: a frame of kind %u holds the key", (unsigned long long)id, f.kind);
		replaced = replaced || memmem(r->in.data, r->taken, "[key ", 5);
	} while (f.id != id || f.kind == SBX_FRAME_ACCEPTED || f.kind == SBX_FRAME_EVENT);
	return replaced;
}

static void
submit(struct raw *r, uint64_t id, const char *model, bool stream, bool data)
{
	static const char body[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"canary-prompt-51b2\"}]}";
	struct sbx_packer p;
	sbx_frame_begin(&p, &r->out, SBX_FRAME_SUBMIT, id, 5);
	sbx_pack_str(&p, "model", sbx_span_of(model));
	sbx_pack_bool(&p, "stream", stream);
	sbx_pack_str(&p, "reply", data ? SBX_SPAN("data") : SBX_SPAN("events"));
	sbx_pack_uint(&p, "deadline_ms", 10000);
	sbx_pack_bin(&p, "body", SBX_SPAN(body));
	assert_int_equal(sbx_frame_end(&p), 0);
	assert_true(raw_send(r, r->out.data, r->out.n));
	sbx_buf_clear(&r->out);
}

static void
t38_the_key_is_in_no_byte_that_is_written(void **state)
{
	(void)state;
#define SAYS "{\"error\":{\"message\":\"Incorrect API key provided: " WORLD_KEY ". Not " WORLD_KEY "!\"\\,\"type\":\"" WORLD_KEY "\"\\,\"param\":\"" WORLD_KEY "\"\\,\"code\":\"x" WORLD_KEY "\"}}"
	static const char rules[] =
		"401: status=401,body=" SAYS "\n"
		"400: status=400,body=" SAYS "\n"
		"500: status=500,body=" SAYS "\n"
		"429: status=429,retry-after=600,body=" SAYS "\n"
		"escaped: status=400,body={\"error\":{\"message\":\"sk\\\\u002dcanary-7f3a9c51e2d84b06\"}}\n"
		"text: status=500,content-type=text/plain,body=bad key " WORLD_KEY "\n"
		"html: content-type=text/html,body=<html>bad key " WORLD_KEY "</html>\n"
		"json: status=200,content-type=application/json,body=" SAYS "\n"
		"first: error-first,body=" SAYS "\n"
		"after: error-after=3,body=" SAYS "\n"
		"header: status=400,header=X-Key:" WORLD_KEY ",header=Content-Type:" WORLD_KEY "\n"
		"type: content-type=" WORLD_KEY "\n"
		"encoding: encoding=" WORLD_KEY "\n"
		"m: first=1ms";
	static const char *const models[] = { "400", "500", "429", "escaped", "text", "html", "json", "first", "after", "header", "type", "encoding", "m", "401" };
	enum { MODELS = sizeof models / sizeof models[0], FORMS = 4 };
	struct world w;
	struct raw r;
	struct sbx_buf config;
	char path[64];
	world_up(&w);
	(void)world_double(&w, "a", NULL);
	double_rules(&w, 0, rules);
	/* Each question has a provider of its own: the first refusal of the key would spare the others the attempt. */
	sbx_buf_init(&config, 1u << 20);
	(void)sbx_buf_printf(&config, "{ \"providers\": {");
	for (int i = 0; i < MODELS * FORMS; i++)
		(void)sbx_buf_printf(&config, "%s\"p%d\": { \"dialect\": \"openai-chat\", \"base_url\": \"$0\", \"key\": \"$KEY\" }", i ? "," : "", i);
	(void)sbx_buf_printf(&config, "} }");
	world_agent(&w, (char *)config.data, NULL);
	sbx_buf_fini(&config);
	raw_up(&r, &w);
	for (int i = 0; i < MODELS * FORMS; i++) {
		char model[64];
		(void)snprintf(model, sizeof model, "p%d/%s", i, models[i / FORMS]);
		submit(&r, (uint64_t)i + 1, model, i & 1, i & 2);
		bool replaced = assert_no_key_in_frames(&r, (uint64_t)i + 1);
		if (!replaced && i / FORMS < 4) /* where the message is passed on, it shows that there was one */
			fail_msg("%s: no [key ...] stands where the key was", model);
	}
	assert_true(double_requests(&w, 0) >= MODELS * FORMS);
	assert_true(raw_send(&r, "\0\0\0\6\x93\x05\xcd\x0f\xff\x80", 10));
	(void)assert_no_key_in_frames(&r, 0xfff);
	raw_close(&r);
	static const char *const files[] = { "environ", "cmdline", "comm" };
	for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
		size_t n = 0;
		(void)snprintf(path, sizeof path, "/proc/%d/%s", (int)w.agent, files[i]);
		char *text = read_whole(path, &n);
		if (text && memmem(text, n, WORLD_KEY, strlen(WORLD_KEY)))
			fail_msg("%s holds the key", path);
		free(text);
	}
	/* A text of a client's that goes into the log. */
	static const char hello[] = "\x93\x01\x00\x82\xa7version\x01\xa6" "client\xba" WORLD_KEY;
	raw_open(&r, &w);
	assert_int_equal(strlen(WORLD_KEY), 0xba & 0x1f);
	assert_true(raw_send(&r, "\0\0\0", 3) && raw_send(&r, &(char){ sizeof hello - 1 }, 1) && raw_send(&r, hello, sizeof hello - 1));
	assert_true(raw_send(&r, "\0\0\0\4\x93\x63\x01\x80", 8));
	raw_expect_close(&r, 5000);
	raw_close(&r);
	assert_true(log_has(&w, "client=\"[key ") || log_has(&w, "client=[key "));
	assert_false(log_has(&w, "canary-prompt-51b2"));
	world_down(&w); /* looks for the key in the log */
}

static void
t38_no_core_file_can_hold_the_key(void **state)
{
	(void)state;
	struct rlimit core;
	struct world w;
	char path[64];
	int status;
	assert_int_equal(getrlimit(RLIMIT_CORE, &core), 0);
	core.rlim_cur = core.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_CORE, &core), 0);
	world_simple(&w, 1, NULL, NULL);
	(void)snprintf(path, sizeof path, "/proc/%d/limits", (int)w.agent);
	char *limits = read_whole(path, NULL), *line = limits ? strstr(limits, "Max core file size") : NULL;
	unsigned soft = 1, hard = 1;
	assert_true(line && sscanf(line, "Max core file size %u %u", &soft, &hard) == 2);
	assert_true(soft == 0 && hard == 0);
	free(limits);
	world_agent_signal(&w, SIGQUIT);
	assert_int_equal(waitpid(w.agent, &status, 0), w.agent);
	w.agent = 0;
	assert_true(WIFSIGNALED(status) && !WCOREDUMP(status));
	world_down(&w);
}

/* ---- T41 ---- */

static void
t41_errors_without_a_fallback_are_bounded_and_cost_no_cpu(void **state)
{
	(void)state;
	struct world w;
	struct raw r;
	enum { N = 100 };
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	/* One after the other. */
	double_rules(&w, 0, "m: status=500");
	for (int i = 0; i < N; i++) {
		struct sbx_reply *reply = ask(c, i % 2, 10000);
		assert_int_equal(sbx_reply_code(reply), SBX_CODE_UPSTREAM);
		assert_true(sbx_reply_attempts(reply) <= 2);
		sbx_reply_free(reply);
	}
	int64_t posts = double_requests(&w, 0);
	assert_true(posts >= N && posts <= N + N / 5 + 10); /* retries are at most a fifth of the requests, and ten */
	assert_int_equal(agent_number(&w, "attempts"), posts);
	/* Many at once that wait, hang, or have broken in the middle: none of it turns the loop. */
	static const char *const models[] = { "a/m@status=429,retry-after=30", "a/m@hang", "a/m@tokens=3,stall-tokens=3", "a/m@error-after=3,error-status=429" };
	for (size_t k = 0; k < sizeof models / sizeof models[0]; k++) {
		raw_up(&r, &w);
		for (uint64_t id = 1; id <= N; id++)
			raw_submit(&r, id, models[k], true, 60000);
		int64_t requests = N * ((int64_t)k + 2);
		agent_wait_number(&w, "requests", requests, 10000);
		if (k == 3)
			agent_wait_at_rest(&w, 10000);
		else if (k)
			double_wait(&w, 0, (int)(agent_number(&w, "attempts")), NULL, 10000);
		(void)cpu_percent(&w, 100); /* what still arrives */
		int64_t turns = agent_number(&w, "loop.turns");
		double cpu = cpu_percent(&w, 600);
		turns = agent_number(&w, "loop.turns") - turns;
		if (cpu >= 5 || turns > 300)
			fail_msg("%s: %.1f %% of a processor, %lld turns in 0.6 s", models[k], cpu, (long long)turns);
		raw_close(&r);
		agent_wait_at_rest(&w, 10000);
	}
	sbx_close(c);
	world_down(&w);
}

/* ---- more than it may hold ---- */

static void
limits_half_of_max_in_flight_is_one_users(void **state)
{
	(void)state;
	struct world w;
	struct raw r[3];
	enum { MOST = 8 };
	world_simple(&w, 1, NULL, "\"limits\": { \"max_in_flight\": 8 }");
	raw_up(&r[0], &w);
	for (uint64_t id = 1; id <= MOST / 2; id++)
		raw_submit(&r[0], id, "a/m@hang", true, 60000);
	double_wait(&w, 0, MOST / 2, NULL, 5000);
	raw_up(&r[1], &w); /* another connection of the same user is no way round */
	for (uint64_t id = 1; id <= 100; id++) {
		struct sbx_frame f;
		struct sbx_value v;
		raw_submit(&r[1], id, "a/m", true, 60000);
		assert_int_equal(raw_next(&r[1], 5000, &f), RAW_FRAME);
		assert_int_equal(f.kind, SBX_FRAME_ERROR);
		assert_true(sbx_map_get(&f.map, "code", &v) && sbx_span_is(v.bytes, "busy"));
		assert_true(sbx_map_get(&f.map, "status", &v) && v.u == 503);
		assert_true(sbx_map_get(&f.map, "retry_after_ms", &v) && v.u > 0);
		assert_true(sbx_map_get(&f.map, "retryable", &v) && v.truth);
	}
	raw_cancel(&r[0], 1);
	(void)raw_expect_error(&r[0], 1, "cancelled", 5000);
	struct sbx_frame f;
	raw_submit(&r[1], 200, "a/m", true, 60000);
	raw_expect(&r[1], SBX_FRAME_DONE, 200, 5000, &f);
	assert_int_equal(double_requests(&w, 0), MOST / 2 + 1);
	raw_close(&r[0]);
	raw_close(&r[1]);
	agent_wait_at_rest(&w, 5000);
	world_down(&w);
}

static void
limits_max_in_flight_is_for_all_users_together(void **state)
{
	(void)state;
	static const uid_t users[] = { 54321, 54322, 54323 };
	struct world w;
	struct raw r[3];
	enum { MOST = 8 };
	if (geteuid() != 0) {
		print_message("skipped: only root can be several users\n");
		skip();
	}
	world_simple(&w, 1, NULL, "\"limits\": { \"max_in_flight\": 8 }");
	assert_int_equal(chmod(w.dir, 0711), 0);
	assert_int_equal(chmod(w.socket, 0666), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(seteuid(users[i]), 0); /* whom the kernel tells the agent: at connect */
		raw_up(&r[i], &w);
		assert_int_equal(seteuid(0), 0);
		for (uint64_t id = 1; i < 2 && id <= MOST / 2; id++)
			raw_submit(&r[i], id, "a/m@hang", true, 60000);
	}
	double_wait(&w, 0, MOST, NULL, 5000);
	raw_submit(&r[2], 1, "a/m", true, 60000);
	assert_non_null(strstr(raw_expect_error(&r[2], 1, "busy", 5000), "max_in_flight"));
	for (int i = 0; i < 3; i++)
		raw_close(&r[i]);
	agent_wait_at_rest(&w, 5000);
	assert_int_equal(double_requests(&w, 0), MOST);
	world_down(&w);
}

int
main(int argc, char **argv)
{
	cmocka_set_test_filter(argc > 1 ? argv[1] : NULL); /* a pattern: "t34*" */
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(t33_without_io_uring_it_runs_on_epoll_and_says_so_once),
		cmocka_unit_test(t33_io_uring_that_was_demanded_and_is_denied_is_an_error),
		cmocka_unit_test(t34_out_of_descriptors_it_waits_answers_and_recovers),
		cmocka_unit_test(t38_the_key_is_in_no_byte_that_is_written),
		cmocka_unit_test(t38_no_core_file_can_hold_the_key),
		cmocka_unit_test(t41_errors_without_a_fallback_are_bounded_and_cost_no_cpu),
		cmocka_unit_test(limits_half_of_max_in_flight_is_one_users),
		cmocka_unit_test(limits_max_in_flight_is_for_all_users_together),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
