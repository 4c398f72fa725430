/* hostile DIR COUNT SEED: COUNT short processes with random names, each of which opens random ports.
 *
 * A process is this file executed by a link in DIR whose name is random: up to 200 bytes of anything that a file may be
 * called, line ends, quotes and what is no UTF-8 among them. It listens on a random port, connects to it from another,
 * sends a few bytes, and resets the connection or closes it. To be run in a network namespace of its own, as root.
 * As many at once as there are CPUs, twice. Prints how many were executed. */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

#define LONGEST 200

static void random_name(char *name)
{
	int length = 8 + rand() % (LONGEST - 8);

	for (int i = 0; i < length; i++)
		do
			name[i] = 1 + rand() % 255;
		while (name[i] == '/');
	name[length] = 0;
}

static int bound(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	int new = socket(AF_INET, SOCK_STREAM, 0);

	for (int i = 0; i < 10; i++) { /* a port may be taken */
		address.sin_port = htons(1024 + rand() % 64000);
		if (!bind(new, (struct sockaddr *)&address, sizeof(address)))
			break;
	}
	return new;
}

static void open_ports(void)
{
	struct sockaddr_in address;
	struct linger reset = {.l_onoff = 1};
	socklen_t size = sizeof(address);
	int server = bound(), client = bound();

	if (listen(server, 1) || getsockname(server, (struct sockaddr *)&address, &size) ||
	    connect(client, (struct sockaddr *)&address, size))
		return;
	send(client, "hostile", 7, 0);
	if (rand() % 2)
		setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(client);
}

static int run(const char *self, const char *directory, long number)
{
	char path[4096], name[LONGEST + 1];
	char seed[24];

	random_name(name);
	if (snprintf(path, sizeof(path), "%s/%s", directory, name) >= (int)sizeof(path) || symlink(self, path))
		return 1;
	snprintf(seed, sizeof(seed), "%ld", number);
	execl(path, path, seed, NULL);
	return 1;
}

int main(int argc, char **argv)
{
	long count, executed = 0;
	char self[4096];
	ssize_t length;
	int status, most = 2 * get_nprocs(), running = 0;

	if (argc == 2) { /* one of the processes */
		srand(atol(argv[1]));
		unlink(argv[0]);
		open_ports();
		return 0;
	}
	if (argc != 4 || (length = readlink("/proc/self/exe", self, sizeof(self) - 1)) < 0)
		return 2;
	self[length] = 0;
	srand(atol(argv[3]));
	count = atol(argv[2]);
	for (long i = 0; i < count || running; i++) {
		if (i < count) {
			int number = rand();

			fflush(stdout);
			if (!fork()) {
				srand(number);
				_exit(run(self, argv[1], number));
			}
			running++;
		}
		if (running >= most || i >= count) {
			if (wait(&status) < 0)
				return 1;
			executed += !status;
			running--;
		}
	}
	printf("%ld\n", executed);
	return 0;
}
