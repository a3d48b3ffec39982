/* SPDX-License-Identifier: Apache-2.0 */
/* test_outbox.c -- gate, queue and credit of one request, seen from the other end of a real socket, on both loops. */
#include "agent/io/outbox.h"

#include "tests/unit/loop_rig.h"

#define MAX SBX_EVENT_MAX_BYTES
#define ID 7

/* An outbox, and its client. */
struct rig {
	struct sbx_agent agent;
	struct sbx_outbox out;
	struct sbx_stream *stream;
	int fd;                    /* the client's end */
	struct sbx_buf in;         /* what it received */
	struct sbx_buf text;       /* payload of all EVENTs, without ids and names */
	unsigned n_frames, n_events;
	uint32_t last_kind;
	size_t payload_bytes, largest_bytes;
	size_t skip_bytes;         /* of what it received: no frames */
	bool drained;
};

static void
say_drained(void *arg)
{
	struct rig *r = arg;
	r->drained = true;
	sbx_outbox_flush(&r->out);
}

static const struct sbx_stream_ops ops = { on_data, on_end, say_drained }; /* nothing comes in, and nobody leaves */

static void
rig_up(struct rig *r, void **state)
{
	struct sbx_loop *loop = loop_of(state);
	int fd[2];
	memset(r, 0, sizeof *r);
	pair(fd);
	r->fd = fd[1];
	r->agent.loop = loop;
	sbx_buf_init(&r->agent.frame, 64u << 20);
	sbx_buf_init(&r->in, 64u << 20);
	sbx_buf_init(&r->text, 64u << 20);
	assert_int_equal(sbx_stream_new(loop, fd[0], &ops, r, SBX_SESSION_HIGH_BYTES, &r->stream), 0);
	sbx_outbox_init(&r->out, &r->agent, r->stream, ID);
}

static void
rig_down(struct rig *r)
{
	sbx_outbox_fini(&r->out);
	sbx_stream_close(r->stream, false, 0);
	(void)close(r->fd);
	sbx_buf_fini(&r->agent.frame);
	sbx_buf_fini(&r->in);
	sbx_buf_fini(&r->text);
}

static void
read_frame(struct rig *r, const struct sbx_frame *f)
{
	static const char *const keys[] = { "id", "name", "text", "arguments", "data" };
	size_t payload = 0;
	struct sbx_value v;
	r->n_frames++;
	r->last_kind = f->kind;
	if (f->kind != SBX_FRAME_EVENT)
		return;
	assert_int_equal(f->id, ID);
	r->n_events++;
	for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
		if (sbx_map_get(&f->map, keys[i], &v)) {
			payload += v.bytes.n;
			if (i >= 2)
				assert_int_equal(sbx_buf_append(&r->text, v.bytes.at, v.bytes.n), 0);
		}
	r->payload_bytes += payload;
	if (payload > r->largest_bytes)
		r->largest_bytes = payload;
}

/* What the client has received by now: everything that may go is on its way after a few turns. */
static void
receive(struct rig *r)
{
	static uint8_t bytes[65536];
	struct sbx_frame f;
	char why[192];
	for (int quiet = 0; quiet < 3;) {
		TURNS(r->agent.loop, 1);
		ssize_t n = recv(r->fd, bytes, sizeof bytes, MSG_DONTWAIT);
		quiet = n > 0 ? 0 : quiet + 1;
		if (n > 0)
			assert_int_equal(sbx_buf_append(&r->in, bytes, (size_t)n), 0);
	}
	size_t skip = r->skip_bytes < r->in.n ? r->skip_bytes : r->in.n;
	sbx_buf_consume(&r->in, skip);
	r->skip_bytes -= skip;
	for (int64_t size; (size = sbx_frame_size(r->in.data, r->in.n, SBX_FRAME_MAX_BYTES)) != 0;) {
		assert_true(size > 0);
		/* The check refuses text that is not UTF-8: a character cut in two would show here. */
		if (sbx_frame_check(r->in.data + SBX_FRAME_HEAD_BYTES, (size_t)size - SBX_FRAME_HEAD_BYTES, &f, why, sizeof why))
			fail_msg("%s", why);
		read_frame(r, &f);
		sbx_buf_consume(&r->in, (size_t)size);
	}
}

static void
put_text(struct rig *r, const char *text, size_t n)
{
	struct sbx_hub_event ev = { .kind = SBX_HUB_TEXT, .text = { text, n } };
	sbx_outbox_event(&r->out, &ev);
}

static void
build(struct rig *r, enum sbx_frame_kind kind)
{
	struct sbx_packer p;
	sbx_frame_begin(&p, &r->agent.frame, kind, ID, 0);
	assert_int_equal(sbx_frame_end(&p), 0);
}

static int
put_last(struct rig *r)
{
	build(r, SBX_FRAME_DONE);
	return sbx_outbox_last(&r->out);
}

/* n bytes of whole characters of `width` bytes each, after one of `lead` bytes that shifts them against the border. */
static char *
text_of(size_t n, size_t width, size_t lead)
{
	static const char *const character[] = { "", "x", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x99\x82" };
	char *text = malloc(n + 4);
	size_t at = 0;
	assert_non_null(text);
	for (; at < lead && at < n; at++)
		text[at] = 'y';
	for (; at < n; at++) {
		size_t in = (at - lead) % width;
		text[at] = n - (at - in) < width ? 'z' : character[width][in]; /* the rest is too short for one more */
	}
	return text;
}

/* ---- cutting ---- */

static void
payload_is_cut_into_events_below_the_maximum(void **state)
{
	static const struct {
		size_t n, width, lead;
		unsigned text_events, data_events;
	} rows[] = {
		{ 0, 1, 0, 0, 0 },           { 1, 1, 0, 1, 1 },           { MAX - 1, 1, 0, 1, 1 },     { MAX, 1, 0, 1, 1 },
		{ MAX + 1, 1, 0, 2, 2 },     { 3 * MAX, 1, 0, 3, 3 },     { 3 * MAX + 1, 1, 0, 4, 4 }, { MAX + 2, 2, 0, 2, 2 },
		{ MAX + 2, 2, 1, 2, 2 },     { MAX + 3, 3, 0, 2, 2 },     { MAX + 3, 3, 1, 2, 2 },     { MAX + 3, 3, 2, 2, 2 },
		{ MAX + 4, 4, 0, 2, 2 },     { MAX + 4, 4, 1, 2, 2 },     { MAX + 4, 4, 2, 2, 2 },     { MAX + 4, 4, 3, 2, 2 },
		{ 2 * MAX, 3, 0, 3, 2 }, /* what two cuts before a character leave over needs a third event */
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		char *text = text_of(rows[i].n, rows[i].width, rows[i].lead);
		for (int data = 0; data < 2; data++) {
			struct rig r;
			rig_up(&r, state);
			sbx_outbox_open(&r.out);
			if (data) /* in three parts, the borders of which are not those of the events */
				sbx_outbox_data(&r.out, (struct sbx_span){ text, rows[i].n / 3 }, (struct sbx_span){ text + rows[i].n / 3, rows[i].n / 2 - rows[i].n / 3 },
				                (struct sbx_span){ text + rows[i].n / 2, rows[i].n - rows[i].n / 2 });
			else
				put_text(&r, text, rows[i].n);
			receive(&r);
			if (r.n_events != (data ? rows[i].data_events : rows[i].text_events))
				fail_msg("row %zu, data %d: %u events", i, data, r.n_events);
			assert_true(r.largest_bytes <= MAX);
			assert_int_equal(r.text.n, rows[i].n);
			assert_memory_equal(r.text.data ? r.text.data : (uint8_t *)text, text, rows[i].n);
			assert_int_equal(r.agent.count.events, r.n_events);
			rig_down(&r);
		}
		free(text);
	}
}

static void
a_tool_call_carries_its_names_once_and_below_the_maximum(void **state)
{
	static const struct {
		size_t id, name, arguments;
		unsigned events;
	} rows[] = {
		{ 0, 0, 0, 1 },   { 10, 5, 0, 1 },  { 10, 5, 3, 1 },     { 0, 0, MAX, 1 },
		{ 0, 0, MAX + 1, 2 }, { 10, 6, MAX - 16, 1 }, { 10, 6, MAX - 15, 2 }, { SBX_CALL_NAMES_MAX_BYTES - 1, 1, 2 * MAX, 3 },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct rig r;
		char *text = text_of(3 * MAX, 1, 0);
		struct sbx_hub_event ev = { .kind = SBX_HUB_TOOL_CALL, .choice = 2, .index = 1, .text = { text, rows[i].arguments },
			                    .id = { text, rows[i].id }, .name = { text, rows[i].name } };
		rig_up(&r, state);
		sbx_outbox_open(&r.out);
		sbx_outbox_event(&r.out, &ev);
		receive(&r);
		assert_int_equal(r.n_events, rows[i].events);
		assert_true(r.largest_bytes <= MAX);
		assert_int_equal(r.payload_bytes, rows[i].id + rows[i].name + rows[i].arguments);
		assert_int_equal(r.out.credit_bytes, SBX_CREDIT_BYTES - r.payload_bytes);
		rig_down(&r);
		free(text);
	}
}

/* ---- the gate ---- */

static void
nothing_passes_the_closed_gate_and_what_is_dropped_never_comes(void **state)
{
	struct rig r;
	rig_up(&r, state);
	put_text(&r, "one", 3);
	receive(&r);
	assert_int_equal(r.n_frames, 0);
	assert_true(sbx_outbox_waiting(&r.out));
	sbx_outbox_drop(&r.out); /* the attempt failed */
	assert_false(sbx_outbox_waiting(&r.out));
	put_text(&r, "two", 3);
	sbx_outbox_open(&r.out);
	put_text(&r, "three", 5);
	receive(&r);
	assert_int_equal(r.text.n, 8);
	assert_memory_equal(r.text.data, "twothree", 8);
	assert_int_equal(r.out.credit_bytes, SBX_CREDIT_BYTES - 8); /* what was dropped costs nothing */
	sbx_outbox_drop(&r.out); /* a RESET: from here on it is held back again */
	build(&r, SBX_FRAME_RESET);
	sbx_outbox_now(&r.out);
	put_text(&r, "four", 4);
	receive(&r);
	assert_int_equal(r.last_kind, SBX_FRAME_RESET);
	assert_int_equal(put_last(&r), 0); /* opens the gate, behind what waits */
	receive(&r);
	assert_int_equal(r.last_kind, SBX_FRAME_DONE);
	assert_memory_equal(r.text.data, "twothreefour", 12);
	rig_down(&r);
}

/* ---- credit ---- */

static void
payload_never_exceeds_the_credit(void **state)
{
	static const struct {
		uint64_t grant;
		size_t payload; /* received in all, after it */
	} rows[] = {
		{ 0, SBX_CREDIT_BYTES },           /* four of the largest */
		{ MAX - 1, SBX_CREDIT_BYTES },     /* the fifth goes whole or not at all */
		{ 1, SBX_CREDIT_BYTES + MAX },
		{ 2 * MAX + 1, SBX_CREDIT_BYTES + 3 * MAX },
		{ UINT64_MAX, SBX_CREDIT_BYTES + 6 * MAX },
	};
	struct rig r;
	char *text = text_of(10 * MAX, 1, 0);
	rig_up(&r, state);
	sbx_outbox_open(&r.out);
	put_text(&r, text, 10 * MAX);
	assert_int_equal(put_last(&r), 0);
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		sbx_outbox_grant(&r.out, rows[i].grant);
		receive(&r);
		assert_int_equal(r.payload_bytes, rows[i].payload);
		bool all = rows[i].payload == 10 * MAX;
		assert_int_equal(sbx_outbox_waiting(&r.out), !all);
		assert_int_equal(r.last_kind == SBX_FRAME_DONE, all); /* the last frame needs no credit, but waits for its turn */
	}
	sbx_outbox_grant(&r.out, UINT64_MAX);
	assert_int_equal(r.out.credit_bytes, SBX_CREDIT_MAX_BYTES);
	rig_down(&r);
	free(text);
}

static void
one_that_does_not_read_is_held_at_the_high_mark_and_goes_on_when_it_does(void **state)
{
	struct rig r;
	char *text = text_of(64 * MAX, 1, 0);
	rig_up(&r, state);
	sbx_outbox_open(&r.out);
	sbx_outbox_grant(&r.out, UINT64_MAX);
	put_text(&r, text, 64 * MAX);
	assert_int_equal(put_last(&r), 0);
	assert_true(sbx_outbox_waiting(&r.out));
	assert_true(sbx_stream_unsent_bytes(r.stream) < SBX_SESSION_HIGH_BYTES + MAX + 64);
	receive(&r);
	assert_true(r.drained);
	assert_int_equal(r.payload_bytes, 64 * MAX);
	assert_int_equal(r.last_kind, SBX_FRAME_DONE);
	assert_false(sbx_outbox_waiting(&r.out));
	rig_down(&r);
	free(text);
}

/* Any number of unsent bytes around the mark: either the frame goes, or a drain comes for it. */
static void
there_is_no_number_of_unsent_bytes_at_which_it_waits_for_ever(void **state)
{
	for (size_t n = SBX_SESSION_HIGH_BYTES - 2; n <= SBX_SESSION_HIGH_BYTES + 2; n++) {
		struct rig r;
		char *others = text_of(n, 1, 0);
		rig_up(&r, state);
		r.skip_bytes = n;
		sbx_outbox_open(&r.out);
		assert_int_equal(sbx_stream_send(r.stream, others, n, -1), 0);
		put_text(&r, "x", 1);
		receive(&r);
		assert_int_equal(r.payload_bytes, 1);
		rig_down(&r);
		free(others);
	}
}

/* ---- failures ---- */

static void
what_cannot_wait_is_told_and_the_last_frame_still_goes(void **state)
{
	struct rig r;
	char *text = text_of(1000, 1, 0);
	rig_up(&r, state);
	r.out.queue.max_bytes = 1200; /* stands for the end of memory */
	put_text(&r, text, 900);
	assert_false(r.out.failed);
	put_text(&r, text, 900);
	assert_true(r.out.failed);
	r.out.credit_bytes = 0;
	sbx_outbox_open(&r.out);
	r.out.queue.max_bytes = r.out.queue.n;
	assert_int_equal(put_last(&r), -SBX_ENOMEM);
	sbx_outbox_drop(&r.out);
	build(&r, SBX_FRAME_ERROR);
	assert_int_equal(sbx_outbox_last(&r.out), 0);
	receive(&r);
	assert_int_equal(r.n_frames, 1);
	assert_int_equal(r.last_kind, SBX_FRAME_ERROR);
	rig_down(&r);
	free(text);
}

static void
without_a_client_everything_is_forgotten(void **state)
{
	struct rig r;
	rig_up(&r, state);
	put_text(&r, "x", 1);
	sbx_outbox_drop(&r.out);
	r.out.stream = NULL;
	put_text(&r, "y", 1);
	sbx_outbox_open(&r.out);
	put_text(&r, "z", 1);
	sbx_outbox_grant(&r.out, 5);
	sbx_outbox_target(&r.out, "a/m", 0);
	assert_int_equal(put_last(&r), 0);
	assert_false(sbx_outbox_waiting(&r.out) || r.out.failed);
	assert_int_equal(r.agent.frame.n, 0);
	receive(&r);
	assert_int_equal(r.n_frames, 0);
	rig_down(&r);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(payload_is_cut_into_events_below_the_maximum),
		BOTH(a_tool_call_carries_its_names_once_and_below_the_maximum),
		BOTH(nothing_passes_the_closed_gate_and_what_is_dropped_never_comes),
		BOTH(payload_never_exceeds_the_credit),
		BOTH(one_that_does_not_read_is_held_at_the_high_mark_and_goes_on_when_it_does),
		BOTH(there_is_no_number_of_unsent_bytes_at_which_it_waits_for_ever),
		BOTH(what_cannot_wait_is_told_and_the_last_frame_still_goes),
		BOTH(without_a_client_everything_is_forgotten),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
