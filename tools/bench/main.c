/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c -- bench: arguments, the measurements in their order, the report. See bench.h for the idea.
 *
 * It measures and does not judge: a missed target is told, and the exit status is 0. 1 = something could not be measured.
 */
#include "tools/bench/bench.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#define EXIT_USAGE 64

static const char help[] =
	"bench -- what the agent costs, each figure beside the least that the same work can cost\n"
	"\n"
	"usage: bench [options]           (or: make bench BENCH=\"options\")\n"
	"  --only NAME   requests, latency, streams, memory or start; repeatable\n"
	"  --loop KIND   uring or epoll only (default: both, where the kernel lets us)\n"
	"  --quick       few rounds: a minute, for a first look\n"
	"  --json        the report for programs, on standard output\n"
	"  --help\n"
	"\n"
	"Everything is measured side by side in one run; believe the ratios, not the microseconds. A full run takes some three\n"
	"minutes. A missed target is no error; exit status 1 says that something could not be measured.\n";

static const struct measurement {
	const char *name;
	bool (*run)(struct bench *b);
} measurements[] = {
	{ "requests", measure_requests },
	{ "latency", measure_latency },
	{ "streams", measure_streams },
	{ "memory", measure_memory },
	{ "start", measure_start },
	{ "board", measure_board },
	{ "cold", measure_cold },
	{ "library", measure_library },
};
#define N_MEASUREMENTS (sizeof measurements / sizeof measurements[0])

static int
usage(const char *what, const char *word)
{
	(void)fprintf(stderr, "bench: %s%s; see bench --help\n", what, word);
	return EXIT_USAGE;
}

static int
work(const char *kind, const char *arg)
{
	if (strcmp(kind, "curl") == 0)
		return curl_worker();
	if (strcmp(kind, "client") == 0)
		return client_worker();
	if (strcmp(kind, "echo") == 0)
		return echo_worker();
	if (strcmp(kind, "spin") == 0)
		return spin_worker();
	if (strcmp(kind, "relay") == 0)
		return relay_worker();
	if (strcmp(kind, "cold") == 0)
		return cold_worker();
	if (strcmp(kind, "once") == 0 && arg)
		return once_worker(arg);
	return usage("no such worker: ", kind);
}

static bool
choose(const char *word, const char *const *words, size_t stride, bool *chosen, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(word, *(const char *const *)((const char *)words + i * stride)) == 0) {
			chosen[i] = true;
			return true;
		}
	return false;
}

/* Which loops to measure: those asked for, else those that this kernel lets us use. False: none. */
static bool
find_loops(struct bench *b, const bool *asked)
{
	bool any_asked = false, any = false;
	for (int k = 0; k < LOOP__COUNT; k++)
		any_asked |= asked[k];
	for (int k = 0; k < LOOP__COUNT; k++) {
		if (any_asked && !asked[k])
			continue;
		progress("trying the loops");
		b->loop[k] = agent_can_run((enum loop_kind)k);
		any |= b->loop[k];
		if (!b->loop[k] && !rig_interrupted())
			say("signalboxd does not run on %s here: left out", loop_names[k]);
	}
	return any;
}

static bool
measure(struct bench *b, const bool *asked_loop, const bool *only)
{
	bool any_only = false, ok = true;
	uint64_t from_ns = now_ns();
	for (size_t i = 0; i < N_MEASUREMENTS; i++)
		any_only |= only[i];
	if (getloadavg(&b->report.load, 1) != 1)
		b->report.load = 0;
	if (!find_loops(b, asked_loop))
		return false;
	for (size_t i = 0; i < N_MEASUREMENTS && !rig_interrupted(); i++)
		if ((!any_only || only[i]) && !measurements[i].run(b)) {
			if (!rig_interrupted())
				say("%s could not be measured", measurements[i].name);
			ok = false;
		}
	b->report.quick = b->quick;
	b->report.took_s = (double)(now_ns() - from_ns) / 1e9;
	return ok;
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "only", required_argument, NULL, 'o' }, { "loop", required_argument, NULL, 'l' }, { "quick", no_argument, NULL, 'q' },
		{ "json", no_argument, NULL, 'j' },       { "help", no_argument, NULL, 'h' },       { NULL, 0, NULL, 0 },
	};
	static struct bench b;
	bool json = false, only[N_MEASUREMENTS] = { false }, loop[LOOP__COUNT] = { false };
	int opt;
	if (argc >= 3 && strcmp(argv[1], "--worker") == 0) /* ourselves, see bench.h */
		return work(argv[2], argv[3]);
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'o':
			if (!choose(optarg, &measurements[0].name, sizeof measurements[0], only, N_MEASUREMENTS))
				return usage("there is no measurement ", optarg);
			break;
		case 'l':
			if (!choose(optarg, loop_words, sizeof loop_words[0], loop, LOOP__COUNT))
				return usage("there is no loop ", optarg);
			break;
		case 'q':
			b.quick = true;
			break;
		case 'j':
			json = true;
			break;
		case 'h':
			(void)fputs(help, stdout);
			return EXIT_SUCCESS;
		default:
			return EXIT_USAGE;
		}
	}
	if (optind < argc)
		return usage("it takes no arguments: ", argv[optind]);
	bool ok = rig_open() && measure(&b, loop, only);
	rig_close();
	if (rig_interrupted())
		return 130;
	if (json)
		ok &= report_json(&b.report, stdout) == 0;
	else if (b.report.n)
		report_table(&b.report, stdout);
	return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
