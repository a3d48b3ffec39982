/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log.c -- see log.h.
 *
 * A line is built in one buffer on the stack, filtered and written with one write(). Everything that is not visible ASCII
 * is escaped as \xNN: a terminal's control sequences hide in UTF-8 too, and an escaped line can always be read back.
 */
#include "agent/log.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/keys.h"

#define NS_PER_S    UINT64_C(1000000000)
#define EVENTS_MAX  96   /* distinct event names that are counted apart; the rest share one counter */
#define RAW_MAX     4096 /* bytes of a value that are looked at; longer than any key that a cut could split before it */
#define LINE_RESERVE 5   /* "...", the line feed */

struct event_rate {
	const char *event;
	uint64_t second;     /* of mono_ns */
	uint32_t written, held;
};

static struct {
	pthread_mutex_t lock;
	bool ready;
	struct sbx_log_opts opts;
	struct event_rate rate[EVENTS_MAX + 1];
	uint32_t n_rates;
	uint64_t dropped;       /* since start */
	uint64_t dropped_told;
} state = { .lock = PTHREAD_MUTEX_INITIALIZER };

static enum sbx_log_level threshold = SBX_LOG_INFO; /* read without the lock */

static const struct {
	enum sbx_log_level level;
	const char *word;
} levels[] = {
	{ SBX_LOG_ERROR, "error" }, { SBX_LOG_WARNING, "warning" }, { SBX_LOG_NOTICE, "notice" },
	{ SBX_LOG_INFO, "info" },   { SBX_LOG_DEBUG, "debug" },
};
#define N_LEVELS (sizeof levels / sizeof levels[0])

/* ==== set-up ==== */

static uint64_t
clock_ns(clockid_t id)
{
	struct timespec ts;
	(void)clock_gettime(id, &ts); /* both clocks always exist */
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static uint64_t
wall_clock_ns(void)
{
	return clock_ns(CLOCK_REALTIME);
}

static uint64_t
mono_clock_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

/* $JOURNAL_STREAM is "DEVICE:INODE" of the stream that the manager connected; it is ours only if standard error still is
 * that stream. */
static bool
is_journal(int fd)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;
	if (!stream || sscanf(stream, "%llu:%llu", &dev, &ino) != 2 || fstat(fd, &st) < 0)
		return false;
	return dev == st.st_dev && ino == st.st_ino;
}

struct sbx_log_opts
sbx_log_default(void)
{
	return (struct sbx_log_opts){
		.fd = STDERR_FILENO,
		.level = SBX_LOG_INFO,
		.journal = is_journal(STDERR_FILENO),
		.wall_ns = wall_clock_ns,
		.mono_ns = mono_clock_ns,
	};
}

void
sbx_log_init(const struct sbx_log_opts *opts)
{
	(void)pthread_mutex_lock(&state.lock);
	state.opts = *opts;
	state.ready = true;
	state.n_rates = 0;
	memset(state.rate, 0, sizeof state.rate);
	state.dropped = state.dropped_told = 0;
	(void)pthread_mutex_unlock(&state.lock);
	sbx_log_set_level(opts->level);
}

void
sbx_log_set_level(enum sbx_log_level level)
{
	__atomic_store_n(&threshold, level, __ATOMIC_RELAXED); /* a filter, it orders nothing */
}

bool
sbx_log_wants(enum sbx_log_level level)
{
	return level <= __atomic_load_n(&threshold, __ATOMIC_RELAXED);
}

int
sbx_log_level_parse(const char *word, enum sbx_log_level *ret_level)
{
	for (size_t i = 0; i < N_LEVELS; i++) {
		if (strcmp(levels[i].word, word) == 0) {
			*ret_level = levels[i].level;
			return 0;
		}
	}
	return -1;
}

/* ==== a line ==== */

struct line {
	char at[SBX_LOG_LINE_MAX_BYTES];
	size_t n;
	bool full; /* something did not fit: nothing more is added */
};

static void
put(struct line *l, const char *text, size_t n)
{
	if (l->full || n > sizeof l->at - LINE_RESERVE - l->n) {
		l->full = true;
		return;
	}
	memcpy(l->at + l->n, text, n);
	l->n += n;
}

static void __attribute__((format(printf, 2, 3)))
put_fmt(struct line *l, const char *fmt, ...)
{
	char text[96]; /* numbers and static words */
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	put(l, text, n < 0 ? 0 : (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
}

static bool
is_plain(const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (text[i] <= 0x20 || text[i] > 0x7e || text[i] == '"' || text[i] == '=' || text[i] == '\\')
			return false;
	return n > 0;
}

/* Keys are replaced before the value is cut: half a key would not be recognised. */
static void
put_value(struct line *l, const char *at, size_t n)
{
	char raw[RAW_MAX];
	bool cut = n > sizeof raw;
	n = cut ? sizeof raw : n;
	if (n)
		memcpy(raw, at, n);
	n = sbx_redact(raw, n);
	if (n > SBX_LOG_VALUE_MAX_BYTES) {
		n = SBX_LOG_VALUE_MAX_BYTES;
		cut = true;
	}
	if (!cut && is_plain(raw, n)) {
		put(l, raw, n);
		return;
	}
	put(l, "\"", 1);
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)raw[i];
		if (c == '"' || c == '\\')
			put(l, (char[]){ '\\', (char)c }, 2);
		else if (c == '\n')
			put(l, "\\n", 2);
		else if (c < 0x20 || c > 0x7e)
			put_fmt(l, "\\x%02x", c);
		else
			put(l, raw + i, 1);
	}
	put(l, cut ? "...\"" : "\"", cut ? 4 : 1);
}

static void
put_field(struct line *l, const struct sbx_log_field *f)
{
	if (f->type == SBX_LOG_F_NONE)
		return;
	put_fmt(l, " %s=", f->name);
	switch (f->type) {
	case SBX_LOG_F_STR: put_value(l, f->v.str.at, f->v.str.n); break;
	case SBX_LOG_F_INT: put_fmt(l, "%" PRId64, f->v.i); break;
	case SBX_LOG_F_UINT: put_fmt(l, "%" PRIu64, f->v.u); break;
	case SBX_LOG_F_BOOL: put_fmt(l, "%s", f->v.u ? "true" : "false"); break;
	case SBX_LOG_F_NS: put_fmt(l, "%" PRIu64 ".%03" PRIu64 "ms", f->v.u / 1000000, f->v.u / 1000 % 1000); break;
	case SBX_LOG_F_ERRNO: {
		int err = (int)(f->v.i < 0 ? -f->v.i : f->v.i);
		const char *name = strerrorname_np(err);
		if (name)
			put_fmt(l, "%s", name);
		else
			put_fmt(l, "%d", err);
		break;
	}
	case SBX_LOG_F_NONE: break;
	}
}

static const char *
level_word(enum sbx_log_level level)
{
	for (size_t i = 0; i < N_LEVELS; i++)
		if (levels[i].level == level)
			return levels[i].word;
	return "notice";
}

static void
put_time(struct line *l, uint64_t wall_ns)
{
	time_t s = (time_t)(wall_ns / NS_PER_S);
	struct tm tm;
	char text[32];
	if (gmtime_r(&s, &tm) && strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm))
		put_fmt(l, "%s.%03uZ ", text, (unsigned)(wall_ns % NS_PER_S / 1000000));
}

/* One write, if the descriptor takes it at once. A pipe that says it is writable has room for PIPE_BUF bytes. */
static void
write_line(const char *at, size_t n)
{
	struct pollfd p = { .fd = state.opts.fd, .events = POLLOUT };
	int ready;
	do
		ready = poll(&p, 1, 0);
	while (ready < 0 && errno == EINTR);
	ssize_t done = -1;
	if (ready == 1 && !(p.revents & (POLLERR | POLLNVAL))) /* a pipe without a reader would raise SIGPIPE */
		do
			done = write(state.opts.fd, at, n);
		while (done < 0 && errno == EINTR);
	if (done < 0)
		state.dropped++;
}

/* With the lock held. */
static void
emit(enum sbx_log_level level, const char *event, const struct sbx_log_field *field, size_t n_fields)
{
	struct line l = { .n = 0 };
	if (state.opts.journal)
		put_fmt(&l, "<%d>", (int)level);
	else
		put_time(&l, state.opts.wall_ns());
	put_fmt(&l, "level=%s event=%s", level_word(level), event);
	for (size_t i = 0; i < n_fields; i++)
		put_field(&l, &field[i]);
	if (l.full) {
		memcpy(l.at + l.n, " ...", 4);
		l.n += 4;
	}
	l.n = sbx_redact(l.at, l.n);
	l.at[l.n++] = '\n';
	write_line(l.at, l.n);
}

/* ==== the rate ==== */

static struct event_rate *
rate_of(const char *event)
{
	for (uint32_t i = 0; i < state.n_rates; i++)
		if (strcmp(state.rate[i].event, event) == 0)
			return &state.rate[i];
	if (state.n_rates == EVENTS_MAX) {
		state.rate[EVENTS_MAX].event = "other";
		return &state.rate[EVENTS_MAX];
	}
	struct event_rate *r = &state.rate[state.n_rates++];
	*r = (struct event_rate){ .event = event };
	return r;
}

static void
tell_held(struct event_rate *r)
{
	if (r->held) {
		const struct sbx_log_field fields[] = { SBX_STR("of", r->event), SBX_UINT("lines", r->held) };
		r->held = 0;
		emit(SBX_LOG_NOTICE, "log_held_back", fields, 2);
	}
}

static void
tell_dropped(void)
{
	if (state.dropped != state.dropped_told) {
		const struct sbx_log_field fields[] = { SBX_UINT("lines", state.dropped - state.dropped_told) };
		uint64_t before = state.dropped;
		emit(SBX_LOG_WARNING, "log_lines_lost", fields, 1);
		if (state.dropped == before)
			state.dropped_told = before;
		else
			state.dropped = before; /* this line itself is not one that anybody misses */
	}
}

static void
ensure_ready(void)
{
	if (!state.ready) {
		state.opts = sbx_log_default();
		state.ready = true;
	}
}

void
sbx_log_write(enum sbx_log_level level, const char *event, const struct sbx_log_field *field, size_t n_fields)
{
	int saved_errno = errno;
	(void)pthread_mutex_lock(&state.lock);
	ensure_ready();
	struct event_rate *r = rate_of(event);
	uint64_t second = state.opts.mono_ns() / NS_PER_S;
	if (r->second != second) {
		tell_held(r);
		r->second = second;
		r->written = 0;
	}
	if (r->written < SBX_LOG_RATE) {
		r->written++;
		tell_dropped();
		emit(level, event, field, n_fields);
	} else {
		r->held++;
	}
	(void)pthread_mutex_unlock(&state.lock);
	errno = saved_errno;
}

void
sbx_log_tick(bool all)
{
	int saved_errno = errno;
	(void)pthread_mutex_lock(&state.lock);
	ensure_ready();
	uint64_t second = state.opts.mono_ns() / NS_PER_S;
	for (uint32_t i = 0; i <= EVENTS_MAX; i++)
		if (state.rate[i].held && (all || state.rate[i].second != second))
			tell_held(&state.rate[i]);
	tell_dropped();
	(void)pthread_mutex_unlock(&state.lock);
	errno = saved_errno;
}

uint64_t
sbx_log_dropped(void)
{
	(void)pthread_mutex_lock(&state.lock);
	uint64_t n = state.dropped;
	(void)pthread_mutex_unlock(&state.lock);
	return n;
}
