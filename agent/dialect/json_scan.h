/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json_scan.h -- JSON without a tree: check a text once, then walk it in place.
 *
 * sbx_json_check() reads the text one time and answers whether it is exactly one JSON value: syntax of RFC 8259, UTF-8
 * (no overlong form, no encoded surrogate), at most SBX_JSON_DEPTH_MAX levels, and no object that names a member twice.
 * Names are compared after unescaping: "a" and "\u0061" are the same member, and a text in which two readers could see
 * two different values is refused.
 *
 * Everything below it takes spans of *checked* text and does not check again: on unchecked bytes the answers have no
 * meaning. A span is one value with nothing around it; a string's span includes its quotes. Spans point into the text and
 * live as long as it does. Nothing here converts: a number stays the characters that the peer wrote.
 *
 * Deliberately not here: comments, trailing commas, NaN, a byte order mark (whoever expects one skips it first).
 */
#ifndef SBX_DIALECT_JSON_SCAN_H
#define SBX_DIALECT_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "client/span.h"

struct sbx_buf;

#define SBX_JSON_DEPTH_MAX 64        /* schemas in real requests reach about 20; it also bounds the checker's own stack */
#define SBX_JSON_TEXT_MAX  UINT32_MAX /* offsets of names are 32 bits; far above every body limit */

enum sbx_json_type {
	SBX_JSON_NONE, /* the span of an absent value */
	SBX_JSON_NULL,
	SBX_JSON_BOOL,
	SBX_JSON_NUMBER,
	SBX_JSON_STRING,
	SBX_JSON_ARRAY,
	SBX_JSON_OBJECT,
};

struct sbx_json_error {
	const char *what; /* static text, no period */
	size_t offset;    /* bytes from the start of the text */
	uint32_t line;    /* counted from 1 */
};

/* ---- checking ---- */

/* Member names of the objects that are open while checking. One scratch serves any number of checks, one at a time. */
struct sbx_json_name {
	uint64_t hash;
	uint32_t offset, n; /* of the name without its quotes */
};

#define SBX_JSON_NAMES_FIRST 64    /* held inside the scratch: ordinary texts allocate nothing */
#define SBX_JSON_NAMES_MAX   65536 /* in all objects open at once (1 MiB of scratch); sorting them stays below 0.1 s */

struct sbx_json_scratch {
	struct sbx_json_name *names; /* `first`, or the heap when a text had more; given back after that text */
	uint32_t n, cap;
	struct sbx_json_name first[SBX_JSON_NAMES_FIRST];
};

void sbx_json_scratch_init(struct sbx_json_scratch *s);
void sbx_json_scratch_fini(struct sbx_json_scratch *s);

/* sbx_json_check() -- is this one JSON value, with nothing but white space around it?
 *  ret_err  may be NULL; set on every failure
 * Returns 0, -SBX_ESYNTAX, -SBX_ETOOBIG (too deep, too many names, too long), -SBX_ENOMEM. Linear in n but for objects of
 * more than 16 members, whose names are sorted. */
int sbx_json_check(const char *text, size_t n, struct sbx_json_scratch *s, struct sbx_json_error *ret_err);

/* ---- walking checked text ---- */

/* The value of a checked text: the span without the white space around it. */
struct sbx_span sbx_json_root(const char *text, size_t n);
enum sbx_json_type sbx_json_type(struct sbx_span value);

struct sbx_json_iter {
	const char *p, *end;
};

/* Over the members of an object or the elements of an array. A span of any other type is as if empty, so that an
 * optional member needs no look at its type first. */
struct sbx_json_iter sbx_json_object_iter(struct sbx_span value);
struct sbx_json_iter sbx_json_array_iter(struct sbx_span value);
bool sbx_json_object_next(struct sbx_json_iter *it, struct sbx_span *ret_name, struct sbx_span *ret_value);
bool sbx_json_array_next(struct sbx_json_iter *it, struct sbx_span *ret_value);
/* The member of that name; false, and ret_value untouched, when there is none or the span is no object. */
bool sbx_json_get(struct sbx_span object, const char *name, struct sbx_span *ret_value);

/* ---- reading values: false (or negative) and nothing written when the value is of another type ---- */

/* A whole number that fits, however it is spelled: 12, 12.0 and 1.2e1 are the same. */
bool sbx_json_int64(struct sbx_span value, int64_t *ret_number);
bool sbx_json_bool(struct sbx_span value, bool *ret_bool);
/* The text of a string that has no escape in it, in place. */
bool sbx_json_string_peek(struct sbx_span value, struct sbx_span *ret_text);
/* sbx_json_string_decode() -- unescape a string into the caller's buffer.
 *  cap  value.n is always enough. A lone surrogate becomes U+FFFD; \u0000 becomes a NUL byte, hence the length
 * Returns 0, -SBX_EINVAL (no string), -SBX_ETOOBIG. No NUL is added. */
int sbx_json_string_decode(struct sbx_span value, char *buf, size_t cap, size_t *ret_n);
/* The same, appended. Returns 0, -SBX_EINVAL, -SBX_ETOOBIG, -SBX_ENOMEM. */
int sbx_json_string_append(struct sbx_span value, struct sbx_buf *out);
/* As much as fits into buf, cut at a character, NUL-terminated, NUL bytes of the text left out: for messages and names.
 * "" when the value is no string. Returns the length. */
size_t sbx_json_string_fmt(struct sbx_span value, char *buf, size_t cap);
bool sbx_json_string_eq_escaped(struct sbx_span value, const char *want, size_t n); /* the rare half of the next */

static inline bool
sbx_json_string_eq_n(struct sbx_span value, const char *want, size_t n)
{
	if (value.n < n + 2 || value.at[0] != '"')
		return false;
	if (value.n == n + 2) /* an escape is always longer than what it stands for */
		return memcmp(value.at + 1, want, n) == 0;
	return n > 0 && (value.at[1] == want[0] || value.at[1] == '\\') && sbx_json_string_eq_escaped(value, want, n);
}

static inline bool
sbx_json_string_eq(struct sbx_span value, const char *want)
{
	return sbx_json_string_eq_n(value, want, strlen(want));
}

/* ---- writing ---- */

/* Text as a JSON string with its quotes; bytes that are no UTF-8 become U+FFFD. Returns 0, -SBX_ETOOBIG, -SBX_ENOMEM. */
int sbx_json_string_encode(const char *text, size_t n, struct sbx_buf *out);

#endif
