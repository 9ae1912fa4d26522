package chain

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// JSON writes a chain for programs: docs/chain.md has its keys, which are a contract.
func JSON(c *Chain) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(c); err != nil {
		return "", fmt.Errorf("write chain: %w", err)
	}
	return b.String(), nil
}
