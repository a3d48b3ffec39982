/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams: one event after the other, stage by stage, each written by the
 * dialect.
 *
 *   ROLE -> EVENT -> REASONING -> CONTENT -> FINISH -> USAGE -> DONE -> END
 *
 * Each stage is a part of a healthy stream, and skipped where the request or a
 * fault leaves it out; error-first and error-after jump to END; comments= never
 * leaves ROLE.
 */
#include "tools/mock/dialect.h"

static void end_line(struct mock_exchange *x)
{
	if (x->faults->crlf)
		mock_bytes_lit(&x->body, "\r\n");
	else
		mock_bytes_putc(&x->body, x->faults->lone_cr ? '\r' : '\n');
}

size_t mock_sse_begin(struct mock_exchange *x, const char *type)
{
	if (x->answer.event_n++ == 0 && x->faults->bom)
		mock_bytes_lit(&x->body, "\xef\xbb\xbf");
	if (type != NULL) {
		mock_bytes_lit(&x->body, "event: ");
		mock_bytes_puts(&x->body, type);
		end_line(x);
	}
	mock_bytes_lit(&x->body, "data: ");
	return x->body.n;
}

void mock_sse_end(struct mock_exchange *x, size_t data_at)
{
	if (x->faults->malformed == x->answer.event_n)
		x->body.n = data_at + (x->body.n - data_at) * 2 / 3;
	end_line(x);
	end_line(x);
}

void mock_say_filling(struct mock_exchange *x, size_t start, size_t tail_bytes)
{
	size_t want = (size_t)x->faults->line;
	size_t have = x->body.n - start + tail_bytes + (x->faults->crlf ? 2 : 1);

	mock_bytes_fill(&x->body, 'x', want > have ? want - have : 1);
}

/* With the error body of the faults, or the provider's own of that status. */
static void put_error_event(struct mock_exchange *x)
{
	const struct mock_faults *f = x->faults;
	struct mock_bytes error = { 0 };

	if (f->body.at != NULL)
		mock_bytes_put(&error, f->body.at, f->body.n);
	else
		x->dialect->fmt_error(&error, f->error_status >= 0 ? (int)f->error_status : 503, NULL);
	x->dialect->error(x, mock_bytes_at(&error), error.n);
	mock_bytes_fini(&error);
}

static void put_token(struct mock_exchange *x)
{
	struct mock_answer *a = &x->answer;
	char buffer[32];
	struct mock_span token = mock_say_token(a, buffer);

	x->dialect->token(x, token);
	a->text_at += token.at == buffer ? 0 : token.n;
	a->tokens_in_hand = (uint64_t)a->n_choices;
}

static void put_one(struct mock_exchange *x, void (*put)(struct mock_exchange *))
{
	put(x);
	x->answer.n_said++;
	x->answer.tokens_in_hand = 1;
}

/* One content event; false = the stage is over and nothing was made. */
static bool step_content(struct mock_exchange *x)
{
	const struct mock_faults *f = x->faults;
	struct mock_answer *a = &x->answer;

	if (f->error_after >= 0 && a->i >= f->error_after) {
		put_error_event(x);
		a->stage = MOCK_STAGE_END;
		return true;
	}
	if (a->i == 0 && f->line > 0 && a->n_said == (uint64_t)mock_say_reasoning(x) * (uint64_t)a->n_choices) {
		put_one(x, x->dialect->line);
		a->wait_ns = f->gap;
		return true;
	}
	if (f->tool > 0) {
		if (!x->dialect->tool(x))
			return false;
		a->tokens_in_hand = (uint64_t)a->n_choices;
	} else if (f->tiny >= 0) {
		if (a->i >= f->tiny)
			return false;
		put_one(x, x->dialect->tiny);
	} else {
		if (a->i >= a->n_tokens)
			return false;
		put_token(x);
	}
	a->i++;
	if (a->i < a->n_tokens || f->tool > 0 || f->tiny >= 0)
		a->wait_ns = f->gap;
	return true;
}

static void enter(struct mock_answer *a, enum mock_stage stage)
{
	a->stage = stage;
	a->i = 0;
}

static void put(struct mock_exchange *x, void (*write)(struct mock_exchange *))
{
	if (write != NULL)
		write(x);
}

/* One step of the stage; false = there is nothing behind it. */
static bool step(struct mock_exchange *x)
{
	const struct mock_faults *f = x->faults;
	struct mock_answer *a = &x->answer;

	switch (a->stage) {
	case MOCK_STAGE_ROLE:
		if (f->comments > 0) {
			mock_bytes_lit(&x->body, ": PROCESSING");
			end_line(x);
			end_line(x);
			a->wait_ns = f->comments;
			return true;
		}
		if (f->error_first) {
			put_error_event(x);
			a->stage = MOCK_STAGE_END;
			return true;
		}
		put(x, x->dialect->role);
		if (f->event.at == NULL)
			a->wait_ns = f->first;
		enter(a, MOCK_STAGE_EVENT);
		return true;
	case MOCK_STAGE_EVENT:
		if (f->event.at != NULL) {
			mock_bytes_put(&x->body, f->event.at, f->event.n);
			a->wait_ns = f->first;
		}
		enter(a, MOCK_STAGE_REASONING);
		return true;
	case MOCK_STAGE_REASONING:
		if (a->i >= mock_say_reasoning(x)) {
			enter(a, MOCK_STAGE_CONTENT);
			return true;
		}
		a->i++;
		put(x, x->dialect->reasoning);
		a->wait_ns = f->gap;
		return true;
	case MOCK_STAGE_CONTENT:
		if (!step_content(x))
			enter(a, MOCK_STAGE_FINISH);
		return true;
	case MOCK_STAGE_FINISH:
		put(x, x->dialect->finish);
		a->last_chunk = true;
		enter(a, MOCK_STAGE_USAGE);
		return true;
	case MOCK_STAGE_USAGE:
		put(x, x->dialect->usage);
		enter(a, MOCK_STAGE_DONE);
		return true;
	case MOCK_STAGE_DONE:
		if (f->done != MOCK_DONE_NO)
			put(x, x->dialect->done);
		enter(a, MOCK_STAGE_END);
		return true;
	case MOCK_STAGE_END:
		return false;
	}
	return false;
}

bool mock_answer_next(struct mock_exchange *x)
{
	size_t before = x->body.n;

	x->answer.wait_ns = 0;
	x->answer.tokens_in_hand = 0;
	while (x->body.n == before)
		if (!step(x))
			return false;
	return true;
}
