/* SPDX-License-Identifier: Apache-2.0 */
/*
 * conformance.c -- recorded answers of real providers, through the real agent and the library, against what was expected.
 *
 * A case is a folder: meta.json (provider, dialect, status, stream, response headers), the recorded answer, expected.json, and perhaps
 * the request. One double replays the recorded bytes for each case, one agent has every provider of the cases configured by its name, so
 * that its known quirks apply, and one client asks for the recorded model. Text, tool calls, finish reason, usage, error (and reasoning
 * where it is expected) are compared, and what the answer cost (cost.h). A line for each case that fails says what differs; a table counts
 * by dialect. Dialects that the agent does not speak yet are counted apart.
 */
#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "client/buf.h"
#include "tests/conformance/cost.h"
#include "tests/e2e/control.h"
#include "tests/e2e/harness.h"

#define CASES_MAX 4096
#define DEADLINE_MS 20000

struct conf_case {
	char *id, *dir;
	json_t *meta, *expected;
	const char *dialect, *provider, *model;
	bool stream;
	int status;
};

static const char *const spoken[] = { "openai-chat" };

struct tally {
	char dialect[40];
	int cases, passed, failed, unspoken;
};

static struct conf_case cases[CASES_MAX];
static int n_cases;
static struct sbx_buf config;
static struct tally tally[16];
static int n_tallies;

static struct tally *
tally_of(const char *dialect)
{
	for (int i = 0; i < n_tallies; i++)
		if (strcmp(tally[i].dialect, dialect) == 0)
			return &tally[i];
	(void)snprintf(tally[n_tallies].dialect, sizeof tally[0].dialect, "%s", dialect);
	return &tally[n_tallies++];
}

static bool
is_spoken(const char *dialect)
{
	for (size_t i = 0; i < sizeof spoken / sizeof spoken[0]; i++)
		if (strcmp(spoken[i], dialect) == 0)
			return true;
	return false;
}

/* ---- reading the folder ---- */

static json_t *
load(const char *dir, const char *name)
{
	char path[4200];
	(void)snprintf(path, sizeof path, "%s/%s", dir, name);
	return json_load_file(path, JSON_ALLOW_NUL, NULL);
}

static int
by_name(const void *a, const void *b)
{
	return strcmp(((const struct conf_case *)a)->id, ((const struct conf_case *)b)->id);
}

static void
read_cases(const char *root)
{
	DIR *d = opendir(root);
	struct dirent *e;
	if (!d) {
		fprintf(stderr, "conformance: %s cannot be read\n", root);
		exit(64);
	}
	while ((e = readdir(d)) && n_cases < CASES_MAX) {
		char dir[4096], real[4096];
		struct stat st;
		(void)snprintf(dir, sizeof dir, "%s/%s", root, e->d_name);
		if (e->d_name[0] == '.' || !realpath(dir, real) || stat(real, &st) || !S_ISDIR(st.st_mode)) /* symbolic links are followed */
			continue;
		struct conf_case *c = &cases[n_cases];
		c->meta = load(real, "meta.json");
		c->expected = load(real, "expected.json");
		if (!c->meta || !c->expected) {
			fprintf(stderr, "conformance: %s has no meta.json or expected.json; left out\n", e->d_name);
			continue;
		}
		c->id = strdup(e->d_name);
		c->dir = strdup(real);
		c->dialect = json_string_value(json_object_get(c->meta, "dialect"));
		c->provider = json_string_value(json_object_get(c->meta, "provider"));
		c->model = json_string_value(json_object_get(c->meta, "model"));
		if (!c->model || !*c->model)
			c->model = "unnamed";
		c->status = (int)json_integer_value(json_object_get(c->meta, "status"));
		c->stream = json_is_true(json_object_get(c->meta, "stream"));
		n_cases++;
	}
	(void)closedir(d);
	qsort(cases, (size_t)n_cases, sizeof cases[0], by_name);
}

/* ---- the world ---- */

/* The double replays the case's bytes from now on, with its status and its headers. */
static void
replay(struct world *w, const struct conf_case *c)
{
	struct sbx_buf rule, *rules = &rule;
	const char *key;
	json_t *v;
	sbx_buf_init(rules, 1u << 20);
	(void)sbx_buf_printf(rules, "*: replay,status=%d,file=%s/%s", c->status, c->dir, json_string_value(json_object_get(c->meta, "response_file")));
	json_object_foreach(json_object_get(c->meta, "response_headers"), key, v) {
		const char *s = json_string_value(v);
		if (!s)
			continue;
		if (strcmp(key, "content-type") == 0)
			(void)sbx_buf_printf(rules, ",content-type=");
		else if (strcmp(key, "retry-after") == 0 || strcmp(key, "retry-after-ms") == 0)
			continue; /* nothing here waits */
		else
			(void)sbx_buf_printf(rules, ",header=%s:", key);
		for (; *s; s++)
			(void)sbx_buf_printf(rules, "%s%c", *s == ',' ? "\\" : "", *s);
	}
	(void)sbx_buf_append(rules, "\n", sizeof "\n");
	double_rules(w, 0, (char *)rules->data);
	sbx_buf_fini(rules);
}

static void
start(struct world *w)
{
	sbx_buf_init(&config, 1u << 20);
	world_up(w);
	(void)world_double(w, "recordings", NULL);
	(void)sbx_buf_printf(&config, "{ \"attempts\": { \"total\": 1, \"per_target\": 1 }, \"providers\": {");
	bool first = true;
	for (int i = 0; i < n_cases; i++) {
		bool known = !is_spoken(cases[i].dialect);
		for (int k = 0; k < i && !known; k++)
			known = is_spoken(cases[k].dialect) && strcmp(cases[k].provider, cases[i].provider) == 0;
		if (known)
			continue;
		(void)sbx_buf_printf(&config, "%s\n  \"%s\": { \"dialect\": \"%s\", \"base_url\": \"$0\", \"key\": \"$KEY\" }", first ? "" : ",", cases[i].provider,
		                     cases[i].dialect);
		first = false;
	}
	(void)sbx_buf_append(&config, " } }", sizeof " } }");
	world_agent(w, (char *)config.data, NULL);
}

/* What a refused key or a throttle taught the agent must not reach the next case. */
static struct sbx_client *
start_over(struct world *w, struct sbx_client *client)
{
	sbx_close(client);
	world_agent_signal(w, SIGTERM);
	if (world_agent_wait(w, 20000) != 0)
		fail_msg("the agent did not stop in order");
	world_agent(w, (char *)config.data, NULL);
	return client_up(w);
}

/* ---- one case ---- */

static struct sbx_buf differs;

static void
differ(const char *what, const char *got, const char *want)
{
	(void)sbx_buf_printf(&differs, "%s%s: got %.120s, expected %.120s", differs.n ? "; " : "", what, got ? got : "(none)", want ? want : "(none)");
}

static void
compare_text(const char *what, const char *got, const json_t *want)
{
	const char *text = json_is_string(want) ? json_string_value(want) : "";
	if (strcmp(got ? got : "", text) != 0)
		differ(what, got, text);
}

static void
compare_number(const char *what, int64_t got, const json_t *want)
{
	char a[32], b[32];
	if (!json_is_integer(want) || got == json_integer_value(want))
		return;
	(void)snprintf(a, sizeof a, "%lld", (long long)got);
	(void)snprintf(b, sizeof b, "%lld", (long long)json_integer_value(want));
	differ(what, a, b);
}

static bool
is_ambiguous(const struct conf_case *c, const char *field)
{
	size_t i;
	json_t *v;
	json_array_foreach(json_object_get(c->expected, "ambiguous"), i, v) if (json_is_string(v) && strcmp(json_string_value(v), field) == 0) return true;
	return false;
}

/* Calls in order: name, and arguments as a value; empty or null counts as {}. */
static void
compare_tool_calls(const struct conf_case *c, const struct sbx_reply *r)
{
	json_t *want = json_object_get(c->expected, "tool_calls");
	size_t n = json_array_size(want);
	if (n != sbx_reply_tool_calls(r)) {
		char a[16], b[16];
		(void)snprintf(a, sizeof a, "%u", sbx_reply_tool_calls(r));
		(void)snprintf(b, sizeof b, "%zu", n);
		differ("tool calls", a, b);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		struct sbx_tool_call call;
		json_t *e = json_array_get(want, i);
		(void)sbx_reply_tool_call(r, (uint32_t)i, &call);
		compare_text("tool name", call.name, json_object_get(e, "name"));
		json_t *got = json_loads(call.arguments, JSON_DECODE_ANY, NULL);
		if (!got || json_is_null(got)) {
			json_decref(got);
			got = json_object();
		}
		if (!json_equal(got, json_object_get(e, "arguments"))) {
			char *text = json_dumps(json_object_get(e, "arguments"), JSON_ENCODE_ANY);
			differ("tool arguments", call.arguments, text);
			free(text);
		}
		json_decref(got);
	}
}

static int64_t
zero_if_absent(int64_t tokens)
{
	return tokens < 0 ? 0 : tokens;
}

static void
compare_usage(const struct conf_case *c, const struct sbx_reply *r)
{
	json_t *want = json_object_get(c->expected, "usage");
	struct sbx_tokens t = sbx_reply_tokens(r);
	if (is_ambiguous(c, "usage"))
		return;
	if (!json_is_object(want)) {
		if (t.prompt >= 0 || t.completion >= 0)
			differ("usage", "some", "none");
		return;
	}
	const struct {
		const char *field, *ambiguous;
		int64_t got;
	} row[] = {
		{ "prompt_tokens", "usage.prompt_tokens", t.prompt },
		{ "completion_tokens", "usage.completion_tokens", t.completion },
		{ "cached_tokens", "usage.cached_tokens", zero_if_absent(t.cached) },
		{ "cache_creation_tokens", "usage.cache_creation_tokens", zero_if_absent(t.cache_write) },
		{ "reasoning_tokens", "usage.reasoning_tokens", zero_if_absent(t.reasoning) },
	};
	for (size_t i = 0; i < sizeof row / sizeof row[0]; i++)
		if (!is_ambiguous(c, row[i].ambiguous))
			compare_number(row[i].field, row[i].got, json_object_get(want, row[i].field));
}

static void
compare_error(const struct conf_case *c, const struct sbx_reply *r)
{
	json_t *want = json_object_get(c->expected, "error");
	if (is_ambiguous(c, "error"))
		return;
	if (!json_is_object(want)) {
		if (!sbx_reply_ok(r))
			differ("error", sbx_reply_message(r), "none");
		return;
	}
	if (sbx_reply_ok(r)) {
		differ("error", "none", json_string_value(json_object_get(want, "message")));
		return;
	}
	compare_text("error type", sbx_reply_provider_error(r, "type"), json_object_get(want, "type"));
	compare_text("error message", sbx_reply_provider_error(r, "message"), json_object_get(want, "message"));
	if (json_object_get(want, "code"))
		compare_text("error code", sbx_reply_provider_error(r, "code"), json_object_get(want, "code"));
	if (json_integer_value(json_object_get(want, "status")) != 200)
		compare_number("status", sbx_reply_status(r), json_object_get(want, "status"));
}

/* The recorded request, or the least that its meta.json implies; the target replaces its model. */
static char *
request_of(const struct conf_case *c)
{
	json_t *request = load(c->dir, "request.json");
	if (!request || !json_object_get(request, "messages")) {
		json_decref(request);
		request = json_pack("{s:s, s:[{s:s, s:s}]}", "model", "any", "messages", "role", "user", "content", "hello");
	}
	json_object_set_new(request, "stream", json_boolean(c->stream));
	char *text = json_dumps(request, JSON_COMPACT);
	json_decref(request);
	return text;
}

static bool
run_case(struct world *w, struct sbx_client *client, const struct conf_case *c)
{
	char target[160];
	const char *targets[1] = { target };
	struct sbx_request_options q = SBX_REQUEST_INIT;
	struct sbx_reply *r = NULL;
	char *body = request_of(c);
	(void)snprintf(target, sizeof target, "%s/%s", c->provider, c->model);
	q.targets = targets;
	q.n_targets = 1;
	q.body = body;
	q.body_bytes = strlen(body);
	q.stream = c->stream;
	q.deadline_ms = DEADLINE_MS;
	sbx_buf_clear(&differs);
	replay(w, c);
	int rc = sbx_ask(client, &q, &r);
	free(body);
	if (!r) {
		(void)sbx_buf_printf(&differs, "no reply: %d, %s", rc, sbx_client_error(client));
		return false;
	}
	if (!is_ambiguous(c, "text"))
		compare_text("text", sbx_reply_text(r, 0, NULL), json_object_get(c->expected, "text"));
	if (json_object_get(c->expected, "reasoning") && !is_ambiguous(c, "reasoning"))
		compare_text("reasoning", sbx_reply_reasoning(r, 0, NULL), json_object_get(c->expected, "reasoning"));
	if (json_object_get(c->expected, "refusal") && !is_ambiguous(c, "refusal"))
		compare_text("refusal", sbx_reply_refusal(r, 0, NULL), json_object_get(c->expected, "refusal"));
	if (!is_ambiguous(c, "tool_calls"))
		compare_tool_calls(c, r);
	if (!is_ambiguous(c, "finish_reason"))
		compare_text("finish reason", sbx_reply_finish(r, 0), json_object_get(c->expected, "finish_reason"));
	compare_usage(c, r);
	compare_error(c, r);
	cost_compare(c->id, c->provider, c->model, c->expected, r, &differs);
	sbx_reply_free(r);
	return differs.n == 0;
}

int
main(int argc, char **argv)
{
	struct world w;
	int failed = 0, ran = 0;
	if (argc != 2) {
		fprintf(stderr, "usage: conformance DIR   (a folder of cases; see the comment at the top of conformance.c)\n");
		return 64;
	}
	sbx_buf_init(&differs, 1u << 20);
	read_cases(argv[1]);
	start(&w);
	struct sbx_client *client = client_up(&w);
	for (int i = 0; i < n_cases; i++) {
		struct tally *t = tally_of(cases[i].dialect);
		t->cases++;
		if (!is_spoken(cases[i].dialect)) {
			t->unspoken++;
			continue;
		}
		ran++;
		if (run_case(&w, client, &cases[i])) {
			t->passed++;
		} else {
			t->failed++;
			failed++;
			printf("FAIL %s: %.*s\n", cases[i].id, (int)differs.n, (const char *)differs.data);
		}
		if (cases[i].status >= 400)
			client = start_over(&w, client);
	}
	sbx_close(client);
	world_down(&w);
	printf("%-20s %6s %6s %6s %10s\n", "dialect", "cases", "passed", "failed", "not spoken");
	for (int i = 0; i < n_tallies; i++)
		printf("%-20s %6d %6d %6d %10d\n", tally[i].dialect, tally[i].cases, tally[i].passed, tally[i].failed, tally[i].unspoken);
	cost_report();
	for (int i = 0; i < n_cases; i++) {
		free(cases[i].id);
		free(cases[i].dir);
		json_decref(cases[i].meta);
		json_decref(cases[i].expected);
	}
	sbx_buf_fini(&differs);
	sbx_buf_fini(&config);
	printf("%d passed, %d failed\n", ran - failed, failed);
	return failed || !ran;
}
