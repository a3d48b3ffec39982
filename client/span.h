/* SPDX-License-Identifier: Apache-2.0 */
/* span.h -- a piece of somebody else's bytes. Not NUL-terminated; valid as long as those bytes are. at may be NULL if n is 0. */
#ifndef SBX_CLIENT_SPAN_H
#define SBX_CLIENT_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct sbx_span {
	const char *at;
	size_t n;
};

#define SBX_SPAN(literal) ((struct sbx_span){ (literal), sizeof(literal) - 1 })

static inline struct sbx_span
sbx_span_of(const char *text) /* NULL becomes the empty span */
{
	return (struct sbx_span){ text, text ? strlen(text) : 0 };
}

static inline bool
sbx_span_eq(struct sbx_span a, struct sbx_span b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.at, b.at, a.n) == 0);
}

static inline bool
sbx_span_is(struct sbx_span a, const char *text)
{
	return sbx_span_eq(a, sbx_span_of(text));
}

#endif
