// Package demo is the command "stopctl demo": three hosts, an intruder who walks through them, and the
// chain that leads back.
package demo
