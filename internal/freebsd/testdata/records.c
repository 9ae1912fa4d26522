/*
 * Writes records as a FreeBSD kernel on amd64 would, from C structures of its layout (sys/user.h): what the decoders are
 * tested on is not made by them. The sizes are those that the system's header gives and holds its own structures to. make generate
 *
 * The host: sshd (8000) listens on port 22 of all addresses; its child (8337) has a connection from 198.51.100.1:616, the master of a
 * terminal and a UNIX socket, which the shell (8338) has the other end of, beside the slave side and a pipe to telnet (8339), which has a
 * connection to 203.0.113.3:23. init (1) and the kernel (0) have nothing.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <arpa/inet.h>

typedef struct { uint8_t len, family; char data[126]; } storage;
typedef struct { uint8_t len, family; uint16_t port; uint8_t addr[4], zero[8]; } sin4;
typedef struct { uint8_t len, family; char path[104]; } sun;

typedef struct {
	int structsize, type, fd, refs, flags, pad0;
	int64_t offset;
	union {
		struct { uint32_t sendq; int domain, type, protocol; storage local, peer; uint64_t pcb, inpcb, unpconn; uint16_t snd, rcv; uint32_t recvq; } sock;
		struct { int type, spare[3]; uint64_t spare64[30], fsid, rdev, fileid, size; uint32_t fsid11, rdev11; uint16_t mode, pad; uint32_t pad1; } vnode;
		struct { uint32_t spare[4]; uint64_t spare64[32], addr, peer; uint32_t count, pad[3]; } pipe;
		struct { uint32_t spare[4]; uint64_t spare64[32]; uint32_t dev11, pad; uint64_t dev; uint32_t pad1[4]; } pts;
	} u;
	uint16_t status, pad1;
	int spare;
	uint64_t rights[2], capspare;
	char path[1024];
} file;
_Static_assert(sizeof(file) == 1392, "KINFO_FILE_SIZE");

typedef struct { int64_t sec, usec; } when;
typedef struct { when utime, stime; int64_t counts[14]; } usage;

typedef struct {
	int structsize, layout;
	uint64_t args, paddr, addr, tracep, textvp, fd, vmspace, wchan;
	int pid, ppid, pgid, tpgid, sid, tsid;
	int16_t jobc, spare1;
	uint32_t tdev11, signals[4][4];
	uint32_t uid, ruid, svuid, rgid, svgid;
	int16_t ngroups, spare2;
	uint32_t groups[16];
	uint64_t size;
	int64_t rssize, swrss, tsize, dsize, ssize;
	uint16_t xstat, acflag;
	uint32_t pctcpu, estcpu, slptime, swtime, cow;
	uint64_t runtime;
	when start, childtime;
	int64_t flag, kiflag;
	int traceflag;
	char stat;
	signed char nice;
	char lock, rqindex;
	unsigned char oncpu, lastcpu;
	char tdname[17], wmesg[9], login[18], lockname[9], comm[20], emul[17], loginclass[18], moretdname[4], sparestrings[46];
	int spareints[2];
	uint64_t tdev;
	int oncpu2, lastcpu2, tracer, flag2, fibnum;
	uint32_t crflags;
	int jid, numthreads, tid;
	struct { unsigned char class, level, native, user; } pri;
	usage self, children;
	uint64_t pcb, kstack, udata, tdaddr, spareptrs[6];
	int64_t sparelongs[12], sflag, tdflags;
} proc;
_Static_assert(sizeof(proc) == 1088, "KINFO_PROC_SIZE");

// struct xucred (sys/ucred.h).
typedef struct { uint32_t version, uid; int16_t ngroups; uint32_t groups[16]; union { void *unused; int32_t pid; } u; } xucred;
_Static_assert(sizeof(xucred) == 88 && offsetof(xucred, uid) == 4, "xucred");
_Static_assert(sizeof(sin4) == 16, "sockaddr_in");

static char path[512];

static FILE *create(int pid, const char *name) {
	if (pid < 0)
		snprintf(path, sizeof path, "amd64/%s", name);
	else
		snprintf(path, sizeof path, "amd64/%d-%s", pid, name);
	FILE *f = fopen(path, "wb");
	if (f == NULL) { perror(path); exit(1); }
	return f;
}

static void done(FILE *f) { if (fclose(f) != 0) { perror(path); exit(1); } }

static void process(FILE *f, int pid, int ppid, int sid, uint32_t uid, const char *name) {
	proc p;
	memset(&p, 0, sizeof p);
	p.structsize = sizeof p;
	p.pid = pid; p.ppid = ppid; p.pgid = sid; p.sid = sid;
	p.uid = p.ruid = p.svuid = uid; p.rgid = p.svgid = p.groups[0] = uid; p.ngroups = 1;
	p.start.sec = 986130000 + pid; p.start.usec = 5;
	p.stat = 3; p.nice = -5; p.pri.level = 120;
	strncpy(p.comm, name, sizeof p.comm);
	fwrite(&p, sizeof p, 1, f);
}

static file descriptor(int fd, int type, int flags, const char *name) {
	file r;
	memset(&r, 0, sizeof r);
	r.fd = fd; r.type = type; r.flags = flags; r.refs = 1;
	if (name != NULL)
		strncpy(r.path, name, sizeof r.path - 1);
	return r;
}

/* As the kernel packs it: the path is cut after its NUL, and the record made a multiple of 8 octets long. */
static void put(FILE *f, file *r) {
	r->structsize = (offsetof(file, path) + strlen(r->path) + 1 + 7) / 8 * 8;
	fwrite(r, r->structsize, 1, f);
}

static void in4(storage *s, const char *addr, int port) {
	sin4 a;
	memset(&a, 0, sizeof a);
	a.len = sizeof a; a.family = 2; a.port = htons(port);
	inet_pton(AF_INET, addr, a.addr);
	memcpy(s, &a, sizeof a);
}

static void inet(FILE *f, int fd, uint64_t pcb, const char *local, int lport, const char *remote, int rport) {
	file r = descriptor(fd, 2, 3, NULL);
	r.u.sock.domain = 2; r.u.sock.type = 1; r.u.sock.protocol = 6; r.u.sock.pcb = pcb;
	in4(&r.u.sock.local, local, lport);
	if (remote != NULL)
		in4(&r.u.sock.peer, remote, rport);
	put(f, &r);
}

static void local(FILE *f, int fd, uint64_t pcb, uint64_t peer, const char *name, const char *far) {
	file r = descriptor(fd, 2, 3, NULL);
	r.u.sock.domain = 1; r.u.sock.type = 1; r.u.sock.pcb = pcb; r.u.sock.unpconn = peer;
	const char *paths[] = { name, far };
	for (int i = 0; i < 2; i++) {
		sun s;
		memset(&s, 0, sizeof s);
		s.family = 1; s.len = 2 + (paths[i] ? strlen(paths[i]) : 0);
		if (paths[i])
			strcpy(s.path, paths[i]);
		memcpy(i == 0 ? &r.u.sock.local : &r.u.sock.peer, &s, sizeof s);
	}
	put(f, &r);
}

static void vnode(FILE *f, int fd, int vtype, int flags, uint64_t rdev, uint64_t id, const char *name) {
	file r = descriptor(fd, 1, flags, name);
	r.u.vnode.type = vtype; r.u.vnode.fsid = 77; r.u.vnode.rdev = rdev; r.u.vnode.fileid = id;
	put(f, &r);
}

static void pipe_end(FILE *f, int fd, uint64_t addr, uint64_t peer, int flags) {
	file r = descriptor(fd, 3, flags, NULL);
	r.u.pipe.addr = addr; r.u.pipe.peer = peer;
	put(f, &r);
}

static void beginning(FILE *f, const char *exe, const char *tty) {
	vnode(f, -5, 1, 1, 0, 900, exe);
	vnode(f, -1, 2, 1, 0, 2, "/home");
	if (tty != NULL)
		vnode(f, -6, 4, 3, 0x9d, 71, tty);
}

int main(void) {
	mkdir("amd64", 0755);
	FILE *f = create(-1, "procs");
	process(f, 0, 0, 0, 0, "kernel");
	process(f, 1, 0, 1, 0, "init");
	process(f, 8000, 1, 8000, 0, "sshd");
	process(f, 8337, 8000, 8337, 0, "sshd");
	process(f, 8338, 8337, 8338, 1000, "csh");
	process(f, 8339, 8338, 8338, 1000, "telnet");
	done(f);
	f = create(8000, "files");
	beginning(f, "/usr/sbin/sshd", NULL);
	inet(f, 3, 0xfffff80001000000, "0.0.0.0", 22, NULL, 0);
	done(f);
	f = create(8337, "files");
	beginning(f, "/usr/sbin/sshd", NULL);
	inet(f, 4, 0xfffff80001000100, "192.0.2.2", 22, "198.51.100.1", 616);
	file m = descriptor(5, 10, 3, "pts/3");
	m.u.pts.dev = 0x9d;
	put(f, &m);
	local(f, 6, 0xfffff80002000000, 0xfffff80002000100, "/tmp/agent.8337", NULL);
	done(f);
	f = create(8338, "files");
	beginning(f, "/bin/csh", "/dev/pts/3");
	vnode(f, 0, 4, 3, 0x9d, 71, "/dev/pts/3");
	vnode(f, 1, 4, 3, 0x9d, 71, "/dev/pts/3");
	local(f, 3, 0xfffff80002000100, 0xfffff80002000000, NULL, "/tmp/agent.8337");
	pipe_end(f, 4, 0xfffff80003000100, 0xfffff80003000000, 2);
	done(f);
	f = create(8339, "files");
	beginning(f, "/usr/bin/telnet", "/dev/pts/3");
	inet(f, 3, 0xfffff80001000200, "192.0.2.2", 968, "203.0.113.3", 23);
	pipe_end(f, 4, 0xfffff80003000000, 0xfffff80003000100, 1);
	vnode(f, 5, 1, 3, 0, 55, "/var/tmp/notes");
	vnode(f, 6, 4, 3, 0x20, 12, "/dev/null");
	done(f);
	sin4 ends[2] = {{16, 2, htons(968), {192, 0, 2, 2}, {0}}, {16, 2, htons(23), {203, 0, 113, 3}, {0}}};
	f = create(8339, "question");
	fwrite(ends, sizeof ends, 1, f);
	done(f);
	xucred c = {.uid = 1000, .ngroups = 1, .groups = {1000}};
	f = create(8339, "cred");
	fwrite(&c, sizeof c, 1, f);
	done(f);
	return 0;
}
