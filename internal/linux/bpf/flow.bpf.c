//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// Writes down what the threads of one process take from sockets and send by them, while it is attached. What follows
// from that is not decided here.
#include "kernel.h"

char LICENSE[] SEC("license") = "GPL";

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct socket___flow {
	struct file *file;
};

struct sock___flow {
	struct socket___flow *sk_socket;
};

struct task_struct___flow {
	unsigned long nvcsw;
};

#pragma clang attribute pop

// Kinds of calls; see CallKind in decode_flow.go, which has the same order.
enum { TOOK = 1, SENT, ADVANCED };

// A call of one thread; see Call in decode_flow.go, which reads it.
struct call {
	__u64 at;
	__u64 socket; // its inode's number
	__u32 thread;
	__u32 octets;
	__u32 taken; // of ADVANCED: the sequence number up to which everything was taken (copied_seq)
	__u32 waits; // how often the thread has waited so far
	__u8 kind;
	__u8 pad[7];
};

// When it is full nothing more is written, so that what there is has no holes.
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} calls SEC(".maps");

// The process is told by its first thread, as find met it. That may lie where another lay that has ended.
__u64 process, started;

__u32 full;

#define MSG_PEEK 2
#define MSG_ERRQUEUE 0x2000

__inline int is_meant(struct task_struct *task)
{
	struct task_struct *leader = task->group_leader;
	return (__u64)leader == process && leader->start_boottime == started && !full;
}

__inline int emit(struct task_struct *task, struct sock *sk, int kind, __u32 octets)
{
	struct call c = {};
	c.socket = ((struct sock___flow *)sk)->sk_socket->file->f_inode->i_ino;
	if (!c.socket) // the kernel's own
		return 0;
	c.at = bpf_ktime_get_boot_ns();
	c.thread = task->pid;
	c.octets = octets;
	c.waits = ((struct task_struct___flow *)task)->nvcsw;
	c.kind = kind;
	if (kind == ADVANCED) {
		struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);
		if (!tcp)
			return 0;
		c.taken = tcp->copied_seq;
	}
	if (bpf_ringbuf_output(&calls, &c, sizeof(c), BPF_RB_NO_WAKEUP))
		full = 1;
	return 0;
}

// Every family's recvmsg passes here, and so read, recv and io_uring (sock_recvmsg in net/socket.c). What is taken of TCP
// is told below as well.
SEC("tp_btf/sock_recv_length")
int took(__u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct sock *sk = (void *)ctx[0];
	int n = ctx[1], flags = ctx[2];
	if (!is_meant(task) || flags & MSG_ERRQUEUE || n < 0)
		return 0;
	if (!(flags & MSG_PEEK) && (n == 0 || bpf_skc_to_tcp_sock(sk)))
		return 0;
	return emit(task, sk, TOOK, flags & MSG_PEEK ? 0 : n); // older kernels tell how much was looked at
}

SEC("tp_btf/sock_send_length")
int sent(__u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	int n = ctx[1];
	if (n <= 0 || !is_meant(task))
		return 0;
	return emit(task, (void *)ctx[0], SENT, n);
}

// Whatever takes octets of TCP comes here: recvmsg, splice, sendfile, mappings (tcp_recvmsg_locked, tcp_read_sock and
// tcp_zerocopy_receive in net/ipv4/tcp.c). So does who only looks, or splices where nothing is left to take.
SEC("tp_btf/tcp_rcv_space_adjust")
int advanced(__u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	if (!is_meant(task))
		return 0;
	return emit(task, (void *)ctx[0], ADVANCED, 0);
}

// find meets the threads of the process that it is bound to.
SEC("iter/task")
int find(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	if (!task)
		return 0;
	process = (__u64)task->group_leader;
	started = task->group_leader->start_boottime;
	return 0;
}
