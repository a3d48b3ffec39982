/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim.c -- many small worlds, to find the order of events in which the state machine of a request goes wrong.
 *
 *   sim [--seeds N] [--from S]    N worlds, one for each seed
 *   sim --seed S                  one world, every event and effect printed
 *
 * A world is a seed: providers with weather (world.h), a virtual clock, and SIM_REQUESTS requests that share one table of
 * health, streamed and whole, with deadlines, cancels and late events. The real request.c and health.c judge; nothing waits and
 * nothing is sent. After every step each of these must hold, as the world itself knows it:
 *
 *   one end        exactly one END per request, no effect after it, and not later than its deadline
 *   no lie         END_OK only for an answer that its script calls whole, with all of its content and of no other attempt
 *   no mixture     after content, no other attempt without a RESET; no RESET for a client that does not take one
 *   bounds         attempts that cost something are at most attempts_max; repeats on one target are bounded
 *   no refusal     while a target that was not asked is usable; nor without having asked one that is merely thought down
 *   no spinning    after a look at the clock the next one lies ahead, and not after the deadline
 *   the machine's own invariants (sbx_request_validate), and those of health (sbx_health_validate)
 *   at rest        nothing in flight, no trial under way; and once the weather is fine, every target serves again
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agent/core/request.h"
#include "tests/sim/world.h"

#define MS ((uint64_t)1000000)
#define S ((uint64_t)1000000000)
#define SIM_REQUESTS 200
#define SIM_STEPS_MAX 1000000u /* of one seed: 100 times the usual, so reaching it is a machine that spins */

extern const char *const sim_subject; /* which request.c: "request.c", or the name of a bug put in on purpose */

/* ---- what the world knows about one request ---- */

struct client {
	struct sbx_request req;
	struct sim_script script[SBX_ATTEMPTS_MAX];
	uint8_t n_started;
	uint8_t running;           /* SBX_ATTEMPTS_MAX = none */
	bool committed;            /* the running attempt's content goes out as it comes */
	bool ended;
	uint32_t delivered;        /* pieces of content that the client holds */
	uint8_t giver;             /* attempt that they are from */
	uint8_t paid;              /* attempts that cost something, ended or not */
	uint64_t armed_ns;         /* the timer set for it; UINT64_MAX = none */
};

enum happening { ARRIVES, ACTS, WAKES, CANCELS, ECHOES /* a late event of an attempt that was stopped */ };
struct entry {
	uint64_t at_ns, order;     /* order: first come, first served, so that a seed replays */
	uint16_t client;
	uint8_t attempt;
	uint8_t what;
};

struct sim {
	uint64_t seed, now_ns, order;
	bool verbose, failed;
	struct sim_world world;
	struct sbx_health *health;
	struct sbx_judge judge;
	struct client client[SIM_REQUESTS];
	struct entry *heap;
	size_t n_heap, cap_heap;
};

struct tally {
	uint64_t seeds, requests, attempts, steps, ok, resets, error[SBX_CODE__COUNT], plan[SIM_PLAN__COUNT];
};

static const char *const event_name[] = {
	[SBX_REQ_EV_START] = "START", [SBX_REQ_EV_CONNECTED] = "connected", [SBX_REQ_EV_SENT] = "sent", [SBX_REQ_EV_BYTES] = "bytes",
	[SBX_REQ_EV_CONTENT] = "content", [SBX_REQ_EV_COMPLETE] = "complete", [SBX_REQ_EV_ENDED] = "ended", [SBX_REQ_EV_TIMER] = "timer",
	[SBX_REQ_EV_CANCEL] = "cancel",
};
static struct sim sim;         /* static: the handler of SIGABRT tells its seed */
static struct tally tally;

static const char *
code_word(enum sbx_code code)
{
	static const char *const word[SBX_CODE__COUNT] = {
		[SBX_CODE_NONE] = "none",
#define X(name, text, status) [name] = text,
		SBX_CODES(X)
#undef X
	};
	return word[code];
}

static void __attribute__((format(printf, 1, 2)))
trace(const char *format, ...)
{
	va_list ap;

	if (!sim.verbose)
		return;
	printf("%12.6f  ", (double)sim.now_ns / 1e9);
	va_start(ap, format);
	vprintf(format, ap);
	va_end(ap);
	putchar('\n');
}

static void
broken(const struct client *c, const char *invariant)
{
	if (sim.failed)
		return; /* the first one tells most */
	sim.failed = true;
	fflush(stdout);
	fprintf(stderr, "seed %" PRIu64 ": invariant \"%s\" does not hold for request %d at %.6f s, replay with: make sim SEED=%" PRIu64 "\n",
	        sim.seed, invariant, c ? (int)(c - sim.client) : -1, (double)sim.now_ns / 1e9, sim.seed);
}

static void
on_abort(int signo)
{
	char line[128];
	const int n = snprintf(line, sizeof(line), "seed %" PRIu64 ": an assertion failed, replay with: make sim SEED=%" PRIu64 "\n",
	                       sim.seed, sim.seed);

	if (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0)
		_exit(2);
	_exit(signo == SIGABRT ? 1 : 2);
}

/* ---- time ---- */

static bool
is_before(const struct entry *a, const struct entry *b)
{
	return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void
later(uint64_t at_ns, enum happening what, const struct client *c, uint8_t attempt)
{
	struct entry e = { at_ns, sim.order++, (uint16_t)(c - sim.client), attempt, (uint8_t)what };
	size_t i;

	if (sim.n_heap == sim.cap_heap) {
		sim.cap_heap = sim.cap_heap ? 2 * sim.cap_heap : 1024;
		sim.heap = realloc(sim.heap, sim.cap_heap * sizeof(*sim.heap));
		if (!sim.heap)
			abort();
	}
	for (i = sim.n_heap++; i > 0 && is_before(&e, &sim.heap[(i - 1) / 2]); i = (i - 1) / 2)
		sim.heap[i] = sim.heap[(i - 1) / 2];
	sim.heap[i] = e;
}

static struct entry
next_entry(void)
{
	const struct entry top = sim.heap[0], last = sim.heap[--sim.n_heap];
	size_t i = 0;

	for (;;) {
		size_t kid = 2 * i + 1;
		if (kid >= sim.n_heap)
			break;
		if (kid + 1 < sim.n_heap && is_before(&sim.heap[kid + 1], &sim.heap[kid]))
			kid++;
		if (!is_before(&sim.heap[kid], &last))
			break;
		sim.heap[i] = sim.heap[kid];
		i = kid;
	}
	sim.heap[i] = last;
	return top;
}

/* ---- effects: what they do to the world, and whether they may ---- */

static void
stop_script(struct client *c, uint8_t attempt)
{
	c->script[attempt].live = false;
	if (sim_chance(&sim.world, 20)) /* what was under way still comes, once */
		later(sim.now_ns + sim_random(&sim.world, 100) * MS, ECHOES, c, attempt);
}

static void
on_start(struct client *c, uint8_t attempt)
{
	const struct sbx_attempt *a = &c->req.attempt[attempt];

	if (c->running != SBX_ATTEMPTS_MAX || attempt != c->n_started)
		broken(c, "one attempt at a time, numbered as they come");
	if (c->delivered > 0)
		broken(c, "no mixture: after content, no other attempt without a RESET");
	c->n_started++;
	c->running = attempt;
	c->committed = false;
	sim_script_draw(&sim.world, &c->script[attempt], a->target, c->req.stream, sim.now_ns);
	tally.attempts++;
	tally.plan[c->script[attempt].plan]++;
	trace("%3d    START #%u -> target %" PRIu32 " key %d%s: %s", (int)(c - sim.client), attempt, a->target, (int)a->credential,
	      a->probe ? " (trial)" : "", sim_plans[c->script[attempt].plan].name);
	later(sim.now_ns + (1 + sim_random(&sim.world, 100)) * MS, ACTS, c, attempt);
}

/* A refusal is unjust while a target that may be asked, and was not, is usable. */
static void
check_refusal(const struct client *c, enum sbx_code code)
{
	if (code != SBX_CODE_RATE_LIMITED && code != SBX_CODE_UPSTREAM && code != SBX_CODE_UNREACHABLE && code != SBX_CODE_CREDENTIALS &&
	    code != SBX_CODE_QUOTA && code != SBX_CODE_NOT_FOUND && code != SBX_CODE_CONTEXT_LENGTH)
		return;
	for (uint8_t i = 0; i < c->req.n_candidates; i++) {
		const struct sbx_candidate_row *row = &c->req.candidate[i];
		bool asked = false;

		for (uint8_t k = 0; k < c->n_started; k++)
			asked = asked || c->req.attempt[k].candidate == i;
		if (asked || c->req.counted >= row->policy->attempts_max ||
		    (row->context_tokens > 0 && row->context_tokens <= c->req.context_too_small))
			continue;
		const enum sbx_gate g = sbx_health_gate(sim.health, &sim.world.tables, row->target, row->provider, 0, sim.now_ns).gate;
		if (g == SBX_GATE_YES || g == SBX_GATE_PROBE)
			broken(c, "no refusal while a target is up");
		if (g == SBX_GATE_BROKEN && c->n_started == 0)
			broken(c, "the last is not ejected: a target that is down is tried rather than none");
	}
}

static void
on_end_ok(struct client *c, uint8_t attempt)
{
	const struct sim_script *script = &c->script[attempt];

	tally.ok++;
	if (!script->completed || script->told != script->tokens || sim_plans[script->plan].error >= 0)
		broken(c, "no lie: a success is an answer that is whole");
	if (!c->committed || c->delivered != script->told || (c->delivered > 0 && c->giver != attempt))
		broken(c, "no lie: a success delivers all of its answer, and of no other");
}

static void
on_end_error(struct client *c, const struct sbx_effect *fx)
{
	tally.error[fx->code]++;
	if (fx->code == SBX_CODE_NONE || fx->status < 400 || fx->status > 599)
		broken(c, "an error has a code and a status");
	if (c->delivered > 0 && fx->code != SBX_CODE_STREAM_BROKEN && fx->code != SBX_CODE_TIMEOUT && fx->code != SBX_CODE_CANCELLED &&
	    fx->code != SBX_CODE_DRAINING)
		broken(c, "an error after content says so");
	if (c->delivered == 0 && fx->code == SBX_CODE_STREAM_BROKEN)
		broken(c, "an error before content does not claim that some stands");
	check_refusal(c, fx->code);
}

static void
apply(struct client *c, const struct sbx_effects *fx)
{
	static const char *const name[] = { "START", "ABORT", "COMMIT", "DROP", "RESET", "END_OK", "END_ERROR" };
	char error[96];

	for (uint32_t i = 0; i < fx->n; i++) {
		const struct sbx_effect *f = &fx->fx[i];

		error[0] = '\0';
		if (sim.verbose && f->kind == SBX_FX_END_ERROR)
			snprintf(error, sizeof(error), ": %s, status %d, retry after %.3f s", code_word(f->code), f->status,
			         f->retry_after_ns < 0 ? -1.0 : (double)f->retry_after_ns / 1e9);
		if (f->kind != SBX_FX_START) /* on_start tells more */
			trace("%3d    %s #%u%s", (int)(c - sim.client), name[f->kind], f->attempt, error);
		if (c->ended)
			broken(c, "one end: no effect after it");
		switch (f->kind) {
		case SBX_FX_START:
			on_start(c, f->attempt);
			break;
		case SBX_FX_ABORT:
			if (f->attempt != c->running)
				broken(c, "only what runs is aborted");
			stop_script(c, f->attempt);
			c->running = SBX_ATTEMPTS_MAX;
			break;
		case SBX_FX_COMMIT:
			if (c->committed || c->delivered > 0)
				broken(c, "an answer is committed once, to a client that holds nothing");
			c->committed = true;
			c->giver = f->attempt;
			c->delivered = c->script[f->attempt].told;
			break;
		case SBX_FX_DROP:
			if (c->committed)
				broken(c, "what was delivered cannot be dropped");
			break;
		case SBX_FX_RESET:
			if (!c->req.restart)
				broken(c, "no RESET for a client that does not take one");
			tally.resets++;
			c->delivered = 0;
			break;
		case SBX_FX_END_OK:
		case SBX_FX_END_ERROR:
			if (c->running != SBX_ATTEMPTS_MAX)
				broken(c, "nothing runs after the end");
			if (sim.now_ns > c->req.deadline_ns)
				broken(c, "one end, not later than the deadline");
			if (f->kind == SBX_FX_END_OK)
				on_end_ok(c, f->attempt);
			else
				on_end_error(c, f);
			c->ended = true;
			break;
		}
	}
}

static void
check_bounds(const struct client *c)
{
	uint8_t max = 0, on_target[SBX_ROUTE_TARGETS_MAX] = { 0 };

	for (uint8_t i = 0; i < c->req.n_candidates; i++)
		max = c->req.candidate[i].policy->attempts_max > max ? c->req.candidate[i].policy->attempts_max : max;
	if (c->paid > max)
		broken(c, "attempts that cost something are bounded");
	for (uint8_t i = 0; i < c->n_started; i++)
		on_target[c->req.attempt[i].candidate]++;
	for (uint8_t i = 0; i < c->req.n_candidates; i++) /* each key twice (a refusal, and again after its wait), and repeats */
		if (on_target[i] > 2 * (SIM_KEYS_MAX + 1) + c->req.candidate[i].policy->attempts_per_target)
			broken(c, "attempts on one target are bounded");
}

static void
step(struct client *c, const struct sbx_req_event *ev)
{
	struct sbx_effects fx;
	const char *why;

	tally.steps++;
	sbx_request_step(&c->req, &sim.judge, ev, sim.now_ns, &fx);
	apply(c, &fx);
	why = sbx_request_validate(&c->req);
	if (why)
		broken(c, why);
	if (sbx_request_ended(&c->req) != c->ended)
		broken(c, "one end: a final state and an END come together");
	check_bounds(c);

	const uint64_t wake_ns = sbx_request_wake_ns(&c->req);
	if (!c->ended && (wake_ns < sim.now_ns || wake_ns > c->req.deadline_ns || (ev->kind == SBX_REQ_EV_TIMER && wake_ns == sim.now_ns)))
		broken(c, "no spinning: after a look at the clock the next one lies ahead, within the deadline");
	if (wake_ns < c->armed_ns) {
		c->armed_ns = wake_ns;
		later(wake_ns, WAKES, c, 0);
	}
}

/* ---- happenings ---- */

static void
arrive(struct client *c)
{
	struct sim_world *w = &sim.world;
	const bool stream = sim_chance(w, 60);
	const uint64_t deadline_ns = sim.now_ns + (sim_chance(w, 70) ? 600 * S : (1 + sim_random(w, 60000)) * MS);
	uint32_t order[SIM_TARGETS_MAX];

	sbx_request_init(&c->req, stream, sim_chance(w, 40), deadline_ns, sim.now_ns, sim_random(w, UINT32_MAX));
	c->req.replay_uncertain = sim_chance(w, 85);
	c->running = SBX_ATTEMPTS_MAX;
	c->armed_ns = UINT64_MAX;
	for (uint32_t i = 0; i < w->tables.n_targets; i++) {
		const uint32_t k = (uint32_t)sim_random(w, i + 1);
		order[i] = order[k];
		order[k] = i;
	}
	c->req.n_candidates = (uint8_t)(1 + sim_random(w, w->tables.n_targets));
	for (uint8_t i = 0; i < c->req.n_candidates; i++) {
		const struct sbx_target *t = &w->target[order[i]];
		c->req.candidate[i] = (struct sbx_candidate_row){
			.target = order[i],
			.provider = t->provider,
			.reasoning = t->reasoning,
			.context_tokens = t->context_tokens,
			.policy = &w->provider[t->provider].policy,
		};
	}
	trace("%3d  arrives: %s%s, %u targets, %.3f s", (int)(c - sim.client), stream ? "stream" : "whole", c->req.restart ? ", restart" : "",
	      c->req.n_candidates, (double)(deadline_ns - sim.now_ns) / 1e9);
	tally.requests++;
	if (sim_chance(w, 10))
		later(sim.now_ns + sim_random(w, 30000) * MS, CANCELS, c, 0);
	step(c, &(struct sbx_req_event){ .kind = SBX_REQ_EV_START });
}

/* An attempt's provider does the next thing. */
static void
act(struct client *c, uint8_t attempt)
{
	struct sim_script *script = &c->script[attempt];
	struct sbx_req_event ev = { .attempt = attempt };
	struct sbx_provider_error error;
	struct sbx_end end;

	if (!script->live || c->ended)
		return; /* it was stopped */
	const bool was_sent = script->sent;
	const struct sim_act a = sim_script_act(&sim.world, script);

	if (a.silent)
		return;
	ev.kind = a.kind;
	if (script->sent && !was_sent && sim_plans[script->plan].costs)
		c->paid++;
	if (ev.kind == SBX_REQ_EV_CONTENT && c->committed)
		c->delivered++;
	if (ev.kind == SBX_REQ_EV_ENDED) {
		sim_script_end(script, &end, &error);
		ev.end = &end;
		c->running = SBX_ATTEMPTS_MAX;
	} else if (a.pause_ns != UINT64_MAX) {
		later(sim.now_ns + a.pause_ns, ACTS, c, attempt);
	}
	trace("%3d  #%u %s", (int)(c - sim.client), attempt, event_name[ev.kind]);
	if (ev.kind == SBX_REQ_EV_CONTENT && c->req.state == SBX_REQ_COMMITTED && sim_chance(&sim.world, 50))
		sbx_request_on_content(&c->req, attempt, sim.now_ns); /* the short path */
	else if (ev.kind == SBX_REQ_EV_CONNECTED && sim_chance(&sim.world, 30))
		return; /* it may be left out */
	else
		step(c, &ev);
}

static void
echo(struct client *c, uint8_t attempt)
{
	struct sbx_provider_error error;
	struct sbx_end end;

	sim_script_end(&c->script[attempt], &end, &error);
	step(c, &(struct sbx_req_event){ .kind = SBX_REQ_EV_CONTENT, .attempt = attempt });
	step(c, &(struct sbx_req_event){ .kind = SBX_REQ_EV_ENDED, .attempt = attempt, .end = &end });
}

static void
happen(const struct entry *e)
{
	struct client *c = &sim.client[e->client];

	sim.now_ns = e->at_ns;
	switch ((enum happening)e->what) {
	case ARRIVES:
		arrive(c);
		break;
	case ACTS:
		act(c, e->attempt);
		break;
	case WAKES:
		if (c->armed_ns == e->at_ns)
			c->armed_ns = UINT64_MAX;
		step(c, &(struct sbx_req_event){ .kind = SBX_REQ_EV_TIMER });
		break;
	case CANCELS:
		trace("%3d  cancel", e->client);
		step(c, &(struct sbx_req_event){ .kind = SBX_REQ_EV_CANCEL, .code = sim_chance(&sim.world, 80) ? SBX_CODE_CANCELLED : SBX_CODE_DRAINING });
		step(c, &(struct sbx_req_event){ .kind = SBX_REQ_EV_CANCEL, .code = SBX_CODE_CANCELLED }); /* idempotent */
		if (!c->ended)
			broken(c, "a cancel ends a request in any state");
		break;
	case ECHOES:
		trace("%3d  #%u late events", e->client, e->attempt);
		echo(c, e->attempt);
		break;
	}
}

/* Until nothing is left to happen. */
static void
run_out(void)
{
	uint32_t steps = 0;

	while (sim.n_heap > 0 && !sim.failed) {
		const struct entry e = next_entry();

		happen(&e);
		if (++steps > SIM_STEPS_MAX)
			broken(&sim.client[e.client], "a world comes to rest");
		if ((steps & 63) == 0 && sbx_health_validate(sim.health))
			broken(NULL, sbx_health_validate(sim.health));
	}
}

static void
check_rest(uint16_t n_clients)
{
	for (uint16_t i = 0; i < n_clients; i++)
		if (!sim.client[i].ended)
			broken(&sim.client[i], "one end: every request has one");
	for (uint32_t i = 0; i < sim.world.tables.n_targets; i++)
		if (sbx_health_target(sim.health, i)->in_flight != 0 || sbx_health_target(sim.health, i)->probing)
			broken(NULL, "at rest: no attempt and no trial of a target under way");
	for (uint32_t i = 0; i < sim.world.tables.n_credentials; i++)
		if (sbx_health_credential(sim.health, i)->probing)
			broken(NULL, "at rest: no trial of a credential under way");
	if (sbx_health_validate(sim.health))
		broken(NULL, sbx_health_validate(sim.health));
}

/* Whatever the storm did: when it is over and every penalty has run out, each target serves its first request. */
static void
check_recovery(void)
{
	sim_world_clear_up(&sim.world);
	sim.now_ns += 80 * 3600 * S; /* beyond the longest Retry-After of a script (77 h) */
	for (uint32_t i = 0; i < sim.world.tables.n_targets && !sim.failed; i++) {
		struct client *c = &sim.client[i];
		const struct sbx_target *t = &sim.world.target[i];

		memset(c, 0, sizeof(*c));
		sbx_request_init(&c->req, true, false, sim.now_ns + 60 * S, sim.now_ns, i);
		c->running = SBX_ATTEMPTS_MAX;
		c->armed_ns = UINT64_MAX;
		c->req.n_candidates = 1;
		c->req.candidate[0] = (struct sbx_candidate_row){ .target = i, .provider = t->provider, .policy = &sim.world.provider[t->provider].policy };
		step(c, &(struct sbx_req_event){ .kind = SBX_REQ_EV_START });
		run_out();
		if (c->req.state != SBX_REQ_DONE || c->n_started != 1)
			broken(c, "after the storm every target serves its first request");
		sim.now_ns += S;
	}
}

/* ---- one seed, many seeds ---- */

static bool
run_seed(uint64_t seed)
{
	uint64_t at_ns = S;

	sim.seed = seed;
	sim.failed = false;
	sim.now_ns = 0;
	sim.order = 0;
	sim.n_heap = 0;
	memset(sim.client, 0, sizeof(sim.client));
	sim_world_init(&sim.world, seed);
	sim.health = sbx_health_new(&sim.world.tables, 0);
	if (!sim.health)
		abort();
	sim.judge = (struct sbx_judge){ &sim.world.tables, sim.health };

	const uint64_t spread_ms = 1 + sim_random(&sim.world, 4000); /* some worlds are busy, some are quiet */
	for (int i = 0; i < SIM_REQUESTS; i++) {
		at_ns += sim_random(&sim.world, spread_ms * MS);
		later(at_ns, ARRIVES, &sim.client[i], 0);
	}
	run_out();
	if (!sim.failed)
		check_rest(SIM_REQUESTS);
	if (!sim.failed)
		check_recovery();
	sbx_health_free(sim.health);
	tally.seeds++;
	return !sim.failed;
}

static void
print_tally(double seconds)
{
	printf("%-22s %12" PRIu64 "   in %.1f s\n", "seeds", tally.seeds, seconds);
	printf("%-22s %12" PRIu64 "\n", "requests", tally.requests);
	printf("%-22s %12" PRIu64 "   %.2f a request\n", "attempts", tally.attempts, tally.requests ? (double)tally.attempts / (double)tally.requests : 0);
	printf("%-22s %12" PRIu64 "\n", "steps, all checked", tally.steps);
	printf("%-22s %12" PRIu64 "\n", "answered", tally.ok);
	printf("%-22s %12" PRIu64 "\n", "restarted", tally.resets);
	for (int i = 0; i < SBX_CODE__COUNT; i++)
		if (tally.error[i] > 0)
			printf("  error %-14s %12" PRIu64 "\n", code_word((enum sbx_code)i), tally.error[i]);
}

static void
print_plans(void)
{
	for (int i = 0; i < SIM_PLAN__COUNT; i++)
		printf("  plan %-15s %12" PRIu64 "\n", sim_plans[i].name, tally.plan[i]);
}

static int
usage(FILE *to, int status)
{
	fprintf(to, "usage: sim [--seeds N] [--from S] [--plans]   run N worlds (200), the first one of seed S (1)\n"
	            "       sim --seed S                          one world, every event and effect printed\n");
	return status;
}

static bool
read_number(const char *text, uint64_t *ret)
{
	char *end;

	if (!text || *text < '0' || *text > '9')
		return false;
	errno = 0;
	const unsigned long long n = strtoull(text, &end, 10);
	if (errno != 0 || *end != '\0')
		return false;
	*ret = n;
	return true;
}

int
main(int argc, char **argv)
{
	uint64_t seeds = 200, from = 1;
	struct timespec t0, t1;
	bool plans = false;
	int status = 0;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--seeds") == 0 && read_number(argv[i + 1], &seeds)) {
			i++;
		} else if (strcmp(argv[i], "--from") == 0 && read_number(argv[i + 1], &from)) {
			i++;
		} else if (strcmp(argv[i], "--seed") == 0 && read_number(argv[i + 1], &from)) {
			sim.verbose = true;
			seeds = 1;
			i++;
		} else if (strcmp(argv[i], "--plans") == 0) {
			plans = true;
		} else if (strcmp(argv[i], "--help") == 0) {
			return usage(stdout, 0);
		} else {
			return usage(stderr, 2);
		}
	}
	signal(SIGABRT, on_abort);
	printf("simulating %s\n", sim_subject);
	fflush(stdout);
	clock_gettime(CLOCK_MONOTONIC, &t0); /* the only clock here, and only to say how long it took */
	for (uint64_t i = 0; i < seeds && status == 0; i++) {
		if (!run_seed(from + i))
			status = 1;
		if (!sim.verbose && i % 100 == 99 && isatty(STDERR_FILENO))
			fprintf(stderr, "\r%" PRIu64 " seeds", i + 1);
	}
	clock_gettime(CLOCK_MONOTONIC, &t1);
	if (!sim.verbose && isatty(STDERR_FILENO))
		fprintf(stderr, "\r");
	print_tally((double)(t1.tv_sec - t0.tv_sec) + (double)(t1.tv_nsec - t0.tv_nsec) / 1e9);
	if (plans)
		print_plans();
	free(sim.heap);
	return status;
}
