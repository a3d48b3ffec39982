/* SPDX-License-Identifier: Apache-2.0 */
/* json_text.h -- characters inside JSON strings: what the checker (json_check.c) and the reader (json_scan.c) share. Internal
 * to those two. */
#ifndef SBX_DIALECT_JSON_TEXT_H
#define SBX_DIALECT_JSON_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "agent/dialect/swar.h"

/* First quote, backslash, control character or byte beyond ASCII of [p, end), or end. */
static inline const char *
sbx_json_text_find_special(const char *p, const char *end)
{
	while (end - p >= 8) {
		uint64_t w = sbx_swar_load(p);
		uint64_t marks = sbx_swar_is(w, '"') | sbx_swar_is(w, '\\') | sbx_swar_below(w, 0x20) |
				 (w & SBX_SWAR_EVERY(0x80));
		if (marks)
			return p + sbx_swar_first(marks);
		p += 8;
	}
	while (p < end && *p != '"' && *p != '\\' && (unsigned char)*p >= 0x20 && (unsigned char)*p < 0x80)
		p++;
	return p;
}

static inline const char *
sbx_json_text_skip_space(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
		p++;
	return p;
}

/* Length of the UTF-8 character at p, beyond ASCII; 0 when it is none. */
static inline size_t
sbx_json_text_utf8_length(const char *p, const char *end)
{
	const unsigned char *u = (const unsigned char *)p;
	size_t left = (size_t)(end - p);
	size_t n = u[0] >= 0xf0 ? 4 : u[0] >= 0xe0 ? 3 : 2;
	if (u[0] < 0xc2 || u[0] > 0xf4 || left < n)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((u[i] & 0xc0) != 0x80)
			return 0;
	if ((u[0] == 0xe0 && u[1] < 0xa0) || (u[0] == 0xf0 && u[1] < 0x90)) /* overlong */
		return 0;
	if ((u[0] == 0xed && u[1] >= 0xa0) || (u[0] == 0xf4 && u[1] >= 0x90)) /* surrogate, beyond U+10FFFF */
		return 0;
	return n;
}

static inline int
sbx_json_text_hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static inline uint32_t
sbx_json_text_hex4(const char *p)
{
	uint32_t v = 0;
	for (int i = 0; i < 4; i++)
		v = v << 4 | (uint32_t)sbx_json_text_hex_digit(p[i]);
	return v;
}

/* Undoes the escape at *p (a backslash of checked text), writes 1 to 4 bytes, moves *p behind it. */
static inline size_t
sbx_json_text_unescape(const char **p, const char *end, char out[4])
{
	const char *s = *p + 1;
	char c = *s++;
	*p = s;
	switch (c) {
	case 'b': out[0] = '\b'; return 1;
	case 'f': out[0] = '\f'; return 1;
	case 'n': out[0] = '\n'; return 1;
	case 'r': out[0] = '\r'; return 1;
	case 't': out[0] = '\t'; return 1;
	case 'u': break;
	default: out[0] = c; return 1;
	}
	uint32_t v = sbx_json_text_hex4(s);
	s += 4;
	if (v >= 0xd800 && v < 0xdc00 && end - s >= 6 && s[0] == '\\' && s[1] == 'u' && sbx_json_text_hex4(s + 2) >= 0xdc00 &&
	    sbx_json_text_hex4(s + 2) < 0xe000) {
		v = 0x10000 + ((v - 0xd800) << 10) + (sbx_json_text_hex4(s + 2) - 0xdc00);
		s += 6;
	} else if (v >= 0xd800 && v < 0xe000) {
		v = 0xfffd; /* half of a pair stands for no character */
	}
	*p = s;
	if (v < 0x80) {
		out[0] = (char)v;
		return 1;
	}
	size_t n = v < 0x800 ? 2 : v < 0x10000 ? 3 : 4;
	for (size_t i = n; i-- > 1; v >>= 6)
		out[i] = (char)(0x80 | (v & 0x3f));
	out[0] = (char)((0xf00 >> n & 0xff) | v);
	return n;
}

/* Byte by byte over the unescaped content of a string. */
struct sbx_json_unescaper {
	const char *p, *end;
	char held[4];
	size_t n_held, at;
};

static inline int
sbx_json_text_next_byte(struct sbx_json_unescaper *u)
{
	if (u->at < u->n_held)
		return (unsigned char)u->held[u->at++];
	if (u->p == u->end)
		return -1;
	if (*u->p != '\\')
		return (unsigned char)*u->p++;
	u->n_held = sbx_json_text_unescape(&u->p, u->end, u->held);
	u->at = 1;
	return (unsigned char)u->held[0];
}

#endif
