/*
 * Writes records as an illumos kernel on amd64 would, from C structures of its layout: what the decoders are tested on is
 * not made by them. The compiler checks the structures against the offsets that were printed of the system's own headers
 * (layout-amd64.txt). make generate
 *
 * The host: sshd (8000) listens on 192.0.2.2:22; its child (8337) has a connection from 198.51.100.1:616, the master of a terminal
 * and a pair of UNIX sockets with the shell (8338), which has the slave side. telnet (8339) has a connection to
 * 203.0.113.3:23, and a pipe with the shell. init (1) and sched (0) have nothing.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <arpa/inet.h>

typedef struct { int64_t sec, nsec; } when;

typedef struct {
	int flag, nlwp, pid, ppid, pgid, sid;
	uint32_t uid, euid, gid, egid;
	uint64_t addr, size, rssize, pad1, ttydev;
	uint16_t pctcpu, pctmem;
	when start, time, ctime;
	char fname[16], psargs[80];
	int wstat, argc;
	uint64_t argv, envp;
	char dmodel, pad2[3];
	int taskid, projid, nzomb, poolid, zoneid, contract, filler[1];
	struct {
		int flag, lwpid;
		uint64_t addr, wchan;
		char stype, state, sname, nice;
		int16_t syscall;
		char oldpri, cpu;
		int pri;
		uint16_t pctcpu, pad;
		when start, time;
		char clname[8], name[16];
		int onpro, bindpro, bindpset, lgrp;
		uint64_t last;
		int filler[2];
	} lwp;
} psinfo;
#define AT(t, f, n) _Static_assert(offsetof(t, f) == (n), #f)
_Static_assert(sizeof(psinfo) == 416, "psinfo_t");
AT(psinfo, pid, 8); AT(psinfo, ppid, 12); AT(psinfo, pgid, 16); AT(psinfo, sid, 20); AT(psinfo, uid, 24); AT(psinfo, euid, 28);
AT(psinfo, gid, 32); AT(psinfo, egid, 36); AT(psinfo, ttydev, 72); AT(psinfo, start, 88); AT(psinfo, fname, 136); AT(psinfo, psargs, 152);
AT(psinfo, lwp, 288); AT(psinfo, lwp.nice, 288 + 27); AT(psinfo, lwp.pri, 288 + 32);

typedef struct { uint32_t euid, ruid, suid, egid, rgid, sgid; int ngroups; uint32_t groups[1]; } cred;
_Static_assert(sizeof(cred) == 32, "prcred_t");

typedef struct {
	int fd; uint32_t mode;
	uint64_t ino, size; int64_t offset;
	uint32_t uid, gid, major, minor, rmajor, rminor;
	int fileflags, fdflags;
	int16_t locktype; int lockpid, locksysid, peerpid, filler[25];
	char peername[16];
	char misc[];
} fdinfo;
AT(fdinfo, mode, 4); AT(fdinfo, ino, 8); AT(fdinfo, major, 40); AT(fdinfo, minor, 44); AT(fdinfo, rmajor, 48); AT(fdinfo, rminor, 52);
AT(fdinfo, fileflags, 56); AT(fdinfo, peerpid, 76); AT(fdinfo, peername, 180); AT(fdinfo, misc, 196);

typedef struct { uint32_t size, type; } item;
typedef struct { uint16_t family, port; uint8_t addr[4], zero[8]; } sin4;
typedef struct { uint16_t family; char path[108]; } sun;

/* Of a connection what lies between state and creator is only there for its length. */
typedef struct { int state; uint8_t laddr[4]; uint32_t lport; uint8_t raddr[4]; uint32_t rport; char info[140]; uint32_t creator; char made[8]; } conn4;
_Static_assert(sizeof(conn4) == 172, "mib2_tcpConnEntry_t");
AT(conn4, creator, 160);
typedef struct { uint8_t laddr[16]; uint32_t lport; uint8_t raddr[16]; uint32_t rport, ifindex; int state; char info[140]; uint32_t creator; char made[8]; } conn6;
_Static_assert(sizeof(conn6) == 200, "mib2_tcp6ConnEntry_t");
AT(conn6, raddr, 20); AT(conn6, rport, 36); AT(conn6, state, 44); AT(conn6, creator, 188);
typedef struct { char before[48]; int size4; char between[156]; int size6; char after[16]; } tcp;
_Static_assert(sizeof(tcp) == 228, "mib2_tcp_t");
AT(tcp, size4, 48); AT(tcp, size6, 208);

static char path[512];

static FILE *create(int pid, const char *name) {
	snprintf(path, sizeof path, "amd64/%d-%s", pid, name);
	FILE *f = fopen(path, "wb");
	if (f == NULL) { perror(path); exit(1); }
	return f;
}

static void done(FILE *f) { if (fclose(f) != 0) { perror(path); exit(1); } }

static void process(int pid, int ppid, int sid, uint32_t uid, uint64_t tty, const char *name) {
	psinfo p;
	memset(&p, 0, sizeof p);
	p.pid = pid; p.ppid = ppid; p.pgid = sid; p.sid = sid;
	p.uid = p.euid = uid; p.gid = p.egid = uid;
	p.ttydev = tty;
	p.start.sec = 986130000 + pid; p.start.nsec = 500;
	strncpy(p.fname, name, sizeof p.fname);
	strncpy(p.psargs, name, sizeof p.psargs);
	p.lwp.nice = 20; p.lwp.pri = 59;
	FILE *f = create(pid, "psinfo");
	fwrite(&p, sizeof p, 1, f);
	done(f);
	cred c = { uid, uid, uid, uid, uid, uid, 0, { 0 } };
	f = create(pid, "cred");
	fwrite(&c, sizeof c - 4, 1, f); /* without groups */
	done(f);
}

#define NOTTY UINT64_MAX
#define PTS(n) ((uint64_t)24 << 32 | (n))

static FILE *descriptor(int pid, fdinfo *i) {
	char name[32];
	snprintf(name, sizeof name, "fdinfo-%d", i->fd);
	FILE *f = create(pid, name);
	fwrite(i, offsetof(fdinfo, misc), 1, f);
	return f;
}

static void put(FILE *f, uint32_t type, const void *data, uint32_t n) {
	item h = { sizeof(item) + n, type };
	fwrite(&h, sizeof h, 1, f);
	fwrite(data, n, 1, f);
}

static void end(FILE *f) {
	item h = { 0, 0 };
	fwrite(&h, sizeof h, 1, f);
	done(f);
}

static sin4 in4(const char *addr, int port) {
	sin4 s;
	memset(&s, 0, sizeof s);
	s.family = 2;
	s.port = htons(port);
	inet_pton(AF_INET, addr, s.addr);
	return s;
}

static void inet(int pid, int fd, uint64_t ino, const char *local, int lport, const char *remote, int rport) {
	fdinfo i;
	memset(&i, 0, sizeof i);
	i.fd = fd; i.mode = 0xc000 | 0666; i.ino = ino; i.major = 559; i.fileflags = 0x82; i.peerpid = -1;
	FILE *f = descriptor(pid, &i);
	sin4 l = in4(local, lport);
	put(f, 1, &l, sizeof l);
	if (remote != NULL) {
		sin4 r = in4(remote, rport);
		put(f, 2, &r, sizeof r);
	}
	uint32_t bools = 10, stream = 2;
	put(f, 3, &bools, sizeof bools);
	put(f, 9, &stream, sizeof stream);
	put(f, 7, NULL, 0); /* an item without data */
	end(f);
}

static void local(int pid, int fd, uint64_t ino, int peer) {
	fdinfo i;
	memset(&i, 0, sizeof i);
	i.fd = fd; i.mode = 0xc000; i.ino = ino; i.major = 559; i.fileflags = 2; i.peerpid = peer;
	FILE *f = descriptor(pid, &i);
	sun s;
	memset(&s, 0, sizeof s);
	s.family = 1;
	put(f, 1, &s, sizeof s);
	put(f, 2, &s, sizeof s);
	uint32_t stream = 2;
	put(f, 9, &stream, sizeof stream);
	end(f);
}

static void file(int pid, int fd, uint32_t mode, uint64_t ino, int flags, uint32_t rmajor, uint32_t rminor, const char *name) {
	fdinfo i;
	memset(&i, 0, sizeof i);
	i.fd = fd; i.mode = mode; i.ino = ino; i.major = 561; i.fileflags = flags; i.rmajor = rmajor; i.rminor = rminor; i.peerpid = -1;
	FILE *f = descriptor(pid, &i);
	if (name != NULL)
		put(f, 0, name, strlen(name) + 1);
	end(f);
}

static void row(FILE *f, int state, const char *local, int lport, const char *remote, int rport, uint32_t creator) {
	conn4 c;
	memset(&c, 0, sizeof c);
	c.state = state; c.lport = lport; c.rport = rport; c.creator = creator;
	inet_pton(AF_INET, local, c.laddr);
	inet_pton(AF_INET, remote, c.raddr);
	fwrite(&c, sizeof c, 1, f);
}

int main(void) {
	mkdir("amd64", 0755);
	process(0, 0, 0, 0, NOTTY, "sched");
	process(1, 0, 0, 0, NOTTY, "init");
	process(8000, 1, 8000, 0, NOTTY, "sshd");
	process(8337, 8000, 8337, 0, NOTTY, "sshd");
	process(8338, 8337, 8338, 1000, PTS(3), "csh");
	process(8339, 8338, 8338, 1000, PTS(3), "telnet");

	inet(8000, 3, 100, "192.0.2.2", 22, NULL, 0);
	inet(8337, 4, 101, "192.0.2.2", 22, "198.51.100.1", 616);
	file(8337, 5, 0x2000 | 0600, 70, 2, 23, 3, "/devices/pseudo/clone@0:ptm");
	local(8337, 6, 200, 8338);
	local(8338, 3, 201, 8337);
	file(8338, 0, 0x2000 | 0620, 71, 2, 24, 3, "/dev/pts/3");
	file(8338, 1, 0x2000 | 0620, 71, 2, 24, 3, "/dev/pts/3");
	file(8338, 4, 0x1000, 300, 1, 0, 0, NULL);
	inet(8339, 3, 102, "192.0.2.2", 968, "203.0.113.3", 23);
	file(8339, 4, 0x1000, 300, 0, 0, 0, NULL);
	file(8339, 5, 0x8000 | 0644, 55, 2, 0, 0, "/var/tmp/notes");

	tcp t;
	memset(&t, 0, sizeof t);
	t.size4 = sizeof(conn4); t.size6 = sizeof(conn6);
	FILE *f = create(0, "tcp");
	fwrite(&t, sizeof t, 1, f);
	done(f);
	f = create(0, "connections");
	row(f, 2, "192.0.2.2", 22, "0.0.0.0", 0, 8000);
	row(f, 5, "192.0.2.2", 22, "198.51.100.1", 616, 8000);
	row(f, 5, "192.0.2.2", 968, "203.0.113.3", 23, 8339);
	row(f, 11, "192.0.2.2", 967, "203.0.113.3", 23, 0); /* TIME-WAIT: nobody's */
	done(f);
	conn6 s;
	memset(&s, 0, sizeof s);
	s.state = 5; s.lport = 40000; s.rport = 22; s.creator = 8339;
	inet_pton(AF_INET6, "2001:db8::2", s.laddr);
	inet_pton(AF_INET6, "2001:db8::3", s.raddr);
	f = create(0, "connections6");
	fwrite(&s, sizeof s, 1, f);
	done(f);
	return 0;
}
