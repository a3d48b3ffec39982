/* SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics.c -- /metrics: the numbers of the agent, which sees all that is asked on this host, and those of this door.
 *
 * The agent is asked for STATS, then for METRICS some rows at a time. Of several who scrape at once the first one asks, and all of them get
 * what it is told; who asks again within a second gets it once more. An agent that is gone, or does not answer in time, is told as
 * signalbox_agent_up 0, with an HTTP status of 200: the monitoring system shall get the rest.
 *
 * The numbers tell what each tenant does, so they are for the owner of this door: its own key, or a user that it trusts.
 */
#include "tools/door/door.h"

#include <limits.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "agent/log.h"

#define MS_AS_NANO 1000000u /* a millisecond, in billionths of the second that is told */

static const char *const states[] = { "up", "down", "probing", "misconfigured", "no key" };

/* ---- a row of METRICS ---- */

enum { DURATION, FIRST_CONTENT, INPUT, OUTPUT, HISTOGRAMS };
static const char *const histogram_word[HISTOGRAMS] = { "duration_ns.", "first_content_ns.", "input.", "output." };

struct row {
	unsigned long number;         /* within its page; ULONG_MAX = there is none yet */
	const char *what, *operation, *outcome, *target, *route, *tenant; /* the reply's */
	uint64_t n, cached, cache_write, reasoning, cost_nanousd, cost_unknown;
	bool has[HISTOGRAMS];
	struct { uint64_t sum, bucket[BOUNDS_MAX + 1]; } histogram[HISTOGRAMS];
};

static void
row_begin(struct row *r, unsigned long number)
{
	*r = (struct row){ .number = number, .what = "", .operation = "", .outcome = "", .target = "", .route = "", .tenant = "" };
}

static void
row_take(struct row *r, const char *member, const char *text, uint64_t value)
{
	const struct {
		const char *name, **text;
		uint64_t *value;
	} known[] = {
		{ "what", &r->what, NULL },       { "operation", &r->operation, NULL }, { "outcome", &r->outcome, NULL },
		{ "target", &r->target, NULL },   { "route", &r->route, NULL },         { "tenant", &r->tenant, NULL },
		{ "n", NULL, &r->n },             { "cached", NULL, &r->cached },       { "cache_write", NULL, &r->cache_write },
		{ "reasoning", NULL, &r->reasoning }, { "cost_nanousd", NULL, &r->cost_nanousd }, { "cost_unknown", NULL, &r->cost_unknown },
	};
	for (int h = 0; h < HISTOGRAMS && !text; h++) {
		const size_t n = strlen(histogram_word[h]);
		if (strncmp(member, histogram_word[h], n) != 0)
			continue;
		const unsigned long i = strtoul(member + n, NULL, 10);
		r->has[h] = true;
		if (i == 0)
			r->histogram[h].sum = value;
		else if (i <= BOUNDS_MAX + 1)
			r->histogram[h].bucket[i - 1] = value;
		return;
	}
	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
		if (strcmp(member, known[i].name) == 0) {
			if (text && known[i].text)
				*known[i].text = text;
			else if (!text && known[i].value)
				*known[i].value = value;
		}
}

/* ---- what it becomes ---- */

static void
add(struct labels *l, const char *name, const char *value)
{
	labels_add(l, name, value, strlen(value));
}

static void
tell_histogram(struct scrapes *s, enum family family, const struct labels *l, const struct row *r, int h)
{
	const bool time = h == DURATION || h == FIRST_CONTENT;
	if (r->has[h])
		exposition_histogram(&s->agent, family, l, time ? s->time_bound_ns : s->token_bound, time ? s->n_time_bounds : s->n_token_bounds,
		                     r->histogram[h].bucket, r->histogram[h].sum, time);
}

static void
tell_request(struct scrapes *s, const struct row *r)
{
	struct labels l = { .n = 0 };
	add(&l, "target", r->target);
	add(&l, "route", r->route);
	add(&l, "tenant", r->tenant);
	add(&l, "operation", r->operation);
	add(&l, "outcome", r->outcome);
	exposition_uint(&s->agent, FAMILY_REQUESTS, &l, r->n);
	tell_histogram(s, FAMILY_REQUEST_DURATION, &l, r, DURATION);
	tell_histogram(s, FAMILY_REQUEST_FIRST_CONTENT, &l, r, FIRST_CONTENT);
}

static void
tell_running(struct scrapes *s, const struct row *r)
{
	struct labels l = { .n = 0 };
	add(&l, "route", r->route);
	add(&l, "tenant", r->tenant);
	exposition_uint(&s->agent, FAMILY_REQUESTS_IN_FLIGHT, &l, r->n);
}

static void
tell_tokens(struct scrapes *s, struct labels *l, const struct row *r)
{
	const struct {
		const char *kind;
		uint64_t tokens;
	} kinds[] = {
		{ "prompt", r->histogram[INPUT].sum }, { "completion", r->histogram[OUTPUT].sum },
		{ "cached", r->cached }, { "cache_write", r->cache_write }, { "reasoning", r->reasoning },
	};
	const size_t before = l->n;
	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++, l->n = before) {
		add(l, "kind", kinds[i].kind);
		exposition_uint(&s->agent, FAMILY_TOKENS, l, kinds[i].tokens);
	}
}

/* OpenTelemetry's word for what we, and most others, call so; any other one stands for itself. */
static const char *
otel_word(const char *word, size_t n)
{
	static const struct {
		const char *ours, *theirs;
	} known[] = {
		{ "completions", "text_completion" },   { "azure", "azure.ai.openai" }, { "azure-foundry", "azure.ai.inference" },
		{ "google", "gcp.gemini" },             { "mistral", "mistral_ai" },    { "xai", "x_ai" },
	};
	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
		if (strlen(known[i].ours) == n && memcmp(known[i].ours, word, n) == 0)
			return known[i].theirs;
	return NULL;
}

static void
add_otel(struct labels *l, const char *name, const char *word, size_t n)
{
	const char *theirs = otel_word(word, n);
	labels_add(l, name, theirs ? theirs : word, theirs ? strlen(theirs) : n);
}

static void
tell_gen_ai(struct scrapes *s, const struct row *r)
{
	struct labels l = { .n = 0 };
	const char *slash = strchr(r->target, '/'), *model = slash ? slash + 1 : r->target; /* "other" is both */
	add_otel(&l, "gen_ai_operation_name", r->operation, strlen(r->operation));
	add_otel(&l, "gen_ai_provider_name", r->target, slash ? (size_t)(slash - r->target) : strlen(r->target));
	add(&l, "gen_ai_request_model", model);
	add(&l, "error_type", strcmp(r->outcome, "OK") == 0 ? "" : r->outcome);
	add(&l, "target", r->target); /* two providers may have one word of OpenTelemetry's */
	add(&l, "route", r->route);
	add(&l, "tenant", r->tenant);
	tell_histogram(s, FAMILY_GEN_AI_DURATION, &l, r, DURATION);
	tell_histogram(s, FAMILY_GEN_AI_FIRST_CHUNK, &l, r, FIRST_CONTENT);
	const size_t before = l.n;
	add(&l, "gen_ai_token_type", "input");
	tell_histogram(s, FAMILY_GEN_AI_TOKENS, &l, r, INPUT);
	l.n = before;
	add(&l, "gen_ai_token_type", "output");
	tell_histogram(s, FAMILY_GEN_AI_TOKENS, &l, r, OUTPUT);
}

static void
tell_attempt(struct scrapes *s, const struct row *r)
{
	struct labels l = { .n = 0 };
	add(&l, "target", r->target);
	add(&l, "route", r->route);
	add(&l, "tenant", r->tenant);
	add(&l, "operation", r->operation);
	add(&l, "class", r->outcome);
	exposition_uint(&s->agent, FAMILY_ATTEMPTS, &l, r->n);
	if (r->has[INPUT] || r->has[OUTPUT])
		tell_tokens(s, &l, r);
	if (r->cost_unknown < r->n) /* else it is not known, which is not 0 */
		exposition_nano(&s->agent, FAMILY_COST, &l, r->cost_nanousd);
	exposition_uint(&s->agent, FAMILY_COST_UNKNOWN, &l, r->cost_unknown);
	tell_gen_ai(s, r);
}

static void
row_end(struct scrapes *s, const struct row *r)
{
	if (strcmp(r->what, "request") == 0)
		tell_request(s, r);
	else if (strcmp(r->what, "attempt") == 0)
		tell_attempt(s, r);
	else if (strcmp(r->what, "running") == 0)
		tell_running(s, r);
}

/* member: "NAME.state", where the name may have dots of its own. */
static void
tell_target(struct scrapes *s, const char *member, const char *text, uint64_t value)
{
	const char *what = strrchr(member, '.');
	struct labels l = { .n = 0 };
	if (!what)
		return;
	labels_add(&l, "target", member, (size_t)(what - member));
	if (strcmp(what, ".in_flight") == 0)
		exposition_uint(&s->agent, FAMILY_TARGET_IN_FLIGHT, &l, value);
	if (strcmp(what, ".throttled_ms") == 0)
		exposition_nano(&s->agent, FAMILY_TARGET_THROTTLED, &l, value * MS_AS_NANO);
	const size_t before = l.n;
	for (size_t i = 0; i < sizeof states / sizeof states[0] && text && strcmp(what, ".state") == 0; i++, l.n = before) {
		add(&l, "state", states[i]);
		exposition_uint(&s->agent, FAMILY_TARGET_STATE, &l, strcmp(text, states[i]) == 0);
	}
}

static void
tell_folded(struct scrapes *s, const char *label, uint64_t value)
{
	struct labels l = { .n = 0 };
	add(&l, "label", label);
	exposition_uint(&s->agent, FAMILY_FOLDED, &l, value);
}

static void
take_bound(uint64_t *bound, uint32_t *n, uint64_t value)
{
	if (*n < BOUNDS_MAX)
		bound[(*n)++] = value;
}

/* Is `name` within `outer`, which ends in a dot? Then *ret_member is what follows. */
static bool
is_in(const char *name, const char *outer, const char **ret_member)
{
	const size_t n = strlen(outer);
	*ret_member = name + n;
	return strncmp(name, outer, n) == 0;
}

/* A page: its rows come after what they need. */
static void
take_page(struct scrapes *s, const struct sbx_reply *reply)
{
	const char *name, *text, *member;
	int64_t number;
	struct row row;
	row_begin(&row, ULONG_MAX);
	for (uint32_t i = 0; sbx_reply_field(reply, i, &name, &text, &number); i++) {
		const uint64_t value = number > 0 ? (uint64_t)number : 0;
		if (is_in(name, "row.", &member)) {
			char *end;
			const unsigned long k = strtoul(member, &end, 10);
			if (k != row.number) {
				row_end(s, &row);
				row_begin(&row, k);
			}
			if (*end == '.')
				row_take(&row, end + 1, text, value);
		} else if (is_in(name, "target.", &member)) {
			tell_target(s, member, text, value);
		} else if (is_in(name, "time_bounds_ms.", &member)) {
			take_bound(s->time_bound_ns, &s->n_time_bounds, value * MS_AS_NANO);
		} else if (is_in(name, "token_bounds.", &member)) {
			take_bound(s->token_bound, &s->n_token_bounds, value);
		} else if (is_in(name, "folded.", &member)) {
			tell_folded(s, member, value);
		} else if (strcmp(name, "started_unix_ms") == 0 && !s->n_time_bounds) {
			exposition_nano(&s->agent, FAMILY_AGENT_START, NULL, value * MS_AS_NANO);
		}
	}
	row_end(s, &row);
}

static void
take_stats(struct scrapes *s, const struct sbx_reply *reply)
{
	static const struct {
		const char *name;
		enum family family;
	} numbers[] = {
		{ "failovers", FAMILY_FAILOVERS },         { "resets", FAMILY_RESETS },                    { "credit_stalls", FAMILY_CREDIT_STALLS },
		{ "events_malformed", FAMILY_MALFORMED },  { "warm_ups", FAMILY_WARM_UPS },                { "warm_ups_failed", FAMILY_WARM_UPS_FAILED },
		{ "reloads", FAMILY_RELOADS },             { "reloads_refused", FAMILY_RELOADS_REFUSED },  { "rss_bytes", FAMILY_AGENT_MEMORY },
		{ "body_bytes", FAMILY_AGENT_BODIES },     { "max_in_flight", FAMILY_AGENT_MAX },          { "sessions", FAMILY_AGENT_SESSIONS },
		{ "connections", FAMILY_AGENT_CONNECTIONS }, { "connections_refused", FAMILY_AGENT_REFUSED }, { "frames_bad", FAMILY_AGENT_FRAMES_BAD },
		{ "store.well", FAMILY_STORE_UP },         { "store.queued", FAMILY_STORE_QUEUED },        { "store.lost", FAMILY_STORE_LOST },
	};
	struct labels l = { .n = 0 };
	const char *version;
	int64_t number;
	for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
		if (sbx_reply_number(reply, numbers[i].name, &number) && number >= 0)
			exposition_uint(&s->agent, numbers[i].family, NULL, (uint64_t)number);
	if (sbx_reply_string(reply, "version", &version)) {
		add(&l, "version", version);
		exposition_uint(&s->agent, FAMILY_BUILD_INFO, &l, 1);
	}
}

/* ---- of this door ---- */

static uint64_t
nano_of(const struct timeval *t)
{
	return (uint64_t)t->tv_sec * 1000000000u + (uint64_t)t->tv_usec * 1000u;
}

static void
tell_process(struct exposition *e, const struct door *d)
{
	struct rusage used;
	unsigned long long pages = 0;
	FILE *f = fopen("/proc/self/statm", "re");
	if (f) {
		if (fscanf(f, "%*u %llu", &pages) == 1)
			exposition_uint(e, FAMILY_PROCESS_MEMORY, NULL, pages * (uint64_t)sysconf(_SC_PAGESIZE));
		(void)fclose(f); /* it was only read */
	}
	if (getrusage(RUSAGE_SELF, &used) == 0)
		exposition_nano(e, FAMILY_PROCESS_CPU, NULL, nano_of(&used.ru_utime) + nano_of(&used.ru_stime));
	exposition_nano(e, FAMILY_PROCESS_START, NULL, (uint64_t)d->started_unix_ms * MS_AS_NANO);
}

static void
tell_answers(struct exposition *e, const struct door *d)
{
	const char *path;
	for (uint32_t i = 0; (path = endpoint_path(i)); i++)
		for (unsigned status = 0; status < STATUS_MAX; status++) {
			struct labels l = { .n = 0 };
			char digits[8] = "none";
			if (!d->count.answers[i][status])
				continue;
			if (status)
				(void)snprintf(digits, sizeof digits, "%u", status);
			add(&l, "endpoint", path);
			add(&l, "status", digits);
			exposition_uint(e, FAMILY_HTTP_REQUESTS, &l, d->count.answers[i][status]);
		}
}

/* Anew each time: it costs nobody anything. */
static void
tell_door(struct exposition *e, const struct door *d)
{
	for (int i = FAMILY_HTTP_REQUESTS; i < FAMILY__COUNT; i++)
		e->family[i].from = e->family[i].n = 0;
	tell_answers(e, d);
	exposition_uint(e, FAMILY_HTTP_IN_FLIGHT, NULL, d->n_calls);
	exposition_uint(e, FAMILY_HTTP_CONNECTIONS, NULL, d->n_conns);
	exposition_uint(e, FAMILY_HTTP_ACCEPTED, NULL, d->count.accepted);
	exposition_uint(e, FAMILY_HTTP_RECEIVED, NULL, d->count.received_bytes);
	exposition_uint(e, FAMILY_HTTP_SENT, NULL, d->count.sent_bytes);
	tell_process(e, d);
}

/* ---- scraping ---- */

static void
tell(struct call *call)
{
	struct door *d = call->conn->door;
	struct exposition *e = &d->scrapes.agent;
	const enum exposition_format format = exposition_format_of(MHD_lookup_connection_value(call->conn->mhd, MHD_HEADER_KIND, "Accept"));
	size_t n = 0;
	tell_door(e, d);
	char *text = e->failed ? NULL : exposition_text(e, format, &n);
	answer_text(call, exposition_content_type(format), text, n);
}

/* To all that wait. */
static void
tell_all(struct door *d, bool well)
{
	struct scrapes *s = &d->scrapes;
	struct call *call;
	if (!well)
		exposition_clear(&s->agent); /* what there is of it may be half */
	exposition_uint(&s->agent, FAMILY_AGENT_UP, NULL, well);
	s->told_ns = well ? d->now_ns : 0;
	while ((call = s->first)) {
		s->first = call->next_scrape;
		relay_abandon(call); /* its question, if that was not answered */
		clock_set(call->conn, CLOCK_NONE);
		tell(call);
	}
}

static void
give_up(struct door *d, const char *why)
{
	sbx_log(SBX_LOG_WARNING, "metrics", SBX_STR("why", why));
	tell_all(d, false);
}

/* The first of those that wait asks. */
static void
ask(struct door *d)
{
	struct scrapes *s = &d->scrapes;
	const char *why = "";
	exposition_clear(&s->agent);
	s->told_ns = 0;
	s->paging = false;
	s->n_time_bounds = s->n_token_bounds = 0;
	if (links_ask_stats(s->first, &why) != 0)
		give_up(d, why);
}

void
metrics_on_reply(struct call *call, const struct sbx_reply *reply)
{
	struct door *d = call->conn->door;
	struct scrapes *s = &d->scrapes;
	const char *why = "";
	int64_t generation = 0, next = 0;
	if (!reply) {
		give_up(d, s->paging ? "the agent is gone, or does not take this door's word: see trusted_uids" : "the agent is gone");
		return;
	}
	if (!s->paging) {
		take_stats(s, reply);
		s->paging = true;
	} else {
		(void)sbx_reply_number(reply, "generation", &generation);
		if (s->n_time_bounds && (uint64_t)generation != s->generation) {
			ask(d); /* another agent took the place of the one that told the rows before */
			return;
		}
		s->generation = (uint64_t)generation;
		take_page(s, reply);
		if (!sbx_reply_number(reply, "next", &next)) {
			tell_all(d, true);
			return;
		}
	}
	if (links_ask_metrics(call, (uint64_t)next, &why) != 0)
		give_up(d, why);
}

void
metrics_on_clock(struct call *call)
{
	give_up(call->conn->door, "the agent does not answer");
}

void
metrics_abandon(struct call *call)
{
	struct door *d = call->conn->door;
	struct scrapes *s = &d->scrapes;
	const bool asked = s->first == call;
	struct call **at = &s->first;
	while (*at && *at != call)
		at = &(*at)->next_scrape;
	if (!*at)
		return;
	*at = call->next_scrape;
	if (asked && s->first)
		ask(d); /* the next one takes it over */
}

bool
metrics_are_open(const struct call *call)
{
	const struct conn *c = call->conn;
	return call->endpoint->begin == metrics_begin && c->door->options.metrics_open && (c->local || !c->peer); /* who comes by loopback is not counted */
}

void
metrics_begin(struct call *call)
{
	struct door *d = call->conn->door;
	struct scrapes *s = &d->scrapes;
	struct call **at = &s->first;
	if (!metrics_are_open(call) && !call->conn->trusted && strcmp(call->principal.tenant, "local") != 0) {
		const struct problem p = problem_of(403, "invalid_request_error", "forbidden", "the numbers of all tenants are for the owner of this door");
		answer_problem(call, &p);
		return;
	}
	if (!s->first && s->told_ns && d->now_ns - s->told_ns < METRICS_FRESH_NS) {
		tell(call);
		return;
	}
	while (*at)
		at = &(*at)->next_scrape;
	*at = call;
	call->next_scrape = NULL;
	clock_set(call->conn, CLOCK_METRICS);
	if (s->first == call)
		ask(d);
}

void
metrics_close(struct door *d)
{
	exposition_free(&d->scrapes.agent);
}
