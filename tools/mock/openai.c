/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OpenAI's dialect: chats, the older completions, embeddings.
 */
#include "tools/mock/dialect.h"

#include <openssl/evp.h>
#include <string.h>
#include <strings.h>

#define TOOL_FRAGMENT 9           /* bytes of arguments per delta: splits inside words and strings */
#define EMBEDDING_FLOATS 8        /* enough to tell vectors apart */
#define EMBEDDING_FLOATS_MAX 4096 /* that "dimensions" may ask for */

static bool is_completion(const struct mock_exchange *x)
{
	return x->answer.op == MOCK_OP_COMPLETION;
}

static const char *finish_of(const struct mock_exchange *x)
{
	return mock_say_finish(x, "stop", "tool_calls");
}

/* ---- requests ------------------------------------------------------------- */

static bool takes(struct mock_span path, enum mock_op *ret_op)
{
	static const struct {
		const char *tail;
		enum mock_op op;
	} rows[] = {
		{ "/chat/completions", MOCK_OP_CHAT }, { "/completions", MOCK_OP_COMPLETION }, { "/embeddings", MOCK_OP_EMBEDDINGS },
		{ "/models", MOCK_OP_MODELS },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (mock_path_ends(path, rows[i].tail)) {
			*ret_op = rows[i].op;
			return true;
		}
	return false;
}

static bool key_fits(const struct mock_exchange *x, const struct mock_request *request)
{
	struct mock_span key = request->authorization;

	if (key.n > 7 && strncasecmp(key.at, "Bearer ", 7) == 0) {
		key.at += 7;
		key.n -= 7;
	}
	return mock_key_is(x, key);
}

static int read_request(struct mock_exchange *x, const struct mock_request *request, struct mock_ask *ask, char *why, size_t why_bytes)
{
	const char *bad_json = NULL, *missing = NULL;

	if (x->answer.op == MOCK_OP_MODELS)
		return 0;
	(void)mock_scan(request->body.at, request->body.n, ask, &bad_json);
	x->answer.usage_asked = ask->include_usage;
	x->answer.base64 = ask->base64;
	x->answer.dimensions = ask->dimensions;
	if (bad_json != NULL) {
		(void)snprintf(why, why_bytes, "We could not parse the JSON body of your request: %s.", bad_json);
		return 400;
	}
	if (ask->n_model == 0) {
		(void)snprintf(why, why_bytes, "You must provide a model parameter.");
		return 400;
	}
	if (x->answer.op == MOCK_OP_CHAT && ask->n_messages == 0)
		missing = "messages";
	else if (x->answer.op == MOCK_OP_COMPLETION && ask->n_inputs == 0)
		missing = "prompt";
	else if (x->answer.op == MOCK_OP_EMBEDDINGS && ask->n_inputs == 0)
		missing = "input";
	if (x->answer.op == MOCK_OP_COMPLETION)
		ask->n_choices *= (int64_t)ask->n_inputs;
	else if (x->answer.op == MOCK_OP_EMBEDDINGS)
		ask->n_choices = (int64_t)ask->n_inputs;
	if (missing == NULL)
		return 0;
	(void)snprintf(why, why_bytes, "Missing required parameter: '%s'.", missing);
	return 400;
}

static const char *misfit(const struct mock_exchange *x, const struct mock_faults *f)
{
	return is_completion(x) && (f->tool > 0 || f->reasoning > 0) ? "tool and reasoning need chat completions." : NULL;
}

/* ---- errors --------------------------------------------------------------- */

static const struct error_kind {
	int status;
	const char *type, *code, *message;
} error_kinds[] = {
	{ 400, "invalid_request_error", "invalid_value", "The request is not valid." },
	{ 401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided." },
	{ 402, "insufficient_quota", "insufficient_quota", "Insufficient balance." },
	{ 403, "permission_error", "forbidden", "You have no access to this model." },
	{ 404, "invalid_request_error", "model_not_found", "The model does not exist." },
	{ 405, "invalid_request_error", "method_not_allowed", "This method is not allowed here." },
	{ 408, "timeout_error", "request_timeout", "The request took too long." },
	{ 409, "conflict_error", "conflict", "The request conflicts with another one." },
	{ 413, "invalid_request_error", "request_too_large", "The request is too large." },
	{ 422, "invalid_request_error", "unprocessable_entity", "The request cannot be processed." },
	{ 429, "requests", "rate_limit_exceeded", "Rate limit reached for requests." },
	{ 451, "invalid_request_error", "unavailable_for_legal_reasons", "Not available for legal reasons." },
	{ 498, "capacity_error", "flex_capacity_exceeded", "No flex capacity is left." },
	{ 503, "server_error", "server_is_overloaded", "The server is overloaded; try again later." },
	{ 529, "overloaded_error", "overloaded", "Overloaded." },
};

void mock_answer_fmt_error(struct mock_bytes *out, int status, const char *message)
{
	const struct error_kind generic = { status, status < 500 ? "invalid_request_error" : "server_error",
	    status < 500 ? "invalid_request" : "internal_error",
	    "The server had an error while processing the request." };
	const struct error_kind *kind = &generic;

	for (size_t i = 0; i < sizeof(error_kinds) / sizeof(error_kinds[0]); i++)
		if (error_kinds[i].status == status)
			kind = &error_kinds[i];
	if (message == NULL)
		message = kind->message;
	mock_bytes_lit(out, "{\"error\":{\"message\":\"");
	mock_bytes_json(out, message, strlen(message));
	mock_bytes_fmt(out, "\",\"type\":\"%s\",\"param\":null,\"code\":\"%s\"}}", kind->type, kind->code);
}

/* ---- whole bodies --------------------------------------------------------- */

static void put_usage(struct mock_exchange *x, uint64_t completion)
{
	const struct mock_faults *f = x->faults;
	bool zero = f->usage == MOCK_USAGE_ZERO;
	uint64_t prompt = mock_say_prompt_tokens(x);
	uint64_t reasoning = zero ? 0 : (uint64_t)(mock_say_reasoning(x) * x->answer.n_choices);

	if (zero)
		completion = 0;
	mock_bytes_lit(&x->body, "\"usage\":{\"prompt_tokens\":");
	mock_bytes_u64(&x->body, prompt);
	mock_bytes_lit(&x->body, ",\"completion_tokens\":");
	mock_bytes_u64(&x->body, completion);
	mock_bytes_lit(&x->body, ",\"total_tokens\":");
	mock_bytes_u64(&x->body, prompt + completion);
	mock_bytes_lit(&x->body, ",\"prompt_tokens_details\":{\"cached_tokens\":");
	mock_bytes_u64(&x->body, mock_say_cached_tokens(x));
	mock_bytes_lit(&x->body, "},\"completion_tokens_details\":{\"reasoning_tokens\":");
	mock_bytes_u64(&x->body, reasoning < completion ? reasoning : completion);
	mock_bytes_lit(&x->body, "}}");
}

/* id, object, created, model: how every OpenAI object begins. */
static void put_opening(struct mock_exchange *x, struct mock_bytes *out, const char *object)
{
	mock_bytes_puts(out, is_completion(x) ? "{\"id\":\"cmpl-mock-" : "{\"id\":\"chatcmpl-mock-");
	mock_bytes_u64(out, x->entry->n);
	mock_bytes_lit(out, "\",\"object\":\"");
	mock_bytes_puts(out, object);
	mock_bytes_lit(out, "\",\"created\":");
	mock_bytes_u64(out, (uint64_t)x->mock->date_s);
	mock_bytes_lit(out, ",\"model\":\"");
	mock_say_span(out, x->entry->model);
	mock_bytes_lit(out, "\",");
}

static void put_tool_call(struct mock_bytes *out, int64_t i)
{
	mock_bytes_fmt(out, "{\"id\":\"call_mock_%lld\",\"type\":\"function\",\"function\":{\"name\":\"get_weather\","
	    "\"arguments\":\"", (long long)i);
	mock_bytes_json(out, mock_tool_arguments, MOCK_TOOL_ARGUMENTS_BYTES);
	mock_bytes_lit(out, "\"}}");
}

static void put_message(struct mock_exchange *x)
{
	const struct mock_faults *f = x->faults;

	mock_bytes_lit(&x->body, ",\"message\":{\"role\":\"assistant\",");
	if (f->reasoning > 0) {
		mock_bytes_lit(&x->body, "\"reasoning_content\":\"");
		for (int64_t i = 0; i < f->reasoning; i++)
			mock_bytes_fmt(&x->body, " r%lld", (long long)(i + 1));
		mock_bytes_lit(&x->body, "\",");
	}
	if (f->tool > 0) {
		mock_bytes_lit(&x->body, "\"content\":null,\"tool_calls\":[");
		for (int64_t i = 0; i < f->tool; i++) {
			if (i > 0)
				mock_bytes_putc(&x->body, ',');
			put_tool_call(&x->body, i);
		}
		mock_bytes_lit(&x->body, "]}");
	} else {
		mock_bytes_lit(&x->body, "\"content\":\"");
		mock_say_whole_text(x);
		mock_bytes_lit(&x->body, "\",\"refusal\":null}");
	}
}

static void put_completion(struct mock_exchange *x)
{
	const struct mock_faults *f = x->faults;
	struct mock_answer *a = &x->answer;
	uint64_t said = (uint64_t)((a->n_tokens + mock_say_reasoning(x)) * a->n_choices);

	put_opening(x, &x->body, is_completion(x) ? "text_completion" : "chat.completion");
	mock_bytes_lit(&x->body, "\"choices\":[");
	for (int64_t choice = 0; choice < a->n_choices; choice++) {
		if (choice > 0)
			mock_bytes_putc(&x->body, ',');
		mock_bytes_lit(&x->body, "{\"index\":");
		mock_bytes_u64(&x->body, (uint64_t)choice);
		if (is_completion(x)) {
			mock_bytes_lit(&x->body, ",\"text\":\"");
			mock_say_whole_text(x);
			mock_bytes_putc(&x->body, '"');
		} else {
			put_message(x);
		}
		mock_bytes_lit(&x->body, ",\"logprobs\":null,\"finish_reason\":");
		if (mock_says_finish(x)) {
			mock_bytes_putc(&x->body, '"');
			mock_bytes_json(&x->body, finish_of(x), strlen(finish_of(x)));
			mock_bytes_lit(&x->body, "\"}");
		} else {
			mock_bytes_lit(&x->body, "null}");
		}
	}
	mock_bytes_putc(&x->body, ']');
	if (f->usage != MOCK_USAGE_NONE) {
		mock_bytes_putc(&x->body, ',');
		put_usage(x, said);
	}
	mock_bytes_putc(&x->body, '}');
	a->tokens_in_hand = f->tool > 0 ? 0 : (uint64_t)(a->n_tokens * a->n_choices);
	if (f->malformed > 0)
		x->body.n = x->body.n * 2 / 3;
}

/* Floats as they lie in memory: little-endian float32, as the API has them. */
static void put_base64(struct mock_bytes *out, const float *vector, size_t n)
{
	size_t bytes = n * sizeof(*vector);
	char *room = mock_bytes_reserve(out, (bytes + 2) / 3 * 4 + 1);

	out->n += (size_t)EVP_EncodeBlock((unsigned char *)room, (const unsigned char *)vector, (int)bytes);
}

static void put_vector(struct mock_exchange *x, int64_t i, size_t n)
{
	float vector[EMBEDDING_FLOATS_MAX];

	for (size_t j = 0; j < n; j++)
		vector[j] = (float)((i * 37 + (int64_t)j * 101) % 1000) / 1000;
	if (x->answer.base64) {
		mock_bytes_putc(&x->body, '"');
		put_base64(&x->body, vector, n);
		mock_bytes_putc(&x->body, '"');
		return;
	}
	mock_bytes_putc(&x->body, '[');
	for (size_t j = 0; j < n; j++)
		mock_bytes_fmt(&x->body, "%s%.3f", j > 0 ? "," : "", (double)vector[j]);
	mock_bytes_putc(&x->body, ']');
}

static void put_embeddings(struct mock_exchange *x)
{
	const struct mock_answer *a = &x->answer;
	uint64_t prompt = mock_say_prompt_tokens(x);
	size_t n = a->dimensions > 0 && a->dimensions <= EMBEDDING_FLOATS_MAX ? (size_t)a->dimensions : EMBEDDING_FLOATS;

	mock_bytes_lit(&x->body, "{\"object\":\"list\",\"data\":[");
	for (int64_t i = 0; i < a->n_choices; i++) {
		mock_bytes_fmt(&x->body, "%s{\"object\":\"embedding\",\"index\":%lld,\"embedding\":", i > 0 ? "," : "",
		    (long long)i);
		put_vector(x, i, n);
		mock_bytes_putc(&x->body, '}');
	}
	mock_bytes_lit(&x->body, "],\"model\":\"");
	mock_say_span(&x->body, x->entry->model);
	mock_bytes_putc(&x->body, '"');
	if (x->faults->usage != MOCK_USAGE_NONE)
		mock_bytes_fmt(&x->body, ",\"usage\":{\"prompt_tokens\":%llu,\"total_tokens\":%llu}",
		    (unsigned long long)prompt, (unsigned long long)prompt);
	mock_bytes_putc(&x->body, '}');
}

static void put_body(struct mock_exchange *x)
{
	if (x->answer.op == MOCK_OP_EMBEDDINGS)
		put_embeddings(x);
	else if (x->answer.op == MOCK_OP_MODELS)
		mock_body_models(x);
	else
		put_completion(x);
}

/* ---- streams -------------------------------------------------------------- */

/* A chunk up to and with {"index":N,"delta":{, or {"index":N, where the choice itself has the text. */
static size_t begin_chunk(struct mock_exchange *x, int64_t choice)
{
	size_t data_at = mock_sse_begin(x, NULL);

	mock_bytes_put(&x->body, mock_bytes_at(&x->answer.prefix), x->answer.prefix.n);
	mock_bytes_lit(&x->body, "{\"index\":");
	mock_bytes_u64(&x->body, (uint64_t)choice);
	mock_bytes_puts(&x->body, is_completion(x) ? "," : ",\"delta\":{");
	return data_at;
}

/* finish NULL = null. */
static void end_chunk(struct mock_exchange *x, size_t data_at, const char *finish)
{
	if (!is_completion(x))
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
		put_usage(x, x->answer.n_said);
	} else if (x->answer.usage_asked) {
		mock_bytes_lit(&x->body, ",\"usage\":null");
	}
	mock_bytes_putc(&x->body, '}');
	mock_sse_end(x, data_at);
}

static void put_error_event(struct mock_exchange *x, const char *body, size_t n)
{
	size_t data_at = mock_sse_begin(x, NULL);

	mock_bytes_put(&x->body, body, n);
	mock_sse_end(x, data_at);
}

static void put_role(struct mock_exchange *x)
{
	struct mock_answer *a = &x->answer;

	put_opening(x, &a->prefix, is_completion(x) ? "text_completion" : "chat.completion.chunk");
	mock_bytes_lit(&a->prefix, "\"choices\":[");
	for (int64_t choice = 0; choice < a->n_choices && !is_completion(x); choice++) {
		size_t data_at = begin_chunk(x, choice);

		mock_bytes_lit(&x->body, "\"role\":\"assistant\",\"content\":\"\",\"refusal\":null");
		end_chunk(x, data_at, NULL);
	}
}

static void put_reasoning(struct mock_exchange *x)
{
	for (int64_t choice = 0; choice < x->answer.n_choices; choice++) {
		size_t data_at = begin_chunk(x, choice);

		mock_bytes_fmt(&x->body, "\"reasoning_content\":\" r%lld\"", (long long)x->answer.i);
		x->answer.n_said++;
		end_chunk(x, data_at, NULL);
	}
}

/* The member that has the text. */
static void begin_text(struct mock_exchange *x)
{
	mock_bytes_puts(&x->body, is_completion(x) ? "\"text\":\"" : "\"content\":\"");
}

static void put_token(struct mock_exchange *x, struct mock_span token)
{
	for (int64_t choice = 0; choice < x->answer.n_choices; choice++) {
		size_t data_at = begin_chunk(x, choice);

		begin_text(x);
		mock_say_text(x, token);
		mock_bytes_putc(&x->body, '"');
		x->answer.n_said++;
		end_chunk(x, data_at, NULL);
	}
}

static void put_line(struct mock_exchange *x)
{
	const char *tail = is_completion(x) ? "\",\"logprobs\":null,\"finish_reason\":null}]}" :
	                                      "\"},\"logprobs\":null,\"finish_reason\":null}]}";
	size_t start = x->body.n;
	size_t data_at = begin_chunk(x, 0);

	begin_text(x);
	mock_say_filling(x, start, strlen(tail));
	mock_bytes_puts(&x->body, tail);
	mock_sse_end(x, data_at);
}

static void put_tiny(struct mock_exchange *x)
{
	size_t data_at = mock_sse_begin(x, NULL);

	mock_bytes_puts(&x->body, is_completion(x) ? "{\"choices\":[{\"index\":0,\"text\":\".\"}]}" :
	                                                 "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\".\"}}]}");
	mock_sse_end(x, data_at);
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
	return true;
}

static void put_finish(struct mock_exchange *x)
{
	for (int64_t choice = 0; choice < x->answer.n_choices && mock_says_finish(x); choice++)
		end_chunk(x, begin_chunk(x, choice), finish_of(x));
}

static void put_usage_chunk(struct mock_exchange *x)
{
	const struct mock_answer *a = &x->answer;
	int usage = x->faults->usage;
	size_t data_at;

	if (usage == MOCK_USAGE_NONE || !(a->usage_asked || usage == MOCK_USAGE_ALWAYS || usage == MOCK_USAGE_DOUBLE))
		return;
	data_at = mock_sse_begin(x, NULL);
	mock_bytes_put(&x->body, mock_bytes_at(&a->prefix), a->prefix.n);
	mock_bytes_lit(&x->body, "],");
	put_usage(x, a->n_said);
	mock_bytes_putc(&x->body, '}');
	mock_sse_end(x, data_at);
}

static void put_done(struct mock_exchange *x)
{
	size_t data_at = mock_sse_begin(x, NULL);

	mock_bytes_lit(&x->body, "[DONE]");
	mock_sse_end(x, data_at);
}

const struct mock_dialect mock_openai = {
	.name = "openai-chat",
	.takes = takes,
	.key_fits = key_fits,
	.read = read_request,
	.fmt_error = mock_answer_fmt_error,
	.body = put_body,
	.misfit = misfit,
	.stream_type = "text/event-stream; charset=utf-8",
	.role = put_role,
	.reasoning = put_reasoning,
	.token = put_token,
	.line = put_line,
	.tiny = put_tiny,
	.tool = put_tool_fragment,
	.finish = put_finish,
	.usage = put_usage_chunk,
	.done = put_done,
	.error = put_error_event,
};
