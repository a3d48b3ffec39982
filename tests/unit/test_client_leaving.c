/* SPDX-License-Identifier: Apache-2.0 */
/* test_client_leaving.c -- an agent that leaves in order: what it did not take goes to its successor, what it took runs on. */
#include "tests/unit/client_rig.h"

#define SAY_LEAVING(p, id) say((p), SBX_FRAME_ERROR, (id), "s:code", "draining", "u:status", U(503), "s:message", "on its way out", END)

/* Lets the library work, which has nothing to tell, until it is back. */
static void
greet_again(struct sbx_client *c, struct peer *p)
{
	struct pollfd comes = { .fd = listener, .events = POLLIN };
	for (int i = 0; poll(&comes, 1, 1) == 0; i++) {
		expect_nothing(c);
		assert_true(i < PATIENCE_MS);
	}
	greet(p);
	expect_nothing(c);
}

/* Sent, and lying in the socket of an agent that closes: the application sees nothing of it. */
static void
test_sent_too_late(void **state)
{
	struct peer p, q;
	struct sbx_client *c = open_client(&p);
	uint64_t id = submit(c), id2 = submit(c);
	(void)state;
	SAY_LEAVING(&p, 0);
	peer_close(&p);
	greet_again(c, &q);
	assert_true(peer_expect(&q, SBX_FRAME_SUBMIT)->id == id);
	assert_true(peer_expect(&q, SBX_FRAME_SUBMIT)->id == id2);
	SAY_ACCEPTED(&q, id);
	assert_int_equal(next_event(c).note, SBX_NOTE_ACCEPTED);
	SAY_TEXT(&q, id, "yes");
	expect_text(c, id, "yes");
	/* This one ends without a word: what it may have acted on is not sent a third time. */
	peer_close(&q);
	expect_lost(c, id, true);
	expect_lost(c, id2, true);
	sbx_close(c);
}

/* What it took runs on over its connection; new requests wait for the next one. */
static void
test_what_was_taken_runs_on(void **state)
{
	struct peer p, q;
	struct sbx_client *c = open_client(&p);
	uint64_t id = submit(c), late = submit(c), held, dropped;
	struct sbx_event ev;
	(void)state;
	SAY_ACCEPTED(&p, id);
	SAY_LEAVING(&p, 0);
	SAY_LEAVING(&p, late);
	assert_int_equal(next_event(c).note, SBX_NOTE_ACCEPTED);
	assert_false(sbx_leaving(c));
	expect_nothing(c); /* neither of the two words is for the application */
	assert_true(sbx_leaving(c));
	held = submit(c);
	dropped = submit(c);
	(void)peer_expect(&p, SBX_FRAME_SUBMIT);
	assert_true(peer_expect(&p, SBX_FRAME_SUBMIT)->id == late);
	assert_true(peer_has_nothing(&p));
	assert_int_equal(sbx_cancel(c, dropped), 0);
	expect_lost(c, dropped, false);
	assert_true(peer_has_nothing(&p));
	SAY_TEXT(&p, id, "to the end");
	expect_text(c, id, "to the end");
	assert_int_equal(sbx_cancel(c, id), 0); /* what belongs to it still goes to its agent */
	assert_true(peer_expect(&p, SBX_FRAME_CANCEL)->id == id);
	SAY_DONE(&p, id);
	ev = next_event(c);
	assert_true(ev.note == SBX_NOTE_DONE && ev.id == id);
	peer_close(&p);
	greet_again(c, &q);
	assert_true(peer_expect(&q, SBX_FRAME_SUBMIT)->id == late);
	assert_true(peer_expect(&q, SBX_FRAME_SUBMIT)->id == held);
	assert_false(sbx_leaving(c));
	assert_true(peer_has_nothing(&q));
	SAY_DONE(&q, held);
	SAY_DONE(&q, late);
	assert_true(next_event(c).id == held);
	assert_true(next_event(c).id == late);
	sbx_close(c);
	peer_close(&q);
}

/* The end of its patience is an end. */
static void
test_cut_off_at_last(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	uint64_t id = submit(c);
	struct sbx_event ev;
	(void)state;
	SAY_ACCEPTED(&p, id);
	SAY_LEAVING(&p, 0);
	SAY_LEAVING(&p, id);
	assert_int_equal(next_event(c).note, SBX_NOTE_ACCEPTED);
	ev = next_event(c);
	assert_true(ev.note == SBX_NOTE_ERROR && ev.last && sbx_reply_code(ev.reply) == SBX_CODE_DRAINING);
	sbx_close(c);
	peer_close(&p);
}

/* Nobody comes: then it is lost, and told that nobody has it. RELOAD is never repeated. */
static void
test_no_successor(void **state)
{
	struct peer p;
	struct sbx_open_options o = at_path();
	struct sbx_client *c = NULL;
	uint64_t id, reload;
	(void)state;
	o.timeout_ms = 200;
	run_agent(script_greet);
	assert_int_equal(sbx_open(&o, &c), 0);
	join_agent();
	p = agent;
	id = submit(c);
	assert_int_equal(sbx_reload(c, &reload), 0);
	SAY_LEAVING(&p, 0);
	stop_listening();
	peer_close(&p);
	expect_lost(c, reload, true);
	expect_lost(c, id, false);
	sbx_close(c);
}

/* The connection was accepted by the one that leaves. */
static void *
script_turn_away_then_greet(void *peer)
{
	for (int i = 0; i < 3; i++) {
		peer_accept(peer);
		SAY_LEAVING((struct peer *)peer, 0);
		peer_close(peer);
	}
	greet(peer);
	return NULL;
}

static void
test_open_finds_the_successor(void **state)
{
	struct sbx_open_options o = at_path();
	struct sbx_client *c = NULL;
	(void)state;
	run_agent(script_turn_away_then_greet);
	assert_int_equal(sbx_open(&o, &c), 0);
	join_agent();
	peer_close(&agent);
	sbx_close(c);
}

static void *
script_leave_then_answer(void *peer)
{
	struct peer *p = peer;
	(void)peer_expect(p, SBX_FRAME_SUBMIT);
	uint64_t id = p->frame.id;
	SAY_LEAVING(p, id);
	peer_close(p);
	script_turn_away_then_greet(p);
	MUST(peer_expect(p, SBX_FRAME_SUBMIT)->id == id);
	SAY_ACCEPTED(p, id);
	SAY_TEXT(p, id, "whole");
	SAY_DONE(p, id);
	return NULL;
}

static void
test_ask_is_answered_by_the_successor(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	struct sbx_request_options o = request();
	struct sbx_reply *r;
	(void)state;
	run_agent(script_leave_then_answer); /* the same peer goes on */
	assert_int_equal(sbx_ask(c, &o, &r), 0);
	assert_string_equal(sbx_reply_text(r, 0, NULL), "whole");
	sbx_reply_free(r);
	join_agent();
	peer_close(&agent);
	sbx_close(c);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_sent_too_late), TEST(test_what_was_taken_runs_on), TEST(test_cut_off_at_last), TEST(test_no_successor),
		TEST(test_open_finds_the_successor), TEST(test_ask_is_answered_by_the_successor),
	};
	return RUN(tests);
}
