/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_answers.c -- what a provider says reaches the program unharmed, and what the program asks reaches the provider so.
 *
 * Typed events: text, reasoning, refusal, tool calls, choices, usage, finish reasons; streamed and whole they say the same.
 * `data`: the answer's own bytes, compared with those of a request made to the double without the agent.
 * Requests: the double's log is compared byte for byte with the body, edited in the few places where it must be.
 */
#include "tests/e2e/fault.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "client/buf.h"

#define MESSAGES "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define ARGUMENTS "{\"city\":\"Paris\",\"unit\":\"celsius\"}" /* of the double's tool calls */
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* ---- typed answers ---- */

static struct sbx_reply *
ask_model(struct sbx_client *c, const char *model, const char *body, bool stream)
{
	struct sbx_reply *r = ask_body(c, NULL, model, body, stream, 20000);
	if (!sbx_reply_ok(r))
		fail_msg("%s%s: %s, %s", model, stream ? ", stream" : "", sbx_reply_code_word(r), sbx_reply_message(r));
	return r;
}

static void
text_reasoning_and_finish_are_the_same_whole_and_streamed(void **state)
{
	(void)state;
	static const struct {
		const char *model, *text, *reasoning, *finish;
	} row[] = {
		{ "a/m", "hello from a", "", "stop" },
		{ "a/m@tokens=6", "hello from a t4 t5 t6", "", "stop" },
		{ "a/m@text=x\\, y\\n\\\"q\\\" \\\\ \xc3\xa9\xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x98\x80", "x, y\n\"q\" \\ \xc3\xa9\xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x98\x80", "", "stop" },
		{ "a/m@reasoning=3", "hello from a", " r1 r2 r3", "stop" },
		{ "a/m@finish=length", "hello from a", "", "length" },
		{ "a/m@finish=content_filter", "hello from a", "", "content_filter" },
		{ "a/m@finish=end_of_turn", "hello from a", "", "other" }, /* a word that nobody knows */
	};
	struct world w;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	for (size_t i = 0; i < COUNT(row); i++)
		for (int stream = 0; stream < 2; stream++) {
			size_t bytes;
			struct sbx_reply *r = ask_model(c, row[i].model, BODY, stream);
			assert_string_equal(sbx_reply_text(r, 0, &bytes), row[i].text);
			assert_int_equal(bytes, strlen(row[i].text));
			assert_string_equal(sbx_reply_reasoning(r, 0, NULL), row[i].reasoning);
			assert_string_equal(sbx_reply_refusal(r, 0, NULL), "");
			assert_string_equal(sbx_reply_finish(r, 0), row[i].finish);
			assert_string_equal(sbx_reply_target(r), row[i].model);
			assert_int_equal(sbx_reply_choices(r), 1);
			assert_int_equal(sbx_reply_tool_calls(r), 0);
			sbx_reply_free(r);
		}
	sbx_close(c);
	world_down(&w);
}

/* Streamed, each piece of content is an event, in order, after the target's name and before the end. */
static void
a_stream_comes_as_events_in_order(void **state)
{
	(void)state;
	static const enum sbx_note want[] = { SBX_NOTE_ACCEPTED, SBX_NOTE_TARGET, SBX_NOTE_REASONING, SBX_NOTE_REASONING, SBX_NOTE_TEXT,
		                              SBX_NOTE_TEXT,     SBX_NOTE_TEXT,   SBX_NOTE_FINISH,    SBX_NOTE_DONE };
	static const char *const text[COUNT(want)] = { "", "a/m@reasoning=2", " r1", " r2", "hello", " from", " a", "stop", "" };
	struct world w;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	struct sbx_request_options o = SBX_REQUEST_INIT;
	struct sbx_event ev;
	uint64_t id;
	o.model = "a/m@reasoning=2";
	o.body = BODY;
	o.body_bytes = strlen(BODY);
	o.stream = true;
	assert_int_equal(sbx_submit(c, &o, &id), 0);
	for (size_t i = 0; i < COUNT(want); i++) {
		assert_int_equal(sbx_next(c, 10000, &ev), 0);
		assert_int_equal(ev.id, id);
		assert_int_equal(ev.note, want[i]);
		assert_string_equal(ev.text, text[i]);
		assert_int_equal(ev.text_bytes, strlen(text[i]));
		assert_int_equal(ev.last, i + 1 == COUNT(want));
	}
	assert_int_equal(sbx_next(c, 0, &ev), -SBX_ENOENT);
	sbx_close(c);
	world_down(&w);
}

static void
a_refusal_is_told_apart_from_text(void **state)
{
	(void)state;
	static const char whole[] = "{\"id\":\"1\",\"object\":\"chat.completion\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":null,"
	                            "\"refusal\":\"I can not help with that.\"},\"finish_reason\":\"stop\"}]}";
	static const char events[] = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null,\"refusal\":\"\"},\"finish_reason\":null}]}\n\n"
	                             "data: {\"choices\":[{\"index\":0,\"delta\":{\"refusal\":\"I can not\"},\"finish_reason\":null}]}\n\n"
	                             "data: {\"choices\":[{\"index\":0,\"delta\":{\"refusal\":\" help with that.\"},\"finish_reason\":null}]}\n\n"
	                             "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
	                             "data: [DONE]\n\n";
	struct world w;
	char path[2][200], rules[600];
	world_simple(&w, 1, NULL, NULL);
	write_file(&w, "refusal.json", whole, strlen(whole), path[0], sizeof path[0]);
	write_file(&w, "refusal.sse", events, strlen(events), path[1], sizeof path[1]);
	(void)snprintf(rules, sizeof rules, "whole: file=%s\nstream: file=%s,replay", path[0], path[1]);
	double_rules(&w, 0, rules);
	struct sbx_client *c = client_up(&w);
	for (int stream = 0; stream < 2; stream++) {
		struct sbx_reply *r = ask_model(c, stream ? "a/stream" : "a/whole", BODY, stream);
		assert_string_equal(sbx_reply_refusal(r, 0, NULL), "I can not help with that.");
		assert_string_equal(sbx_reply_text(r, 0, NULL), "");
		assert_string_equal(sbx_reply_finish(r, 0), "stop");
		sbx_reply_free(r);
	}
	sbx_close(c);
	world_down(&w);
}

static void
tool_calls_are_the_same_whole_and_streamed(void **state)
{
	(void)state;
	static const char *const model[] = { "a/m@tool", "a/m@tool=3", "a/m@tool=3,split=1", "a/m@tool=2,split=7,crlf" };
	static const uint32_t calls[] = { 1, 3, 3, 2 };
	struct world w;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	for (size_t i = 0; i < COUNT(model); i++)
		for (int stream = 0; stream < 2; stream++) {
			struct sbx_reply *r = ask_model(c, model[i], BODY, stream);
			assert_int_equal(sbx_reply_tool_calls(r), calls[i]);
			for (uint32_t k = 0; k < calls[i]; k++) {
				struct sbx_tool_call call;
				char id[32];
				(void)snprintf(id, sizeof id, "call_mock_%u", k);
				assert_true(sbx_reply_tool_call(r, k, &call));
				assert_int_equal(call.choice, 0);
				assert_string_equal(call.id, id);
				assert_string_equal(call.name, "get_weather");
				assert_string_equal(call.arguments, ARGUMENTS);
			}
			assert_string_equal(sbx_reply_finish(r, 0), "tool_calls");
			assert_string_equal(sbx_reply_text(r, 0, NULL), "");
			sbx_reply_free(r);
		}
	sbx_close(c);
	world_down(&w);
}

/* The fragments of several calls take turns; id and name come with the first of each, and never again. */
static void
tool_call_fragments_keep_to_their_call(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	struct sbx_request_options o = SBX_REQUEST_INIT;
	struct sbx_event ev;
	char arguments[2][128] = { "", "" };
	int fragments[2] = { 0, 0 }, turns = 0, before = -1;
	uint64_t id;
	o.model = "a/m@tool=2";
	o.body = BODY;
	o.body_bytes = strlen(BODY);
	o.stream = true;
	assert_int_equal(sbx_submit(c, &o, &id), 0);
	do {
		assert_int_equal(sbx_next(c, 10000, &ev), 0);
		if (ev.note != SBX_NOTE_TOOL_CALL)
			continue;
		assert_in_range(ev.index, 0, 1);
		if (fragments[ev.index]++ == 0) {
			assert_string_equal(ev.call_id, ev.index ? "call_mock_1" : "call_mock_0");
			assert_string_equal(ev.call_name, "get_weather");
		} else {
			assert_null(ev.call_id);
			assert_null(ev.call_name);
		}
		turns += before != (int)ev.index;
		before = (int)ev.index;
		(void)strncat(arguments[ev.index], ev.text, sizeof arguments[0] - strlen(arguments[ev.index]) - 1);
	} while (!ev.last);
	assert_int_equal(ev.note, SBX_NOTE_DONE);
	assert_string_equal(arguments[0], ARGUMENTS);
	assert_string_equal(arguments[1], ARGUMENTS);
	assert_true(fragments[0] > 2 && turns > 4); /* else the test shows nothing */
	sbx_close(c);
	world_down(&w);
}

static void
several_choices_are_kept_apart(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	for (int stream = 0; stream < 2; stream++) {
		struct sbx_reply *r = ask_model(c, "a/m@tokens=5", "{" MESSAGES ",\"n\":3}", stream);
		assert_int_equal(sbx_reply_choices(r), 3);
		for (uint32_t k = 0; k < 3; k++) {
			assert_string_equal(sbx_reply_text(r, k, NULL), "hello from a t4 t5");
			assert_string_equal(sbx_reply_finish(r, k), "stop");
		}
		assert_string_equal(sbx_reply_text(r, 3, NULL), "");
		assert_int_equal(sbx_reply_tokens(r).completion, 15);
		sbx_reply_free(r);
		r = ask_model(c, "a/m@tool", "{" MESSAGES ",\"n\":2}", stream);
		assert_int_equal(sbx_reply_tool_calls(r), 2);
		for (uint32_t k = 0; k < 2; k++) {
			struct sbx_tool_call call;
			assert_true(sbx_reply_tool_call(r, k, &call));
			assert_int_equal(call.choice, k);
			assert_string_equal(call.arguments, ARGUMENTS);
		}
		sbx_reply_free(r);
	}
	sbx_close(c);
	world_down(&w);
}

static void
usage_is_what_the_provider_said_and_nothing_else(void **state)
{
	(void)state;
	static const struct {
		const char *model;
		int64_t prompt, completion, total, cached, reasoning;
		bool clamped;
	} row[] = {
		{ "a/m", 10, 3, 13, 0, 0, false },
		{ "a/m@prompt-tokens=50,cached-tokens=20", 50, 3, 53, 20, 0, false },
		{ "a/m@reasoning=4", 10, 7, 17, 0, 4, false },
		{ "a/m@cached-tokens=30", 10, 3, 13, 10, 0, true }, /* more than there were */
		{ "a/m@usage=zero", 0, 0, 0, 0, 0, false },         /* said to be 0 */
		{ "a/m@usage=none", -1, -1, -1, -1, -1, false },    /* not said */
		{ "a/m@usage=double", 10, 3, 13, 0, 0, false },     /* told twice, counted once */
		{ "a/m@usage=cumulative", 10, 3, 13, 0, 0, false },
		{ "a/m@usage=always", 10, 3, 13, 0, 0, false },
	};
	struct world w;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	for (size_t i = 0; i < COUNT(row); i++)
		for (int stream = 0; stream < 2; stream++) {
			struct sbx_reply *r = ask_model(c, row[i].model, BODY, stream);
			struct sbx_tokens t = sbx_reply_tokens(r);
			assert_int_equal(t.prompt, row[i].prompt);
			assert_int_equal(t.completion, row[i].completion);
			assert_int_equal(t.total, row[i].total);
			assert_int_equal(t.cached, row[i].cached);
			assert_int_equal(t.reasoning, row[i].reasoning);
			assert_int_equal(t.clamped, row[i].clamped);
			assert_false(t.estimated);
			assert_int_equal(sbx_reply_cost_nanousd(r), -1); /* no price is known: not even 0 is claimed */
			if (row[i].prompt > 0)
				assert_non_null(strstr(sbx_reply_usage_raw(r), "\"prompt_tokens_details\""));
			sbx_reply_free(r);
		}
	sbx_close(c);
	world_down(&w);
}

/* ---- data: the answer's own bytes ---- */

static void
unchunk(char *text)
{
	char *to = text, *at = text;
	for (;;) {
		size_t n = strtoul(at, &at, 16);
		at = strstr(at, "\r\n");
		assert_non_null(at);
		at += 2;
		if (n == 0)
			break;
		memmove(to, at, n);
		to += n;
		at += n + 2;
	}
	*to = 0;
}

/* The same request made without the agent. malloc'd body. */
static char *
ask_double(struct world *w, int n, const char *body)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)w->dbl[n].http_port), .sin_addr = { htonl(INADDR_LOOPBACK) } };
	struct timeval limit = { 20, 0 };
	struct sbx_buf b;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
	sbx_buf_init(&b, 16u << 20);
	(void)sbx_buf_printf(&b, "POST /v1/chat/completions HTTP/1.1\r\nHost: double\r\nConnection: close\r\nAuthorization: Bearer " WORLD_KEY "\r\nContent-Length: %zu\r\n\r\n%s",
	                     strlen(body), body);
	assert_int_equal(send(fd, b.data, b.n, MSG_NOSIGNAL), b.n);
	sbx_buf_clear(&b);
	for (;;) {
		uint8_t *room = sbx_buf_reserve(&b, 65536);
		ssize_t got = recv(fd, room, 65535, 0);
		if (got <= 0)
			break;
		sbx_buf_commit(&b, (size_t)got);
	}
	(void)close(fd);
	(void)sbx_buf_append(&b, "", 1);
	char *text = (char *)b.data, *head_end = strstr(text, "\r\n\r\n");
	assert_non_null(head_end);
	*head_end = 0;
	bool chunked = strcasestr(text, "transfer-encoding: chunked") != NULL;
	char *answer = strdup(head_end + 4);
	sbx_buf_fini(&b);
	if (chunked)
		unchunk(answer);
	return answer;
}

/* Takes out what differs from one answer of the double to the next: the number in the id, and the time. */
static void
mask(char *text)
{
	static const char *const before[] = { "\"id\":\"chatcmpl-mock-", "\"created\":" };
	for (size_t i = 0; i < COUNT(before); i++)
		for (char *at = text; (at = strstr(at, before[i]));) {
			at += strlen(before[i]);
			size_t digits = strspn(at, "0123456789");
			memmove(at, at + digits, strlen(at + digits) + 1);
		}
}

static struct answer
ask_data(struct sbx_client *c, const char *model, const char *body, bool stream)
{
	const struct question q = { .targets = { model }, .body = body, .stream = stream, .data = true };
	return answer_of(c, &q);
}

static void
data_of_a_whole_answer_is_the_very_bytes(void **state)
{
	(void)state;
	/* Numbers that no parser keeps, unknown members, odd white space, escapes that need not be. */
	static const char odd[] = "{ \"id\" : \"1\",\t\"choices\":[ {\"index\":0, \"message\":{\"role\":\"assistant\",\"content\":\"a\\u0041\\/\\u0000\\ud83d\\ude00\xc3\xa9\","
	                          "\"x\":[1.0,0.70,1e400,-0,18446744073709551616]},\"finish_reason\":\"stop\",\"logprobs\":{\"content\":[{\"logprob\":-0.10}]}}],\n"
	                          "\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4,\"total_tokens\":7.0},\"x_vendor\":{\"a\":{},\"b\":[]} }";
	static const char *const model[] = { "odd", "m", "m@tool=2", "m@reasoning=2", "m@tokens=4000" };
	struct world w;
	char path[200], rules[300], target[64], body[256];
	world_simple(&w, 1, NULL, NULL);
	write_file(&w, "odd.json", odd, strlen(odd), path, sizeof path);
	(void)snprintf(rules, sizeof rules, "odd: file=%s", path);
	double_rules(&w, 0, rules);
	struct sbx_client *c = client_up(&w);
	for (size_t i = 0; i < COUNT(model); i++) {
		(void)snprintf(target, sizeof target, "a/%s", model[i]);
		(void)snprintf(body, sizeof body, "{\"model\":\"%s\"," MESSAGES "}", model[i]);
		struct answer a = ask_data(c, target, BODY, false);
		char *direct = ask_double(&w, 0, body);
		if (i == 0)
			assert_string_equal(a.data, odd);
		assert_true(a.ok);
		mask(direct);
		mask(a.data);
		assert_string_equal(a.data, direct);
		assert_string_equal(a.text, ""); /* bytes, or events: not both */
		free(direct);
		answer_free(&a);
	}
	sbx_close(c);
	world_down(&w);
}

/* The payloads of a stream, one a line; without the chunk that is only there because the agent asked for usage. */
static char *
payloads(const char *stream, bool with_usage)
{
	struct sbx_buf b;
	size_t n;
	sbx_buf_init(&b, 16u << 20);
	while (*stream) {
		size_t line = strcspn(stream, "\r\n");
		bool usage = memmem(stream, line, "\"choices\":[],\"usage\":{", 22) != NULL;
		if (strncmp(stream, "data: ", 6) == 0 && (with_usage || !usage))
			(void)sbx_buf_printf(&b, "%.*s\n", (int)line - 6, stream + 6);
		stream += line;
		stream += strspn(stream, "\r\n");
	}
	(void)sbx_buf_append(&b, "", 1);
	char *text = (char *)sbx_buf_take(&b, &n);
	mask(text);
	return text;
}

static void
data_of_a_stream_has_the_payloads_of_a_direct_request(void **state)
{
	(void)state;
	static const char *const model[] = { "m", "m@tokens=200", "m@tool=3", "m@reasoning=3", "m@split=3,tokens=20", "m@crlf,split=1", "m@bom", "m@finish=length", "m@choices=2" };
	struct world w;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	for (size_t i = 0; i < COUNT(model); i++)
		for (int usage = 0; usage < 2; usage++) {
			char target[64], body[256];
			const char *asked = usage ? "\"stream_options\":{\"include_usage\":true}," : "";
			(void)snprintf(target, sizeof target, "a/%s", model[i]);
			(void)snprintf(body, sizeof body, "{\"model\":\"%s\",%s\"stream\":true,\"n\":%d," MESSAGES "}", model[i], asked, strstr(model[i], "choices") ? 2 : 1);
			struct answer a = ask_data(c, target, body, true);
			/* What the agent got is what a client gets that asks for usage. */
			(void)snprintf(body, sizeof body, "{\"model\":\"%s\",\"stream_options\":{\"include_usage\":true},\"stream\":true,\"n\":%d," MESSAGES "}", model[i],
			               strstr(model[i], "choices") ? 2 : 1);
			char *whole = ask_double(&w, 0, body), *want = payloads(strncmp(whole, "\xef\xbb\xbf", 3) ? whole : whole + 3, usage), *got = payloads(a.data, true);
			assert_true(a.ok);
			assert_string_equal(got, want);
			assert_int_equal(a.tokens.prompt, 10); /* known to the agent all the same */
			const char *done = strstr(a.data, "data: [DONE]\n\n");
			assert_non_null(done);
			assert_int_equal(strlen(done), 14); /* once, at the end */
			free(whole);
			free(want);
			free(got);
			answer_free(&a);
		}
	sbx_close(c);
	world_down(&w);
}

static void
the_end_mark_is_said_only_of_a_complete_answer(void **state)
{
	(void)state;
	static const struct {
		const char *model;
		bool complete;
	} row[] = {
		{ "a/m@done=no", true },          /* the finish reason was said: complete without the provider's mark */
		{ "a/m@cut-tokens=2", false },
		{ "a/m@cut-tokens=2,how=rst", false },
		{ "a/m@finish=none", false },     /* the mark alone does not make it complete */
		{ "a/m@error-after=2", false },
		{ "a/m@error-first", false },
	};
	struct world w;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	for (size_t i = 0; i < COUNT(row); i++) {
		struct answer a = ask_data(c, row[i].model, BODY, true);
		const char *done = strstr(a.data, "[DONE]");
		if (a.ok != row[i].complete || (done != NULL) != row[i].complete)
			fail_msg("%s: %s, and the data are %s", row[i].model, a.ok ? "ok" : a.message, a.data);
		if (done)
			assert_null(strstr(done + 1, "[DONE]"));
		answer_free(&a);
	}
	sbx_close(c);
	world_down(&w);
}

/* With `data` a failure is a body of the dialect as well: what its SDKs parse. */
static void
data_of_a_failure_is_an_error_in_the_dialect(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	for (int stream = 0; stream < 2; stream++) {
		struct sbx_request_options o = SBX_REQUEST_INIT;
		struct sbx_reply *r = NULL;
		o.model = "a/m@status=422";
		o.body = BODY;
		o.body_bytes = strlen(BODY);
		o.data = true;
		o.stream = stream;
		assert_int_equal(sbx_ask(c, &o, &r), -SBX_EFAILED);
		json_t *j = json_loads(sbx_reply_data(r, NULL), 0, NULL), *e = json_object_get(j, "error");
		assert_string_equal(json_string_value(json_object_get(e, "message")), "The request cannot be processed.");
		assert_string_equal(json_string_value(json_object_get(e, "type")), "invalid_request_error");
		assert_string_equal(json_string_value(json_object_get(e, "code")), "unprocessable_entity");
		assert_true(json_is_null(json_object_get(e, "param")));
		assert_string_equal(sbx_reply_provider_error(r, "code"), "unprocessable_entity");
		assert_string_equal(sbx_reply_provider_error(r, "provider"), "a");
		assert_string_equal(sbx_reply_provider_error(r, "status"), "422");
		assert_int_equal(sbx_reply_status(r), 422);
		json_decref(j);
		sbx_reply_free(r);
	}
	sbx_close(c);
	world_down(&w);
}

/* ---- requests ---- */

#define ODD "\"temperature\":0.70,\"top_p\":1e400,\"seed\":18446744073709551615,\"x\":[-0,-0.0,1E-7,123456789012345678901234567890.10]"
#define UNKNOWN "\"x_vendor\" : {\"a\":[ ],\"b\":{\"c\":null} },\t\"logit_bias\":{\"50256\":-100}"
#define ESCAPES "\"messages\":[{\"role\":\"user\",\"content\":\"a\\u0000b\\/\\ud83d\\ude00 \xc3\xa9\xf0\x9f\x98\x80 \\u00e9\"}]"

static void
a_request_reaches_the_provider_byte_for_byte(void **state)
{
	(void)state;
	static const struct {
		bool stream;
		const char *body, *want;
	} row[] = {
		/* whole: only the model */
		{ false, "{\"model\":\"gpt\"," MESSAGES "," ODD "}", "{\"model\":\"m\"," MESSAGES "," ODD "}" },
		{ false, "{ " ESCAPES "," UNKNOWN ", \"model\" : \"a longer name\" }", "{ " ESCAPES "," UNKNOWN ", \"model\" : \"m\" }" },
		{ false, "\n{\r\n\t" MESSAGES "\r\n}\n", "\n{\"model\":\"m\",\r\n\t" MESSAGES "\r\n}\n" },
		{ false, "{" MESSAGES ",\"stream\":true,\"stream_options\":{\"include_usage\":true}," ODD "}", "{\"model\":\"m\"," MESSAGES ",\"stream\":false," ODD "}" },
		{ false, "{" MESSAGES ",\"stream\":null," UNKNOWN "}", "{\"model\":\"m\"," MESSAGES ",\"stream\":null," UNKNOWN "}" },
		/* streamed: stream, and usage is asked for */
		{ true, "{\"model\":\"gpt\"," ESCAPES "," ODD "}", "{\"stream\":true,\"stream_options\":{\"include_usage\":true},\"model\":\"m\"," ESCAPES "," ODD "}" },
		{ true, "{" MESSAGES ",\"stream\":false," ODD "}", "{\"model\":\"m\",\"stream_options\":{\"include_usage\":true}," MESSAGES ",\"stream\":true," ODD "}" },
		{ true, "{" MESSAGES ",\"stream\":true,\"stream_options\":{\"x\":0.70},\"model\":\"q\"}",
		  "{" MESSAGES ",\"stream\":true,\"stream_options\":{\"include_usage\":true,\"x\":0.70},\"model\":\"m\"}" },
		{ true, "{" MESSAGES ",\"stream\":true,\"stream_options\":{\"include_usage\":false},\"model\":\"q\"}",
		  "{" MESSAGES ",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"model\":\"m\"}" },
		{ true, "{" MESSAGES ",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"model\":\"q\"," UNKNOWN "}",
		  "{" MESSAGES ",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"model\":\"m\"," UNKNOWN "}" },
	};
	struct world w;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	for (size_t i = 0; i < COUNT(row); i++) {
		const struct question q = { .route = "r", .body = row[i].body, .stream = row[i].stream };
		struct answer a = answer_of(c, &q);
		if (!a.ok)
			fail_msg("%s: %s", row[i].body, a.message);
		char *seen = double_log_string(&w, 0, (int)i, "body");
		assert_string_equal(seen, row[i].want);
		free(seen);
		answer_free(&a);
	}
	sbx_close(c);
	world_down(&w);
}

/* A second member of the same name could smuggle past a check what the provider then reads. */
static void
duplicate_keys_are_refused_before_anything_is_sent(void **state)
{
	(void)state;
	static const char *const body[] = {
		"{" MESSAGES "," MESSAGES "}",
		"{\"model\":\"a/m\",\"model\":\"a/n\"," MESSAGES "}",
		"{\"n\":1,\"\\u006e\":2," MESSAGES "}", /* the same name, spelt otherwise */
		"{\"messages\":[{\"role\":\"user\",\"content\":\"hi\",\"role\":\"system\"}]}",
		"{" MESSAGES ",\"metadata\":{\"deep\":[{\"k\":0,\"k\":0}]}}",
	};
	struct world w;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	for (size_t i = 0; i < COUNT(body); i++) {
		const struct question q = { .route = "r", .body = body[i] };
		struct answer a = answer_of(c, &q);
		assert_false(a.ok);
		assert_int_equal(a.code, SBX_CODE_INVALID_REQUEST);
		assert_int_equal(a.n_attempts, 0);
		if (!strstr(a.message, "twice") && !strstr(a.message, "duplicate"))
			fail_msg("%s does not say what is wrong", a.message);
		answer_free(&a);
	}
	const struct question same = { .route = "r", .body = "{" MESSAGES ",\"a\":{\"k\":1},\"b\":{\"k\":1}}" }; /* in two objects: no matter */
	struct answer a = answer_of(c, &same);
	assert_true(a.ok);
	assert_int_equal(double_requests(&w, 0), 1);
	answer_free(&a);
	sbx_close(c);
	world_down(&w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_reasoning_and_finish_are_the_same_whole_and_streamed),
		cmocka_unit_test(a_stream_comes_as_events_in_order),
		cmocka_unit_test(a_refusal_is_told_apart_from_text),
		cmocka_unit_test(tool_calls_are_the_same_whole_and_streamed),
		cmocka_unit_test(tool_call_fragments_keep_to_their_call),
		cmocka_unit_test(several_choices_are_kept_apart),
		cmocka_unit_test(usage_is_what_the_provider_said_and_nothing_else),
		cmocka_unit_test(data_of_a_whole_answer_is_the_very_bytes),
		cmocka_unit_test(data_of_a_stream_has_the_payloads_of_a_direct_request),
		cmocka_unit_test(the_end_mark_is_said_only_of_a_complete_answer),
		cmocka_unit_test(data_of_a_failure_is_an_error_in_the_dialect),
		cmocka_unit_test(a_request_reaches_the_provider_byte_for_byte),
		cmocka_unit_test(duplicate_keys_are_refused_before_anything_is_sent),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
