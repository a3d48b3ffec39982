/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pieces that answers in every dialect are made of, and the bodies that
 * belong to none: model lists, the gzip bomb.
 */
#include "tools/mock/dialect.h"

#include <string.h>
#include <strings.h>
#include <zlib.h>

#define PROMPT_TOKENS 10              /* round, so that a bill is checked by eye */
#define BOMB_BYTES ((size_t)64 << 20) /* unpacked size of the gzip bomb: the agent's body limit */

const char mock_tool_arguments[] = "{\"city\":\"Paris\",\"unit\":\"celsius\"}";
_Static_assert(sizeof(mock_tool_arguments) - 1 == MOCK_TOOL_ARGUMENTS_BYTES, "see answer.h");

bool mock_path_ends(struct mock_span path, const char *tail)
{
	size_t n = strlen(tail);

	return path.n >= n && memcmp(path.at + path.n - n, tail, n) == 0;
}

bool mock_span_is(struct mock_span span, const char *word)
{
	return span.n == strlen(word) && memcmp(span.at, word, span.n) == 0;
}

bool mock_key_is(const struct mock_exchange *x, struct mock_span key)
{
	return x->mock->key == NULL || mock_span_is(key, x->mock->key);
}

struct mock_span mock_request_header(const struct mock_request *request, const char *name)
{
	for (size_t i = 0; i < request->n_headers; i++)
		if (request->header[i].name.n == strlen(name) && strncasecmp(request->header[i].name.at, name, strlen(name)) == 0)
			return request->header[i].value;
	return (struct mock_span){ NULL, 0 };
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

uint64_t mock_say_prompt_tokens(const struct mock_exchange *x)
{
	const struct mock_faults *f = x->faults;

	return f->usage == MOCK_USAGE_ZERO ? 0 : f->prompt_tokens >= 0 ? (uint64_t)f->prompt_tokens : PROMPT_TOKENS;
}

uint64_t mock_say_cached_tokens(const struct mock_exchange *x)
{
	return x->faults->usage == MOCK_USAGE_ZERO || x->faults->cached_tokens < 0 ? 0 : (uint64_t)x->faults->cached_tokens;
}

const char *mock_say_finish(const struct mock_exchange *x, const char *usual, const char *of_tools)
{
	if (x->faults->finish.at != NULL)
		return x->faults->finish.at;
	return x->faults->tool > 0 ? of_tools : usual;
}

bool mock_says_finish(const struct mock_exchange *x)
{
	return x->faults->finish.at == NULL || strcmp(x->faults->finish.at, "none") != 0;
}

void mock_say_text(struct mock_exchange *x, struct mock_span token)
{
	mock_say_span(&x->body, token);
	if (x->answer.i == 0 && x->faults->invalid_utf8)
		mock_bytes_lit(&x->body, "\xff\xfe\xc3(");
	if (x->answer.i == 0 && x->faults->nul)
		mock_bytes_putc(&x->body, '\0');
}

void mock_say_whole_text(struct mock_exchange *x)
{
	struct mock_answer *a = &x->answer;
	char buffer[32];

	a->text_at = 0;
	for (a->i = 0; a->i < a->n_tokens; a->i++) {
		struct mock_span token = mock_say_token(a, buffer);

		mock_say_text(x, token);
		a->text_at += token.at == buffer ? 0 : token.n;
	}
	if (x->faults->line > 0)
		mock_bytes_fill(&x->body, 'x', (size_t)x->faults->line);
}

/* ---- fixed bodies --------------------------------------------------------- */

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
