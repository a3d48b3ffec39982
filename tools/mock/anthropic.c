/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Anthropic's dialect: messages and the counting of their tokens.  What it
 * refuses in a request is in anthropic_request.c.
 *
 * An answer is made of blocks: thinking with its signature first, then the text
 * or the tool calls, one after the other and never interleaved.  A signature is
 * made from the thinking, so that one that comes back can be told from one that
 * was changed on the way.
 */
#include "tools/mock/anthropic.h"

#include <string.h>

#define TOOL_FRAGMENT 9 /* bytes of arguments per delta: splits inside words and strings */
#define TOOL_STEPS (2 + (MOCK_TOOL_ARGUMENTS_BYTES + TOOL_FRAGMENT - 1) / TOOL_FRAGMENT) /* start, pieces, stop */

static const char *finish_of(const struct mock_exchange *x)
{
	return mock_say_finish(x, "end_turn", "tool_use");
}

static bool takes(struct mock_span path, enum mock_op *ret_op)
{
	if (mock_path_ends(path, "/messages"))
		*ret_op = MOCK_OP_CHAT;
	else if (mock_path_ends(path, "/messages/count_tokens"))
		*ret_op = MOCK_OP_COUNT_TOKENS;
	else
		return false;
	return true;
}

static bool key_fits(const struct mock_exchange *x, const struct mock_request *request)
{
	return mock_key_is(x, mock_request_header(request, "x-api-key"));
}

/* ---- errors --------------------------------------------------------------- */

static void fmt_error(struct mock_bytes *out, int status, const char *message)
{
	static const struct {
		int status;
		const char *type, *message;
	} kinds[] = {
		{ 400, "invalid_request_error", "The request is not valid." },
		{ 401, "authentication_error", "invalid x-api-key" },
		{ 402, "billing_error", "Your credit balance is too low to access the Anthropic API." },
		{ 403, "permission_error", "Your API key does not have permission to use the specified resource." },
		{ 404, "not_found_error", "model: not found" },
		{ 405, "invalid_request_error", "Method Not Allowed" },
		{ 409, "conflict_error", "The request conflicts with another one." },
		{ 413, "request_too_large", "Request exceeds the maximum size" },
		{ 429, "rate_limit_error", "This request would exceed your organization's rate limit." },
		{ 500, "api_error", "Internal server error" },
		{ 504, "timeout_error", "The request timed out." },
		{ 529, "overloaded_error", "Overloaded" },
	};
	const char *type = status < 500 ? "invalid_request_error" : "api_error", *usual = "Internal server error";

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (kinds[i].status == status) {
			type = kinds[i].type;
			usual = kinds[i].message;
		}
	if (message == NULL)
		message = usual;
	mock_bytes_fmt(out, "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":\"", type);
	mock_bytes_json(out, message, strlen(message));
	mock_bytes_lit(out, "\"},\"request_id\":\"req_mock\"}");
}

/* ---- pieces --------------------------------------------------------------- */

static void put_thinking(struct mock_bytes *out, int64_t pieces)
{
	for (int64_t i = 1; i <= pieces; i++)
		mock_bytes_fmt(out, " r%lld", (long long)i);
}

void mock_anthropic_sign(const char *thinking, size_t n, char ret_signature[MOCK_SIGNATURE_BYTES])
{
	uint64_t hash = 14695981039346656037ull; /* FNV-1a */

	for (size_t i = 0; i < n; i++)
		hash = (hash ^ (unsigned char)thinking[i]) * 1099511628211ull;
	(void)snprintf(ret_signature, MOCK_SIGNATURE_BYTES, "EqoB%016llx/+==", (unsigned long long)hash);
}

static void sign(const struct mock_exchange *x, char ret_signature[MOCK_SIGNATURE_BYTES])
{
	struct mock_bytes thinking = { 0 };

	put_thinking(&thinking, mock_say_reasoning(x));
	mock_anthropic_sign(mock_bytes_at(&thinking), thinking.n, ret_signature);
	mock_bytes_fini(&thinking);
}

/* input: the prompt's three parts are disjoint. */
static void put_usage(struct mock_exchange *x, bool input, uint64_t output)
{
	uint64_t prompt = mock_say_prompt_tokens(x), cached = mock_say_cached_tokens(x);

	mock_bytes_lit(&x->body, "\"usage\":{");
	if (input)
		mock_bytes_fmt(&x->body, "\"input_tokens\":%llu,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":%llu,",
		    (unsigned long long)(prompt > cached ? prompt - cached : 0), (unsigned long long)cached);
	mock_bytes_fmt(&x->body, "\"output_tokens\":%llu%s}", (unsigned long long)(x->faults->usage == MOCK_USAGE_ZERO ? 0 : output),
	    input ? ",\"service_tier\":\"standard\"" : "");
}

/* Everything of a message before its content. */
static void put_opening(struct mock_exchange *x)
{
	mock_bytes_fmt(&x->body, "{\"model\":\"");
	mock_say_span(&x->body, x->entry->model);
	mock_bytes_fmt(&x->body, "\",\"id\":\"msg_mock_%llu\",\"type\":\"message\",\"role\":\"assistant\",\"content\":[",
	    (unsigned long long)x->entry->n);
}

static void put_tool_start(struct mock_bytes *out, int64_t call)
{
	mock_bytes_fmt(out, "{\"type\":\"tool_use\",\"id\":\"toolu_mock_%lld\",\"name\":\"get_weather\",\"input\":", (long long)call);
}

static void put_reason(struct mock_exchange *x)
{
	mock_bytes_lit(&x->body, "\"stop_reason\":");
	if (mock_says_finish(x)) {
		mock_bytes_putc(&x->body, '"');
		mock_bytes_json(&x->body, finish_of(x), strlen(finish_of(x)));
		mock_bytes_putc(&x->body, '"');
	} else {
		mock_bytes_lit(&x->body, "null");
	}
	mock_bytes_lit(&x->body, ",\"stop_sequence\":null");
}

/* ---- whole bodies --------------------------------------------------------- */

static void put_message(struct mock_exchange *x)
{
	const struct mock_faults *f = x->faults;
	struct mock_answer *a = &x->answer;
	char signature[MOCK_SIGNATURE_BYTES];

	put_opening(x);
	if (f->reasoning > 0) {
		sign(x, signature);
		mock_bytes_lit(&x->body, "{\"type\":\"thinking\",\"thinking\":\"");
		put_thinking(&x->body, f->reasoning);
		mock_bytes_fmt(&x->body, "\",\"signature\":\"%s\"},", signature);
	}
	for (int64_t i = 0; i < f->tool; i++) {
		mock_bytes_puts(&x->body, i > 0 ? "," : "");
		put_tool_start(&x->body, i);
		mock_bytes_put(&x->body, mock_tool_arguments, MOCK_TOOL_ARGUMENTS_BYTES);
		mock_bytes_putc(&x->body, '}');
	}
	if (f->tool <= 0) {
		mock_bytes_lit(&x->body, "{\"type\":\"text\",\"text\":\"");
		mock_say_whole_text(x);
		mock_bytes_lit(&x->body, "\"}");
		a->tokens_in_hand = (uint64_t)a->n_tokens;
	}
	mock_bytes_lit(&x->body, "],");
	put_reason(x);
	if (f->usage != MOCK_USAGE_NONE) {
		mock_bytes_putc(&x->body, ',');
		put_usage(x, /* input= */ true, (uint64_t)(a->n_tokens + mock_say_reasoning(x)));
	}
	mock_bytes_putc(&x->body, '}');
	if (f->malformed > 0)
		x->body.n = x->body.n * 2 / 3;
}

static void put_body(struct mock_exchange *x)
{
	if (x->answer.op == MOCK_OP_COUNT_TOKENS)
		mock_bytes_fmt(&x->body, "{\"input_tokens\":%llu}", (unsigned long long)mock_say_prompt_tokens(x));
	else
		put_message(x);
}

/* ---- streams -------------------------------------------------------------- */

static size_t begin(struct mock_exchange *x, const char *type)
{
	size_t data_at = mock_sse_begin(x, type);

	mock_bytes_fmt(&x->body, "{\"type\":\"%s\"", type);
	return data_at;
}

/* The last byte has blanks before it now and then, as the provider's have. */
static void end(struct mock_exchange *x, size_t data_at)
{
	mock_bytes_puts(&x->body, x->answer.event_n % 3 == 0 ? "    }" : "}");
	mock_sse_end(x, data_at);
}

static size_t begin_block_event(struct mock_exchange *x, const char *type)
{
	size_t data_at = begin(x, type);

	mock_bytes_fmt(&x->body, ",\"index\":%lld", (long long)x->answer.block);
	return data_at;
}

static size_t begin_delta(struct mock_exchange *x, const char *type, const char *member)
{
	size_t data_at = begin_block_event(x, "content_block_delta");

	mock_bytes_fmt(&x->body, ",\"delta\":{\"type\":\"%s\",\"%s\":\"", type, member);
	return data_at;
}

static void end_delta(struct mock_exchange *x, size_t data_at)
{
	mock_bytes_lit(&x->body, "\"}");
	end(x, data_at);
}

static void close_block(struct mock_exchange *x)
{
	size_t data_at;

	if (x->answer.block_open == 0)
		return;
	if (x->answer.block_open == 'r') {
		char signature[MOCK_SIGNATURE_BYTES];

		sign(x, signature);
		data_at = begin_delta(x, "signature_delta", "signature");
		mock_bytes_puts(&x->body, signature);
		end_delta(x, data_at);
	}
	data_at = begin_block_event(x, "content_block_stop");
	end(x, data_at);
	x->answer.block++;
	x->answer.block_open = 0;
}

/* kind: 'r' thinking, 't' text; a tool call opens its own. */
static void open_block(struct mock_exchange *x, char kind)
{
	size_t data_at;

	if (x->answer.block_open == kind)
		return;
	close_block(x);
	data_at = begin_block_event(x, "content_block_start");
	mock_bytes_puts(&x->body, kind == 'r' ? ",\"content_block\":{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}" :
	                                        ",\"content_block\":{\"type\":\"text\",\"text\":\"\"}");
	end(x, data_at);
	x->answer.block_open = kind;
}

static void put_role(struct mock_exchange *x)
{
	size_t data_at = begin(x, "message_start");

	mock_bytes_lit(&x->body, ",\"message\":");
	put_opening(x);
	mock_bytes_lit(&x->body, "],\"stop_reason\":null,\"stop_sequence\":null");
	if (x->faults->usage != MOCK_USAGE_NONE) {
		mock_bytes_putc(&x->body, ',');
		put_usage(x, /* input= */ true, 1);
	}
	mock_bytes_putc(&x->body, '}');
	end(x, data_at);
	data_at = begin(x, "ping");
	end(x, data_at);
}

static void put_reasoning(struct mock_exchange *x)
{
	size_t data_at;

	open_block(x, 'r');
	data_at = begin_delta(x, "thinking_delta", "thinking");
	mock_bytes_fmt(&x->body, " r%lld", (long long)x->answer.i);
	end_delta(x, data_at);
	x->answer.n_said++;
}

static void put_token(struct mock_exchange *x, struct mock_span token)
{
	size_t data_at;

	open_block(x, 't');
	data_at = begin_delta(x, "text_delta", "text");
	mock_say_text(x, token);
	end_delta(x, data_at);
	x->answer.n_said++;
}

static void put_line(struct mock_exchange *x)
{
	size_t start, data_at;

	open_block(x, 't');
	start = x->body.n + strlen("event: content_block_delta\n");
	data_at = begin_delta(x, "text_delta", "text");
	mock_say_filling(x, start, strlen("\"}}"));
	mock_bytes_lit(&x->body, "\"}}");
	mock_sse_end(x, data_at);
}

static void put_tiny(struct mock_exchange *x)
{
	size_t data_at;

	open_block(x, 't');
	data_at = begin_delta(x, "text_delta", "text");
	mock_bytes_putc(&x->body, '.');
	mock_bytes_lit(&x->body, "\"}}");
	mock_sse_end(x, data_at);
}

static bool put_tool(struct mock_exchange *x)
{
	int64_t call = x->answer.i / TOOL_STEPS, at = x->answer.i % TOOL_STEPS;
	size_t from = (size_t)(at - 1) * TOOL_FRAGMENT, left = MOCK_TOOL_ARGUMENTS_BYTES - from;
	size_t data_at;

	if (call >= x->faults->tool)
		return false;
	if (at == 0) {
		close_block(x);
		data_at = begin_block_event(x, "content_block_start");
		mock_bytes_lit(&x->body, ",\"content_block\":");
		put_tool_start(&x->body, call);
		mock_bytes_lit(&x->body, "{}}");
		end(x, data_at);
		x->answer.block_open = 'u';
	} else if (at == TOOL_STEPS - 1) {
		close_block(x);
	} else {
		data_at = begin_delta(x, "input_json_delta", "partial_json");
		mock_bytes_json(&x->body, mock_tool_arguments + from, left < TOOL_FRAGMENT ? left : TOOL_FRAGMENT);
		end_delta(x, data_at);
	}
	x->answer.n_said++;
	return true;
}

static void put_message_delta(struct mock_exchange *x)
{
	size_t data_at = begin(x, "message_delta");

	mock_bytes_lit(&x->body, ",\"delta\":{");
	put_reason(x);
	mock_bytes_putc(&x->body, '}');
	if (x->faults->usage != MOCK_USAGE_NONE) {
		mock_bytes_putc(&x->body, ',');
		put_usage(x, x->faults->usage == MOCK_USAGE_CUMULATIVE || x->faults->usage == MOCK_USAGE_DOUBLE, x->answer.n_said);
	}
	end(x, data_at);
}

static void put_finish(struct mock_exchange *x)
{
	close_block(x);
	put_message_delta(x);
	if (x->faults->usage == MOCK_USAGE_DOUBLE)
		put_message_delta(x);
}

static void put_done(struct mock_exchange *x)
{
	size_t data_at = begin(x, "message_stop");

	end(x, data_at);
}

static void put_error_event(struct mock_exchange *x, const char *body, size_t n)
{
	size_t data_at = mock_sse_begin(x, "error");

	mock_bytes_put(&x->body, body, n);
	mock_sse_end(x, data_at);
}

static const char *misfit(const struct mock_exchange *x, const struct mock_faults *f)
{
	if (f->choices > 1)
		return "choices needs a dialect that has several.";
	if (x->answer.op == MOCK_OP_COUNT_TOKENS && (f->tool > 0 || f->reasoning > 0 || f->cut_tokens >= 0))
		return "count_tokens answers with a number.";
	return NULL;
}

const struct mock_dialect mock_anthropic = {
	.name = "anthropic",
	.takes = takes,
	.key_fits = key_fits,
	.read = mock_anthropic_read,
	.fmt_error = fmt_error,
	.body = put_body,
	.misfit = misfit,
	.stream_type = "text/event-stream; charset=utf-8",
	.role = put_role,
	.reasoning = put_reasoning,
	.token = put_token,
	.line = put_line,
	.tiny = put_tiny,
	.tool = put_tool,
	.finish = put_finish,
	.done = put_done,
	.error = put_error_event,
};
