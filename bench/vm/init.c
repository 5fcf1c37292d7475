/*
 * The whole user land of a test guest: one static program, process 1 of a small Linux.
 *
 *   boot ─► load /modules/NN-*.ko in their order ─► address eth0 ─► three services, each a process
 *
 *   7000 count   request {id, -} ─► answer {id, number}, 8 bytes each, little endian, in order
 *                role=store   the number is its own count, plus one each request
 *                role=relay   asks the guest `next` over one kept connection and passes the answer on
 *   7001 lab     lines: "count" "dirty KIB" "send IP MS" "ping IP COUNT"; one line answers each
 *   7002 sink    reads to the end, then answers how many bytes (8 bytes); 7003 echo: 8 bytes at a time
 *
 * The kernel's command line says who this is: sluice.ip=10.81.0.1 sluice.role=relay
 * sluice.next=10.81.0.2 (prefix length always 24). Once it serves it says "sluice-guest: ready" on
 * the console.
 *
 * State is memory alone, so a restored image is the whole of it. Limits: CLIENTS_MAX counting
 * clients at a time; a relay answers one request after the other and waits for `next` as long as
 * that takes, for a lost answer is the transport's to repeat. It asks once per request: a
 * connection to `next` that breaks ends the relay's service, and the test sees it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { COUNT_PORT = 7000, LAB_PORT, SINK_PORT, ECHO_PORT };
enum { CLIENTS_MAX = 16, MODULES_MAX = 32, BLOCK_BYTES = 64 << 10, DIRTY_KIB_MAX = 8 << 10, PINGS_MAX = 4096 };

struct message { uint64_t id, number; };

/* Shared by the services: the last number this guest gave or passed on. */
static volatile uint64_t *last_number;
static char ip[32], role[16], next_ip[32];

static void say(const char *what) { dprintf(1, "sluice-guest: %s\n", what); }

static void fatal(const char *what)
{
	dprintf(1, "sluice-guest: failed: %s: %s\n", what, strerror(errno));
	_exit(1);
}

static uint64_t now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* ---- boot ---- */

static int by_name(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }

static void load_modules(void)
{
	struct dirent **names;
	int n = scandir("/modules", &names, NULL, by_name);
	for (int i = 0; i < n && i < MODULES_MAX; i++) {
		char path[300];
		if (names[i]->d_name[0] == '.') continue;
		snprintf(path, sizeof path, "/modules/%s", names[i]->d_name);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) != 0 && errno != EEXIST)) fatal(path);
		close(fd);
		unlink(path); /* its memory is the guest's again */
	}
}

/* Copies the value of sluice.KEY= from the kernel's command line; leaves `into` empty without one. */
static void argument(const char *line, const char *key, char *into, size_t size)
{
	char look[40];
	snprintf(look, sizeof look, "sluice.%s=", key);
	const char *at = strstr(line, look);
	if (at == NULL) return;
	at += strlen(look);
	snprintf(into, size, "%.*s", (int)strcspn(at, " \n"), at);
}

static void read_arguments(void)
{
	char line[2048] = "";
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t n = read(fd, line, sizeof line - 1);
	close(fd);
	if (n <= 0) fatal("/proc/cmdline");
	argument(line, "ip", ip, sizeof ip);
	argument(line, "role", role, sizeof role);
	argument(line, "next", next_ip, sizeof next_ip);
}

static void set_address(int fd, struct ifreq *request, const char *address, unsigned long what, const char *why)
{
	struct sockaddr_in *in = (struct sockaddr_in *)&request->ifr_addr;
	memset(in, 0, sizeof *in);
	in->sin_family = AF_INET;
	if (inet_pton(AF_INET, address, &in->sin_addr) != 1) fatal(why);
	if (ioctl(fd, what, request) != 0) fatal(why);
}

static void set_up(const char *device, const char *address, const char *mask)
{
	struct ifreq request = {0};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	snprintf(request.ifr_name, sizeof request.ifr_name, "%s", device);
	set_address(fd, &request, address, SIOCSIFADDR, "address");
	set_address(fd, &request, mask, SIOCSIFNETMASK, "mask");
	if (ioctl(fd, SIOCGIFFLAGS, &request) != 0) fatal(device);
	request.ifr_flags |= IFF_UP;
	if (ioctl(fd, SIOCSIFFLAGS, &request) != 0) fatal(device);
	close(fd);
}

/* ---- sockets ---- */

static int listen_at(int port)
{
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(port) };
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(fd, (struct sockaddr *)&at, sizeof at) != 0 || listen(fd, CLIENTS_MAX) != 0) fatal("listen");
	return fd;
}

static void no_delay(int fd)
{
	int one = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

/* -1 where nobody listens there within `timeout_ms`. */
static int connect_to(const char *address, int port, int timeout_ms)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };
	int error = 0, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	socklen_t size = sizeof error;
	inet_pton(AF_INET, address, &to.sin_addr);
	if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0 && errno != EINPROGRESS) goto failed;
	struct pollfd wait = { .fd = fd, .events = POLLOUT };
	if (poll(&wait, 1, timeout_ms) != 1) goto failed;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) goto failed;
	fcntl(fd, F_SETFL, 0);
	no_delay(fd);
	return fd;
failed:
	close(fd);
	return -1;
}

static int read_all(int fd, void *into, size_t size)
{
	for (size_t at = 0; at < size;) {
		ssize_t n = read(fd, (char *)into + at, size - at);
		if (n < 0 && errno == EINTR) continue;
		if (n <= 0) return -1;
		at += n;
	}
	return 0;
}

static int write_all(int fd, const void *from, size_t size)
{
	for (size_t at = 0; at < size;) {
		ssize_t n = write(fd, (const char *)from + at, size - at);
		if (n < 0 && errno == EINTR) continue;
		if (n <= 0) return -1;
		at += n;
	}
	return 0;
}

/* Runs `serve` for each connection in a process of its own, for ever. */
static void serve_each(int listener, void (*serve)(int fd))
{
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		while (waitpid(-1, NULL, WNOHANG) > 0) {}
		if (fd < 0) continue;
		no_delay(fd);
		if (fork() == 0) {
			serve(fd);
			_exit(0);
		}
		close(fd);
	}
}

/* ---- count ---- */

/* Fills in the number of a request; -1 where the tier behind is gone. */
static int number_of(struct message *m, int behind)
{
	if (behind < 0) {
		m->number = *last_number + 1;
	} else if (write_all(behind, m, sizeof *m) != 0 || read_all(behind, m, sizeof *m) != 0) {
		return -1;
	}
	*last_number = m->number;
	return 0;
}

static void count(void)
{
	int behind = -1, clients = 0, listener = listen_at(COUNT_PORT);
	struct pollfd fds[1 + CLIENTS_MAX] = { { .fd = listener, .events = POLLIN } };
	while (strcmp(role, "relay") == 0 && behind < 0) behind = connect_to(next_ip, COUNT_PORT, 300);
	say("ready");
	for (;;) {
		fds[0].events = clients < CLIENTS_MAX ? POLLIN : 0;
		if (poll(fds, 1 + clients, -1) < 0) continue;
		for (int i = clients; i >= 1; i--) {
			struct message m;
			if (fds[i].revents == 0) continue;
			int ok = read_all(fds[i].fd, &m, sizeof m) == 0;
			if (ok && number_of(&m, behind) != 0) fatal("the next tier is gone");
			if (ok && write_all(fds[i].fd, &m, sizeof m) == 0) continue;
			close(fds[i].fd);
			fds[i] = fds[clients--];
		}
		if ((fds[0].revents & POLLIN) == 0) continue;
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0) continue;
		no_delay(fd);
		fds[++clients] = (struct pollfd){ .fd = fd, .events = POLLIN };
	}
}

/* ---- lab ---- */

static char block[BLOCK_BYTES];

static void sink(int fd)
{
	uint64_t bytes = 0;
	ssize_t n;
	while ((n = read(fd, block, sizeof block)) > 0) bytes += n;
	write_all(fd, &bytes, sizeof bytes);
}

static void echo(int fd)
{
	uint64_t word;
	while (read_all(fd, &word, sizeof word) == 0 && write_all(fd, &word, sizeof word) == 0) {}
}

/* What the other guest had read, over the time until it said so. */
static void send_to(int answer, const char *to, unsigned ms)
{
	uint64_t got = 0, begin = now_us();
	int fd = connect_to(to, SINK_PORT, 1000);
	while (fd >= 0 && now_us() - begin < ms * 1000ull && write_all(fd, block, sizeof block) == 0) {}
	if (fd < 0 || shutdown(fd, SHUT_WR) != 0 || read_all(fd, &got, sizeof got) != 0) {
		dprintf(answer, "failed %s\n", strerror(errno));
		return;
	}
	dprintf(answer, "sent %llu bytes %llu us\n", (unsigned long long)got, (unsigned long long)(now_us() - begin));
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? -1 : x > y;
}

static void ping_to(int answer, const char *to, unsigned pings)
{
	static uint32_t us[PINGS_MAX];
	int fd = connect_to(to, ECHO_PORT, 1000);
	uint64_t word = 0;
	if (pings == 0 || pings > PINGS_MAX) pings = PINGS_MAX;
	for (unsigned i = 0; i < pings; i++) {
		uint64_t begin = now_us();
		if (fd < 0 || write_all(fd, &word, sizeof word) != 0 || read_all(fd, &word, sizeof word) != 0) {
			dprintf(answer, "failed %s\n", strerror(errno));
			return;
		}
		us[i] = now_us() - begin;
	}
	qsort(us, pings, sizeof *us, by_value);
	dprintf(answer, "ping %u p50 %u us p99 %u us\n", pings, us[pings / 2], us[pings * 99 / 100]);
}

/*
 * Changes that much memory, a word of each page, so that the next checkpoint has something to save. The
 * pages go with this process and the next one is given them again: a value that was never there.
 */
static void dirty(int answer, unsigned kib)
{
	static volatile uint64_t memory[DIRTY_KIB_MAX * 128];
	if (kib > DIRTY_KIB_MAX) kib = DIRTY_KIB_MAX;
	for (unsigned at = 0; at < kib * 128; at += 512) memory[at] = now_us() + at;
	dprintf(answer, "dirty %u KiB\n", kib);
}

static void lab(int fd)
{
	FILE *lines = fdopen(fd, "r");
	char line[200], to[32];
	unsigned n;
	while (fgets(line, sizeof line, lines) != NULL) {
		if (strncmp(line, "count", 5) == 0) dprintf(fd, "count %llu\n", (unsigned long long)*last_number);
		else if (sscanf(line, "dirty %u", &n) == 1) dirty(fd, n);
		else if (sscanf(line, "send %31s %u", to, &n) == 2) send_to(fd, to, n);
		else if (sscanf(line, "ping %31s %u", to, &n) == 2) ping_to(fd, to, n);
		else dprintf(fd, "failed unknown command\n");
	}
}

static void service(int port, void (*serve)(int fd))
{
	int listener = listen_at(port);
	if (fork() == 0) serve_each(listener, serve);
	close(listener);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	mount("none", "/proc", "proc", 0, NULL);
	load_modules();
	read_arguments();
	if (ip[0] == 0 || (strcmp(role, "relay") != 0 && strcmp(role, "store") != 0)) fatal("sluice.ip, sluice.role");
	set_up("lo", "127.0.0.1", "255.0.0.0");
	set_up("eth0", ip, "255.255.255.0");
	last_number = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	service(LAB_PORT, lab);
	service(SINK_PORT, sink);
	service(ECHO_PORT, echo);
	if (fork() == 0) count();
	for (;;) {
		if (wait(NULL) < 0) pause();
	}
}
