/* SPDX-License-Identifier: Apache-2.0 */
/*
 * health_json.c -- the facts as one object, for programs. Its members are described in signalbox(1) and stay: new ones may come,
 * none goes or changes its meaning. What is not known is null.
 */
#include "tools/signalbox/health.h"

#include <string.h>

static void
put(json_t *object, const char *key, json_t *value) /* takes the reference */
{
	(void)json_object_set_new(object, key, must(value));
}

static void
put_word(json_t *object, const char *key, const char *text)
{
	put(object, key, *text ? json_text(text, strlen(text)) : json_null());
}

static json_t *
number(bool known, int64_t n)
{
	return known ? json_integer(n) : json_null();
}

/* Time to go; null where there is none to tell, or it is not bounded. */
static json_t *
ms_until(uint64_t until_boot_ns, uint64_t now_boot_ns)
{
	return number(until_boot_ns != 0 && until_boot_ns != UINT64_MAX, ms_between(now_boot_ns, until_boot_ns));
}

static json_t *
times(const struct sbx_times *t)
{
	json_t *o = must(json_object());
	put(o, "p50_ms", number(t->n > 0, ms_up(t->p50_ns)));
	put(o, "p95_ms", number(t->n > 0, ms_up(t->p95_ns)));
	put(o, "p99_ms", number(t->n > 0, ms_up(t->p99_ns)));
	put(o, "count", json_integer((int64_t)t->n));
	return o;
}

static json_t *
price(int64_t in, int64_t out)
{
	json_t *o = must(json_object());
	put(o, "input", number(in != SBX_UNPRICED, in));
	put(o, "output", number(out != SBX_UNPRICED, out));
	return o;
}

static json_t *
target(const struct health_row *row, uint64_t now_boot_ns)
{
	const struct sbx_target_view *v = &row->view;
	const bool read = row->state != HEALTH_UNKNOWN;
	const int64_t bad = health_permille_bad(v);
	json_t *o = must(json_object());
	put_word(o, "name", v->name);
	put_word(o, "provider", v->provider);
	put_word(o, "model", v->model);
	put_word(o, "dialect", v->dialect);
	put_word(o, "state", health_word(row->state));
	put_word(o, "why", row->state == HEALTH_UP ? "" : v->why);
	put(o, "in_state_ms", number(row->has_since, ms_between(v->since_boot_ns, now_boot_ns)));
	put(o, "retry_in_ms", row->state == HEALTH_UP ? json_null() : ms_until(v->until_boot_ns, now_boot_ns));
	put(o, "throttled_ms", json_integer(ms_between(now_boot_ns, v->throttled_until_boot_ns)));
	put(o, "in_flight", number(read, (int64_t)v->in_flight));
	put(o, "attempts", number(read, (int64_t)v->attempts));
	put(o, "recent_good", number(read, (int64_t)v->recent_good));
	put(o, "recent_bad", number(read, (int64_t)v->recent_bad));
	put(o, "error_permille", number(bad >= 0, bad));
	put(o, "first_content", times(&v->first_content));
	put(o, "total", times(&v->total));
	put(o, "price_nanousd_per_million", price(v->price_in, v->price_out));
	if (v->price_change_unix_s) {
		json_t *next = price(v->price_in_after, v->price_out_after);
		put(next, "at_unix_s", json_integer((int64_t)v->price_change_unix_s));
		put(o, "next_price_nanousd_per_million", next);
	} else {
		put(o, "next_price_nanousd_per_million", json_null());
	}
	put(o, "context_tokens", number(v->context_tokens > 0, (int64_t)v->context_tokens));
	put(o, "output_tokens", number(v->output_tokens > 0, (int64_t)v->output_tokens));
	return o;
}

static json_t *
credential(const struct sbx_credential_view *v, uint64_t now_boot_ns)
{
	json_t *o = must(json_object());
	put_word(o, "provider", v->provider);
	put_word(o, "key", v->source);
	put_word(o, "why", v->why);
	put(o, "in_state_ms", number(v->since_boot_ns > 0, ms_between(v->since_boot_ns, now_boot_ns)));
	put(o, "retry_in_ms", ms_until(v->shut_until_boot_ns, now_boot_ns));
	return o;
}

static json_t *
agent(const struct facts *f)
{
	const bool known = f->board != NULL;
	json_t *o = must(json_object());
	char generation[24];
	(void)snprintf(generation, sizeof generation, "%016llx", known ? (unsigned long long)f->info.generation : 0);
	put_word(o, "state", agent_word(f->agent));
	put(o, "pid", number(known, f->info.agent_pid));
	put_word(o, "generation", known ? generation : "");
	put(o, "edition", number(known, (int64_t)f->info.edition));
	put(o, "started_ms", number(known, ms_between(f->info.agent_start_boot_ns, f->now_boot_ns)));
	put_word(o, "facts", !known ? "" : f->snapshot_path[0] ? "snapshot" : "board");
	put_word(o, "snapshot", f->snapshot_path);
	put(o, "facts_age_ms", number(known, f->age_ms));
	put_word(o, "message", f->says);
	return o;
}

json_t *
health_json(const struct health *h)
{
	static const char *const words[] = { [CLI_OK] = "healthy", [CLI_FAILED] = "degraded", [CLI_NO_AGENT] = "no agent" };
	json_t *root = must(json_object()), *targets = must(json_array()), *keys = must(json_array());
	for (size_t i = 0; i < h->n_rows; i++)
		(void)json_array_append_new(targets, target(&h->row[i], h->facts->now_boot_ns));
	for (size_t i = 0; i < h->n_keys; i++)
		(void)json_array_append_new(keys, credential(&h->key[i], h->facts->now_boot_ns));
	put_word(root, "health", words[h->status]);
	put(root, "agent", agent(h->facts));
	put(root, "targets", targets);
	put(root, "shut_keys", keys);
	return root;
}
