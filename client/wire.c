/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wire.c -- see wire.h.
 *
 * Packing: every msgpack_pack_* call ends in write_to_buf(); the first failure sticks in the packer and sbx_frame_end() tells it.
 *
 * Reading: read_head() is the only place that interprets an encoded byte; it never looks past `end`. The check recurses over
 * containers (bounded by SBX_FRAME_DEPTH_MAX) and settles each promise of a length before it is used: a container's items
 * are charged to the frame's budget, and compared with the bytes left, before the first of them is looked at.
 *
 * Unique keys: maps of up to KEYS_FEW keys, which is every frame of normal traffic, compare each new key with those before
 * it. Larger ones collect their keys on a stack shared by the whole frame and sort them: O(n log n) whatever the peer sends, where
 * a hash table would need a secret seed. That stack is the only memory that a check can take, at most 8 bytes an element.
 */
#include "client/wire.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define FRAME_LEAST_BYTES 4 /* 0x93 kind id 0x80 */
#define FIXSTR_MAX_BYTES 31 /* of a string whose head is one byte */
#define KEYS_FEW 16         /* EVENT has 2 to 6 keys, ERROR about 12 */

/* ---- UTF-8 ---- */

/* Length of the sequence at p[0..n), n > 0. If it is broken, of the part that one U+FFFD stands for (Unicode, 3.9, D93b). */
static size_t
utf8_sequence(const uint8_t *p, size_t n, bool *ret_valid)
{
	uint8_t lead = p[0], low = 0x80, high = 0xbf;
	size_t len;
	*ret_valid = false;
	if (lead < 0x80) {
		len = 1;
	} else if (lead >= 0xc2 && lead <= 0xdf) {
		len = 2;
	} else if (lead >= 0xe0 && lead <= 0xef) {
		len = 3;
		if (lead == 0xe0)
			low = 0xa0; /* overlong */
		if (lead == 0xed)
			high = 0x9f; /* surrogates */
	} else if (lead >= 0xf0 && lead <= 0xf4) {
		len = 4;
		if (lead == 0xf0)
			low = 0x90; /* overlong */
		if (lead == 0xf4)
			high = 0x8f; /* above U+10FFFF */
	} else {
		return 1;
	}
	for (size_t i = 1; i < len; i++) {
		if (i >= n || p[i] < low || p[i] > high)
			return i;
		low = 0x80;
		high = 0xbf;
	}
	*ret_valid = true;
	return len;
}

static bool
utf8_valid(struct sbx_span text)
{
	const uint8_t *p = (const uint8_t *)text.at;
	size_t left = text.n;
	while (left) {
		uint64_t eight;
		if (left >= sizeof eight) {
			memcpy(&eight, p, sizeof eight);
			if ((eight & 0x8080808080808080u) == 0) {
				p += sizeof eight;
				left -= sizeof eight;
				continue;
			}
		}
		bool valid;
		size_t len = utf8_sequence(p, left, &valid);
		if (!valid)
			return false;
		p += len;
		left -= len;
	}
	return true;
}

/* ---- packing ---- */

static int
write_to_buf(void *data, const char *bytes, size_t n)
{
	struct sbx_packer *p = data;
	if (p->rc == 0)
		p->rc = sbx_buf_append(p->out, bytes, n);
	return p->rc;
}

void
sbx_frame_begin(struct sbx_packer *p, struct sbx_buf *out, enum sbx_frame_kind kind, uint64_t id, uint32_t n_keys)
{
	static const char length_later[SBX_FRAME_HEAD_BYTES];
	p->out = out;
	p->frame_at = out->n;
	p->rc = 0;
	msgpack_packer_init(&p->pk, p, write_to_buf);
	(void)write_to_buf(p, length_later, sizeof length_later);
	msgpack_pack_array(&p->pk, 3);
	msgpack_pack_uint32(&p->pk, kind);
	msgpack_pack_uint64(&p->pk, id);
	msgpack_pack_map(&p->pk, n_keys);
}

int
sbx_frame_end(struct sbx_packer *p)
{
	struct sbx_buf *out = p->out;
	size_t bytes = out->n - p->frame_at - SBX_FRAME_HEAD_BYTES;
	if (p->rc == 0 && bytes > SBX_FRAME_MAX_BYTES)
		p->rc = -SBX_ETOOBIG;
	if (p->rc) {
		out->n = p->frame_at;
		return p->rc;
	}
	uint8_t *head = out->data + p->frame_at;
	head[0] = (uint8_t)(bytes >> 24);
	head[1] = (uint8_t)(bytes >> 16);
	head[2] = (uint8_t)(bytes >> 8);
	head[3] = (uint8_t)bytes;
	return 0;
}

/* A string. Keys and most values are short: their head and their bytes are written at once. */
static void
pack_text(struct sbx_packer *p, const char *text, size_t n)
{
	char whole[1 + FIXSTR_MAX_BYTES];
	if (n > FIXSTR_MAX_BYTES) {
		msgpack_pack_str_with_body(&p->pk, text, n);
		return;
	}
	whole[0] = (char)(0xa0 | n);
	if (n)
		memcpy(whole + 1, text, n);
	(void)write_to_buf(p, whole, 1 + n);
}

void
sbx_pack_key(struct sbx_packer *p, const char *key)
{
	if (key)
		pack_text(p, key, strlen(key));
}

void
sbx_pack_uint(struct sbx_packer *p, const char *key, uint64_t value)
{
	sbx_pack_key(p, key);
	msgpack_pack_uint64(&p->pk, value);
}

void
sbx_pack_int(struct sbx_packer *p, const char *key, int64_t value)
{
	sbx_pack_key(p, key);
	msgpack_pack_int64(&p->pk, value);
}

void
sbx_pack_bool(struct sbx_packer *p, const char *key, bool value)
{
	sbx_pack_key(p, key);
	if (value)
		msgpack_pack_true(&p->pk);
	else
		msgpack_pack_false(&p->pk);
}

void
sbx_pack_nil(struct sbx_packer *p, const char *key)
{
	sbx_pack_key(p, key);
	msgpack_pack_nil(&p->pk);
}

/* The same text with each broken sequence replaced: once to measure, once to write, so that no copy of it is made. */
static void
pack_repaired(struct sbx_packer *p, struct sbx_span text)
{
	static const char replacement[] = "\xef\xbf\xbd";
	for (int pass = 0; pass < 2; pass++) {
		size_t total = 0, good_from = 0;
		for (size_t i = 0; i < text.n;) {
			bool valid;
			size_t len = utf8_sequence((const uint8_t *)text.at + i, text.n - i, &valid);
			if (valid) {
				total += len;
			} else {
				total += 3;
				if (pass) {
					msgpack_pack_str_body(&p->pk, text.at + good_from, i - good_from);
					msgpack_pack_str_body(&p->pk, replacement, 3);
				}
				good_from = i + len;
			}
			i += len;
		}
		if (pass)
			msgpack_pack_str_body(&p->pk, text.at + good_from, text.n - good_from);
		else if (total > SBX_FRAME_MAX_BYTES)
			p->rc = p->rc ? p->rc : -SBX_ETOOBIG; /* before the 32 bits of a head could overflow */
		else
			msgpack_pack_str(&p->pk, total);
	}
}

void
sbx_pack_str(struct sbx_packer *p, const char *key, struct sbx_span text)
{
	sbx_pack_key(p, key);
	if (text.n > SBX_FRAME_MAX_BYTES)
		p->rc = p->rc ? p->rc : -SBX_ETOOBIG;
	else if (utf8_valid(text))
		pack_text(p, text.at, text.n);
	else
		pack_repaired(p, text);
}

void
sbx_pack_bin(struct sbx_packer *p, const char *key, struct sbx_span bytes)
{
	sbx_pack_key(p, key);
	if (bytes.n > SBX_FRAME_MAX_BYTES)
		p->rc = p->rc ? p->rc : -SBX_ETOOBIG;
	else
		msgpack_pack_bin_with_body(&p->pk, bytes.at, bytes.n);
}

void
sbx_pack_map(struct sbx_packer *p, const char *key, uint32_t n_keys)
{
	sbx_pack_key(p, key);
	msgpack_pack_map(&p->pk, n_keys);
}

void
sbx_pack_array(struct sbx_packer *p, const char *key, uint32_t n_items)
{
	sbx_pack_key(p, key);
	msgpack_pack_array(&p->pk, n_items);
}

/* ---- reading ---- */

static uint64_t
big_endian(const uint8_t *p, size_t width)
{
	uint64_t v = 0;
	for (size_t i = 0; i < width; i++)
		v = v << 8 | p[i];
	return v;
}

int64_t
sbx_frame_size(const uint8_t *data, size_t n, size_t max_bytes)
{
	if (n < SBX_FRAME_HEAD_BYTES)
		return 0;
	size_t bytes = big_endian(data, SBX_FRAME_HEAD_BYTES);
	if (bytes > max_bytes)
		return -SBX_ETOOBIG;
	if (bytes < FRAME_LEAST_BYTES)
		return -SBX_EPROTO;
	return n - SBX_FRAME_HEAD_BYTES >= bytes ? (int64_t)(bytes + SBX_FRAME_HEAD_BYTES) : 0;
}

/* How the bytes after the type byte are laid out. */
enum shape { IMMEDIATE, NUMBER, COUNTED /* a length, then content */, FIXED_EXT, ITEMS /* a count, then items */, NEVER };
struct form {
	enum shape shape;
	enum sbx_value_type type;
	uint8_t width; /* bytes of the number, length or count; FIXED_EXT: of the content */
};
static const struct form forms[32] = { /* 0xc0 to 0xdf */
	{ IMMEDIATE, SBX_NIL, 0 }, { NEVER, SBX_NIL, 0 }, { IMMEDIATE, SBX_BOOL, 0 }, { IMMEDIATE, SBX_BOOL, 0 },
	{ COUNTED, SBX_BIN, 1 }, { COUNTED, SBX_BIN, 2 }, { COUNTED, SBX_BIN, 4 },
	{ COUNTED, SBX_EXT, 1 }, { COUNTED, SBX_EXT, 2 }, { COUNTED, SBX_EXT, 4 },
	{ NUMBER, SBX_FLOAT, 4 }, { NUMBER, SBX_FLOAT, 8 },
	{ NUMBER, SBX_UINT, 1 }, { NUMBER, SBX_UINT, 2 }, { NUMBER, SBX_UINT, 4 }, { NUMBER, SBX_UINT, 8 },
	{ NUMBER, SBX_INT, 1 }, { NUMBER, SBX_INT, 2 }, { NUMBER, SBX_INT, 4 }, { NUMBER, SBX_INT, 8 },
	{ FIXED_EXT, SBX_EXT, 1 }, { FIXED_EXT, SBX_EXT, 2 }, { FIXED_EXT, SBX_EXT, 4 }, { FIXED_EXT, SBX_EXT, 8 },
	{ FIXED_EXT, SBX_EXT, 16 },
	{ COUNTED, SBX_STR, 1 }, { COUNTED, SBX_STR, 2 }, { COUNTED, SBX_STR, 4 },
	{ ITEMS, SBX_ARRAY, 2 }, { ITEMS, SBX_ARRAY, 4 }, { ITEMS, SBX_MAP, 2 }, { ITEMS, SBX_MAP, 4 },
};

static void
set_number(struct sbx_value *v, enum sbx_value_type type, const uint8_t *p, uint8_t width)
{
	uint64_t u = big_endian(p, width);
	if (type == SBX_FLOAT) {
		if (width == 4) {
			uint32_t bits = (uint32_t)u;
			float f;
			memcpy(&f, &bits, sizeof f);
			v->f = (double)f;
		} else {
			memcpy(&v->f, &u, sizeof v->f);
		}
	} else if (type == SBX_INT) {
		uint64_t sign = 1ull << (width * 8 - 1);
		if (u & sign)
			u |= ~(sign - 1);
		else
			type = SBX_UINT; /* a signed spelling of a positive number */
		v->u = u;
	} else {
		v->u = u;
	}
	v->type = type;
}

/* Reads the value at *at, and moves *at behind it; for a container, behind its head, with bytes.at there and bytes.n 0.
 * Returns NULL or what is wrong. Sets only the members that the type has. */
static const char *
read_head(const uint8_t **at, const uint8_t *end, struct sbx_value *v)
{
	const uint8_t *p = *at;
	if (p == end)
		return "it ends where a value is due";
	uint8_t lead = *p++;
	uint64_t content = 0; /* bytes of it that must follow */
	bool items = false;
	if (lead < 0x80) {
		v->type = SBX_UINT;
		v->u = lead;
	} else if (lead >= 0xe0) {
		v->type = SBX_INT;
		v->u = ~0xffull | lead;
	} else if (lead < 0xa0) {
		v->type = lead < 0x90 ? SBX_MAP : SBX_ARRAY;
		v->n_items = lead & 0x0f;
		items = true;
	} else if (lead < 0xc0) {
		v->type = SBX_STR;
		content = lead & 0x1f;
	} else {
		const struct form *form = &forms[lead - 0xc0];
		size_t left = (size_t)(end - p);
		v->type = form->type;
		switch (form->shape) {
		case IMMEDIATE:
			v->truth = lead == 0xc3;
			break;
		case NEVER:
			return "0xc1 is no MessagePack type";
		case FIXED_EXT:
			content = form->width + 1u; /* with its type byte */
			break;
		case NUMBER:
		case COUNTED:
		case ITEMS:
			if (left < form->width)
				return "it ends inside a number or a length";
			if (form->shape == NUMBER) {
				set_number(v, form->type, p, form->width);
			} else if (form->shape == ITEMS) {
				v->n_items = (uint32_t)big_endian(p, form->width);
				items = true;
			} else {
				content = big_endian(p, form->width) + (form->type == SBX_EXT);
			}
			p += form->width;
			break;
		}
	}
	if (content > (uint64_t)(end - p))
		return "a length is larger than the bytes that are left";
	if (items || v->type == SBX_STR || v->type == SBX_BIN || v->type == SBX_EXT)
		v->bytes = (struct sbx_span){ (const char *)p, content };
	*at = p + content;
	return NULL;
}

/* ---- the check ---- */

struct key_at {
	uint32_t offset, n; /* in the frame */
};

struct check {
	const uint8_t *start, *at, *end;
	uint32_t budget;     /* elements that may still come */
	struct sbx_buf keys; /* struct key_at: of the maps around here that have more than KEYS_FEW */
	const char *wrong;   /* NULL = nothing */
	int rc;
};

static bool
refuse(struct check *c, const char *wrong)
{
	c->wrong = wrong;
	c->rc = -SBX_EPROTO;
	return false;
}

static int
compare_keys(const struct check *c, struct key_at a, struct key_at b)
{
	if (a.n != b.n)
		return a.n < b.n ? -1 : 1;
	return memcmp(c->start + a.offset, c->start + b.offset, a.n);
}

static void
sift_down(const struct check *c, struct key_at *keys, size_t root, size_t n)
{
	for (;;) {
		size_t child = 2 * root + 1;
		if (child >= n)
			return;
		if (child + 1 < n && compare_keys(c, keys[child], keys[child + 1]) < 0)
			child++;
		if (compare_keys(c, keys[root], keys[child]) >= 0)
			return;
		struct key_at swap = keys[root];
		keys[root] = keys[child];
		keys[child] = swap;
		root = child;
	}
}

/* Heap sort: in place, no worst case, no allocation (glibc's qsort() makes one). */
static bool
all_different(const struct check *c, struct key_at *keys, size_t n)
{
	for (size_t i = n / 2; i-- > 0;)
		sift_down(c, keys, i, n);
	for (size_t i = n; i-- > 1;) {
		struct key_at largest = keys[0];
		keys[0] = keys[i];
		keys[i] = largest;
		sift_down(c, keys, 0, i);
	}
	for (size_t i = 1; i < n; i++) {
		if (compare_keys(c, keys[i - 1], keys[i]) == 0)
			return false;
	}
	return true;
}

static bool check_value(struct check *c, uint32_t depth, struct sbx_value *ret_value);

static bool
check_key(struct check *c, struct sbx_span *ret_key)
{
	struct sbx_value key;
	const char *wrong = read_head(&c->at, c->end, &key);
	if (wrong)
		return refuse(c, wrong);
	if (key.type != SBX_STR)
		return refuse(c, "a key is no str");
	if (!utf8_valid(key.bytes))
		return refuse(c, "a key is not UTF-8");
	*ret_key = key.bytes;
	return true;
}

static bool
check_few_pairs(struct check *c, uint32_t depth, uint32_t n)
{
	struct sbx_span seen[KEYS_FEW];
	for (uint32_t i = 0; i < n; i++) {
		struct sbx_value value;
		if (!check_key(c, &seen[i]))
			return false;
		for (uint32_t k = 0; k < i; k++) {
			if (sbx_span_eq(seen[k], seen[i]))
				return refuse(c, "a key stands twice in a map");
		}
		if (!check_value(c, depth, &value))
			return false;
	}
	return true;
}

static bool
check_many_pairs(struct check *c, uint32_t depth, uint32_t n)
{
	size_t mine = c->keys.n;
	for (uint32_t i = 0; i < n; i++) {
		struct sbx_span key;
		struct sbx_value value;
		if (!check_key(c, &key))
			return false;
		struct key_at key_at = { (uint32_t)((const uint8_t *)key.at - c->start), (uint32_t)key.n };
		c->rc = sbx_buf_append(&c->keys, &key_at, sizeof key_at);
		if (c->rc) {
			c->wrong = "out of memory";
			return false;
		}
		if (!check_value(c, depth, &value)) /* maps in it push above ours, and pop */
			return false;
	}
	if (!all_different(c, (struct key_at *)(void *)(c->keys.data + mine), n))
		return refuse(c, "a key stands twice in a map");
	c->keys.n = mine;
	return true;
}

static bool
check_value(struct check *c, uint32_t depth, struct sbx_value *ret_value)
{
	struct sbx_value *v = ret_value;
	const char *wrong = read_head(&c->at, c->end, v);
	if (wrong)
		return refuse(c, wrong);
	if (v->type == SBX_STR && !utf8_valid(v->bytes))
		return refuse(c, "a str is not UTF-8");
	if (v->type != SBX_ARRAY && v->type != SBX_MAP)
		return true;

	uint64_t n = v->type == SBX_MAP ? 2ull * v->n_items : v->n_items;
	if (depth >= SBX_FRAME_DEPTH_MAX)
		return refuse(c, "it is nested too deeply");
	if (n > (uint64_t)(c->end - c->at))
		return refuse(c, "a container has more items than there are bytes left");
	if (n > c->budget)
		return refuse(c, "it has too many elements");
	c->budget -= (uint32_t)n;
	if (v->type == SBX_MAP) {
		if (v->n_items <= KEYS_FEW ? !check_few_pairs(c, depth + 1, v->n_items) : !check_many_pairs(c, depth + 1, v->n_items))
			return false;
	} else {
		struct sbx_value item;
		for (uint32_t i = 0; i < v->n_items; i++) {
			if (!check_value(c, depth + 1, &item))
				return false;
		}
	}
	v->bytes.n = (size_t)(c->at - (const uint8_t *)v->bytes.at);
	return true;
}

static bool
check_frame(struct check *c, struct sbx_frame *f)
{
	struct sbx_value v;
	const char *wrong = read_head(&c->at, c->end, &v);
	if (wrong)
		return refuse(c, wrong);
	if (v.type != SBX_ARRAY || v.n_items != 3)
		return refuse(c, "it is not an array of three");
	c->budget -= 3;
	if (!check_value(c, 1, &v))
		return false;
	if (v.type != SBX_UINT || v.u > UINT32_MAX)
		return refuse(c, "its kind is not a small unsigned integer");
	f->kind = (uint32_t)v.u;
	if (!check_value(c, 1, &v))
		return false;
	if (v.type != SBX_UINT || v.u > SBX_ID_MAX)
		return refuse(c, "its id is not an unsigned integer up to 2^53");
	f->id = v.u;
	if (!check_value(c, 1, &f->map))
		return false;
	if (f->map.type != SBX_MAP)
		return refuse(c, "its third member is not a map");
	if (c->at != c->end)
		return refuse(c, "bytes follow after its array");
	return true;
}

int
sbx_frame_check(const uint8_t *data, size_t n, struct sbx_frame *ret_frame, char *why, size_t why_bytes)
{
	struct check c = { .start = data, .at = data, .end = data + n, .budget = SBX_FRAME_ELEMENTS_MAX };
	struct sbx_frame f;
	if (n > SBX_FRAME_MAX_BYTES) {
		(void)snprintf(why, why_bytes, "a frame of %zu bytes, above the limit of %u", n, SBX_FRAME_MAX_BYTES);
		return -SBX_EPROTO;
	}
	sbx_buf_init(&c.keys, sizeof(struct key_at) * SBX_FRAME_ELEMENTS_MAX);
	bool good = check_frame(&c, &f);
	sbx_buf_fini(&c.keys);
	if (!good) {
		(void)snprintf(why, why_bytes, "a malformed frame: %s, near byte %zu of %zu", c.wrong, (size_t)(c.at - data), n);
		return c.rc;
	}
	*ret_frame = f;
	return 0;
}

/* ---- cursors over checked bytes ---- */

struct sbx_cursor
sbx_cursor_of(const struct sbx_value *container)
{
	struct sbx_cursor c = { NULL, NULL, 0 };
	if (container->type == SBX_ARRAY || container->type == SBX_MAP) {
		c.at = (const uint8_t *)container->bytes.at;
		c.end = c.at + container->bytes.n;
		c.left = container->n_items;
	}
	return c;
}

/* Where the items of a container end. Iterative: all that matters is how many values are still to be passed. */
static const uint8_t *
skip_items(const uint8_t *at, const uint8_t *end, const struct sbx_value *container)
{
	uint64_t due = container->type == SBX_MAP ? 2ull * container->n_items : container->n_items;
	struct sbx_value v;
	for (; due; due--) {
		const char *wrong = read_head(&at, end, &v);
		assert(!wrong); /* these bytes were checked */
		(void)wrong;
		if (v.type == SBX_ARRAY)
			due += v.n_items;
		else if (v.type == SBX_MAP)
			due += 2ull * v.n_items;
	}
	return at;
}

static void
read_checked(struct sbx_cursor *c, struct sbx_value *v)
{
	const char *wrong = read_head(&c->at, c->end, v);
	assert(!wrong); /* these bytes were checked */
	(void)wrong;
	if (v->type == SBX_ARRAY || v->type == SBX_MAP) {
		c->at = skip_items(c->at, c->end, v);
		v->bytes.n = (size_t)(c->at - (const uint8_t *)v->bytes.at);
	}
}

bool
sbx_next_item(struct sbx_cursor *c, struct sbx_value *ret_item)
{
	if (c->left == 0)
		return false;
	c->left--;
	read_checked(c, ret_item);
	return true;
}

bool
sbx_next_pair(struct sbx_cursor *c, struct sbx_span *ret_key, struct sbx_value *ret_value)
{
	struct sbx_value key;
	if (c->left == 0)
		return false;
	c->left--;
	read_checked(c, &key);
	read_checked(c, ret_value);
	*ret_key = key.bytes;
	return true;
}

bool
sbx_map_get(const struct sbx_value *map, const char *key, struct sbx_value *ret_value)
{
	struct sbx_span wanted = sbx_span_of(key), found;
	struct sbx_value value;
	if (map->type != SBX_MAP)
		return false;
	for (struct sbx_cursor c = sbx_cursor_of(map); sbx_next_pair(&c, &found, &value);) {
		if (!sbx_span_eq(found, wanted))
			continue;
		if (value.type == SBX_NIL)
			return false;
		*ret_value = value;
		return true;
	}
	return false;
}

/* ---- codes ---- */

static const struct {
	const char *word;
	int status;
} codes[SBX_CODE__COUNT] = {
	[SBX_CODE_NONE] = { "", 200 },
#define X(name, word, status) [name] = { word, status },
	SBX_CODES(X)
#undef X
};

const char *
sbx_code_word(enum sbx_code code)
{
	assert(code < SBX_CODE__COUNT);
	return codes[code].word;
}

int
sbx_code_status(enum sbx_code code)
{
	assert(code < SBX_CODE__COUNT);
	return codes[code].status;
}

enum sbx_code
sbx_code_find(struct sbx_span word)
{
	for (int i = SBX_CODE_NONE + 1; i < SBX_CODE__COUNT; i++) {
		if (sbx_span_is(word, codes[i].word))
			return (enum sbx_code)i;
	}
	return SBX_CODE_NONE;
}
