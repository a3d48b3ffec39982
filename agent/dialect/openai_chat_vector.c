/* SPDX-License-Identifier: Apache-2.0 */
/*
 * openai_chat_vector.c -- embeddings as this dialect's clients want them: a list of numbers, or base64 of little-endian float32.
 *
 * Providers have the one form or the other. What is wanted as it came is copied; else it is turned, number by number. A float32 is
 * written with nine digits, which is as many as it takes to read the same one again.
 */
#include "agent/dialect/openai_chat.h"

#include <stdlib.h>

#include <signalbox/errors.h>

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static void
put_group(struct sbx_json_writer *w, const uint8_t *bytes, size_t n) /* 1 to 3 */
{
	const uint32_t bits = (uint32_t)bytes[0] << 16 | (n > 1 ? (uint32_t)bytes[1] << 8 : 0) | (n > 2 ? bytes[2] : 0u);
	const char group[4] = { letters[bits >> 18], letters[bits >> 12 & 63], n > 1 ? letters[bits >> 6 & 63] : '=', n > 2 ? letters[bits & 63] : '=' };
	sbx_jw_raw(w, group, 4);
}

static void
write_base64(struct sbx_json_writer *w, struct sbx_span list)
{
	struct sbx_json_iter it = sbx_json_array_iter(list);
	struct sbx_span number;
	uint8_t bytes[7]; /* what is left over, and the next number */
	size_t n = 0;
	sbx_jw_comma(w);
	sbx_jw_raw(w, "\"", 1);
	while (w->rc == 0 && sbx_json_array_next(&it, &number)) {
		const float value = strtof(number.at, NULL); /* behind it is a comma, a blank or the bracket */
		uint32_t word;
		memcpy(&word, &value, sizeof word);
		for (int i = 0; i < 4; i++)
			bytes[n++] = (uint8_t)(word >> 8 * i);
		size_t at = 0;
		for (; n - at >= 3; at += 3)
			put_group(w, bytes + at, 3);
		memmove(bytes, bytes + at, n - at);
		n -= at;
	}
	if (n)
		put_group(w, bytes, n);
	sbx_jw_raw(w, "\"", 1);
}

/* Bits of a letter; -1 = it is none. */
static int
bits_of(char c)
{
	const char *at = c ? strchr(letters, c) : NULL;
	return at ? (int)(at - letters) : -1;
}

/* -SBX_ESYNTAX: it is not base64 of whole numbers. */
static void
write_list(struct sbx_json_writer *w, struct sbx_span string)
{
	struct sbx_buf text;
	uint32_t word = 0, bits = 0, n_bits = 0, n_bytes = 0;
	sbx_buf_init(&text, SBX_BODY_MAX_BYTES);
	int rc = sbx_json_string_append(string, &text);
	while (text.n && text.data[text.n - 1] == '=')
		text.n--;
	sbx_jw_open(w, '[');
	for (size_t i = 0; rc == 0 && w->rc == 0 && i < text.n; i++) {
		const int letter = bits_of((char)text.data[i]);
		if (letter < 0) {
			rc = -SBX_ESYNTAX;
			break;
		}
		bits = bits << 6 | (uint32_t)letter;
		n_bits += 6;
		if (n_bits < 8)
			continue;
		n_bits -= 8;
		word |= (bits >> n_bits & 0xff) << 8 * (n_bytes++ & 3);
		if (n_bytes & 3)
			continue;
		float value;
		memcpy(&value, &word, sizeof value);
		word = 0;
		sbx_jw_comma(w);
		if (value - value != 0) /* no number that JSON has */
			rc = -SBX_ESYNTAX;
		else if (w->rc == 0)
			w->rc = sbx_buf_printf(w->out, "%.9g", (double)value);
	}
	sbx_jw_close(w, ']');
	if (rc == 0 && n_bytes & 3)
		rc = -SBX_ESYNTAX;
	if (w->rc == 0)
		w->rc = rc;
	sbx_buf_fini(&text);
}

void
sbx_openai_chat_write_vector(struct sbx_json_writer *w, struct sbx_span vector, bool base64)
{
	const bool is_list = sbx_json_type(vector) == SBX_JSON_ARRAY;
	if (is_list != base64)
		sbx_jw_value(w, vector);
	else if (base64)
		write_base64(w, vector);
	else
		write_list(w, vector);
}
