// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
// What the programs need of the kernel's types and of its helper functions. Where a field lies is found when
// a program is loaded, by its name, in the running kernel's own description (BTF); so the types here have the
// fields that are used and no others.
#pragma once

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef long long __s64;

#define SEC(name) __attribute__((section(name), used))
#define __inline static __attribute__((always_inline)) inline

// Helper functions, by their numbers in linux/bpf.h.
static long (*const bpf_get_current_task)(void) = (void *)35;
static long (*const bpf_probe_read_kernel)(void *to, __u32 size, const void *from) = (void *)113;
static long (*const bpf_seq_write)(void *seq, const void *data, __u32 size) = (void *)127;

// READ reads a field through a pointer that the kernel does not vouch for; 0 where that cannot be read.
#define READ(pointer, field)                                                                      \
	({                                                                                        \
		__typeof__((pointer)->field) value = 0;                                           \
		bpf_probe_read_kernel(&value, sizeof(value),                                      \
				      __builtin_preserve_access_index(&(pointer)->field));        \
		value;                                                                            \
	})

// HAS says whether the running kernel's type has a field (BPF_FIELD_EXISTS).
#define HAS(expression) __builtin_preserve_field_info(expression, 2)

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
	__u64 seq_num;
};

typedef struct {
	__s64 counter;
} atomic64_t;

typedef struct {
	int counter;
} atomic_t;

typedef struct {
	atomic64_t refcnt;
} file_ref_t;

struct list_head {
	struct list_head *next;
};

// linux/wait.h, linux/poll.h
struct wait_queue_head {
	struct list_head head;
};

struct wait_queue_entry {
	void *private;
	struct list_head entry;
};

struct poll_table_entry {
	struct file *filp;
	struct wait_queue_entry wait;
};

struct super_block {
	__u32 s_dev;
	unsigned long s_magic;
};

struct inode_operations {
	void *getattr;
};

struct pipe_inode_info {
	struct wait_queue_head rd_wait, wr_wait;
	__u32 files;
};

struct inode {
	__u16 i_mode;
	unsigned long i_ino;
	__u32 i_rdev;
	struct super_block *i_sb;
	const struct inode_operations *i_op;
	struct pipe_inode_info *i_pipe;
};

struct dentry {
	struct super_block *d_sb;
};

struct file {
	struct inode *f_inode;
	__u32 f_mode;
	void *private_data;
};

struct file___ref { // since Linux 6.13
	file_ref_t f_ref;
};

struct file___count {
	atomic64_t f_count;
};

struct socket_wq {
	struct wait_queue_head wait;
};

struct socket {
	struct socket_wq wq;
};

struct tty_struct {
	int index;
	struct tty_struct *link;
	void *driver_data;
};

struct tty_file_private {
	struct tty_struct *tty;
};

struct upid {
	int nr;
	void *ns;
};

struct pid {
	__u32 level;
	struct upid numbers[1];
};

struct files_struct {
	atomic_t count;
};

struct task_struct {
	int pid, tgid;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	struct files_struct *files;
};

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
};

#pragma clang attribute pop
