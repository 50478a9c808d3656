package archive

// Hook is called at the moments at which something becomes durable, so that crash tests can end the process there. A
// nil Hook calls nothing.
type Hook func(point string)

// Around calls the hook with "<operation>:before" and "<operation>:after" around do. There is no after if do fails.
func (h Hook) Around(operation string, do func() error) error {
	if h == nil {
		return do()
	}
	h(operation + ":before")
	if err := do(); err != nil {
		return err
	}
	h(operation + ":after")
	return nil
}
