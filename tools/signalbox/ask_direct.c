/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ask_direct.c -- `signalbox ask --direct`: the request without the agent, for when it hangs or is gone.
 *
 * Whom to call, in what order, says the board or the snapshot that the agent left (facts.h, sbx_bypass()); the key is read from
 * where the agent has it, as far as this user may. Targets are tried in turn, once each, as long as nothing of an answer has been
 * given out: a failure that proves that nothing was done, or that a provider refused or failed, leads on; so does silence after
 * the request was sent, but then it is told that it may have been carried out, and billed.
 *
 * Nobody accounts for such a request, and no target's health learns from it.
 */
#include "tools/signalbox/ask.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <curl/curl.h>

#include "tools/signalbox/direct.h"
#include "tools/signalbox/facts.h"

#define DEADLINE_DEFAULT_MS 600000u /* as the agent's */
#define AGENT_WAIT_MS 1000          /* for one that hangs: this is an emergency */
#define DIALECT "openai-chat"

static const struct {
	const char *word;
	bool next;
	int rank;
	enum sbx_code code;
} outcomes[] = {
#define X(name, next, rank, code) { #name, next, rank, SBX_CODE_##code },
	DIRECT_OUTCOMES(X)
#undef X
};

struct codes {
	const char *word;
	int status;
};
static const struct codes codes[SBX_CODE__COUNT] = {
	[SBX_CODE_NONE] = { "", 200 },
#define X(name, word, status) [name] = { word, status },
	SBX_CODES(X)
#undef X
};

/* ---- whom to ask ---- */

struct choice {
	struct sbx_direct direct[SBX_PICK_MAX];
	size_t n;
};

static int
standing_rank(enum sbx_standing standing)
{
	return standing == SBX_STANDING_UP || standing == SBX_STANDING_TRIAL ? 0 : standing == SBX_STANDING_THROTTLED ? 1 : 2;
}

/* Behind those that stand as well: what is usable comes first, and within that the order that was asked for. */
static void
insert(struct choice *c, const struct sbx_direct *d)
{
	size_t at = c->n;
	if (c->n == SBX_PICK_MAX)
		return; /* as many as the agent would take */
	while (at > 0 && standing_rank(c->direct[at - 1].standing) > standing_rank(d->standing)) {
		c->direct[at] = c->direct[at - 1];
		at--;
	}
	c->direct[at] = *d;
	c->n++;
}

static void
choose_route(struct choice *c, const struct facts *f, uint32_t route)
{
	struct sbx_need need = SBX_NEED_INIT;
	need.route = route;
	const int n = sbx_bypass(f->board, &need, f->now_boot_ns, c->direct, SBX_PICK_MAX);
	c->n = n > 0 ? (size_t)n : 0;
}

/* "provider/model", else every target of the board whose model is called so. */
static void
choose_model(struct choice *c, const struct facts *f, const char *model)
{
	struct sbx_direct d;
	struct sbx_target_view v;
	if (sbx_bypass_target(f->board, model, f->now_boot_ns, &d) == 0) {
		insert(c, &d);
		return;
	}
	for (uint32_t i = 0; sbx_board_target(f->board, i, f->now_boot_ns, &v) != -SBX_ENOENT; i++)
		if (strcmp(v.model, model) == 0 && sbx_bypass_target(f->board, v.name, f->now_boot_ns, &d) == 0)
			insert(c, &d);
}

static int
choose(struct choice *c, const struct facts *f, const struct ask_options *o, const char *model)
{
	uint32_t route;
	struct sbx_direct d;
	c->n = 0;
	if (o->route) {
		if (sbx_board_find_route(f->board, o->route, &route))
			return usage("ask", "there is no route \"%s\" among what the agent left", o->route);
		choose_route(c, f, route);
	} else if (o->n_targets > 0) {
		for (size_t i = 0; i < o->n_targets; i++) {
			if (sbx_bypass_target(f->board, o->targets[i], f->now_boot_ns, &d))
				return usage("ask", "the agent left nothing about %s: its provider is not known", o->targets[i]);
			insert(c, &d);
		}
	} else if (!o->model && sbx_board_find_route(f->board, model, &route) == 0) { /* a body may name a route */
		choose_route(c, f, route);
	} else {
		choose_model(c, f, model);
	}
	if (c->n == 0)
		return usage("ask", "the agent left nothing about %s: no target of that name", o->route ? o->route : model);
	return CLI_OK;
}

/* It says where a key is sent: only its owner may have written it. */
static bool
is_trusted(const char *path)
{
	struct stat st;
	if (!path[0] || (stat(path, &st) == 0 && !(st.st_mode & (S_IWGRP | S_IWOTH))))
		return true;
	(void)fprintf(stderr, "signalbox: %s is open for others to write, and it would say where keys are sent: not used\n", path);
	return false;
}

/* ---- the body ---- */

/* Numbers keep 15 digits, which no parameter of a request exceeds; an integer beyond 64 bits is refused by the parser. */
static json_t *
parse_body(const char *body, size_t n)
{
	json_error_t error;
	json_t *root = json_loadb(body, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
	if (root && json_is_object(root))
		return root;
	(void)fprintf(stderr, "signalbox: the request is not a JSON object: %s\n", root ? "it is something else" : error.text);
	json_decref(root);
	return NULL;
}

static char *
body_for(json_t *root, const char *model, bool stream)
{
	(void)json_object_set_new(root, "model", must(json_string(model)));
	(void)json_object_set_new(root, "stream", json_boolean(stream));
	if (!stream)
		(void)json_object_del(root, "stream_options");
	return must(json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(15)));
}

/* ---- the request ---- */

struct attempt {
	struct direct_end end;
	struct direct_answer answer;
};

struct course {
	const struct ask_options *o;
	struct ask_show show;
	json_t *root;
	uint64_t began_ms;
	int64_t first_content_ms;  /* of the request; -1 = none */
	int64_t attempt_first_ms;  /* of the attempt that runs */
	bool too_large;
	struct attempt attempt[SBX_PICK_MAX];
	struct sbx_attempt_info info[SBX_PICK_MAX];
	size_t n;
};

static uint32_t
elapsed_ms(const struct course *c)
{
	return (uint32_t)(monotonic_ms() - c->began_ms);
}

static void
on_event(void *arg, const struct sbx_event *ev)
{
	struct course *c = arg;
	if (ev->note != SBX_NOTE_FINISH && c->attempt_first_ms < 0)
		c->attempt_first_ms = elapsed_ms(c);
	if (ask_show_event(&c->show, ev))
		c->too_large = c->attempt[c->n].answer.complete = true; /* no more of it */
}

static void
say_target(struct course *c, const char *name)
{
	const struct sbx_event ev = { .note = SBX_NOTE_TARGET, .id = 1, .text = name, .text_bytes = strlen(name) };
	(void)ask_show_event(&c->show, &ev);
}

/* One target: its key, the call. */
static void
try_target(struct course *c, const struct sbx_direct *d, uint32_t left_ms)
{
	struct attempt *a = &c->attempt[c->n];
	struct sbx_attempt_info *info = &c->info[c->n];
	struct direct_key key = { .at = NULL };
	const bool keyless = strcmp(d->auth, "none") == 0;
	const uint32_t started_ms = elapsed_ms(c);
	a->end = (struct direct_end){ .outcome = DIRECT_PASSED_OVER, .retry_after_ms = -1 };
	c->attempt_first_ms = -1;
	direct_answer_init(&a->answer, on_event, c);
	if (strcmp(d->dialect, DIALECT) != 0) {
		(void)snprintf(a->end.message, sizeof a->end.message, "it speaks the dialect %s; --direct speaks " DIALECT " only", d->dialect);
	} else if (strncmp(d->url, "https://", 8) != 0 && strncmp(d->url, "http://", 7) != 0) {
		(void)snprintf(a->end.message, sizeof a->end.message, "its address is no URL: %s", d->url);
	} else if (keyless || direct_key_read(&key, d->key_name, a->end.message, sizeof a->end.message)) {
		char *body = body_for(c->root, d->model, c->o->stream);
		const struct direct_call call = {
			.url = d->url, .auth = d->auth, .key = keyless ? NULL : &key, .body = body, .body_bytes = strlen(body),
			.stream = c->o->stream, .timeout_ms = left_ms,
		};
		say_target(c, d->target);
		direct_call(&call, &a->answer, &a->end);
		free(body);
	}
	direct_key_wipe(&key);
	direct_answer_fini(&a->answer);
	*info = (struct sbx_attempt_info){
		.target = d->target, .outcome = outcomes[a->end.outcome].word, .status = a->end.status, .started_ms = started_ms,
		.ended_ms = elapsed_ms(c), .first_content_ms = c->attempt_first_ms, .connection = a->end.outcome == DIRECT_PASSED_OVER ? "" : "new",
		.message = a->end.message, .tokens = a->answer.tokens, .cost_nanousd = -1,
	};
	if (c->first_content_ms < 0)
		c->first_content_ms = c->attempt_first_ms;
	c->n++;
}

/* What one cannot see from the answer. */
static void
tell(const struct course *c, const struct attempt *last)
{
	if (!c->o->quiet && last->end.outcome == DIRECT_UNCERTAIN)
		term_say(&c->show.err, STYLE_WARN, "signalbox: %s may have carried it out, and bill it: %s\n", c->info[c->n - 1].target, last->end.message);
	else if (!c->o->quiet && !c->show.notes && last->end.outcome != DIRECT_OK && outcomes[last->end.outcome].next)
		term_say(&c->show.err, STYLE_WARN, "signalbox: %s: %s\n", c->info[c->n - 1].target, last->end.message);
}

/* Of those that were tried, the one that is told. */
static size_t
worst(const struct course *c)
{
	size_t found = 0;
	for (size_t i = 1; i < c->n; i++)
		if (outcomes[c->attempt[i].end.outcome].rank >= outcomes[c->attempt[found].end.outcome].rank)
			found = i;
	return found;
}

static int
finish(struct course *c, bool timed_out)
{
	const size_t last = c->n - 1;
	const bool ok = c->attempt[last].end.outcome == DIRECT_OK && !c->too_large;
	const size_t told = ok ? last : worst(c);
	const struct attempt *a = &c->attempt[told];
	const enum sbx_code code = ok ? SBX_CODE_NONE : timed_out ? SBX_CODE_TIMEOUT : c->too_large ? SBX_CODE_TOO_LARGE : outcomes[a->end.outcome].code;
	const char *message = timed_out ? "the deadline passed" : c->too_large ? "the answer is too large to be kept; use --stream" : a->end.message;
	char status[16] = "";
	if (!ok && a->end.status)
		(void)snprintf(status, sizeof status, "%d", a->end.status);
	struct ask_end end = {
		.ok = ok, .direct = true, .code = code, .code_word = codes[code].word, .status = codes[code].status,
		.message = ok ? "" : message, .finish = a->answer.finish, .target = ok ? c->info[told].target : "",
		.error = { "", status, a->answer.error_type, a->answer.error_code, a->answer.error_param, a->answer.error_message },
		.retry_after_ms = ok ? -1 : a->end.retry_after_ms, .first_content_ms = c->first_content_ms, .cost_nanousd = -1,
		.total_ms = elapsed_ms(c), .tokens = a->answer.tokens, .attempt = c->info, .n_attempts = c->n,
		.retryable = code == SBX_CODE_RATE_LIMITED || code == SBX_CODE_UPSTREAM || code == SBX_CODE_UNREACHABLE || code == SBX_CODE_TIMEOUT,
	};
	for (size_t i = 0; i < c->n; i++)
		end.sent = end.sent || (c->attempt[i].end.outcome != DIRECT_PASSED_OVER && c->attempt[i].end.outcome != DIRECT_NOT_SENT);
	ask_show_end(&c->show, &end);
	return ok ? CLI_OK : interrupt_signal() ? CLI_SIGNAL + interrupt_signal() : CLI_FAILED;
}

static int
run(const struct ask_options *o, const struct choice *choice, json_t *root)
{
	const uint32_t deadline_ms = o->deadline_ms ? o->deadline_ms : DEADLINE_DEFAULT_MS;
	struct course *c = must(calloc(1, sizeof *c)); /* beyond what a stack should hold */
	bool timed_out = false;
	c->o = o;
	c->root = root;
	c->began_ms = monotonic_ms();
	c->first_content_ms = -1;
	ask_show_init(&c->show, o);
	for (size_t i = 0; i < choice->n; i++) {
		const uint32_t gone_ms = elapsed_ms(c);
		timed_out = gone_ms >= deadline_ms;
		if (timed_out)
			break;
		try_target(c, &choice->direct[i], deadline_ms - gone_ms);
		const struct attempt *last = &c->attempt[c->n - 1];
		tell(c, last);
		timed_out = last->end.timed_out;
		if (!outcomes[last->end.outcome].next || timed_out || c->too_large)
			break;
	}
	const int status = finish(c, timed_out);
	ask_show_fini(&c->show);
	free(c);
	return status;
}

/* ---- */

static void
tell_source(const struct facts *f)
{
	char age[32];
	fmt_duration(age, sizeof age, f->age_ms);
	if (f->snapshot_path[0])
		(void)fprintf(stderr, "signalbox: past the agent, which is %s: whom to ask is from %s, %s old; nobody accounts for this\n", agent_word(f->agent),
		              f->snapshot_path, age);
	else
		(void)fprintf(stderr, "signalbox: past the agent, which is %s: nobody accounts for this\n", agent_word(f->agent));
}

int
ask_direct(const struct ask_options *o, const char *body, size_t body_bytes)
{
	static const struct rlimit no_core = { 0, 0 };
	struct facts facts;
	struct choice choice;
	int status = CLI_USAGE;
	json_t *root = parse_body(body, body_bytes);
	const char *model = o->model ? o->model : json_string_value(json_object_get(root, "model"));
	if (!root)
		return CLI_USAGE;
	(void)setrlimit(RLIMIT_CORE, &no_core); /* a key will be in our memory */
	facts_init(&facts, o->socket, o->snapshot);
	facts_look(&facts, AGENT_WAIT_MS);
	if (!facts.board) {
		(void)fprintf(stderr, "signalbox: without the agent nobody knows whom to ask: %s\n", facts.says);
		status = CLI_NO_AGENT;
	} else if (!is_trusted(facts.snapshot_path)) {
		status = CLI_NO_AGENT;
	} else if (!o->route && !o->n_targets && !model) {
		status = usage("ask", "say whom to ask: --route, --model or --target, or \"model\" in the body");
	} else if ((status = choose(&choice, &facts, o, model)) == CLI_OK) {
		if (!o->quiet)
			tell_source(&facts);
		must(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? root : NULL);
		status = run(o, &choice, root);
		curl_global_cleanup();
	}
	facts_fini(&facts);
	json_decref(root);
	return status;
}
