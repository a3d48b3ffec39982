/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json_check.c -- is a text exactly one JSON value? The first half of json_scan.h.
 *
 * The checker is a loop over "what may come next" with the kind of each open container in one bit of a word; there is no
 * recursion. Strings are searched eight bytes at a time for the four kinds of byte that matter in them: quote, backslash,
 * control character, beyond ASCII.
 *
 * Duplicate names: the names of all open objects lie on one stack, those of the innermost object on top. When an object
 * closes, its own are compared and dropped. Up to 16 by pairs of hashes; more are sorted, by hash and then by the names
 * themselves: somebody who makes hashes collide gains nothing but a slower comparison, never a quadratic one. A hash table
 * would need a secret for that.
 */
#include "agent/dialect/json_scan.h"

#include <stdlib.h>

#include <signalbox/errors.h>

#include "agent/dialect/json_text.h"

#define PAIRS_MAX 16 /* names up to which comparing all pairs (120 integer compares) beats a sort */

struct checker {
	const char *text, *end;
	struct sbx_json_scratch *scratch;
	const char *what; /* why it failed */
	const char *where;
	int rc;
};

static const char *
fail(struct checker *c, int rc, const char *where, const char *what)
{
	c->rc = rc;
	c->where = where;
	c->what = what;
	return NULL;
}

/* From behind the opening quote to behind the closing one; NULL on failure. */
static inline const char *
check_string(struct checker *c, const char *p, bool *ret_escaped)
{
	const char *start = p - 1;
	for (;;) {
		p = sbx_json_text_find_special(p, c->end);
		if (p == c->end)
			return fail(c, -SBX_ESYNTAX, start, "string without an end");
		if (*p == '"')
			return p + 1;
		if (*p == '\\') {
			*ret_escaped = true;
			if (c->end - p < 2 || !memchr("\"\\/bfnrtu", p[1], 9))
				return fail(c, -SBX_ESYNTAX, p, "escape that JSON does not have");
			if (p[1] == 'u') {
				if (c->end - p < 6)
					return fail(c, -SBX_ESYNTAX, start, "string without an end");
				for (int i = 2; i < 6; i++)
					if (sbx_json_text_hex_digit(p[i]) < 0)
						return fail(c, -SBX_ESYNTAX, p, "\\u without four hexadecimal digits");
				p += 4;
			}
			p += 2;
			continue;
		}
		if ((unsigned char)*p < 0x20)
			return fail(c, -SBX_ESYNTAX, p, "control character in a string");
		do {
			size_t n = sbx_json_text_utf8_length(p, c->end);
			if (n == 0)
				return fail(c, -SBX_ESYNTAX, p, "not UTF-8");
			p += n;
		} while (p < c->end && (unsigned char)*p >= 0x80);
	}
}

static const char *
skip_digits(const char *p, const char *end)
{
	while (p < end && *p >= '0' && *p <= '9')
		p++;
	return p;
}

static const char *
check_number(struct checker *c, const char *p)
{
	const char *start = p, *digits;
	if (p < c->end && *p == '-')
		p++;
	digits = p;
	p = skip_digits(p, c->end);
	if (p == digits)
		return fail(c, -SBX_ESYNTAX, start, "no value here");
	if (*digits == '0' && p - digits > 1)
		return fail(c, -SBX_ESYNTAX, start, "number with a leading zero");
	if (p < c->end && *p == '.') {
		digits = ++p;
		p = skip_digits(p, c->end);
		if (p == digits)
			return fail(c, -SBX_ESYNTAX, start, "number without digits behind the point");
	}
	if (p < c->end && (*p == 'e' || *p == 'E')) {
		p++;
		if (p < c->end && (*p == '+' || *p == '-'))
			p++;
		digits = p;
		p = skip_digits(p, c->end);
		if (p == digits)
			return fail(c, -SBX_ESYNTAX, start, "number without digits in the exponent");
	}
	return p;
}

static const char *
check_word(struct checker *c, const char *p, const char *word, size_t n)
{
	if ((size_t)(c->end - p) < n || memcmp(p, word, n) != 0)
		return fail(c, -SBX_ESYNTAX, p, "no value here");
	return p + n;
}

/* A scalar value at p; NULL on failure. */
static inline const char *
check_scalar(struct checker *c, const char *p)
{
	bool escaped;
	switch (*p) {
	case '"': return check_string(c, p + 1, &escaped);
	case 't': return check_word(c, p, "true", 4);
	case 'f': return check_word(c, p, "false", 5);
	case 'n': return check_word(c, p, "null", 4);
	default: return check_number(c, p);
	}
}

/* ---- duplicate names ---- */

/* Top bit of a name's length: there is an escape in it. Texts are shorter than 4 GiB, names than 2 GiB of it. */
#define NAME_ESCAPED UINT32_C(0x80000000)

static inline uint64_t
mix(uint64_t h, uint64_t w)
{
	h = (h ^ w) * UINT64_C(0x9e3779b97f4a7c15);
	return h ^ h >> 32;
}

/* Of a name without escapes: its two ends and its length. Good enough to tell names apart; an equal pair is compared. */
static inline uint64_t
hash_plain(const char *p, size_t n, const char *end)
{
	uint64_t head, tail = 0;
	if (n >= 8) {
		head = sbx_swar_load(p);
		tail = sbx_swar_load(p + n - 8);
	} else if (end - p >= 8) {
		head = n ? sbx_swar_load(p) & (~UINT64_C(0) >> (64 - 8 * n)) : 0;
	} else {
		char few[8] = {0};
		memcpy(few, p, n);
		head = sbx_swar_load(few);
	}
	return mix(mix(n, head), tail);
}

static uint64_t
hash_unescaped(const char *p, size_t n)
{
	struct sbx_json_unescaper u = {.p = p, .end = p + n};
	uint64_t h = 0;
	for (int b = sbx_json_text_next_byte(&u); b >= 0; b = sbx_json_text_next_byte(&u))
		h = mix(h, (uint64_t)b + 1);
	return h;
}

static int
compare_names(const char *text, const struct sbx_json_name *a, const struct sbx_json_name *b)
{
	if (a->hash != b->hash)
		return a->hash < b->hash ? -1 : 1;
	size_t na = a->n & ~NAME_ESCAPED, nb = b->n & ~NAME_ESCAPED;
	if (!((a->n | b->n) & NAME_ESCAPED)) {
		if (na != nb)
			return na < nb ? -1 : 1;
		return memcmp(text + a->offset, text + b->offset, na);
	}
	struct sbx_json_unescaper ua = {.p = text + a->offset, .end = text + a->offset + na};
	struct sbx_json_unescaper ub = {.p = text + b->offset, .end = text + b->offset + nb};
	for (;;) {
		int ca = sbx_json_text_next_byte(&ua), cb = sbx_json_text_next_byte(&ub);
		if (ca != cb)
			return ca - cb;
		if (ca < 0)
			return 0;
	}
}

static void
sift_down(const char *text, struct sbx_json_name *v, size_t i, size_t n)
{
	struct sbx_json_name moved = v[i];
	for (size_t child; (child = 2 * i + 1) < n; i = child) {
		if (child + 1 < n && compare_names(text, &v[child], &v[child + 1]) < 0)
			child++;
		if (compare_names(text, &moved, &v[child]) >= 0)
			break;
		v[i] = v[child];
	}
	v[i] = moved;
}

/* Heap sort: n log n also against an adversary, and in place. */
static void
sort_names(const char *text, struct sbx_json_name *v, size_t n)
{
	for (size_t i = n / 2; i-- > 0;)
		sift_down(text, v, i, n);
	for (size_t i = n; i-- > 1;) {
		struct sbx_json_name last = v[i];
		v[i] = v[0];
		v[0] = last;
		sift_down(text, v, 0, i);
	}
}

/* The names of an object that closes, [first, top): the later one of an equal pair, or NULL. */
static const struct sbx_json_name *
find_duplicate(const char *text, struct sbx_json_name *v, size_t n)
{
	uint32_t any = 0;
	for (size_t i = 0; i < n; i++)
		any |= v[i].n;
	if (any & NAME_ESCAPED) /* the quick hash sees escapes as they are written */
		for (size_t i = 0; i < n; i++)
			v[i].hash = hash_unescaped(text + v[i].offset, v[i].n & ~NAME_ESCAPED);
	if (n > PAIRS_MAX) {
		sort_names(text, v, n);
		for (size_t i = 1; i < n; i++)
			if (compare_names(text, &v[i - 1], &v[i]) == 0)
				return v[i].offset > v[i - 1].offset ? &v[i] : &v[i - 1];
		return NULL;
	}
	for (size_t i = 1; i < n; i++)
		for (size_t j = 0; j < i; j++)
			if (v[j].hash == v[i].hash && compare_names(text, &v[j], &v[i]) == 0)
				return &v[i];
	return NULL;
}

static int
grow_names(struct sbx_json_scratch *s)
{
	if (s->cap >= SBX_JSON_NAMES_MAX)
		return -SBX_ETOOBIG;
	struct sbx_json_name *names = malloc(2 * s->cap * sizeof *names);
	if (!names)
		return -SBX_ENOMEM;
	memcpy(names, s->names, s->n * sizeof *names);
	if (s->names != s->first)
		free(s->names);
	s->names = names;
	s->cap *= 2;
	return 0;
}

/* A name and its colon, from the opening quote; NULL on failure. */
static inline const char *
check_name(struct checker *c, const char *p)
{
	struct sbx_json_scratch *s = c->scratch;
	if (*p != '"')
		return fail(c, -SBX_ESYNTAX, p, "a member's name must be a string");
	const char *name = p + 1;
	bool escaped = false;
	p = check_string(c, name, &escaped);
	if (!p)
		return NULL;
	size_t n = (size_t)(p - 1 - name);
	if (n >= NAME_ESCAPED)
		return fail(c, -SBX_ETOOBIG, name, "member name too long");
	if (s->n == s->cap) {
		int rc = grow_names(s);
		if (rc)
			return fail(c, rc, name, rc == -SBX_ENOMEM ? "out of memory" : "too many members");
	}
	s->names[s->n++] = (struct sbx_json_name){
		.hash = hash_plain(name, n, c->end),
		.offset = (uint32_t)(name - c->text),
		.n = (uint32_t)n | (escaped ? NAME_ESCAPED : 0),
	};
	p = sbx_json_text_skip_space(p, c->end);
	if (p == c->end || *p != ':')
		return fail(c, -SBX_ESYNTAX, p, "no colon behind a member's name");
	return p + 1;
}

static bool
close_object(struct checker *c, uint32_t first)
{
	struct sbx_json_scratch *s = c->scratch;
	const struct sbx_json_name *twice = s->n - first > 1 ? find_duplicate(c->text, s->names + first, s->n - first) : NULL;
	s->n = first;
	if (twice)
		(void)fail(c, -SBX_ESYNTAX, c->text + twice->offset, "an object names this member twice");
	return !twice;
}

static void
check_text(struct checker *c)
{
	enum { VALUE, FIRST_ELEMENT, MEMBER, FIRST_MEMBER, BEHIND } next = VALUE;
	uint32_t first[SBX_JSON_DEPTH_MAX]; /* of each open object: where its names begin */
	uint64_t objects = 0;               /* bit d: container d is an object */
	uint32_t depth = 0;
	const char *p = c->text;

	_Static_assert(SBX_JSON_DEPTH_MAX <= 64, "one bit of `objects` a level");
	for (;;) {
		p = sbx_json_text_skip_space(p, c->end);
		if (p == c->end) {
			if (next != BEHIND || depth > 0)
				(void)fail(c, -SBX_ESYNTAX, p, c->text == p ? "empty" : "the text ends too early");
			return;
		}
		bool closes = *p == (depth > 0 && objects >> (depth - 1) & 1 ? '}' : ']');
		switch (next) {
		case BEHIND:
			if (depth == 0) {
				(void)fail(c, -SBX_ESYNTAX, p, "more text behind the value");
				return;
			}
			if (*p == ',') {
				p++;
				next = objects >> (depth - 1) & 1 ? MEMBER : VALUE;
				continue;
			}
			if (!closes) {
				(void)fail(c, -SBX_ESYNTAX, p, "no comma between two values");
				return;
			}
			break;
		case FIRST_MEMBER:
		case MEMBER:
			if (closes && next == FIRST_MEMBER)
				break;
			p = check_name(c, p);
			if (!p)
				return;
			next = VALUE;
			continue;
		case FIRST_ELEMENT:
		case VALUE:
			if (closes && next == FIRST_ELEMENT)
				break;
			if (*p != '{' && *p != '[') {
				p = check_scalar(c, p);
				if (!p)
					return;
				next = BEHIND;
				continue;
			}
			if (depth == SBX_JSON_DEPTH_MAX) {
				(void)fail(c, -SBX_ETOOBIG, p, "nested too deep");
				return;
			}
			next = *p == '{' ? FIRST_MEMBER : FIRST_ELEMENT;
			objects = (objects & ~(UINT64_C(1) << depth)) | (uint64_t)(*p == '{') << depth;
			first[depth++] = c->scratch->n;
			p++;
			continue;
		}
		/* a container closes */
		depth--;
		if (*p == '}' && !close_object(c, first[depth]))
			return;
		p++;
		next = BEHIND;
	}
}

void
sbx_json_scratch_init(struct sbx_json_scratch *s)
{
	s->names = s->first;
	s->n = 0;
	s->cap = SBX_JSON_NAMES_FIRST;
}

void
sbx_json_scratch_fini(struct sbx_json_scratch *s)
{
	if (s->names != s->first)
		free(s->names);
	sbx_json_scratch_init(s);
}

int
sbx_json_check(const char *text, size_t n, struct sbx_json_scratch *s, struct sbx_json_error *ret_err)
{
	struct checker c = {.text = text, .end = text + n, .scratch = s};
	if (n > SBX_JSON_TEXT_MAX)
		(void)fail(&c, -SBX_ETOOBIG, text, "text too long");
	else
		check_text(&c);
	sbx_json_scratch_fini(s);
	if (c.rc && ret_err) {
		uint32_t line = 1;
		for (const char *p = text; p < c.where; p++)
			line += *p == '\n';
		*ret_err = (struct sbx_json_error){.what = c.what, .offset = (size_t)(c.where - text), .line = line};
	}
	return c.rc;
}
