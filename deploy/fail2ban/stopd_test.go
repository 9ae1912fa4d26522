// Package fail2ban tests the action by itself; integration.TestFail2ban runs it in fail2ban.
package fail2ban

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// base is what the action takes from fail2ban.
const base = `
class ActionBase:
	def __init__(self, jail, name):
		self._jail, self._logSys = jail, jail.log
`

// stopctl answers for each port something else, once the file go is there: with it a host stalls.
const stopctl = `#!/bin/sh
until [ -e "$0.go" ] || [ ! -e "$0" ]; do sleep 0.01; done
case "$5 $6" in
"40022 22") echo sntxe5lmavo5rk2tk3ad6s45a5dhoq7piy7uiqpson42fh3z6imca ;;
"51000 22") echo NO-USER >&2; exit 3 ;;
*) echo name:carol ;;
esac
`

const script = `
import queue, sys, types
sys.path[:0] = [sys.argv[1], sys.argv[2]]
import stopd

class Log(queue.Queue):
	def notice(self, text, *args): self.put(text % args)
	warning = error = notice

log = Log()
action = stopd.Action(types.SimpleNamespace(name="sshd", log=log), "stopd", port="22", stopctl=sys.argv[1] + "/stopctl", timeout="600")

def failed(port, user="root"):
	return "host sshd[7]: Failed password for %s from 192.0.2.1 port %d ssh2" % (user, port)

def ban(*lines):
	action.ban({"ip": "192.0.2.1", "matches": "\n".join(lines)})

def check(got, want):
	if got != want:
		sys.exit("%r\nand not\n%r" % (got, want))

token = "sntxe5lmavo5rk2tk3ad6s45a5dhoq7piy7uiqpson42fh3z6imca"
# Who guessed is asked about and who mistyped once, who chose a name or says goodbye with words of sshd's is not believed.
ban(failed(40022), failed(40022, "x from 192.0.2.1 port 5555 ssh2"), failed(40023), failed(51000),
	failed(40022, "sshd[1]: Received disconnect from 192.0.2.1 port 5555:"),
	"host sshd[7]: Received disconnect from 192.0.2.1 port 40022:11: bye from 192.0.2.1 port 5555 [preauth]",
	"host sshd[7]: error: Received disconnect from 192.0.2.1 port 40022:3: bye from 192.0.2.1 port 5556 [preauth]")
check(log.qsize(), 0)  # and the ban goes on
# No more than so many at once, and these are logged.
ban(*[failed(1000 + i) for i in range(stopd.AT_ONCE)])
over = [log.get() for i in range(3)]
check(over, ["[sshd] no token of 192.0.2.1 port %d (1 of %d matches): too many questions are under way" % (1000 + stopd.AT_ONCE - 3 + i, stopd.AT_ONCE) for i in range(3)])
open(sys.argv[1] + "/stopctl.go", "w").close()
got = sorted(log.get() for i in range(stopd.AT_ONCE))
check([l for l in got if " of 7 " in l], [
	"[sshd] no token of 192.0.2.1 port 40023 (1 of 7 matches), but an answer: name:carol",
	"[sshd] no token of 192.0.2.1 port 51000 (1 of 7 matches): NO-USER",
	"[sshd] token of 192.0.2.1 port 40022 (3 of 7 matches): " + token])
# There is room again.
ban(failed(40022))
check(log.get(), "[sshd] token of 192.0.2.1 port 40022 (1 of 1 matches): " + token)
ban("nothing")
check(log.get(), "[sshd] no token of 192.0.2.1: its matches name no port")
`

func TestAction(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3")
	}
	dir := t.TempDir()
	server := filepath.Join(dir, "fail2ban", "server")
	if err := os.MkdirAll(server, 0o700); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{filepath.Join(server, "action.py"): base, filepath.Join(dir, "stopctl"): stopctl, filepath.Join(dir, "test.py"): script} {
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), python, "-B", filepath.Join(dir, "test.py"), dir, here).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
