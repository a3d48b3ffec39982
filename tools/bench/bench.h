/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench.h -- what the parts of the bench share.
 *
 * THE IDEA. A number alone says little on a machine that others use too, so each one is measured beside its floor: the same
 * work done by the least program that can do it, in the same run, in turns (floor, agent, floor, agent ...). What counts is
 * the ratio of neighbours; of many such ratios the median is told.
 *
 * WHO IS WHO. Everything under test is a process of its own, so that its CPU time and memory are its own:
 *   bench       starts the others, gives orders, reads the clocks (rig.c, measure.c), and reports (report.c, main.c)
 *   double      signalbox-mock, the provider
 *   agents      signalboxd, one for each kind of loop
 *   workers     this program again: `curl`, a bare libcurl multi loop on epoll (curl_worker.c): the floor;
 *               `client`, programs of the host that use libsignalbox (client_worker.c); `echo`, a Unix-socket ping-pong
 *               (echo_worker.c); `once`, the least program that makes one call (once_worker.c); `spin`, which keeps the
 *               cores awake (spin_worker.c); `relay`, a long line to the double (relay_worker.c); `cold`, a new program
 *               that wants its first byte over it (cold_worker.c)
 *
 * A worker is told what to do on a SOCK_SEQPACKET socket, one struct order a message, and answers each with one struct
 * outcome. Both ends are the same binary, so the structs are the format.
 */
#ifndef SBX_TOOLS_BENCH_H
#define SBX_TOOLS_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define WORKER_FD 3             /* where a worker finds its socket */
#define BODY_UP_BYTES 300u      /* request body of a short call */
#define BODY_DOWN_BYTES 700u    /* answer body of a short call */
#define BODY_STREAM_BYTES 2048u /* request body of a stream that is measured for memory */

#define RELAY_DELAY_NS 20000000ull /* of the long line, each way */

/* ---- orders and outcomes ---- */

enum order_kind {
	ORDER_CALLS, /* make n calls, `concurrency` at a time, each answered whole; answered when all are done */
	ORDER_OPEN,  /* have n streams open in all, those that are there included; answered when each brought an event */
	ORDER_COUNT, /* answered at once with the running totals */
	ORDER_CLOSE, /* give all streams up */
	ORDER_FIRST, /* cold: one streamed call; answered when it is through */
	ORDER_LAY,   /* relay: lay a line to `to`, a port; answered with the port of this end */
};

struct order {
	uint32_t kind;
	uint32_t n;
	uint32_t concurrency;
	uint32_t connections; /* client: handles to spread the requests over */
	uint32_t body_bytes;
	char to[160];         /* base URL of the provider, or path of the agent's socket */
	char ca_file[160];    /* curl and cold over TLS; "" = none */
	char model[64];
};

struct outcome {
	uint32_t failed;      /* calls or streams that went wrong: then the rest means nothing */
	char why[160];        /* the first of them */
	uint64_t cpu_ns;      /* COUNT: since the start of the process; CALLS: of these calls */
	uint64_t wall_ns;     /* CALLS */
	uint64_t p50_ns, p99_ns; /* CALLS: of one call */
	uint64_t events;      /* COUNT: stream events received */
	uint64_t first_ns;    /* FIRST: when the first byte was there, by CLOCK_MONOTONIC */
	uint32_t port;        /* LAY */
};

int curl_worker(void);
int client_worker(void);
int echo_worker(void);
int once_worker(const char *base_url);
int spin_worker(void);
int relay_worker(void);
int cold_worker(void);

/* ---- small things for workers (worker.c) ---- */
uint64_t now_ns(void);
uint64_t cpu_ns(void); /* of this process */
/* A chat request of exactly `bytes`; static storage, valid until the next call. */
const char *request_body(const char *model, bool stream, size_t bytes);
/* p50 and p99 of ns[0..n), which it sorts. */
void take_quantiles(uint64_t *ns, size_t n, struct outcome *o);
void fail_outcome(struct outcome *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool next_order(struct order *o); /* false = the bench is gone */
void answer(const struct outcome *o);

/* ---- processes (rig.c) ---- */

struct process {
	pid_t pid; /* 0 = not running */
	int fd;    /* socket of a worker; -1 = none */
	char name[24];
};

struct double_ {
	struct process process;
	char http[64], https[64]; /* base URLs */
	char ca_file[160];        /* "" without TLS */
};

enum loop_kind { LOOP_URING, LOOP_EPOLL, LOOP__COUNT };
extern const char *const loop_words[LOOP__COUNT]; /* as in --loop */
extern const char *const loop_names[LOOP__COUNT]; /* as STATS and people say */

struct agent {
	struct process process;
	char dir[100];    /* socket, configuration, store, snapshot of the board */
	char socket[120];
};

/* How an agent runs; all zero: as on a host, with a store and a board. */
struct agent_as {
	bool tls;
	bool alone;        /* without either: what they cost is the difference */
	uint32_t n_models; /* known by configuration, m0 ... ; the first FEW_TARGETS of them are the route "few" */
};
#define FEW_TARGETS 8u

/* All of these say on stderr what went wrong and return false. */
bool rig_open(void);      /* temporary directory, limits, signals */
void rig_close(void);     /* ends every process that was started and removes the directory */
bool rig_interrupted(void);
bool double_start(struct double_ *d, bool tls);
bool agent_start(struct agent *a, enum loop_kind loop, const struct double_ *d, const struct agent_as *as);
bool agent_spawn(struct agent *a, enum loop_kind loop, const struct double_ *d, const struct agent_as *as); /* does not wait until it serves */
bool agent_can_run(enum loop_kind loop);
bool worker_start(struct process *p, const char *kind);
/* Run the `once` worker to its end. */
bool once_run(const char *base_url);
/* Another program to its end, what it says into a file. */
bool program_run(const char *const *argv, const char *output);
void rig_built(char *to, size_t bytes, const char *name); /* path of a program or library under test */
void rig_file(char *to, size_t bytes, const char *name);  /* path in the temporary directory */
void process_stop(struct process *p);
bool tell(struct process *worker, const struct order *o, struct outcome *ret); /* order and wait for the outcome */
uint64_t process_cpu_ns(const struct process *p);
uint64_t process_rss_bytes(const struct process *p);
void pause_ns(uint64_t ns);
void say(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* an error, on stderr */

/* ---- figures (report.c) ---- */

enum limit_of { LIMIT_NONE, LIMIT_RATIO, LIMIT_VALUE, LIMIT_AT_LEAST /* the value */ };

struct figure {
	const char *name;   /* for programs: "cpu_per_request_c32" */
	const char *what;   /* for people */
	const char *loop;   /* NULL = of neither */
	const char *unit;   /* of value and floor: ns, us, ms, MiB, kB */
	const char *floor_is;
	double value, floor;
	double ratio, ratio_low, ratio_high; /* median, lower and upper quartile of the rounds; 0 = not a matter of ratios */
	double best, best_floor; /* each in its own calmest round: what a quiet machine would show; 0 = says nothing here */
	enum limit_of limit_of;
	double limit;
	uint32_t rounds;
	char detail[160];   /* "" = nothing more to say */
};

#define FIGURES_MAX 64
struct report {
	struct figure figure[FIGURES_MAX];
	uint32_t n;
	bool quick;
	double load;        /* average of the machine in the minute before: what others did */
	double took_s;
};

struct figure *report_add(struct report *r, const struct figure *f);
void report_table(const struct report *r, FILE *to);
int report_json(const struct report *r, FILE *to); /* 0, or -1: not written */
/* One thing measured in rounds. */
#define ROUNDS_MAX 16u
struct series {
	double value[ROUNDS_MAX], floor[ROUNDS_MAX], ratio[ROUNDS_MAX];
	uint32_t n;
};
void series_add(struct series *s, double value, double floor_);
void series_take(struct series *s, struct figure *f); /* medians and quartiles; sorts */
/* After series_take(), which sorted. For closed loops only: there a disturbance can but add. A stream that is disturbed comes in
 * bursts, and gets cheaper by it. */
void series_take_best(const struct series *s, struct figure *f);

/* Progress: one line on a tty that is written over, nothing elsewhere. */
void progress(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void progress_clear(void);

/* Median and quartiles of v[0..n), which it sorts. */
struct spread {
	double median, low, high;
};
struct spread spread_of(double *v, size_t n);

/* ---- measurements (measure.c, memory.c, board.c, cold.c, library.c) ---- */

struct bench {
	struct report report;
	bool loop[LOOP__COUNT]; /* which kinds can run here */
	bool quick;
};

bool measure_requests(struct bench *b); /* CPU a request, 32 at a time; with and without store and board */
bool measure_latency(struct bench *b);  /* one at a time: CPU a request, added latency */
bool measure_streams(struct bench *b);  /* CPU a stream event */
bool measure_memory(struct bench *b);   /* RSS idle and per stream */
bool measure_start(struct bench *b);    /* exec to first answer */
bool measure_board(struct bench *b);    /* a row, a choice; no system call */
bool measure_cold(struct bench *b);     /* a new process's first byte over a long line, through the agent and direct */
bool measure_library(struct bench *b);  /* its size, and what it needs */

#endif
