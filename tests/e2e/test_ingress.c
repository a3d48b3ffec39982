/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_ingress.c -- what a door for other protocols needs of the agent: every operation, and bodies that speak for themselves.
 */
#include "tests/e2e/control.h"
#include "tests/e2e/harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define EMBED "{\"model\":\"%s\",\"input\":[\"one\",\"two\"]%s}"
#define PROMPT "{\"model\":\"r\",\"prompt\":\"Once\",\"stream\":true,\"stream_options\":{\"include_usage\":true}}"

/* What came of one request: its first event, its bytes, and its end. */
struct heard {
	bool accepted, streamed;
	char data[65536];
	size_t n;
	bool ok;
	int status;
	char code[32], target[128], message[512];
	int64_t cost_nanousd;
	uint32_t attempts;
};

static void
hear(struct sbx_client *c, const struct sbx_request_options *o, struct heard *h)
{
	struct sbx_event ev;
	uint64_t id;
	memset(h, 0, sizeof *h);
	assert_int_equal(sbx_submit(c, o, &id), 0);
	for (;;) {
		int rc = sbx_next(c, 15000, &ev);
		if (rc)
			fail_msg("%d: %s", rc, sbx_client_error(c));
		if (ev.note == SBX_NOTE_ACCEPTED) {
			h->accepted = true;
			h->streamed = ev.streamed;
		} else if (ev.note == SBX_NOTE_DATA) {
			assert_true(h->n + ev.text_bytes < sizeof h->data);
			memcpy(h->data + h->n, ev.text, ev.text_bytes);
			h->n += ev.text_bytes;
		}
		if (!ev.last)
			continue;
		h->ok = sbx_reply_ok(ev.reply);
		h->status = sbx_reply_status(ev.reply);
		(void)snprintf(h->code, sizeof h->code, "%s", sbx_reply_code_word(ev.reply));
		(void)snprintf(h->target, sizeof h->target, "%s", sbx_reply_target(ev.reply));
		(void)snprintf(h->message, sizeof h->message, "%s", sbx_reply_message(ev.reply));
		h->cost_nanousd = sbx_reply_cost_nanousd(ev.reply);
		h->attempts = sbx_reply_attempts(ev.reply);
		if (!h->ok)
			(void)snprintf(h->data, sizeof h->data, "%s", sbx_reply_data(ev.reply, &h->n));
		return;
	}
}

/* As a door hands it over: the body says everything. */
static void
http(struct sbx_client *c, const char *operation, const char *body, struct heard *h)
{
	struct sbx_request_options o = SBX_REQUEST_INIT;
	o.operation = operation;
	o.as_http = true;
	o.body = body;
	o.body_bytes = strlen(body);
	hear(c, &o, h);
}

#define ASSERT_OK(h)                                                                                                           \
	do {                                                                                                                   \
		if (!(h)->ok)                                                                                                  \
			fail_msg("%s: %s", (h)->code, (h)->message);                                                           \
	} while (0)

/* ---- operations ---- */

static void
embeddings_pass_through_fail_over_and_have_their_price(void **state)
{
	(void)state;
	static const char prices[] = "{\"models\":[{\"model\":\"b/e\",\"prices\":[{\"from\":\"2020-01-01\",\"source\":\"s\",\"read_on\":\"2020-01-01\","
	                             "\"input_cost_per_token\":2e-8}]}]}";
	struct world w;
	struct heard h;
	char path[256], body[256];
	world_up(&w);
	world_double(&w, "a", (const char *[]){ "--rule", "*: status=503", NULL });
	world_double(&w, "b", (const char *[]){ "--rule", "e: prompt-tokens=1001", NULL });
	(void)snprintf(path, sizeof path, "%s/prices.json", w.dir);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	(void)fputs(prices, f);
	assert_int_equal(fclose(f), 0);
	world_agent(&w, "{\"catalog\":\"$DIR/prices.json\",\"providers\":{\"a\":{\"base_url\":\"$0\",\"key\":\"$KEY\"},\"b\":{\"base_url\":\"$1\",\"key\":\"$KEY\"}},"
	            "\"routes\":{\"r\":{\"targets\":[\"a/e\",\"b/e\"]}}}", NULL);
	struct sbx_client *c = client_up(&w);
	(void)snprintf(body, sizeof body, EMBED, "r", "");
	http(c, "embeddings", body, &h);
	ASSERT_OK(&h);
	assert_true(h.accepted && !h.streamed);
	assert_string_equal(h.target, "b/e");
	assert_int_equal(h.attempts, 2);
	assert_int_equal(h.cost_nanousd, 1001 * 20);
	assert_non_null(strstr(h.data, "\"embedding\":[0.000,0.101,"));
	assert_non_null(strstr(h.data, "\"index\":1,\"embedding\":[0.037,"));
	char *sent = double_log_string(&w, 1, 0, "path");
	assert_string_equal(sent, "/v1/embeddings");
	free(sent);
	/* base64, as the SDK asks for it: untouched */
	(void)snprintf(body, sizeof body, EMBED, "b/e", ",\"encoding_format\":\"base64\",\"dimensions\":2");
	http(c, "embeddings", body, &h);
	ASSERT_OK(&h);
	assert_non_null(strstr(h.data, "\"embedding\":\"AAAAABfZzj0=\"")); /* 0, 0.101 */
	/* whoever asks by the library's own call */
	struct sbx_request_options o = SBX_REQUEST_INIT;
	struct sbx_reply *r;
	o.operation = "embeddings";
	o.data = true;
	o.body = body;
	o.body_bytes = strlen(body);
	assert_int_equal(sbx_ask(c, &o, &r), 0);
	assert_non_null(strstr(sbx_reply_data(r, NULL), "AAAAABfZzj0="));
	sbx_reply_free(r);
	/* what cannot be: a stream of them, and nothing to embed */
	http(c, "embeddings", "{\"model\":\"r\",\"input\":\"x\",\"stream\":true}", &h);
	assert_int_equal(h.status, 400);
	http(c, "embeddings", "{\"model\":\"r\",\"input\":[]}", &h);
	assert_int_equal(h.status, 400);
	assert_non_null(strstr(h.message, "input must"));
	sbx_close(c);
	world_down(&w);
}

static void
completions_stream_fail_over_and_are_held_back(void **state)
{
	(void)state;
	struct world w;
	struct heard h;
	world_simple(&w, 2, (const char *const[]){ "*: error-first", NULL }, NULL);
	struct sbx_client *c = client_up(&w);
	http(c, "completions", PROMPT, &h);
	ASSERT_OK(&h);
	assert_true(h.streamed);
	assert_string_equal(h.target, "b/m");
	assert_int_equal(h.attempts, 2);
	assert_null(strstr(h.data, "error")); /* the failed one was never seen */
	assert_non_null(strstr(h.data, "\"object\":\"text_completion\""));
	assert_non_null(strstr(h.data, "\"text\":\"hello\""));
	assert_non_null(strstr(h.data, "\"usage\":{\"prompt_tokens\""));
	assert_string_equal(h.data + h.n - 14, "data: [DONE]\n\n");
	http(c, "completions", "{\"model\":\"r\",\"prompt\":[\"a\",\"b\"],\"n\":2}", &h);
	ASSERT_OK(&h);
	assert_true(!h.streamed && strstr(h.data, "\"index\":3,\"text\":\"hello"));
	/* typed events, by the library */
	struct sbx_request_options o = SBX_REQUEST_INIT;
	struct sbx_reply *r;
	o.operation = "completions";
	o.model = "b/m";
	o.stream = true;
	o.body = "{\"prompt\":\"Once\"}";
	o.body_bytes = strlen(o.body);
	assert_int_equal(sbx_ask(c, &o, &r), 0);
	assert_string_equal(sbx_reply_text(r, 0, NULL), "hello from b");
	assert_string_equal(sbx_reply_finish(r, 0), "stop");
	sbx_reply_free(r);
	/* cut in the middle, and nobody to take it back: an error, and no end mark */
	double_rules(&w, 0, "*: cut-tokens=2");
	double_rules(&w, 1, "*: cut-tokens=2");
	http(c, "completions", PROMPT, &h);
	assert_string_equal(h.code, "stream_broken");
	sbx_close(c);
	world_down(&w);
}

static void
who_lacks_an_operation_is_not_asked_for_it(void **state)
{
	(void)state;
	struct world w;
	struct heard h;
	char body[256];
	world_up(&w);
	world_double(&w, "a", NULL);
	world_double(&w, "b", NULL);
	world_agent(&w, "{\"providers\":{\"a\":{\"base_url\":\"$0\",\"key\":\"$KEY\",\"operations\":[\"chat\"]},\"b\":{\"base_url\":\"$1\",\"key\":\"$KEY\"}},"
	            "\"routes\":{\"r\":{\"targets\":[\"a/m\",\"b/m\"]},\"s\":{\"targets\":[\"a/m\"]}}}", NULL);
	struct sbx_client *c = client_up(&w);
	(void)snprintf(body, sizeof body, EMBED, "r", "");
	http(c, "embeddings", body, &h);
	ASSERT_OK(&h);
	assert_string_equal(h.target, "b/m");
	assert_int_equal(h.attempts, 1);
	(void)snprintf(body, sizeof body, EMBED, "m", ""); /* every provider that has it */
	http(c, "embeddings", body, &h);
	ASSERT_OK(&h);
	assert_string_equal(h.target, "b/m");
	(void)snprintf(body, sizeof body, EMBED, "s", "");
	http(c, "embeddings", body, &h);
	assert_string_equal(h.code, "unsupported");
	assert_non_null(strstr(h.message, "no target of \"s\" does embeddings"));
	(void)snprintf(body, sizeof body, EMBED, "a/m", "");
	http(c, "embeddings", body, &h);
	assert_string_equal(h.code, "unsupported");
	assert_int_equal(double_requests(&w, 0), 0);
	/* that it has no such model for completions is no reason to pass it over for chats */
	double_rules(&w, 1, "*: status=404");
	http(c, "completions", "{\"model\":\"b/m\",\"prompt\":\"x\"}", &h);
	assert_int_equal(h.status, 404);
	struct sbx_event ev;
	uint64_t id;
	const char *standing = "";
	assert_int_equal(sbx_stats(c, &id), 0);
	do
		assert_int_equal(sbx_next(c, 5000, &ev), 0);
	while (!ev.last);
	assert_true(sbx_reply_string(ev.reply, "target.b/m.state", &standing));
	assert_string_equal(standing, "up");
	double_rules(&w, 1, "");
	struct sbx_reply *r = ask_body(c, NULL, "b/m", BODY, false, 10000);
	assert_true(sbx_reply_ok(r));
	sbx_reply_free(r);
	sbx_close(c);
	world_down(&w);
}

/* ---- bodies that speak for themselves ---- */

static void
the_body_decides_whether_it_is_a_stream(void **state)
{
	(void)state;
	struct world w;
	struct heard h;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	http(c, NULL, "{\"model\":\"r\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"stream\":true}", &h);
	ASSERT_OK(&h);
	assert_true(h.streamed && strncmp(h.data, "data: ", 6) == 0 && !strstr(h.data, "\"usage\":{"));
	http(c, NULL, "{\"model\":\"r\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}", &h);
	ASSERT_OK(&h);
	assert_true(!h.streamed && h.data[0] == '{');
	sbx_close(c);
	world_down(&w);
}

/* ---- members for a gateway ---- */

#define M "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

/* The last body that double n got. */
static char *
last_body(struct world *w, int n)
{
	return double_log_string(w, n, double_requests(w, n) - 1, "body");
}

static void
names_and_providers_are_tried_as_the_body_says(void **state)
{
	(void)state;
	static const struct {
		const char *members, *target;
		uint32_t attempts;
	} rows[] = {
		{ "\"model\":\"a/m\",\"models\":[\"c\\/m\",\"b/m\"]", "c/m", 2 },
		{ "\"models\":[\"b/m\",\"c/m\"]", "b/m", 1 },
		{ "\"model\":\"a/m\",\"fallbacks\":[\"r\"]", "b/m", 2 },
		{ "\"model\":\"a/m\",\"models\":[\"c/m\"],\"fallbacks\":[\"b/m\"],\"route\":\"fallback\"", "c/m", 2 },
		{ "\"model\":\"m\",\"provider\":{\"order\":[\"C\"]}", "c/m", 1 },
		{ "\"model\":\"m\",\"provider\":{\"order\":[\"a\",\"c\"]}", "c/m", 2 },
		{ "\"model\":\"m\",\"provider\":{\"only\":[\"c\",\"b\"]}", "b/m", 1 },
		{ "\"model\":\"r\",\"provider\":{\"ignore\":[\"b\"]}", "c/m", 1 },
		{ "\"model\":\"m\",\"provider\":{\"order\":[\"b\"],\"allow_fallbacks\":false}", "b/m", 1 },
	};
	struct world w;
	struct heard h;
	char body[512], want[512];
	world_up(&w);
	for (int i = 0; i < 3; i++)
		world_double(&w, (const char *[]){ "a", "b", "c" }[i], NULL);
	double_rules(&w, 0, "*: status=404"); /* at once, and it counts as no failure of the target that the next row would meet */
	world_agent(&w, "{\"providers\":{\"a\":{\"base_url\":\"$0\",\"key\":\"$KEY\",\"models\":{\"m\":{}}},\"b\":{\"base_url\":\"$1\",\"key\":\"$KEY\",\"models\":{\"m\":{}}},"
	            "\"c\":{\"base_url\":\"$2\",\"key\":\"$KEY\",\"models\":{\"m\":{}}}},\"routes\":{\"r\":{\"targets\":[\"b/m\",\"c/m\"]}}}", NULL);
	struct sbx_client *c = client_up(&w);
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		(void)snprintf(body, sizeof body, "{%s," M ",\"seed\":18446744073709551615}", rows[i].members);
		http(c, NULL, body, &h);
		if (!h.ok || strcmp(h.target, rows[i].target) != 0)
			fail_msg("%s: %s %s %s", body, h.target, h.code, h.message);
		/* and nothing of it is sent on */
		char *sent = last_body(&w, rows[i].target[0] - 'a');
		(void)snprintf(want, sizeof want, "{\"model\":\"m\"," M ",\"seed\":18446744073709551615}");
		assert_string_equal(sent, want);
		free(sent);
	}
	/* Only this one: its failure is the answer. (a is known to be misconfigured by now; the last one left is tried all the same.) */
	int before = double_requests(&w, 1) + double_requests(&w, 2);
	http(c, NULL, "{\"model\":\"m\",\"provider\":{\"order\":[\"a\"],\"allow_fallbacks\":false}," M "}", &h);
	assert_int_equal(h.status, 404);
	assert_int_equal(double_requests(&w, 1) + double_requests(&w, 2), before);
	sbx_close(c);
	world_down(&w);
}

static void
retries_and_time_are_bounded_as_the_body_says(void **state)
{
	(void)state;
	struct world w;
	struct heard h;
	world_simple(&w, 3, (const char *const[]){ "*: status=500", "*: status=500", NULL }, NULL);
	struct sbx_client *c = client_up(&w);
	http(c, NULL, "{\"model\":\"r\",\"num_retries\":0," M "}", &h);
	assert_int_equal(h.status, 500);
	assert_int_equal(h.attempts, 1);
	http(c, NULL, "{\"model\":\"a/m\",\"fallbacks\":[\"b/m\",\"c/m\"],\"num_retries\":0," M "}", &h);
	ASSERT_OK(&h); /* the next name is no retry */
	assert_string_equal(h.target, "c/m");
	assert_int_equal(h.attempts, 3);
	double_rules(&w, 2, "*: hang");
	uint64_t from_ms = now_ms();
	http(c, NULL, "{\"model\":\"c/m\",\"timeout\":0.4," M "}", &h);
	assert_string_equal(h.code, "timeout");
	assert_true(now_ms() - from_ms >= 390 && now_ms() - from_ms < 5000);
	/* the frame's own deadline holds as well: the shorter one */
	struct sbx_request_options o = SBX_REQUEST_INIT;
	o.as_http = true;
	o.deadline_ms = 300;
	o.body = "{\"model\":\"c/m\",\"timeout\":60," M "}";
	o.body_bytes = strlen(o.body);
	hear(c, &o, &h);
	assert_string_equal(h.code, "timeout");
	sbx_close(c);
	world_down(&w);
}

/* ---- the cost where it was asked for ---- */

static void
the_cost_stands_in_the_usage_that_asked_for_it(void **state)
{
	(void)state;
	struct world w;
	struct heard h;
	world_up(&w);
	world_double(&w, "bad", (const char *[]){ "--rule", "*: cut=40", NULL });
	world_double(&w, "openai", (const char *[]){ "--rule", "gpt-4o-mini: prompt-tokens=1001, cached-tokens=400, text=one two", NULL });
	world_agent(&w, "{\"providers\":{\"bad\":{\"base_url\":\"$0\",\"key\":\"$KEY\"},\"openai\":{\"base_url\":\"$1\",\"key\":\"$KEY\",\"models\":{\"gpt-4o-mini\":{},\"m\":{}}}},"
	            "\"routes\":{\"r\":{\"targets\":[\"bad/m\",\"openai/gpt-4o-mini\"]}}}", NULL);
	struct sbx_client *c = client_up(&w);
	/* of all attempts together: one that may have been billed, nobody knows for how much, leaves nothing to be told */
	http(c, NULL, "{\"model\":\"r\",\"usage\":{\"include\":true}," M "}", &h);
	ASSERT_OK(&h);
	assert_int_equal(h.attempts, 2);
	assert_int_equal(h.cost_nanousd, -1);
	assert_non_null(strstr(h.data, "\"cost\":null}"));
	double_rules(&w, 0, "*: status=503");
	/* 601 read at 150 nano-USD, 400 from the cache at 75, 2 written at 600 */
	static const char cost[] = "\"cost\":0.00012135}";
	http(c, NULL, "{\"model\":\"r\",\"usage\":{\"include\":true}," M "}", &h);
	ASSERT_OK(&h);
	assert_int_equal(h.attempts, 2);
	assert_int_equal(h.cost_nanousd, 121350);
	assert_non_null(strstr(h.data, "\"total_tokens\":1003"));
	assert_non_null(strstr(h.data, cost));
	http(c, NULL, "{\"model\":\"r\",\"usage\":{\"include\":true},\"stream\":true," M "}", &h);
	ASSERT_OK(&h);
	assert_int_equal(h.cost_nanousd, 121350);
	const char *at = strstr(h.data, cost);
	assert_true(at && !strstr(at + 1, "\"cost\":")); /* once, and in the last chunk */
	assert_string_equal(at + sizeof cost - 1, "}\n\ndata: [DONE]\n\n");
	/* not asked for: the bytes are the provider's */
	http(c, NULL, "{\"model\":\"r\",\"stream\":true,\"stream_options\":{\"include_usage\":true}," M "}", &h);
	assert_true(h.ok && strstr(h.data, "\"total_tokens\":1003") && !strstr(h.data, "\"cost\":"));
	http(c, NULL, "{\"model\":\"r\",\"usage\":{\"include\":false},\"stream\":true," M "}", &h);
	assert_true(h.ok && !strstr(h.data, "\"total_tokens\""));
	/* what is not known is not 0 */
	http(c, NULL, "{\"model\":\"openai/m\",\"usage\":{\"include\":true}," M "}", &h);
	ASSERT_OK(&h);
	assert_non_null(strstr(h.data, "\"cost\":null}"));
	sbx_close(c);
	world_down(&w);
}

/* ---- refusals ---- */

static void
refusals_have_the_shape_and_status_of_the_api(void **state)
{
	(void)state;
	static const struct {
		const char *body;
		int status;
		const char *code, *type, *param, *json_code;
	} rows[] = {
		{ "{\"model\":\"gone\"," M "}", 404, "unknown_model", "\"invalid_request_error\"", "\"model\"", "\"model_not_found\"" },
		{ "{\"model\":\"r\",\"models\":[\"gone\"]," M "}", 404, "unknown_model", "\"invalid_request_error\"", "\"models\"", "\"model_not_found\"" },
		{ "{\"model\":\"r\"", 400, "invalid_request", "\"invalid_request_error\"", "null", "null" },
		{ "{\"model\":\"r\"}", 400, "invalid_request", "\"invalid_request_error\"", "\"messages\"", "null" },
		{ "{\"model\":7," M "}", 400, "invalid_request", "\"invalid_request_error\"", "\"model\"", "null" },
		{ "{" M "}", 400, "invalid_request", "\"invalid_request_error\"", "\"model\"", "null" },
		{ "{\"model\":\"r\",\"n\":0," M "}", 400, "invalid_request", "\"invalid_request_error\"", "\"n\"", "null" },
		{ "{\"model\":\"r\",\"provider\":{\"sort\":\"price\"}," M "}", 400, "unsupported", "\"invalid_request_error\"", "\"provider.sort\"", "\"unsupported_parameter\"" },
		{ "{\"model\":\"r\",\"priority\":1," M "}", 400, "unsupported", "\"invalid_request_error\"", "\"priority\"", "\"unsupported_parameter\"" },
		{ "{\"model\":\"r\",\"provider\":{\"only\":[\"nobody\"]}," M "}", 400, "invalid_request", "\"invalid_request_error\"", "\"provider.only\"", "null" },
		{ "{\"model\":\"a/m\",\"provider\":{\"ignore\":[\"a\"]}," M "}", 404, "unknown_model", "\"invalid_request_error\"", "\"provider\"", "\"model_not_found\"" },
		{ "{\"model\":\"r\",\"metadata\":{\"tags\":[\"a\"]}," M "}", 400, "unsupported", "\"invalid_request_error\"", "\"metadata.tags\"", "\"unsupported_parameter\"" },
	};
	struct world w;
	struct heard h;
	char want[256];
	world_simple(&w, 1, NULL, "\"store\": false"); /* without one, tags have no place */
	struct sbx_client *c = client_up(&w);
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		http(c, NULL, rows[i].body, &h);
		(void)snprintf(want, sizeof want, ",\"type\":%s,\"param\":%s,\"code\":%s}}", rows[i].type, rows[i].param, rows[i].json_code);
		if (h.accepted || h.status != rows[i].status || strcmp(h.code, rows[i].code) != 0 || strncmp(h.data, "{\"error\":{\"message\":\"", 21) != 0 ||
		    h.n < strlen(want) || strcmp(h.data + h.n - strlen(want), want) != 0)
			fail_msg("%s: %d %s %s", rows[i].body, h.status, h.code, h.data);
	}
	assert_int_equal(double_requests(&w, 0), 0);
	/* a provider's own error, word for word */
	double_rules(&w, 0, "*: status=400, body={\"error\":{\"message\":\"no\"\\,\"type\":\"invalid_request_error\"\\,\"param\":\"messages\"\\,\"code\":null}}");
	http(c, NULL, "{\"model\":\"r\"," M "}", &h);
	assert_int_equal(h.status, 400);
	assert_string_equal(h.data, "{\"error\":{\"message\":\"no\",\"type\":\"invalid_request_error\",\"param\":\"messages\",\"code\":null}}");
	/* nobody answers */
	double_rules(&w, 0, "*: status=503, body=<html>");
	http(c, NULL, "{\"model\":\"r\"," M "}", &h);
	assert_int_equal(h.status, 503);
	assert_non_null(strstr(h.data, "\"type\":\"")); /* never without words */
	assert_null(strstr(h.data, "\"type\":null"));
	sbx_close(c);
	world_down(&w);
}

/* ---- for whom ---- */

static struct sbx_request_options
for_tenant(const char *tenant, const char *body)
{
	struct sbx_request_options o = SBX_REQUEST_INIT;
	o.as_http = true;
	o.tenant = tenant;
	o.key_id = tenant ? "k1" : NULL;
	o.body = body;
	o.body_bytes = strlen(body);
	return o;
}

static void
only_trusted_users_say_for_whom_they_ask(void **state)
{
	(void)state;
	static const char body[] = "{\"model\":\"r\"," M "}";
	struct world w;
	struct heard h;
	if (geteuid() != 0) {
		print_message("skipped: only root can be several users\n");
		skip();
	}
	world_up(&w);
	world_double(&w, "a", NULL);
	w.listen_more = ", \"trusted_uids\": [54321]";
	world_agent(&w, "{\"providers\":{\"a\":{\"base_url\":\"$0\",\"key\":\"$KEY\"}},\"routes\":{\"r\":{\"targets\":[\"a/m\"]}}}", NULL);
	assert_int_equal(chmod(w.dir, 0711), 0);
	assert_int_equal(chmod(w.socket, 0666), 0);
	for (uid_t uid = 54321; uid <= 54322; uid++) {
		assert_int_equal(seteuid(uid), 0);
		struct sbx_client *c = client_up(&w);
		assert_int_equal(seteuid(0), 0);
		struct sbx_request_options o = for_tenant("acme", body);
		hear(c, &o, &h);
		if (uid == 54321) {
			ASSERT_OK(&h);
		} else {
			assert_string_equal(h.code, "forbidden");
			assert_int_equal(h.status, 403);
			assert_non_null(strstr(h.data, "\"permission_error\""));
			o = for_tenant(NULL, body); /* for himself he may */
			hear(c, &o, &h);
			ASSERT_OK(&h);
		}
		sbx_close(c);
	}
	assert_int_equal(double_requests(&w, 0), 2);
	struct sbx_client *c = client_up(&w); /* root is trusted without being named */
	struct sbx_request_options o = for_tenant("acme", body);
	hear(c, &o, &h);
	ASSERT_OK(&h);
	sbx_close(c);
	world_down(&w);
}

static void
each_tenant_has_half_of_what_may_be_in_flight(void **state)
{
	(void)state;
	static const char hang[] = "{\"model\":\"a/m@hang\"," M "}", body[] = "{\"model\":\"a/m\"," M "}";
	struct world w;
	struct heard h;
	uint64_t id[2];
	world_simple(&w, 1, NULL, "\"limits\": { \"max_in_flight\": 4 }");
	struct sbx_client *c = client_up(&w), *slow = client_up(&w);
	struct sbx_request_options acme = for_tenant("acme", hang);
	for (int i = 0; i < 2; i++)
		assert_int_equal(sbx_submit(slow, &acme, &id[i]), 0);
	double_wait(&w, 0, 2, NULL, 5000);
	acme = for_tenant("acme", body);
	hear(c, &acme, &h);
	assert_string_equal(h.code, "busy");
	assert_non_null(strstr(h.message, "of this tenant"));
	assert_non_null(strstr(h.data, "\"server_is_overloaded\""));
	struct sbx_request_options other = for_tenant("other", body), own = for_tenant(NULL, body);
	hear(c, &other, &h);
	ASSERT_OK(&h);
	hear(c, &own, &h); /* and so has the client itself: what it asks for others is not counted as its own */
	ASSERT_OK(&h);
	for (int i = 0; i < 2; i++)
		assert_int_equal(sbx_cancel(slow, id[i]), 0);
	sbx_close(slow);
	agent_wait_at_rest(&w, 5000);
	hear(c, &acme, &h); /* given back */
	ASSERT_OK(&h);
	sbx_close(c);
	world_down(&w);
}

/* Bytes of a file of the world. */
static bool
file_has(const struct world *w, const char *name, const char *text)
{
	char path[256];
	size_t n = 0;
	(void)snprintf(path, sizeof path, "%s/%s", w->dir, name);
	char *bytes = read_whole(path, &n);
	assert_non_null(bytes);
	bool has = memmem(bytes, n, text, strlen(text));
	free(bytes);
	return has;
}

static void
the_store_keeps_for_whom_it_was(void **state)
{
	(void)state;
	static const char body[] = "{\"model\":\"r\",\"user\":\"u-1\",\"metadata\":{\"k\":\"v\",\"tags\":[\"red\",\"deep \\\"blue\\\"\"]}," M "}";
	struct world w;
	struct heard h;
	struct sbx_report_options by = SBX_REPORT_INIT;
	struct sbx_event ev;
	uint64_t id;
	int64_t n;
	world_simple(&w, 1, NULL, "\"store\": \"$DIR/s.db\"");
	struct sbx_client *c = client_up(&w);
	struct sbx_request_options o = for_tenant("acme", body);
	hear(c, &o, &h);
	ASSERT_OK(&h);
	char *sent = last_body(&w, 0);
	assert_string_equal(sent, "{\"model\":\"m\",\"user\":\"u-1\",\"metadata\":{\"k\":\"v\"}," M "}");
	free(sent);
	o = for_tenant(NULL, "{\"model\":\"r\"," M "}");
	hear(c, &o, &h);
	ASSERT_OK(&h);
	agent_wait_number(&w, "store.committed", 2, 10000);
	for (int i = 0; i < 2; i++) {
		by.by = (const char *[]){ "tenant", "key" }[i];
		assert_int_equal(sbx_report(c, &by, &id), 0);
		do
			assert_int_equal(sbx_next(c, 5000, &ev), 0);
		while (!ev.last);
		assert_true(sbx_reply_number(ev.reply, (const char *[]){ "row.acme.attempts", "row.k1.attempts" }[i], &n));
		assert_int_equal(n, 1);
		assert_true(sbx_reply_number(ev.reply, "total.attempts", &n));
		assert_int_equal(n, 2);
	}
	sbx_close(c);
	world_agent_signal(&w, 15);
	assert_int_equal(world_agent_wait(&w, 10000), 0);
	assert_true(file_has(&w, "s.db", "[\"red\",\"deep \\\"blue\\\"\"]"));
	assert_true(file_has(&w, "s.db", "u-1"));
	world_down(&w);
}

/* ---- names ---- */

static void
stats_tell_the_names_that_may_be_asked_for(void **state)
{
	(void)state;
	struct world w;
	struct sbx_event ev;
	uint64_t id;
	const char *name = "";
	world_simple(&w, 2, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	assert_int_equal(sbx_stats(c, &id), 0);
	do
		assert_int_equal(sbx_next(c, 5000, &ev), 0);
	while (!ev.last);
	assert_true(sbx_reply_string(ev.reply, "route.r.0", &name));
	assert_string_equal(name, "a/m");
	assert_true(sbx_reply_string(ev.reply, "route.r.1", &name));
	assert_string_equal(name, "b/m");
	assert_true(sbx_reply_string(ev.reply, "target.b/m.state", &name));
	sbx_close(c);
	world_down(&w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(embeddings_pass_through_fail_over_and_have_their_price),
		cmocka_unit_test(completions_stream_fail_over_and_are_held_back),
		cmocka_unit_test(who_lacks_an_operation_is_not_asked_for_it),
		cmocka_unit_test(the_body_decides_whether_it_is_a_stream),
		cmocka_unit_test(names_and_providers_are_tried_as_the_body_says),
		cmocka_unit_test(retries_and_time_are_bounded_as_the_body_says),
		cmocka_unit_test(the_cost_stands_in_the_usage_that_asked_for_it),
		cmocka_unit_test(refusals_have_the_shape_and_status_of_the_api),
		cmocka_unit_test(only_trusted_users_say_for_whom_they_ask),
		cmocka_unit_test(each_tenant_has_half_of_what_may_be_in_flight),
		cmocka_unit_test(the_store_keeps_for_whom_it_was),
		cmocka_unit_test(stats_tell_the_names_that_may_be_asked_for),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
