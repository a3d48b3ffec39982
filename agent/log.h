/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log.h -- structured log lines on standard error.
 *
 *   sbx_log(SBX_LOG_WARNING, "provider_disabled", SBX_STR("provider", name), SBX_INT("line", 12));
 *   2026-03-01T12:00:00.123Z level=warning event=provider_disabled provider=openai line=12
 *
 * A line is an event's name and typed fields; there is no format string into which a prompt, a body or a header could
 * slip. Values are cut at SBX_LOG_VALUE_MAX_BYTES, quoted where needed, and control characters are escaped, so a line is
 * one line. The last filter replaces every live key (sbx_redact). Under journald (standard error is its stream) the time
 * is left out and the level goes before the line as <N>.
 *
 * An event is written at most SBX_LOG_RATE times a second, by its name; what was held back is counted and told by one
 * line when its second is over (sbx_log_tick()). When standard error would block, the line is dropped and counted: a log
 * that nobody reads does not stop the agent. May be called from any thread.
 */
#ifndef SBX_AGENT_LOG_H
#define SBX_AGENT_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SBX_LOG_LINE_MAX_BYTES  4096 /* PIPE_BUF: a line is written whole, or not at all */
#define SBX_LOG_VALUE_MAX_BYTES 512
#define SBX_LOG_RATE            20   /* lines a second of one event */

enum sbx_log_level { /* syslog's numbers */
	SBX_LOG_ERROR = 3,
	SBX_LOG_WARNING = 4,
	SBX_LOG_NOTICE = 5,
	SBX_LOG_INFO = 6,
	SBX_LOG_DEBUG = 7,
};

struct sbx_log_field {
	const char *name; /* static text: lower case, digits, '_' */
	enum { SBX_LOG_F_NONE, SBX_LOG_F_STR, SBX_LOG_F_INT, SBX_LOG_F_UINT, SBX_LOG_F_BOOL, SBX_LOG_F_NS, SBX_LOG_F_ERRNO } type;
	union {
		struct { const char *at; size_t n; } str;
		int64_t i;
		uint64_t u;
	} v;
};

/* Fields. Text is borrowed for the call; NULL leaves the field out. The name must be a literal. */
#define SBX_STR(name, text)    sbx_log_str("" name, (text))
#define SBX_STRN(name, at, n)  sbx_log_strn("" name, (at), (n))
#define SBX_INT(name, value)   ((struct sbx_log_field){ "" name, SBX_LOG_F_INT, { .i = (value) } })
#define SBX_UINT(name, value)  ((struct sbx_log_field){ "" name, SBX_LOG_F_UINT, { .u = (value) } })
#define SBX_BOOL(name, value)  ((struct sbx_log_field){ "" name, SBX_LOG_F_BOOL, { .u = (value) ? 1u : 0u } })
#define SBX_NS(name, ns)       ((struct sbx_log_field){ "" name, SBX_LOG_F_NS, { .u = (ns) } })     /* as milliseconds */
#define SBX_ERRNO_F(name, err) ((struct sbx_log_field){ "" name, SBX_LOG_F_ERRNO, { .i = (err) } }) /* errno, either sign */

/* event: static text, compared by content for the rate. */
#define sbx_log(level, event, ...)                                                                                             \
	do {                                                                                                                   \
		if (sbx_log_wants(level)) {                                                                                    \
			const struct sbx_log_field log_fields_[] = { { 0 }, __VA_ARGS__ };                                     \
			sbx_log_write((level), (event), log_fields_ + 1, sizeof log_fields_ / sizeof log_fields_[0] - 1);      \
		}                                                                                                              \
	} while (0)

struct sbx_log_opts {
	int fd;                     /* 2 */
	enum sbx_log_level level;   /* lines above it are dropped at once; default INFO */
	bool journal;               /* write <N>, leave the time out; default: whether fd is journald's stream */
	uint64_t (*wall_ns)(void);  /* clocks, for tests */
	uint64_t (*mono_ns)(void);
};
struct sbx_log_opts sbx_log_default(void);
void sbx_log_init(const struct sbx_log_opts *opts); /* without it: the defaults; before other threads run */
void sbx_log_set_level(enum sbx_log_level level);
bool sbx_log_wants(enum sbx_log_level level);
/* "error", "warning", "notice", "info", "debug". Returns 0 or -1. */
int sbx_log_level_parse(const char *word, enum sbx_log_level *ret_level);

void sbx_log_write(enum sbx_log_level level, const char *event, const struct sbx_log_field *field, size_t n_fields);
/* Tells what was held back in seconds that are over. To be called now and then (the agent's heartbeat); `all` at the end. */
void sbx_log_tick(bool all);
uint64_t sbx_log_dropped(void); /* lines that standard error did not take, since start */

static inline struct sbx_log_field
sbx_log_strn(const char *name, const char *at, size_t n)
{
	return (struct sbx_log_field){ name, at ? SBX_LOG_F_STR : SBX_LOG_F_NONE, { .str = { at, n } } };
}

static inline struct sbx_log_field
sbx_log_str(const char *name, const char *text)
{
	return sbx_log_strn(name, text, text ? __builtin_strlen(text) : 0);
}

#endif
