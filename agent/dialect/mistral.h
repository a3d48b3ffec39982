/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mistral.h -- the dialect of Mistral's API, as a target's.
 *
 *   mistral.c         the row, and the hub's form -> a request body
 *   mistral_to_hub.c  a request body -> the hub's form
 *
 * It is OpenAI's chat completions with other manners. Answers differ in nothing that the decoder of openai-chat does not take from its
 * other imitators: content may be a list of parts, with what was thought among them; calls come whole and perhaps without an index. A
 * request has to be translated, because any member that the provider does not know is refused: limits and seeds have other names, and
 * the ids of tool calls a form of their own.
 *
 * What was thought goes back as a part of the content. In the hub's form it is a reasoning.text in the format below; a thinking part
 * that is more than one text, or that stands behind words, stays a part as it is.
 */
#ifndef SBX_DIALECT_MISTRAL_H
#define SBX_DIALECT_MISTRAL_H

#include "agent/dialect/hub.h"

extern const struct sbx_dialect sbx_dialect_mistral;

/* ---- between the files of this dialect ---- */
#define SBX_MISTRAL_NAME   "mistral"
#define SBX_MISTRAL_WHOSE  "Mistral's dialect"
#define SBX_MISTRAL_FORMAT "mistral-v1" /* of reasoning_details */

int sbx_mistral_to_hub(enum sbx_op op, struct sbx_span body, struct sbx_buf *out, struct sbx_fault *ret_fault);

#endif
