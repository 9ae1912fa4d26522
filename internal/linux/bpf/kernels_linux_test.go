package bpf

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"
)

// lacking returns what programs relocate against that a kernel's types have not, and what they attach to that it has not; each with the
// program's name.
func lacking(t *testing.T, spec *ebpf.CollectionSpec, kernel *btf.Spec, has []string) (lacks []string) {
	t.Helper()
	for name, p := range spec.Programs {
		kind, to, _ := strings.Cut(p.SectionName, "/")
		if attached := map[string]string{"tp_btf": "btf_trace_", "iter": "bpf_iter_"}[kind] + to; !slices.Contains(has, attached) {
			lacks = append(lacks, name+": "+attached)
		}
		var relocations []*btf.CORERelocation
		for i := range p.Instructions {
			if r := btf.CORERelocationMetadata(&p.Instructions[i]); r != nil {
				relocations = append(relocations, r)
			}
		}
		// Types are not told apart by number in these programs.
		number := func(x btf.Type) (btf.TypeID, error) {
			return 0, fmt.Errorf("program %s has the number of type %v", name, x)
		}
		fixups, err := btf.CORERelocate(relocations, []*btf.Spec{kernel}, spec.ByteOrder, number)
		if err != nil {
			t.Fatalf("relocate program %s: %v", name, err)
		}
		for i, f := range fixups {
			if s := f.String(); strings.HasSuffix(s, "=poison") || strings.HasPrefix(s, "field_exists") && strings.HasSuffix(s, "->0") {
				lacks = append(lacks, fmt.Sprintf("%s: %v", name, relocations[i]))
			}
		}
	}
	slices.Sort(lacks)
	return slices.Compact(lacks)
}

// What the programs need of Debian's kernels, the stable one and its backport, is in these, but for what is known. Their
// types are from the kernels' own BTF (testdata/kernels/make).
func TestDebianKernels(t *testing.T) {
	files, err := loadFiles()
	if err != nil {
		t.Fatal(err)
	}
	events, err := loadRecorder()
	if err != nil {
		t.Fatal(err)
	}
	flow, err := loadFlow()
	if err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob("testdata/kernels/*.btf")
	if err != nil || len(paths) != 2 {
		t.Fatal(paths, err)
	}
	// Before Linux 6.13 a file's references are in another field, which the program takes then.
	old := []string{`descriptors: CORERelocation(byte_off, Struct:"file___ref"[0:0:0:0], local_id=47)`,
		`descriptors: CORERelocation(field_exists, Struct:"file___ref"[0:0], local_id=47)`}
	known := map[string]map[string][]string{
		// Without these who has a connection that was accepted is known from its end alone.
		"6.1": {"files": old, "recorder": {"received: btf_trace_sock_recv_length", "sent: btf_trace_sock_send_length"},
			// No process is watched.
			"flow": {"sent: btf_trace_sock_send_length", "took: btf_trace_sock_recv_length"}},
		"6.12": {"files": old},
	}
	for _, path := range paths {
		kernel := strings.TrimSuffix(path, ".btf")
		t.Run(filepath.Base(kernel), func(t *testing.T) {
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			types, err := btf.LoadSpecFromReader(f)
			if err != nil {
				t.Fatal(err)
			}
			has, err := os.ReadFile(kernel + ".has")
			if err != nil {
				t.Fatal(err)
			}
			version := strings.Join(strings.SplitN(filepath.Base(kernel), ".", 3)[:2], ".")
			got := map[string][]string{}
			for name, spec := range map[string]*ebpf.CollectionSpec{"files": files, "recorder": events, "flow": flow} {
				if lacks := lacking(t, spec, types, strings.Fields(string(has))); len(lacks) > 0 {
					got[name] = lacks
				}
			}
			if d := cmp.Diff(known[version], got); d != "" {
				t.Errorf("lacking (-want +got):\n%s", d)
			}
		})
	}
}
