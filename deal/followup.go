package deal

// Undecided reports whether a deal that a record shows like this has had no outcome yet. What is held has none either: a
// person still has to decide.
func (s Status) Undecided() bool {
	return s == StatusQueued || s == StatusAwaiting || s == StatusHeld
}
