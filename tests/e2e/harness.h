/* SPDX-License-Identifier: Apache-2.0 */
/*
 * harness.h -- real processes for end-to-end tests: doubles (signalbox-mock), the agent, and clients by libsignalbox.
 *
 * A world (struct world) is a temporary directory with everything in it. world_down() stops what runs, checks that the agent
 * ended in an orderly way (exit 0, no sanitizer report, no key in any file it wrote), and removes the directory; a test that failed
 * keeps it and prints where. Nothing sleeps for luck: every wait has a condition and a deadline, and failing to meet it ends
 * the test with what was waited for.
 *
 * The programs are found beside the test binary ($SBX_BUILD, set by the Makefile, else ../). $SIGNALBOX_LOOP reaches the agent, so that
 * the whole suite runs on either loop.
 */
#ifndef SBX_TESTS_E2E_HARNESS_H
#define SBX_TESTS_E2E_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <signalbox.h>

#define WORLD_DOUBLES_MAX 8
#define WORLD_KEY "sk-canary-7f3a9c51e2d84b06" /* every double demands it; no byte written anywhere may hold it */

struct double_ {                /* one signalbox-mock */
	pid_t pid;
	int http_port, tls_port;    /* 0 = none */
	int control_port;           /* rules and log; never broken by a fault */
	char name[32];
};

struct world {
	char dir[128];
	struct double_ dbl[WORLD_DOUBLES_MAX];
	int n_doubles;
	pid_t agent;                /* 0 = not running */
	char socket[160], admin_socket[160], config_path[160], log_path[160];
	char *config;               /* the text last given */
	const char *listen_more;    /* further members of its "listen", a comma before each; NULL = none */
	bool keep;
};

/* ---- life ---- */
void world_up(struct world *w);                              /* directory only */
void world_down(struct world *w);
/* One double more; args: further options of signalbox-mock, NULL-terminated ("--http2", "--rule", "...", NULL). Its index. */
#define DOUBLE_ANY_KEY "any-key" /* among args: it takes every key, and none */
int world_double(struct world *w, const char *name, const char *const *args);
/* Write the configuration and start the agent; returns once it answers. In the text, $N is replaced by double N's base URL over
 * HTTP ("http://127.0.0.1:PORT/v1"), $TN over TLS, $DIR by the directory, $CA by the doubles' CA file, and $KEY by "file:..." of a key file. `listen` is
 * added. args: further options of signalboxd, NULL = none. */
void world_agent(struct world *w, const char *config, const char *const *args);
/* What a start may need beyond that: all of it may be left zero. */
struct start {
	const char *const *args;      /* further options of the program, NULL-terminated */
	const char *const *env;       /* "NAME=value", put over the environment of the test; "NAME" takes one away; NULL-terminated */
	uint32_t nofile;              /* hard and soft limit of descriptors; 0 = that of the test */
	int listen_fd[2];             /* handed over as systemd does, from 3 on */
	int n_listen_fds;
	const char *listen_names;     /* LISTEN_FDNAMES */
	int denied_call, denied_errno; /* a system call that fails with that from the start on, as container runtimes deny it */
	bool bare;                    /* no --config and no --log: only args */
};
void world_agent_start(struct world *w, const char *config, const struct start *how); /* config NULL = no file is written */
/* Run a program of ours ("signalboxd") to its end; its exit status, and all that it said (malloc'd). */
int world_run(struct world *w, const char *name, const struct start *how, char **ret_said);
/* Another program of ours beside the agent; its output goes to log_path. It is the test's to wait for and to end. */
pid_t world_spawn(struct world *w, const char *name, const char *log_path, const struct start *how);
int world_wait(pid_t pid, int timeout_ms); /* exit status, or 128 + signal; -1 = still running */
/* A common case: n doubles named a, b, c ... each with rule text (NULL = healthy), plain HTTP, one route "r" over all of them with model "m", and
 * `extra` members at the top level of the configuration ("\"timeouts\": {...}"), or NULL. */
void world_simple(struct world *w, int n, const char *const *rules, const char *extra);
const char *program(const char *name);                        /* its path; static */
void world_agent_signal(struct world *w, int sig);
int world_agent_wait(struct world *w, int timeout_ms);        /* exit status, -1 = still running */
void world_reconfigure(struct world *w, const char *config);  /* writes the file only */

/* ---- the doubles' control and log ---- */
void double_rules(struct world *w, int n, const char *text);  /* PUT /mock/rules */
int double_requests(struct world *w, int n);                  /* POSTs seen so far */
/* Waits until double n has logged `count` requests in that state (NULL = any). Fails the test after timeout_ms. */
void double_wait(struct world *w, int n, int count, const char *state, int timeout_ms);
/* A number of entry i (0-based, oldest first) of the log of double n, e.g. "closed_after_ns"; -1 when absent. */
int64_t double_log_number(struct world *w, int n, int i, const char *field);
char *double_log_string(struct world *w, int n, int i, const char *field); /* malloc'd; NULL when absent */
char *double_get(struct world *w, int n, const char *method, const char *path, const char *body, int *ret_status); /* malloc'd body */

/* ---- clients ---- */
struct sbx_client *client_up(struct world *w);
/* A request body for route "r" with one user message: malloc-free static text. */
#define BODY "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"
/* Submit on route "r" (stream or whole), wait for the end, return the reply. Never NULL. Free with sbx_reply_free(). */
struct sbx_reply *ask(struct sbx_client *c, bool stream, uint32_t deadline_ms);
struct sbx_reply *ask_body(struct sbx_client *c, const char *route, const char *model, const char *body, bool stream, uint32_t deadline_ms);
int64_t agent_number(struct world *w, const char *name);      /* of STATS, by a connection of its own */
void agent_wait_number(struct world *w, const char *name, int64_t at_least, int timeout_ms);
void agent_wait_at_rest(struct world *w, int timeout_ms);     /* in_flight 0, upstream.active 0, nothing left to be stored */
int agent_fds(struct world *w);                               /* open descriptors of the agent */
int64_t agent_rss_bytes(struct world *w);
uint64_t agent_cpu_ms(struct world *w);                       /* user and system time so far; granularity 10 ms */
uint64_t now_ms(void);                                        /* monotonic */
uint64_t now_ns(void);
bool log_has(struct world *w, const char *text);              /* the agent's log so far */

#endif
