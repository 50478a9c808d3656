//go:build !crashpoints

package main

import "net/http"

// crashHook is nil: only a binary built for the crash suite ends itself at a named point.
func crashHook() func(point string) { return nil }

// crashTransport adds nothing. nil leaves the choice to whoever makes the calls.
func crashTransport(_ string, through http.RoundTripper) http.RoundTripper { return through }
