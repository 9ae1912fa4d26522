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

// Maps are described to the loader by the types of fields.
#define __uint(name, value) int(*name)[value]
#define BPF_MAP_TYPE_PERCPU_ARRAY 6
#define BPF_MAP_TYPE_RINGBUF 27
#define BPF_RB_NO_WAKEUP 1
#define BPF_RB_FORCE_WAKEUP 2
#define BPF_RB_PROD_POS 3

struct task_struct;
struct sock;
struct tcp_sock;
struct file;
struct socket;

// Helper functions, by their numbers in linux/bpf.h.
static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*const bpf_get_current_task)(void) = (void *)35;
static __u64 (*const bpf_get_socket_cookie)(void *sk) = (void *)46;
static long (*const bpf_probe_read_kernel)(void *to, __u32 size, const void *from) = (void *)113;
static long (*const bpf_probe_read_kernel_str)(void *to, __u32 size, const void *from) = (void *)115;
static __u64 (*const bpf_ktime_get_boot_ns)(void) = (void *)125;
static long (*const bpf_seq_write)(void *seq, const void *data, __u32 size) = (void *)127;
static long (*const bpf_ringbuf_output)(void *ring, void *data, __u64 size, __u64 flags) = (void *)130;
static __u64 (*const bpf_ringbuf_query)(void *ring, __u64 what) = (void *)134;
static struct tcp_sock *(*const bpf_skc_to_tcp_sock)(void *sk) = (void *)137;
static struct task_struct *(*const bpf_get_current_task_btf)(void) = (void *)158;
static struct socket *(*const bpf_sock_from_file)(struct file *file) = (void *)162;

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

#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define SOCK_STREAM 1
#define IPPROTO_TCP 6
#define PIDTYPE_SID 3
#define PF_FORKNOEXEC 0x00000040
#define PF_KTHREAD 0x00200000 // linux/sched.h
#define KTHREADD 2

// What an inode is (uapi/linux/stat.h), and /dev/ptmx.
#define TYPE 0170000
#define SOCKET 0140000
#define REGULAR 0100000
#define DEVICE 0020000
#define FIFO 0010000
#define MULTIPLEXER (5 << 20 | 2)

// net/tcp_states.h
enum { TCP_ESTABLISHED = 1, TCP_SYN_SENT, TCP_SYN_RECV, TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_TIME_WAIT, TCP_CLOSE, TCP_CLOSE_WAIT, TCP_LAST_ACK, TCP_LISTEN };

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

struct net {
	struct ns_common {
		__u32 inum;
	} ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

typedef struct {
	__u32 val;
} kuid_t;

struct in6_addr {
	__u8 octets[16];
};

struct sock_common {
	__u32 skc_daddr, skc_rcv_saddr;
	__u16 skc_dport, skc_family;
	volatile __u8 skc_state;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr, skc_v6_rcv_saddr;
	atomic64_t skc_cookie;
};

typedef struct {
	int owned;
} socket_lock_t;

struct sock {
	struct sock_common __sk_common;
	struct socket *sk_socket;
	socket_lock_t sk_lock;
	__u16 sk_type, sk_protocol;
	int sk_err;
	kuid_t sk_uid;
};

struct inet_sock {
	__u16 inet_sport;
};

struct tcp_sock {
	__u64 bytes_received, bytes_acked, bytes_sent, bytes_retrans;
	__u32 rcv_nxt, copied_seq, snd_una, snd_nxt, write_seq;
};

struct socket {
	struct socket_wq wq;
	struct sock *sk;
};

struct unix_sock {
	void *addr;
	struct sock *peer;
};

struct socket_alloc {
	struct inode vfs_inode;
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

struct fdtable {
	struct file **fd;
	unsigned long *open_fds;
};

struct files_struct {
	atomic_t count;
	struct fdtable *fdt;
};

struct cred {
	kuid_t uid, euid;
};

struct signal_struct {
	atomic_t live;
	struct pid *pids[4];
};

struct task_struct {
	__u32 flags;
	int pid, tgid;
	struct task_struct *group_leader, *real_parent;
	struct pid *thread_pid;
	struct files_struct *files;
	__u64 start_boottime;
	struct signal_struct *signal;
	const struct cred *real_cred;
	kuid_t loginuid;
	__u32 sessionid;
	char comm[16];
};

struct linux_binprm {
	const char *filename;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
};

#pragma clang attribute pop

// number_of_terminal is the number of a master side's terminal, and device that of the file system its slave side is on; 0 where it
// is not known.
__inline __u64 number_of_terminal(struct file *master, __u32 *device)
{
	struct tty_file_private *opened = READ(master, private_data);
	struct tty_struct *tty = READ(opened, tty);
	struct tty_struct *slave = READ(tty, link);
	struct dentry *entry = READ(slave, driver_data);
	struct super_block *sb = READ(entry, d_sb);
	*device = READ(sb, s_dev);
	return READ(tty, index);
}
