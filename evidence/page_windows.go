package evidence

// newPage gives memory for a key. It is ordinary memory here.
func newPage() (page []byte, locked bool, err error) { return make([]byte, 4096), false, nil }

func freePage([]byte) error { return nil }
