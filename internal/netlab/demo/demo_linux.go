package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/stopd/stopd/chain"
	"github.com/stopd/stopd/internal/netlab"
	"github.com/stopd/stopd/internal/netlab/site"
	"github.com/stopd/stopd/report"
)

// limit bounds the whole demonstration.
const limit = 5 * time.Minute

// Run makes three hosts, logs through them with ssh, traces the last connection back and prints the chain.
// Without root it traces a connection of this host alone.
func Run(ctx context.Context, w io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if os.Geteuid() != 0 {
		return runAlone(ctx, w)
	}
	lab, err := netlab.New(ctx, netlab.SSHPackages...)
	if err != nil {
		return err
	}
	d := &demo{ctx: ctx, w: w, lab: lab}
	return errors.Join(d.run(), lab.Close())
}

type demo struct {
	ctx   context.Context
	w     io.Writer
	lab   *netlab.Lab
	sites []*site.Site
	files []string
}

// say prints a line of the story.
func (d *demo) say(format string, v ...any) { fmt.Fprintf(d.w, format+"\n", v...) }

// shell prints a command as an administrator of a host would type it.
func (d *demo) shell(s *site.Site, format string, v ...any) {
	d.say("  root@%s# "+format, append([]any{s.Host.Name}, v...)...)
}

func (d *demo) run() error {
	if err := d.hosts(); err != nil {
		return err
	}
	session, port, err := d.login()
	if err != nil {
		return err
	}
	defer session.Close()
	return d.trace(port)
}

func (d *demo) hosts() error {
	d.say("Three hosts, each with sshd and stopd:")
	for i, name := range []string{"home", "stone", "target"} {
		addr := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(10 * (i + 1))}), 24)
		h, err := d.lab.AddHost(d.ctx, name, addr)
		if err != nil {
			return err
		}
		if err := h.AddUser("mallory", 1001); err != nil {
			return err
		}
		if _, err := h.StartSSHD(d.ctx); err != nil {
			return err
		}
		s, err := site.Start(d.ctx, h)
		if err != nil {
			return err
		}
		d.sites = append(d.sites, s)
		d.say("  %-7s %s", name, addr.Addr())
	}
	for i := range d.sites[1:] {
		if err := d.lab.Trust(d.ctx, "mallory", d.sites[i].Host, d.sites[i+1].Host); err != nil {
			return err
		}
	}
	return nil
}

// login walks from host to host with ssh and returns the port of the last connection's other end.
func (d *demo) login() (*netlab.Session, string, error) {
	d.say("\nAn intruder walks from home through stone to target:")
	// The shell stays her ssh's parent, as it would at a terminal.
	s, err := netlab.Open(d.sites[0].Host.CommandAs(d.ctx, "mallory", "bash", "-c", "ssh -tt stone; exit"))
	if err != nil {
		return nil, "", err
	}
	steps := []struct{ on, type_, expect string }{
		{"home", "", "mallory@stone"},
		{"stone", "ssh -tt target", "mallory@target"},
		{"target", "echo came=$SSH_CONNECTION=", "came=192"},
	}
	d.say("  mallory@home$ ssh stone")
	for _, st := range steps {
		if st.type_ != "" {
			if st.on == "stone" {
				d.say("  mallory@stone$ ssh target")
			}
			if err := s.Send(st.type_); err != nil {
				return nil, "", errors.Join(err, s.Close())
			}
		}
		if _, err := s.Expect(d.ctx, st.expect); err != nil {
			return nil, "", errors.Join(err, s.Close())
		}
	}
	out, err := s.Expect(d.ctx, "=")
	f := strings.Fields(out)
	if err != nil || len(f) < 2 {
		return nil, "", errors.Join(err, fmt.Errorf("read SSH_CONNECTION: %q", out), s.Close())
	}
	return s, f[1], nil
}

// trace asks about the last connection, redeems on each host and draws the chain.
func (d *demo) trace(port string) error {
	target, stone := d.sites[2], d.sites[1]
	addr := stone.Host.Addr().String()
	d.say("\ntarget asks stone who is behind the connection that it accepted from port %s:", port)
	d.shell(target, "stopctl request -type SV_REC %s %s 22", addr, port)
	token, err := target.Stopctl(d.ctx, "request", "-type", "SV_REC", addr, port, "22")
	if err != nil {
		return err
	}
	d.say("  %s", token)
	d.say("\nstone kept a report that only its administrator can open, and asked the previous host.\nEach administrator redeems the token of his own host:")
	dir, err := os.MkdirTemp("", "stopd-demo-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer os.RemoveAll(dir)
	for _, s := range []*site.Site{stone, d.sites[0]} {
		if token, err = d.redeem(s, token, dir); err != nil {
			return err
		}
	}
	d.say("\nTogether they are the chain (stopctl chain %s):\n", strings.Join(d.files, " "))
	return d.draw(dir)
}

// redeem redeems a token and returns that of the previous host.
func (d *demo) redeem(s *site.Site, token, dir string) (string, error) {
	b, r, err := s.Traced(d.ctx, token)
	if err != nil {
		return "", err
	}
	file := s.Host.Name + ".json"
	d.files = append(d.files, file)
	d.shell(s, "stopctl %s %s >%s", quoted(site.RedeemFlags("a trace")), token, file)
	if err := os.WriteFile(filepath.Join(dir, file), b, 0o600); err != nil {
		return "", fmt.Errorf("write redeemed report: %w", err)
	}
	d.say("    %d processes, %d previous host(s)", len(r.Report.Processes), len(r.Traceback))
	for _, t := range r.Traceback {
		if t.Asked && t.Token != "" {
			d.say("    asked %s %q and got %s", t.Previous.Remote.Addr(), t.Request, t.Token)
			return t.Token, nil
		}
	}
	return "", nil
}

// quoted joins arguments as a shell takes them.
func quoted(args []string) string {
	var b strings.Builder
	for i, a := range args {
		if i > 0 {
			b.WriteByte(' ')
		}
		if strings.ContainsRune(a, ' ') {
			a = "'" + a + "'"
		}
		b.WriteString(a)
	}
	return b.String()
}

func (d *demo) draw(dir string) error {
	var rs []report.Redeemed
	for _, f := range d.files {
		b, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			return fmt.Errorf("read redeemed report: %w", err)
		}
		r, _, err := report.DecodeRedeemed(b)
		if err != nil {
			return err
		}
		rs = append(rs, r)
	}
	_, err := io.WriteString(d.w, chain.Text(chain.Build(chain.Of(rs...))))
	return err
}
