/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_wire.c -- hostile and broken bytes on the clients' socket (T23): each gets its typed error or a clean close, at once;
 * the agent, its other clients, its descriptors and its memory do not notice, and nothing of it reaches a provider.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/e2e/control.h"
#include "tests/e2e/harness.h"
#include "tests/e2e/raw.h"

#define SAYS_HELLO "\x93\x01\x00\x81\xa7version\x01"

#ifdef __SANITIZE_ADDRESS__
#define RSS_SLACK (1ll << 40) /* freed memory is kept in quarantine: it says nothing */
#else
#define RSS_SLACK (8ll << 20)
#endif

/* ---- before and after: the agent is as it was ---- */

struct before {
	int fds;
	int64_t rss;
};

static struct before
before(struct world *w)
{
	struct sbx_client *c = client_up(w);
	sbx_reply_free(ask(c, true, 10000));
	sbx_close(c);
	agent_wait_at_rest(w, 5000);
	free(double_get(w, 0, "DELETE", "/mock/log", NULL, NULL));
	return (struct before){ agent_fds(w), agent_rss_bytes(w) };
}

static void
assert_unharmed(struct world *w, const struct before *was)
{
	assert_int_equal(double_requests(w, 0), 0);
	struct sbx_client *c = client_up(w);
	struct sbx_reply *r = ask(c, true, 10000);
	assert_true(sbx_reply_ok(r));
	sbx_reply_free(r);
	sbx_close(c);
	agent_wait_at_rest(w, 5000);
	uint64_t until = now_ms() + 5000;
	while (agent_fds(w) > was->fds && now_ms() < until) /* a close by a client is noticed a moment later */
		pause_ms(5);
	assert_true(agent_fds(w) <= was->fds);
	assert_true(agent_rss_bytes(w) <= was->rss + RSS_SLACK);
}

/* ---- frames that end the connection ---- */

static bool
send_frame(struct raw *r, const void *bytes, size_t n)
{
	uint8_t head[4] = { (uint8_t)(n >> 24), (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n };
	struct sbx_buf b; /* in one piece: the agent may close at its first bytes */
	sbx_buf_init(&b, 64u << 20);
	bool sent = !sbx_buf_append(&b, head, sizeof head) && !sbx_buf_append(&b, bytes, n) && raw_send(r, b.data, b.n);
	sbx_buf_fini(&b);
	return sent;
}

struct bytes {
	const char *name, *at;
	size_t n;
};
#define ROW(name, literal) { name, literal, sizeof(literal) - 1 }

static const struct bytes bad_frames[] = {
	ROW("nil", "\xc0\xc0\xc0\xc0"),
	ROW("an array of two", "\x92\x05\x01"),
	ROW("an array of four", "\x94\x05\x01\x80\xc0"),
	ROW("a kind that is text", "\x93\xa1x\x01\x80"),
	ROW("a kind that nobody knows", "\x93\x63\x01\x80"),
	ROW("a kind that only the agent sends", "\x93\x20\x01\x80"),
	ROW("a negative id", "\x93\x05\xff\x80"),
	ROW("an id above 2^53", "\x93\x05\xcf\x00\x20\x00\x00\x00\x00\x00\x01\x80"),
	ROW("an id that is a float", "\x93\x05\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00\x80"),
	ROW("an array for the map", "\x93\x05\x01\x90"),
	ROW("a key that is a number", "\x93\x05\x01\x81\x01\x01"),
	ROW("a byte too many", "\x93\x05\x01\x80\x00"),
	ROW("two arrays", "\x93\x05\x01\x80\x93\x05\x02\x80"),
	ROW("a map that claims 2^32-1 pairs", "\x93\x05\x01\xdf\xff\xff\xff\xff"),
	ROW("an array that claims 2^32-1 items", "\x93\x05\x01\x81\xa1k\xdd\xff\xff\xff\xff"),
	ROW("text that claims 4 GiB", "\x93\x05\x01\x81\xa1k\xdb\xff\xff\xff\xff"),
	ROW("bytes that claim one more than there are", "\x93\x05\x01\x81\xa1k\xc4\x03xy"),
	ROW("a key twice", "\x93\x05\x01\x82\xa1k\x01\xa1k\x01"),
	ROW("a key twice, nested", "\x93\x05\x01\x81\xa1m\x82\xa1k\x01\xa1k\x01"),
	ROW("a key that is not UTF-8", "\x93\x05\x01\x81\xa1\xff\x01"),
	ROW("text that is not UTF-8", "\x93\x05\x01\x81\xa1k\xa2\xc3\x28"),
	ROW("the type byte that does not exist", "\x93\x05\x01\x81\xa1k\xc1"),
	ROW("the end inside a pair", "\x93\x05\x01\x81\xa1k"),
	ROW("SUBMIT with id 0", "\x93\x02\x00\x80"),
	ROW("CREDIT without bytes", "\x93\x04\x01\x80"),
	ROW("METRICS from a word", "\x93\x0b\x01\x81\xa4" "from\xa1x"),
	ROW("METRICS from below 0", "\x93\x0b\x01\x81\xa4" "from\xff"),
	ROW("CREDIT with text for bytes", "\x93\x04\x01\x81\xa5" "bytes\xa1x"),
	ROW("a second HELLO", SAYS_HELLO),
};

static void
t23_malformed_frames_end_their_connection_with_a_typed_error(void **state)
{
	(void)state;
	struct world w;
	struct raw r, other;
	world_simple(&w, 1, NULL, NULL);
	struct before was = before(&w);
	size_t n = sizeof bad_frames / sizeof bad_frames[0];
	raw_up(&other, &w);
	for (size_t i = 0; i < n; i++) {
		print_message("  %s\n", bad_frames[i].name);
		raw_up(&r, &w);
		assert_true(send_frame(&r, bad_frames[i].at, bad_frames[i].n));
		assert_true(raw_expect_error(&r, 0, "invalid_request", 5000)[0] != 0);
		raw_expect_close(&r, 5000);
		raw_close(&r);
	}
	assert_int_equal(agent_number(&w, "frames_bad"), n);
	raw_close(&other); /* it stood beside them all */
	assert_unharmed(&w, &was);
	world_down(&w);
}

static void
t23_depth_and_elements_are_limited(void **state)
{
	(void)state;
	struct world w;
	struct raw r;
	world_simple(&w, 1, NULL, NULL);
	struct before was = before(&w);
	for (int i = 0; i < 3; i++) {
		struct sbx_buf b;
		sbx_buf_init(&b, 64u << 20);
		(void)sbx_buf_append(&b, "\x93\x05\x01\x81\xa1k", 6);
		if (i == 0) /* arrays in arrays, deeper than any stack should follow */
			for (int k = 0; k < 1000000; k++)
				(void)sbx_buf_append(&b, "\x91", 1);
		else if (i == 1) /* 32 levels are allowed in all; this is one more */
			for (int k = 0; k < SBX_FRAME_DEPTH_MAX - 1; k++)
				(void)sbx_buf_append(&b, "\x91", 1);
		else { /* as many items as are there, but too many */
			(void)sbx_buf_append(&b, "\xdd\x00\x01\x00\x01", 5);
			for (int k = 0; k < 65536; k++)
				(void)sbx_buf_append(&b, "\xc0", 1);
		}
		(void)sbx_buf_append(&b, "\xc0", 1);
		raw_up(&r, &w);
		assert_true(send_frame(&r, b.data, b.n));
		assert_true(raw_expect_error(&r, 0, "invalid_request", 5000)[0] != 0);
		raw_expect_close(&r, 5000);
		raw_close(&r);
		sbx_buf_fini(&b);
	}
	assert_unharmed(&w, &was);
	world_down(&w);
}

static void
t23_a_length_beyond_33_mib_or_below_any_frame_is_refused_at_once(void **state)
{
	(void)state;
	static const struct bytes heads[] = {
		ROW("33 MiB and a byte", "\x02\x10\x00\x01"), ROW("4 GiB", "\xff\xff\xff\xff"), ROW("0", "\x00\x00\x00\x00"), ROW("1", "\x00\x00\x00\x01\x93"),
		ROW("an HTTP client", "GET / HTTP/1.1\r\n\r\n"), ROW("a TLS client", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
	};
	struct world w;
	struct raw r;
	world_simple(&w, 1, NULL, NULL);
	struct before was = before(&w);
	for (size_t i = 0; i < 2 * sizeof heads / sizeof heads[0]; i++) {
		if (i % 2)
			raw_up(&r, &w);
		else
			raw_open(&r, &w);
		assert_true(raw_send(&r, heads[i / 2].at, heads[i / 2].n));
		(void)raw_expect_error(&r, 0, "invalid_request", 5000);
		raw_expect_close(&r, 5000);
		raw_close(&r);
	}
	/* A length that lies within the limit: memory grows with what arrives, not with what is claimed. */
	int64_t rss = agent_rss_bytes(&w);
	struct raw liar[20];
	for (int i = 0; i < 20; i++) {
		raw_up(&liar[i], &w);
		assert_true(raw_send(&liar[i], "\x02\x00\x00\x00\x93\x02\x01\x81", 8));
	}
	assert_true(agent_rss_bytes(&w) < rss + (2 << 20));
	for (int i = 0; i < 20; i++)
		raw_close(&liar[i]);
	assert_unharmed(&w, &was);
	world_down(&w);
}

static void
t23_the_first_frame_is_hello_of_our_version(void **state)
{
	(void)state;
	static const struct {
		struct bytes bytes;
		const char *code, *says;
	} rows[] = {
		{ ROW("SUBMIT first", "\x93\x02\x01\x80"), "invalid_request", "HELLO" },
		{ ROW("STATS first", "\x93\x05\x01\x80"), "invalid_request", "HELLO" },
		{ ROW("version 2", "\x93\x01\x00\x81\xa7version\x02"), "unsupported", "version 1" },
		{ ROW("version \"1\"", "\x93\x01\x00\x81\xa7version\xa1" "1"), "unsupported", "version 1" },
		{ ROW("no version", "\x93\x01\x00\x80"), "unsupported", "version 1" },
		{ ROW("an unknown key", "\x93\x01\x00\x82\xa7version\x01\xa5" "extra\x01"), "invalid_request", "extra" },
		{ ROW("a client that is no text", "\x93\x01\x00\x82\xa7version\x01\xa6" "client\x01"), "invalid_request", "client" },
		{ ROW("HELLO with an id", "\x93\x01\x07\x81\xa7version\x01"), "invalid_request", "id" },
	};
	struct world w;
	struct raw r;
	world_simple(&w, 1, NULL, NULL);
	struct before was = before(&w);
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		print_message("  %s\n", rows[i].bytes.name);
		raw_open(&r, &w);
		assert_true(send_frame(&r, rows[i].bytes.at, rows[i].bytes.n));
		assert_non_null(strstr(raw_expect_error(&r, 0, rows[i].code, 5000), rows[i].says));
		raw_expect_close(&r, 5000);
		raw_close(&r);
	}
	assert_unharmed(&w, &was);
	world_down(&w);
}

static void
t23_unknown_keys_of_the_small_frames_are_errors(void **state)
{
	(void)state;
	static const struct bytes rows[] = {
		ROW("CANCEL", "\x93\x03\x01\x81\xa5" "extra\x01"),
		ROW("CREDIT", "\x93\x04\x01\x82\xa5" "bytes\x01\xa5" "extra\x01"),
		ROW("STATS", "\x93\x05\x01\x81\xa5" "extra\x01"),
	};
	struct world w;
	struct raw r;
	world_simple(&w, 1, NULL, NULL);
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		print_message("  %s\n", rows[i].name);
		raw_up(&r, &w);
		assert_true(send_frame(&r, rows[i].at, rows[i].n));
		assert_non_null(strstr(raw_expect_error(&r, 0, "invalid_request", 5000), "extra"));
		raw_expect_close(&r, 5000);
		raw_close(&r);
	}
	world_down(&w);
}

static void
t23_an_id_in_use_ends_the_connection_and_its_requests(void **state)
{
	(void)state;
	struct world w;
	struct raw r;
	world_simple(&w, 1, NULL, NULL);
	raw_up(&r, &w);
	raw_submit(&r, 5, "a/m@hang", true, 60000);
	double_wait(&w, 0, 1, "open", 5000);
	raw_submit(&r, 5, "a/m", true, 60000);
	assert_non_null(strstr(raw_expect_error(&r, 0, "invalid_request", 5000), "running"));
	raw_expect_close(&r, 5000);
	raw_close(&r);
	double_wait(&w, 0, 1, "client-closed", 5000);
	assert_int_equal(double_requests(&w, 0), 1);
	/* An id is free again once its request has ended; CANCEL and CREDIT for one that is not running are ignored. */
	struct sbx_frame f;
	raw_up(&r, &w);
	for (int i = 0; i < 3; i++) {
		raw_submit(&r, 5, "a/m", i % 2, 60000);
		raw_expect(&r, SBX_FRAME_DONE, 5, 5000, &f);
		raw_cancel(&r, 5);
		raw_credit(&r, 5, 1000);
	}
	raw_close(&r);
	agent_wait_at_rest(&w, 5000);
	world_down(&w);
}

/* ---- what ends only its request ---- */

struct pair {
	const char *key;
	enum { END, TEXT, BYTES, UINT, TRUTH, NIL, LIST } type;
	const char *text; /* LIST: names with commas between */
	uint64_t number;
};
#define OK_BODY { "body", BYTES, BODY, 0 }
#define OK_MODEL { "model", TEXT, "a/m", 0 }

static void
submit_pairs(struct raw *r, uint64_t id, const struct pair *pairs)
{
	struct sbx_packer p;
	uint32_t n = 0;
	while (pairs[n].type != END)
		n++;
	sbx_frame_begin(&p, &r->out, SBX_FRAME_SUBMIT, id, n);
	for (; pairs->type != END; pairs++)
		switch (pairs->type) {
		case TEXT:
			sbx_pack_str(&p, pairs->key, sbx_span_of(pairs->text));
			break;
		case BYTES:
			sbx_pack_bin(&p, pairs->key, sbx_span_of(pairs->text));
			break;
		case UINT:
			sbx_pack_uint(&p, pairs->key, pairs->number);
			break;
		case TRUTH:
			sbx_pack_bool(&p, pairs->key, pairs->number != 0);
			break;
		case LIST: {
			uint32_t items = 1;
			for (const char *c = pairs->text; *c; c++)
				items += *c == ',';
			sbx_pack_array(&p, pairs->key, items);
			for (const char *c = pairs->text; items--; c += *c == ',') {
				size_t len = strcspn(c, ",");
				sbx_pack_str(&p, NULL, (struct sbx_span){ c, len });
				c += len;
			}
			break;
		}
		default:
			sbx_pack_nil(&p, pairs->key);
		}
	assert_int_equal(sbx_frame_end(&p), 0);
	assert_true(raw_send(r, r->out.data, r->out.n));
	sbx_buf_clear(&r->out);
}

static const struct bad_submit {
	struct pair pair[5];
	const char *code, *says;
} bad_submits[] = {
	/* keys */
	{ { OK_MODEL, OK_BODY, { "temperature", UINT, NULL, 1 } }, "invalid_request", "temperature" },
	{ { OK_MODEL, OK_BODY, { "principal", TEXT, "x", 0 } }, "invalid_request", "principal" },
	{ { OK_MODEL, OK_BODY, { "tags", TEXT, "x", 0 } }, "unsupported", "tags" },
	{ { OK_MODEL, OK_BODY, { "max_cost_nanousd", UINT, NULL, 1 } }, "unsupported", "max_cost_nanousd" },
	{ { OK_MODEL, OK_BODY, { "dialect", TEXT, "anthropic", 0 } }, "unsupported", "openai-chat" },
	{ { OK_MODEL, OK_BODY, { "operation", TEXT, "images", 0 } }, "unsupported", "operation" },
	{ { OK_MODEL, OK_BODY, { "operation", TEXT, "embeddings", 0 } }, "invalid_request", "one piece" },
	{ { OK_MODEL, OK_BODY, { "reply", TEXT, "xml", 0 } }, "invalid_request", "reply" },
	{ { OK_MODEL, OK_BODY, { "stream", UINT, NULL, 1 } }, "invalid_request", "stream" },
	{ { OK_MODEL, OK_BODY, { "deadline_ms", UINT, NULL, 0 } }, "invalid_request", "deadline_ms" },
	{ { OK_MODEL, OK_BODY, { "deadline_ms", UINT, NULL, 86400001 } }, "invalid_request", "deadline_ms" },
	{ { OK_MODEL, OK_BODY, { "idempotency_key", TEXT, "a\r\nAuthorization: b", 0 } }, "invalid_request", "idempotency_key" },
	{ { OK_MODEL, OK_BODY, { "idempotency_key", TEXT, "", 0 } }, "invalid_request", "idempotency_key" },
	{ { OK_MODEL, OK_BODY, { "route", TEXT, "r", 0 } }, "invalid_request", "only one" },
	{ { OK_BODY, { "targets", TEXT, "a/m", 0 } }, "invalid_request", "targets" },
	{ { OK_BODY, { "targets", LIST, "a/m,a/m", 0 } }, "invalid_request", "twice" },
	{ { OK_BODY, { "targets", LIST, "a/1,a/2,a/3,a/4,a/5,a/6,a/7,a/8,a/9,a/10,a/11,a/12,a/13,a/14,a/15,a/16,a/17", 0 } }, "invalid_request", "targets" },
	{ { OK_BODY, { "model", TEXT, "", 0 } }, "invalid_request", "model" },
	{ { OK_BODY, { "model", TEXT, "a/m\nx", 0 } }, "invalid_request", "control" },
	{ { OK_BODY }, "invalid_request", "names no route" },
	{ { OK_MODEL }, "invalid_request", "body" },
	{ { OK_MODEL, { "body", NIL, NULL, 0 } }, "invalid_request", "body" },
	{ { OK_MODEL, { "body", UINT, NULL, 5 } }, "invalid_request", "body" },
	/* names: the nearest is told */
	{ { OK_BODY, { "route", TEXT, "chta", 0 } }, "unknown_model", "\"chat\"" },
	{ { OK_BODY, { "model", TEXT, "sonet-5", 0 } }, "unknown_model", "sonnet-5\"" },
	{ { OK_BODY, { "model", TEXT, "aa/m", 0 } }, "unknown_model", "\"a/m\"" },
	{ { OK_BODY, { "model", TEXT, "a", 0 } }, "unknown_model", "a/MODEL" },
	{ { OK_BODY, { "targets", LIST, "a/m,zz/m", 0 } }, "unknown_model", "zz/m" },
	{ { { "body", BYTES, "{\"model\":\"chatt\",\"messages\":[{}]}", 0 } }, "unknown_model", "\"chat\"" },
	/* bodies */
	{ { OK_MODEL, { "body", BYTES, "hello", 0 } }, "invalid_request", "line 1" },
	{ { OK_MODEL, { "body", BYTES, "", 0 } }, "invalid_request", "body" },
	{ { OK_MODEL, { "body", BYTES, " \n ", 0 } }, "invalid_request", "line 2" },
	{ { OK_MODEL, { "body", BYTES, "[]", 0 } }, "invalid_request", "object" },
	{ { OK_MODEL, { "body", BYTES, "{}", 0 } }, "invalid_request", "messages" },
	{ { OK_MODEL, { "body", BYTES, "{\"messages\":[]}", 0 } }, "invalid_request", "messages" },
	{ { OK_MODEL, { "body", BYTES, "{\"messages\":[{}]", 0 } }, "invalid_request", "line 1" },
	{ { OK_MODEL, { "body", BYTES, "{\"messages\":[{}]} x", 0 } }, "invalid_request", "line 1" },
	{ { OK_MODEL, { "body", BYTES, "{\"messages\":[{}],}", 0 } }, "invalid_request", "line 1" },
	{ { OK_MODEL, { "body", BYTES, "{\"messages\":[{\"role\":\"user\",\"content\":\"\xc3\x28\"}]}", 0 } }, "invalid_request", "UTF-8" },
	{ { OK_MODEL, { "body", BYTES, "{\"messages\":[{}],\n\"messages\":[{}]}", 0 } }, "invalid_request", "line 2" },
	{ { OK_MODEL, { "body", BYTES, "{\"messages\":[{\"role\":\"a\",\"role\":\"b\"}]}", 0 } }, "invalid_request", "line 1" },
	{ { OK_MODEL, { "body", BYTES, "{\"messages\":[{\"role\":\"a\",\"r\\u006fle\":\"b\"}]}", 0 } }, "invalid_request", "line 1" }, /* the same key, spelled otherwise */
	{ { OK_MODEL, { "body", BYTES, "{\"messages\":[{\"n\":01}]}", 0 } }, "invalid_request", "line 1" },
	{ { OK_MODEL, { "body", BYTES, "{\"messages\":[{\"n\":NaN}]}", 0 } }, "invalid_request", "line 1" },
	{ { OK_MODEL, { "body", BYTES, "{\"messages\":[{}],\"stream\":\"yes\"}", 0 } }, "invalid_request", "stream" },
	{ { OK_MODEL, { "body", BYTES, "{\"messages\":[{}],\"n\":1000000}", 0 } }, "invalid_request", "n must" },
	{ { OK_MODEL, { "body", BYTES, "{\"messages\":[{}],\"model\":7}", 0 } }, "invalid_request", "model" },
};

static void
t23_what_is_wrong_in_a_request_ends_only_that_request(void **state)
{
	(void)state;
	struct world w;
	struct raw r;
	struct sbx_frame f;
	size_t n = sizeof bad_submits / sizeof bad_submits[0];
	world_up(&w);
	(void)world_double(&w, "a", NULL);
	world_agent(&w, "{ \"providers\": { \"a\": { \"dialect\": \"openai-chat\", \"base_url\": \"$0\", \"key\": \"$KEY\", \"models\": { \"sonnet-5\": {} } } },"
	                "  \"routes\": { \"r\": { \"targets\": [\"a/m\"] }, \"chat\": { \"targets\": [\"a/m\"] } } }", NULL);
	struct before was = before(&w);
	raw_up(&r, &w); /* one connection for all of it */
	raw_submit(&r, 1000, "a/m@tokens=300,gap=1ms", true, 60000);
	for (size_t i = 0; i < n; i++) {
		submit_pairs(&r, i + 1, bad_submits[i].pair);
		const char *message = raw_expect_error(&r, i + 1, bad_submits[i].code, 5000);
		if (!strstr(message, bad_submits[i].says))
			fail_msg("row %zu: \"%s\" does not speak of %s", i, message, bad_submits[i].says);
	}
	raw_expect(&r, SBX_FRAME_DONE, 1000, 20000, &f); /* its neighbour of that connection */
	raw_close(&r);
	free(double_get(&w, 0, "DELETE", "/mock/log", NULL, NULL));
	assert_int_equal(agent_number(&w, "requests_refused"), n);
	assert_unharmed(&w, &was);
	world_down(&w);
}

static void
t23_reload_is_not_for_clients(void **state)
{
	(void)state;
	struct world w;
	struct raw r;
	struct sbx_frame f;
	world_simple(&w, 1, NULL, NULL);
	raw_up(&r, &w);
	assert_true(send_frame(&r, "\x93\x06\x01\x80", 4));
	(void)raw_expect_error(&r, 1, "forbidden", 5000);
	raw_submit(&r, 2, "a/m", true, 5000);
	raw_expect(&r, SBX_FRAME_DONE, 2, 5000, &f);
	raw_close(&r);
	assert_int_equal(agent_number(&w, "reloads"), 0);
	world_down(&w);
}

/* ---- bodies ---- */

static void
make_body(struct sbx_buf *b, size_t bytes)
{
	static const char front[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"", back[] = "\"}]}";
	size_t fill = bytes - (sizeof front - 1) - (sizeof back - 1);
	sbx_buf_init(b, 64u << 20);
	(void)sbx_buf_append(b, front, sizeof front - 1);
	uint8_t *room = sbx_buf_reserve(b, fill);
	assert_non_null(room);
	memset(room, 'x', fill);
	sbx_buf_commit(b, fill);
	(void)sbx_buf_append(b, back, sizeof back);
	b->n--; /* the NUL stays behind it */
	assert_int_equal(b->n, bytes);
}

static void
t23_a_body_of_32_mib_is_taken_and_one_byte_more_is_not(void **state)
{
	(void)state;
	struct world w;
	struct raw r;
	struct sbx_frame f;
	struct sbx_buf body;
	world_simple(&w, 1, NULL, NULL);
	struct before was = before(&w);
	make_body(&body, SBX_BODY_IN_MAX_BYTES);
	raw_up(&r, &w);
	submit_pairs(&r, 1, (struct pair[]){ OK_MODEL, { "body", BYTES, (char *)body.data, 0 }, { NULL, END, NULL, 0 } });
	raw_expect(&r, SBX_FRAME_DONE, 1, 30000, &f);
	assert_true(double_log_number(&w, 0, 0, "request_bytes") >= SBX_BODY_IN_MAX_BYTES);
	free(double_get(&w, 0, "DELETE", "/mock/log", NULL, NULL));
	sbx_buf_fini(&body);
	make_body(&body, SBX_BODY_IN_MAX_BYTES + 1);
	submit_pairs(&r, 2, (struct pair[]){ OK_MODEL, { "body", BYTES, (char *)body.data, 0 }, { NULL, END, NULL, 0 } });
	(void)raw_expect_error(&r, 2, "too_large", 30000);
	sbx_buf_fini(&body);
	raw_close(&r);
	assert_unharmed(&w, &was);
	world_down(&w);
}

static void
t23_bodies_together_are_bounded_by_memory_max(void **state)
{
	(void)state;
	struct world w;
	struct raw r;
	struct sbx_frame f;
	struct sbx_value v;
	struct sbx_buf body;
	world_simple(&w, 1, NULL, "\"limits\": { \"memory_max\": \"64MiB\" }"); /* a quarter of it: 16 MiB */
	make_body(&body, 5u << 20);
	raw_up(&r, &w);
	for (uint64_t id = 1; id <= 4; id++)
		submit_pairs(&r, id, (struct pair[]){ { "model", TEXT, "a/m@hang", 0 }, { "body", BYTES, (char *)body.data, 0 }, { NULL, END, NULL, 0 } });
	for (;;) {
		assert_int_equal(raw_next(&r, 20000, &f), RAW_FRAME);
		if (f.id == 4)
			break;
	}
	assert_int_equal(f.kind, SBX_FRAME_ERROR);
	assert_true(sbx_map_get(&f.map, "code", &v) && sbx_span_is(v.bytes, "busy"));
	assert_true(sbx_map_get(&f.map, "retry_after_ms", &v) && v.u > 0);
	assert_true(sbx_map_get(&f.map, "retryable", &v) && v.truth);
	raw_cancel(&r, 1);
	(void)raw_expect_error(&r, 1, "cancelled", 5000);
	submit_pairs(&r, 5, (struct pair[]){ OK_MODEL, { "body", BYTES, (char *)body.data, 0 }, { NULL, END, NULL, 0 } });
	raw_expect(&r, SBX_FRAME_DONE, 5, 20000, &f);
	raw_close(&r);
	agent_wait_at_rest(&w, 5000);
	assert_int_equal(agent_number(&w, "body_bytes"), 0);
	sbx_buf_fini(&body);
	world_down(&w);
}

static void
t23_a_deeply_nested_body_is_refused(void **state)
{
	(void)state;
	struct world w;
	struct raw r;
	world_simple(&w, 1, NULL, NULL);
	struct before was = before(&w);
	raw_up(&r, &w);
	for (uint64_t id = 1; id <= 2; id++) {
		size_t depth = id == 1 ? 64 : 1000000;
		struct sbx_buf b;
		sbx_buf_init(&b, 8u << 20);
		(void)sbx_buf_printf(&b, "{\"messages\":");
		for (size_t i = 0; i < depth; i++)
			(void)sbx_buf_append(&b, "[", 1);
		for (size_t i = 0; i < depth; i++)
			(void)sbx_buf_append(&b, "]", 1);
		(void)sbx_buf_append(&b, "}", 2);
		submit_pairs(&r, id, (struct pair[]){ OK_MODEL, { "body", BYTES, (char *)b.data, 0 }, { NULL, END, NULL, 0 } });
		assert_non_null(strstr(raw_expect_error(&r, id, "invalid_request", 5000), "deep"));
		sbx_buf_fini(&b);
	}
	raw_close(&r);
	assert_unharmed(&w, &was);
	world_down(&w);
}

/* ---- pieces, and descriptors ---- */

/* HELLO and a SUBMIT as one run of bytes. */
static void
make_talk(struct raw *r, struct sbx_buf *to)
{
	struct sbx_packer p;
	(void)r;
	sbx_buf_init(to, 65536);
	sbx_frame_begin(&p, to, SBX_FRAME_HELLO, 0, 1);
	sbx_pack_uint(&p, "version", 1);
	assert_int_equal(sbx_frame_end(&p), 0);
	sbx_frame_begin(&p, to, SBX_FRAME_SUBMIT, 1, 2);
	sbx_pack_str(&p, "model", SBX_SPAN("a/m"));
	sbx_pack_bin(&p, "body", SBX_SPAN(BODY));
	assert_int_equal(sbx_frame_end(&p), 0);
}

static void
t23_frames_cut_at_every_byte_reach_nobody(void **state)
{
	(void)state;
	struct world w;
	struct raw r;
	struct sbx_buf talk;
	world_simple(&w, 1, NULL, NULL);
	struct before was = before(&w);
	make_talk(&r, &talk);
	for (size_t cut = 0; cut < talk.n; cut++) {
		raw_open(&r, &w);
		assert_true(raw_send(&r, talk.data, cut));
		raw_close(&r);
	}
	agent_wait_at_rest(&w, 5000);
	assert_int_equal(agent_number(&w, "frames_bad"), 0);
	sbx_buf_fini(&talk);
	assert_unharmed(&w, &was);
	world_down(&w);
}

static void
t23_frames_that_come_byte_by_byte_are_understood(void **state)
{
	(void)state;
	struct world w;
	struct raw r;
	struct sbx_frame f;
	struct sbx_buf talk;
	world_simple(&w, 1, NULL, NULL);
	make_talk(&r, &talk);
	raw_open(&r, &w);
	for (size_t i = 0; i < talk.n; i++)
		assert_true(raw_send(&r, talk.data + i, 1));
	raw_expect(&r, SBX_FRAME_DONE, 1, 5000, &f);
	raw_close(&r);
	sbx_buf_fini(&talk);
	world_down(&w);
}

static void
t23_descriptors_nobody_asked_for_are_never_installed(void **state)
{
	(void)state;
	struct world w;
	struct raw r;
	struct sbx_frame f;
	struct sbx_buf talk;
	enum { SPAM = 200 };
	int pipe_fd[2], spam[SPAM];
	char byte;
	world_simple(&w, 1, NULL, NULL);
	struct before was = before(&w);
	assert_int_equal(pipe(pipe_fd), 0);
	for (int i = 0; i < SPAM; i++)
		spam[i] = pipe_fd[1];
	make_talk(&r, &talk);
	raw_open(&r, &w);
	int fds = -1;
	for (size_t i = 0; i < talk.n; i++) { /* 200 of them beside each byte */
		assert_true(raw_send_fds(&r, talk.data + i, 1, spam, SPAM));
		if (i == 24)
			fds = agent_fds(&w);
		if (i > 24)
			assert_true(agent_fds(&w) <= fds + 3); /* its own call to the provider, at most */
	}
	raw_expect(&r, SBX_FRAME_DONE, 1, 5000, &f);
	/* All copies are gone: the pipe has no writer left but ours. */
	(void)close(pipe_fd[1]);
	assert_int_equal(fcntl(pipe_fd[0], F_SETFL, O_NONBLOCK), 0);
	uint64_t until = now_ms() + 5000;
	ssize_t n;
	while ((n = read(pipe_fd[0], &byte, 1)) < 0 && now_ms() < until)
		pause_ms(2);
	assert_int_equal(n, 0);
	(void)close(pipe_fd[0]);
	raw_close(&r);
	sbx_buf_fini(&talk);
	free(double_get(&w, 0, "DELETE", "/mock/log", NULL, NULL));
	assert_unharmed(&w, &was);
	world_down(&w);
}

static void
t23_ten_thousand_mutated_frames(void **state)
{
	(void)state;
	struct world w;
	struct raw r;
	struct sbx_buf talk;
	uint64_t seed = 0x9e3779b97f4a7c15ull;
	world_simple(&w, 1, NULL, NULL);
	struct before was = before(&w);
	make_talk(&r, &talk);
	enum { HELLO_BYTES = 4 + sizeof SAYS_HELLO - 1 };
	for (int i = 0; i < 400; i++) { /* connections; on each the frame over and over, until the agent closes */
		raw_up(&r, &w);
		for (int k = 0; k < 25; k++) {
			uint8_t copy[512];
			size_t n = talk.n - HELLO_BYTES;
			assert_true(n <= sizeof copy);
			memcpy(copy, talk.data + HELLO_BYTES, n);
			for (int m = 0; m < 3; m++) {
				seed = seed * 6364136223846793005ull + 1442695040888963407ull;
				copy[4 + (seed >> 33) % (n - 4)] ^= (uint8_t)(1u << (seed >> 60 & 7)); /* the length stays true */
			}
			copy[4 + 2] = (uint8_t)(k + 1); /* and the id, so that it is not in use */
			if (!raw_send(&r, copy, n))
				break;
		}
		raw_close(&r);
	}
	sbx_buf_fini(&talk);
	agent_wait_at_rest(&w, 20000);
	free(double_get(&w, 0, "DELETE", "/mock/log", NULL, NULL)); /* some were still requests */
	assert_unharmed(&w, &was);
	world_down(&w);
}

/* ---- silence ---- */

static void
t23_no_hello_within_10_s_ends_the_connection(void **state)
{
	(void)state;
	struct world w;
	struct raw silent, half, half_later, idle;
	struct sbx_frame f;
	world_simple(&w, 1, NULL, NULL);
	struct before was = before(&w);
	raw_open(&silent, &w);
	raw_open(&half, &w);
	uint64_t began = now_ms();
	assert_true(raw_send(&half, "\0\0\0\x0c\x93\x01", 6));
	raw_up(&idle, &w);
	raw_up(&half_later, &w);
	assert_true(raw_send(&half_later, "\0\0\0\x0c\x93\x02", 6)); /* has longer: a large frame may be on its way */
	for (int i = 0; i < 2; i++) {
		struct raw *r = i ? &half : &silent;
		assert_non_null(strstr(raw_expect_error(r, 0, "timeout", 12000), "HELLO"));
		raw_expect_close(r, 1000);
		assert_in_range(now_ms() - began, SBX_HELLO_TIMEOUT_MS - 250, SBX_HELLO_TIMEOUT_MS + 250);
		raw_close(r);
	}
	raw_submit(&idle, 1, "a/m", true, 5000); /* who was welcomed may be idle */
	raw_expect(&idle, SBX_FRAME_DONE, 1, 5000, &f);
	raw_close(&idle);
	raw_close(&half_later);
	assert_int_equal(agent_number(&w, "hello_timeouts"), 2);
	free(double_get(&w, 0, "DELETE", "/mock/log", NULL, NULL));
	assert_unharmed(&w, &was);
	world_down(&w);
}

int
main(int argc, char **argv)
{
	cmocka_set_test_filter(argc > 1 ? argv[1] : NULL); /* a pattern: "*body*" */
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(t23_malformed_frames_end_their_connection_with_a_typed_error),
		cmocka_unit_test(t23_depth_and_elements_are_limited),
		cmocka_unit_test(t23_a_length_beyond_33_mib_or_below_any_frame_is_refused_at_once),
		cmocka_unit_test(t23_the_first_frame_is_hello_of_our_version),
		cmocka_unit_test(t23_unknown_keys_of_the_small_frames_are_errors),
		cmocka_unit_test(t23_an_id_in_use_ends_the_connection_and_its_requests),
		cmocka_unit_test(t23_what_is_wrong_in_a_request_ends_only_that_request),
		cmocka_unit_test(t23_reload_is_not_for_clients),
		cmocka_unit_test(t23_a_body_of_32_mib_is_taken_and_one_byte_more_is_not),
		cmocka_unit_test(t23_bodies_together_are_bounded_by_memory_max),
		cmocka_unit_test(t23_a_deeply_nested_body_is_refused),
		cmocka_unit_test(t23_frames_cut_at_every_byte_reach_nobody),
		cmocka_unit_test(t23_frames_that_come_byte_by_byte_are_understood),
		cmocka_unit_test(t23_descriptors_nobody_asked_for_are_never_installed),
		cmocka_unit_test(t23_ten_thousand_mutated_frames),
		cmocka_unit_test(t23_no_hello_within_10_s_ends_the_connection),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
