/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mutants.h -- bugs put in on purpose, to see whether the simulation finds them.
 *
 * Compiled in front of agent/core/request.c by subject.c. The real file is taken as it is: a mutant replaces one function that
 * request.c calls, so that the machine behaves as if a line in it had been forgotten. -DSBX_SIM_MUTANT=n chooses; 0 is none.
 */
#ifndef SBX_TESTS_SIM_MUTANTS_H
#define SBX_TESTS_SIM_MUTANTS_H

#include "agent/core/request.h"

#if SBX_SIM_MUTANT == 0
#define SIM_SUBJECT "request.c"

#elif SBX_SIM_MUTANT == 1
#define SIM_SUBJECT "mutant 1: an attempt that is aborted is never ended in health"
static inline void
mutant_on_end(struct sbx_health *h, const struct sbx_tables *t, uint32_t target, uint16_t provider, uint32_t credential,
              enum sbx_class class, int64_t retry_after_ns, uint64_t first_content_ns, uint64_t total_ns, uint64_t now_ns)
{
	if (class != SBX_CLASS_CANCELLED)
		sbx_health_on_end(h, t, target, provider, credential, class, retry_after_ns, first_content_ns, total_ns, now_ns);
}
#define sbx_health_on_end mutant_on_end

#elif SBX_SIM_MUTANT == 2
#define SIM_SUBJECT "mutant 2: the end of a body counts as the end of its answer"
static inline enum sbx_class
mutant_classify(const struct sbx_end *end)
{
	if (end->transport == SBX_TRANSPORT_OK && end->status == 200 && end->got_content && !end->error)
		return SBX_CLASS_OK;
	return sbx_classify(end);
}
#define sbx_classify mutant_classify

#elif SBX_SIM_MUTANT == 3
#define SIM_SUBJECT "mutant 3: an attempt of unknown outcome does not use up an attempt"
static inline bool
mutant_counts(enum sbx_class class)
{
	return class != SBX_CLASS_UNCERTAIN && sbx_class_counts(class);
}
#define sbx_class_counts mutant_counts

#elif SBX_SIM_MUTANT == 4
#define SIM_SUBJECT "mutant 4: a stream broken after content is tried elsewhere like any other failure"
static inline enum sbx_class
mutant_classify(const struct sbx_end *end)
{
	const enum sbx_class class = sbx_classify(end);

	return class == SBX_CLASS_MIDSTREAM ? SBX_CLASS_UNCERTAIN : class;
}
#define sbx_classify mutant_classify

#elif SBX_SIM_MUTANT == 5
#define SIM_SUBJECT "mutant 5: a target that is down is not tried, not even when it is the last"
static inline struct sbx_gate_answer
mutant_gate(const struct sbx_health *h, const struct sbx_tables *t, uint32_t target, uint16_t provider, uint32_t not_keys, uint64_t now_ns)
{
	struct sbx_gate_answer g = sbx_health_gate(h, t, target, provider, not_keys, now_ns);

	if (g.gate == SBX_GATE_BROKEN)
		g.gate = SBX_GATE_NO_KEY;
	return g;
}
#define sbx_health_gate mutant_gate

#else
#error "no such mutant"
#endif

#endif
