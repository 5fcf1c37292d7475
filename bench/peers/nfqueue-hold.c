/*
 * Holds what a netfilter rule queues, the best way NFQUEUE has: frames stay in the kernel (only
 * their numbers are read), super-frames stay whole, and an epoch leaves by one batch verdict.
 *
 *   kernel queue   1 2 3 │ 4 5 │ 6 …      numbers rise by one; the cut notes the last one seen
 *   commands       cut ─► "cut LAST"   commit LAST ─► "committed"   drop ─► "dropped": all that is there
 *
 *   nfqueue-hold QUEUE      one command a line on standard input, one line answers each
 *
 * A cut first reads what the kernel has queued so far, so that no frame of before it is missed.
 * Bounds: QUEUE_MAX frames in the kernel, then it drops; the socket's buffer bounds the unread
 * numbers, ENOBUFS there loses numbers and no frame, for verdicts are "up to".
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { QUEUE_MAX = 4 << 20, BUFFER_BYTES = 64 << 20, READ_BYTES = 1 << 20 };

static int fd;
static uint16_t queue;
static uint32_t last; /* number of the youngest frame that was read */
static char bytes[READ_BYTES];

static void fatal(const char *what)
{
	fprintf(stderr, "nfqueue-hold: %s: %s\n", what, strerror(errno));
	exit(1);
}

struct message {
	struct nlmsghdr header;
	struct nfgenmsg family;
	char attributes[256];
};

static void begin(struct message *m, int type, int flags)
{
	memset(m, 0, sizeof *m);
	m->header.nlmsg_type = NFNL_SUBSYS_QUEUE << 8 | type;
	m->header.nlmsg_flags = NLM_F_REQUEST | flags;
	m->header.nlmsg_len = NLMSG_LENGTH(sizeof m->family);
	m->family.version = NFNETLINK_V0;
	m->family.res_id = htons(queue);
}

static void attribute(struct message *m, int type, const void *data, size_t size)
{
	struct nlattr *a = (void *)((char *)m + NLMSG_ALIGN(m->header.nlmsg_len));
	a->nla_type = type;
	a->nla_len = NLA_HDRLEN + size;
	memcpy((char *)a + NLA_HDRLEN, data, size);
	m->header.nlmsg_len = NLMSG_ALIGN(m->header.nlmsg_len) + NLA_ALIGN(a->nla_len);
}

static void send_message(const struct message *m)
{
	if (send(fd, m, m->header.nlmsg_len, 0) < 0) fatal("send");
}

/* ---- configuration: each step is acknowledged ---- */

static void must_acknowledge(const char *what)
{
	ssize_t n = recv(fd, bytes, sizeof bytes, 0);
	struct nlmsghdr *h = (void *)bytes;
	if (n < (ssize_t)NLMSG_LENGTH(sizeof(struct nlmsgerr)) || h->nlmsg_type != NLMSG_ERROR) fatal(what);
	errno = -((struct nlmsgerr *)NLMSG_DATA(h))->error;
	if (errno != 0) fatal(what);
}

static void configure(int type, const void *data, size_t size, const char *what)
{
	struct message m;
	begin(&m, NFQNL_MSG_CONFIG, NLM_F_ACK);
	attribute(&m, type, data, size);
	if (type == NFQA_CFG_FLAGS) attribute(&m, NFQA_CFG_MASK, data, size);
	send_message(&m);
	must_acknowledge(what);
}

static void open_queue(void)
{
	struct sockaddr_nl self = { .nl_family = AF_NETLINK };
	int size = BUFFER_BYTES, one = 1;
	struct nfqnl_msg_config_cmd bind_it = { .command = NFQNL_CFG_CMD_BIND };
	struct nfqnl_msg_config_params numbers_only = { .copy_range = 0, .copy_mode = NFQNL_COPY_META };
	uint32_t most = htonl(QUEUE_MAX), whole = htonl(NFQA_CFG_F_GSO);
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
	if (fd < 0 || bind(fd, (void *)&self, sizeof self) != 0) fatal("netlink socket");
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
	setsockopt(fd, SOL_NETLINK, NETLINK_NO_ENOBUFS, &one, sizeof one);
	configure(NFQA_CFG_CMD, &bind_it, sizeof bind_it, "bind the queue");
	configure(NFQA_CFG_PARAMS, &numbers_only, sizeof numbers_only, "copy mode");
	configure(NFQA_CFG_QUEUE_MAXLEN, &most, sizeof most, "queue length");
	configure(NFQA_CFG_FLAGS, &whole, sizeof whole, "super-frames");
}

/* ---- frames ---- */

static void note(const struct nlmsghdr *h)
{
	const char *at = (const char *)NLMSG_DATA(h) + sizeof(struct nfgenmsg), *stop = (const char *)h + h->nlmsg_len;
	while (at + NLA_HDRLEN <= stop) {
		const struct nlattr *a = (const void *)at;
		if (a->nla_len < NLA_HDRLEN) return;
		if ((a->nla_type & NLA_TYPE_MASK) == NFQA_PACKET_HDR) {
			last = ntohl(((const struct nfqnl_msg_packet_hdr *)(at + NLA_HDRLEN))->packet_id);
			return;
		}
		at += NLA_ALIGN(a->nla_len);
	}
}

/* Reads the numbers of all that is queued now. */
static void drain(void)
{
	ssize_t n;
	while ((n = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT)) > 0) {
		for (struct nlmsghdr *h = (void *)bytes; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
			if (h->nlmsg_type == (NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET)) note(h);
		}
	}
	if (n < 0 && errno != EAGAIN && errno != EINTR && errno != ENOBUFS) fatal("receive");
}

/* One verdict for every frame up to `number`. */
static void verdict(int what, uint32_t number)
{
	struct message m;
	struct nfqnl_msg_verdict_hdr v = { .verdict = htonl(what), .id = htonl(number) };
	begin(&m, NFQNL_MSG_VERDICT_BATCH, 0);
	attribute(&m, NFQA_VERDICT_HDR, &v, sizeof v);
	send_message(&m);
}

static void obey(const char *line)
{
	unsigned number;
	drain();
	if (strncmp(line, "cut", 3) == 0) {
		printf("cut %u\n", last);
	} else if (sscanf(line, "commit %u", &number) == 1) {
		verdict(NF_ACCEPT, number);
		puts("committed");
	} else if (strncmp(line, "drop", 4) == 0) {
		verdict(NF_DROP, last);
		puts("dropped");
	} else {
		puts("unknown");
	}
	fflush(stdout);
}

int main(int argc, char **argv)
{
	char line[64];
	if (argc != 2) return 2;
	queue = atoi(argv[1]);
	open_queue();
	setvbuf(stdin, NULL, _IONBF, 0);
	for (;;) {
		struct pollfd fds[] = { { .fd = fd, .events = POLLIN }, { .fd = 0, .events = POLLIN } };
		if (poll(fds, 2, -1) < 0) continue;
		if (fds[0].revents) drain();
		if (fds[1].revents == 0) continue;
		if (fgets(line, sizeof line, stdin) == NULL) return 0;
		obey(line);
	}
}
