/* SPDX-License-Identifier: Apache-2.0 */
/*
 * facts.c -- where the facts come from, and what becomes of the agent behind them. See facts.h.
 *
 * A living agent is connected to once; its WELCOME brings the board, no question is asked, and from then on its memory is read.
 * Only when that memory says that the agent is gone (replaced, stopped, no heartbeat) is it looked for again. Without one, the
 * facts are those of the snapshot beside its socket.
 *
 * What is said of an agent that does not answer rests on two signs each: connecting timed out and the process is there: hung.
 * Nobody listens and the process is gone: dead. It wrote that it stopped: stopped. Nobody listens, and nothing is known of the
 * process, or it is there: unreachable; perhaps it listens elsewhere.
 */
#include "tools/signalbox/facts.h"

#include <string.h>

static const struct {
	const char *word;
	bool takes_requests;
} words[] = {
#define X(name, word, takes) { word, takes },
	AGENT_WORDS(X)
#undef X
};

const char *
agent_word(enum agent_word agent)
{
	return words[agent].word;
}

bool
agent_takes_requests(enum agent_word agent)
{
	return words[agent].takes_requests;
}

static enum agent_word
word_of(enum sbx_life life)
{
	switch (life) {
	case SBX_LIFE_STARTING: return AGENT_STARTING;
	case SBX_LIFE_SERVING: return AGENT_SERVING;
	case SBX_LIFE_DRAINING: return AGENT_DRAINING;
	case SBX_LIFE_STOPPED: return AGENT_STOPPED;
	case SBX_LIFE_REPLACED: return AGENT_REPLACED;
	case SBX_LIFE_DEAD: return AGENT_DEAD;
	case SBX_LIFE_HUNG: return AGENT_HUNG;
	case SBX_LIFE_STALE: break; /* hung or dead: its process cannot be seen from here */
	}
	return AGENT_UNREACHABLE;
}

/* ---- clocks ---- */

int64_t
ms_between(uint64_t from_ns, uint64_t to_ns)
{
	return to_ns > from_ns ? (int64_t)((to_ns - from_ns) / 1000000) : 0;
}

/* Now, on the board's own clock, and how old the facts are. */
static void
read_clocks(struct facts *f)
{
	f->now_boot_ns = sbx_boot_ns();
	f->age_ms = -1;
	if (!f->board)
		return;
	sbx_board_describe(f->board, &f->info);
	f->now_boot_ns = sbx_board_now(f->board);
	f->age_ms = ms_between(f->info.heartbeat_boot_ns, f->now_boot_ns);
}

/* ---- boards ---- */

static void
drop(struct facts *f)
{
	sbx_board_close(f->board);
	sbx_close(f->client);
	f->board = NULL;
	f->client = NULL;
	f->snapshot_path[0] = 0;
}

/* The agent has announced another board on our connection. */
static bool
take_newer(struct facts *f)
{
	struct sbx_board *newer;
	if (!f->client || sbx_board(f->client, &newer))
		return false;
	sbx_board_close(f->board);
	f->board = newer;
	return sbx_board_life(newer, sbx_boot_ns()) != SBX_LIFE_REPLACED;
}

/* Connects, and takes the board that comes with the welcome. As sbx_open(), whose answer says how the agent is; -SBX_ENOBOARD: it
 * answers, and has none. */
static int
connect_agent(struct facts *f, uint32_t timeout_ms)
{
	struct sbx_open_options options = SBX_OPEN_OPTIONS_INIT;
	struct sbx_client *c = NULL;
	struct sbx_board *b = NULL;
	options.socket = f->socket;
	options.name = "signalbox health";
	options.timeout_ms = timeout_ms;
	int rc = sbx_open(&options, &c);
	if (rc == 0)
		rc = sbx_board(c, &b) ? -SBX_ENOBOARD : 0;
	if (rc == 0) {
		drop(f);
		f->client = c;
		f->board = b;
		f->says[0] = 0;
		return 0;
	}
	(void)snprintf(f->says, sizeof f->says, "%s", c ? sbx_client_error(c) : "out of memory");
	sbx_close(c);
	return rc;
}

static void
load_snapshot(struct facts *f)
{
	char path[sizeof f->snapshot_path], why[256] = "";
	struct sbx_board *b = NULL;
	int rc = -SBX_ENOENT;
	const size_t n = strlen(f->says);
	if (f->snapshot)
		(void)snprintf(path, sizeof path, "%s", f->snapshot);
	if (f->snapshot || agent_path_beside(f->socket, "board.snapshot", path, sizeof path))
		rc = sbx_board_load(path, &b, why, sizeof why);
	drop(f);
	if (rc)
		(void)snprintf(f->says + n, sizeof f->says - n, "%s%s", n ? "; " : "", why);
	else
		memcpy(f->snapshot_path, path, sizeof path);
	f->board = b;
}

/* No answer from it, and a snapshot of it at most. */
static enum agent_word
judge_silent(const struct facts *f, int rc)
{
	if (!f->board)
		return rc == -SBX_ETIME ? AGENT_HUNG : AGENT_UNREACHABLE;
	const enum sbx_life life = sbx_board_probe(f->board, sbx_board_now(f->board));
	if (life == SBX_LIFE_STOPPED || life == SBX_LIFE_DEAD)
		return word_of(life);
	return rc == -SBX_ETIME ? AGENT_HUNG : AGENT_UNREACHABLE;
}

/* ---- */

void
facts_init(struct facts *f, const char *socket, const char *snapshot)
{
	*f = (struct facts){ .socket = socket, .snapshot = snapshot, .age_ms = -1 };
}

void
facts_look(struct facts *f, uint32_t timeout_ms)
{
	enum sbx_life life = f->client ? sbx_board_life(f->board, sbx_boot_ns()) : SBX_LIFE_STOPPED;
	if (life == SBX_LIFE_REPLACED && take_newer(f))
		life = sbx_board_life(f->board, sbx_boot_ns());
	if (life == SBX_LIFE_STALE)
		life = sbx_board_probe(f->board, sbx_boot_ns());
	const bool lives = life == SBX_LIFE_STARTING || life == SBX_LIFE_SERVING || life == SBX_LIFE_DRAINING;
	if (lives || life == SBX_LIFE_HUNG) { /* its memory is newer than its snapshot */
		f->agent = word_of(life);
		f->says[0] = 0;
	} else {
		const int rc = connect_agent(f, timeout_ms);
		if (rc == 0) {
			f->agent = word_of(sbx_board_life(f->board, sbx_boot_ns()));
		} else if (rc == -SBX_ENOBOARD) {
			drop(f);
			f->agent = AGENT_SERVING;
		} else if (f->client) { /* what we still hold is as new as it can be */
			f->agent = word_of(life);
		} else {
			load_snapshot(f);
			f->agent = judge_silent(f, rc);
		}
	}
	read_clocks(f);
}

void
facts_fini(struct facts *f)
{
	drop(f);
}
