/* SPDX-License-Identifier: Apache-2.0 */
/* tool.h -- a program of ours that runs beside a test, on a pipe or on a terminal, and what it has written so far. */
#ifndef SBX_TESTS_E2E_TOOL_H
#define SBX_TESTS_E2E_TOOL_H

#include "tests/e2e/harness.h"

struct tool {
	pid_t pid;
	int fd;           /* its output comes from here; a terminal's keys go in here */
	char *said;       /* NUL-terminated; owned */
	size_t n, room;
};
/* Standard output and error in one. columns 0 = a pipe, else a terminal of that width and 24 lines. env as in struct start. */
void tool_up(struct tool *t, const char *name, const char *const *args, const char *const *env, unsigned short columns);
/* Waits until it has said this after the first `from` bytes; returns where that ends. */
size_t tool_wait(struct tool *t, size_t from, const char *text, int timeout_ms);
/* Waits for its end; exit status, or 128 + signal. */
int tool_down(struct tool *t, int timeout_ms);
/* All in one: run it to its end on a pipe. Exit status; what it said is malloc'd. */
int tool_run(const char *name, const char *const *args, const char *const *env, char **ret_said);

#endif
