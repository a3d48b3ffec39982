/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cost.h -- what the agent says that recorded answers cost, against sums that are made by hand.
 *
 * The sum is made of the usage that is expected of the recording and of prices written down in cost.c: nothing of the agent's
 * prices, amounts or arithmetic is used. A model that is not in that table must come out as not known, and so must an answer
 * without usage; neither is ever 0. Where a provider said itself what it charged, that is set beside it and told, but decides
 * nothing: it may have charged other prices on that day.
 */
#ifndef SBX_TESTS_CONFORMANCE_COST_H
#define SBX_TESTS_CONFORMANCE_COST_H

#include <jansson.h>
#include <signalbox.h>

#include "client/buf.h"

/* One answered recording. What is wrong is appended to `differs`, as a sentence. */
void cost_compare(const char *id, const char *provider, const char *model, const json_t *expected, const struct sbx_reply *r, struct sbx_buf *differs);
void cost_report(void); /* how many were priced, unpriced, without usage */

#endif
