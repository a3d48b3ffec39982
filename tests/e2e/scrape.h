/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scrape.h -- /metrics as a monitoring system sees it, only stricter: every line is parsed by the written format, a series may be
 * there once, a family in one piece behind its HELP and TYPE, and histograms have to add up. The test fails where they do not.
 */
#ifndef SBX_TESTS_E2E_SCRAPE_H
#define SBX_TESTS_E2E_SCRAPE_H

#include "tests/e2e/door.h"

#define SCRAPE_LABELS_MAX 12

struct scrape_series {
	const char *name;
	struct { const char *name, *value; } label[SCRAPE_LABELS_MAX]; /* values as they are meant, without escapes */
	int n_labels;
	double value;
	int family;
};

struct scrape {
	char *text;                  /* what the series point into */
	size_t bytes;
	struct scrape_series *series;
	int n, n_families;
	bool openmetrics;
};

void scrape_parse(const char *text, bool openmetrics, struct scrape *ret_scrape);
/* GET /metrics with the key and an Accept header (NULL = none), and parse; the status has to be 200. */
void scrape_door(struct door *d, const char *accept, struct scrape *ret_scrape);
void scrape_free(struct scrape *s);
/* The sum of all series of that name that have these labels: "tenant=local,outcome=ok"; "" = whatever they have. */
double scrape_sum(const struct scrape *s, const char *name, const char *labels);
int scrape_count(const struct scrape *s, const char *name, const char *labels); /* how many those are */

#endif
