/* SPDX-License-Identifier: Apache-2.0 */
/* format.c -- durations and money as people read them. Money stays in integers. See cli.h. */
#include "tools/signalbox/cli.h"

#include <stdio.h>
#include <string.h>

void
fmt_duration(char *to, size_t room, int64_t ms)
{
	int64_t s = ms / 1000;
	if (ms < 10000)
		(void)snprintf(to, room, "%lld.%lld s", (long long)s, (long long)(ms % 1000 / 100));
	else if (s < 120)
		(void)snprintf(to, room, "%lld s", (long long)s);
	else if (s < 7200)
		(void)snprintf(to, room, "%lld min", (long long)(s / 60));
	else if (s < 172800)
		(void)snprintf(to, room, "%lld h", (long long)(s / 3600));
	else
		(void)snprintf(to, room, "%lld days", (long long)(s / 86400));
}

void
fmt_latency(char *to, size_t room, int64_t ms)
{
	if (ms <= 0)
		(void)snprintf(to, room, "-"); /* no answer lately */
	else if (ms < 10000)
		(void)snprintf(to, room, "%lld ms", (long long)ms);
	else
		fmt_duration(to, room, ms);
}

void
fmt_price(char *to, size_t room, int64_t nanousd_per_million)
{
	char text[48];
	if (nanousd_per_million == SBX_UNPRICED) {
		(void)snprintf(to, room, "-");
		return;
	}
	int n = snprintf(text, sizeof text, "%lld.%09lld", (long long)(nanousd_per_million / 1000000000), (long long)(nanousd_per_million % 1000000000));
	while (n > 3 && text[n - 1] == '0' && text[n - 3] != '.') /* two decimals stay */
		text[--n] = 0;
	(void)snprintf(to, room, "%s", text);
}
