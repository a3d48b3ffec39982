/* SPDX-License-Identifier: Apache-2.0 */
/*
 * direct_answer.c -- an answer of the dialect openai-chat, whole or as a stream, as the events of <signalbox.h>. See direct.h.
 *
 * "message" of a whole answer and "delta" of a chunk have the same members, and so one function says both. What is malformed is
 * told, never guessed at; a stream is limited by the length of its lines, all else by the caller.
 */
#include "tools/signalbox/direct.h"

#include <stdlib.h>
#include <string.h>

#define LINE_MAX_BYTES (16u << 20) /* an image in a tool call's arguments is large; more in one line is an attack */
#define JSON_FLAGS JSON_ALLOW_NUL  /* strings of events have lengths */

static void
say(struct direct_answer *a, enum sbx_note note, uint32_t choice, const json_t *text)
{
	const size_t n = json_string_length(text);
	if (n == 0)
		return;
	const struct sbx_event ev = { .note = note, .id = 1, .choice = choice, .text = json_string_value(text), .text_bytes = n };
	a->content = a->content || note != SBX_NOTE_FINISH;
	a->on_event(a->arg, &ev);
}

static void
say_calls(struct direct_answer *a, uint32_t choice, const json_t *calls)
{
	size_t i;
	const json_t *call;
	json_array_foreach(calls, i, call) {
		const json_t *index = json_object_get(call, "index"), *function = json_object_get(call, "function");
		const json_t *arguments = json_object_get(function, "arguments");
		const char *id = json_string_value(json_object_get(call, "id")), *name = json_string_value(json_object_get(function, "name"));
		const json_int_t at = json_is_integer(index) ? json_integer_value(index) : (json_int_t)i;
		const struct sbx_event ev = {
			.note = SBX_NOTE_TOOL_CALL, .id = 1, .choice = choice,
			.index = at >= 0 && at < UINT32_MAX ? (uint32_t)at : UINT32_MAX,
			.text = json_is_string(arguments) ? json_string_value(arguments) : "",
			.text_bytes = json_string_length(arguments),
			.call_id = id && *id ? id : NULL, .call_name = name && *name ? name : NULL,
		};
		a->content = true;
		a->on_event(a->arg, &ev);
	}
}

/* "message" or "delta". Some providers give content as a list of parts, and call reasoning by one of two names. */
static void
say_message(struct direct_answer *a, uint32_t choice, const json_t *m)
{
	const json_t *content = json_object_get(m, "content"), *part, *reasoning = json_object_get(m, "reasoning_content");
	size_t i;
	say(a, SBX_NOTE_REASONING, choice, json_is_string(reasoning) ? reasoning : json_object_get(m, "reasoning"));
	if (json_is_array(content)) {
		json_array_foreach(content, i, part)
			say(a, SBX_NOTE_TEXT, choice, json_object_get(part, "text"));
	} else {
		say(a, SBX_NOTE_TEXT, choice, content);
	}
	say(a, SBX_NOTE_REFUSAL, choice, json_object_get(m, "refusal"));
	say_calls(a, choice, json_object_get(m, "tool_calls"));
}

static int64_t
count(const json_t *object, const char *key)
{
	const json_t *n = json_object_get(object, key);
	return json_is_integer(n) && json_integer_value(n) >= 0 ? json_integer_value(n) : -1;
}

static void
take_usage(struct direct_answer *a, const json_t *usage)
{
	if (!json_is_object(usage))
		return;
	a->tokens.prompt = count(usage, "prompt_tokens");
	a->tokens.completion = count(usage, "completion_tokens");
	a->tokens.total = count(usage, "total_tokens");
	a->tokens.cached = count(json_object_get(usage, "prompt_tokens_details"), "cached_tokens");
	a->tokens.reasoning = count(json_object_get(usage, "completion_tokens_details"), "reasoning_tokens");
}

static void
copy_word(char *to, size_t room, const json_t *from)
{
	if (json_is_string(from))
		(void)snprintf(to, room, "%s", json_string_value(from));
	else if (json_is_integer(from))
		(void)snprintf(to, room, "%lld", (long long)json_integer_value(from));
}

static bool
take_error(struct direct_answer *a, const json_t *root)
{
	const json_t *error = json_object_get(root, "error");
	if (json_is_string(error)) {
		copy_word(a->error_message, sizeof a->error_message, error);
	} else if (json_is_object(error)) {
		copy_word(a->error_message, sizeof a->error_message, json_object_get(error, "message"));
		copy_word(a->error_type, sizeof a->error_type, json_object_get(error, "type"));
		copy_word(a->error_code, sizeof a->error_code, json_object_get(error, "code"));
		copy_word(a->error_param, sizeof a->error_param, json_object_get(error, "param"));
	} else {
		copy_word(a->error_message, sizeof a->error_message, json_object_get(root, "message"));
		return false;
	}
	return true;
}

static void
is_bad(struct direct_answer *a, const char *what)
{
	a->bad = true;
	if (!a->error_message[0])
		(void)snprintf(a->error_message, sizeof a->error_message, "%s", what);
}

/* A whole answer, or one chunk of a stream. */
static void
take_object(struct direct_answer *a, const char *text, size_t n, const char *member)
{
	json_error_t error;
	json_t *root = json_loadb(text, n, JSON_FLAGS, &error);
	const json_t *choices = json_object_get(root, "choices"), *choice;
	size_t i;
	if (!root)
		is_bad(a, "the provider's answer is not JSON");
	else if (take_error(a, root))
		is_bad(a, "the provider reports an error without a word about it");
	else if (!json_is_array(choices) && !json_is_object(json_object_get(root, "usage")))
		is_bad(a, "the provider's answer has no \"choices\"");
	if (!a->bad) {
		json_array_foreach(choices, i, choice) {
			const json_t *finish = json_object_get(choice, "finish_reason");
			const json_int_t said = count(choice, "index");
			const uint32_t number = said >= 0 && said < UINT32_MAX ? (uint32_t)said : (uint32_t)i;
			say_message(a, number, json_object_get(choice, member));
			say(a, SBX_NOTE_FINISH, number, finish);
			a->finished = a->finished || json_is_string(finish);
			if (number == 0)
				copy_word(a->finish, sizeof a->finish, finish);
		}
		take_usage(a, json_object_get(root, "usage"));
	}
	json_decref(root);
}

/* ---- a stream ---- */

static bool
append(char **at, size_t *n, const char *bytes, size_t more)
{
	if (more > LINE_MAX_BYTES - *n)
		return false;
	*at = must(realloc(*at, *n + more + 1));
	memcpy(*at + *n, bytes, more);
	*n += more;
	return true;
}

static void
end_event(struct direct_answer *a)
{
	if (a->n_data == 6 && memcmp(a->data, "[DONE]", 6) == 0)
		a->complete = true;
	else if (a->n_data > 0)
		take_object(a, a->data, a->n_data, "delta");
	a->n_data = 0;
}

/* Only "data" matters to this dialect; its lines of one event are joined by a line end. */
static void
take_line(struct direct_answer *a)
{
	size_t n = a->n_line;
	if (n > 0 && a->line[n - 1] == '\r')
		n--;
	if (n == 0) {
		end_event(a);
	} else if (n >= 5 && memcmp(a->line, "data:", 5) == 0) {
		const size_t skip = n > 5 && a->line[5] == ' ' ? 6 : 5;
		if ((a->n_data > 0 && !append(&a->data, &a->n_data, "\n", 1)) || !append(&a->data, &a->n_data, a->line + skip, n - skip))
			is_bad(a, "an event of the stream is larger than 16 MiB");
	}
	a->n_line = 0;
}

/* ---- */

void
direct_answer_init(struct direct_answer *a, void (*on_event)(void *arg, const struct sbx_event *ev), void *arg)
{
	*a = (struct direct_answer){
		.on_event = on_event,
		.arg = arg,
		.tokens = { .prompt = -1, .completion = -1, .total = -1, .cached = -1, .cache_write = -1, .reasoning = -1 },
	};
}

void
direct_answer_stream(struct direct_answer *a, const char *bytes, size_t n)
{
	while (n > 0 && !a->complete && !a->bad) {
		const char *end = memchr(bytes, '\n', n);
		const size_t piece = end ? (size_t)(end - bytes) : n;
		if (!append(&a->line, &a->n_line, bytes, piece)) {
			is_bad(a, "a line of the stream is longer than 16 MiB");
			return;
		}
		if (end)
			take_line(a);
		bytes += piece + (end != NULL);
		n -= piece + (end != NULL);
	}
}

void
direct_answer_whole(struct direct_answer *a, const char *body, size_t n)
{
	take_object(a, body, n, "message");
	a->complete = !a->bad;
}

void
direct_answer_error(struct direct_answer *a, const char *body, size_t n)
{
	json_t *root = json_loadb(body, n, JSON_FLAGS, NULL);
	if (json_is_object(root))
		(void)take_error(a, root);
	json_decref(root);
}

void
direct_answer_fini(struct direct_answer *a)
{
	free(a->line);
	free(a->data);
	a->line = a->data = NULL;
}
