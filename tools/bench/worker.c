/* SPDX-License-Identifier: Apache-2.0 */
/* worker.c -- what every worker needs: clocks, the request's body, quantiles, the socket to the bench. See bench.h. */
#include "tools/bench/bench.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define BODY_MAX_BYTES 65536u

static uint64_t
clock_ns(clockid_t clock)
{
	struct timespec ts;
	(void)clock_gettime(clock, &ts); /* cannot fail for these clocks */
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t
now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

uint64_t
cpu_ns(void)
{
	return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

const char *
request_body(const char *model, bool stream, size_t bytes)
{
	static char body[BODY_MAX_BYTES + 1];
	static const char tail[] = "\"}]}", word[] = "Say what you see from the window. ";
	int n = snprintf(body, sizeof body,
	                 "{\"model\":\"%s\",\"stream\":%s,%s\"messages\":[{\"role\":\"user\",\"content\":\"", model,
	                 stream ? "true" : "false", stream ? "\"stream_options\":{\"include_usage\":true}," : "");
	size_t at = n > 0 ? (size_t)n : 0;
	if (bytes > BODY_MAX_BYTES)
		bytes = BODY_MAX_BYTES;
	for (size_t i = 0; at + sizeof tail - 1 < bytes; i++)
		body[at++] = word[i % (sizeof word - 1)];
	memcpy(body + at, tail, sizeof tail);
	return body;
}

static int
by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

void
take_quantiles(uint64_t *ns, size_t n, struct outcome *o)
{
	if (!n)
		return;
	qsort(ns, n, sizeof *ns, by_size);
	o->p50_ns = ns[n / 2];
	o->p99_ns = ns[n * 99 / 100];
}

void
fail_outcome(struct outcome *o, const char *fmt, ...)
{
	va_list ap;
	if (o->failed++)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(o->why, sizeof o->why, fmt, ap); /* a cut message is still one */
	va_end(ap);
}

bool
next_order(struct order *o)
{
	ssize_t n;
	do
		n = recv(WORKER_FD, o, sizeof *o, 0);
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)sizeof *o;
}

void
answer(const struct outcome *o)
{
	(void)send(WORKER_FD, o, sizeof *o, MSG_NOSIGNAL); /* a bench that is gone ends us at the next order */
}
