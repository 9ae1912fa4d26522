package examine

import (
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// masked stands for what was left out of an argument.
const masked = "[masked]"

var (
	// userInfo is a password in a URL, up to the last @ before the path.
	userInfo = regexp.MustCompile(`(://[^/@:\s]*:)[^/\s]*@`)
	// parameter is a parameter in the query or fragment of a URL.
	parameter = regexp.MustCompile(`([?&#;])([\w.-]+)=[^&#;\s]+`)
	// member is a string in JSON.
	member = regexp.MustCompile(`("([\w.-]+)"\s*:\s*)"(?:[^"\\]|\\.)*"`)
	// header is one of HTTP, alone or after curl's -H.
	header = regexp.MustCompile(`^((?:-H)?([A-Za-z][A-Za-z0-9-]*):\s*)\S.*$`)
	// assignment is NAME=VALUE, with or without the dashes of an option.
	assignment = regexp.MustCompile(`^(-{0,2}([A-Za-z_][\w.-]*)=)(.+)$`)
	// openssl's passwords come with where they come from.
	source = regexp.MustCompile(`^pass:.+`)
	// knownKeys are well-known kinds of keys, wherever they stand.
	knownKeys = regexp.MustCompile(`\b(?:(?:AKIA|ASIA)[A-Z0-9]{12,}|gh[opsur]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|` +
		`xox[abeoprs]-[\w-]{10,}|sk-[\w-]{20,}|eyJ[\w-]{8,}\.[\w.-]+|AGE-SECRET-KEY-[A-Z0-9-]+)`)
	// words are what a command line within an argument is made of; blanks between them are words too.
	words = regexp.MustCompile(`\s+|(?:"[^"]*"|'[^']*'|[^\s"'])+|["']`)
	// nameParts are the words of a name: api-key, API_KEY, apiKey.
	nameParts = regexp.MustCompile(`[A-Z]+[a-z]*|[a-z]+`)
)

// secretWords are what is called a secret, alone or at the end of a word: authtoken, PGPASSWORD. After
// qualifiers a key is one too. An ending after which the value is about a secret and none itself, as in
// password-file, is in aboutSecrets.
var (
	secretWords  = []string{"password", "passwd", "passphrase", "passcode", "secret", "token", "credential", "credentials", "apikey", "pwd"}
	secretAlone  = []string{"pass", "auth", "authorization", "cookie", "psk", "jwt", "bearer", "secrets", "passwords"}
	qualifiers   = []string{"api", "access", "account", "auth", "encryption", "master", "private", "secret", "shared", "signing"}
	aboutSecrets = []string{"file", "files", "path", "dir", "command", "type", "length", "policy", "prompt", "stdin", "timeout", "ttl", "url", "uri", "endpoint"}
)

// secretName reports whether what has this name is likely a secret.
func secretName(name string) bool {
	parts := nameParts.FindAllString(name, -1)
	for i := range parts {
		parts[i] = strings.ToLower(parts[i])
	}
	if len(parts) == 0 || parts[0] == "no" || slices.Contains(aboutSecrets, parts[len(parts)-1]) {
		return false
	}
	for i, p := range parts {
		if slices.Contains(secretAlone, p) || slices.ContainsFunc(secretWords, func(w string) bool { return strings.HasSuffix(p, w) }) {
			return true
		}
		if p == "key" && i > 0 && slices.Contains(qualifiers, parts[i-1]) {
			return true
		}
	}
	return false
}

// shortOptions are options that take a secret and are not named like one, by program. With separate the
// next argument may be it; mysql's -p alone asks for the password.
var shortOptions = []struct {
	programs []string
	option   string
	separate bool
}{
	{[]string{"mysql", "mysqldump", "mysqladmin", "mysqlimport", "mysqlshow", "mariadb", "mariadb-dump", "mariadb-admin", "7z", "7za", "7zr"}, "-p", false},
	{[]string{"sshpass", "mongo", "mongosh", "mongodump"}, "-p", true},
	{[]string{"ldapsearch", "ldapadd", "ldapmodify", "ldapdelete", "ldapwhoami", "ldappasswd"}, "-w", true},
	{[]string{"redis-cli"}, "-a", true},
	{[]string{"zip", "unzip", "sqlcmd", "mosquitto_pub", "mosquitto_sub"}, "-P", true},
	{[]string{"curl"}, "-u", true},
	{[]string{"curl"}, "--user", true},
	{[]string{"curl"}, "--proxy-user", true},
}

// ownOptions are programs that are run by one of shortOptions and have that option for something else.
var ownOptions = []string{"ssh", "scp", "sftp"}

// redact masks what is likely a secret: the value of an option, variable, header or parameter that is named
// like one, a password in a URL, a well-known kind of key, and what some programs take after a short option.
// It leaves the rest as it is. It would rather mask too much than too little, but who reads a report has to
// know what was run.
func redact(args []string) []string {
	r := &redactor{}
	out := make([]string, len(args))
	for i, a := range args {
		out[i] = r.argument(a, 0)
	}
	return out
}

// A redactor goes through the words of one command line.
type redactor struct {
	program string // the last word that shortOptions knows: sudo, env and the like come before it
	next    bool   // the next word is a secret
}

// maxDepth bounds command lines within arguments of command lines.
const maxDepth = 4

func (r *redactor) argument(a string, depth int) string {
	if r.next {
		r.next = false
		// What looks like an option is one: the one before it had no value.
		if !strings.HasPrefix(a, "--") && !(len(a) == 2 && a[0] == '-') {
			return masked
		}
	}
	if h := header.FindStringSubmatch(a); h != nil && secretName(h[2]) {
		return h[1] + masked
	}
	if strings.ContainsFunc(a, unicode.IsSpace) && depth < maxDepth {
		return commandLine(a, depth+1)
	}
	a = knownKeys.ReplaceAllString(a, masked)
	a = userInfo.ReplaceAllString(a, "${1}"+masked+"@")
	a = replaceNamed(parameter, a, func(m []string) (string, string) { return m[2], m[1] + m[2] + "=" + masked })
	a = replaceNamed(member, a, func(m []string) (string, string) { return m[2], m[1] + `"` + masked + `"` })
	if m := assignment.FindStringSubmatch(a); m != nil {
		if secretName(m[2]) {
			return m[1] + masked
		}
		return a
	}
	if source.MatchString(a) {
		return "pass:" + masked
	}
	return r.option(a)
}

// option masks what stands in a short option of the program, and sees whether the next word is a secret.
func (r *redactor) option(a string) string {
	if slices.Contains(ownOptions, path.Base(a)) {
		r.program = path.Base(a)
		return a
	}
	for _, o := range shortOptions {
		if slices.Contains(o.programs, path.Base(a)) {
			r.program = path.Base(a)
			return a
		}
		value, ok := strings.CutPrefix(a, o.option)
		switch {
		case !ok || !slices.Contains(o.programs, r.program):
		case value == "":
			r.next = o.separate
			return a
		case len(o.option) == 2:
			return o.option + masked
		}
	}
	r.next = strings.HasPrefix(a, "-") && secretName(a) || a == "password"
	return a
}

func replaceNamed(re *regexp.Regexp, s string, replace func(match []string) (name, with string)) string {
	return re.ReplaceAllStringFunc(s, func(found string) string {
		if name, with := replace(re.FindStringSubmatch(found)); secretName(name) {
			return with
		}
		return found
	})
}

// commandLine redacts an argument that is a command line itself, as sh -c has, or a process's title.
func commandLine(line string, depth int) string {
	line = replaceNamed(member, line, func(m []string) (string, string) { return m[2], m[1] + `"` + masked + `"` })
	var b strings.Builder
	r := &redactor{}
	for _, w := range words.FindAllString(line, -1) {
		switch quote := w[0]; {
		case strings.TrimSpace(w) == "":
			b.WriteString(w)
		case len(w) >= 2 && (quote == '"' || quote == '\'') && w[len(w)-1] == quote:
			b.WriteByte(quote)
			b.WriteString(r.argument(w[1:len(w)-1], depth))
			b.WriteByte(quote)
		default:
			b.WriteString(r.argument(w, depth))
		}
	}
	return b.String()
}
