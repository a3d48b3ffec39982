/* SPDX-License-Identifier: Apache-2.0 */
/* test_submit.c -- the keys of a SUBMIT: one row per thing that may stand there, and what becomes of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/io/submit.h"

enum type { END, STR, BIN, UINT, INT, TRUTH, NIL, LIST /* names with commas between */, MAP /* name=text with commas between; NULL = empty */ };

struct pair {
	const char *key;
	enum type type;
	const char *text;
	uint64_t number;
};

/* A frame of these pairs, checked; it lies in b. */
static void
frame_of(const struct pair *pairs, struct sbx_buf *b, struct sbx_frame *ret_frame)
{
	struct sbx_packer p;
	uint32_t n = 0;
	char why[192];
	while (pairs[n].type != END)
		n++;
	sbx_frame_begin(&p, b, SBX_FRAME_SUBMIT, 1, n);
	for (const struct pair *pair = pairs; pair->type != END; pair++) {
		uint32_t names = 1;
		switch (pair->type) {
		case STR:
			sbx_pack_str(&p, pair->key, sbx_span_of(pair->text));
			break;
		case BIN:
			sbx_pack_bin(&p, pair->key, sbx_span_of(pair->text));
			break;
		case UINT:
			sbx_pack_uint(&p, pair->key, pair->number);
			break;
		case INT:
			sbx_pack_int(&p, pair->key, (int64_t)pair->number);
			break;
		case TRUTH:
			sbx_pack_bool(&p, pair->key, pair->number != 0);
			break;
		case NIL:
			sbx_pack_nil(&p, pair->key);
			break;
		case LIST:
			for (const char *at = pair->text; (at = strchr(at, ',')); at++)
				names++;
			sbx_pack_array(&p, pair->key, pair->text[0] ? names : 0);
			for (const char *at = pair->text; *at; at += strcspn(at, ","), at += *at == ',')
				sbx_pack_str(&p, NULL, (struct sbx_span){ at, strcspn(at, ",") });
			break;
		case MAP:
			for (const char *at = pair->text; at && (at = strchr(at, ',')); at++)
				names++;
			sbx_pack_map(&p, pair->key, pair->text ? names : 0);
			for (const char *at = pair->text; at && *at; at += *at == ',') {
				char name[16];
				size_t key_bytes = strcspn(at, "=");
				(void)snprintf(name, sizeof name, "%.*s", (int)key_bytes, at);
				at += key_bytes + 1;
				sbx_pack_str(&p, name, (struct sbx_span){ at, strcspn(at, ",") });
				at += strcspn(at, ",");
			}
			break;
		case END:
			break;
		}
	}
	assert_int_equal(sbx_frame_end(&p), 0);
	if (sbx_frame_check(b->data + SBX_FRAME_HEAD_BYTES, b->n - SBX_FRAME_HEAD_BYTES, ret_frame, why, sizeof why))
		fail_msg("%s", why);
}

static char *
repeat(char c, size_t n)
{
	char *text = malloc(n + 1);
	assert_non_null(text);
	memset(text, c, n);
	text[n] = 0;
	return text;
}

#define BODY { "body", BIN, "{}", 0 }
#define T16 "a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p"

static void
what_is_wrong_is_refused_by_name(void **state)
{
	(void)state;
	char *name_384 = repeat('n', 384), *name_385 = repeat('n', 385), *key_255 = repeat('k', 255), *key_256 = repeat('k', 256);
	const struct {
		const char *name;
		struct pair pair[5];
		enum sbx_code code; /* NONE: it is taken */
		const char *says;
	} rows[] = {
		{ "the least", { BODY }, SBX_CODE_NONE, NULL },
		{ "nothing", { { NULL, END, NULL, 0 } }, SBX_CODE_INVALID_REQUEST, "needs a body" },
		{ "nil is absent: the body", { { "body", NIL, NULL, 0 } }, SBX_CODE_INVALID_REQUEST, "needs a body" },
		{ "nil is absent: what is not supported", { BODY, { "tags", NIL, NULL, 0 } }, SBX_CODE_NONE, NULL },
		{ "an empty body", { { "body", BIN, "", 0 } }, SBX_CODE_INVALID_REQUEST, "body" },
		{ "a body that is a number", { { "body", UINT, NULL, 5 } }, SBX_CODE_INVALID_REQUEST, "body" },
		{ "a key of nobody", { BODY, { "temperature", UINT, NULL, 1 } }, SBX_CODE_INVALID_REQUEST, "\"temperature\"" },
		{ "a key in another case", { BODY, { "Stream", TRUTH, NULL, 1 } }, SBX_CODE_INVALID_REQUEST, "\"Stream\"" },
		{ "a key that is empty", { BODY, { "", UINT, NULL, 1 } }, SBX_CODE_INVALID_REQUEST, "\"\"" },
		{ "a key of 256 bytes", { BODY, { key_256, UINT, NULL, 1 } }, SBX_CODE_INVALID_REQUEST, "kkk" },

		{ "a route", { BODY, { "route", STR, "r", 0 } }, SBX_CODE_NONE, NULL },
		{ "an empty route", { BODY, { "route", STR, "", 0 } }, SBX_CODE_INVALID_REQUEST, "route" },
		{ "a route as bytes", { BODY, { "route", BIN, "r", 0 } }, SBX_CODE_INVALID_REQUEST, "route" },
		{ "the longest model", { BODY, { "model", STR, name_384, 0 } }, SBX_CODE_NONE, NULL },
		{ "a longer one", { BODY, { "model", STR, name_385, 0 } }, SBX_CODE_INVALID_REQUEST, "model" },
		{ "16 targets", { BODY, { "targets", LIST, T16, 0 } }, SBX_CODE_NONE, NULL },
		{ "17 targets", { BODY, { "targets", LIST, T16 ",q", 0 } }, SBX_CODE_INVALID_REQUEST, "targets" },
		{ "no targets", { BODY, { "targets", LIST, "", 0 } }, SBX_CODE_INVALID_REQUEST, "targets" },
		{ "a target without a name", { BODY, { "targets", LIST, "a,,b", 0 } }, SBX_CODE_INVALID_REQUEST, "targets" },
		{ "targets as text", { BODY, { "targets", STR, "a", 0 } }, SBX_CODE_INVALID_REQUEST, "targets" },
		{ "route and model", { BODY, { "route", STR, "r", 0 }, { "model", STR, "m", 0 } }, SBX_CODE_INVALID_REQUEST, "only one" },
		{ "model and targets", { BODY, { "model", STR, "m", 0 }, { "targets", LIST, "a", 0 } }, SBX_CODE_INVALID_REQUEST, "only one" },

		{ "our dialect", { BODY, { "dialect", STR, "openai-chat", 0 } }, SBX_CODE_NONE, NULL },
		{ "another", { BODY, { "dialect", STR, "anthropic", 0 } }, SBX_CODE_UNSUPPORTED, "openai-chat" },
		{ "a dialect with a long name", { BODY, { "dialect", STR, name_384, 0 } }, SBX_CODE_UNSUPPORTED, "dialect" },
		{ "our operation", { BODY, { "operation", STR, "chat", 0 } }, SBX_CODE_NONE, NULL },
		{ "completions", { BODY, { "operation", STR, "completions", 0 } }, SBX_CODE_NONE, NULL },
		{ "embeddings", { BODY, { "operation", STR, "embeddings", 0 }, { "reply", STR, "data", 0 } }, SBX_CODE_NONE, NULL },
		{ "embeddings as events", { BODY, { "operation", STR, "embeddings", 0 } }, SBX_CODE_INVALID_REQUEST, "one piece" },
		{ "embeddings as a stream", { BODY, { "operation", STR, "embeddings", 0 }, { "reply", STR, "data", 0 }, { "stream", TRUTH, NULL, 1 } }, SBX_CODE_INVALID_REQUEST, "one piece" },
		{ "another", { BODY, { "operation", STR, "images", 0 } }, SBX_CODE_UNSUPPORTED, "operation" },
		{ "as http", { BODY, { "as_http", TRUTH, NULL, 1 } }, SBX_CODE_NONE, NULL },
		{ "as http, and data", { BODY, { "as_http", TRUTH, NULL, 1 }, { "reply", STR, "data", 0 } }, SBX_CODE_NONE, NULL },
		{ "as http, and events", { BODY, { "as_http", TRUTH, NULL, 1 }, { "reply", STR, "events", 0 } }, SBX_CODE_INVALID_REQUEST, "as_http" },
		{ "as http, and a stream", { BODY, { "as_http", TRUTH, NULL, 1 }, { "stream", TRUTH, NULL, 0 } }, SBX_CODE_INVALID_REQUEST, "as_http" },
		{ "as http by a word", { BODY, { "as_http", STR, "yes", 0 } }, SBX_CODE_INVALID_REQUEST, "as_http" },
		{ "reply events", { BODY, { "reply", STR, "events", 0 } }, SBX_CODE_NONE, NULL },
		{ "reply something", { BODY, { "reply", STR, "raw", 0 } }, SBX_CODE_INVALID_REQUEST, "reply" },
		{ "reply yes", { BODY, { "reply", TRUTH, NULL, 1 } }, SBX_CODE_INVALID_REQUEST, "reply" },
		{ "stream 1", { BODY, { "stream", UINT, NULL, 1 } }, SBX_CODE_INVALID_REQUEST, "stream" },
		{ "restart \"yes\"", { BODY, { "restart", STR, "yes", 0 } }, SBX_CODE_INVALID_REQUEST, "restart" },
		{ "the shortest deadline", { BODY, { "deadline_ms", UINT, NULL, 1 } }, SBX_CODE_NONE, NULL },
		{ "the longest", { BODY, { "deadline_ms", UINT, NULL, SBX_DEADLINE_MAX_MS } }, SBX_CODE_NONE, NULL },
		{ "a longer one", { BODY, { "deadline_ms", UINT, NULL, SBX_DEADLINE_MAX_MS + 1 } }, SBX_CODE_INVALID_REQUEST, "deadline_ms" },
		{ "one that would wrap", { BODY, { "deadline_ms", UINT, NULL, (1ull << 32) + 5 } }, SBX_CODE_INVALID_REQUEST, "deadline_ms" },
		{ "none at all", { BODY, { "deadline_ms", UINT, NULL, 0 } }, SBX_CODE_INVALID_REQUEST, "deadline_ms" },
		{ "one that has passed", { BODY, { "deadline_ms", INT, NULL, (uint64_t)-5 } }, SBX_CODE_INVALID_REQUEST, "deadline_ms" },
		{ "an idempotency key", { BODY, { "idempotency_key", STR, key_255, 0 } }, SBX_CODE_NONE, NULL },
		{ "a longer one", { BODY, { "idempotency_key", STR, key_256, 0 } }, SBX_CODE_INVALID_REQUEST, "idempotency_key" },
		{ "an empty one", { BODY, { "idempotency_key", STR, "", 0 } }, SBX_CODE_INVALID_REQUEST, "idempotency_key" },
		{ "one that breaks its header", { BODY, { "idempotency_key", STR, "a\r\nX: y", 0 } }, SBX_CODE_INVALID_REQUEST, "idempotency_key" },
		{ "one with a space", { BODY, { "idempotency_key", STR, "a b", 0 } }, SBX_CODE_INVALID_REQUEST, "idempotency_key" },
		{ "one beyond ASCII", { BODY, { "idempotency_key", STR, "\xc3\xa9", 0 } }, SBX_CODE_INVALID_REQUEST, "idempotency_key" },

		{ "a principal of nothing", { BODY, { "principal", MAP, NULL, 0 } }, SBX_CODE_NONE, NULL },
		{ "a principal", { BODY, { "principal", MAP, "tenant=t 1,key=k,user=u", 0 } }, SBX_CODE_NONE, NULL },
		{ "a principal of words", { BODY, { "principal", STR, "t", 0 } }, SBX_CODE_INVALID_REQUEST, "principal must be a map" },
		{ "a principal with more", { BODY, { "principal", MAP, "team=t", 0 } }, SBX_CODE_INVALID_REQUEST, "nothing else" },
		{ "an empty tenant", { BODY, { "principal", MAP, "tenant=", 0 } }, SBX_CODE_INVALID_REQUEST, "printable" },
		{ "a tenant of two lines", { BODY, { "principal", MAP, "tenant=a\nb", 0 } }, SBX_CODE_INVALID_REQUEST, "printable" },
		{ "a tenant beyond ASCII", { BODY, { "principal", MAP, "tenant=\xc3\xa9", 0 } }, SBX_CODE_INVALID_REQUEST, "printable" },
		{ "tags", { BODY, { "tags", MAP, NULL, 0 } }, SBX_CODE_UNSUPPORTED, "tags" },
		{ "max_cost_nanousd", { BODY, { "max_cost_nanousd", UINT, NULL, 0 } }, SBX_CODE_UNSUPPORTED, "max_cost_nanousd" },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct sbx_submit s = { .deadline_ms = 77 };
		enum sbx_code code = SBX_CODE_NONE;
		char why[256] = "";
		struct sbx_buf b;
		struct sbx_frame frame;
		sbx_buf_init(&b, 1u << 20);
		frame_of(rows[i].pair, &b, &frame);
		int rc = sbx_submit_read(&frame, &s, &code, why, sizeof why);
		if (rc != (rows[i].code ? -SBX_EINVAL : 0) || (rc && (code != rows[i].code || !strstr(why, rows[i].says))))
			fail_msg("%s (row %zu): %d, %s: %s", rows[i].name, i, rc, sbx_code_word(code), why);
		if (rc)
			assert_int_equal(s.deadline_ms, 77); /* untouched on failure */
		sbx_buf_fini(&b);
	}
	free(name_384);
	free(name_385);
	free(key_255);
	free(key_256);
}

static void
what_is_given_is_read_and_what_is_not_has_its_default(void **state)
{
	(void)state;
	static const struct pair least[] = { BODY, { NULL, END, NULL, 0 } };
	static const struct pair all[] = {
		{ "body", STR, "{\"a\":1}", 0 },    { "targets", LIST, "a/m,b/m", 0 }, { "dialect", STR, "openai-chat", 0 }, { "operation", STR, "chat", 0 },
		{ "stream", TRUTH, NULL, 0 },       { "reply", STR, "data", 0 },       { "restart", TRUTH, NULL, 1 },        { "deadline_ms", UINT, NULL, 1500 },
		{ "idempotency_key", STR, "k1", 0 }, { NULL, END, NULL, 0 },
	};
	struct sbx_submit s;
	enum sbx_code code;
	char why[256];
	struct sbx_buf b;
	struct sbx_frame frame;
	sbx_buf_init(&b, 1u << 20);
	frame_of(least, &b, &frame);
	assert_int_equal(sbx_submit_read(&frame, &s, &code, why, sizeof why), 0);
	assert_true(sbx_span_is(s.body, "{}"));
	assert_string_equal(s.dialect->name, "openai-chat");
	assert_true(s.route.n == 0 && s.model.n == 0 && s.n_targets == 0 && s.idempotency_key.n == 0);
	assert_false(s.has_stream || s.data || s.restart);
	assert_int_equal(s.deadline_ms, 0);
	assert_int_equal(s.op, SBX_OP_CHAT);
	assert_false(s.as_http);
	sbx_buf_clear(&b);
	frame_of(all, &b, &frame);
	assert_int_equal(sbx_submit_read(&frame, &s, &code, why, sizeof why), 0);
	assert_true(sbx_span_is(s.body, "{\"a\":1}"));
	assert_true(s.n_targets == 2 && sbx_span_is(s.target[0], "a/m") && sbx_span_is(s.target[1], "b/m"));
	assert_true(s.has_stream && !s.stream && s.data && s.restart);
	assert_int_equal(s.deadline_ms, 1500);
	assert_true(sbx_span_is(s.idempotency_key, "k1"));
	sbx_buf_fini(&b);
}

static void
a_body_at_its_limit_is_taken_and_one_above_is_too_large(void **state)
{
	(void)state;
	for (size_t over = 0; over < 2; over++) {
		char *body = repeat(' ', SBX_BODY_IN_MAX_BYTES + over);
		const struct pair pairs[] = { { "body", BIN, body, 0 }, { NULL, END, NULL, 0 } };
		struct sbx_submit s;
		enum sbx_code code = SBX_CODE_NONE;
		char why[256];
		struct sbx_buf b;
		struct sbx_frame frame;
		sbx_buf_init(&b, 64u << 20);
		frame_of(pairs, &b, &frame);
		assert_int_equal(sbx_submit_read(&frame, &s, &code, why, sizeof why), over ? -SBX_EINVAL : 0);
		if (over)
			assert_int_equal(code, SBX_CODE_TOO_LARGE);
		sbx_buf_fini(&b);
		free(body);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_wrong_is_refused_by_name),
		cmocka_unit_test(what_is_given_is_read_and_what_is_not_has_its_default),
		cmocka_unit_test(a_body_at_its_limit_is_taken_and_one_above_is_too_large),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
