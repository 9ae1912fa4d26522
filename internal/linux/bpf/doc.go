// Package bpf reads descriptors from the kernel, through a program that the kernel runs for each
// (iter/task_file), and what happens to connections and processes, and in a process that is watched, through programs that it runs each time (tp_btf). That takes
// CAP_BPF and CAP_PERFMON, Linux 6.1 with a description of its own types (BTF), and no other privilege.
//
// The compiled programs are committed. To change one, change its source (*.bpf.c) and run make program, which needs
// Debian 12's clang-14 and llvm-14: other versions compile to other octets.
package bpf

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel,bpfeb -tags linux -no-global-types -cflags "-O2 -Wall -Werror -mcpu=v3" files files.bpf.c
//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel,bpfeb -tags linux -no-global-types -cflags "-O2 -Wall -Werror -mcpu=v3" recorder recorder.bpf.c
//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel,bpfeb -tags linux -no-global-types -cflags "-O2 -Wall -Werror -mcpu=v3" flow flow.bpf.c
