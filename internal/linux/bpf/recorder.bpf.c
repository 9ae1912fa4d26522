//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// Writes an event of each TCP connection and process that comes, changes or goes, and lists those that are there.
// Nothing is kept here: what belongs together is found by the cookie of a socket, and the number and start of a process.
#include "kernel.h"

char LICENSE[] SEC("license") = "GPL";

// Kinds of events; see Kind in internal/recorder, which has the same order.
enum { FORKED = 1, EXECUTED, EXITED, CONNECTING, ESTABLISHED, TOUCHED, CLOSED, PROCESS_MET, CONNECTION_MET };

// Directions, likewise.
enum { UNKNOWN, OUTBOUND, INBOUND };

// What all events begin with; see DecodeEvent in decode_event.go, which reads them.
struct event {
	__u8 kind, direction;
	__u16 length; // of the path at the end of a process's event, of an address at the end of a socket's
	__u32 pid;    // as the daemon's PID namespace counts; 0 is a process that it does not have, or none
	__u64 start;  // of the process
	__u64 at;
};

// CONNECTING and TOUCHED.
struct touch_event {
	struct event e; // direction is 1 where the connection is closed
	__u64 cookie;
};

struct closed_event {
	struct event e;
	__u64 cookie, sent, received;
	__u32 uid, none;
};

// ESTABLISHED and CONNECTION_MET.
struct open_event {
	struct event e; // length is that of an address, 4 or 16
	__u64 cookie;
	__u32 uid, netns;
	__u16 local_port, remote_port;
	__u8 ends[32]; // the local address and the remote one
};

#define MAX_PATH 256

struct process_event {
	struct event e;
	__u32 parent, session;
	__u64 parent_start;
	__u32 ruid, euid, loginuid, audit_session;
	char name[16];
	char path[MAX_PATH];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} events SEC(".maps");

__u64 lost; // events for which the ring had no room
__u32 own;  // the daemon's process that copies others' sockets to look at them, and may be the last to close one; 0 is none

// The daemon's PID namespace, as the iterator of processes found it.
static __u64 namespace;
static __u32 level;

// Waking the reader costs more than all the rest, so that is done once for so many octets; it looks by itself from time to time.
#define WAKE_EACH (256 << 10)

__inline int emit(void *data, __u64 size)
{
	__u64 at = bpf_ringbuf_query(&events, BPF_RB_PROD_POS), wake = (at ^ (at + size)) & WAKE_EACH;
	if (bpf_ringbuf_output(&events, data, size, wake ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP)) {
		__sync_fetch_and_add(&lost, 1);
		return 0;
	}
	return 1;
}

// number is a pid as the daemon's PID namespace counts, 0 where it does not.
__inline __u32 number(struct pid *pid)
{
	struct upid upid = {};
	if (!pid || READ(pid, level) < level)
		return 0;
	bpf_probe_read_kernel(&upid, sizeof(upid), (void *)__builtin_preserve_access_index(&pid->numbers) + level * sizeof(struct upid));
	return (__u64)upid.ns == namespace ? upid.nr : 0;
}

__inline __u32 number_of(struct task_struct *leader)
{
	return level ? number(leader->thread_pid) : leader->tgid;
}

__inline void who(struct event *e, struct task_struct *task)
{
	struct task_struct *leader = task->group_leader;
	e->pid = number_of(leader);
	e->start = leader->start_boottime;
}

__inline int is_tcp(struct sock *sk)
{
	return sk->sk_protocol == IPPROTO_TCP && sk->sk_type == SOCK_STREAM &&
	       (sk->__sk_common.skc_family == AF_INET || sk->__sk_common.skc_family == AF_INET6);
}

__inline __u64 cookie(struct sock *sk)
{
	__u64 n = sk->__sk_common.skc_cookie.counter;
	return n ? n : bpf_get_socket_cookie(sk); // which gives it one
}

// ends fills in the ends of a connection, and returns how long that is.
__inline __u64 ends(struct open_event *e, struct sock *sk, struct tcp_sock *tcp)
{
	struct inet_sock *inet = (void *)tcp;
	e->cookie = cookie(sk);
	e->uid = sk->sk_uid.val;
	e->netns = sk->__sk_common.skc_net.net->ns.inum;
	e->local_port = inet->inet_sport;
	e->remote_port = sk->__sk_common.skc_dport;
	if (sk->__sk_common.skc_family == AF_INET6 && HAS(((struct sock_common *)0)->skc_v6_daddr)) {
		bpf_probe_read_kernel(e->ends, 16, __builtin_preserve_access_index(&sk->__sk_common.skc_v6_rcv_saddr));
		bpf_probe_read_kernel(e->ends + 16, 16, __builtin_preserve_access_index(&sk->__sk_common.skc_v6_daddr));
		e->e.length = 16;
		return __builtin_offsetof(struct open_event, ends[32]);
	}
	*(__u32 *)e->ends = sk->__sk_common.skc_rcv_saddr;
	*(__u32 *)(e->ends + 4) = sk->__sk_common.skc_daddr;
	e->e.length = 4;
	return __builtin_offsetof(struct open_event, ends[8]);
}

// Of which process was told last that it has a connection: what has been told is not told again, but that it connects, since a socket
// may be connected once more. Each processor gives 4,096 cookies one after the other (include/linux/cookie.h), so each of the latest
// connections has a place that few share; one whose place another took is told of once more.
#define TOLD 4096
static __u64 told[TOLD];

// touched tells that the running process has a connection. The kernel's own threads close what others left.
__inline int touched(struct sock *sk, int kind)
{
	struct task_struct *task = bpf_get_current_task_btf();
	if (task->flags & PF_KTHREAD)
		return 0;
	struct touch_event e = {.e.kind = kind, .cookie = cookie(sk)};
	who(&e.e, task);
	if ((!e.e.pid && kind == TOUCHED) || (own && e.e.pid == own)) // nobody's of ours
		return 0;
	// Both in one word: it may be written on another processor.
	__u64 *last = &told[e.cookie % TOLD], both = (e.cookie * 0x9e3779b97f4a7c15 ^ e.e.start) + e.e.pid;
	if (*last == both && kind == TOUCHED)
		return 0;
	e.e.direction = kind == TOUCHED && sk->__sk_common.skc_state == TCP_CLOSE;
	e.e.at = bpf_ktime_get_boot_ns();
	if (emit(&e, sizeof(e)))
		*last = both;
	return 0;
}

// Whoever has locked a socket has it (lock_sock in net/core/sock.c), but for who destroys others' (tcp_abort in net/ipv4/tcp.c); what packets do
// to it they do where nobody has.
__inline int locked(struct sock *sk)
{
	return sk->sk_lock.owned;
}

// changed tells of a connection's new state.
__inline int changed(struct sock *sk, int from, int to)
{
	struct tcp_sock *tcp;

	if (to == TCP_SYN_SENT)
		return touched(sk, CONNECTING);
	if (to == TCP_FIN_WAIT1 || to == TCP_LAST_ACK)
		return locked(sk) ? touched(sk, TOUCHED) : 0;
	if (to == TCP_ESTABLISHED) {
		struct open_event e = {.e.kind = ESTABLISHED, .e.direction = from == TCP_SYN_SENT ? OUTBOUND : INBOUND};
		if (!(tcp = bpf_skc_to_tcp_sock(sk)))
			return 0;
		e.e.at = bpf_ktime_get_boot_ns();
		emit(&e, ends(&e, sk, tcp));
	}
	if (to == TCP_CLOSE && from != TCP_CLOSE && from != TCP_LISTEN) {
		struct closed_event e = {.e.kind = CLOSED, .cookie = cookie(sk)};
		if (!(tcp = bpf_skc_to_tcp_sock(sk)))
			return 0;
		struct task_struct *task = bpf_get_current_task_btf();
		if (locked(sk) && !sk->sk_err && !(task->flags & PF_KTHREAD)) // an error came from elsewhere, or from tcp_abort
			who(&e.e, task);
		if (e.e.pid == own)
			e.e.pid = 0;
		e.e.at = bpf_ktime_get_boot_ns();
		e.sent = tcp->bytes_acked;
		e.received = tcp->bytes_received;
		e.uid = sk->sk_uid.val; // accept(2) has set it since it was established
		emit(&e, sizeof(e));
	}
	return 0;
}

// The kernel skips a program where a packet comes while it runs on the same processor (prog->active in kernel/trace/bpf_trace.c), and what that packet changes would be
// missing. So there are two that tell of what packets change, of which it skips one at most: the second is silent about what the first has just told, and at worst
// something is told twice, which says nothing new.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(key_size, 4);
	__uint(value_size, 8);
	__uint(max_entries, 1);
} latest SEC(".maps");

// by_packet is which of the changes that packets make and that are told it may be; 0 is none.
__inline __u64 by_packet(struct sock *sk, int to)
{
	return !locked(sk) && (to == TCP_ESTABLISHED || to == TCP_CLOSE) && is_tcp(sk) ? cookie(sk) << 4 | to : 0;
}

SEC("tp_btf/inet_sock_set_state")
int state(__u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	if (!is_tcp(sk))
		return 0;
	changed(sk, ctx[1], ctx[2]);
	__u64 change = by_packet(sk, ctx[2]), *told;
	__u32 first = 0;
	if (change && (told = bpf_map_lookup_elem(&latest, &first)))
		*told = change;
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int state_again(__u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	__u64 change = by_packet(sk, ctx[2]), *told;
	__u32 first = 0;
	if (!change || !(told = bpf_map_lookup_elem(&latest, &first)))
		return 0;
	__u64 by_first = *told;
	*told = 0;
	return by_first == change ? 0 : changed(sk, ctx[1], ctx[2]);
}

// The first octets that a process sends or takes tell who has a connection that was accepted. That they are the first is
// told by the counters: a SYN or a FIN counts as one.
SEC("tp_btf/sock_send_length")
int sent(__u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	int n = ctx[1];
	struct tcp_sock *tcp;
	if (n <= 0 || !is_tcp(sk) || !(tcp = bpf_skc_to_tcp_sock(sk)))
		return 0;
	__u64 all = tcp->bytes_acked + (__u32)(tcp->write_seq - tcp->snd_una);
	return all <= (__u64)n + 1 ? touched(sk, TOUCHED) : 0;
}

SEC("tp_btf/sock_recv_length")
int received(__u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	int n = ctx[1];
	struct tcp_sock *tcp;
	if (n < 0 || !is_tcp(sk) || !(tcp = bpf_skc_to_tcp_sock(sk)))
		return 0;
	__u64 all = tcp->bytes_received - (__u32)(tcp->rcv_nxt - tcp->copied_seq);
	return all <= (__u64)n + 1 ? touched(sk, TOUCHED) : 0;
}

// describe fills in what a process is; 0 where the daemon's PID namespace does not have it. Its users are those that others see it as: for a moment it may act as another (override_creds in kernel/cred.c).
__inline int describe(struct process_event *e, struct task_struct *task, struct task_struct *parent, int kind)
{
	__builtin_memset(e, 0, sizeof(*e));
	e->e.kind = kind;
	who(&e->e, task);
	if (!e->e.pid)
		return 0;
	e->e.at = bpf_ktime_get_boot_ns();
	parent = parent->group_leader;
	e->parent = number_of(parent);
	e->parent_start = parent->start_boottime;
	struct signal_struct *signal = task->signal;
	e->session = number(signal->pids[PIDTYPE_SID]);
	const struct cred *cred = task->real_cred;
	e->ruid = cred->uid.val;
	e->euid = cred->euid.val;
	e->loginuid = e->audit_session = -1;
	if (HAS(task->loginuid)) {
		e->loginuid = task->loginuid.val;
		e->audit_session = task->sessionid;
	}
	bpf_probe_read_kernel(e->name, sizeof(e->name), __builtin_preserve_access_index(&task->group_leader->comm));
	return 1;
}

#define WITHOUT_PATH __builtin_offsetof(struct process_event, path)

SEC("tp_btf/sched_process_fork")
int forked(__u64 *ctx)
{
	struct task_struct *parent = (void *)ctx[0], *child = (void *)ctx[1];
	struct process_event e;
	// Not the kernel's own threads, but what they run: until Linux 5.19 that is told by who makes it alone (kthreadd in kernel/kthread.c).
	if (child->flags & PF_KTHREAD && parent->tgid == KTHREADD)
		return 0;
	if (child->pid == child->tgid && describe(&e, child, parent, FORKED))
		emit(&e, WITHOUT_PATH);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int executed(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct linux_binprm *program = (void *)ctx[2];
	struct process_event e;
	if (!describe(&e, task, task->real_parent, EXECUTED))
		return 0;
	long n = bpf_probe_read_kernel_str(e.path, MAX_PATH, program->filename);
	if (n < 0 || n >= MAX_PATH) // a path that is cut is another
		n = 0;
	e.e.length = n ? n - 1 : 0;
	emit(&e, WITHOUT_PATH + n);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int exited(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct signal_struct *signal = task->signal;
	struct process_event e;
	// Of several threads that end at once each may be the last: one too many says the same.
	if (signal->live.counter == 0 && !(task->flags & PF_KTHREAD) && describe(&e, task, task->real_parent, EXITED))
		emit(&e, WITHOUT_PATH);
	return 0;
}

// processes lists those of the reader's PID namespace, and finds that.
SEC("iter/task")
int processes(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct process_event e;
	if (ctx->meta->seq_num == 0) {
		struct task_struct *me = bpf_get_current_task_btf();
		struct pid *pid = me->thread_pid;
		struct upid upid = {};
		level = pid->level;
		bpf_probe_read_kernel(&upid, sizeof(upid), (void *)__builtin_preserve_access_index(&pid->numbers) + level * sizeof(struct upid));
		namespace = (__u64)upid.ns;
	}
	if (!task || task->pid != task->tgid || task->flags & PF_KTHREAD || !describe(&e, task, task->real_parent, PROCESS_MET))
		return 0;
	if (task->signal->live.counter == 0)
		return 0;
	bpf_seq_write(ctx->meta->seq, &e, WITHOUT_PATH);
	return 0;
}

// direction is told by the counters: the SYN of whoever opened a connection was acknowledged, and is no octet that was sent. The rule
// is that of decode_diag.go; here without those that have sent a FIN.
__inline __u8 direction(struct tcp_sock *tcp, __u8 state)
{
	if (state != TCP_ESTABLISHED && state != TCP_CLOSE_WAIT)
		return UNKNOWN;
	__u64 more = tcp->bytes_acked + (__u32)(tcp->snd_nxt - tcp->snd_una) - (tcp->bytes_sent - tcp->bytes_retrans);
	return more == 1 ? OUTBOUND : more == 0 ? INBOUND : UNKNOWN;
}

// connections lists those that a process has a descriptor of, once for each.
SEC("iter/task_file")
int connections(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct open_event e = {.e.kind = CONNECTION_MET};
	if (!task || !file)
		return 0;
	struct socket *socket = bpf_sock_from_file(file);
	if (!socket)
		return 0;
	struct sock *sk = socket->sk;
	if (!sk || !is_tcp(sk))
		return 0;
	__u8 state = sk->__sk_common.skc_state;
	if (state == TCP_LISTEN || state == TCP_CLOSE)
		return 0;
	if (state == TCP_SYN_SENT) { // it has no ends yet
		struct touch_event c = {.e.kind = CONNECTING, .cookie = cookie(sk)};
		c.e.at = bpf_ktime_get_boot_ns();
		who(&c.e, task);
		bpf_seq_write(ctx->meta->seq, &c, sizeof(c));
		return 0;
	}
	struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp)
		return 0;
	e.e.at = bpf_ktime_get_boot_ns();
	e.e.direction = direction(tcp, state);
	who(&e.e, task);
	bpf_seq_write(ctx->meta->seq, &e, ends(&e, sk, tcp));
	return 0;
}

#include "joints.h"
