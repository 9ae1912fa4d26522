// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// Part of recorder.bpf.c. Writes an event of what a process has by which it can be joined to others: pipes, UNIX sockets, pseudo
// terminals. No tracepoint tells of a descriptor that comes, so its table is looked at: as its program begins (close-on-exec is done by then:
// begin_new_exec in fs/exec.c), as it makes another, and as it ends (before exit_files in do_exit, kernel/exit.c).

#define HELD 10 // a kind of event

#define CUT 1 // what is told beside: there may be more

// Classes of joints; see Class in internal/recorder, which has the same order.
enum { PIPE = 1, UNIX, MASTER, SLAVE };

// Modes beside those of files; see Mode in internal/recorder.
enum { PASSING = 4, NAMED = 8, INHERITED = 16 };

#define SLOTS 64  // that are looked at
#define JOINTS 16 // that are written

struct joint {
	__u64 number; // of the inode, or of the terminal
	__u64 peer;   // of a socket: the inode of its other end, 0 where that is closed
	__u32 device; // of the file system
	__u8 class, mode;
	__u16 pad;
};

struct held_event {
	struct event e; // direction is CUT or 0, length the number of joints
	struct joint joints[JOINTS];
};

// It is too large for the stack. Each program has a place of its own on each processor, since one may interrupt another.
enum { FROM, WHILE, UNTIL, SINCE, PROGRAMS };

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(key_size, 4);
	__uint(value_size, sizeof(struct held_event));
	__uint(max_entries, PROGRAMS);
} scratch SEC(".maps");

// connected fills in which UNIX socket it is and its other end; 0 where it never had one.
__inline int connected(struct joint *j, struct file *file)
{
	struct socket *socket = READ(file, private_data);
	struct sock *sk = READ(socket, sk);
	if (!sk || READ(sk, __sk_common.skc_family) != AF_UNIX)
		return 0;
	struct sock *peer = READ((struct unix_sock *)sk, peer);
	if (!peer)
		return 0;
	socket = READ(peer, sk_socket);
	if (socket)
		j->peer = READ((struct socket_alloc *)socket, vfs_inode.i_ino);
	if (READ((struct unix_sock *)sk, addr))
		j->mode |= NAMED;
	j->class = UNIX;
	j->device = 0;
	return 1;
}

// identify fills in what a file joins; 0 where that is nothing.
__inline int identify(struct joint *j, struct file *file)
{
	struct inode *inode = READ(file, f_inode);
	__u32 type = READ(inode, i_mode) & TYPE;
	if (type != FIFO && type != SOCKET && type != DEVICE)
		return 0;
	struct super_block *sb = READ(inode, i_sb);
	j->number = READ(inode, i_ino);
	j->device = READ(sb, s_dev);
	j->peer = 0;
	j->pad = 0;
	j->mode = READ(file, f_mode) & 3;
	j->class = PIPE;
	if (type == SOCKET)
		return connected(j, file);
	if (type == DEVICE) {
		__u32 rdev = READ(inode, i_rdev), major = rdev >> 20;
		if (rdev == MULTIPLEXER) {
			j->class = MASTER;
			j->number = number_of_terminal(file, &j->device);
			return j->device != 0;
		}
		if (major < 136 || major > 143) // admin-guide/devices.txt: Unix98 PTY slaves
			return 0;
		j->class = SLAVE;
		j->number = (__u64)(major - 136) << 20 | (rdev & ((1 << 20) - 1));
	}
	return j->mode != 0; // else it was opened with O_PATH
}

// look adds what a file joins. It is a function of its own so that the kernel verifies it once and not for each slot.
__attribute__((noinline)) int look(__u32 program, __u64 file, __u32 mode)
{
	struct held_event *e = bpf_map_lookup_elem(&scratch, &program);
	if (!e)
		return 0;
	__u32 n = e->e.length;
	if (n >= JOINTS) {
		e->e.direction = CUT;
	} else if (identify(&e->joints[n], (void *)file)) {
		e->joints[n].mode |= mode;
		e->e.length = n + 1;
	}
	return 0;
}

// gather fills in the event of what a process has in those slots of which the bits are set, with a mode beside for those but the standard
// ones; 0 where that is nothing.
__inline struct held_event *gather(__u32 program, struct task_struct *task, __u64 slots, __u32 beside)
{
	__u64 open = 0, file;
	struct held_event *e = bpf_map_lookup_elem(&scratch, &program);
	struct files_struct *files = task->files;
	if (!e || !files || task->flags & PF_KTHREAD)
		return 0;
	__builtin_memset(&e->e, 0, sizeof(e->e));
	who(&e->e, task);
	if (e->e.pid <= 1)
		return 0;
	struct fdtable *table = READ(files, fdt);
	struct file **fds = READ(table, fd);
	bpf_probe_read_kernel(&open, sizeof(open), READ(table, open_fds));
	open &= slots;
	for (int i = 0; i < SLOTS && open >> i; i++) {
		if (open >> i & 1 && !bpf_probe_read_kernel(&file, sizeof(file), fds + i) && file)
			look(program, file, i > 2 ? beside : 0);
	}
	e->e.kind = HELD;
	e->e.at = bpf_ktime_get_boot_ns();
	return e->e.length ? e : 0;
}

__inline int held(__u32 program, struct task_struct *task, __u64 slots, __u32 beside)
{
	struct held_event *e = gather(program, task, slots, beside);
	if (e && e->e.length <= JOINTS)
		emit(e, sizeof(e->e) + e->e.length * sizeof(struct joint));
	return 0;
}

#define STANDARD 7ULL // slots 0, 1 and 2

SEC("tp_btf/sched_process_exec")
int held_from(__u64 *ctx)
{
	return held(FROM, (void *)ctx[0], ~0ULL, 0);
}

// What it has now and no more later it may have had to hand it on.
SEC("tp_btf/sched_process_fork")
int held_while(__u64 *ctx)
{
	struct task_struct *parent = (void *)ctx[0], *child = (void *)ctx[1];
	return child->pid == child->tgid ? held(WHILE, parent, ~STANDARD, PASSING) : 0;
}

// What a process that never became another program has may be what its parent had as it made it.
SEC("tp_btf/sched_process_exit")
int held_until(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct task_struct *leader = task->group_leader; // other threads never become another program
	struct signal_struct *signal = task->signal;
	return signal->live.counter == 0 ? held(UNTIL, task, ~0ULL, leader->flags & PF_FORKNOEXEC ? INHERITED : 0) : 0;
}

// held_since lists what the processes have that are there. One of them may be about to hand something on.
SEC("iter/task")
int held_since(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	if (!task || task->pid != task->tgid)
		return 0;
	struct files_struct *files = task->files;
	struct held_event *e = gather(SINCE, task, ~0ULL, PASSING);
	if (!e || e->e.length > JOINTS || task->files != files) // else it ended meanwhile, and this may be somebody else's
		return 0;
	bpf_seq_write(ctx->meta->seq, e, sizeof(e->e) + e->e.length * sizeof(struct joint));
	return 0;
}
