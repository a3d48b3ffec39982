/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_wire.c -- the codec: what is packed reads back, and nothing that arrives can make it read where it should not.
 *
 * Frames to be refused are checked in heap blocks of exactly their size, so that the address sanitizer sees a byte too far.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/wire.h"

static char why[128];

/* Walks everything that a checked frame holds; the sum keeps the compiler from dropping the reads. */
static unsigned
walk(const struct sbx_value *v)
{
	unsigned sum = v->type;
	struct sbx_cursor c = sbx_cursor_of(v);
	struct sbx_value item;
	struct sbx_span key;
	if (v->type == SBX_STR || v->type == SBX_BIN || v->type == SBX_EXT) {
		for (size_t i = 0; i < v->bytes.n; i++)
			sum += (unsigned char)v->bytes.at[i];
	} else if (v->type == SBX_ARRAY) {
		while (sbx_next_item(&c, &item))
			sum += walk(&item);
		assert_ptr_equal(c.at, c.end);
	} else if (v->type == SBX_MAP) {
		while (sbx_next_pair(&c, &key, &item))
			sum += (unsigned)key.n + walk(&item);
		assert_ptr_equal(c.at, c.end);
	}
	return sum;
}

static int
check(const void *bytes, size_t n, struct sbx_frame *ret_frame)
{
	uint8_t *exact = malloc(n ? n : 1);
	assert_non_null(exact);
	memcpy(exact, bytes, n);
	struct sbx_frame f;
	memset(why, 0, sizeof why);
	int rc = sbx_frame_check(exact, n, &f, why, sizeof why);
	if (rc == 0)
		(void)walk(&f.map);
	else
		assert_true(strlen(why) > 10);
	if (rc == 0 && ret_frame)
		*ret_frame = f; /* kind and id only: the bytes go */
	free(exact);
	return rc;
}

/* ---- packing ---- */

/* One of everything. */
static void
pack_sample(struct sbx_buf *b, uint64_t id)
{
	struct sbx_packer p;
	sbx_frame_begin(&p, b, SBX_FRAME_EVENT, id, 9);
	sbx_pack_uint(&p, "small", 5);
	sbx_pack_uint(&p, "large", UINT64_MAX);
	sbx_pack_int(&p, "negative", -70000);
	sbx_pack_bool(&p, "yes", true);
	sbx_pack_nil(&p, "nil");
	sbx_pack_str(&p, "str", SBX_SPAN("h\xc3\xa9llo"));
	sbx_pack_bin(&p, "bin", SBX_SPAN("\0\xff\x80"));
	sbx_pack_map(&p, "map", 2);
	sbx_pack_array(&p, "array", 3);
	sbx_pack_uint(&p, NULL, 300);
	sbx_pack_str(&p, NULL, (struct sbx_span){ NULL, 0 });
	sbx_pack_map(&p, NULL, 0);
	sbx_pack_bool(&p, "no", false);
	sbx_pack_key(&p, "float");
	msgpack_pack_double(&p.pk, 1.5);
	assert_int_equal(sbx_frame_end(&p), 0);
}

static void
test_round_trip(void **state)
{
	struct sbx_buf b;
	struct sbx_frame f;
	struct sbx_value v, item;
	(void)state;
	sbx_buf_init(&b, 4096);
	assert_int_equal(sbx_buf_append(&b, "before", 6), 0);
	pack_sample(&b, SBX_ID_MAX);
	assert_memory_equal(b.data, "before", 6);
	sbx_buf_consume(&b, 6);
	assert_true(sbx_frame_size(b.data, b.n, 4096) == (int64_t)b.n);
	assert_int_equal(sbx_frame_check(b.data + 4, b.n - 4, &f, why, sizeof why), 0);
	assert_int_equal(f.kind, SBX_FRAME_EVENT);
	assert_true(f.id == SBX_ID_MAX);
	assert_int_equal(f.map.n_items, 9);
	assert_true(sbx_map_get(&f.map, "small", &v) && v.type == SBX_UINT && v.u == 5);
	assert_true(sbx_map_get(&f.map, "large", &v) && v.type == SBX_UINT && v.u == UINT64_MAX);
	assert_true(sbx_map_get(&f.map, "negative", &v) && v.type == SBX_INT && (int64_t)v.u == -70000);
	assert_true(sbx_map_get(&f.map, "yes", &v) && v.type == SBX_BOOL && v.truth);
	assert_false(sbx_map_get(&f.map, "nil", &v));
	assert_false(sbx_map_get(&f.map, "absent", &v));
	assert_true(sbx_map_get(&f.map, "str", &v) && v.type == SBX_STR && sbx_span_is(v.bytes, "h\xc3\xa9llo"));
	assert_true(sbx_map_get(&f.map, "bin", &v) && v.type == SBX_BIN && v.bytes.n == 3);
	assert_memory_equal(v.bytes.at, "\0\xff\x80", 3);
	assert_true(sbx_map_get(&f.map, "map", &v) && v.type == SBX_MAP && v.n_items == 2);
	struct sbx_value inner = v;
	assert_true(sbx_map_get(&inner, "no", &v) && v.type == SBX_BOOL && !v.truth);
	assert_true(sbx_map_get(&f.map, "float", &v) && v.type == SBX_FLOAT && v.f == 1.5);
	assert_true(sbx_map_get(&inner, "array", &v) && v.type == SBX_ARRAY && v.n_items == 3);
	struct sbx_cursor c = sbx_cursor_of(&v);
	assert_true(sbx_next_item(&c, &item) && item.u == 300);
	assert_true(sbx_next_item(&c, &item) && item.type == SBX_STR && item.bytes.n == 0);
	assert_true(sbx_next_item(&c, &item) && item.type == SBX_MAP && item.n_items == 0);
	assert_false(sbx_next_item(&c, &item));
	sbx_buf_fini(&b);
}

static void
test_text_repair(void **state)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{ "plain", "plain" },
		{ "\xe2\x82\xac", "\xe2\x82\xac" },
		{ "a\xff" "b", "a\xef\xbf\xbd" "b" },
		{ "\xc3", "\xef\xbf\xbd" },
		{ "\xe2\x82", "\xef\xbf\xbd" },               /* cut short: one */
		{ "\xe2\x82" "A", "\xef\xbf\xbd" "A" },
		{ "\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd" },   /* overlong: one each */
		{ "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" }, /* a surrogate */
		{ "\xf5\x80", "\xef\xbf\xbd\xef\xbf\xbd" },
		{ "eight by\x80tes", "eight by\xef\xbf\xbdtes" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct sbx_buf b;
		struct sbx_packer p;
		struct sbx_frame f;
		struct sbx_value v;
		sbx_buf_init(&b, 4096);
		sbx_frame_begin(&p, &b, SBX_FRAME_EVENT, 1, 1);
		sbx_pack_str(&p, "text", sbx_span_of(cases[i].in));
		assert_int_equal(sbx_frame_end(&p), 0);
		assert_int_equal(sbx_frame_check(b.data + 4, b.n - 4, &f, why, sizeof why), 0);
		assert_true(sbx_map_get(&f.map, "text", &v));
		if (!sbx_span_is(v.bytes, cases[i].out))
			fail_msg("case %zu: %.*s", i, (int)v.bytes.n, v.bytes.at);
		sbx_buf_fini(&b);
	}
}

static void
test_pack_failures(void **state)
{
	struct sbx_buf b;
	struct sbx_packer p;
	char *large = calloc(1, SBX_FRAME_MAX_BYTES + 2u);
	(void)state;
	assert_non_null(large);
	/* Whatever fills up, and wherever in the frame: the buffer is as before. */
	for (size_t room = 0; room < 60; room++) {
		sbx_buf_init(&b, 5 + room);
		assert_int_equal(sbx_buf_append(&b, "12345", 5), 0);
		sbx_frame_begin(&p, &b, SBX_FRAME_EVENT, 1, 2);
		sbx_pack_str(&p, "text", SBX_SPAN("some text of a certain length"));
		sbx_pack_uint(&p, "type", 1);
		int rc = sbx_frame_end(&p);
		assert_true(rc == 0 || rc == -SBX_ETOOBIG);
		if (rc) {
			assert_int_equal(b.n, 5);
			assert_memory_equal(b.data, "12345", 5);
		}
		sbx_buf_fini(&b);
	}
	/* Beyond the largest frame, and beyond what a 32-bit head can say. */
	static const size_t sizes[] = { SBX_FRAME_MAX_BYTES - 10u, SBX_FRAME_MAX_BYTES, SBX_FRAME_MAX_BYTES + 1u, SIZE_MAX };
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		sbx_buf_init(&b, 80u << 20);
		sbx_frame_begin(&p, &b, SBX_FRAME_EVENT, 1, 1);
		if (i & 1)
			sbx_pack_bin(&p, "data", (struct sbx_span){ large, sizes[i] });
		else
			sbx_pack_str(&p, "data", (struct sbx_span){ large, sizes[i] });
		assert_int_equal(sbx_frame_end(&p), -SBX_ETOOBIG);
		assert_int_equal(b.n, 0);
		sbx_buf_fini(&b);
	}
	/* Short enough as it is, too long once repaired. */
	memset(large, 0xff, SBX_FRAME_MAX_BYTES / 2);
	sbx_buf_init(&b, 80u << 20);
	sbx_frame_begin(&p, &b, SBX_FRAME_EVENT, 1, 1);
	sbx_pack_str(&p, "data", (struct sbx_span){ large, SBX_FRAME_MAX_BYTES / 2 });
	assert_int_equal(sbx_frame_end(&p), -SBX_ETOOBIG);
	sbx_buf_fini(&b);
	free(large);
}

/* ---- frames off a stream ---- */

static void
test_frame_size(void **state)
{
	static const struct {
		const char *bytes;
		size_t n;
		int64_t want;
	} cases[] = {
		{ "", 0, 0 },
		{ "\0\0\0", 3, 0 },
		{ "\0\0\0\4", 4, 0 },
		{ "\0\0\0\4abc", 7, 0 },
		{ "\0\0\0\4abcd", 8, 8 },
		{ "\0\0\0\4abcdefg", 11, 8 },
		{ "\0\0\0\3abc", 7, -SBX_EPROTO },
		{ "\0\0\0\0", 4, -SBX_EPROTO },
		{ "\0\0\x03\xe9", 4, -SBX_ETOOBIG }, /* told as soon as the length is there */
		{ "\0\0\x03\xe8", 4, 0 },
		{ "\xff\xff\xff\xff", 4, -SBX_ETOOBIG },
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		assert_true(sbx_frame_size((const uint8_t *)cases[i].bytes, cases[i].n, 1000) == cases[i].want);
}

/* ---- the check ---- */

#define BYTES(literal) (literal), sizeof(literal) - 1

static void
test_form(void **state)
{
	static const struct {
		const char *name, *bytes;
		size_t n;
		bool good;
	} cases[] = {
		{ "the smallest", BYTES("\x93\x01\x00\x80"), true },
		{ "empty", BYTES(""), false },
		{ "no array", BYTES("\x80"), false },
		{ "array of two", BYTES("\x92\x01\x80"), false },
		{ "array of four", BYTES("\x94\x01\x00\x80\x00"), false },
		{ "array of three, 16 bits", BYTES("\xdc\x00\x03\x01\x00\x80"), true },
		{ "array of three, 32 bits", BYTES("\xdd\x00\x00\x00\x03\x01\x00\x80"), true },
		{ "bytes behind", BYTES("\x93\x01\x00\x80\x00"), false },
		{ "kind negative", BYTES("\x93\xff\x00\x80"), false },
		{ "kind a str", BYTES("\x93\xa1k\x00\x80"), false },
		{ "kind of 33 bits", BYTES("\x93\xcf\0\0\0\1\0\0\0\0\x00\x80"), false },
		{ "id nil", BYTES("\x93\x01\xc0\x80"), false },
		{ "id 2^53", BYTES("\x93\x01\xcf\x00\x20\0\0\0\0\0\0\x80"), true },
		{ "id 2^53 + 1", BYTES("\x93\x01\xcf\x00\x20\0\0\0\0\0\1\x80"), false },
		{ "id a float", BYTES("\x93\x01\xca\x3f\x80\0\0\x80"), false },
		{ "id a signed spelling of 5", BYTES("\x93\x01\xd0\x05\x80"), true },
		{ "id -1", BYTES("\x93\x01\xd0\xff\x80"), false },
		{ "array for a map", BYTES("\x93\x01\x00\x90"), false },
		{ "nil for a map", BYTES("\x93\x01\x00\xc0"), false },
		{ "one pair", BYTES("\x93\x01\x00\x81\xa1k\x01"), true },
		{ "key a number", BYTES("\x93\x01\x00\x81\x01\x01"), false },
		{ "key a bin", BYTES("\x93\x01\x00\x81\xc4\x01k\x01"), false },
		{ "key nil", BYTES("\x93\x01\x00\x81\xc0\x01"), false },
		{ "key not UTF-8", BYTES("\x93\x01\x00\x81\xa1\xff\x01"), false },
		{ "key empty", BYTES("\x93\x01\x00\x81\xa0\x01"), true },
		{ "no value", BYTES("\x93\x01\x00\x81\xa1k"), false },
		{ "same key twice", BYTES("\x93\x01\x00\x82\xa1k\x01\xa1k\x02"), false },
		{ "same key twice, spelled differently", BYTES("\x93\x01\x00\x82\xa1k\x01\xd9\x01k\x02"), false },
		{ "empty key twice", BYTES("\x93\x01\x00\x82\xa0\x01\xa0\x02"), false },
		{ "same key in an inner map", BYTES("\x93\x01\x00\x81\xa1k\x81\xa1k\x02"), true },
		{ "inner map with a key twice", BYTES("\x93\x01\x00\x81\xa1k\x82\xa1k\x02\xa1k\x02"), false },
		{ "str not UTF-8", BYTES("\x93\x01\x00\x81\xa1k\xa2\xc3\x28"), false },
		{ "bin not UTF-8", BYTES("\x93\x01\x00\x81\xa1k\xc4\x02\xc3\x28"), true },
		{ "0xc1", BYTES("\x93\x01\x00\x81\xa1k\xc1"), false },
		{ "every scalar", BYTES("\x93\x01\x00\x81\xa1k\x9f\xc0\xc2\xc3\xcc\x80\xcd\1\1\xce\1\1\1\1\xcf\1\1\1\1\1\1\1\1\xd0\x80\xd1\x80\0"
		                        "\xd2\x80\0\0\0\xd3\x80\0\0\0\0\0\0\0\xca\1\1\1\1\xcb\1\1\1\1\1\1\1\1\xe0\xa0"), true },
		{ "every str, bin, ext", BYTES("\x93\x01\x00\x81\xa1k\x9e\xd9\1s\xda\0\1s\xdb\0\0\0\1s\xc4\1b\xc5\0\1b\xc6\0\0\0\1b\xc7\1\5e"
		                               "\xc8\0\1\5e\xc9\0\0\0\1\5e\xd4\5e\xd5\5ee\xd6\5eeee\xd7\5eeeeeeee\xd8\5eeeeeeeeeeeeeeee"), true },
		{ "every container", BYTES("\x93\x01\x00\x81\xa1k\x96\x90\x80\xdc\0\1\0\xdd\0\0\0\1\0\xde\0\1\xa1k\0\xdf\0\0\0\1\xa1k\0"), true },
		/* lengths that lie */
		{ "str longer than the rest", BYTES("\x93\x01\x00\x81\xa1k\xa2s"), false },
		{ "str 32 of 4 GiB", BYTES("\x93\x01\x00\x81\xa1k\xdb\xff\xff\xff\xff"), false },
		{ "bin 32 of 4 GiB", BYTES("\x93\x01\x00\x81\xa1k\xc6\xff\xff\xff\xff"), false },
		{ "ext 32 of 4 GiB", BYTES("\x93\x01\x00\x81\xa1k\xc9\xff\xff\xff\xff\5"), false },
		{ "array of 4 G", BYTES("\x93\x01\x00\x81\xa1k\xdd\xff\xff\xff\xff"), false },
		{ "map of 4 G", BYTES("\x93\x01\x00\xdf\xff\xff\xff\xff"), false },
		{ "map of 2 G: twice that wraps", BYTES("\x93\x01\x00\xdf\x80\0\0\0"), false },
		{ "outer array of 4 G", BYTES("\xdd\xff\xff\xff\xff\x01\x00\x80"), false },
		{ "length cut", BYTES("\x93\x01\x00\x81\xa1k\xdb\0\0"), false },
		{ "fixext cut", BYTES("\x93\x01\x00\x81\xa1k\xd8\5eeee"), false },
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		int rc = check(cases[i].bytes, cases[i].n, NULL);
		if (rc != (cases[i].good ? 0 : -SBX_EPROTO))
			fail_msg("%s: %d %s", cases[i].name, rc, why);
	}
}

static void
test_depth_and_elements(void **state)
{
	(void)state;
	for (int depth = 1; depth < 40; depth++) {
		/* The frame's array and map are two levels, the rest are arrays in one another. */
		uint8_t bytes[64] = { 0x93, 0x01, 0x00, 0x81, 0xa1, 'k' };
		size_t n = 6;
		for (int i = 2; i < depth; i++)
			bytes[n++] = 0x91;
		bytes[n++] = 0xc0;
		assert_int_equal(check(bytes, n, NULL), depth <= SBX_FRAME_DEPTH_MAX ? 0 : -SBX_EPROTO);
	}
	/* 3 members and 2 for the pair; the array has the rest. */
	for (uint32_t items = SBX_FRAME_ELEMENTS_MAX - 7; items < SBX_FRAME_ELEMENTS_MAX + 3; items++) {
		size_t n = 11 + items;
		uint8_t *bytes = calloc(1, n);
		assert_non_null(bytes);
		memcpy(bytes, "\x93\x01\x00\x81\xa1k\xdd", 7);
		bytes[7] = (uint8_t)(items >> 24);
		bytes[8] = (uint8_t)(items >> 16);
		bytes[9] = (uint8_t)(items >> 8);
		bytes[10] = (uint8_t)items;
		assert_int_equal(check(bytes, n, NULL), items + 5 <= SBX_FRAME_ELEMENTS_MAX ? 0 : -SBX_EPROTO);
		free(bytes);
	}
}

/* 30,000 keys that differ only in their last bytes, in an order that is no order; one of them twice, or none. */
static void
test_many_keys(void **state)
{
	enum { N = 30000 };
	(void)state;
	for (int twice = 0; twice < 3; twice++) {
		struct sbx_buf b;
		struct sbx_packer p;
		sbx_buf_init(&b, 8u << 20);
		sbx_frame_begin(&p, &b, SBX_FRAME_STATS, 1, N);
		for (uint32_t i = 0; i < N; i++) {
			char key[80];
			uint32_t number = i * 7919u % N; /* 7919 is prime to N: each number once */
			if (twice && i == N / (uint32_t)twice - 1)
				number = 0; /* which was the first */
			(void)snprintf(key, sizeof key, "a rather long common beginning of all the keys %05u", number);
			if (i % 1000 == 5) { /* maps within, large and small */
				sbx_pack_map(&p, key, 20);
				for (uint32_t k = 0; k < 20; k++) {
					char inner[8];
					(void)snprintf(inner, sizeof inner, "%u", k);
					sbx_pack_uint(&p, inner, k);
				}
			} else {
				sbx_pack_uint(&p, key, i);
			}
		}
		assert_int_equal(sbx_frame_end(&p), 0);
		assert_int_equal(check(b.data + 4, b.n - 4, NULL), twice ? -SBX_EPROTO : 0);
		if (twice)
			assert_non_null(strstr(why, "twice"));
		sbx_buf_fini(&b);
	}
	/* Around the number where the way of comparing changes. */
	for (uint32_t n = 2; n < 40; n++) {
		for (uint32_t first = 0; first < n; first++) {
			uint8_t bytes[200] = { 0x93, 0x01, 0x00, 0xde, 0, (uint8_t)n };
			size_t at = 6;
			for (uint32_t i = 0; i < n; i++) {
				bytes[at++] = 0xa1;
				bytes[at++] = (uint8_t)('A' + (i == n - 1 ? first : i));
				bytes[at++] = 0;
			}
			assert_int_equal(check(bytes, at, NULL), first == n - 1 ? 0 : -SBX_EPROTO);
		}
	}
}

static void
test_every_cut_and_every_byte(void **state)
{
	struct sbx_buf b;
	(void)state;
	sbx_buf_init(&b, 4096);
	pack_sample(&b, 77);
	size_t n = b.n - 4;
	uint8_t *bytes = b.data + 4;
	assert_int_equal(check(bytes, n, NULL), 0);
	for (size_t cut = 0; cut < n; cut++)
		assert_int_equal(check(bytes, cut, NULL), -SBX_EPROTO);
	for (size_t cut = 0; cut <= n + 4; cut++) { /* as a stream: not before the last byte */
		int64_t want = cut == n + 4 ? (int64_t)cut : 0;
		assert_true(sbx_frame_size(b.data, cut, 4096) == want);
	}
	for (size_t at = 0; at < n; at++) {
		uint8_t was = bytes[at];
		for (int value = 0; value < 256; value++) {
			bytes[at] = (uint8_t)value;
			int rc = check(bytes, n, NULL);
			assert_true(rc == 0 || rc == -SBX_EPROTO);
		}
		bytes[at] = was;
	}
	sbx_buf_fini(&b);
}

static void
test_not_set_on_failure(void **state)
{
	struct sbx_frame f;
	struct sbx_value v = { .u = 42 };
	(void)state;
	memset(&f, 0x5a, sizeof f);
	struct sbx_frame was = f;
	assert_int_equal(sbx_frame_check((const uint8_t *)"\x93\x01\x07\x81\xc1", 5, &f, why, sizeof why), -SBX_EPROTO);
	assert_memory_equal(&f, &was, sizeof f);
	assert_int_equal(sbx_frame_check((const uint8_t *)"\x93\x01\x07\x80", 4, &f, why, sizeof why), 0);
	assert_false(sbx_map_get(&f.map, "k", &v));
	assert_true(v.u == 42);
	v.type = SBX_STR;
	struct sbx_cursor c = sbx_cursor_of(&v); /* no container: empty */
	assert_false(sbx_next_item(&c, &v));
}

static void
test_codes(void **state)
{
	(void)state;
	for (int i = SBX_CODE_NONE + 1; i < SBX_CODE__COUNT; i++) {
		const char *word = sbx_code_word((enum sbx_code)i);
		assert_int_equal(sbx_code_find(sbx_span_of(word)), i);
		assert_true(sbx_code_status((enum sbx_code)i) >= 400);
	}
	assert_string_equal(sbx_code_word(SBX_CODE_UNKNOWN_MODEL), "unknown_model");
	assert_int_equal(sbx_code_status(SBX_CODE_UNKNOWN_MODEL), 404);
	assert_string_equal(sbx_code_word(SBX_CODE_NONE), "");
	assert_int_equal(sbx_code_find(SBX_SPAN("")), SBX_CODE_NONE);
	assert_int_equal(sbx_code_find(SBX_SPAN("unknown_modelx")), SBX_CODE_NONE);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_text_repair),
		cmocka_unit_test(test_pack_failures),
		cmocka_unit_test(test_frame_size),
		cmocka_unit_test(test_form),
		cmocka_unit_test(test_depth_and_elements),
		cmocka_unit_test(test_many_keys),
		cmocka_unit_test(test_every_cut_and_every_byte),
		cmocka_unit_test(test_not_set_on_failure),
		cmocka_unit_test(test_codes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
