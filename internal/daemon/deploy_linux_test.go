package daemon

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The unit and the AppArmor profile leave every capability that a process keeps, but the unit not those for a store of
// another user than root.
func TestDeployedCapabilities(t *testing.T) {
	unit, profile := string(deployed(t, "stopd.service")), string(deployed(t, "stopd.apparmor"))
	for r, kept := range capabilities {
		for _, c := range kept {
			name := names(1 << c)[0]
			if !strings.Contains(profile, "\n  "+strings.ToLower(strings.Replace(name, "CAP_", "capability ", 1))+",\n") {
				t.Errorf("the profile has no %s for the %s", name, r)
			}
			others := slices.Contains([]int{unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER}, c)
			if bound := strings.Contains(unit, " "+name+" ") || strings.Contains(unit, "="+name+" ") || strings.Contains(unit, " "+name+"\n"); bound == others {
				t.Errorf("the unit has %s: %t", name, bound)
			}
		}
	}
}
