// Package site puts stopd on the hosts of a lab, as an administrator would.
package site
