/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pace of one answer: when its head goes out, when each event does, in
 * what pieces, and where it is cut or falls silent.
 *
 *   HEAD --(headers-delay)--> [DRIP_HEAD] --> BODY --> finish, or abort
 *     \--(hang)--> SILENT <--(stall)----------/
 *
 * run() is the loop of BODY: hand over what is made, in pieces; at the end of
 * an event wait if it says so; make the next one.  Events without a wait
 * between them are gathered and leave in one write.  Gaps are counted from the
 * time the last step was due, not from when it ran, so that a stream of 100
 * events a second makes 100 of them.
 */
#include "tools/mock/mock.h"

#include <assert.h>
#include <stdlib.h>

#define STEPS_PER_TURN 512              /* then others have their turn */
#define CATCH_UP_NS (1000ull * 1000000) /* a stream later than this lets the lost time go */

static void run(struct mock_exchange *x);

static void arm(struct mock_exchange *x, uint64_t due_ns)
{
	mock_timer_arm(&x->mock->loop, &x->timer, due_ns);
}

static void abort_as(struct mock_exchange *x, enum mock_abort how)
{
	x->ops->flush(x);
	x->ops->abort(x, how);
	mock_exchange_end(x, MOCK_CUT);
}

/* Cuts the answer off in the way the faults name. */
static void cut(struct mock_exchange *x)
{
	const struct mock_faults *f = x->faults;

	if (x->ops->is_h2 && f->rst_stream >= 0)
		abort_as(x, MOCK_ABORT_STREAM);
	else
		abort_as(x, f->how == MOCK_HOW_RST ? MOCK_ABORT_RST : MOCK_ABORT_FIN);
}

static void fall_silent(struct mock_exchange *x)
{
	x->ops->flush(x);
	x->phase = MOCK_PHASE_SILENT;
}

static bool reached(int64_t limit, uint64_t n)
{
	return limit >= 0 && n >= (uint64_t)limit;
}

/* Bytes of x->body that go into one write. */
static size_t piece_of(const struct mock_exchange *x)
{
	const struct mock_faults *f = x->faults;
	size_t n = x->body.n;

	if (f->split > 0 && n > (size_t)f->split)
		n = (size_t)f->split;
	if (f->drip > 0)
		n = 1;
	if (f->cut >= 0 && n > (uint64_t)f->cut - x->sent)
		n = (size_t)f->cut - x->sent;
	if (f->stall >= 0 && n > (uint64_t)f->stall - x->sent)
		n = (size_t)f->stall - x->sent;
	return n;
}

/* The event in hand has gone out: true when the answer goes on now, false when it waits or has ended. */
static bool next_event(struct mock_exchange *x)
{
	const struct mock_faults *f = x->faults;
	struct mock_answer *a = &x->answer;
	uint64_t now_ns = x->mock->loop.now_ns;

	x->entry->tokens_sent += a->tokens_in_hand;
	a->tokens_in_hand = 0;
	if (a->sse && a->stage > MOCK_STAGE_ROLE) {
		if (reached(f->cut_tokens, x->entry->tokens_sent)) {
			cut(x);
			return false;
		}
		if (reached(f->stall_tokens, x->entry->tokens_sent)) {
			fall_silent(x);
			return false;
		}
	}
	if (a->wait_ns > 0) {
		x->due_ns += a->wait_ns;
		a->wait_ns = 0;
		if (x->due_ns > now_ns) {
			x->ops->flush(x);
			arm(x, x->due_ns);
			return false;
		}
		if (x->due_ns + CATCH_UP_NS < now_ns)
			x->due_ns = now_ns;
	}
	if (mock_answer_next(x))
		return true;
	if (f->wrong_length > 0) {
		cut(x); /* fewer bytes than announced: only the end of the connection says so */
		return false;
	}
	x->ops->finish(x);
	mock_exchange_end(x, MOCK_ANSWERED);
	return false;
}

static void run(struct mock_exchange *x)
{
	const struct mock_faults *f = x->faults;

	for (unsigned steps = 0;; steps++) {
		size_t n;

		if (x->conn->closing != MOCK_CLOSE_NO)
			return; /* its deferred work ends this exchange */
		if (reached(f->cut, x->sent)) {
			cut(x);
			return;
		}
		if (reached(f->stall, x->sent)) {
			fall_silent(x);
			return;
		}
		if (x->body.n == 0) {
			if (!next_event(x))
				return;
			continue;
		}
		if (x->ops->backlog(x) > MOCK_BACKLOG_HIGH) {
			x->ops->flush(x);
			if (x->ops->backlog(x) > MOCK_BACKLOG_HIGH) {
				x->blocked = true;
				return;
			}
		}
		if (steps >= STEPS_PER_TURN) {
			x->ops->flush(x);
			arm(x, x->mock->loop.now_ns + 1); /* after the events of the next turn */
			return;
		}
		n = piece_of(x);
		if (f->bad_chunk && x->answer.last_chunk) {
			n = x->body.n;
			x->ops->body(x, mock_bytes_at(&x->body), n, /* broken= */ true);
			x->entry->body_bytes = x->sent += n / 2;
			cut(x);
			return;
		}
		x->ops->body(x, mock_bytes_at(&x->body), n, /* broken= */ false);
		x->entry->body_bytes = x->sent += n;
		mock_bytes_eat(&x->body, n);
		if (f->split > 0)
			x->ops->flush(x);
		if (f->drip > 0) {
			x->ops->flush(x);
			x->due_ns = x->mock->loop.now_ns;
			arm(x, x->due_ns + f->drip);
			return;
		}
	}
}

/* One more byte of the head; the body follows the last. */
static void drip_head(struct mock_exchange *x)
{
	mock_bytes_put(&x->conn->out, mock_bytes_at(&x->head_drip), 1);
	mock_bytes_eat(&x->head_drip, 1);
	mock_conn_flush(x->conn);
	arm(x, x->mock->loop.now_ns + x->faults->drip_headers);
	if (x->head_drip.n == 0)
		x->phase = MOCK_PHASE_BODY;
}

static void send_head(struct mock_exchange *x)
{
	struct mock_head head;

	mock_answer_head(x, &head);
	x->entry->status = head.status;
	x->phase = MOCK_PHASE_BODY;
	x->ops->head(x, &head);
	if (x->faults->drip_headers > 0) {
		struct mock_bytes swap = x->head_drip;

		x->head_drip = x->conn->out;
		x->conn->out = swap;
		x->phase = MOCK_PHASE_DRIP_HEAD;
		drip_head(x);
		return;
	}
	run(x);
}

static void on_due(struct mock_timer *timer)
{
	struct mock_exchange *x = mock_owner_of(timer, struct mock_exchange, timer);

	if (x->conn->closing != MOCK_CLOSE_NO)
		return;
	switch (x->phase) {
	case MOCK_PHASE_HEAD:
		send_head(x);
		break;
	case MOCK_PHASE_DRIP_HEAD:
		drip_head(x);
		break;
	case MOCK_PHASE_BODY:
		run(x);
		break;
	case MOCK_PHASE_SILENT:
		break;
	}
}

struct mock_exchange *mock_exchange_new(struct mock_conn *conn, const struct mock_transport_ops *ops,
    void *stream)
{
	struct mock_exchange *x = calloc(1, sizeof(*x));

	if (x == NULL) {
		fputs("signalbox-mock: out of memory\n", stderr);
		exit(70);
	}
	x->mock = conn->mock;
	x->conn = conn;
	x->ops = ops;
	x->stream = stream;
	x->timer.on_due = on_due;
	return x;
}

void mock_exchange_begin(struct mock_exchange *x, const struct mock_request *request)
{
	const struct mock_faults *f;
	uint64_t delay_ns;

	mock_answer_decide(x, request);
	f = x->faults;
	mock_control_on_change(x->mock);
	if (f->close_before) {
		cut(x);
		return;
	}
	if (f->goaway != 0) {
		abort_as(x, MOCK_ABORT_GOAWAY);
		return;
	}
	if (f->refused_stream || (f->rst_stream >= 0 && f->cut < 0 && f->cut_tokens < 0)) {
		abort_as(x, MOCK_ABORT_STREAM);
		return;
	}
	if (f->hang) {
		x->phase = MOCK_PHASE_SILENT;
		return;
	}
	delay_ns = f->headers_delay + mock_answer_work_ns(x);
	x->due_ns = x->mock->loop.now_ns + delay_ns;
	if (delay_ns > 0)
		arm(x, x->due_ns);
	else
		send_head(x);
}

void mock_exchange_resume(struct mock_exchange *x)
{
	assert(x->blocked);
	x->blocked = false;
	run(x);
}

void mock_exchange_end(struct mock_exchange *x, enum mock_state state)
{
	struct mock *mock = x->mock;

	if (x->entry != NULL) {
		x->entry->tokens_sent += x->body.n == 0 ? x->answer.tokens_in_hand : 0;
		mock_log_end(mock->log, x->entry, state);
	}
	x->ops->detach(x);
	mock_timer_stop(&mock->loop, &x->timer);
	mock_rule_unref(x->rule);
	mock_bytes_fini(&x->body);
	mock_bytes_fini(&x->head_drip);
	mock_bytes_fini(&x->answer.prefix);
	free(x);
	mock_control_on_change(mock);
}
