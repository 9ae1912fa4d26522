"""Action of fail2ban: have the host that attacks save who does it, and write its token into fail2ban's log.

To /etc/fail2ban/action.d/stopd.py. docs/deploying.md has a jail. An address alone says nothing on a host with many users;
the connection does, while it is there: maxretry of the jail has to be less than sshd's MaxAuthTries.
"""

import re
import socket
import subprocess

from fail2ban.server.action import ActionBase


class StopAction(ActionBase):
	"""Asks the host about the connection that its last match names."""

	def __init__(self, jail, name, type="SV_REC", port="ssh", stopctl="/usr/local/bin/stopctl", timeout="20"):
		"""type is that of the request, port the one that this host was reached at, a number or the name of a service.
		"""
		super().__init__(jail, name)
		self.type = type
		self.port = int(port) if port.isdigit() else socket.getservbyname(port, "tcp")
		self.stopctl = stopctl
		self.timeout = float(timeout)
		self.norestored = 1  # after a restart the connections of old bans are gone

	def ban(self, aInfo):
		"""Is called with what is known of a ban."""
		if aInfo.get("restored"):
			return
		ip = str(aInfo["ip"])
		remote = lastPort(ip, aInfo["matches"])
		if remote is None:
			self._logSys.warning("[%s] no token of %s: its matches name no port", self._jail.name, ip)
			return
		# Not through a shell, and the address and the port are all that comes from the log.
		try:
			done = subprocess.run([self.stopctl, "request", "-type", self.type, ip, remote, str(self.port)],
				stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=self.timeout)
		except (OSError, subprocess.TimeoutExpired) as e:
			self._logSys.error("[%s] no token of %s port %s: %s", self._jail.name, ip, remote, e)
			return
		if done.returncode != 0:
			self._logSys.warning("[%s] no token of %s port %s: %s", self._jail.name, ip, remote, done.stderr.strip())
			return
		self._logSys.notice("[%s] token of %s port %s: %s", self._jail.name, ip, remote, done.stdout.strip())


def lastPort(ip, matches):
	"""Returns the port in the last line that ends as sshd ends its lines, None where there is none.

	What stands before the end may be a user's name, which the attacker chose: of a line that names two connections the
	last one is sshd's own word. So nothing may follow but what sshd writes there.
	"""
	end = re.compile(r"(?<![\w.:])" + re.escape(ip) + r" port (\d{1,5})(?: ssh\d?)?(?:: Too many authentication failures)?(?: \[preauth\])?\s*$")
	for line in reversed(matches.splitlines()):
		m = end.search(line)
		if m:
			return m.group(1)
	return None


Action = StopAction
