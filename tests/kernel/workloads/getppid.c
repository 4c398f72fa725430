/* getppid CPU COUNT KEYS MAGIC [RATE]: calls getppid(2) COUNT times, pinned to one CPU, with arguments that it ignores and
 * a program on sys_enter sees: a key that goes round 0 ... KEYS - 1, and a number that tells these calls from others. Not
 * faster than RATE calls a second. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define AT_ONCE 256 /* calls between two looks at the clock */

static void wait_until(const struct timespec *start, unsigned long nanoseconds)
{
	struct timespec then = *start;

	then.tv_sec += nanoseconds / 1000000000;
	then.tv_nsec += nanoseconds % 1000000000;
	if (then.tv_nsec >= 1000000000) {
		then.tv_sec++;
		then.tv_nsec -= 1000000000;
	}
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &then, NULL);
}

int main(int argc, char **argv)
{
	unsigned long count, keys, magic, rate, i;
	struct timespec start;
	cpu_set_t cpus;

	if (argc != 5 && argc != 6)
		return 2;
	CPU_ZERO(&cpus);
	CPU_SET(atoi(argv[1]), &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		return 1;
	count = strtoul(argv[2], NULL, 10);
	keys = strtoul(argv[3], NULL, 10);
	magic = strtoul(argv[4], NULL, 10);
	rate = argc == 6 ? strtoul(argv[5], NULL, 10) : 0;
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (i = 0; i < count; i++) {
		if (rate && i && i % AT_ONCE == 0)
			wait_until(&start, 1000000000 / rate * i);
		syscall(SYS_getppid, i % keys, magic);
	}
	return 0;
}
