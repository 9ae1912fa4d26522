# bash completion of stopd. Made of the program's flags by `make completions`.
_stopd() {
	local words= cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
	# Where nothing is said, readline completes names of files.
	COMPREPLY=()
	case '':$prev in
	:-config) return ;;
	*)
		[[ $cur == -* ]] || return 0
		case '' in
		'') words='-check -config -selftest -version' ;;
		esac
		;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -o default -F _stopd stopd
