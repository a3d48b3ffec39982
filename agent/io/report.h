/* SPDX-License-Identifier: Apache-2.0 */
/* report.h -- the REPORT frame: a question to the store, and its answer when the store's thread has it. */
#ifndef SBX_AGENT_IO_REPORT_H
#define SBX_AGENT_IO_REPORT_H

#include "agent/io/session.h"
#include "client/wire.h"

/* Answers at once what is wrong with it; else the answer follows in a later turn. */
void sbx_report_on_frame(struct sbx_agent *agent, struct sbx_session *session, const struct sbx_frame *frame);
void sbx_report_forget(struct sbx_agent *agent, struct sbx_session *session); /* the session is gone: no answer is wanted */

#endif
