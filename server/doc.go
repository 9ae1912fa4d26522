// Package server answers requests: it admits or declines them, releases the replies, and afterwards asks
// the previous hosts. It knows an [Answerer] and never sees a report.
package server
