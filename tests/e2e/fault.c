/* SPDX-License-Identifier: Apache-2.0 */
/* fault.c -- see fault.h. */
#include "tests/e2e/fault.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "client/buf.h"
#include "tests/e2e/control.h"

#define DEADLINE_MS 20000

void
question_fill(const struct question *q, struct sbx_request_options *ret)
{
	struct sbx_request_options o = SBX_REQUEST_INIT;
	o.route = q->route;
	if (!q->route) {
		o.targets = q->targets;
		while (q->targets[o.n_targets])
			o.n_targets++;
	}
	o.body = q->body ? q->body : BODY;
	o.body_bytes = strlen(o.body);
	o.stream = q->stream;
	o.data = q->data;
	o.restart = q->restart;
	o.deadline_ms = q->deadline_ms ? q->deadline_ms : DEADLINE_MS;
	*ret = o;
}

/* ---- one answer, gathered from its events ---- */

struct gathering {
	uint64_t id;
	struct sbx_buf text, data;
	struct answer *answer;
	bool ended;
};

static char *
taken(struct sbx_buf *b, size_t *ret_bytes)
{
	size_t n;
	assert_int_equal(sbx_buf_append(b, "", 1), 0);
	char *text = (char *)sbx_buf_take(b, &n);
	*ret_bytes = n - 1;
	return text;
}

static char *
attempts_of(const struct sbx_reply *r, struct answer *a)
{
	struct sbx_buf line;
	size_t n;
	sbx_buf_init(&line, 65536);
	a->n_attempts = sbx_reply_attempts(r);
	for (uint32_t i = 0; i < a->n_attempts; i++) {
		struct sbx_attempt_info info;
		assert_true(sbx_reply_attempt(r, i, &info));
		(void)sbx_buf_printf(&line, "%s%s %s", i ? ", " : "", info.target, info.outcome);
		if (i < sizeof a->attempt / sizeof a->attempt[0]) {
			a->attempt[i] = info;
			a->attempt[i].target = a->attempt[i].outcome = a->attempt[i].connection = a->attempt[i].message = NULL;
		}
	}
	return taken(&line, &n);
}

static void
on_end(struct gathering *g, const struct sbx_reply *r)
{
	struct answer *a = g->answer;
	assert_false(g->ended); /* exactly one end, and nothing behind it */
	g->ended = true;
	a->ok = sbx_reply_ok(r);
	a->code = sbx_reply_code(r);
	a->status = sbx_reply_status(r);
	a->retry_after_ms = sbx_reply_retry_after_ms(r);
	a->attempts = attempts_of(r, a);
	a->text = taken(&g->text, &a->text_bytes);
	a->data = taken(&g->data, &a->data_bytes);
	a->message = strdup(sbx_reply_message(r));
	a->provider_type = strdup(sbx_reply_provider_error(r, "type"));
	a->provider_status = (int)strtol(sbx_reply_provider_error(r, "status"), NULL, 10);
	a->tokens = sbx_reply_tokens(r);
	a->total_ms = sbx_reply_total_ms(r);
}

static void
on_event(struct gathering *g, const struct sbx_event *ev)
{
	assert_false(g->ended);
	switch (ev->note) {
	case SBX_NOTE_TEXT:
		if (ev->choice == 0)
			assert_int_equal(sbx_buf_append(&g->text, ev->text, ev->text_bytes), 0);
		g->answer->text_events++;
		break;
	case SBX_NOTE_DATA:
		assert_int_equal(sbx_buf_append(&g->data, ev->text, ev->text_bytes), 0);
		break;
	case SBX_NOTE_RESET:
		sbx_buf_clear(&g->text);
		sbx_buf_clear(&g->data);
		g->answer->resets++;
		break;
	case SBX_NOTE_DONE:
	case SBX_NOTE_ERROR:
		on_end(g, ev->reply);
		break;
	default:
		break;
	}
}

void
answers_of(struct sbx_client *c, const struct question *q, struct answer *ret, size_t n)
{
	struct gathering *g = calloc(n, sizeof *g);
	memset(ret, 0, n * sizeof *ret);
	for (size_t i = 0; i < n; i++) {
		struct sbx_request_options o;
		question_fill(&q[i], &o);
		g[i].answer = &ret[i];
		sbx_buf_init(&g[i].text, 256u << 20);
		sbx_buf_init(&g[i].data, 256u << 20);
		if (sbx_submit(c, &o, &g[i].id))
			fail_msg("sbx_submit: %s", sbx_client_error(c));
	}
	for (size_t ended = 0; ended < n;) {
		struct sbx_event ev;
		int rc = sbx_next(c, 60000, &ev);
		if (rc)
			fail_msg("sbx_next: %d, %s; %zu of %zu ended", rc, sbx_client_error(c), ended, n);
		size_t i = 0;
		while (i < n && g[i].id != ev.id)
			i++;
		assert_true(i < n);
		on_event(&g[i], &ev);
		ended += ev.last;
	}
	free(g);
}

struct answer
answer_of(struct sbx_client *c, const struct question *q)
{
	struct answer a;
	answers_of(c, q, &a, 1);
	return a;
}

void
answer_free(struct answer *a)
{
	free(a->attempts);
	free(a->text);
	free(a->data);
	free(a->message);
	free(a->provider_type);
	memset(a, 0, sizeof *a);
}

/* ---- the agent and the doubles ---- */

char *
agent_text(struct world *w, const char *name)
{
	struct sbx_client *c = client_up(w);
	struct sbx_event ev;
	const char *text = NULL;
	uint64_t id;
	char *copy = NULL;
	if (sbx_stats(c, &id) == 0 && sbx_next(c, 10000, &ev) == 0 && ev.note == SBX_NOTE_STATS && sbx_reply_string(ev.reply, name, &text))
		copy = strdup(text);
	sbx_close(c);
	if (!copy)
		fail_msg("STATS has no text %s", name);
	return copy;
}

int64_t
agent_peak_bytes(struct world *w)
{
	char path[64];
	(void)snprintf(path, sizeof path, "/proc/%d/status", (int)w->agent);
	char *status = read_whole(path, NULL), *at = status ? strstr(status, "VmHWM:") : NULL;
	if (!at)
		fail_msg("%s has no VmHWM", path);
	int64_t kb = strtoll(at + 6, NULL, 10);
	free(status);
	return kb * 1024;
}

void
double_forget(struct world *w, int n)
{
	free(double_get(w, n, "DELETE", "/mock/log", NULL, NULL));
}

int
double_posts_of(struct world *w, int n, const char *model)
{
	char *text = double_get(w, n, "GET", "/mock/log", NULL, NULL);
	json_t *log = json_loads(text, 0, NULL), *e;
	size_t i;
	int posts = 0;
	json_array_foreach(log, i, e)
	{
		const char *m = json_string_value(json_object_get(e, "model"));
		posts += m && strcmp(m, model) == 0;
	}
	json_decref(log);
	free(text);
	return posts;
}

void
write_file(const struct world *w, const char *name, const char *text, size_t bytes, char *ret_path, size_t path_bytes)
{
	(void)snprintf(ret_path, path_bytes, "%s/%s", w->dir, name);
	FILE *f = fopen(ret_path, "we");
	if (!f || fwrite(text, 1, bytes, f) != bytes || fclose(f))
		fail_msg("cannot write %s", ret_path);
}
