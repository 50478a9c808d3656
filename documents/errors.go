package documents

import (
	"fmt"
	"strings"
)

// BundleError says what is wrong with a template bundle: which file of it, where known which line, and the cure.
type BundleError struct {
	File   string // path inside the bundle, or the folder itself
	Line   int    // 1-based; 0 when the fault has no line
	Reason string
}

func (e *BundleError) Error() string {
	if e.Line > 0 {
		return fmt.Sprintf("template: %s:%d: %s", e.File, e.Line, e.Reason)
	}
	return fmt.Sprintf("template: %s: %s", e.File, e.Reason)
}

// Permanent is true: a bundle does not mend itself.
func (*BundleError) Permanent() bool { return true }

// FieldError holds a deal because a field of its record cannot stand in a contract. It never carries the value.
type FieldError struct {
	Field   string   // dotted path in the document record
	Source  string   // CRM path that feeds the field; empty when it is not known or the value is a constant
	Problem string   // "is missing or blank" and the like
	Others  []string // further fields with a fault, so that a person can mend all at once
}

func (e *FieldError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "field %q", e.Field)
	if e.Source != "" {
		fmt.Fprintf(&b, " (from %s)", e.Source)
	}
	b.WriteByte(' ')
	b.WriteString(e.Problem)
	if len(e.Others) > 0 {
		fmt.Fprintf(&b, "; also: %s", strings.Join(e.Others, ", "))
	}
	return b.String()
}

// Permanent is true: the record has to change first.
func (*FieldError) Permanent() bool { return true }

// TextError holds a deal because a text in its record would not print as it reads: a control or bidi character, a
// character that no font has, a text beyond the limits.
type TextError struct {
	Field  string // dotted path in the document record, or the template file for a fault in its own text
	Rune   rune   // the offending character, or NoRune
	Reason string
}

// NoRune stands in a TextError that is about a size.
const NoRune rune = -1

func (e *TextError) Error() string {
	if e.Rune != NoRune {
		return fmt.Sprintf("field %q holds U+%04X: %s", e.Field, e.Rune, e.Reason)
	}
	return fmt.Sprintf("field %q: %s", e.Field, e.Reason)
}

// Permanent is true: the record has to change first.
func (*TextError) Permanent() bool { return true }

// AmountError holds a deal because the total that the document would print is not the amount in the CRM. The message
// names both places; the figures are business data and come only from Figures.
type AmountError struct {
	Document string // path of the computed total in the document record
	CRM      string // CRM path of the amount
	Currency string // ISO 4217 code

	computed, stated string
}

func (e *AmountError) Error() string {
	return fmt.Sprintf("the total computed for %q differs from the CRM's %q", e.Document, e.CRM)
}

// Permanent is true: line items or amount have to change first.
func (*AmountError) Permanent() bool { return true }

// Figures returns the total of the document and the amount of the CRM as plain decimals, for the status page only.
func (e *AmountError) Figures() (computed, stated string) { return e.computed, e.stated }

// ApprovalError refuses a draft template where contracts are real.
type ApprovalError struct{ Template string }

func (e *ApprovalError) Error() string {
	return fmt.Sprintf("template %s is a draft: only an approved template may make contracts in production "+
		"(set approval: {state: approved, by: …, on: …} in its template.yaml)", e.Template)
}

// Permanent is true: someone has to approve the template first.
func (*ApprovalError) Permanent() bool { return true }
