/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_metrics.c -- /metrics of the door: exact numbers after known traffic, of C clients and through the door; the formats;
 * who may read it; names that are meant to break it; and an agent that is gone, hangs, or was started again.
 */
#include "tests/e2e/scrape.h"

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/e2e/control.h"
#include "tests/e2e/key.h"

#define WHOLE(model) "{\"model\":\"" model "\"," MESSAGES "}"
#define STREAM(model) "{\"model\":\"" model "\",\"stream\":true," MESSAGES "}"
#define OPENMETRICS "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"

static struct world w;
static struct door d;

static void
down(void)
{
	door_down(&d);
	world_down(&w);
}

static void
post(const char *path, const char *body, int status)
{
	struct http_answer a;
	door_ask(&d, path, "", body, &a);
	if (a.status != status)
		fail_msg("%s answered %d: %s", path, a.status, a.body);
	http_free(&a);
}

/* The numbers of a second ago are fresh enough for the door: a test waits until they are not. */
static void
scrape(struct scrape *s)
{
	pause_ms(1050);
	scrape_door(&d, NULL, s);
}

static void
is_within(double value, double wanted, double off)
{
	if (fabs(value - wanted) > off)
		fail_msg("%.12g instead of %.12g", value, wanted);
}

#define IS(s, name, labels, wanted) is(s, name, labels, wanted, __LINE__)
static void
is(const struct scrape *s, const char *name, const char *labels, double wanted, int line)
{
	double value = scrape_sum(s, name, labels);
	if (value != wanted || !scrape_count(s, name, labels))
		fail_msg("line %d: %s{%s} is %.12g in %d series instead of %.12g", line, name, labels, value, scrape_count(s, name, labels), wanted);
}

/* ---- exact numbers ---- */

static void
up_with_prices(void)
{
	world_up(&w);
	world_double(&w, "openai", (const char *[]){ "--rule", "gpt-4o-mini: prompt-tokens=1001, cached-tokens=400", NULL });
	world_double(&w, "b", NULL);
	world_agent(&w, "{\"providers\":{\"openai\":{\"base_url\":\"$0\",\"key\":\"$KEY\",\"models\":{\"gpt-4o-mini\":{}}},"
	                "\"b\":{\"dialect\":\"openai-chat\",\"base_url\":\"$1\",\"key\":\"$KEY\",\"models\":{\"m\":{}}}},"
	                "\"routes\":{\"r\":{\"targets\":[\"b/m\",\"openai/gpt-4o-mini\"]}}}", NULL);
	door_up(&w, &d, NULL);
}

static void
test_exact_numbers(void **state)
{
	struct scrape s;
	char me[64], labels[256];
	int64_t completion = 0, cost = 0;
	(void)state;
	(void)snprintf(me, sizeof me, "uid:%u", (unsigned)getuid());
	up_with_prices();
	/* Two of a C client, by the model's name; three of the door, by the route, of which the first fails over. */
	struct sbx_client *c = client_up(&w);
	for (int stream = 0; stream < 2; stream++) {
		struct sbx_reply *r = ask_body(c, NULL, "openai/gpt-4o-mini", BODY, stream, 10000);
		assert_true(sbx_reply_ok(r));
		completion += sbx_reply_tokens(r).completion;
		cost += sbx_reply_cost_nanousd(r);
		sbx_reply_free(r);
	}
	sbx_close(c);
	double_rules(&w, 1, "*: times=2, status=500"); /* once more, then another target */
	post(CHAT, STREAM("r"), 200);
	post(CHAT, WHOLE("r"), 200);
	post(CHAT, WHOLE("r"), 200);
	post(CHAT, WHOLE("nobody/nothing"), 404);
	post(CHAT, "{]", 400);
	scrape(&s);

	IS(&s, "signalbox_agent_up", "", 1);
	IS(&s, "signalbox_requests_total", "outcome=ok", 5);
	(void)snprintf(labels, sizeof labels, "tenant=%s,route=,target=openai/gpt-4o-mini,outcome=ok,operation=chat", me);
	IS(&s, "signalbox_requests_total", labels, 2);
	IS(&s, "signalbox_requests_total", "tenant=local,route=r,outcome=ok", 3);
	IS(&s, "signalbox_requests_total", "tenant=local,outcome=unknown_model", 1);
	IS(&s, "signalbox_requests_total", "tenant=local,outcome=invalid_request", 1);
	IS(&s, "signalbox_requests_total", "", 7);
	IS(&s, "signalbox_request_duration_seconds_count", "", 5); /* of those that ran */
	IS(&s, "signalbox_request_first_content_seconds_count", "", 2);
	IS(&s, "signalbox_attempts_total", "target=b/m,class=FAILED,tenant=local,route=r", 2);
	IS(&s, "signalbox_attempts_total", "target=b/m,class=OK,tenant=local,route=r", 2);
	IS(&s, "signalbox_attempts_total", "target=openai/gpt-4o-mini,class=OK,route=r", 1);
	IS(&s, "signalbox_attempts_total", "", 7);
	IS(&s, "signalbox_failovers_total", "", 1);
	IS(&s, "gen_ai_client_operation_duration_seconds_count", "gen_ai_provider_name=b,error_type=FAILED,gen_ai_request_model=m", 2);
	IS(&s, "gen_ai_client_operation_duration_seconds_count", "gen_ai_operation_name=chat", 7);
	IS(&s, "gen_ai_client_operation_time_to_first_chunk_seconds_count", "error_type=", 2);
	/* tokens: every answer of openai has 1001, 400 of them cached; b's has 10 */
	IS(&s, "signalbox_tokens_total", "target=openai/gpt-4o-mini,kind=prompt", 1001 * 3);
	IS(&s, "signalbox_tokens_total", "target=openai/gpt-4o-mini,kind=cached", 400 * 3);
	(void)snprintf(labels, sizeof labels, "tenant=%s,kind=completion", me);
	IS(&s, "signalbox_tokens_total", labels, (double)completion);
	IS(&s, "gen_ai_client_token_usage_sum", "gen_ai_token_type=input,gen_ai_request_model=gpt-4o-mini", 1001 * 3);
	IS(&s, "gen_ai_client_token_usage_count", "gen_ai_token_type=output,gen_ai_provider_name=openai", 3);
	IS(&s, "gen_ai_client_token_usage_bucket", "gen_ai_token_type=input,gen_ai_provider_name=openai,le=256.0", 0);
	IS(&s, "gen_ai_client_token_usage_bucket", "gen_ai_token_type=input,gen_ai_provider_name=openai,le=1024.0", 3);
	/* money: gpt-4o-mini's is known, the failed attempt's is known to be nothing, b's is not known */
	(void)snprintf(labels, sizeof labels, "tenant=%s", me);
	is_within(scrape_sum(&s, "signalbox_cost_usd_total", labels), (double)cost / 1e9, 1e-12);
	assert_int_equal(scrape_count(&s, "signalbox_cost_usd_total", "target=b/m,class=OK"), 0);
	IS(&s, "signalbox_cost_unknown_attempts_total", "target=openai/gpt-4o-mini", 0);
	IS(&s, "signalbox_cost_usd_total", "target=b/m,class=FAILED", 0);
	IS(&s, "signalbox_cost_unknown_attempts_total", "target=b/m,class=OK", 2);
	IS(&s, "signalbox_tokens_total", "target=b/m,kind=prompt", 2 * 10);
	/* now */
	IS(&s, "signalbox_requests_in_flight", "", 0);
	IS(&s, "signalbox_target_in_flight", "target=b/m", 0);
	IS(&s, "signalbox_target_state", "target=b/m,state=up", 1);
	IS(&s, "signalbox_target_state", "target=b/m", 1);
	IS(&s, "signalbox_metrics_folded_total", "", 0);
	/* the door's own: what was answered before this scrape */
	IS(&s, "signalbox_http_requests_total", "endpoint=" CHAT ",status=200", 3);
	IS(&s, "signalbox_http_requests_total", "endpoint=" CHAT ",status=404", 1);
	IS(&s, "signalbox_http_requests_total", "endpoint=" CHAT ",status=400", 1);
	IS(&s, "signalbox_http_requests_in_flight", "", 1); /* the scrape */
	is_within(scrape_sum(&s, "process_start_time_seconds", ""), (double)time(NULL), 60);
	is_within(scrape_sum(&s, "signalbox_agent_start_time_seconds", ""), (double)time(NULL), 60);
	assert_true(scrape_sum(&s, "process_resident_memory_bytes", "") > 1e6 && scrape_sum(&s, "signalbox_agent_resident_memory_bytes", "") > 1e6);
	assert_true(scrape_sum(&s, "signalbox_http_received_bytes_total", "") >= 5 * 2);
	assert_true(scrape_sum(&s, "signalbox_http_sent_bytes_total", "") > 1000);
	scrape_free(&s);
	down();
}

static void
test_running_and_states(void **state)
{
	struct scrape s;
	struct http_answer a;
	(void)state;
	world_simple(&w, 1, NULL, NULL);
	double_rules(&w, 0, "slow: hang\n*: status=500");
	door_up(&w, &d, NULL);
	int fd = door_connect(&d);
	door_post(&d, fd, CHAT, "", STREAM("a/slow"));
	agent_wait_number(&w, "in_flight", 1, 10000);
	for (int i = 0; i < 3; i++) {
		door_ask(&d, CHAT, "", WHOLE("r"), &a);
		assert_int_equal(a.status, 500);
		http_free(&a);
	}
	scrape(&s);
	IS(&s, "signalbox_requests_in_flight", "tenant=local", 1);
	IS(&s, "signalbox_requests_in_flight", "tenant=local,route=r", 0);
	IS(&s, "signalbox_target_state", "target=a/m,state=down", 1);
	IS(&s, "signalbox_target_state", "target=a/m,state=up", 0);
	IS(&s, "signalbox_requests_total", "outcome=upstream_failed,target=a/m,route=r", 3);
	assert_true(scrape_sum(&s, "signalbox_attempts_total", "class=FAILED") >= 3);
	scrape_free(&s);
	/* it leaves: cancelled, and no longer running */
	(void)close(fd);
	agent_wait_at_rest(&w, 10000);
	scrape(&s);
	IS(&s, "signalbox_requests_in_flight", "", 0);
	IS(&s, "signalbox_requests_total", "outcome=cancelled", 1);
	IS(&s, "signalbox_attempts_total", "class=CANCELLED,target=a/slow", 1);
	IS(&s, "signalbox_target_in_flight", "target=a/slow", 0);
	IS(&s, "signalbox_http_requests_total", "status=none,endpoint=" CHAT, 1);
	scrape_free(&s);
	down();
}

/* ---- formats, and who may read them ---- */

static void
test_formats(void **state)
{
	static const struct {
		const char *accept;
		bool openmetrics;
	} wishes[] = {
		{ NULL, false },
		{ "*/*", false },
		{ "text/plain", false },
		{ "text/plain;version=0.0.4", false },
		{ OPENMETRICS, true },
		{ "application/openmetrics-text", true },
		{ "APPLICATION/openmetrics-text; version=1.0.0; charset=utf-8", true },
		{ "application/openmetrics-text;version=0.0.1", false },
		{ "application/openmetrics-text;version=1.0.0;q=0", false },
		{ "application/openmetrics-text;version=1.0.0;q=0.3,text/plain;version=0.0.4;q=0.5", false },
		{ "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
		  "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.2,*/*;q=0.1", true },
		{ "application/openmetrics-textual", false },
		{ ";;,,q=,application/openmetrics-text;q=banana,", false },
	};
	(void)state;
	world_simple(&w, 1, (const char *[]){ "*: prompt-tokens=100m" }, NULL); /* beyond all bounds of tokens */
	door_up(&w, &d, NULL);
	post(CHAT, STREAM("r"), 200);
	for (size_t i = 0; i < sizeof wishes / sizeof wishes[0]; i++) {
		struct scrape s;
		scrape_door(&d, wishes[i].accept, &s);
		if (s.openmetrics != wishes[i].openmetrics)
			fail_msg("Accept: %s", wishes[i].accept ? wishes[i].accept : "(none)");
		IS(&s, "signalbox_requests_total", "", 1);
		IS(&s, "gen_ai_client_token_usage_bucket", "gen_ai_token_type=input,le=67108864.0", 0);
		IS(&s, "gen_ai_client_token_usage_count", "gen_ai_token_type=input", 1);
		scrape_free(&s);
	}
	down();
}

static int
status_of(int fd, const char *key)
{
	struct http_answer a;
	door_say(fd, "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%s%s%s\r\n", d.port, key ? "Authorization: Bearer " : "", key ? key : "", key ? "\r\n" : "");
	http_read(fd, 10000, &a);
	int status = a.status;
	http_free(&a);
	(void)close(fd);
	return status;
}

static void
test_who_may_read(void **state)
{
	char uid[16];
	const char *trust[] = { "--trust-uid", uid, NULL }, *const open[] = { "--metrics-open", NULL };
	struct http_answer a;
	struct key_made of_a_tenant, of_the_owner;
	(void)state;
	(void)snprintf(uid, sizeof uid, "%u", (unsigned)getuid());
	world_simple(&w, 1, NULL, "\"store\": \"$DIR/s.db\"");
	key_make(&w, "alice", "r", "30d", &of_a_tenant);
	key_make(&w, "local", "r", "30d", &of_the_owner);
	door_up(&w, &d, trust);
	assert_int_equal(status_of(door_connect(&d), of_a_tenant.secret), 403);
	assert_int_equal(status_of(door_connect(&d), of_the_owner.secret), 200);
	assert_int_equal(status_of(door_connect(&d), NULL), 401);
	assert_int_equal(status_of(door_connect(&d), "sk-signalbox-wrong-0123456789abcdef"), 401);
	assert_int_equal(status_of(door_connect(&d), d.key), 200);
	assert_int_equal(status_of(door_connect_unix(&d), NULL), 200);
	door_ask(&d, "/metrics", "", "{}", &a);
	assert_int_equal(a.status, 405);
	http_free(&a);
	door_down(&d);
	door_up(&w, &d, open);
	assert_int_equal(status_of(door_connect(&d), NULL), 200);
	assert_int_equal(status_of(door_connect_unix(&d), NULL), 200);
	int fd = door_connect(&d); /* the rest needs a key all the same, and a page that found the port is not let in */
	door_say(fd, "GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n", d.port);
	http_read(fd, 10000, &a);
	assert_int_equal(a.status, 401);
	http_free(&a);
	door_say(fd, "GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n");
	http_read(fd, 10000, &a);
	assert_int_equal(a.status, 403);
	http_free(&a);
	(void)close(fd);
	down();
}

/* The agent tells the numbers of all to nobody but those who may speak for all. */
static void
test_whom_the_agent_tells(void **state)
{
	struct sbx_client *c[3];
	(void)state;
	if (geteuid() != 0)
		skip();
	world_up(&w);
	world_double(&w, "a", NULL);
	w.listen_more = ", \"trusted_uids\": [54321]";
	assert_int_equal(chmod(w.dir, 0711), 0);
	world_agent(&w, "{\"providers\":{\"a\":{\"dialect\":\"openai-chat\",\"base_url\":\"$0\",\"key\":\"$KEY\",\"models\":{\"m\":{}}}}}", NULL);
	assert_int_equal(chmod(w.socket, 0666), 0);
	for (uid_t i = 0; i < 3; i++) {
		struct sbx_event ev;
		uint64_t id;
		assert_int_equal(seteuid(i == 0 ? 0 : 54320 + i), 0);
		c[i] = client_up(&w);
		assert_int_equal(seteuid(0), 0);
		assert_int_equal(sbx_metrics(c[i], 0, &id), 0);
		assert_int_equal(sbx_next(c[i], 10000, &ev), 0);
		assert_int_equal(ev.note, i == 2 ? SBX_NOTE_ERROR : SBX_NOTE_STATS);
		if (i == 2)
			assert_int_equal(sbx_reply_code(ev.reply), SBX_CODE_FORBIDDEN);
		assert_int_equal(sbx_metrics(c[i], UINT64_MAX, &id), 0); /* far behind the last row */
		assert_int_equal(sbx_next(c[i], 10000, &ev), 0);
		assert_int_equal(ev.note, i == 2 ? SBX_NOTE_ERROR : SBX_NOTE_STATS);
		sbx_close(c[i]);
	}
	world_down(&w);
}

/* ---- names ---- */

static struct sbx_reply *
ask_for(struct sbx_client *c, const char *tenant, const char *model)
{
	struct sbx_request_options o = SBX_REQUEST_INIT;
	struct sbx_reply *r = NULL;
	o.model = model;
	o.tenant = tenant;
	o.body = BODY;
	o.body_bytes = strlen(BODY);
	o.deadline_ms = 10000;
	(void)sbx_ask(c, &o, &r);
	assert_non_null(r);
	return r;
}

static void
test_hostile_names(void **state)
{
	static const struct {
		const char *tenant, *label;
	} names[] = {
		{ "a\"b", "a\"b" }, { "back\\slash", "back\\slash" }, { "back\\n", "back\\n" }, { "x\\\"} 1", "x\\\"} 1" },
		{ "{tenant=\"local\"} 99", NULL }, { "#", "#" }, { "# EOF", "# EOF" }, { "+Inf", "+Inf" }, { "a.b.row.0.n", "a.b.row.0.n" }, { "other", "other" },
	};
	struct scrape s, m;
	char labels[300];
	(void)state;
	world_simple(&w, 1, NULL, NULL);
	door_up(&w, &d, NULL);
	struct sbx_client *c = client_up(&w);
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		sbx_reply_free(ask_for(c, names[i].tenant, "a/m"));
	sbx_reply_free(ask_for(c, "t", "a/m.state\"\\}\xc3\xa9")); /* a model of a provider's may be called anything */
	sbx_close(c);
	scrape(&s);
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		if (!names[i].label || strchr(names[i].label, ','))
			continue;
		(void)snprintf(labels, sizeof labels, "tenant=%s", names[i].label);
		IS(&s, "signalbox_requests_total", labels, 1);
	}
	IS(&s, "signalbox_requests_total", "", sizeof names / sizeof names[0] + 1);
	IS(&s, "signalbox_metrics_folded_total", "label=tenant", 1); /* the one that is called "other" */
	IS(&s, "signalbox_attempts_total", "target=a/m.state\"\\}\xc3\xa9", 1);
	IS(&s, "signalbox_target_state", "target=a/m.state\"\\}\xc3\xa9,state=up", 1);
	scrape_door(&d, OPENMETRICS, &m);
	IS(&m, "signalbox_requests_total", "", sizeof names / sizeof names[0] + 1);
	scrape_free(&m);
	scrape_free(&s);
	down();
}

/* Ten thousand tenants and as many models: what is told stays small, and nothing of it is lost. */
static void
test_label_bomb(void **state)
{
	enum { BOMB = 10000, AT_ONCE = 100 };
	struct scrape s;
	(void)state;
	world_simple(&w, 1, NULL, NULL);
	door_up(&w, &d, NULL);
	struct sbx_client *c = client_up(&w);
	for (int sent = 0, ended = 0; ended < BOMB;) {
		struct sbx_event ev;
		for (; sent < BOMB && sent - ended < AT_ONCE; sent++) {
			struct sbx_request_options o = SBX_REQUEST_INIT;
			char tenant[32], model[32];
			uint64_t id;
			(void)snprintf(tenant, sizeof tenant, "tenant-%d", sent);
			(void)snprintf(model, sizeof model, "a/made-up-%d", sent);
			o.tenant = tenant;
			o.model = model;
			o.body = BODY;
			o.body_bytes = strlen(BODY);
			assert_int_equal(sbx_submit(c, &o, &id), 0);
		}
		assert_int_equal(sbx_next(c, 20000, &ev), 0);
		ended += ev.last;
	}
	sbx_close(c);
	scrape(&s);
	IS(&s, "signalbox_requests_total", "", BOMB);
	IS(&s, "signalbox_attempts_total", "", BOMB);
	IS(&s, "signalbox_requests_in_flight", "", 0);
	assert_true(scrape_sum(&s, "signalbox_requests_total", "tenant=other") >= BOMB - 128);
	assert_true(scrape_sum(&s, "signalbox_requests_total", "target=other") >= BOMB - 128);
	assert_true(scrape_sum(&s, "signalbox_metrics_folded_total", "label=tenant") >= BOMB - 128);
	assert_in_range(scrape_count(&s, "signalbox_requests_total", ""), 100, 300);
	assert_in_range(scrape_count(&s, "signalbox_target_state", "state=up"), 1, 1 + 128);
	assert_true(s.bytes < (4u << 20));
	print_message("%d requests of as many tenants and models: %d series, %zu bytes\n", BOMB, s.n, s.bytes);
	scrape_free(&s);
	/* the configured target has its own name still */
	post(CHAT, WHOLE("r"), 200);
	scrape(&s);
	IS(&s, "signalbox_requests_total", "route=r,target=a/m,outcome=ok", 1);
	scrape_free(&s);
	down();
}

/* ---- many pages, many who scrape ---- */

static void
test_all_at_once(void **state)
{
	enum { CROWD = 40 };
	int fd[CROWD];
	char name[32];
	struct scrape s;
	(void)state;
	world_simple(&w, 2, NULL, NULL);
	door_up(&w, &d, NULL);
	struct sbx_client *c = client_up(&w);
	for (int i = 0; i < 120; i++) { /* more rows than a page has: 120 x (running, attempt, request) */
		(void)snprintf(name, sizeof name, "tenant-%d", i);
		sbx_reply_free(ask_for(c, name, i % 2 ? "a/m" : "b/m"));
	}
	sbx_close(c);
	pause_ms(1050);
	int64_t before = agent_number(&w, "loop.turns");
	for (int i = 0; i < CROWD; i++) {
		fd[i] = door_connect(&d);
		door_say(fd[i], "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %s\r\n\r\n", d.port, d.key);
		if (i % 4 == 0) { /* some leave at once, also the one that asks for all */
			(void)close(fd[i]);
			fd[i] = -1;
		}
	}
	for (int i = 0; i < CROWD; i++) {
		struct http_answer a;
		if (fd[i] < 0)
			continue;
		http_read(fd[i], 20000, &a);
		assert_int_equal(a.status, 200);
		scrape_parse(a.body, false, &s);
		IS(&s, "signalbox_agent_up", "", 1);
		IS(&s, "signalbox_requests_total", "outcome=ok", 120);
		assert_int_equal(scrape_count(&s, "signalbox_requests_total", ""), 120);
		scrape_free(&s);
		http_free(&a);
		(void)close(fd[i]);
	}
	assert_in_range(agent_number(&w, "loop.turns") - before, 1, 200); /* not one question for each of them */
	down();
}

/* ---- an agent that is not as it should be ---- */

static void
test_agent_gone(void **state)
{
	struct scrape s;
	(void)state;
	world_simple(&w, 1, NULL, NULL);
	door_up(&w, &d, NULL);
	post(CHAT, WHOLE("r"), 200);
	scrape(&s);
	IS(&s, "signalbox_requests_total", "", 1);
	double start = scrape_sum(&s, "signalbox_agent_start_time_seconds", "");
	scrape_free(&s);

	world_agent_signal(&w, SIGSTOP); /* it hangs: what the door knows is told in time */
	uint64_t from_ms = now_ms();
	scrape(&s);
	IS(&s, "signalbox_agent_up", "", 0);
	assert_int_equal(scrape_count(&s, "signalbox_requests_total", ""), 0);
	assert_true(scrape_sum(&s, "signalbox_http_requests_total", "") >= 2);
	assert_true(now_ms() - from_ms < 8000);
	scrape_free(&s);
	world_agent_signal(&w, SIGCONT);
	agent_wait_at_rest(&w, 10000);
	scrape(&s);
	IS(&s, "signalbox_agent_up", "", 1);
	IS(&s, "signalbox_requests_total", "", 1);
	scrape_free(&s);

	world_agent_signal(&w, SIGTERM);
	assert_int_equal(world_agent_wait(&w, 10000), 0);
	scrape(&s);
	IS(&s, "signalbox_agent_up", "", 0);
	scrape_free(&s);

	world_agent(&w, w.config, NULL); /* begins at nothing, and says since when */
	post(CHAT, WHOLE("r"), 200);
	post(CHAT, WHOLE("r"), 200);
	scrape(&s);
	IS(&s, "signalbox_agent_up", "", 1);
	IS(&s, "signalbox_requests_total", "", 2);
	assert_true(scrape_sum(&s, "signalbox_agent_start_time_seconds", "") > start);
	scrape_free(&s);
	down();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exact_numbers), cmocka_unit_test(test_running_and_states), cmocka_unit_test(test_formats),
		cmocka_unit_test(test_who_may_read),  cmocka_unit_test(test_hostile_names),      cmocka_unit_test(test_label_bomb),
		cmocka_unit_test(test_all_at_once),   cmocka_unit_test(test_agent_gone),         cmocka_unit_test(test_whom_the_agent_tells),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
