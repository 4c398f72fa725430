/* load syscalls|softirqs CPU SLICES: the same work again and again on one CPU, and how long an event of it took.
 *
 * syscalls: getppid(2). softirqs: requests and answers of 1 kB between a client and a server over loopback, each of which
 * is a NET_RX softirq that wakes the other process.
 *
 * Prints ns per event of each slice of 1,000 events. It is CPU time of the processes, interrupts and softirqs on top of
 * them included: wall time, but for what somebody else took of the CPU meanwhile. */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define EVENTS 1000

static int connection = -1;
static clockid_t other = -1;

static void pass_on(int output)
{
	static char message[1024];

	if (output && send(connection, message, sizeof(message), 0) != sizeof(message))
		exit(1);
	if (!output && recv(connection, message, sizeof(message), MSG_WAITALL) != sizeof(message))
		exit(1);
}

/* Forks the server; `connection` is this process's end of the connection with it. */
static void connect_to_server(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
	socklen_t size = sizeof(address);
	pid_t server;

	if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 1) ||
	    getsockname(listener, (struct sockaddr *)&address, &size) || (server = fork()) < 0)
		exit(1);
	if (!server) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		connection = accept(listener, NULL, NULL);
		for (;;) {
			pass_on(0);
			pass_on(1);
		}
	}
	connection = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(connection, (struct sockaddr *)&address, size) || clock_getcpuclockid(server, &other) ||
	    setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)))
		exit(1);
}

static double used(void)
{
	clockid_t clocks[] = {CLOCK_PROCESS_CPUTIME_ID, other};
	struct timespec time;
	double ns = 0;

	for (int i = 0; i < (connection < 0 ? 1 : 2); i++) {
		if (clock_gettime(clocks[i], &time))
			exit(1);
		ns += time.tv_sec * 1e9 + time.tv_nsec;
	}
	return ns;
}

int main(int argc, char **argv)
{
	cpu_set_t cpus;
	int slices;

	if (argc != 4)
		return 2;
	CPU_ZERO(&cpus);
	CPU_SET(atoi(argv[2]), &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		return 1;
	if (!strcmp(argv[1], "softirqs"))
		connect_to_server();
	for (slices = atoi(argv[3]); slices > 0; slices--) {
		double began = used();

		for (int i = 0; i < EVENTS; i++)
			if (connection < 0)
				syscall(SYS_getppid);
			else
				pass_on(i % 2 == 0);
		printf("%.1f\n", (used() - began) / EVENTS);
	}
	return 0;
}
