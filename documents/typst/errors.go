package typst

import (
	"errors"
	"fmt"
	"strings"
)

// errDenied answers whatever would leave the bundle.
var errDenied = errors.New("denied: a template reads nothing outside its bundle")

// ModuleError says that the file given as the Typst module cannot be used.
type ModuleError struct{ Reason string }

func (e *ModuleError) Error() string { return "typst: the renderer module " + e.Reason }

// Permanent is true: another file is needed.
func (*ModuleError) Permanent() bool { return true }

// TrapError is a failure inside the engine, not a fault that it found in the template.
type TrapError struct{ Reason string }

func (e *TrapError) Error() string { return "typst: the engine failed: " + e.Reason }

// codeTrap tells the parent of a TrapError.
const codeTrap = "trap"

// Code tells a trap from other errors across the socket.
func (*TrapError) Code() string { return codeTrap }

// RunawayError is a template whose renderings have run away in a row, the last ones in a process of their own: it takes
// more time, or more memory, than there is. A machine that kept it from working is none of its doing.
type RunawayError struct {
	Template string // id@version
	Failures int    // that ran away in a row
	Cause    error
}

func (e *RunawayError) Error() string {
	return fmt.Sprintf("template %s has run away %d times in a row: %v", e.Template, e.Failures, e.Cause)
}

func (e *RunawayError) Unwrap() error { return e.Cause }

// Permanent is true: the template, or the record, has to change first.
func (*RunawayError) Permanent() bool { return true }

// Diagnostic is one remark of the compiler about the template.
type Diagnostic struct {
	File    string `json:"file"`
	Line    int    `json:"line"`   // 1-based; 0 when unknown
	Column  int    `json:"column"` // 1-based; 0 when unknown
	Error   bool   `json:"error"`  // else a warning
	Message string `json:"message"`
}

func (d Diagnostic) String() string {
	if d.Line == 0 {
		return d.File + ": " + d.Message
	}
	return fmt.Sprintf("%s:%d:%d: %s", d.File, d.Line, d.Column, d.Message)
}

// TemplateError is a template that does not compile, or whose signature boxes are not those of its manifest.
type TemplateError struct{ Diagnostics []Diagnostic }

func (e *TemplateError) Error() string {
	lines := make([]string, 0, len(e.Diagnostics))
	for _, d := range e.Diagnostics {
		lines = append(lines, d.String())
	}
	return "template: " + strings.Join(lines, "; ")
}

// Permanent is true: the template has to change first.
func (*TemplateError) Permanent() bool { return true }
