package pdf

import "fmt"

// SyntaxError says where a file is damaged or against the standard. The file will not get better: it is permanent.
type SyntaxError struct {
	Offset int64 // byte of the file, from its very beginning
	Reason string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("pdf: byte %d: %s", e.Offset, e.Reason) }

// Permanent is true: reading the file again gives the same error.
func (e *SyntaxError) Permanent() bool { return true }

// LimitError says that a file asks for more than this package is willing to spend on it.
type LimitError struct {
	Offset int64 // byte of the file where the budget ended
	What   string
	Limit  int64
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("pdf: byte %d: %s: the limit is %d", e.Offset, e.What, e.Limit)
}

// Permanent is true: the budgets are constants.
func (e *LimitError) Permanent() bool { return true }

// EncryptedError refuses an encrypted file: an update to it would have to be encrypted too.
type EncryptedError struct{}

func (*EncryptedError) Error() string {
	return "pdf: the file is encrypted; save it without a password or restrictions first"
}

// Permanent is true: the file stays encrypted.
func (*EncryptedError) Permanent() bool { return true }
