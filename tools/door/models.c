/* SPDX-License-Identifier: Apache-2.0 */
/*
 * models.c -- what is answered without asking a model: which models there are, and whether all is well.
 *
 * The list is the board's: routes first, then targets ("provider/model"); no system call. Where the board does not arrive (a
 * sandbox, an agent that we have not spoken to yet) the agent is asked for STATS, which also makes the connection. By its bare
 * name a model can be asked for as well, and so be looked up, but it is not listed twice.
 */
#include "tools/door/door.h"

#include <jansson.h>

#define STATS_TARGET "target."
#define STATS_STATE ".state"

/* ---- the list ---- */

static json_t *
model(const char *id, size_t n, const char *owner, size_t owner_bytes, int64_t created_s)
{
	return json_pack("{s:s%, s:s, s:I, s:s%}", "id", id, n, "object", "model", "created", (json_int_t)created_s, "owned_by", owner, owner_bytes);
}

static void
add(json_t *list, const char *id, size_t n, const char *owner, size_t owner_bytes, int64_t created_s)
{
	json_t *entry = model(id, n, owner, owner_bytes, created_s);
	if (entry)
		(void)json_array_append_new(list, entry);
}

static json_t *
list_of_board(const struct sbx_board *board)
{
	struct sbx_board_info info;
	struct sbx_route_view route;
	struct sbx_target_view target;
	json_t *list = json_array();
	sbx_board_describe(board, &info);
	int64_t started_s = (int64_t)((info.heartbeat_unix_ns - (info.heartbeat_boot_ns - info.agent_start_boot_ns)) / 1000000000);
	for (uint32_t i = 0; list && i < info.n_routes; i++)
		if (sbx_board_route(board, i, &route) == 0)
			add(list, route.name, strlen(route.name), "signalbox", 9, started_s);
	for (uint32_t i = 0; list && i < info.n_targets; i++)
		if (sbx_board_target(board, i, sbx_boot_ns(), &target) == 0)
			add(list, target.name, strlen(target.name), target.provider, strlen(target.provider), started_s);
	return list;
}

/* STATS has the targets, as "target.NAME.state"; it does not name the routes. */
static json_t *
list_of_stats(const struct sbx_reply *reply)
{
	const size_t head = sizeof STATS_TARGET - 1, tail = sizeof STATS_STATE - 1;
	json_t *list = json_array();
	const char *name, *text;
	int64_t number;
	for (uint32_t i = 0; list && sbx_reply_field(reply, i, &name, &text, &number); i++) {
		size_t n = strlen(name);
		if (n <= head + tail || strncmp(name, STATS_TARGET, head) != 0 || strcmp(name + n - tail, STATS_STATE) != 0)
			continue;
		const char *id = name + head, *slash = memchr(id, '/', n - head - tail);
		add(list, id, n - head - tail, id, slash ? (size_t)(slash - id) : 0, 0);
	}
	return list;
}

static void
no_memory(struct call *call)
{
	const struct problem p = problem_of(500, "server_error", "internal", "no memory for the list of models");
	answer_problem(call, &p);
}

static void
tell_list(struct call *call, json_t *list)
{
	json_t *all = list ? json_pack("{s:s, s:O}", "object", "list", "data", list) : NULL;
	char *text = all ? json_dumps(all, JSON_COMPACT) : NULL;
	json_decref(all);
	if (text)
		answer_json(call, 200, text);
	else
		no_memory(call);
}

static void
tell_one(struct call *call, json_t *list)
{
	const json_t *found = NULL, *entry;
	size_t i;
	json_array_foreach(list, i, entry) {
		const char *id = json_string_value(json_object_get(entry, "id")), *slash = strchr(id, '/');
		if (strcmp(id, call->name) == 0) {
			found = entry;
			break;
		}
		if (!found && slash && strcmp(slash + 1, call->name) == 0)
			found = entry; /* by its bare name */
	}
	if (!found) {
		const struct problem p = problem_of(404, "invalid_request_error", "model_not_found",
		                                    "there is no such model or route; GET /v1/models lists them");
		answer_problem(call, &p);
		return;
	}
	json_t *one = json_copy((json_t *)(uintptr_t)found); /* shallow; jansson counts references in what it is given */
	if (one)
		(void)json_object_set_new(one, "id", json_string(call->name));
	char *text = one ? json_dumps(one, JSON_COMPACT) : NULL;
	json_decref(one);
	if (text)
		answer_json(call, 200, text);
	else
		no_memory(call);
}

static void
tell_ready(struct call *call, bool ready)
{
	if (ready && !call->conn->door->draining) {
		answer_json(call, 200, strdup("{\"status\":\"ready\"}"));
		return;
	}
	struct problem p = problem_of(503, "server_error", "agent_unavailable", "%s",
	                              call->conn->door->draining ? "this door is stopping" : "the signalbox agent of this host does not answer");
	p.retry_after_s = 1;
	answer_problem(call, &p);
}

static void
tell(struct call *call, json_t *list)
{
	if (call->endpoint->begin == ready_begin)
		tell_ready(call, list != NULL);
	else if (call->endpoint->begin == model_begin && list)
		tell_one(call, list);
	else
		tell_list(call, list);
	json_decref(list);
}

static void
begin(struct call *call)
{
	struct sbx_board *board = links_board(call->conn->door);
	const char *why;
	if (board) {
		tell(call, list_of_board(board));
		sbx_board_close(board);
	} else if (links_ask_stats(call, &why) != 0) {
		struct problem p = problem_of(503, "server_error", "agent_unavailable", "the signalbox agent of this host cannot be reached: %s", why);
		p.retry_after_s = 1;
		answer_problem(call, &p);
	}
}

void
models_on_stats(struct call *call, const struct sbx_reply *reply)
{
	struct sbx_board *board;
	if (!reply) {
		tell_ready(call, false);
		return;
	}
	json_t *of_stats = list_of_stats(reply); /* before the next call on the handle, which ends the reply */
	board = links_board(call->conn->door);
	if (board) {
		json_decref(of_stats);
		tell(call, list_of_board(board));
		sbx_board_close(board);
	} else {
		tell(call, of_stats);
	}
}

void
models_begin(struct call *call)
{
	begin(call);
}

void
model_begin(struct call *call)
{
	begin(call);
}

void
ready_begin(struct call *call)
{
	begin(call);
}

void
health_begin(struct call *call)
{
	answer_json(call, 200, strdup("{\"status\":\"ok\"}"));
}
