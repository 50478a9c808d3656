//go:build !linux

package verify

// adviseHugePages does nothing: only Linux has children.
func adviseHugePages([]byte) {}
