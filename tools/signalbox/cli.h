/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cli.h -- what the parts of the command `signalbox` share: exit codes, the terminal, the connection, interruption, tables.
 *
 * The command is an ordinary client: of the project it uses only <signalbox.h>.
 */
#ifndef SBX_TOOLS_SIGNALBOX_CLI_H
#define SBX_TOOLS_SIGNALBOX_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <jansson.h>

#include <signalbox.h>

enum cli_exit {
	CLI_OK = 0,
	CLI_FAILED = 1,    /* the request failed, a target is down, a configuration was refused */
	CLI_NO_AGENT = 2,  /* not reachable; nothing was done */
	CLI_USAGE = 64,    /* EX_USAGE of sysexits.h, which scripts know */
	CLI_SIGNAL = 128,  /* plus the signal's number: 130 after Ctrl-C */
};

/* ---- commands: main.c has the table ---- */
int cmd_ask(int argc, char **argv);
int cmd_health(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_reload(int argc, char **argv);
int cmd_stats(int argc, char **argv);
int cmd_key(int argc, char **argv);

/* ---- arguments (args.c) ---- */
/* Says what is wrong with the arguments of `command` and where help is. CLI_USAGE. */
int usage(const char *command, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Seconds, decimals allowed, as milliseconds from 1 to max_ms. */
bool parse_seconds(const char *text, uint32_t max_ms, uint32_t *ret_ms);
/* "90s", "30m", "24h", "7d", "4w" as milliseconds. */
bool parse_span(const char *text, uint64_t *ret_ms);
/* "2026-03-01" or "2026-03-01T14:30", UTC, as milliseconds since 1970. There is no 30th of February. */
bool parse_date(const char *text, uint64_t *ret_unix_ms);
/* The word that was most likely meant; NULL = none is near. words: NULL-terminated. */
const char *nearest_word(const char *word, const char *const *words);

/* ---- terminal (term.c) ---- */
enum style { STYLE_PLAIN, STYLE_DIM, STYLE_BOLD, STYLE_GOOD, STYLE_WARN, STYLE_BAD };

struct term {
	FILE *file;
	bool tty;
	bool colour; /* a tty that has not asked for none ($NO_COLOR, $TERM) */
};
struct term term_of(FILE *file);
/* Text that came from elsewhere. On a tty control characters are made visible: a model must not drive the terminal. */
void term_put(const struct term *t, const char *text, size_t n);
void term_style(const struct term *t, enum style style); /* STYLE_PLAIN ends any other */
/* One line, or a part of one; the text may hold what came from elsewhere. */
void term_say(const struct term *t, enum style style, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Columns and lines to fit into: $COLUMNS, else the terminal's, else 80; 0 lines = no limit. */
void term_size(const struct term *t, size_t *ret_columns, size_t *ret_lines);
/* Flushes standard output. CLI_OK, or CLI_FAILED when something could not be written, which it says. */
int close_output(void);

/* ---- figures for people (format.c) ---- */
void fmt_duration(char *to, size_t room, int64_t ms); /* "1.5 s", "12 min" */
void fmt_latency(char *to, size_t room, int64_t ms);  /* "412 ms"; "-" = none */
/* USD per million tokens, exactly: "0.15", "0.075". SBX_UNPRICED is "-". */
void fmt_price(char *to, size_t room, int64_t nanousd_per_million);

/* ---- tables (table.c) ---- */
#define TABLE_COLUMNS_MAX 20

struct table {
	const char *head[TABLE_COLUMNS_MAX]; /* one that begins with '>' is aligned to the right; "over|name" has a line above it,
	                                      * which neighbours with the same one share */
	size_t n_columns;
	char **cell;             /* row by row; owned */
	enum style *style;       /* one a row */
	size_t n_cells, room_cells;
	uint32_t hidden;         /* bit k = column k has no room */
	size_t first_max;        /* the first column is cut to it; 0 = whole */
};
/* head: NULL-terminated, borrowed. */
void table_init(struct table *t, const char *const *head);
void table_row(struct table *t, enum style style);                    /* the next cells belong to a row in this style */
void table_cell(struct table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Leaves out columns until a line is at most `width` wide: those of the highest rank first, those of rank 0 never; at last the
 * first column is cut. The last column, where it is left out, stands beneath its row instead. */
void table_fit(struct table *t, const uint8_t *rank, size_t width);
void table_print(const struct table *t, const struct term *to);
void table_fini(struct table *t);

/* ---- JSON (term.c) ---- */
json_t *json_text(const char *text, size_t n); /* null when it is not UTF-8 */
void json_print_line(const json_t *value);     /* to standard output; takes no reference */
/* The fields of a reply to other questions than SUBMIT, as the agent said them: members of its maps are members of objects again. */
void json_add_fields(json_t *object, const struct sbx_reply *reply);

/* ---- interruption (interrupt.c) ---- */
/* From now on the first SIGINT, SIGTERM or SIGHUP is only noted; a second one ends the process at once. */
void interrupt_init(void);
int interrupt_fd(void);     /* readable once one came; -1 = not to be had: then poll() ends with EINTR */
int interrupt_signal(void); /* its number; 0 = none came */

/* ---- the agent (agent.c) ---- */
/* Connects; says what is wrong and how to start the agent. CLI_OK or CLI_NO_AGENT. quiet: says nothing. */
int agent_open(const char *socket, bool quiet, struct sbx_client **ret_client);
/* What sbx_next() and sbx_process() may return beyond their own: */
#define AGENT_INTERRUPTED 1
/* The next event, waiting for it in a loop of its own that hears signals too. timeout_ms -1 = no limit. Standard output is
 * flushed before it waits. hear: false = signals were seen to already. 0, -SBX_E*, AGENT_INTERRUPTED. */
int agent_next(struct sbx_client *c, int timeout_ms, bool hear, struct sbx_event *ret_event);
/* The path of `name` beside the agent's socket: that one (NULL = none is named), else the one that the library would find.
 * False = too long. */
bool agent_path_beside(const char *socket, const char *name, char *ret_path, size_t path_bytes);
uint64_t monotonic_ms(void);

/* Memory for a command line tool: it ends the process when there is none. */
void *must(void *memory);

#endif
