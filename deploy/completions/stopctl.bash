# bash completion of stopctl. Made of the program's flags by `make completions`.
_stopctl() {
	local words= cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
	if [ "$COMP_CWORD" = 1 ]; then
		mapfile -t COMPREPLY < <(compgen -W 'init request redeem export bundle verify hold audit list chain watch tokens explain token record demo version help' -- "$cur")
		return
	fi
	# Where nothing is said, readline completes names of files.
	COMPREPLY=()
	case ${COMP_WORDS[1]}:$prev in
	init:-config) return ;;
	init:-dir) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
	init:-from-oidentd) return ;;
	init:-listen) return ;;
	init:-on-behalf) return ;;
	init:-recipient) return ;;
	request:-for) return ;;
	request:-from) return ;;
	request:-key) return ;;
	request:-pin) return ;;
	request:-sid) return ;;
	request:-type) words='ID SV ID_REC SV_REC' ;;
	redeem:-allowed-signers) return ;;
	redeem:-around) return ;;
	redeem:-by) return ;;
	redeem:-format) words='json text raw ecs stix' ;;
	redeem:-identity) return ;;
	redeem:-reason) return ;;
	redeem:-request) return ;;
	redeem:-signature) return ;;
	redeem:-store) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
	export:-allowed-signers) return ;;
	export:-by) return ;;
	export:-config) return ;;
	export:-reason) return ;;
	export:-request) return ;;
	export:-signature) return ;;
	export:-store) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
	bundle:-allowed-signers) return ;;
	bundle:-around) return ;;
	bundle:-by) return ;;
	bundle:-identity) return ;;
	bundle:-reason) return ;;
	bundle:-request) return ;;
	bundle:-signature) return ;;
	bundle:-store) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
	verify:-allowed-signers) return ;;
	verify:-policy) return ;;
	hold:-by) return ;;
	hold:-config) return ;;
	hold:-reason) return ;;
	hold:-store) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
	audit:-config) return ;;
	audit:-forwarded) return ;;
	audit:-policy) return ;;
	audit:-store) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
	list:-config) return ;;
	list:-store) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
	chain:-format) words='csv dot ecs json stix svg text' ;;
	chain:-policy) return ;;
	watch:-config) return ;;
	watch:-eve) return ;;
	watch:-zeek) return ;;
	tokens:-at) return ;;
	tokens:-config) return ;;
	tokens:-limit) return ;;
	tokens:-store) return ;;
	tokens:-within) return ;;
	explain:-config) return ;;
	*)
		[[ $cur == -* ]] || return 0
		case ${COMP_WORDS[1]} in
		init) words='-config -dir -from-oidentd -listen -on-behalf -recipient' ;;
		request) words='-for -from -key -pin -sid -type' ;;
		redeem) words='-allowed-signers -around -by -format -identity -reason -request -signature -store' ;;
		export) words='-allowed-signers -by -config -reason -request -signature -store' ;;
		bundle) words='-allowed-signers -around -by -identity -reason -request -signature -store' ;;
		verify) words='-allowed-signers -json -policy' ;;
		hold) words='-by -config -reason -release -store' ;;
		audit) words='-config -forwarded -policy -store' ;;
		list) words='-config -json -store' ;;
		chain) words='-format -policy' ;;
		watch) words='-config -conntrack -eve -json -stdin -zeek' ;;
		tokens) words='-at -config -json -limit -store -within' ;;
		explain) words='-config' ;;
		token) words='' ;;
		record) words='' ;;
		demo) words='' ;;
		version) words='' ;;
		esac
		;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -o default -F _stopctl stopctl
