/* SPDX-License-Identifier: Apache-2.0 */
/*
 * health.h -- the parts of `signalbox health`: arguments, choice of targets and exit status (health.c), the table and the JSON
 * (health_show.c, health_json.c). Where the facts come from: facts.h.
 */
#ifndef SBX_TOOLS_SIGNALBOX_HEALTH_H
#define SBX_TOOLS_SIGNALBOX_HEALTH_H

#include "tools/signalbox/facts.h"

/* ---- health.c ---- */
/* One target as it is judged: X(NAME, "word", style, how it counts) */
#define HEALTH_STATES(X)                                                                                                              \
	X(UP, "up", STYLE_PLAIN, 0) X(TRIAL, "trial", STYLE_WARN, 1) X(PROBING, "probing", STYLE_WARN, 1)                             \
	X(THROTTLED, "throttled", STYLE_WARN, 1) X(DOWN, "down", STYLE_BAD, 1) X(MISCONFIGURED, "misconfigured", STYLE_BAD, 1)        \
	X(SHUT, "keys shut", STYLE_BAD, 1) X(NO_KEY, "no key", STYLE_DIM, 0) X(UNKNOWN, "unknown", STYLE_BAD, 1)
enum health_state {
#define X(name, word, style, counts) HEALTH_##name,
	HEALTH_STATES(X)
#undef X
	HEALTH__COUNT
};

struct health_row {
	struct sbx_target_view view;
	enum health_state state;
	bool has_since;          /* since_boot_ns of the view is that of this state; a throttle's beginning is not on the board */
};

/* What is to be shown of the facts. */
struct health {
	const struct facts *facts;
	struct health_row *row;  /* owned */
	size_t n_rows;
	struct sbx_credential_view *key; /* owned: those that are shut */
	size_t n_keys;
	size_t n_in[HEALTH__COUNT]; /* rows in each state */
	int status;              /* CLI_OK, CLI_FAILED, CLI_NO_AGENT */
};
const char *health_word(enum health_state state);
enum style health_style(enum health_state state);
int64_t ms_up(uint64_t ns);                            /* rounded up: what was measured is never 0 */
/* Error rate of the last 30 s in tenths of a percent; -1 = nothing ended. */
int64_t health_permille_bad(const struct sbx_target_view *v);

/* ---- health_show.c, health_json.c ---- */
void health_show(const struct health *h, const struct term *to, bool wide);
json_t *health_json(const struct health *h);

#endif
