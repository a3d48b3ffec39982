/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams: one event after the other, stage by stage.
 *
 *   ROLE -> EVENT -> REASONING -> CONTENT -> FINISH -> USAGE -> DONE -> END
 *
 * Each stage is a part of a healthy stream, and skipped where the request or a
 * fault leaves it out; error-first and error-after jump to END; comments= never
 * leaves ROLE.
 */
#include "tools/mock/answer.h"

#include <string.h>

#define TOOL_FRAGMENT 9 /* bytes of arguments per delta: splits inside words and strings */

static void end_line(struct mock_exchange *x)
{
	if (x->faults->crlf)
		mock_bytes_lit(&x->body, "\r\n");
	else
		mock_bytes_putc(&x->body, x->faults->lone_cr ? '\r' : '\n');
}

/* Where the event's data begins in x->body. */
static size_t begin_event(struct mock_exchange *x)
{
	if (x->answer.event_n++ == 0 && x->faults->bom)
		mock_bytes_lit(&x->body, "\xef\xbb\xbf");
	mock_bytes_lit(&x->body, "data: ");
	return x->body.n;
}

static void end_event(struct mock_exchange *x, size_t data_at)
{
	if (x->faults->malformed == x->answer.event_n)
		x->body.n = data_at + (x->body.n - data_at) * 2 / 3;
	end_line(x);
	end_line(x);
}

/* A chunk up to and with {"index":N,"delta":{, or {"index":N, where the choice itself has the text. */
static size_t begin_chunk(struct mock_exchange *x, int64_t choice)
{
	size_t data_at = begin_event(x);

	mock_bytes_put(&x->body, mock_bytes_at(&x->answer.prefix), x->answer.prefix.n);
	mock_bytes_lit(&x->body, "{\"index\":");
	mock_bytes_u64(&x->body, (uint64_t)choice);
	mock_bytes_puts(&x->body, x->answer.completion ? "," : ",\"delta\":{");
	return data_at;
}

/* finish NULL = null. */
static void end_chunk(struct mock_exchange *x, size_t data_at, const char *finish)
{
	if (!x->answer.completion)
		mock_bytes_putc(&x->body, '}');
	else if (finish != NULL)
		mock_bytes_lit(&x->body, "\"text\":\"\"");
	if (finish == NULL) {
		mock_bytes_lit(&x->body, ",\"logprobs\":null,\"finish_reason\":null}]");
	} else {
		mock_bytes_lit(&x->body, ",\"logprobs\":null,\"finish_reason\":\"");
		mock_bytes_json(&x->body, finish, strlen(finish));
		mock_bytes_lit(&x->body, "\"}]");
	}
	if (x->faults->usage == MOCK_USAGE_CUMULATIVE || (x->faults->usage == MOCK_USAGE_DOUBLE && finish != NULL)) {
		mock_bytes_putc(&x->body, ',');
		mock_say_usage(x, x->answer.n_said);
	} else if (x->answer.usage_asked) {
		mock_bytes_lit(&x->body, ",\"usage\":null");
	}
	mock_bytes_putc(&x->body, '}');
	end_event(x, data_at);
}

static void put_error_event(struct mock_exchange *x)
{
	const struct mock_faults *f = x->faults;
	size_t data_at = begin_event(x);

	if (f->body.at != NULL)
		mock_bytes_put(&x->body, f->body.at, f->body.n);
	else
		mock_answer_fmt_error(&x->body, f->error_status >= 0 ? (int)f->error_status : 503, NULL);
	end_event(x, data_at);
}

/* The member that has the text. */
static void begin_text(struct mock_exchange *x)
{
	mock_bytes_puts(&x->body, x->answer.completion ? "\"text\":\"" : "\"content\":\"");
}

static void put_token(struct mock_exchange *x)
{
	const struct mock_faults *f = x->faults;
	struct mock_answer *a = &x->answer;
	char buffer[32];
	struct mock_span token = mock_say_token(a, buffer);

	for (int64_t choice = 0; choice < a->n_choices; choice++) {
		size_t data_at = begin_chunk(x, choice);

		begin_text(x);
		mock_say_span(&x->body, token);
		if (a->i == 0 && f->invalid_utf8)
			mock_bytes_lit(&x->body, "\xff\xfe\xc3(");
		if (a->i == 0 && f->nul)
			mock_bytes_putc(&x->body, '\0');
		mock_bytes_putc(&x->body, '"');
		a->n_said++;
		end_chunk(x, data_at, NULL);
	}
	a->text_at += token.at == buffer ? 0 : token.n;
	a->tokens_in_hand = (uint64_t)a->n_choices;
}

/* One data line of f->line bytes; "data: " and the line end are part of the count. */
static void put_line(struct mock_exchange *x)
{
	size_t start = x->body.n;
	size_t want = (size_t)x->faults->line;
	const char *tail = x->answer.completion ? "\",\"logprobs\":null,\"finish_reason\":null}]}" :
	                                          "\"},\"logprobs\":null,\"finish_reason\":null}]}";
	size_t data_at = begin_chunk(x, 0);
	size_t have;

	begin_text(x);
	have = x->body.n - start + strlen(tail) + (x->faults->crlf ? 2 : 1);
	mock_bytes_fill(&x->body, 'x', want > have ? want - have : 1);
	mock_bytes_puts(&x->body, tail);
	end_event(x, data_at);
	x->answer.n_said++;
	x->answer.tokens_in_hand = 1;
}

static void put_tiny(struct mock_exchange *x)
{
	size_t data_at = begin_event(x);

	mock_bytes_puts(&x->body, x->answer.completion ? "{\"choices\":[{\"index\":0,\"text\":\".\"}]}" :
	                                                 "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\".\"}}]}");
	end_event(x, data_at);
	x->answer.n_said++;
	x->answer.tokens_in_hand = 1;
}

/* Fragment a->i of the tool calls, which take turns: first each one's opening, then pieces of arguments. */
static bool put_tool_fragment(struct mock_exchange *x)
{
	struct mock_answer *a = &x->answer;
	int64_t call = a->i % x->faults->tool;
	size_t at = (size_t)(a->i / x->faults->tool);
	size_t n = MOCK_TOOL_ARGUMENTS_BYTES;
	size_t from = at == 0 ? 0 : (at - 1) * TOOL_FRAGMENT;

	if (at > 0 && from >= n)
		return false;
	for (int64_t choice = 0; choice < a->n_choices; choice++) {
		size_t data_at = begin_chunk(x, choice);

		mock_bytes_fmt(&x->body, "\"tool_calls\":[{\"index\":%lld,", (long long)call);
		if (at == 0)
			mock_bytes_fmt(&x->body, "\"id\":\"call_mock_%lld\",\"type\":\"function\",\"function\":"
			    "{\"name\":\"get_weather\",\"arguments\":\"", (long long)call);
		else
			mock_bytes_lit(&x->body, "\"function\":{\"arguments\":\"");
		if (at > 0)
			mock_bytes_json(&x->body, mock_tool_arguments + from,
			    n - from < TOOL_FRAGMENT ? n - from : TOOL_FRAGMENT);
		mock_bytes_lit(&x->body, "\"}}]");
		end_chunk(x, data_at, NULL);
	}
	a->n_said += (uint64_t)a->n_choices;
	a->tokens_in_hand = (uint64_t)a->n_choices;
	return true;
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
		put_line(x);
		a->wait_ns = f->gap;
		return true;
	}
	if (f->tool > 0) {
		if (!put_tool_fragment(x))
			return false;
	} else if (f->tiny >= 0) {
		if (a->i >= f->tiny)
			return false;
		put_tiny(x);
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

bool mock_answer_next(struct mock_exchange *x)
{
	const struct mock_faults *f = x->faults;
	struct mock_answer *a = &x->answer;
	size_t before = x->body.n;

	a->wait_ns = 0;
	a->tokens_in_hand = 0;
	while (x->body.n == before) {
		switch (a->stage) {
		case MOCK_STAGE_ROLE:
			if (f->comments > 0) {
				mock_bytes_lit(&x->body, ": PROCESSING");
				end_line(x);
				end_line(x);
				a->wait_ns = f->comments;
				break;
			}
			if (f->error_first) {
				put_error_event(x);
				a->stage = MOCK_STAGE_END;
				break;
			}
			for (int64_t choice = 0; choice < a->n_choices && !a->completion; choice++) {
				size_t data_at = begin_chunk(x, choice);

    mock_bytes_lit(&x->body, "\"role\":\"assistant\",\"content\":\"\",\"refusal\":null");
    end_chunk(x, data_at, NULL);
    }
    if (f->event.at == NULL)
    a->wait_ns = f->first;
    enter(a, MOCK_STAGE_EVENT);
    break;
		case MOCK_STAGE_EVENT:
			if (f->event.at != NULL) {
				mock_bytes_put(&x->body, f->event.at, f->event.n);
				a->wait_ns = f->first;
			}
			enter(a, MOCK_STAGE_REASONING);
			break;
		case MOCK_STAGE_REASONING:
			if (a->i >= mock_say_reasoning(x)) {
				enter(a, MOCK_STAGE_CONTENT);
				break;
			}
			a->i++;
			for (int64_t choice = 0; choice < a->n_choices; choice++) {
				size_t data_at = begin_chunk(x, choice);

    mock_bytes_fmt(&x->body, "\"reasoning_content\":\" r%lld\"", (long long)a->i);
    a->n_said++;
    end_chunk(x, data_at, NULL);
    }
    a->wait_ns = f->gap;
    break;
		case MOCK_STAGE_CONTENT:
			if (!step_content(x))
				enter(a, MOCK_STAGE_FINISH);
			break;
		case MOCK_STAGE_FINISH:
			for (int64_t choice = 0; choice < a->n_choices && mock_says_finish(x); choice++)
				end_chunk(x, begin_chunk(x, choice), mock_say_finish(x));
			a->last_chunk = true;
			enter(a, MOCK_STAGE_USAGE);
			break;
		case MOCK_STAGE_USAGE:
			if (f->usage != MOCK_USAGE_NONE && (a->usage_asked || f->usage == MOCK_USAGE_ALWAYS ||
			    f->usage == MOCK_USAGE_DOUBLE)) {
				size_t data_at = begin_event(x);

    mock_bytes_put(&x->body, mock_bytes_at(&a->prefix), a->prefix.n);
    mock_bytes_lit(&x->body, "],");
    mock_say_usage(x, a->n_said);
    mock_bytes_putc(&x->body, '}');
    end_event(x, data_at);
    }
    enter(a, MOCK_STAGE_DONE);
    break;
		case MOCK_STAGE_DONE:
			if (f->done != MOCK_DONE_NO) {
				size_t data_at = begin_event(x);

    mock_bytes_lit(&x->body, "[DONE]");
    end_event(x, data_at);
    }
    enter(a, MOCK_STAGE_END);
    break;
		case MOCK_STAGE_END:
			return false;
		}
	}
	return true;
}
