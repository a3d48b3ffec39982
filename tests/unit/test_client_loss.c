/* SPDX-License-Identifier: Apache-2.0 */
/* test_client_loss.c -- losing the agent and finding it again, fork, and loops of the application's own. */
#include "tests/unit/client_rig.h"

/* ---- loss ---- */

static void
test_lost_after_sending(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	struct sbx_event ev;
	uint64_t id = submit(c), id2 = submit(c);
	(void)state;
	(void)peer_expect(&p, SBX_FRAME_SUBMIT);
	(void)peer_expect(&p, SBX_FRAME_SUBMIT);
	SAY_TEXT(&p, id, "par");
	SAY_DONE(&p, id2);
	peer_close(&p);
	expect_text(c, id, "par"); /* what came whole is delivered first */
	ev = next_event(c);
	assert_true(ev.note == SBX_NOTE_DONE && ev.id == id2);
	expect_lost(c, id, /* sent */ true);
	assert_int_equal(sbx_next(c, 0, &ev), -SBX_EAGENT);
	assert_int_equal(sbx_fd(c), -1);
	assert_int_equal(sbx_process(c, 0), -SBX_EAGENT);

	/* The next submit connects again. */
	struct sbx_request_options o = request();
	assert_int_equal(sbx_submit(c, &o, &id), 0);
	assert_true(sbx_timeout_ms(c) > 0); /* the greeting has a deadline */
	expect_nothing(c);
	greet(&p);
	expect_nothing(c);
	assert_true(peer_expect(&p, SBX_FRAME_SUBMIT)->id == id);
	SAY_TEXT(&p, id, "back");
	expect_text(c, id, "back");
	peer_close(&p);
	expect_lost(c, id, true);
	stop_listening();
	assert_int_equal(sbx_submit(c, &o, &id), -SBX_EAGENT);
	assert_non_null(strstr(sbx_client_error(c), path));
	sbx_close(c);
}

static void *
script_greet_and_answer(void *peer)
{
	greet(peer);
	uint64_t id = peer_expect(peer, SBX_FRAME_SUBMIT)->id;
	SAY_TEXT((struct peer *)peer, id, "from the new one");
	SAY_DONE((struct peer *)peer, id);
	return NULL;
}

/* The agent was replaced while nothing was in flight: the application does not notice, whichever call comes next. */
static void
test_replaced_while_idle(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	struct sbx_request_options o = request();
	struct sbx_reply *r;
	uint64_t id;
	(void)state;
	peer_close(&p);
	run_agent(script_greet_and_answer);
	assert_int_equal(sbx_submit(c, &o, &id), 0);
	expect_text(c, id, "from the new one");
	assert_int_equal(next_event(c).note, SBX_NOTE_DONE);
	join_agent();
	peer_close(&agent);
	run_agent(script_greet_and_answer);
	assert_int_equal(sbx_ask(c, &o, &r), 0);
	assert_string_equal(sbx_reply_text(r, 0, NULL), "from the new one");
	sbx_reply_free(r);
	join_agent();
	sbx_close(c);
	peer_close(&agent);
}

static void
test_farewell(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	uint64_t id = submit(c);
	(void)state;
	(void)peer_expect(&p, SBX_FRAME_SUBMIT);
	say(&p, SBX_FRAME_ERROR, 0, "s:code", "invalid_request", "s:message", "byte 17 is wrong", END);
	peer_close(&p);
	struct sbx_event ev = next_event(c);
	assert_true(ev.last && ev.id == id);
	assert_int_equal(sbx_reply_code(ev.reply), SBX_CODE_AGENT_LOST);
	assert_non_null(strstr(sbx_reply_message(ev.reply), "byte 17 is wrong"));
	sbx_close(c);
}

/* A body that no socket buffer takes whole is certainly not sent when the agent never reads: it goes again by itself. */
static void
test_lost_before_sending(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	struct sbx_request_options o = request();
	uint64_t small, large, cancelled;
	char *bytes = calloc(1, 4u << 20);
	struct sbx_event ev;
	(void)state;
	MUST(bytes);
	small = submit(c);
	o.body = bytes;
	o.body_bytes = 4u << 20;
	o.deadline_ms = 60000;
	assert_int_equal(sbx_submit(c, &o, &large), 0);
	assert_int_equal(sbx_submit(c, &o, &cancelled), 0);
	assert_int_equal(sbx_cancel(c, cancelled), 0);
	peer_close(&p);
	ev = next_event(c); /* the small one was taken by the kernel: unknown */
	assert_true(ev.id == small && sbx_reply_sent(ev.reply));
	expect_lost(c, cancelled, /* sent */ false);
	expect_nothing(c);
	run_agent(script_greet);
	while (c->link != SBX_LINK_UP) {
		struct pollfd q = { .fd = sbx_fd(c), .events = sbx_events(c) };
		(void)poll(&q, 1, sbx_timeout_ms(c));
		(void)sbx_process(c, q.revents);
	}
	join_agent();
	p = agent;
	struct sbx_buf got;
	sbx_buf_init(&got, 80u << 20);
	while (sbx_events(c) & POLLOUT) {
		ssize_t n = recv(p.fd, sbx_buf_reserve(&got, 1u << 20), 1u << 20, MSG_DONTWAIT);
		if (n > 0)
			sbx_buf_commit(&got, (size_t)n);
		assert_int_equal(sbx_process(c, POLLOUT), 0);
	}
	sbx_buf_fini(&p.in);
	p.consumed = 0;
	p.in = got;
	struct sbx_frame *f = peer_expect(&p, SBX_FRAME_SUBMIT);
	assert_true(f->id == large && text_member(f, "body").n == 4u << 20);
	assert_true(uint_member(f, "deadline_ms") <= 60000 && uint_member(f, "deadline_ms") > 50000);
	assert_true(peer_has_nothing(&p));
	SAY_DONE(&p, large);
	ev = next_event(c);
	assert_true(ev.note == SBX_NOTE_DONE && ev.id == large);
	free(bytes);
	sbx_close(c);
	peer_close(&p);
}

static void
test_lost_with_key(void **state)
{
	static const struct {
		bool restart, content;
		bool again; /* is submitted again */
	} cases[] = { { false, false, true }, { true, false, true }, { true, true, true }, { false, true, false } };
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct peer p;
		struct sbx_client *c = open_client(&p);
		struct sbx_request_options o = request();
		uint64_t id;
		o.restart = cases[i].restart;
		o.idempotency_key = "once";
		o.deadline_ms = 30000;
		assert_int_equal(sbx_submit(c, &o, &id), 0);
		(void)peer_expect(&p, SBX_FRAME_SUBMIT);
		SAY_ACCEPTED(&p, id);
		assert_int_equal(next_event(c).note, SBX_NOTE_ACCEPTED);
		if (cases[i].content) {
			SAY_TEXT(&p, id, "half");
			expect_text(c, id, "half");
		}
		peer_close(&p);
		if (!cases[i].again) {
			expect_lost(c, id, true);
			sbx_close(c);
			continue;
		}
		if (cases[i].content) {
			struct sbx_event ev = next_event(c);
			assert_true(ev.note == SBX_NOTE_RESET && ev.id == id && !ev.last);
		}
		expect_nothing(c);
		expect_nothing(c); /* connects */
		greet(&p);
		expect_nothing(c);
		struct sbx_frame *f = peer_expect(&p, SBX_FRAME_SUBMIT);
		assert_true(f->id == id && sbx_span_is(text_member(f, "idempotency_key"), "once"));
		assert_true(uint_member(f, "deadline_ms") <= 30000 && uint_member(f, "deadline_ms") > 20000);
		SAY_ACCEPTED(&p, id); /* not told twice */
		SAY_TEXT(&p, id, "whole");
		expect_text(c, id, "whole");
		SAY_DONE(&p, id);
		assert_int_equal(next_event(c).note, SBX_NOTE_DONE);
		sbx_close(c);
		peer_close(&p);
	}
}

/* A request that takes the agent down every time is not submitted for ever. */
static void
test_poison(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	struct sbx_request_options o = request();
	struct sbx_event ev;
	uint64_t id;
	int seen = 0;
	(void)state;
	o.idempotency_key = "once";
	assert_int_equal(sbx_submit(c, &o, &id), 0);
	for (;;) {
		(void)peer_expect(&p, SBX_FRAME_SUBMIT);
		seen++;
		peer_close(&p);
		if (seen > SBX_RESUBMIT_MAX)
			break;
		run_agent(script_greet);
		assert_int_equal(sbx_next(c, 300, &ev), -SBX_ETIME);
		join_agent();
		p = agent;
	}
	expect_lost(c, id, true);
	assert_int_equal(seen, 1 + SBX_RESUBMIT_MAX);
	sbx_close(c);
}

static void
test_nobody_comes_back(void **state)
{
	struct sbx_open_options oo = at_path();
	struct sbx_client *c;
	struct sbx_request_options o = request();
	uint64_t id, id2;
	(void)state;
	oo.timeout_ms = 300;
	run_agent(script_greet);
	assert_int_equal(sbx_open(&oo, &c), 0);
	join_agent();
	o.idempotency_key = "once";
	assert_int_equal(sbx_submit(c, &o, &id), 0);
	(void)peer_expect(&agent, SBX_FRAME_SUBMIT);
	peer_close(&agent);
	stop_listening();
	expect_lost(c, id, true);
	/* Somebody accepts, and then says nothing: never sent, and said so. */
	listen_here();
	o.idempotency_key = NULL;
	assert_int_equal(sbx_submit(c, &o, &id2), 0);
	stop_listening();
	expect_lost(c, id2, false);
	sbx_close(c);
}

static void
test_junk(void **state)
{
	static const struct {
		const char *name;
		const char *bytes;
		size_t n;
	} cases[] = {
		{ "a length beyond the limit", "\xff\xff\xff\xff", 4 },
		{ "a length of zero", "\0\0\0\0", 4 },
		{ "no MessagePack", "\0\0\0\4\xc1\xc1\xc1\xc1", 8 },
		{ "an array of two", "\0\0\0\4\x92\x22\x01\x80", 8 },
		{ "a huge array", "\0\0\0\5\xdd\xff\xff\xff\xff", 9 },
		{ "a length that lies", "\0\0\0\xa\x93\x22\x01\x81\xa1k\xdb\xff\xff\xff", 14 },
	};
	struct peer p;
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct sbx_client *c = open_client(&p);
		uint64_t id = submit(c);
		(void)peer_expect(&p, SBX_FRAME_SUBMIT);
		SAY_TEXT(&p, id, "good");
		peer_write(&p, cases[i].bytes, cases[i].n);
		SAY_TEXT(&p, id, "never seen");
		expect_text(c, id, "good");
		expect_lost(c, id, true);
		sbx_close(c);
		peer_close(&p);
	}
	for (int i = 0; i < 6; i++) {
		struct sbx_client *c = open_client(&p);
		uint64_t id = submit(c);
		(void)peer_expect(&p, SBX_FRAME_SUBMIT);
		switch (i) {
		case 0: say(&p, SBX_FRAME_EVENT, id, "s:text", "no type", END); break;
		case 1: say(&p, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_TEXT), "u:text", U(5), END); break;
		case 2: say(&p, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_TEXT), END); break;
		case 3: say(&p, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_TEXT), "s:text", "x", "i:choice", (int64_t)-1, END); break;
		case 4: say(&p, SBX_FRAME_DONE, id, "s:usage", "many", END); break;
		default: say(&p, SBX_FRAME_ERROR, id, "u:code", U(1), END); break;
		}
		expect_lost(c, id, true);
		sbx_close(c);
		peer_close(&p);
	}
}

static void
test_fork(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	uint64_t id = submit(c);
	(void)state;
	for (int by_pid = 0; by_pid < 2; by_pid++) { /* with the page, and where the kernel has no such page */
		uint8_t *page = c->owner_page;
		if (by_pid)
			c->owner_page = NULL;
		pid_t child = fork();
		MUST(child >= 0);
		if (child == 0) {
			struct sbx_request_options o = request();
			struct sbx_reply *reply = NULL;
			struct sbx_event ev;
			uint64_t other = 0;
			bool good = sbx_submit(c, &o, &other) == -SBX_EFORK && sbx_next(c, 0, &ev) == -SBX_EFORK &&
			            sbx_ask(c, &o, &reply) == -SBX_EFORK && sbx_cancel(c, id) == -SBX_EFORK &&
			            sbx_stats(c, &other) == -SBX_EFORK && sbx_process(c, 0) == -SBX_EFORK && sbx_fd(c) == -1 &&
			            sbx_events(c) == 0 && sbx_timeout_ms(c) == -1 && !reply && *sbx_client_error(c);
			sbx_close(c);
			_exit(good ? 0 : 1);
		}
		int status;
		MUST(waitpid(child, &status, 0) == child);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
		c->owner_page = page;
	}
	SAY_TEXT(&p, id, "still here");
	expect_text(c, id, "still here");

	/* A child that merely lives on does not keep the connection alive. */
	int hold[2];
	MUST(pipe(hold) == 0);
	pid_t child = fork();
	MUST(child >= 0);
	if (child == 0) {
		char byte;
		(void)close(hold[1]);
		_exit(read(hold[0], &byte, 1) == 0 ? 0 : 1);
	}
	(void)close(hold[0]);
	sbx_close(c);
	(void)peer_expect(&p, SBX_FRAME_SUBMIT);
	assert_null(peer_read(&p));
	(void)close(hold[1]);
	MUST(waitpid(child, NULL, 0) == child);
	peer_close(&p);
}

/* ---- a loop of the application's ---- */

static void
test_own_loop(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	struct sbx_event ev;
	uint64_t id = submit(c);
	int flags = fcntl(sbx_fd(c), F_GETFD);
	(void)state;
	assert_true(sbx_fd(c) >= 0 && (flags & FD_CLOEXEC));
	assert_int_equal(sbx_events(c), POLLIN);
	assert_int_equal(sbx_timeout_ms(c), -1);
	for (int i = 0; i < 3; i++)
		SAY_TEXT(&p, id, "x");
	wait_readable(sbx_fd(c));
	assert_int_equal(sbx_process(c, POLLIN), 0);
	assert_int_equal(sbx_timeout_ms(c), 0); /* events are there although the descriptor is silent */
	expect_text(c, id, "x");
	assert_int_equal(sbx_timeout_ms(c), 0);
	expect_text(c, id, "x");
	expect_text(c, id, "x");
	assert_int_equal(sbx_timeout_ms(c), -1); /* the last is on loan, and nothing is behind it */
	expect_nothing(c);

	/* An application that never takes its events stops the reading, not the memory. */
	char *kilobyte = calloc(1, 1025);
	MUST(kilobyte);
	memset(kilobyte, 'k', 1024);
	MUST(fcntl(p.fd, F_SETFL, O_NONBLOCK) == 0);
	struct sbx_buf b;
	sbx_buf_init(&b, 4096);
	pack(&b, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_TEXT), "s:text", kilobyte, END);
	size_t written = 0;
	while (sbx_events(c) & POLLIN) {
		if (send(p.fd, b.data, b.n, MSG_NOSIGNAL) == (ssize_t)b.n)
			written++;
		assert_int_equal(sbx_process(c, POLLIN), 0);
		assert_true(written < 4096);
	}
	assert_true(c->in.n >= SBX_IN_HIGH_BYTES && c->in.n < SBX_IN_HIGH_BYTES + 2 * SBX_READ_BYTES);
	for (size_t i = 0; i < written; i++) {
		ev = next_event(c);
		assert_int_equal(ev.text_bytes, 1024);
	}
	expect_nothing(c);
	assert_int_equal(sbx_events(c), POLLIN);
	peer_close(&p);
	assert_int_equal(sbx_process(c, POLLIN | POLLHUP), 0);
	assert_int_equal(sbx_timeout_ms(c), 0);
	expect_lost(c, id, true);
	assert_int_equal(sbx_process(c, 0), -SBX_EAGENT);
	free(kilobyte);
	sbx_buf_fini(&b);
	sbx_close(c);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_lost_after_sending),
		TEST(test_replaced_while_idle),
		TEST(test_farewell),
		TEST(test_lost_before_sending),
		TEST(test_lost_with_key),
		TEST(test_poison),
		TEST(test_nobody_comes_back),
		TEST(test_junk),
		TEST(test_fork),
		TEST(test_own_loop),
	};
	return RUN(tests);
}
