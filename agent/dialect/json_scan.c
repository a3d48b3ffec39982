/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json_scan.c -- walking, reading and writing JSON text: the second half of json_scan.h.
 *
 * Everything here but the encoder relies on the text having been checked: that strings end, that an escape is whole. The
 * loops still stop at the end of their span; the decoder of escapes does not look.
 */
#include "agent/dialect/json_scan.h"

#include <assert.h>

#include <signalbox/errors.h>

#include "agent/dialect/json_text.h"
#include "client/buf.h"

/* ==== walking checked text ==== */

/* From behind the opening quote to behind the closing one. */
static inline const char *
skip_string(const char *p, const char *end)
{
	for (;;) {
		while (end - p >= 8) {
			uint64_t w = sbx_swar_load(p);
			uint64_t marks = sbx_swar_is(w, '"') | sbx_swar_is(w, '\\');
			if (marks) {
				p += sbx_swar_first(marks);
				break;
			}
			p += 8;
		}
		while (p < end && *p != '"' && *p != '\\')
			p++;
		if (p >= end)
			return end;
		if (*p == '"')
			return p + 1;
		if (end - p < 2)
			return end;
		p += 2;
	}
}

static const char *
skip_value(const char *p, const char *end)
{
	if (p == end)
		return end;
	if (*p == '"')
		return skip_string(p + 1, end);
	if (*p != '{' && *p != '[') {
		while (p < end && *p != ',' && *p != '}' && *p != ']' && (unsigned char)*p > ' ')
			p++;
		return p;
	}
	size_t depth = 0;
	while (p < end) {
		char c = *p++;
		if (c == '"')
			p = skip_string(p, end);
		else if ((c | 0x20) == '{') /* { or [ */
			depth++;
		else if ((c | 0x20) == '}' && --depth == 0) /* } or ] */
			return p;
	}
	return end;
}

struct sbx_span
sbx_json_root(const char *text, size_t n)
{
	const char *p = sbx_json_text_skip_space(text, text + n), *end = text + n;
	while (end > p && (unsigned char)end[-1] <= ' ')
		end--;
	return (struct sbx_span){p, (size_t)(end - p)};
}

enum sbx_json_type
sbx_json_type(struct sbx_span value)
{
	if (!value.at || value.n == 0)
		return SBX_JSON_NONE;
	switch (value.at[0]) {
	case '{': return SBX_JSON_OBJECT;
	case '[': return SBX_JSON_ARRAY;
	case '"': return SBX_JSON_STRING;
	case 't':
	case 'f': return SBX_JSON_BOOL;
	case 'n': return SBX_JSON_NULL;
	default: return SBX_JSON_NUMBER;
	}
}

static struct sbx_json_iter
iter_of(struct sbx_span value, char open)
{
	if (!value.at || value.n < 2 || value.at[0] != open)
		return (struct sbx_json_iter){NULL, NULL};
	return (struct sbx_json_iter){value.at + 1, value.at + value.n - 1};
}

struct sbx_json_iter
sbx_json_object_iter(struct sbx_span value)
{
	return iter_of(value, '{');
}

struct sbx_json_iter
sbx_json_array_iter(struct sbx_span value)
{
	return iter_of(value, '[');
}

/* Moves to the next thing that is no white space and not that separator; false at the end. */
static inline bool
advance(struct sbx_json_iter *it, char separator)
{
	it->p = sbx_json_text_skip_space(it->p, it->end);
	if (it->p < it->end && *it->p == separator)
		it->p = sbx_json_text_skip_space(it->p + 1, it->end);
	return it->p < it->end;
}

bool
sbx_json_object_next(struct sbx_json_iter *it, struct sbx_span *ret_name, struct sbx_span *ret_value)
{
	if (!advance(it, ','))
		return false;
	const char *name = it->p;
	it->p = skip_string(name + 1, it->end);
	size_t name_n = (size_t)(it->p - name);
	if (!advance(it, ':'))
		return false;
	const char *value = it->p;
	it->p = skip_value(value, it->end);
	*ret_name = (struct sbx_span){name, name_n};
	*ret_value = (struct sbx_span){value, (size_t)(it->p - value)};
	return true;
}

bool
sbx_json_array_next(struct sbx_json_iter *it, struct sbx_span *ret_value)
{
	if (!advance(it, ','))
		return false;
	const char *value = it->p;
	it->p = skip_value(value, it->end);
	*ret_value = (struct sbx_span){value, (size_t)(it->p - value)};
	return true;
}

bool
sbx_json_get(struct sbx_span object, const char *name, struct sbx_span *ret_value)
{
	struct sbx_json_iter it = sbx_json_object_iter(object);
	struct sbx_span key, value;
	size_t n = strlen(name);
	while (sbx_json_object_next(&it, &key, &value)) {
		if (sbx_json_string_eq_n(key, name, n)) {
			*ret_value = value;
			return true;
		}
	}
	return false;
}

/* ==== reading values ==== */

bool
sbx_json_int64(struct sbx_span value, int64_t *ret_number)
{
	if (sbx_json_type(value) != SBX_JSON_NUMBER)
		return false;
	const char *p = value.at, *end = p + value.n;
	bool negative = *p == '-';
	bool behind_point = false;
	int64_t v = 0;       /* held negative: that side has one more */
	int64_t zeros = 0;   /* decimal places to move up by, not yet multiplied in */
	int64_t exponent = 0;
	if (negative)
		p++;
	for (; p < end && *p != 'e' && *p != 'E'; p++) {
		if (*p == '.') {
			behind_point = true;
			continue;
		}
		if (behind_point)
			exponent--;
		if (*p == '0') { /* 12.0 must not need 120 to fit */
			zeros++;
			continue;
		}
		for (; v != 0 && zeros > 0; zeros--)
			if (__builtin_mul_overflow(v, 10, &v))
				return false;
		zeros = 0;
		if (__builtin_mul_overflow(v, 10, &v) || __builtin_sub_overflow(v, *p - '0', &v))
			return false;
	}
	if (p < end) {
		bool down = *++p == '-';
		int64_t e = 0;
		for (p += *p == '-' || *p == '+'; p < end; p++)
			if (e < 1000000) /* far beyond what fits: more digits change nothing */
				e = e * 10 + (*p - '0');
		exponent += down ? -e : e;
	}
	exponent += zeros;
	if (v != 0 && exponent < 0)
		return false;
	for (; v != 0 && exponent > 0; exponent--)
		if (__builtin_mul_overflow(v, 10, &v))
			return false;
	if (!negative && __builtin_sub_overflow(0, v, &v))
		return false;
	*ret_number = v;
	return true;
}

bool
sbx_json_bool(struct sbx_span value, bool *ret_bool)
{
	if (sbx_json_type(value) != SBX_JSON_BOOL)
		return false;
	*ret_bool = value.at[0] == 't';
	return true;
}

bool
sbx_json_string_peek(struct sbx_span value, struct sbx_span *ret_text)
{
	if (sbx_json_type(value) != SBX_JSON_STRING || memchr(value.at, '\\', value.n))
		return false;
	*ret_text = (struct sbx_span){value.at + 1, value.n - 2};
	return true;
}

int
sbx_json_string_decode(struct sbx_span value, char *buf, size_t cap, size_t *ret_n)
{
	if (sbx_json_type(value) != SBX_JSON_STRING)
		return -SBX_EINVAL;
	const char *p = value.at + 1, *end = value.at + value.n - 1;
	size_t n = 0;
	while (p < end) {
		const char *escape = memchr(p, '\\', (size_t)(end - p));
		size_t run = (size_t)((escape ? escape : end) - p);
		if (run > cap - n)
			return -SBX_ETOOBIG;
		if (run)
			memcpy(buf + n, p, run);
		n += run;
		p += run;
		if (escape) {
			char c[4];
			size_t len = sbx_json_text_unescape(&p, end, c);
			if (len > cap - n)
				return -SBX_ETOOBIG;
			memcpy(buf + n, c, len);
			n += len;
		}
	}
	*ret_n = n;
	return 0;
}

int
sbx_json_string_append(struct sbx_span value, struct sbx_buf *out)
{
	struct sbx_span text;
	if (sbx_json_type(value) != SBX_JSON_STRING)
		return -SBX_EINVAL;
	if (sbx_json_string_peek(value, &text))
		return sbx_buf_append(out, text.at, text.n);
	if (value.n > out->max_bytes - out->n)
		return -SBX_ETOOBIG;
	char *to = (char *)sbx_buf_reserve(out, value.n);
	size_t n = 0;
	if (!to)
		return -SBX_ENOMEM;
	int rc = sbx_json_string_decode(value, to, value.n, &n);
	assert(rc == 0);
	sbx_buf_commit(out, n);
	return rc;
}

size_t
sbx_json_string_fmt(struct sbx_span value, char *buf, size_t cap)
{
	assert(cap > 0);
	size_t n = 0, whole = 0; /* whole: bytes up to the end of the last whole character */
	if (sbx_json_type(value) == SBX_JSON_STRING) {
		struct sbx_json_unescaper u = {.p = value.at + 1, .end = value.at + value.n - 1};
		int b;
		while (n < cap && (b = sbx_json_text_next_byte(&u)) >= 0) {
			if ((b & 0xc0) != 0x80)
				whole = n;
			if (b)
				buf[n++] = (char)b;
		}
		if (n < cap)
			whole = n;
	}
	buf[whole] = '\0';
	return whole;
}

bool
sbx_json_string_eq_escaped(struct sbx_span value, const char *want, size_t n)
{
	struct sbx_json_unescaper u = {.p = value.at + 1, .end = value.at + value.n - 1};
	for (size_t i = 0; i < n; i++)
		if (sbx_json_text_next_byte(&u) != (unsigned char)want[i])
			return false;
	return sbx_json_text_next_byte(&u) < 0;
}

/* ==== writing ==== */

int
sbx_json_string_encode(const char *text, size_t n, struct sbx_buf *out)
{
	static const char hex[] = "0123456789abcdef";
	const char *p = text, *end = text + n;
	int rc = sbx_buf_append(out, "\"", 1);
	while (rc == 0 && p < end) {
		const char *special = sbx_json_text_find_special(p, end);
		rc = sbx_buf_append(out, p, (size_t)(special - p));
		p = special;
		if (rc || p == end)
			break;
		unsigned char c = (unsigned char)*p;
		if (c >= 0x80) {
			size_t len = sbx_json_text_utf8_length(p, end);
			rc = len ? sbx_buf_append(out, p, len) : sbx_buf_append(out, "\xef\xbf\xbd", 3);
			p += len ? len : 1;
			continue;
		}
		char escape[6] = {'\\', (char)c, '0', '0', hex[c >> 4], hex[c & 15]};
		static const char shorts[] = "\bb\ff\nn\rr\tt";
		const char *s = c < 0x20 && c ? memchr(shorts, c, sizeof shorts - 1) : NULL;
		if (s)
			escape[1] = s[1];
		else if (c < 0x20)
			escape[1] = 'u';
		rc = sbx_buf_append(out, escape, c < 0x20 && !s ? 6 : 2);
		p++;
	}
	return rc ? rc : sbx_buf_append(out, "\"", 1);
}
