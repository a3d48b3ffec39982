/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A recursive-descent walk over JSON text; see scan.h.
 *
 * It checks syntax and depth, not UTF-8 and not duplicate keys: it stands for
 * the tolerant parser of a provider.  The last of two equal keys wins.
 */
#include "tools/mock/scan.h"

#include <string.h>

#define DEPTH_MAX 128 /* the usual limit of JSON parsers; also bounds our stack */

struct walk {
	const char *at;
	const char *end;
	const char *error; /* static sentence; NULL = fine so far */
	unsigned depth;
};

/* What a value turned out to be. */
struct seen {
	const char *at; /* first byte of the value */
	size_t n;       /* its length */
	char type;      /* first byte: { [ " t f n, or 0 for a number */
	size_t count;   /* elements, of an array */
};

typedef void on_member_fn(void *arg, const char *key, size_t n_key, const struct seen *value);

static bool walk_value(struct walk *w, struct seen *ret, on_member_fn *on_member, void *arg);

static bool fail(struct walk *w, const char *sentence)
{
	if (w->error == NULL)
		w->error = sentence;
	return false;
}

static void blanks(struct walk *w)
{
	while (w->at < w->end && (*w->at == ' ' || *w->at == '\n' || *w->at == '\r' || *w->at == '\t'))
		w->at++;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static int hex_value(char c)
{
	if (is_digit(c))
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Whether eight bytes hold no quote, no backslash and no control character: prompts are long strings.
 * A byte from 0x80 up may be told as one of them and is then looked at alone. */
static bool plain_8(const char *at)
{
	const uint64_t ones = 0x0101010101010101ull;
	uint64_t v, quote, slash;

	memcpy(&v, at, 8);
	quote = v ^ (ones * '"');
	slash = v ^ (ones * '\\');
	return (((quote - ones) | (slash - ones) | (v - ones * 0x20)) & (ones * 0x80)) == 0;
}

static bool walk_string(struct walk *w)
{
	w->at++;
	for (;;) {
		unsigned char c;

		while (w->end - w->at >= 8 && plain_8(w->at))
			w->at += 8;
		if (w->at == w->end)
			break;
		c = (unsigned char)*w->at++;
		if (c == '"')
			return true;
		if (c < 0x20)
			return fail(w, "a control character inside a string");
		if (c != '\\')
			continue;
		if (w->at == w->end)
			break;
		c = (unsigned char)*w->at++;
		if (c == 'u') {
			for (int i = 0; i < 4; i++, w->at++)
				if (w->at == w->end || hex_value(*w->at) < 0)
					return fail(w, "a bad \\u escape");
		} else if (strchr("\"\\/bfnrt", c) == NULL || c == '\0') {
			return fail(w, "a bad escape in a string");
		}
	}
	return fail(w, "a string without an end");
}

static bool walk_digits(struct walk *w)
{
	if (w->at == w->end || !is_digit(*w->at))
		return fail(w, "a bad number");
	while (w->at < w->end && is_digit(*w->at))
		w->at++;
	return true;
}

static bool walk_number(struct walk *w)
{
	if (*w->at == '-')
		w->at++;
	if (w->at < w->end && *w->at == '0')
		w->at++;
	else if (!walk_digits(w))
		return false;
	if (w->at < w->end && *w->at == '.') {
		w->at++;
		if (!walk_digits(w))
			return false;
	}
	if (w->at < w->end && (*w->at == 'e' || *w->at == 'E')) {
		w->at++;
		if (w->at < w->end && (*w->at == '+' || *w->at == '-'))
			w->at++;
		return walk_digits(w);
	}
	return true;
}

static bool walk_word(struct walk *w, const char *word)
{
	size_t n = strlen(word);

	if ((size_t)(w->end - w->at) < n || memcmp(w->at, word, n) != 0)
		return fail(w, "an unknown word");
	w->at += n;
	return true;
}

static bool walk_object(struct walk *w, on_member_fn *on_member, void *arg)
{
	w->at++;
	blanks(w);
	if (w->at < w->end && *w->at == '}') {
		w->at++;
		return true;
	}
	for (;;) {
		const char *key;
		size_t n_key;
		struct seen value;

		blanks(w);
		if (w->at == w->end || *w->at != '"')
			return fail(w, "an object key is missing");
		key = w->at + 1;
		if (!walk_string(w))
			return false;
		n_key = (size_t)(w->at - key) - 1;
		blanks(w);
		if (w->at == w->end || *w->at != ':')
			return fail(w, "a colon is missing");
		w->at++;
		if (!walk_value(w, &value, NULL, NULL))
			return false;
		if (on_member != NULL)
			on_member(arg, key, n_key, &value);
		blanks(w);
		if (w->at < w->end && *w->at == ',') {
			w->at++;
			continue;
		}
		if (w->at == w->end || *w->at != '}')
			return fail(w, "an object without an end");
		w->at++;
		return true;
	}
}

static bool walk_array(struct walk *w, size_t *ret_count)
{
	size_t count = 0;

	w->at++;
	blanks(w);
	if (w->at < w->end && *w->at == ']') {
		w->at++;
		*ret_count = 0;
		return true;
	}
	for (;;) {
		struct seen value;

		if (!walk_value(w, &value, NULL, NULL))
			return false;
		count++;
		blanks(w);
		if (w->at < w->end && *w->at == ',') {
			w->at++;
			continue;
		}
		if (w->at == w->end || *w->at != ']')
			return fail(w, "an array without an end");
		w->at++;
		*ret_count = count;
		return true;
	}
}

/* One value with the blanks before it. */
static bool walk_value(struct walk *w, struct seen *ret, on_member_fn *on_member, void *arg)
{
	bool good;

	blanks(w);
	if (w->at == w->end)
		return fail(w, "the text ends too early");
	if (++w->depth > DEPTH_MAX)
		return fail(w, "nested too deeply");
	*ret = (struct seen){ .at = w->at, .type = *w->at };
	switch (*w->at) {
	case '{':
		good = walk_object(w, on_member, arg);
		break;
	case '[':
		good = walk_array(w, &ret->count);
		break;
	case '"':
		good = walk_string(w);
		break;
	case 't':
		good = walk_word(w, "true");
		break;
	case 'f':
		good = walk_word(w, "false");
		break;
	case 'n':
		good = walk_word(w, "null");
		break;
	default:
		ret->type = 0;
		good = *w->at == '-' || is_digit(*w->at) ? walk_number(w) : fail(w, "an unknown value");
		break;
	}
	w->depth--;
	ret->n = (size_t)(w->at - ret->at);
	return good;
}

static bool key_is(const char *key, size_t n, const char *word)
{
	return strlen(word) == n && memcmp(key, word, n) == 0;
}

/* Decodes a checked string; escapes beyond ASCII become '?': model names have none. */
static void take_model(struct mock_ask *ask, const struct seen *value)
{
	const char *at = value->at + 1;
	const char *end = value->at + value->n - 1;
	size_t n = 0;

	while (at < end && n < sizeof(ask->model) - 1) {
		char c = *at++;

		if (c == '\\') {
			c = *at++;
			if (c == 'u') {
				int code = 0;

    for (int i = 0; i < 4; i++)
    code = code * 16 + hex_value(*at++);
    c = code > 0 && code < 0x80 ? (char)code : '?';
    } else if (c == 'n') {
    c = '\n';
    } else if (c == 't') {
    c = '\t';
    } else if (c == 'r') {
    c = '\r';
    } else if (c == 'b') {
    c = '\b';
    } else if (c == 'f') {
    c = '\f';
    }
		}
		ask->model[n++] = c;
	}
	ask->model[n] = '\0';
	ask->n_model = n;
}

static void on_stream_option(void *arg, const char *key, size_t n_key, const struct seen *value)
{
	struct mock_ask *ask = arg;

	if (key_is(key, n_key, "include_usage"))
		ask->include_usage = value->type == 't';
}

/* A text is one input, and so is a list of tokens; of any other list each element is one. */
static size_t count_inputs(const struct seen *value)
{
	const char *at = value->at + 1;

	if (value->type != '[')
		return value->type == '"';
	while (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')
		at++;
	return is_digit(*at) ? 1 : value->count;
}

/* A small whole number; 0 for anything else. */
static int64_t small_number(const struct seen *value)
{
	int64_t number = 0;

	if (value->type != 0 || value->n > 4)
		return 0;
	for (size_t i = 0; i < value->n; i++)
		number = is_digit(value->at[i]) ? number * 10 + (value->at[i] - '0') : 0;
	return number;
}

static void on_member(void *arg, const char *key, size_t n_key, const struct seen *value)
{
	struct mock_ask *ask = arg;

	switch (n_key) {
	case 1:
		if (key[0] == 'n')
			ask->n_choices = small_number(value);
		if (ask->n_choices < 1 || ask->n_choices > 128)
			ask->n_choices = 1;
		break;
	case 5:
		if (key_is(key, n_key, "model") && value->type == '"')
			take_model(ask, value);
		else if (key_is(key, n_key, "input"))
			ask->n_inputs = count_inputs(value);
		break;
	case 6:
		if (key_is(key, n_key, "stream"))
			ask->stream = value->type == 't';
		else if (key_is(key, n_key, "prompt"))
			ask->n_inputs = count_inputs(value);
		break;
	case 8:
		if (key_is(key, n_key, "messages"))
			ask->n_messages = value->count;
		break;
	case 10:
		if (key_is(key, n_key, "dimensions"))
			ask->dimensions = small_number(value);
		break;
	case 15:
		if (key_is(key, n_key, "encoding_format"))
			ask->base64 = value->n == 8 && memcmp(value->at, "\"base64\"", 8) == 0;
		break;
	case 14:
		if (key_is(key, n_key, "stream_options") && value->type == '{') {
			struct walk w = { .at = value->at, .end = value->at + value->n };
			struct seen whole;

    (void)walk_value(&w, &whole, on_stream_option, ask);
		}
		break;
	default:
		break;
	}
}

int mock_scan(const char *text, size_t n, struct mock_ask *ret_ask, const char **ret_error)
{
	struct walk w = { .at = text, .end = text + n };
	struct seen whole;

	ret_ask->model[0] = '\0';
	ret_ask->n_model = 0;
	ret_ask->n_choices = 1;
	ret_ask->n_messages = 0;
	ret_ask->n_inputs = 0;
	ret_ask->dimensions = 0;
	ret_ask->base64 = false;
	ret_ask->stream = false;
	ret_ask->include_usage = false;
	if (walk_value(&w, &whole, on_member, ret_ask)) {
		blanks(&w);
		if (w.at < w.end)
			(void)fail(&w, "something after the end of the JSON text");
		else if (whole.type != '{')
			(void)fail(&w, "the body is not an object");
	}
	if (w.error == NULL)
		return 0;
	*ret_error = w.error;
	return -1;
}
