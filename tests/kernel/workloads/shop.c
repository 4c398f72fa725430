/* A program with functions and USDT probes to attach to; it does what its standard input says, a line at a time. */
#define _SDT_HAS_SEMAPHORES 1
#include <stdio.h>
#include <string.h>
#include <sys/sdt.h>

#define PROBES __attribute__((section(".probes")))
unsigned short shop_sold_semaphore PROBES;
unsigned short shop_closed_semaphore PROBES;
unsigned short shop_weighed_semaphore PROBES;

long discount = -3; /* a variable that a probe names as such */

__attribute__((noinline)) int greet(int times)
{
	__asm__ volatile("");
	return times + 1;
}

__attribute__((noinline)) static int count_stock(int shelf)
{
	__asm__ volatile("");
	return shelf * 2;
}

__attribute__((noinline)) void sell(short count, long price, const char *name)
{
	if (shop_sold_semaphore)
		DTRACE_PROBE4(shop, sold, count, price, name, discount);
}

__attribute__((noinline)) void sell_one(const char *name)
{
	if (shop_sold_semaphore)
		DTRACE_PROBE4(shop, sold, 1, -1L, name, discount);
}

int main(void)
{
	char line[128], name[64];
	int number;

	setvbuf(stdout, NULL, _IOLBF, 0);
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "greet %d", &number) == 1)
			printf("%d\n", greet(number));
		else if (sscanf(line, "stock %d", &number) == 1)
			printf("%d\n", count_stock(number));
		else if (sscanf(line, "sell %d %63s", &number, name) == 2)
			printf("%d\n", (sell(number, 1000L * number, name), number));
		else if (sscanf(line, "sell %63s", name) == 1)
			printf("%d\n", (sell_one(name), 1));
		else if (!strncmp(line, "listeners", 9))
			printf("%d\n", shop_sold_semaphore);
		else if (sscanf(line, "weigh %d", &number) == 1) {
			DTRACE_PROBE1(shop, weighed, (double)number);
			printf("%d\n", number);
		} else {
			DTRACE_PROBE(shop, closed);
			printf("closed\n");
		}
	}
	return 0;
}
