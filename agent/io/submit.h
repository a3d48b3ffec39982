/* SPDX-License-Identifier: Apache-2.0 */
/*
 * submit.h -- the keys of a SUBMIT frame: checked once, then plain values. Pure: a frame in, a struct or a sentence out.
 *
 * An unknown key is refused, and so is one whose feature this agent does not have: accepted and ignored, either would mean
 * that a client believes in a limit that nobody keeps.
 */
#ifndef SBX_AGENT_IO_SUBMIT_H
#define SBX_AGENT_IO_SUBMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/core/tables.h"
#include "agent/dialect/hub.h"
#include "client/wire.h"

struct sbx_submit {
	struct sbx_span route, model;                      /* empty = absent; spans into the frame */
	struct sbx_span target[SBX_ROUTE_TARGETS_MAX];
	uint32_t n_targets;
	struct sbx_span body;
	const struct sbx_dialect *dialect;
	enum sbx_op op;
	bool has_stream, stream;
	bool has_reply, data;                              /* reply: the answer's own bytes */
	bool as_http;                                      /* the body speaks for itself: stream, and the members for a gateway */
	bool restart;
	uint32_t deadline_ms;                              /* 0 = not said */
	struct sbx_span idempotency_key;
	bool has_principal;
	struct sbx_span tenant, key, user;                 /* of principal */
};

/* 0, or -SBX_EINVAL with the code to answer with and a sentence in why (at least 256 bytes). */
int sbx_submit_read(const struct sbx_frame *frame, struct sbx_submit *ret_submit, enum sbx_code *ret_code, char *why, size_t why_bytes);

#endif
