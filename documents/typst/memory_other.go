//go:build unix && !linux

package typst

func adviseHugePages([]byte) {}

// image is memory that does not change.
type image struct{ content []byte }

func newImage(b []byte, _ *image, _ int) (*image, error) {
	return &image{append([]byte(nil), b...)}, nil
}

func (m *image) own() int { return len(m.content) }

func (m *image) close() {}

// cover copies: only Linux has children, and there it maps.
func (m *image) cover(space []byte) error {
	copy(space, m.content)
	return nil
}
