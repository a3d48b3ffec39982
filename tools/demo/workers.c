/* SPDX-License-Identifier: Apache-2.0 */
/*
 * workers.c -- the part of the demo that a shell cannot play: forked worker processes that look at the board before they ask.
 *
 * usage: demo-workers ROUTE DIR
 *
 * Four children, each with a connection of its own. Before each request a worker asks the board which targets of ROUTE would serve
 * it now, and submits that list. When the first choice is another than the one before, it prints the decision. Once every worker
 * has had an answer from the first target, the file DIR/ready appears: the shell then kills that provider. A worker ends
 * after two answers that it asked the second one for first; the parent prints the table and exits 0 if no request failed, every
 * worker changed its mind, and no choice made a system call.
 *
 * SYSTEM CALLS ARE COUNTED, not claimed: around the choice the kernel is told (PR_SET_SYSCALL_USER_DISPATCH; the switch is a byte
 * of ours, so that switching is no call either) to send SIGSYS instead of carrying a call out. The counter is tried first
 * on a call that is there. Where the kernel has no such thing the column says "not counted".
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <signalbox.h>

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#define PR_SYS_DISPATCH_OFF 0
#define PR_SYS_DISPATCH_ON 1
#endif
#define DISPATCH_ALLOW 0
#define DISPATCH_BLOCK 1

#define WORKERS 4
#define TIMED 1000       /* a choice takes less than a look at the clock: so many are timed together */
#define PAUSE_MS 100     /* between two requests of a worker */
#define LIMIT_NS 20000000000ull
#define AFTER_CHANGE 2   /* answers by the other target, then it is enough */

struct tally {               /* one worker's, in memory shared with the parent */
	uint64_t requests, failed, rescued; /* rescued: answered by another than the first choice */
	uint64_t choices, choice_ns, calls;
	uint64_t first_answers;  /* by the target that is to die */
	int changes;
	bool counted;            /* `calls` means something */
	bool done;
};

static char dispatch;                 /* read by the kernel at each call */
static sig_atomic_t caught;

static void
on_sigsys(int signal)
{
	(void)signal;
	caught++;
	__atomic_store_n(&dispatch, DISPATCH_ALLOW, __ATOMIC_RELAXED); /* or the return from here would be caught as well */
}

static void
count_from_here(void)
{
	__atomic_store_n(&dispatch, DISPATCH_BLOCK, __ATOMIC_SEQ_CST);
}

static void
count_to_here(void)
{
	__atomic_store_n(&dispatch, DISPATCH_ALLOW, __ATOMIC_SEQ_CST);
}

/* True: calls between the two functions above are counted, as one was that is known to be there. */
static bool
counter_works(void)
{
	struct sigaction act = { .sa_handler = on_sigsys };
	if (sigaction(SIGSYS, &act, NULL) || prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, 0, 0, &dispatch))
		return false;
	count_from_here();
	(void)syscall(SYS_getppid);
	count_to_here();
	const bool works = caught == 1;
	caught = 0;
	return works;
}

static uint64_t
now_ns(void)
{
	struct timespec t;
	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- one worker ---- */

struct worker {
	int number;
	struct sbx_client *client;
	struct sbx_board *board;
	struct tally *tally;
	char first[128];         /* the first choice of the last request; "" before any */
	char doomed[128];        /* the first choice of the first request */
};

/* Which targets would serve a request now? Timed, and its system calls counted. Returns how many. */
static int
choose(struct worker *w, const char *route, struct sbx_target_view *ret_view, int max)
{
	struct sbx_need need = SBX_NEED_INIT;
	struct sbx_pick pick[SBX_PICK_MAX];
	struct sbx_board *board;
	int n = 0;

	/* A newer board comes over the connection; a look for it is a read of the socket, and no part of the choice. */
	if (sbx_board(w->client, &board) == 0) {
		sbx_board_close(w->board);
		w->board = board;
	}
	if (!w->board || sbx_board_find_route(w->board, route, &need.route))
		return 0;
	need.caps = SBX_CAP_TOOLS;
	need.input_tokens = 200;
	const uint64_t boot_ns = sbx_boot_ns(), began_ns = now_ns();
	count_from_here();
	for (int i = 0; i < TIMED; i++)
		n = sbx_board_pick(w->board, &need, boot_ns, pick, (uint32_t)max);
	count_to_here();
	w->tally->choice_ns += now_ns() - began_ns;
	w->tally->choices += TIMED;
	w->tally->calls += (uint64_t)caught;
	caught = 0;
	for (int i = 0; i < n; i++)
		(void)sbx_board_target(w->board, pick[i].target, boot_ns, &ret_view[i]);
	return n;
}

static void
tell(const struct worker *w, const struct sbx_target_view *view, int n)
{
	char line[512];
	size_t at = (size_t)snprintf(line, sizeof line, "  worker %d, request %" PRIu64 ": asks", w->number, w->tally->requests);
	for (int i = 0; i < n && at < sizeof line; i++)
		at += (size_t)snprintf(line + at, sizeof line - at, "%s %s", i ? ", then" : "", view[i].name);
	for (int i = 0; i < n && at < sizeof line; i++)
		if (view[i].standing != SBX_STANDING_UP)
			at += (size_t)snprintf(line + at, sizeof line - at, " (%s: %s%s%s)", view[i].name, view[i].state, *view[i].why ? ", " : "", view[i].why);
	if (at > sizeof line - 2)
		at = sizeof line - 2;
	line[at++] = '\n';
	(void)!write(STDOUT_FILENO, line, at); /* one write: lines of several processes do not mix */
}

static void
ask(struct worker *w, const struct sbx_target_view *view, int n)
{
	static const char body[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"Which line is clear?\"}]}";
	struct sbx_request_options options = SBX_REQUEST_INIT;
	struct sbx_reply *reply = NULL;
	const char *target[SBX_PICK_MAX];

	for (int i = 0; i < n; i++)
		target[i] = view[i].name;
	options.targets = target;
	options.n_targets = (size_t)n;
	options.body = body;
	options.body_bytes = sizeof body - 1;
	options.deadline_ms = 10000;
	if (sbx_ask(w->client, &options, &reply) == 0) {
		w->tally->rescued += strcmp(sbx_reply_target(reply), target[0]) != 0;
		__atomic_fetch_add(&w->tally->first_answers, strcmp(sbx_reply_target(reply), w->doomed) == 0, __ATOMIC_RELAXED);
	} else {
		w->tally->failed++;
		(void)fprintf(stderr, "demo-workers: worker %d: %s\n", w->number, sbx_client_error(w->client));
	}
	sbx_reply_free(reply);
}

static int
work(struct worker *w, const char *route)
{
	const uint64_t until_ns = now_ns() + LIMIT_NS;
	int after_change = 0;

	if (sbx_open(NULL, &w->client)) {
		(void)fprintf(stderr, "demo-workers: %s\n", w->client ? sbx_client_error(w->client) : "out of memory");
		return 1;
	}
	w->tally->counted = counter_works();
	while (after_change < AFTER_CHANGE && now_ns() < until_ns) {
		struct sbx_target_view view[SBX_PICK_MAX];
		const int n = choose(w, route, view, SBX_PICK_MAX);
		if (n < 1) {
			(void)fprintf(stderr, "demo-workers: worker %d: the board has no target for the route %s\n", w->number, route);
			return 1;
		}
		w->tally->requests++;
		if (!w->doomed[0])
			(void)snprintf(w->doomed, sizeof w->doomed, "%s", view[0].name);
		if (strcmp(w->first, view[0].name) != 0) {
			w->tally->changes += w->first[0] != '\0';
			(void)snprintf(w->first, sizeof w->first, "%s", view[0].name);
			tell(w, view, n);
		}
		ask(w, view, n);
		after_change += strcmp(w->first, w->doomed) != 0;
		(void)poll(NULL, 0, PAUSE_MS); /* what a worker does between two requests */
	}
	sbx_board_close(w->board);
	sbx_close(w->client);
	w->tally->done = after_change == AFTER_CHANGE;
	return 0;
}

/* ---- the parent ---- */

/* Says by a file that each worker has had its answer from the first target. */
static int
wait_until_ready(const struct tally *tally, const char *dir)
{
	char path[512];
	const uint64_t until_ns = now_ns() + LIMIT_NS;
	for (int i = 0; i < WORKERS; i++)
		while (__atomic_load_n(&tally[i].first_answers, __ATOMIC_RELAXED) == 0) {
			if (now_ns() > until_ns || waitpid(-1, NULL, WNOHANG) != 0)
				return -1; /* also when one of them has ended already: none may yet */
			(void)poll(NULL, 0, 5);
		}
	(void)snprintf(path, sizeof path, "%s/ready", dir);
	const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	return fd < 0 ? -1 : close(fd);
}

static int
report(const struct tally *tally)
{
	int rc = 0;
	(void)printf("\n  %-8s %9s %7s %9s %14s %12s %12s\n", "worker", "requests", "failed", "failover", "changed mind", "ns a choice", "system calls");
	for (int i = 0; i < WORKERS; i++) {
		const struct tally *t = &tally[i];
		char calls[24] = "not counted", ns[24] = "-";
		if (t->counted)
			(void)snprintf(calls, sizeof calls, "%" PRIu64, t->calls);
		if (t->choices)
			(void)snprintf(ns, sizeof ns, "%" PRIu64, t->choice_ns / t->choices);
		(void)printf("  %-8d %9" PRIu64 " %7" PRIu64 " %9" PRIu64 " %14d %12s %12s\n", i + 1, t->requests, t->failed, t->rescued, t->changes, ns, calls);
		rc |= !t->done || t->failed || t->changes < 1 || (t->counted && t->calls);
	}
	return rc;
}

int
main(int argc, char **argv)
{
	struct tally *tally = mmap(NULL, WORKERS * sizeof *tally, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid[WORKERS];
	int bad = 0;

	if (argc != 3) {
		(void)fputs("usage: demo-workers ROUTE DIR\n", stderr);
		return 64;
	}
	if (tally == MAP_FAILED)
		return 1;
	for (int i = 0; i < WORKERS; i++) {
		pid[i] = fork();
		if (pid[i] == 0) {
			struct worker w = { .number = i + 1, .tally = &tally[i] };
			(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
			_exit(work(&w, argv[1]));
		}
		bad |= pid[i] < 0;
	}
	bad |= !bad && wait_until_ready(tally, argv[2]) != 0;
	for (int i = 0; i < WORKERS; i++) {
		int status = 0;
		if (bad && pid[i] > 0)
			(void)kill(pid[i], SIGTERM);
		if (pid[i] > 0 && waitpid(pid[i], &status, 0) == pid[i])
			bad |= status != 0;
	}
	return report(tally) || bad;
}
