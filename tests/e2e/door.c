/* SPDX-License-Identifier: Apache-2.0 */
/* door.c -- see door.h. */
#include "tests/e2e/door.h"

#include <dirent.h>
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/e2e/control.h"

#define START_MS 20000
#define ANSWER_MAX_BYTES (256u << 20)

/* ---- the process ---- */

void
door_up(struct world *w, struct door *d, const char *const *args)
{
	char key_file[200];
	const char *argv[40];
	int n = 0;
	memset(d, 0, sizeof *d);
	d->w = w;
	(void)snprintf(d->path, sizeof d->path, "%s/http.sock", w->dir);
	(void)snprintf(d->log_path, sizeof d->log_path, "%s/door.log", w->dir);
	(void)snprintf(key_file, sizeof key_file, "%s/http.key", w->dir);
	const char *const usual[] = { "--socket", w->socket, "--key-file", key_file, "--listen", "127.0.0.1:0", "--listen", d->path, "--log", "debug" };
	for (size_t i = 0; i < sizeof usual / sizeof usual[0]; i++)
		argv[n++] = usual[i];
	for (int i = 0; args && args[i]; i++)
		argv[n++] = args[i];
	argv[n] = NULL;
	(void)unlink(d->log_path);
	d->pid = world_spawn(w, "signalbox-http", d->log_path, &(struct start){ .args = argv });
	uint64_t until = now_ms() + START_MS;
	for (;;) {
		char *log = read_whole(d->log_path, NULL), *at = log ? strstr(log, "address=127.0.0.1:") : NULL;
		size_t bytes = 0;
		char *key = read_whole(key_file, &bytes);
		if (at && key && bytes > 8 && strstr(log, "http.sock")) {
			d->port = (int)strtol(at + strlen("address=127.0.0.1:"), NULL, 10);
			(void)snprintf(d->key, sizeof d->key, "%.*s", (int)strcspn(key, "\n"), key);
		}
		if (d->port == 0 && (now_ms() >= until || world_wait(d->pid, 0) >= 0))
			fail_msg("the door did not start: %s", log ? log : "");
		free(log);
		free(key);
		if (d->port)
			return;
		pause_ms(2);
	}
}

int
door_wait(struct door *d, int timeout_ms)
{
	int status = world_wait(d->pid, timeout_ms);
	if (status >= 0)
		d->pid = 0;
	return status;
}

bool
door_log_has(struct door *d, const char *text)
{
	char *log = read_whole(d->log_path, NULL);
	bool has = log && strstr(log, text);
	free(log);
	return has;
}

void
door_down(struct door *d)
{
	int status = 0;
	if (d->pid) {
		pid_t pid = d->pid;
		(void)kill(pid, SIGTERM);
		status = door_wait(d, START_MS);
		if (status < 0)
			(void)kill(pid, SIGKILL);
	}
	char *log = read_whole(d->log_path, NULL);
	bool key = log && strstr(log, d->key);
	bool report = log && (strstr(log, "Sanitizer") || strstr(log, "runtime error"));
	if (status != 0 || key || report) {
		fprintf(stderr, "%s\nthe door ended with %d%s\n", log ? log : "", status, key ? ", and its log holds its key" : "");
		free(log);
		fail();
	}
	free(log);
}

static double
proc_number(pid_t pid, const char *file, int field)
{
	char path[64], text[1024], *at = text;
	(void)snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
	FILE *f = fopen(path, "re");
	if (!f)
		return -1;
	size_t n = fread(text, 1, sizeof text - 1, f);
	(void)fclose(f);
	text[n] = 0;
	char *behind_name = strrchr(text, ')');
	if (behind_name) {
		at = behind_name + 2;
		field -= 2;
	}
	for (; field > 0 && at; field--)
		at = (at = strchr(at, ' ')) ? at + 1 : NULL;
	return at ? strtod(at, NULL) : -1;
}

uint64_t
door_cpu_ms(struct door *d)
{
	return (uint64_t)((proc_number(d->pid, "stat", 13) + proc_number(d->pid, "stat", 14)) * 1000 / (double)sysconf(_SC_CLK_TCK));
}

int64_t
door_rss_bytes(struct door *d)
{
	return (int64_t)proc_number(d->pid, "statm", 1) * sysconf(_SC_PAGESIZE);
}

int
door_fds(struct door *d)
{
	char path[64];
	int n = -2; /* "." and ".." */
	(void)snprintf(path, sizeof path, "/proc/%d/fd", (int)d->pid);
	DIR *dir = opendir(path);
	assert_non_null(dir);
	while (readdir(dir))
		n++;
	(void)closedir(dir);
	return n;
}

/* ---- a client ---- */

/* Bytes of the next answer that came with the one before; one connection at a time is enough for the tests. */
static char *left;
static size_t left_bytes;
static int left_fd = -1;

static int
connected(int fd, const struct sockaddr *to, socklen_t bytes)
{
	left_fd = fd == left_fd ? -1 : left_fd;
	if (fd < 0 || connect(fd, to, bytes) < 0)
		fail_msg("cannot connect to the door: %s", strerror(errno));
	return fd;
}

int
door_connect(struct door *d)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)d->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	return connected(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), (struct sockaddr *)&to, sizeof to);
}

int
door_connect_unix(struct door *d)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	(void)snprintf(to.sun_path, sizeof to.sun_path, "%.100s", d->path);
	return connected(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), (struct sockaddr *)&to, sizeof to);
}

void
door_send(int fd, const void *bytes, size_t n)
{
	const char *at = bytes;
	while (n) {
		ssize_t sent = send(fd, at, n, MSG_NOSIGNAL);
		if (sent <= 0)
			return; /* the other side had enough: its answer tells */
		at += sent;
		n -= (size_t)sent;
	}
}

void
door_say(int fd, const char *fmt, ...)
{
	char *text;
	va_list ap;
	va_start(ap, fmt);
	int n = vasprintf(&text, fmt, ap);
	va_end(ap);
	assert_true(n >= 0);
	door_send(fd, text, (size_t)n);
	free(text);
}

void
door_post(struct door *d, int fd, const char *path, const char *more, const char *body)
{
	door_say(fd, "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n%s\r\n%s", path,
	         d->port, d->key, strlen(body), more, body);
}

/* At least one byte more: false at the end of the connection. */
static bool
more(int fd, uint64_t until_ms, char **all, size_t *n)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	uint64_t now = now_ms();
	if (poll(&p, 1, until_ms > now ? (int)(until_ms - now) : 0) <= 0)
		fail_msg("nothing came in time; so far: %.*s", (int)(*n < 2000 ? *n : 2000), *all ? *all : "");
	assert_true(*n < ANSWER_MAX_BYTES);
	char *grown = realloc(*all, *n + 65537);
	assert_non_null(grown);
	*all = grown;
	ssize_t got = recv(fd, *all + *n, 65536, 0);
	if (got > 0)
		*n += (size_t)got;
	(*all)[*n] = 0;
	return got > 0;
}

void
door_read_until(int fd, const char *text, int timeout_ms, char **all, size_t *n)
{
	uint64_t until = now_ms() + (uint64_t)timeout_ms;
	while (!*all || !memmem(*all, *n, text, strlen(text)))
		if (!more(fd, until, all, n))
			fail_msg("the connection ended before \"%s\": %s", text, *all ? *all : "");
}

bool
door_closed(int fd, int timeout_ms)
{
	uint64_t until = now_ms() + (uint64_t)timeout_ms;
	char dump[65536];
	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		uint64_t now = now_ms();
		if (poll(&p, 1, until > now ? (int)(until - now) : 0) <= 0)
			return false;
		if (recv(fd, dump, sizeof dump, 0) <= 0)
			return true;
	}
}

const char *
http_header(const struct http_answer *a, const char *name)
{
	static char value[512];
	size_t n = strlen(name);
	for (const char *line = strchr(a->head, '\n'); line; line = strchr(line + 1, '\n'))
		if (strncasecmp(line + 1, name, n) == 0 && line[1 + n] == ':') {
			const char *at = line + 2 + n + strspn(line + 2 + n, " ");
			(void)snprintf(value, sizeof value, "%.*s", (int)strcspn(at, "\r\n"), at);
			return value;
		}
	return NULL;
}

/* Takes the first n bytes off. */
static void
drop(char *all, size_t *have, size_t n)
{
	memmove(all, all + n, *have - n + 1);
	*have -= n;
}

static void
append(struct http_answer *a, const char *bytes, size_t n)
{
	a->body = realloc(a->body, a->body_bytes + n + 1);
	assert_non_null(a->body);
	memcpy(a->body + a->body_bytes, bytes, n);
	a->body_bytes += n;
	a->body[a->body_bytes] = 0;
}

static void
read_chunks(int fd, uint64_t until, char **all, size_t *n, struct http_answer *a)
{
	for (;;) {
		char *line_end, *end;
		while (!(line_end = strstr(*all, "\r\n")))
			if (!more(fd, until, all, n)) {
				a->closed = true;
				return;
			}
		size_t size = strtoul(*all, &end, 16), head = (size_t)(line_end - *all) + 2;
		assert_ptr_equal(end, line_end);
		while (*n < head + size + 2)
			if (!more(fd, until, all, n)) {
				append(a, *all + head, *n > head ? *n - head : 0);
				a->closed = true;
				return;
			}
		assert_memory_equal(*all + head + size, "\r\n", 2);
		append(a, *all + head, size);
		drop(*all, n, head + size + 2);
		if (size == 0) {
			a->whole = true;
			return;
		}
	}
}

void
http_read(int fd, int timeout_ms, struct http_answer *a)
{
	uint64_t until = now_ms() + (uint64_t)timeout_ms;
	char *all = NULL, *head_end = NULL;
	size_t n = 0;
	memset(a, 0, sizeof *a);
	if (left_fd == fd && left) {
		all = left;
		n = left_bytes;
	} else {
		free(left);
	}
	left = NULL;
	left_fd = -1;
	append(a, "", 0);
	while (!all || !(head_end = strstr(all, "\r\n\r\n")))
		if (!more(fd, until, &all, &n)) {
			a->closed = true;
			free(all);
			return;
		}
	size_t head_bytes = (size_t)(head_end - all) + 4;
	assert_true(head_bytes < sizeof a->head);
	memcpy(a->head, all, head_bytes);
	assert_memory_equal(a->head, "HTTP/1.1 ", 9);
	a->status = (int)strtol(a->head + 9, NULL, 10);
	drop(all, &n, head_bytes);
	const char *length = http_header(a, "Content-Length");
	if (a->status == 100) {
		a->whole = true;
	} else if (length) {
		size_t want = strtoul(length, NULL, 10);
		while (n < want && more(fd, until, &all, &n))
			;
		a->whole = n >= want;
		a->closed = n < want;
		append(a, all, n < want ? n : want);
		drop(all, &n, n < want ? n : want);
	} else if (http_header(a, "Transfer-Encoding")) {
		read_chunks(fd, until, &all, &n, a);
	} else {
		while (more(fd, until, &all, &n))
			;
		append(a, all, n);
		n = 0;
		a->closed = true;
	}
	if (n) {
		left = all;
		left_bytes = n;
		left_fd = fd;
	} else {
		free(all);
	}
}

void
http_free(struct http_answer *a)
{
	free(a->body);
	a->body = NULL;
}

void
door_ask(struct door *d, const char *path, const char *more_headers, const char *body, struct http_answer *a)
{
	int fd = door_connect(d);
	door_post(d, fd, path, more_headers, body);
	http_read(fd, 20000, a);
	(void)close(fd);
}

void
door_get(struct door *d, const char *path, struct http_answer *a)
{
	int fd = door_connect(d);
	door_say(fd, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %s\r\n\r\n", path, d->port, d->key);
	http_read(fd, 20000, a);
	(void)close(fd);
}
