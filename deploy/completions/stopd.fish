# fish completion of stopd. Made of the program's flags by `make completions`.
complete -c stopd -o check -d 'validate the configuration, print what the daemon will see, and exit'
complete -c stopd -o config -r -F -d 'the configuration file'
complete -c stopd -o selftest -d 'make sockets, pipes, a terminal and a process, check that the daemon would see each, and exit'
complete -c stopd -o version -d 'print the version and exit'
