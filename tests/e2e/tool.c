/* SPDX-License-Identifier: Apache-2.0 */
/* tool.c -- see tool.h. */
#include "tests/e2e/tool.h"

#include <errno.h>
#include <poll.h>
#include <pty.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define END_MS 60000 /* a sanitized program on a busy machine */

static void
run_child(const char *name, const char *const *args, const char *const *env)
{
	const char *argv[32] = { program(name) };
	for (int i = 0; args && args[i] && i < 30; i++)
		argv[i + 1] = args[i];
	for (int i = 0; env && env[i]; i++)
		if (strchr(env[i], '='))
			(void)putenv((char *)(uintptr_t)env[i]);
		else
			(void)unsetenv(env[i]);
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)execv(argv[0], (char *const *)argv);
	_exit(127);
}

void
tool_up(struct tool *t, const char *name, const char *const *args, const char *const *env, unsigned short columns)
{
	int fd[2] = { -1, -1 };
	struct winsize size = { 24, columns, 0, 0 };
	*t = (struct tool){ .fd = -1, .room = 4096, .said = calloc(1, 4096) };
	assert_non_null(t->said);
	if (columns) {
		t->pid = forkpty(&t->fd, NULL, NULL, &size);
	} else {
		assert_int_equal(pipe(fd), 0);
		t->fd = fd[0];
		t->pid = fork();
	}
	assert_true(t->pid >= 0);
	if (t->pid == 0) {
		if (!columns) {
			(void)dup2(fd[1], 1);
			(void)dup2(fd[1], 2);
			(void)close(fd[0]);
			(void)close(fd[1]);
		}
		run_child(name, args, env);
	}
	if (fd[1] >= 0)
		(void)close(fd[1]);
}

/* Takes what comes within that time; false = its end. */
static bool
take(struct tool *t, int timeout_ms)
{
	struct pollfd p = { .fd = t->fd, .events = POLLIN };
	if (poll(&p, 1, timeout_ms) <= 0)
		return true;
	if (t->n + 4096 > t->room) {
		t->room *= 2;
		t->said = realloc(t->said, t->room);
		assert_non_null(t->said);
	}
	ssize_t n = read(t->fd, t->said + t->n, 4095);
	if (n <= 0)
		return n < 0 && errno == EINTR; /* a terminal without a program gives EIO */
	t->n += (size_t)n;
	t->said[t->n] = 0;
	return true;
}

size_t
tool_wait(struct tool *t, size_t from, const char *text, int timeout_ms)
{
	for (uint64_t until = now_ms() + (uint64_t)timeout_ms;;) {
		const char *at = strstr(t->said + (from < t->n ? from : t->n), text);
		if (at)
			return (size_t)(at - t->said) + strlen(text);
		if (now_ms() > until || !take(t, 50))
			fail_msg("it did not say \"%s\" after byte %zu:\n%s", text, from, t->said);
	}
}

int
tool_down(struct tool *t, int timeout_ms)
{
	int status = 0;
	pid_t got = 0;
	for (uint64_t until = now_ms() + (uint64_t)timeout_ms; got == 0 && now_ms() < until;) {
		bool open = take(t, 10);
		got = waitpid(t->pid, &status, WNOHANG);
		if (!open && got == 0)
			(void)usleep(1000); /* between two looks at a condition that has a deadline */
	}
	if (got == 0) {
		(void)kill(t->pid, SIGKILL);
		(void)waitpid(t->pid, &status, 0);
		fail_msg("it did not end within %d ms:\n%s", timeout_ms, t->said);
	}
	size_t before;
	do { /* what it said last */
		before = t->n;
		(void)take(t, 0);
	} while (t->n > before);
	(void)close(t->fd);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int
tool_run(const char *name, const char *const *args, const char *const *env, char **ret_said)
{
	struct tool t;
	tool_up(&t, name, args, env, 0);
	int status = tool_down(&t, END_MS);
	*ret_said = t.said;
	return status;
}
