/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One pass over the JSON body of a request: is it JSON, and the few members
 * that decide the answer.  No tree, no allocation: a request of 300 bytes
 * costs well under a microsecond, so that the double does not eat the CPU that
 * a bench wants to measure elsewhere.
 */
#ifndef SIGNALBOX_TOOLS_MOCK_SCAN_H
#define SIGNALBOX_TOOLS_MOCK_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MOCK_MODEL_MAX 4096 /* bytes of a model name; it may carry faults */

struct mock_ask {
	char model[MOCK_MODEL_MAX]; /* decoded and terminated; empty = not given or not a string */
	size_t n_model;
	int64_t n_choices;  /* "n"; 1 when absent or no sensible number */
	size_t n_messages;  /* elements of "messages"; 0 also when it is no array */
	size_t n_inputs;    /* of "input" (embeddings) or "prompt" (completions): elements of a list, 1 for a text or its tokens; 0 = none */
	int64_t dimensions; /* of an embedding; 0 = not said */
	bool base64;        /* "encoding_format" of embeddings */
	bool stream;
	bool include_usage; /* stream_options.include_usage */
};

/* Returns 0, or -1 when the text is not one JSON object; ret_error is then a static sentence. */
int mock_scan(const char *text, size_t n, struct mock_ask *ret_ask, const char **ret_error);

#endif
