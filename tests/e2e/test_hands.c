/* SPDX-License-Identifier: Apache-2.0 */
/* test_hands.c -- limits that hold one client, one request or one provider away from the others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cmocka.h>

#include "tests/e2e/fault.h"
#include "tests/e2e/harness.h"
#include "tests/e2e/raw.h"

/* Double n answers model m with this stream, the events of which repeat `event`. */
static void
answer_with(struct world *w, int n, const char *first, const char *event, int times, const char *last)
{
	char path[256], rule[320];
	struct sbx_buf b;
	sbx_buf_init(&b, 64u << 20);
	assert_int_equal(sbx_buf_printf(&b, "%s", first), 0);
	for (int i = 0; i < times; i++)
		assert_int_equal(sbx_buf_append(&b, event, strlen(event)), 0);
	assert_int_equal(sbx_buf_printf(&b, "%s", last), 0);
	write_file(w, "answer.sse", (const char *)b.data, b.n, path, sizeof path);
	(void)snprintf(rule, sizeof rule, "m: file=%s,content-type=text/event-stream", path);
	double_rules(w, n, rule);
	sbx_buf_fini(&b);
}

/* before + n times 'x' + after */
static char *
around(const char *before, size_t n, const char *after)
{
	size_t a = strlen(before), z = strlen(after);
	char *text = malloc(a + n + z + 1);
	assert_non_null(text);
	memcpy(text, before, a);
	memset(text + a, 'x', n);
	memcpy(text + a + n, after, z + 1);
	return text;
}

/* 200 streams with credit in abundance want far more than the client reads: each gets something of what it does read. */
static void
every_stream_of_a_slow_reader_has_its_turn(void **state)
{
	(void)state;
	enum { STREAMS = 200, READ_BYTES = 40 << 20 };
	static size_t got[STREAMS + 1];
	struct world w;
	struct raw r;
	struct sbx_frame f;
	struct sbx_value v;
	char *event = around("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"", 8000, "\"}}]}\n\n");
	world_simple(&w, 1, NULL, NULL);
	answer_with(&w, 0, "", event, 80, ""); /* 128 MB in all: three times what is read, and not more than the kernel has buffers for */
	raw_up(&r, &w);
	for (uint64_t id = 1; id <= STREAMS; id++) {
		raw_submit(&r, id, "a/m", true, 60000);
		raw_credit(&r, id, SBX_CREDIT_MAX_BYTES);
	}
	agent_wait_number(&w, "credit_stalls", STREAMS * 9 / 10, 30000); /* the first few may have come through before the rest began */
	while (r.payload_bytes < READ_BYTES) {
		assert_int_equal(raw_next(&r, 10000, &f), RAW_FRAME);
		if (f.kind == SBX_FRAME_EVENT && sbx_map_get(&f.map, "text", &v))
			got[f.id] += v.bytes.n;
	}
	for (uint64_t id = 1; id <= STREAMS; id++)
		if (got[id] < READ_BYTES / STREAMS / 20)
			fail_msg("stream %d got %zu bytes of %d", (int)id, got[id], READ_BYTES);
	raw_close(&r);
	agent_wait_at_rest(&w, 10000);
	world_down(&w);
	free(event);
}

/* An id that no EVENT can carry within the credit: the attempt fails, and another target answers; nobody waits for the deadline. */
static void
a_tool_call_with_an_endless_id_is_a_failed_attempt(void **state)
{
	(void)state;
	struct world w;
	char *event = around("data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"", 300000,
	                     "\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]}}]}\n\n");
	world_simple(&w, 2, NULL, NULL);
	answer_with(&w, 0, "", event, 1, "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\ndata: [DONE]\n\n");
	struct sbx_client *c = client_up(&w);
	struct question q = { .route = "r", .stream = true };
	struct answer a = answer_of(c, &q);
	assert_string_equal(a.attempts, "a/m FAILED, a/m FAILED, b/m OK");
	assert_string_equal(a.text, "hello from b");
	answer_free(&a);
	sbx_close(c);
	world_down(&w);
	free(event);
}

/* Questions for ever, and no answer is read: the agent stops listening to that client, and loses no answer. */
static void
one_that_asks_and_never_reads_is_not_listened_to(void **state)
{
	(void)state;
	enum { BATCH = 2000, BATCHES = 100 };
	struct world w;
	struct raw r;
	struct sbx_frame f;
	struct sbx_buf b;
	struct timeval patience = { 0, 500000 };
	int asked = 0, answered = 0;
	world_simple(&w, 1, NULL, NULL);
	raw_up(&r, &w);
	int64_t rss = agent_rss_bytes(&w);
	sbx_buf_init(&b, 1u << 20);
	for (int i = 0; i < BATCH; i++) {
		struct sbx_packer p;
		sbx_frame_begin(&p, &b, SBX_FRAME_STATS, 1, 0);
		assert_int_equal(sbx_frame_end(&p), 0);
	}
	assert_int_equal(setsockopt(r.fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience), 0);
	ssize_t n = (ssize_t)b.n;
	for (int i = 0; i < BATCHES && n == (ssize_t)b.n; i++)
		if ((n = send(r.fd, b.data, b.n, MSG_NOSIGNAL)) == (ssize_t)b.n)
			asked += BATCH;
	assert_true(n != (ssize_t)b.n); /* it does not take them all */
	int64_t grown = agent_rss_bytes(&w) - rss;
	if (!SANITIZED && grown > 16 << 20)
		fail_msg("the agent grew by %lld kB", (long long)grown / 1024);
	while (answered < asked && raw_next(&r, 5000, &f) == RAW_FRAME)
		answered += f.kind == SBX_FRAME_STATS;
	assert_int_equal(answered, asked);
	sbx_buf_fini(&b);
	raw_close(&r);
	world_down(&w);
}

/* Bodies that are begun and never finished: together they fill half of what the agent may take, and not more. */
static void
half_sent_bodies_are_bounded_together(void **state)
{
	(void)state;
	enum { CLIENTS = 6, PART_BYTES = 24 << 20, FIT = 2 };
	struct world w;
	struct raw r[CLIENTS];
	struct sbx_frame f;
	uint8_t *part = calloc(1, PART_BYTES);
	assert_non_null(part);
	memcpy(part, "\x01\xf0\0\0\x93\x02\x01", 7); /* a SUBMIT of 32,505,856 bytes */
	world_simple(&w, 1, NULL, "\"limits\": { \"memory_max\": \"128MiB\" }");
	for (int i = 0; i < CLIENTS; i++) {
		raw_up(&r[i], &w);
		assert_int_equal(raw_send(&r[i], part, PART_BYTES), i < FIT);
		if (i >= FIT) {
			(void)raw_expect_error(&r[i], 0, "busy", 5000);
			raw_close(&r[i]);
		}
	}
	for (int i = 0; i < FIT; i++)
		raw_close(&r[i]);
	for (uint64_t until = now_ms() + 5000; agent_number(&w, "sessions") > 1;) /* that of this question is the last */
		assert_true(now_ms() < until);
	raw_up(&r[0], &w); /* all of it is free again */
	assert_true(raw_send(&r[0], part, PART_BYTES));
	raw_up(&r[1], &w);
	raw_submit(&r[1], 1, "a/m", false, 5000);
	raw_expect(&r[1], SBX_FRAME_DONE, 1, 5000, &f);
	raw_close(&r[0]);
	raw_close(&r[1]);
	world_down(&w);
	free(part);
}

/* The client's pause must not cost the usage, which is all that was still to come. */
static void
a_pause_at_the_end_of_a_stream_does_not_lose_its_usage(void **state)
{
	(void)state;
	struct world w;
	struct raw r;
	struct sbx_frame f;
	struct sbx_value v;
	char *first = around("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"", 300000,
	                     "\"}}]}\n\ndata: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n");
	world_simple(&w, 1, NULL, "\"timeouts\": { \"after_finish_ms\": 300 }");
	answer_with(&w, 0, first, ": padding padding padding padding\n\n", 5000,
	            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2,\"total_tokens\":3}}\n\ndata: [DONE]\n\n");
	raw_up(&r, &w);
	raw_submit(&r, 1, "a/m", true, 20000);
	agent_wait_number(&w, "requests_ok", 1, 5000); /* over for the agent, while the client was granted too little to see it */
	raw_credit(&r, 1, 1 << 20);
	raw_expect(&r, SBX_FRAME_DONE, 1, 5000, &f);
	assert_true(sbx_map_get(&f.map, "usage", &v));
	assert_int_equal(r.payload_bytes, 300000);
	raw_close(&r);
	world_down(&w);
	free(first);
}

/* Without a descriptor for a connection nothing was asked of the provider, and nothing is held against it. */
static void
t34_no_descriptor_for_a_connection_is_our_own_failure(void **state)
{
	(void)state;
	struct world w;
	struct rlimit old, none;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	assert_int_equal(prlimit(w.agent, RLIMIT_NOFILE, NULL, &old), 0);
	none = (struct rlimit){ 3, old.rlim_max };
	assert_int_equal(prlimit(w.agent, RLIMIT_NOFILE, &none, NULL), 0);
	for (int i = 0; i < 4; i++) {
		struct sbx_reply *r = ask(c, i % 2, 5000);
		assert_int_equal(sbx_reply_code(r), SBX_CODE_BUSY);
		assert_non_null(strstr(sbx_reply_message(r), "descriptor"));
		sbx_reply_free(r);
	}
	assert_int_equal(prlimit(w.agent, RLIMIT_NOFILE, &old, NULL), 0);
	struct sbx_reply *r = ask(c, false, 5000);
	assert_true(sbx_reply_ok(r));
	sbx_reply_free(r);
	assert_int_equal(agent_number(&w, "target.a/m.failures"), 0);
	sbx_close(c);
	world_down(&w);
}

/* A proxy of the configuration is used, whatever the environment says of exceptions. */
static void
no_proxy_of_the_environment_does_not_bypass_the_configured_proxy(void **state)
{
	(void)state;
	struct world w;
	world_up(&w);
	(void)world_double(&w, "a", NULL);
	world_agent_start(&w, "{ \"providers\": { \"a\": { \"dialect\": \"openai-chat\", \"base_url\": \"$0\", \"key\": \"$KEY\", \"proxy\": \"http://127.0.0.1:1\" } } }",
	                  &(struct start){ .env = (const char *const[]){ "no_proxy=*", "NO_PROXY=*", NULL } });
	struct sbx_client *c = client_up(&w);
	struct sbx_reply *r = ask_body(c, NULL, "a/m", BODY, false, 5000);
	assert_int_equal(sbx_reply_code(r), SBX_CODE_UNREACHABLE); /* nobody listens there */
	assert_int_equal(double_requests(&w, 0), 0);
	sbx_reply_free(r);
	sbx_close(c);
	world_down(&w);
}

int
main(int argc, char **argv)
{
	cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_stream_of_a_slow_reader_has_its_turn),
		cmocka_unit_test(a_tool_call_with_an_endless_id_is_a_failed_attempt),
		cmocka_unit_test(one_that_asks_and_never_reads_is_not_listened_to),
		cmocka_unit_test(half_sent_bodies_are_bounded_together),
		cmocka_unit_test(a_pause_at_the_end_of_a_stream_does_not_lose_its_usage),
		cmocka_unit_test(t34_no_descriptor_for_a_connection_is_our_own_failure),
		cmocka_unit_test(no_proxy_of_the_environment_does_not_bypass_the_configured_proxy),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
