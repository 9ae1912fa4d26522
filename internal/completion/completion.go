// Package completion writes what shells complete command lines by, from the flags that a program declares.
//
// It is for tests, which hold deploy/completions to the programs and write it anew with -update.
package completion

import (
	"flag"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A Program is one that users call.
type Program struct {
	Name string
	// Commands are its subcommands. One without a name is a program without subcommands.
	Commands []Command
}

// A Command is a subcommand.
type Command struct {
	Name, Does string
	Flags      *flag.FlagSet
}

// Shells are those that Write knows; the name is also how a file's name ends.
var Shells = []string{"bash", "fish", "zsh"}

// Write returns the file for a shell, one of Shells.
func (p Program) Write(shell string) string {
	var b strings.Builder
	switch shell {
	case "bash":
		p.bash(&b)
	case "fish":
		p.fish(&b)
	case "zsh":
		p.zsh(&b)
	default:
		panic("no shell " + shell)
	}
	return b.String()
}

// plain says whether the program has no subcommands.
func (p Program) plain() bool { return len(p.Commands) == 1 && p.Commands[0].Name == "" }

// An option is a flag as shells want to know it.
type option struct {
	name, says string
	value      string   // what its value is called; empty where it has none
	values     []string // all that it can be, if they are few
	often      bool
}

func (c Command) options() (all []option) {
	c.Flags.VisitAll(func(f *flag.Flag) {
		value, says := flag.UnquoteUsage(f)
		all = append(all, option{f.Name, says, value, valuesOf(says), strings.Contains(says, "may be repeated")})
	})
	return all
}

// valuesOf are those that the description of a flag lists: "the type: ID, SV or ID_REC". Where it does not, there are none.
func valuesOf(says string) []string {
	if _, list, ok := strings.Cut(says, ": "); ok {
		says = list
	}
	list := regexp.MustCompile(` \([^)]*\)`).ReplaceAllString(says, "")
	words := strings.Split(strings.ReplaceAll(list, " or ", ", "), ", ")
	if len(words) < 3 || slices.ContainsFunc(words, func(w string) bool { return !regexp.MustCompile(`^\w+$`).MatchString(w) }) {
		return nil
	}
	return words
}

// names are those of options, as they are written, or of commands.
func (p Program) names() (all []string) {
	for _, c := range p.Commands {
		all = append(all, c.Name)
	}
	return append(all, "help")
}

const madeBy = "Made of the program's flags by `make completions`."

func (p Program) bash(b *strings.Builder) {
	fmt.Fprintf(b, "# bash completion of %s. %s\n_%[1]s() {\n\tlocal words= cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n", p.Name, madeBy)
	command := "${COMP_WORDS[1]}"
	if p.plain() {
		command = "''"
	} else {
		fmt.Fprintf(b, "\tif [ \"$COMP_CWORD\" = 1 ]; then\n\t\tmapfile -t COMPREPLY < <(compgen -W '%s' -- \"$cur\")\n\t\treturn\n\tfi\n", strings.Join(p.names(), " "))
	}
	b.WriteString("\t# Where nothing is said, readline completes names of files.\n\tCOMPREPLY=()\n")
	fmt.Fprintf(b, "\tcase %s:$prev in\n", command)
	for _, c := range p.Commands {
		for _, o := range c.options() {
			switch {
			case o.values != nil:
				fmt.Fprintf(b, "\t%s:-%s) words='%s' ;;\n", c.Name, o.name, strings.Join(o.values, " "))
			case o.value == "directory":
				fmt.Fprintf(b, "\t%s:-%s) mapfile -t COMPREPLY < <(compgen -d -- \"$cur\"); return ;;\n", c.Name, o.name)
			case o.value != "":
				fmt.Fprintf(b, "\t%s:-%s) return ;;\n", c.Name, o.name)
			}
		}
	}
	fmt.Fprintf(b, "\t*)\n\t\t[[ $cur == -* ]] || return 0\n\t\tcase %s in\n", command)
	for _, c := range p.Commands {
		var flags []string
		for _, o := range c.options() {
			flags = append(flags, "-"+o.name)
		}
		name := c.Name
		if name == "" {
			name = "''"
		}
		fmt.Fprintf(b, "\t\t%s) words='%s' ;;\n", name, strings.Join(flags, " "))
	}
	fmt.Fprintf(b, "\t\tesac\n\t\t;;\n\tesac\n\tmapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n}\ncomplete -o default -F _%s %[1]s\n", p.Name)
}

func (p Program) fish(b *strings.Builder) {
	fmt.Fprintf(b, "# fish completion of %s. %s\n", p.Name, madeBy)
	quote := func(s string) string {
		return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
	}
	if !p.plain() {
		for _, c := range append(p.Commands, Command{Name: "help", Does: "show the flags of a command"}) {
			fmt.Fprintf(b, "complete -c %s -n __fish_use_subcommand -f -a %s -d %s\n", p.Name, c.Name, quote(c.Does))
		}
		fmt.Fprintf(b, "complete -c %s -n '__fish_seen_subcommand_from help' -f -a '%s'\n", p.Name, strings.Join(p.names(), " "))
	}
	for _, c := range p.Commands {
		for _, o := range c.options() {
			fmt.Fprintf(b, "complete -c %s", p.Name)
			if c.Name != "" {
				fmt.Fprintf(b, " -n '__fish_seen_subcommand_from %s'", c.Name)
			}
			fmt.Fprintf(b, " -o %s", o.name)
			switch {
			case o.values != nil:
				fmt.Fprintf(b, " -x -a '%s'", strings.Join(o.values, " "))
			case o.value == "directory":
				b.WriteString(" -x -a '(__fish_complete_directories)'")
			case o.value == "file" || o.value == "log":
				b.WriteString(" -r -F")
			case o.value != "":
				b.WriteString(" -x")
			}
			fmt.Fprintf(b, " -d %s\n", quote(o.says))
		}
	}
}

func (p Program) zsh(b *strings.Builder) {
	fmt.Fprintf(b, "#compdef %s\n# zsh completion of %[1]s. %s\n", p.Name, madeBy)
	quote := func(s, special string) string {
		for _, r := range `\` + special {
			s = strings.ReplaceAll(s, string(r), `\`+string(r))
		}
		return strings.ReplaceAll(s, "'", `'\''`)
	}
	arguments := func(c Command, indent string) {
		fmt.Fprintf(b, "%s_arguments", indent)
		for _, o := range c.options() {
			often := ""
			if o.often {
				often = "*"
			}
			fmt.Fprintf(b, " \\\n%s\t'%s-%s[%s]", indent, often, o.name, quote(o.says, "[]"))
			switch {
			case o.values != nil:
				fmt.Fprintf(b, ":%s:(%s)", o.value, strings.Join(o.values, " "))
			case o.value == "directory":
				b.WriteString(":directory:_files -/")
			case o.value == "file" || o.value == "log":
				fmt.Fprintf(b, ":%s:_files", o.value)
			case o.value != "":
				fmt.Fprintf(b, ":%s: ", o.value)
			}
			b.WriteString("'")
		}
		b.WriteString(" \\\n" + indent + "\t'*:argument:_files'\n")
	}
	if p.plain() {
		arguments(p.Commands[0], "")
		return
	}
	b.WriteString("local curcontext=$curcontext state line\nlocal -a commands=(\n")
	for _, c := range append(p.Commands, Command{Name: "help", Does: "show the flags of a command"}) {
		fmt.Fprintf(b, "\t'%s:%s'\n", c.Name, quote(c.Does, ":"))
	}
	b.WriteString(")\n_arguments -C '1:command:->command' '*::argument:->argument'\ncase $state in\ncommand) _describe command commands ;;\nargument)\n\tcase $words[1] in\n")
	for _, c := range p.Commands {
		fmt.Fprintf(b, "\t%s)\n", c.Name)
		arguments(c, "\t\t")
		b.WriteString("\t\t;;\n")
	}
	b.WriteString("\thelp) _describe command commands ;;\n\tesac\n\t;;\nesac\n")
}
