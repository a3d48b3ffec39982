/* SPDX-License-Identifier: Apache-2.0 */
/*
 * anthropic.h -- the dialect of Anthropic's Messages, as Anthropic and those who imitate it speak it.
 *
 *   anthropic.c           the row, and the decoder: an answer, whole or streamed, -> hub events
 *   anthropic_usage.c     the usage object
 *   anthropic_request.c   a request body of a client: what judgement needs of it, and its edits for a target
 *   anthropic_to_hub.c    a request body -> the hub's form
 *   anthropic_from_hub.c  the hub's form -> a request body: its members
 *   anthropic_messages.c  and the conversation
 *   anthropic_encode.c    hub events -> an answer, for clients whose target speaks another dialect; errors
 *
 * A stream is complete with the message_delta that has a stop_reason, or else with message_stop, which is the end mark. Blocks of
 * tools that the provider runs itself are no tool calls of the client's: they are content that only WIRE carries.
 *
 * Thinking comes as REASONING while it is thought, and as a DETAIL with its signature when its block is over: for the same words have
 * to be given back with it. What another dialect wants to have given back (a DETAIL in another format) travels through clients of
 * this one as the data of a redacted_thinking block: clients keep it unread, and to_hub finds it again.
 *
 * In the hub's form of a request, what only this dialect knows is in x_native.anthropic, and a block that it knows alone is a part
 * {"type":"x_native","x_native":{"anthropic":{...}}}; likewise a tool that the provider runs.
 */
#ifndef SBX_DIALECT_ANTHROPIC_H
#define SBX_DIALECT_ANTHROPIC_H

#include "agent/dialect/hub.h"

extern const struct sbx_dialect sbx_dialect_anthropic;

/* ---- between the files of this dialect ---- */
#define SBX_ANTHROPIC_FORMAT "anthropic-claude-v1" /* of reasoning_details */

/* Reads a usage object: its own members, disjoint, into sums that contain one another. False when it says nothing. */
bool sbx_anthropic_read_usage(struct sbx_span usage, struct sbx_usage *ret_usage);
/* The usage so far with that of a later event, whose members replace those of the same name; null says nothing. Appended to `out`.
 * 0, -SBX_ETOOBIG, -SBX_ENOMEM. */
int sbx_anthropic_merge_usage(struct sbx_span before, struct sbx_span later, struct sbx_buf *out);

/* As the row has it; the usage is looked for in the payload, which goes as it came where it has none. */
int sbx_anthropic_add_cost(struct sbx_span payload, struct sbx_span usage, const char *usd, struct sbx_buf *out);

int sbx_anthropic_read_request(enum sbx_op op, struct sbx_span body, struct sbx_json_scratch *scratch, struct sbx_routing *routing,
			       struct sbx_ask *ret_ask, struct sbx_fault *ret_fault);
void sbx_anthropic_write_request(const struct sbx_ask *ask, const char *model, bool stream, const struct sbx_quirks *quirks,
				 struct sbx_pieces *ret);
int sbx_anthropic_to_hub(enum sbx_op op, struct sbx_span body, struct sbx_buf *out, struct sbx_fault *ret_fault);
int sbx_anthropic_from_hub(enum sbx_op op, struct sbx_span body, const struct sbx_translation *t, struct sbx_buf *out,
			   struct sbx_fault *ret_fault);

struct sbx_encoder *sbx_anthropic_encoder_new(const struct sbx_encode_opts *opts, struct sbx_buf *out);
int sbx_anthropic_encoder_event(struct sbx_encoder *e, const struct sbx_hub_event *ev);
int sbx_anthropic_encoder_end(struct sbx_encoder *e);
void sbx_anthropic_encoder_free(struct sbx_encoder *e);
int sbx_anthropic_write_error(enum sbx_code code, const char *message, const char *param, const struct sbx_provider_error *said,
			      struct sbx_buf *out);

#endif
