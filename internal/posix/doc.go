// Package posix is what several systems tell in one form: accounts, the environment of a login, octets as text.
package posix
