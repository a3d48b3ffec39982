/* SPDX-License-Identifier: Apache-2.0 */
/*
 * door.h -- the HTTP door in a test: its process, and a client that sends bytes as a test wants them and reads answers strictly.
 */
#ifndef SBX_TESTS_E2E_DOOR_H
#define SBX_TESTS_E2E_DOOR_H

#include "tests/e2e/harness.h"

struct door {
	pid_t pid;
	int port;                    /* of its first TCP listener */
	char path[160];              /* of its Unix socket */
	char key[128], log_path[160];
	struct world *w;
};

/* Starts it on a free port and on a Unix socket; args: further options, NULL-terminated, or NULL. */
void door_up(struct world *w, struct door *d, const char *const *args);
/* SIGTERM; the test fails if it ends badly, its log holds a key, or a sanitizer has spoken. */
void door_down(struct door *d);
int door_wait(struct door *d, int timeout_ms); /* exit status, -1 = still running */
bool door_log_has(struct door *d, const char *text);
uint64_t door_cpu_ms(struct door *d);
int64_t door_rss_bytes(struct door *d);
int door_fds(struct door *d);

/* ---- a client ---- */
int door_connect(struct door *d);            /* TCP */
int door_connect_unix(struct door *d);
void door_send(int fd, const void *bytes, size_t n);
void door_say(int fd, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A well-formed POST with the key; `more`: further header lines, each with its CRLF, or "". */
void door_post(struct door *d, int fd, const char *path, const char *more, const char *body);

struct http_answer {
	int status;                  /* 0 = the connection ended without an answer */
	char head[8192];             /* all of it, NUL-terminated */
	char *body;                  /* malloc'd, NUL-terminated, chunks put together */
	size_t body_bytes;
	bool whole;                  /* as long as announced, or with its last chunk */
	bool closed;                 /* the connection ended */
};
/* The next answer on fd: also when it is cut off. The test fails after timeout_ms. Free it with http_free(). */
void http_read(int fd, int timeout_ms, struct http_answer *ret_answer);
void http_free(struct http_answer *a);
const char *http_header(const struct http_answer *a, const char *name); /* NULL = not there; valid until the next call */
/* On a connection of its own: POST with the key, answer. */
void door_ask(struct door *d, const char *path, const char *more, const char *body, struct http_answer *ret_answer);
void door_get(struct door *d, const char *path, struct http_answer *ret_answer);
/* Bytes until `text` was seen among them; everything received is in *all (malloc'd, grows); fails after timeout_ms. */
void door_read_until(int fd, const char *text, int timeout_ms, char **all, size_t *n);
bool door_closed(int fd, int timeout_ms);    /* the other side has closed, or does so in time */

#define CHAT "/v1/chat/completions"
#define MESSAGES "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

#endif
