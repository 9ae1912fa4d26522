"""Action of fail2ban: have the host that attacks save who does it, and write its tokens into fail2ban's log.

To /etc/fail2ban/action.d/stopd.py. docs/deploying.md has a jail. An address alone says nothing on a host with many users;
the connection does, while it is there: maxretry of the jail has to be less than sshd's MaxAuthTries. It asks about each
connection that a match names: the last failure before a ban may be that of somebody who mistyped once.
"""

import collections
import re
import socket
import subprocess
import threading

from fail2ban.server.action import ActionBase

AT_ONCE = 16  # questions of a jail that are under way


class StopAction(ActionBase):
	"""Asks the host about the connections that its matches name, while fail2ban goes on with the ban."""

	def __init__(self, jail, name, type="SV_REC", port="ssh", stopctl="/usr/local/bin/stopctl", timeout="20"):
		"""type is that of the request, port the one that this host was reached at, a number or the name of a service.
		"""
		super().__init__(jail, name)
		self.type = type
		self.port = int(port) if port.isdigit() else socket.getservbyname(port, "tcp")
		self.stopctl = stopctl
		self.timeout = float(timeout)
		self.norestored = 1  # after a restart the connections of old bans are gone
		self.room = threading.Semaphore(AT_ONCE)

	def ban(self, aInfo):
		"""Is called with what is known of a ban, by the one thread that bans for the jail: it waits for no host."""
		if aInfo.get("restored"):
			return
		ip = str(aInfo["ip"])
		lines = aInfo["matches"].splitlines()
		ports = portsOf(ip, lines)
		if not ports:
			self._logSys.warning("[%s] no token of %s: its matches name no port", self._jail.name, ip)
		for port, n in ports.most_common():
			what = "%s port %s (%d of %d matches)" % (ip, port, n, len(lines))
			if not self.room.acquire(blocking=False):
				self._logSys.warning("[%s] no token of %s: too many questions are under way", self._jail.name, what)
				continue
			try:
				threading.Thread(target=self.ask, args=(ip, port, what), daemon=True).start()
			except RuntimeError as e:
				self.room.release()
				self._logSys.error("[%s] no token of %s: %s", self._jail.name, what, e)

	def ask(self, ip, remote, what):
		"""Asks about one connection, and logs what comes of it."""
		# Not through a shell, and the address and the port are all that comes from the log.
		try:
			done = subprocess.run([self.stopctl, "request", "-type", self.type, ip, remote, str(self.port)],
				stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=self.timeout)
		except (OSError, subprocess.TimeoutExpired) as e:
			self._logSys.error("[%s] no token of %s: %s", self._jail.name, what, e)
			return
		finally:
			self.room.release()
		answer = done.stdout.strip()
		if done.returncode != 0:
			self._logSys.warning("[%s] no token of %s: %s", self._jail.name, what, done.stderr.strip())
		elif not re.fullmatch(r"s[a-z2-7]{52}", answer):
			self._logSys.warning("[%s] no token of %s, but an answer: %s", self._jail.name, what, answer)
		else:
			self._logSys.notice("[%s] token of %s: %s", self._jail.name, what, answer)


def portsOf(ip, lines):
	"""Returns the ports in lines that end as sshd ends its lines, each with the number of its lines.

	What stands before the end may be a user's name, which the attacker chose: of a line that names two connections the
	last one is sshd's own word. So nothing may follow but what sshd writes there. "Received disconnect from" ends with what
	the client said, so that line tells nothing; the first "]: " is before sshd's message.
	"""
	end = re.compile(r"(?<![\w.:])" + re.escape(ip) + r" port (\d{1,5})(?: ssh\d?)?(?:: Too many authentication failures)?(?: \[preauth\])?\s*$")
	ports = collections.Counter()
	for line in lines:
		before, found, message = line.partition("]: ")
		if re.match(r"(?:error: )?Received disconnect from ", message if found else line.lstrip()):
			continue
		m = end.search(line)
		if m:
			ports[m.group(1)] += 1
	return ports


Action = StopAction
