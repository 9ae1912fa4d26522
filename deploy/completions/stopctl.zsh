#compdef stopctl
# zsh completion of stopctl. Made of the program's flags by `make completions`.
local curcontext=$curcontext state line
local -a commands=(
	'init:write a configuration and the keys of a host'
	'request:ask a host about one of its connections; print the token'
	'redeem:open what a token stands for'
	'export:take the sealed report of a token out of the store'
	'bundle:make a disclosure of what a token stands for, which anybody can verify'
	'verify:verify bundles without a network; say in words what they prove'
	'hold:keep what a token stands for from expiring'
	'audit:verify every file of a store'
	'list:list the records of a store'
	'chain:join redeemed reports of several hosts into the path'
	'watch:ask about the connections that others report, and keep the tokens'
	'tokens:find kept tokens by connection, address, Community ID or time'
	'explain:say what the daemon would see of a connection, and answer'
	'token:print the token of a report'\''s exact bytes'
	'record:record this host, so that its traces can be replayed'
	'demo:trace an intruder through three hosts made on this machine'
	'version:print the version'
	'help:show the flags of a command'
)
_arguments -C '1:command:->command' '*::argument:->argument'
case $state in
command) _describe command commands ;;
argument)
	case $words[1] in
	init)
		_arguments \
			'-config[make the store and the host'\''s keys for the configuration in this file, which is there already]:file:_files' \
			'-dir[put everything below this directory (default /etc/stopd, /var/lib/stopd, and the private key here)]:directory:_files -/' \
			'-from-oidentd[make the configuration what an oidentd.conf in this file says, and print what has another form here, or none]:file:_files' \
			'-listen[the address and port to answer on (default \[::\]:113)]:address: ' \
			'*-on-behalf[an address or prefix that may ask on behalf of other hosts; may be repeated]:prefix: ' \
			'*-recipient[an administrator'\''s age public key, instead of a new pair; may be repeated]:key: ' \
			'*:argument:_files'
		;;
	request)
		_arguments \
			'-for[ask on behalf of the host with this address, the connection'\''s remote end]:address: ' \
			'-from[the local address to ask from, the asked connection'\''s own (default any)]:address: ' \
			'-key[the file of this host'\''s TLS key, to show to a host that is asked with -pin]:file:_files' \
			'-pin[ask by TLS, and only the host whose key has this pin]:pin: ' \
			'-sid[the session number of a _REC request (default random)]:number: ' \
			'-type[the request type: ID, SV, ID_REC or SV_REC]:type:(ID SV ID_REC SV_REC)' \
			'*:argument:_files'
		;;
	redeem)
		_arguments \
			'-allowed-signers[a file that says with which keys -by may sign: ssh-keygen(1), ALLOWED SIGNERS]:file:_files' \
			'-around[the time of the report to within an hour (2026-03-04T12:00:00Z), for the beginning of a token]:time: ' \
			'-by[who asks for the redemption, with -store]:string: ' \
			'-format[json, text, raw (the report'\''s exact bytes), ecs or stix]:string:(json text raw ecs stix)' \
			'-identity[the file with the administrator'\''s private key]:file:_files' \
			'-reason[why, with -store]:string: ' \
			'-request[a text file that asks for this redemption and names the token, whole, signed by: ssh-keygen -Y sign -n redemption@stopd]:file:_files' \
			'-signature[the file of its signature (default that of -request with .sig)]:file:_files' \
			'-store[the store directory, on the host; without it the argument is a file of stopctl export]:directory:_files -/' \
			'*:argument:_files'
		;;
	export)
		_arguments \
			'-allowed-signers[a file that says with which keys -by may sign: ssh-keygen(1), ALLOWED SIGNERS]:file:_files' \
			'-by[who asks for the redemption]:string: ' \
			'-config[the daemon'\''s configuration file (default stopd.toml beside the store, or /etc/stopd/stopd.toml)]:file:_files' \
			'-reason[why]:string: ' \
			'-request[a text file that asks for this redemption and names the token, whole, signed by: ssh-keygen -Y sign -n redemption@stopd]:file:_files' \
			'-signature[the file of its signature (default that of -request with .sig)]:file:_files' \
			'-store[the store directory (default that of the configuration)]:directory:_files -/' \
			'*:argument:_files'
		;;
	bundle)
		_arguments \
			'-allowed-signers[a file that says with which keys -by may sign: ssh-keygen(1), ALLOWED SIGNERS]:file:_files' \
			'-around[the time of the report to within an hour (2026-03-04T12:00:00Z), for the beginning of a token]:time: ' \
			'-by[who asks for the redemption, with -store]:string: ' \
			'-identity[the file with the administrator'\''s private key]:file:_files' \
			'-reason[why, with -store]:string: ' \
			'-request[a text file that asks for this redemption and names the token, whole, signed by: ssh-keygen -Y sign -n redemption@stopd]:file:_files' \
			'-signature[the file of its signature (default that of -request with .sig)]:file:_files' \
			'-store[the store directory, on the host; without it the argument is a file of stopctl export]:directory:_files -/' \
			'*:argument:_files'
		;;
	verify)
		_arguments \
			'-allowed-signers[a file that says who may sign requests: ssh-keygen(1), ALLOWED SIGNERS; the redemption that let the bundle out has to have a request by one of them]:file:_files' \
			'-json[print a JSON object for each bundle, one a line]' \
			'-policy[a file with the keys of logs and witnesses, and their quorum (c2sp.org/tlog-policy), from elsewhere than the bundle]:file:_files' \
			'*:argument:_files'
		;;
	hold)
		_arguments \
			'-by[who asks for the hold]:string: ' \
			'-config[the daemon'\''s configuration file (default stopd.toml beside the store, or /etc/stopd/stopd.toml)]:file:_files' \
			'-reason[why]:string: ' \
			'-release[end the hold]' \
			'-store[the store directory (default that of the configuration)]:directory:_files -/' \
			'*:argument:_files'
		;;
	audit)
		_arguments \
			'-config[the daemon'\''s configuration file, for the witnesses (default stopd.toml beside the store, or /etc/stopd/stopd.toml)]:file:_files' \
			'-forwarded[a file of the log server that was told of the log (syslog.to), to hold the log against]:file:_files' \
			'-policy[a file with the keys of the log and its witnesses, and their quorum (c2sp.org/tlog-policy), instead of the host'\''s own]:file:_files' \
			'-store[the store directory (default that of the configuration)]:directory:_files -/' \
			'*:argument:_files'
		;;
	list)
		_arguments \
			'-config[the daemon'\''s configuration file]:file:_files' \
			'-json[print each record as a JSON object, one a line]' \
			'-store[the store directory (default that of the configuration)]:directory:_files -/' \
			'*:argument:_files'
		;;
	chain)
		_arguments \
			'-format[csv, dot, ecs, json, stix, svg, text]:string:(csv dot ecs json stix svg text)' \
			'-policy[a file with the keys that bundles are held against, as for verify]:file:_files' \
			'*:argument:_files'
		;;
	watch)
		_arguments \
			'-config[the file with the rules; see stopctl(1)]:file:_files' \
			'-conntrack[watch every connection that this host'\''s connection tracking has (Linux, root)]' \
			'*-eve[follow a log of Suricata in EVE format: a file, or unix:PATH or unixgram:PATH (may be repeated)]:file:_files' \
			'-json[print each answer as a JSON object, one a line]' \
			'-stdin[read lines from the standard input until it ends, in any form that explain takes]' \
			'*-zeek[follow a log of Zeek, as JSON or in columns (may be repeated)]:log:_files' \
			'*:argument:_files'
		;;
	tokens)
		_arguments \
			'-at[when the connection was seen, a time such as 2026-11-03T14:05:00Z]:time: ' \
			'-config[the file with the rules of stopctl watch, which says where the tokens are]:file:_files' \
			'-json[print each as a JSON object, one a line]' \
			'-limit[find at most this number]:number: ' \
			'-store[where the tokens are: a file, or postgres://...]:file:_files' \
			'-within[how far from -at it may have been seen]:duration: ' \
			'*:argument:_files'
		;;
	explain)
		_arguments \
			'-config[the daemon'\''s configuration file (default: the defaults)]:file:_files' \
			'*:argument:_files'
		;;
	token)
		_arguments \
			'*:argument:_files'
		;;
	record)
		_arguments \
			'*:argument:_files'
		;;
	demo)
		_arguments \
			'*:argument:_files'
		;;
	version)
		_arguments \
			'*:argument:_files'
		;;
	help) _describe command commands ;;
	esac
	;;
esac
