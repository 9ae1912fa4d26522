#compdef stopd
# zsh completion of stopd. Made of the program's flags by `make completions`.
_arguments \
	'-check[validate the configuration, print what the daemon will see, and exit]' \
	'-config[the configuration file]:file:_files' \
	'-selftest[make sockets, pipes, a terminal and a process, check that the daemon would see each, and exit]' \
	'-version[print the version and exit]' \
	'*:argument:_files'
