/* SPDX-License-Identifier: Apache-2.0 */
/*
 * subject.c -- the state machine under simulation: agent/core/request.c itself, or with one bug put in on purpose (mutants.h).
 */
#ifndef SBX_SIM_MUTANT
#define SBX_SIM_MUTANT 0
#endif
#include "tests/sim/mutants.h"

#include "agent/core/request.c"

extern const char *const sim_subject;
const char *const sim_subject = SIM_SUBJECT;
