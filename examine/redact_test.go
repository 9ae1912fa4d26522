package examine

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Arguments are joined by | here; X stands for [masked].
func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		// Options named like secrets.
		"app|--password|hunter2|--verbose":           "app|--password|X|--verbose",
		"app|--password=hunter2":                     "app|--password=X",
		"app|-password|hunter2":                      "app|-password|X",
		"app|--password|-hunter2":                    "app|--password|X",
		"app|--password|--verbose|file":              "app|--password|--verbose|file",
		"app|--password|-v|file":                     "app|--password|-v|file",
		"app|--api-key=abc|--apiKey|abc":             "app|--api-key=X|--apiKey|X",
		"app|--auth-token|abc|--accessToken=a":       "app|--auth-token|X|--accessToken=X",
		"app|--db.pass=abc|--passphrase|a b":         "app|--db.pass=X|--passphrase|X",
		"nmcli|device|connect|net|password|hunter22": "nmcli|device|connect|net|password|X",
		// Variables.
		"env|TOKEN=abc|PGPASSWORD=abc|MYSQL_PWD=abc|psql": "env|TOKEN=X|PGPASSWORD=X|MYSQL_PWD=X|psql",
		"env|AWS_SECRET_ACCESS_KEY=/abc|aws":              "env|AWS_SECRET_ACCESS_KEY=X|aws",
		"env|GITHUB_TOKEN=a=b|gh":                         "env|GITHUB_TOKEN=X|gh",
		// Short options of single programs.
		"mysql|-uroot|-phunter2|db":                  "mysql|-uroot|-pX|db",
		"/usr/bin/mysql|-phunter2":                   "/usr/bin/mysql|-pX",
		"sudo|-u|db|mysqldump|-phunter2|-p|db":       "sudo|-u|db|mysqldump|-pX|-p|db",
		"sshpass|-p|hunter2|ssh|-p|22|host|ls|--all": "sshpass|-p|X|ssh|-p|22|host|ls|--all",
		"redis-cli|-h|host|-a|hunter2":               "redis-cli|-h|host|-a|X",
		"ldapsearch|-D|cn=admin|-w|hunter2":          "ldapsearch|-D|cn=admin|-w|X",
		"curl|-u|alice:hunter2|--user|a:b|host":      "curl|-u|X|--user|X|host",
		"openssl|enc|-pass|pass:hunter2|-in|file":    "openssl|enc|-pass|X|-in|file",
		"openssl|rsa|-passin|pass:hunter2|-noout":    "openssl|rsa|-passin|pass:X|-noout",
		// URLs, headers, JSON.
		"git|clone|https://alice:hunter2@host/r.git":             "git|clone|https://alice:X@host/r.git",
		"psql|postgres://alice:p@ss@host:5432/db":                "psql|postgres://alice:X@host:5432/db",
		"app|--url=redis://:hunter2@host":                        "app|--url=redis://:X@host",
		"curl|https://host/p?a=1&token=abc&b=2#access_token=abc": "curl|https://host/p?a=1&token=X&b=2#access_token=X",
		"curl|-H|Authorization: Bearer abc|host":                 "curl|-H|Authorization: X|host",
		"curl|-HX-Api-Key: abc|-H|Cookie: a=b":                   "curl|-HX-Api-Key: X|-H|Cookie: X",
		`curl|-d|{"user":"alice","password": "a\"b c"}|host`:     `curl|-d|{"user":"alice","password": "X"}|host`,
		// Well-known keys, wherever they stand.
		"aws|configure|set|k|AKIAIOSFODNN7EXAMPLE":                  "aws|configure|set|k|X",
		"git|clone|https://ghp_0123456789abcdefghij@github.com/a/b": "git|clone|https://X@github.com/a/b",
		"app|eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-_":        "app|X",
		"age|-d|AGE-SECRET-KEY-1QQQQ":                               "age|-d|X",
		// Command lines within arguments, and process titles.
		"sh|-c|FOO=1 TOKEN=abc app --password hunter2 | sort":                                "sh|-c|FOO=1 TOKEN=X app --password X | sort",
		`sh|-c|mysql -phunter2 db  <x; curl -H "Authorization: Bearer abc" https://u:p@host`: `sh|-c|mysql -pX db  <x; curl -H "Authorization: X" https://u:X@host`,
		`bash|-c|app --password="a b" --password 'c d' e`:                                    `bash|-c|app --password=X --password 'X' e`,
		"app --password hunter2 worker":                                                      "app --password X worker",

		// Innocents.
		"git|log|--author=me|author=me":                        "git|log|--author=me|author=me",
		"cat|/path/token=abc|./token/x":                        "cat|/path/token=abc|./token/x",
		"train|--tokenizer|gpt|--tokenizer=gpt|--max-tokens|5": "train|--tokenizer|gpt|--tokenizer=gpt|--max-tokens|5",
		"psql|--no-password|db":                                "psql|--no-password|db",
		"app|--password-file|/etc/pw|--token-url=https://host": "app|--password-file|/etc/pw|--token-url=https://host",
		"passwd|alice":                                            "passwd|alice",
		"sudo|passwd|alice":                                       "sudo|passwd|alice",
		"ssh|-p|22|alice@host|-i|key":                             "ssh|-p|22|alice@host|-i|key",
		"ssh|-p2222|host":                                         "ssh|-p2222|host",
		"mysql|-p|db":                                             "mysql|-p|db",
		"mkdir|-p|a/b|key=1|monkey=2|--key|f.pem":                 "mkdir|-p|a/b|key=1|monkey=2|--key|f.pem",
		"app|--compass|north|--bypass|x|passenger=2":              "app|--compass|north|--bypass|x|passenger=2",
		"sshd: alice [priv]":                                      "sshd: alice [priv]",
		"postgres: alice db 192.0.2.7(5432) idle":                 "postgres: alice db 192.0.2.7(5432) idle",
		"disk-usage-analyser-and-more|task-0123456789abcdefghijk": "disk-usage-analyser-and-more|task-0123456789abcdefghijk",
		"-bash":                             "-bash",
		"git|clone|ssh://alice@host:22/x@y": "git|clone|ssh://alice@host:22/x@y",
		"":                                  "",
		"a||  b  ":                          "a||  b  ",
	} {
		got := strings.Join(redact(strings.Split(in, "|")), "|")
		if d := cmp.Diff(strings.ReplaceAll(want, "X", masked), strings.ReplaceAll(got, "X", masked)); d != "" {
			t.Errorf("%s\n%s", in, d)
		}
	}
	if got := redact(nil); len(got) != 0 {
		t.Errorf("no arguments give %q", got)
	}
}

// What is masked stays masked, and no argument is lost or added.
func FuzzRedact(f *testing.F) {
	f.Add("app", "--password", "hunter2 'x' \"y")
	f.Add("sh", "-c", "A=\"b c\" d -p 'x")
	f.Add("app", "-pass>a\"b c\n2s", "x")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		once := redact([]string{a, b, c})
		if len(once) != 3 {
			t.Fatalf("%d arguments", len(once))
		}
		for i, again := range redact(once) { // which may mask more: a quote that was masked parts words no longer
			if once[i] == masked && again != masked {
				t.Errorf("masked is %q", again)
			}
		}
		if secret := redact([]string{a, "--password", "hunter2", c}); secret[2] != masked && secret[1] == "--password" {
			t.Errorf("masked is %q", secret)
		}
	})
}
