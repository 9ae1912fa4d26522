package openbsd

// Where struct kinfo_file and struct kinfo_proc have what is read (sys/sysctl.h of OpenBSD 7.3, amd64; the same on every machine
// with 64 bits, least octet first). Later kernels add fields at the end, and give as much of a record as is asked for; earlier
// ones refuse to give more than they have.
const (
	fileSize = 632

	fileAddr     = 0   // address of the open file; 0 for who is not root
	fileFlag     = 8   // fcntl.h, as the kernel has them: 1 is read, 2 is write
	fileType     = 16  // DTYPE
	fileMsgCount = 24  // descriptors that wait in a UNIX socket
	fileUID      = 40  // who opened it
	fileData     = 64  // address of the pipe
	fileVType    = 120 // vnode.h
	fileRdev     = 132
	fileID       = 152
	fileFSID     = 172
	fileMount    = 176 // 96 octets
	sockType     = 272
	sockState    = 276
	sockPCB      = 280 // all ones for who is not root
	sockProto    = 288
	sockFamily   = 292
	inpLPort     = 304 // in network order, in the first half
	inpLAddr     = 308
	inpFPort     = 324
	inpFAddr     = 328
	unpConn      = 344 // the peer's PCB
	pipePeer     = 352
	filePID      = 376
	fileFD       = 380
	fileComm     = 400 // 24 octets
	inpTable     = 424
	unpPath      = 488 // 104 octets
	inpProto     = 592 // of a raw socket
	tcpState     = 596
)

const (
	procSize = 648

	procPID      = 108
	procPPID     = 112
	procSID      = 116
	procPGID     = 120
	procUID      = 128
	procRUID     = 132
	procGID      = 136
	procRGID     = 140
	procTDev     = 212
	procPriority = 305
	procNice     = 307
	procComm     = 312 // 24 octets
	procValid    = 400 // 0 of a process that has ended
	procStart    = 408 // seconds, 64 bits, and microseconds, 32
	procSVUID    = 568
	procSVGID    = 572
	procTable    = 612
)
