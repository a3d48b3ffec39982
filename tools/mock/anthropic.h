/* SPDX-License-Identifier: Apache-2.0 */
/* What anthropic.c and anthropic_request.c share. */
#ifndef SIGNALBOX_TOOLS_MOCK_ANTHROPIC_H
#define SIGNALBOX_TOOLS_MOCK_ANTHROPIC_H

#include "tools/mock/dialect.h"

#define MOCK_SIGNATURE_BYTES 25 /* "EqoB", 16 digits, "/+==", the NUL */

void mock_anthropic_sign(const char *thinking, size_t n, char ret_signature[MOCK_SIGNATURE_BYTES]);
int mock_anthropic_read(struct mock_exchange *x, const struct mock_request *request, struct mock_ask *ask, char *why, size_t why_bytes);

#endif
