/* getppid CPU COUNT KEYS MAGIC: calls getppid(2) COUNT times, pinned to one CPU, with arguments that it ignores and a
 * program on sys_enter sees: a key that goes round 0 ... KEYS - 1, and a number that tells these calls from others. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	unsigned long count, keys, magic, i;
	cpu_set_t cpus;

	if (argc != 5)
		return 2;
	CPU_ZERO(&cpus);
	CPU_SET(atoi(argv[1]), &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		return 1;
	count = strtoul(argv[2], NULL, 10);
	keys = strtoul(argv[3], NULL, 10);
	magic = strtoul(argv[4], NULL, 10);
	for (i = 0; i < count; i++)
		syscall(SYS_getppid, i % keys, magic);
	return 0;
}
