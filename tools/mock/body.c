/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pieces that answers are made of, and every body that is no stream:
 * whole chats and completions, embeddings, model lists, errors, the gzip bomb.
 */
#include "tools/mock/answer.h"

#include <openssl/evp.h>
#include <string.h>
#include <zlib.h>

#define PROMPT_TOKENS 10              /* round, so that a bill is checked by eye */
#define EMBEDDING_FLOATS 8            /* enough to tell vectors apart */
#define EMBEDDING_FLOATS_MAX 4096     /* that "dimensions" may ask for */
#define BOMB_BYTES ((size_t)64 << 20) /* unpacked size of the gzip bomb: the agent's body limit */

const char mock_tool_arguments[] = "{\"city\":\"Paris\",\"unit\":\"celsius\"}";
_Static_assert(sizeof(mock_tool_arguments) - 1 == MOCK_TOOL_ARGUMENTS_BYTES, "see answer.h");

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

/* ---- pieces --------------------------------------------------------------- */

/* The next word of the text with the blanks before it; an empty span at its end. */
static struct mock_span peek_word(const struct mock_answer *a, size_t at)
{
	size_t end = at;

	while (end < a->text.n && (a->text.at[end] == ' ' || a->text.at[end] == '\n'))
		end++;
	while (end < a->text.n && a->text.at[end] != ' ' && a->text.at[end] != '\n')
		end++;
	return (struct mock_span){ a->text.at + at, end - at };
}

int64_t mock_say_count_words(const struct mock_answer *a)
{
	int64_t n = 0;

	for (size_t at = 0; at < a->text.n; n++)
		at += peek_word(a, at).n;
	return n;
}

/* Token a->i into caller's buffer or the text itself; does not move on. */
struct mock_span mock_say_token(const struct mock_answer *a, char buffer[static 32])
{
	struct mock_span word = peek_word(a, a->text_at);

	if (word.n == 0) {
		word.at = buffer;
		word.n = (size_t)snprintf(buffer, 32, " t%lld", (long long)(a->i + 1));
	}
	return word;
}

void mock_say_span(struct mock_bytes *out, struct mock_span span)
{
	mock_bytes_json(out, span.at, span.n);
}

int64_t mock_say_reasoning(const struct mock_exchange *x)
{
	return x->faults->reasoning > 0 ? x->faults->reasoning : 0;
}

void mock_say_usage(struct mock_exchange *x, uint64_t completion)
{
	const struct mock_faults *f = x->faults;
	bool zero = f->usage == MOCK_USAGE_ZERO;
	uint64_t prompt = zero ? 0 : f->prompt_tokens >= 0 ? (uint64_t)f->prompt_tokens : PROMPT_TOKENS;
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
	mock_bytes_u64(&x->body, zero || f->cached_tokens < 0 ? 0 : (uint64_t)f->cached_tokens);
	mock_bytes_lit(&x->body, "},\"completion_tokens_details\":{\"reasoning_tokens\":");
	mock_bytes_u64(&x->body, reasoning < completion ? reasoning : completion);
	mock_bytes_lit(&x->body, "}}");
}

const char *mock_say_finish(const struct mock_exchange *x)
{
	if (x->faults->finish.at != NULL)
		return x->faults->finish.at;
	return x->faults->tool > 0 ? "tool_calls" : "stop";
}

bool mock_says_finish(const struct mock_exchange *x)
{
	return strcmp(mock_say_finish(x), "none") != 0;
}

/* ---- fixed bodies --------------------------------------------------------- */

/* id, object, created, model: how every OpenAI object begins. */
void mock_say_opening(struct mock_exchange *x, struct mock_bytes *out, const char *object)
{
	mock_bytes_puts(out, x->answer.completion ? "{\"id\":\"cmpl-mock-" : "{\"id\":\"chatcmpl-mock-");
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
	mock_bytes_json(out, mock_tool_arguments, sizeof(mock_tool_arguments) - 1);
	mock_bytes_lit(out, "\"}}");
}

static void put_choice_content(struct mock_exchange *x)
{
	struct mock_answer *a = &x->answer;
	char buffer[32];

	a->text_at = 0;
	for (a->i = 0; a->i < a->n_tokens; a->i++) {
		struct mock_span token = mock_say_token(a, buffer);

		mock_say_span(&x->body, token);
		if (a->i == 0 && x->faults->invalid_utf8)
			mock_bytes_lit(&x->body, "\xff\xfe\xc3(");
		if (a->i == 0 && x->faults->nul)
			mock_bytes_putc(&x->body, '\0');
		a->text_at += token.at == buffer ? 0 : token.n;
	}
	if (x->faults->line > 0)
		mock_bytes_fill(&x->body, 'x', (size_t)x->faults->line);
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
		put_choice_content(x);
		mock_bytes_lit(&x->body, "\",\"refusal\":null}");
	}
}

void mock_body_completion(struct mock_exchange *x)
{
	const struct mock_faults *f = x->faults;
	struct mock_answer *a = &x->answer;
	uint64_t said = (uint64_t)((a->n_tokens + mock_say_reasoning(x)) * a->n_choices);

	mock_say_opening(x, &x->body, a->completion ? "text_completion" : "chat.completion");
	mock_bytes_lit(&x->body, "\"choices\":[");
	for (int64_t choice = 0; choice < a->n_choices; choice++) {
		if (choice > 0)
			mock_bytes_putc(&x->body, ',');
		mock_bytes_lit(&x->body, "{\"index\":");
		mock_bytes_u64(&x->body, (uint64_t)choice);
		if (a->completion) {
			mock_bytes_lit(&x->body, ",\"text\":\"");
			put_choice_content(x);
			mock_bytes_putc(&x->body, '"');
		} else {
			put_message(x);
		}
		mock_bytes_lit(&x->body, ",\"logprobs\":null,\"finish_reason\":");
		if (mock_says_finish(x)) {
			mock_bytes_putc(&x->body, '"');
			mock_bytes_json(&x->body, mock_say_finish(x), strlen(mock_say_finish(x)));
			mock_bytes_lit(&x->body, "\"}");
		} else {
			mock_bytes_lit(&x->body, "null}");
		}
	}
	mock_bytes_putc(&x->body, ']');
	if (f->usage != MOCK_USAGE_NONE) {
		mock_bytes_putc(&x->body, ',');
		mock_say_usage(x, said);
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

void mock_body_embeddings(struct mock_exchange *x)
{
	const struct mock_answer *a = &x->answer;
	uint64_t prompt = x->faults->prompt_tokens >= 0 ? (uint64_t)x->faults->prompt_tokens : PROMPT_TOKENS;
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

static void put_model(struct mock_exchange *x, const char *name, bool more)
{
	mock_bytes_lit(&x->body, "{\"id\":\"");
	mock_bytes_json(&x->body, name, strlen(name));
	mock_bytes_lit(&x->body, "\",\"object\":\"model\",\"created\":1700000000,\"owned_by\":\"");
	mock_bytes_json(&x->body, x->mock->name, strlen(x->mock->name));
	mock_bytes_puts(&x->body, more ? "\"}," : "\"}");
}

void mock_body_models(struct mock_exchange *x)
{
	const char *name;

	mock_bytes_lit(&x->body, "{\"object\":\"list\",\"data\":[");
	for (size_t i = 0; (name = mock_rules_literal(x->mock->rules, i)) != NULL; i++)
		put_model(x, name, true);
	put_model(x, "mock-model", false);
	mock_bytes_lit(&x->body, "]}");
}

/* BOMB_BYTES of one letter, packed once; about 64 KiB. */
const struct mock_bytes *mock_body_bomb(void)
{
	static struct mock_bytes packed;
	static unsigned char letters[64 << 10];
	z_stream z = { 0 };

	if (packed.n > 0)
		return &packed;
	memset(letters, 'a', sizeof(letters));
	if (deflateInit2(&z, Z_BEST_COMPRESSION, Z_DEFLATED, 15 + 16 /* gzip */, 9, Z_DEFAULT_STRATEGY) != Z_OK)
		return &packed;
	for (size_t done = 0; done < BOMB_BYTES; done += sizeof(letters)) {
		int flush = done + sizeof(letters) == BOMB_BYTES ? Z_FINISH : Z_NO_FLUSH;

		z.next_in = letters;
		z.avail_in = sizeof(letters);
		do {
			size_t room = 4096;

    z.next_out = (Bytef *)mock_bytes_reserve(&packed, room);
    z.avail_out = (uInt)room;
    (void)deflate(&z, flush);
    packed.n += room - z.avail_out;
		} while (z.avail_out == 0);
	}
	(void)deflateEnd(&z);
	return &packed;
}
