//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// Walks descriptors (iter/task_file) and writes a record of each that a channel can be made of.
#include "kernel.h"

char LICENSE[] SEC("license") = "GPL";

// A record is one descriptor; see Record in decode.go, which reads it.
struct record {
	__u32 pid, tid, fd, mode; // mode is f_mode's lowest two bits
	__u64 file, inode, table; // kernel addresses: they only serve to be compared
	__u64 number;		  // of the inode, or of the terminal
	__u64 magic;		  // of the file system
	__u32 device, rdev;	  // as the kernel counts: 12 and 20 bits
	__u16 type;		  // i_mode
	__u8 plain, kind;
	__u32 references, waiters, files;
};

// Whose number it is.
enum { INODE, MASTER };

// One pass runs at a time: it takes its orders from here, and counts here.
volatile __u32 first; // descriptors below are left out
volatile __u32 most;  // records of one table; then one more is written with mode CUT

static __u64 table; // the table of the last record
static __u32 count; // of its records so far
static __u32 level; // of the reader's PID namespace
static int reader;  // its process, which is left out

#define CUT 4

#define MEMORY 1 // the devices' major number

#define ANON_INODE_MAGIC 0x09041934 // linux/magic.h

__inline int pid_of(struct task_struct *task)
{
	struct pid *pid = READ(task, thread_pid);
	int nr = 0;
	// Not through the type: the array may have a length of its own.
	bpf_probe_read_kernel(&nr, sizeof(nr), (void *)__builtin_preserve_access_index(&pid->numbers) + level * sizeof(struct upid));
	return nr;
}

// references counts those to a file, without the iterator's own (fget_task_next in kernel/bpf/task_iter.c).
__inline __u32 references(struct file *file)
{
	if (HAS(((struct file___ref *)0)->f_ref))
		return READ((struct file___ref *)file, f_ref.refcnt.counter); // one less than there are (linux/file_ref.h)
	return READ((struct file___count *)file, f_count.counter) - 1;
}

// waiters counts the references to a file that whoever waits for it has: poll(2) and select(2) take one each,
// and other calls where a thread could close the descriptor meanwhile.
__inline __u32 waiters(struct file *file, struct wait_queue_head *queue)
{
	struct list_head *head = __builtin_preserve_access_index(&queue->head);
	struct list_head *at = READ(queue, head.next);
	__u32 n = 0;
	for (int i = 0; i < 32 && at && at != head; i++) {
		struct wait_queue_entry *entry = (void *)at - __builtin_preserve_field_info(((struct wait_queue_entry *)0)->entry, 0);
		struct poll_table_entry *poll = (void *)entry - __builtin_preserve_field_info(((struct poll_table_entry *)0)->wait, 0);
		struct task_struct *task = READ(entry, private);
		if (READ(poll, filp) == file) {
			n++;
		} else if (task) {
			struct files_struct *files = READ(task, files);
			n += READ(files, count.counter) > 1;
		}
		at = READ(at, next);
	}
	return n;
}

SEC("iter/task_file")
int descriptors(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct record r;

	if (ctx->meta->seq_num == 0) {
		struct task_struct *me = (void *)bpf_get_current_task();
		struct pid *pid = READ(me, thread_pid);
		level = READ(pid, level);
		reader = READ(me, tgid);
		table = 0;
	}
	if (!task || !file || task->tgid == reader || ctx->fd < first)
		return 0;
	struct inode *inode = file->f_inode;
	__u32 type = inode->i_mode & TYPE, rdev = inode->i_rdev;
	if (type == DEVICE && rdev >> 20 == MEMORY)
		return 0; // null, zero and the like, which everybody has
	if (type != SOCKET && type != REGULAR && type != DEVICE && type != FIFO && type != 0)
		return 0;
	struct super_block *sb = inode->i_sb;

	__builtin_memset(&r, 0, sizeof(r));
	r.kind = INODE;
	r.type = inode->i_mode;
	r.number = inode->i_ino;
	r.device = sb->s_dev;
	r.magic = sb->s_magic;
	if (r.magic == ANON_INODE_MAGIC) {
		r.type = 0; // as stat(2) shows it
	} else if (rdev == MULTIPLEXER && type == DEVICE) {
		r.kind = MASTER;
		r.number = number_of_terminal(file, &r.device);
	}
	r.table = (__u64)task->files;
	if (r.table != table) {
		table = r.table;
		count = 0;
	}
	if (most && count > most)
		return 0;
	r.mode = count == most && most ? CUT : file->f_mode & 3;
	r.fd = ctx->fd;
	r.pid = pid_of(task->group_leader);
	r.tid = task->pid == task->tgid ? r.pid : pid_of(task);
	r.file = (__u64)file;
	r.inode = (__u64)inode;
	r.rdev = rdev;
	r.plain = !inode->i_op->getattr;
	r.references = references(file);
	if (type == FIFO) {
		struct pipe_inode_info *pipe = inode->i_pipe;
		r.files = READ(pipe, files);
		if (r.references > 1)
			r.waiters = waiters(file, __builtin_preserve_access_index(&pipe->rd_wait)) +
				    waiters(file, __builtin_preserve_access_index(&pipe->wr_wait));
	} else if (type == SOCKET) {
		struct socket *socket = file->private_data;
		r.files = 1;
		if (r.references > 1)
			r.waiters = waiters(file, __builtin_preserve_access_index(&socket->wq.wait));
	}
	// What has no room in the reader's buffer is not written, and comes again (bpf_seq_read in kernel/bpf/bpf_iter.c): if that
	// counted, the record that says CUT could be the one, and what is behind it would be missing without a word.
	if (bpf_seq_write(ctx->meta->seq, &r, sizeof(r)) == 0)
		count++;
	return 0;
}
