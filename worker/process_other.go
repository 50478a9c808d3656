//go:build !(linux && (amd64 || arm64))

package worker

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"time"
)

// process does not exist here.
type process struct{ pid int }

func startProcess(context.Context, Spec, *slog.Logger) (*process, readiness, error) {
	return nil, readiness{}, errors.New("workers need Linux on amd64 or arm64 to confine themselves; this is " + runtime.GOOS + "/" + runtime.GOARCH)
}

func (*process) call(context.Context, Frame) (Frame, time.Duration, error) {
	return Frame{}, 0, ErrClosed
}
func (*process) alive() bool          { return false }
func (*process) kill(string)          {}
func (*process) hangUp()              {}
func (*process) retire()              {}
func (*process) retired() bool        { return false }
func (*process) wait() (string, bool) { return "", true }
func (*process) fail(error)           {}

// IsChild is false: there are no children.
func IsChild() bool { return false }

// Main reports that nothing can be run.
func Main(map[string]Program) int { return 1 }
