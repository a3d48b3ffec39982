/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_library.c -- libsignalbox against the real agent: what becomes of requests when the agent dies, a process forks, a
 * program has an event loop or threads of its own, or changes its mind.
 */
#include "tests/e2e/fault.h"

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/e2e/control.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* One request of a test, and what came for it. */
struct job {
	uint64_t id;
	char text[512];          /* since the last RESET */
	int accepted, resets;
	bool ended, ok, sent;
	enum sbx_code code;
	int64_t ended_ms;        /* by the clock of the test */
};

static struct sbx_request_options
asking(const char *model)
{
	struct sbx_request_options o = SBX_REQUEST_INIT;
	o.model = model;
	o.body = BODY;
	o.body_bytes = strlen(BODY);
	o.stream = true;
	o.deadline_ms = 20000;
	return o;
}

static void
submit(struct sbx_client *c, const struct sbx_request_options *o, struct job *job)
{
	memset(job, 0, sizeof *job);
	if (sbx_submit(c, o, &job->id))
		fail_msg("sbx_submit: %s", sbx_client_error(c));
}

static void
take(const struct sbx_event *ev, struct job *jobs, size_t n)
{
	struct job *j = jobs;
	while (j < jobs + n && j->id != ev->id)
		j++;
	assert_true(j < jobs + n && !j->ended);
	switch (ev->note) {
	case SBX_NOTE_ACCEPTED:
		j->accepted++;
		break;
	case SBX_NOTE_TEXT:
		(void)strncat(j->text, ev->text, sizeof j->text - strlen(j->text) - 1);
		break;
	case SBX_NOTE_RESET:
		j->text[0] = 0;
		j->resets++;
		break;
	case SBX_NOTE_DONE:
	case SBX_NOTE_ERROR:
		assert_true(ev->last);
		j->ended = true;
		j->ok = sbx_reply_ok(ev->reply);
		j->code = sbx_reply_code(ev->reply);
		j->sent = sbx_reply_sent(ev->reply);
		j->ended_ms = (int64_t)now_ms();
		break;
	default:
		break;
	}
}

static bool
all_ended(const struct job *jobs, size_t n)
{
	while (n && jobs[n - 1].ended)
		n--;
	return n == 0;
}

static void
take_all(struct sbx_client *c, struct job *jobs, size_t n)
{
	struct sbx_event ev;
	while (!all_ended(jobs, n)) {
		int rc = sbx_next(c, 30000, &ev);
		if (rc)
			fail_msg("sbx_next: %d, %s", rc, sbx_client_error(c));
		take(&ev, jobs, n);
	}
}

/* Events until the job has some text. */
static void
take_until_text(struct sbx_client *c, struct job *job, struct job *jobs, size_t n)
{
	struct sbx_event ev;
	while (!job->text[0]) {
		assert_int_equal(sbx_next(c, 20000, &ev), 0);
		take(&ev, jobs, n);
	}
}

static void
kill_agent(struct world *w)
{
	world_agent_signal(w, SIGKILL);
	assert_int_equal(world_agent_wait(w, 10000), 128 + SIGKILL);
}

static void
start_agent_again(struct world *w)
{
	world_agent_start(w, NULL, &(struct start){ 0 });
}

/* ---- the agent dies ---- */

static void
a_dead_agent_ends_what_was_in_flight_and_the_next_submit_finds_its_successor(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	struct sbx_request_options o[2] = { asking("a/m@stall-tokens=2"), asking("a/m@hang") };
	struct sbx_event ev;
	struct job j[2];
	for (int i = 0; i < 2; i++)
		submit(c, &o[i], &j[i]);
	take_until_text(c, &j[0], j, 2);
	double_wait(&w, 0, 2, "open", 10000);
	kill_agent(&w);
	take_all(c, j, 2);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(j[i].code, SBX_CODE_AGENT_LOST);
		assert_true(j[i].sent); /* it can have been acted on, and was */
		assert_int_equal(j[i].accepted, 1);
	}
	assert_int_equal(sbx_next(c, 0, &ev), -SBX_EAGENT);
	/* Nobody is there: said at once, and without an end. */
	o[0] = asking("a/m");
	assert_int_equal(sbx_submit(c, &o[0], &j[0].id), -SBX_EAGENT);
	assert_non_null(strstr(sbx_client_error(c), w.socket));
	start_agent_again(&w);
	submit(c, &o[0], &j[0]);
	take_all(c, j, 1);
	assert_true(j[0].ok);
	assert_string_equal(j[0].text, "hello from a");
	sbx_close(c);
	world_down(&w);
}

/* With an idempotency key it is safe to ask again, and the library does. What was given before is taken back by a RESET, if the
 * program takes one; else the loss is told. */
static void
a_request_with_an_idempotency_key_is_submitted_again(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 1, (const char *[]){ "m: times=1,hang\nn: times=1,stall-tokens=2\no: times=1,stall-tokens=2" }, NULL);
	struct sbx_client *c = client_up(&w);
	struct sbx_request_options o[3] = { asking("a/m"), asking("a/n"), asking("a/o") };
	struct job j[3];
	o[0].idempotency_key = "key-m";
	o[1].idempotency_key = "key-n";
	o[1].restart = true;
	o[2].idempotency_key = "key-o"; /* but no restart */
	for (int i = 0; i < 3; i++)
		submit(c, &o[i], &j[i]);
	take_until_text(c, &j[1], j, 3);
	take_until_text(c, &j[2], j, 3);
	double_wait(&w, 0, 3, "open", 10000);
	kill_agent(&w);
	start_agent_again(&w);
	take_all(c, j, 3);
	assert_true(j[0].ok && j[1].ok);
	assert_int_equal(j[0].resets, 0); /* nothing had come */
	assert_int_equal(j[1].resets, 1);
	assert_int_equal(j[0].accepted, 1); /* told once */
	for (int i = 0; i < 2; i++)
		assert_string_equal(j[i].text, "hello from a");
	assert_int_equal(j[2].code, SBX_CODE_AGENT_LOST);
	assert_int_equal(double_posts_of(&w, 0, "m"), 2);
	assert_int_equal(double_posts_of(&w, 0, "n"), 2);
	assert_int_equal(double_posts_of(&w, 0, "o"), 1);
	sbx_close(c);
	world_down(&w);
}

/* The agent had not got the whole of it, so it cannot have acted on it: the library submits it again, key or no key. What it
 * had got whole, it may have acted on. */
static void
what_was_not_sent_is_submitted_again(void **state)
{
	(void)state;
	const size_t bytes = 8u << 20; /* more than a socket holds */
	struct world w;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	struct sbx_request_options o[2] = { asking("a/m"), asking("a/n") };
	struct job j[2];
	char *body = malloc(bytes + 1);
	assert_non_null(body);
	memset(body, ' ', bytes);
	memcpy(body, BODY, strlen(BODY));
	o[1].body = body;
	o[1].body_bytes = bytes;
	world_agent_signal(&w, SIGSTOP);
	submit(c, &o[0], &j[0]);
	submit(c, &o[1], &j[1]);
	kill_agent(&w);
	start_agent_again(&w);
	take_all(c, j, 2);
	assert_int_equal(j[0].code, SBX_CODE_AGENT_LOST);
	assert_true(j[0].sent);
	assert_true(j[1].ok);
	assert_string_equal(j[1].text, "hello from a");
	assert_int_equal(double_requests(&w, 0), 1);
	free(body);
	sbx_close(c);
	world_down(&w);
}

static void
the_one_call_form_tells_the_loss_too(void **state)
{
	(void)state;
	struct world w;
	struct sbx_reply *r = NULL;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	pid_t killer = fork();
	if (killer == 0) { /* kills the agent once the double has the request */
		double_wait(&w, 0, 1, "open", 20000);
		(void)kill(w.agent, SIGKILL);
		_exit(0);
	}
	struct sbx_request_options o = asking("a/m@stall-tokens=2");
	assert_int_equal(sbx_ask(c, &o, &r), -SBX_EFAILED);
	assert_int_equal(sbx_reply_code(r), SBX_CODE_AGENT_LOST);
	assert_true(sbx_reply_sent(r));
	sbx_reply_free(r);
	assert_int_equal(waitpid(killer, NULL, 0), killer);
	assert_int_equal(world_agent_wait(&w, 10000), 128 + SIGKILL);
	start_agent_again(&w);
	r = ask(c, true, 10000);
	sbx_close(c);
	assert_string_equal(sbx_reply_text(r, 0, NULL), "hello from a"); /* a reply outlives its handle */
	sbx_reply_free(r);
	world_down(&w);
}

/* ---- fork ---- */

/* In the child: 0, or the number of the expectation that did not hold. No assertion here: it would go on with the parent's tests. */
static int
check_child(struct sbx_client *c, struct world *w, uint64_t id)
{
	struct sbx_request_options o = asking("a/m");
	struct sbx_open_options open_options = SBX_OPEN_OPTIONS_INIT;
	struct sbx_client *own = NULL;
	struct sbx_reply *r = NULL;
	struct sbx_event ev;
	uint64_t other;
	if (sbx_submit(c, &o, &other) != -SBX_EFORK)
		return 1;
	if (sbx_next(c, 0, &ev) != -SBX_EFORK)
		return 2;
	if (sbx_cancel(c, id) != -SBX_EFORK)
		return 3;
	if (sbx_ask(c, &o, &r) != -SBX_EFORK)
		return 4;
	if (sbx_stats(c, &other) != -SBX_EFORK)
		return 5;
	if (sbx_process(c, POLLIN) != -SBX_EFORK)
		return 6;
	if (sbx_fd(c) != -1 || sbx_events(c) != 0 || sbx_timeout_ms(c) != -1)
		return 7;
	if (!strstr(sbx_client_error(c), "fork"))
		return 8;
	sbx_close(c);
	open_options.socket = w->socket;
	if (sbx_open(&open_options, &own))
		return 9;
	if (sbx_ask(own, &o, &r) || strcmp(sbx_reply_text(r, 0, NULL), "hello from a") != 0)
		return 10;
	sbx_reply_free(r);
	sbx_close(own);
	return 0;
}

static void
a_forked_child_leaves_its_parents_handle_alone(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	struct sbx_request_options o = asking("a/m@tokens=30,gap=20ms");
	struct job j;
	int status;
	submit(c, &o, &j);
	take_until_text(c, &j, &j, 1); /* an event is on loan while the process forks */
	pid_t child = fork();
	if (child == 0)
		_exit(check_child(c, &w, j.id));
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	take_all(c, &j, 1);
	assert_true(j.ok);
	assert_non_null(strstr(j.text, " t29 t30"));
	o = asking("a/m");
	submit(c, &o, &j);
	take_all(c, &j, 1);
	assert_true(j.ok);
	sbx_close(c);
	world_down(&w);
}

/* ---- a loop of one's own ---- */

#define HANDLES 3
#define PER_HANDLE 8

static void
an_event_loop_of_ones_own_drives_several_handles(void **state)
{
	(void)state;
	static struct job j[HANDLES][PER_HANDLE];
	struct sbx_client *c[HANDLES];
	struct world w;
	world_simple(&w, 1, NULL, NULL);
	for (int k = 0; k < HANDLES; k++) {
		c[k] = client_up(&w);
		for (int i = 0; i < PER_HANDLE; i++) {
			struct sbx_request_options o = asking(i % 2 ? "a/m@tokens=20,gap=5ms" : "a/m@first=100ms,tokens=20");
			o.stream = i % 3 > 0;
			submit(c[k], &o, &j[k][i]);
		}
	}
	uint64_t until = now_ms() + 30000, longest_ms = 0;
	for (int open = HANDLES; open > 0;) {
		struct pollfd look[HANDLES];
		int wait = 1000;
		open = 0;
		for (int k = 0; k < HANDLES; k++) {
			int ms = sbx_timeout_ms(c[k]);
			wait = ms >= 0 && ms < wait ? ms : wait;
			look[k] = (struct pollfd){ sbx_fd(c[k]), sbx_events(c[k]), 0 };
			open += !all_ended(j[k], PER_HANDLE);
		}
		if (!open)
			break;
		if (now_ms() > until)
			fail_msg("%d handle(s) are not through", open);
		(void)poll(look, HANDLES, wait);
		uint64_t from = now_ms();
		for (int k = 0; k < HANDLES; k++) {
			struct sbx_event ev;
			assert_int_equal(sbx_process(c[k], look[k].revents), 0);
			while (sbx_next(c[k], 0, &ev) == 0)
				take(&ev, j[k], PER_HANDLE);
		}
		longest_ms = now_ms() - from > longest_ms ? now_ms() - from : longest_ms;
	}
	assert_true(longest_ms < 2000); /* none of it waits: a request takes longer than all of a round */
	for (int k = 0; k < HANDLES; k++)
		for (int i = 0; i < PER_HANDLE; i++) {
			assert_true(j[k][i].ok);
			assert_non_null(strstr(j[k][i].text, "hello from a t4 t5"));
			assert_non_null(strstr(j[k][i].text, " t20"));
		}
	/* The loop hears of the agent's death by the descriptor, and gets the end of what was in flight. */
	struct sbx_request_options o = asking("a/m@hang");
	submit(c[0], &o, &j[0][0]);
	double_wait(&w, 0, HANDLES * PER_HANDLE + 1, NULL, 10000);
	kill_agent(&w);
	while (!j[0][0].ended) {
		struct pollfd look = { sbx_fd(c[0]), sbx_events(c[0]), 0 };
		struct sbx_event ev;
		assert_true(poll(&look, 1, sbx_timeout_ms(c[0]) == 0 ? 0 : 10000) >= 0);
		(void)sbx_process(c[0], look.revents);
		while (sbx_next(c[0], 0, &ev) == 0)
			take(&ev, &j[0][0], 1);
		assert_true(now_ms() < until);
	}
	assert_int_equal(j[0][0].code, SBX_CODE_AGENT_LOST);
	assert_int_equal(sbx_fd(c[0]), -1);
	for (int k = 0; k < HANDLES; k++)
		sbx_close(c[k]);
	world_down(&w);
}

/* A program that never waits in the library: what the socket did not take at the submit leaves all the same. */
static void
asking_with_a_timeout_of_0_sends_what_is_left(void **state)
{
	(void)state;
	const size_t bytes = 8u << 20; /* more than a socket holds */
	struct world w;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	struct sbx_request_options o = asking("a/m");
	struct job j;
	char *body = malloc(bytes);
	assert_non_null(body);
	memset(body, ' ', bytes);
	memcpy(body, BODY, strlen(BODY));
	o.body = body;
	o.body_bytes = bytes;
	submit(c, &o, &j);
	for (uint64_t until = now_ms() + 15000; !j.ended;) {
		struct sbx_event ev;
		int rc = sbx_next(c, 0, &ev);
		if (rc == 0)
			take(&ev, &j, 1);
		else
			assert_int_equal(rc, -SBX_ETIME);
		if (now_ms() > until)
			fail_msg("the request has not left");
		pause_ms(rc == 0 ? 0 : 1);
	}
	assert_true(j.ok);
	free(body);
	sbx_close(c);
	world_down(&w);
}

/* ---- threads ---- */

#define THREADS 2
#define ROUNDS 150

struct worker {
	struct world *w;
	int number;
	int right, wrong;
	char first_wrong[256];
	pthread_t thread;
};

static void *
work(void *arg)
{
	struct worker *me = arg;
	struct sbx_open_options o = SBX_OPEN_OPTIONS_INIT;
	struct sbx_client *c = NULL;
	char model[64], want[64];
	o.socket = me->w->socket;
	if (sbx_open(&o, &c)) {
		me->wrong = ROUNDS;
		sbx_close(c);
		return NULL;
	}
	for (int i = 0; i < ROUNDS; i++) {
		struct sbx_reply *r = NULL;
		(void)snprintf(model, sizeof model, "a/m@text=thread %d round %d", me->number, i % 50);
		(void)snprintf(want, sizeof want, "thread %d round %d", me->number, i % 50);
		struct sbx_request_options q = asking(model);
		q.stream = i % 2;
		int rc = sbx_ask(c, &q, &r);
		if (rc == 0 && strcmp(sbx_reply_text(r, 0, NULL), want) == 0)
			me->right++;
		else if (me->wrong++ == 0)
			(void)snprintf(me->first_wrong, sizeof me->first_wrong, "round %d: %d, %s", i, rc, rc ? sbx_client_error(c) : sbx_reply_text(r, 0, NULL));
		sbx_reply_free(r);
	}
	sbx_close(c);
	return NULL;
}

static void
threads_with_handles_of_their_own_do_not_meet(void **state)
{
	(void)state;
	struct world w;
	struct worker worker[THREADS] = { 0 };
	world_simple(&w, 1, NULL, NULL);
	for (int i = 0; i < THREADS; i++) {
		worker[i].w = &w;
		worker[i].number = i;
		assert_int_equal(pthread_create(&worker[i].thread, NULL, work, &worker[i]), 0);
	}
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(worker[i].thread, NULL), 0);
	for (int i = 0; i < THREADS; i++)
		if (worker[i].right != ROUNDS)
			fail_msg("thread %d: %d right, %d wrong; %s", i, worker[i].right, worker[i].wrong, worker[i].first_wrong);
	sbx_close(NULL);
	world_down(&w);
}

/* ---- one handle, many requests ---- */

static void
the_one_call_form_works_beside_streams_of_the_same_handle(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	struct sbx_request_options o = asking("a/m@tokens=40,gap=10ms");
	struct job j[3];
	for (int i = 0; i < 3; i++)
		submit(c, &o, &j[i]);
	take_until_text(c, &j[1], j, 3);
	for (int i = 0; i < 4; i++) { /* the streams go on meanwhile, and what comes of them waits */
		struct sbx_reply *r = ask_body(c, NULL, i % 2 ? "a/m@text=whole,first=50ms" : "a/m@text=whole,tokens=3", BODY, i >= 2, 20000);
		assert_true(sbx_reply_ok(r));
		assert_string_equal(sbx_reply_text(r, 0, NULL), i % 2 ? "whole" : "whole t2 t3");
		sbx_reply_free(r);
	}
	assert_false(j[0].ended);
	take_all(c, j, 3);
	for (int i = 0; i < 3; i++) {
		assert_true(j[i].ok);
		assert_memory_equal(j[i].text, "hello from a t4 t5 t6 t7 t8 t9 t10", 34);
		assert_string_equal(j[i].text, j[0].text);
	}
	sbx_close(c);
	world_down(&w);
}

static void
a_cancel_ends_one_request_and_its_provider_call(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	struct sbx_request_options o[3] = { asking("a/m@tokens=1000,gap=20ms"), asking("a/m@hang"), asking("a/m@tokens=30,gap=10ms") };
	struct sbx_event ev;
	struct job j[3];
	for (int i = 0; i < 3; i++)
		submit(c, &o[i], &j[i]);
	take_until_text(c, &j[0], j, 3);
	double_wait(&w, 0, 3, NULL, 10000);
	for (int i = 0; i < 2; i++)
		assert_int_equal(sbx_cancel(c, j[i].id), 0);
	assert_int_equal(sbx_cancel(c, j[0].id), 0); /* its end has not come yet: harmless */
	take_all(c, j, 3);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(j[i].code, SBX_CODE_CANCELLED);
		assert_int_equal(sbx_cancel(c, j[i].id), -SBX_ENOENT);
	}
	assert_true(j[2].ok); /* the neighbour saw nothing of it */
	assert_non_null(strstr(j[2].text, " t29 t30"));
	double_wait(&w, 0, 2, "client-closed", 1000); /* not by some limit that would have ended them anyway */
	assert_int_equal(sbx_next(c, 0, &ev), -SBX_ENOENT);
	agent_wait_at_rest(&w, 5000);
	sbx_close(c);
	world_down(&w);
}

static void
a_deadline_ends_a_request_whatever_it_waits_for(void **state)
{
	(void)state;
	static const char *const model[] = { "a/m@hang", "a/m@stall=40", "a/m@tokens=100000,gap=20ms", "a/m@headers-delay=20s", "a/m@first=20s" };
	struct world w;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	struct job j[2 * COUNT(model)];
	int64_t from = (int64_t)now_ms();
	for (size_t i = 0; i < COUNT(j); i++) {
		struct sbx_request_options o = asking(model[i / 2]);
		o.stream = i % 2;
		o.deadline_ms = 500;
		submit(c, &o, &j[i]);
	}
	take_all(c, j, COUNT(j));
	for (size_t i = 0; i < COUNT(j); i++) {
		assert_int_equal(j[i].code, SBX_CODE_TIMEOUT);
		assert_in_range(j[i].ended_ms - from, 495, SANITIZED ? 2500 : 750);
	}
	agent_wait_at_rest(&w, 5000);
	double_wait(&w, 0, (int)COUNT(j), "client-closed", 5000);
	sbx_close(c);
	world_down(&w);
}

/* An agent that hangs does not make the program hang: the library has the deadline too, and a second for the agent's answer. */
static void
a_deadline_holds_although_the_agent_hangs(void **state)
{
	(void)state;
	struct world w;
	struct sbx_reply *r = NULL;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	struct sbx_request_options o = asking("a/m");
	o.deadline_ms = 200;
	world_agent_signal(&w, SIGSTOP);
	uint64_t from = now_ms();
	int rc = sbx_ask(c, &o, &r);
	uint64_t took = now_ms() - from;
	world_agent_signal(&w, SIGCONT);
	assert_int_equal(rc, -SBX_ETIME);
	assert_null(r);
	assert_in_range(took, 1195, 3000);
	r = ask(c, true, 10000); /* what still comes for the one before is nobody's */
	assert_true(sbx_reply_ok(r));
	sbx_reply_free(r);
	sbx_close(c);
	world_down(&w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_dead_agent_ends_what_was_in_flight_and_the_next_submit_finds_its_successor),
		cmocka_unit_test(a_request_with_an_idempotency_key_is_submitted_again),
		cmocka_unit_test(what_was_not_sent_is_submitted_again),
		cmocka_unit_test(the_one_call_form_tells_the_loss_too),
		cmocka_unit_test(a_forked_child_leaves_its_parents_handle_alone),
		cmocka_unit_test(an_event_loop_of_ones_own_drives_several_handles),
		cmocka_unit_test(asking_with_a_timeout_of_0_sends_what_is_left),
		cmocka_unit_test(threads_with_handles_of_their_own_do_not_meet),
		cmocka_unit_test(the_one_call_form_works_beside_streams_of_the_same_handle),
		cmocka_unit_test(a_cancel_ends_one_request_and_its_provider_call),
		cmocka_unit_test(a_deadline_ends_a_request_whatever_it_waits_for),
		cmocka_unit_test(a_deadline_holds_although_the_agent_hangs),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
